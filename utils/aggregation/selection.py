"""Choosing rows of tables, and checks of what was chosen."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pandas import DataFrame

from utils.aggregation import tables
from utils.configs.checks import ConfigError
from utils.runs.saved_runs import read_config

EXACT_BETA = "featurizer.loss.beta"  # the column "beta" is rounded to two digits
# Parameters that move a compressor along its rate-distortion curve: the weight of the rate, the
# quality of a classical codec, the number of principal components.
ALONG_CURVE = (
    "beta",
    EXACT_BETA,
    "featurizer.kwargs.beta",
    "featurizer.kwargs.quality",
    "featurizer.kwargs.n_components",
)


def as_list(value: str | Sequence[str] | None) -> list[str]:
    """None, one name or several, as a list."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def restrict(frame: DataFrame, where: Mapping[str, object], option: str) -> DataFrame:
    """The rows whose parameters have the given values.

    Parameters
    ----------
    frame : a table of `utils.aggregation.tables`, one row per run.
    where : parameter or setting -> value, or list of values. Numbers are compared by value: 0.1
        equals "1.0e-01". Beta is compared exactly, not as rounded.
    option : name of the setting that holds `where`, for errors.

    Raises
    ------
    ConfigError
        If there is no such parameter.
    NoRunsError
        If there is no such row.
    """
    frame = tables.with_settings(frame, where)
    known = tables.parameters(frame)
    for key, wanted in where.items():
        if key not in known:
            raise ConfigError(f"{option}: there is no parameter '{key}'; there are {known}")
        values = wanted if isinstance(wanted, (list, tuple)) else [wanted]
        rows = frame[[any(_is_same(found, value) for value in values) for found in frame[key]]]
        if key == "beta" and tables.FOLDER in rows:
            exact = [read_config(Path(folder)).value(EXACT_BETA) for folder in rows[tables.FOLDER]]
            rows = rows[[b is None or any(_is_same(b, value) for value in values) for b in exact]]
        if rows.empty:
            raise tables.NoRunsError(
                f"{option}: no finished run has {key}={wanted}; runs have "
                f"{', '.join(sorted(map(str, frame[key].unique())))}"
            )
        frame = rows
    return frame


def differences(frame: DataFrame) -> dict[str, list]:
    """The parameters other than the seed in which rows differ, with their values."""
    return {name: list(frame[name].unique()) for name in tables.varying(frame)}


def curve_keys(frame: DataFrame) -> list[str]:
    """The parameters that distinguish rate-distortion curves: neither seed nor `ALONG_CURVE`."""
    return [name for name in tables.varying(frame) if name not in ALONG_CURVE]


def format_differences(found: Mapping[str, Sequence]) -> str:
    """ "dist: VIC, VAE; zdim: 1, 2"."""
    return "; ".join(f"{name}: {', '.join(map(str, found[name]))}" for name in found)


def check_alike(frame: DataFrame, option: str, rows: str, *, but: Iterable[str] = ()) -> None:
    """Check that the rows about to be averaged differ only in the seed.

    Parameters
    ----------
    frame : the rows.
    option : the mode that averages them, for the error.
    rows : name of the rows, for the error.
    but : further parameters in which they may differ.

    Raises
    ------
    ConfigError
        If they differ; the error names all parameters in which they do.
    """
    found = {name: v for name, v in differences(frame).items() if name not in (*but,)}
    if found:
        key, values = next(iter(found.items()))
        raise ConfigError(
            f"{option}: {rows} differ in more than the seed, in {format_differences(found)}. Only "
            f"seeds are averaged: choose one value of each, as in "
            f"{option}.where='{{{key}: {values[0]}}}'"
        )


def check_columns(frame: DataFrame, names: Iterable[str], option: str) -> None:
    """Raise `ConfigError` if a table of runs lacks one of these metrics, parameters or settings."""
    if unknown := [name for name in names if name not in frame]:
        raise ConfigError(
            f"{option}: the runs have no {', '.join(unknown)}; there are the metrics "
            f"{tables.metrics_of(frame)}, the parameters {tables.parameters(frame)}, and all "
            "settings, such as optimizer_feat.kwargs.lr"
        )


def _is_same(found: object, wanted: object) -> bool:
    try:
        return float(found) == float(wanted)
    except (TypeError, ValueError):  # names
        return str(found) == str(wanted)
