"""The modes of `aggregate.py`: each draws one kind of table or figure from an experiment's runs.

A mode is a function (experiment, **options); its options stand in conf/aggregate.yaml under its
name. To add one: write the function and enter it in `MODES`.
"""

from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

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
from utils.configs.composing import ConfigError

MODES: dict[str, Callable[..., None]] = {
    "summarize_metrics": summarize_metrics,
    "summarize_RD_curves": summarize_RD_curves,
    "plot_all_RD_curves": plot_all_RD_curves,
    "plot_invariance_RD_curve": plot_invariance_RD_curve,
    "plot_pareto_front": plot_pareto_front,
    "plot_scatter_lines": plot_scatter_lines,
    "plot_superpose": plot_superpose,
    "plot_optuna_hypopt": plot_optuna_hypopt,
    "compare_to_paper": compare_to_paper,
    "summarize_bit_ratios": summarize_bit_ratios,
    "summarize_clip": summarize_clip,
    "compare_reconstructions": compare_reconstructions,
    "gather_figures": gather_figures,
    "kaggle_submission": kaggle_submission,
}
SHARED = ("where", "names", "seeds", "dpi", "prefix")  # options of all modes


def run_modes(cfg: DictConfig, folder: Path) -> None:
    """Run the modes of `cfg.modes`, in this order, with their options.

    Raises
    ------
    ConfigError
        If there is no such mode, before any is run; or if an option is wrong.
    """
    if unknown := [mode for mode in cfg.modes if mode not in MODES]:
        raise ConfigError(f"aggregate.modes: there is no '{unknown[0]}'; there are {list(MODES)}")
    experiment = Experiment(folder, **_shared(cfg))
    for mode in cfg.modes:
        MODES[mode](experiment, **OmegaConf.to_container(cfg[mode], resolve=True))


def _shared(cfg: DictConfig) -> dict[str, object]:
    """The options of all modes that are set."""
    nodes = {key: cfg[key] for key in SHARED}
    shared = {
        key: OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        for key, node in nodes.items()
    }
    if not isinstance(shared["seeds"], list):  # a search draws them
        shared["seeds"] = None
    return {key: value for key, value in shared.items() if value is not None}
