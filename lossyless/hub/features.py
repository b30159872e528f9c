"""Features to small files, and back: everything that needs neither images nor CLIP."""

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from lossyless.atomic import replacing
from lossyless.files import FeatureFile, write_features
from lossyless.hub import Report, SourceError
from lossyless.hub.labels import Labels, PathLike, read_labels, to_labels
from lossyless.hub.official_format import OfficialCoder, OfficialFile, is_official, write_official
from lossyless.progress import progress
from lossyless.rates import HFactorized

Format = Literal["container", "official"]
OnDamage = Literal["raise", "skip"]
BATCH_SIZE = 4096  # vectors that are handled at once


class FeatureCompressor(nn.Module):
    """An entropy bottleneck, and the files that it writes and reads.

        z [N, z_dim] --bottleneck--> bytes --> z_hat [N, z_dim]

    Parameters
    ----------
    rate : the bottleneck, with its coding tables. It stays on the CPU, in float32.
    model : name of the bottleneck, which files store.
    """

    def __init__(self, rate: HFactorized, model: str | None = None):
        super().__init__()
        if not isinstance(rate, HFactorized):
            raise TypeError(
                f"expected a rate HFactorized, found {type(rate).__name__}. For other codecs, use "
                "`lossyless.files.write_features`."
            )
        _ = rate.tables  # raises
        self.rate = rate.requires_grad_(False).eval()
        self.model = model

    @property
    def z_dim(self) -> int:
        return self.rate.z_dim

    @property
    def device(self) -> torch.device:
        """Device of the tensors that methods return."""
        return torch.device("cpu")

    def train(self, mode: bool = True) -> "FeatureCompressor":
        """Always evaluation mode: training would add noise instead of rounding."""
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FeatureCompressor":
        """Ignore `to`, `half`, ...: a converted bottleneck would not decode the same files."""
        return self

    @cached_property
    def official(self) -> OfficialCoder:
        """Coder of single vectors, in the format of the paper's code."""
        return OfficialCoder(self.rate)

    def compress_vectors(self, z: Tensor) -> list[bytes]:
        """A stream for each feature vector of [N, z_dim], in the official format."""
        return self.official.encode(_to_tensor(z))

    def decompress(self, streams: list[bytes]) -> Tensor:
        """z_hat [N, z_dim], float32 on this device, of streams of `compress`.

        Raises CodingError if a stream is damaged or of another bottleneck.
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
        Z : floats [N, z_dim]; memory-mapped arrays are read piece by piece.
        labels : integers [N, ...] to store in `file`: an array, a list, a pandas object.
        label_file : .npy file to export the labels to.

        Other parameters as for `ClipCompressor.compress_dataset`.
        """
        Z = Z if isinstance(Z, (Tensor, np.ndarray)) else np.asarray(Z)
        if Z.ndim != 2 or Z.shape[1] != self.z_dim:
            raise SourceError(f"expected features [N, {self.z_dim}], found {list(Z.shape)}")
        labels = None if labels is None else to_labels(labels)
        if labels is None and label_file is not None:
            raise SourceError(f"{label_file}: there are no `labels` to write")
        if labels is not None and len(labels) != len(Z):
            raise SourceError(f"found {len(labels)} labels for {len(Z)} feature vectors")

        def batches() -> Iterator[tuple[Tensor, Labels | None, None]]:
            starts = range(0, len(Z), BATCH_SIZE)
            for i in progress(starts, "Encoding") if is_info else starts:
                part = slice(i, i + BATCH_SIZE)
                yield _to_tensor(Z[part]), None if labels is None else labels[part], None

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
        """Features of a compressed file, of either format.

        Parameters
        ----------
        file : written by `compress_dataset`, `compress_features`, or the paper's code.
        label_file : return labels, too. They are read from this .npy file only if `file` cannot
            hold labels: the official format, and files of earlier versions.
        is_info : whether to print the report.
        is_cpu : no effect, an argument of the official code: decoding always runs on the CPU.
        labels : return the labels that `file` holds.
        on_damage : what to do if a part of the file is damaged: "raise", or "skip" it, with a
            warning that lists the missing examples. Their labels are left out as well.
        n_workers : processes that run the entropy coder; by default one per core.

        Returns
        -------
        Z : numpy array, float32 [N, z_dim]; or (Z, Y) with labels Y, int64 [N, ...].

        Raises
        ------
        ContainerError, CodingError
            The file is damaged, foreign, or of another model; the message says where.
        SourceError
            There are no labels, or not those of this file.
        """
        start = time.monotonic()
        with self._open(file, on_damage) as features:
            with_labels = labels or label_file is not None
            Y = read_labels(features, label_file) if with_labels else None
            Z = features.read(n_workers=n_workers).numpy()
        _warn_of_damage(features)
        _report("Decoding", file, len(Z), start, is_info)
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
        """The same from file to file, in constant memory.

        Parameters
        ----------
        out : .npy file to write the features to, float32 [N, z_dim].
        labels_out : .npy file to write their labels to, int64 [N, ...].

        Other parameters and errors as for `decompress_dataset`.
        """
        start = time.monotonic()
        _check_distinct([out, labels_out], [file, label_file])
        with ExitStack() as stack:
            npy = stack.enter_context(replacing(out))
            labels_npy = None if labels_out is None else stack.enter_context(replacing(labels_out))
            features = stack.enter_context(self._open(file, on_damage))
            if labels_out is not None:
                np.save(labels_npy, read_labels(features, label_file), allow_pickle=False)
            shape = (len(features.indices), self.z_dim)
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(npy, header)
            with closing(features.chunks(n_workers=n_workers)) as chunks:
                for _, z_hat in chunks:
                    npy.write(z_hat.numpy().astype("<f4", copy=False).tobytes())
        _warn_of_damage(features)
        is_partial = bool(features.damaged)
        return _report("Decoding", file, shape[0], start, is_info, is_partial=is_partial)

    def open(self, file: PathLike, *, on_damage: OnDamage = "raise") -> FeatureFile:
        """Random access to a file: `f[i]`, `f[10:20]`, `f[[3, 1]]`; use it in a `with` statement.

        `lossyless.files.FeatureDataset(file, compressor.rate)` is the same for a `DataLoader`.
        """
        if is_official(file):
            raise SourceError(
                f"{file}: the official format has no random access: use `decompress_dataset`"
            )
        return FeatureFile(file, self.rate, on_damage=on_damage)

    def _write(
        self,
        batches: Iterable[tuple[Tensor, Labels | None, list[str] | None]],
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
        """Compress batches of features [b, z_dim] on the CPU, with labels and names, into a file.

        skipped : examples that `batches` left out, complete when they end.
        """
        if format not in ("container", "official"):
            raise ValueError(f"format: expected 'container' or 'official', found {format!r}")
        if format == "official" and has_labels and label_file is None:
            raise SourceError(
                f"{file}: the official format holds no labels: also give a file for them "
                "(label_file=, --labels-out)"
            )
        _check_distinct([file, label_file])
        start = time.monotonic()
        exported: list[Labels] = []

        def rows() -> Iterator[tuple[Tensor, Labels | None, list[str] | None]]:
            for z, labels, names in batches:
                if label_file is not None:
                    exported.append(labels)
                yield z, labels, names

        with ExitStack() as stack:
            npy = None if label_file is None else stack.enter_context(replacing(label_file))
            if format == "official":
                streams = (s for z, *_ in rows() for s in self.compress_vectors(z))
                n_examples, n_label_bytes = write_official(file, streams), 0
            else:
                meta = (meta or {}) | ({"model": self.model} if self.model else {})
                written = write_features(rows(), file, self.rate, n_workers=n_workers, meta=meta)
                n_examples, n_label_bytes = written.n_examples, written.n_label_bytes
            if npy is not None:
                labels = np.concatenate(exported) if exported else np.empty(0, np.int64)
                np.save(npy, labels, allow_pickle=False)
        details = {"n_label_bytes": n_label_bytes, "n_source_bytes": n_source_bytes}
        return _report(
            "Encoding", file, n_examples, start, is_info, is_partial=bool(skipped), **details
        )

    def _open(self, file: PathLike, on_damage: OnDamage) -> FeatureFile | OfficialFile:
        """A file of either format, identified by its first bytes."""
        if not is_official(file):
            return FeatureFile(file, self.rate, on_damage=on_damage)
        if on_damage == "skip":
            raise SourceError(
                f"{file}: the official format has no checksums, so that damage cannot be skipped: "
                "read it with on_damage='raise'"
            )
        return OfficialFile(file, self.official)


def _to_tensor(rows: Tensor | NDArray) -> Tensor:
    """float32 on the CPU, without a gradient."""
    if isinstance(rows, Tensor):
        return rows.detach().float().cpu()
    return torch.from_numpy(np.array(rows, np.float32))  # a copy: arrays may be read-only


def _check_distinct(
    outputs: Sequence[PathLike | None], inputs: Sequence[PathLike | None] = ()
) -> None:
    """Raise SourceError if an output is an input or another output, also by a symbolic link."""
    targets = [os.path.realpath(path) for path in (*outputs, *inputs) if path is not None]
    for out in outputs:
        if out is not None and targets.count(os.path.realpath(out)) > 1:
            raise SourceError(f"{out}: would overwrite an input or another output: rename it")


def _report(
    work: str, file: PathLike, n_examples: int, start: float, is_info: bool, **details: Any
) -> Report:
    """The report on work that began at `start` of `time.monotonic`; printed if `is_info`."""
    seconds = time.monotonic() - start
    report = Report(work, n_examples, os.path.getsize(file), seconds, **details)
    if is_info:
        print(report)
    return report


def _warn_of_damage(features: FeatureFile | OfficialFile) -> None:
    """Warn the caller's caller if a file is damaged, and list the missing examples."""
    if features.damaged:
        details = [text.removeprefix(f"{features.name}: ") for text in features.damaged]
        n_missing = len(features.missing)
        warnings.warn(
            f"{features.name}: is damaged, {n_missing} known examples are lost and left out: "
            f"{_format_spans(features.missing)} ({'; '.join(details[-3:])})",
            stacklevel=3,
        )


def _format_spans(indices: NDArray[np.int64]) -> str:
    """Sorted indices as "3, 8-11, 20"."""
    parts = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts if len(p))
