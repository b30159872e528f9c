"""Lossy compression for lossless prediction: encoders, rates, distortions, coding.

See `compressors` for the model, `rates` and `distortions` for its parts, `container` for the files
that compressed data sets are stored in.
"""

__version__ = "0.1.0"
