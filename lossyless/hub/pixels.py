"""Pixels of more than 8 bits, which PIL clips to white when it converts them to RGB."""

import numpy as np
from PIL import Image

MAX_UINT16 = 65535
#: formats of 16 bits a pixel that PIL gives in its mode of 32, some versions all of them
SIXTEEN_BIT_FORMATS = ("PNG", "PPM")


def to_8_bits(image: Image.Image) -> Image.Image:
    """The image, with 0 .. 65535 scaled to 0 .. 255 if it is greyscale of 16 bits a pixel.

    Raises
    ------
    ValueError
        Its pixels are integers of 32 bits or floats: nobody says which of them is white.
    """
    is_deep = image.mode in ("I", "F") or image.mode.startswith("I;16")
    if not is_deep:
        return image
    is_16_bit = image.mode.startswith("I;16") or (
        image.mode == "I" and getattr(image, "format", None) in SIXTEEN_BIT_FORMATS
    )
    if not is_16_bit:
        raise ValueError(
            f"greyscale of PIL's mode {image.mode}, which has no defined range of pixels: save it "
            "with 8 or 16 bits a pixel"
        )
    levels = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((255 * levels + MAX_UINT16 // 2) // MAX_UINT16).astype(np.uint8))
