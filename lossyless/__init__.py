"""Lossy compression for lossless prediction: encoders, rates, distortions, coding.

See `compressors` for the model, `rates` and `distortions` for its parts, `files` for the files
that compressed data sets are stored in. `ArrayCompressor` compresses feature matrices, as an
estimator of scikit-learn.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lossyless.array_compressor import ArrayCompressor

__version__ = "0.1.0"
__all__ = ["ArrayCompressor", "__version__"]


def __getattr__(name: str):
    """Import what needs scikit-learn only when it is asked for: the hub does without."""
    if name == "ArrayCompressor":
        from lossyless.array_compressor import ArrayCompressor

        return ArrayCompressor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
