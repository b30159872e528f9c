"""Features from torchvision's classifiers."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from lossyless.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone
from lossyless.torch_state import drawing_from, isolated
from lossyless.weights import WeightsError, fetch, load_strictly, read_state_dict

PADDINGS = ("torch", "tensorflow")
RANDOM = "random"
QUANTIZED = "quantized_"  # name prefix of 8-bit quantized networks
# attribute names of torchvision's classification heads
HEADS = ("fc", "classifier", "heads", "head")


class TorchvisionBackbone(Backbone):
    """Features from a torchvision classifier.

    Parameters
    ----------
    model : name in `torchvision.models.list_models()`, e.g. "resnet50"; quantized networks are not
        supported.
    weights : name of published weights for that model, e.g. "IMAGENET1K_V1", which are downloaded
        on first use (and verified by the checksum in their file name); or path to a state dict
        (.pt, .pth or .npz) of the whole classifier; or "random": random weights with a fixed seed,
        for trying things out without a download.
    side : height and width of the network's input, in pixels.
    mean, std : normalisation of the network's input.
    layer : dotted name of the module whose output, averaged over space, provides the features;
        null: the input of the classifier's head, flattened. Most networks pool it; VGG and
        SqueezeNet do not, so use "features" for them.
    padding : "torch", or "tensorflow" for weights trained with TensorFlow's asymmetric padding of
        stride-2 convolutions.
    n_classes : number of outputs of the classifier.

    Raises WeightsError if the weights cannot be downloaded or read, or if a tensor is missing,
    unexpected or of the wrong shape.
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
                f"{model}: quantized models are not supported; choose {model[len(QUANTIZED) :]!r}"
            )
        network = build(model, num_classes=n_classes)
        if weights != RANDOM:
            path = _find(model, weights)
            load_strictly(network, read_state_dict(path), path)
        if padding == "tensorflow":
            pad_as_tensorflow(network)
        network = _without_head(network, model) if layer is None else _Layer(network, layer)
        super().__init__(network, side=side, mean=mean, std=std)


@isolated
def build(model: str, **options: object) -> nn.Module:
    """Build a torchvision model in evaluation mode, with random weights from a fixed seed."""
    with drawing_from(torch.Generator().manual_seed(0)):
        return models.get_model(model, weights=None, **options).eval()


def _find(model: str, weights: str) -> Path:
    """Return the weights file, downloading it if necessary."""
    if Path(weights).is_file():
        return Path(weights)
    published = models.get_model_weights(model)
    if weights not in published.__members__:
        raise WeightsError(
            f"weights {weights!r} for {model}: expected a file, {RANDOM!r}, or one of "
            f"torchvision's: {', '.join(published.__members__)}."
        )
    url = published[weights].url
    return fetch(url, sha256=Path(url).stem.rpartition("-")[2])


def _without_head(network: nn.Module, name: str) -> nn.Module:
    """Replace the network's head, so that the network returns the head's input, [B, z_dim]."""
    for head in HEADS:
        if hasattr(network, head):
            setattr(network, head, nn.Flatten(1))
            return network
    raise ValueError(
        f"{name} has none of the heads {', '.join(HEADS)}: choose a `layer` that outputs features"
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
                f"layer={layer!r}: {type(network).__name__} has no such module; its parts "
                f"are {', '.join(names)}"
            ) from error
        self.extractor = create_feature_extractor(network, {layer: "features"})

    def forward(self, x: Tensor) -> Tensor:
        features = self.extractor(x)["features"]
        return features.mean((2, 3)) if features.ndim == 4 else features


class _TensorFlowPadding(nn.Module):
    """A stride-2 convolution with TensorFlow's "SAME" padding, which puts the extra pixel on
    the right and at the bottom.

    For even sides and a 3x3 kernel, the padding is (0, 1), whereas PyTorch pads with (1, 1), so
    the two sampling grids are offset by one pixel.
    """

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        total = convolution.kernel_size[0] - convolution.stride[0]
        before = total // 2
        self.padding = (before, total - before) * 2
        self.convolution = convolution
        convolution.padding = (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(F.pad(x, self.padding))


def pad_as_tensorflow(network: nn.Module) -> None:
    """Give all padded stride-2 convolutions TensorFlow's padding, for even sides."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d) and child.stride == (2, 2) and child.padding != (0, 0):
                setattr(module, name, _TensorFlowPadding(child))
