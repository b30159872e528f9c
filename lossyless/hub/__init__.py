"""The released compressors for images and CLIP features.

    from lossyless.hub import clip_compressor

    compressor, transform = clip_compressor("b005")
    compressor.compress_dataset("photos/", "photos.bin")   # or a torchvision-style data set
    Z = compressor.decompress_dataset("photos.bin")        # float32 [N, 512]

They are also available through `torch.hub.load` (see `hubconf.py`), and on the command line as
`python -m lossyless.hub`.

    features         FeatureCompressor: features <-> files, without CLIP
    clip             ClipCompressor: images -> features <-> files
    weights          loads compressors: the released ones by name, others from local files
    images           image folders, data sets, and shards of both
    batches          batches of images for CLIP, read by worker processes
    labels           labels in compressed files or separate .npy files, and class names
    official_format  streams and files in the format of the paper's code

Classes and functions are imported lazily: importing this module does not import torch.
"""

import math
from dataclasses import dataclass
from importlib import import_module

_MODULES = {
    "ClipCompressor": "clip",
    "FeatureCompressor": "features",
    "clip_compressor": "weights",
    "feature_compressor": "weights",
}
__all__ = ["RELEASED", "ReleasedBottleneck", "Report", "SourceError", *_MODULES]

_RELEASE = "https://github.com/YannDubs/lossyless/releases/download/v1.0"


class SourceError(ValueError):
    """Images, features or labels cannot be used; the message says which."""


@dataclass(frozen=True)
class ReleasedBottleneck:
    """Weights released by the paper's authors: a factorized prior for CLIP ViT-B/32's 512
    features, trained on COCO."""

    beta: float  # weight of the rate in training; larger means fewer bits
    n_bits: int  # entropy of CompressAI's tables, bits per image
    url: str
    sha256: str


RELEASED = {
    name: ReleasedBottleneck(beta, n_bits, f"{_RELEASE}/beta{beta:.0e}_factorized_rate.pt", sha256)
    for name, beta, n_bits, sha256 in (
        ("b001", 0.01, 2351, "298a7b2bafb6851be1c82c0bb090fa64c6fcc6b0e5791f4103701bb3cba45d51"),
        ("b005", 0.05, 1366, "7668107582423542480e1d21986e24f97706e761f43889547a79f74a5a6d2ad8"),
        ("b01", 0.1, 953, "410eb8fe6abbb3b51db9c8ab9f8ef7a04dcc13356a481ddd863cf91a91deef13"),
    )
}


@dataclass(frozen=True)
class Report:
    """Size and speed of a compression or decompression.

    Printed as in the official code, "Rate: 1506.50 bits/img | Encoding: 347.82 img/sec" or
    "Decoding: 1062.38 img/sec". For image files, another line gives their number and sizes.
    """

    work: str  # "Encoding" or "Decoding"
    n_examples: int  # images, or their feature vectors
    n_bytes: int  # size of the compressed file
    seconds: float  # wall-clock time, including reading images and writing files
    n_annotation_bytes: int = 0  # labels and names: part of `n_bytes`, not of the rate
    n_source_bytes: int | None = None  # size of the image files, if there are any
    is_partial: bool = False  # whether unreadable images or damaged parts of the file were skipped

    @property
    def bits_per_example(self) -> float:
        """Bits per example, excluding labels and names; NaN if there are no examples."""
        n_bits = 8 * (self.n_bytes - self.n_annotation_bytes)
        return n_bits / self.n_examples if self.n_examples else math.nan

    def __str__(self) -> str:
        if not self.n_examples:
            return f"{self.work}: 0 img"
        parts = [f"{self.work}: {self.n_examples / max(self.seconds, 1e-9):.2f} img/sec"]
        if self.work == "Encoding":
            parts.insert(0, f"Rate: {self.bits_per_example:.2f} bits/img")
        if self.n_source_bytes is not None:
            ratio = self.n_source_bytes / self.n_bytes
            sizes = f"{self.n_bytes:,} bytes for {self.n_source_bytes:,} of image files"
            parts.append(f"{self.n_examples} img: {sizes} ({ratio:.0f}x)")
        return " | ".join(parts)


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
