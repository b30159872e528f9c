"""The table of the CLIP compressor: a row for each data set, published numbers beside ours."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from utils import tables
from utils.aggregation.rows import differences, restrict, with_settings
from utils.config import ConfigError
from utils.runs import write_text

OPTION = "aggregate.summarize_clip"
PUBLISHED = Path(__file__).parent / "published" / "clip.csv"
NOT_RUN, NOT_PUBLISHED = "not run", "-"
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


def summarize_clip(
    folder: Path,
    data: Sequence[str],
    select: str = "val/pred/err",
    where: Mapping[str, object] | None = None,
    file: str = "clip_table",
) -> None:
    """Write rate and accuracy on each data set, ours and published ones, to `<file>.md`.

    Of several settings of the predictor's training (of a search, say) the one that is best on
    validation data is shown, as the mean over its seeds. What was not run says so.

    The published numbers are those of the official code's README: of a bottleneck with hyperprior,
    beta = 5e-2, trained on COCO; theoretical rates, and linear classifiers.

    Parameters
    ----------
    folder : of the experiment.
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
    best = _best_of_each(_summary(folder, where), select)
    published = pd.read_csv(PUBLISHED, index_col="data")
    rows = []
    for name in data:
        row = {"data": name}
        row |= {title: _ours(best, name, *column) for title, column in COLUMNS.items()}
        row |= {
            "published rate": _published(published, name, "rate", "{:.0f}"),
            "published accuracy": _published(published, name, "accuracy", "{:.1f}"),
        }
        rows.append(row)
    text = tables.to_markdown(pd.DataFrame(rows))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{file}.md", text)
    print(f"\n{text}\nTable: {folder / file}.md")


def _summary(folder: Path, where: Mapping[str, object] | None) -> pd.DataFrame:
    """Means over seeds of the runs that count; empty if there are none."""
    try:
        frame = tables.merge(tables.collect(folder)[0])
        frame = restrict(frame, where or {}, f"{OPTION}.where")
    except tables.NoRunsError:
        return pd.DataFrame()
    if "datapred" in frame:
        for data, runs in with_settings(frame, IDENTITY).groupby("datapred"):
            _check_comparable(data, runs)
    return tables.summarise(frame)


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


def _ours(best: pd.DataFrame, name: str, metric: str, factor: float) -> str:
    if name not in best.index or pd.isna(best.loc[name, f"{metric}_mean"]):
        return NOT_RUN
    mean, sem = (factor * best.loc[name, f"{metric}_{part}"] for part in ("mean", "sem"))
    return f"{mean:.1f}" if pd.isna(sem) else f"{mean:.1f} ± {sem:.1f}"


def _published(published: pd.DataFrame, name: str, column: str, form: str) -> str:
    return form.format(published.loc[name, column]) if name in published.index else NOT_PUBLISHED
