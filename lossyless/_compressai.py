"""The parts of CompressAI that this package uses.

On Python 3.13 and later, installing CompressAI requires a C++ compiler.
"""

import sys
import warnings

try:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit")  # from torch_geometric, a dependency
        from compressai.ans import RansDecoder, RansEncoder
        from compressai.entropy_models import EntropyBottleneck, GaussianConditional
        from compressai.ops import LowerBound
except ModuleNotFoundError as error:
    if error.name != "compressai":
        raise
    command, remark = "pip install compressai", ""
    if sys.version_info >= (3, 13):  # there are no wheels, and the metadata requires numpy 1
        command = "pip install --no-deps compressai"
        remark = ", which needs a C++ compiler and Python's headers (or use Python 3.12)"
    raise ModuleNotFoundError(
        f"CompressAI is not installed: {command}{remark}", name="compressai"
    ) from None

__all__ = [
    "EntropyBottleneck",
    "GaussianConditional",
    "LowerBound",
    "RansDecoder",
    "RansEncoder",
]
