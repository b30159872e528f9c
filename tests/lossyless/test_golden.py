"""Bytes that must never change: payloads and files of fixed features, with fixed weights.

Users' files depend on these bytes. If a format changes on purpose, it gets a new name or version;
then `PYTHONPATH=.:tests python tests/lossyless/test_golden.py` rewrites golden.json.
"""

import hashlib
import io
import json
from pathlib import Path

import pytest
import torch
from helpers.fixed_codecs import CODECS, SHAPE, Z_DIM, fixed, with_fixed_weights

from lossyless.files import write_features

GOLDEN = Path(__file__).with_name("golden.json")
N = 300


def digests(name: str) -> dict[str, str]:
    torch.manual_seed(0)
    codec = with_fixed_weights(CODECS[name]())
    is_image = name == "pixels"
    x = fixed("x", (N, *SHAPE), 1 / 255).abs() if is_image else fixed("x", (N, Z_DIM), 2**-5)
    plain = codec.compress(x[12:])
    if not is_image:
        x[7, 2], x[11] = 3000.0, -700.0  # escapes
    payload = codec.compress(x)
    decoded = codec.decompress(payload, N).numpy()
    file = io.BytesIO()
    write_features([x], file, codec, chunk_size=128, n_workers=1, meta={"classes": ["a"]})
    facts = {"plain": plain, "payload": payload, "decoded": decoded.tobytes()}
    facts["file"] = file.getvalue()
    return {"fingerprint": codec.fingerprint()} | {
        key: hashlib.sha256(value).hexdigest()[:16] for key, value in facts.items()
    }


@pytest.mark.parametrize("name", CODECS)
def test_bytes_never_change(name):
    assert digests(name) == json.loads(GOLDEN.read_text())[name]


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: digests(name) for name in CODECS}, indent=1) + "\n")
