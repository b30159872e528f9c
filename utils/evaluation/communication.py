"""Stage 2: data sets really become bytes, and bytes become data sets again.

x --represent--> z --compress--> chunks of a container on disk --decompress--> z_hat --> receiver
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lossyless.base import Compressor
from lossyless.container import ContainerReader, ContainerWriter
from lossyless.regrouping import regroup
from utils.data.module import SPLITS, BatchLoader, DataModule
from utils.evaluation.quality import ImageQuality, stated_rate, tower_time
from utils.runs.stopwatch import Stopwatch


@dataclass
class Sent:
    """What sending a data set took: totals over its examples."""

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
    """Compress splits of `data` into `folder`, with the targets beside it.

    The training split is sent `n_copies` times, each copy differently augmented.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sent = {}
    for split in splits:
        copies = n_copies if split == "train" else 1
        loaders = [
            data.loader(split, device=device, epoch=copy, shuffle=False) for copy in range(copies)
        ]
        n_examples = sum(loader.n_examples for loader in loaders)
        print(f"[communication] compresses {n_examples:,} examples ({split})", flush=True)
        sent[split], targets = send(compressor, loaders, data_file(folder, split), chunk_size)
        np.save(target_file(folder, split), targets)
    return sent


def data_file(folder: Path, split: str) -> Path:
    """The compressed examples of a split."""
    return folder / f"{split}.lossyless"


def target_file(folder: Path, split: str) -> Path:
    """The targets of a split."""
    return folder / f"{split}_y.npy"


def send(
    compressor: Compressor, loaders: list[BatchLoader], path: Path, chunk_size: int
) -> tuple[Sent, np.ndarray]:
    """Compress all examples of the loaders into one file; also returns their targets.

    Memory stays that of one chunk, whatever the size of the data.
    """
    encoder, coder = Stopwatch(loaders[0].device), Stopwatch(loaders[0].device)
    targets: list[np.ndarray] = []

    def representations() -> Iterator[Tensor]:
        for loader in loaders:
            for batch in loader:
                targets.append(batch.y.cpu().numpy())
                with encoder:
                    z = compressor.represent(batch.x)
                yield z

    chunks = regroup(representations(), chunk_size)
    first = next(chunks)
    header = {
        "fingerprint": compressor.codec.fingerprint(),
        "codec": compressor.codec.format_name,
        "shape": tuple(first.shape[1:]),
    }
    with ContainerWriter(path, **header) as writer:
        for chunk in itertools.chain([first], chunks):
            with coder:
                writer.add(compressor.codec.compress(chunk), len(chunk))
    sent = Sent(writer.n_examples, path.stat().st_size, encoder.seconds, coder.seconds)
    return sent, np.concatenate(targets)


def receive(
    compressor: Compressor,
    path: Path,
    device: torch.device,
    *,
    batch_size: int = 1024,
    watch: Stopwatch | None = None,
) -> Iterator[Tensor]:
    """The examples [B, ...] that a file stands for, in order, in batches on the CPU.

    Memory stays that of one chunk.

    Parameters
    ----------
    batch_size : what a decoder takes at a time; batches end where chunks end.
    watch : takes the time of the receiver.

    Raises
    ------
    ContainerError, CodingError
        If the file is damaged or another model wrote it.
    """
    watch = Stopwatch(device) if watch is None else watch
    with ContainerReader(path, fingerprint=compressor.codec.fingerprint()) as reader:
        for payload, n_examples in reader:
            with watch:
                z_hat = compressor.codec.decompress(payload, n_examples)
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
    """What communicating a split cost, as metrics `<split>/comm/<name>`.

    rate: theoretical bits per example, or n_bits without a theory; n_bits: 8 x bytes of the file /
    examples; n_bits_single: the mean stream of one example coded alone; bpp: n_bits per pixel;
    times: seconds per example (of the encoder with those of a frozen tower, as measured when it
    computed the features); of images that are decoded, the metrics of `ImageQuality`.
    """
    encoder_time = sent.encoder_seconds / sent.n_examples + tower_time(data, split)
    compress_time = sent.compress_seconds / sent.n_examples
    n_bits = 8 * sent.n_bytes / sent.n_examples
    receiver = Stopwatch(device)
    decoded = receive(compressor, path, device, watch=receiver)
    is_image = data.kind != "vector"
    if is_image and compressor.is_reconstruct:
        quality = _image_quality(decoded, data, split, device)
    else:
        quality = {}
        for _ in decoded:  # for its time, and to see that it can be decoded
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
    """How close decoded images [B, C, H, W] are to what was sent."""
    quality = ImageQuality()
    loader = data.loader(split, device=device)
    for batch, images in zip(loader, regroup(decoded, loader.batch_size), strict=True):
        quality.add(images.to(device), batch.x)
    return quality.metrics()


def _single_bits(
    compressor: Compressor, data: DataModule, split: str, device: torch.device, n_single: int
) -> float:
    """Mean bits of the first examples, each in a stream of its own."""
    batch = next(iter(data.loader(split, device=device)))
    z = compressor.represent(batch.x[:n_single])
    return 8 * float(np.mean([len(compressor.codec.compress(example[None])) for example in z]))
