"""The base class of frozen pretrained networks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from lossyless.architectures import Standardize

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def precision(device: torch.device) -> torch.dtype:
    """The precision in which backbones run on a device; features depend on it."""
    return torch.float16 if device.type == "cuda" else torch.float32


class Backbone(nn.Module):
    """A frozen feature extractor: images [B, C, H, W] in [0, 1] -> z [B, z_dim] float32.

    Greyscale images are expanded to three channels, and all images are resized to `side` x `side`,
    on their device. The network runs in half precision on a GPU. It is always in evaluation mode,
    and its parameters require no gradients.

    Parameters
    ----------
    network : maps normalised images [B, 3, side, side] to features [B, z_dim].
    side : height and width of the network's input, in pixels.
    mean, std : normalisation of the three channels of the network's input, for pixels in [0, 1].
    interpolation : how images are resized; a value of torchvision's `InterpolationMode`.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        side: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        interpolation: str = "bilinear",
    ):
        super().__init__()
        # makes convolutions at 224 pixels 1.7x faster on a CPU
        self.network = network.to(memory_format=torch.channels_last)
        self.side = side
        self.interpolation = InterpolationMode(interpolation)
        self.standardize = Standardize((3, side, side), mean, std)
        self.requires_grad_(False).eval()
        features = self(torch.zeros(1, 3, side, side))
        if features.ndim != 2:
            raise ValueError(
                f"{type(self).__name__}: features must be vectors [B, z_dim], found "
                f"{list(features.shape)}; choose another layer"
            )
        self.z_dim: int = features.shape[1]

    def train(self, mode: bool = True) -> "Backbone":
        """Do nothing: a backbone stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (self.side, self.side):
            x = F.resize(x, [self.side] * 2, self.interpolation, antialias=True).clamp(0, 1)
        x = self.standardize(x.expand(-1, 3, -1, -1))
        x = x.contiguous(memory_format=torch.channels_last)
        is_half = precision(x.device) == torch.float16
        with torch.autocast(x.device.type, torch.float16, enabled=is_half):
            return self.network(x).float()
