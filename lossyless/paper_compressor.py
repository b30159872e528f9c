"""The paper's minimal feature compressor, as a scikit-learn estimator."""

import math
import sys
from numbers import Integral

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from torch import Tensor
from torch.optim.lr_scheduler import StepLR
from tqdm import tqdm

from lossyless.array_compressor import MatrixCompressor
from lossyless.matrices import check_positive
from lossyless.rates import HFactorized
from lossyless.rates.column_coded import MIN_SHIFT
from lossyless.torch_state import drawing_from, one_thread

# With small matrices, training runs for more epochs, so that the entropy model also converges.
MIN_STEPS = 300
MAX_GRAD_NORM = 100.0


class PaperCompressor(MatrixCompressor):
    """The paper's minimal compressor for CLIP features (arXiv:2106.10800, appendix E.7).

    A bottleneck with a learned cell width for each column and a learned, factorized entropy model,
    trained to minimise, in the units of the features,

        ||z_hat - z||_1  +  beta * rate                                             (nats)

    The paper trains it on unscaled CLIP ViT-B/32 features of CIFAR10, and reports 1704 bits and
    98.6 % accuracy with a linear SVM (C=4e-3) on STL10. `ArrayCompressor` needs far fewer bits.

    Parameters
    ----------
    beta : weight of the rate; larger = fewer bits.
    n_epochs : passes over the rows; at least 300 steps are taken.
    batch_size : rows per step.
    lr : Adam's learning rate, divided by 10 after each fifth of training.
    random_state : int, RandomState or None, as in scikit-learn.
    device : torch device for training, such as "cuda:1"; None uses a GPU if there is one.
    verbose : whether to show a progress bar.

    See `MatrixCompressor` for attributes.
    """

    def __init__(
        self,
        beta: float = 4e-2,
        *,
        n_epochs: int = 10,
        batch_size: int = 128,
        lr: float = 0.1,
        random_state=0,
        device: str | None = None,
        verbose: bool = False,
    ):
        self.beta = beta
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def _check_parameters(self) -> None:
        for name in ("beta", "lr", "n_epochs", "batch_size"):
            check_positive(self, name)
        if not isinstance(self.batch_size, Integral):
            raise ValueError(f"batch_size={self.batch_size!r}: expected a positive integer")
        self._device()

    def _device(self) -> torch.device:
        try:
            return torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        except (RuntimeError, TypeError):  # torch's message lists all device types
            raise ValueError(
                f"device={self.device!r}: expected None or a torch device, such as 'cpu', "
                "'cuda' or 'cuda:1'"
            ) from None

    def _fit_codec(self, Z: NDArray, mean: NDArray[np.float64]) -> HFactorized:
        device = self._device()
        z = torch.from_numpy((Z - mean).astype(np.float32)).to(device)
        seed = check_random_state(self.random_state).randint(2**31)
        generator = torch.Generator().manual_seed(seed)
        with drawing_from(generator):
            rate = HFactorized(z.shape[1]).to(device)
        if device.type != "cpu":
            generator = torch.Generator(device).manual_seed(seed)
        # steps are too small to benefit from more threads, which are far slower on busy machines
        with one_thread():
            self._train(rate, z, generator)
        rate = rate.eval().requires_grad_(False).cpu()
        _add_mean(rate, torch.from_numpy(mean))
        rate.update()
        rows = torch.tensor(Z)  # a copy: arrays may be read-only
        rate.z_dtype = rows.dtype
        rate.recentre_constant_dims(rows)
        return rate

    @torch.enable_grad()
    def _train(self, rate: HFactorized, z: Tensor, generator: torch.Generator) -> None:
        """Fit `rate` to centred rows z [N, D], drawing noise and batches from `generator`."""
        rate.prior.generator = generator
        n_batches = math.ceil(len(z) / self.batch_size)
        n_steps = max(math.ceil(self.n_epochs * n_batches), MIN_STEPS)
        optimizer = torch.optim.Adam(rate.parameters(), lr=self.lr)
        scheduler = StepLR(optimizer, math.ceil(n_steps / 5), gamma=0.1)
        batches = iter(())
        disable = not (self.verbose and sys.stderr)
        for _ in tqdm(range(n_steps), desc=type(self).__name__, disable=disable):
            rows = next(batches, None)
            if rows is None:
                order = torch.randperm(len(z), device=z.device, generator=generator)
                batches = iter(order.chunk(n_batches))
                rows = next(batches)
            z_hat, rates, _ = rate(z[rows])
            loss = ((z_hat - z[rows]).abs().sum(1) + self.beta * rates).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(rate.parameters(), MAX_GRAD_NORM)
            optimizer.step()
            scheduler.step()
        rate.prior.generator = None

    def _errors(self, z: Tensor, z_hat: Tensor) -> Tensor:
        return (z_hat.double() - z).abs().sum(1)


@torch.no_grad()
def _add_mean(rate: HFactorized, mean: Tensor) -> None:
    """Make `rate`, trained on z - mean, code z itself with the same symbols."""
    biasing = rate.biasing.double() - mean
    rate.biasing.copy_(biasing)
    # the prior absorbs the part of a large mean that float32 cannot represent, in units of cells
    offset = ((biasing - rate.biasing.double()) * rate.scaling.double().exp()).float()
    rate.prior.shift(torch.where(offset.abs() > MIN_SHIFT, offset, 0.0))
