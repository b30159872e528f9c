"""The joint optimiser equals separate ones; schedules and annealing have their closed forms."""

import copy
import math
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from helpers.toy import Batches
from torch import nn

from lossyless.base import Batch
from lossyless.optim import (
    BetaAnnealer,
    JointOptimizer,
    JointScheduler,
    PartOptimizer,
    configure_parts,
    cosine,
    cosine_restart,
    exponential_decay,
    plateau,
    sgd_like_adam,
    uniform_multistep,
)

LR = 0.1


# --- one optimiser


def test_a_state_from_another_device_continues_with_this_ones_fused_steps_and_memory_layout():
    """Fused steps and the channels-last layout stand in for a GPU."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 1))
    trained = {False: network, True: copy.deepcopy(network).to(memory_format=torch.channels_last)}
    optimizers = {}
    for fused, module in trained.items():
        settings = PartOptimizer(partial(torch.optim.AdamW, lr=0.01, fused=fused))
        optimizers[fused] = configure_parts({"net": (module, settings)}, 1, "val")["optimizer"]
    for i, x in enumerate(torch.randn(10, 8, 3, 3, 3)):
        if i in (3, 6):  # there and back
            here, there = trained[i == 3], trained[i == 6]
            here.load_state_dict(there.state_dict())
            optimizers[i == 3].load_state_dict(copy.deepcopy(optimizers[i == 6].state_dict()))
        for fused, module in trained.items():
            optimizers[fused].zero_grad()
            module(x).square().mean().backward()
            optimizers[fused].step()
    for (name, one), other in zip(
        trained[False].named_parameters(), trained[True].parameters(), strict=True
    ):
        torch.testing.assert_close(other, one, msg=name)
    for fused, module in trained.items():
        part = optimizers[fused].parts["net"].optimizer
        assert part.param_groups[0]["fused"] is fused
        assert part.state[module[0].weight]["exp_avg"].stride() == module[0].weight.stride()
    assert trained[True][0].weight.stride() != trained[False][0].weight.stride()


def test_sgd_searches_the_learning_rates_of_adam():
    optimizer = sgd_like_adam([nn.Parameter(torch.zeros(1))], lr=3e-4, momentum=0.9)
    assert rates_of(optimizer) == [pytest.approx(0.03)]
    assert optimizer.defaults["momentum"] == 0.9


# --- schedules


def learning_rates(schedule, n_epochs, **kwargs):
    """Learning rates of epochs 0, ..., n_epochs; the last one is the rate after training."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = schedule(optimizer, n_epochs, **kwargs)
    rates = []
    for _ in range(n_epochs + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("n_epochs, factor", [(1, 100), (2, 1000), (3, 100), (200, 1000)])
def test_decays_start_at_the_full_rate_and_reach_their_factor(n_epochs, factor):
    exponential = learning_rates(exponential_decay, n_epochs, total_factor=factor)
    expected = [LR * factor ** (-epoch / n_epochs) for epoch in range(n_epochs + 1)]
    assert exponential == pytest.approx(expected)
    steps = learning_rates(uniform_multistep, n_epochs, total_factor=factor)
    assert steps[0] == LR and steps == sorted(steps, reverse=True)
    if n_epochs >= 3:
        assert steps[-1] == pytest.approx(LR / factor)


def test_multistep_divides_in_equal_steps_of_whole_epochs():
    rates = learning_rates(uniform_multistep, 8, total_factor=1000, n_steps=3)
    assert rates[:8] == pytest.approx([LR] * 2 + [LR / 10] * 2 + [LR / 100] * 2 + [LR / 1000] * 2)
    for n_epochs, milestones in ((1, [1]), (3, [1, 2, 3]), (30, [7, 14, 21]), (50, [12, 24, 36])):
        rates = learning_rates(uniform_multistep, n_epochs, total_factor=1000, n_steps=3)
        assert [i for i in range(1, n_epochs + 1) if rates[i] < rates[i - 1]] == milestones


def test_cosines_are_half_a_period_and_restart_with_growing_periods():
    expected = [LR * (1 + math.cos(math.pi * epoch / 20)) / 2 for epoch in range(21)]
    assert learning_rates(cosine, 20) == pytest.approx(expected)
    rates = learning_rates(cosine_restart, 14, period=2, growth=2)
    restarts = [epoch for epoch, rate in enumerate(rates) if rate == LR]
    assert restarts == [0, 2, 6, 14]
    assert rates[4] == pytest.approx(LR / 2)


def scheduled(*schedules):
    """A joint optimiser with one part per schedule, and its joint schedule."""
    sgd = partial(torch.optim.SGD, lr=LR)
    parts = {
        f"part{i}": (nn.Linear(1, 1), PartOptimizer(sgd, schedule))
        for i, schedule in enumerate(schedules)
    }
    configured = configure_parts(parts, 10, "val/loss")
    return configured["optimizer"], configured["lr_scheduler"]


def rates_of(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def test_a_plateau_follows_its_metric_and_the_other_parts_their_own_schedules():
    optimizer, scheduler = scheduled(
        partial(plateau, factor=0.5, patience=1, min_lr=LR / 3),
        partial(exponential_decay, total_factor=100),
        None,
    )
    assert isinstance(optimizer, JointOptimizer) and isinstance(scheduler, JointScheduler)
    losses, rates = (1.0, 0.9, 0.91, 0.92, 0.8, 1, 1), [LR] * 3 + [LR / 2] * 3 + [LR / 3]
    for epoch, (loss, rate) in enumerate(zip(losses, rates, strict=True), 1):
        optimizer.step()
        scheduler.step({"val/loss": torch.tensor(loss)})
        assert rates_of(optimizer) == pytest.approx([rate, LR * 100 ** (-epoch / 10), LR])
    with pytest.raises(ValueError, match="'part0'.*'val/loss'.*train/loss"):
        scheduler.step({"train/loss": torch.tensor(1.0)})


# --- annealing


@pytest.mark.parametrize("mode", ["linear", "geometric"])
def test_beta_rises_from_its_start_to_its_value_and_stays(mode):
    annealer = BetaAnnealer(0.3, mode)
    betas = [annealer(step, 1000) for step in range(1000)]
    assert betas[0] == pytest.approx(0.3 * BetaAnnealer.START)
    assert betas == sorted(betas)
    assert all(beta < 0.3 for beta in betas[:100])
    assert betas[100:] == [0.3] * 900


def test_beta_has_its_closed_forms():
    start, halfway = BetaAnnealer.START, 50
    assert BetaAnnealer(2.0, "linear")(halfway, 1000) == pytest.approx(1 + start)
    assert BetaAnnealer(2.0, "geometric")(halfway, 1000) == pytest.approx(2 * start**0.5)
    assert {BetaAnnealer(2.0, "constant")(step, 1000) for step in range(1000)} == {2.0}
    assert 0 < BetaAnnealer(2.0, "geometric")(0, 1) <= 2.0
    with pytest.raises(ValueError, match="'exponential'.*geometric"):
        BetaAnnealer(1.0, "exponential")


# --- through a trainer


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_plateau_follows_the_loss_by_which_the_best_epoch_is_kept(
    split, make_compressor, make_trainer, tmp_path
):
    schedule = partial(plateau, factor=0.5, patience=9)
    how = PartOptimizer(partial(torch.optim.Adam, lr=0.01), schedule)
    compressor, monitor = make_compressor(optimizer=how), f"{split}/feat/loss"
    checkpoint = pl.callbacks.ModelCheckpoint(tmp_path, monitor=monitor)
    trainer = make_trainer(1, callbacks=[checkpoint], enable_checkpointing=True)
    x = torch.randn(2, 16, 2)
    train, val = (Batches([Batch(part, torch.zeros(16).long(), part)]) for part in x)
    trainer.fit(compressor, train, val)
    assert compressor.lr_schedulers().state_dict()["featurizer"]["best"] == pytest.approx(
        trainer.callback_metrics[monitor].item()
    )
    losses = {trainer.callback_metrics[f"{s}/feat/loss"].item() for s in ("train", "val")}
    assert len(losses) == 2
