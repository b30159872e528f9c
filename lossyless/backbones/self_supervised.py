"""ResNet50s trained without labels, loaded from their authors' files.

The authors publish no checksums: a file is accepted if it has exactly the network's tensors.
"""

from pathlib import Path

from torch import Tensor, nn

from lossyless.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone
from lossyless.backbones.torchvision import build
from lossyless.weights import (
    WeightsError,
    fetch,
    load_strictly,
    read_checkpoint,
    read_state_dict,
)

SIMCLR_URL = (
    "https://dl.fbaipublicfiles.com/vissl/model_zoo/"
    "simclr_rn50_800ep_simclr_8node_resnet_16_07_20.7e8feed1/model_final_checkpoint_phase799.torch"
)
SWAV_URL = "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar"


class SimCLRBackbone(Backbone):
    """SimCLR's ResNet50 (https://arxiv.org/abs/2002.05709), 800 epochs, from VISSL's model zoo.

    Parameters
    ----------
    weights : path to VISSL's checkpoint, or to a state dict of the ResNet50 without its `fc`; null:
        downloaded on first use.
    """

    def __init__(self, weights: str | None = None):
        path = _file(weights, SIMCLR_URL, "simclr_rn50_800ep.torch")
        super().__init__(_trunk(_vissl_state(path), path), side=224)


class SwAVBackbone(Backbone):
    """SwAV's ResNet50 (https://arxiv.org/abs/2006.09882), 800 epochs, from the authors.

    Parameters
    ----------
    weights : path to the authors' checkpoint, or to a state dict of the ResNet50 without its `fc`;
        null: downloaded on first use.
    """

    def __init__(self, weights: str | None = None):
        path = _file(weights, SWAV_URL, "swav_800ep_pretrain.pth.tar")
        heads = ("projection_head.", "prototypes.")  # used in training only
        state = {n: v for n, v in read_state_dict(path).items() if not n.startswith(heads)}
        # the authors' evaluation uses 0.228 instead of 0.229
        std = (0.228, *IMAGENET_STD[1:])
        super().__init__(_trunk(state, path), side=224, mean=IMAGENET_MEAN, std=std)


def _file(weights: str | None, url: str, name: str) -> Path:
    if weights is None:
        return fetch(url, sha256=None, name=name)
    path = Path(weights)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file; download it from {url}")
    return path


def _vissl_state(path: Path) -> dict[str, Tensor]:
    """The trunk of a VISSL checkpoint, with torchvision's names, or a plain state dict."""
    content = read_checkpoint(path)
    if "classy_state_dict" not in content:
        return read_state_dict(path)
    try:
        trunk = content["classy_state_dict"]["base_model"]["model"]["trunk"]
    except (KeyError, TypeError) as error:
        raise WeightsError(
            f"{path} is not a VISSL checkpoint: it has no trunk ({error})."
        ) from error
    return {name.removeprefix("_feature_blocks."): value for name, value in trunk.items()}


def _trunk(state: dict[str, Tensor], path: Path) -> nn.Module:
    """Load a ResNet50 without its head, so that it outputs pooled features [B, 2048]."""
    network = build("resnet50")
    network.fc = nn.Identity()
    load_strictly(network, state, path)
    return network
