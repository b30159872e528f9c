"""CLIP models by name and from files, and the backbone made of their image encoder."""

import importlib
import sys
import sysconfig
import traceback
import urllib.error
from pathlib import Path

import pytest
import torch
from clip.model import CLIP

from lossyless.backbones import ClipBackbone, load_clip
from lossyless.weights import WeightsError

DIM = 8
STANDARD_LIBRARY = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
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


def test_a_file_gives_its_model_in_float32_and_evaluation_mode_without_a_warning(
    checkpoint, recwarn
):
    model, path = checkpoint
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    found, _ = load_clip(path)
    assert not recwarn.list
    assert torch.equal(torch.rand(2), expected)
    assert not found.training and all(p.dtype == torch.float32 for p in found.parameters())
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            found.encode_image(x), model.encode_image(x), atol=2e-3, rtol=2e-3
        )


def test_the_backbone_gives_the_embeddings_of_clip(checkpoint):
    from PIL import Image
    from torchvision.transforms.functional import to_tensor

    _, path = checkpoint
    model, preprocess = load_clip(str(path))
    tower = ClipBackbone(str(path))
    assert (tower.z_dim, tower.side) == (DIM, 32)
    image = Image.effect_noise((32, 32), 60).convert("RGB")
    with torch.no_grad():
        expected = model.encode_image(preprocess(image)[None])
    torch.testing.assert_close(tower(to_tensor(image)[None]), expected, atol=1e-4, rtol=1e-4)
    assert tower(torch.rand(2, 1, 20, 20)).shape == (2, DIM)
    assert not any(hasattr(module, "token_embedding") for module in tower.modules())


def test_unknown_names_and_files_of_other_types_raise_errors(tmp_path):
    with pytest.raises(WeightsError, match="'ViT-B/33'.*ViT-B/32"):
        load_clip("ViT-B/33")
    path = tmp_path / "other.pt"
    for content in (b"", b"import os\n", b"PK\3\4", {"biasing": torch.zeros(3)}, []):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(WeightsError, match="other.pt") as caught:
            load_clip(path)
        assert "weights_only" not in "".join(traceback.format_exception(caught.value))


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_without_a_network_the_error_lists_alternatives(home, monkeypatch, capsys):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    file = home / ".cache" / "clip" / "ViT-B-32.pt"
    with pytest.raises(WeightsError, match="338 MB.*no network") as caught:
        load_clip()
    message = str(caught.value)
    assert str(file) in message and "https://openaipublic" in message
    assert all(option in message for option in ("clip_path=", "--clip", "tower.kwargs.weights="))
    assert caught.value.__suppress_context__  # no urllib traceback precedes it
    assert str(file) in capsys.readouterr().out
    assert list(file.parent.iterdir()) == []


def test_an_existing_file_is_checked_silently(home, monkeypatch, capsys):
    file = home / ".cache" / "clip" / "ViT-B-32.pt"
    file.parent.mkdir(parents=True)
    torch.save(tiny_clip().state_dict(), file)
    with pytest.raises(WeightsError, match="ViT-B-32.pt.*SHA-256.*--clip"):
        load_clip()
    monkeypatch.setattr("lossyless.weights.check_sha256", lambda *args: None)
    load_clip()
    assert capsys.readouterr().out == ""


def test_a_missing_device_is_rejected_before_a_download(monkeypatch):
    monkeypatch.setattr("lossyless.backbones.clip.fetch", None)
    with pytest.raises(RuntimeError, match="foo"):
        load_clip(device="foo")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("clip.py", "import a_missing_package"),
        ("clip.py", "def broken(:"),
        ("clip/__init__.py", "copy = paste = print"),  # like the unrelated `clip` on PyPI
        ("clip/notes.txt", ""),
    ],
)
def test_another_module_called_clip_raises_an_error(tmp_path, monkeypatch, file, content):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    for name in [name for name in sys.modules if name.partition(".")[0] == "clip"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *STANDARD_LIBRARY])
    importlib.invalidate_caches()
    try:
        with pytest.raises(ModuleNotFoundError) as caught:
            load_clip()
    finally:
        sys.modules.pop("clip", None)
    message = str(caught.value)
    assert str(path if path.suffix == ".py" else path.parent) in message
    assert "pip install clip-anytorch" in message and "\n" not in message
