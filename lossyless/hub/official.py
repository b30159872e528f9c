"""Streams as the paper's code makes them: to exchange data with it; see `official_format`.

Each vector is a stream of its own, of CompressAI's rANS coder, with the tables that CompressAI
makes from the quantiles in the weights.
"""

import copy
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from lossyless._compressai import RansDecoder, RansEncoder
from lossyless.coding.payloads import CodingError
from lossyless.coding.tables import CDFTables
from lossyless.hub.official_format import MIN_STREAM, WORD
from lossyless.rates import HFactorized

MAX_SYMBOL = 1 << 26  # CompressAI's encoder never returns for values of 2^27 and beyond
MAX_SYMBOL_BYTES = 8  # an entry of 16 bits, and at most 8 nibbles of an escaped value and its size


class OfficialCoder:
    """Coder of single vectors, byte for byte that of CompressAI's `EntropyBottleneck`.

    CompressAI converts all tables, padded to the longest one, for each vector; here that is done
    once, and without the padding.

    Parameters
    ----------
    rate : its quantiles give the tables, whatever tables it has itself.

    Attributes
    ----------
    bottleneck : CompressAI's model with those tables, on the CPU.
    """

    def __init__(self, rate: HFactorized):
        self.rate = rate
        self.bottleneck = copy.deepcopy(rate.prior).cpu().float()
        self.bottleneck.update(force=True)
        self.tables = CDFTables.from_compressai(self.bottleneck)
        rows = zip(self.tables.cdfs, self.tables.lengths, strict=True)
        self._model = (
            list(range(rate.z_dim)),
            [cdf[:length].tolist() for cdf, length in rows],
            self.tables.lengths.tolist(),
            self.tables.offsets.tolist(),
        )

    def encode(self, z: Tensor) -> list[bytes]:
        """A stream for each of the representations z [N, z_dim]."""
        symbols = self.rate.quantise(z)
        if symbols.size and np.abs(symbols.astype(np.int64)).max() > MAX_SYMBOL:
            raise CodingError(f"the official format cannot hold symbols beyond {MAX_SYMBOL}")
        return [self._encode(row) for row in symbols.tolist()]

    def decode(self, streams: Sequence[bytes], *, first: int = 0) -> Tensor:
        """z_hat [N, z_dim], float32 on the CPU.

        first : number of the first stream, where there are others before it.

        Raises
        ------
        CodingError
            A stream, whose number the message tells, is damaged or was made with other tables.
        """
        symbols = np.empty((len(streams), self.rate.z_dim), np.int32)
        for i, stream in enumerate(streams):
            try:
                symbols[i] = self._decode(stream)
            except CodingError as error:
                raise CodingError(f"vector {first + i}: {error}") from error
        return self.rate.dequantise(symbols)

    def _encode(self, symbols: list[int]) -> bytes:
        return RansEncoder().encode_with_indexes(symbols, *self._model)

    def _decode(self, stream: bytes) -> list[int]:
        longest = MIN_STREAM + MAX_SYMBOL_BYTES * self.rate.z_dim
        if len(stream) % WORD or not MIN_STREAM <= len(stream) <= longest:
            raise CodingError(
                f"a stream of {len(stream)} bytes is none of {self.rate.z_dim} values"
            )
        # CompressAI reads on beyond the end of a damaged stream. It reads at most a word per symbol
        # and per nibble, and each of a stream's nibbles can announce 15 others.
        n_nibbles = 16 * 2 * len(stream)
        padding = bytes(WORD * (self.rate.z_dim + n_nibbles))
        symbols = RansDecoder().decode_with_indexes(stream + padding, *self._model)
        if max(map(abs, symbols)) > MAX_SYMBOL or self._encode(symbols) != stream:
            raise CodingError("the stream is damaged, or was made with another entropy model")
        return symbols
