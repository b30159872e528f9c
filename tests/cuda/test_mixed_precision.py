"""Mixed-precision training, compiled or not, gives the float32 rate, and coding stays exact."""

import copy
import functools
import math
import statistics
from pathlib import Path

import pytest
import torch
from helpers.tiny import NARROW
from pytorch_lightning.callbacks import Callback

from lossyless.compressors import LearnableCompressor
from lossyless.files import FeatureFile, write_features
from utils.benchmarks.training import OneEpoch, banana_config, images_config, short_trainer
from utils.data.module import DataModule
from utils.training import building, fitting

# Relative difference from the float32 rate: after 200 steps on a GPU, and after 4 on a CPU.
TOLERANCES = {"cuda": 0.05, "cpu": 0.1}


class StepRates(Callback):
    """Records the rate of every training step, in bits."""

    def on_train_start(self, trainer, pl_module: LearnableCompressor) -> None:
        self.rates: list[torch.Tensor] = []
        add = pl_module.tracker.add

        def keep_and_add(module, split, metrics, **options) -> None:
            self.rates.append(metrics["rate"].detach())
            add(module, split, metrics, **options)

        pl_module.tracker.add = keep_and_add


def train(
    folder: Path, name: str, device: torch.device, precision: str, is_compiled: bool
) -> tuple[LearnableCompressor, DataModule, float]:
    """A compressor after a few steps, its data, and the mean rate of the last steps in bits."""
    accelerator = "cpu" if device.type == "cpu" else "gpu"
    overrides = [f"trainer.precision={precision}", f"trainer.accelerator={accelerator}"]
    overrides.append(f"trainer.compile={is_compiled}")
    small = NARROW if name == "banana" else ["architecture@encoder=cnn", "online.kwargs.hid_dim=64"]
    n_steps = 200
    if device.type == "cpu":
        n_steps, overrides = 4, [*overrides, *small, "data_feat.kwargs.batch_size=16"]
    cfg = (banana_config if name == "banana" else images_config)(folder, *overrides)
    compressor, rates = building.build_compressor(cfg), StepRates()
    data = building.build_data(cfg, "data_feat", compressor.distortion.needs)
    trainer = short_trainer(cfg, n_steps, rates)
    trainer.fit(compressor, datamodule=OneEpoch(data, n_steps))
    assert trainer.global_step == n_steps
    if device.type == "cuda":
        assert all(group["fused"] for group in trainer.optimizers[0].param_groups)
    compressor.eval().requires_grad_(False).to(device).rate.update()
    return compressor, data, statistics.mean(torch.stack(rates.rates[-50:]).tolist())


@pytest.mark.parametrize("name", ["banana", "images"])
def test_rates_are_those_of_float32(name, device, report, tmp_path, monkeypatch):
    fitting.quiet()
    expected = None
    mixed = ["16-mixed", "bf16-mixed"] if device.type == "cuda" else ["bf16-mixed"]
    if device.type == "cpu":  # only trace the graph: compiling it takes a minute
        traced = functools.partial(torch.compile, backend="eager")
        monkeypatch.setattr(torch, "compile", traced)
    trainings = [(precision, False) for precision in ("32-true", *mixed)]
    for precision, is_compiled in (*trainings, (mixed[0], True)):
        compressor, data, rate = train(tmp_path, name, device, precision, is_compiled)
        batches = data.loader("val", device=device)
        evaluated = [compressor.rates(batch.x) for batch in batches]
        found = rate, torch.cat(evaluated).mean().item() / math.log(2)
        expected = expected or found
        report(
            f"{name} {precision}{' compiled' * is_compiled}: {found[0]:.2f} bits in training "
            f"({found[0] / expected[0] - 1:+.1%} of float32), "
            f"{found[1]:.2f} in evaluation ({found[1] / expected[1] - 1:+.1%})"
        )
        assert found == pytest.approx(expected, rel=TOLERANCES[device.type])
        check_file(compressor, data, device, tmp_path / "z.bin")


def check_file(
    compressor: LearnableCompressor, data: DataModule, device: torch.device, path: Path
) -> None:
    """Check that files written on the device decode on the CPU to the evaluated z_hat."""
    z = torch.cat([compressor.represent(batch.x) for batch in data.loader("val", device=device)])
    write_features([z], path, compressor.rate)
    with FeatureFile(path, copy.deepcopy(compressor.rate).cpu()) as file:
        assert torch.equal(file.read(), compressor.rate(z)[0].cpu())
