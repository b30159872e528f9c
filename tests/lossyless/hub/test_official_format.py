"""The official format, byte for byte; damage is detected."""

import copy
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from compressai.entropy_models import EntropyBottleneck
from helpers.damage import flip_bit

from lossyless.coding.payloads import CodingError
from lossyless.files import ContainerError, write_features
from lossyless.hub.official_format import (
    OfficialCoder,
    OfficialFile,
    is_official,
    read_official,
    write_official,
)
from lossyless.hub.weights import load_bottleneck
from lossyless.rates import HFactorized

Z_DIM = 12
REAL = Path(__file__).parents[4] / "shared" / "weights" / "beta5e-02" / "factorized_rate.pt"


@pytest.fixture
def rate() -> HFactorized:
    """A rate whose quantiles are too narrow for its density, as in the released b001."""
    torch.manual_seed(0)
    rate = HFactorized(Z_DIM)
    rate.prior.quantiles.data[:, 0] = torch.tensor([-6.0, 0.4, 7.0]) + torch.rand(Z_DIM, 1)
    rate.prior.are_centres_fixed = True
    rate.update()
    return rate.eval()


def draw_z(n: int) -> torch.Tensor:
    """Vectors with some values far outside the tables."""
    z = torch.randn(n, Z_DIM, generator=torch.Generator().manual_seed(1)) * 2
    z[::5, 3] *= 100
    z[1::7, 8] = -1e5
    return z


def compressai_streams(rate: HFactorized, z: torch.Tensor) -> list[bytes]:
    bottleneck = EntropyBottleneck(rate.z_dim)
    bottleneck.load_state_dict(copy.deepcopy(rate.prior.state_dict()), strict=False)
    bottleneck.update(force=True)
    with torch.no_grad():
        return bottleneck.compress(rate._to_bottleneck(z))


def assert_as_compressai(rate: HFactorized, z: torch.Tensor) -> None:
    coder = OfficialCoder(rate)
    streams = coder.encode(z)
    assert streams == compressai_streams(rate, z)
    assert torch.equal(coder.decode(streams), rate.dequantise(rate.quantise(z)))


def test_streams_are_those_of_compressai_and_decode_to_the_z_hat_of_the_container(rate):
    z = draw_z(200)
    assert_as_compressai(rate, z)
    decoded = OfficialCoder(rate).decode(compressai_streams(rate, z))
    assert torch.equal(decoded, rate.decompress(rate.compress(z), 200))


@pytest.mark.skipif(not REAL.exists(), reason="the released weights are not on this machine")
def test_streams_of_the_released_weights_are_those_of_compressai():
    rate = load_bottleneck(REAL)
    symbols = np.random.default_rng(0).integers(-9, 9, (20, 512)).astype(np.int32)
    assert_as_compressai(rate, rate.dequantise(symbols))


@pytest.mark.parametrize("width", [1, 4, 1000])
def test_payloads_of_features_wider_than_expected_are_smaller(width):
    torch.manual_seed(0)
    z = torch.randn(300, 64)
    rate = HFactorized(64)
    rate.start_from(z, 1.0)
    rate.update()
    z = width * z
    assert len(rate.compress(z)) < sum(map(len, OfficialCoder(rate.eval()).encode(z)))


def test_the_tables_of_the_rate_stay_wide(rate):
    before = rate.fingerprint()
    coder = OfficialCoder(rate)
    assert rate.fingerprint() == before
    assert (rate.tables["z"].lengths > coder.tables.lengths).all()
    assert coder.encode(torch.empty(0, Z_DIM)) == [] and coder.decode([]).shape == (0, Z_DIM)


def test_values_that_compressai_cannot_code_are_rejected(rate):
    with pytest.raises(CodingError, match=str(2**26)):
        OfficialCoder(rate).encode(torch.full((1, Z_DIM), 1e8))


def test_bit_errors_are_detected_unless_symbols_are_beyond_the_tables(rate):
    coder, rng = OfficialCoder(rate), np.random.default_rng(0)
    lowest, n_listed = coder.tables.offsets, coder.tables.escapes
    symbols = lowest + rng.integers(0, n_listed, (300, Z_DIM)).astype(np.int32)
    streams = coder.encode(rate.dequantise(symbols))
    for i, stream in enumerate(streams):
        damaged = flip_bit(stream, rng.integers(len(stream)), rng.integers(8))
        with pytest.raises(CodingError, match="vector 1: "):
            coder.decode([streams[i - 1], damaged])


def test_foreign_streams_are_detected(rate):
    coder, rng = OfficialCoder(rate), np.random.default_rng(0)
    (stream,) = coder.encode(draw_z(1))
    foreign = [b"", stream[:-1], stream[:-4], stream + bytes(4), stream + stream, bytes(100_000)]
    foreign += [rng.bytes(4 * rng.integers(2, 20)) for _ in range(500)]
    foreign += [bytes(40), b"\xff" * 40]
    for other in foreign:
        with pytest.raises(CodingError, match="vector 0"):
            coder.decode([other])


def test_streams_of_another_model_are_detected(rate):
    other = copy.deepcopy(rate)
    other.prior.biases[0].data += 0.3
    coder = OfficialCoder(rate)
    for stream in OfficialCoder(other).encode(draw_z(50)):
        with pytest.raises(CodingError):
            coder.decode([stream])


# --- files


def test_damage_names_the_file_and_counts_its_vectors(rate, tmp_path, monkeypatch):
    monkeypatch.setattr("lossyless.hub.official_format.BATCH_SIZE", 2)
    coder = OfficialCoder(rate)
    streams = coder.encode(draw_z(5))
    streams[3] = streams[3][:-4]
    write_official(tmp_path / "z.bin", streams)
    with pytest.raises(CodingError, match=f"{tmp_path / 'z.bin'}: vector 3: "):
        OfficialFile(tmp_path / "z.bin", coder).read()


STREAMS = [bytes(8), b"abcdefghijkl", bytes(range(16))]


def test_the_layout_of_files(tmp_path):
    path = tmp_path / "z.bin"
    assert write_official(path, iter(STREAMS)) == 3
    parts = [struct.pack(">I", 3)]
    for stream in STREAMS:
        parts += [struct.pack(">I", len(stream)), stream]
    assert path.read_bytes() == b"".join(parts)
    assert list(read_official(path)) == STREAMS
    assert [p.name for p in tmp_path.iterdir()] == ["z.bin"]
    assert write_official(path, []) == 0
    assert list(read_official(path)) == [] and is_official(path)


def test_cut_and_lengthened_files_and_absurd_sizes_are_named(tmp_path):
    path = tmp_path / "z.bin"
    write_official(path, STREAMS)
    data = path.read_bytes()
    wrong = [data[:i] for i in range(len(data))] + [data + b"\0"]
    for sizes in ((2**32 - 1, 2**32 - 1), (1, 2**32 - 4), (2**32 - 1, 8)):
        wrong.append(struct.pack(">II", *sizes) + bytes(8))
    for content in wrong:
        path.write_bytes(content)
        with pytest.raises(ContainerError, match=str(path)):
            list(read_official(path))


def test_formats_are_distinguished(rate, tmp_path):
    path = tmp_path / "z.bin"
    write_official(path, STREAMS)
    assert is_official(path)
    write_features([draw_z(9)], path, rate)
    assert not is_official(path)
    for text in (b"neither of them, but long enough to have a number of streams", b""):
        path.write_bytes(text)
        assert not is_official(path)
