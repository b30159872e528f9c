"""The compressor of feature matrices as a scikit-learn estimator."""

import hashlib
import io
import math
import os
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from torch.optim import lr_scheduler
from tqdm import tqdm

from lossyless.atomic import replacing
from lossyless.files import ContainerError, FeatureFile, write_features
from lossyless.rates import HFactorized
from lossyless.rates.entropy_coded import TRANSFORM
from lossyless.rates.transforms import TRANSFORMS
from lossyless.torch_state import one_thread
from lossyless.weights import WeightsError, load_strictly

OLD_PAYLOAD_MAGIC = b"LLarray1"  # of an earlier format, not read anymore
CHUNK_SIZE = 4096
# Files: magic, SHA-256 of the rest, a dict saved by torch.
FILE_MAGIC = b"LLmodel1"
# Few rows are seen more often, so that the entropy model is fitted to them as well.
MIN_STEPS = 300
MAX_GRAD_NORM = 100.0
DISTORTIONS = {"squared": torch.square, "l1": torch.abs}
SCHEDULES = {
    "cosine": lr_scheduler.CosineAnnealingLR,
    "step": lambda optimizer, n: lr_scheduler.StepLR(optimizer, math.ceil(n / 5), gamma=0.1),
}
# Values and cells that float32 has, with some room for sums and for the inverses of widths.
SMALLEST, LARGEST = 1e-30, 1e30
TOO_FAR = f"outside [{SMALLEST:g}, {LARGEST:g}]: choose another unit"
# Variation that float32 has not: relative to the mean, half of half a step. Of constant columns,
# what rounding of the mean leaves.
RESOLUTION = 2.0**-26


