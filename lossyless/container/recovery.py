"""Finding the intact chunks of a damaged file, without trusting its index."""

from itertools import pairwise

from lossyless.container.file import Chunk, ContainerFile
from lossyless.container.format import (
    CHUNK,
    CHUNK_HEAD_SIZE,
    CHUNK_MARKER,
    FOOTER,
    INDEX,
    INDEX_ENTRY,
    INDEX_MARKER,
    ContainerError,
)

SCAN_BLOCK = 1 << 20


def recover_chunks(file: ContainerFile) -> tuple[list[Chunk], list[str]]:
    """All intact chunks, found by their markers, in the order of their numbers; and all damage."""
    damaged: list[str] = []
    try:
        index = file.read_index()
    except ContainerError as error:
        damaged.append(str(error))
        index, end = None, file.size
    else:
        end = file.size - FOOTER.size - INDEX.size - len(index) * INDEX_ENTRY.size
    found: dict[int, Chunk] = {}
    position = file.first_chunk
    while position < end:
        try:
            chunk, position = _scan_chunk(file, position)
            found.setdefault(chunk.number, chunk)
        except ContainerError as error:
            start, position = position, _find_marker(file, position + 1, end)
            is_index = file.read_at(start, len(INDEX_MARKER)) == INDEX_MARKER
            if position < end or not is_index:  # a damaged index is reported already
                damaged.append(f"bytes {start} to {position}: {error}")
    lost = _gaps(found) if index is None else _missing(found, index)
    return [found[number] for number in sorted(found)], damaged + lost


def _scan_chunk(file: ContainerFile, position: int) -> tuple[Chunk, int]:
    """The chunk that starts at a byte, and the byte after it. Raises ContainerError if none."""
    head = file.read_at(position, CHUNK_HEAD_SIZE)
    if head is None or not head.startswith(CHUNK_MARKER):
        raise file.error("no chunk starts here")
    _, number, n_examples, _ = CHUNK.unpack_from(head)
    chunk = Chunk(number, position, n_examples)
    return chunk, position + CHUNK_HEAD_SIZE + len(file.read_chunk(chunk))


def _find_marker(file: ContainerFile, position: int, end: int) -> int:
    """First byte in [position, end) from which a chunk may start, or `end`."""
    overlap = len(CHUNK_MARKER) - 1
    while position + overlap < end:
        block = file.read_at(position, min(SCAN_BLOCK, end - position)) or b""
        start = block.find(CHUNK_MARKER)
        if start >= 0:
            return position + start
        position += max(len(block), SCAN_BLOCK) - overlap
    return end


def _gaps(found: dict[int, Chunk]) -> list[str]:
    """What is lost, judged by the numbers of the chunks that were found."""
    return [
        f"chunks {before + 1} to {after - 1} are lost"
        for before, after in pairwise([-1, *sorted(found)])
        if after - before > 1
    ]


def _missing(found: dict[int, Chunk], index: list[Chunk]) -> list[str]:
    """What is lost or displaced, judged by an intact index."""
    reasons = []
    for chunk in index:
        if chunk.number not in found:
            reasons.append(f"chunk {chunk.number} ({chunk.n_examples} examples) is lost")
        elif found[chunk.number].offset != chunk.offset:
            reasons.append(
                f"chunk {chunk.number} lies at byte {found[chunk.number].offset}, the index "
                f"says {chunk.offset}"
            )
    return reasons
