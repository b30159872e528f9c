"""Integer CDF tables for entropy models."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import constriction
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lossyless.coding.payloads import INT32, CodingError

Categorical = constriction.stream.model.Categorical

TOTAL_MASS = 1 << 16
MAX_LISTED = 4096  # maximum number of symbols that a table made by `from_pmf` lists
PMF_ONE = 1 << 24  # integer that represents probability 1
# If an escape costs 32 bits, listing a symbol of probability p saves 32 p bits. If the entry needs
# more mass than p, other entries lose mass, which costs (1 / TOTAL_MASS - p) / ln 2 bits. The ratio
# of the two slopes in p is 32 ln 2, rounded to an integer so that comparisons are the same on every
# machine. Escapes now take fewer bits, but changing the price would change all fingerprints.
ESCAPE_PRICE = 22


@dataclass(frozen=True, eq=False)
class CDFTables:
    """Cumulative distributions of an entropy model, in CompressAI's layout.

    Entry i of table t has the mass `cdfs[t, i + 1] - cdfs[t, i]`. The last of its `lengths[t] - 1`
    entries is the escape, for all symbols that the table does not list.
    """

    #: [n_tables, max_length]; the first `lengths[t]` values of row t are strictly increasing from
    #: 0 to 65536, and the rest is padding
    cdfs: NDArray[np.int32]
    lengths: NDArray[np.int32]  # [n_tables]
    offsets: NDArray[np.int32]  # [n_tables], the symbol of each table's entry 0
    _models: dict[int, Categorical] = field(default_factory=dict, init=False, repr=False)
    _wider: dict[int, "CDFTables"] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        names = ("cdfs", "lengths", "offsets")
        cdfs, lengths, offsets = arrays = [np.array(getattr(self, name)) for name in names]
        if (offsets < INT32.min).any() or (
            offsets.astype(np.int64) + lengths - 1 > INT32.max
        ).any():
            raise CodingError("the symbols of a table do not fit into int32: check its offset")
        in_row = np.arange(cdfs.shape[1]) < lengths[:, None]
        cdfs[~in_row] = TOTAL_MASS  # makes the fingerprint independent of the padding
        last = cdfs[np.arange(len(cdfs)), lengths - 1]
        rises = ((np.diff(cdfs.astype(np.int64)) > 0) | ~in_row[:, 1:]).all()
        if not rises or (cdfs[:, 0] != 0).any() or (last != TOTAL_MASS).any():
            raise CodingError(f"cdfs must be strictly increasing from 0 to {TOTAL_MASS}")
        for name, array in zip(names, arrays, strict=True):
            object.__setattr__(self, name, np.ascontiguousarray(array, np.int32))
            getattr(self, name).flags.writeable = False

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
        """Tables with masses proportional to weights, up to rounding to integers of at least 1.

        Uses integer arithmetic only, so that tables are the same on every machine.

        Parameters
        ----------
        weights : integers [n_tables, max_length - 1]
            Non-negative weights of the entries of each table, with a sum in [1, 2^46]; the escape
            is the last one, entry `lengths[t] - 2`. The rest of a row is ignored.
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
        """Tables that nearly minimise the expected number of bits for integer probabilities.

        Each table lists the cheapest range of at most `MAX_LISTED` symbols, and escapes the rest.

        Parameters
        ----------
        pmf : integers [n_tables, n_symbols]
            In units of 1 / PMF_ONE; the remaining probability belongs to symbols outside the row.
        first_symbols : integers [n_tables]
            Symbol of the first column.
        starts : integers [n_tables]
            A likely column of each row, such as that of the median or of the mode: it is always
            listed, and the range extends from it in both directions.
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

    @classmethod
    def joined(cls, parts: Sequence["CDFTables"]) -> "CDFTables":
        """Concatenate the tables of all parts."""
        if len(parts) == 1:
            return parts[0]
        width = max(part.cdfs.shape[1] for part in parts)
        cdfs = [np.pad(p.cdfs, ((0, 0), (0, width - p.cdfs.shape[1]))) for p in parts]
        lengths, offsets = ([getattr(p, name) for p in parts] for name in ("lengths", "offsets"))
        return cls(*map(np.concatenate, (cdfs, lengths, offsets)))

    def __reduce__(self):
        """Copy and pickle the tables only: constriction's models cannot be pickled."""
        return type(self), (self.cdfs, self.lengths, self.offsets)

    @property
    def n_tables(self) -> int:
        return len(self.lengths)

    @property
    def escapes(self) -> NDArray[np.int32]:
        """Index of each table's escape, which is also its number of listed symbols, [n_tables]."""
        return self.lengths - 2

    def with_escape_mass(self, mass: int) -> "CDFTables":
        """Tables with escape masses of at least `mass`; other masses shrink in proportion.

        Use them for symbols that escape more often than the original tables expect.
        """
        if mass == 1:  # the mass of every entry is at least 1
            return self
        if mass not in self._wider:
            weights = np.diff(self.cdfs).astype(np.int64)
            escapes = self.escapes[:, None]
            own = np.take_along_axis(weights, escapes, axis=1)
            wanted = np.maximum(own, mass)
            weights *= TOTAL_MASS - wanted
            # the only entry of a table that lists no symbol keeps its mass
            np.put_along_axis(weights, escapes, wanted * np.maximum(TOTAL_MASS - own, 1), axis=1)
            self._wider[mass] = self.from_weights(weights, self.lengths, self.offsets)
        return self._wider[mass]

    def model(self, table: int) -> Categorical:
        """constriction's model of a table, which must have at least two entries."""
        if table not in self._models:
            masses = np.diff(self.cdfs[table, : self.lengths[table]])
            self._models[table] = Categorical(masses / float(TOTAL_MASS), perfect=False)
        return self._models[table]


def listed_ranges(
    pmf: NDArray[np.integer], starts: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first column to list in each row, and the column after the last one, [n_tables] each.

    Savings are additive, so the best end on either side is where their cumulative sum from the
    start is largest. For the arguments, see `CDFTables.from_pmf`.
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
    # if savings are equal, take the shortest range: the last maximum here, the first one below
    first = pmf.shape[1] - 1 - first[:, ::-1].argmax(1)
    return first, last.argmax(1) + 1


def _apportion(weights: NDArray[np.int64], n_entries: NDArray[np.int64]) -> NDArray[np.int64]:
    """Integer masses >= 1, which sum to TOTAL_MASS, for each row's first `n_entries` columns.

    They are proportional to the weights, rounded by the largest-remainder method (Hamilton's).
    Entries with a share below 1 get 1; columns outside the tables get 0.
    """
    in_table = np.arange(weights.shape[1]) < n_entries[:, None]
    weights = np.where(in_table, weights, 0)
    at_least_1 = np.zeros_like(in_table)
    while True:  # raising some entries to 1 can push the shares of others below 1
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
