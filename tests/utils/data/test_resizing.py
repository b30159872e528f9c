"""`base_resize` agrees with Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from utils.data.images import BASE_RESIZES, make_resize

SIDE = 28
SIZES = [(50, 37), (37, 50), (40, 40), (20, 64), (9, 11)]  # (width, height)


def with_shorter_side(image, shorter, filter_):
    return image.resize([int(shorter * side / min(image.size)) for side in image.size], filter_)


def centre(image):
    left, top = (round((length - SIDE) / 2) for length in image.size)
    return image.crop((left, top, left + SIDE, top + SIDE))


def squashed(image):
    return image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def imagenet(image):
    return centre(with_shorter_side(image, 32, Image.Resampling.BILINEAR))


def clip(image):
    return centre(with_shorter_side(image, SIDE, Image.Resampling.BICUBIC))


def crops_of(image):
    """Square crops along the longer side of an image resized as in CLIP."""
    pixels = np.asarray(with_shorter_side(image, SIDE, Image.Resampling.BICUBIC))
    height, width, _ = pixels.shape
    starts = [(y, x) for y in range(height - SIDE + 1) for x in range(width - SIDE + 1)]
    return [pixels[y : y + SIDE, x : x + SIDE] for y, x in starts]


REFERENCES = {  # in evaluation
    "resize": squashed,
    "upscale_crop_eval": imagenet,
    "clip": clip,
    "clip_random": clip,
    "imagenet": imagenet,
    "none": lambda image: image,
}
TRAINING = REFERENCES | {"upscale_crop_eval": squashed}


def noise(size):
    pixels = np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", BASE_RESIZES)
def test_images_and_tensors_are_resized_as_by_pillow(name, size):
    image = noise(size)
    resize = make_resize(name, SIDE, is_evaluation=True)
    expected = np.asarray(REFERENCES[name](image))
    assert np.array_equal(np.asarray(resize(image)), expected)
    found = resize(v2.functional.pil_to_tensor(image))
    difference = found.permute(1, 2, 0).int() - torch.tensor(expected).int()
    assert found.dtype == torch.uint8 and difference.abs().max() <= 2  # they round differently
    if name != "clip_random":
        found = make_resize(name, SIDE, is_evaluation=False)(image)
        assert np.array_equal(np.asarray(found), np.asarray(TRAINING[name](image)))


@pytest.mark.parametrize("size", [(60, SIDE), (37, 50)])
def test_random_crops_lie_anywhere_along_the_longer_side(size):
    image = noise(size)
    resize = make_resize("clip_random", SIDE, is_evaluation=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = {np.asarray(resize(image)).tobytes() for _ in range(400)}
    assert found == {crop.tobytes() for crop in crops_of(image)}


def test_the_paper_s_sizes():
    image = Image.new("RGB", (500, 375))
    for name in BASE_RESIZES[:-1]:
        assert make_resize(name, 224, is_evaluation=True)(image).size == (224, 224)
    shorter_side = make_resize("imagenet", 224, is_evaluation=True).transforms[0].size
    assert shorter_side == [256]


def test_unknown_names_are_rejected_with_the_alternatives():
    with pytest.raises(ValueError, match="base_resize: .*'crop'.*upscale_crop_eval.*none"):
        make_resize("crop", SIDE, is_evaluation=False)
