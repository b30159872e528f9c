"""From runs on disk to tables: collect, average over seeds, merge the stages.

What a run is, is read from the config it saved, never from its folder's name. Rows are runs
that agree in everything but the seed; runs that differ in anything else are never averaged.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import yaml

from utils.runs import STAGES, digest, identity, path_parts, run_hash

TABLES = (*STAGES, "merged")
SEED = "seed"
GROUP = "group"  # digest of all that determines a run but its seed
FOLDER = "folder"  # where the run's results are


class NoRunsError(FileNotFoundError):
    """There is nothing to aggregate."""


def collect(experiment: Path) -> tuple[dict[str, pd.DataFrame], Counter]:
    """All finished runs of an experiment, and how many there are in each state.

    Parameters
    ----------
    experiment : folder `results/exp_<experiment>`.

    Returns
    -------
    runs : dict of stage -> DataFrame with a row for each run: the group it belongs to, the
        parameters its path shows, every other setting in which the runs of the stage differ, and
        its metrics.
    states : how many runs are done, failed, ...
    """
    found: dict[str, list[tuple[dict, dict, Path]]] = {stage: [] for stage in STAGES}
    states: Counter = Counter()
    for status_file in sorted(experiment.glob("**/run_*/status.json")):
        try:
            status = json.loads(status_file.read_text())
            if status["state"] == "done":
                found[status["stage"]].append(_read(status_file.parent, status["stage"]))
            states[status["state"]] += 1
        except (OSError, ValueError, KeyError, IndexError, yaml.YAMLError) as error:
            # one damaged file must not hide all others
            states["missing" if isinstance(error, FileNotFoundError) else "unreadable"] += 1
            print(
                f"left out of the tables: {status_file.parent} cannot be read ({error}); "
                "delete the folder and run the experiment again",
                file=sys.stderr,
            )
    if not any(found.values()):
        raise NoRunsError(
            f"no finished runs in {experiment} ({dict(states) or 'no runs at all'}): run the "
            "experiment first, with the same mode"
        )
    return {stage: _frame(stage, runs) for stage, runs in found.items()}, states


def _read(folder: Path, stage: str) -> tuple[dict, dict, Path]:
    """Config and metrics of a finished run, and its folder."""
    with (folder / "config.yaml").open() as file:
        config = yaml.load(file, yaml.CSafeLoader)
    table = pd.read_csv(folder / f"results_{stage}.csv", float_precision="round_trip")
    metrics = table.iloc[0].to_dict()
    if not all(isinstance(value, (int, float)) for value in metrics.values()):
        raise ValueError(f"results_{stage}.csv holds something else than numbers")
    return config, metrics, folder


def _frame(stage: str, runs: list[tuple[dict, dict, Path]]) -> pd.DataFrame:
    rows, settings = [], []
    for config, metrics, folder in runs:
        same = identity(config, stage)
        ids = {f"{name}_id": run_hash(config, name) for name in STAGES[: STAGES.index(stage) + 1]}
        group = digest({key: value for key, value in same.items() if key != SEED})
        rows.append({GROUP: group, FOLDER: str(folder)} | ids | path_parts(config, stage) | metrics)
        settings.append(_flat(same))
    frame = pd.DataFrame(rows)
    for key in _ambiguous(frame, settings):
        values = [str(setting.get(key)) for setting in settings]
        frame.insert(_n_parameters(frame), key, values)
    return frame


def _ambiguous(frame: pd.DataFrame, settings: list[dict[str, object]]) -> list[str]:
    """Settings in which groups differ although their paths show the same parameters."""
    if frame.empty:
        return []
    shown = frame[[name for name in parameters(frame) if name != SEED]].copy()
    keys = _differing(frame[GROUP], shown, settings)
    names = [key for key in keys if key.endswith(".name")]
    if not names:
        return keys
    # the name of a choice says enough, unless runs with the same names still differ
    for name in names:
        shown[name] = [str(setting.get(name)) for setting in settings]
    return sorted({*names, *_differing(frame[GROUP], shown, settings)})


def _differing(
    groups: pd.Series, shown: pd.DataFrame, settings: list[dict[str, object]]
) -> list[str]:
    """Settings that tell groups apart among runs for which the same is shown."""
    keys: set[str] = set()
    for alike in shown.groupby(list(shown)).indices.values():
        one_of_each = groups.iloc[alike].drop_duplicates().index
        candidates = {key for i in one_of_each for key in settings[i]} - {SEED}
        keys |= {k for k in candidates if len({str(settings[i].get(k)) for i in one_of_each}) > 1}
    return sorted(keys)


def _flat(node: object, prefix: str = "") -> dict[str, object]:
    """A nested config as {"a.b.c": value}."""
    if not isinstance(node, dict):
        return {prefix: node}
    items = [_flat(value, f"{prefix}.{key}" if prefix else key) for key, value in node.items()]
    return {key: value for item in items for key, value in item.items()}


def metrics_of(frame: pd.DataFrame) -> list[str]:
    """Columns that hold metrics: `<split>/<stage>/<metric>`."""
    return [column for column in frame if "/" in column]


def parameters(frame: pd.DataFrame) -> list[str]:
    """Columns that hold parameters."""
    ids = {GROUP, FOLDER, *(f"{stage}_id" for stage in STAGES)}
    return [column for column in frame if "/" not in column and column not in ids]


def varying(frame: pd.DataFrame) -> list[str]:
    """Parameters that tell the rows of a table apart."""
    return [name for name in parameters(frame) if name != SEED and frame[name].nunique() > 1]


def _n_parameters(frame: pd.DataFrame) -> int:
    """Position behind the last parameter."""
    return len(frame.columns) - len(metrics_of(frame))


def merge(runs: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row for each run of the last stage there is, with the metrics of the stages before it."""
    last = [stage for stage in STAGES if len(runs[stage])][-1]
    merged = runs[last]
    for stage in STAGES[: STAGES.index(last)]:
        columns = [f"{stage}_id", *metrics_of(runs[stage])]
        merged = merged.merge(runs[stage][columns], on=f"{stage}_id", how="left")
    return merged


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard error over seeds of every metric, and the number of seeds.

    Columns `<metric>_mean`, `<metric>_sem` and `n_seeds`; one row for each group of runs that
    agree in everything but the seed. The standard error of a single seed is missing (NaN).
    """
    if frame.empty:
        return frame
    keys = [name for name in parameters(frame) if name != SEED]
    groups = frame.groupby([GROUP, *keys], sort=False, dropna=False)
    metrics = metrics_of(frame)
    summary = groups[metrics].agg(["mean", "sem"])
    summary.columns = [f"{metric}_{statistic}" for metric, statistic in summary.columns]
    summary.insert(0, "n_seeds", groups[SEED].nunique())
    return summary.reset_index().sort_values(keys, key=_sortable, ignore_index=True)


def _sortable(values: pd.Series) -> pd.Series:
    """Numbers by their size, although parameters are kept as they are written."""
    numbers = pd.to_numeric(values, errors="coerce")
    return values if numbers.isna().any() else numbers


def summarise_metrics(experiment: Path) -> tuple[dict[str, pd.DataFrame], Counter]:
    """Write `summarized_metrics_{featurizer,communication,predictor,merged}.csv`.

    Returns the four summaries by name, and how many runs are in each state.
    """
    runs, states = collect(experiment)
    runs["merged"] = merge(runs)
    summaries = {name: summarise(frame) for name, frame in runs.items()}
    for name, summary in summaries.items():
        summary.to_csv(experiment / f"summarized_metrics_{name}.csv", index=False)
    return summaries, states


def select(
    summary: pd.DataFrame, columns: dict[str, str], keys: list[str] | None = None
) -> pd.DataFrame:
    """A small table for people: parameters, then chosen metrics.

    Parameters
    ----------
    summary : as `summarise` returns it.
    columns : title -> metric, `<split>/<stage>/<metric>`; shown as "mean" or "mean ± sem".
    keys : the parameters; None: all that vary. Those that the table does not have are left out.

    Raises `KeyError` naming the metrics there are if one is unknown.
    """
    known = [c.removesuffix("_mean") for c in summary if c.endswith("_mean")]
    if unknown := [metric for metric in columns.values() if metric not in known]:
        raise KeyError(f"unknown metrics {unknown}: there are {known}")
    everything = [key for key in varying(summary) if key != "n_seeds"]
    keys = everything if keys is None else [key for key in keys if key in summary]
    if keys and summary.duplicated(keys).any():  # these do not tell the rows apart
        keys += [key for key in everything if key not in keys]
    table = summary[keys].copy()
    for title, metric in columns.items():
        means, sems = summary[f"{metric}_mean"], summary[f"{metric}_sem"]
        table[title] = [_number(mean, sem) for mean, sem in zip(means, sems, strict=True)]
    return table


def _number(mean: float, sem: float) -> str:
    if pd.isna(mean):
        return "-"
    return f"{mean:.4g}" if pd.isna(sem) else f"{mean:.4g} ± {sem:.1g}"


def to_markdown(table: pd.DataFrame) -> str:
    """The table in Markdown, aligned so that it reads well as plain text too."""
    cells = [list(map(str, table.columns)), *([str(c) for c in row] for row in table.values)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    cells.insert(1, ["-" * width for width in widths])
    rows = (" | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells)
    return "".join(f"| {row} |\n" for row in rows)
