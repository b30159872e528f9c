"""Turn the runs of an experiment into tables and figures.

    python aggregate.py experiment=banana_viz_VIC mode=quick

The `aggregate` section of the experiment file selects tables and figures; conf/aggregate.yaml
explains the options. Results are also uploaded to W&B, unless `logger` is `csv` or `none`.
"""

import sys
from pathlib import Path

from lossyless.printing import forgive_output
from utils.aggregation import aggregate
from utils.aggregation.tables import NoRunsError
from utils.configs.checks import ConfigError
from utils.configs.composing import compose_config, expand
from utils.configs.overrides import values_of
from utils.runs.identity import experiment_folder
from utils.training import wandb_runs


def main(overrides: list[str]) -> None:
    if not overrides or overrides[0] in ("-h", "--help"):
        print(__doc__)
        return
    try:
        overrides = expand(overrides)  # including those that the mode sets
        cfg = compose_config([*overrides, *expected_seeds(overrides)])
        folder = Path(cfg.paths.results) / experiment_folder(cfg)
        aggregate(cfg.aggregate, folder)
        wandb_runs.upload_tables(cfg, folder)
    except (ConfigError, NoRunsError, OSError) as error:
        sys.exit(f"Error: {error}")


def expected_seeds(overrides: list[str]) -> list[str]:
    """Return `aggregate.seeds=[...]` with the seeds in `overrides`, so missing ones are counted."""
    seeds = values_of("seed", overrides)
    is_said = any(override.startswith("aggregate.seeds=") for override in overrides)
    return [] if seeds is None or is_said else [f"aggregate.seeds=[{','.join(map(str, seeds))}]"]


if __name__ == "__main__":
    forgive_output()
    main(sys.argv[1:])
