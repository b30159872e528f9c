"""`base_resize`: how images are resized when they are read, before any augmentation.

resize             the whole image, stretched to the square
imagenet           the shorter side to 8/7 of the result's (256 for 224), then the centre
upscale_crop_eval  as resize for training, as imagenet in evaluation
clip               the shorter side (bicubic), then the centre: CLIP's own preprocessing
clip_random        as clip in evaluation; for training, then a random square along the longer side
none               images must already have their final shape
"""

from torchvision.transforms import InterpolationMode, v2

from utils.data.module import check_choice

BASE_RESIZES = ("resize", "upscale_crop_eval", "clip", "clip_random", "imagenet", "none")
RANDOM = "clip_random"  # in training
MARGIN = 8 / 7  # an image of side 256 around a crop of side 224


def make_resize(name: str, side: int, *, is_evaluation: bool) -> v2.Transform:
    """Transformation of PIL images or tensors [..., C, H, W] to [..., C, side, side].

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    check_choice("base_resize", name, BASE_RESIZES)
    if name == "none":
        return v2.Identity()
    if name == RANDOM and not is_evaluation:
        bicubic = v2.Resize(side, InterpolationMode.BICUBIC, antialias=True)
        return v2.Compose([bicubic, v2.RandomCrop(side)])
    if name in ("clip", RANDOM):
        return _centre(side, side, InterpolationMode.BICUBIC)
    if name == "imagenet" or (name == "upscale_crop_eval" and is_evaluation):
        return _centre(round(MARGIN * side), side, InterpolationMode.BILINEAR)
    return v2.Resize((side, side), antialias=True)


def _centre(shorter_side: int, side: int, interpolation: InterpolationMode) -> v2.Transform:
    """Resize the shorter side, then crop the centre."""
    return v2.Compose([v2.Resize(shorter_side, interpolation, antialias=True), v2.CenterCrop(side)])
