"""Downstream tasks: losses, metrics, and a predictor that learns."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.toy import SMALL_MLP, Batches, trainable
from sklearn.metrics import balanced_accuracy_score
from sklearn.utils import compute_sample_weight

from lossyless.architectures import Identity, Linear
from lossyless.base import Batch
from lossyless.optim import PartOptimizer
from lossyless.predictors import OnlineEvaluator, PredictionHead, Predictor

SGD = PartOptimizer(partial(torch.optim.SGD, lr=0.1))


def test_classification_has_cross_entropy_and_accuracy():
    head = PredictionHead(Identity, (4,), "classification", 4)
    logits, y = torch.randn(50, 4), torch.randint(4, (50,))
    losses, metrics = head.losses(logits, y)
    torch.testing.assert_close(losses, -logits.log_softmax(1)[torch.arange(50), y])
    assert metrics["loss"] == losses.mean()
    assert metrics["acc"].item() == pytest.approx((logits.argmax(1) == y).float().mean().item())
    assert metrics["acc"] + metrics["err"] == 1


@pytest.mark.parametrize("shape", [(9, 2), (9, 1), (9,)])
def test_regression_has_the_squared_error_averaged_over_outputs(shape):
    y, n_outputs = torch.randn(shape), (shape + (1,))[1]
    head = PredictionHead(Identity, (n_outputs,), "regression", n_outputs)
    x = torch.randn(9, n_outputs)
    losses, metrics = head.losses(x, y)
    assert losses.shape == (9,)
    torch.testing.assert_close(losses, (x - y.view(9, -1)).square().mean(1))
    torch.testing.assert_close(metrics["loss"], F.mse_loss(x, y.view_as(x)))
    assert metrics.keys() == {"loss"}


def test_a_head_standardises_its_images():
    statistics = {"mean": [0.5], "std": [0.2]}
    head = PredictionHead(Linear, (1, 3, 3), "classification", 4, **statistics)
    x = torch.rand(5, 1, 3, 3)
    torch.testing.assert_close(head(x), head.network((x - 0.5) / 0.2))
    assert all(name.startswith("network.") for name in head.state_dict())
    for task, options in (("classification", statistics), ("ranking", {})):
        with pytest.raises(ValueError, match="one value for each channel|'ranking'"):
            PredictionHead(Linear, (9,), task, 4, **options)


def test_an_online_evaluator_learns_but_gives_no_gradient_to_its_input():
    probe = OnlineEvaluator(Linear, (4,), "classification", 3)
    z = torch.randn(6, 4, requires_grad=True)
    losses, metrics = probe.losses(z * 1.0, torch.randint(3, (6,)))
    losses.sum().backward()
    assert z.grad is None
    assert all(p.grad.any() for p in probe.parameters())
    assert metrics.keys() == {"online_loss", "online_acc", "online_err"}


def batches(task, n=4):
    generator = torch.Generator().manual_seed(0)
    for _ in range(n):
        x = torch.randn(32, 3, generator=generator)
        y = (x[:, 0] > 0).long() if task == "classification" else x[:, :1] - 2 * x[:, 1:2]
        yield Batch(x, y)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_fitting_lowers_the_loss_and_logs_every_split(task, make_trainer):
    torch.manual_seed(0)
    n_outputs = 2 if task == "classification" else 1
    predictor = Predictor(PredictionHead(SMALL_MLP, (3,), task, n_outputs), SGD)
    data, trainer = Batches(batches(task)), make_trainer(10)
    before = trainer.validate(predictor, data, verbose=False)[0]["val/pred/loss"]
    trainer.fit(predictor, data, data)
    assert trainer.callback_metrics["val/pred/loss"] < 0.5 * before
    assert trainer.callback_metrics["train/pred/loss"] < before
    tested = trainer.test(predictor, data, verbose=False)[0]
    expected = {"loss", "acc", "err"} if task == "classification" else {"loss"}
    expected |= {f"balanced_{name}" for name in expected if task == "classification"}
    assert {name.removeprefix("test/pred/") for name in tested} == expected


def evaluated(head, x, y, make_trainer, sizes=(20, 1)):
    """What a predictor logs for examples in batches of these sizes, plus one with the rest."""
    sizes = [*sizes, len(x) - sum(sizes)]
    parts = [Batch(*part) for part in zip(x.split(sizes), y.split(sizes), strict=True)]
    found = make_trainer().test(Predictor(head, SGD), Batches(parts), verbose=False)[0]
    return {name.removeprefix("test/pred/"): value for name, value in found.items()}


def test_balanced_metrics_weight_examples_by_the_inverse_frequency_of_their_class(make_trainer):
    """Class 3 does not occur."""
    torch.manual_seed(0)
    x, y = torch.randn(60, 4), torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), 60, True)
    x[:, 3] = -9
    head = PredictionHead(Identity, (4,), "classification", 4)
    found = evaluated(head, x, y, make_trainer)
    weights = torch.from_numpy(compute_sample_weight("balanced", y))
    loss = (weights * F.cross_entropy(x, y, reduction="none")).sum() / weights.sum()
    assert found["balanced_loss"] == pytest.approx(loss.item()) != pytest.approx(found["loss"])
    assert found["balanced_acc"] == pytest.approx(balanced_accuracy_score(y, x.argmax(1)))
    assert found["balanced_err"] == pytest.approx(1 - found["balanced_acc"])
    # batches are weighted by their sizes
    _, metrics = head.losses(x, y)
    for name, value in metrics.items():
        assert found[name] == pytest.approx(value.item(), rel=1e-5)


@pytest.mark.parametrize("n", [4, 5])
def test_the_tasks_of_a_regression_are_its_outputs(n, make_trainer):
    torch.manual_seed(0)
    x, y = torch.randn(60, n), torch.arange(float(n)) * torch.randn(60, n)
    found = evaluated(PredictionHead(Identity, (n,), "regression", n), x, y, make_trainer)
    losses = (x - y).square().mean(0)
    for name in ("min", "max", "mean", "std"):
        assert found[f"tasks_{name}"] == pytest.approx(getattr(losses, name)().item(), rel=1e-5)
    assert found["tasks_median"] == pytest.approx(np.median(losses), rel=1e-5)
    assert found["tasks_mean"] == pytest.approx(found["loss"], rel=1e-5)


def test_training_equals_a_plain_loop(make_trainer):
    torch.manual_seed(0)
    predictor = Predictor(PredictionHead(Linear, (3,), "classification", 2), SGD)
    bare = PredictionHead(Linear, (3,), "classification", 2)
    bare.load_state_dict(predictor.head.state_dict())
    data, optimizer = Batches(batches("classification")), SGD.optimizer(list(bare.parameters()))
    make_trainer(2).fit(predictor, data)
    for batch in [*data, *data]:
        optimizer.zero_grad()
        F.cross_entropy(bare(batch.x), batch.y).backward()
        optimizer.step()
    for name, parameter in trainable(bare).items():
        assert torch.equal(predictor.head.get_parameter(name), parameter)
    assert torch.equal(predictor(batch.x), bare(batch.x))
