"""The modes of `aggregate.py`: each draws one kind of table or figure from an experiment's runs.

A mode is a function (folder of the experiment, **options); its options stand in
conf/aggregate.yaml under its name. To add one: write the function and enter it in `MODES`.
"""

from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from utils.aggregation.bit_ratios import summarize_bit_ratios
from utils.aggregation.clip_table import summarize_clip
from utils.aggregation.curves import plot_all_RD_curves, plot_pareto_front, summarize_RD_curves
from utils.aggregation.reconstructions import compare_reconstructions
from utils.aggregation.submission import kaggle_submission
from utils.aggregation.summaries import gather_figures, summarize_metrics
from utils.config import ConfigError

MODES: dict[str, Callable[..., None]] = {
    "summarize_metrics": summarize_metrics,
    "summarize_RD_curves": summarize_RD_curves,
    "plot_all_RD_curves": plot_all_RD_curves,
    "plot_pareto_front": plot_pareto_front,
    "summarize_bit_ratios": summarize_bit_ratios,
    "summarize_clip": summarize_clip,
    "compare_reconstructions": compare_reconstructions,
    "gather_figures": gather_figures,
    "kaggle_submission": kaggle_submission,
}


def aggregate(cfg: DictConfig, folder: Path) -> None:
    """Run the modes of `cfg.modes`, in this order, with their options."""
    for mode in cfg.modes:
        if mode not in MODES:
            raise ConfigError(f"aggregate.modes: there is no '{mode}'; there are {list(MODES)}")
        MODES[mode](folder, **OmegaConf.to_container(cfg[mode], resolve=True))
