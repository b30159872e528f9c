"""Integer CDF tables of entropy models."""

import hashlib
from dataclasses import dataclass, field

import constriction
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lossyless.payloads import INT32, CodingError

Categorical = constriction.stream.model.Categorical

TOTAL_MASS = 1 << 16
ESCAPE_BITS = 32  # an escaped value is written as an int32


@dataclass(frozen=True, eq=False)
class CDFTables:
    """Cumulative distributions of an entropy model, in CompressAI's layout.

    Attributes
    ----------
    cdfs : int32 [n_tables, max_length]
        Row t rises strictly from 0 to 65536 in its first `lengths[t]` values; the rest is padding.
    lengths : int32 [n_tables]
        Entry i of table t has the mass `cdfs[t, i + 1] - cdfs[t, i]`; the last of the
        `lengths[t] - 1` entries is the mass of all symbols that the table does not list.
    offsets : int32 [n_tables]
        Symbol of entry 0.
    """

    cdfs: NDArray[np.int32]
    lengths: NDArray[np.int32]
    offsets: NDArray[np.int32]
    _models: dict[int, Categorical] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, n_dims in (("cdfs", 2), ("lengths", 1), ("offsets", 1)):
            object.__setattr__(self, name, _int32_copy(getattr(self, name), n_dims, name))
        n_tables, max_length = self.cdfs.shape
        if not len(self.lengths) == len(self.offsets) == n_tables:
            raise CodingError(
                f"expected one length and one offset for each of the {n_tables} rows of cdfs, "
                f"found {len(self.lengths)} lengths and {len(self.offsets)} offsets"
            )
        in_row = np.arange(max_length) < self.lengths[:, None]
        last = self.lengths.astype(np.int64) - 1
        self.cdfs[~in_row] = TOTAL_MASS  # padding is not part of a table, nor of its fingerprint
        for t in range(n_tables):
            if not 2 <= self.lengths[t] <= max_length:
                raise CodingError(f"lengths[{t}] is {self.lengths[t]}, not in [2, {max_length}]")
            if self.cdfs[t, 0] != 0 or self.cdfs[t, last[t]] != TOTAL_MASS:
                raise CodingError(f"cdfs[{t}] does not go from 0 to {TOTAL_MASS}")
            if (np.diff(self.cdfs[t, : last[t] + 1]) <= 0).any():
                raise CodingError(f"cdfs[{t}] does not rise strictly: an entry has no mass")
        if (self.offsets + last > INT32.max).any():
            raise CodingError("offsets + lengths go beyond int32")
        for array in (self.cdfs, self.lengths, self.offsets):
            array.flags.writeable = False

    @classmethod
    def from_compressai(cls, entropy_model) -> "CDFTables":
        """Tables of a `compressai.entropy_models.EntropyModel` on which `update()` was called."""
        names = ("_quantized_cdf", "_cdf_length", "_offset")
        arrays = [getattr(entropy_model, name).detach().cpu().numpy() for name in names]
        if any(array.size == 0 for array in arrays):
            raise CodingError(
                f"{type(entropy_model).__name__} has no CDF tables: call its update() before coding"
            )
        return cls(*arrays)

    def __reduce__(self):
        """Copies and pickles hold the tables only: the models of constriction cannot be pickled."""
        return type(self), (self.cdfs, self.lengths, self.offsets)

    @property
    def n_tables(self) -> int:
        return len(self.lengths)

    @property
    def escapes(self) -> NDArray[np.int32]:
        """Escape entry of each table, which is also its number of listed symbols, [n_tables]."""
        return self.lengths - 2

    def fingerprint(self) -> bytes:
        """16 bytes that tell these tables from others (BLAKE2b)."""
        digest = hashlib.blake2b(digest_size=16)
        for array in (self.lengths, self.offsets, self.cdfs[self.cdfs < TOTAL_MASS]):
            digest.update(np.int64(array.size).astype("<i8").tobytes())
            digest.update(array.astype("<i4").tobytes())
        return digest.digest()

    def model(self, table: int) -> Categorical:
        """constriction's model over the entries of a table with at least two entries."""
        if table not in self._models:
            masses = np.diff(self.cdfs[table, : self.lengths[table]])
            self._models[table] = Categorical(masses / float(TOTAL_MASS), perfect=False)
        return self._models[table]

    def entries(self, symbols: NDArray[np.int32], index: NDArray[np.integer]) -> NDArray[np.int32]:
        """Table entry of each symbol; `index`, the table of each, broadcasts against `symbols`.

        As unsigned integers, symbols below the offset wrap to values above all entries, so that one
        minimum sends both sides to the escape entry.
        """
        relative = np.subtract(symbols, self.offsets[index], dtype=np.int32).view(np.uint32)
        escapes = self.escapes[index].view(np.uint32)
        return np.minimum(relative, escapes).view(np.int32)

    def information(self, symbols: ArrayLike, index: ArrayLike) -> NDArray[np.float64]:
        """Bits that each symbol costs, [N, D]; for an escaped one with the bits of its value.

        Arguments as for `TableCoder.encode`.
        """
        symbols = check_symbols(symbols)
        index = check_index(index, symbols.shape, self.n_tables)
        entries = self.entries(symbols, index)
        masses = self.cdfs[index, entries + 1] - self.cdfs[index, entries]
        n_bits = np.log2(TOTAL_MASS) - np.log2(masses)
        return n_bits + ESCAPE_BITS * (entries == self.escapes[index])


def check_symbols(symbols: ArrayLike) -> NDArray[np.int32]:
    """The symbols as int32 [N, D]; CodingError if they are no such integers."""
    symbols = np.asarray(symbols)
    if symbols.ndim != 2 or not np.issubdtype(symbols.dtype, np.integer):
        raise CodingError(
            f"expected integer symbols [N, D], found {symbols.dtype} {list(symbols.shape)}"
        )
    if symbols.size and not INT32.min <= symbols.min() <= symbols.max() <= INT32.max:
        raise CodingError(f"symbols in [{symbols.min()}, {symbols.max()}] do not fit into int32")
    return symbols.astype(np.int32, copy=False)


def check_index(index: ArrayLike, shape: tuple[int, ...], n_tables: int) -> NDArray[np.integer]:
    """The index as an array; CodingError unless it names tables for symbols of a shape [N, D]."""
    index = np.asarray(index)
    if index.size == 0:
        index = index.astype(np.int64)  # an empty list has no dtype of its own
    if len(shape) != 2 or shape[0] < 0 or index.shape not in (shape, shape[1:]):
        raise CodingError(
            f"expected index of shape {list(shape[1:])} or {list(shape)} for symbols of shape "
            f"{list(shape)}, found {list(index.shape)}"
        )
    if not np.issubdtype(index.dtype, np.integer):
        raise CodingError(f"expected integers in index, found {index.dtype}")
    if index.size and not 0 <= index.min() <= index.max() < n_tables:
        raise CodingError(
            f"index in [{index.min()}, {index.max()}], but there are {n_tables} tables"
        )
    return index


def _int32_copy(array: ArrayLike, n_dims: int, name: str) -> NDArray[np.int32]:
    array = np.asarray(array)
    if array.ndim != n_dims or not np.issubdtype(array.dtype, np.integer):
        raise CodingError(
            f"{name}: expected {n_dims}-D integers, found {array.dtype} {list(array.shape)}"
        )
    if array.size and not INT32.min <= array.min() <= array.max() <= INT32.max:
        raise CodingError(f"{name}: values do not fit into int32")
    return array.astype(np.int32, order="C", copy=True)
