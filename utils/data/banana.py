"""The Banana source, and groups of transformations with known maximal invariants."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from lossyless.base import Batch
from utils.configs.checks import check_known
from utils.data.module import DataModule, spawn_generator


@dataclass(frozen=True)
class BananaDistribution:
    """The "Banana" of Balle et al. (https://arxiv.org/abs/2007.03034): a bent 2-D Gaussian.

    A Gaussian point e, whose coordinates are independent with standard deviations `std`, is mapped
    to (e1, e2 + curvature * (e1^2 - std1^2)). It is then rotated counter-clockwise by `angle`
    degrees and shifted by `shift`, which is the mean of the result. All steps preserve volume, so
    the density at a point is the Gaussian density at its pre-image.

    The constants are those of Lossy Compression for Lossless Prediction. The direction and centre
    of the bend are chosen such that the entropy of |x| (2.17 bits) agrees with the published rate
    of VIC.
    """

    std: tuple[float, float] = (3.0, 0.5)
    curvature: float = 0.1
    angle: float = -40.0
    shift: tuple[float, float] = (-0.75, -1.0)

    @property
    def entropy(self) -> float:
        """Differential entropy in bits: log2(2 pi e std1 std2)."""
        return math.log2(2 * math.pi * math.e * math.prod(self.std))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw points, float32 [n, 2] on the generator's device."""
        first, second = torch.randn(2, n, generator=generator, device=generator.device)
        first, second = self.std[0] * first, self.std[1] * second
        bent = torch.stack([first, second + self._bend(first)], dim=1)
        angle = torch.tensor(math.radians(self.angle), device=generator.device)
        return rotate(bent, angle) + torch.tensor(self.shift, device=generator.device)

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density [n], in nats, of points x [n, 2]."""
        centred = x - torch.tensor(self.shift, dtype=x.dtype, device=x.device)
        angle = torch.tensor(math.radians(self.angle), dtype=x.dtype, device=x.device)
        first, second = rotate(centred, -angle).unbind(dim=1)
        second = second - self._bend(first)
        energy = (first / self.std[0]).square() + (second / self.std[1]).square()
        return -energy / 2 - math.log(2 * math.pi * math.prod(self.std))

    def _bend(self, first: Tensor) -> Tensor:
        return self.curvature * (first.square() - self.std[0] ** 2)


@cache
def central_range(distribution: BananaDistribution, axis: int) -> tuple[float, float]:
    """Estimate the 10 % and 90 % quantiles of a coordinate from a fixed sample of 2^20 points."""
    points = distribution.sample(2**20, torch.Generator().manual_seed(0))
    return tuple(points[:, axis].quantile(torch.tensor([0.1, 0.9])).tolist())


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Rotate points [n, 2] about the origin by angles [n] or [] in radians, counter-clockwise."""
    # a matrix product would lose precision in TF32
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * x[:, 0] - sin * x[:, 1], sin * x[:, 0] + cos * x[:, 1]], dim=1)


