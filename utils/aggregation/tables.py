"""From runs on disk to tables: collect, average over seeds, merge the stages.

Rows are runs that agree in everything but the seed; runs that differ in anything else are never
averaged. Runs that did not finish are counted.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import pandas as pd

from utils.aggregation.outputs import number
from utils.runs.identity import IDENTITY, STAGES
from utils.runs.saved_runs import (
    DONE,
    FAILED,
    SEED,
    Record,
    propagate_unfinished,
    read_config,
    read_records,
)

TABLES = (*STAGES, "merged")
GROUP = "group"  # digest of all that determines a run but its seed
FOLDER = "folder"  # where the run's results are
STATE = "state"  # how the run stands
COUNTS = ("n_seeds", "n_failed", "n_missing")  # of a row: finished, failed, and other seeds


class NoRunsError(FileNotFoundError):
    """There is nothing to aggregate."""


def _in_words(states: Counter) -> str:
    return ", ".join(f"{n} {state}" for state, n in sorted(states.items())) or "no runs at all"


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
    runs, states = collect_all(experiment)
    return {stage: finished(frame) for stage, frame in runs.items()}, states


def collect_all(experiment: Path) -> tuple[dict[str, pd.DataFrame], Counter]:
    """As `collect`, with the runs that did not finish: their metrics are missing (NaN)."""
    records, states = read_records(experiment)
    if not states[DONE]:
        raise NoRunsError(
            f"no finished runs in {experiment} ({_in_words(states)}): run the experiment first, "
            "with the same mode; bin/status.sh says what became of runs"
        )
    searched = []
    if (file := experiment / "optuna.db").is_file():
        from utils.search import study  # Optuna takes a second to import

        searched = study.searched(file)
    by_stage = propagate_unfinished(records)
    return {stage: _frame(stage, by_stage[stage], searched) for stage in STAGES}, states


def finished(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs that are done."""
    return frame if frame.empty else frame[frame[STATE] == DONE].reset_index(drop=True)


def _frame(stage: str, records: list[Record], searched: list[str]) -> pd.DataFrame:
    stages = STAGES[: STAGES.index(stage) + 1]
    rows = []
    for record in records:
        config = record.config
        about = {GROUP: config.group(stage), FOLDER: str(record.folder), STATE: record.state}
        ids = {f"{name}_id": config.id(name) for name in stages}
        rows.append(about | ids | config.path_parts(stage) | dict(record.metrics))
    frame = pd.DataFrame(rows)
    settings = [record.config.settings(stage) for record in records]
    wide = with_settings(frame, stage, [*searched, *_ambiguous(frame, settings)])
    for key in [name for name in varying(wide) if name not in frame]:
        if not any(_shows(frame[name], wide[key]) for name in varying(frame)):
            frame.insert(_n_parameters(frame), key, wide[key])
    return frame


def with_settings(frame: pd.DataFrame, stage: str, keys: Iterable[str]) -> pd.DataFrame:
    """The runs of a stage with further columns for settings, named as on the command line.

    Left out are names of no setting, and settings that do not determine the results of the stage.
    """
    later = {key for name in STAGES[STAGES.index(stage) + 1 :] for key in IDENTITY[name]}
    own = [key for key in dict.fromkeys(keys) if key.split(".")[0] not in later]
    if frame.empty or not own:
        return frame
    configs = [read_config(Path(folder)) for folder in frame[FOLDER]]
    frame = frame.copy()
    for key in own:
        values = [str(config.value(key)) for config in configs]
        is_of_group = len({*zip(frame[GROUP], values, strict=True)}) == frame[GROUP].nunique()
        if is_of_group and key not in frame and any(key in config.flat for config in configs):
            frame.insert(_n_parameters(frame), key, values)
    return frame


def _shows(shown: pd.Series, values: pd.Series) -> bool:
    """Whether a column shows all of these values, as they are or rounded as in folder names."""
    pairs = {*zip(shown, values, strict=True)}
    return shown.nunique() == len(pairs) and all(a in (b, _rounded(b)) for a, b in pairs)


def _rounded(value: str) -> str:
    try:
        return f"{float(value):.1e}"
    except ValueError:
        return value


def _ambiguous(frame: pd.DataFrame, settings: list[dict[str, object]]) -> list[str]:
    """Settings in which groups differ although their paths show the same parameters."""
    if frame.empty:
        return []
    # a beta of its own for each run would tell all apart
    shown = frame[[name for name in parameters(frame) if name not in (SEED, "beta")]].copy()
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
        if len(one_of_each) == 1:
            continue
        candidates = {key for i in one_of_each for key in settings[i]} - {SEED}
        keys |= {k for k in candidates if len({str(settings[i].get(k)) for i in one_of_each}) > 1}
    return sorted(keys)


def metrics_of(frame: pd.DataFrame) -> list[str]:
    """Columns that hold metrics: `<split>/<stage>/<metric>`."""
    return [column for column in frame if "/" in column]


def parameters(frame: pd.DataFrame) -> list[str]:
    """Columns that hold parameters."""
    others = {GROUP, FOLDER, STATE, *COUNTS, *(f"{stage}_id" for stage in STAGES)}
    return [column for column in frame if "/" not in column and column not in others]


