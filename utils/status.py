"""Print the status of an experiment: jobs by state, unfinished work with errors, next commands.

python -m utils.status experiment=banana_RD mode=quick
"""

import difflib
import os
import platform
import sys
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from lossyless.printing import forgive_output
from utils.cluster import slurm_queries
from utils.configs.checks import ConfigError
from utils.configs.composing import compose_config
from utils.configs.overrides import CONF_DIR
from utils.runs.experiment_status import FIX, Job, find_jobs, find_runs, format_progress, reason
from utils.runs.identity import (
    STAGES,
    compressor_folder,
    experiment_folder,
    is_execution_setting,
)
from utils.runs.status_file import RUN, STATES, UNDER_WAY

HEADINGS = ("STATE", "SINCE", "STAGE", "PROGRESS", "SCHEDULER", "JOB")
MAX_ROWS = 100  # of the table; queued jobs come last


class Row(NamedTuple):
    """An unfinished job or run; all fields but the error are cells of the table."""

    state: str
    since: str
    stage: str
    progress: str
    scheduler: str
    name: str
    error: str


def main(arguments: Sequence[str]) -> None:
    """Print the status of an experiment; exits with 2 if there is no such experiment or mode."""
    try:
        cfg = _config(arguments)
    except ConfigError as error:
        print(f"Configuration error: {error}", file=sys.stderr)
        sys.exit(2)
    print(overview(cfg))


def overview(cfg: DictConfig) -> str:
    """Status of the experiment and mode of a config, as text."""
    folder = Path(cfg.paths.results) / experiment_folder(cfg)
    own_runs = _runs(cfg, folder.name)
    runs = own_runs
    if (shared := compressor_folder(cfg)) != folder.name:
        compressors = _runs(cfg, shared).items()
        runs = own_runs | {path: run for path, run in compressors if run["stage"] == STAGES[0]}
    usual = compose_config([f"mode={cfg.mode_name}"])
    usual.experiment = cfg.experiment
    jobs = find_jobs(
        Path(cfg.paths.outputs),
        cfg.experiment,
        runs,
        results=folder,
        mode=cfg.mode_name,
        defaults={"paths.results": usual.paths.results, "experiment_name": usual.experiment_name},
        read_queue=slurm_queries.queued_ids,
    )
    name = f"{cfg.experiment}, mode {cfg.mode_name}"
    if not jobs and not own_runs:
        return f"{name}: no jobs and no runs yet ({folder}/){_other_modes(cfg)}"
    lines = [f"{name}: {len(jobs)} jobs: {_counts(job.state for job in jobs)}", f"{folder}/:"]
    for stage in STAGES:
        if states := [status["state"] for status in runs.values() if status["stage"] == stage]:
            lines.append(f"  {stage}: {_counts(states)}")
    if rows := [*_job_rows(jobs), *_run_rows(jobs, own_runs, folder)]:
        lines += ["", *_table(rows)]
    if commands := [*_continue(cfg, jobs), *_cancel(jobs)]:
        lines += ["", *commands]
    return "\n".join(lines)


def _runs(cfg: DictConfig, name: str) -> dict[str, dict]:
    return find_runs(Path(cfg.paths.results) / name, Path(cfg.paths.pretrained) / name)


# --- which experiment


def _config(arguments: Sequence[str]) -> DictConfig:
    """Config of the experiment; raises ConfigError with similar names if there is none."""
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    named = _split_prefix(given)
    for group in ("experiment", "mode"):
        names = sorted(file.stem for file in (CONF_DIR / group).glob("*.yaml"))
        name = (given | named).get(group, "none")
        if name not in names:
            close = difflib.get_close_matches(name, names, n=3)
            hint = f"did you mean {' or '.join(close)}" if close else f"choose from {names}"
            raise ConfigError(f"there is no {group} '{name}': {hint}")
    others = [argument for argument in arguments if argument.partition("=")[0] not in named]
    return compose_config([*others, *(f"{key}={value}" for key, value in named.items())])


def _split_prefix(given: Mapping[str, str]) -> dict[str, str]:
    """Experiment and mode of a name such as "quick_banana_RD", which results folders have."""
    name, folder = given.get("experiment", ""), CONF_DIR / "experiment"
    if (folder / f"{name}.yaml").is_file():
        return {}
    for mode, prefix in _prefixes().items():
        experiment = name.removeprefix(prefix)
        if (folder / f"{experiment}.yaml").is_file():
            if given.get("mode", "none") not in ("none", mode):
                raise ConfigError(
                    f"{name} is {experiment} in mode {mode}, but mode={given['mode']} was given: "
                    "leave out one of them"
                )
            return {"experiment": experiment, "mode": mode}
    return {}


def _prefixes() -> dict[str, str]:
    """The prefix of the results of each mode that has one."""
    files = sorted((CONF_DIR / "mode").glob("*.yaml"))
    found = {file.stem: OmegaConf.load(file).get("mode_prefix") for file in files}
    return {mode: prefix for mode, prefix in found.items() if prefix}


