"""Classical image codecs behind the same contract as the learnable compressor."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lossyless.payloads import CodingError, decode_blobs, encode_blobs

#: options that Pillow's encoder gets, besides the quality
CODECS: dict[str, dict] = {
    "png": {"format": "PNG", "optimize": True},
    "jpeg": {"format": "JPEG", "optimize": True},
    "webp": {"format": "WEBP", "method": 6},
}


class ClassicalCompressor(torch.nn.Module):
    """PNG, JPEG or WebP: one file per image, concatenated with their lengths.

    Images are float [N, C, H, W] in [0, 1] with C of 1 or 3; the receiver gets images again.

    Parameters
    ----------
    codec : "png" (lossless), "jpeg" or "webp".
    n_channels : 1 or 3.
    quality : 0 to 100, larger = more bits; PNG has none.
    """

    is_reconstruct = True

    def __init__(self, codec: str, n_channels: int, quality: int | None = None):
        super().__init__()
        if n_channels not in (1, 3):
            raise ValueError(f"{codec} takes images of 1 or 3 channels, not of {n_channels}")
        self.n_channels = n_channels
        if codec not in CODECS:
            raise ValueError(f"unknown classical codec {codec!r}: expected one of {list(CODECS)}")
        self.codec = codec
        self._options = CODECS[codec] | ({} if quality is None else {"quality": quality})

    def fingerprint(self) -> str:
        # the files describe themselves: any quality decodes any other
        return self.codec

    def forward(self, x: Tensor) -> Tensor:
        """The images that the receiver gets for x [B, C, H, W]."""
        return self.decompress(self.compress(x), len(x)).to(x.device)

    def represent(self, x: Tensor) -> Tensor:
        return x

    def receive(self, images: Tensor) -> Tensor:
        return images

    def compress(self, images: Tensor) -> bytes:
        """Code images [N, C, H, W]."""
        return encode_blobs([self._encode(image) for image in _to_uint8(images)])

    def decompress(self, payload: bytes, n_examples: int) -> Tensor:
        """Images [n_examples, C, H, W] on the CPU. Raises `CodingError` on damage."""
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
    """[N, C, H, W] in [0, 1] to [N, H, W, C] of 0 to 255."""
    pixels = (images.detach().float().clamp(0, 1) * 255).round().byte()
    return pixels.permute(0, 2, 3, 1).cpu().numpy()
