"""Image codecs without learned parameters: raw pixels, PNG, JPEG, WebP."""

import io
from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lossyless.base import PlainCompressor
from lossyless.coding.payloads import ArrayCoder, CodingError, decode_blobs, encode_blobs
from lossyless.pixels import UNREADABLE

#: Pillow's encoder options, apart from the quality
CODECS: dict[str, dict] = {
    "png": {"format": "PNG", "optimize": True},
    "jpeg": {"format": "JPEG", "optimize": True},
    "webp": {"format": "WEBP", "method": 6},
}


class ImageCodec(PlainCompressor):
    """Base class for image codecs, whose sender and receiver both work on images.

    Images are float [N, C, H, W] in [0, 1], and are rounded to 8 bits before coding.
    """

    is_reconstruct = True

    def fingerprint(self) -> str:
        # payloads are self-contained: a codec can decode payloads written at any quality
        return self.format_name


class RawPixels(ImageCodec):
    """No compression: exactly 8 bits per value.

    Parameters
    ----------
    shape : (C, H, W) of every image; not stored in the payload.
    """

    format_name = "none"

    def __init__(self, shape: Sequence[int]):
        super().__init__()
        self.shape = tuple(shape)
        if len(self.shape) != 3:
            raise ValueError(f"the raw codec needs images [C, H, W], got shape {[*self.shape]}")

    def quantise(self, z: Tensor) -> NDArray[np.uint8]:  # [N, C, H, W]
        if tuple(z.shape[1:]) != self.shape:
            raise ValueError(f"expected images {[*self.shape]}, found {[*z.shape[1:]]}")
        return _to_uint8(z)

    def dequantise(self, symbols: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(symbols.astype(np.float32)) / 255

    def coder(self) -> ArrayCoder:
        return ArrayCoder(np.dtype("u1"), self.shape)


class ClassicalCompressor(ImageCodec):
    """PNG, JPEG or WebP: one file per image, all concatenated and preceded by their lengths.

    Parameters
    ----------
    codec : "png" (lossless), "jpeg" or "webp".
    n_channels : 1 or 3.
    quality : 0 to 100; larger = more bits; ignored by PNG.
    """

    def __init__(self, codec: str, n_channels: int, quality: int | None = None):
        super().__init__()
        if n_channels not in (1, 3):
            raise ValueError(f"{codec} needs images with 1 or 3 channels, got {n_channels}")
        if codec not in CODECS:
            raise ValueError(f"unknown classical codec {codec!r}: expected one of {list(CODECS)}")
        if quality is not None and (not isinstance(quality, Integral) or not 0 <= quality <= 100):
            raise ValueError(f"quality={quality!r} of {codec}: expected an integer from 0 to 100")
        self.format_name = codec
        self.n_channels = n_channels
        self._options = CODECS[codec] | ({} if quality is None else {"quality": quality})

    def quantise(self, z: Tensor) -> NDArray[np.uint8]:  # [N, H, W, C]
        return _to_uint8(z).transpose(0, 2, 3, 1)

    def dequantise(self, symbols: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(symbols).permute(0, 3, 1, 2).contiguous().float() / 255

    def coder(self) -> "PillowCoder":
        return PillowCoder(self._options, self.n_channels)


class PillowCoder:
    """Coder that stores uint8 pixels [N, H, W, C] as image files; `options` go to Pillow."""

    def __init__(self, options: dict, n_channels: int):
        self.options = options
        self.mode = "L" if n_channels == 1 else "RGB"

    def encode(self, pixels: NDArray[np.uint8]) -> bytes:
        return encode_blobs([self._encode(image) for image in pixels])

    def decode(self, payload: bytes, n_examples: int) -> NDArray[np.uint8]:
        files = decode_blobs(payload)
        if len(files) != n_examples:
            raise CodingError(f"expected {n_examples} images, found {len(files)}")
        images = [self._decode(file) for file in files]
        if len(sizes := {image.shape for image in images}) > 1:
            raise CodingError(f"the images of a batch differ in size: {sorted(sizes)}")
        return np.stack(images)

    def _encode(self, pixels: NDArray[np.uint8]) -> bytes:  # [H, W, C]
        image = Image.fromarray(pixels[..., 0] if self.mode == "L" else pixels)
        file = io.BytesIO()
        image.save(file, **self.options)
        return file.getvalue()

    def _decode(self, file: bytes) -> NDArray[np.uint8]:  # [H, W, C]
        try:
            # WebP does not support greyscale: such images are stored in colour
            image = Image.open(io.BytesIO(file)).convert(self.mode)
        except UNREADABLE as error:
            raise CodingError(f"not an image that Pillow can read: {error}") from error
        return np.array(image).reshape(image.height, image.width, len(self.mode))


def _to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """Convert values in [0, 1] to 0, ..., 255, in C order."""
    pixels = (images.float().clamp(0, 1) * 255).round().byte()
    return pixels.cpu().contiguous().numpy()
