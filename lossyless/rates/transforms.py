"""Orthogonal transforms between a representation and its bottleneck.

A factorized entropy model prices each dimension by itself, although dimensions are correlated. In
the basis of the eigenvectors of their covariance (Karhunen-Loeve transform, KLT) they are not, and
squared errors are the same as before.

Sender and receiver have to agree to the last bit, on all machines, devices and batch sizes, but
sums of floats depend on their order. So both rotate with integers: the matrix consists of multiples
of 2^-22, each vector is rounded to multiples of a power of two, and all partial sums are integers
below 2^53, which float64 represents. Then no order of summation, fused operation or block size
changes a bit.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

# Entries of the matrix are multiples of 2^-22: float32 holds those in [-1, 1] exactly.
MATRIX_BITS = 22
# Sums are kept below 2^52; the bit that is left covers rounding.
SUM_BITS = 52
# Exponents of the vectors' grid stay far from the limits of float64.
MAX_EXPONENT = 512
MAX_DIM = 1 << 13
# Entries of U^T U - I that rounding U leaves are below 1e-6.
MAX_DEVIATION = 1e-4
# Rows that it takes to determine an eigenvector well enough, see `KLT`.
ROWS_PER_COMPONENT = 4


class OrthogonalTransform(nn.Module, ABC):
    """Rotation of vectors into a basis that is fitted to them.

    A kind of transform is a subclass with `_fit_basis`, and an entry of `TRANSFORMS`.

    Parameters
    ----------
    dim : D, dimensions of the vectors.

    Attributes
    ----------
    matrix : [D, D], what evaluation and coding rotate with: columns are the new basis, in multiples
        of 2^-22. A part of the weights, for no two machines compute the same eigenvectors.
    mean : [D], subtracted before rotating: the grid of an exact rotation depends on a vector's
        largest value. A part of the weights too; None with weights that are older than it.
    """

    mean: Tensor | None

    def __init__(self, dim: int):
        if dim > MAX_DIM:
            raise ValueError(f"transforms have at most {MAX_DIM} dimensions, not {dim}")
        super().__init__()
        self.register_buffer("matrix", torch.zeros(dim, dim))
        self.register_buffer("mean", torch.zeros(dim))
        self._is_fitted = False

    @abstractmethod
    def _fit_basis(self, z: Tensor) -> Tensor:
        """Orthonormal columns [D, D], float64, for finite vectors z [N, D], float64, of mean 0."""

    @property
    def is_fitted(self) -> bool:
        # asked only until it is: on a GPU, the question waits for the device
        if not self._is_fitted:
            self._is_fitted = bool(self.matrix.any())
        return self._is_fitted

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args, **kwargs) -> None:
        self._is_fitted = False
        self.expect_mean(f"{prefix}mean" in state_dict)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._buffers.setdefault("mean", None)  # pickled by a version without it

    def expect_mean(self, is_expected: bool) -> None:
        """Get ready for weights with a mean or, if they are older, without: they decode as then."""
        self.mean = self.matrix.new_zeros(len(self.matrix)) if is_expected else None

    @torch.no_grad()
    def fit(self, z: Tensor) -> None:
        """Fit the basis to z [N, D]. Raises ValueError if z has NaN or infinite values."""
        z = z.to(self.matrix.device).double()
        if not z.isfinite().all():
            raise ValueError("the transform cannot be fitted to NaN or infinite values")
        mean = z.mean(0)
        self.matrix.copy_(_round_matrix(self._fit_basis(z - mean)))
        if self.mean is None:
            self.expect_mean(True)
        self.mean.copy_(mean)

    @torch.no_grad()
    def update(self) -> None:
        """Let evaluation and coding use what training has learnt."""
        self._check_fitted()

    @torch.no_grad()
    def check(self) -> None:
        """Raise ValueError unless the weights, from wherever they come, are those of a rotation."""
        _check_rotation(self.matrix, "matrix")
        if self.mean is not None and not self.mean.isfinite().all():
            raise ValueError("mean has NaN or infinite entries")

    def rotate(self, z: Tensor) -> Tensor:
        """U^T (z - mean), rows of z [N, D], for training: U gets a gradient."""
        matrix = self._training_matrix()
        return (z if self.mean is None else z - self.mean) @ matrix

    def rotate_back(self, rotated: Tensor) -> Tensor:
        """U v + mean of each row v of `rotated` [N, D], for training."""
        z = rotated @ self._training_matrix().T
        return z if self.mean is None else z + self.mean

    def rotate_exactly(self, z: Tensor) -> Tensor:
        """U^T (z - mean), rows of z [N, D], exactly as all others compute it: float64."""
        self._check_fitted()
        centred = z if self.mean is None else z.double() - self.mean.to(z.device).double()
        return rotate_with_integers(centred, self.matrix)

    def rotate_back_exactly(self, rotated: Tensor) -> Tensor:
        """U v + mean, rows v of `rotated` [N, D], exactly as all others compute it: float64."""
        self._check_fitted()
        z = rotate_with_integers(rotated, self.matrix.T)
        return z if self.mean is None else z + self.mean.to(z.device).double()

    def _check_fitted(self) -> None:
        if not self.is_fitted:
            raise RuntimeError(
                "the orthogonal transform has no basis yet: call `fit_transform(z)` of the rate "
                "with representations of the training data first, or load trained weights"
            )

    def _training_matrix(self) -> Tensor:
        self._check_fitted()
        return self.matrix


class KLT(OrthogonalTransform):
    """The eigenvectors of the covariance (Karhunen-Loeve), largest variance first.

    N rows determine about N / 4 of them. Further ones would fit the noise of these rows: their
    variance would be far smaller than that of other rows, for which entropy models that are
    trained on z would then pay dearly. So with few rows the rest of the basis is an arbitrary
    completion (Householder's).
    """

    def _fit_basis(self, z: Tensor) -> Tensor:
        _, basis = torch.linalg.eigh(z.T @ z / len(z))
        basis = basis.flip(1)
        n_determined = max(len(z) // ROWS_PER_COMPONENT, 1)
        if n_determined < len(basis):
            basis, _ = torch.linalg.qr(basis[:, :n_determined], mode="complete")
        largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))
        return basis * torch.where(largest < 0, -1.0, 1.0)  # else the sign is up to the solver


class RefinedKLT(KLT):
    """A basis that starts at the eigenvectors, and that training goes on rotating.

    U = U_0 (I + A)^-1 (I - A), with eigenvectors U_0 and a learnt skew-symmetric A (Cayley
    transform). A step solves a D x D system.
    """

    def __init__(self, dim: int):
        super().__init__(dim)
        self.register_buffer("start", torch.zeros(dim, dim))
        # A is its upper triangle over sqrt(D): steps then rotate by as much in any dimension
        self.skew = nn.Parameter(torch.zeros(dim, dim))

    @torch.no_grad()
    def fit(self, z: Tensor) -> None:
        super().fit(z)
        self.start.copy_(self.matrix)
        self.skew.zero_()

    @torch.no_grad()
    def update(self) -> None:
        super().update()
        self.matrix.copy_(_round_matrix(self._refined(self.start.double(), self.skew.double())))

    @torch.no_grad()
    def check(self) -> None:
        super().check()
        _check_rotation(self.start, "start")
        if not self.skew.isfinite().all():
            raise ValueError("skew has NaN or infinite entries")

    def _training_matrix(self) -> Tensor:
        self._check_fitted()
        return self._refined(self.start, self.skew)

    def _refined(self, start: Tensor, skew: Tensor) -> Tensor:
        upper = skew.triu(1) / math.sqrt(len(skew))
        skew = upper - upper.T
        identity = torch.eye(len(skew), dtype=skew.dtype, device=skew.device)
        return start @ torch.linalg.solve(identity + skew, identity - skew)


#: kinds of transforms by the names that rates, configs and saved weights call them
TRANSFORMS: dict[str, type[OrthogonalTransform] | None] = {
    "none": None,
    "klt": KLT,
    "klt_refined": RefinedKLT,
}


def make_transform(name: str, dim: int) -> OrthogonalTransform | None:
    """The transform called `name`, one of `TRANSFORMS`, of vectors of `dim` dimensions."""
    if name not in TRANSFORMS:
        raise ValueError(f"unknown transform {name!r}: expected one of {', '.join(TRANSFORMS)}")
    make = TRANSFORMS[name]
    return None if make is None else make(dim)


def rotate_with_integers(vectors: Tensor, matrix: Tensor) -> Tensor:
    """vectors [N, D] @ matrix [D, D], float64, with the same bits whatever computes it.

    `matrix` has columns of norm 1 in multiples of 2^-22. By Cauchy-Schwarz, partial sums are at
    most |v| <= sqrt(D) max |v_i|, so that each row can be rounded to a grid of

        2^(22 + e) sqrt(D) / 2^52,   2^(e - 1) <= max |v_i| < 2^e,

    with sqrt(D) rounded up to a power of two: at D = 512, 2^-25 of the largest value.
    """
    dim = matrix.shape[0]
    vectors, matrix = vectors.double(), matrix.to(vectors.device).double()
    _, exponents = torch.frexp(vectors.abs().amax(1, keepdim=True))
    grid_bits = SUM_BITS - MATRIX_BITS - math.ceil(math.log2(dim) / 2)
    shifts = grid_bits - exponents.long().clamp(-MAX_EXPONENT, MAX_EXPONENT)
    integers = torch.round(vectors * _power_of_two(shifts))
    sums = integers @ (matrix * 2.0**MATRIX_BITS)
    return sums * _power_of_two(-shifts - MATRIX_BITS)


def _power_of_two(exponents: Tensor) -> Tensor:
    """2^n, float64, of int64 n: written as bits, for `pow` is not exact on all devices."""
    return ((exponents + 1023) << 52).view(torch.float64)


def _round_matrix(matrix: Tensor) -> Tensor:
    if not matrix.isfinite().all():
        raise ArithmeticError(
            "the orthogonal transform has NaN or infinite entries: training diverged. Try a lower "
            "learning rate or gradient clipping."
        )
    return torch.round(matrix * 2.0**MATRIX_BITS) * 2.0**-MATRIX_BITS


def _check_rotation(matrix: Tensor, name: str) -> None:
    """Raise ValueError unless a matrix [D, D] is orthogonal, in multiples of 2^-22."""
    if not matrix.isfinite().all():
        raise ValueError(f"{name} has NaN or infinite entries")
    scaled = matrix.double() * 2.0**MATRIX_BITS
    if not torch.equal(scaled, scaled.round()):
        raise ValueError(f"{name} has entries that are no multiples of 2^-{MATRIX_BITS}")
    identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    deviation = (matrix.T @ matrix - identity).abs().max().item()
    if not deviation < MAX_DEVIATION:
        raise ValueError(
            f"{name} is no rotation: U^T U differs from the identity by {deviation:.2g}, expected "
            f"less than {MAX_DEVIATION}"
        )
