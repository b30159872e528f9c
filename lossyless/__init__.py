"""Lossy compression for lossless prediction: encoders, rates, distortions, coding.

See `compressors` for the model, `rates` and `distortions` for its parts, and `files` for compressed
data sets. `ArrayCompressor` is a scikit-learn estimator that compresses feature matrices.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lossyless.array_compressor import ArrayCompressor

__version__ = "0.1.0"
__all__ = ["ArrayCompressor", "__version__"]


def __getattr__(name: str):
    """Import `ArrayCompressor` lazily: it needs scikit-learn, but the hub does not."""
    if name == "ArrayCompressor":
        from lossyless.array_compressor import ArrayCompressor

        return ArrayCompressor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
