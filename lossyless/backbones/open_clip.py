"""Image encoders of OpenCLIP, an optional dependency."""

import torch
from torch import Tensor, nn

from lossyless.backbones.base import Backbone
from lossyless.weights import WeightsError


class OpenClipBackbone(Backbone):
    """Unnormalised image embeddings of any model of OpenCLIP (https://arxiv.org/abs/2212.07143).

    Parameters
    ----------
    model : name in `open_clip.list_models()`, e.g. "ViT-B-32".
    weights : name of published weights of that model, see `open_clip.list_pretrained()` (they come
        from the Hugging Face Hub), or path of a checkpoint.

    Raises
    ------
    ImportError
        OpenCLIP is not installed.
    WeightsError
        The weights cannot be downloaded or read, or do not fit.
    """

    def __init__(self, model: str = "ViT-B-32", weights: str = "laion2b_s34b_b79k"):
        try:
            import open_clip
        except ImportError as error:
            raise ImportError(
                f"backbone {model!r} of OpenCLIP needs a package that is not installed: "
                "pip install open_clip_torch"
            ) from error
        try:
            with torch.random.fork_rng(devices=[]):  # constructing layers consumes random numbers
                network = open_clip.create_model(model, pretrained=weights, precision="fp32")
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            raise WeightsError(
                f"OpenCLIP could not create {model!r} with the weights {weights!r}: {error}. Check "
                "the network and open_clip.list_pretrained(), or give the path of a checkpoint."
            ) from error
        visual = network.visual
        size = visual.image_size
        super().__init__(
            _ImageSide(network),
            side=size if isinstance(size, int) else size[0],
            mean=visual.image_mean,
            std=visual.image_std,
            interpolation="bicubic",
        )


class _ImageSide(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.encode_image(x)
