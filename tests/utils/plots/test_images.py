"""Figures of images: reconstructions, traversals, mosaics."""

import numpy as np
import pytest
import torch
from helpers.drawn import compressor_of, image_compressor, plain_vc, points

from lossyless.architectures import CNN, MLP
from lossyless.classical import ClassicalCompressor
from lossyless.distortions import ContrastiveDistortion
from lossyless.rates import HFactorized, HHyper
from utils.data.sources import digits as digits_set
from utils.plots import images, models
from utils.plots.figures import FIGURES, draw

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(scope="module")
def digits():
    return digits_set.digits(auxiliary="representative", equivalence=["rotation"])


def row_labels(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_rows_of_reconstructions_are_source_augmented_and_decoded(digits):
    compressor = image_compressor()
    options = {"n_samples": 6, "n_rows": 2, "seed": None}
    figure = images.reconstruct_image_plot(compressor, digits, **options)
    assert row_labels(figure) == ["source", "augmented", "VIC decoded"] * 2
    canvas, batch = figure.axes[0].images[0].get_array(), next(iter(digits.loader("test")))
    assert canvas.shape[:2] == (6 * 17 - 1, 3 * 17 - 1)
    assert np.allclose(canvas[:16, :16, 0], batch.aux[0, 0])
    assert np.allclose(canvas[17:33, -16:, 1], batch.x[2, 0])
    assert np.allclose(canvas[3 * 17 : 3 * 17 + 16, :16, 0], batch.aux[3, 0])
    decoded = images.reconstruct(compressor, batch.x)[5, 0].detach()
    assert np.allclose(canvas[-16:, -16:, 2], decoded)
    options = {"n_samples": 4, "is_plot_real": False, "labels": ["ours"]}
    figure = images.reconstruct_image_plot(compressor, digits, **options)
    assert row_labels(figure) == ["ours"]
    assert figure.axes[0].images[0].get_array().shape[:2] == (16, 4 * 17 - 1)


def test_the_seed_selects_images_of_a_split(digits):
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
        ({"labels": ["a", "b"]}, " 3, .*source, augmented, VIC decoded"),
        ({"n_samples": 10, "n_rows": 3}, "10 images .*n_rows=3"),
        ({"n_rows": 0}, "n_rows=0"),
    ],
)
def test_images_that_cannot_be_arranged_are_an_error(digits, options, message):
    with pytest.raises(ValueError, match=message):
        images.reconstruct_image_plot(image_compressor(), digits, **options)


def test_inputs_do_not_depend_on_the_auxiliary_variable(digits):
    """VC, which needs none, therefore shows the same source and augmented images as VIC."""
    vc_data = digits_set.digits(auxiliary="input", equivalence=["rotation"])
    canvases = [
        images.reconstruct_image_plot(image_compressor(), data).axes[0].images[0].get_array()
        for data in (digits, vc_data)
    ]
    assert np.array_equal(*canvases)
    assert vc_data.auxiliary == "input"


def test_latents_move_evenly_between_their_percentiles():
    z_hat = torch.stack([torch.zeros(1001), torch.linspace(-5, 5, 1001)], dim=1)
    steps = images.latent_steps(z_hat, 1)
    assert torch.allclose(steps, torch.linspace(-4.9, 4.9, 7), atol=1e-5)


@pytest.mark.parametrize("rate", [HFactorized, HHyper])
def test_each_row_of_traversals_is_one_latent(digits, rate):
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


def contrastive():
    return compressor_of(CNN, (1, 16, 16), HFactorized(4), ContrastiveDistortion(4, MLP))


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("codebook_plot", image_compressor, "two-dimensional source"),
        ("reconstruct_image_plot", contrastive, "ContrastiveDistortion .*decoder"),
        ("reconstruct_image_plot", lambda: ClassicalCompressor("png", 1), "ClassicalCompressor"),
        ("latent_traversals_plot_2d", lambda: image_compressor(z_dim=1), "z_dim=1"),
    ],
)
def test_figures_that_do_not_apply_are_errors(digits, name, make, message):
    with pytest.raises(ValueError, match=message):
        draw(name, make(), digits)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_on_the_device_of_the_compressor(name, device, digits):
    is_image = FIGURES[name].check is images.check_images
    compressor, data = (image_compressor(), digits) if is_image else (plain_vc(), points())
    file_name, figure = draw(name, compressor.to(device), data)
    assert figure.axes and file_name.endswith(".png")


def test_joint_traversals_move_one_latent_rightwards_and_the_other_upwards(digits):
    compressor = image_compressor()
    figure = images.latent_traversals_plot_2d(compressor, digits)
    with models.drawing(compressor):  # the last image of the last row
        z_hat = images._test_codes(compressor, digits, 1000)
        z = z_hat[:1].clone()
        for latent, step in zip(images.most_varying(z_hat, 2), (-1, 0), strict=True):
            z[0, latent] = images.latent_steps(z_hat, latent)[step]
        expected = compressor.distortion.reconstruct(z)[0, 0]
    canvas = figure.axes[0].images[0].get_array()
    assert np.allclose(canvas[-16:, -16:, 0], expected, atol=1e-5)
