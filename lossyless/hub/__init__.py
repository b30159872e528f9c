"""The released compressors: images or CLIP features to small files, and back to features.

    from lossyless.hub import clip_compressor

    compressor, transform = clip_compressor("b005")
    compressor.compress_dataset("photos/", "photos.bin")   # or a data set in torchvision's style
    Z = compressor.decompress_dataset("photos.bin")        # float32 [N, 512]

The same through `torch.hub.load` (see `hubconf.py`), and from the shell: `python -m lossyless.hub`.

    features         FeatureCompressor: features <-> files, without CLIP
    clip             ClipCompressor: images -> features <-> files
    weights          compressors from weights: released ones by name, or local files
    images           image files, and batches of images for CLIP
    labels           labels in compressed files, or beside them
    report           what is printed
    official_format  streams and files of the paper's code

This module imports nothing heavy; the names of `__all__` are imported when they are first used.
"""

from dataclasses import dataclass
from importlib import import_module

_MODULES = {
    "ClipCompressor": "clip",
    "FeatureCompressor": "features",
    "clip_compressor": "weights",
    "feature_compressor": "weights",
}
__all__ = ["RELEASED", "ReleasedBottleneck", "SourceError", *_MODULES]

_RELEASE = "https://github.com/YannDubs/lossyless/releases/download/v1.0"


class SourceError(ValueError):
    """Images, features or labels cannot be used; the message names them."""


@dataclass(frozen=True)
class ReleasedBottleneck:
    """Weights that the paper's authors released: a factorized prior of the 512 features of CLIP
    ViT-B/32, trained on COCO.

    Attributes
    ----------
    beta : weight of the rate in training; larger means fewer bits.
    n_bits : entropy of the model, bits per image.
    url, sha256 : of the file.
    """

    beta: float
    n_bits: int
    url: str
    sha256: str


RELEASED = {
    "b001": ReleasedBottleneck(
        beta=0.01,
        n_bits=2351,
        url=f"{_RELEASE}/beta1e-02_factorized_rate.pt",
        sha256="298a7b2bafb6851be1c82c0bb090fa64c6fcc6b0e5791f4103701bb3cba45d51",
    ),
    "b005": ReleasedBottleneck(
        beta=0.05,
        n_bits=1366,
        url=f"{_RELEASE}/beta5e-02_factorized_rate.pt",
        sha256="7668107582423542480e1d21986e24f97706e761f43889547a79f74a5a6d2ad8",
    ),
    "b01": ReleasedBottleneck(
        beta=0.1,
        n_bits=953,
        url=f"{_RELEASE}/beta1e-01_factorized_rate.pt",
        sha256="410eb8fe6abbb3b51db9c8ab9f8ef7a04dcc13356a481ddd863cf91a91deef13",
    ),
}


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
