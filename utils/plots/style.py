"""The common style of all figures.

Figures use neither pyplot nor Matplotlib's global settings, so they can be drawn in any thread and
without a display. Sizes suit figures shown 400 to 800 pixels wide.
"""

from collections.abc import Hashable, Iterable, Sequence
from contextlib import AbstractContextManager

import matplotlib.style
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DPI = 160  # 5 inches are 800 pixels
TITLE_SIZE, LABEL_SIZE, TICK_SIZE = 13, 12, 10.5  # points
TEXT, LINE, FAINT = "#262626", "#5a5a5a", "#e3e6ea"

# distinguishable by colour-blind readers
COLOURS = sns.color_palette("colorblind").as_hex()
BLUE, ORANGE, GREEN, RED, PURPLE = (COLOURS[i] for i in (0, 1, 2, 3, 4))

#: display names of methods, keyed by their names in the config
PRETTY_NAMES = {"VAE": "VC", "lossy_Z": "lossy Z"}
METHOD_COLOURS = {
    "VC": RED,
    "VIC": BLUE,
    "BINCE": GREEN,
    "lossy Z": PURPLE,
    "supervised": ORANGE,
}


def pretty(name: object) -> str:
    """Display name of a method or another value."""
    return PRETTY_NAMES.get(str(name), str(name))


def colours_of(names: Iterable[Hashable]) -> dict[Hashable, str]:
    """A colour for each name; methods have fixed colours."""
    names = list(names)
    colours = {
        name: METHOD_COLOURS[pretty(name)] for name in names if pretty(name) in METHOD_COLOURS
    }
    free = [colour for colour in COLOURS if colour not in colours.values()]
    others = [name for name in names if name not in colours]
    return colours | {name: free[i % len(free)] for i, name in enumerate(others)}


def defaults() -> AbstractContextManager:
    """Use Matplotlib's default settings for the figures drawn and saved in the block.

    A user's `matplotlibrc` could change figures or make drawing fail, for example by requiring
    LaTeX.
    """
    return matplotlib.style.context("default")


def make_figure(width: float = 5.0, height: float = 3.6) -> tuple[Figure, Axes]:
    """Make an empty figure with one pair of axes; sizes are in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    return figure, figure.add_subplot()


def polish(axes: Axes, *, title: str = "", xlabel: str = "", ylabel: str = "") -> None:
    """Set title, labels and ticks in the common style; hide the top and right spines."""
    axes.set_title(title, fontsize=TITLE_SIZE, color=TEXT, pad=8)
    axes.set_xlabel(xlabel, fontsize=LABEL_SIZE, color=TEXT)
    axes.set_ylabel(ylabel, fontsize=LABEL_SIZE, color=TEXT)
    axes.tick_params(labelsize=TICK_SIZE, color=LINE, labelcolor=TEXT, length=3)
    for side, spine in axes.spines.items():
        spine.set(color=LINE, linewidth=0.8, visible=side in ("left", "bottom"))


def add_legend(axes: Axes, handles: Sequence | None = None, **options: object) -> None:
    """Add a legend in the common style, without a frame."""
    options = {"fontsize": TICK_SIZE, "frameon": False, "labelcolor": TEXT} | options
    axes.legend(handles=handles, **options) if handles else axes.legend(**options)
