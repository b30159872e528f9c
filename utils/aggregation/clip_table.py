"""The table of the CLIP compressor: a row for each data set, published numbers beside ours."""

from collections.abc import Mapping, Sequence
from math import nan

import pandas as pd

from utils.aggregation import tables
from utils.aggregation.experiment import Experiment
from utils.aggregation.outputs import MISSING, number
from utils.aggregation.paper_comparison import NOT_RUN, published_numbers
from utils.aggregation.selection import differences, with_settings
from utils.configs.composing import ConfigError

OPTION = "aggregate.summarize_clip"
PUBLISHED = "clip_bottleneck_linear_eval"  # whose published numbers are shown
# parameters that tables may leave out where others tell runs apart
IDENTITY = ("predictor.name", "featurizer.loss.beta")
# parameters that a search varies: how a predictor is trained, and its sizes
SEARCHED = ("optpred", "schedpred")
SEARCHED_PARTS = ("optimizer_pred.", "scheduler_pred.", "predictor.kwargs.")
BATCH_SIZE = "data_pred.kwargs.batch_size"
# title -> metric, and by how much it is multiplied: accuracies are in percent
COLUMNS = {
    "rate (bits)": ("test/comm/rate", 1),
    "coded bits": ("test/comm/n_bits", 1),
    "accuracy (%)": ("test/pred/acc", 100),
}
# ... and how it is written
PUBLISHED_COLUMNS = {
    "published rate": ("test/comm/rate", 1, ".0f"),
    "published accuracy": ("test/pred/acc", 100, ".1f"),
}


def summarize_clip(
    experiment: Experiment,
    data: Sequence[str],
    select: str = "val/pred/err",
    where: Mapping[str, object] | None = None,
    file: str = "clip_table",
) -> None:
    """Write rate and accuracy on each data set, ours and published ones, to `<file>`.

    Of several settings of the predictor's training (of a search, say) the one that is best on
    validation data is shown, as the mean over its seeds. What was not run says so.

    The published numbers are those of the official code's README: of a bottleneck with hyperprior,
    beta = 5e-2, trained on COCO; theoretical rates, and linear classifiers.

    Parameters
    ----------
    experiment : whose runs are shown.
    data : names of the data sets, in the order of the rows.
    select : metric on validation data that is small for the best setting.
    where : parameter -> value or values: which runs count; None: all.
    file : name of the table.

    Raises
    ------
    ConfigError
        If the runs on a data set differ in more than the training of their predictor: the best of
        several compressors would be the one with the most bits.
    """
    best = _best_of_each(_summary(experiment, where), select)
    rows, shown = [], []
    for name in data:
        row, cells = {"data": name}, {"data": name}
        for title, (metric, factor) in COLUMNS.items():
            ours = [_ours(best, name, metric, part, factor) for part in ("mean", "sem")]
            row |= {metric: ours[0], f"{metric}_sem": ours[1]}
            cells[title] = NOT_RUN if pd.isna(ours[0]) else number(*ours, form=".1f")
        for title, (metric, factor, form) in PUBLISHED_COLUMNS.items():
            value = _published(name, metric) * factor
            row[title] = value
            cells[title] = MISSING if pd.isna(value) else f"{value:{form}}"
        counts = best.loc[name, list(tables.COUNTS)] if name in best.index else (0, 0, 0)
        row |= dict(zip(tables.COUNTS, map(int, counts), strict=True))
        cells["seeds"] = tables.n_in_words(*map(int, counts))
        rows.append(row)
        shown.append(cells)
    experiment.save_table(pd.DataFrame(rows), file, shown=pd.DataFrame(shown))


def _summary(experiment: Experiment, where: Mapping[str, object] | None) -> pd.DataFrame:
    """Means over seeds of the runs that count; empty if there are none."""
    try:
        frame = experiment.merged(where, OPTION)
    except tables.NoRunsError:
        return pd.DataFrame()
    if "datapred" in frame:
        for data, runs in with_settings(frame, IDENTITY).groupby("datapred"):
            _check_comparable(data, runs)
    return experiment.summary(frame)


def _check_comparable(data: str, runs: pd.DataFrame) -> None:
    """Raise if the runs on a data set differ in more than a search over predictors varies."""
    mixed = {key: values for key, values in differences(runs).items() if not _is_searched(key)}
    if mixed:
        found = "; ".join(f"{key}: {', '.join(map(str, mixed[key]))}" for key in mixed)
        raise ConfigError(
            f"{OPTION}.where: the runs on {data} differ in more than the training of their "
            f"predictor, in {found}; choose one value of each, as in {OPTION}.where="
            f"'{{{', '.join(f'{key}: {values[0]}' for key, values in mixed.items())}}}'"
        )


def _is_searched(key: str) -> bool:
    return key in (*SEARCHED, BATCH_SIZE) or key.startswith(SEARCHED_PARTS)


def _best_of_each(summary: pd.DataFrame, select: str) -> pd.DataFrame:
    """The best setting for each data set, which is the index; empty if none got to predict."""
    if "datapred" not in summary:
        return pd.DataFrame()
    column = f"{select}_mean"
    if column not in summary:
        known = [c.removesuffix("_mean") for c in summary if c.endswith("_mean")]
        raise ConfigError(f"{OPTION}.select: there is no metric {select}; there are {known}")
    ordered = summary.dropna(subset=column).sort_values(column, kind="stable")
    return ordered.drop_duplicates("datapred").set_index("datapred")


def _ours(best: pd.DataFrame, name: str, metric: str, part: str, factor: float) -> float:
    column = f"{metric}_{part}"
    return factor * best.loc[name, column] if name in best.index and column in best else nan


def _published(name: str, metric: str) -> float:
    numbers = published_numbers()
    of_row = numbers["experiment"].eq(PUBLISHED) & numbers["data"].eq(name)
    values = numbers["value"][of_row & numbers["metric"].eq(metric)]
    return values.item() if len(values) else nan