class ArrayCompressor(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Lossy compressor of the rows of a matrix, for features that a linear model will work on.

    A bottleneck with a learnt, factorized entropy model, trained without labels for

        ||z_hat - z||^2 / v  +  beta * rate                                          (nats)

    with v the variance of the features, averaged over columns; so `beta` means the same whatever
    the unit of the features. Cells have the width that minimises it for many bits, sqrt(6 beta v);
    the entropy model is what is trained. `ArrayCompressor.paper()` is the minimal compressor of the
    paper (arXiv:2106.10800, appendix E.7), which differs: absolute errors in the unit of the
    features, a learnt cell width for each column, no rotation.

    Parameters
    ----------
    beta : weight of the rate; larger = fewer bits.
    distortion : "squared", as above; or "l1", as in the paper: ||z_hat - z||_1 + beta * rate.
    rotation : one of `lossyless.rates.transforms.TRANSFORMS`. "klt": rows are coded in the basis of
        their principal components, which takes far fewer bits if columns are correlated;
        "klt_refined": a basis that is learnt further, for up to some hundred columns; "none":
        column by column, as the paper does.
    n_epochs : passes over the rows; at least 300 steps are taken.
    batch_size : rows of one step.
    lr : learning rate of Adam.
    schedule : "cosine": annealed to 0; "step": a tenth after each fifth of the training.
    random_state : int, RandomState or None, as everywhere in scikit-learn.
    device : torch's name of the device that trains; None: a GPU if there is one.
    verbose : whether to show a progress bar.

    Attributes
    ----------
    n_features_in_ : columns.
    feature_names_in_ : names of the columns, if it was trained on a DataFrame with names.
    scale_ : unit of the distortion: root of v, the mean variance of the columns that it was trained
        on; if all were constant, the largest absolute value, or 1. With distortion="l1", 1.
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
        """With the settings of the paper's minimal code, for CLIP ViT-B/32 features as they are.

        Published for training on CIFAR10 and a linear SVM (C=4e-3) on STL10: 1704 bits, 98.6 %.
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

    def fit(self, Z: ArrayLike, y=None) -> "ArrayCompressor":
        """Train on the rows of Z [N, D]; y is ignored.

        Raises
        ------
        ValueError
            A parameter or Z is not usable: NaN, infinite values, not two dimensions, no rows, or
            values so large or so much alike that float32 could not hold them or their cells.
        """
        device = self._check_parameters()
        Z = validate_data(self, Z, dtype=(np.float32, np.float64))
        mean, scale = _mean_and_scale(Z)
        if self.distortion == "l1":
            scale = 1.0
        z = torch.from_numpy(((Z - mean) / scale).astype(np.float32)).to(device)
        seed = check_random_state(self.random_state).randint(2**31)
        # steps are too small to share: more threads are no faster, and far slower on busy machines
        with torch.random.fork_rng([device] if device.type == "cuda" else []), one_thread():
            torch.manual_seed(seed)
            rate = HFactorized(z.shape[1], transform=self.rotation).to(device)
            self._train(rate, z)
        rate = rate.eval().requires_grad_(False).cpu()
        _undo_standardisation(rate, torch.from_numpy(mean), scale)
        rate.update()
        rate.recentre_constant_dims(torch.from_numpy(Z.astype(np.float32)))
        self.scale_, self.rate_ = scale, rate
        return self

    def _check_parameters(self) -> torch.device:
        """The device to train on. Raises ValueError for a parameter that is not usable."""
        for name in ("beta", "lr", "n_epochs", "batch_size"):
            value = getattr(self, name)
            if not (isinstance(value, Real) and 0 < value < math.inf):
                raise ValueError(f"{name}={value!r}: expected a positive number")
        if not isinstance(self.batch_size, Integral):
            raise ValueError(f"batch_size={self.batch_size!r}: expected a positive integer")
        choices = {"rotation": TRANSFORMS, "distortion": DISTORTIONS, "schedule": SCHEDULES}
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in list(allowed):
                expected = ", ".join(map(repr, allowed))
                raise ValueError(f"{name}={value!r}: expected one of {expected}")
        try:
            return torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        except (RuntimeError, TypeError):  # with a list of all devices that there ever were
            raise ValueError(
                f"device={self.device!r}: expected None or torch's name of a device, such as "
                "'cpu', 'cuda' or 'cuda:1'"
            ) from None

    def _train(self, rate: HFactorized, z: Tensor) -> None:
        """Fit `rate` to rows z [N, D], centred and in the unit of the distortion."""
        rate.fit_transform(z)
        if self.distortion == "squared":
            # error width^2 / 12 and rate -log(width) of each dimension: least at this width
            rate.start_from(z, cell_width=math.sqrt(6 * self.beta))
            rate.scaling.requires_grad_(False)
        n_batches = math.ceil(len(z) / self.batch_size)
        n_steps = max(math.ceil(self.n_epochs * n_batches), MIN_STEPS)
        parameters = [p for p in rate.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=self.lr)
        scheduler = SCHEDULES[self.schedule](optimizer, n_steps)
        batches = iter(())
        for _ in tqdm(range(n_steps), desc="ArrayCompressor", disable=not self.verbose):
            rows = next(batches, None)
            if rows is None:
                batches = iter(torch.randperm(len(z), device=z.device).chunk(n_batches))
                rows = next(batches)
            loss = self._losses(rate, z[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
            optimizer.step()
            scheduler.step()

    def _losses(self, rate: HFactorized, z: Tensor) -> Tensor:
        z_hat, rates, _ = rate(z)
        return DISTORTIONS[self.distortion](z_hat - z).sum(1) + self.beta * rates

    # --- use

    @property
    def codec(self) -> HFactorized:
        """The trained bottleneck, the codec of `lossyless.files`."""
        check_is_fitted(self)
        return self.rate_

    def compress(self, Z: ArrayLike) -> bytes:
        """Code the rows of Z [N, D]: the bytes of a file of `lossyless.files`.

        Raises ValueError as `fit`, and `CodingError` for values too far out to be coded.
        """
        file = io.BytesIO()
        write_features([self._check_rows(Z)], file, self.rate_, chunk_size=CHUNK_SIZE, n_workers=1)
        return file.getvalue()

    def decompress(self, payload: bytes) -> NDArray[np.float32]:
        """Z_hat [N, D] of a payload of `compress`.

        Raises `ContainerError` if it is damaged, foreign or of another compressor.
        """
        check_is_fitted(self)
        if not isinstance(payload, (bytes, bytearray, memoryview)):
            raise TypeError(f"payload: expected bytes, found {type(payload).__name__}")
        payload = bytes(payload)
        if payload.startswith(OLD_PAYLOAD_MAGIC):
            raise ContainerError(
                "the payload has an earlier format (LLarray1): decode it with the version of "
                "lossyless that wrote it"
            )
        with FeatureFile(payload, self.rate_) as file:
            return file.read(n_workers=1).numpy()

    def transform(self, Z: ArrayLike) -> NDArray[np.float32]:
        """What a receiver gets of Z [N, D]: equal to `decompress(compress(Z))`."""
        z = self._check_rows(Z)
        return self.rate_.dequantise(self.rate_.quantise(z)).numpy()

    def n_bits(self, Z: ArrayLike) -> float:
        """Bits per row of the payload of Z [N, D], including about 200 bytes of overhead."""
        payload = self.compress(Z)
        return 8 * len(payload) / len(Z)

    @torch.no_grad()
    def score(self, Z: ArrayLike, y=None) -> float:
        """Minus the loss per row of Z [N, D], so that larger is better; see the class.

        To choose settings other than `beta` by; `n_bits` are the bits alone.
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
        Z = validate_data(self, Z, dtype=(np.float32, np.float64), reset=False)
        return torch.from_numpy(Z.astype(np.float32))

    @property
    def _n_features_out(self) -> int:
        """For `get_feature_names_out`: there are as many columns as before."""
        return self.n_features_in_

    # --- files

    def save(self, path: str | os.PathLike) -> None:
        """Write the trained compressor; the file is complete or not there at all.

        Parameters are saved as they are now, and what was fitted as it was fitted. A RandomState is
        saved as None. Raises TypeError for other parameters than numbers, strings and None.
        """
        check_is_fitted(self)
        path = Path(path)
        saved = {
            "parameters": {name: _plain(name, value) for name, value in self.get_params().items()},
            "n_features_in": self.n_features_in_,
            "scale": self.scale_,
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
        """The compressor that `save` wrote. Raises `WeightsError` if the file is not one, whole."""
        content = Path(path).read_bytes()
        digest, body = content[len(FILE_MAGIC) :][:32], content[len(FILE_MAGIC) + 32 :]
        if not content.startswith(FILE_MAGIC):
            raise WeightsError(f"{path} was not written by ArrayCompressor.save")
        if hashlib.sha256(body).digest() != digest:
            raise WeightsError(f"{path} is damaged or cut: its checksum does not match")
        saved = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
        known = cls().get_params()
        # parameters of other releases do not matter: training is over
        compressor = cls(**{k: v for k, v in saved["parameters"].items() if k in known})
        compressor.n_features_in_ = saved["n_features_in"]
        compressor.scale_ = saved["scale"]
        if "feature_names_in" in saved:
            compressor.feature_names_in_ = np.array(saved["feature_names_in"], dtype=object)
        rotation = saved["state"]["_extra_state"].get(TRANSFORM, "none")
        if rotation not in list(TRANSFORMS):
            raise WeightsError(
                f"{path} has weights of rotation={rotation!r}, expected one of "
                f"{', '.join(map(repr, TRANSFORMS))}: a later version may have written it"
            )
        rate = HFactorized(compressor.n_features_in_, transform=rotation)
        load_strictly(rate, saved["state"], path)
        compressor.rate_ = rate.eval().requires_grad_(False)
        return compressor


def _mean_and_scale(Z: NDArray) -> tuple[NDArray[np.float64], float]:
    """Mean [D] and `scale_` of rows Z [N, D]. Raises ValueError for values of unusable size."""
    largest = max(float(Z.max()), -float(Z.min()))
    if largest > LARGEST:
        raise ValueError(f"Z has values of size {largest:g}, {TOO_FAR}")
    mean, variances = Z.mean(0, dtype=np.float64), Z.var(0, dtype=np.float64)
    variances[np.sqrt(variances) <= RESOLUTION * np.abs(mean)] = 0.0
    scale = math.sqrt(variances.mean()) or largest or 1.0
    if scale < SMALLEST:
        raise ValueError(f"the columns of Z vary by {scale:g}, {TOO_FAR}")
    return mean, scale


def _plain(name: str, value: object) -> bool | int | float | str | None:
    """A parameter as it is saved: plain data, which is safe to load."""
    if isinstance(value, np.generic):
        value = value.item()
    if name == "random_state" and isinstance(value, np.random.RandomState):
        return None  # only training needs it
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(
        f"{name}={value!r} cannot be saved: expected a number, a string or None. What is trained "
        f"stays as it is with `set_params({name}=...)`"
    )


def _undo_standardisation(rate: HFactorized, mean: Tensor, scale: float) -> None:
    """Let `rate`, trained on (z - mean) / scale, code z itself, with the same symbols."""
    if rate.transform is not None:
        rate.transform.update()
        mean = mean + scale * rate.transform.mean.double()
        rate.transform.mean.copy_(mean)
        mean = rate.transform.rotate_exactly(mean[None])[0]  # what float32 has not of it
    with torch.no_grad():
        rate.biasing.copy_(rate.biasing.double() * scale - mean)
        rate.scaling.sub_(math.log(scale))
