"""Features to small files, and back: everything that needs no image and no CLIP."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from lossyless.atomic import replacing
from lossyless.feature_files import FeatureFile, write_features
from lossyless.feature_files.writing import to_tensor
from lossyless.hub import SourceError
from lossyless.hub.damage import kept_labels, warn_of_damage
from lossyless.hub.files import check_distinct, write_npy
from lossyless.hub.labels import to_labels, writing_labels
from lossyless.hub.official_format import OfficialCoder, OfficialFile, is_official, write_official
from lossyless.hub.official_names import OfficialNames
from lossyless.hub.report import Report, progress
from lossyless.rates import HFactorized

Format = Literal["container", "official"]
OnDamage = Literal["raise", "skip"]
BATCH_SIZE = 4096  # vectors that are handled at once


class FeatureCompressor(OfficialNames, nn.Module):
    """An entropy bottleneck and the files that it writes and reads.

    Parameters
    ----------
    rate : the bottleneck, with its coding tables made. It stays on the CPU, in float32.

    Raises
    ------
    TypeError
        `rate` is another kind of rate.
    RuntimeError
        `rate` has no coding tables.
    """

    def __init__(self, rate: HFactorized):
        super().__init__()
        if not isinstance(rate, HFactorized):
            raise TypeError(
                f"expected a rate HFactorized, found {type(rate).__name__}. For other codecs, see "
                "`lossyless.feature_files.write_features`."
            )
        _ = rate.tables  # or its error
        self.rate = rate.requires_grad_(False).eval()
        self._official: OfficialCoder | None = None

    @property
    def z_dim(self) -> int:
        return self.rate.z_dim

    @property
    def device(self) -> torch.device:
        """Where tensors that methods return are."""
        return torch.device("cpu")

    def train(self, mode: bool = True) -> "FeatureCompressor":
        """Always evaluation mode: noise in place of rounding would make wrong features."""
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FeatureCompressor":
        """What `to`, `half`, ... do to a module: nothing, other numbers would not decode."""
        return self

    @property
    def official(self) -> OfficialCoder:
        """Coder of vectors one by one, as the paper's code does it."""
        if self._official is None:
            self._official = OfficialCoder(self.rate)
        return self._official

    def compress_vectors(self, z: Tensor) -> list[bytes]:
        """A stream for each feature vector of [N, z_dim], in the official format."""
        return self.official.encode(z.float().cpu())

    def decompress(self, streams: list[bytes]) -> Tensor:
        """z_hat [N, z_dim], float32 on this device, of streams of `compress`.

        Raises
        ------
        CodingError
            A stream is damaged or not of this bottleneck.
        """
        if isinstance(streams, (bytes, bytearray, memoryview)):
            raise TypeError(f"expected a list of streams, found {type(streams).__name__}")
        return self.official.decode(streams).to(self.device)

    def compress_features(
        self,
        Z: ArrayLike | Tensor,
        file: str | os.PathLike,
        labels: Any = None,
        label_file: str | os.PathLike | None = None,
        is_info: bool = True,
        *,
        format: Format = "container",
        n_workers: int | None = None,
    ) -> Report:
        """Compress feature vectors that are there already.

        Parameters
        ----------
        Z : floats [N, z_dim]; memory-mapped arrays are read piece by piece.
        labels : integers [N, ...] for `label_file`.

        Other parameters as for `ClipCompressor.compress_dataset`.
        """
        start = time.monotonic()
        Z = Z if isinstance(Z, (Tensor, np.ndarray)) else np.asarray(Z)
        if Z.ndim != 2 or Z.shape[1] != self.z_dim:
            raise SourceError(f"expected features [N, {self.z_dim}], found {list(Z.shape)}")
        if (labels is None) != (label_file is None):
            raise SourceError("`labels` and `label_file` go together: give both or neither")
        if labels is not None:
            labels = to_labels(labels)
            if len(labels) != len(Z):
                raise SourceError(f"found {len(labels)} labels for {len(Z)} feature vectors")

        def batches() -> Iterator[Tensor]:
            with progress(len(Z), is_info) as bar:
                for i in range(0, len(Z), BATCH_SIZE):
                    batch = Z[i : i + BATCH_SIZE]
                    yield to_tensor(batch)
                    bar.update(len(batch))

        with writing_labels(label_file, file, lambda: labels) as commit_labels:
            n_examples = self._write(
                batches(),
                file,
                format=format,
                n_workers=n_workers,
                meta={},
                commit_labels=commit_labels,
            )
        return Report.of(file, n_examples, start, "Encoding").shown(is_info)

    def decompress_dataset(
        self,
        file: str | os.PathLike,
        label_file: str | os.PathLike | None = None,
        is_info: bool = True,
        is_cpu: bool = True,
        *,
        on_damage: OnDamage = "raise",
        n_workers: int | None = None,
    ) -> NDArray[np.float32] | tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Features of a compressed file, of either format.

        Parameters
        ----------
        file : written by `compress_dataset`, `compress_features`, or the paper's code.
        label_file : labels that were written with it.
        is_info : whether to print the report.
        is_cpu : the official code's choice of where to decode. Here that is always the CPU, which
            is faster, so this has no effect.
        on_damage : what to do when a part of the file is damaged: "raise", or "skip" it, with a
            warning that says which examples are missing. Their labels are left out too.
        n_workers : processes that run the entropy coder; by default as many as there are cores.

        Returns
        -------
        Z : numpy array, float32 [N, z_dim]; or (Z, Y) with a `label_file`: labels, int64 [N, ...].

        Raises
        ------
        ContainerError, CodingError
            The file is damaged, foreign, or of another model; the message says where.
        SourceError
            The labels are not of this file.
        """
        start = time.monotonic()
        with self._open(file, on_damage) as features:
            z_hat = features.read(n_workers=n_workers)
        labels, missing = None, features.missing
        if label_file is not None:
            labels, missing = kept_labels(label_file, features, len(z_hat))
        warn_of_damage(features, missing)
        is_partial = bool(features.damaged)
        Report.of(file, len(z_hat), start, "Decoding", is_partial=is_partial).shown(is_info)
        return z_hat.numpy() if labels is None else (z_hat.numpy(), labels)

    def decompress_to_npy(
        self,
        file: str | os.PathLike,
        out: str | os.PathLike,
        label_file: str | os.PathLike | None = None,
        labels_out: str | os.PathLike | None = None,
        is_info: bool = True,
        *,
        on_damage: OnDamage = "raise",
        n_workers: int | None = None,
    ) -> Report:
        """The same from file to file, in constant memory.

        Parameters
        ----------
        out : .npy file of the features to write, float32 [N, z_dim].
        label_file, labels_out : labels that were written with `file`, and where those of `out` go:
            what is skipped has none.

        Other parameters and errors as for `decompress_dataset`.
        """
        start = time.monotonic()
        if (label_file is None) != (labels_out is None):
            raise SourceError("`label_file` and `labels_out` go together: give both or neither")
        has_labels = label_file is not None
        check_distinct(
            [out, labels_out] if has_labels else [out],
            [file, label_file] if has_labels else [file],
        )
        with ExitStack() as stack:
            npy = stack.enter_context(replacing(out))
            labels_npy = stack.enter_context(replacing(labels_out)) if has_labels else None
            features = stack.enter_context(self._open(file, on_damage))
            chunks = stack.enter_context(closing(features.chunks(n_workers=n_workers)))
            rows = (z_hat for _, z_hat in chunks)
            n_examples = write_npy(npy, rows, n_columns=self.z_dim)
            missing = features.missing
            if has_labels:
                labels, missing = kept_labels(label_file, features, n_examples)
                np.save(labels_npy, labels, allow_pickle=False)
        warn_of_damage(features, missing)
        is_partial = bool(features.damaged)
        report = Report.of(file, n_examples, start, "Decoding", is_partial=is_partial)
        return report.shown(is_info)

    def open(self, file: str | os.PathLike, *, on_damage: OnDamage = "raise") -> FeatureFile:
        """Random access to a file: `f[i]`, `f[10:20]`, `f[[3, 1]]`; use it in a `with` statement.

        `feature_files.FeatureDataset(file, compressor.rate)` is the same for a `DataLoader`.
        """
        if is_official(file):
            raise SourceError(
                f"{file}: is in the official format, which has no random access. Decompress it as "
                "a whole with `decompress_dataset`."
            )
        return FeatureFile(file, self.rate, on_damage=on_damage)

    def _write(
        self,
        batches: Iterable[Tensor],
        file: str | os.PathLike,
        *,
        format: Format,
        n_workers: int | None,
        meta: dict[str, Any],
        commit_labels: Callable[[], int] | None,
    ) -> int:
        """Compress batches [b, z_dim] into a file of a format; the number of vectors.

        `commit_labels` as for `write_features`.
        """
        if format == "container":
            on_cpu = (z.cpu() for z in batches)
            written = write_features(
                on_cpu,
                file,
                self.rate,
                n_workers=n_workers,
                meta=meta,
                commit_labels=commit_labels,
            )
            return written.n_examples
        if format != "official":
            raise ValueError(f"format: expected 'container' or 'official', found {format!r}")

        def streams() -> Iterator[bytes]:
            for z in batches:
                yield from self.compress_vectors(z)
            if commit_labels is not None:
                commit_labels()  # the format has no place for the checksum

        return write_official(file, streams())

    def _open(self, file: str | os.PathLike, on_damage: OnDamage) -> FeatureFile | OfficialFile:
        """A file of either format, which its first bytes tell."""
        if on_damage not in ("raise", "skip"):
            raise ValueError(f"on_damage: expected 'raise' or 'skip', found {on_damage!r}")
        if not is_official(file):
            return FeatureFile(file, self.rate, on_damage=on_damage)
        if on_damage == "skip":
            raise SourceError(
                f"{file}: is in the official format, which has no checksums: what is intact cannot "
                "be told. Read it with on_damage='raise'."
            )
        return OfficialFile(file, self.official)
