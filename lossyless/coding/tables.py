"""Integer CDF tables of entropy models."""

from dataclasses import dataclass, field

import constriction
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lossyless.coding.payloads import INT32, CodingError

Categorical = constriction.stream.model.Categorical

TOTAL_MASS = 1 << 16
MAX_LISTED = 4096  # most symbols that a table lists; others are escaped
PMF_ONE = 1 << 24  # integer that represents probability 1
MAX_WEIGHTS = 1 << 46  # largest sum of the weights of a table: products with masses fit into int64
# Listing a symbol of probability p saves 32 p bits, those of an escaped int32, and takes mass from
# the others if its entry needs more than p: (1 / TOTAL_MASS - p) / ln 2 bits. The ratio of the
# slopes is 32 ln 2, here an integer, which compares alike on every machine. Escapes take fewer bits
# today, but this price determines all tables, and so all fingerprints.
ESCAPE_PRICE = 22


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
    _wider: dict[int, "CDFTables"] = field(default_factory=dict, init=False, repr=False)

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
        self.cdfs[~in_row] = TOTAL_MASS  # makes the fingerprint independent of the padding
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

    @classmethod
    def from_weights(
        cls, weights: NDArray[np.integer], lengths: ArrayLike, offsets: ArrayLike
    ) -> "CDFTables":
        """Tables with masses proportional to weights, as far as integers of at least 1 can be.

        Uses integer arithmetic only, so that tables are the same on every machine.

        Parameters
        ----------
        weights : integers [n_tables, max_length - 1]
            Non-negative weights of the entries of each table; the escape is the last one, entry
            `lengths[t] - 2`. The rest of a row is ignored.
        lengths, offsets : see `CDFTables`
        """
        n_entries = np.asarray(lengths) - 1
        masses = _apportion(np.asarray(weights, np.int64), n_entries)
        cdfs = np.zeros((len(masses), masses.shape[1] + 1), np.int64)
        np.cumsum(masses, axis=1, out=cdfs[:, 1:])
        return cls(cdfs, lengths, offsets)

    @classmethod
    def from_pmf(
        cls, pmf: NDArray[np.integer], first_symbols: ArrayLike, starts: ArrayLike
    ) -> "CDFTables":
        """Tables of the least expected size for integer probabilities.

        Each lists the cheapest range of at most `MAX_LISTED` symbols, and escapes the rest.

        Parameters
        ----------
        pmf : integers [n_tables, n_symbols]
            In units of 1 / PMF_ONE; symbols outside of a row have the rest of the probability.
        first_symbols : integers [n_tables]
            Symbol of the first column.
        starts : integers [n_tables]
            Column of the median, from which the range grows to both sides.
        """
        first, stop = listed_ranges(pmf, starts)
        n_listed = stop - first
        columns = first[:, None] + np.arange(n_listed.max(initial=0) + 1)
        in_range = columns < stop[:, None]
        weights = np.take_along_axis(pmf, np.minimum(columns, pmf.shape[1] - 1), axis=1)
        weights = np.where(in_range, weights, 0)
        escapes = np.maximum(PMF_ONE - weights.sum(1), 0)
        np.put_along_axis(weights, n_listed[:, None], escapes[:, None], axis=1)
        return cls.from_weights(weights, n_listed + 2, first_symbols + first)

    def __reduce__(self):
        """Copies and pickles hold the tables only: constriction's models cannot be pickled."""
        return type(self), (self.cdfs, self.lengths, self.offsets)

    @property
    def n_tables(self) -> int:
        return len(self.lengths)

    @property
    def escapes(self) -> NDArray[np.int32]:
        """Escape entry of each table, which is also its number of listed symbols, [n_tables]."""
        return self.lengths - 2

    def with_escape_mass(self, mass: int) -> "CDFTables":
        """Tables whose escapes have at least a mass; listed symbols share the rest as they do here.

        For symbols from a wider distribution than that of the tables, in which escapes are rare.
        """
        if mass == 1:  # all entries have it
            return self
        if mass not in self._wider:
            weights = np.diff(self.cdfs).astype(np.int64)
            escapes = self.escapes[:, None]
            own = np.take_along_axis(weights, escapes, axis=1)
            wanted = np.maximum(own, mass)
            weights *= TOTAL_MASS - wanted
            # a table without other symbols keeps its only mass
            np.put_along_axis(weights, escapes, wanted * np.maximum(TOTAL_MASS - own, 1), axis=1)
            self._wider[mass] = self.from_weights(weights, self.lengths, self.offsets)
        return self._wider[mass]

    def model(self, table: int) -> Categorical:
        """constriction's model over the entries of a table with at least two entries."""
        if table not in self._models:
            masses = np.diff(self.cdfs[table, : self.lengths[table]])
            self._models[table] = Categorical(masses / float(TOTAL_MASS), perfect=False)
        return self._models[table]


