"""Figures show what a compressor does; here compressors whose codes are known in closed form."""

import io
import math
import threading

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from scipy.integrate import trapezoid
from torch import nn

from lossyless.architectures import CNN, MLP, CNNDecoder, Identity
from lossyless.classical import ClassicalCompressor
from lossyless.compressors import LearnableCompressor
from lossyless.distortions import ContrastiveDistortion, DirectDistortion
from lossyless.distributions import CondDist
from lossyless.rates import HFactorized, HHyper, MIRate
from utils.data.banana import BananaDataModule, BananaDistribution
from utils.data.decoded import DecodedDataModule
from utils.data.digits import DigitsDataModule
from utils.plots import banana, images, models
from utils.plots.figures import FIGURES, draw
from utils.plots.mosaic import mosaic

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
CELL_WIDTH = math.exp(-1)  # of a rate that was not trained


class Norm(nn.Module):
    """z = |x|: the encoder of an ideal VIC under rotations."""

    def __init__(self, in_shape, out_shape):
        super().__init__()

    def forward(self, x):
        return x.norm(dim=1, keepdim=True)


class Ray(Norm):
    """The decoder of an ideal VIC under rotations: the representative whose norm is z."""

    def forward(self, z):
        return -math.sqrt(0.5) * z.expand(-1, 2)


def compressor_of(encoder, in_shape, rate, distortion):
    p_ZlX = CondDist(encoder, in_shape, rate.z_dim, family=rate.family)
    compressor = LearnableCompressor(p_ZlX, rate, distortion, optimizer=None)
    compressor.rate.update()
    return compressor.eval()


def ideal_vic():
    torch.manual_seed(0)
    return compressor_of(
        Norm, (2,), HFactorized(1), DirectDistortion(Ray, 1, (2,), "vector", "representative")
    )


def plain_vc():
    """Keeps x as it is: square cells."""
    torch.manual_seed(0)
    return compressor_of(
        Identity, (2,), HFactorized(2), DirectDistortion(Identity, 2, (2,), "vector", "input")
    )


def bince():
    torch.manual_seed(0)
    return compressor_of(Norm, (2,), HFactorized(1), ContrastiveDistortion(1, MLP))


def image_compressor(needs="representative", rate=HFactorized, z_dim=4):
    torch.manual_seed(0)
    decoder = DirectDistortion(CNNDecoder, z_dim, (1, 16, 16), "bw_image", needs)
    return compressor_of(CNN, (1, 16, 16), rate(z_dim), decoder)


def points(auxiliary="representative", n_eval=3000, **kwargs):
    return BananaDataModule(auxiliary=auxiliary, n_train=1, n_eval=n_eval, **kwargs)


@pytest.fixture(scope="module")
def digits():
    return DigitsDataModule(auxiliary="representative", equivalence=["rotation"])


@pytest.fixture(scope="module")
def vic_figure():
    return banana.codebook_plot(ideal_vic(), points(), n_grid=300)


def collection(figure, kind):
    return [c for c in figure.axes[0].collections if isinstance(c, kind)]


