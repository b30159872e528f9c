"""Download the data sets of an experiment, one after another, before its first job needs them.

    python -m utils.fetch_data experiment=clip_download_data

The data sets are those in the experiment's sweep over `data@data_feat`. If some cannot be
downloaded, the command lists them with their errors at the end, and exits with status 1.
"""

import sys
from collections.abc import Iterable

from omegaconf import DictConfig

from lossyless.printing import forgive_output
from utils.cluster import sweep
from utils.data.module import SPLITS, DataError
from utils.training import building

SETTING = "data@data_feat"


def main(overrides: list[str]) -> None:
    if not overrides or overrides[0] in ("-h", "--help"):
        print(__doc__)
        return
    try:
        jobs = [sweep.compose_config(job) for job in jobs_of(overrides)]
    except sweep.ConfigError as error:
        print(f"Configuration error: {error}", file=sys.stderr)
        sys.exit(2)
    if missing := fetch(jobs):
        lines = (f"  {name}: {reason}" for name, reason in missing.items())
        sys.exit("\n".join([f"Missing: {', '.join(missing)}", *lines]))


def jobs_of(overrides: list[str]) -> list[list[str]]:
    """The overrides of one job for each of the experiment's data sets."""
    expanded = sweep.expand(overrides)
    swept = [o for o in sweep.parse(expanded) if o.is_sweep_override()]
    others = [o for o in expanded if o not in [override.input_line for override in swept]]
    names = [override.get_key_element() for override in swept]
    if not set(names) <= {SETTING}:
        raise sweep.ConfigError(f"expected a sweep over {SETTING} alone, found {', '.join(names)}")
    data_sets = [name for override in swept for name in override.sweep_iterator()]
    return [[*others, f"{SETTING}={name}"] for name in data_sets] or [others]


def fetch(jobs: Iterable[DictConfig]) -> dict[str, str]:
    """Open the `data_feat` of each job, downloading it if necessary.

    Returns the error message for each missing data set, keyed by the data set's name.
    """
    missing = {}
    for cfg in jobs:
        name = cfg.data_feat.name
        print(f"== {name}", flush=True)
        try:
            data = building.build_data(cfg, "data_feat", "none")
            sizes = ", ".join(f"{data.n_examples(split):,} {split}" for split in SPLITS)
            print(f"{name}: {sizes}")
        except (DataError, OSError) as error:  # continue with the next one
            missing[name] = str(error)
            print(f"{name}: missing, see below")
    return missing


if __name__ == "__main__":
    forgive_output()
    main(sys.argv[1:])
