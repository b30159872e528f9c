"""Distortions agree with closed forms; InfoNCE agrees with a naive implementation."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from lossyless.architectures import Identity, Linear
from lossyless.distortions import (
    ContrastiveDistortion,
    DirectDistortion,
    LossyZ,
    TargetDistortion,
)

IMAGE = (3, 4, 4)


class Reshape(torch.nn.Module):
    """A decoder that only reshapes its input, so z_hat is the prediction."""

    def __init__(self, in_shape, out_shape):
        super().__init__()
        self.out_shape = out_shape

    def forward(self, z):
        return z.unflatten(1, self.out_shape)


def direct(kind, shape, needs="input", **kwargs):
    return DirectDistortion(Reshape, math.prod(shape), shape, kind, needs, **kwargs)


# --- direct


def test_vectors_cost_their_mean_squared_error():
    z_hat, target = torch.randn(2, 5, 6)
    distortions, _ = direct("vector", (6,))(z_hat, target)
    torch.testing.assert_close(distortions, ((z_hat - target) ** 2).mean(1))
    torch.testing.assert_close(distortions.mean(), F.mse_loss(z_hat, target))


def test_black_and_white_pixels_cost_their_cross_entropy_summed():
    logits, target = torch.randn(5, 48), torch.rand(5, *IMAGE)
    distortions, _ = direct("bw_image", IMAGE)(logits, target)
    p = torch.sigmoid(logits).view(5, *IMAGE)
    expected = -(target * p.log() + (1 - target) * (1 - p).log()).sum((1, 2, 3))
    torch.testing.assert_close(distortions, expected)
    extreme, _ = direct("bw_image", IMAGE)(torch.full((2, 48), -1e4), torch.ones(2, *IMAGE))
    torch.testing.assert_close(extreme, torch.full((2,), 48 * 1e4))


def test_colour_images_are_compared_by_the_squared_error_of_their_pixels():
    images = torch.rand(5, *IMAGE).clamp(0.01, 0.99)
    distortion = direct("colour_image", IMAGE)
    perfect, _ = distortion(torch.logit(images).flatten(1), images)
    torch.testing.assert_close(perfect, torch.zeros(5), atol=1e-6, rtol=0)
    logits = torch.randn(5, 48)
    expected = (torch.sigmoid(logits).view(5, *IMAGE) - images).square().sum((1, 2, 3))
    torch.testing.assert_close(distortion(logits, images)[0], expected)


@pytest.mark.parametrize("kind", ["vector", "bw_image", "colour_image"])
def test_reconstructions_are_the_targets_of_least_distortion(kind):
    distortion, z_hat = direct(kind, IMAGE), 3 * torch.randn(5, 48)
    target = distortion.reconstruct(z_hat)
    assert kind == "vector" or (target.min() >= 0 and target.max() <= 1)
    prediction = z_hat.requires_grad_()
    distortion(prediction, target)[0].sum().backward()
    torch.testing.assert_close(prediction.grad, torch.zeros(5, 48))


def test_unknown_data_and_targets_raise_errors():
    for kind, needs in (("color_image", "input"), ("vector", "positive")):
        with pytest.raises(ValueError, match="color_image|positive"):
            direct(kind, (3,), needs)


# --- contrastive


def contrastive(z_dim=10, arch=Identity, **kwargs):
    kwargs = {"project_factor": 1.0} | kwargs
    return ContrastiveDistortion(z_dim, arch, **kwargs)


def naive_info_nce(a, b, temperature, multiplicity=1.0):
    """InfoNCE of each pair [B], averaged over both directions, written with loops."""
    features, n = torch.cat([a, b]), len(a)

    def loss(i):
        similar = [
            F.cosine_similarity(features[i], f, dim=0).div(temperature).exp() for f in features
        ]
        j = (i + n) % (2 * n)
        negatives = sum(s for k, s in enumerate(similar) if k not in (i, j))
        return -(similar[j] / (similar[j] + multiplicity * negatives)).log()

    return torch.stack([(loss(i) + loss(i + n)) / 2 for i in range(n)])


@pytest.mark.parametrize("effective_batch_size", [None, 5, 300])
def test_the_contrastive_loss_is_info_nce(effective_batch_size):
    a, b = torch.randn(2, 5, 10)
    multiplicity = 1.0 if effective_batch_size is None else (effective_batch_size - 1) / 4
    distortion = contrastive(temperature=0.3, effective_batch_size=effective_batch_size)
    expected = naive_info_nce(a, b, 0.3, multiplicity)
    torch.testing.assert_close(distortion(a, b)[0], expected)


def test_aligned_positives_cost_the_closed_form_at_the_size_of_mnist():
    """Similarity 1 with the partner, 0 with all others, T = 0.07, N = 57,000."""
    n, temperature = 10, 0.07
    z = torch.eye(n)
    distortion = contrastive(effective_batch_size=57_000, temperature=temperature)
    distortions, logs = distortion(z, z)
    n_negatives = 2 * (57_000 - 1)
    expected = math.log1p(n_negatives * math.exp(-1 / temperature))
    torch.testing.assert_close(distortions, torch.full((n,), expected))
    assert expected < 0.1
    bound = (math.log(1 + n_negatives) - expected) / math.log(2)
    assert logs["I_q_zm"].item() == pytest.approx(bound, rel=1e-4)


def test_the_temperature_starts_where_asked_and_is_learned():
    distortion = contrastive(initial_temperature=0.2)
    assert distortion.temperature.item() == pytest.approx(0.2)
    a, b = torch.randn(2, 6, 10)
    distortions, logs = distortion(a, b)
    distortions.sum().backward()
    assert distortion.log_temperature.grad != 0
    assert logs["temperature"] == distortion.temperature
    fixed = contrastive(temperature=0.2, is_train_temperature=False)
    assert fixed.temperature.item() == pytest.approx(0.2)
    assert not any(p.requires_grad for p in fixed.parameters())


@pytest.mark.parametrize("bound", [0.01, 0.2])
def test_a_learned_temperature_is_bounded_and_can_leave_its_bound(bound):
    distortion = contrastive(temperature=bound)
    assert distortion.temperature.item() == pytest.approx(max(bound, 0.07))
    distortion.log_temperature.data -= 10
    assert distortion.temperature.item() == pytest.approx(bound)
    distortion.temperature.neg().backward()  # the optimum has a larger temperature
    assert distortion.log_temperature.grad < 0
    distortion.zero_grad()
    distortion.temperature.backward()  # the optimum has a smaller one, but the bound holds
    assert distortion.log_temperature.grad == 0


def test_settings_and_batches_without_a_loss_are_rejected():
    with pytest.raises(ValueError, match="effective_batch_size=1"):
        contrastive(effective_batch_size=1)
    with pytest.raises(ValueError, match="2 examples"):
        contrastive()(torch.randn(1, 10), torch.randn(1, 10))
    for option in ("temperature", "initial_temperature"):
        with pytest.raises(ValueError, match=f"{option}=0"):
            contrastive(**{option: 0})


@pytest.mark.parametrize(
    "make",
    [
        partial(contrastive, initial_temperature=0.01),
        LossyZ,
        partial(LossyZ, 2),
        partial(direct, "vector", (10,)),
        partial(direct, "bw_image", (10,)),
        partial(direct, "colour_image", (10,)),
        partial(TargetDistortion, Reshape, 10, "regression", 10),
    ],
)
def test_half_precision_does_not_reach_the_distances(make):
    """Only networks may run in half precision, and these distortions have none."""
    z_hat, target = torch.rand(2, 6, 10)
    expected, _ = make()(z_hat, target)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = make()(z_hat, target)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


# --- lossy Z


@pytest.mark.parametrize("p_norm", [1, 2, 3])
def test_lossy_z_is_the_norm_of_the_difference(p_norm):
    z_hat, z = torch.randn(2, 5, 6)
    expected = (z_hat - z).abs().pow(p_norm).sum(1).pow(1 / p_norm)
    torch.testing.assert_close(LossyZ(p_norm)(z_hat, z)[0], expected)
    if p_norm == 1:
        assert torch.equal(LossyZ()(z_hat, z)[0], LossyZ(1)(z_hat, z)[0])


# --- target


def test_classes_cost_their_cross_entropy():
    z_hat, target = torch.randn(7, 5), torch.randint(3, (7,))
    distortion = TargetDistortion(Linear, 5, "classification", 3)
    distortions, logs = distortion(z_hat, target)
    logits = distortion.head(z_hat)
    expected = -logits.softmax(-1).log()[torch.arange(7), target]
    torch.testing.assert_close(distortions, expected)
    accuracy = (logits.argmax(-1) == target).float().mean()
    assert logs == {"target_acc": accuracy, "target_err": 1 - accuracy}


def test_values_cost_their_mean_squared_error():
    z_hat, target = torch.randn(7, 5), torch.randn(7, 2)
    distortion = TargetDistortion(Linear, 5, "regression", 2)
    distortions, logs = distortion(z_hat, target)
    torch.testing.assert_close(distortions, (distortion.head(z_hat) - target).square().mean(1))
    assert distortions.shape == (7,) and logs == {}
