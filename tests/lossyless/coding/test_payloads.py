"""Payloads of floats and byte strings are exact, and damage raises CodingError."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest
from helpers.damage import flip_bit
from helpers.tiny import ROOT

from lossyless.coding.payloads import CodingError, FloatCoder, decode_blobs, encode_blobs


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0), (1, 1), (30, 7)])
def test_floats_are_exact_to_the_bit(shape):
    bits = np.random.default_rng(0).integers(0, 2**32, shape, dtype=np.uint32)
    coder = FloatCoder(shape[1])
    decoded = coder.decode(coder.encode(bits.view(np.float32)), len(bits))
    assert decoded.dtype == np.float32 and decoded.shape == shape
    np.testing.assert_array_equal(decoded.view(np.uint32), bits)


def test_special_floats_keep_their_bits_and_others_shrink():
    special = np.array([[np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45]], np.float32)
    decoded = FloatCoder(7).decode(FloatCoder(7).encode(special), 1)
    np.testing.assert_array_equal(decoded.view(np.uint32), special.view(np.uint32))
    decoded[0, 0] = 1  # writable
    normal = np.random.default_rng(0).standard_normal((500, 20)).astype(np.float32)
    assert len(FloatCoder(20).encode(normal)) < 0.93 * normal.nbytes


def test_other_floats_are_errors():
    for z in (np.zeros((2, 2)), np.zeros(2, np.float32), np.zeros((2, 3), np.float32)):
        with pytest.raises(CodingError, match="float32 values"):
            FloatCoder(2).encode(z)


def test_damaged_floats_are_detected():
    z = np.arange(12, dtype=np.float32).reshape(3, 4)
    data = FloatCoder(4).encode(z)
    damaged = [data[:end] for end in range(len(data))] + [data + b"\0"]
    damaged += [flip_bit(data, *divmod(bit, 8)) for bit in range(16, 8 * len(data))]
    for bad in damaged:
        with contextlib.suppress(CodingError):  # or harmless: unused bits of the zlib header
            np.testing.assert_array_equal(FloatCoder(4).decode(bad, 3), z)


@pytest.mark.parametrize("blobs", [[], [b""], [b"", b"a", b"b" * 300, b""]])
def test_blobs_round_trip_and_truncation_is_detected(blobs):
    data = encode_blobs(blobs)
    assert decode_blobs(data) == blobs
    for damaged in [data[:end] for end in range(len(data))] + [data + b"\0", b"\xff" * 30]:
        with pytest.raises(CodingError):
            decode_blobs(damaged)


def test_coding_imports_no_torch():
    """Workers that only encode or decode therefore start quickly, without torch's threads."""
    modules = "ans, escapes, order, payloads, tables"
    code = f"import sys; from lossyless.coding import {modules}; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
