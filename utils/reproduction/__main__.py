"""Run the experiments that this machine can run, shortest first, and report on them.

Time estimates are taken from bin/README.md. Later calls skip finished experiments, resume
interrupted ones, and retry the others.
"""

import argparse
import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from lossyless.printing import forgive_output
from utils.aggregation.paper_comparison import published_numbers
from utils.reproduction import report
from utils.runs import signals
from utils.runs.files import write_text
from utils.runs.provenance import code_version, device_name
from utils.runs.status_file import RUN, load, now

LOG = Path("outputs/reproduction")  # state and output of each experiment
SMOKE_TESTS = ("clip", "ssl", "mobilenet")  # folders whose quick modes yield meaningless numbers
HISTORY = ("state", "error", "seconds", "device", "commit", "finished")  # kept between calls
ERROR = re.compile(r"^ *((?:\w*Error|Configuration error): .*)", re.MULTILINE)
MISSING = ("DataError:", "WeightsError:")  # no data, no weights, or no account with access


def main(arguments: Sequence[str] | None = None) -> int:
    """Run experiments and write the report; return 1 if any failed, 130 after Ctrl-C, else 0."""
    parser = argparse.ArgumentParser(prog="bin/reproduce.sh", description=__doc__)
    about = (
        "time limit; adds full-size experiments that fit; default: quick modes, about 40 minutes"
    )
    parser.add_argument("--budget", type=float, metavar="MINUTES", help=about)
    budget = parser.parse_args(arguments).budget
    deadline = time.monotonic() + 60 * (math.inf if budget is None else budget)
    entries = plan()
    try:
        with signals.raised():
            for entry in entries:
                if entry["state"] == "done":
                    continue
                if entry["mode"] == "none" and entry["minutes"] > (budget or 0):
                    if not entry["seconds"]:
                        hours = f"about {entry['minutes'] / 60:,.1f} hours at full size"
                        entry["error"] = f"{hours} here: needs a GPU or a larger --budget"
                elif time.monotonic() < deadline:
                    _run(entry, deadline)
    except KeyboardInterrupt:
        return 130
    finally:
        report.write(entries)
    return int(any(entry["state"] == "failed" for entry in entries))


def plan() -> list[dict]:
    """All experiments, shortest first; in a tie, those with published numbers first.

    Each is a dictionary: `key` names its results folder; `mode` is "quick" or "none" (full size);
    `minutes` is the estimated time, and `seconds` the time that all calls have spent on it so far.
    """
    text = Path("bin/README.md").read_text(encoding="utf-8")
    quick = re.findall(r"^\| `(bin/(\w+)/\w+\.sh)` \|.*\| ([\d.]+) min \|$", text, re.M)
    entries = [_entry(s, "quick", float(m)) for s, room, m in quick if room not in SMOKE_TESTS]
    minutes: dict[str, float] = {}
    row = r"^\| `(bin/\w+/\S+)` \| `\w+` .*\| ([^|]*) \| ([^|]*) \|$"
    for script, *hours in re.findall(row, text, re.M):  # on the CPU, on a GPU
        here = hours[torch.cuda.is_available()].replace(",", "").strip("< ")
        minutes[script] = minutes.get(script, 0.0) + 60 * float(here or 0)
    entries += [_entry(script, "none", estimate) for script, estimate in minutes.items()]
    published = set(published_numbers()["experiment"])
    return sorted(entries, key=lambda e: (e["minutes"], e["experiment"] not in published))


def _entry(script: str, mode: str, minutes: float) -> dict:
    experiment = re.search(r"^experiment=(\w+)", Path(script).read_text(encoding="utf-8"), re.M)[1]
    is_quick = mode == "quick"
    entry = {
        "key": f"quick_{experiment}" if is_quick else experiment,
        "command": f"{script} -m quick" if is_quick else script,
        **{"experiment": experiment, "mode": mode, "minutes": minutes},
        **{"state": "not run", "error": "the budget was used up", "seconds": 0.0},
    }
    return entry | _history(entry)


def _history(entry: dict) -> dict:
    """How earlier calls ended; empty if there were none, or if finished results were deleted."""
    file = LOG / f"{entry['key']}.json"
    if not file.exists():
        return {}
    saved = json.loads(file.read_text(encoding="utf-8"))
    runs = report.folder(entry).glob(f"**/run_*/{RUN}")
    if saved["state"] == "done" and not any(load(run)["state"] == "done" for run in runs):
        return {}
    return {name: saved[name] for name in HISTORY}


def _run(entry: dict, deadline: float) -> None:
    """Run a script in its own process group until the deadline, and record how it ended."""
    log, start = LOG / f"{entry['key']}.log", time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"{entry['command']}: about {entry['minutes']:g} minutes; log: {log}", flush=True)
    entry |= {"device": device_name(), "commit": code_version() or "", "state": "interrupted"}
    entry["error"] = "run again to continue"
    command = [*entry["command"].split(), "-a", "logger=csv"]
    with log.open("w") as out:
        script = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            entry |= _end(script.wait(min(deadline - start, threading.TIMEOUT_MAX)), log)
    finally:
        if script.poll() is None:
            os.killpg(script.pid, signal.SIGTERM)  # as Slurm does: runs can resume
            script.wait()
        entry |= {"seconds": entry["seconds"] + time.monotonic() - start, "finished": now()}
        history = {name: entry[name] for name in HISTORY}
        write_text(LOG / f"{entry['key']}.json", json.dumps(history, indent=2) + "\n")
        print(f"  {entry['state']}, {entry['seconds'] / 60:.1f} minutes so far. {entry['error']}")


def _end(status: int, log: Path) -> dict[str, str]:
    """State of a script that ended on its own, and the last error in its log."""
    if status == 0:
        return {"state": "done", "error": ""}
    errors = ERROR.findall(log.read_text(encoding="utf-8", errors="replace"))
    error = errors[-1] if errors else f"exit status {status}: see {log}"
    return {"state": "not run" if error.startswith(MISSING) else "failed", "error": error}


if __name__ == "__main__":
    forgive_output()
    sys.exit(main())
