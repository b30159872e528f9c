"""Training steps never make the host wait for a GPU, except where losses are checked.

Without a GPU, operations that would read from one are found among those that torch dispatches.
"""

import functools
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from helpers import fake_data, tiny
from pytorch_lightning.callbacks import Callback
from torch.utils._python_dispatch import TorchDispatchMode

from lossyless.compressors import LearnableCompressor
from utils.training import fitting
from utils.training.callbacks import ProgressLines

N_STEPS, CHECK_EVERY, BATCH_SIZE = 20, 7, 4
# operations that read values on the host, have results of data-dependent shape, or copy
READING = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2"}
READING |= {"lift_fresh", "repeat_interleave.Tensor", "bincount", "_linalg_check_errors"}
COPYING = ("cpu", "to", "numpy", "tolist", "__array__")  # methods of tensors


class Waits(TorchDispatchMode, Callback):
    """Counts where the host would wait. The first step is exempt: it creates optimiser states."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        super().__init__()
        self.found: Counter[str] = Counter()
        self.steps: set[int] = set()
        self._step = None
        for name in COPYING:
            monkeypatch.setattr(torch.Tensor, name, self._watched(getattr(torch.Tensor, name)))

    def _watched(self, method):
        @functools.wraps(method)
        def watched(tensor, *args, **kwargs):
            if method.__name__ != "to" or "cpu" in (*args, kwargs.get("device")):
                self._note(method.__name__)
            return method(tensor, *args, **kwargs)

        return watched

    def _note(self, what: str) -> None:
        if not self._step or (self._step + 1) % CHECK_EVERY == 0:
            return
        places, frame = [], sys._getframe(2)
        while frame is not None:
            path = frame.f_code.co_filename
            if "/torch/optim/" in path and not places:  # step counts, which stay on the CPU
                return
            if "/torch/" not in path and path != __file__:
                places.append(f"{path}:{frame.f_lineno}")
            frame = frame.f_back
        self.found[f"{what} in {' < '.join(places[:3])}"] += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.removesuffix(".default")
        indices = args[1] if name.startswith("index") and isinstance(args[1], (list, tuple)) else ()
        is_mask = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)
        if name in READING or is_mask:
            self._note(name)
        return func(*args, **(kwargs or {}))

    def on_train_start(self, trainer, pl_module) -> None:
        for callback in trainer.callbacks:
            if isinstance(callback, ProgressLines):
                callback.seconds = 0.0  # prints at every step
        self.__enter__()
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer, *args: object) -> None:
        self.steps.add(self._step)
        self._step = trainer.global_step if trainer.global_step <= N_STEPS else None
        if trainer.global_step == N_STEPS + 1:
            self.__exit__(None, None, None)


SMALL = [
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "communication.n_copies=1",
]
SMALL += ["trainer_pred.max_epochs=1", "communication.n_single=2", "figures.names=[]"]
SMALL += [f"trainer.limit_train_batches={N_STEPS + 2}", f"trainer.log_every_n_steps={CHECK_EVERY}"]
BANANA = ["data_feat.kwargs.n_train=128", "data_pred.kwargs.n_train=128"]
BANANA += ["data_feat.kwargs.n_eval=64", "data_pred.kwargs.n_eval=64"]
FEATURES = ["tower=torchvision", "tower.kwargs.model=resnet18", "tower.kwargs.weights=random"]
FEATURES += ["tower.kwargs.layer=layer1", "tower.z_dim=64", "tower.kwargs.side=32"]
LINEAR, ONLY_FEAT = "architecture@predictor=linear", "is_only_feat=true"
NO_DECODER = "featurizer=neural_feat"
STAGGERED = ["experiment=augmnist_stag_step2", "finetune.init=null", ONLY_FEAT]
CASES = {
    "Banana VIC": ["experiment=banana_viz_VIC", "distortion=VIC", ONLY_FEAT],
    "CLIP bottleneck": [
        "experiment=clip_bottleneck_linear_eval",
        "data@data_feat=mnist",
        *FEATURES,
        ONLY_FEAT,
    ],
    "Banana VIC and an MLP": ["experiment=banana_viz_VIC", "distortion=VIC"],
    "Banana VC": ["experiment=banana_viz_VIC", "distortion=VAE", ONLY_FEAT],
    "Banana BINCE": ["experiment=banana_viz_BINCE", "distortion=BINCE", ONLY_FEAT],
    "Banana translations": ["experiment=banana_viz_VIC_trnslt", "distortion=VIC", ONLY_FEAT],
    "MNIST VIC and a ResNet": ["experiment=augmnist_viz_VIC", "distortion=VIC"],
    "MNIST VC": ["experiment=augmnist_viz_VIC", "distortion=VAE", ONLY_FEAT],
    "MNIST BINCE": ["experiment=augmnist_RD", "distortion=BINCE", NO_DECODER, LINEAR],
    "warm-up": ["experiment=augmnist_aug_warm", "distortion=VIC", ONLY_FEAT],
    "encoder of step 1": ["experiment=augmnist_stag_step1", "distortion=VIC", ONLY_FEAT],
    "bottleneck of step 2": STAGGERED,
    "BINCE on features": [*STAGGERED, "distortion=BINCE", "featurizer.loss.beta_anneal=geometric"],
    "STL10 supervised": [
        "experiment=STL10_action_dist_shift",
        "data@data_feat=stl10_aug",
        "distortion=supervised",
        ONLY_FEAT,
    ],
    "latent images": ["experiment=STL10_balle", "distortion=VIC", ONLY_FEAT],
    "mutual information": ["experiment=augmnist_viz_VIC", "rate=MI_unitgaussian", ONLY_FEAT],
    "KLT": ["experiment=mobilenet_mnist_klt", *FEATURES, ONLY_FEAT],
}
QUICK = [*CASES][:2]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in CASES]
)
def test_steps_never_wait(name, tmp_path, monkeypatch):
    assert not waits(CASES[name], tmp_path, monkeypatch)


def test_waits_are_found(tmp_path, monkeypatch):
    step = LearnableCompressor.training_step

    def waiting_step(self, batch, batch_idx):
        batch.x[batch.x > 0].cpu().to("cpu")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(LearnableCompressor, "training_step", waiting_step)
    found = waits(CASES["Banana VIC"], tmp_path, monkeypatch)
    assert {where.split()[0] for where in found} == {"index.Tensor", "cpu", "to"}
    watched = [step for step in range(1, N_STEPS + 1) if (step + 1) % CHECK_EVERY]
    assert set(found.values()) == {len(watched)}


def waits(overrides: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Where the host waits in an experiment's steps, except at every CHECK_EVERY-th one."""
    watches: list[Waits] = []
    build = fitting.build_trainer

    def build_watched(run, monitor, logger, callbacks, options):
        watches.append(Waits(monkeypatch))
        return build(run, monitor, logger, [*callbacks, watches[-1]], options)

    monkeypatch.setattr(fitting, "build_trainer", build_watched)
    sizes = {"train": BATCH_SIZE * (N_STEPS + 4), "val": 4, "test": 4}
    monkeypatch.setattr(fake_data, "SIZES", sizes)
    fake_data.install(monkeypatch)
    small = [f"{p}.kwargs.batch_size={BATCH_SIZE}" for p in ("data_feat", "data_pred")]
    if any("banana" in override for override in overrides):
        small += BANANA
    else:
        small += [f"{p}.length={sizes['train']}" for p in ("data_feat", "data_pred")]
    tiny.run(folder, base=[*overrides, *SMALL, *small])
    assert watches and all(len(watch.steps) > N_STEPS for watch in watches)
    return sum((watch.found for watch in watches), Counter())
