"""The factorized prior: a learnt density for each dimension, and its tables."""

import numpy as np
import torch
from compressai.entropy_models import EntropyBottleneck
from torch import Tensor

from lossyless.cdf_tables import CDFTables
from lossyless.coders import TableCoder
from lossyless.payloads import CodingError


class FactorizedModel(EntropyBottleneck):
    """CompressAI's factorized prior (Balle et al. 2018, arXiv:1802.01436, appendix 6.1), with
    coding of whole batches.

    Its quantiles are found by bisection in `make_tables`, which is exact and takes milliseconds;
    so there is nothing for an auxiliary optimiser to learn, and they take no gradient.
    """

    def __init__(self, n_channels: int):
        super().__init__(n_channels)
        self.quantiles.requires_grad_(False)
        # the tables are kept as `CDFTables`, in one place; these copies would only make the shape
        # of a checkpoint depend on when it was saved
        for name in ("_offset", "_quantized_cdf", "_cdf_length"):
            self.register_buffer(name, torch.IntTensor(), persistent=False)

    def make_tables(self) -> CDFTables:
        if not all(p.isfinite().all() for p in self.parameters()):
            # the bisection would never end
            raise ArithmeticError(
                "the entropy model has NaN or infinite parameters: training diverged. Try a lower "
                "learning rate, gradient clipping or 32-bit precision."
            )
        self.update(force=True, update_quantiles=True)
        return CDFTables.from_compressai(self)

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
        return ColumnCoder(tables).encode(self.to_cells(values))

    def decode(self, payload: bytes, tables: CDFTables, n_examples: int) -> Tensor:
        """The quantised values [n_examples, n_channels], float32 on the CPU."""
        return self.from_cells(ColumnCoder(tables).decode(payload, n_examples))


class ColumnCoder:
    """Coder of symbols [N, D] with a table for each column: numpy only, cheap to send to workers.

    Parameters
    ----------
    tables : D tables.
    """

    def __init__(self, tables: CDFTables):
        self.tables = tables
        self._columns = np.arange(tables.n_tables)
        self._coder = TableCoder(tables)

    def encode(self, symbols: np.ndarray) -> bytes:
        """Payload of integers [N, D]."""
        return self._coder.encode(symbols, self._columns)

    def decode(self, payload: bytes, n_examples: int) -> np.ndarray:
        """Symbols int32 [n_examples, D]. Raises `CodingError` on damage."""
        return self._coder.decode(payload, self._columns, n_examples)


def to_symbols(rounded: Tensor) -> np.ndarray:
    """Integers [N, D] as int32. Raises `CodingError` for those beyond int32 and for NaN."""
    values = rounded.cpu().numpy()
    if not (np.abs(values) < 2**31).all():
        raise CodingError(
            f"cannot code values in [{values.min()}, {values.max()}]: they are NaN, infinite or "
            "beyond int32 quantisation cells"
        )
    return values.astype(np.int32)
