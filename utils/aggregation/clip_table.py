"""Mode `summarize_clip`: rate and accuracy of the CLIP compressor, ours and published ones."""

from collections.abc import Sequence
from math import nan

import pandas as pd

from utils.aggregation import tables
from utils.aggregation.experiment import MISSING, Experiment, Where, number
from utils.aggregation.metrics import metrics_in
from utils.aggregation.paper_comparison import NOT_RUN, published_numbers
from utils.aggregation.selection import check_alike
from utils.aggregation.tables import with_settings
from utils.configs.checks import ConfigError

OPTION = "aggregate.summarize_clip"
PUBLISHED = "clip_bottleneck_linear_eval"  # whose published numbers are shown
# parameters that tables may leave out where others distinguish runs
IDENTITY = ("predictor.name", "featurizer.loss.beta")
# parameters that a search over predictors varies
SEARCHED = ("optpred", "schedpred")
SEARCHED_PARTS = ("optimizer_pred.", "scheduler_pred.", "predictor.kwargs.")
BATCH_SIZE = "data_pred.kwargs.batch_size"
# title -> metric, factor
COLUMNS = {
    "rate (bits)": ("test/comm/rate", 1),
    "coded bits": ("test/comm/n_bits", 1),
    "accuracy (%)": ("test/pred/acc", 100),
}
# title -> metric, factor, format
PUBLISHED_COLUMNS = {
    "published rate": ("test/comm/rate", 1, ".0f"),
    "published accuracy": ("test/pred/acc", 100, ".1f"),
}


def summarize_clip(
    experiment: Experiment,
    data: Sequence[str],
    select: str = "val/pred/err",
    where: Where | None = None,
    file: str = "clip_table",
) -> None:
    """Write `<file>`: a row for each data set, in the order of `data`.

    Of several settings of the predictor's training, e.g. of a search, the best one on validation
    data is shown, averaged over its seeds. The published numbers are those of the official README:
    a bottleneck with hyperprior, beta = 5e-2, trained on COCO; theoretical rates, and linear
    classifiers.

    Raises
    ------
    ConfigError
        If the runs on a data set differ in more than the training of their predictor.
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
        counts = [0, 0, 0]
        if name in best.index:
            counts = list(map(int, best.loc[name, list(tables.COUNTS)]))
        row |= dict(zip(tables.COUNTS, counts, strict=True))
        cells["seeds"] = tables.format_counts(*counts)
        rows.append(row)
        shown.append(cells)
    experiment.save_table(pd.DataFrame(rows), file, shown=pd.DataFrame(shown))


def _summary(experiment: Experiment, where: Where | None) -> pd.DataFrame:
    """The summary of the chosen runs; empty if there are none."""
    try:
        frame = experiment.merged(where, OPTION)
    except tables.NoRunsError:
        return pd.DataFrame()
    # the best of several compressors would be the one with the most bits
    if "datapred" in frame:
        for data, runs in with_settings(frame, IDENTITY).groupby("datapred"):
            kind = "the training of their predictor"
            check_alike(runs, OPTION, f"the runs on {data}", but=_is_searched, but_name=kind)
    return experiment.summary(frame)


def _is_searched(key: str) -> bool:
    return key in (*SEARCHED, BATCH_SIZE) or key.startswith(SEARCHED_PARTS)


def _best_of_each(summary: pd.DataFrame, select: str) -> pd.DataFrame:
    """The best setting for each data set, which is the index; empty without predictors."""
    if "datapred" not in summary:
        return pd.DataFrame()
    column = f"{select}_mean"
    if column not in summary:
        raise ConfigError(
            f"{OPTION}.select: there is no metric {select}; there are {metrics_in(summary)}"
        )
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
