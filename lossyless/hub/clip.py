"""Images to CLIP features to small files, and back to features."""

import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from lossyless.backbones.clip import import_clip
from lossyless.hub import SourceError
from lossyless.hub.features import FeatureCompressor, Format
from lossyless.hub.images import Examples, ImageFolder, n_source_bytes, read_batches, take_shard
from lossyless.hub.labels import join_labels, to_labels, writing_labels
from lossyless.hub.report import Report, progress
from lossyless.rates import HFactorized


class ClipCompressor(FeatureCompressor):
    """CLIP's image tower (arXiv:2103.00020) and an entropy bottleneck on its features.

        x [B, 3, side, side] --CLIP--> z [B, z_dim] --bottleneck--> bytes --> z_hat [B, z_dim]

    The tower runs in float32 on a CPU and in half precision on a CUDA device, whatever is asked of
    `to`, `half` and the like; the bottleneck always gets float32, on the CPU, where it costs
    nothing: so all machines quantise alike. Nothing here is trained: always in evaluation mode,
    and no parameter takes a gradient.

    Parameters
    ----------
    tower : CLIP's image tower (`model.visual`).
    rate : bottleneck of the tower's features, with its coding tables made.
    transform : PIL image to the tensor [3, side, side] that the tower takes.

    Attributes
    ----------
    transform : as above; data sets whose images are PIL images need no transform of their own.
    side : pixels of the images that the tower takes.
    """

    def __init__(
        self, tower: nn.Module, rate: HFactorized, transform: Callable[[Image.Image], Tensor]
    ):
        super().__init__(rate)
        if tower.output_dim != rate.z_dim:
            raise ValueError(
                f"the bottleneck takes {rate.z_dim} dimensions, but this CLIP has features of "
                f"{tower.output_dim}: give the checkpoint that the bottleneck was trained for"
            )
        self.tower = tower.requires_grad_(False).eval()
        self.transform = transform
        self.side: int = tower.input_resolution
        self._fit_precision()

    @property
    def device(self) -> torch.device:
        return self.tower.conv1.weight.device

    @property
    def clip(self) -> nn.Module:
        """The tower, under the official name."""
        return self.tower

    @property
    def preprocess(self) -> Callable[[Image.Image], Tensor]:
        """The transform, under the official name."""
        return self.transform

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ClipCompressor":
        """What `to`, `cuda`, `cpu`, `half`, ... do to a module: only the device is theirs."""
        self.tower.to(fn(torch.empty(0, device=self.device)).device)
        self._fit_precision()
        return self

    def _fit_precision(self) -> None:
        if self.device.type == "cuda":
            self.tower.float()  # also the layer norms, which CLIP keeps in float32
            import_clip().model.convert_weights(self.tower)
        else:
            self.tower.float()

    @torch.no_grad()
    def encode(self, X: Tensor) -> Tensor:
        """CLIP features z [B, z_dim], float32 on this device, of transformed images
        [B, 3, side, side]."""
        shape = [3, self.side, self.side]
        if not (isinstance(X, Tensor) and X.is_floating_point() and [*X.shape[1:]] == shape):
            found = f"{X.dtype} {[*X.shape]}" if isinstance(X, Tensor) else type(X).__name__
            raise SourceError(
                f"expected float images [B, {', '.join(map(str, shape))}] made by `transform`, "
                f"found {found}"
            )
        if not len(X):  # which CLIP does not take
            return torch.empty(0, self.z_dim, device=self.device)
        X = X.to(self.device, self.tower.conv1.weight.dtype, non_blocking=True)
        return self.tower(X).float()

    def forward(self, X: Tensor, is_compress: bool = False) -> Tensor | list[bytes]:
        """What the receiver gets of images [B, 3, side, side]: z_hat [B, z_dim], float32 on this
        device; or with `is_compress` the streams, see `compress`."""
        if is_compress:
            return self.compress(X)
        symbols = self.rate.quantise(self.encode(X).cpu())
        return self.rate.dequantise(symbols).to(self.device)

    def compress(self, X: Tensor) -> list[bytes]:
        """A stream for each image of [B, 3, side, side], in the official format.

        Files of `compress_dataset` are smaller: streams of their own cost about 60 bits each.
        """
        return self.compress_vectors(self.encode(X))

    def get_rate(self, X: Tensor) -> float:
        """Mean coded bits of images [B, 3, side, side] in the official format, as `compress` writes
        them; NaN for none."""
        streams = self.compress(X)
        return 8 * sum(map(len, streams)) / len(streams) if streams else math.nan

    @torch.no_grad()
    def theoretical_rate(self, X: Tensor) -> Tensor:
        """Theoretical bits of each image: -log2 q(z_hat), [B]."""
        z = self.encode(X).cpu()
        _, rates, _ = self.rate(z)
        return (rates / math.log(2)).to(self.device)

    def compress_dataset(
        self,
        dataset: Any,
        file: str | os.PathLike,
        label_file: str | os.PathLike | None = None,
        kwargs_dataloader: dict[str, Any] | None = None,
        is_info: bool = True,
        *,
        format: Format = "container",
        n_workers: int | None = None,
        shard: tuple[int, int] | None = None,
    ) -> Report:
        """Compress the images of a data set into a file.

        Parameters
        ----------
        dataset : a folder, all of whose images are compressed in the order of their sorted paths;
            or a data set whose examples are (image, label), (image,) or images. Images are PIL
            images, or tensors [3, side, side] made by `transform`.
        file : where the compressed features go. Under this name there is a complete file or none.
        label_file : where the labels go (.npy): integers, which become int64; of a folder, the
            numbers of the folders directly below it, in sorted order. `file` keeps their checksum,
            and is read with no others.
        kwargs_dataloader : for `torch.utils.data.DataLoader`, e.g. `batch_size`, `num_workers`; not
            what changes order or number of the examples.
        is_info : whether to show progress and print the report.
        format : "container" (small, checked, random access), or "official", the files of the
            paper's code.
        n_workers : processes that run the entropy coder; by default as many as there are cores.
        shard : (index from 0, number of shards): only that part of the images, so that several
            machines share the work; `lossyless.hub.merging.merge` joins their files.

        Raises
        ------
        SourceError
            An image or a label cannot be used.
        OSError
            A file cannot be written; its folder must exist.
        """
        start = time.monotonic()
        meta: dict[str, Any] = {}
        if isinstance(dataset, (str, os.PathLike)):
            dataset = ImageFolder(dataset, has_classes=label_file is not None)
            meta = {"classes": dataset.classes} if dataset.classes else {}
        if shard is not None:
            dataset = take_shard(dataset, *shard)
        examples = Examples(dataset, self.transform, self.side)
        labels: list[NDArray[np.int64]] = []

        def features() -> Iterator[Tensor]:
            batches = read_batches(examples, device=self.device, **(kwargs_dataloader or {}))
            with progress(len(examples), is_info) as bar:
                for X, Y in batches:
                    if label_file is not None:
                        labels.append(to_labels(Y))
                    yield self.encode(X)
                    bar.update(len(X))

        with writing_labels(label_file, file, lambda: join_labels(labels)) as commit_labels:
            n_examples = self._write(
                features(),
                file,
                format=format,
                n_workers=n_workers,
                meta=meta,
                commit_labels=commit_labels,
            )
        n_bytes = n_source_bytes(dataset)
        report = Report.of(file, n_examples, start, "Encoding", n_source_bytes=n_bytes)
        return report.shown(is_info)
