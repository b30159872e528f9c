"""What the rates with an entropy model share, and the rate with the factorized prior."""

import math
from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from lossyless.cdf_tables import CDFTables
from lossyless.coders import ColumnCoder
from lossyless.distributions import Conditional
from lossyless.payloads import CodingError
from lossyless.rates.base import Rate, RateOutput
from lossyless.rates.prior import FactorizedModel
from lossyless.rates.transforms import make_transform

LOGISTIC_SCALE = math.sqrt(3) / math.pi  # of a logistic distribution with standard deviation 1
MIN_PRIOR_SCALE = 0.05  # cells; of dimensions that hardly ever leave the cell in the middle
# Exponentials of two libraries, in float64, differ by at most one float32 once they are rounded.
WIDTH_RTOL = 2.0**-22
# What is saved beside the tables, and is not called like one
WIDTHS, TRANSFORM = "cell_widths", "transform"


class EntropyCodedRate(Rate):
    """What the rates with an entropy model share: transform, scaling, tables, coding.

        z --(U^T z, + biasing, * exp(scaling))--> z_in --quantise--> z_hat_in --inverse--> z_hat

    Quantisation cells have width 1, so the learnt scaling of each dimension sets its precision.
    With a transform, all dimensions share one scaling: for squared errors one width is best,
    whatever the variances, and widths learnt with noise in place of rounding would be too fine
    where the variance is far below a cell (13 % more bits at equal error, features of MNIST).

    Parameters
    ----------
    z_dim : dimensions of the representation.
    transform : the orthogonal U, one of `transforms.TRANSFORMS`, such as "klt". All but "none" need
        `fit_transform` before anything else, and an encoder that stays as it is.
    warmup_k_epoch, is_end_to_end : see `Rate`.
    """

    def __init__(self, z_dim: int, transform: str = "none", **kwargs):
        super().__init__(z_dim, **kwargs)
        self.biasing = nn.Parameter(torch.zeros(z_dim))
        self.scaling = nn.Parameter(torch.ones(z_dim if transform == "none" else 1))
        self.transform_name = transform
        self.transform = make_transform(transform, z_dim)
        self._tables: dict[str, CDFTables] | None = None
        self._saved_widths: Tensor | None = None

    @property
    def is_transform_missing(self) -> bool:
        return self.transform is not None and not self.transform.is_fitted

    @torch.no_grad()
    def fit_transform(self, z: Tensor) -> None:
        if self.transform is None:
            return
        self._check_shape(z)
        self.transform.fit(z)
        self.start_from(z)

    @torch.no_grad()
    def start_from(self, z: Tensor, cell_width: float | None = None) -> None:
        """Start training close to representations z [N, z_dim]: centred, on cells of one width.

        One width for all dimensions is what squared errors want, whatever the variances. By
        default it is the root of the mean variance: about as many bits as there are large
        components. Training goes on from there.
        """
        self._check_shape(z)
        z = z.to(self.biasing.device).double()
        if self.transform is not None:
            z = self.transform.rotate_exactly(z)
        mean, variances = z.mean(0), z.var(0, correction=0)
        if cell_width is None:
            cell_width = variances.mean().sqrt().item() or 1.0  # 0: every width is as good
        self.biasing.copy_(-mean)
        self.scaling.fill_(-math.log(cell_width))
        self._start_models(variances.sqrt() / cell_width)

    def _start_models(self, deviations: Tensor) -> None:
        """Let the entropy models start from the standard deviations [z_dim] of z_in."""

    def _check_shape(self, z: Tensor) -> None:
        if z.ndim != 2 or z.shape[1] != len(self.biasing) or len(z) == 0:
            raise ValueError(
                f"expected representations [N, {len(self.biasing)}], found {list(z.shape)}"
            )

    def _to_bottleneck(self, z: Tensor) -> Tensor:
        if not self.training:
            return self._to_coder(z)
        is_learning = not self._is_warming_up
        biasing, scaling = self.biasing, self.scaling
        if not is_learning:
            biasing, scaling = biasing.detach(), scaling.detach()
        if self.transform is not None:
            z = self.transform.rotate(z, is_learning)
        return (z + biasing) * scaling.exp()

    def _to_coder(self, z: Tensor) -> Tensor:
        """z_in as senders round it, in every mode."""
        if self.transform is None:
            return (z + self.biasing) * self.scaling.exp()
        # in float64 until the mean is gone, which may be many times the standard deviation
        centred = self.transform.rotate_exactly(z) + self.biasing
        return (centred * self.scaling.exp()).to(z.dtype)

    def _from_bottleneck(self, z_hat_in: Tensor) -> Tensor:
        if not self.training:
            return self._decoded(z_hat_in)
        z_hat = z_hat_in * (-self.scaling).exp() - self.biasing
        return z_hat if self.transform is None else self.transform.rotate_back(z_hat)

    def _decoded(self, z_hat_in: Tensor) -> Tensor:
        """z_hat as every receiver computes it, to the bit, on the device of `z_hat_in`.

        Devices and libraries differ in the last digit of an exponential, and in how they fuse
        operations. So widths of cells travel with the tables, in float32, which makes their
        products with float32 values exact in float64; what is left is one rounding, which all do
        alike.
        """
        biasing = self.biasing.to(z_hat_in.device).double()
        z_hat = z_hat_in.double() * self._cell_widths().to(z_hat_in.device) - biasing
        if self.transform is not None:
            z_hat = self.transform.rotate_back_exactly(z_hat)
        return z_hat.float()

    @torch.no_grad()
    def _cell_widths(self) -> Tensor:
        """Widths of the cells, float32 on the CPU, of the shape of the scaling.

        Those of `update`, unless the scaling has changed since by more than the last digit.
        """
        widths, saved = (-self.scaling.cpu().double()).exp().float(), self._saved_widths
        is_same = saved is not None and torch.allclose(saved, widths, rtol=WIDTH_RTOL, atol=0)
        return saved if is_same else widths

    @abstractmethod
    def _make_tables(self) -> dict[str, CDFTables]: ...

    @torch.no_grad()
    def update(self) -> None:
        if self.transform is not None:
            self.transform.update()
        self._tables = self._make_tables()
        with torch.inference_mode(False):  # else no gradient could pass what evaluation has kept
            self._saved_widths = self._cell_widths().clone()

    @property
    def has_tables(self) -> bool:
        """Whether it is ready to code, after `update` or from weights that hold tables."""
        return self._tables is not None

    @property
    def tables(self) -> dict[str, CDFTables]:
        """Integer CDFs of each entropy model, by name."""
        if self._tables is None:
            raise RuntimeError("there are no coding tables yet: call `update()` of the rate first")
        return self._tables

    # The tables and widths travel with the weights: computed anew on another machine, their last
    # digit may differ, and the bytes would not decode.
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
        """Takes states of before widths and names were kept, too."""
        state = dict(state)
        transform = state.pop(TRANSFORM, self.transform_name)
        if transform != self.transform_name:
            raise ValueError(
                f"these are weights of a rate with transform={transform!r}, but this one has "
                f"transform={self.transform_name!r}"
            )
        widths = state.pop(WIDTHS, None)
        if widths is not None:
            widths = widths.cpu()
            if widths.dtype != torch.float32 or widths.shape != self.scaling.shape:
                raise CodingError(
                    f"{WIDTHS}: expected float32 {list(self.scaling.shape)}, found {widths.dtype} "
                    f"{list(widths.shape)}"
                )
        self._saved_widths = widths
        self._tables = {
            name: CDFTables(**{field: tensor.cpu().numpy() for field, tensor in fields.items()})
            for name, fields in state.items()
        } or None

    @torch.no_grad()
    def compress(self, z: Tensor) -> bytes:
        with torch.autocast(z.device.type, enabled=False):
            return self._encode(self._to_coder(z.float()))

    @torch.no_grad()
    def decompress(self, payload: bytes, n_examples: int) -> Tensor:
        return self._decoded(self._decode(payload, n_examples))

    @abstractmethod
    def _encode(self, z_in: Tensor) -> bytes: ...

    @abstractmethod
    def _decode(self, payload: bytes, n_examples: int) -> Tensor: ...


