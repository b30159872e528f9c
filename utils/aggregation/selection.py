"""Which rows of a table an option means, and what tells rows apart."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pandas import DataFrame

from utils.aggregation import tables
from utils.configs.composing import ConfigError
from utils.runs.saved_runs import read_config

# What moves a compressor along its rate-distortion curve: the weight of the rate, the quality of a
# classical codec, how many principal components are kept. Names as in the tables; the long ones
# appear where the short one is rounded.
ALONG_CURVE = (
    "beta",
    "featurizer.loss.beta",
    "featurizer.kwargs.beta",
    "featurizer.kwargs.quality",
    "featurizer.kwargs.n_components",
)


EXACT_BETA = "featurizer.loss.beta"  # of a run, whose "beta" in tables has two digits


def as_list(value: str | Sequence[str]) -> list[str]:
    """One name or several, as a list."""
    return [value] if isinstance(value, str) else list(value)


def with_settings(frame: DataFrame, names: Iterable[str]) -> DataFrame:
    """The table with further columns for settings that it does not show, such as
    `data_pred.kwargs.p_augment`: those of the runs' saved configs.

    A table shows settings only where its rows could be confused without them. Names of no setting
    are left out, as are those that are columns already.

    Parameters
    ----------
    frame : one row per run.
    names : of settings, as on the command line.
    """
    missing = [name for name in dict.fromkeys(names) if name not in frame]
    if not missing:
        return frame
    configs = [read_config(Path(folder)) for folder in frame[tables.FOLDER]]
    columns = {name: [config.value(name) for config in configs] for name in missing}
    found = {name: values for name, values in columns.items() if any(v is not None for v in values)}
    return frame.assign(**{name: list(map(str, values)) for name, values in found.items()})


def restrict(frame: DataFrame, where: Mapping[str, object], option: str) -> DataFrame:
    """The rows whose parameters have the given values.

    Parameters
    ----------
    frame : a table of `utils.aggregation.tables`, one row per run.
    where : parameter (of the table, or a setting) -> value, or list of values. Numbers are compared
        as such, 0.1 is "1.0e-01"; beta to the last digit.
    option : name of the setting that holds `where`, for errors.

    Raises
    ------
    ConfigError
        If there is no such parameter.
    NoRunsError
        If there is no such row.
    """
    frame = with_settings(frame, where)
    known = tables.parameters(frame)
    for key, wanted in where.items():
        if key not in known:
            raise ConfigError(f"{option}: there is no parameter '{key}'; there are {known}")
        values = wanted if isinstance(wanted, (list, tuple)) else [wanted]
        rows = frame[[any(_is_same(found, value) for value in values) for found in frame[key]]]
        if key == "beta" and tables.FOLDER in rows:  # two digits of it
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
    """The parameters in which rows differ beyond their seeds, with their values."""
    names = [name for name in tables.parameters(frame) if name != tables.SEED]
    return {name: list(frame[name].unique()) for name in names if frame[name].nunique() > 1}


def check_alike(frame: DataFrame, option: str, rows: str, *, but: Iterable[str] = ()) -> None:
    """Raise a `ConfigError` that names the parameters in which rows differ beyond their seeds.

    Averages are over seeds and nothing else: whoever wants another one has to choose.

    Parameters
    ----------
    frame : rows that are about to be averaged, or shown as one.
    option : that asked for it.
    rows : what they are, for the message.
    but : parameters in which they may differ.
    """
    found = {name: v for name, v in differences(frame).items() if name not in (*but,)}
    if not found:
        return
    key, values = next(iter(found.items()))
    listed = "; ".join(f"{name}: {', '.join(map(str, found[name]))}" for name in found)
    raise ConfigError(
        f"{option}: {rows} differ in more than the seed, in {listed}. Only seeds are averaged: "
        f"choose one value of each, as in {option}.where='{{{key}: {values[0]}}}'"
    )


def check_metrics(frame: DataFrame, metrics: Iterable[str], option: str) -> None:
    """Raise a `ConfigError` that names the metrics there are if one of these is not."""
    if unknown := [metric for metric in metrics if metric not in frame]:
        raise ConfigError(
            f"{option}: unknown metrics {unknown}; there are {tables.metrics_of(frame)}"
        )


def curve_keys(frame: DataFrame) -> list[str]:
    """The parameters that tell rate-distortion curves apart: neither seeds nor positions on one."""
    return [name for name in differences(frame) if name not in ALONG_CURVE]


def _is_same(found: object, wanted: object) -> bool:
    try:
        return float(found) == float(wanted)
    except (TypeError, ValueError):  # names
        return str(found) == str(wanted)
