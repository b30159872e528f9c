"""The orthogonal transform between a representation and its bottleneck.

A factorized entropy model codes the dimensions independently, although they are correlated. In
the eigenbasis of their covariance (Karhunen-Loeve transform, KLT), they are decorrelated, and
squared errors stay the same.

Sender and receiver must agree to the last bit, on all machines, devices and batch sizes, but float
addition is not associative. So both rotate with integers: the matrix holds multiples of 2^-22,
each vector is rounded to multiples of a power of two, and all partial sums are integers below 2^53,
which float64 represents exactly. No order of summation, fused operation or block size changes a
single bit.
"""

import math

import torch
from torch import Tensor, nn

# Entries of the matrix are multiples of 2^-22: float32 holds those in [-1, 1] exactly.
MATRIX_BITS = 22
# Sums stay below 2^52; the remaining bit covers rounding.
SUM_BITS = 52
# Keeps the exponents of the vectors' grid far from the limits of float64.
MAX_EXPONENT = 512
MAX_DIM = 1 << 13  # memory grows with its square, fitting time with its cube
# Rows needed to determine an eigenvector well enough, see `klt_basis`.
ROWS_PER_COMPONENT = 4


class KLT(nn.Module):
    """Rotation into the eigenbasis of the covariance (Karhunen-Loeve), see `klt_basis`.

    Parameters
    ----------
    dim : D, number of dimensions of the vectors.
    """

    def __init__(self, dim: int):
        check_dim(dim)
        super().__init__()
        # The columns are the new basis, in multiples of 2^-22. It is saved with the weights, since
        # eigenvectors differ in the last digits between machines.
        self.register_buffer("matrix", torch.zeros(dim, dim))
        # Subtracted first: the grid of an exact rotation depends on a vector's largest value.
        self.register_buffer("mean", torch.zeros(dim))
        self._is_fitted = False

    @property
    def is_fitted(self) -> bool:
        # cached once true: on a GPU, `any` waits for the device
        if not self._is_fitted:
            self._is_fitted = bool(self.matrix.any())
        return self._is_fitted

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args, **kwargs) -> None:
        self._is_fitted = False
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @torch.no_grad()
    def fit(self, z: Tensor) -> None:
        """Fit the basis to z [N, D]. Raises ValueError if z has NaN or infinite values."""
        z = z.to(self.matrix.device).double()
        if not z.isfinite().all():
            raise ValueError("the transform cannot be fitted to NaN or infinite values")
        mean = z.mean(0)
        self.matrix.copy_(round_matrix(klt_basis(z - mean)))
        self.mean.copy_(mean)

    def rotate(self, z: Tensor) -> Tensor:
        """U^T (z - mean) for each row of z [N, D], for training."""
        self.check_fitted()
        return (z - self.mean) @ self.matrix

    def rotate_back(self, rotated: Tensor) -> Tensor:
        """U v + mean for each row v of `rotated` [N, D], for training."""
        return rotated @ self.matrix.T + self.mean

    def rotate_exactly(self, z: Tensor) -> Tensor:
        """Like `rotate`, but in float64 and bit-identical everywhere."""
        self.check_fitted()
        return rotate_with_integers(z.double() - self.mean.to(z.device).double(), self.matrix)

    def rotate_back_exactly(self, rotated: Tensor) -> Tensor:
        """Like `rotate_back`, but in float64 and bit-identical everywhere."""
        self.check_fitted()
        z = rotate_with_integers(rotated, self.matrix.T)
        return z + self.mean.to(z.device).double()

    def check_fitted(self) -> None:
        """Raise RuntimeError if the transform has not been fitted or loaded."""
        if not self.is_fitted:
            raise RuntimeError(
                "the KLT has no basis yet: first call the rate's `fit_transform(z)` with training "
                "representations, or load trained weights"
            )


#: transforms by their names in rates, configs and saved weights
TRANSFORMS: dict[str, type[KLT] | None] = {"none": None, "klt": KLT}


def make_transform(name: str, dim: int) -> KLT | None:
    """Make the transform called `name`, one of `TRANSFORMS`, for vectors with `dim` dimensions."""
    if name not in TRANSFORMS:
        raise ValueError(f"unknown transform {name!r}: expected one of {', '.join(TRANSFORMS)}")
    make = TRANSFORMS[name]
    return None if make is None else make(dim)


def check_dim(dim: int) -> None:
    """Raise ValueError for more than `MAX_DIM` dimensions."""
    if dim > MAX_DIM:
        raise ValueError(f"a KLT with {dim} dimensions is too large: expected at most {MAX_DIM}")


def klt_basis(z: Tensor) -> Tensor:
    """Eigenvectors [D, D] of the covariance of zero-mean z [N, D], largest variance first.

    N rows determine about N / 4 of them. Further eigenvectors would overfit these rows: other rows
    have far larger variances along them, which entropy models trained on z code at a high cost.
    With few rows, the rest of the basis is therefore an arbitrary completion (Householder's).
    """
    n_determined, dim = n_determined_by(len(z)), z.shape[1]
    check_dim(dim)
    if len(z) < dim:
        basis = torch.linalg.svd(z, full_matrices=False).Vh.T
    else:
        basis = torch.linalg.eigh(z.T @ z / len(z)).eigenvectors.flip(1)
    if n_determined < dim:
        basis, _ = torch.linalg.qr(basis[:, :n_determined], mode="complete")
    largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))
    return basis * torch.where(largest < 0, -1.0, 1.0)  # otherwise, signs depend on the solver


def n_determined_by(n_rows: int) -> int:
    """Number of eigenvectors that this many rows determine."""
    return max(n_rows // ROWS_PER_COMPONENT, 1)


def rotate_with_integers(vectors: Tensor, matrix: Tensor) -> Tensor:
    """Compute vectors [N, D] @ matrix [D, D] in float64, bit-identically on every machine.

    The columns of `matrix` have norm 1, and its entries are multiples of 2^-22. By Cauchy-Schwarz,
    partial sums are at most |v| <= sqrt(D) max |v_i|, so each row can be rounded to multiples of

        2^(22 + e) sqrt(D) / 2^52,   2^(e - 1) <= max |v_i| < 2^e,

    with sqrt(D) rounded up to a power of two: at D = 512, about 2^-25 of the largest value.
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
    """2^n in float64 for int64 n, built from bits because `pow` is inexact on some devices."""
    return ((exponents + 1023) << 52).view(torch.float64)


def round_matrix(matrix: Tensor) -> Tensor:
    """Round the entries to multiples of 2^-22. Raises ArithmeticError for NaN and infinity."""
    if not matrix.isfinite().all():
        raise ArithmeticError("the eigenvectors of the covariance have NaN or infinite entries")
    return torch.round(matrix * 2.0**MATRIX_BITS) * 2.0**-MATRIX_BITS
