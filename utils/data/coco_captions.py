"""Captions of COCO 2017 (https://arxiv.org/abs/1405.0312) as a data set of CLIP features."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from pycocotools.coco import COCO
from torch import Tensor

from lossyless.base import Batch
from utils.data.captions import caption_features
from utils.data.downloads import download_zip, open_or_download
from utils.data.examples import InMemory, draw_order, hold_out
from utils.data.module import DataError, DataModule, check_choice, spawn_generator

YEARS = {"train": "train2017", "test": "val2017"}  # the original test images have no captions
SERVER = "http://images.cocodataset.org"  # its HTTPS has another host's certificate
ARCHIVES = {  # archive of each part, with its MD5 and size
    "annotations": (
        "annotations/annotations_trainval2017.zip",
        "f4bbac642086de4f52a3fdda2de5fa2c",
        252_907_541,
    ),
    "train2017": ("zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2", 19_336_861_798),
    "val2017": ("zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80", 815_585_330),
}
HOW_TO_RESTORE = """Delete that file or folder and run again to download it once more. The data \
folder should have:

    coco/
        train2017/000000000009.jpg ...      118,287 images
        val2017/000000000139.jpg ...        5,000 images
        annotations/captions_train2017.json
        annotations/captions_val2017.json"""


@dataclass(frozen=True)
class Captions:
    """The captions of a split, image by image.

    Attributes
    ----------
    files : names of the N images, in the order of their ids.
    texts : the M captions.
    counts : number of captions of each image, int64 [N].
    """

    files: list[str]
    texts: list[str]
    counts: Tensor

    @property
    def starts(self) -> Tensor:
        """Where the captions of each image begin, int64 [N]."""
        return self.counts.cumsum(0) - self.counts

    def mean(self, features: Tensor) -> Tensor:
        """Mean over the captions of each image, float32 [N, D], of their features [M, D]."""
        image = torch.arange(len(self.counts)).repeat_interleave(self.counts)
        sums = torch.zeros(len(self.counts), features.shape[1])
        return sums.index_add_(0, image, features.float()) / self.counts[:, None]


def find(folder: Path, content: str) -> Path:
    """A file or folder of COCO in `folder`, whose archive is downloaded if it is missing."""
    part = content.partition("/")[0]
    archive, md5, n_bytes = ARCHIVES[part]

    def open_set(download: bool) -> Path:
        if download:
            download_zip(f"{SERVER}/{archive}", folder, md5=md5, n_bytes=n_bytes)
        if not (folder / content).exists():
            raise FileNotFoundError(f"{folder / content} is missing")
        return folder / content

    size = f"{n_bytes / 1e9:.1f} GB"
    return open_or_download(open_set, name=f"COCO {part}", size=size, folder=folder)


def read_captions(folder: Path, split: str) -> Captions:
    """The captions of the split "train" or "test" of COCO in `folder`.

    Raises
    ------
    DataError
        If their file cannot be downloaded or is damaged, or if an image has no caption.
    """
    path = find(folder, f"annotations/captions_{YEARS[split]}.json")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # COCO prints its progress
            coco = COCO(path)
        files, texts, counts = [], [], []
        for image in sorted(coco.imgs):
            captions = sorted(coco.imgToAnns[image], key=lambda caption: caption["id"])
            files.append(coco.imgs[image]["file_name"])
            texts += [caption["caption"] for caption in captions]
            counts.append(len(captions))
    except (OSError, ValueError, KeyError, AssertionError) as error:
        raise DataError(f"{path} is damaged: {error!r}. {HOW_TO_RESTORE}") from error
    if not files or 0 in counts:
        without = files[counts.index(0)] if files else "all"
        raise DataError(f"{path}: images without captions ({without}). {HOW_TO_RESTORE}")
    return Captions(files, texts, torch.tensor(counts))


class CocoCaptionsDataModule(DataModule):
    """Captions of COCO as CLIP features [feature_dim]; all captions of an image are equivalent.

    An example is an image, of which one caption is drawn each time: x is its feature. `Batch.aux`
    is x itself (input), the mean over all captions of the image (representative, and the target
    y), or another caption of the image (positive). The splits are those of the images
    (`sources.coco`), which themselves are not needed.

    Parameters
    ----------
    clip_weights, feature_dim
        Weights and dimensions of the text tower, see `utils.data.captions.caption_features`.
    val_fraction : float
        Fraction of the training images whose captions are held out for validation.
    kwargs
        See `DataModule`.
    """

    kind = "vector"
    task = "regression"

    def __init__(
        self,
        *,
        clip_weights: str = "ViT-B/32",
        feature_dim: int = 512,
        val_fraction: float = 0.1,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 < val_fraction < 1:
            raise ValueError(f"val_fraction must lie in (0, 1), got {val_fraction}.")
        self.shape = (feature_dim,)
        self.n_outputs = feature_dim
        self.clip_weights = clip_weights
        self.val_fraction = val_fraction
        self._features_on: dict[tuple[str, torch.device], Tensor] = {}

    @cached_property
    def _captions(self) -> dict[str, tuple[Captions, Tensor]]:
        """For "train" (with validation) and "test" the captions and their features [M, D]."""
        folder = Path(self.data_dir) / "coco"
        captions = {split: read_captions(folder, split) for split in YEARS}
        return {
            split: (
                found,
                caption_features(
                    found.texts, weights=self.clip_weights, dim=self.n_outputs, folder=folder
                ),
            )
            for split, found in captions.items()
        }

    @cached_property
    def splits(self) -> dict[str, InMemory]:
        """For each image the start and number of its captions [N, 2], and their mean [N, D]."""
        spans, means = {}, {}
        for split, (captions, features) in self._captions.items():
            spans[split] = torch.stack([captions.starts, captions.counts], 1)
            means[split] = captions.mean(features)
        kept, held_out = hold_out(means["train"], self.val_fraction)
        return {
            "train": InMemory(spans["train"][kept], means["train"][kept]),
            "val": InMemory(spans["train"][held_out], means["train"][held_out]),
            "test": InMemory(spans["test"], means["test"]),
        }

    def setup(self, stage: str | None = None) -> None:
        """Compute or load the features now instead of when they are first used."""
        _ = self.splits

    def n_examples(self, split: str) -> int:
        return len(self.splits[check_choice("split", split, self.splits)].targets)

    def make_batches(
        self, split: str, *, batch_size: int, is_shuffled: bool, generator: torch.Generator
    ) -> Iterator[Batch]:
        examples, device = self.splits[split], generator.device
        features = self._features("test" if split == "test" else "train", device)
        order = draw_order(len(examples.targets), is_shuffled, generator)
        positive_generator = spawn_generator(generator, "positive")
        for spans, means in examples.read(order.split(batch_size), device):
            starts, counts = spans.unbind(1)
            drawn = _draw_below(counts, generator)
            x = features[starts + drawn].float()
            if self.auxiliary == "positive":
                # any caption but the drawn one; an only caption is its own positive
                others = (drawn + 1 + _draw_below(counts - 1, positive_generator)) % counts
                yield Batch(x, means, features[starts + others].float())
                continue
            auxiliaries = {"none": None, "input": x, "representative": means, "target": means}
            yield Batch(x, means, auxiliaries[self.auxiliary])

    def _features(self, split: str, device: torch.device) -> Tensor:
        """The features of all captions of a file on the device, moved there once."""
        if (split, device) not in self._features_on:
            self._features_on[split, device] = self._captions[split][1].to(device)
        return self._features_on[split, device]


def _draw_below(bounds: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform integers [B] from 0 to below the bounds [B]; 0 for a bound of 0."""
    uniform = torch.rand(
        len(bounds), generator=generator, device=generator.device, dtype=torch.float64
    )
    return (uniform * bounds).long()
