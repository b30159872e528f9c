"""Compressed files.

Each module builds on those above it:

    format   the byte layout
    labels   labels and names stored in chunks
    scan     CompressedFile: header, chunks, labels, damage; needs no codec
    writer   write_features
    reader   FeatureFile: random access; FeatureDataset: for data loaders
    merging  merge_files
"""

from lossyless.files.format import ContainerError, Header
from lossyless.files.merging import merge_files
from lossyless.files.reader import FeatureDataset, FeatureFile
from lossyless.files.scan import CompressedFile
from lossyless.files.writer import FileWriter, Written, rebatch, write_features
from lossyless.parallel import WorkerError

__all__ = [
    "CompressedFile",
    "ContainerError",
    "FeatureDataset",
    "FeatureFile",
    "FileWriter",
    "Header",
    "WorkerError",
    "Written",
    "merge_files",
    "rebatch",
    "write_features",
]
