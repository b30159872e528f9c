"""The factorized prior: a learnt density for each dimension, and its tables."""

import copy

import numpy as np
import torch
from torch import Tensor

from lossyless._compressai import EntropyBottleneck
from lossyless.coding.ans import TableCoder
from lossyless.coding.payloads import CodingError
from lossyless.coding.tables import MAX_LISTED, PMF_ONE, CDFTables

MAX_QUANTILE = 2.0**30  # cells are int32
BISECTIONS = 84  # from 2^31 to a precision of 2^-53


class FactorizedModel(EntropyBottleneck):
    """CompressAI's factorized prior (Balle et al. 2018, arXiv:1802.01436, appendix 6.1), with
    coding of whole batches.

    Its quantiles are found by bisection in `make_tables`, which is exact and takes milliseconds;
    so there is nothing for an auxiliary optimiser to learn, and they take no gradient.

    Attributes
    ----------
    are_centres_fixed : bool
        Whether `make_tables` leaves the quantiles as they are, and so the centres of the cells and
        z_hat: for weights whose files in another format, with tables from those quantiles, must
        decode to the same. Otherwise it moves the centres to the medians.
    """

    def __init__(self, n_channels: int):
        super().__init__(n_channels)
        self.are_centres_fixed = False
        self.quantiles.requires_grad_(False)
        # the tables are kept as `CDFTables`, in one place; these copies would only make the shape
        # of a checkpoint depend on when it was saved
        for name in ("_offset", "_quantized_cdf", "_cdf_length"):
            self.register_buffer(name, torch.IntTensor(), persistent=False)

    @torch.no_grad()
    def make_tables(self) -> CDFTables:
        """Tables of the least expected size, at most 0.1 % or so above the model's entropy.

        Computed in float64 on the CPU. The last digits of that still differ between machines;
        rounding to units of 2^-24 before any choice is made, and integers from there on, leave a
        chance below 1 in 1,000 that tables differ. Files are safe even then: tables are part of the
        fingerprint that each file holds, so that another table ends in an error.
        """
        exact = copy.deepcopy(self).cpu().double()
        quantiles = exact._bisect(exact.target)
        if not self.are_centres_fixed:
            self.quantiles[:, 0] = quantiles.to(self.quantiles)
        # the cells are those of the centres that are stored, in their precision
        low, median, high = (quantiles - self._centres().cpu().double()[:, None]).round().T.long()
        first = torch.maximum(low, median - MAX_LISTED // 2)
        last = torch.minimum(high, median + MAX_LISTED // 2)
        symbols = first[:, None] + torch.arange(int((last - first).max()) + 1)
        pmf = exact._probabilities(symbols + self._centres().cpu().double()[:, None])
        units = torch.round(pmf * PMF_ONE).long()
        return CDFTables.from_pmf(units.numpy(), first.numpy(), (median - first).numpy())

    def _bisect(self, logits: Tensor) -> Tensor:
        """Where the cumulative distribution has given logits [K], [n_channels, K].

        CompressAI's own search stops at a precision of 1e-4, and beyond 1e5 finds nothing.
        """
        low = torch.full((self.channels, 1, len(logits)), -MAX_QUANTILE, dtype=logits.dtype)
        high = -low
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            is_below = self._logits_cumulative(middle, stop_gradient=True) < logits
            low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
        return high[:, 0]

    def _probabilities(self, values: Tensor) -> Tensor:
        """Probabilities of cells of width 1 about equally spaced values, [n_channels, n] both."""
        edges = torch.cat([values - 0.5, values[:, -1:] + 0.5], dim=1)
        return self._logits_cumulative(edges[:, None], stop_gradient=True).sigmoid()[:, 0].diff()

    def _centres(self) -> Tensor:  # [n_channels]
        return self.quantiles[:, 0, 1]

    def to_cells(self, values: Tensor) -> np.ndarray:
        """Quantisation cells about the medians, int32 [N, n_channels], of values of that shape."""
        return to_symbols(torch.round(values - self._centres()))

    def from_cells(self, symbols: np.ndarray) -> Tensor:
        """The quantised values [N, n_channels], float32 on the CPU, that cells stand for."""
        centres = self._centres().cpu()
        return torch.from_numpy(symbols).to(centres) + centres

    def encode(self, values: Tensor, tables: CDFTables) -> bytes:
        """Code values [N, n_channels] rounded about the medians."""
        return TableCoder(tables).encode(self.to_cells(values))

    def decode(self, payload: bytes, tables: CDFTables, n_examples: int) -> Tensor:
        """The quantised values [n_examples, n_channels], float32 on the CPU."""
        return self.from_cells(TableCoder(tables).decode(payload, n_examples))


def to_symbols(rounded: Tensor) -> np.ndarray:
    """Integers [N, D] as int32. Raises `CodingError` for those beyond int32 and for NaN."""
    values = rounded.cpu().numpy()
    if not (np.abs(values) < 2**31).all():
        raise CodingError(
            f"cannot code values in [{values.min()}, {values.max()}]: they are NaN, infinite or "
            "beyond int32 quantisation cells"
        )
    return values.astype(np.int32)
