"""Compress a folder of images in shards, each a job of its own, and merge the shards' files.

    bin/clip/compress_shards.sh -s vector -a "shards.folder=photos shards.out=photos.bin shards.n=9"

Shards lie beside the file until they are merged, in a folder whose name stands for the images and
the compressor: the same command again makes only those that are missing.
"""

import contextlib
import shutil
import sys
from pathlib import Path

from filelock import FileLock
from omegaconf import DictConfig

from utils.cluster import sweep
from utils.runs import signals
from utils.runs.identity import digest
from utils.runs.status_file import recorded_job

INDEX = "shards.index"  # which shard a job makes, from 0


def main(overrides: list[str]) -> None:
    """Run a job for each shard, wait for them, and merge their files."""
    overrides = ["experiment=compress_shards", *overrides]
    try:
        cfg = sweep.compose_config(overrides)
        shards = [shard_file(cfg, i) for i in range(_n_shards(cfg))]
    except (sweep.ConfigError, ValueError, OSError) as error:
        print(f"Configuration error: {error}", file=sys.stderr)
        sys.exit(2)
    if missing := [i for i, file in enumerate(shards) if not file.is_file()]:
        sys.argv[1:] = [*overrides, f"{INDEX}={','.join(map(str, missing))}"]
        sweep.run(compress_shard)
    _merge(shards, Path(cfg.shards.out), is_labelled=cfg.shards.labels)


def compress_shard(cfg: DictConfig) -> None:
    """One job: compress the images of the shard `cfg.shards.index` into its file."""
    from lossyless.hub import clip_compressor
    from lossyless.hub.merging import usual_label_file

    with signals.handled(), recorded_job(), contextlib.ExitStack() as lock:
        file = shard_file(cfg, cfg.shards.index)
        compressor, _ = clip_compressor(
            cfg.shards.model,
            device=cfg.shards.device,
            clip_path=cfg.shards.clip,
            pretrained_path=cfg.shards.pretrained,
        )
        loader = {"batch_size": cfg.shards.batch_size, "num_workers": cfg.shards.n_workers}
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.enter_context(FileLock(file.with_suffix(".lock")))  # of another call with these shards
        if file.is_file():
            return
        compressor.compress_dataset(
            cfg.shards.folder,
            file,
            label_file=usual_label_file(file) if cfg.shards.labels else None,
            kwargs_dataloader={k: value for k, value in loader.items() if value is not None},
            shard=(cfg.shards.index, cfg.shards.n),
        )


def shard_file(cfg: DictConfig, index: int) -> Path:
    """Where a shard goes, and stays until it is merged.

    Raises
    ------
    SourceError
        If there are no images, or fewer than shards.
    """
    from lossyless.hub.errors import SourceError
    from lossyless.hub.folders import ImageFolder

    images = ImageFolder(cfg.shards.folder)
    n = cfg.shards.n
    if n > len(images):
        raise SourceError(f"{images.root} has {len(images)} images, too few for shards.n={n}")
    stats = [(str(path.relative_to(images.root)), path.stat()) for path in images.paths]
    made_of = {
        "images": [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats],
        "weights": [sweep.weights_id(cfg.shards[key]) for key in ("clip", "pretrained")],
        "settings": [cfg.shards.model, cfg.shards.labels, n],
    }
    out = Path(cfg.shards.out)
    return out.with_name(f"{out.name}.shards_{digest(made_of)}") / f"{index + 1}_of_{n}.bin"


def _n_shards(cfg: DictConfig) -> int:
    for key in ("folder", "out"):
        if cfg.shards[key] is None:
            raise sweep.ConfigError(f"shards.{key} is missing: give -a 'shards.{key}=PATH'")
    if not Path(cfg.shards.out).resolve().parent.is_dir():
        raise sweep.ConfigError(f"shards.out={cfg.shards.out}: its folder does not exist: make it")
    if cfg.shards.n < 1:
        raise sweep.ConfigError(f"shards.n={cfg.shards.n}: expected at least 1")
    return cfg.shards.n


def _merge(shards: list[Path], out: Path, *, is_labelled: bool) -> None:
    from lossyless.hub.merging import merge, usual_label_file

    if len(shards) > 1:
        print(merge(shards, out))
    else:
        if is_labelled:
            shutil.copyfile(usual_label_file(shards[0]), usual_label_file(out))
        shards[0].replace(out)
    shutil.rmtree(shards[0].parent)


if __name__ == "__main__":
    main(sys.argv[1:])
