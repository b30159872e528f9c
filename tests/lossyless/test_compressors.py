"""The compressor: one-pass training, logs, warm-up, faults, resuming."""

import math
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from helpers.toy import (
    Z_DIM,
    Batches,
    assert_same_tensors,
    trainable,
)
from pytorch_lightning.plugins import MixedPrecision
from torch import nn

from lossyless.architectures import Linear
from lossyless.base import Batch
from lossyless.compressors import NATS_PER_BIT
from lossyless.distributions import CondDist
from lossyless.optim import BetaAnnealer, PartOptimizer
from lossyless.rates import HFactorized, HHyper, Lossless, MIRate
from lossyless.tracking import NonFiniteLossError
from utils.training.callbacks import ReseedEveryEpoch, reseed

SEED = 5
ADAM = PartOptimizer(partial(torch.optim.Adam, lr=0.01), max_grad_norm=1.0)
SGD = PartOptimizer(partial(torch.optim.SGD, lr=0.1), max_grad_norm=0.5)


def toy_batches(n=3, size=32):
    """Points in the plane; the representative repeats the point's first coordinate."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(n):
        x = torch.randn(size, 2, generator=generator)
        yield Batch(x, (x[:, 0] > 0).long(), x[:, :1].expand(-1, 2))


def fit(compressor, trainer, batches=None):
    batches = Batches(toy_batches() if batches is None else batches)
    trainer.fit(compressor, batches, batches)
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


# --- one pass


def train_naively(compressor, batches, n_epochs, beta):
    """One pass and optimiser for the compressor, then a second encoding for the probe."""
    parts = (compressor.p_ZlX, compressor.rate, compressor.distortion)
    parameters = [p for part in parts for p in part.parameters() if p.requires_grad]
    online_parameters = list(compressor.online.parameters())
    optimizer, online_optimizer = ADAM.optimizer(parameters), SGD.optimizer(online_parameters)
    annealer, n_steps = BetaAnnealer(beta), n_epochs * len(batches)
    compressor.train()
    for epoch in range(n_epochs):
        reseed(SEED, "epoch", epoch)
        for i, batch in enumerate(batches):
            noise = torch.get_rng_state()
            p_ZlX = compressor.p_ZlX(batch.x)
            z_hat, rates, _ = compressor.rate(p_ZlX.rsample(), p_ZlX)
            distortions, _ = compressor.distortion(z_hat, batch.aux)
            step = epoch * len(batches) + i
            loss = distortions.mean() + annealer(step, n_steps) * rates.mean()
            # the probe sees the same noise, before the compressor is updated
            torch.set_rng_state(noise)
            with torch.no_grad():
                p_ZlX = compressor.p_ZlX(batch.x)
                z_hat, _, _ = compressor.rate(p_ZlX.rsample(), p_ZlX)
            online_loss = compressor.online.losses(z_hat, batch.y)[0].mean()
            for part, part_loss, part_optimizer, how in (
                (parameters, loss, optimizer, ADAM),
                (online_parameters, online_loss, online_optimizer, SGD),
            ):
                part_optimizer.zero_grad()
                part_loss.backward()
                nn.utils.clip_grad_norm_(part, how.max_grad_norm)
                part_optimizer.step()


@pytest.mark.parametrize("rate", [HFactorized, HHyper, MIRate])
def test_one_pass_equals_separate_passes_to_the_bit(rate, make_compressor, make_trainer):
    def make():
        return make_compressor(
            rate=rate(Z_DIM),
            online_task="classification",
            optimizer=ADAM,
            online_optimizer=SGD,
            beta=0.1,
        )

    torch.manual_seed(0)
    joint = make()
    separate = make()
    separate.load_state_dict(joint.state_dict())
    batches = Batches(toy_batches())
    make_trainer(3, callbacks=[ReseedEveryEpoch(SEED)]).fit(joint, batches)
    train_naively(separate, batches, 3, beta=0.1)
    assert_same_tensors(trainable(joint), trainable(separate))


@pytest.mark.parametrize("method", ["VC", "VIC", "BINCE", "lossy_Z"])
def test_every_parameter_learns(method, make_compressor, make_trainer):
    compressor = make_compressor(
        method=method, online_task="classification", beta_anneal="constant"
    )
    before = trainable(compressor)
    make_trainer(2).fit(compressor, Batches(toy_batches()))
    still = [n for n, p in trainable(compressor).items() if torch.equal(p, before[n])]
    assert not still


# --- logs


@pytest.mark.parametrize("rate", [HHyper, MIRate, Lossless])
def test_bits_are_logged_with_the_final_beta(rate, make_compressor, make_trainer):
    compressor = make_compressor(
        rate=rate(Z_DIM), beta=0.2, factor_beta_r=3.0, factor_beta_d=0.5, online_task=None
    )
    (batch,) = toy_batches(1)
    reseed(SEED)
    (found,) = make_trainer().validate(compressor, Batches([batch]), verbose=False)
    reseed(SEED)
    with torch.no_grad():
        p_ZlX = compressor.eval().p_ZlX(batch.x)
        z_hat, rates, logs = compressor.rate(p_ZlX.rsample(), p_ZlX)
        distortions, _ = compressor.distortion(z_hat, batch.aux)
    rate_nats, distortion_nats = rates.mean().item(), distortions.mean().item()
    nats = {
        "loss": distortion_nats / 0.5 + 0.2 * 3 * rate_nats,  # even if the rate has no gradient
        "rate": rate_nats,
        "distortion": distortion_nats,
        "ratedist": rate_nats + distortion_nats,
        **{name: value.mean().item() for name, value in logs.items()},
    }
    expected = {f"val/feat/{name}": value / math.log(2) for name, value in nats.items()}
    z_range = {f"val/feat/z{name}" for name in ("min", "max", "mean")}  # without a unit
    assert found.keys() == expected.keys() | z_range
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_the_logs_of_a_distortion_do_not_replace_the_loss(make_compressor):
    compressor, (batch,) = make_compressor().eval(), toy_batches(1)
    *_, expected = compressor.losses(batch)
    distort = compressor.distortion.forward
    logs = {"loss": torch.zeros(()), "mine": torch.ones(())}
    compressor.distortion.forward = lambda *args: (distort(*args)[0], logs)
    *_, found = compressor.losses(batch)
    assert found == expected | {"mine": 1}


def test_training_logs_means_of_the_epoch_with_the_final_beta(make_compressor, make_trainer):
    frozen = PartOptimizer(partial(torch.optim.SGD, lr=0.0))
    compressor = make_compressor(optimizer=frozen, rate=Lossless(Z_DIM), beta=10.0)
    metrics = fit(compressor, make_trainer(1))
    assert metrics["train/feat/distortion"] == pytest.approx(metrics["val/feat/distortion"])
    logged = {n: metrics[f"train/feat/{n}"] for n in ("loss", "rate", "distortion")}
    assert logged["loss"] == pytest.approx(logged["distortion"] + 10 * logged["rate"], rel=1e-5)


def test_validation_and_test_measure_the_whole_split(make_compressor, make_trainer):
    compressor, trainer = make_compressor(online_task="classification"), make_trainer()
    batches = list(toy_batches())
    (validated,) = trainer.validate(compressor, Batches(batches), verbose=False)
    (tested,) = trainer.test(compressor, Batches(batches), verbose=False)
    assert tested == {name.replace("val/", "test/"): value for name, value in validated.items()}
    assert {f"val/feat/online_{name}" for name in ("loss", "acc", "err")} <= validated.keys()
    x = torch.cat([batch.x for batch in batches])
    z_hat = compressor.eval()(x)
    for name in ("min", "max", "mean"):
        expected = getattr(z_hat, name)().item()
        assert validated[f"val/feat/z{name}"] == pytest.approx(expected, rel=1e-5)
    rate = compressor.rates(x).mean().item() / NATS_PER_BIT
    assert validated["val/feat/rate"] == pytest.approx(rate, rel=1e-5)


# --- sender and receiver


def test_the_receiver_gets_what_forward_promises(make_compressor, make_trainer):
    compressor = make_compressor()
    fit(compressor, make_trainer())
    compressor.eval()
    (batch,) = toy_batches(1)
    payload = compressor.codec.compress(compressor.represent(batch.x))
    assert torch.equal(compressor.codec.decompress(payload, 32), compressor(batch.x))
    assert compressor.codec is compressor.rate


def test_a_reconstructing_receiver_gets_reconstructions(make_compressor):
    shape = (1, 4, 4)
    compressor = make_compressor(shape, "VC", kind="bw_image", is_reconstruct=True).eval()
    x = torch.rand(5, *shape)
    images = compressor(x)
    assert images.shape == x.shape and images.min() >= 0 and images.max() <= 1
    z = compressor.represent(x)
    z_hat, _, _ = compressor.rate(z)
    assert torch.equal(compressor.receive(z_hat), images)
    assert torch.equal(make_compressor().receive(z_hat), z_hat)


def test_without_beta_the_rate_moves_nothing(make_compressor, make_trainer):
    compressor = make_compressor(beta=0)
    before = trainable(compressor.rate.prior)
    fit(compressor, make_trainer())
    assert_same_tensors(trainable(compressor.rate.prior), before)


def test_invalid_settings_raise_errors(make_compressor):
    for method in ("BINCE", "lossy_Z"):
        with pytest.raises(ValueError, match="featurizer=neural_feat"):
            make_compressor(method=method, is_reconstruct=True)
    for beta in (-1, math.nan, math.inf, "much", None):
        with pytest.raises(ValueError, match=r"beta=.* \(featurizer.loss.beta\)"):
            make_compressor(beta=beta)
    for z_dim in (0, 2.5):
        with pytest.raises(ValueError, match=rf"z_dim={z_dim} \(encoder.z_dim\)"):
            CondDist(Linear, (3,), z_dim)
    compressor = make_compressor(online_task="classification")
    parts = (compressor.p_ZlX, compressor.rate, compressor.distortion, compressor.optimizer)
    with pytest.raises(ValueError, match="online_optimizer"):
        type(compressor)(*parts, online=compressor.online)


def test_contrastive_views_are_encoded_separately_and_one_is_rated(make_compressor, make_trainer):
    compressor = make_compressor(method="BINCE")
    seen = []
    compressor.p_ZlX.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    (batch,) = toy_batches(1)
    (found,) = make_trainer().validate(compressor, Batches([batch]), verbose=False)
    assert len(seen) == 2 and torch.equal(seen[0], batch.x) and torch.equal(seen[1], batch.aux)
    with torch.no_grad():
        views = [compressor.eval()(x) for x in (batch.x, batch.aux)]
        distortions, _ = compressor.distortion(*views)
    rates = compressor.rates(batch.x)
    assert found["val/feat/rate"] == pytest.approx(rates.mean().item() / math.log(2))
    assert found["val/feat/distortion"] == pytest.approx(distortions.mean().item() / math.log(2))
    information = math.log2(2 * 32 - 1) - found["val/feat/distortion"]
    assert found["val/feat/I_q_zm"] == pytest.approx(information, rel=1e-5)


def test_a_lossy_z_distortion_compares_with_z_before_quantisation(make_compressor, make_trainer):
    compressor = make_compressor(method="lossy_Z")
    (batch,) = toy_batches(1)
    (found,) = make_trainer().validate(compressor, Batches([batch]), verbose=False)
    lost = (compressor.eval()(batch.x) - compressor.represent(batch.x)).abs().sum(1)
    assert found["val/feat/distortion"] == pytest.approx(lost.mean().item() / math.log(2), rel=1e-4)


# --- warm-up and staggered training


@pytest.mark.parametrize("rate", [HFactorized, HHyper, MIRate])
def test_during_the_warm_up_the_rate_does_not_move_the_encoder(rate, make_compressor, make_trainer):
    """The distortion does, through the quantisation noise."""
    compressor = make_compressor(rate=rate(Z_DIM, warmup_k_epoch=2))
    (batch,) = toy_batches(1)
    z, p_ZlX = compressor.represent(batch.x).requires_grad_(), compressor.p_ZlX(batch.x)
    noise = []
    for is_warming_up in (True, False):
        torch.manual_seed(0)
        z_hat, rates, _ = compressor.rate(z, p_ZlX, is_warming_up=is_warming_up)
        noise.append(z_hat)
        (gradient,) = torch.autograd.grad(z_hat.sum(), z, retain_graph=True)
        torch.testing.assert_close(gradient, torch.ones_like(z))
        if is_warming_up and rates.requires_grad:
            inputs = [z, *compressor.p_ZlX.parameters()]
            gradients = torch.autograd.grad(rates.sum(), inputs, allow_unused=True)
            assert all(gradient is None for gradient in gradients)
    assert torch.equal(*noise)


def test_after_the_warm_up_the_rate_moves_the_encoder(make_compressor, make_trainer):
    encoders = []
    for beta in (0.0, 10.0):
        rate = HFactorized(Z_DIM, warmup_k_epoch=1)
        compressor = make_compressor(rate=rate, beta=beta, beta_anneal="constant")
        make_trainer(2, callbacks=[ReseedEveryEpoch(SEED)]).fit(compressor, Batches(toy_batches()))
        encoders.append(trainable(compressor.p_ZlX))
    assert not any(torch.equal(p, encoders[1][n]) for n, p in encoders[0].items())


def test_evaluation_never_warms_up(make_compressor, make_trainer):
    (batch,) = toy_batches(1)
    compressor = make_compressor(rate=HFactorized(Z_DIM, warmup_k_epoch=5))
    seen = []
    compressor.distortion.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    make_trainer().validate(compressor, Batches([batch]), verbose=False)
    assert torch.equal(seen[0], compressor.eval()(batch.x))


# --- faults


@pytest.mark.parametrize(
    "value, n_good, field", [(math.nan, 0, "x"), (math.inf, 2, "x"), (math.nan, 4, "aux")]
)
def test_a_non_finite_loss_stops_the_training_and_is_reported(
    value, n_good, field, make_compressor, make_trainer
):
    batches = list(toy_batches(5))
    bad = getattr(batches[n_good], field).clone()
    bad[3, 1] = value
    batches[n_good] = batches[n_good]._replace(**{field: bad})
    compressor = make_compressor()
    with pytest.raises(NonFiniteLossError, match=f"at step {n_good}: .*distortion=") as error:
        make_trainer(2, log_every_n_steps=1).fit(compressor, Batches(batches))
    assert ("rate=" in str(error.value)) == (field == "x")
    assert all(p.isfinite().all() for p in compressor.parameters())


# --- mixed precision


class Steps(pl.Callback):
    """Records the weights after each step; all steps draw the same noise."""

    def __init__(self):
        self.weights = []

    def on_train_batch_start(self, *args):
        torch.manual_seed(0)

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.weights.append(trainable(pl_module))


@pytest.mark.parametrize("fused", [False, True])
def test_an_overflow_of_a_part_skips_all_and_the_next_step_equals_an_unscaled_one(
    fused, make_compressor, make_trainer
):
    (batch,), steps = toy_batches(1), {}
    for is_scaled in (True, False):
        adam = partial(torch.optim.AdamW, lr=0.01, eps=0.1, fused=fused)  # eps hides rounding
        compressor = make_compressor(
            online_task="classification",
            beta_anneal="constant",
            optimizer=PartOptimizer(adam, max_grad_norm=0.1),
            online_optimizer=PartOptimizer(adam),
        )
        start = trainable(compressor)
        if is_scaled:
            parameter = next(compressor.online.parameters())
            parameter.register_hook(lambda g, c=compressor: g if c.global_step else g * math.inf)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024, enabled=is_scaled)
        kept = Steps()
        trainer = make_trainer(
            callbacks=kept, plugins=MixedPrecision("16-mixed", device="cpu", scaler=scaler)
        )
        trainer.fit(compressor, Batches([batch] * (1 + is_scaled)))
        steps[is_scaled] = kept.weights
        assert not is_scaled or scaler.get_scale() == 512
    assert_same_tensors(steps[True][0], start)
    for name, expected in steps[False][0].items():
        torch.testing.assert_close(steps[True][1][name], expected, atol=1e-6, rtol=0)
        assert not torch.equal(expected, start[name])


# --- resuming
