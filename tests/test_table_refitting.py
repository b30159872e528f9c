"""Refitted tables pay for their description, and any damage to it raises."""

import functools
import pickle
import zlib

import numpy as np
import pytest
import torch

from lossyless.cdf_tables import MAX_LISTED, CDFTables
from lossyless.coders import ColumnCoder
from lossyless.payloads import CodingError
from lossyless.rates import HFactorized
from lossyless.table_refitting import SymbolCounts, decode_tables, refit
from lossyless.table_refitting.choices import INTEGER_FACTORS
from lossyless.table_refitting.counting import WINDOW
from lossyless.table_refitting.description import DIFFERENCES, difference_bits
from lossyless.table_refitting.fitting import _cheapest_change

N_COLUMNS, N = 64, 5000


@functools.cache
def base_tables() -> CDFTables:
    torch.manual_seed(0)
    rate = HFactorized(N_COLUMNS)
    scale = torch.linspace(0.5, 40, N_COLUMNS)[:, None, None]
    matrix = rate.prior.matrices[0].data
    matrix.copy_(torch.nn.functional.softplus(matrix).mul(scale).expm1().log())
    rate.update()
    return rate.tables["z"]


def draw(n: int = N, seed: int = 0) -> np.ndarray:
    """Symbols from the base tables."""
    tables, rng = base_tables(), np.random.default_rng(seed)
    uniform = rng.integers(0, 65536, (N_COLUMNS, n))
    entries = [
        np.searchsorted(cdf[:length], u, side="right") - 1
        for cdf, length, u in zip(tables.cdfs, tables.lengths, uniform, strict=True)
    ]
    return (np.stack(entries, axis=1) + tables.offsets).astype(np.int32)


def count(symbols: np.ndarray, chunk_size: int = 1000) -> SymbolCounts:
    counts = SymbolCounts(symbols.shape[1])
    for i in range(0, len(symbols), chunk_size):
        counts.add(symbols[i : i + chunk_size])
    return counts


def sizes(symbols: np.ndarray) -> tuple[int, int]:
    """Bytes with the base tables, and with refitted ones and their description."""
    base = base_tables()
    tables = refit(count(symbols), base)
    coder = ColumnCoder(tables)
    payload = coder.encode(symbols)
    np.testing.assert_array_equal(coder.decode(payload, len(symbols)), symbols)
    fixed = len(ColumnCoder(base).encode(symbols))
    return fixed, len(payload) + len(tables.description)


