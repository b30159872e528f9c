"""Loading OpenAI's CLIP (https://arxiv.org/abs/2103.00020), by name or from a file."""

import warnings
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from types import ModuleType

import torch
from PIL import Image
from torch import Tensor, nn

from lossyless.state_dicts import check_archive
from lossyless.weights import WeightsError, fetch

DOWNLOAD_SIZES = {"ViT-B/32": "338 MB", "RN50": "244 MB"}
CACHE = "~/.cache/clip"  # where clip.load keeps its files, too
OPTIONS = "clip_path=, --clip, tower.kwargs.weights="
#: how torch and clip say that a file is not a checkpoint of CLIP
UNLOADABLE = (
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    UnboundLocalError,
    UnpicklingError,
)

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
    if not is_name and not Path(name).is_file():
        raise WeightsError(
            f"CLIP weights {name!r} are neither a file nor one of CLIP's models: "
            f"{', '.join(clip.available_models())}."
        )
    torch.empty(0, device=device)  # a device that is not there fails here, before the download
    path = _download(name) if is_name else Path(name)
    check_archive(path)
    try:
        # layers draw weights before they are loaded
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit")
            model, preprocess = clip.load(str(path), device=device)
    except (OSError, torch.OutOfMemoryError):
        raise  # the file may be a good one
    except UNLOADABLE:
        # the cause speaks of torch.load's options, which are not the user's to set
        raise WeightsError(
            f"{path} could not be loaded: it is not a checkpoint of CLIP, or is damaged. Expected "
            "OpenAI's archive, which clip.load downloads, or a state dict of CLIP's model"
        ) from None
    return model.eval(), preprocess


def _download(name: str) -> Path:
    """The file of one of CLIP's models, downloaded if it is not there."""
    url = import_clip().clip._MODELS[name]
    path = Path(CACHE).expanduser() / PurePosixPath(url).name
    size = f" ({DOWNLOAD_SIZES[name]})" if name in DOWNLOAD_SIZES else ""
    if not path.exists():
        print(f"CLIP {name}{size}: downloading it to {path}", flush=True)
    try:
        # like `clip.load`, but a download that is interrupted leaves nothing behind
        return fetch(url, sha256=PurePosixPath(url).parent.name, folder=path.parent)
    except WeightsError as error:
        raise WeightsError(f"CLIP {name}{size}: {error}, or give its path ({OPTIONS})") from None


def import_clip() -> ModuleType:
    """The module `clip`, which takes a second to import: call it where it is needed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pkg_resources is deprecated")
        import clip
    return clip
