"""The tables and figures that `aggregate.py` makes from an experiment's runs.

A mode is a function (experiment, **options) that creates and saves one kind of table or figure. Its
options are listed under its name in conf/aggregate.yaml. All but `where`, which is applied to the
experiment, are passed to the function. To add a mode, write the function, and add it to `MODES` and
its options to conf/aggregate.yaml.
"""

from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lossyless.weights import WeightsError
from utils.aggregation.bit_ratios import summarize_bit_ratios
from utils.aggregation.clip_table import summarize_clip
from utils.aggregation.curve_figures import (
    plot_all_RD_curves,
    plot_invariance_RD_curve,
    plot_pareto_front,
)
from utils.aggregation.curve_numbers import summarize_RD_curves
from utils.aggregation.experiment import Experiment
from utils.aggregation.generic_plots import plot_scatter_lines, plot_superpose
from utils.aggregation.kaggle_submission import kaggle_submission
from utils.aggregation.metrics import gather_figures, summarize_metrics
from utils.aggregation.paper_comparison import compare_to_paper
from utils.aggregation.reconstructions import compare_reconstructions
from utils.aggregation.search_figures import plot_optuna_hypopt
from utils.aggregation.tables import NoRunsError
from utils.configs.checks import ConfigError, check_known
from utils.data.module import DataError
from utils.plots import style

MODES: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (
        summarize_metrics,
        summarize_RD_curves,
        plot_all_RD_curves,
        plot_invariance_RD_curve,
        plot_pareto_front,
        plot_scatter_lines,
        plot_superpose,
        plot_optuna_hypopt,
        compare_to_paper,
        summarize_bit_ratios,
        summarize_clip,
        compare_reconstructions,
        gather_figures,
        kaggle_submission,
    )
}
PROBLEMS = (ValueError, FileNotFoundError, DataError, WeightsError)  # data, checkpoints, figures
SHARED = ("where", "names", "seeds", "dpi", "prefix")  # options of all modes; see `Experiment`


def aggregate(cfg: DictConfig, folder: Path) -> None:
    """Run the modes in `cfg.modes`, in order, on the experiment whose results are in `folder`.

    `cfg` holds the options in conf/aggregate.yaml. Raises ConfigError if a mode is unknown (checked
    before any mode runs) or fails, and NoRunsError if there are no finished runs.
    """
    check_known("aggregate.modes", cfg.modes, MODES)
    options = OmegaConf.to_container(cfg, resolve=True)
    shared = {key: options[key] for key in SHARED if options[key] is not None}
    if not isinstance(options["seeds"], list):  # a search samples its seeds
        shared.pop("seeds", None)
    experiment = Experiment(folder, **shared)
    for mode in cfg.modes:
        own = dict(options[mode])
        experiment.option, experiment.mode_where = f"aggregate.{mode}", own.pop("where", None) or {}
        try:
            with style.defaults():
                MODES[mode](experiment, **own)
        except (ConfigError, NoRunsError):
            raise
        except PROBLEMS as error:
            raise ConfigError(f"{experiment.option}: {error}") from error
