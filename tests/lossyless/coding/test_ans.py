"""Coding is exact and takes as many bits as there is information; damage raises CodingError."""

import contextlib

import numpy as np
import pytest
from helpers.damage import flip_bit
from helpers.toy import digest_of

from lossyless.coding.ans import TableCoder
from lossyless.coding.escapes import code_lengths, decode_escapes, encode_escapes
from lossyless.coding.payloads import INT32, CodingError
from lossyless.coding.tables import CDFTables

COLUMNS = np.arange(8) % 5


def make_tables(n_tables: int = 5, seed: int = 0) -> CDFTables:
    """Tables of random lengths; table 0 lists no symbols, so its escape has all the mass."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 12, n_tables)
    lengths[0] = 2
    cdfs = np.zeros((n_tables, lengths.max() + 2), int)
    for row, length in zip(cdfs, lengths, strict=True):
        inner = np.sort(rng.choice(np.arange(1, 65536), length - 2, replace=False))
        row[:length] = [0, *inner, 65536]
    return CDFTables(cdfs, lengths, rng.integers(-6, 3, n_tables))


def draw_symbols(tables: CDFTables, index: np.ndarray, seed: int = 0) -> np.ndarray:
    """Symbols drawn from the tables; escaped ones are just above the listed symbols."""
    uniform = np.random.default_rng(seed).integers(0, 65536, index.shape)
    entries = (tables.cdfs[index, 1:] <= uniform[..., None]).sum(-1)
    return (entries + tables.offsets[index]).astype(np.int32)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (1, 1), (1, 40), (50, 1), (70, 33)])
@pytest.mark.parametrize("spread", [2, 30, 2**31])
def test_round_trips_are_exact_and_take_at_most_the_information(shape, spread):
    coder, rng = TableCoder(make_tables()), np.random.default_rng(2)
    symbols = rng.integers(-spread, spread, shape)
    for index_shape in (shape[1:], shape):
        index = rng.integers(0, coder.tables.n_tables, index_shape)
        payload = coder.encode(symbols, index)
        decoded = coder.decode(payload, shape[0], index)
        assert decoded.dtype == np.int32
        np.testing.assert_array_equal(decoded, symbols)
        n_bits = coder.information(symbols, index)
        assert n_bits.shape == shape
        assert 8 * len(payload) < n_bits.sum() + 100  # the stream's tail, lengths, padding


@pytest.mark.parametrize("two_dims", [False, True])
def test_listed_symbols_take_exactly_their_information(two_dims):
    tables = make_tables(40)
    coder, rows = TableCoder(tables), np.tile(np.arange(40), (2000, 1))
    index = rows if two_dims else np.arange(40)
    symbols = np.minimum(draw_symbols(tables, rows), tables.offsets + tables.escapes - 1)
    symbols[:, 0] = draw_symbols(tables, rows)[:, 0]  # its table escapes every symbol
    n_bits = coder.information(symbols, index).sum()
    assert abs(8 * len(coder.encode(symbols, index)) - n_bits) < 64 + 1e-3 * n_bits


def test_information_of_listed_symbols_in_closed_form():
    coder = TableCoder(CDFTables([[0, 16384, 49152, 65536]], [4], [-1]))
    np.testing.assert_allclose(coder.information([[-1], [0]]), [[2], [1]])
    # an escape takes 2 bits, and r = 0 takes 1 bit with order 0
    np.testing.assert_allclose(coder.information([[-1], [1]]), [[2], [3]])


GOLDEN_TABLES = CDFTables([[0, 20000, 60000, 65530, 65536], [0, 1, 65536, 0, 0]], [5, 3], [-1, 7])
GOLDEN_SYMBOLS = np.array([[0, 8], [1, 7], [-1, 7], [0, -300], [40, 2**31 - 1]])


def test_bytes_never_change():
    """Golden payloads: files from earlier versions stay readable on every machine."""
    coder = TableCoder(GOLDEN_TABLES)
    golden = "0f000e0704a23b73d2ae4a0ac80000029801ca000000dc"
    assert coder.encode(GOLDEN_SYMBOLS, [0, 1]).hex() == golden
    assert coder.encode(GOLDEN_SYMBOLS[:, ::-1], [[1, 0]] * 5).hex() == golden  # same coding order
    assert coder.encode(GOLDEN_SYMBOLS[:, :1][:3], [0]).hex() == "08fe3f9c01"
    assert digest_of(GOLDEN_TABLES) == "8f2c14d32d61f0559e5a8972974b399e"


# --- escapes


@pytest.mark.parametrize("order", [0, 3, 31])
def test_escape_codes_have_the_lengths_of_exponential_golomb_codes(order):
    values = np.array([0, 1, 2, 3, 6, 7, 1000, 2**32, 2**33 - 1])
    data = encode_escapes(values, order)
    np.testing.assert_array_equal(decode_escapes(data, order, len(values)), values)
    lengths = [2 * int(v + 2**order).bit_length() - 1 - order for v in values]
    assert code_lengths(values, order).tolist() == lengths
    assert 0 <= 8 * len(data) - sum(lengths) < 16  # both parts are padded to whole bytes


@pytest.mark.parametrize("scale", [1, 50, 1e4, 1e8])
def test_the_order_of_escapes_is_optimal(scale):
    coder = TableCoder(CDFTables([[0, 65536]], [2], [0]))
    symbols = np.rint(np.random.default_rng(0).laplace(scale=scale, size=(100, 1))).astype(int)
    distances = np.where(symbols >= 0, 2 * symbols, -2 * symbols - 1)
    n_bits = min(code_lengths(distances, order).sum() for order in range(32))
    assert coder.information(symbols).sum() == n_bits


@pytest.mark.parametrize("offset", [INT32.min, -2, INT32.max - 3])
def test_extreme_integers_and_tables_round_trip(offset):
    coder = TableCoder(CDFTables([[0, 30000, 60000, 65536]], [4], [offset]))
    extremes = [[INT32.min], [INT32.min + 1], [-1], [0], [1], [INT32.max - 1], [INT32.max]]
    np.testing.assert_array_equal(coder.decode(coder.encode(extremes), 7), extremes)


def test_int32_escapes_of_earlier_versions_are_decoded():
    coder = TableCoder(GOLDEN_TABLES)
    payload = bytes.fromhex("11047482a0d87eb3b9222800000008000000d4feffffffffff7f")
    np.testing.assert_array_equal(coder.decode(payload, 5, [0, 1]), GOLDEN_SYMBOLS)
    listed = bytes.fromhex("11047482a0d87eb3b9220000000008000000d4feffffffffff7f")
    with pytest.raises(CodingError):  # the table lists the value 0
        coder.decode(listed, 5, [0, 1])


# --- damage and invalid arguments


def test_truncations_appended_bytes_and_wrong_numbers_of_examples_are_errors():
    coder = TableCoder(make_tables())
    symbols = draw_symbols(coder.tables, np.tile(COLUMNS, (6, 1)))
    payload = coder.encode(symbols, COLUMNS)
    damaged = [payload[:end] for end in range(len(payload))] + [payload + b"\0", payload + b"\1"]
    for n_examples, data in [*((6, d) for d in damaged), (5, payload), (7, payload), (0, payload)]:
        with pytest.raises(CodingError):
            coder.decode(data, n_examples, COLUMNS)


def test_flipped_bits_raise_only_coding_errors_and_are_detected_outside_escapes():
    """Payloads have no checksum (files do), so a wrong escaped value can go unnoticed."""
    coder = TableCoder(make_tables())
    symbols = np.random.default_rng(0).integers(-9, 9, (6, 8))
    payload = coder.encode(symbols, COLUMNS)
    bare = coder.encode(np.clip(symbols, -2, -1), np.full(8, 2))
    for data, index, n_silent in ((payload, COLUMNS, 8 * 48), (bare, np.full(8, 2), 0)):
        n_passed = 0
        for bit in range(8 * len(data)):
            with contextlib.suppress(CodingError):
                coder.decode(flip_bit(data, *divmod(bit, 8)), 6, index)
                n_passed += 1
        assert n_passed <= n_silent


def test_symbols_beyond_int32_are_errors():
    for symbol in (2**31, -(2**31) - 1):
        with pytest.raises(CodingError):
            TableCoder(make_tables()).encode([[symbol]], [0])


# --- tables


def test_tables_are_immutable():
    with pytest.raises(ValueError, match="read-only"):
        make_tables().cdfs[0, 0] = 1