def listed_ranges(
    pmf: NDArray[np.integer], starts: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First column to list of each row, and the column after the last, [n_tables] each.

    Savings of listed symbols add up, so the best end on each side is where their sum from the start
    is largest. Arguments as for `CDFTables.from_pmf`.
    """
    starts = np.asarray(starts)[:, None]
    columns = np.arange(pmf.shape[1])
    savings = ESCAPE_PRICE * pmf - np.maximum(PMF_ONE // TOTAL_MASS - pmf, 0)
    right = np.cumsum(np.where(columns > starts, savings, 0), axis=1)
    left = np.cumsum(np.where(columns < starts, savings, 0)[:, ::-1], axis=1)[:, ::-1]
    half = MAX_LISTED // 2
    in_reach = (columns >= starts - half) & (columns < starts + half)
    lowest = np.iinfo(np.int64).min
    first = np.where(in_reach & (columns <= starts), left, lowest)
    last = np.where(in_reach & (columns >= starts), right, lowest)
    # of equal savings, take the shortest range: the last maximum here, the first one below
    first = pmf.shape[1] - 1 - first[:, ::-1].argmax(1)
    return first, last.argmax(1) + 1


def _apportion(weights: NDArray[np.int64], n_entries: NDArray[np.int64]) -> NDArray[np.int64]:
    """Integer masses >= 1 of the first `n_entries` of each row, whose sums are TOTAL_MASS.

    Proportional to the weights by largest remainders (Hamilton's method), except for entries whose
    share is below 1, which get 1. All other columns get 0.
    """
    in_table = np.arange(weights.shape[1]) < n_entries[:, None]
    if not (n_entries >= 1).all() or (n_entries > min(weights.shape[1], TOTAL_MASS)).any():
        raise CodingError(f"tables need 1 to {TOTAL_MASS} entries and as many weights")
    weights = np.where(in_table, weights, 0)
    total = weights.sum(1, keepdims=True)
    if (weights < 0).any() or (total <= 0).any() or (total > MAX_WEIGHTS).any():
        raise CodingError(f"weights of tables must have a sum in [1, {MAX_WEIGHTS}]")
    at_least_1 = np.zeros_like(in_table)
    while True:  # a mass of 1 for some entries can push the share of others below 1
        to_share = TOTAL_MASS - at_least_1.sum(1, keepdims=True)
        shared = np.where(in_table & ~at_least_1, weights, 0)
        total = shared.sum(1, keepdims=True)
        below_1 = in_table & ~at_least_1 & (shared * to_share < total)
        if not below_1.any():
            break
        at_least_1 |= below_1
    masses, remainders = np.divmod(shared * to_share, np.maximum(total, 1))
    n_left = to_share - masses.sum(1, keepdims=True)
    rank = np.argsort(np.argsort(-remainders, axis=1, kind="stable"), axis=1, kind="stable")
    return masses + at_least_1 + (rank < n_left)


def _int32_copy(array: ArrayLike, n_dims: int, name: str) -> NDArray[np.int32]:
    array = np.asarray(array)
    if array.ndim != n_dims or not np.issubdtype(array.dtype, np.integer):
        raise CodingError(
            f"{name}: expected {n_dims}-D integers, found {array.dtype} {list(array.shape)}"
        )
    if array.size and not INT32.min <= array.min() <= array.max() <= INT32.max:
        raise CodingError(f"{name}: values do not fit into int32")
    return array.astype(np.int32, order="C", copy=True)
