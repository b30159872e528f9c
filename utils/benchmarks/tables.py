"""Tables of comparisons: a CSV per subject, a Markdown table, and the rows that got slower."""

from collections.abc import Iterable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import EngFormatter

from utils.aggregation.experiment import to_markdown
from utils.benchmarks.comparison import Comparison
from utils.runs.provenance import code_version, device_name

FIGURES = ["ours", "reference", "ratio", "spread"]
KEYS = ["what", "against", "n", "unit"]
CIRCUMSTANCES = ["device", "commit", "date"]
MIN_CHANGE = 0.05  # smaller changes are never reported as slower

PREFACE = """\
# Speed and size, compared with references

Written by `make benchmark`; for a single subject: `make benchmark ARGS="--only coding"`. A *ratio*
is our value divided by the reference's: the median over repeated comparisons. Its *spread* is the
median absolute deviation of the individual ratios, divided by their median. For rates per
second (of CPU time; "hub": of wall-clock time), higher is better; for everything else, lower is
better. Our medians and the reference's depend on the machine. `bin/benchmark.sh --compare OLD`
lists the rows whose ratios got worse by more than noise.
"""


def circumstances() -> dict[str, str]:
    """Device, commit and date of a benchmark run."""
    facts = device_name(), code_version() or "", str(date.today())
    return dict(zip(CIRCUMSTANCES, facts, strict=True))


def table_of(subject: str, comparisons: Iterable[Comparison], **facts: str) -> pd.DataFrame:
    """A row for each comparison.

    Parameters
    ----------
    facts : additional columns, with the same value in all rows.
    """
    rows = [
        {name: getattr(row, name) for name in KEYS}
        | {name: float(np.median(getattr(row, name))) for name in FIGURES}
        | {"goal": row.goal, "verdict": row.verdict}
        for row in comparisons
    ]
    return pd.DataFrame(rows).assign(subject=subject, **facts)


def write(table: pd.DataFrame, folder: Path) -> None:
    """Write the rows of a subject, and the Markdown table of all subjects in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{table['subject'].iloc[0]}.csv"
    table.drop(columns="subject").to_csv(path, index=False, float_format="%.4g")
    rows = read(folder)
    dates, devices = ("; ".join(sorted(set(rows[name]))) for name in ("date", "device"))
    text = f"{PREFACE}\nMeasured on this hardware: {devices} ({dates}).\n\n{markdown(rows)}"
    (folder / "README.md").write_text(text, encoding="utf-8")


def read(path: Path) -> pd.DataFrame:
    """The rows of a CSV, or of all CSVs in a folder."""
    files = [path] if path.is_file() else sorted(path.glob("*.csv"))
    if not files:
        raise SystemExit(f"{path}: expected a CSV written by `make benchmark`, or a folder of them")
    tables = [pd.read_csv(f, keep_default_na=False).assign(subject=f.stem) for f in files]
    return pd.concat(tables, ignore_index=True).astype({"n": str} | dict.fromkeys(FIGURES, float))


def markdown(table: pd.DataFrame) -> str:
    """Format a table as Markdown, rounded and with units."""
    shown = pd.DataFrame(index=table.index)
    for name in ("subject", "what", "against", "n"):
        shown[name] = table[name]
    for name in ("ours", "reference"):  # 4.35 M/s, 12.1 ms
        pairs = zip(table[name], table["unit"], strict=True)
        shown[name] = [
            EngFormatter(unit)(float(f"{value:.4g}")) if unit else f"{value:.4g}"
            for value, unit in pairs
        ]
    shown["ratio"] = [f"{ratio:.3f}" if ratio < 10 else f"{ratio:,.0f}" for ratio in table["ratio"]]
    shown["spread"] = [f"{spread:.0%}" for spread in table["spread"]]
    return to_markdown(shown.join(table[["goal", "verdict", "commit"]]))


def slower(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Rows in both tables whose ratio got worse by more than noise.

    Noise is twice the sum of both spreads, plus MIN_CHANGE. Only ratios are compared, because times
    depend on the machine.
    """
    both = old.merge(new, on=["subject", *KEYS], suffixes=("_old", "_new"))
    if both.empty:
        raise SystemExit("the tables have no row in common: compare tables of the same subject")
    change = both["ratio_new"] / both["ratio_old"]
    worse = np.where(both["unit"] == "/s", 1 / change, change) - 1
    noise = 2 * (both["spread_old"] + both["spread_new"]) + MIN_CHANGE
    figures = ["ratio_old", "ratio_new", "spread_old", "spread_new", "worse", "noise"]
    columns = ["subject", *KEYS[:3], *figures]
    return both.assign(worse=worse, noise=noise)[worse > noise][columns]
