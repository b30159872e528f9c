"""The experiment side: data, stages, runs, configuration, figures and tables."""

import os
from importlib.util import find_spec


def _replace_missing_backend() -> None:
    """Use Agg if MPLBACKEND names a module that is not installed.

    Notebook kernels export theirs to all processes that they start, whatever their environment.
    """
    module = os.environ.get("MPLBACKEND", "").partition("module://")[2]
    if module:
        try:
            is_missing = find_spec(module) is None
        except ModuleNotFoundError:  # its package
            is_missing = True
        if is_missing:
            os.environ["MPLBACKEND"] = "Agg"


_replace_missing_backend()
