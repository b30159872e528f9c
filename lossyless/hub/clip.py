"""Compresses images into small files of CLIP features."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import Compose

from lossyless.backbones.clip import import_clip
from lossyless.hub import Report, SourceError
from lossyless.hub.batches import Examples, OnError, read_batches
from lossyless.hub.features import FeatureCompressor, Format
from lossyless.hub.images import ImageFolder, n_source_bytes, take_shard
from lossyless.hub.labels import PathLike, class_names
from lossyless.parallel import Portable
from lossyless.pixels import to_rgb
from lossyless.rates import HFactorized
from lossyless.torch_state import isolated


class ImageTransform(Portable, Compose):
    """Image transforms, applied in sequence, whose results do not depend on torch's settings."""

    __call__ = isolated(Compose.__call__)


class ClipCompressor(FeatureCompressor):
    """CLIP's image encoder (https://arxiv.org/abs/2103.00020) with a bottleneck for its features.

        x [B, 3, side, side] --CLIP--> z [B, z_dim] --bottleneck--> bytes --> z_hat [B, z_dim]

    The backbone runs in float32 on a CPU and in half precision on a CUDA device; `half` and `float`
    have no effect. The bottleneck runs in float32 on the CPU, so that all machines quantise in the
    same way. The compressor is always in evaluation mode, and no parameter requires a gradient.

    Parameters
    ----------
    backbone : CLIP's image encoder (`model.visual`).
    rate : bottleneck for its features, with coding tables.
    transform : maps an RGB PIL image to the tensor [3, side, side] that the backbone expects.
    model : name of the bottleneck, which is stored in the files.

    Attributes
    ----------
    transform : maps a PIL image to a tensor [3, side, side]: `lossyless.pixels.to_rgb`, then the
        transform above. Data sets of PIL images need no transform of their own.
    side : height and width of the backbone's input images, in pixels.
    """

    def __init__(
        self,
        backbone: nn.Module,
        rate: HFactorized,
        transform: Callable[[Image.Image], Tensor],
        model: str | None = None,
    ):
        super().__init__(rate, model)
        if backbone.output_dim != rate.z_dim:
            raise ValueError(
                f"the bottleneck expects {rate.z_dim} dimensions, but this CLIP returns "
                f"{backbone.output_dim}: use the checkpoint that the bottleneck was trained for"
            )
        self.backbone = backbone.requires_grad_(False).eval()
        self.transform = ImageTransform([to_rgb, transform])
        self.side: int = backbone.input_resolution
        self._fit_precision()

    @property
    def device(self) -> torch.device:
        return self.backbone.conv1.weight.device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ClipCompressor":
        """Let `to`, `cuda`, `cpu`, `half`, ... change only the backbone's device."""
        self.backbone.to(fn(torch.empty(0, device=self.device)).device)
        self._fit_precision()
        return self

    def _fit_precision(self) -> None:
        self.backbone.float()  # also on a GPU, where CLIP keeps its layer norms in float32
        if self.device.type == "cuda":
            import_clip().model.convert_weights(self.backbone)

    @isolated
    def encode(self, X: Tensor) -> Tensor:
        """Encode images [B, 3, side, side] to CLIP features [B, z_dim], float32 on `device`."""
        shape = [3, self.side, self.side]
        if not (isinstance(X, Tensor) and X.is_floating_point() and [*X.shape[1:]] == shape):
            found = f"{X.dtype} {[*X.shape]}" if isinstance(X, Tensor) else type(X).__name__
            raise SourceError(
                f"expected float images [B, {', '.join(map(str, shape))}] made by `transform`, "
                f"found {found}"
            )
        if not len(X):  # CLIP cannot process an empty batch
            return torch.empty(0, self.z_dim, device=self.device)
        X = X.to(self.device, self.backbone.conv1.weight.dtype, non_blocking=True)
        return self.backbone(X).float()

    def forward(self, X: Tensor, is_compress: bool = False) -> Tensor | list[bytes]:
        """Return decoded features z_hat [B, z_dim] of images [B, 3, side, side], float32 on
        `device`; or, if `is_compress`, the streams of `compress`."""
        if is_compress:
            return self.compress(X)
        symbols = self.rate.quantise(self.encode(X).cpu())
        return self.rate.dequantise(symbols).to(self.device)

    def compress(self, X: Tensor) -> list[bytes]:
        """Compress each image of X [B, 3, side, side] into its own stream, in the official format.

        Files from `compress_dataset` are smaller: separate streams add about 60 bits per image.
        """
        return self.compress_vectors(self.encode(X))

    def get_rate(self, X: Tensor) -> float:
        """Return the mean length in bits of the streams of `compress(X)`; NaN if X is empty."""
        streams = self.compress(X)
        return 8 * sum(map(len, streams)) / len(streams) if streams else math.nan

    @isolated
    def theoretical_rate(self, X: Tensor) -> Tensor:
        """Return the theoretical number of bits for each image, -log2 q(z_hat), [B]."""
        z = self.encode(X).cpu()
        _, rates, _ = self.rate(z)
        return (rates / math.log(2)).to(self.device)

    def compress_dataset(
        self,
        dataset: Any,
        file: PathLike,
        label_file: PathLike | None = None,
        kwargs_dataloader: dict[str, Any] | None = None,
        is_info: bool = True,
        *,
        labels: bool = False,
        format: Format = "container",
        n_workers: int | None = None,
        shard: tuple[int, int] | None = None,
        classes: PathLike | Sequence[str] | None = None,
        on_error: OnError = "raise",
    ) -> Report:
        """Compress the images of a data set into a file.

        Parameters
        ----------
        dataset : a folder, all of whose images are compressed, in the order of
            `lossyless.hub.images.ImageFolder`; or a data set whose examples are (image, label),
            (image,) or images. Images are PIL images, or tensors [3, side, side] made by
            `transform`. Paths of images in a folder, relative to it, are stored as names.
        file : file to write, or a symbolic link to it; an existing file is replaced once the
            new one is complete.
        label_file : .npy file to export the labels to; containers also store them in `file`.
        kwargs_dataloader : arguments of `torch.utils.data.DataLoader`, e.g. `batch_size` and
            `num_workers`, but not those that change the examples or their order.
        is_info : whether to show progress and print the report.
        labels : whether to store labels in `file`: integers, saved as int64. In a folder, the
            subfolders are classes, and the label of an image is the index of its class.
        format : "container" (small, with checksums and random access), or "official", the format
            of the paper's code, which stores neither labels nor names.
        n_workers : processes that run the entropy coder; by default one per core.
        shard : (zero-based index, number of shards): compress only this part of the images, so that
            several machines can share the work; `lossyless.files.merge_files` joins their files.
        classes : names of a folder's classes in the order of their labels, or a compressed file
            that stores them, so that training and test images have the same labels even if a
            class has no test image; by default the sorted folder names.
        on_error : what to do if an image cannot be read: "raise" an error, or "skip" it and its
            label, with a warning that names it.

        Raises SourceError if an image or a label cannot be used; OSError if a file cannot be
        written, e.g. because its folder does not exist.
        """
        has_labels = labels or label_file is not None
        meta: dict[str, Any] = {}
        if classes is not None and not (has_labels and isinstance(dataset, PathLike)):
            raise SourceError("classes: needs a folder and its labels (labels=True, --labels)")
        if isinstance(dataset, PathLike):
            names = None if classes is None else class_names(classes)
            dataset = ImageFolder(dataset, has_classes=has_labels, classes=names)
            meta = {"classes": dataset.classes} if dataset.classes else {}
        if shard is not None:
            dataset = take_shard(dataset, *shard)
            meta["shard"] = [shard[0] + 1, shard[1]]
        examples = Examples(
            dataset, self.transform, self.side, has_labels=has_labels, on_error=on_error
        )
        batches = read_batches(
            examples, device=self.device, is_info=is_info, **(kwargs_dataloader or {})
        )
        return self._write(
            ((self.encode(X).cpu(), labels, names) for X, labels, names in batches),
            file,
            label_file,
            has_labels=has_labels,
            is_info=is_info,
            format=format,
            n_workers=n_workers,
            meta=meta,
            n_source_bytes=n_source_bytes(dataset),
            skipped=examples.skipped,
        )

    # Names from the official code. The bottleneck runs on the CPU, whatever `device` is:
    # z --process_z_in--> z_in [B, z_dim, 1, 1] --entropy_bottleneck--> --process_z_out--> z_hat

    @property
    def clip(self) -> nn.Module:
        """CLIP's image encoder."""
        return self.backbone

    @property
    def preprocess(self) -> Callable[[Image.Image], Tensor]:
        """The transform."""
        return self.transform

    @property
    def entropy_bottleneck(self) -> nn.Module:
        """CompressAI's model; its `compress(z_in)` returns the same streams as `compress`."""
        return self.official.bottleneck

    @property
    def scaling(self) -> Tensor:
        return self.rate.scaling.to(self.device)

    @property
    def biasing(self) -> Tensor:
        return self.rate.biasing.to(self.device)

    @property
    def side_z_dim(self) -> int:
        """A fifth of `z_dim`; unused, as a factorized bottleneck has no side information."""
        return self.z_dim // 5

    @isolated
    def process_z_in(self, z: Tensor) -> Tensor:
        """Map features [B, z_dim] to the input [B, z_dim, 1, 1] of `entropy_bottleneck`."""
        return self.rate._to_bottleneck(z.float().cpu())[..., None, None]

    @isolated
    def process_z_out(self, z_hat_in: Tensor) -> Tensor:
        """Map the output [B, z_dim, 1, 1] of `entropy_bottleneck` to z_hat [B, z_dim]."""
        return self.rate._from_bottleneck(z_hat_in.cpu()[..., 0, 0]).to(self.device)

    def make_pickable_(self) -> None:
        """Has no effect: all compressors can be pickled."""

    def undo_pickable_(self) -> None:
        """Has no effect."""
