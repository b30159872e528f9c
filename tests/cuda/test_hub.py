"""Files compressed on a GPU decode to the same features on a CPU."""

import numpy as np
import torch
from helpers.tiny_clip import SIDE, save_bottleneck, save_clip
from torch.utils.data import TensorDataset

from lossyless.hub import clip_compressor


def test_files_decode_to_the_features_of_the_sender(device, tmp_path):
    compressor, _ = clip_compressor(
        device=device,
        clip_path=save_clip(tmp_path / "clip.pt"),
        pretrained_path=save_bottleneck(tmp_path / "bottleneck.pt"),
    )
    precision = torch.float16 if device.type == "cuda" else torch.float32
    assert compressor.backbone.conv1.weight.dtype == precision
    X = torch.randn(10, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    z_hat = compressor(X)
    assert z_hat.device.type == device.type
    compressor.compress_dataset(TensorDataset(X), tmp_path / "Z.bin")
    z_in = compressor.process_z_in(compressor.encode(X))
    assert torch.equal(compressor.process_z_out(compressor.entropy_bottleneck(z_in)[0]), z_hat)
    compressor.to("cpu")
    assert {p.dtype for p in compressor.parameters()} == {torch.float32}
    decoded = compressor.decompress_dataset(tmp_path / "Z.bin", is_cpu=False)
    np.testing.assert_array_equal(decoded, z_hat.cpu())
