"""Compressed files.

Each module builds on those above it:

    format   the byte layout
    scan     opens files: header, chunks, damage
    labels   labels and names in chunks
    writer   write_features
    reader   FeatureFile: random access; FeatureDataset: for data loaders
    merging  merge_files
"""

from lossyless.files.format import ContainerError, Header
from lossyless.files.labels import read_labels, read_names
from lossyless.files.merging import merge_files
from lossyless.files.reader import FeatureDataset, FeatureFile
from lossyless.files.scan import describe, stored_meta
from lossyless.files.writer import FileWriter, Written, rebatch, write_features
from lossyless.parallel import WorkerError

__all__ = [
    "ContainerError",
    "FeatureDataset",
    "FeatureFile",
    "FileWriter",
    "Header",
    "WorkerError",
    "Written",
    "describe",
    "merge_files",
    "read_labels",
    "read_names",
    "rebatch",
    "stored_meta",
    "write_features",
]
