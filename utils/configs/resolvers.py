"""What configs can compute: `${n_cpus:}`, `${cpus_per_job:N}`, `${weights_id:FILE}`, ...

They are resolved where a job runs, so they tell of that machine.
"""

import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

FULL_PRECISION = "32-true"  # as Lightning calls it
WEIGHT_SUFFIXES = (".pt", ".pth", ".npz", ".torch", ".tar", ".ckpt", ".bin", ".safetensors")


def n_cpus() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpus_per_job(n_jobs: int) -> int:
    """Processors for each of several jobs that share this machine, at least one.

    A job of a Slurm cluster shares its own with no other.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
        return int(os.environ.get("SLURM_CPUS_PER_TASK", n_cpus()))
    return max(1, n_cpus() // n_jobs)


def gpus_per_node(accelerator: str, devices: int) -> int | None:
    """GPUs to ask a cluster for; None for none."""
    return None if accelerator == "cpu" else devices


def signal_delay(timeout_min: int) -> int:
    """Seconds before the limit of a job at which it is told: two minutes, and less of short ones.

    A job whose limit is no longer than the delay would be requeued before it did anything.
    """
    return min(120, 60 * timeout_min // 4)


def default_precision(accelerator: str) -> str:
    """Mixed precision where a GPU is going to be used, full precision elsewhere.

    It is decided where the job runs, and kept in its config: the two are different runs.
    """
    if accelerator == "cpu":
        return FULL_PRECISION
    import torch

    return "16-mixed" if torch.cuda.is_available() else FULL_PRECISION


def balle_latent_side(image_shape: Sequence[int]) -> int:
    """Side of the latent image that the encoder `balle` makes of images [C, side, side]."""
    from lossyless.architectures import balle

    return balle.latent_side(image_shape)


def weights_id(weights: str | None) -> str | None:
    """What stands for weights in the identity of a run, wherever they lie.

    The SHA-256 of a file; the name itself of weights that somebody publishes; None for None.
    Raises FileNotFoundError for what looks like a file and is none.
    """
    if weights is None:
        return None
    path = Path(weights)
    if path.is_file():
        stat = path.stat()
        return _sha256(path, stat.st_mtime_ns, stat.st_size)
    if path.is_absolute() or path.suffix in WEIGHT_SUFFIXES:
        raise FileNotFoundError(f"there is no file {weights} with weights")
    return weights


@functools.lru_cache(maxsize=16)
def _sha256(path: Path, *state: int) -> str:
    """Digest of a file; `state` tells its versions apart."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def scientific(number: float) -> str:
    """A number as the folders of runs show it: "3.0e-04"."""
    return f"{number:.1e}"


RESOLVERS = (
    n_cpus,
    cpus_per_job,
    gpus_per_node,
    signal_delay,
    default_precision,
    balle_latent_side,
    weights_id,
    scientific,
)


def register() -> None:
    """Make `${n_cpus:}`, `${cpus_per_job:N}`, ... available in configs."""
    for resolver in RESOLVERS:
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)
