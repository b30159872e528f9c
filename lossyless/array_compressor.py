"""Compressors for feature matrices, as scikit-learn estimators."""

import copy
import io
import math
import os
from abc import abstractmethod
from numbers import Integral, Real
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from lossyless.base import Codec
from lossyless.coding.tables import MAX_LISTED
from lossyless.files import FeatureFile, write_features
from lossyless.klt_vectors import KLTVectors
from lossyless.matrices import check_positive, mean_and_scale, validated
from lossyless.model_files import plain, read_model, write_model
from lossyless.rates import HFactorized
from lossyless.rates.entropy_coded import TRANSFORM
from lossyless.torch_state import drawing_from, isolated
from lossyless.weights import WeightsError, load_strictly

CHUNK_SIZE = 4096


class MatrixCompressor(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Base class for lossy compressors of matrix rows.

    Subclasses implement `_fit_codec` and `_errors`.

    Attributes
    ----------
    n_features_in_ : number of columns.
    feature_names_in_ : names of the columns, if `fit` was given a DataFrame.
    scale_ : square root of the mean variance of the columns; if all columns are constant, the
        largest absolute value, or 1 if that is 0.
    rate_ : the fitted codec; see `codec`.
    """

    beta: float

    @abstractmethod
    def _fit_codec(self, Z: NDArray, mean: NDArray[np.float64]) -> Codec:
        """Return a codec fitted to rows Z [N, D], whose mean is `mean` [D]."""

    @abstractmethod
    def _errors(self, z: Tensor, z_hat: Tensor) -> Tensor:
        """Error terms of the loss, float64 [N], for rows z and decoded rows z_hat [N, D]."""

    @isolated
    def fit(self, Z: ArrayLike, y=None) -> Self:
        """Fit to the rows of Z [N, D], ignoring y. If fitting fails, the estimator is unchanged.

        Raises
        ------
        ValueError
            If a parameter is invalid or `rate_target` is out of reach; if Z is not two-dimensional,
            has no rows, or contains NaN or infinite values; or if its values are too large, or
            vary too little, for float32 to represent them and their quantisation cells.
            `ArrayCompressor` accepts at most 8,192 columns.
        """
        self._check_parameters()
        fitted = copy.copy(self)
        Z = validated(fitted, Z)
        mean, fitted.scale_ = mean_and_scale(Z)
        fitted.rate_ = self._fit_codec(Z, mean)
        self.__dict__ = vars(fitted)
        return self

    def _check_parameters(self) -> None:
        """Raise ValueError for an invalid parameter."""
        check_positive(self, "beta")

    # --- use

    @property
    def codec(self) -> Codec:
        """The fitted codec, for use with `lossyless.files`."""
        check_is_fitted(self)
        return self.rate_

    def compress(self, Z: ArrayLike) -> bytes:
        """Compress the rows of Z [N, D] to bytes, in the file format of `lossyless.files`.

        Raises ValueError if Z is invalid, and `CodingError` if values are too extreme to be coded.
        """
        file = io.BytesIO()
        write_features([self._check_rows(Z)], file, self.rate_, chunk_size=CHUNK_SIZE, n_workers=1)
        return file.getvalue()

    def decompress(self, payload: bytes) -> NDArray[np.floating]:
        """Decompress a payload from `compress` to Z_hat [N, D], exactly as `transform` returns it.

        Raises `ContainerError` if the payload is damaged or was not written by this compressor.
        """
        check_is_fitted(self)
        if not isinstance(payload, (bytes, bytearray, memoryview)):
            raise TypeError(f"payload: expected bytes, found {type(payload).__name__}")
        with FeatureFile(payload, self.rate_) as file:
            return file.read(n_workers=1).numpy()

    def transform(self, Z: ArrayLike) -> NDArray[np.floating]:
        """Return Z_hat [N, D] as a receiver decodes it, equal to `decompress(compress(Z))`.

        Z_hat is float64 if `fit` was given float64 or integers of at least 32 bits, and float32
        otherwise. In float64, large offsets, as in Unix timestamps, do not reduce the precision.
        """
        z = self._check_rows(Z)
        return self.rate_.dequantise(self.rate_.quantise(z)).numpy()

    def n_bits(self, Z: ArrayLike) -> float:
        """Return the bits per row of `compress(Z)`, which has an overhead of about 200 bytes."""
        return 8 * len(self.compress(Z)) / len(Z)

    @isolated
    def score(self, Z: ArrayLike, y=None) -> float:
        """Return the negative loss per row of Z [N, D] (see the class docstring); larger is better.

        The rate is that of the payload. The loss depends on `beta`; to choose `beta`, use `n_bits`.
        """
        z = self._check_rows(Z)
        errors = self._errors(z, self.rate_.dequantise(self.rate_.quantise(z)))
        beta = getattr(self.rate_, "beta", self.beta)
        return -float(errors.mean() + beta * math.log(2) * self.n_bits(Z))

    def _check_rows(self, Z: ArrayLike) -> Tensor:
        check_is_fitted(self)
        Z = validated(self, Z, reset=False)
        return torch.tensor(Z, dtype=self.rate_.z_dtype, device="cpu")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        """Number of output columns, for `get_feature_names_out`."""
        return self.n_features_in_

    # --- files

    def save(self, path: str | os.PathLike) -> None:
        """Save the fitted compressor and its current parameters atomically.

        A RandomState is saved as None. Raises TypeError for parameters that are not numbers,
        strings or None.
        """
        check_is_fitted(self)
        saved = {
            "class": type(self).__name__,
            "parameters": {name: plain(name, value) for name, value in self.get_params().items()},
            "n_features_in": self.n_features_in_,
            "scale": self.scale_,
            "dtype": str(self.rate_.z_dtype),
            "codec": self.rate_.format_name,
            "state": self.rate_.state_dict(),
        }
        if hasattr(self, "feature_names_in_"):
            saved["feature_names_in"] = self.feature_names_in_.tolist()
        write_model(saved, path)

    @staticmethod
    def load(path: str | os.PathLike) -> "MatrixCompressor":
        """Load a compressor written by `save`. Raises `WeightsError` for any other content."""
        saved = read_model(path)
        # earlier releases had a single class, whose parameters selected the paper's settings
        is_paper = saved.get("class") == "PaperCompressor"
        is_paper |= saved["parameters"].get("distortion") == "l1"
        compressor = ArrayCompressor.paper() if is_paper else ArrayCompressor()
        known = compressor.get_params()  # other releases may have other parameters
        compressor.set_params(**{k: v for k, v in saved["parameters"].items() if k in known})
        compressor.n_features_in_ = saved["n_features_in"]
        compressor.scale_ = saved["scale"]
        if "feature_names_in" in saved:
            compressor.feature_names_in_ = np.array(saved["feature_names_in"], dtype=object)
        try:
            codec = _make_codec(saved)
        except ValueError as error:
            raise WeightsError(f"{path}: {error}; was it saved by another version?") from error
        load_strictly(codec, saved["state"], path)
        if saved.get("dtype") == "torch.float64":  # earlier releases did not save it
            codec.z_dtype = torch.float64
        compressor.rate_ = codec.eval().requires_grad_(False)
        return compressor


class ArrayCompressor(MatrixCompressor):
    """Lossy compressor for the rows of a feature matrix that a linear model will use.

    Transform coding, fitted without labels or gradients; see `lossyless.klt_vectors.KLTVectors` for
    the loss and the method. The effect of `beta` does not depend on the features' unit.
    `ArrayCompressor.paper()` returns the paper's minimal compressor (arXiv:2106.10800, appendix
    E.7), which is trained by gradient descent.

    Parameters
    ----------
    beta : weight of the rate; larger = fewer bits.
    rate_target : bits per row; if given, `beta` is chosen to reach it. New rows from the same
        distribution take about as many bits (more if `fit` was given only a few more rows than
        columns), not counting a file's overhead.
    weighting : 0 minimises the squared error; larger values favour directions of large variance,
        which matter most for nearest neighbours. In our experiments, 0 gave the best accuracy.
    rdo : whether to choose symbols by error and bits rather than by error alone.
    n_clusters : maximum number of clusters whose centres predict rows; 0: none. Clusters are used
        only if they lower the loss.

    Attributes
    ----------
    beta_ : weight of the rate in the fitted codec: `beta`, or the value chosen for `rate_target`.

    See `MatrixCompressor` for more attributes.
    """

    def __init__(
        self,
        beta: float = 0.1,
        *,
        rate_target: float | None = None,
        weighting: float = 0.0,
        rdo: bool = True,
        n_clusters: int = 1024,
    ):
        self.beta = beta
        self.rate_target = rate_target
        self.weighting = weighting
        self.rdo = rdo
        self.n_clusters = n_clusters

    @staticmethod
    def paper(**parameters) -> MatrixCompressor:
        """Return the paper's minimal compressor, `PaperCompressor(**parameters)`."""
        from lossyless.paper_compressor import PaperCompressor

        return PaperCompressor(**parameters)

    @property
    def beta_(self) -> float:
        return getattr(self.codec, "beta", self.beta)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.rate_target is not None:
            check_positive(self, "rate_target")
        if not isinstance(self.rdo, (bool, np.bool_)):
            raise ValueError(f"rdo={self.rdo!r}: expected True or False")
        if not (isinstance(self.weighting, Real) and 0 <= self.weighting <= 4):
            raise ValueError(f"weighting={self.weighting!r}: expected a number in [0, 4]")
        if not (isinstance(self.n_clusters, Integral) and 0 <= self.n_clusters <= MAX_LISTED):
            raise ValueError(
                f"n_clusters={self.n_clusters!r}: expected an integer in [0, {MAX_LISTED}]"
            )

    def _fit_codec(self, Z: NDArray, mean: NDArray[np.float64]) -> KLTVectors:
        codec = KLTVectors(
            Z.shape[1],
            self.beta,
            self.weighting,
            bool(self.rdo),
            self.rate_target,
            int(self.n_clusters),
        )
        z = torch.tensor(Z)  # a copy: arrays may be read-only
        codec.fit(z)
        codec.z_dtype = z.dtype
        return codec

    def _errors(self, z: Tensor, z_hat: Tensor) -> Tensor:
        if isinstance(self.rate_, KLTVectors):
            return self.rate_.errors(z, z_hat)
        return ((z_hat.double() - z) / self.scale_).square().sum(1)  # model from an earlier release


def _make_codec(saved: dict) -> Codec:
    """Create the codec of a saved model, without its state. Raises ValueError if it is unknown."""
    dim, state = saved["n_features_in"], saved["state"]
    name = saved.get("codec", HFactorized.format_name)
    if name == KLTVectors.format_name:
        return KLTVectors(dim)
    if name != HFactorized.format_name:
        raise ValueError(f"unknown codec {name!r}")
    with drawing_from(torch.Generator()):  # initial weights, replaced by the caller
        return HFactorized(dim, transform=state["_extra_state"].get(TRANSFORM, "none"))
