"""Mode `compare_to_paper`: published results next to ours."""

import functools
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path

import pandas as pd
from omegaconf import OmegaConf

from utils.aggregation import paper_settings as settings
from utils.aggregation import tables
from utils.aggregation.experiment import MISSING, Experiment, number
from utils.aggregation.selection import check_alike, restrict
from utils.configs.checks import ConfigError
from utils.runs.saved_runs import read_config

PUBLISHED = Path(__file__).parent / "published"
COLUMNS = ("experiment", "data", "method", "beta", "metric", "value", "tolerance", "source")
TABLE = "paper_comparison"
SETTINGS = ("data", "method", "beta")  # these match runs to a published number
NOT_RUN, WITHIN, OUTSIDE = "not run", "within", "outside"


def compare_to_paper(experiment: Experiment, experiments: Sequence[str]) -> None:
    """Write `paper_comparison`: published numbers of `experiments`, ours, and verdicts.

    The published numbers are in `published/*.csv`; `published/README.md` explains their columns.
    Ours are means over seeds. Verdicts: `within` the tolerance, `outside`, `not run`. All settings
    that differ from the official scripts are printed.

    Raises ConfigError if nothing is published for these experiments, or if the runs that match a
    number differ in more than the seed.
    """
    published = published_numbers()
    wanted = published[published["experiment"].isin(experiments)]
    names = settings.names_of(experiments)
    if wanted.empty and not names:
        raise ConfigError(
            f"{experiment.option}.experiments: nothing is published for {list(experiments)}; "
            f"choose from {sorted(published_experiments())}"
        )
    frame = experiment.merged_or_empty()
    changed: list[str] = []
    if len(names) == 1 and not frame.empty:  # with several, it is unclear which one applies
        folders = map(Path, frame[tables.FOLDER].unique())
        configs = [OmegaConf.create(read_config(folder).values) for folder in folders]
        changed = settings.changes(names[0], configs)
    if not wanted.empty:
        _compare_numbers(experiment, wanted.to_dict("records"), frame, len(changed))
    for name in names:
        print(f"\n{settings.describe(name)}")
    if changed:
        print(f"Settings of these runs that differ from {names[0]}:", *changed, sep="\n")


def published_experiments() -> set[str]:
    """Experiments for which numbers or settings are published."""
    return {*published_numbers()["experiment"], *settings.published_settings()}


def _compare_numbers(
    experiment: Experiment, wanted: list[dict], frame: pd.DataFrame, n_changed: int
) -> None:
    """Save the table of published numbers and ours."""
    if frame.empty and (experiment.folder / f"{TABLE}.csv").exists():
        print(f"\n{experiment.folder.name}: no finished runs; {TABLE} is left unchanged")
        return
    table = pd.DataFrame(_compared(experiment, frame, row) for row in wanted)
    n_within = (table["verdict"] == WITHIN).sum()
    n_run = (table["verdict"] != NOT_RUN).sum()
    caption = f"{n_within} of {n_run} numbers within the tolerance, {len(table) - n_run} not run"
    if n_run and n_changed:
        name = experiment.name
        caption += f"; settings of {name} that differ from the full-size experiment: {n_changed}"
    experiment.save_table(table, TABLE, caption=caption, shown=_readable(table))


@functools.cache
def published_numbers() -> pd.DataFrame:
    """All published numbers; all `COLUMNS` hold text, except for value and tolerance."""
    types = dict.fromkeys(COLUMNS, str) | {"value": float, "tolerance": float}
    files = [pd.read_csv(file, dtype=types) for file in sorted(PUBLISHED.glob("*.csv"))]
    return pd.concat(files, ignore_index=True)[list(COLUMNS)]


def _compared(experiment: Experiment, frame: pd.DataFrame, published: Mapping) -> dict:
    """A row of the table, for one published number."""
    metric, found = published["metric"], _matching(frame, published)
    ours, sem, counts = nan, nan, dict.fromkeys(tables.COUNTS, 0)
    if metric in found and len(found):
        kind = " ".join(str(published[key]) for key in ("data", "method", "beta", "metric"))
        check_alike(found, experiment.option, f"the runs for {kind}")
        (row,) = experiment.summary(found).to_dict("records")
        ours, sem = row[f"{metric}_mean"], row[f"{metric}_sem"]
        counts = tables.counts_of(row, [metric])
    difference = ours - published["value"]
    verdict = WITHIN if abs(difference) <= published["tolerance"] else OUTSIDE
    return {
        **{key: published[key] for key in ("experiment", "data", "method", "beta", "metric")},
        "published": published["value"],
        "ours": ours,
        "sem": sem,
        **counts,
        "difference": difference,
        "tolerance": published["tolerance"],
        "verdict": NOT_RUN if pd.isna(ours) else verdict,
        "source": published["source"],
    }


def _matching(frame: pd.DataFrame, published: Mapping) -> pd.DataFrame:
    """The runs whose settings match those of a published number."""
    columns = dict(zip(SETTINGS, ("datapred", "dist", "beta"), strict=True))
    if "datapred" not in frame:
        columns["data"] = "datafeat"
    wanted = {column: published[key] for key, column in columns.items()}
    wanted = {column: value for column, value in wanted.items() if not pd.isna(value)}
    try:
        return frame if frame.empty else restrict(frame, wanted, "published numbers")
    except tables.NoRunsError:
        return frame.iloc[:0]


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table with fewer columns, and numbers with four significant digits."""
    shown = table[["data", "method", "beta", "metric", "published"]].copy()
    shown = shown.astype(object).where(shown.notna(), MISSING)
    shown["published"] = table["published"].map("{:.4g}".format)
    shown["ours"] = [number(*row) for row in table[["ours", "sem"]].itertuples(index=False)]
    shown["seeds"] = [
        tables.format_counts(*row) for row in table[list(tables.COUNTS)].itertuples(index=False)
    ]
    shown["difference"] = [number(d, form="+.3g") for d in table["difference"]]
    shown["tolerance"] = table["tolerance"].map("±{:.3g}".format)
    return shown.assign(verdict=table["verdict"], source=table["source"])
