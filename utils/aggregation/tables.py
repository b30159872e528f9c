"""Tables of the runs on disk: collect runs, merge stages, average over seeds.

Runs that differ only in the seed form a group. Averages are taken over the finished runs of a
group; unfinished runs are only counted.
"""

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import pandas as pd

from utils.runs.identity import IDENTITY, STAGES, canonical
from utils.runs.saved_runs import (
    DONE,
    FAILED,
    SEED,
    Record,
    propagate_unfinished,
    read_config,
    read_records,
)
from utils.search import study

TABLES = (*STAGES, "merged")
GROUP = "group"  # digest of everything that determines a run except its seed
FOLDER = "folder"  # results folder of a run
STATE = "state"  # done, failed, ...
COUNTS = ("n_seeds", "n_failed", "n_missing")  # seeds of a group: done, failed, neither


class NoRunsError(FileNotFoundError):
    """There is nothing to aggregate."""


def collect(experiment: Path) -> tuple[dict[str, pd.DataFrame], Counter]:
    """Collect all runs of an experiment, by stage, and count the runs in each state.

    A table has a row for each run. Its columns are the run's group, folder, state and ids, the
    parameters in its path, other settings that were searched or are needed to tell groups apart,
    and its metrics, missing (NaN) unless the run is done. Raises NoRunsError if no run is done.
    """
    records, states = read_records(experiment)
    if not states[DONE]:
        counts = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
        raise NoRunsError(
            f"no finished runs in {experiment} ({counts or 'no runs at all'}): run the experiment "
            "first, with the same mode; bin/status.sh shows the state of its runs"
        )
    searched = study.searched(experiment / study.FILE)
    by_stage = propagate_unfinished(records)
    return {stage: _table(stage, by_stage[stage], searched) for stage in STAGES}, states


