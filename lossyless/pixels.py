"""Pixels of image files as viewers show them: upright, opaque, 8-bit RGB.

`to_rgb` applies the EXIF orientation of photos, composites transparent pixels onto white and
converts colours.
"""

import contextlib
import io

import numpy as np
from PIL import Image, ImageCms, ImageOps

#: exceptions that PIL raises for files that are not images, are incomplete, or are too large
UNREADABLE = (MemoryError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)
MAX_ASPECT = 16  # more elongated images are cropped before they are resized
PHOTOMETRIC_INTERPRETATION, WHITE_IS_ZERO = 262, 0  # a TIFF tag and one of its values
SIXTEEN_BIT_FORMATS = ("PNG", "PPM")  # some PIL versions read 16-bit images in mode "I"


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB: apply its EXIF orientation, and composite it onto white.

    CMYK images are converted with their embedded colour profile, if it is valid. 16-bit greyscale
    is scaled to 8 bits. Images with an aspect ratio above 16 are cropped to their centre, because
    resizing them would need unbounded memory; networks see only the central square anyway.

    Raises ValueError if pixel values cannot be interpreted: 32-bit integers or floats, 16-bit
    values that all fit in 12 bits, or a 16-bit TIFF in which 0 is white.
    """
    file_format = image.format  # copies lose it
    is_negative = getattr(image, "tag_v2", {}).get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO
    image = _crop_ends(ImageOps.exif_transpose(image))
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        if is_negative:  # PIL inverts such images only up to 8 bits per pixel
            raise ValueError("0 is white: save the image with 0 as black, or with 8 bits per pixel")
        image = _to_8_bits(image, file_format)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode == "CMYK" and (profile := image.info.get("icc_profile")):
        with contextlib.suppress(OSError, ImageCms.PyCMSError):  # viewers ignore invalid profiles
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            srgb = ImageCms.createProfile("sRGB")
            return ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    return image.convert("RGB")


def _crop_ends(image: Image.Image) -> Image.Image:
    width, height = image.size
    longest = MAX_ASPECT * min(width, height)
    left, top = (max(0, side - longest) // 2 for side in (width, height))
    return image.crop((left, top, width - left, height - top)) if left or top else image


def _to_8_bits(image: Image.Image, file_format: str | None) -> Image.Image:
    """Scale 16-bit greyscale to 8 bits; PIL itself would clip values above 255."""
    is_16_bit = image.mode.startswith("I;16") or (
        image.mode == "I" and file_format in SIXTEEN_BIT_FORMATS
    )
    levels = np.asarray(image)
    if not is_16_bit:
        raise ValueError(
            f"pixels in PIL's mode {image.mode} have no defined range: save the image with 8 or "
            "16 bits per pixel"
        )
    if 0 < levels.max() < 4096:
        raise ValueError(
            f"its largest 16-bit value is {levels.max()}, so its range is probably not 0..65535: "
            "scale the values to that range, or save the image with 8 bits per pixel"
        )
    scaled = ((255 * levels.astype(np.uint32) + 65535 // 2) // 65535).astype(np.uint8)
    scaled[levels == image.info.get("transparency", -1)] = 255  # white
    return Image.fromarray(scaled)