def row_labels(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


# --- codes and cells


@pytest.mark.parametrize("make", [ideal_vic, plain_vc])
def test_a_point_has_the_code_that_the_receiver_gets(make):
    compressor = make()
    x = points().distribution.sample(20_000, torch.Generator().manual_seed(0))
    with torch.no_grad():
        codebook = banana.find_codebook(compressor, x)
    z_hat = compressor.codec.decompress(compressor.codec.compress(compressor.represent(x)), len(x))
    assert torch.equal(codebook.z_hat[codebook.labels], z_hat)
    assert len(codebook.z_hat.unique(dim=0)) == len(codebook.z_hat)
    assert torch.allclose(codebook.rates, compressor.rates(x))


def test_probabilities_are_shares_of_the_first_points():
    labels = torch.tensor([0, 0, 2, 1, 1, 1])
    codebook = banana.Codebook(torch.zeros(3, 1), labels, torch.zeros(6))
    assert codebook.probabilities().tolist() == pytest.approx([2 / 6, 3 / 6, 1 / 6])
    assert codebook.probabilities(4).tolist() == pytest.approx([0.5, 0.25, 0.25])


def test_pixels_of_the_grid_lie_row_by_row_in_the_window():
    grid = banana.window_grid((0, 4, 10, 12), 2)
    assert grid.tolist() == [[1, 10.5], [3, 10.5], [1, 11.5], [3, 11.5]]


def test_a_border_runs_between_cells_and_nowhere_else():
    labels = np.zeros((100, 100), dtype=int)
    labels[:, 30:] = 7  # the window's left 30 % are another cell
    borders = banana.cell_borders(labels, (0.0, 1.0, -5.0, 5.0))
    assert len(borders) == 2  # one of each side
    for border in borders:
        assert np.allclose(border[:, 0], 0.3, atol=0.006)
        assert np.ptp(border[:, 1]) == pytest.approx(10, rel=0.02)


def test_one_cell_has_no_border():
    assert banana.cell_borders(np.ones((20, 20), dtype=int), (0.0, 1.0, 0.0, 1.0)) == []


def test_the_window_holds_most_of_the_source():
    left, right, bottom, top = banana.WINDOW
    x, y = BananaDistribution().sample(100_000, torch.Generator().manual_seed(0)).T
    assert ((x > left) & (x < right) & (y > bottom) & (y < top)).float().mean() > 0.94


# --- quantization.png


def test_cells_of_an_ideal_vic_are_rings_half_way_between_its_codes(vic_figure):
    (lines,) = collection(vic_figure, LineCollection)
    radii = np.linalg.norm(np.concatenate(lines.get_segments()), axis=1)
    (centre,) = ideal_vic().rate.prior.quantiles[:, 0, 1].tolist()
    codes = radii / CELL_WIDTH - centre
    pixel = 14.5 / 300 / CELL_WIDTH
    off_border = np.abs(codes - np.floor(codes) - 0.5)
    assert np.quantile(off_border[radii > 1], 0.99) < pixel


def test_codebook_points_of_vic_lie_on_the_ray_of_the_representatives(vic_figure):
    (scatter,) = collection(vic_figure, PathCollection)
    x, y = np.asarray(scatter.get_offsets()).T
    is_seen = scatter.get_sizes() > 0
    assert np.allclose(x, y, atol=1e-5) and (x[is_seen] < 0).all()


@pytest.mark.parametrize("make", [ideal_vic, plain_vc])
def test_areas_of_codebook_points_are_proportional_to_probabilities(make):
    compressor = make()
    figure = banana.codebook_plot(compressor, points(), n_grid=100)
    (scatter,) = collection(figure, PathCollection)
    assert scatter.get_sizes().sum() == pytest.approx(banana.AREA)
    x = next(iter(points().loader("test"))).x
    near = np.argmin(np.linalg.norm(scatter.get_offsets() - np.array([-2.0, -1.0]), axis=1))
    decoded = compressor.distortion.reconstruct(banana.find_codebook(compressor, x).z_hat)
    assert (decoded - torch.tensor(scatter.get_offsets()[near])).norm(dim=1).min() < 1e-5


@pytest.mark.parametrize("auxiliary", ["representative", "input", "none"])
def test_the_title_has_the_logged_rate_and_distortion(auxiliary):
    compressor = ideal_vic()
    batch = torch.cat([b.x for b in points("representative").loader("test")])
    with torch.no_grad():
        p_ZlX = compressor.p_ZlX(batch)
        z_hat, rates, _ = compressor.rate(p_ZlX.rsample(), p_ZlX)
        target = points().equivalence.representative(batch)
        distortion = compressor.distortion(z_hat, target)[0].mean() / math.log(2)
    figure = banana.codebook_plot(compressor, points(auxiliary), n_grid=50)
    expected = f"VIC: {rates.mean() / math.log(2):.2f} bits, distortion {distortion:.3f}"
    assert figure.axes[0].get_title() == expected


def test_without_a_decoder_there_are_cells_but_no_points():
    figure = banana.codebook_plot(bince(), points("positive"), n_grid=100)
    assert collection(figure, LineCollection) and not collection(figure, PathCollection)
    assert figure.axes[0].get_title().startswith("BINCE: ")


@pytest.mark.parametrize("make", [ideal_vic, plain_vc])
def test_borders_are_dark_where_the_encoder_gets_inputs(make):
    figure = banana.codebook_plot(make(), points(n_eval=20_000), n_grid=300)
    (lines,) = collection(figure, LineCollection)
    middles = torch.tensor(np.stack([s[len(s) // 2] for s in lines.get_segments()]))
    darkness = 1 - lines.get_colors()[:, :3].mean(axis=1)
    radii, log_prob = middles.norm(dim=1).numpy(), BananaDistribution().log_prob(middles).numpy()
    if make is ideal_vic:
        is_seen, is_unseen = (radii > 1) & (radii < 5), radii < 0  # whole rings
    else:
        log_max = -math.log(2 * math.pi * 1.5)
        is_seen, is_unseen = log_prob > log_max + math.log(0.1), log_prob < log_max - 20
        assert is_unseen.mean() > 0.3
    assert darkness[is_seen].min() == darkness.max()
    assert (darkness[is_unseen] < darkness.max() - 0.2).all()


# --- max. inv. {equivalence}.png


@pytest.mark.parametrize("make", [ideal_vic, plain_vc, bince])
def test_bars_of_the_maximal_invariant_sum_to_one(make):
    figure = banana.maxinv_distribution_plot(make(), points())
    _, bars = figure.axes
    assert sum(bar.get_height() for bar in bars.patches) == pytest.approx(1)


def test_the_density_of_the_maximal_invariant_integrates_to_one():
    figure = banana.maxinv_distribution_plot(ideal_vic(), points())
    x, density = figure.axes[0].lines[0].get_data()
    assert trapezoid(density, x) == pytest.approx(1, abs=0.02)


def test_an_ideal_vic_has_the_source_s_maximal_invariant_up_to_half_a_cell():
    compressor, data = ideal_vic(), points()
    x = data.distribution.sample(5000, torch.Generator().manual_seed(0))
    source = x.norm(dim=1)
    with torch.no_grad():
        codebook = banana.find_codebook(compressor, x)
        codes = banana.codebook_invariants(compressor, data, codebook, source)
    assert (codes[codebook.labels] - source).abs().max() <= CELL_WIDTH / 2 + 1e-5


def test_without_a_decoder_the_invariant_of_a_code_is_the_mean_over_its_cell():
    compressor, data = bince(), points("positive")
    x = data.distribution.sample(5000, torch.Generator().manual_seed(0))
    source = x.norm(dim=1)
    with torch.no_grad():
        codebook = banana.find_codebook(compressor, x)
        codes = banana.codebook_invariants(compressor, data, codebook, source)
    weights = codebook.probabilities().float()
    assert (weights * codes).sum() == pytest.approx(source.mean().item(), rel=1e-4)


# --- images


def test_rows_of_reconstructions_are_source_augmented_and_decoded(digits):
    figure = images.reconstruct_image_plot(image_compressor(), digits, n_samples=6, seed=None)
    assert row_labels(figure) == ["source", "augmented", "VIC decoded"]
    batch = next(iter(digits.loader("test")))
    canvas = figure.axes[0].images[0].get_array()
    assert np.allclose(canvas[:16, :16, 0], batch.aux[0, 0])
    assert np.allclose(canvas[17:33, -16:, 1], batch.x[5, 0])
    assert np.allclose(
        canvas[-16:, :16, 2], images.reconstruct(image_compressor(), batch.x)[0, 0].detach()
    )


def test_images_are_spread_over_rows_of_all_kinds(digits):
    options = {"n_samples": 6, "n_rows": 2, "seed": None}
    figure = images.reconstruct_image_plot(image_compressor(), digits, **options)
    assert row_labels(figure) == ["source", "augmented", "VIC decoded"] * 2
    batch = next(iter(digits.loader("test")))
    canvas = figure.axes[0].images[0].get_array()
    assert canvas.shape[:2] == (6 * 17 - 1, 3 * 17 - 1)
    assert np.allclose(canvas[3 * 17 : 3 * 17 + 16, :16, 0], batch.aux[3, 0])


def test_images_are_those_of_the_paper_s_seed_unless_told_otherwise(digits):
    figure = images.reconstruct_image_plot(image_compressor(), digits)
    batch = images.augmented_images(image_compressor(), digits, 7, seed=123)
    canvas = figure.axes[0].images[0].get_array()
    assert canvas.shape[:2] == (3 * 17 - 1, 7 * 17 - 1)
    for i, image in enumerate(batch.aux):
        assert np.allclose(canvas[:16, 17 * i : 17 * i + 16, 0], image[0])


def test_rebuilt_images_may_stand_alone_under_a_name(digits):
    options = {"n_samples": 4, "is_plot_real": False, "labels": ["ours"]}
    figure = images.reconstruct_image_plot(image_compressor(), digits, **options)
    assert row_labels(figure) == ["ours"]
    assert figure.axes[0].images[0].get_array().shape[:2] == (16, 4 * 17 - 1)


def test_a_seed_draws_images_of_a_split(digits):
    compressor = image_compressor()
    test, train = (digits.n_examples(split) for split in ("test", "train"))

    def sources(**options):
        return images.augmented_images(compressor, digits, 5, **options).aux

    first = sources()
    drawn = sources(seed=1)
    assert torch.equal(drawn, sources(seed=1)) and not torch.equal(drawn, first)
    everything = images.augmented_images(compressor, digits, test).aux
    assert all((everything == image).flatten(1).all(1).any() for image in drawn)
    assert not torch.equal(sources(split="train", seed=1), drawn) and train > test


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["a", "b"]}, "3 are needed, for source, augmented, VIC decoded"),
        ({"n_samples": 10, "n_rows": 3}, "10 images do not fill n_rows=3"),
        ({"n_rows": 0}, "n_rows=0"),
    ],
)
def test_images_that_cannot_be_arranged_are_an_error(digits, options, message):
    with pytest.raises(ValueError, match=message):
        images.reconstruct_image_plot(image_compressor(), digits, **options)


def test_inputs_do_not_depend_on_the_auxiliary_variable(digits):
    """So VC, which needs none, shows the same source and augmented images as VIC."""
    vc_data = DigitsDataModule(auxiliary="input", equivalence=["rotation"])
    canvases = [
        images.reconstruct_image_plot(image_compressor(), data).axes[0].images[0].get_array()
        for data in (digits, vc_data)
    ]
    assert np.array_equal(*canvases)
    assert vc_data.auxiliary == "input"


def test_data_without_representatives_have_no_reconstructions():
    x, y = torch.rand(20, 1, 16, 16), torch.zeros(20, dtype=torch.int64)
    splits = dict.fromkeys(("train", "val", "test"), (x, y))
    data = DecodedDataModule(splits, task="classification", n_outputs=2, kind="bw_image")
    with pytest.raises(ValueError, match="DecodedDataModule gives no unaugmented"):
        images.reconstruct_image_plot(image_compressor(), data)


def test_a_grid_compares_compressors_in_colour():
    rows = {name: torch.rand(4, 3, 8, 8) for name in ("source", "VC", "VIC")}
    figure = images.reconstruction_grid(rows)
    assert row_labels(figure) == list(rows)
    canvas = figure.axes[0].images[0].get_array()
    assert canvas.shape == (3 * 8 + 2, 4 * 8 + 3, 3)
    assert np.allclose(canvas[9:17, 9:17], rows["VC"][1].permute(1, 2, 0))


@pytest.mark.parametrize(
    "rows",
    [{}, {"a": torch.rand(2, 1, 8, 8), "b": torch.rand(3, 1, 8, 8)}, {"a": torch.rand(8, 8)}],
)
def test_a_grid_needs_rows_of_one_shape(rows):
    with pytest.raises(ValueError, match=r"one common shape \[N, C, H, W\]"):
        images.reconstruction_grid(rows)


def test_latents_are_ordered_by_variance():
    z_hat = torch.randn(500, 4) * torch.tensor([1.0, 3.0, 0.0, 2.0])
    assert images.most_varying(z_hat, 3) == [1, 3, 0]


def test_a_latent_moves_evenly_between_its_percentiles():
    z_hat = torch.stack([torch.zeros(1001), torch.linspace(-5, 5, 1001)], dim=1)
    steps = images.latent_steps(z_hat, 1)
    assert torch.allclose(steps, torch.linspace(-4.9, 4.9, 7), atol=1e-5)


class Colours(DecodedDataModule):
    """Random colour images of 96 pixels, as large as those of STL10."""

    def __init__(self):
        x, y = torch.rand(20, 3, 96, 96), torch.zeros(20, dtype=torch.int64)
        splits = dict.fromkeys(("train", "val", "test"), (x, y))
        super().__init__(splits, task="classification", n_outputs=2, kind="colour_image")


def colour_compressor():
    torch.manual_seed(0)
    decoder = DirectDistortion(Upsampled, 4, (3, 96, 96), "colour_image", "representative")
    return compressor_of(Pooled, (3, 96, 96), HFactorized(4), decoder)


class Pooled(nn.Linear):
    def __init__(self, in_shape, out_shape):
        super().__init__(in_shape[0] * 4, *out_shape)

    def forward(self, x):
        return 20 * super().forward(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


class Upsampled(nn.Linear):
    def __init__(self, in_shape, out_shape):
        super().__init__(*in_shape, 3 * 4)

    def forward(self, z):
        return nn.functional.interpolate(super().forward(z).view(-1, 3, 2, 2), 96)


@pytest.mark.parametrize("name", ["latent_traversals_plot_1d", "latent_traversals_plot_2d"])
def test_traversals_of_large_colour_images_show_all_channels_at_full_size(name):
    _, figure = draw(name, colour_compressor(), Colours())
    (axes,) = figure.axes
    height, width, _ = axes.images[0].get_array().shape
    assert (height + 8) % 104 == 0 and width == 7 * 104 - 8
    assert 5 <= figure.get_figwidth() <= 10 and figure.get_figheight() < 8
    assert axes.get_position().width * figure.get_figwidth() * figure.dpi >= width - 1
    compressor = colour_compressor()
    with models.drawing(compressor):  # the first image of the last row
        z_hat = images._test_codes(compressor, Colours(), 1000)
        latents = images.most_varying(z_hat, 5 if "1d" in name else 2)
        z = z_hat[:1].clone()
        z[0, latents[-1]] = images.latent_steps(z_hat, latents[-1])[0]
        if "2d" in name:
            z[0, latents[0]] = images.latent_steps(z_hat, latents[0])[0]
        expected = compressor.distortion.reconstruct(z)[0].permute(1, 2, 0)
    assert np.allclose(axes.images[0].get_array()[-96:, :96], expected, atol=1e-5)


@pytest.mark.parametrize(("side", "n", "width"), [(16, 10, 5.0), (64, 14, 6.1), (96, 30, 10.0)])
def test_a_figure_grows_with_its_images_within_bounds(side, n, width):
    figure = mosaic(torch.rand(2, n, 3, side, side))
    assert figure.get_figwidth() == pytest.approx(width, abs=0.1)
    smoothing = figure.axes[0].images[0].get_interpolation()
    assert (smoothing == "nearest") == (width < 10)


@pytest.mark.parametrize("rate", [HFactorized, HHyper])
def test_a_row_of_the_traversals_is_one_latent(digits, rate):
    compressor = image_compressor(rate=rate)
    figure = images.latent_traversals_plot_1d(compressor, digits, n_latents=3)
    labels = row_labels(figure)
    assert len(set(labels)) == 3 and all(label.startswith("latent ") for label in labels)
    assert figure.axes[0].images[0].get_array().shape[:2] == (3 * 16 + 2, 7 * 16 + 6)
    with models.drawing(compressor):  # the last image of the second row
        z_hat = images._test_codes(compressor, digits, 1000)
        latent = int(labels[1].split()[1])
        z = z_hat[:1].clone()
        z[0, latent] = images.latent_steps(z_hat, latent)[-1]
        expected = compressor.distortion.reconstruct(z)[0, 0]
    assert np.allclose(figure.axes[0].images[0].get_array()[17:33, -16:, 0], expected, atol=1e-5)


def test_two_latents_span_a_square(digits):
    figure = images.latent_traversals_plot_2d(image_compressor(), digits)
    canvas = figure.axes[0].images[0].get_array()
    assert canvas.shape == (7 * 17 - 1, 7 * 17 - 1, 3)
    # at the left of the first and the top of the second latent's range
    compressor = image_compressor()
    with models.drawing(compressor):
        z_hat = images._test_codes(compressor, digits, 1000)
        first, second = images.most_varying(z_hat, 2)
        z = z_hat[:1].clone()
        z[0, first] = images.latent_steps(z_hat, first)[0]
        z[0, second] = images.latent_steps(z_hat, second)[-1]
        expected = compressor.distortion.reconstruct(z)[0, 0]
    assert np.allclose(canvas[:16, :16, 0], expected, atol=1e-5)


def test_one_latent_spans_no_square(digits):
    with pytest.raises(ValueError, match="z_dim >= 2"):
        images.latent_traversals_plot_2d(image_compressor(z_dim=1), digits)


# --- by name


@pytest.mark.parametrize(
    ("name", "file_name"),
    [
        ("reconstruct_image_plot", "rec_imgs.png"),
        ("latent_traversals_plot_1d", "traversals_1d.png"),
        ("latent_traversals_plot_2d", "traversals_2d.png"),
    ],
)
def test_image_figures_by_name(digits, name, file_name):
    found, figure = draw(name, image_compressor(), digits)
    assert found == file_name and isinstance(figure, Figure)


@pytest.mark.parametrize("equivalence", ["rotation", "x_translation", "y_translation"])
def test_the_maximal_invariant_is_named_after_the_equivalence(equivalence):
    data = points(equivalence=equivalence)
    file_name, _ = draw("maxinv_distribution_plot", plain_vc(), data)
    assert file_name == f"max. inv. {equivalence}.png"


def test_an_unknown_figure_names_those_that_exist():
    with pytest.raises(ValueError, match="'codebok_plot': choose from codebook_plot, maxinv"):
        draw("codebok_plot", plain_vc(), points())


@pytest.mark.parametrize("name", [name for name in FIGURES if "image" in name or "latent" in name])
def test_images_are_not_drawn_of_points(name):
    with pytest.raises(ValueError, match="kind vector; figures for this kind: codebook_plot"):
        draw(name, plain_vc(), points())


def test_cells_are_not_drawn_of_images(digits):
    with pytest.raises(ValueError, match="kind bw_image; figures for this kind: reconstruct"):
        draw("codebook_plot", image_compressor(), digits)


def test_reconstructions_need_a_decoder(digits):
    contrastive = compressor_of(CNN, (1, 16, 16), HFactorized(4), ContrastiveDistortion(4, MLP))
    with pytest.raises(ValueError, match="ContrastiveDistortion has no decoder"):
        draw("reconstruct_image_plot", contrastive, digits)


def test_classical_codecs_have_no_such_figures(digits):
    with pytest.raises(ValueError, match="not ClassicalCompressor"):
        draw("reconstruct_image_plot", ClassicalCompressor("png", 1), digits)


def test_without_quantisation_there_is_no_codebook():
    distortion = DirectDistortion(Identity, 2, (2,), "vector", "input")
    compressor = compressor_of(MLP, (2,), MIRate(2), distortion)
    with pytest.raises(ValueError, match="MIRate does not quantise"):
        draw("codebook_plot", compressor, points())


def test_no_invariance_has_no_distribution_of_a_number():
    with pytest.raises(ValueError, match="1 dimension, that of equivalence=None has 2"):
        draw("maxinv_distribution_plot", plain_vc(), points(equivalence=None))


def test_vectors_that_are_not_on_the_plane_have_no_cells():
    x, y = torch.rand(20, 5), torch.zeros(20, dtype=torch.int64)
    splits = dict.fromkeys(("train", "val", "test"), (x, y))
    data = DecodedDataModule(splits, task="classification", n_outputs=2)
    with pytest.raises(ValueError, match="source on the plane"):
        draw("codebook_plot", plain_vc(), data)


# --- drawing leaves nothing behind


def test_modes_of_all_modules_are_restored_and_nothing_has_a_gradient():
    compressor = plain_vc().train()
    compressor.distortion.eval()  # as a frozen part
    banana.codebook_plot(compressor, points(), n_grid=50)
    assert compressor.training and compressor.rate.prior.training
    assert not compressor.distortion.training and not compressor.distortion.decoder.training
    assert torch.is_grad_enabled() and all(p.grad is None for p in compressor.parameters())
    with pytest.raises(KeyError), models.drawing(compressor):
        raise KeyError
    assert compressor.training and torch.is_grad_enabled()


def test_figures_are_drawn_in_threads_without_pyplot_or_settings():
    settings = dict(matplotlib.rcParams)
    compressor, sizes = ideal_vic(), []

    def work():
        file = io.BytesIO()
        banana.codebook_plot(compressor, points(), n_grid=50).savefig(file)
        sizes.append(file.tell())

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sizes) == 3 and len(set(sizes)) == 1
    assert dict(matplotlib.rcParams) == settings
    from matplotlib import pyplot

    assert pyplot.get_fignums() == []


def test_global_randomness_is_left_alone():
    compressor, state = plain_vc(), torch.get_rng_state()
    banana.codebook_plot(compressor, points("positive"), n_grid=50)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("device", DEVICES)
def test_figures_are_drawn_on_the_compressor_s_device(device, digits):
    figures = [
        banana.codebook_plot(plain_vc().to(device), points(), n_grid=50),
        banana.maxinv_distribution_plot(bince().to(device), points()),
        images.reconstruct_image_plot(image_compressor().to(device), digits),
        images.latent_traversals_plot_1d(image_compressor().to(device), digits),
        images.latent_traversals_plot_2d(image_compressor().to(device), digits),
    ]
    assert all(figure.axes for figure in figures)
