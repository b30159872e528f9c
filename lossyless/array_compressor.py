"""Compressor of feature matrices, as a scikit-learn estimator."""

import copy
import hashlib
import io
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from lossyless import array_training
from lossyless.array_training import DISTORTIONS
from lossyless.atomic import replacing
from lossyless.files import FeatureFile, write_features
from lossyless.rates import HFactorized
from lossyless.rates.entropy_coded import TRANSFORM
from lossyless.torch_state import drawing_from, isolated, one_thread
from lossyless.weights import WeightsError, load_strictly

CHUNK_SIZE = 4096
# A file consists of this magic number, the SHA-256 of the rest, and a dict saved by torch.
FILE_MAGIC = b"LLmodel1"
# Parameters of `array_training.train`.
TRAINING = ("beta", "distortion", "n_epochs", "batch_size", "lr", "schedule", "verbose")


class ArrayCompressor(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Lossy compressor of matrix rows, for features that a linear model will use.

    A bottleneck with a learned, factorized entropy model, trained without labels to minimise

        ||z_hat - z||^2 / v  +  beta * rate                                          (nats)

    where v is the variance of the features, averaged over columns, so that `beta` does not depend
    on their unit. The width of quantisation cells is fixed at sqrt(6 beta v), which minimises the
    loss at high rates. `ArrayCompressor.paper()` is the minimal compressor of the paper
    (arXiv:2106.10800, appendix E.7): absolute errors in the units of the features, a learned cell
    width for each column, and no rotation.

    Parameters
    ----------
    beta : weight of the rate; larger = fewer bits.
    distortion : "squared", as above; or "l1", as in the paper: ||z_hat - z||_1 + beta * rate.
    rotation : one of `lossyless.rates.transforms.TRANSFORMS`. "klt" codes rows in the basis of
        their principal components, which takes far fewer bits if columns are correlated;
        "klt_refined" trains this basis further, for up to a few hundred columns; "none" codes each
        column independently, as in the paper.
    n_epochs : passes over the rows; at least 300 steps are taken.
    batch_size : rows per step.
    lr : learning rate of Adam.
    schedule : "cosine" anneals the learning rate to 0; "step" divides it by 10 after each fifth of
        training.
    random_state : int, RandomState or None, as in scikit-learn.
    device : torch device for training, such as "cuda:1"; None uses a GPU if there is one.
    verbose : whether to show a progress bar.

    Attributes
    ----------
    n_features_in_ : number of columns.
    feature_names_in_ : names of the columns, if `fit` was given a DataFrame.
    scale_ : unit of the distortion: sqrt(v); if all columns were constant, the largest absolute
        value, or 1 if that is 0; always 1 with distortion="l1".
    rate_ : HFactorized, the trained bottleneck; see `codec`.
    """

    def __init__(
        self,
        beta: float = 0.1,
        *,
        rotation: str = "klt",
        distortion: str = "squared",
        n_epochs: int = 5,
        batch_size: int = 256,
        lr: float = 1e-2,
        schedule: str = "cosine",
        random_state=0,
        device: str | None = None,
        verbose: bool = False,
    ):
        self.beta = beta
        self.rotation = rotation
        self.distortion = distortion
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.schedule = schedule
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    @classmethod
    def paper(cls, **parameters) -> "ArrayCompressor":
        """The settings of the paper's minimal code, for unscaled CLIP ViT-B/32 features.

        The paper trains it on CIFAR10, and reports 1704 bits and 98.6 % on STL10 with a linear SVM
        (C=4e-3).
        """
        settings = {
            "beta": 4e-2,
            "rotation": "none",
            "distortion": "l1",
            "n_epochs": 10,
            "batch_size": 128,
            "lr": 0.1,
            "schedule": "step",
        }
        return cls(**settings | parameters)

    # --- training

    @isolated
    def fit(self, Z: ArrayLike, y=None) -> "ArrayCompressor":
        """Train on the rows of Z [N, D], ignoring y. If this fails, the estimator is unchanged.

        Raises
        ------
        ValueError
            A parameter is invalid, or Z is not two-dimensional, has no rows, or contains NaN,
            infinite values, or values so large, or with so little variation, that float32
            cannot represent them or their quantisation cells.
        """
        device = array_training.check_parameters(self.get_params())
        fitted = copy.copy(self)
        Z = array_training.validated(fitted, Z)
        mean, scale = array_training.mean_and_scale(Z)
        if self.distortion == "l1":
            scale = 1.0
        z = torch.from_numpy(((Z - mean) / scale).astype(np.float32)).to(device)
        seed = check_random_state(self.random_state).randint(2**31)
        generator = torch.Generator().manual_seed(seed)
        with drawing_from(generator):
            rate = HFactorized(z.shape[1], transform=self.rotation).to(device)
        if device.type != "cpu":
            generator = torch.Generator(device).manual_seed(seed)
        settings = {name: getattr(self, name) for name in TRAINING}
        # the steps are too small to gain from more threads, which are far slower on busy machines
        with one_thread():
            array_training.train(rate, z, generator, **settings)
        rate = rate.eval().requires_grad_(False).cpu()
        array_training.undo_standardisation(rate, torch.from_numpy(mean), scale)
        rate.update()
        rows = torch.tensor(Z)  # a copy: arrays may be read-only
        rate.z_dtype = rows.dtype
        rate.recentre_constant_dims(rows)
        fitted.scale_, fitted.rate_ = scale, rate
        self.__dict__ = vars(fitted)
        return self

    # --- use

    @property
    def codec(self) -> HFactorized:
        """The trained bottleneck, as a codec for `lossyless.files`."""
        check_is_fitted(self)
        return self.rate_

    def compress(self, Z: ArrayLike) -> bytes:
        """Compress the rows of Z [N, D] into the bytes of a `lossyless.files` file.

        Raises ValueError like `fit`, and `CodingError` for values too extreme to be coded.
        """
        file = io.BytesIO()
        write_features([self._check_rows(Z)], file, self.rate_, chunk_size=CHUNK_SIZE, n_workers=1)
        return file.getvalue()

    def decompress(self, payload: bytes) -> NDArray[np.floating]:
        """Decompress a payload from `compress` to Z_hat [N, D], with the dtype `transform` returns.

        Raises `ContainerError` if it is damaged, or was not written by this compressor.
        """
        check_is_fitted(self)
        if not isinstance(payload, (bytes, bytearray, memoryview)):
            raise TypeError(f"payload: expected bytes, found {type(payload).__name__}")
        with FeatureFile(payload, self.rate_) as file:
            return file.read(n_workers=1).numpy()

    def transform(self, Z: ArrayLike) -> NDArray[np.floating]:
        """Z_hat [N, D], as a receiver decodes it: equal to `decompress(compress(Z))`.

        It is float64 if `fit` was given float64, or integers of 32 or more bits, and float32
        otherwise. In float64, large offsets, as in Unix timestamps, cost no precision.
        """
        z = self._check_rows(Z)
        return self.rate_.dequantise(self.rate_.quantise(z)).numpy()

    def n_bits(self, Z: ArrayLike) -> float:
        """Bits per row of the payload of Z [N, D], including about 200 bytes of overhead."""
        return 8 * len(self.compress(Z)) / len(Z)

    @isolated
    def score(self, Z: ArrayLike, y=None) -> float:
        """Negative loss per row of Z [N, D] (see the class), so that larger is better.

        Use it to search for settings other than `beta`; `n_bits` returns the bits alone.
        """
        z = self._check_rows(Z)
        total = 0.0
        for rows in z.split(CHUNK_SIZE):
            z_hat, rates, _ = self.rate_(rows)
            errors = DISTORTIONS[self.distortion]((z_hat - rows).double() / self.scale_).sum(1)
            total += (errors + self.beta * rates).sum().item()
        return -total / len(z)

    def _check_rows(self, Z: ArrayLike) -> Tensor:
        check_is_fitted(self)
        Z = array_training.validated(self, Z, reset=False)
        return torch.tensor(Z, dtype=self.rate_.z_dtype, device="cpu")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        """Number of columns for `get_feature_names_out`."""
        return self.n_features_in_

    # --- files

    def save(self, path: str | os.PathLike) -> None:
        """Write the trained compressor and its current parameters atomically.

        A RandomState is saved as None. Raises TypeError for parameters that are not numbers,
        strings or None.
        """
        check_is_fitted(self)
        saved = {
            "parameters": {name: _plain(name, value) for name, value in self.get_params().items()},
            "n_features_in": self.n_features_in_,
            "scale": self.scale_,
            "dtype": str(self.rate_.z_dtype),
            "state": self.rate_.state_dict(),
        }
        if hasattr(self, "feature_names_in_"):
            saved["feature_names_in"] = self.feature_names_in_.tolist()
        content = io.BytesIO()
        torch.save(saved, content)
        body = content.getvalue()
        with replacing(path) as file:
            file.write(FILE_MAGIC + hashlib.sha256(body).digest() + body)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "ArrayCompressor":
        """Load a compressor that `save` wrote. Raises `WeightsError` for any other content."""
        content = Path(path).read_bytes()
        digest, body = content[len(FILE_MAGIC) :][:32], content[len(FILE_MAGIC) + 32 :]
        if not content.startswith(FILE_MAGIC):
            raise WeightsError(f"{path} was not written by ArrayCompressor.save")
        if hashlib.sha256(body).digest() != digest:
            raise WeightsError(f"{path} is damaged or truncated: its checksum does not match")
        saved = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True, mmap=False)
        known = cls().get_params()  # the file may be from another release, with other parameters
        compressor = cls(**{k: v for k, v in saved["parameters"].items() if k in known})
        compressor.n_features_in_ = saved["n_features_in"]
        compressor.scale_ = saved["scale"]
        if "feature_names_in" in saved:
            compressor.feature_names_in_ = np.array(saved["feature_names_in"], dtype=object)
        rotation = saved["state"]["_extra_state"].get(TRANSFORM, "none")
        try:
            with drawing_from(torch.Generator()):  # weights that are then replaced
                rate = HFactorized(compressor.n_features_in_, transform=rotation)
        except ValueError as error:
            raise WeightsError(f"{path}: {error}; written by a later version?") from error
        load_strictly(rate, saved["state"], path)
        if saved.get("dtype") == "torch.float64":  # earlier releases saved no type
            rate.z_dtype = torch.float64
        compressor.rate_ = rate.eval().requires_grad_(False)
        return compressor


def _plain(name: str, value: object) -> bool | int | float | str | None:
    """The value of a parameter as plain data, which is safe to load."""
    if isinstance(value, np.generic):
        value = value.item()
    if name == "random_state" and isinstance(value, np.random.RandomState):
        return None  # used only in training
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(
        f"{name}={value!r} cannot be saved: expected a number, a string or None. Change it with "
        f"`set_params({name}=...)`, which does not affect the trained model"
    )
