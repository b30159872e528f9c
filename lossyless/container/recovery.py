"""Finding the intact chunks of a damaged file, without trusting its index.

The time is linear in the size of the file, whatever it contains.
"""

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
        n_written, _ = file.read_total()
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
    contradicting = _remove_contradicting(found, n_written)
    lost = _gaps(found) if index is None else _missing(found, index)
    damaged += lost_bytes + contradicting + lost
    return [found[number] for number in sorted(found)], n_written, damaged


def _scan(file: ContainerFile, end: int) -> tuple[dict[int, Chunk], list[str]]:
    """The intact chunks before byte `end` by their numbers, and what lies between them.

    Behind a damaged payload the search goes on from its start, since a part of the file may have
    been cut out. Many heads that claim the same bytes would make that slow: once as many bytes as
    the file has were in vain, a chunk is skipped as a whole.
    """
    found: dict[int, Chunk] = {}
    damaged: list[str] = []
    markers = _Markers(file, end)
    n_in_vain = 0
    position = foreign = file.first_chunk  # `foreign`: where bytes begin that are no chunk
    while position < end:
        chunk = file.read_head(position)
        if chunk is None:
            position = markers.next(position + 1)
            continue
        damaged += _foreign_bytes(file, foreign, position)
        if file.is_intact(chunk):
            found.setdefault(chunk.number, chunk)
            position = chunk.end
        else:
            n_in_vain += chunk.length
            next_start = chunk.end if n_in_vain > file.size else position + 1
            position = markers.next(next_start)
            damaged.append(
                f"{file.path}: chunk {chunk.number}, which is damaged, starts at byte "
                f"{chunk.offset}; skipped to {position}"
            )
        foreign = position
    return found, damaged + _foreign_bytes(file, foreign, end)


def _foreign_bytes(file: ContainerFile, start: int, stop: int) -> list[str]:
    """What is said of bytes that are no chunk; nothing of an index, which is reported already."""
    is_index = stop == file.size and file.read_at(start, len(INDEX_MARKER)) == INDEX_MARKER
    if start >= stop or is_index:
        return []
    return [f"{file.path}: no chunk starts at byte {start}; skipped to {stop}"]


class _Markers:
    """Finds bytes from which chunks may start; reads no block of the file twice in a row."""

    def __init__(self, file: ContainerFile, end: int):
        self._file, self._end = file, end
        self._start, self._block = 0, b""

    def next(self, position: int) -> int:
        """First byte in [position, end) where a marker lies, or `end`."""
        overlap = len(CHUNK_MARKER) - 1
        while position + overlap < self._end:
            if not self._start <= position < self._start + len(self._block) - overlap:
                n_bytes = min(READ_BLOCK, self._end - position)
                self._start = position
                self._block = self._file.read_at(position, n_bytes) or bytes(n_bytes)
            found = self._block.find(CHUNK_MARKER, position - self._start)
            if found >= 0:
                return self._start + found
            position = self._start + len(self._block) - overlap
        return self._end


def _remove_contradicting(found: dict[int, Chunk], n_written: int | None) -> list[str]:
    """Removes chunks whose examples overlap those before, or lie beyond the last; their numbers.

    Damage does not make such chunks; whoever forges checksums does.
    """
    reasons = []
    n_examples = 0
    for number in sorted(found):
        chunk = found[number]
        end = chunk.first + chunk.n_examples
        if chunk.first < n_examples or (n_written is not None and end > n_written):
            del found[number]
            reasons.append(f"chunk {number} claims examples {chunk.first} to {end - 1}, wrongly")
        else:
            n_examples = end
    return reasons


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
