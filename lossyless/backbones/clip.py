"""The image towers of OpenAI's CLIP."""

from lossyless.backbones.base import Tower
from lossyless.backbones.clip_loading import load_clip

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipTower(Tower):
    """Unnormalised image embeddings of CLIP (https://arxiv.org/abs/2103.00020).

    Parameters
    ----------
    weights : name of one of CLIP's models ("ViT-B/32": 512 features, "RN50": 1024), or path of a
        checkpoint, see `load_clip`.
    """

    def __init__(self, weights: str = "ViT-B/32"):
        model, _ = load_clip(weights, device="cpu")
        visual = model.visual.float()
        super().__init__(
            visual,
            side=visual.input_resolution,
            mean=CLIP_MEAN,
            std=CLIP_STD,
            interpolation="bicubic",
        )
