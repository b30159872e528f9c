"""Loading OpenAI's CLIP (https://arxiv.org/abs/2103.00020), by name or from a file."""

import warnings
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from types import ModuleType

import torch
from PIL import Image
from torch import Tensor, nn

from lossyless.weights import WeightsError

DOWNLOAD_SIZES = {"ViT-B/32": "338 MB", "RN50": "244 MB"}

Preprocess = Callable[[Image.Image], Tensor]


def load_clip(
    weights: str | Path = "ViT-B/32", device: torch.device | str = "cpu"
) -> tuple[nn.Module, Preprocess]:
    """CLIP's model in evaluation mode, and the transform of the images that it takes.

    The global random state stays as it was. Weights are float32 on a CPU and half precision on a
    GPU, as `clip.load` makes them.

    Parameters
    ----------
    weights : name of one of CLIP's models, which is downloaded at the first use (the checksum is
        verified), or path of a checkpoint: OpenAI's archive, or a state dict of the model.
    device : where the model goes.

    Raises
    ------
    WeightsError
        If the weights are neither, cannot be downloaded, or are not those of a CLIP.
    """
    clip = import_clip()
    name = str(weights)
    is_name = name in clip.available_models()
    if not is_name and not Path(weights).is_file():
        raise WeightsError(
            f"CLIP weights {name!r} are neither a file nor one of CLIP's models: "
            f"{', '.join(clip.available_models())}."
        )
    size = f" ({DOWNLOAD_SIZES[name]})" if name in DOWNLOAD_SIZES else ""
    if is_name:
        print(f"CLIP {name}{size}: downloaded to ~/.cache/clip if it is not there.", flush=True)
    try:
        # layers draw weights before they are loaded
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
            model, preprocess = clip.load(name, device=device)
    except (OSError, RuntimeError, KeyError, EOFError, UnpicklingError, AttributeError) as error:
        advice = (
            _where_to_place(name)
            if is_name
            else "Expected what clip.load downloads, or a state dict of CLIP's model."
        )
        raise WeightsError(
            f"the weights of CLIP {name}{size} could not be loaded: {error}. {advice}"
        ) from error
    return model.eval(), preprocess


def _where_to_place(name: str) -> str:
    """What to do about a model that cannot be downloaded."""
    url = import_clip().clip._MODELS[name]
    file = Path("~/.cache/clip", PurePosixPath(url).name)
    return (
        f"Check the network; or get {url} elsewhere and place it at {file}, or give the path of a "
        "file with the weights."
    )


def import_clip() -> ModuleType:
    """The module `clip`, which takes a second to import: call it where it is needed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pkg_resources is deprecated")
        import clip
    return clip
