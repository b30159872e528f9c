"""Print an experiment's status: jobs by state, unfinished work, errors, and the next commands.

python -m utils.status experiment=banana_RD mode=quick
"""

import difflib
import os
import platform
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lossyless.printing import forgive_output
from utils.cluster import slurm_queries
from utils.configs.checks import ConfigError
from utils.configs.composing import compose_config
from utils.configs.overrides import CONF_DIR
from utils.runs.experiment_status import (
    FIX,
    find_jobs,
    find_runs,
    format_progress,
    is_local,
    short_names,
)
from utils.runs.identity import STAGES, compressor_folder, experiment_folder
from utils.runs.status_file import RUN, STATES, UNDER_WAY

MAX_LINES = 200  # lines about unfinished work; the rest are cut


def main(arguments: Sequence[str]) -> None:
    """Print an experiment's status; exit with status 2 if an argument is invalid."""
    try:
        cfg = _config(arguments)
    except ConfigError as error:
        print(f"Configuration error: {error}", file=sys.stderr)
        sys.exit(2)
    print(overview(cfg))


def overview(cfg: DictConfig) -> str:
    """Describe the status of the experiment and mode that a config selects."""
    folder = Path(cfg.paths.results) / experiment_folder(cfg)
    own_runs = _runs(cfg, folder.name)
    runs = own_runs
    if (shared := compressor_folder(cfg)) != folder.name:
        compressors = _runs(cfg, shared).items()
        runs = own_runs | {path: run for path, run in compressors if run["stage"] == STAGES[0]}
    jobs = find_jobs(Path(cfg.paths.outputs), folder, runs, slurm_queries.queued_ids)
    name = experiment_folder(cfg).removeprefix("exp_")
    if not jobs and not own_runs:
        return f"{name}: no jobs and no runs yet ({folder}/){_other_modes(cfg)}"
    lines = [f"{name}: {len(jobs)} jobs: {_counts(job['state'] for job in jobs)}", f"{folder}/:"]
    for stage in STAGES:
        if states := [status["state"] for status in runs.values() if status["stage"] == stage]:
            lines.append(f"  {stage}: {_counts(states)}")
    unfinished = list(_unfinished(jobs, own_runs, folder))
    if len(unfinished) > MAX_LINES:
        unfinished[MAX_LINES:] = ["  ..."]
    if unfinished:
        lines += ["", *unfinished]
    # jobs of an earlier Slurm array may still be running after its sweep was continued
    earlier = [run for run in own_runs.values() if "_" in str(run.get("scheduler_job"))]
    if commands := [*_continue(cfg, jobs), *_cancel([*jobs, *earlier])]:
        lines += ["", *commands]
    return "\n".join(lines)


def _runs(cfg: DictConfig, name: str) -> dict[str, dict]:
    return find_runs(Path(cfg.paths.results) / name, Path(cfg.paths.pretrained) / name)


# --- which experiment


def _config(arguments: Sequence[str]) -> DictConfig:
    """Config of the experiment that the arguments name.

    The name may have a mode's prefix, as in "quick_banana_RD", or may have been set with
    `experiment_name=`.
    """
    if wrong := [text for text in arguments if "=" not in text and not text.startswith("-")]:
        raise ConfigError(f"{wrong[0]}: expected KEY=VALUE")
    overrides = dict(text.split("=", 1) for text in arguments if "=" in text)
    name, experiments = overrides.get("experiment", ""), CONF_DIR / "experiment"
    for mode, prefix in _prefixes().items():
        experiment = name.removeprefix(prefix)
        if experiment != name and (experiments / f"{experiment}.yaml").is_file():
            overrides |= {"experiment": experiment, "mode": mode}
    if (experiments / f"{overrides.get('experiment')}.yaml").is_file():
        return _compose(overrides)
    cfg = _compose(overrides | {"experiment": "none", "experiment_name": name})
    with_results = [path.name[len("exp_") :] for path in Path(cfg.paths.results).glob("exp_*")]
    if name in with_results:
        return cfg
    known = [*with_results, *(file.stem for file in experiments.glob("*.yaml"))]
    if similar := difflib.get_close_matches(name, known, n=1):
        raise ConfigError(f"unknown experiment {name!r}: did you mean {similar[0]}?")
    return _compose(overrides)  # raises an error that lists the experiments


def _compose(overrides: dict[str, str]) -> DictConfig:
    return compose_config([f"{key}={value}" for key, value in overrides.items()])


