"""How a job or a run stands: a small JSON file that can be written when the disk is full, too.

queued -> running -> done | failed | interrupted; "lost" is what was running when its process ended
without a word.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

from utils.runs.files import FULL, is_locked, overwrite_in_place, write_bytes

LOST = "its process ended without a word: killed, out of memory, or the machine went down"
STATES = ("running", "queued", "failed", "lost", "interrupted", "done")
UNDER_WAY = ("queued", "running")
RESERVE = 4096  # bytes that are kept free for the last words of what is under way
MAX_ERROR = 1000  # characters of an error that are kept when the disk is full


def now() -> str:
    """The time as text in UTC, such that texts sort as times do."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def write_state(path: Path, content: dict) -> None:
    """Write the file, whose content has a "state"; readers find the old content or the new one.

    What is under way leaves room in its file. If the disk is full at its end, the room takes the
    end, without the traceback and the rest of long errors.

    Raises
    ------
    OSError
        If the disk is full and there is no such room; the old content remains.
    """
    text = _text(content)
    if content["state"] in UNDER_WAY:
        text = text + b" " * RESERVE + b"\n"
    try:
        write_bytes(path, text)
    except OSError as error:
        if error.errno not in FULL or not path.is_file():
            raise
        short = _text(_shortened(content))
        if len(short) > path.stat().st_size:
            raise
        overwrite_in_place(path, short)


def read_state(path: Path, lock: Path) -> dict | None:
    """How it stands; None if there is no file.

    Parameters
    ----------
    lock : the file that a process locks while it works on what the state is about. What says that
        it is running, but is not locked, is lost.
    """
    content = load_state(path)
    if content is not None and content["state"] == "running" and not is_locked(lock):
        # between the two looks it may have ended as it should
        content = load_state(path)
        if content is not None and content["state"] == "running":
            content |= {"state": "lost", "error": content.get("signal", LOST)}
    return content


def load_state(path: Path) -> dict | None:
    """What the file says, whether that is still so or not; None if there is no file.

    A file that a power cut or a copy left damaged says nothing but that what it was about is lost,
    which then goes on from its last checkpoint, or starts again.
    """
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict) or "state" not in content:
            raise ValueError("it has no state")
    except FileNotFoundError:
        return None
    except ValueError as error:  # of JSON and of UTF-8, too
        return {"state": "lost", "error": f"{path} cannot be read ({error})"}
    return content


def _text(content: dict) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _shortened(content: dict) -> dict:
    kept = {key: value for key, value in content.items() if key != "traceback"}
    if "error" in kept:
        kept["error"] = kept["error"][:MAX_ERROR]
    return kept
