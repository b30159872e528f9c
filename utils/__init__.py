"""Code for experiments: data, stages, runs, configuration, figures and tables."""

import os
from importlib.util import find_spec

# A notebook kernel exports its Matplotlib backend to every process that it starts. In another
# environment, which may lack this backend, importing Matplotlib would fail.
_backend = os.environ.get("MPLBACKEND", "").partition("module://")[2]
if _backend and find_spec(_backend.partition(".")[0]) is None:
    os.environ["MPLBACKEND"] = "Agg"
