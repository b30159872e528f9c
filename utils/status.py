"""How an experiment stands: counts of its jobs, what is not done and why, and the way on.

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

from utils.configs.composing import CONF_DIR, ConfigError, compose_config
from utils.runs.experiment_status import Job, find_jobs, find_runs
from utils.runs.identity import STAGES, compressor_folder, experiment_folder, is_how
from utils.runs.report import MEND, progress_of, reason
from utils.runs.run import STATUS
from utils.runs.status_file import STATES, UNDER_WAY

HEADINGS = ("STATE", "SINCE", "STAGE", "PROGRESS", "SCHEDULER", "JOB")
MAX_ROWS = 100  # what is still queued is cut short behind as many


class Row(NamedTuple):
    """What is not done, and why."""

    state: str
    since: str
    stage: str
    progress: str
    scheduler: str
    name: str
    error: str

    @property
    def cells(self) -> tuple[str, ...]:
        return self[: len(HEADINGS)]


def main(arguments: Sequence[str]) -> None:
    """Print how the experiment stands. Exits with 2 if there is no such experiment or mode."""
    try:
        cfg = _config(arguments)
    except ConfigError as error:
        print(f"Configuration error: {error}", file=sys.stderr)
        sys.exit(2)
    print(overview(cfg))


def overview(cfg: DictConfig) -> str:
    """All that is to say of the experiment and mode of a config."""
    folder = Path(cfg.paths.results) / experiment_folder(cfg)
    own_runs = find_runs(folder, Path(cfg.paths.pretrained) / folder.name)
    runs = own_runs | _compressors_elsewhere(cfg)
    jobs = find_jobs(
        Path(cfg.paths.outputs),
        cfg.experiment,
        runs,
        results=folder,
        mode=cfg.mode_name,
        defaults=_defaults(cfg),
    )
    name = f"{cfg.experiment}, mode {cfg.mode_name}"
    if not jobs and not own_runs:
        return f"{name}: no jobs and no runs yet ({folder}/){_others(cfg)}"
    lines = [f"{name}: {len(jobs)} jobs: {_counts(job.state for job in jobs)}"]
    lines += [f"{folder}/:"]
    for stage in STAGES:
        states = [status["state"] for status in runs.values() if status["stage"] == stage]
        if states:
            lines.append(f"  {stage}: {_counts(states)}")
    open_jobs = [job for job in jobs if job.state != "done"]
    rows = [*_job_rows(open_jobs, jobs), *_run_rows(jobs, own_runs, folder)]
    if rows:
        lines += ["", *_table(rows)]
    return "\n".join([*lines, *_way_on(cfg, jobs)])


def _compressors_elsewhere(cfg: DictConfig) -> dict[str, dict]:
    """The status of each compressor of the experiment that this one shares them with, if any."""
    name = compressor_folder(cfg)
    if name == experiment_folder(cfg):
        return {}
    found = find_runs(Path(cfg.paths.results) / name, Path(cfg.paths.pretrained) / name)
    return {path: status for path, status in found.items() if status["stage"] == STAGES[0]}


def _config(arguments: Sequence[str]) -> DictConfig:
    """The config of the experiment; raises ConfigError naming close ones if there is none."""
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    named = _without_prefix(given)
    given |= named
    for group in ("experiment", "mode"):
        names = sorted(file.stem for file in (CONF_DIR / group).glob("*.yaml"))
        name = given.get(group, "none")
        if name not in names:
            close = difflib.get_close_matches(name, names, n=3)
            hint = (
                f"did you mean {' or '.join(close)}" if close else f"there are {', '.join(names)}"
            )
            raise ConfigError(f"there is no {group} '{name}': {hint}")
    others = [argument for argument in arguments if argument.partition("=")[0] not in named]
    return compose_config([*others, *(f"{key}={value}" for key, value in named.items())])


def _without_prefix(given: Mapping[str, str]) -> dict[str, str]:
    """Experiment and mode that results with the name of an experiment are of, if it is none."""
    name, folder = given.get("experiment", ""), CONF_DIR / "experiment"
    if (folder / f"{name}.yaml").is_file():
        return {}
    for mode, prefix in _prefixes().items():
        experiment = name.removeprefix(prefix)
        if (folder / f"{experiment}.yaml").is_file():
            if given.get("mode", "none") not in ("none", mode):
                raise ConfigError(
                    f"{name} is {experiment} in mode {mode}, but mode={given['mode']} was given: "
                    f"leave out the one or the other"
                )
            return {"experiment": experiment, "mode": mode}
    return {}


def _prefixes() -> dict[str, str]:
    """The modes whose runs have results of their own, and the prefix of these."""
    files = sorted((CONF_DIR / "mode").glob("*.yaml"))
    found = {file.stem: OmegaConf.load(file).get("mode_prefix") for file in files}
    return {mode: prefix for mode, prefix in found.items() if prefix}


def _others(cfg: DictConfig) -> str:
    """Which other modes the experiment has runs of."""
    results = Path(cfg.paths.results)
    modes = {"none": ""} | _prefixes()
    found = [
        mode
        for mode, prefix in modes.items()
        if mode != cfg.mode_name and any(results.glob(f"exp_{prefix}{cfg.experiment}/**/{STATUS}"))
    ]
    return "".join(f"\nThere are runs of mode {mode}: add -m {mode}" for mode in found)


def _defaults(cfg: DictConfig) -> dict[str, str]:
    """Where the results go of jobs of the experiment and mode that do not say it."""
    usual = compose_config([f"mode={cfg.mode_name}"])
    usual.experiment = cfg.experiment
    return {"paths.results": usual.paths.results, "experiment_name": usual.experiment_name}


def _counts(states: Iterable[str]) -> str:
    found = Counter(states)
    return ", ".join(f"{found[state]} {state}" for state in STATES if found[state]) or "none"


def _job_rows(jobs: list[Job], all_jobs: list[Job]) -> list[Row]:
    """A row for each job; what all jobs share does not tell them apart."""
    keys = {key for job in all_jobs for key in job.settings if not is_how(key)}
    apart = {key for key in keys if len({job.settings.get(key) for job in all_jobs}) > 1}
    rows = []
    for job in jobs:
        name = " ".join(f"{key}={value}" for key, value in job.settings.items() if key in apart)
        is_over = job.state not in UNDER_WAY
        rows.append(
            Row(
                state=job.state,
                since=_ago(job.since),
                stage=job.stage,
                progress=progress_of(job.run),
                scheduler=job.trace.get("scheduler_job") or "",
                name=name or f"job {job.trace['num']}",
                error=_with_log(job.trace) if is_over else "",
            )
        )
    return rows


def _run_rows(jobs: list[Job], runs: dict[str, dict], folder: Path) -> list[Row]:
    """A row for each run that is not done and belongs to none of the jobs."""
    known = {path for job in jobs for path in job.runs.values()}
    return [
        Row(
            state=status["state"],
            since=_ago(status.get("finished") or status.get("started")),
            stage=status["stage"],
            progress=progress_of(status),
            scheduler=status.get("scheduler_job") or "",
            name=os.path.relpath(path, folder),
            error=_first_line(status.get("error", "")),
        )
        for path, status in runs.items()
        if path not in known and status["state"] != "done"
    ]


def _table(rows: list[Row]) -> list[str]:
    shown, left = rows[:MAX_ROWS], rows[MAX_ROWS:]
    columns = list(zip(*(row.cells for row in shown), strict=True))
    widths = [
        max(len(heading), *map(len, column)) if any(column) else 0
        for heading, column in zip(HEADINGS, columns, strict=True)
    ]
    lines = [_line(HEADINGS, widths)]
    for row in shown:
        lines.append(_line(row.cells, widths))
        if row.error:
            lines.append(textwrap.indent(row.error, "      "))
    return [*lines, f"  and {len(left)} more"] if left else lines


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    texts = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True) if width]
    return ("  " + "  ".join(texts)).rstrip()


def _with_log(trace: dict) -> str:
    """Why a job ended, and which of the scheduler's files tells more."""
    error = _first_line(reason(trace))
    return f"{error}; log: {trace['log']}" if "log" in trace else error


