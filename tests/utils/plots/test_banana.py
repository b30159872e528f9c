"""Figures of the Banana for compressors whose codes are known in closed form."""

import io
import math
from concurrent.futures import ThreadPoolExecutor

import matplotlib
import numpy as np
import pytest
import torch
from helpers.drawn import CELL_WIDTH, bince, compressor_of, ideal_vic, plain_vc, points, supervised
from matplotlib import pyplot
from matplotlib.collections import LineCollection, PathCollection
from scipy.spatial import KDTree

from lossyless.architectures import MLP, Identity
from lossyless.distortions import DirectDistortion
from lossyless.rates import MIRate
from utils.data.decoded import DecodedDataModule
from utils.plots import banana
from utils.plots.figures import draw, find_figure


@pytest.fixture(scope="module")
def vic_figure():
    return banana.codebook_plot(ideal_vic(), points(), n_grid=300)


def collection(figure, kind):
    return [c for c in figure.axes[0].collections if isinstance(c, kind)]


@pytest.mark.parametrize("make", [ideal_vic, plain_vc])
def test_points_have_the_codes_that_the_receiver_decodes(make):
    compressor = make()
    x = points().distribution.sample(20_000, torch.Generator().manual_seed(0))
    with torch.no_grad():
        codebook = banana.find_codebook(compressor, x)
    z_hat = compressor.codec.decompress(compressor.codec.compress(compressor.represent(x)), len(x))
    assert torch.equal(codebook.z_hat[codebook.labels], z_hat)
    assert len(codebook.z_hat.unique(dim=0)) == len(codebook.z_hat)
    assert torch.allclose(codebook.rates, compressor.rates(x))


def test_borders_of_an_ideal_vic_are_circles_half_way_between_its_codes(vic_figure):
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
    compressor, state = make(), torch.get_rng_state()
    figure = banana.codebook_plot(compressor, points(), n_grid=100)
    assert torch.equal(torch.get_rng_state(), state)
    (scatter,) = collection(figure, PathCollection)
    data = points(compressor.distortion.needs)
    x = torch.cat([batch.x for batch in data.loader("test")])
    codebook = banana.find_codebook(compressor, x)
    decoded = compressor.distortion.reconstruct(codebook.z_hat)
    expected = banana.AREA * torch.bincount(codebook.labels) / len(x)
    _, nearest = KDTree(scatter.get_offsets()).query(decoded.detach().numpy())
    assert np.allclose(scatter.get_sizes()[nearest], expected, rtol=1e-5)
    assert scatter.get_sizes().sum() == pytest.approx(banana.AREA)


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


@pytest.mark.parametrize(("make", "method"), [(bince, "BINCE"), (supervised, "supervised")])
def test_without_a_decoder_there_are_cells_but_no_points(make, method):
    figure = banana.codebook_plot(make(), points(), n_grid=100)
    assert collection(figure, LineCollection) and not collection(figure, PathCollection)
    assert figure.axes[0].get_title().startswith(f"{method}: ")


@pytest.mark.parametrize("make", [ideal_vic, plain_vc, bince, supervised])
def test_bars_of_the_maximal_invariant_sum_to_one(make):
    figure = banana.maxinv_distribution_plot(make(), points())
    _, bars = figure.axes
    assert sum(bar.get_height() for bar in bars.patches) == pytest.approx(1)


@pytest.mark.parametrize("make", [ideal_vic, bince])
def test_invariants_of_codes_are_those_of_their_cells(make):
    """The norm at the centre of a ring or, without a decoder, the mean norm over its cell."""
    compressor, data = make(), points()
    x = data.distribution.sample(5000, torch.Generator().manual_seed(0))
    source = x.norm(dim=1)
    with torch.no_grad():
        codebook = banana.find_codebook(compressor, x)
        codes = banana.codebook_invariants(compressor, data, codebook, source)
    if make is ideal_vic:
        assert (codes[codebook.labels] - source).abs().max() <= CELL_WIDTH / 2 + 1e-5
    else:
        weights = codebook.probabilities().float()
        assert (weights * codes).sum() == pytest.approx(source.mean().item(), rel=1e-4)


@pytest.mark.parametrize("equivalence", ["rotation", "x_translation", "y_translation"])
def test_the_maximal_invariant_is_named_after_the_equivalence(equivalence):
    data = points(equivalence=equivalence)
    file_name, _ = draw("maxinv_distribution_plot", plain_vc(), data)
    assert file_name == f"max. inv. {equivalence}.png"


def vectors():
    """Data whose vectors are not two-dimensional."""
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
        ("reconstruct_image_plot", plain_vc, points, "vectors, not images"),
        ("codebook_plot", unquantised, points, "MIRate .*quantise"),
        ("codebook_plot", plain_vc, vectors, "two-dimensional"),
        (
            "maxinv_distribution_plot",
            plain_vc,
            lambda: points(equivalence=None),
            "equivalence=None.* 2",
        ),
    ],
)
def test_figures_that_do_not_apply_are_errors(name, make, data, message):
    with pytest.raises(ValueError, match=message):
        find_figure(name, make(), data())


def test_figures_are_drawn_in_threads_without_pyplot_or_settings():
    settings, compressor = dict(matplotlib.rcParams), ideal_vic()

    def draw_bytes(_):
        file = io.BytesIO()
        banana.codebook_plot(compressor, points(), n_grid=50).savefig(file)
        return file.getvalue()

    with ThreadPoolExecutor(3) as pool:
        assert len(set(pool.map(draw_bytes, range(3)))) == 1
    assert dict(matplotlib.rcParams) == settings and pyplot.get_fignums() == []
