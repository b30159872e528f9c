"""CLIP (https://arxiv.org/abs/2103.00020): OpenAI's models, by name or file, and OpenCLIP's."""

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from types import ModuleType

import torch
from PIL import Image
from torch import Tensor, nn

from lossyless.backbones.base import Backbone
from lossyless.torch_state import drawing_from, isolated
from lossyless.weights import WeightsError, check_archive, fetch

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
DOWNLOAD_SIZES = {"ViT-B/32": "338 MB", "RN50": "244 MB"}
CACHE = "~/.cache/clip"  # shared with clip.load
OPTIONS = "clip_path=, --clip, tower.kwargs.weights="
#: exceptions that torch and clip raise if a file is not a CLIP checkpoint
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


class ClipBackbone(Backbone):
    """CLIP's unnormalised image embeddings.

    Parameters
    ----------
    weights : name of a CLIP model ("ViT-B/32": 512 features, "RN50": 1024), or path to a
        checkpoint; see `load_clip`.
    """

    def __init__(self, weights: str = "ViT-B/32"):
        model, _ = load_clip(weights, device="cpu")
        visual = model.visual.float()
        super().__init__(
            visual,
            side=visual.input_resolution,
            mean=CLIP_MEAN,
            std=CLIP_STD,
            interpolation="bicubic",
        )


class OpenClipBackbone(Backbone):
    """Unnormalised image embeddings from any OpenCLIP model (https://arxiv.org/abs/2212.07143).

    Parameters
    ----------
    model : name in `open_clip.list_models()`, e.g. "ViT-B-32".
    weights : name of weights published for that model on the Hugging Face Hub (see
        `open_clip.list_pretrained()`), or path to a checkpoint.

    Raises ImportError if OpenCLIP is not installed, and WeightsError if the model is unknown, or if
    the weights cannot be downloaded or read, or do not fit the model.
    """

    def __init__(self, model: str = "ViT-B-32", weights: str = "laion2b_s34b_b79k"):
        try:
            import open_clip
        except ImportError as error:
            raise ImportError(
                f"the OpenCLIP backbone {model!r} needs a package that is not installed: "
                "pip install open_clip_torch"
            ) from error
        try:
            with drawing_from(torch.Generator()):  # constructing layers consumes random numbers
                network = open_clip.create_model(model, pretrained=weights, precision="fp32")
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            raise WeightsError(
                f"OpenCLIP could not create {model!r} with the weights {weights!r}: {error}. Check "
                "your connection and open_clip.list_pretrained(), or give the path to a checkpoint."
            ) from error
        visual = network.visual
        size = visual.image_size
        super().__init__(
            _ImageSide(network),
            side=size if isinstance(size, int) else size[0],
            mean=visual.image_mean,
            std=visual.image_std,
            interpolation="bicubic",
        )


class _ImageSide(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.encode_image(x)


@isolated
def load_clip(
    weights: str | Path = "ViT-B/32", device: torch.device | str = "cpu"
) -> tuple[nn.Module, Preprocess]:
    """Load a CLIP model in evaluation mode, and its image transform.

    The global random state is preserved. Weights are float32 on a CPU and half precision on a GPU,
    as with `clip.load`.

    Parameters
    ----------
    weights : name of a CLIP model, which is downloaded on first use (and verified), or path to a
        checkpoint: OpenAI's archive, or a state dict of the model.
    device : where the model runs.

    Raises WeightsError if the weights are neither a CLIP model's name nor a file, cannot be
    downloaded, or are not CLIP's.
    """
    clip = import_clip()
    name = str(weights)
    is_name = name in clip.available_models()
    if not is_name and not Path(name).is_file():
        raise WeightsError(
            f"CLIP weights {name!r} are neither a file nor one of CLIP's models: "
            f"{', '.join(clip.available_models())}."
        )
    torch.empty(0, device=device)  # fail before the download if the device does not exist
    path = _download(name) if is_name else Path(name)
    check_archive(path)
    try:
        # layers draw random weights before the checkpoint replaces them
        with drawing_from(torch.Generator()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit")
            model, preprocess = clip.load(str(path), device=device)
    except (OSError, torch.OutOfMemoryError):
        raise  # the file may be valid
    except UNLOADABLE:
        # the cause suggests torch.load options that users cannot set
        raise WeightsError(
            f"{path} could not be loaded: it is not a CLIP checkpoint, or is damaged. Expected "
            "OpenAI's archive, which clip.load downloads, or the state dict of a CLIP model"
        ) from None
    return model.eval(), preprocess


def _download(name: str) -> Path:
    """Return the file of a CLIP model, downloading it if it does not exist."""
    url = import_clip().clip._MODELS[name]
    try:
        # unlike with `clip.load`, an interrupted download leaves nothing behind
        return fetch(url, sha256=PurePosixPath(url).parent.name, folder=CACHE)
    except WeightsError as error:
        size = f" ({DOWNLOAD_SIZES[name]})" if name in DOWNLOAD_SIZES else ""
        raise WeightsError(f"CLIP {name}{size}: {error}, or give its path ({OPTIONS})") from None


def import_clip() -> ModuleType:
    """Import OpenAI's module `clip`, lazily because this takes about a second.

    Raises ModuleNotFoundError, naming the file, if another module with this name is found: a
    `clip.py` in the working directory, or PyPI's `clip` package.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "pkg_resources is deprecated")
            import clip
        _ = clip.available_models, clip.model
    except Exception as error:  # an unrelated module may raise anything
        spec = importlib.util.find_spec("clip")
        file = spec and (spec.origin or [*spec.submodule_search_locations][0])
        if file is None or Path(file).with_name("simple_tokenizer.py").exists():
            raise  # it is not installed, or lacks a dependency
        raise ModuleNotFoundError(
            f"`import clip` found {file}, which is not OpenAI's CLIP ({type(error).__name__}: "
            f"{error}): rename or uninstall it, then pip install clip-anytorch",
            name="clip",
        ) from None
    return clip
