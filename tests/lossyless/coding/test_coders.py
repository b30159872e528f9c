"""Coding is exact, costs what the tables say, and damage raises CodingError."""

import copy
import pickle

import numpy as np
import pytest
from compressai.entropy_models import EntropyBottleneck
from helpers.toy import digest_of

from lossyless.coding.ans import TableCoder
from lossyless.coding.payloads import CodingError
from lossyless.coding.tables import CDFTables


def make_tables(n_tables: int = 5, seed: int = 0) -> CDFTables:
    """Tables of random lengths; table 0 lists no symbol: all of its mass is the escape's."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 12, n_tables)
    lengths[0] = 2
    cdfs = np.zeros((n_tables, lengths.max() + 2), int)
    for row, length in zip(cdfs, lengths, strict=True):
        inner = np.sort(rng.choice(np.arange(1, 65536), length - 2, replace=False))
        row[:length] = [0, *inner, 65536]
    return CDFTables(cdfs, lengths, rng.integers(-6, 3, n_tables))


def draw_symbols(tables: CDFTables, index: np.ndarray, seed: int = 0) -> np.ndarray:
    """Symbols from the tables; an escaped one lies just above the listed symbols."""
    uniform = np.random.default_rng(seed).integers(0, 65536, index.shape)
    entries = (tables.cdfs[index, 1:] <= uniform[..., None]).sum(-1)
    return (entries + tables.offsets[index]).astype(np.int32)


def column_and_symbol_indices(n_examples: int, n_columns: int, n_tables: int):
    rng = np.random.default_rng(1)
    yield rng.integers(0, n_tables, n_columns)
    yield rng.integers(0, n_tables, (n_examples, n_columns))


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (1, 1), (1, 40), (50, 1), (70, 33)])
@pytest.mark.parametrize("spread", [2, 30, 2**31])
def test_round_trip_is_exact(shape, spread):
    coder = TableCoder(make_tables())
    symbols = np.random.default_rng(2).integers(-spread, spread, shape)
    for index in column_and_symbol_indices(*shape, coder.tables.n_tables):
        decoded = coder.decode(coder.encode(symbols, index), index, shape[0])
        assert decoded.dtype == np.int32
        np.testing.assert_array_equal(decoded, symbols)


@pytest.mark.parametrize("n_tables", [256, 300])
def test_round_trip_with_many_tables(n_tables):
    coder = TableCoder(make_tables(n_tables))
    index = np.random.default_rng(0).permutation(2 * n_tables).reshape(2, n_tables) % n_tables
    symbols = draw_symbols(coder.tables, index)
    np.testing.assert_array_equal(coder.decode(coder.encode(symbols, index), index), symbols)


def test_layout_and_integer_type_of_the_input_do_not_matter():
    coder = TableCoder(make_tables())
    symbols = np.random.default_rng(3).integers(-9, 9, (20, 6))
    index = np.arange(6) % 5
    expected = coder.encode(symbols, index)
    for same in (symbols.astype(np.int8), np.asfortranarray(symbols, np.int32), symbols.tolist()):
        assert coder.encode(same, index.astype(np.uint8)) == expected


def test_both_kinds_of_index_cost_the_same():
    coder = TableCoder(make_tables())
    index = np.arange(30) % 5
    both = np.tile(index, (200, 1))
    symbols = draw_symbols(coder.tables, both)
    by_column, by_symbol = coder.encode(symbols, index), coder.encode(symbols, both)
    np.testing.assert_array_equal(coder.decode(by_symbol, both), symbols)
    assert abs(len(by_column) - len(by_symbol)) <= 4


@pytest.mark.parametrize("two_dims", [False, True])
def test_bytes_are_what_the_information_says(two_dims):
    tables = make_tables(40)
    index = np.arange(40) if not two_dims else np.tile(np.arange(40), (2000, 1))
    symbols = draw_symbols(tables, np.tile(np.arange(40), (2000, 1)))
    n_bits = tables.information(symbols, index)
    coded_bits = 8 * len(TableCoder(tables).encode(symbols, index))
    assert n_bits.shape == symbols.shape and n_bits.dtype == np.float64
    assert -8 < coded_bits - n_bits.sum() < 64 + 1e-4 * n_bits.sum()


def test_single_example_has_little_overhead():
    """At most one state of 32 bits, the rounding to bytes and a one-byte length."""
    tables = make_tables(20, seed=4)
    index = np.arange(1, 20)
    coder = TableCoder(tables)
    for seed in range(20):
        symbols = np.minimum(
            draw_symbols(tables, index[None], seed), (tables.offsets + tables.escapes - 1)[index]
        )
        overhead = 8 * len(coder.encode(symbols, index)) - tables.information(symbols, index).sum()
        assert overhead <= 32 + 8 + 8


def test_bytes_never_change():
    """Golden payloads: files written by an earlier version stay readable, on every machine."""
    tables = CDFTables([[0, 20000, 60000, 65530, 65536], [0, 1, 65536, 0, 0]], [5, 3], [-1, 7])
    symbols = np.array([[0, 8], [1, 7], [-1, 7], [0, -300], [40, 2**31 - 1]])
    coder = TableCoder(tables)
    golden = "11047482a0d87eb3b9222800000008000000d4feffffffffff7f"
    assert coder.encode(symbols, [0, 1]).hex() == golden
    assert coder.encode(symbols[:, ::-1], [[1, 0]] * 5).hex() == golden  # the same coding order
    assert coder.encode(symbols[:1], [0, 1]).hex() == "0701ff204e08000000"
    assert coder.encode(symbols[:, :1][:3], [0]).hex() == "08fe3f9c01"
    assert digest_of(tables) == "8f2c14d32d61f0559e5a8972974b399e"


def test_symbols_beyond_int32_raise():
    coder = TableCoder(make_tables())
    for value in (2**31, -(2**31) - 1):
        with pytest.raises(CodingError, match="int32"):
            coder.encode(np.array([[value]]), [0])


@pytest.mark.parametrize(
    "symbols, index, match",
    [
        (np.zeros((2, 3)), [0, 0, 0], "integer symbols"),
        (np.zeros(3, int), [0, 0, 0], "integer symbols"),
        (np.zeros((2, 3), int), [0, 0], "index of shape"),
        (np.zeros((2, 3), int), np.zeros((3, 2), int), "index of shape"),
        (np.zeros((2, 3), int), [0, 0, 5], "there are 5 tables"),
        (np.zeros((2, 3), int), [0, 0, -1], "there are 5 tables"),
        (np.zeros((2, 3), int), [0.0, 0.0, 0.0], "integers in index"),
    ],
)
def test_bad_arguments_raise(symbols, index, match):
    with pytest.raises(CodingError, match=match):
        TableCoder(make_tables()).encode(symbols, index)


def test_decoding_needs_a_number_of_examples_that_fits_the_index():
    coder = TableCoder(make_tables())
    for index, n_examples in (([1, 1], None), ([1, 1], -1), ([[1, 1]], 2), (1, 1), (1, None)):
        with pytest.raises(CodingError):
            coder.decode(b"\0", index, n_examples)


def test_every_truncation_and_every_appended_byte_is_detected():
    coder = TableCoder(make_tables())
    index = np.arange(8) % 5
    data = coder.encode(draw_symbols(coder.tables, np.tile(index, (6, 1))), index)
    for damaged in [data[:end] for end in range(len(data))] + [data + b"\0", data + b"\1"]:
        with pytest.raises(CodingError):
            coder.decode(damaged, index, 6)


def test_wrong_number_of_examples_is_detected():
    coder = TableCoder(make_tables())
    index = np.arange(8) % 5
    data = coder.encode(draw_symbols(coder.tables, np.tile(index, (6, 1))), index)
    for n_examples in (5, 7):
        with pytest.raises(CodingError):
            coder.decode(data, index, n_examples)


def test_flipped_bits_raise_only_coding_errors_and_rarely_pass():
    """A stream has no checksum (a file has): most damage leaves a wrong rest of the stream."""
    coder = TableCoder(make_tables())
    index = np.arange(8) % 5
    data = coder.encode(draw_symbols(coder.tables, np.tile(index, (6, 1))), index)
    n_passed = 0
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            coder.decode(bytes(damaged), index, 6)
            n_passed += 1
        except CodingError:
            pass
    symbols = coder.decode(data, index, 6)
    n_escaped = int((coder.tables.information(symbols, index) >= 32).sum())
    assert n_passed <= 32 * n_escaped


@pytest.mark.parametrize("index", [np.arange(5), np.arange(20).reshape(4, 5) % 5])
def test_random_payloads_raise_only_coding_errors(index):
    coder, rng = TableCoder(make_tables()), np.random.default_rng(0)
    n_rejected = 0
    for _ in range(2000):
        try:
            coder.decode(rng.bytes(rng.integers(0, 40)), index, 4)
        except CodingError:
            n_rejected += 1
    assert n_rejected > 1900


def test_an_escaped_value_that_the_table_lists_is_detected():
    coder = TableCoder(CDFTables([[0, 30000, 65536]], [3], [5]))
    data = coder.encode([[77]], [0])
    damaged = data[:-4] + np.array(5, "<i4").tobytes()
    with pytest.raises(CodingError, match="although its table lists it"):
        coder.decode(damaged, [0], 1)


def test_tables_are_immutable_and_their_copies_code_the_same():
    tables = make_tables()
    coder = TableCoder(tables)
    symbols, index = np.arange(10).reshape(2, 5), np.arange(5)
    data = coder.encode(symbols, index)
    for twin in (copy.deepcopy(coder), pickle.loads(pickle.dumps(coder))):
        assert twin.encode(symbols, index) == data
        assert digest_of(twin.tables) == digest_of(tables)
    with pytest.raises(ValueError, match="read-only"):
        tables.cdfs[0, 0] = 1


def test_tables_of_compressai():
    bottleneck = EntropyBottleneck(6)
    with pytest.raises(CodingError, match="update"):
        CDFTables.from_compressai(bottleneck)
    bottleneck.update()
    tables = CDFTables.from_compressai(bottleneck)
    assert tables.n_tables == 6
    np.testing.assert_array_equal(tables.offsets, bottleneck._offset.numpy())
    index = np.arange(6)
    symbols = draw_symbols(tables, np.tile(index, (100, 1)))
    coder = TableCoder(tables)
    np.testing.assert_array_equal(coder.decode(coder.encode(symbols, index), index, 100), symbols)
