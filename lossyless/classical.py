"""Codecs of images with nothing to learn."""

import io
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lossyless.base import PlainCompressor
from lossyless.coding.payloads import CodingError, decode_blobs, encode_blobs

#: options that Pillow's encoder gets, besides the quality
CODECS: dict[str, dict] = {
    "png": {"format": "PNG", "optimize": True},
    "jpeg": {"format": "JPEG", "optimize": True},
    "webp": {"format": "WEBP", "method": 6},
}


class ImageCodec(PlainCompressor):
    """What codecs of images share: the sender and the receiver both work on images.

    Images are float [N, C, H, W] in [0, 1]; they are rounded to 8 bits before they are coded.
    """

    is_reconstruct = True

    def fingerprint(self) -> str:
        # what is written says all that decoding needs: any quality decodes any other
        return self.codec


class RawPixels(ImageCodec):
    """No compression: 8 bits for each value, and not one more.

    Parameters
    ----------
    shape : (C, H, W) of all images, which the payload does not repeat.
    """

    codec = "none"

    def __init__(self, shape: Sequence[int]):
        super().__init__()
        self.shape = tuple(shape)
        if len(self.shape) != 3:
            raise ValueError(f"raw pixels are of images [C, H, W], not of shape {[*self.shape]}")

    def compress(self, images: Tensor) -> bytes:
        if tuple(images.shape[1:]) != self.shape:
            raise ValueError(f"expected images {[*self.shape]}, found {[*images.shape[1:]]}")
        return _to_uint8(images).tobytes()

    def decompress(self, payload: bytes, n_examples: int) -> Tensor:
        n_bytes = n_examples * math.prod(self.shape)
        if len(payload) != n_bytes:
            raise CodingError(
                f"expected {n_bytes} bytes of {n_examples} images {[*self.shape]}, found "
                f"{len(payload)}"
            )
        pixels = torch.frombuffer(bytearray(payload), dtype=torch.uint8)
        return pixels.view(n_examples, *self.shape).float() / 255


class ClassicalCompressor(ImageCodec):
    """PNG, JPEG or WebP: one file per image, concatenated with their lengths.

    Parameters
    ----------
    codec : "png" (lossless), "jpeg" or "webp".
    n_channels : 1 or 3.
    quality : 0 to 100, larger = more bits; PNG has none.
    """

    def __init__(self, codec: str, n_channels: int, quality: int | None = None):
        super().__init__()
        if n_channels not in (1, 3):
            raise ValueError(f"{codec} takes images of 1 or 3 channels, not of {n_channels}")
        self.n_channels = n_channels
        if codec not in CODECS:
            raise ValueError(f"unknown classical codec {codec!r}: expected one of {list(CODECS)}")
        self.codec = codec
        self._options = CODECS[codec] | ({} if quality is None else {"quality": quality})

    def compress(self, images: Tensor) -> bytes:
        pixels = _to_uint8(images).transpose(0, 2, 3, 1)
        return encode_blobs([self._encode(image) for image in pixels])

    def decompress(self, payload: bytes, n_examples: int) -> Tensor:
        files = decode_blobs(payload)
        if len(files) != n_examples:
            raise CodingError(f"expected {n_examples} images, found {len(files)}")
        images = [self._decode(file) for file in files]
        if len(sizes := {tuple(image.shape) for image in images}) > 1:
            raise CodingError(f"the images of a batch differ in size: {sorted(sizes)}")
        return torch.stack(images)

    def _encode(self, pixels: np.ndarray) -> bytes:  # [H, W, C] uint8
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        file = io.BytesIO()
        image.save(file, **self._options)
        return file.getvalue()

    def _decode(self, file: bytes) -> Tensor:  # [C, H, W] in [0, 1]
        try:
            # WebP knows no greyscale: its files come back with three equal channels
            image = Image.open(io.BytesIO(file)).convert("L" if self.n_channels == 1 else "RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise CodingError(f"not an image that Pillow can read: {error}") from error
        pixels = np.array(image).reshape(image.height, image.width, self.n_channels)
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def _to_uint8(images: Tensor) -> np.ndarray:
    """Values in [0, 1] to 0, ..., 255, in C order."""
    pixels = (images.detach().float().clamp(0, 1) * 255).round().byte()
    return pixels.cpu().contiguous().numpy()
