"""Trained compressors side by side: what standard and invariant ones make of the same images."""

import sys
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure
from omegaconf import DictConfig
from pandas import DataFrame, Series

from utils.aggregation import tables
from utils.aggregation.experiment import Experiment
from utils.aggregation.saved import named_errors
from utils.aggregation.selection import differences, restrict
from utils.configs.composing import ConfigError
from utils.plots.comparison import multi_row_plot, single_row_plot
from utils.plots.style import method_name
from utils.runs.saved_runs import config_here
from utils.training import building

OPTION = "aggregate.compare_reconstructions"
STAGE_OF = {"feat": "featurizer", "comm": "communication"}


class AmbiguousRunsError(ValueError):
    """Several runs fit, and they differ in more than the seed."""


def compare_reconstructions(
    experiment: Experiment,
    paths: Mapping[str, str],
    accelerator: str,
    bits: str,
    standard: Mapping[str, object],
    invariant: Mapping[str, object],
    where: Mapping[str, object] | None = None,
    n_images: int = 10,
    image: int = 0,
) -> None:
    """Draw what a standard and an invariant compressor make of the same augmented test images.

    Writes figure 1 of the paper to `<experiment>/figures/`: `rec_imgs_allin1_single_row`, one
    image, and `rec_imgs_allin1_multi_row`, a column for each of several images. Images come
    from the data that the invariant compressor was trained on. Bits are those of the tables, of
    the run that is drawn. Of several seeds, the smallest is taken. If a method has no finished
    run, or several, there are no figures, and the terminal says which one and what to do.

    Parameters
    ----------
    experiment : whose runs are drawn.
    paths : where results, checkpoints and data are now, as in conf/main.yaml.
    accelerator : where to compute, as `trainer.accelerator`.
    bits : metric that labels state, e.g. test/comm/n_bits (coded) or test/feat/rate (theoretical).
    standard, invariant : parameter -> value: which runs are of either kind.
    where : parameter -> value: which runs, for both kinds, unless they say otherwise; needed if
        there are several.
    n_images : of the figure with several rows.
    image : which test image the figure with a single row shows.

    Raises
    ------
    ConfigError
        If an option is wrong, a checkpoint is lost, or a compressor has no decoder.
    """
    runs = _runs_with(bits, experiment)
    try:
        chosen = {
            "standard": _pick(runs, where or {}, standard, "standard"),
            "invariant": _pick(runs, where or {}, invariant, "invariant"),
        }
    except (tables.NoRunsError, AmbiguousRunsError) as error:
        print(f"left out: {error}", file=sys.stderr)  # the tables are worth having all the same
        return
    configs = {
        name: config_here(Path(run[tables.FOLDER]), paths, accelerator)
        for name, run in chosen.items()
    }
    costs = {name: _in_bits(run[bits]) for name, run in chosen.items()}
    for name, figure in _draw(configs, costs, n_images=n_images, image=image).items():
        experiment.save_figure(figure, f"figures/rec_imgs_allin1_{name}")


def _draw(
    configs: Mapping[str, DictConfig], costs: Mapping[str, str], *, n_images: int, image: int
) -> dict[str, Figure]:
    """Both figures of the compressors "standard" and "invariant", labelled with their costs."""
    _check_same_images(configs)
    with named_errors(OPTION):
        compressors = {name: building.load_compressor(c) for name, c in configs.items()}
        data = building.build_data(configs["invariant"], "data_feat", "representative")
    methods = {name: method_name(c.distortion) for name, c in compressors.items()}
    titles = {f"{n} ({methods[n]})\n{costs[n]}": c for n, c in compressors.items()}
    labels = {f"{methods[n]}: {costs[n]}": c for n, c in compressors.items()}
    try:
        return {
            "single_row": single_row_plot(titles, data, index=image),
            "multi_row": multi_row_plot(labels, data, n_images=n_images),
        }
    except ValueError as error:
        raise ConfigError(f"{OPTION}: {error}") from error


def _runs_with(metric: str, experiment: Experiment) -> DataFrame:
    """The finished runs that have a metric of the compressor, one in each row."""
    parts = metric.split("/")
    if len(parts) != 3 or parts[1] not in STAGE_OF:
        raise ConfigError(
            f"{OPTION}.bits: expected a metric <split>/feat/<name> or <split>/comm/<name>, found "
            f"'{metric}'"
        )
    stage = STAGE_OF[parts[1]]
    runs = experiment.finished(stage, None, OPTION)
    if metric not in runs:
        there_are = (
            f"there are {tables.metrics_of(runs)}" if len(runs) else "there are no such runs"
        )
        raise ConfigError(
            f"{OPTION}.bits: no run of the {stage} has {metric}; {there_are}. Without the "
            f"communication, take test/feat/rate"
        )
    return runs.dropna(subset=[metric])


def _pick(
    runs: DataFrame, where: Mapping[str, object], method: Mapping[str, object], name: str
) -> Series:
    """The run of a method that is meant; of several seeds, the smallest."""
    try:
        found = restrict(runs, {**method, **where, **method}, OPTION)
    except tables.NoRunsError as error:
        raise tables.NoRunsError(
            f"rec_imgs_allin1_*.png, for the {name} compressor is missing. {error}. Run the "
            f"experiment with distortion={method.get('dist', '...')}, or say which runs are {name} "
            f"by {OPTION}.{name} and .where"
        ) from error
    if found[tables.GROUP].nunique() > 1:
        keys = "; ".join(
            f"{key}: {', '.join(map(str, values))}" for key, values in differences(found).items()
        )
        raise AmbiguousRunsError(
            f"rec_imgs_allin1_*.png, for there are several {name} compressors, which differ in "
            f"{keys}. Choose with {OPTION}.where, e.g. {_example(found)}"
        )
    return found.loc[found[tables.SEED].astype(int).idxmin()]


def _example(runs: DataFrame) -> str:
    key, values = next(iter(differences(runs).items()))
    return f"'{OPTION}.where={{{key}:{values[0]}}}'"


def _check_same_images(configs: Mapping[str, DictConfig]) -> None:
    standard, invariant = (configs[name].data_feat for name in ("standard", "invariant"))
    if (standard.shape, standard.kind) != (invariant.shape, invariant.kind):
        raise ConfigError(
            f"{OPTION}: the standard compressor is for data of kind {standard.kind} and shape "
            f"{standard.shape} ({standard.name}), the invariant one for {invariant.kind}, "
            f"{invariant.shape} ({invariant.name}): choose with {OPTION}.where, e.g. by datafeat"
        )


def _in_bits(bits: float) -> str:
    """ "2.3 bits", "144.5 bits", "1,342 bits"."""
    return f"{bits:,.0f} bits" if bits >= 1000 else f"{bits:.1f} bits"