def drifted(kind: str) -> np.ndarray:
    symbols, rng = draw(), np.random.default_rng(9)
    match kind:
        case "shifted":
            return symbols + 1
        case "far":
            return symbols + 10_000
        case "narrow":
            return np.rint(0.7 * symbols).astype(np.int32)
        case "wide":
            return np.rint(1.5 * symbols + rng.uniform(-0.5, 0.5, symbols.shape)).astype(np.int32)
        case "two modes":
            return symbols + 6 * rng.integers(0, 2, symbols.shape, np.int32)
        case "one column":
            symbols[:, 7] = 3
            return symbols
        case "mixture":
            symbols[: N // 4] += 2
            return symbols


KINDS = ["shifted", "far", "narrow", "wide", "two modes", "one column", "mixture"]


# --- sizes


@pytest.mark.parametrize("kind", KINDS)
def test_data_that_differ_from_the_model_get_smaller(kind):
    fixed, adapted = sizes(drifted(kind))
    assert adapted < fixed


@pytest.mark.parametrize("n", [0, 1, 30, 5000])
def test_data_of_the_model_itself_never_cost_more_than_a_header(n):
    fixed, adapted = sizes(draw(n))
    assert adapted <= fixed + 6


@pytest.mark.parametrize("n", [1, 20, 500])
@pytest.mark.parametrize("spread", [1, 100, 2**31])
def test_no_data_cost_more_than_a_header(n, spread):
    symbols = np.random.default_rng(n).integers(-spread, spread, (n, N_COLUMNS)).astype(np.int32)
    fixed, adapted = sizes(symbols)
    assert adapted <= fixed + 6 + 4  # and a word of the stream, which rounds


def test_the_tables_of_drifted_data_are_near_their_own_entropy():
    symbols = drifted("far")
    entropy = 0.0
    for column in symbols.T:
        _, n = np.unique(column, return_counts=True)
        entropy -= (n * np.log2(n / N)).sum() / 8
    _, adapted = sizes(symbols)
    assert adapted < 1.03 * entropy


def test_tables_of_data_of_the_model_are_the_base_tables():
    tables = refit(count(draw()), base_tables())
    assert tables.fingerprint() == base_tables().fingerprint()
    assert len(tables.description) == 6


# --- counting


def test_counts_do_not_depend_on_how_many_are_added_at_a_time():
    symbols = drifted("wide")
    whole = count(symbols, N)
    expected = whole.entries(base_tables())
    assert whole.n_examples == N and (expected.sum(1) == N).all()
    for chunk_size in (1, 100, 257, 999):
        parts = count(symbols, chunk_size)
        np.testing.assert_array_equal(parts.entries(base_tables()), expected)


def test_counts_of_entries_are_those_of_the_table():
    symbols, tables = drifted("wide"), base_tables()
    entries = tables.entries(symbols, np.arange(N_COLUMNS))
    counted = count(symbols).entries(tables)
    for column, row in zip(entries.T, counted, strict=True):
        np.testing.assert_array_equal(np.bincount(column, minlength=len(row)), row)


def test_far_symbols_count_as_escaped_and_do_not_wrap_around():
    symbols = np.array([[0], [2**31 - 1], [-(2**31)], [WINDOW], [0]], np.int32)
    for origin in (0, 2**31 - 1, -(2**31)):
        counts = SymbolCounts(1)
        counts.add(np.full((9, 1), origin, np.int32))
        counts.add(symbols)
        assert counts.counts.sum() == 9 + (np.abs(symbols.astype(int) - origin) < WINDOW // 2).sum()
    tables = CDFTables([[0, 60000, 65536]], [3], [0])
    np.testing.assert_array_equal(count(symbols).entries(tables), [[2, 3]])


def test_wrong_shapes_are_refused():
    with pytest.raises(CodingError, match="expected symbols"):
        SymbolCounts(3).add(np.zeros((5, 4), np.int32))
    with pytest.raises(CodingError, match="columns"):
        refit(SymbolCounts(3), base_tables())


# --- the search


def test_the_cheapest_change_is_the_minimum_over_all_changes():
    costs = np.random.default_rng(0).uniform(0, 30, (5, 81))
    levels = np.arange(81)
    n_bits = difference_bits(levels[:, None] - levels)
    expected = (costs[:, :, None] + n_bits).min(1)
    np.testing.assert_allclose(_cheapest_change(costs), expected)


# --- descriptions


def test_the_constants_of_the_format_are_the_same_on_every_machine():
    # whoever changes these makes files unreadable that were written with them
    assert DIFFERENCES.fingerprint().hex() == "70b49da720ccbfb2e83c7f84ecb1ae32"
    assert zlib.crc32(INTEGER_FACTORS.astype("<i8").tobytes()) == 1726107516


@pytest.mark.parametrize("kind", KINDS)
def test_tables_round_trip(kind):
    tables = refit(count(drifted(kind)), base_tables())
    data = tables.description
    decoded = decode_tables(data, base_tables())
    assert decoded.fingerprint() == tables.fingerprint() != base_tables().fingerprint()
    assert decoded.description == pickle.loads(pickle.dumps(tables)).description == data


def test_the_base_tables_have_a_description():
    base = base_tables()
    same = decode_tables(refit(SymbolCounts(N_COLUMNS), base).description, base)
    assert same.fingerprint() == base.fingerprint()


def test_the_base_tables_of_another_model_are_refused():
    tables = refit(count(drifted("shifted")), base_tables())
    other = CDFTables(base_tables().cdfs, base_tables().lengths, base_tables().offsets + 1)
    with pytest.raises(CodingError, match="another entropy model"):
        decode_tables(tables.description, other)


def with_checksum(content: bytes) -> bytes:
    crc = zlib.crc32(content, zlib.crc32(base_tables().fingerprint()))
    return content + crc.to_bytes(4, "little")


def test_any_damage_raises():
    data = refit(count(drifted("mixture")), base_tables()).description
    rng = np.random.default_rng(0)
    for i in range(len(data)):
        with pytest.raises(CodingError):
            decode_tables(data[:i], base_tables())
        damaged = bytearray(data)
        damaged[i] ^= 1 << rng.integers(8)
        with pytest.raises(CodingError):
            decode_tables(bytes(damaged), base_tables())


@pytest.mark.parametrize("kind", ["mixture", "far"])
def test_damage_with_a_right_checksum_raises_or_gives_small_tables(kind):
    data = refit(count(drifted(kind)), base_tables()).description
    rng, n_tables = np.random.default_rng(0), 0
    for _ in range(400):
        damaged = bytearray(data[:-4])
        for i in rng.integers(min(len(damaged), 200), size=rng.integers(1, 4)):
            damaged[i] = rng.integers(256)
        if rng.random() < 0.2:
            damaged = damaged[: rng.integers(len(damaged))]
        try:
            tables = decode_tables(with_checksum(bytes(damaged)), base_tables())
        except CodingError:
            continue
        n_tables += 1
        assert (tables.escapes <= max(MAX_LISTED, base_tables().escapes.max())).all()
    assert n_tables < 400
