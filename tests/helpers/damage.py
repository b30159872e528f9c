"""Functions that damage files."""

from pathlib import Path


def flip_bit(data: bytes, position: int, bit: int = 0) -> bytes:
    """A copy of the data with one bit of a byte flipped."""
    damaged = bytearray(data)
    damaged[position] ^= 1 << bit
    return bytes(damaged)


def damage(path: Path, share: float = 0.5) -> None:
    """Flip a bit at this fraction of the file's size."""
    data = path.read_bytes()
    path.write_bytes(flip_bit(data, int(share * len(data))))