def _prefixes() -> dict[str, str]:
    """Map each mode whose results have a prefix to that prefix."""
    files = sorted((CONF_DIR / "mode").glob("*.yaml"))
    found = {file.stem: OmegaConf.load(file).get("mode_prefix") for file in files}
    return {mode: prefix for mode, prefix in found.items() if prefix}


def _other_modes(cfg: DictConfig) -> str:
    """A hint that names the other modes in which the experiment has runs."""
    results = Path(cfg.paths.results)
    found = [
        mode
        for mode, prefix in ({"none": ""} | _prefixes()).items()
        if mode != cfg.mode_name and any(results.glob(f"exp_{prefix}{cfg.experiment}/**/{RUN}"))
    ]
    return "".join(f"\nThere are runs in mode {mode}: add -m {mode}" for mode in found)


# --- unfinished jobs and runs


def _counts(states: Iterable[str]) -> str:
    found = Counter(states)
    return ", ".join(f"{found[state]} {state}" for state in STATES if found[state]) or "none"


def _unfinished(jobs: list[dict], runs: dict[str, dict], folder: Path) -> Iterable[str]:
    """Describe unfinished jobs, and unfinished runs that have no job, including any errors."""
    names = short_names([job["settings"] for job in jobs])
    for job, own in zip(jobs, names, strict=True):
        stage = f"{job['stage']} {format_progress(job['run'])}"
        yield from _lines(job, stage, own or f"job {job['num']}")
    known = {path for job in jobs for path in job["runs"].values()}
    for path, run in runs.items():
        if path not in known:
            stage = f"{run['stage']} {format_progress(run)}"
            yield from _lines(run, stage, os.path.relpath(path, folder))


def _lines(status: dict, stage: str, name: str) -> Iterable[str]:
    state = status["state"]
    if state == "done":
        return
    is_queued, job = state == "queued", status.get("scheduler_job") or ""
    since = status["queued"] if is_queued else status.get("finished") or status.get("started")
    yield f"  {state:11}  {_ago(since):>6}  {stage:24}  {job:8}  {name}"
    if state not in UNDER_WAY and (error := status.get("error")):
        log = f"; log: {status['log']}" if "log" in status else ""
        yield f"      {error.strip().splitlines()[0]}{log}"


def _ago(moment: str | None) -> str:
    """Time elapsed since an ISO timestamp; empty if it is unknown."""
    if not moment:
        return ""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    for n_seconds, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * n_seconds:
            return f"{seconds / n_seconds:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


# --- the next commands


def _continue(cfg: DictConfig, jobs: list[dict]) -> Iterable[str]:
    """Commands that continue sweeps with unfinished jobs."""
    unfinished = {job["sweep"] for job in jobs if job["state"] in ("interrupted", "lost")}
    failed = {job["sweep"] for job in jobs if job["state"] == "failed"} - unfinished
    for advice, sweeps in (("Continue the unfinished jobs", unfinished), (FIX, failed)):
        for command in dict.fromkeys(_command(cfg, sweep) for sweep in sorted(sweeps)):
            yield f"{advice}: {command}"


def _command(cfg: DictConfig, sweep: str) -> str:
    script = Path(cfg.paths.outputs) / sweep / "script"  # written by bin/utils.sh
    if not script.is_file():
        return "use the same command"
    config = os.path.relpath(script.read_text(encoding="utf-8").strip(), CONF_DIR.parent)
    return f"{config} -c {sweep}"


def _cancel(jobs: list[dict]) -> Iterable[str]:
    """Commands that cancel local processes and Slurm job arrays."""
    processes, arrays = defaultdict(set), set()
    for job in jobs:
        if job["state"] not in UNDER_WAY:
            continue
        if is_local(job):  # the folder name ends with the id of the process that starts the jobs
            process = job["folder"].parent.name.rpartition("_")[2]
            processes[job.get("host", platform.node())].add(process)
        elif scheduler_job := job.get("scheduler_job"):
            arrays.add(scheduler_job.partition("_")[0])
    for host, ids in processes.items():
        where = "" if host == platform.node() else f" (on {host})"
        yield f"Cancel the unfinished jobs: kill -INT {' '.join(sorted(ids))}{where}"
    if arrays:
        yield f"Cancel the unfinished jobs: scancel {' '.join(sorted(arrays))}"


if __name__ == "__main__":
    forgive_output()
    main(sys.argv[1:])