def _other_modes(cfg: DictConfig) -> str:
    """Hint at other modes in which the experiment has runs."""
    results = Path(cfg.paths.results)
    modes = {"none": ""} | _prefixes()
    found = [
        mode
        for mode, prefix in modes.items()
        if mode != cfg.mode_name and any(results.glob(f"exp_{prefix}{cfg.experiment}/**/{RUN}"))
    ]
    return "".join(f"\nThere are runs of mode {mode}: add -m {mode}" for mode in found)


# --- the table


def _counts(states: Iterable[str]) -> str:
    found = Counter(states)
    return ", ".join(f"{found[state]} {state}" for state in STATES if found[state]) or "none"


def _job_rows(jobs: list[Job]) -> Iterable[Row]:
    """A row for each unfinished job, named by the settings that distinguish the jobs."""
    keys = {key for job in jobs for key in job.settings if not is_execution_setting(key)}
    distinct = {key for key in keys if len({job.settings.get(key) for job in jobs}) > 1}
    for job in jobs:
        if job.state == "done":
            continue
        name = " ".join(f"{k}={value}" for k, value in job.settings.items() if k in distinct)
        error = "" if job.state in UNDER_WAY else _first_line(reason(job.status))
        if error and "log" in job.status:
            error += f"; log: {job.status['log']}"
        yield Row(
            job.state,
            _ago(job.since),
            job.stage,
            format_progress(job.run),
            job.scheduler_job or "",
            name or f"job {job.status['num']}",
            error,
        )


def _run_rows(jobs: list[Job], runs: dict[str, dict], folder: Path) -> Iterable[Row]:
    """A row for each unfinished run that belongs to none of the jobs."""
    known = {path for job in jobs for path in job.runs.values()}
    for path, run in runs.items():
        if path not in known and run["state"] != "done":
            yield Row(
                run["state"],
                _ago(run.get("finished") or run.get("started")),
                run["stage"],
                format_progress(run),
                run.get("scheduler_job") or "",
                os.path.relpath(path, folder),
                _first_line(run.get("error", "")),
            )


def _table(rows: list[Row]) -> list[str]:
    """Lines with aligned columns, without empty ones; errors are on lines of their own."""
    shown, n_hidden = rows[:MAX_ROWS], len(rows[MAX_ROWS:])
    columns = list(zip(*shown, strict=True))[: len(HEADINGS)]
    kept = [i for i, column in enumerate(columns) if any(column)]
    widths = {i: max(map(len, (HEADINGS[i], *columns[i]))) for i in kept}
    lines = []
    for row in ((*HEADINGS, ""), *shown):
        lines.append(("  " + "  ".join(row[i].ljust(widths[i]) for i in kept)).rstrip())
        if error := row[-1]:
            lines.append(textwrap.indent(error, "      "))
    return [*lines, f"  and {n_hidden} more"] if n_hidden else lines


def _first_line(error: str) -> str:
    return error.strip().partition("\n")[0]


def _ago(moment: str | None) -> str:
    """Time since a moment in ISO format."""
    if not isinstance(moment, str):
        return ""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    for n_seconds, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * n_seconds:
            return f"{seconds / n_seconds:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


# --- the next commands


def _continue(cfg: DictConfig, jobs: list[Job]) -> Iterable[str]:
    """Commands that continue the sweeps with unfinished jobs."""
    unfinished = {job.sweep for job in jobs if job.state in ("interrupted", "lost")}
    failed = {job.sweep for job in jobs if job.state == "failed"} - unfinished
    for advice, sweeps in (("Continue the unfinished jobs", unfinished), (FIX, failed)):
        for command in dict.fromkeys(_command(cfg, sweep) for sweep in sorted(sweeps)):
            yield f"{advice}: {command}"


def _command(cfg: DictConfig, sweep: str) -> str:
    script = Path(cfg.paths.outputs) / sweep / "script"  # written by bin/utils.sh
    if not script.is_file():
        return "the same command again"
    config = os.path.relpath(script.read_text(encoding="utf-8").strip(), CONF_DIR.parent)
    return f"{config} -c {sweep}"


def _cancel(jobs: list[Job]) -> Iterable[str]:
    """Commands that cancel processes of machines and arrays of Slurm jobs."""
    processes, arrays = defaultdict(list), set()
    for job in jobs:
        if job.state in UNDER_WAY and job.scheduler_job:
            if job.is_local:
                processes[job.status.get("host", platform.node())].append(job.scheduler_job)
            else:
                arrays.add(job.scheduler_job.partition("_")[0])
    for host, ids in processes.items():
        where = "" if host == platform.node() else f" (on {host})"
        yield f"Cancel the unfinished jobs: kill -INT {' '.join(ids)}{where}"
    if arrays:
        yield f"Cancel the unfinished jobs: scancel {' '.join(sorted(arrays))}"


if __name__ == "__main__":
    forgive_output()
    main(sys.argv[1:])
