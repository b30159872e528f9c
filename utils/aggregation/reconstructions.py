"""Mode `compare_reconstructions`: figure 1 of the paper."""

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.figure import Figure
from pandas import DataFrame, Series

from lossyless.compressors import LearnableCompressor
from utils.aggregation import tables
from utils.aggregation.experiment import Experiment, Where
from utils.aggregation.selection import check_alike, restrict
from utils.configs.checks import ConfigError
from utils.data.module import DataModule
from utils.plots.images import augmented_images, check_images, reconstruct
from utils.plots.models import method_name
from utils.plots.mosaic import mosaic
from utils.runs.saved_runs import config_here
from utils.training import building

STAGE_OF = {"feat": "featurizer", "comm": "communication"}


def compare_reconstructions(
    experiment: Experiment,
    paths: Mapping[str, str],
    accelerator: str,
    bits: str,
    standard: Where,
    invariant: Where,
    n_images: int = 10,
    image: int = 0,
) -> None:
    """Draw `figures/rec_imgs_allin1_{single,multi}_row`: reconstructions of the same test images.

    The images come from the data set of the invariant compressor. Each method is represented by the
    compressor with the smallest seed. If a method has no finished run, or several runs that differ
    in more than the seed, a message is printed instead.

    Raises ConfigError if an option is invalid or the compressors take images of different kinds or
    shapes, and ValueError or FileNotFoundError if a compressor has no decoder, there is no such
    test image, or a checkpoint is missing.
    """
    runs = _runs_with(bits, experiment)
    methods = {"standard": standard, "invariant": invariant}
    try:
        chosen = {name: _pick(experiment, runs, method, name) for name, method in methods.items()}
    except tables.NoRunsError as error:
        print(f"left out: {error}", file=sys.stderr)
        return
    configs = {
        name: config_here(Path(run[tables.FOLDER]), paths, accelerator)
        for name, run in chosen.items()
    }
    shown = {name: (c.data_feat.kind, list(c.data_feat.shape)) for name, c in configs.items()}
    if shown["standard"] != shown["invariant"]:
        raise ConfigError(
            f"{experiment.option}: the compressors take images of different kinds or shapes, "
            f"{shown}: select matching runs with {experiment.option}.where, e.g. by datafeat"
        )
    compressors = {name: building.load_compressor(c) for name, c in configs.items()}
    data = building.build_data(configs["invariant"], "data_feat", "representative")
    titles, labels = {}, {}
    for name, compressor in compressors.items():
        check_images(compressor, data)
        method, cost = method_name(compressor.distortion), _format_bits(chosen[name][bits])
        titles[f"{name} ({method})\n{cost}"] = compressor
        labels[f"{method}: {cost}"] = compressor
    single, multi = single_row(titles, data, image), multi_row(labels, data, n_images)
    experiment.save_figure(single, "figures/rec_imgs_allin1_single_row")
    experiment.save_figure(multi, "figures/rec_imgs_allin1_multi_row")


def single_row(
    compressors: Mapping[str, LearnableCompressor], data: DataModule, image: int = 0
) -> Figure:
    """Draw an augmented test image and its reconstruction by each compressor, with titles."""
    x = augmented_images(next(iter(compressors.values())), data, image + 1).x
    if not 0 <= image < len(x):
        n_images = data.n_examples("test")
        raise ValueError(f"there is no test image {image}: the test set has {n_images} images")
    x = x[image:]
    images = [x, *(reconstruct(compressor, x) for compressor in compressors.values())]
    return mosaic(torch.stack(images, 1), column_labels=["augmented", *compressors])


def multi_row(
    compressors: Mapping[str, LearnableCompressor], data: DataModule, n_images: int = 10
) -> Figure:
    """Draw a column per test image: source, augmented, and reconstructed by each compressor."""
    batch = augmented_images(next(iter(compressors.values())), data, n_images)
    rows = {"source": batch.aux, "augmented": batch.x}
    rows |= {label: reconstruct(c, batch.x) for label, c in compressors.items()}
    return mosaic(torch.stack(list(rows.values())), row_labels=list(rows))


def _runs_with(metric: str, experiment: Experiment) -> DataFrame:
    """The finished runs that have a compressor's metric, from the stage that measures it."""
    parts = metric.split("/")
    if len(parts) != 3 or parts[1] not in STAGE_OF:
        raise ConfigError(
            f"{experiment.option}.bits: expected a metric named <split>/feat/<name> or "
            f"<split>/comm/<name>, found '{metric}'"
        )
    stage = STAGE_OF[parts[1]]
    runs = experiment.finished(stage, {})
    if metric not in runs:
        raise ConfigError(
            f"{experiment.option}.bits: no {stage} run has {metric}; the metrics are "
            f"{tables.metrics_of(runs)}. Without communication, use test/feat/rate"
        )
    return runs.dropna(subset=[metric])


def _pick(experiment: Experiment, runs: DataFrame, method: Where, name: str) -> Series:
    """Pick the method's run with the smallest seed.

    Raises NoRunsError if no run matches, or if the matches differ in more than the seed.
    """
    option = experiment.option
    try:
        found = restrict(runs, {**method, **experiment.mode_where, **method}, option)
    except tables.NoRunsError as error:
        raise tables.NoRunsError(
            f"rec_imgs_allin1_*.png: the {name} compressor is missing. {error}. Run the "
            f"experiment with distortion={method.get('dist', '...')}, or select {name} runs with "
            f"{option}.{name} and .where"
        ) from error
    try:
        check_alike(found, option, f"there are several {name} compressors, which")
    except ConfigError as error:
        raise tables.NoRunsError(f"rec_imgs_allin1_*.png: {error}") from error
    return found.loc[found[tables.SEED].astype(int).idxmin()]


def _format_bits(bits: float) -> str:
    """Format a number of bits, e.g. "2.3 bits" or "1,342 bits"."""
    return f"{bits:,.0f} bits" if bits >= 1000 else f"{bits:.1f} bits"
