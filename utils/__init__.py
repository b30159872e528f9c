"""Code for experiments: data, stages, runs, configuration, figures and tables."""

import os
import sys
from importlib.util import find_spec


def _replace_missing_backend(name: str) -> None:
    """Fall back to Agg if MPLBACKEND is unknown or names a module that is not installed.

    Notebook kernels export MPLBACKEND to every process they start, even one in another Python
    environment. Matplotlib cannot even be imported with an unknown backend.
    """
    is_imported = "matplotlib" in sys.modules
    del os.environ["MPLBACKEND"]
    import matplotlib

    try:
        matplotlib.rcsetup.validate_backend(name)
        module = name.partition("module://")[2]
        is_missing = bool(module) and find_spec(module) is None
    except (ValueError, ModuleNotFoundError):  # the module's package is missing
        is_missing = True
    os.environ["MPLBACKEND"] = "Agg" if is_missing else name
    if not is_imported:
        matplotlib.rcParams["backend"] = os.environ["MPLBACKEND"]


if os.environ.get("MPLBACKEND"):
    _replace_missing_backend(os.environ["MPLBACKEND"])
