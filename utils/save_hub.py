"""Save the bottlenecks that an experiment has trained in the format of the released ones.

    python -m utils.save_hub experiment=clip_hub

Each finished run becomes `pretrained/exp_<experiment>/hub/beta<beta>/factorized_rate.pt`, which the
entries of hubconf.py take as `pretrained_path`.
"""

import io
import sys
from pathlib import Path

import torch
from pandas import Series

from lossyless.hub.bottlenecks import load_bottleneck
from lossyless.rates import HFactorized, Rate
from lossyless.weights import WeightsError
from utils import config, tables, training
from utils.aggregation.saved import config_here, named_errors
from utils.runs import experiment_folder, write_bytes

FILE_NAME = "factorized_rate.pt"  # as released


def main(overrides: list[str]) -> None:
    if not overrides or overrides[0] in ("-h", "--help"):
        print(__doc__)
        return
    try:
        cfg = config.compose_config(overrides)
        name = experiment_folder(cfg)
        runs, _ = tables.collect(Path(cfg.paths.results) / name)
        for _, run in runs["featurizer"].iterrows():
            rate = load_rate(run, dict(cfg.paths))
            path = Path(cfg.paths.pretrained) / name / "hub" / _folder(run) / FILE_NAME
            save_bottleneck(rate, path)
            print(f"Bottleneck: {path}")
    except (config.ConfigError, tables.NoRunsError) as error:
        sys.exit(f"Error: {error}")


def load_rate(run: Series, paths: dict[str, str]) -> Rate:
    """The bottleneck of a finished run (row of a table of `utils.tables`).

    Raises `ConfigError` if its checkpoint is missing.
    """
    with named_errors("save_hub"):
        return training.load_compressor(config_here(run, paths, "cpu")).rate


def save_bottleneck(rate: Rate, path: Path) -> None:
    """Write the weights of a bottleneck, which are then read as the hub reads them.

    Raises
    ------
    ConfigError
        If the hub has no such bottlenecks: they are factorized, without a transform.
    WeightsError
        If the hub refuses the file.
    """
    if not isinstance(rate, HFactorized) or rate.transform is not None:
        raise config.ConfigError(
            "the hub takes factorized bottlenecks without a transform, not this "
            f"{type(rate).__name__}: train with featurizer=bottleneck_clip_lossyZ_factorized "
            "rate.kwargs.transform=none"
        )
    buffer = io.BytesIO()
    torch.save(rate.cpu().state_dict(), buffer)  # with its tables
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())
    if load_bottleneck(path).fingerprint() != rate.fingerprint():
        raise WeightsError(f"{path}: what the hub reads is not what was written: file a bug")


def _folder(run: Series) -> str:
    """ "beta5e-02" as the released ones are called; with the seed if it is not the default."""
    beta = f"beta{float(run['beta']):.0e}"
    return beta if run[tables.SEED] == "123" else f"{beta}_seed{run[tables.SEED]}"


if __name__ == "__main__":
    main(sys.argv[1:])