def finished(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs that are done."""
    return frame if frame.empty else frame[frame[STATE] == DONE].reset_index(drop=True)


def _table(stage: str, records: list[Record], searched: list[str]) -> pd.DataFrame:
    stages = STAGES[: STAGES.index(stage) + 1]
    rows = []
    for record in records:
        config = record.config
        about = {GROUP: config.group(stage), FOLDER: str(record.folder), STATE: record.state}
        ids = {f"{name}_id": config.id(name) for name in stages}
        rows.append(about | ids | config.path_parts(stage) | dict(record.metrics))
    frame = pd.DataFrame(rows)
    settings = [record.config.settings(stage) for record in records]
    wide = with_settings(frame, [*searched, *_ambiguous(frame, settings)], stage)
    for key in [name for name in varying(wide) if name not in frame]:
        if not any(_shows(frame[name], wide[key]) for name in varying(frame)):
            frame.insert(_n_parameters(frame), key, wide[key])
    return frame


def with_settings(
    frame: pd.DataFrame, names: Iterable[str], stage: str | None = None
) -> pd.DataFrame:
    """Add columns for settings, such as `data_pred.kwargs.p_augment`, from the runs' saved configs.

    Skips names that are already columns or are not settings and, given a stage, settings that do
    not determine its results. `frame` has a row for each run.
    """
    later_stages = () if stage is None else STAGES[STAGES.index(stage) + 1 :]
    later = {key for later_stage in later_stages for key in IDENTITY[later_stage]}
    names = [n for n in dict.fromkeys(names) if n not in frame and n.split(".")[0] not in later]
    if frame.empty or not names:
        return frame
    configs = [read_config(Path(folder)) for folder in frame[FOLDER]]
    frame = frame.copy()
    for name in names:
        firsts: dict[str, str] = {}  # 1 and 1.0 are the same: the first spelling is shown
        values = [
            firsts.setdefault(str(canonical(value, tuple(name.split(".")))), str(value))
            for value in (config.value(name) for config in configs)
        ]
        is_setting = any(name in config.flat for config in configs)
        n_values_in_groups = len({*zip(frame[GROUP], values, strict=True)})
        if is_setting and (stage is None or n_values_in_groups == frame[GROUP].nunique()):
            frame.insert(_n_parameters(frame), name, values)
    return frame


def _shows(shown: pd.Series, values: pd.Series) -> bool:
    """Whether a column shows all of these values, exactly or rounded as in folder names."""

    def rounded(value: str) -> str:
        with contextlib.suppress(ValueError):
            return f"{float(value):.1e}"
        return value

    pairs = {*zip(shown, values, strict=True)}
    return shown.nunique() == len(pairs) and all(a in (b, rounded(b)) for a, b in pairs)


def _ambiguous(frame: pd.DataFrame, settings: list[dict[str, object]]) -> list[str]:
    """Settings that differ between groups whose paths show the same parameters."""
    if frame.empty:
        return []
    is_first = ~frame[GROUP].duplicated()  # runs of a group differ only in the seed
    keys = sorted({key for setting in settings for key in setting} - {SEED})
    texts = pd.DataFrame([[str(s.get(key)) for key in keys] for s in settings], columns=keys)
    texts = texts[is_first]
    # ignore beta: if each run has its own, it would hide every other difference
    shown = frame.loc[is_first, [key for key in parameters(frame) if key not in (SEED, "beta")]]
    keys = _differing(shown, texts)
    names = [key for key in keys if key.endswith(".name")]
    if not names:
        return keys
    # the name of an option implies its settings, unless runs with the same names still differ
    return sorted({*names, *_differing(shown.join(texts[names]), texts)})


def _differing(shown: pd.DataFrame, texts: pd.DataFrame) -> list[str]:
    """Settings that differ between rows whose shown values are the same."""
    counts = texts.groupby([shown[key] for key in shown]).nunique()
    return sorted(counts.columns[counts.gt(1).any()])


def metrics_of(frame: pd.DataFrame) -> list[str]:
    """Columns that hold metrics: `<split>/<stage>/<metric>`."""
    return [column for column in frame if "/" in column]


def parameters(frame: pd.DataFrame) -> list[str]:
    """Columns that hold parameters and settings."""
    others = {GROUP, FOLDER, STATE, *COUNTS, *(f"{stage}_id" for stage in STAGES)}
    return [column for column in frame if "/" not in column and column not in others]


def varying(frame: pd.DataFrame) -> list[str]:
    """Parameters, other than the seed, that vary between rows."""
    return [name for name in parameters(frame) if name != SEED and frame[name].nunique() > 1]


def _n_parameters(frame: pd.DataFrame) -> int:
    """Position of the first metric."""
    return len(frame.columns) - len(metrics_of(frame))


def merge(runs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Join the metrics of all stages.

    The rows are the runs of the last stage that has a finished run. All metrics of unfinished runs
    are missing.
    """
    last = [stage for stage in STAGES if len(finished(runs[stage]))][-1]
    merged = runs[last]
    for stage in STAGES[: STAGES.index(last)]:
        columns = [f"{stage}_id", *metrics_of(runs[stage])]
        merged = merged.merge(finished(runs[stage])[columns], on=f"{stage}_id", how="left")
    merged.loc[merged[STATE] != DONE, metrics_of(merged)] = float("nan")
    return merged.copy()  # defragmented: joined columns are slow


def summarise(frame: pd.DataFrame, seeds: Collection[str] = ()) -> pd.DataFrame:
    """Average every metric over the seeds of each group.

    Columns are the group, parameters, `COUNTS`, `<metric>_mean` and `<metric>_sem`. With a single
    seed, the standard error is missing (NaN). If some finished seeds of a group lack a metric, a
    column `<metric>_count` holds the number of seeds in its mean. `frame` has a row for each run.
    Of the `seeds` expected for each group, those without a run count as missing.
    """
    if frame.empty:
        return frame
    keys = [name for name in parameters(frame) if name != SEED]
    groups = frame.groupby([GROUP, *keys], sort=False, dropna=False)
    summary = groups[[SEED, STATE]].apply(_count, seeds=frozenset(map(str, seeds)))
    if metrics := metrics_of(frame):
        statistics = groups[metrics].agg(["mean", "sem", "count"])
        statistics.columns = [f"{metric}_{statistic}" for metric, statistic in statistics.columns]
        counts = statistics[[f"{metric}_count" for metric in metrics]]
        is_partial = (counts > 0) & counts.lt(summary["n_seeds"], axis=0)
        statistics = statistics.drop(columns=counts.columns[~is_partial.any()])
        summary = summary.join(statistics).copy()  # defragmented
    return summary.reset_index().sort_values(keys, key=sortable, ignore_index=True)


def _count(runs: pd.DataFrame, seeds: frozenset[str]) -> pd.Series:
    """Count the seeds of a group by state, as in `COUNTS`."""
    done, failed = (set(runs[SEED][runs[STATE] == state]) for state in (DONE, FAILED))
    failed -= done
    missing = (seeds | set(runs[SEED])) - done - failed
    return pd.Series(dict(zip(COUNTS, map(len, (done, failed, missing)), strict=True)))


def counts_of(row: Mapping[str, object], metrics: Iterable[str]) -> dict[str, int]:
    """The `COUNTS` in a row of a summary; seeds that lack one of these metrics count as missing."""
    n_seeds, n_failed, n_missing = (int(row[name]) for name in COUNTS)
    n = min(int(row.get(f"{metric}_count", 0)) or n_seeds for metric in metrics)
    return dict(zip(COUNTS, (n, n_failed, n_missing + n_seeds - n), strict=True))


def n_without(frame: pd.DataFrame, metrics: Iterable[str]) -> int:
    """Number of finished runs that lack one of these metrics."""
    return int(finished(frame)[list(metrics)].isna().any(axis=1).sum())


def sortable(values: pd.Series) -> pd.Series:
    """Key for `DataFrame.sort_values`: numbers stored as text sort by value, before names."""
    numbers = pd.to_numeric(values, errors="coerce")
    order = sorted(set(zip(numbers.isna(), numbers.fillna(0), values.map(str), strict=True)))
    place = {name: i for i, (_, _, name) in enumerate(order)}
    return values.map(str).map(place)


def summaries(
    runs: Mapping[str, pd.DataFrame], seeds: Collection[str] = ()
) -> dict[str, pd.DataFrame]:
    """Summarise each table in `TABLES`; see `summarise`."""
    frames = dict(runs) | {"merged": merge(runs)}
    return {name: summarise(frame, seeds) for name, frame in frames.items()}


def format_counts(n_seeds: int, n_failed: int, n_missing: int) -> str:
    """Format `COUNTS`, e.g. "3" or "1 (2 failed, 1 missing)"."""
    others = [f"{n} {name}" for n, name in ((n_failed, "failed"), (n_missing, "missing")) if n]
    return f"{n_seeds} ({', '.join(others)})" if others else str(n_seeds)
