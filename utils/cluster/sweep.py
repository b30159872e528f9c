"""Entry point of `main.py`: `run(main)`.

It adds the experiment's sweep and mode to the command line and checks the settings before any job
starts. Hydra then composes the config of each job and launches the jobs: in this process, in
worker processes, or with `utils.cluster.launcher`.
"""

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.errors import HydraException
from omegaconf import DictConfig

from lossyless.printing import forgive_output
from utils.cluster.screen import WithoutOverrides, logged, shown
from utils.configs.checks import (
    ConfigError,
    check_known,
    check_peers,
    check_references,
    check_settings,
    check_weights,
)
from utils.configs.composing import check_experiment, compose_config, expand
from utils.configs.overrides import CONF_DIR, given, parse, to_override_value
from utils.runs.experiment_status import LOG, end_queued_jobs, read_jobs, report
from utils.runs.files import writable_dir
from utils.runs.identity import experiment_folder
from utils.runs.signals import GRACE_SECONDS, MAIN_PROCESS, blocked_in_children, raised
from utils.runs.status_file import CTRL_C, format_error, queue_job

NONE_DONE = 3  # exit status, which bin/utils.sh checks


@dataclass(frozen=True)
class Plan:
    """A checked command line."""

    overrides: list[str]  # including those of the experiment and mode
    cfg: DictConfig  # config of the first job
    results: Path  # results folder of the experiment
    #: overrides of each job; empty for a search, which samples them as it runs
    jobs: list[list[str]]

    @property
    def is_submitted(self) -> bool:
        return self.cfg.slurm.executor != "joblib"


