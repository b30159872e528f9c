"""COCO 2017 captions (https://arxiv.org/abs/1405.0312) as a data set of CLIP features."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lossyless.backbones.clip import import_clip, load_clip
from lossyless.base import Batch
from lossyless.progress import progress
from lossyless.weights import WeightsError
from utils.configs.resolvers import weights_id
from utils.data.downloads import download_zip, find_or_download
from utils.data.examples import InMemory, draw_below, draw_order, hold_out
from utils.data.feature_cache import FeatureCache, array_file
from utils.data.module import DataError, DataModule, spawn_generator
from utils.runs.stopwatch import Stopwatch

YEARS = {"train": "train2017", "test": "val2017"}  # the original test images have no captions
SERVER = "http://images.cocodataset.org"  # its HTTPS certificate is for another host
ARCHIVES = {  # archive of each part, with its MD5 and size
    "annotations": (
        "annotations/annotations_trainval2017.zip",
        "f4bbac642086de4f52a3fdda2de5fa2c",
        252_907_541,
    ),
    "train2017": ("zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2", 19_336_861_798),
    "val2017": ("zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80", 815_585_330),
}
HOW_TO_RESTORE = """Delete the damaged file or incomplete folder: the next run downloads it again. \
The data folder should contain:

    coco/
        train2017/000000000009.jpg ...      118,287 images
        val2017/000000000139.jpg ...        5,000 images
        annotations/captions_train2017.json
        annotations/captions_val2017.json"""
BATCH_SIZE = 512
PRECISION = np.float16  # as in CLIP's checkpoints


@dataclass(frozen=True)
class Captions:
    """The captions of a split."""

    files: list[str]  # file names of the N images, sorted by id
    texts: list[str]  # the M captions, in the order of the images
    counts: Tensor  # number of captions of each image, int64 [N]

    def mean(self, features: Tensor) -> Tensor:
        """Average caption features [M, D] over the captions of each image, float32 [N, D]."""
        image = torch.arange(len(self.counts)).repeat_interleave(self.counts)
        sums = torch.zeros(len(self.counts), features.shape[1])
        return sums.index_add_(0, image, features.float()) / self.counts[:, None]


def find(folder: Path, content: str) -> Path:
    """Return the path of a COCO file or folder, after downloading its archive if necessary."""
    part = content.partition("/")[0]
    archive, md5, n_bytes = ARCHIVES[part]
    return find_or_download(
        content,
        lambda: download_zip(f"{SERVER}/{archive}", folder, md5=md5, n_bytes=n_bytes),
        name=f"COCO {part}",
        size=f"{n_bytes / 1e9:.1f} GB",
        folder=folder,
    )


def read_captions(folder: Path, split: str) -> Captions:
    """Read the captions of COCO's split "train" or "test" from `folder`.

    Raises DataError if the annotation file cannot be downloaded or is damaged.
    """
    path = find(folder, f"annotations/captions_{YEARS[split]}.json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        files = {image["id"]: image["file_name"] for image in content["images"]}
        captions = defaultdict(list)
        for caption in sorted(content["annotations"], key=lambda caption: caption["id"]):
            captions[caption["image_id"]].append(caption["caption"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error!r}. {HOW_TO_RESTORE}") from error
    if not files or (without := [files[i] for i in files if i not in captions]):
        missing = without[0] if files else "all"
        raise DataError(f"{path}: images without captions ({missing}). {HOW_TO_RESTORE}")
    ids = sorted(files)
    return Captions(
        [files[i] for i in ids],
        [text for i in ids for text in captions[i]],
        torch.tensor([len(captions[i]) for i in ids]),
    )


def caption_features(
    captions: Sequence[str], *, weights: str = "ViT-B/32", dim: int = 512, folder: Path
) -> Tensor:
    """Return unnormalised CLIP features of captions, float16 [N, dim].

    They are computed once, on a GPU if one is available, and then read from `folder`. Captions
    longer than 77 tokens are truncated. `weights` is the name of a CLIP model
    (https://arxiv.org/abs/2103.00020), which is downloaded on first use, or the path of a
    checkpoint.

    Raises DataError if the weights cannot be loaded, if the features do not have `dim` dimensions,
    or if the stored features are damaged.
    """
    digest = hashlib.sha256()
    for caption in captions:
        digest.update(hashlib.sha256(caption.encode()).digest())
    key = {"weights": weights_id(weights), "captions": digest.hexdigest()}
    cache = FeatureCache(folder, "clip_text", key, {}, setting="paths.data")
    which = "captions", 0, None
    features = cache.get(*which, compute=lambda part: _compute(part, captions, weights)).x
    if features.shape != (len(captions), dim):
        raise DataError(
            f"{cache.path(*which)} holds features of shape {list(features.shape)}, expected "
            f"{[len(captions), dim]}: set kwargs.feature_dim={features.shape[1]}, or delete the "
            "folder to compute them again."
        )
    return features


@torch.inference_mode()
def _compute(folder: Path, captions: Sequence[str], weights: str) -> dict:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model, _ = load_clip(weights, device)
    except WeightsError as error:
        raise DataError(
            f"kwargs.clip_weights={weights!r}: {error} (kwargs.clip_weights is the name of a CLIP "
            "model or a path.)"
        ) from error
    print(f"CLIP {weights}: computing the features of {len(captions)} captions on {device}, once.")
    clip, watch = import_clip(), Stopwatch(device)
    features = np.empty((len(captions), model.text_projection.shape[1]), PRECISION)
    for start in progress(range(0, len(captions), BATCH_SIZE), "captions"):
        batch = list(captions[start : start + BATCH_SIZE])
        tokens = clip.tokenize(batch, context_length=model.context_length, truncate=True)
        with watch:
            encoded = model.encode_text(tokens.to(device))
        features[start : start + len(batch)] = encoded.cpu().numpy()
    np.save(array_file(folder, "features"), features)
    np.save(array_file(folder, "targets"), np.empty((len(captions), 0), PRECISION))
    return {"seconds_per_image": watch.seconds / len(captions), "device": device.type}


class CocoCaptionsDataModule(DataModule):
    """COCO captions as CLIP features [feature_dim]; all captions of an image are equivalent.

    Each example is an image, and x is the feature of one of its captions, drawn at random (anew in
    each training epoch). `Batch.aux` is x itself (input), the mean feature of all captions of the
    image (representative or target; this is also y), or the feature of another caption of the
    image (positive). The splits are those of `sources.coco`; the images themselves are not needed.

    Parameters
    ----------
    clip_weights, feature_dim : weights and feature dimensionality of the text tower; see
        `caption_features`.
    val_fraction : fraction of the training images whose captions are held out for validation.
    kwargs : see `DataModule`.
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

    @cached_property
    def splits(self) -> dict[str, InMemory]:
        """Start and number of each image's captions [N, 2], and their mean features [N, D]."""
        folder, splits = Path(self.data_dir) / "coco", {}
        self._features = {}  # features of all captions, [M, D]
        for split in YEARS:
            captions = read_captions(folder, split)
            features = caption_features(
                captions.texts, weights=self.clip_weights, dim=self.n_outputs, folder=folder
            )
            starts = captions.counts.cumsum(0) - captions.counts
            spans = torch.stack([starts, captions.counts], 1)
            splits[split] = InMemory(spans, captions.mean(features))
            self._features[split] = InMemory(features, torch.empty(len(features), 0))
        self._features["val"] = self._features["train"]
        spans, means = splits["train"].inputs, splits["train"].targets
        for split, rows in zip(("train", "val"), hold_out(means, self.val_fraction), strict=True):
            splits[split] = InMemory(spans[rows], means[rows])
        return splits

    def n_examples(self, split: str) -> int:
        return len(self.splits[split].targets)

    def make_batches(
        self, split: str, *, batch_size: int, is_shuffled: bool, generator: torch.Generator
    ) -> Iterator[Batch]:
        examples, device = self.splits[split], generator.device

        def read(indices: Tensor) -> Tensor:
            return next(self._features[split].read([indices], device))[0].float()

        order = draw_order(len(examples.targets), is_shuffled, generator)
        positive_generator = spawn_generator(generator, "positive")
        for spans, means in examples.read(order.split(batch_size), device):
            starts, counts = spans.unbind(1)
            drawn = draw_below(counts, generator)
            x = read(starts + drawn)
            aux = {"input": x, "representative": means, "target": means}.get(self.auxiliary)
            if self.auxiliary == "positive":
                # any caption but the drawn one, unless it is the only one
                others = (drawn + 1 + draw_below(counts - 1, positive_generator)) % counts
                aux = read(starts + others)
            yield Batch(x, means, aux)
