"""Images that viewers display alike have the same pixels, in any file format."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from lossyless.pixels import MAX_ASPECT, to_rgb

RGB = np.random.default_rng(0).integers(0, 255, (6, 4, 3), dtype=np.uint8)


def stored(image: Image.Image, file_format: str, **options) -> Image.Image:
    """The image after a round trip through a file."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return Image.open(buffer)


def pixels(image: Image.Image) -> np.ndarray:
    image = to_rgb(image)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright(file_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {}
    image = stored(Image.fromarray(RGB), file_format, exif=exif, **options)
    turned = RGB.transpose(1, 0, 2) if orientation >= 5 else RGB
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    np.testing.assert_array_equal(pixels(image), turned)


def test_transparency_shows_white():
    palette = Image.fromarray(RGB).quantize(4)
    indices, colours = np.asarray(palette), np.asarray(palette.convert("RGB")).copy()
    colours[indices == 2] = 255
    np.testing.assert_array_equal(pixels(stored(palette, "PNG", transparency=2)), colours)

    alpha = np.full((6, 4, 1), 255, np.uint8)
    alpha[0] = 0
    rgba = stored(Image.fromarray(np.concatenate([RGB, alpha], 2)), "PNG")
    np.testing.assert_array_equal(pixels(rgba)[1:], RGB[1:])
    assert (pixels(rgba)[0] == 255).all()

    grey = Image.merge("LA", [Image.new("L", (2, 2), 100), Image.new("L", (2, 2), 51)])
    assert (pixels(stored(grey, "PNG")) == 224).all()  # 0.2 * 100 + 0.8 * 255


def test_16_bits_are_scaled_to_8():
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16)
    for file_format in ("PNG", "PPM", "TIFF"):
        image = stored(Image.fromarray(257 * grey), file_format)
        np.testing.assert_array_equal(pixels(image), np.stack(3 * [grey], axis=2))


def test_an_unknown_range_is_an_error():
    twelve_bits = stored(Image.fromarray(np.array([[0, 4095]], np.uint16)), "PNG")
    with pytest.raises(ValueError, match="4095.*65535"):
        to_rgb(twelve_bits)
    negative = stored(Image.fromarray(np.zeros((2, 2), np.uint16)), "TIFF", tiffinfo={262: 0})
    with pytest.raises(ValueError, match="0 is white"):
        to_rgb(negative)
    for dtype in (np.float32, np.int32):
        with pytest.raises(ValueError, match="range"):
            to_rgb(stored(Image.fromarray(np.ones((2, 2), dtype)), "TIFF"))
    assert (pixels(stored(Image.fromarray(np.zeros((2, 2), np.uint16)), "PNG")) == 0).all()


def test_cmyk_is_converted_to_what_viewers_show():
    srgb = ImageCms.createProfile("sRGB")
    white, red = (0, 0, 0, 0), (0, 255, 255, 0)
    for colour, expected in ((white, (255, 255, 255)), (red, (255, 0, 0))):
        image = stored(Image.new("CMYK", (8, 8), colour), "JPEG", quality=100)
        assert image.mode == "CMYK"
        assert np.abs(pixels(image)[0, 0].astype(int) - expected).max() <= 2
        for invalid in (b"no profile", ImageCms.ImageCmsProfile(srgb).tobytes()):
            image.info["icc_profile"] = invalid
            assert np.abs(pixels(image)[0, 0].astype(int) - expected).max() <= 2


@pytest.mark.parametrize("size", [(1, 60000), (60000, 2)])
def test_extreme_images_keep_their_centre(size):
    image = Image.new("L", size)
    centre = (size[0] // 2, size[1] // 2)
    image.putpixel(centre, 255)
    found = to_rgb(image)
    assert max(found.size) <= MAX_ASPECT * min(size)
    assert np.asarray(found).max() == 255
    ordinary = Image.new("RGB", (300, 40))
    assert to_rgb(ordinary).size == ordinary.size
