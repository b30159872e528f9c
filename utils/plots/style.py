"""What all figures share: their look, and the state in which a model is drawn.

Figures are made without pyplot and without touching matplotlib's global settings, so that they can
be drawn in any thread and without a display. Sizes are for a figure that is shown 400 to 800
pixels wide.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lossyless.base import Batch
from lossyless.compressors import LearnableCompressor
from lossyless.distortions import Distortion
from utils.data.module import DataModule

DPI = 160  # 5 inches are 800 pixels
TITLE_SIZE, LABEL_SIZE, TICK_SIZE = 13, 12, 10.5  # points
TEXT, LINE, FAINT = "#262626", "#5a5a5a", "#e3e6ea"

# seaborn's "colorblind" palette: told apart by all, also in grey
COLOURS = sns.color_palette("colorblind").as_hex()
BLUE, ORANGE, GREEN, RED, PURPLE = (COLOURS[i] for i in (0, 1, 2, 3, 4))

#: what methods are called in figures, by name of their configuration
PRETTY_NAMES = {"VAE": "VC", "lossy_Z": "lossy Z"}
METHOD_COLOURS = {"VC": RED, "VIC": BLUE, "BINCE": GREEN, "lossy Z": PURPLE}
_METHODS = {"input": "VC", "representative": "VIC", "positive": "BINCE", "none": "lossy Z"}


def method_name(distortion: Distortion) -> str:
    """ "VC", "VIC", "BINCE" or "lossy Z"."""
    return _METHODS[distortion.needs]


def pretty(name: object) -> str:
    """What something is called in figures."""
    return PRETTY_NAMES.get(str(name), str(name))


def colours_of(names: Iterable[Hashable]) -> dict[Hashable, str]:
    """A colour for each name: methods always have the same one, others get what is left."""
    names = list(names)
    colours = {
        name: METHOD_COLOURS[pretty(name)] for name in names if pretty(name) in METHOD_COLOURS
    }
    free = [colour for colour in COLOURS if colour not in colours.values()]
    others = [name for name in names if name not in colours]
    return colours | {name: free[i % len(free)] for i, name in enumerate(others)}


def make_figure(width: float = 5.0, height: float = 3.6) -> tuple[Figure, Axes]:
    """An empty figure of this many inches, with one pair of axes."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    return figure, figure.add_subplot()


def make_panels(
    n_panels: int, width: float = 5.0, height: float = 3.6
) -> tuple[Figure, list[Axes]]:
    """An empty figure with panels side by side that share their axes' ranges.

    One panel has this size in inches; several ones are narrower.
    """
    total = width if n_panels == 1 else 0.7 * width * n_panels
    figure = Figure(figsize=(total, height), dpi=DPI, layout="constrained", facecolor="white")
    return figure, list(figure.subplots(1, n_panels, sharex=True, sharey=True, squeeze=False)[0])


def polish(axes: Axes, *, title: str = "", xlabel: str = "", ylabel: str = "") -> None:
    """Title, labels and ticks in the common style; no frame at the top and the right."""
    axes.set_title(title, fontsize=TITLE_SIZE, color=TEXT, pad=8)
    axes.set_xlabel(xlabel, fontsize=LABEL_SIZE, color=TEXT)
    axes.set_ylabel(ylabel, fontsize=LABEL_SIZE, color=TEXT)
    axes.tick_params(labelsize=TICK_SIZE, color=LINE, labelcolor=TEXT, length=3)
    for side, spine in axes.spines.items():
        spine.set(color=LINE, linewidth=0.8, visible=side in ("left", "bottom"))


def add_legend(axes: Axes, handles: Sequence | None = None, **options: object) -> None:
    """A legend without a frame, in the common style."""
    options = {"fontsize": TICK_SIZE, "frameon": False, "labelcolor": TEXT} | options
    axes.legend(handles=handles, **options) if handles else axes.legend(**options)


@contextmanager
def drawing(compressor: LearnableCompressor) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module is in its former mode."""
    modes = {module: module.training for module in compressor.modules()}
    compressor.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def pick_examples(
    compressor: LearnableCompressor,
    data: DataModule,
    auxiliary: str,
    n: int,
    *,
    split: str = "test",
    seed: int | None = None,
) -> Batch:
    """n examples of a split (or all, if they are fewer), on the compressor's device.

    `aux` is the asked-for auxiliary variable, whichever one `data` was made with.

    Parameters
    ----------
    seed : draws the examples, which keep their order; None: the first ones.
    """
    data = data.with_auxiliary(auxiliary)
    n_there = data.n_examples(split)
    chosen = torch.arange(n_there)
    if seed is not None:
        chosen = torch.randperm(n_there, generator=torch.Generator().manual_seed(seed))
    chosen = chosen[:n].sort().values
    parts, start = [], 0
    for batch in data.loader(split, device=compressor.device, shuffle=False):
        end = start + len(batch.x)
        rows = (chosen[(chosen >= start) & (chosen < end)] - start).to(batch.x.device)
        parts.append([None if field is None else field[rows] for field in batch])
        start = end
        if start > chosen[-1]:
            break
    fields = zip(*parts, strict=True)
    return Batch(*(None if field[0] is None else torch.cat(field) for field in fields))
