"""Every codec implements `Codec`, regardless of torch's settings."""

import contextlib

import numpy as np
import pytest
import torch
from helpers.fixed_codecs import CODECS, SHAPE, Z_DIM, fixed, with_fixed_weights

from lossyless.classical import ClassicalCompressor
from lossyless.rates import Lossless, MIRate

ALL = CODECS | {
    "png": lambda: ClassicalCompressor("png", 3),
    "lossless": lambda: Lossless(Z_DIM),
    "mi": lambda: MIRate(Z_DIM),
}


@pytest.fixture(params=ALL)
def codec(request):
    torch.manual_seed(0)
    return with_fixed_weights(ALL[request.param]())


@pytest.fixture
def z(codec):
    if codec.format_name in ("png", "none"):
        return fixed("x", (20, *SHAPE), 1 / 255).abs()
    return fixed("x", (20, Z_DIM), 2**-5)


@contextlib.contextmanager
def other_settings():
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"), torch.autocast("cpu", dtype=torch.bfloat16):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def test_bytes_and_values_do_not_depend_on_torch_settings(codec, z):
    fingerprint, payload = codec.fingerprint(), codec.compress(z)
    z_hat = codec.decompress(payload, len(z))
    z.requires_grad_()
    with other_settings():
        assert codec.fingerprint() == fingerprint and codec.compress(z) == payload
        found = codec.decompress(payload, len(z))
    assert torch.equal(found, z_hat)
    assert (found.dtype, found.device.type, found.requires_grad) == (torch.float32, "cpu", False)
    assert found.shape == z.shape and codec.shape in (None, z.shape[1:])
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()


def test_symbols_determine_the_payload(codec, z):
    coder = codec.coder()
    if coder is None:
        pytest.skip("codes with its network")
    payload = codec.compress(z)
    with other_settings():
        symbols = codec.quantise(z)
    assert coder.encode(symbols) == payload
    np.testing.assert_array_equal(coder.decode(payload, len(z)), symbols)
    rows = [3, 0, 3]
    with other_settings():
        z_hat = codec.dequantise(symbols[rows])
    assert torch.equal(z_hat, codec.decompress(payload, len(z))[rows])