def run(main: Callable[[DictConfig], object], config_name: str = "main") -> None:
    """Run `main` on every config that the command line and its experiment define; print a report.

    Exit status: 1 if some jobs failed (after all have ended); `NONE_DONE` if no job is done; 2 if
    the command line is invalid; 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    """
    forgive_output()
    hydra_main = hydra.main(config_path=str(CONF_DIR), config_name=config_name, version_base="1.3")
    flags = [arg for arg in sys.argv[1:] if arg.startswith("-")]
    if any(flag not in ("-m", "--multirun") for flag in flags):
        hydra_main(main)()  # Hydra handles --help, --cfg and other flags
        return
    try:
        plan = check_command_line([arg for arg in sys.argv[1:] if arg not in flags])
    except (ConfigError, HydraException, OSError) as error:
        print(f"Configuration error: {error}", file=sys.stderr)
        sys.exit(2)
    cfg = plan.cfg
    if not sys.argv[1:]:
        _announce_defaults(cfg)
    sweep_dir = Path(cfg.paths.outputs) / (cfg.job_id or f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
    sweep_dir /= f"{cfg.experiment_name}_{os.getpid()}"  # experiment_status.py parses it
    if not plan.is_submitted:  # submitted jobs outlive this process
        os.environ[MAIN_PROCESS] = str(os.getpid())
        for num, overrides in enumerate(plan.jobs):  # the launcher does so for submitted jobs
            queue_job(sweep_dir / str(num), num, overrides, None)
    # always a multirun, so that a single job writes the same files as several jobs
    own = [f"hydra.sweep.dir={to_override_value(str(sweep_dir))}"]
    if not plan.is_submitted and 0 < len(plan.jobs) < cfg.parallel_jobs:
        own.append(f"hydra.launcher.n_jobs={len(plan.jobs)}")  # at most one worker per job
    sys.argv[1:] = ["--multirun", *plan.overrides, *own]
    is_verbose = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise errors instead of printing them
    has_failed = False
    main, display = _output(main, plan, sweep_dir)
    try:
        without_overrides = contextlib.redirect_stderr(WithoutOverrides(sys.stderr))
        with _interruptible(plan, sweep_dir), display, without_overrides:
            hydra_main(main)()
    except (KeyboardInterrupt, SystemExit) as error:
        sys.exit(130 if format_error(error) == CTRL_C else error.code)
    except Exception as error:  # a job may raise anything
        has_failed = True
        _explain(error, sweep_dir, is_verbose=is_verbose)
    finally:
        states = {job["state"] for job in read_jobs(sweep_dir)}
        if states or has_failed:
            print(report(sweep_dir, plan.results))
        if not plan.is_submitted:
            end_queued_jobs(sweep_dir)
    # a search continues after failed trials
    if has_failed or (not plan.jobs and states - {"done"}):
        sys.exit(1 if "done" in states else NONE_DONE)


def check_command_line(arguments: list[str]) -> Plan:
    """Check a command line; raise ConfigError, HydraException or OSError if its jobs cannot run."""
    overrides = expand(arguments)
    cfg = compose_config(overrides)
    check_experiment(overrides)
    check_weights(cfg)
    check_references(cfg)
    check_settings(cfg)
    check_peers(cfg)
    check_equivalences(cfg, overrides)
    for name in ("results", "pretrained", "outputs"):  # paths.data may be read-only
        writable_dir(cfg.paths[name], f"paths.{name}")
    # search studies are stored here, too
    results = writable_dir(Path(cfg.paths.results) / experiment_folder(cfg), "paths.results")
    jobs: list[list[str]] = []
    if cfg.hypopt.name == "none":
        parsed = parse(overrides)
        if ranges := [o.input_line for o in parsed if o.is_interval_sweep()]:
            raise ConfigError(f"{ranges[0]}: intervals are for searches: add hypopt=optuna")
        (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    else:
        from utils import search  # imported lazily: importing Optuna takes a second

        search.check(cfg, overrides)
    plan = Plan(overrides, cfg, results, jobs)
    if plan.is_submitted:
        from utils.cluster import launcher

        if "%" in (folder := f"{cfg.paths.outputs}/{cfg.job_id}"):
            raise ConfigError(
                f"paths.outputs/job_id is {folder}: with slurm={cfg.slurm.name}, it cannot contain "
                "'%', which Slurm and submitit replace"
            )
        launcher.check(cfg.slurm)
    return plan


def check_equivalences(cfg: DictConfig, overrides: list[str]) -> None:
    """Raise `ConfigError` if an override names an unknown augmentation."""
    for override in parse(overrides):
        key = override.get_key_element()
        place, _, name = key.partition(".kwargs.")
        if place not in ("data_feat", "data_pred") or not name.endswith("equivalence"):
            continue
        # imported lazily: importing torch takes seconds
        from utils.data.augmentations import REGISTRY
        from utils.data.banana import EQUIVALENCES

        is_list = "p_augment" in cfg[place].kwargs  # for images; for points, a single name
        known = [*REGISTRY, None] if is_list else list(EQUIVALENCES)
        for value in given(override):
            check_known(key, value if is_list and isinstance(value, list) else [value], known)


def _announce_defaults(cfg: DictConfig) -> None:
    print(
        f"No settings given: training the default compressor ({cfg.distortion.name}, "
        f"{cfg.rate.name}) on {cfg.data_feat.name}, then a predictor: {cfg.trainer.max_epochs} "
        "epochs each, about 10 minutes on a CPU. python main.py --help lists experiments.",
        flush=True,
    )


def _output(
    main: Callable[[DictConfig], object], plan: Plan, sweep_dir: Path
) -> tuple[Callable[[DictConfig], object], contextlib.AbstractContextManager[None]]:
    """`main`, with its output in log files if necessary, and the sweep's progress display."""
    if plan.is_submitted:  # submitit writes the jobs' output to files
        return main, shown(sweep_dir)
    if len(plan.jobs) == 1:  # a single job keeps the terminal, e.g. for debuggers
        return main, contextlib.nullcontext()
    if plan.cfg.logger.name == "wandb":
        from utils.training import wandb_runs

        wandb_runs.offline_reason(plan.cfg)  # prints the reason here; jobs print only to their logs
    return logged(main), shown(sweep_dir)


@contextlib.contextmanager
def _interruptible(plan: Plan, sweep_dir: Path) -> Iterator[None]:
    """Let signals interrupt the jobs of this process and its workers, not submitted ones."""
    if plan.is_submitted:
        yield
        return
    is_in_workers = plan.cfg.parallel_jobs != 1 and len(plan.jobs) != 1
    workers = blocked_in_children() if is_in_workers else contextlib.nullcontext()
    with raised(before=lambda: _interrupt_workers(sweep_dir)), workers:
        yield


def _interrupt_workers(sweep_dir: Path) -> None:
    """Interrupt the jobs in worker processes; wait up to `GRACE_SECONDS` for their checkpoints.

    Otherwise, joblib would kill the workers at once.
    """
    end, told = time.monotonic() + GRACE_SECONDS, {os.getpid()}
    while workers := {job["pid"] for job in read_jobs(sweep_dir) if job["state"] == "running"}:
        if workers <= {os.getpid()} or time.monotonic() > end:
            return
        if len(told) == 1:
            print("Writing checkpoints; press Ctrl-C again to stop without them", flush=True)
        for worker in workers - told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGTERM)  # background scripts ignore SIGINT
        told |= workers
        time.sleep(0.1)


def _explain(error: Exception, sweep_dir: Path, *, is_verbose: bool) -> None:
    """Print an error unless the sweep's report contains it.

    Errors that say what to change are printed without a traceback; the traceback of a failed
    job is also in its status file.
    """
    frames = traceback.extract_tb(error.__traceback__)
    is_of_job = any(frame.name == "return_value" for frame in frames)  # raised by Hydra's JobReturn
    jobs = read_jobs(sweep_dir)
    is_reported = is_of_job and any({"finished", "error"} <= set(job) for job in jobs)
    has_log = any(sweep_dir.glob(f"*/{LOG}"))
    is_ours = type(error).__module__.partition(".")[0] in ("lossyless", "utils", "joblib")
    is_expected = is_ours or isinstance(error, (HydraException, OSError, ValueError))
    if is_verbose or not (is_expected or (is_reported and has_log)):
        traceback.print_exception(error)
    elif not is_reported:
        print(format_error(error), file=sys.stderr)
