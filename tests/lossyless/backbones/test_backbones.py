"""Frozen backbones: input, features, weights."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models

from lossyless.backbones import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Backbone,
    OpenClipBackbone,
    SimCLRBackbone,
    SwAVBackbone,
    TorchvisionBackbone,
    self_supervised,
)
from lossyless.backbones import torchvision as torchvision_module
from lossyless.backbones.torchvision import pad_as_tensorflow
from lossyless.weights import WeightsError

SMALL = {"model": "shufflenet_v2_x0_5", "side": 32, "n_classes": 7}


def random_network(name: str = SMALL["model"], seed: int = 0, **options) -> nn.Module:
    torch.manual_seed(seed)
    return models.get_model(name, weights=None, **options).eval()


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict:
    """A small network and its weights file."""
    network = random_network(num_classes=7)
    path = tmp_path_factory.mktemp("weights") / "plain.pth"
    torch.save(network.state_dict(), path)
    return {"network": network, "path": path}


def tower_of(small, **options) -> TorchvisionBackbone:
    return TorchvisionBackbone(**SMALL | {"weights": str(small["path"])} | options)


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def normalised(x: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (x - mean) / std


# --- inputs and features


def test_features_are_the_input_of_the_classifier(small):
    tower, x = tower_of(small), images(3, 3, 32, 32)
    z = tower(x)
    assert z.shape == (3, tower.z_dim) == (3, small["network"].fc.in_features)
    with torch.no_grad():
        expected = small["network"](normalised(x))
        torch.testing.assert_close(small["network"].fc(z), expected)


def test_images_of_other_sizes_and_greyscale_are_adapted(small):
    tower = tower_of(small)
    small_image = images(2, 1, 8, 8)
    same = F.interpolate(small_image, size=32, mode="bilinear", antialias=True)
    torch.testing.assert_close(tower(small_image), tower(same.repeat(1, 3, 1, 1)))
    assert tower(images(2, 3, 50, 50)).shape == (2, tower.z_dim)


def test_a_backbone_is_always_frozen_and_in_evaluation_mode(small):
    tower, x = tower_of(small), images(4, 3, 32, 32).requires_grad_()
    before = tower(x)
    assert not tower.train().training and not tower.network.training
    assert torch.equal(tower(x), before) and not before.requires_grad
    assert not any(p.requires_grad for p in tower.parameters())
    assert before.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_nearly_the_same_in_half_precision(small):
    tower, x = tower_of(small), images(4, 3, 32, 32)
    expected = tower(x)
    found = tower.cuda()(x.cuda())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.cpu(), expected, atol=2e-2, rtol=2e-2)


def test_random_weights_have_a_fixed_seed():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again = (TorchvisionBackbone(**SMALL, weights="random") for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    x = images(2, 3, 32, 32)
    assert torch.equal(first(x), again(x))


@pytest.mark.parametrize(
    ("model", "z_dim", "side"),
    [
        ("mobilenet_v3_small", 576, 32),
        ("squeezenet1_0", 512 * 3 * 3, 64),  # its classifier ends with pooling
    ],
)
def test_the_head_is_found_in_networks_of_different_layouts(model, z_dim, side):
    tower = TorchvisionBackbone(model, "random", side=side)
    assert tower(images(2, 3, side, side)).shape == (2, z_dim)


def test_another_layer_is_averaged_over_space(small):
    tower, x = tower_of(small, layer="stage2"), images(2, 3, 32, 32)
    network, found = small["network"], []
    handle = network.stage2.register_forward_hook(lambda *args: found.append(args[-1]))
    with torch.no_grad():
        network(normalised(x))
    handle.remove()
    torch.testing.assert_close(tower(x), found[0].mean((2, 3)))


# --- padding


def test_the_padding_of_tensorflow_is_at_the_right_and_bottom(small):
    convolution = nn.Conv2d(2, 3, 3, stride=2, padding=1)
    x = images(1, 2, 6, 6)
    expected = F.conv2d(F.pad(x, (0, 1, 0, 1)), convolution.weight, convolution.bias, stride=2)
    network = nn.Sequential(
        convolution, nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1, stride=2)
    )
    others = [id(layer) for layer in network[1:]]
    pad_as_tensorflow(network)
    torch.testing.assert_close(network[0](x), expected)
    assert [id(layer) for layer in network[1:]] == others
    wide = nn.Sequential(nn.Conv2d(2, 3, 7, stride=2, padding=3))
    pad_as_tensorflow(wide)
    assert wide[0].padding == (2, 3, 2, 3) and wide(x).shape == (1, 3, 3, 3)
    x = images(2, 3, 32, 32)
    plain, padded = (tower_of(small, padding=padding) for padding in ("torch", "tensorflow"))
    assert plain.z_dim == padded.z_dim and not torch.allclose(plain(x), padded(x))


# --- weights


def test_published_weights_are_fetched_with_the_checksum_in_their_name(monkeypatch, tmp_path):
    network, asked = random_network("resnet18"), []
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")

    def fetch(url, *, sha256, name=None, folder=None):
        asked.append((url, sha256))
        return tmp_path / "resnet18.pth"

    monkeypatch.setattr(torchvision_module, "fetch", fetch)
    tower = TorchvisionBackbone("resnet18", "IMAGENET1K_V1", side=32)
    url = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
    assert asked == [(url, "f37072fd")] and tower.z_dim == 512


def test_invalid_backbones_raise_errors(small, tmp_path):
    for make, message in (
        (lambda: TorchvisionBackbone("resnet18", "V9"), "'V9' for resnet18.*IMAGENET1K_V1"),
        (lambda: TorchvisionBackbone("quantized_resnet18", "random"), "quantized_resnet18"),
        (lambda: tower_of(small, padding="same"), "padding='same'.*tensorflow"),
        (lambda: tower_of(small, layer="stage9"), "layer='stage9'.*stage2"),
        (lambda: Backbone(nn.Identity(), side=8), r"vectors.*\[1, 3, 8, 8\]"),
        (lambda: SwAVBackbone(str(tmp_path / "nowhere.pth")), "nowhere.*swav_800ep"),
    ):
        with pytest.raises((ValueError, WeightsError), match=message):
            make()


# --- self-supervised ResNet50s, in the layouts of the published files


@pytest.fixture(scope="module")
def trunk() -> nn.Module:
    network = random_network("resnet50")
    network.fc = nn.Identity()
    return network


def checkpoints(state: dict) -> dict:
    model = {"trunk": {f"_feature_blocks.{name}": value for name, value in state.items()}}
    trainer = {"phase_idx": 800, "loss": 1.5}
    swav = {f"module.{name}": value for name, value in state.items()}
    heads = {"projection_head.0.weight": torch.zeros(2), "prototypes.weight": torch.zeros(3, 2)}
    heads = {f"module.{name}": value for name, value in heads.items()}
    return {
        SimCLRBackbone: trainer | {"classy_state_dict": {"base_model": {"model": model}}},
        SwAVBackbone: swav | heads,
    }


@pytest.mark.parametrize("tower_class", [SimCLRBackbone, SwAVBackbone])
def test_published_layouts_and_plain_state_dicts_are_read(
    tower_class, trunk, tmp_path, monkeypatch
):
    path, asked = tmp_path / "weights.pth", []
    torch.save(checkpoints(trunk.state_dict())[tower_class], path)

    def fetch(url, **kwargs):
        asked.append(url)
        return path

    monkeypatch.setattr(self_supervised, "fetch", fetch)
    downloaded = tower_class()
    assert len(asked) == 1 and asked[0].startswith("https://dl.fbaipublicfiles.com/")
    assert (downloaded.z_dim, downloaded.side) == (2048, 224)
    torch.save(trunk.state_dict(), tmp_path / "plain.pth")
    x = images(1, 3, 64, 64)
    assert torch.equal(tower_class(str(tmp_path / "plain.pth"))(x), downloaded(x))
    assert len(asked) == 1


def test_damaged_self_supervised_weights_raise_errors(trunk, tmp_path):
    path = tmp_path / "weights.pth"
    for tower_class, content in checkpoints(dict(list(trunk.state_dict().items())[1:])).items():
        torch.save(content, path)
        with pytest.raises(WeightsError, match="weights.pth.*Missing.*conv1.weight"):
            tower_class(str(path))
    torch.save({"classy_state_dict": {"base_model": {}}}, path)
    with pytest.raises(WeightsError, match="no trunk"):
        SimCLRBackbone(str(path))


# --- OpenCLIP


def test_open_clip_gives_its_embeddings(monkeypatch):
    asked = []
    fake, network = ModuleType("open_clip"), nn.Flatten()
    half = (0.5, 0.5, 0.5)
    network.visual = SimpleNamespace(image_size=(16, 16), image_mean=half, image_std=half)
    network.encode_image = lambda x: x.mean((2, 3))

    def create_model(name, *, pretrained, precision):
        asked.append((name, pretrained))
        if pretrained == "nothing":
            raise RuntimeError("not found")
        return network

    fake.create_model = create_model
    monkeypatch.setitem(sys.modules, "open_clip", fake)
    tower, x = OpenClipBackbone("ViT-B-16", "openai"), images(2, 1, 16, 16)
    assert asked == [("ViT-B-16", "openai")] and (tower.z_dim, tower.side) == (3, 16)
    torch.testing.assert_close(tower(x), 2 * x.expand(-1, 3, -1, -1).mean((2, 3)) - 1)
    with pytest.raises(WeightsError, match="'nothing'.*not found.*list_pretrained"):
        OpenClipBackbone("ViT-B-16", "nothing")
    monkeypatch.setitem(sys.modules, "open_clip", None)  # not installed
    with pytest.raises(ImportError, match="pip install open_clip_torch"):
        OpenClipBackbone()
