"""Tables are valid, and coding with them costs little more than the entropy."""

import numpy as np
import pytest
from helpers.toy import digest_of

from lossyless.coding.payloads import CodingError
from lossyless.coding.tables import MAX_LISTED, PMF_ONE, CDFTables


@pytest.mark.parametrize(
    "cdf, length, offset, match",
    [
        ([1, 65536], 2, 0, "from 0 to 65536"),
        ([0, 9, 65536], 2, 0, "from 0 to 65536"),
        ([0, 9, 9, 65536], 4, 0, "strictly increasing"),
        ([0, 9, 65536], 3, 2**31 - 1, "int32"),
    ],
)
def test_invalid_tables_are_errors(cdf, length, offset, match):
    with pytest.raises(CodingError, match=match):
        CDFTables([cdf], [length], [offset])


# --- tables of weights and probabilities


def masses_of(tables: CDFTables) -> list[np.ndarray]:
    rows = zip(tables.cdfs, tables.lengths, strict=True)
    return [np.diff(cdf[:length]) for cdf, length in rows]


def test_masses_are_within_one_of_the_shares_of_the_weights():
    rng = np.random.default_rng(0)
    weights = rng.integers(1000, 10**6, (50, 40))
    lengths = rng.integers(3, 42, 50)
    tables = CDFTables.from_weights(weights, lengths, np.zeros(50, int))
    for row, masses in zip(weights, masses_of(tables), strict=True):
        shares = 65536 * row[: len(masses)] / row[: len(masses)].sum()
        assert masses.sum() == 65536 and (np.abs(masses - shares) < 1).all()


def test_masses_cost_little_more_than_the_entropy_even_if_most_shares_are_below_one():
    weights = np.rint(2.0**40 * np.exp(-0.5 * (np.arange(-300, 300) / 9.0) ** 2)).astype(np.int64)
    masses = masses_of(CDFTables.from_weights(weights[None], [601], [0]))[0]
    p = weights / weights.sum()
    entropy = -(p * np.log2(np.maximum(p, 1e-300))).sum()
    assert masses.min() == 1 and masses.sum() == 65536
    assert 0 <= (p * (16 - np.log2(masses))).sum() - entropy < 0.02  # 500 entries take 500 of 65536


def test_scaled_weights_give_the_same_masses():
    weights = np.random.default_rng(0).integers(0, 2**20, (5, 100))
    a, b = (CDFTables.from_weights(w, [101] * 5, [0] * 5) for w in (weights, weights << 16))
    assert digest_of(a) == digest_of(b)


def expected_bits(pmf: np.ndarray, first: int, stop: int) -> float:
    """Expected cost of a table that lists `[first, stop)`."""
    listed = np.append(pmf[first:stop], pmf.sum() - pmf[first:stop].sum())
    masses = np.maximum(listed, 2**-16)
    n_bits = -(listed * np.log2(masses / masses.sum())).sum()
    return n_bits + 32 * listed[-1]


def test_the_listed_range_minimises_the_expected_cost():
    symbols = np.arange(-60, 61)
    pmf = np.exp(-np.abs(symbols) / np.where(symbols < 0, 1.0, 2.5))
    pmf /= pmf.sum()
    units = np.rint(pmf * PMF_ONE).astype(np.int64)
    tables = CDFTables.from_pmf(units[None], [-60], [60])
    first, n_listed = tables.offsets[0] + 60, tables.escapes[0]
    found = expected_bits(pmf, first, first + n_listed)
    ends = [(a, b) for a in range(61) for b in range(61, 122)]
    assert found <= min(expected_bits(pmf, *end) for end in ends) + 1e-5
    assert first > 0 and first + n_listed < len(pmf)


def test_wide_distributions_list_at_most_the_bound():
    pmf = np.full((1, 3 * MAX_LISTED), PMF_ONE // (3 * MAX_LISTED))
    tables = CDFTables.from_pmf(pmf, [7], [2 * MAX_LISTED])
    assert tables.escapes[0] == MAX_LISTED
    assert tables.offsets[0] == 7 + 2 * MAX_LISTED - MAX_LISTED // 2
    assert masses_of(tables)[0][-1] > 65536 * 0.6


def test_rounding_errors_of_probabilities_change_nothing():
    pmf = np.random.default_rng(0).dirichlet(np.ones(30), 20)
    tables = [
        CDFTables.from_pmf(np.rint(p * PMF_ONE).astype(np.int64), np.zeros(20, int), [15] * 20)
        for p in (pmf, pmf * (1 + 1e-15))
    ]
    assert digest_of(tables[0]) == digest_of(tables[1])
