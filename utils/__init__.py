"""Code for experiments: data, stages, runs, configuration, figures and tables."""

import os
from importlib.util import find_spec

# A notebook kernel exports its backend of figures to every process that it starts, even in another
# environment, which may lack this backend: Matplotlib could not be imported there.
_backend = os.environ.get("MPLBACKEND", "").partition("module://")[2]
if _backend and find_spec(_backend.partition(".")[0]) is None:
    os.environ["MPLBACKEND"] = "Agg"
