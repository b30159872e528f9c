"""Bits at equal accuracy, as tables and a figure."""

from pathlib import Path

import numpy as np
import pandas as pd

from utils.aggregation.bit_ratios import bits_at, falling
from utils.aggregation.experiment import to_markdown
from utils.plots import axes, style

# Losses in accuracy, relative to uncompressed features, at which bits are compared.
LOSSES = np.linspace(0.08, 0.003, 30)
SHOWN_LOSSES = (0.08, 0.04, 0.02, 0.01, 0.003)
RAW = "float32"
REFERENCES = ("KLT d585e91", "paper")
SET, CURVE = ["network", "data"], ["fitted_on", "method"]
DRAWN = ("paper", "KLT d585e91", "KLT", "KLT, no clusters", "OPQ", "RQ")


def report(folder: Path) -> None:
    """Print and write summaries of all result tables in `folder`."""
    paths = [path for path in sorted(folder.glob("*.csv")) if not path.stem.startswith("bits_")]
    if not paths:
        return
    rows = pd.concat([pd.read_csv(path, keep_default_na=False) for path in paths])
    rows = rows.drop_duplicates([*SET, *CURVE, "parameters", "split"], keep="last")
    for name, table in {
        "bits_at_accuracy": bits_at_accuracy(rows),
        **{f"bits_ratio_{name.split()[-1]}": ratios(rows, name) for name in REFERENCES},
    }.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.4g")
        shown = table.round(2).astype(object).where(table.notna(), "-")
        print(f"\n{name}\n\n{to_markdown(shown)}")
    if rows["method"].isin(DRAWN).any():
        draw(rows, folder / "rate_accuracy.png")


def log_bits(curve: pd.DataFrame, accuracies: np.ndarray) -> np.ndarray:
    """Log of a method's coded bits on a split at these accuracies, interpolated linearly.

    It is NaN at accuracies outside the method's range.
    """
    front = falling(curve["bits_test"].to_numpy(), 1 - curve["accuracy"].to_numpy())
    costs, errors = 1 - accuracies, front[1]
    is_known = (errors[-1] <= costs) & (costs <= errors[0])
    return np.where(is_known, np.log(bits_at(front, costs)), np.nan)


def _curves(rows: pd.DataFrame, losses: np.ndarray) -> dict[tuple, np.ndarray]:
    """`log_bits` of each (network, data, fitted_on, method, split) at these losses in accuracy."""
    raw = rows[rows["method"] == RAW].groupby([*SET, "split"])["accuracy"].mean()
    return {
        key: log_bits(curve, raw[(*key[:2], key[-1])] - losses)
        for key, curve in rows.groupby([*SET, *CURVE, "split"], sort=False)
        if (*key[:2], key[-1]) in raw.index
    }


def bits_at_accuracy(rows: pd.DataFrame) -> pd.DataFrame:
    """Coded bits, averaged over splits, at accuracies SHOWN_LOSSES below that of float32."""
    columns = [f"-{100 * loss:g}" for loss in SHOWN_LOSSES]
    table = [
        dict(zip([*SET, *CURVE, "split"], key, strict=True))
        | dict(zip(columns, np.exp(bits), strict=True))
        for key, bits in _curves(rows, np.array(SHOWN_LOSSES)).items()
    ]
    groups = pd.DataFrame(table).groupby([*SET, *CURVE], sort=False)[columns]
    # no mean at an accuracy that some split does not reach
    return groups.agg(lambda bits: bits.mean(skipna=False)).dropna(how="all").reset_index()


def ratios(rows: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Bits of the reference divided by those of each method, at equal accuracy.

    Ratios are geometric means over the LOSSES that both methods reach (a fraction `reached` of all
    LOSSES), then over splits. The lowest and highest ratios of single splits are also listed.
    `smallest` is the lowest mean over splits at any loss that all splits reach.
    """
    curves, table = _curves(rows, LOSSES), []
    for key, bits in curves.items():
        other = curves.get((*key[:3], reference, key[-1]))
        if other is not None and key[3] != reference and np.isfinite(other - bits).any():
            table.append((*key, other - bits))
    groups = pd.DataFrame(table, columns=[*SET, *CURVE, "split", "logs"]).groupby(
        [*SET, *CURVE], sort=False
    )

    def over_splits(logs: pd.Series) -> dict[str, float]:
        logs = np.stack(list(logs))  # [n_splits, n_losses]
        ratios = np.exp(np.nanmean(logs, axis=1))
        return {
            "ratio": np.exp(np.log(ratios).mean()),
            "lowest_split": ratios.min(),
            "highest_split": ratios.max(),
            "smallest": np.exp(pd.Series(logs.mean(0)).min()),
            "reached": np.isfinite(logs).mean(),
            "n_splits": len(logs),
        }

    return pd.DataFrame(
        [dict(zip([*SET, *CURVE], key, strict=True)) | over_splits(g["logs"]) for key, g in groups]
    )


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Plot mean accuracies, relative to float32's, against coded bits, with standard errors."""
    own = rows[(rows["fitted_on"] == rows["data"]) & rows["method"].isin(DRAWN)]
    raw = rows[rows["method"] == RAW].set_index([*SET, "split"])["accuracy"].rename("raw")
    own = own.join(raw, on=[*SET, "split"]).dropna(subset="raw")
    own["points"] = 100 * (own["accuracy"] - own["raw"])
    groups = own.groupby([*SET, "method", "parameters"], sort=False)[["bits_test", "points"]]
    means, errors = groups.mean().add_suffix("_mean"), groups.sem().add_suffix("_sem")
    points = means.join(errors[["points_sem"]]).reset_index()
    colours = style.colours_of(DRAWN)
    names = {"bits_test": "coded bits", "points": "accuracy - float32's (%)"}
    with style.defaults():
        figure, grid = axes.panels(
            points, "bits_test", "points", names, row="network", col="data", is_log_x=True
        )
        for panel, part in grid:
            for method, curve in part.groupby("method", sort=False):
                axes.draw_curve(panel, curve, "bits_test", "points", colours[method])
            panel.set_ylim(-20, 2)
        axes.add_legend(grid[0][0], colours)
        figure.savefig(path)
