"""Select rows of tables, and check the selection."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pandas import DataFrame

from utils.aggregation import tables
from utils.configs.checks import ConfigError, check_known
from utils.runs.identity import BATCHES, canonical
from utils.runs.saved_runs import read_config

EXACT_BETA = "featurizer.loss.beta"  # the column "beta" is rounded to two digits
# Parameters that move a compressor along its rate-distortion curve: the weight of the rate, the
# quality of a classical codec, the bits per dimension, or the number of principal components.
ALONG_CURVE = (
    "beta",
    EXACT_BETA,
    "featurizer.kwargs.beta",
    "featurizer.kwargs.quality",
    "featurizer.kwargs.n_bits",
    "featurizer.kwargs.n_components",
)


def as_list(value: str | Sequence[str] | None) -> list[str]:
    """Convert None, one name or several names to a list."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def on_validation(metric: str) -> str:
    """The same metric on validation data, e.g. "test/pred/err" -> "val/pred/err"."""
    return f"val/{metric.removeprefix('test/')}" if metric.startswith("test/") else metric


def restrict(frame: DataFrame, where: Mapping[str, object], option: str) -> DataFrame:
    """Select the rows whose parameters have the given values.

    Raises ConfigError if there is no such parameter, and NoRunsError if there is no such row.

    Parameters
    ----------
    frame : a table from `utils.aggregation.tables`, with one row per run.
    where : parameter or setting -> value, or list of values. Numbers are compared by value: 0.1
        equals "1.0e-01". Limits on the number of batches are an exception: 1 means one batch, 1.0
        all batches. The column "beta" is rounded, so the exact beta is compared instead.
    option : name of the setting that holds `where`, for error messages.
    """
    frame = tables.with_settings(frame, where)
    check_known(option, where, tables.parameters(frame))
    for key, wanted in where.items():
        values = wanted if isinstance(wanted, (list, tuple)) else [wanted]
        found = list(frame[key])
        if key == "beta" and tables.FOLDER in frame:
            exact = [read_config(Path(folder)).value(EXACT_BETA) for folder in frame[tables.FOLDER]]
            found = [f if e is None else e for f, e in zip(found, exact, strict=True)]
        rows = frame[[any(_is_same(key, f, value) for value in values) for f in found]]
        if rows.empty:
            raise tables.NoRunsError(
                f"{option}: no finished run has {key}={wanted}; the runs have "
                f"{', '.join(sorted(map(str, frame[key].unique())))}"
            )
        frame = rows
    return frame


def curve_keys(frame: DataFrame) -> list[str]:
    """Parameters that distinguish rate-distortion curves: all but the seed and `ALONG_CURVE`."""
    return [name for name in tables.varying(frame) if name not in ALONG_CURVE]


def check_alike(
    frame: DataFrame,
    option: str,
    rows: str,
    *,
    but: Callable[[str], bool] = lambda _: False,
    but_name: str = "the seed",
) -> None:
    """Raise ConfigError if rows differ in more than the seed and the parameters that `but` accepts.

    The message lists the other parameters and their values. `option` is the mode that averages or
    compares the rows; `rows` and `but_name` describe the rows and the permitted differences.
    """
    found = {name: frame[name].unique() for name in tables.varying(frame) if not but(name)}
    if found:
        different = (f"{name}: {', '.join(map(str, values))}" for name, values in found.items())
        example = ", ".join(f"{name}: {values[0]}" for name, values in found.items())
        raise ConfigError(
            f"{option}.where: {rows} differ in more than {but_name} "
            f"({'; '.join(different)}): choose one value for each, as in "
            f"{option}.where='{{{example}}}'"
        )


def _is_same(key: str, found: object, wanted: object) -> bool:
    """Whether two values of a setting mean the same thing."""
    path = tuple(key.split("."))
    with contextlib.suppress(TypeError, ValueError):  # names
        if path[-1] not in BATCHES:
            return float(found) == float(wanted)
    return str(canonical(found, path)) == str(canonical(wanted, path))
