"""Mode `summarize_clip`: rate and accuracy of the CLIP compressor, ours and published."""

from collections.abc import Sequence
from math import nan

import pandas as pd

from utils.aggregation import tables
from utils.aggregation.experiment import Experiment, number
from utils.aggregation.metrics import metrics_in
from utils.aggregation.paper_comparison import NOT_RUN, published_numbers
from utils.aggregation.selection import check_alike
from utils.configs.checks import check_known

PUBLISHED = "clip_bottleneck_linear_eval"  # experiment whose published numbers are shown
# compared even if the tables omit them because other parameters already distinguish the runs
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
    file: str = "clip_table",
) -> None:
    """Write `<file>`: a table with a row for each data set, in the order of `data`.

    If predictors were trained with several settings, e.g. in a search, the settings that are best
    on validation data are shown, averaged over seeds. The published numbers come from the official
    README: theoretical rates of a bottleneck with a hyperprior, trained on COCO with beta = 5e-2,
    and accuracies of linear classifiers.

    Raises ConfigError if the runs on a data set differ in more than how their predictors were
    trained, because the best of several compressors would be the one that uses the most bits.
    """
    best = _best_of_each(experiment, select)
    numbers = published_numbers()
    numbers = numbers[numbers["experiment"] == PUBLISHED]
    rows, shown = [], []
    for name in data:
        ours = dict(best.loc[name]) if name in best.index else {}
        published = numbers[numbers["data"] == name].set_index("metric")["value"]
        row, cells = {"data": name}, {"data": name}
        for title, (metric, factor) in COLUMNS.items():
            mean, sem = (factor * ours.get(f"{metric}_{part}", nan) for part in ("mean", "sem"))
            row |= {metric: mean, f"{metric}_sem": sem}
            cells[title] = NOT_RUN if pd.isna(mean) else number(mean, sem, form=".1f")
        for title, (metric, factor, form) in PUBLISHED_COLUMNS.items():
            row[title] = published.get(metric, nan) * factor
            cells[title] = number(row[title], form=form)
        counts = dict.fromkeys(tables.COUNTS, 0)
        if ours:
            counts = tables.counts_of(ours, [metric for metric, _ in COLUMNS.values()])
        rows.append(row | counts)
        shown.append(cells | {"seeds": tables.format_counts(*counts.values())})
    experiment.save_table(pd.DataFrame(rows), file, shown=pd.DataFrame(shown))


def _best_of_each(experiment: Experiment, select: str) -> pd.DataFrame:
    """Results of the best settings, indexed by data set; empty if there is no predictor."""
    frame = experiment.merged_or_empty()
    if "datapred" not in frame:
        return pd.DataFrame()
    for name, runs in tables.with_settings(frame, IDENTITY).groupby("datapred"):
        kind = "how their predictor was trained"
        which = f"the runs on {name}"
        check_alike(runs, experiment.option, which, but=_is_searched, but_name=kind)
    summary, column = experiment.summary(frame), f"{select}_mean"
    check_known(f"{experiment.option}.select", [select], metrics_in(summary))
    ordered = summary.dropna(subset=column).sort_values(column, kind="stable")
    return ordered.drop_duplicates("datapred").set_index("datapred")


def _is_searched(key: str) -> bool:
    return key in (*SEARCHED, BATCH_SIZE) or key.startswith(SEARCHED_PARTS)
