"""CLIP's weights: from names and files, quietly; the image tower made of them."""

import subprocess
import sys
import urllib.error

import pytest
import torch
from clip.model import CLIP
from tiny import ROOT

from lossyless.clip_loading import load_clip
from lossyless.towers import ClipTower
from lossyless.weights import WeightsError

DIM = 8
KINDS = {"vit": (1, 64, 32), "resnet": ((1, 1, 1, 1), 64, None)}  # layers, width, patch


def tiny_clip(kind: str = "vit") -> CLIP:
    torch.manual_seed(0)
    return CLIP(DIM, 32, *KINDS[kind], 77, 49408, 64, 1, 1).eval()


@pytest.fixture(scope="module", params=KINDS)
def checkpoint(request, tmp_path_factory):
    model = tiny_clip(request.param)
    path = tmp_path_factory.mktemp("clip") / "tiny.pt"
    torch.save(model.state_dict(), path)
    return model, path


def test_a_file_gives_its_model_in_float32_and_evaluation_mode(checkpoint):
    model, path = checkpoint
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    found, _ = load_clip(path)
    assert torch.equal(torch.rand(2), expected)
    assert not found.training and all(p.dtype == torch.float32 for p in found.parameters())
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            found.encode_image(x), model.encode_image(x), atol=2e-3, rtol=2e-3
        )


def test_the_tower_gives_the_embeddings_of_images_prepared_as_by_clip(checkpoint):
    from PIL import Image
    from torchvision.transforms.functional import to_tensor

    _, path = checkpoint
    model, preprocess = load_clip(str(path))
    tower = ClipTower(str(path))
    assert (tower.z_dim, tower.side) == (DIM, 32)
    image = Image.effect_noise((32, 32), 60).convert("RGB")
    with torch.no_grad():
        expected = model.encode_image(preprocess(image)[None])
    torch.testing.assert_close(tower(to_tensor(image)[None]), expected, atol=1e-4, rtol=1e-4)
    assert tower(torch.rand(2, 1, 20, 20)).shape == (2, DIM)
    assert not any(hasattr(module, "token_embedding") for module in tower.modules())


def test_names_and_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="'ViT-B/33' are neither.*ViT-B/32"):
        load_clip("ViT-B/33")
    path = tmp_path / "other.pt"
    torch.save({"weight": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match="other.pt could not be loaded.*state dict"):
        load_clip(path)
    path.write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="other.pt could not be loaded"):
        load_clip(path)


def test_without_a_network_the_error_says_what_else_to_do(monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("clip.clip._download", offline)
    with pytest.raises(WeightsError, match="338 MB.*no network.*path of a file"):
        load_clip()


def test_loading_warns_of_nothing(tmp_path):
    path = tmp_path / "tiny.pt"
    torch.save(tiny_clip().state_dict(), path)
    code = f"from lossyless.clip_loading import load_clip; load_clip({str(path)!r})"
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-W", "error::DeprecationWarning:__main__",
         "-c", code],
        capture_output=True, text=True, cwd=ROOT, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
