"""OmegaConf resolvers for configs: `${n_cpus:}`, `${cpus_per_job:N}`, `${weights_id:FILE}`, ...

In a job's config, they are evaluated where the job runs, so their values describe that machine.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from lossyless.parallel import available_cores as n_cpus

FULL_PRECISION = "32-true"  # Lightning's name for it
WEIGHT_SUFFIXES = (".pt", ".pth", ".npz", ".torch", ".tar", ".ckpt", ".bin", ".safetensors")


def cpus_per_job(n_jobs: int) -> int:
    """Number of CPU cores, at least one, for each of `n_jobs` jobs that share this machine.

    A Slurm job does not share its cores.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
        return int(os.environ.get("SLURM_CPUS_PER_TASK", n_cpus()))
    return max(1, n_cpus() // n_jobs)


def gpus_per_node(accelerator: str, devices: int) -> int | None:
    """Number of GPUs to request on each node of a cluster; None if no GPU is needed."""
    return None if accelerator == "cpu" else devices


def signal_delay(timeout_min: int) -> int:
    """How many seconds before its time limit a job is signalled: 120, or less for short jobs.

    A job whose limit did not exceed this delay would be requeued before it did anything.
    """
    return min(120, 60 * timeout_min // 4)


def default_precision(accelerator: str) -> str:
    """Mixed precision if a GPU will be used, else full precision.

    The choice is made where the job runs. It is part of the job's config, so that runs with
    different precisions are different runs.
    """
    if accelerator == "cpu":
        return FULL_PRECISION
    import torch

    return "16-mixed" if torch.cuda.is_available() else FULL_PRECISION


def balle_latent_side(image_shape: Sequence[int]) -> int:
    """Side of the latent image that the encoder `balle` outputs for images [C, side, side]."""
    from lossyless.architectures import balle

    return balle.latent_side(image_shape)


def weights_id(weights: str | None) -> str | None:
    """Identify weights independently of their path, as part of a run's identity.

    Returns the SHA-256 of a file, the name of published weights, or None for None. Raises
    FileNotFoundError if `weights` is a path and the file does not exist.
    """
    if weights is None:
        return None
    path = Path(weights)
    if path.is_file():
        stat = path.stat()
        return _sha256(path, stat.st_mtime_ns, stat.st_size)
    if path.is_absolute() or path.suffix in WEIGHT_SUFFIXES:
        raise FileNotFoundError(f"there is no weight file {weights}")
    return weights


@functools.lru_cache(maxsize=16)
def _sha256(path: Path, *state: int) -> str:
    """SHA-256 of a file; `state` distinguishes its versions in the cache."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


RESOLVERS: dict[str, Callable[..., object]] = {
    "n_cpus": n_cpus,
    "cpus_per_job": cpus_per_job,
    "gpus_per_node": gpus_per_node,
    "signal_delay": signal_delay,
    "default_precision": default_precision,
    "balle_latent_side": balle_latent_side,
    "weights_id": weights_id,
    "scientific": "{:.1e}".format,  # as in the folder names of runs
}


def register() -> None:
    """Make `${n_cpus:}`, `${cpus_per_job:N}`, ... available in configs."""
    for name, resolver in RESOLVERS.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)
