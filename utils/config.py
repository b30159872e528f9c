"""What `main.py` calls: `run(main)`.

It adds the experiment's `sweep` and what the mode changes to the command line, finds what is wrong
before anything is started, and hands over to Hydra, which composes the config of each job and
launches them: on this machine, or with a launcher of `utils.launchers`.
"""

import os
import re
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from utils.composing import CONF_DIR, ConfigError, compose_config, expand, values_of
from utils.files import writable_dir
from utils.identity import experiment_folder
from utils.report import report, states
from utils.resolvers import cpus_per_job, n_cpus, weights_id

__all__ = [
    "CONF_DIR",
    "MAIN_PROCESS",
    "ConfigError",
    "compose_config",
    "cpus_per_job",
    "expand",
    "n_cpus",
    "run",
    "values_of",
    "weights_id",
]

MAIN_PROCESS = "LOSSYLESS_MAIN_PROCESS"  # for workers to know whose they are
# Settings that are the name of published weights, or the path of a file.
WEIGHT_SETTINGS = (
    "tower.kwargs.weights",
    "data_feat.kwargs.clip_weights",
    "data_pred.kwargs.clip_weights",
)


def run(main: Callable[[DictConfig], object], config_name: str = "main") -> None:
    """Run `main` on every config that `sys.argv` and the experiment ask for; then report.

    Exits with status 1 if a job failed, naming it, after all others have finished; with 2 if the
    command line is wrong; with 130 after Ctrl-C, 143 after SIGTERM.
    """
    hydra_main = hydra.main(config_path=str(CONF_DIR), config_name=config_name, version_base="1.3")
    flags = [arg for arg in sys.argv[1:] if arg.startswith("-")]
    if any(flag not in ("-m", "--multirun") for flag in flags):
        hydra_main(main)()  # --help, --cfg and the like are Hydra's own
        return
    try:
        overrides = expand([arg for arg in sys.argv[1:] if arg not in flags])
        cfg = compose_config(overrides)
        is_submitted = cfg.slurm.executor != "joblib"
        _check_weights(cfg)
        for name in ("results", "pretrained", "outputs"):  # data may lie where nobody can write
            writable_dir(cfg.paths[name], f"paths.{name}")
        # also of the storage of a search
        results = writable_dir(Path(cfg.paths.results) / experiment_folder(cfg), "paths.results")
        if cfg.hypopt.name != "none":
            from utils import search  # Optuna takes a second to import

            search.check(cfg, overrides)
        if is_submitted:
            from utils import launchers

            launchers.check(cfg.slurm)
    except (ConfigError, HydraException, OSError) as error:
        print(f"Configuration error: {error}", file=sys.stderr)
        sys.exit(2)
    sweep_dir = Path(cfg.paths.outputs) / (cfg.job_id or f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
    sweep_dir /= f"{cfg.experiment}_{os.getpid()}"
    if not is_submitted:  # jobs of others outlive this process
        os.environ[MAIN_PROCESS] = str(os.getpid())
    # Always a multirun: one job or many, they leave the same traces.
    sys.argv[1:] = ["--multirun", *overrides, f"hydra.sweep.dir={sweep_dir}"]
    try:
        hydra_main(main)()
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as error:
        sys.exit(error.code or 143)  # Lightning ends jobs that get SIGTERM without a status
    finally:
        print(report(sweep_dir, results))
    is_search = cfg.hypopt.name != "none"
    if is_search and any(job["state"] != "done" for job in states(sweep_dir)):
        sys.exit(1)  # a search goes on without a trial that failed


def _check_weights(cfg: DictConfig) -> None:
    """Raise if a file of weights is not there, which every job would find out by itself."""
    for key in WEIGHT_SETTINGS:
        try:
            weights_id(OmegaConf.select(cfg, key))
        except FileNotFoundError as error:
            parent, _, name = key.rpartition(".")
            stated = str(OmegaConf.select(cfg, parent)._get_node(name)._value())
            variables = re.findall(r"oc\.env:(\w+)", stated)
            ways = [f"{key}=FILE", *(f"export {variable}=FILE" for variable in variables)]
            raise ConfigError(f"{key}: {error}: give {', or '.join(ways)}") from error
