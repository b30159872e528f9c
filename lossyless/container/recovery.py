"""Finding the intact chunks of a damaged file, without trusting its index."""

from itertools import pairwise

from lossyless.container.file import READ_BLOCK, Chunk, ContainerFile
from lossyless.container.format import (
    CHUNK_MARKER,
    FOOTER,
    INDEX,
    INDEX_ENTRY,
    INDEX_MARKER,
    ContainerError,
)


def recover_chunks(file: ContainerFile) -> tuple[list[Chunk], int | None, list[str]]:
    """All intact chunks, found by their markers, in the order of their numbers; the number of
    examples that were written, or None where nothing intact tells it; and all damage.
    """
    damaged: list[str] = []
    index: list[Chunk] | None = None
    n_written: int | None = None
    try:
        n_written = file.read_total()
    except ContainerError as error:
        damaged.append(str(error))
    try:
        index = file.read_index()
    except ContainerError as error:
        damaged.append(str(error))
        end = file.size
    else:
        end = file.size - FOOTER.size - INDEX.size - len(index) * INDEX_ENTRY.size
        n_written = sum(chunk.n_examples for chunk in index)
    found, lost_bytes = _scan(file, end)
    lost = _gaps(found) if index is None else _missing(found, index)
    return [found[number] for number in sorted(found)], n_written, damaged + lost_bytes + lost


def _scan(file: ContainerFile, end: int) -> tuple[dict[int, Chunk], list[str]]:
    """The intact chunks before byte `end` by their numbers, and what lies between them."""
    found: dict[int, Chunk] = {}
    damaged: list[str] = []
    position = file.first_chunk
    while position < end:
        chunk = file.read_head(position)
        if chunk is not None and file.is_intact(chunk):
            found.setdefault(chunk.number, chunk)
            position = chunk.end
            continue
        start, position = position, _find_marker(file, position + 1, end)
        is_index = file.read_at(start, len(INDEX_MARKER)) == INDEX_MARKER
        if position < end or not is_index:  # a damaged index is reported already
            name = "no chunk" if chunk is None else f"chunk {chunk.number}, which is damaged,"
            damaged.append(f"{file.path}: {name} starts at byte {start}; skipped to {position}")
    return found, damaged


def _find_marker(file: ContainerFile, position: int, end: int) -> int:
    """First byte in [position, end) from which a chunk may start, or `end`."""
    overlap = len(CHUNK_MARKER) - 1
    while position + overlap < end:
        block = file.read_at(position, min(READ_BLOCK, end - position)) or b""
        start = block.find(CHUNK_MARKER)
        if start >= 0:
            return position + start
        position += max(len(block), READ_BLOCK) - overlap
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
