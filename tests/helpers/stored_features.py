"""Small rates and features for tests of compressed files."""

import json
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from lossyless.files import CompressedFile, FeatureFile, Written, write_features
from lossyless.rates import HFactorized

Z_DIM = 8


def make_codec(z_dim: int = Z_DIM, seed: int = 0) -> HFactorized:
    """A factorized rate with coding tables, whose cell widths differ between dimensions."""
    torch.manual_seed(seed)
    rate = HFactorized(z_dim)
    with torch.no_grad():
        rate.scaling.copy_(torch.rand(z_dim) * 2 + 0.5)
        rate.biasing.copy_(torch.randn(z_dim))
    rate.update()
    return rate.eval()


def draw_features(n: int, z_dim: int = Z_DIM, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, z_dim, generator=generator)


def quantised(codec: HFactorized, z: Tensor) -> Tensor:
    """The z_hat that a receiver must decode."""
    return codec.dequantise(codec.quantise(z))


def write(path: Path, codec: HFactorized, z: Tensor, **options) -> Written:
    return write_features([z], path, codec, **{"n_workers": 1, "chunk_size": 32} | options)


def read(path: Path, codec: HFactorized, **options) -> Tensor:
    with FeatureFile(path, codec, **options) as file:
        return file.read(n_workers=1)


def n_bytes_without_labels(path: Path) -> int:
    """Size of a file, excluding the labels and names in its chunks."""
    facts = CompressedFile(path).describe()
    return facts["n_bytes"] - facts["n_annotation_bytes"]


def version_1(codec: HFactorized, z: Tensor, chunk_size: int = 32) -> bytes:
    """The bytes of a file in format version 1."""
    values = {"codec": codec.format_name, "fingerprint": codec.fingerprint(), "shape": [z.shape[1]]}
    values |= {"dtype": "float32", "meta": {}, "sections": [], "id": "ab"}
    text = json.dumps(values).encode()
    data = struct.pack("<8sBII", b"\x89LSLESS\n", 1, len(text), 0) + text
    seed = zlib.crc32(data)
    data += struct.pack("<I", seed)
    total = struct.pack("<QQ", len(z), 1 << 32)
    data += total + struct.pack("<I", zlib.crc32(total, seed))
    index = b""
    for number, rows in enumerate(z.split(chunk_size)):
        index += struct.pack("<QI", len(data), len(rows))
        payload = codec.compress(rows)
        head = struct.pack("<4sIQII", b"CHNK", number, chunk_size * number, len(rows), len(payload))
        crc = zlib.crc32(head, seed)
        data += head + struct.pack("<II", crc, zlib.crc32(payload, crc)) + payload
    index = struct.pack("<4sI", b"INDX", number + 1) + index
    return data + index + struct.pack("<IQ8s", zlib.crc32(index, seed), len(data), b"LSLESS\n\x89")
