"""W&B runs: their ids, their destination, and whether the server is reachable.

The id of a W&B run depends only on our run and its stage, so a requeued job continues the same W&B
run. Offline, each process writes its own folder under `<logs>/<experiment>/wandb/`;
`bin/sync_wandb.sh` uploads folders with the same id in chronological order, as one run with
continuous steps.
"""

import functools
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
from omegaconf import DictConfig
from requests.utils import get_netrc_auth

SERVER = "https://api.wandb.ai"
PORTS = {"http": 80, "https": 443}
# Seconds between flushes of offline runs: short, so that a killed process loses few metrics. The
# client's default is 15.
FLUSH = "x_transaction_log_flush_interval", 0.1


def init_options(
    cfg: DictConfig, *, project: str, entity: str | None, kind: str, number: str | None = None
) -> dict[str, object]:
    """Return `wandb.init` arguments; if uploads are impossible, choose offline mode and print why.

    The experiment becomes the group; the mode and `kind`, such as "featurizer", become tags.
    `number` distinguishes runs with the same kind and experiment.
    """
    folder = Path(cfg.paths.logs) / cfg.experiment_name
    folder.mkdir(parents=True, exist_ok=True)
    reason = offline_reason(cfg)
    return {
        "project": project,
        "entity": entity,
        "mode": "offline" if reason else None,  # None: WANDB_MODE, online by default
        "dir": str(folder),
        "id": f"{kind}-{number or cfg.experiment_name}",
        "name": "-".join(filter(None, (cfg.experiment_name, kind, number))),
        "group": cfg.experiment_name,
        "job_type": kind,
        "tags": [cfg.mode_name, kind],
        "notes": cfg.goal,
        "resume": "allow",  # also offline, to continue the steps of the last folder
        "settings": _settings(is_silent=reason is not None or _mode() == "disabled"),
    }


def upload_tables(cfg: DictConfig, folder: Path) -> None:
    """If the logger is W&B, log the tables (CSV) and figures (PNG) in an experiment's folder.

    Does nothing if uploads are impossible and the experiment has no W&B runs on this machine.
    """
    has_runs = Path(cfg.paths.logs, cfg.experiment_name, "wandb").is_dir()
    if cfg.logger.name != "wandb" or not (has_runs or obstacle() is None):
        return
    import wandb  # slow to import, so not at the top

    node = cfg.logger.kwargs
    content: dict[str, object] = {}
    for path in sorted(folder.glob("*.csv")):
        table = wandb.Table(dataframe=pd.read_csv(path), allow_mixed_types=True)
        content[f"tables/{path.stem}"] = table
    for path in sorted([*folder.glob("*.png"), *folder.glob("figures/*.png")]):
        content[f"figures/{path.stem}"] = wandb.Image(str(path))
    options = init_options(cfg, project=node.project, entity=node.entity, kind="aggregate")
    with wandb.init(**options) as run:
        run.log(content)


def offline_reason(cfg: DictConfig) -> str | None:
    """Return why runs are logged offline, and print it once; None if they are not."""
    reason = obstacle()
    if reason:
        _say_once(f"W&B logs offline ({reason}). Upload: bin/sync_wandb.sh {cfg.experiment_name}")
    return reason


def obstacle() -> str | None:
    """Return why runs cannot be uploaded now; None if they can be, or if W&B is disabled."""
    if _mode() == "disabled":  # nothing to upload
        return None
    if _mode() in ("offline", "dryrun"):
        return f"WANDB_MODE={_mode()}"
    server = urlsplit(os.environ.get("WANDB_BASE_URL", SERVER))
    if not os.environ.get("WANDB_API_KEY") and get_netrc_auth(server.geturl()) is None:
        return "no credentials: set WANDB_API_KEY or run `wandb login`"
    address = (server.hostname, server.port or PORTS[server.scheme])
    try:
        socket.create_connection(address, timeout=3).close()
    except OSError as error:
        return f"{server.hostname} cannot be reached: {error}"
    return None


@functools.cache
def _say_once(line: str) -> None:
    """Print a line unless this process has already printed it."""
    print(line)


def _settings(*, is_silent: bool) -> object:
    import wandb

    name, seconds = FLUSH
    can_flush = name in wandb.Settings.model_fields  # older clients lack it
    return wandb.Settings(silent=is_silent, **({name: seconds} if can_flush else {}))


def _mode() -> str | None:
    return os.environ.get("WANDB_MODE")
