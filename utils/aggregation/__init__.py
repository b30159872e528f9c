"""From an experiment's runs to tables and figures; what `aggregate.py` calls.

Each mode, in `utils.aggregation.modes`, draws one kind of table or figure.
"""

from pathlib import Path

from omegaconf import DictConfig


def aggregate(cfg: DictConfig, folder: Path) -> None:
    """Run the modes of `cfg.modes`, in this order, with their options; see conf/aggregate.yaml."""
    # here, because modes load trained models, whose modules in turn write by `outputs`
    from utils.aggregation.modes import run_modes

    run_modes(cfg, folder)