class HFactorized(EntropyCodedRate):
    """H_q[Z] under a learnt, fully factorized prior: every dimension has a density of its own.

    Parameters: see `EntropyCodedRate`.
    """

    codec = "factorized"

    def __init__(self, z_dim: int, **kwargs):
        super().__init__(z_dim, **kwargs)
        self.prior = FactorizedModel(z_dim)

    def _start_models(self, deviations: Tensor) -> None:
        """Make each density as wide as its dimension: otherwise that takes most of the training.

        Layers start with the same slope each; their product is that of a logistic distribution of
        scale `init_scale`.
        """
        scales = (deviations * LOGISTIC_SCALE).clamp(min=MIN_PRIOR_SCALE)
        first = self.prior.matrices[0]  # [z_dim, hidden, 1], used through a softplus
        common = self.prior.init_scale ** (-1 / len(self.prior.matrices)) / first.shape[1]
        slopes = common * self.prior.init_scale / scales.to(first)[:, None, None]
        first.copy_(slopes + torch.log(-torch.expm1(-slopes)))

    def _bottleneck(self, z: Tensor, p_ZlX: Conditional) -> RateOutput:
        z_hat_in, q_z = self.prior(self._to_bottleneck(z))
        rates = -q_z.log().sum(-1)
        return self._from_bottleneck(z_hat_in), rates, {"H_q_Z": rates.mean().detach()}

    def _make_tables(self) -> dict[str, CDFTables]:
        return {"z": self.prior.make_tables()}

    def _encode(self, z_in: Tensor) -> bytes:
        return self.prior.encode(z_in, self.tables["z"])

    def _decode(self, payload: bytes, n_examples: int) -> Tensor:
        return self.prior.decode(payload, self.tables["z"], n_examples)

    # `compress` and `decompress` in two steps: what follows the network, on any device, and the
    # entropy coder, which worker processes can run

    @torch.no_grad()
    def quantise(self, z: Tensor) -> np.ndarray:
        """Symbols int32 [N, z_dim] of representations [N, z_dim]."""
        with torch.autocast(z.device.type, enabled=False):
            return self.prior.to_cells(self._to_coder(z.float()))

    @torch.no_grad()
    def dequantise(self, symbols: np.ndarray) -> Tensor:
        """z_hat [N, z_dim], float32 on the CPU, of symbols [N, z_dim]."""
        return self._decoded(self.prior.from_cells(symbols))

    def coder(self) -> ColumnCoder:
        """The entropy coder of the symbols, with this rate's tables."""
        return ColumnCoder(self.tables["z"])
