"""Figures of the Banana, with compressors whose codes are known in closed form."""

import io
import math
import threading

import matplotlib
import numpy as np
import pytest
import torch
from helpers.drawn import CELL_WIDTH, bince, compressor_of, ideal_vic, plain_vc, points
from matplotlib.collections import LineCollection, PathCollection

from lossyless.architectures import MLP, Identity
from lossyless.distortions import DirectDistortion
from lossyless.rates import MIRate
from utils.data.banana import BananaDistribution
from utils.data.decoded import DecodedDataModule
from utils.plots import banana, models
from utils.plots.figures import draw, find_figure


@pytest.fixture(scope="module")
def vic_figure():
    return banana.codebook_plot(ideal_vic(), points(), n_grid=300)


def collection(figure, kind):
    return [c for c in figure.axes[0].collections if isinstance(c, kind)]


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


def test_a_border_runs_between_cells_and_nowhere_else():
    labels = np.zeros((100, 100), dtype=int)
    labels[:, 30:] = 7  # the window's left 30 % are another cell
    borders = banana.cell_borders(labels, (0.0, 1.0, -5.0, 5.0))
    assert len(borders) == 2  # one of each side
    for border in borders:
        assert np.allclose(border[:, 0], 0.3, atol=0.006)
        assert np.ptp(border[:, 1]) == pytest.approx(10, rel=0.02)


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


@pytest.mark.parametrize("equivalence", ["rotation", "x_translation", "y_translation"])
def test_the_maximal_invariant_is_named_after_the_equivalence(equivalence):
    data = points(equivalence=equivalence)
    file_name, _ = draw("maxinv_distribution_plot", plain_vc(), data)
    assert file_name == f"max. inv. {equivalence}.png"


# --- errors and side effects


def vectors():
    """Vectors that are not on the plane."""
    x, y = torch.rand(20, 5), torch.zeros(20, dtype=torch.int64)
    splits = dict.fromkeys(("train", "val", "test"), (x, y))
    return DecodedDataModule(splits, task="classification", n_outputs=2)


def unquantised():
    distortion = DirectDistortion(Identity, 2, (2,), "vector", "input")
    return compressor_of(MLP, (2,), MIRate(2), distortion)


@pytest.mark.parametrize(
    ("name", "make", "data", "message"),
    [
        ("codebok_plot", plain_vc, points, "'codebok_plot'.* codebook_plot, maxinv"),
        ("reconstruct_image_plot", plain_vc, points, "kind vector; .* codebook_plot"),
        ("codebook_plot", unquantised, points, "MIRate does not quantise"),
        ("codebook_plot", plain_vc, vectors, "source on the plane"),
        (
            "maxinv_distribution_plot",
            plain_vc,
            lambda: points(equivalence=None),
            "equivalence=None has 2",
        ),
    ],
)
def test_figures_that_do_not_apply_are_errors_before_the_training(name, make, data, message):
    with pytest.raises(ValueError, match=message):
        find_figure(name, make(), data())


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
