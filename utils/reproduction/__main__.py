"""Run the experiments that this machine can run, and report on them.

Quick modes come first, and those with published numbers before others, shortest first. Estimated
times are those of bin/README.md. A second call skips finished experiments, resumes interrupted
ones, and tries the others again.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from lossyless.parallel import available_cores
from lossyless.printing import forgive_output
from utils.aggregation.paper_comparison import published_numbers
from utils.benchmarks.experiments import cpu_name
from utils.reproduction import report
from utils.runs import signals
from utils.runs.files import write_text
from utils.runs.status_file import now

LOG = Path("outputs/reproduction")  # what is known about each experiment, and its output
SMOKE_TESTS = ("clip", "ssl", "mobilenet")  # folders whose quick modes have meaningless numbers
MISSING = re.compile(r"^ *((?:DataError|WeightsError|Configuration error): .*)", re.MULTILINE)
ERROR = re.compile(r"^ *(\w*Error: .*)", re.MULTILINE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run experiments and write the report; exit status 1 if one failed."""
    parser = argparse.ArgumentParser(prog="bin/reproduce.sh", description=__doc__)
    about = "time for this call; also allows full-size experiments that take less. Default: quick \
modes only, about 40 minutes on two cores"
    parser.add_argument("--budget", type=float, metavar="MINUTES", help=about)
    budget = parser.parse_args(arguments).budget
    deadline = None if budget is None else time.monotonic() + 60 * budget
    entries = plan()
    try:
        with signals.raised():
            for entry in entries:
                if entry["state"] == "done":
                    continue
                if why := _why_not(entry, budget, deadline):
                    entry["error"] = entry["error"] or why
                else:
                    _run(entry, deadline)
    finally:
        report.write(entries)
    return int(any(entry["state"] == "failed" for entry in entries))


def plan() -> list[dict]:
    """All experiments, in order.

    Each is a dictionary: its `key` names its folder of results; `mode` is "quick" or "none" (full
    size); `minutes` are estimated, and `seconds` is the time that calls have spent on it so far.
    """
    text = Path("bin/README.md").read_text(encoding="utf-8")
    quick = re.findall(r"^\| `(bin/(\w+)/\w+\.sh)` \|.*\| ([\d.]+) min \|$", text, re.M)
    entries = [_entry(s, "quick", float(m)) for s, room, m in quick if room not in SMOKE_TESTS]
    minutes: dict[str, float] = {}
    for script, *hours in re.findall(
        r"^\| `(bin/\w+/\S+)` \| `\w+` .*\| ([^|]*) \| ([^|]*) \|$", text, re.M
    ):
        here = hours[torch.cuda.is_available()].replace(",", "").strip("< ") or "0"
        minutes[script] = minutes.get(script, 0.0) + 60 * float(here)
    entries += [_entry(script, "none", estimate) for script, estimate in minutes.items()]
    published = set(published_numbers()["experiment"])

    def place(entry: dict) -> tuple:
        return entry["mode"] == "none", entry["experiment"] not in published, entry["minutes"]

    return sorted(entries, key=place)


def _entry(script: str, mode: str, minutes: float) -> dict:
    experiment = re.search(r"^experiment=(\w+)", Path(script).read_text(encoding="utf-8"), re.M)[1]
    is_quick = mode == "quick"
    entry = {
        "key": f"quick_{experiment}" if is_quick else experiment,
        "command": f"{script} -m quick" if is_quick else script,
        **{"experiment": experiment, "mode": mode, "minutes": minutes},
        **{"state": "not run", "error": "", "seconds": 0.0},
    }
    file = LOG / f"{entry['key']}.json"  # of earlier calls
    return entry | json.loads(file.read_text(encoding="utf-8")) if file.exists() else entry


def _why_not(entry: dict, budget: float | None, deadline: float | None) -> str:
    """Why an experiment is not run now; empty if it is."""
    if entry["mode"] == "none" and (budget is None or entry["minutes"] > budget):
        device = "a larger --budget" if torch.cuda.is_available() else "a GPU or a larger --budget"
        return f"about {entry['minutes'] / 60:,.1f} hours at full size: needs {device}"
    is_over = deadline is not None and time.monotonic() >= deadline
    return "the budget was used up" if is_over else ""


def _run(entry: dict, deadline: float | None) -> None:
    """Run a script in its own process group until the deadline, and record how it ended."""
    log, start = LOG / f"{entry['key']}.log", time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"{entry['command']}: about {entry['minutes']:g} minutes; log: {log}", flush=True)
    cpu = f"{available_cores()} cores of {cpu_name()}"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
    entry |= {"device": device, "commit": _commit(), "state": "interrupted"}
    entry["error"] = "the next call continues it"
    command = [*entry["command"].split(), "-a", "logger=csv"]
    try:
        with (
            log.open("w") as out,
            subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True) as script,
        ):
            try:
                entry |= _end(script.wait(None if deadline is None else deadline - start), log)
            except BaseException as error:
                os.killpg(script.pid, signal.SIGTERM)  # the signal of Slurm: runs can resume
                script.wait()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
    finally:
        entry |= {"seconds": entry["seconds"] + time.monotonic() - start, "finished": now()}
        write_text(LOG / f"{entry['key']}.json", json.dumps(entry, indent=2) + "\n")
        print(f"  {entry['state']}, {entry['seconds'] / 60:.1f} minutes so far. {entry['error']}")


def _end(status: int, log: Path) -> dict[str, str]:
    """State and error of a script that ended by itself."""
    if status == 0:
        return {"state": "done", "error": ""}
    text = log.read_text(encoding="utf-8", errors="replace")
    missing, found = MISSING.search(text), ERROR.search(text)
    reason = missing or found
    error = reason[1] if reason else f"exit status {status}: see {log}"
    return {"state": "not run" if missing else "failed", "error": error}


def _commit() -> str:
    """The commit of the code, with a plus sign if files outside results/ were changed."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    is_changed = git("status", "--porcelain", "--", ":!results")
    return git("rev-parse", "--short", "HEAD") + "+" * bool(is_changed)


if __name__ == "__main__":
    forgive_output()
    sys.exit(main())