def varying(frame: pd.DataFrame) -> list[str]:
    """Parameters that tell the rows of a table apart."""
    return [name for name in parameters(frame) if name != SEED and frame[name].nunique() > 1]


def _n_parameters(frame: pd.DataFrame) -> int:
    """Position behind the last parameter."""
    return len(frame.columns) - len(metrics_of(frame))


def merge(runs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row for each run of the last stage that was finished at all, with the metrics of the
    stages before it. The metrics of a run that did not finish are all missing."""
    last = [stage for stage in STAGES if len(finished(runs[stage]))][-1]
    merged = runs[last]
    for stage in STAGES[: STAGES.index(last)]:
        columns = [f"{stage}_id", *metrics_of(runs[stage])]
        merged = merged.merge(finished(runs[stage])[columns], on=f"{stage}_id", how="left")
    merged.loc[merged[STATE] != DONE, metrics_of(merged)] = float("nan")
    return merged.copy()  # in one piece: joined columns are slow


def summarise(frame: pd.DataFrame, seeds: Collection[str] = ()) -> pd.DataFrame:
    """Mean and standard error over seeds of every metric, and how many seeds there are.

    Columns `<metric>_mean` and `<metric>_sem`; one row for each group of runs that agree in
    everything but the seed. The standard error of a single seed is missing (NaN). `n_seeds` are
    averaged; `n_failed` failed, `n_missing` are neither: interrupted, under way, lost, never begun.

    Parameters
    ----------
    frame : one row per run.
    seeds : that each group should have; what is known beside those that were begun.
    """
    if frame.empty:
        return frame
    keys = [name for name in parameters(frame) if name != SEED]
    groups = frame.groupby([GROUP, *keys], sort=False, dropna=False)
    summary = groups[[SEED, STATE]].apply(_count, seeds=frozenset(map(str, seeds)))
    if metrics := metrics_of(frame):
        statistics = groups[metrics].agg(["mean", "sem"])
        statistics.columns = [f"{metric}_{statistic}" for metric, statistic in statistics.columns]
        summary = summary.join(statistics).copy()  # in one piece: joined columns are slow
    return summary.reset_index().sort_values(keys, key=sortable, ignore_index=True)


def _count(runs: pd.DataFrame, seeds: frozenset[str]) -> pd.Series:
    """`COUNTS` of the runs of a group."""
    done, failed = (set(runs[SEED][runs[STATE] == state]) for state in (DONE, FAILED))
    failed -= done
    missing = (seeds | set(runs[SEED])) - done - failed
    return pd.Series(dict(zip(COUNTS, map(len, (done, failed, missing)), strict=True)))


def sortable(values: pd.Series) -> pd.Series:
    """Numbers by their size, although parameters are kept as they are written; then names.

    A key for `DataFrame.sort_values`.
    """
    numbers = pd.to_numeric(values, errors="coerce")
    order = sorted(set(zip(numbers.isna(), numbers.fillna(0), values.map(str), strict=True)))
    place = {name: i for i, (_, _, name) in enumerate(order)}
    return values.map(str).map(place)


def summarise_metrics(experiment: Path) -> tuple[dict[str, pd.DataFrame], Counter]:
    """The summary of each stage, and of all (`TABLES`); how many runs are in each state."""
    runs, states = collect_all(experiment)
    return summaries(runs), states


def summaries(
    runs: Mapping[str, pd.DataFrame], seeds: Collection[str] = ()
) -> dict[str, pd.DataFrame]:
    """The summary of each stage, and of all (`TABLES`)."""
    frames = dict(runs) | {"merged": merge(runs)}
    return {name: summarise(frame, seeds) for name, frame in frames.items()}


def select(
    summary: pd.DataFrame, columns: Mapping[str, str], keys: list[str] | None = None
) -> pd.DataFrame:
    """A small table for people: parameters, chosen metrics, and the number of seeds.

    Parameters
    ----------
    summary : as `summarise` returns it.
    columns : title -> metric, `<split>/<stage>/<metric>`; shown as "mean" or "mean ± sem".
    keys : the parameters; None: all that vary. Those of stages that did not run are left out.

    Raises `KeyError` naming the metrics there are if one is unknown.
    """
    known = [c.removesuffix("_mean") for c in summary if c.endswith("_mean")]
    if unknown := [metric for metric in columns.values() if metric not in known]:
        raise KeyError(f"unknown metrics {unknown}: there are {known}")
    everything = varying(summary)
    keys = everything if keys is None else [key for key in keys if key in summary]
    if keys and summary.duplicated(keys).any():  # these do not tell the rows apart
        keys += [key for key in everything if key not in keys]
    table = summary[keys].copy()
    for title, metric in columns.items():
        means, sems = summary[f"{metric}_mean"], summary[f"{metric}_sem"]
        table[title] = [number(mean, sem) for mean, sem in zip(means, sems, strict=True)]
    table["seeds"] = [n_in_words(*row) for row in summary[list(COUNTS)].itertuples(index=False)]
    return table


def n_in_words(n_seeds: int, n_failed: int, n_missing: int) -> str:
    """ "3", or "1 (2 failed, 1 missing)"."""
    others = [f"{n} {name}" for n, name in ((n_failed, "failed"), (n_missing, "missing")) if n]
    return f"{n_seeds} ({', '.join(others)})" if others else str(n_seeds)