class Equivalence(ABC):
    """Equivalence relation on the plane, whose classes are the orbits of a group."""

    n_outputs: int  # dimensionality of the maximal invariant

    @abstractmethod
    def maximal_invariant(self, x: Tensor) -> Tensor:
        """M(x) [n, n_outputs], equal for two points if and only if they are equivalent."""

    @abstractmethod
    def representative(self, x: Tensor) -> Tensor:
        """The fixed member [n, 2] of each point's class."""

    @abstractmethod
    def draw_member(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A random member [n, 2] of each point's class, independent of x given the class."""


class RotationEquivalence(Equivalence):
    """Rotations about the origin: M(x) = |x|; representatives lie at 225 degrees.

    Members are drawn uniformly from the circle through x.
    """

    n_outputs = 1

    def maximal_invariant(self, x: Tensor) -> Tensor:
        return x.norm(dim=1, keepdim=True)

    def representative(self, x: Tensor) -> Tensor:
        return -math.sqrt(0.5) * self.maximal_invariant(x).expand(-1, 2)

    def draw_member(self, x: Tensor, generator: torch.Generator) -> Tensor:
        angle = 2 * math.pi * torch.rand(len(x), generator=generator, device=x.device)
        return rotate(self.representative(x), angle)


@dataclass(frozen=True)
class TranslationEquivalence(Equivalence):
    """Translations along an axis: M(x) is the other coordinate; representatives have x[axis] = 0.

    Members are drawn uniformly between the source's 10 % and 90 % quantiles along this axis.
    """

    axis: int
    n_outputs = 1

    def maximal_invariant(self, x: Tensor) -> Tensor:
        other = 1 - self.axis
        return x[:, other : other + 1]

    def representative(self, x: Tensor) -> Tensor:
        return x.index_fill(1, torch.tensor(self.axis, device=x.device), 0.0)

    def draw_member(self, x: Tensor, generator: torch.Generator) -> Tensor:
        low, high = central_range(BananaDistribution(), self.axis)
        member = x.clone()
        member[:, self.axis].uniform_(low, high, generator=generator)
        return member


class Equality(Equivalence):
    """No invariance: each point is its own class and M(x) = x."""

    n_outputs = 2

    def maximal_invariant(self, x: Tensor) -> Tensor:
        return x

    def representative(self, x: Tensor) -> Tensor:
        return x

    def draw_member(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x


EQUIVALENCES: dict[str | None, Equivalence] = {
    "rotation": RotationEquivalence(),
    "x_translation": TranslationEquivalence(axis=0),
    "y_translation": TranslationEquivalence(axis=1),
    None: Equality(),
}


class BananaDataModule(DataModule):
    """Banana points X with the maximal invariant M(X) as the regression target.

    If `Batch.aux` is the representative (VIC), x is a random member of the point's class, both in
    training and in evaluation. Otherwise, x is the point itself.

    New training points are drawn in every epoch; validation and test points are fixed by the seed.
    Points do not depend on the batch size, shuffling, the equivalence or the auxiliary variable,
    because all points of an epoch are drawn at once.

    Parameters
    ----------
    equivalence : key of `EQUIVALENCES`; defines M(X), representatives and positives.
    n_train, n_eval : number of points per training epoch, and in each of the validation and test
        splits.
    eval_batch_size : see `DataModule`; also used with positives, as in the official code.
    kwargs : see `DataModule`.
    """

    shape = (2,)
    kind = "vector"
    task = "regression"

    def __init__(
        self,
        *,
        equivalence: str | None = "rotation",
        n_train: int = 1_024_000,
        n_eval: int = 100_000,
        batch_size: int = 1024,
        eval_batch_size: int = 2048,
        **kwargs: object,
    ) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        self.eval_batch_size = eval_batch_size
        self.distribution = BananaDistribution()
        check_known("equivalence", [equivalence], EQUIVALENCES)
        self.equivalence = EQUIVALENCES[equivalence]
        self.n_outputs = self.equivalence.n_outputs
        self._n_examples = {"train": n_train, "val": n_eval, "test": n_eval}

    def n_examples(self, split: str) -> int:
        return self._n_examples[split]

    @property
    def input_follows_auxiliary(self) -> bool:
        return self.auxiliary == "representative"

    def make_batches(
        self, split: str, *, batch_size: int, is_shuffled: bool, generator: torch.Generator
    ) -> Iterator[Batch]:
        """See `DataModule`; the points are independent, so they need no shuffling."""
        x = self.distribution.sample(self.n_examples(split), generator)
        y = self.equivalence.maximal_invariant(x)
        member_generator = spawn_generator(generator, "positive")
        if self.input_follows_auxiliary:
            x = self.equivalence.draw_member(x, member_generator)
        aux = {"input": x, "target": y}.get(self.auxiliary)
        if self.auxiliary == "representative":
            aux = self.equivalence.representative(x)
        elif self.auxiliary == "positive":
            aux = self.equivalence.draw_member(x, member_generator)
        auxes = [None] * -(-len(x) // batch_size) if aux is None else aux.split(batch_size)
        yield from map(Batch, x.split(batch_size), y.split(batch_size), auxes)
