"""Towers from torchvision's classifiers."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from lossyless.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Tower
from lossyless.backbones.padding import pad_as_tensorflow
from lossyless.state_dicts import load_strictly, read_state_dict
from lossyless.weights import WeightsError, fetch

PADDINGS = ("torch", "tensorflow")
RANDOM = "random"
QUANTIZED = "quantized_"  # what names of networks of 8-bit integers begin with
HEADS = ("fc", "classifier", "heads", "head")  # what torchvision calls the last part of its models


class TorchvisionTower(Tower):
    """Features of a classifier of torchvision.

    Parameters
    ----------
    model : name in `torchvision.models.list_models()`, e.g. "resnet50"; not of a quantized network.
    weights : name of published weights of that model, e.g. "IMAGENET1K_V1", which are downloaded at
        the first use (the checksum in the name of the file is verified); or path of a state dict
        of the whole classifier, .pt, .pth or .npz; or "random": always the same ones, to try things
        out without a download.
    side : of the images that the network takes, in pixels.
    mean, std : by which it wants its images normalised.
    layer : dotted name of the module whose output is the features, averaged over space; null: the
        input of the classifier's head, flattened. Most networks have pooled it, but VGG and
        SqueezeNet have not: name "features" there.
    padding : "torch", or "tensorflow" for weights trained with that library's padding of
        convolutions with stride 2 (which is not symmetric).
    n_classes : outputs of the classifier that the weights are of.

    Raises
    ------
    WeightsError
        If the weights cannot be had or do not fit: every tensor must be there, and no other.
    """

    def __init__(
        self,
        model: str,
        weights: str,
        *,
        side: int = 224,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        layer: str | None = None,
        padding: str = "torch",
        n_classes: int = 1000,
    ):
        if padding not in PADDINGS:
            raise ValueError(f"padding={padding!r}: choose one of {', '.join(PADDINGS)}")
        if model.startswith(QUANTIZED):
            raise WeightsError(
                f"{model}: quantized models are not supported: choose {model[len(QUANTIZED) :]!r}"
            )
        network = build(model, num_classes=n_classes)
        if weights != RANDOM:
            path = _find(model, weights)
            load_strictly(network, read_state_dict(path), path)
        if padding == "tensorflow":
            pad_as_tensorflow(network)
        network = _without_head(network, model) if layer is None else _Layer(network, layer)
        super().__init__(network, side=side, mean=mean, std=std)


def build(model: str, **options: object) -> nn.Module:
    """A model of torchvision in evaluation mode, its weights drawn with a seed of their own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return models.get_model(model, weights=None, **options).eval()


def _find(model: str, weights: str) -> Path:
    """The file of some weights, which is downloaded if need be."""
    if Path(weights).is_file():
        return Path(weights)
    published = models.get_model_weights(model)
    if weights not in published.__members__:
        raise WeightsError(
            f"weights {weights!r} of {model} are neither a file, nor {RANDOM!r}, nor published by "
            f"torchvision, which has {', '.join(published.__members__)}."
        )
    url = published[weights].url
    return fetch(url, sha256=Path(url).stem.rpartition("-")[2])


def _without_head(network: nn.Module, name: str) -> nn.Module:
    """The network, which now gives the input of its head, [B, z_dim]."""
    for head in HEADS:
        if hasattr(network, head):
            setattr(network, head, nn.Flatten(1))
            return network
    raise ValueError(
        f"{name} has none of the heads {', '.join(HEADS)}: name a `layer` that gives the features"
    )


class _Layer(nn.Module):
    """The output of an inner module, averaged over space."""

    def __init__(self, network: nn.Module, layer: str):
        super().__init__()
        try:
            network.get_submodule(layer)
        except AttributeError as error:
            names = [name for name, _ in network.named_children()]
            raise ValueError(
                f"layer={layer!r}: {type(network).__name__} has no module of that name; its parts "
                f"are {', '.join(names)}"
            ) from error
        self.extractor = create_feature_extractor(network, {layer: "features"})

    def forward(self, x: Tensor) -> Tensor:
        features = self.extractor(x)["features"]
        return features.mean((2, 3)) if features.ndim == 4 else features
