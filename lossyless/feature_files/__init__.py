"""Files of compressed features, on top of the container.

Each module builds on those above it:

    codecs       what turns features into payloads
    workers      entropy coding in several processes
    writing      write_features
    reading      FeatureFile: random access, damage
    dataset      FeatureDataset, for data loaders
    merging      merge_files
    description  describe
"""

from lossyless.base import Codec
from lossyless.feature_files.dataset import FeatureDataset
from lossyless.feature_files.description import describe
from lossyless.feature_files.merging import merge_files
from lossyless.feature_files.reading import FeatureFile
from lossyless.feature_files.writing import Written, write_features
from lossyless.parallel import WorkerError

__all__ = [
    "Codec",
    "FeatureDataset",
    "FeatureFile",
    "WorkerError",
    "Written",
    "describe",
    "merge_files",
    "write_features",
]
