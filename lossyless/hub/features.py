"""Reads and writes compressed files of features; needs neither images nor CLIP."""

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from lossyless.atomic import check_distinct, replacing
from lossyless.files import FeatureFile, write_features
from lossyless.hub import Report, SourceError
from lossyless.hub.labels import Labels, PathLike, read_labels, to_labels
from lossyless.hub.official_format import OfficialCoder, OfficialFile, is_official, write_official
from lossyless.parallel import Portable
from lossyless.progress import progress
from lossyless.rates import HFactorized

Format = Literal["container", "official"]
OnDamage = Literal["raise", "skip"]
Batch = tuple[Tensor | NDArray, Labels | None, list[str] | None]  # features, labels, names
BATCH_SIZE = 4096  # vectors processed at once
MAX_LISTED = 10  # damaged parts in a warning


class FeatureCompressor(Portable, nn.Module):
    """An entropy bottleneck that reads and writes compressed files.

        z [N, z_dim] --bottleneck--> bytes --> z_hat [N, z_dim]

    Parameters
    ----------
    rate : the bottleneck, with its coding tables. It stays on the CPU, in float32.
    model : name of the bottleneck, which is stored in the files.
    """

    def __init__(self, rate: HFactorized, model: str | None = None):
        super().__init__()
        if not isinstance(rate, HFactorized):
            raise TypeError(
                f"expected an HFactorized rate, found {type(rate).__name__}. For other codecs, use "
                "`lossyless.files.write_features`."
            )
        _ = rate.tables  # raises without tables
        self.rate = rate.requires_grad_(False).eval()
        self.model = model

    @property
    def z_dim(self) -> int:
        return self.rate.z_dim

    @property
    def device(self) -> torch.device:
        """Device of the returned tensors."""
        return torch.device("cpu")

    def train(self, mode: bool = True) -> "FeatureCompressor":
        """Stay in evaluation mode: a bottleneck in training mode adds noise instead of rounding."""
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FeatureCompressor":
        """Ignore `to`, `half`, ...: a converted bottleneck could not decode the same files."""
        return self

    @cached_property
    def official(self) -> OfficialCoder:
        """Coder for single vectors, in the format of the paper's code."""
        return OfficialCoder(self.rate)

    def compress_vectors(self, z: Tensor | NDArray) -> list[bytes]:
        """Compress each vector of z [N, z_dim] into its own stream, in the official format."""
        return self.official.encode(z)

    def decompress(self, streams: list[bytes]) -> Tensor:
        """Decode streams in the official format to z_hat [N, z_dim], float32 on `device`.

        Raises CodingError if a stream is damaged or was written by another bottleneck.
        """
        return self.official.decode(streams).to(self.device)

    def compress_features(
        self,
        Z: ArrayLike | Tensor,
        file: PathLike,
        labels: Any = None,
        label_file: PathLike | None = None,
        is_info: bool = True,
        *,
        format: Format = "container",
        n_workers: int | None = None,
    ) -> Report:
        """Compress CLIP features that you have already computed.

        Parameters
        ----------
        Z : floats [N, z_dim]; memory-mapped arrays are read in pieces.
        labels : integers [N, ...] to store in `file`: an array, a list or a pandas object.
        label_file : .npy file to export the labels to.

        Other parameters are as for `ClipCompressor.compress_dataset`.
        """
        Z = Z if isinstance(Z, (Tensor, np.ndarray)) else np.asarray(Z)
        if Z.ndim != 2 or Z.shape[1] != self.z_dim:
            raise SourceError(f"expected features [N, {self.z_dim}], found {list(Z.shape)}")
        labels = None if labels is None else to_labels(labels)
        n_labels = 0 if labels is None else len(labels)
        if n_labels != len(Z) and not (labels is None and label_file is None):
            raise SourceError(f"found {n_labels} labels for {len(Z)} feature vectors")

        def batches() -> Iterator[Batch]:
            starts = range(0, len(Z), BATCH_SIZE)
            for i in progress(starts, "Encoding") if is_info else starts:
                part = slice(i, i + BATCH_SIZE)
                yield Z[part], None if labels is None else labels[part], None

        return self._write(
            batches(),
            file,
            label_file,
            has_labels=labels is not None,
            is_info=is_info,
            format=format,
            n_workers=n_workers,
        )

    def decompress_dataset(
        self,
        file: PathLike,
        label_file: PathLike | None = None,
        is_info: bool = True,
        is_cpu: bool = True,
        *,
        labels: bool = False,
        on_damage: OnDamage = "raise",
        n_workers: int | None = None,
    ) -> NDArray[np.float32] | tuple[NDArray[np.float32], Labels]:
        """Decompress a file in either format to features.

        Parameters
        ----------
        file : written by `compress_dataset`, `compress_features`, or the paper's code.
        label_file : also return labels. They are read from this .npy file only if `file` cannot
            store labels (the official format, and files written by earlier versions).
        is_info : whether to print the report.
        is_cpu : has no effect: decoding always runs on the CPU; kept from the official code.
        labels : whether to also return the labels stored in `file`.
        on_damage : what to do if part of the file is damaged: "raise" an error, or "skip" that part
            and its labels, with a warning that lists the missing examples.
        n_workers : processes that run the entropy coder; by default one per core.

        Returns
        -------
        Z : float32 array [N, z_dim]; or (Z, Y), with the labels Y, an int64 array [N, ...].

        Raises ContainerError or CodingError if the file is damaged, in another format, or from
        another model; SourceError if requested labels are missing or do not match the file.
        """
        start = time.monotonic()
        with self._open(file, on_damage) as features:
            Y = read_labels(features, label_file) if labels or label_file is not None else None
            Z = features.read(n_workers=n_workers).numpy()
        _report_decoding(features, len(Z), start, is_info)
        return Z if Y is None else (Z, Y)

    def decompress_to_npy(
        self,
        file: PathLike,
        out: PathLike,
        label_file: PathLike | None = None,
        labels_out: PathLike | None = None,
        is_info: bool = True,
        *,
        on_damage: OnDamage = "raise",
        n_workers: int | None = None,
    ) -> Report:
        """Decompress a file to .npy files without holding all features in memory.

        Parameters
        ----------
        out : .npy file to write the features to, float32 [N, z_dim].
        labels_out : .npy file to write labels to, int64 [N, ...]; by default, no labels are read.

        Other parameters and errors are as for `decompress_dataset`.
        """
        start = time.monotonic()
        check_distinct([out, labels_out], [file, label_file])
        with ExitStack() as stack:
            npy = stack.enter_context(replacing(out))
            features = stack.enter_context(self._open(file, on_damage))
            if labels_out is not None:
                labels_npy = stack.enter_context(replacing(labels_out))
                np.save(labels_npy, read_labels(features, label_file), allow_pickle=False)
            shape = (len(features.indices), self.z_dim)
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(npy, header)
            for _, z_hat in features.chunks(n_workers=n_workers):
                npy.write(z_hat.numpy().astype("<f4", copy=False).tobytes())
        return _report_decoding(features, shape[0], start, is_info)

    def open(self, file: PathLike, *, on_damage: OnDamage = "raise") -> FeatureFile:
        """Open a file for random access in a `with` statement: `f[i]`, `f[10:20]`, `f[[3, 1]]`.

        For a `DataLoader`, use `lossyless.files.FeatureDataset(file, compressor.rate)`.
        """
        if is_official(file):
            raise SourceError(
                f"{file}: the official format does not support random access: decompress the file"
            )
        return FeatureFile(file, self.rate, on_damage=on_damage)

    def _write(
        self,
        batches: Iterable[Batch],
        file: PathLike,
        label_file: PathLike | None,
        *,
        has_labels: bool,
        is_info: bool,
        format: Format,
        n_workers: int | None,
        meta: dict[str, Any] | None = None,
        n_source_bytes: int | None = None,
        skipped: Sequence[Any] = (),
    ) -> Report:
        """Compress batches of features [b, z_dim], labels and names into a file.

        skipped : examples that `batches` has skipped so far; the list grows during iteration.
        """
        if format not in ("container", "official"):
            raise ValueError(f"format: expected 'container' or 'official', found {format!r}")
        if format == "official" and has_labels and label_file is None:
            raise SourceError(
                f"{file}: the official format stores no labels: also pass a file for them "
                "(label_file=, --labels-out)"
            )
        check_distinct([file, label_file], [])
        start = time.monotonic()

        def rows() -> Iterator[Batch]:
            exported: list[Labels] = []
            for z, labels, names in batches:
                if npy is not None:
                    exported.append(labels)
                yield z, labels, names
            if npy is not None:
                labels = np.concatenate(exported) if exported else np.empty(0, np.int64)
                np.save(npy, labels, allow_pickle=False)

        with nullcontext() if label_file is None else replacing(label_file) as npy:
            if format == "official":
                streams = (s for z, *_ in rows() for s in self.compress_vectors(z))
                n_examples, n_annotation_bytes = write_official(file, streams), 0
            else:
                meta = (meta or {}) | ({"model": self.model} if self.model else {})
                written = write_features(rows(), file, self.rate, n_workers=n_workers, meta=meta)
                n_examples, n_annotation_bytes = written.n_examples, written.n_annotation_bytes
        sizes = (
            os.path.getsize(file),
            time.monotonic() - start,
            n_annotation_bytes,
            n_source_bytes,
        )
        report = Report("Encoding", n_examples, *sizes, is_partial=bool(skipped))
        if is_info:
            print(report)
        return report

    def _open(self, file: PathLike, on_damage: OnDamage) -> FeatureFile | OfficialFile:
        """Open a file in either format."""
        if not is_official(file):
            return FeatureFile(file, self.rate, on_damage=on_damage)
        if on_damage == "skip":
            raise SourceError(
                f"{file}: the official format has no checksums, so damage cannot be skipped"
            )
        return OfficialFile(file, self.official)


def _report_decoding(
    features: FeatureFile | OfficialFile, n_examples: int, start: float, is_info: bool
) -> Report:
    """Report on decoding that began at `start`, and warn about skipped damage."""
    if features.damaged:
        details = [text.removeprefix(f"{features.name}: ") for text in features.damaged]
        warnings.warn(
            f"{features.name}: is damaged; skipped at least {len(features.missing)} examples: "
            f"{'; '.join(details[:MAX_LISTED])}",
            stacklevel=3,
        )
    n_bytes, seconds = os.path.getsize(features.name), time.monotonic() - start
    report = Report("Decoding", n_examples, n_bytes, seconds, is_partial=bool(features.damaged))
    if is_info:
        print(report)
    return report
