"""Files of compressed data sets.

Each module builds on those above it:

    format     what the bytes mean
    writer     ContainerWriter
    file       the parts of a file, each checked against its checksum
    recovery   the intact chunks of a damaged file
    reader     ContainerReader
"""

from lossyless.container.format import ContainerError, Header
from lossyless.container.reader import ContainerReader
from lossyless.container.writer import ContainerWriter

__all__ = ["ContainerError", "ContainerReader", "ContainerWriter", "Header"]
