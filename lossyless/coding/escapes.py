"""Exponential-Golomb codes for symbols that a table does not list.

With order k, a value r >= 0 is coded as q = r + 2^k, a b-bit number:

    prefix  b - 1 - k zeros, then a one
    suffix  the b - 1 bits of q below its leading one

All prefixes come first, then all suffixes; each part is padded with zero bits to whole bytes. The
encoder chooses the k that needs the fewest bits.
"""

import numpy as np
from numpy.typing import NDArray

from lossyless.coding.payloads import CodingError

MAX_ORDER = 31
MAX_BITS = 34  # maximum length of q, for r < 2^33 and k <= 31
POPCOUNT = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1)


def best_order(values: NDArray[np.int64]) -> int:
    """The order k that codes values [n] in [0, 2^33) with the fewest bits.

    The code of r has k + 1 + 2 m bits, where m is the number of j >= 1 with r >= (2^j - 1) 2^k.
    """
    orders = np.arange(MAX_ORDER + 1)
    thresholds = np.ldexp(2.0 ** np.arange(1, MAX_BITS)[:, None] - 1, orders)
    n_below = np.searchsorted(np.sort(values.astype(np.float64)), thresholds)
    return int(np.argmin(len(values) * orders + 2 * (len(values) - n_below).sum(0)))


def code_lengths(values: NDArray[np.int64], order: int) -> NDArray[np.int64]:
    """Length of each value's code in bits, [n]."""
    return 2 * _bit_lengths(values + (1 << order)) - 1 - order


def encode_escapes(values: NDArray[np.int64], order: int) -> bytes:
    """Encode values [n] in [0, 2^33), n > 0."""
    q = values + (1 << order)
    n_suffix = _bit_lengths(q) - 1
    prefix_ends = np.cumsum(n_suffix - order + 1)
    prefixes = np.zeros(prefix_ends[-1], np.uint8)
    prefixes[prefix_ends - 1] = 1
    ends = np.cumsum(n_suffix)
    suffixes = np.empty(ends[-1], np.uint8)
    for bit in range(n_suffix.max()):
        has_bit = n_suffix > bit
        suffixes[ends[has_bit] - 1 - bit] = q[has_bit] >> bit & 1
    return np.packbits(prefixes).tobytes() + np.packbits(suffixes).tobytes()


def decode_escapes(data: bytes, order: int, n_values: int) -> NDArray[np.int64]:
    """Decode values [n_values] from `encode_escapes`. Raises `CodingError` for malformed data."""
    packed = np.frombuffer(data, np.uint8)
    n_prefix_bytes = int(np.searchsorted(np.cumsum(POPCOUNT[packed]), n_values)) + 1
    prefix_ends = np.flatnonzero(np.unpackbits(packed[:n_prefix_bytes])) + 1
    if order > MAX_ORDER or len(prefix_ends) != n_values:
        raise CodingError(f"the prefixes of {n_values} escape codes of order {order} are damaged")
    n_suffix = np.diff(prefix_ends, prepend=0) - 1 + order
    ends = np.cumsum(n_suffix)
    suffixes = np.unpackbits(packed[n_prefix_bytes:])
    n_padding = len(suffixes) - ends[-1]
    if n_suffix.max() >= MAX_BITS or not 0 <= n_padding < 8 or suffixes[ends[-1] :].any():
        raise CodingError(f"expected {ends[-1]} bits of escaped values, found {len(suffixes)}")
    q = 1 << n_suffix
    for bit in range(n_suffix.max()):
        has_bit = n_suffix > bit
        q[has_bit] |= suffixes[ends[has_bit] - 1 - bit].astype(np.int64) << bit
    return q - (1 << order)


def _bit_lengths(q: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.frexp(q.astype(np.float64))[1].astype(np.int64)
