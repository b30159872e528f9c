"""What `main.py` calls: `run(main)`.

It adds the experiment's `sweep` and what the mode changes to the command line, finds what is wrong
before anything is started, and hands over to Hydra, which composes the config of each job and
launches them: on this machine, or with a launcher of `utils.cluster.launcher`.
"""

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from utils.cluster.screen import Screen, WithoutOverrides, logged
from utils.configs.architectures import check_networks
from utils.configs.composing import CONF_DIR, ConfigError, compose_config, expand, parse, values_of
from utils.configs.resolvers import cpus_per_job, n_cpus, weights_id
from utils.runs.experiment_status import LOG, read_jobs, report
from utils.runs.files import writable_dir
from utils.runs.identity import experiment_folder
from utils.runs.signals import CTRL_C, MAIN_PROCESS, format_error
from utils.runs.status_file import mark_interrupted

__all__ = [
    "CONF_DIR",
    "NONE_DONE",
    "ConfigError",
    "compose_config",
    "cpus_per_job",
    "expand",
    "n_cpus",
    "run",
    "values_of",
    "weights_id",
]

NONE_DONE = 3  # exit status, known to bin/utils.sh
# Settings that are the name of published weights, or the path of a file.
WEIGHT_SETTINGS = (
    "tower.kwargs.weights",
    "data_feat.kwargs.clip_weights",
    "data_pred.kwargs.clip_weights",
)


def run(main: Callable[[DictConfig], object], config_name: str = "main") -> None:
    """Run `main` on every config that `sys.argv` and the experiment ask for; then report.

    Exits with status 1 if a job failed, naming it, after all others have finished; with `NONE_DONE`
    if none is done; with 2 if the command line is wrong; with 130 after Ctrl-C, 143 after SIGTERM.
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
        check_networks(cfg)
        check_epochs(cfg)
        _check_weights(cfg)
        for name in ("results", "pretrained", "outputs"):  # data may lie where nobody can write
            writable_dir(cfg.paths[name], f"paths.{name}")
        # also of the storage of a search
        results = writable_dir(Path(cfg.paths.results) / experiment_folder(cfg), "paths.results")
        if cfg.hypopt.name == "none":
            parsed = parse(overrides)
            if ranges := [o.input_line for o in parsed if o.is_interval_sweep()]:
                raise ConfigError(f"{ranges[0]}: ranges are for searches: add hypopt=optuna")
            (planned,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        else:
            planned = []  # the search draws them
            from utils import search  # Optuna takes a second to import

            search.check(cfg, overrides)
        if is_submitted:
            from utils.cluster import launcher

            launcher.check(cfg.slurm)
    except (ConfigError, HydraException, OSError) as error:
        print(f"Configuration error: {error}", file=sys.stderr)
        sys.exit(2)
    sweep_dir = Path(cfg.paths.outputs) / (cfg.job_id or f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
    sweep_dir /= f"{cfg.experiment}_{os.getpid()}"
    if not is_submitted:  # jobs of others outlive this process
        os.environ[MAIN_PROCESS] = str(os.getpid())
    # Always a multirun: one job or many, they leave the same traces.
    sys.argv[1:] = ["--multirun", *overrides, f"hydra.sweep.dir={sweep_dir}"]
    is_full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors are handed on, for us to say
    has_failed = False
    screen = Screen(sweep_dir, planned)
    if is_submitted:  # a scheduler keeps what jobs print
        shown = screen.shown(as_table=False)
    elif len(planned) == 1:  # it has the terminal to itself, for debuggers too
        shown = contextlib.nullcontext()
    else:
        main, shown = logged(main), screen.shown(as_table=True)
        if cfg.logger.name == "wandb":
            from utils.training import wandb_runs

            wandb_runs.offline_reason(cfg)  # jobs say so in their logs only
    try:
        with shown, contextlib.redirect_stderr(WithoutOverrides(sys.stderr)):
            hydra_main(main)()
    except KeyboardInterrupt:
        if not is_submitted:
            mark_interrupted(sweep_dir)
        sys.exit(130)
    except SystemExit as error:
        # Lightning ends jobs itself: without a status those that get SIGTERM
        sys.exit(130 if format_error(error) == CTRL_C else error.code or 143)
    except Exception as error:  # of a job, which may raise anything
        has_failed = True
        _explain(error, sweep_dir, is_full=is_full)
    finally:
        found = {job["state"] for job in read_jobs(sweep_dir)}
        if found or has_failed:
            print(report(sweep_dir, results))
    # a search goes on without a trial that failed
    if has_failed or (cfg.hypopt.name != "none" and found - {"done"}):
        sys.exit(1 if "done" in found else NONE_DONE)


def _explain(error: Exception, sweep_dir: Path, *, is_full: bool) -> None:
    """Say on stderr what the report of the sweep does not say of an error.

    Those that tell users what to change need no traceback on the screen; files have that of all.
    """
    frames = traceback.extract_tb(error.__traceback__)
    is_of_job = any(frame.name == "return_value" for frame in frames)  # of Hydra's JobReturn
    is_reported = is_of_job and any(
        {"finished", "error"} <= set(job) for job in read_jobs(sweep_dir)
    )
    has_log = any(sweep_dir.glob(f"*/{LOG}"))
    is_ours = type(error).__module__.partition(".")[0] in ("lossyless", "utils", "joblib")
    is_expected = is_ours or isinstance(error, (HydraException, OSError, ValueError))
    if is_full or not (is_expected or (is_reported and has_log)):
        traceback.print_exception(error)
    elif not is_reported:
        print(format_error(error), file=sys.stderr)


def check_epochs(cfg: DictConfig) -> None:
    """Raise ConfigError naming the setting if a training would have no epoch, or evaluate none."""
    for part in ("trainer", "trainer_pred"):
        for name in ("max_epochs", "check_val_every_n_epoch"):
            value = cfg[part][name]
            if value is None or value < 1:
                raise ConfigError(f"{part}.{name} is {value}, expected at least 1")


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
