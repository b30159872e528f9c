"""Figures of a trained compressor, looked up by the names that configs use.

A figure is a function that takes a compressor and its data and returns a Matplotlib `Figure`;
conf/load_pretrained.yaml documents its options. To add a figure, write the function and add it to
`FIGURES`. Figures drawn from tables are modes of `utils.aggregation`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from lossyless.compressors import LearnableCompressor
from utils.configs.checks import check_known
from utils.data.module import DataModule
from utils.plots import banana, images, style


@dataclass(frozen=True)
class FigureSpec:
    """A figure that a config can list."""

    function: Callable[..., Figure]  # called with (compressor, data, **options)
    file_name: str  # "{equivalence}" stands for the Banana's equivalence
    #: raises `ValueError` if the figure does not apply
    check: Callable[[LearnableCompressor, DataModule], None]


FIGURES: dict[str, FigureSpec] = {
    spec.function.__name__: spec
    for spec in (
        FigureSpec(banana.codebook_plot, "quantization.png", banana.check_codebook),
        FigureSpec(
            banana.maxinv_distribution_plot, "max. inv. {equivalence}.png", banana.check_invariant
        ),
        FigureSpec(images.reconstruct_image_plot, "rec_imgs.png", images.check_images),
        FigureSpec(images.latent_traversals_plot_1d, "traversals_1d.png", images.check_images),
        FigureSpec(images.latent_traversals_plot_2d, "traversals_2d.png", images.check_images),
    )
}


def find_figure(name: str, compressor: LearnableCompressor, data: DataModule) -> FigureSpec:
    """The figure with this name; ValueError if it does not exist or does not apply."""
    check_known("figures.names", [name], FIGURES)
    spec = FIGURES[name]
    if not isinstance(compressor, LearnableCompressor):
        raise ValueError(f"{name} draws learned compressors, not {type(compressor).__name__}")
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
    """Draw the figure with this name; return its file name and the figure.

    `filename` replaces the default file name; `options` are those of the figure's function. Raises
    ValueError as `find_figure` does.
    """
    spec = find_figure(name, compressor, data)
    with style.defaults():
        figure = spec.function(compressor, data, **options)
    file_name = filename or spec.file_name
    if "{equivalence}" in file_name:
        file_name = file_name.format(equivalence=banana.equivalence_name(data))
    return file_name, figure
