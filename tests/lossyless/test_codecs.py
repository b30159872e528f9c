"""Every codec implements `Codec`, regardless of torch's settings."""

import contextlib
import copy
import io
import pickle

import numpy as np
import pytest
import torch
from helpers.fixed_codecs import CODECS, SHAPE, Z_DIM, fixed, with_fixed_weights

from lossyless.classical import ClassicalCompressor
from lossyless.coding.payloads import CodingError
from lossyless.distributions import FAMILIES
from lossyless.rates import Lossless, MIRate, Rate

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
        pytest.skip("cannot code symbols without its network")
    payload = codec.compress(z)
    with other_settings():
        symbols = codec.quantise(z)
    assert coder.encode(symbols) == payload
    np.testing.assert_array_equal(coder.decode(payload, len(z)), symbols)
    rows = [3, 0, 3]
    with other_settings():
        z_hat = codec.dequantise(symbols[rows])
    assert torch.equal(z_hat, codec.decompress(payload, len(z))[rows])


def forward(codec, z):
    """The values that evaluation treats as decoded."""
    if not isinstance(codec, Rate):
        return codec(z)
    family = FAMILIES[codec.family]
    return codec(z, family(z.repeat(1, family.n_parameters)))[0]


def test_decoding_gives_the_values_of_evaluation_for_any_chunk_mode_and_copy(codec, z, request):
    payload, fingerprint, z_hat = codec.compress(z), codec.fingerprint(), forward(codec, z)
    assert torch.equal(codec.decompress(payload, len(z)), z_hat)
    if codec.shape is not None:
        assert codec.decompress(codec.compress(z[:0]), 0).shape == (0, *codec.shape)
    codec.train()
    chunks = [codec.decompress(codec.compress(chunk), len(chunk)) for chunk in z.split(7)]
    assert torch.equal(torch.cat(chunks), z_hat)
    torch.save(codec.state_dict(), file := io.BytesIO())
    file.seek(0)
    loaded = ALL[request.node.callspec.params["codec"]]()
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for other in (copy.deepcopy(codec), pickle.loads(pickle.dumps(codec)), loaded):
        assert other.compress(z) == payload and other.fingerprint() == fingerprint
        assert torch.equal(other.decompress(payload, len(z)), z_hat)
    for convert in ("double", "half", "bfloat16"):
        getattr(torch.nn.Sequential(codec), convert)()
        assert codec.compress(z) == payload and codec.fingerprint() == fingerprint


def test_damaged_payloads_and_other_numbers_of_examples_are_errors(codec, z):
    payload = codec.compress(z)
    for damaged, n in ((payload[:-5], 20), (payload + b"\1", 20), (b"", 20), (payload, 19)):
        with pytest.raises(CodingError):
            codec.decompress(damaged, n)
