"""Stage 2: compress data sets into files and decompress them.

x --represent--> z --compress--> file of chunks --decompress--> z_hat --receive--> predictor
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lossyless.base import Compressor
from lossyless.files import CompressedFile, FeatureFile, rebatch, write_features
from utils.data.module import SPLITS, BatchLoader, DataModule
from utils.evaluation.quality import ImageQuality, backbone_time, stated_rate
from utils.runs.stopwatch import Stopwatch


@dataclass
class Sent:
    """Totals over a data set; `n_bytes` is the size of its file, excluding the targets."""

    n_examples: int
    n_bytes: int
    encoder_seconds: float
    compress_seconds: float


def send_splits(
    compressor: Compressor,
    data: DataModule,
    folder: Path,
    *,
    device: torch.device,
    n_copies: int,
    chunk_size: int,
    splits: Sequence[str] = SPLITS,
) -> dict[str, Sent]:
    """Compress splits of `data`, with their targets, into `folder`.

    The training split is sent `n_copies` times, with a different augmentation each time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sent = {}
    for split in splits:
        copies = n_copies if split == "train" else 1
        loaders = [
            data.loader(split, device=device, epoch=copy, shuffle=False) for copy in range(copies)
        ]
        n_examples = sum(loader.n_examples for loader in loaders)
        print(f"[communication] compressing {n_examples:,} examples ({split})", flush=True)
        sent[split] = send(compressor, loaders, data_file(folder, split), chunk_size)
    return sent


def data_file(folder: Path, split: str) -> Path:
    """Path of the file that holds a split's compressed examples, with their targets as labels."""
    return folder / f"{split}.lossyless"


def read_targets(folder: Path, split: str) -> np.ndarray:
    """Targets [N, ...] of a split."""
    with CompressedFile(data_file(folder, split)) as file:
        targets = file.labels()
    # earlier releases stored the targets in a separate file
    return np.load(folder / f"{split}_y.npy") if targets is None else targets


def send(compressor: Compressor, loaders: list[BatchLoader], path: Path, chunk_size: int) -> Sent:
    """Compress all examples from the loaders, with their targets, into one file.

    Only one chunk is in memory at a time.
    """
    encoder, coder = Stopwatch(loaders[0].device), Stopwatch(loaders[0].device)

    def representations() -> Iterator[tuple[Tensor, Tensor]]:
        for loader in loaders:
            for batch in loader:
                with encoder:
                    z = compressor.represent(batch.x)
                yield z, batch.y

    codec, options = compressor.codec, {"n_workers": 1, "timer": coder}
    written = write_features(representations(), path, codec, chunk_size=chunk_size, **options)
    n_bytes = written.n_bytes - written.n_annotation_bytes
    return Sent(written.n_examples, n_bytes, encoder.seconds, coder.seconds)


def receive(
    compressor: Compressor,
    path: Path,
    device: torch.device,
    *,
    batch_size: int = 1024,
    watch: Stopwatch | None = None,
) -> Iterator[Tensor]:
    """Decode a file and yield batches of examples [B, ...], in order and on the CPU.

    Only one chunk is in memory at a time. Batches for the decoder have at most `batch_size`
    examples and do not span chunks. `watch` measures the receiver's time. Raises ContainerError or
    CodingError if the file is damaged or was written with another model.
    """
    watch = Stopwatch(device) if watch is None else watch
    with FeatureFile(path, compressor.codec) as file:
        for _, z_hat in file.chunks(n_workers=1, timer=watch):
            for z in z_hat.split(batch_size):
                with watch:
                    received = compressor.receive(z.to(device)).cpu()
                yield received


def measure(
    compressor: Compressor,
    data: DataModule,
    split: str,
    *,
    sent: Sent,
    path: Path,
    device: torch.device,
    n_single: int,
) -> dict[str, float]:
    """Measure the costs of communicating a split, as metrics `<split>/comm/<name>`.

    - rate: theoretical bits per example; n_bits if there is no entropy model.
    - n_bits: bits per example in the file, excluding the targets.
    - n_bits_single: mean bits of the first `n_single` examples, each coded separately.
    - bpp: bits per pixel, for images.
    - encoder_time, compress_time, sender_time, receiver_time: seconds per example. The encoder time
      includes that of a frozen backbone, which was measured when the features were computed.
    - the metrics of `ImageQuality`, if images are decoded.
    """
    encoder_time = sent.encoder_seconds / sent.n_examples + backbone_time(data, split)
    compress_time = sent.compress_seconds / sent.n_examples
    n_bits = 8 * sent.n_bytes / sent.n_examples
    receiver = Stopwatch(device)
    decoded = receive(compressor, path, device, watch=receiver)
    is_image = data.kind != "vector"
    if is_image and compressor.is_reconstruct:
        quality = _image_quality(decoded, data, split, device)
    else:
        quality = {}
        for _ in decoded:  # measures the time and checks that the file can be decoded
            pass
    rate = stated_rate(compressor, data.loader(split, device=device))
    metrics = {
        "rate": n_bits if rate is None else rate,
        "n_bits": n_bits,
        "n_bits_single": _single_bits(compressor, data, split, device, n_single),
        "encoder_time": encoder_time,
        "compress_time": compress_time,
        "sender_time": encoder_time + compress_time,
        "receiver_time": receiver.seconds / sent.n_examples,
    }
    if is_image:
        metrics["bpp"] = n_bits / math.prod(data.shape[1:])
    return {f"{split}/comm/{name}": value for name, value in (metrics | quality).items()}


def _image_quality(
    decoded: Iterator[Tensor], data: DataModule, split: str, device: torch.device
) -> dict[str, float]:
    """Quality of decoded images [B, C, H, W]."""
    quality = ImageQuality()
    loader = data.loader(split, device=device)
    for batch, images in zip(loader, rebatch(decoded, loader.batch_size), strict=True):
        quality.add(images.to(device), batch.x)
    return quality.metrics()


def _single_bits(
    compressor: Compressor, data: DataModule, split: str, device: torch.device, n_single: int
) -> float:
    """Mean bits of the first `n_single` examples, at most one batch, each coded separately."""
    batch = next(iter(data.loader(split, device=device)))
    z = compressor.represent(batch.x[:n_single])
    return 8 * float(np.mean([len(compressor.codec.compress(example[None])) for example in z]))
