import numpy as np
import pytest

from lossyless.coding.cell_means import CellMeans
from lossyless.coding.escapes import code_lengths
from lossyless.coding.histograms import NonZeros, fit_tables
from lossyless.coding.rdo import ESCAPE_ORDER, cheaper_cells
from lossyless.coding.tables import TOTAL_MASS


@pytest.mark.parametrize("with_means", [False, True])
def test_symbols_have_the_smallest_cost_of_their_candidates(with_means):
    rng = np.random.default_rng(0)
    x = rng.laplace(size=(200, 5)) * [0.3, 0.6, 1, 2, 4]
    cells = np.rint(x).astype(np.int32)
    found = NonZeros(np.nonzero(cells)[1], cells[cells != 0], x.shape)
    tables, _ = fit_tables(found)
    means = CellMeans.fit(found, x[cells != 0], x.sum(0), tables)
    weight = 0.2
    if not with_means:
        means = None

    x = np.concatenate([x, 3 * x])  # some are escaped
    index = rng.permuted(np.tile(np.arange(5, dtype=np.uint8), (len(x), 1)), axis=1)
    cells = np.rint(x).astype(np.int32)
    chosen = cheaper_cells(x, cells, tables, index=index, means=means, weight=weight)

    def cost(value: float, symbol: int, table: int) -> float:
        entry, n_listed = symbol - tables.offsets[table], tables.escapes[table]
        distance = -2 * entry - 1 if entry < 0 else 2 * (entry - n_listed)
        is_listed = 0 <= entry < n_listed
        mass = np.diff(tables.cdfs[table])[entry if is_listed else n_listed]
        bits = np.log2(TOTAL_MASS / mass)
        bits += 0 if is_listed else code_lengths(np.array([distance]), ESCAPE_ORDER)[0]
        point = symbol + (means.steps[table, entry] / 128 if means and is_listed else 0)
        return (value - point) ** 2 + weight * bits

    flat = (array.ravel() for array in (x, cells, index, chosen))
    for value, cell, table, symbol in zip(*flat, strict=True):
        best = min((cell, cell - np.sign(cell), 0), key=lambda s: cost(value, s, table))
        assert symbol == best
