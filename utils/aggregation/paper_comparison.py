"""Our results beside the published ones."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from omegaconf import OmegaConf

from utils.aggregation import settings, tables
from utils.aggregation.experiment import Experiment
from utils.aggregation.outputs import MISSING, number
from utils.aggregation.selection import check_alike, restrict
from utils.configs.composing import ConfigError
from utils.runs.saved_runs import read_config

OPTION = "aggregate.compare_to_paper"
PUBLISHED = Path(__file__).parent / "published"
COLUMNS = ("experiment", "data", "method", "beta", "metric", "value", "tolerance", "source")
TABLE = "paper_comparison"
SETTINGS = ("data", "method", "beta")  # by which a published number and runs belong together
NOT_RUN, WITHIN, OUTSIDE = "not run", "within", "outside"


def compare_to_paper(
    experiment: Experiment,
    experiments: Sequence[str],
    where: Mapping[str, object] | None = None,
) -> None:
    """Write published numbers, ours and the difference to `paper_comparison`.

    The numbers are those of `published/*.csv`, whose README says what the columns are. Ours are
    means over seeds. Verdicts: `within` the tolerance, `outside` of it, `not run`. If there are
    runs, but none with any of the published settings, a line says so instead. The settings that
    differ from the official scripts' are printed below.

    Parameters
    ----------
    experiment : whose runs are compared.
    experiments : whose published numbers and settings are listed.
    where : parameter -> value or values: which runs count; None: all.

    Raises
    ------
    ConfigError
        If nothing is published for these experiments, or if the runs that fit a number differ in
        more than the seed.
    """
    published = published_numbers()
    wanted = published[published["experiment"].isin(experiments)]
    names = settings.names_of(experiments)
    if wanted.empty and not names:
        raise ConfigError(
            f"{OPTION}.experiments: nothing is published for {list(experiments)}; there is for "
            f"{sorted({*published['experiment'], *settings.published_settings()})}"
        )
    frame = _runs(experiment, where)
    changed: list[str] = []
    if len(names) == 1 and not frame.empty:  # of several, nothing tells which one a run is of
        folders = map(Path, frame[tables.FOLDER].unique())
        configs = [OmegaConf.create(read_config(folder).values) for folder in folders]
        changed = settings.changes(names[0], configs)
    if not wanted.empty:
        _compare_numbers(experiment, wanted, frame, len(changed))
    for name in names:
        print(f"\n{settings.describe(name)}")
    if changed:
        print(f"These runs have {len(changed)} other settings than {names[0]}:", *changed, sep="\n")


def _runs(experiment: Experiment, where: Mapping[str, object] | None) -> pd.DataFrame:
    """The runs of an experiment; an empty table if there are none."""
    try:
        return experiment.merged(where, OPTION)
    except tables.NoRunsError:
        return pd.DataFrame()


def _compare_numbers(
    experiment: Experiment, wanted: pd.DataFrame, frame: pd.DataFrame, n_changed: int
) -> None:
    """The table of published numbers and ours."""
    if frame.empty and (experiment.folder / f"{TABLE}.csv").exists():
        print(f"\n{experiment.folder.name}: no finished runs here; {TABLE} stays as it is")
        return
    if not frame.empty and all(_matching(frame, row).empty for row in wanted.to_dict("records")):
        what = _not_run(frame, wanted)
        print(f"\n{experiment.folder.name}: no run has the published settings{what}")
        experiment.remove_table(TABLE)
        return
    rows = [_compared(experiment, frame, row) for row in wanted.to_dict("records")]
    table = pd.DataFrame(rows)
    n_within = (table["verdict"] == WITHIN).sum()
    n_run = (table["verdict"] != NOT_RUN).sum()
    caption = f"{n_within} of {n_run} numbers within the tolerance, {len(table) - n_run} not run"
    if n_run and n_changed:
        caption += f"; {experiment.name} has {n_changed} other settings than the published runs"
    experiment.save_table(table, TABLE, caption=caption, shown=_readable(table))


@functools.cache
def published_numbers() -> pd.DataFrame:
    """All published numbers; columns `COLUMNS`, text but for value and tolerance."""
    types = dict.fromkeys(COLUMNS, str) | {"value": float, "tolerance": float}
    files = [pd.read_csv(file, dtype=types) for file in sorted(PUBLISHED.glob("*.csv"))]
    return pd.concat(files, ignore_index=True)[list(COLUMNS)]


def _compared(experiment: Experiment, frame: pd.DataFrame, published: Mapping) -> dict:
    """A published number, and ours."""
    value = published["value"]
    about = {key: published[key] for key in ("experiment", "data", "method", "beta", "metric")}
    ours = _ours(experiment, frame, published)
    difference = ours["ours"] - value
    is_within = abs(difference) <= published["tolerance"]
    verdict = WITHIN if is_within else OUTSIDE
    return (
        about
        | {"published": value}
        | ours
        | {
            "difference": difference,
            "tolerance": published["tolerance"],
            "verdict": NOT_RUN if pd.isna(ours["ours"]) else verdict,
            "source": published["source"],
        }
    )


def _ours(experiment: Experiment, frame: pd.DataFrame, published: Mapping) -> dict:
    """Mean, standard error, and numbers of seeds of the runs that fit."""
    metric = published["metric"]
    found = _matching(frame, published)
    if metric not in found or found.empty:
        return {"ours": float("nan"), "sem": float("nan")} | dict.fromkeys(tables.COUNTS, 0)
    kind = " ".join(str(published[key]) for key in ("data", "method", "beta", "metric"))
    check_alike(found, OPTION, f"the runs of {kind}")
    (row,) = experiment.summary(found).to_dict("records")
    return {"ours": row[f"{metric}_mean"], "sem": row[f"{metric}_sem"]} | {
        key: row[key] for key in tables.COUNTS
    }


def _matching(
    frame: pd.DataFrame, published: Mapping, settings: Sequence[str] = SETTINGS
) -> pd.DataFrame:
    """The runs that a published number is about, by these of its settings."""
    columns = dict(zip(SETTINGS, ("datapred", "dist", "beta"), strict=True))
    if "datapred" not in frame:
        columns["data"] = "datafeat"
    wanted = {columns[key]: published[key] for key in settings if not pd.isna(published[key])}
    try:
        return frame if frame.empty else restrict(frame, wanted, OPTION)
    except tables.NoRunsError:
        return frame.iloc[:0]


def _not_run(frame: pd.DataFrame, published: pd.DataFrame) -> str:
    """The published settings that no run has, in words: " (beta 0.07)"."""
    rows = published.to_dict("records")
    missing = [key for key in SETTINGS if all(_matching(frame, row, [key]).empty for row in rows)]
    found = (f"{key} {' or '.join(published[key].dropna().unique())}" for key in missing)
    return f" ({'; '.join(found)})" if missing else ""


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table for people: without what is the same everywhere, numbers in four digits."""
    shown = table[["data", "method", "beta", "metric", "published"]].copy()
    shown = shown.astype(object).where(shown.notna(), MISSING)
    shown["published"] = table["published"].map("{:.4g}".format)
    shown["ours"] = [number(*row) for row in table[["ours", "sem"]].itertuples(index=False)]
    shown["seeds"] = [
        tables.n_in_words(*row) for row in table[list(tables.COUNTS)].itertuples(index=False)
    ]
    shown["difference"] = [number(d, form="+.3g") for d in table["difference"]]
    shown["tolerance"] = table["tolerance"].map("±{:.3g}".format)
    return shown.assign(verdict=table["verdict"], source=table["source"])
