"""Figures of a trained compressor, by the names that configs list.

A figure is a function of a compressor and its data that returns a Matplotlib `Figure`. To add one,
write the function and enter it in `FIGURES`. Figures of tables are modes of `utils.aggregation`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from lossyless.compressors import LearnableCompressor
from utils.data.module import DataModule
from utils.plots import banana, images, style

PLANE = ("vector",)
IMAGES = ("bw_image", "colour_image")


@dataclass(frozen=True)
class FigureSpec:
    """A figure that a config can list.

    Parameters
    ----------
    function : callable (compressor, data, **options) -> Figure
    file_name : may contain "{equivalence}", the name of the Banana's equivalence.
    kinds : values of `data.kind` that it can draw.
    check : callable (compressor, data) that raises `ValueError` if it does not apply.
    """

    function: Callable[..., Figure]
    file_name: str
    kinds: tuple[str, ...]
    check: Callable[[LearnableCompressor, DataModule], None]


FIGURES: dict[str, FigureSpec] = {
    spec.function.__name__: spec
    for spec in (
        FigureSpec(banana.codebook_plot, "quantization.png", PLANE, banana.check_codebook),
        FigureSpec(
            banana.maxinv_distribution_plot,
            "max. inv. {equivalence}.png",
            PLANE,
            banana.check_invariant,
        ),
        FigureSpec(images.reconstruct_image_plot, "rec_imgs.png", IMAGES, images.check_decoder),
        FigureSpec(
            images.latent_traversals_plot_1d, "traversals_1d.png", IMAGES, images.check_decoder
        ),
        FigureSpec(
            images.latent_traversals_plot_2d, "traversals_2d.png", IMAGES, images.check_decoder
        ),
    )
}


def find_figure(name: str, compressor: LearnableCompressor, data: DataModule) -> FigureSpec:
    """The figure of this name.

    Raises
    ------
    ValueError
        If there is none, or it does not apply to the compressor or the data.
    """
    if name not in FIGURES:
        raise ValueError(f"unknown figure {name!r}: choose from {', '.join(FIGURES)}")
    spec = FIGURES[name]
    if not isinstance(compressor, LearnableCompressor):
        raise ValueError(f"{name} draws learnt compressors, not {type(compressor).__name__}")
    if data.kind not in spec.kinds:
        others = [other for other, spec in FIGURES.items() if data.kind in spec.kinds]
        raise ValueError(
            f"{name} draws data of kind {' or '.join(spec.kinds)}, but {type(data).__name__} has "
            f"kind {data.kind}; figures for this kind: {', '.join(others) or 'none'}"
        )
    spec.check(compressor, data)
    return spec


def draw(
    name: str,
    compressor: LearnableCompressor,
    data: DataModule,
    *,
    filename: str | None = None,
    **options: object,
) -> tuple[str, Figure]:
    """Draw the figure of this name; return its file name and the figure.

    Parameters
    ----------
    filename : replaces the usual file name.
    options : of the figure's function.

    Raises `ValueError` as `find_figure` does.
    """
    spec = find_figure(name, compressor, data)
    with style.defaults():
        figure = spec.function(compressor, data, **options)
    file_name = filename or spec.file_name
    if "{equivalence}" in file_name:
        file_name = file_name.format(equivalence=banana.equivalence_name(data))
    return file_name, figure