def _first_line(error: str) -> str:
    return error.strip().partition("\n")[0]


def _ago(moment: str | None) -> str:
    """How long ago a moment in ISO format was."""
    if not isinstance(moment, str):
        return ""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    for n_seconds, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * n_seconds:
            return f"{seconds / n_seconds:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def _way_on(cfg: DictConfig, jobs: list[Job]) -> list[str]:
    """Commands that continue what is not done, and that cancel what is under way."""
    lines = []
    unfinished = {job.sweep for job in jobs if job.state in ("interrupted", "lost")}
    failed = {job.sweep for job in jobs if job.state == "failed"} - unfinished
    for advice, sweeps in (("Run again what is not done", unfinished), (MEND, failed)):
        ways = dict.fromkeys(_continue(cfg, sweep) for sweep in sorted(sweeps))
        lines += [f"{advice}: {way}" for way in ways]
    live = [job for job in jobs if job.state in UNDER_WAY and job.trace.get("scheduler_job")]
    lines += [f"Cancel what is under way: {command}" for command in _cancel(live)]
    return ["", *lines] if lines else []


def _cancel(jobs: list[Job]) -> list[str]:
    """The commands that cancel jobs: processes of a machine, and jobs of Slurm."""
    processes = defaultdict(list)
    for job in jobs:
        if job.is_local:
            processes[job.trace.get("host", platform.node())].append(job.trace["scheduler_job"])
    commands = []
    for host, ids in processes.items():
        where = "" if host == platform.node() else f" (on {host})"
        commands.append(f"kill -INT {' '.join(ids)}{where}")
    if slurm_ids := [job.trace["scheduler_job"] for job in jobs if not job.is_local]:
        commands.append(f"scancel {_compact(slurm_ids)}")
    return commands


def _continue(cfg: DictConfig, sweep: str) -> str:
    """The command that continues a sweep."""
    script = Path(cfg.paths.outputs) / sweep / "script"  # bin/utils.sh notes it
    if not script.is_file():
        return "the same command again"
    return f"{os.path.relpath(script.read_text().strip(), CONF_DIR.parent)} -c {sweep}"


def _compact(ids: Iterable[str]) -> str:
    """Ids of Slurm's jobs with those of an array together: "86 '87_[1,3]'"."""
    arrays = defaultdict(list)
    for job_id in sorted(ids):
        array, _, task = job_id.partition("_")
        arrays[array].append(task)
    return " ".join(
        f"'{array}_[{','.join(sorted(tasks, key=int))}]'" if all(tasks) else array
        for array, tasks in arrays.items()
    )


if __name__ == "__main__":
    main(sys.argv[1:])
