"""Base class of rates with an entropy model: transform, scaling, tables, saving."""

import math
from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from lossyless.coding.payloads import CodingError
from lossyless.coding.rdo import cheaper_cells
from lossyless.coding.tables import CDFTables
from lossyless.rates.base import Rate
from lossyless.rates.transforms import make_transform

# Float64 exponentials from two libraries, rounded to float32, differ by at most one ulp.
WIDTH_RTOL = 2.0**-22
# Names of the other entries in the extra state; tables must not have these names
WIDTHS, TRANSFORM = "cell_widths", "transform"


class EntropyCodedRate(Rate):
    """A rate with an entropy model of transformed and scaled representations.

        z --(U^T z, + biasing, * exp(scaling))--> z_in --quantise--> z_hat_in --inverse--> z_hat

    U^T is the transform, applied after subtracting a mean. Quantisation cells have width 1, so the
    learned scaling of each dimension sets its precision.

    With a transform, all dimensions share one scaling. For squared errors, one width is optimal for
    all variances, and widths learned with noise instead of rounding would be too fine where the
    standard deviation is far below a cell width (13 % more bits at equal error on MNIST features).

    Parameters
    ----------
    z_dim : dimensions of the representation.
    transform : name of the orthogonal U in `transforms.TRANSFORMS`, such as "klt". All but "none"
        need a frozen encoder, and a call to `fit_transform` first.
    rdo : weight of a bit, in squared cell widths, when symbols are chosen for evaluation and
        coding, see `coding.rdo`; 0 chooses the nearest cells, and 0.1 is about optimal for squared
        errors. Receivers do not need it, and it is not part of the weights.
    warmup_k_epoch, is_end_to_end : see `Rate`.

    In evaluation mode, the `_bottleneck` of a subclass must take z_hat_in from `_received`, with
    the same centres and tables as in its `compress`; this also makes `rdo` work.
    """

    def __init__(self, z_dim: int, transform: str = "none", rdo: float = 0.0, **kwargs):
        super().__init__(z_dim, **kwargs)
        self.rdo = rdo
        self.biasing = nn.Parameter(torch.zeros(z_dim))
        self.scaling = nn.Parameter(torch.ones(z_dim if transform == "none" else 1))
        self.transform_name = transform
        self.transform = make_transform(transform, z_dim)
        self._tables: dict[str, CDFTables] | None = None
        self._saved_widths: Tensor | None = None

    @property
    def rdo(self) -> float:
        return self._rdo

    @rdo.setter
    def rdo(self, weight: float) -> None:
        if not 0 <= weight < math.inf:
            raise ValueError(f"rdo={weight}: expected a finite number, at least 0")
        self._rdo = weight

    @property
    def is_transform_missing(self) -> bool:
        return self.transform is not None and not self.transform.is_fitted

    @torch.no_grad()
    def fit_transform(self, z: Tensor) -> None:
        if self.transform is None:
            return
        self.transform.fit(self._vectors(z))
        self.start_from(z)

    @torch.no_grad()
    def start_from(self, z: Tensor, cell_width: float | None = None) -> None:
        """Initialise the parameters for z [N, z_dim]: centre it, and give all cells the same width.

        A single width for all dimensions is optimal for squared errors. By default, it is the
        square root of the mean variance, so that a large component takes about one bit.
        """
        z = self._vectors(z).to(self.biasing.device).double()
        if self.transform is not None:
            z = self.transform.rotate_exactly(z)
        mean, variances = z.mean(0), z.var(0, correction=0)
        if cell_width is None:
            cell_width = variances.mean().sqrt().item() or 1.0  # constant z: any width will do
        self.biasing.copy_(-mean)
        self.scaling.fill_(-math.log(cell_width))
        self._start_models(variances.sqrt() / cell_width)

    def _start_models(self, deviations: Tensor) -> None:
        """Initialise the entropy models, given the standard deviations [z_dim] of z_in."""

    def _vectors(self, z: Tensor) -> Tensor:
        """Vectors to transform and scale: here the representations [N, z_dim], N > 0.

        Raises ValueError for any other shape.
        """
        if z.ndim != 2 or z.shape[1] != self.z_dim or len(z) == 0:
            raise ValueError(f"expected representations [N, {self.z_dim}], found {list(z.shape)}")
        return z

    def _to_bottleneck(self, z: Tensor) -> Tensor:
        if not self.training:
            return self._to_coder(z)
        if self.transform is not None:
            z = self.transform.rotate(z)
        return (z + self.biasing) * self.scaling.exp()

    def _to_coder(self, z: Tensor) -> Tensor:
        """z_in before rounding, computed as in evaluation mode: float32, on the device of z."""
        if self.transform is not None:
            z = self.transform.rotate_exactly(z)
        return ((z + self.biasing) * self.scaling.exp()).float()

    def _from_bottleneck(self, z_hat_in: Tensor) -> Tensor:
        if not self.training:
            return self._decoded(z_hat_in)
        z_hat = z_hat_in / self.scaling.exp() - self.biasing
        return z_hat if self.transform is None else self.transform.rotate_back(z_hat)

    def _decoded(self, z_hat_in: Tensor) -> Tensor:
        """z_hat, bit-identical on every machine, on the device of `z_hat_in`.

        Devices and libraries disagree on the last digit of exponentials, and on which operations to
        fuse. So cell widths are saved with the tables, as float32: their products with float32
        values are exact in float64, and the roundings that follow are the same everywhere.
        """
        biasing = self.biasing.to(z_hat_in.device).double()
        z_hat = z_hat_in.double() * self._cell_widths().to(z_hat_in.device) - biasing
        if self.transform is not None:
            z_hat = self.transform.rotate_back_exactly(z_hat)
        return z_hat.to(self.z_dtype)

    @torch.no_grad()
    def _cell_widths(self) -> Tensor:
        """Cell widths, float32 on the CPU, with the shape of `scaling`.

        Returns those saved by `update`, unless the scaling has changed by more than rounding error.
        """
        widths, saved = (-self.scaling.cpu().double()).exp().float(), self._saved_widths
        is_same = saved is not None and torch.allclose(saved, widths, rtol=WIDTH_RTOL, atol=0)
        return saved if is_same else widths

    def _choose(
        self, z_in: Tensor, centres: Tensor, tables: str, index: np.ndarray | None = None
    ) -> np.ndarray:
        """Choose the cells around `centres`, int32 [N, D], that code z_in [N, D] with `tables`."""
        z_in = z_in.detach()
        cells = to_cells(z_in, centres)
        if not self.rdo:
            return cells
        x = (z_in - centres).double().cpu().numpy()
        return cheaper_cells(x, cells, self.tables[tables], index=index, weight=self.rdo)

    def _received(
        self, z_in: Tensor, centres: Tensor, tables: str, index: np.ndarray | None = None
    ) -> Tensor:
        """z_hat_in [N, D] as receivers decode it, on z_in's device. Arguments: see `_choose`."""
        return from_cells(self._choose(z_in, centres, tables, index), centres).to(z_in)

    @abstractmethod
    def _make_tables(self) -> dict[str, CDFTables]:
        """Compute the tables of each entropy model, by name, from the current parameters."""

    def update(self) -> None:
        if not all(p.isfinite().all() for p in self.parameters()):
            raise ArithmeticError(
                "the entropy model has NaN or infinite parameters: training diverged. Try a lower "
                "learning rate, gradient clipping or 32-bit precision."
            )
        if self.transform is not None:
            self.transform.check_fitted()
        self._tables = self._make_tables()
        self._saved_widths = self._cell_widths().clone()

    @property
    def has_tables(self) -> bool:
        """Whether the rate can code: after `update`, or after loading weights that hold tables."""
        return self._tables is not None

    @property
    def tables(self) -> dict[str, CDFTables]:
        """Integer CDFs of each entropy model, by name."""
        if self._tables is None:
            raise RuntimeError("there are no coding tables yet: call the rate's `update()` first")
        return self._tables

    # Tables and widths are saved with the weights: if recomputed on another machine, they might
    # differ in the last digit, and payloads could not be decoded.
    def get_extra_state(self) -> dict:
        state: dict = {
            name: {
                field: torch.from_numpy(getattr(tables, field).copy())
                for field in ("cdfs", "lengths", "offsets")
            }
            for name, tables in (self._tables or {}).items()
        }
        if self._saved_widths is not None:
            state[WIDTHS] = self._saved_widths.clone()
        if self.transform is not None:
            state[TRANSFORM] = self.transform_name
        return state

    def set_extra_state(self, state: dict) -> None:
        """Load a state; older states may lack the widths and the name of the transform."""
        state = dict(state)
        transform = state.pop(TRANSFORM, self.transform_name)
        if transform != self.transform_name:
            raise ValueError(
                f"these are the weights of a rate with transform={transform!r}, but this one has "
                f"transform={self.transform_name!r}"
            )
        widths = state.pop(WIDTHS, None)
        self._saved_widths = None if widths is None else widths.cpu()
        self._tables = {
            name: CDFTables(**{field: tensor.cpu().numpy() for field, tensor in fields.items()})
            for name, fields in state.items()
        } or None


def to_cells(values: Tensor, centres: Tensor) -> np.ndarray:
    """Quantise values [N, D], on any device, to cells around `centres`, int32 [N, D].

    Raises `CodingError` for NaN and for cells outside the range of int32.
    """
    cells = torch.round(values - centres).cpu().numpy()
    if not (np.abs(cells) < 2**31).all():
        raise CodingError(
            f"cannot code values in cells [{cells.min()}, {cells.max()}]: they are NaN, infinite "
            "or beyond int32's range"
        )
    return cells.astype(np.int32)


def from_cells(cells: np.ndarray, centres: Tensor) -> Tensor:
    """The quantised values [N, D] of cells around `centres`, float32 on the CPU."""
    centres = centres.cpu()
    return torch.from_numpy(cells).to(centres) + centres
