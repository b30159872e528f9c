"""Cost of one training step of an experiment: seconds on this device, FLOPs, and kernels.

Batches are noise of the right shape and networks have random weights, so neither data sets nor
weights are needed.
"""

import functools
import json
import math
import tempfile
import time
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from unittest import mock

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from lossyless.backbones import Backbone
from lossyless.backbones.clip import import_clip
from lossyless.base import Batch
from lossyless.torch_state import one_thread
from utils.benchmarks.comparison import Comparison
from utils.benchmarks.training import OneEpoch, short_trainer
from utils.configs.composing import compose_config
from utils.data.module import DataModule
from utils.training import building
from utils.training.callbacks import Freezer

N_REPEATS = 2  # measured steps, after a warm-up step
N_COUNTED = 8  # examples in the batch whose kernels are counted
SLOW = 2.0  # seconds; slower steps are measured only once
MAX_PIXELS = 2**17  # per measured batch on a CPU; costs are extrapolated to larger ones
CLIP = {  # classes in OpenAI's package, and their arguments
    "clip_vitb32": ("VisionTransformer", 224, 32, 768, 12, 12, 512),
    "clip_rn50": ("ModifiedResNet", (3, 4, 6, 3), 1024, 32, 224, 64),
}
# Settings that do not affect the duration of a step.
FREE = ("optimizer", "online_optimizer", "beta", "beta_anneal", "factor_beta_r", "factor_beta_d")
FREE += ("needs", "temperature", "initial_temperature", "is_train_temperature", "dropout")
FREE += ("effective_batch_size", "warmup_k_epoch", "mean", "std", "weights", "is_reconstruct")
# Operations without a kernel, apart from views. The last two are part of dropout on a CPU.
FREE_OPERATIONS = {"detach", "empty", "empty_like", "empty_strided", "new_empty", "_unsafe_view"}
FREE_OPERATIONS |= {"bernoulli_", "div_"}
# Limits per launch of a CUDA kernel on lists of tensors (MAX_TENSORS: on four lists)
MAX_TENSORS, MAX_VALUES = 36, 320 << 16
# Experiments, their kernels per step before operations were merged, and goals for the ratio. Of
# augmnist's kernels, 219 are in its networks, whose operations only a compiler can merge.
KERNELS = (
    ("banana_viz_VIC", 361, 0.5),
    ("augmnist_viz_VIC", 644, 0.65),
    ("clip_bottleneck_pretrain", 386, 0.5),
)


class Cost(NamedTuple):
    """Cost of a step.

    Attributes
    ----------
    seconds : duration on this device (on a CPU, on one core).
    flops : FLOPs of its matrix products and convolutions.
    n_kernels : number of kernels that a GPU would launch; see `KernelCounter`.
    """

    seconds: float
    flops: float
    n_kernels: int


@dataclass(frozen=True)
class Step:
    """A training step of the "featurizer" or "predictor", or a batch through the "tower".

    Attributes
    ----------
    shape : shape of one example.
    network : everything else that the cost depends on, as JSON.
    cfg : config of a job with such steps.
    """

    stage: str
    batch_size: int
    shape: tuple[int, ...]
    network: str
    cfg: DictConfig = field(compare=False, repr=False)

    @property
    def has_default_precision(self) -> bool:
        """Whether the experiment trains in mixed precision on a GPU and in float32 on a CPU."""
        return str(OmegaConf.to_container(self.cfg.trainer)["precision"]).startswith("${")

    @classmethod
    def of(cls, cfg: DictConfig, stage: str) -> "Step":
        if stage == "tower":
            side = cfg.tower.kwargs.get("side", 224)
            shape, batch_size = (3, side, side), cfg.tower.batch_size
            facts: list[object] = [_backbone(cfg.tower)]
        elif stage == "featurizer":
            has_tower = cfg.tower.name != "none"
            facts = [_costly(cfg.featurizer.kwargs), list(cfg.finetune.frozen)]
            batch_size = cfg.data_feat.kwargs.batch_size
            shape = (cfg.tower.z_dim,) if has_tower else cfg.data_feat.shape
        else:
            facts = [_costly(cfg.predictor.kwargs), cfg.data_pred.n_outputs]
            batch_size = cfg.data_pred.kwargs.batch_size
            has_features = cfg.featurizer.get("is_on_features", False)
            is_image = cfg.featurizer.kwargs.get("is_reconstruct", not has_features)
            shape = cfg.data_pred.shape if is_image else [cfg.encoder.z_dim]
        return cls(stage, batch_size, tuple(shape), json.dumps(facts, sort_keys=True), cfg)


def _backbone(tower: DictConfig) -> str:
    """Name of a backbone's network; SimCLR and SwAV use ResNet50s."""
    return tower.name if tower.name in CLIP else tower.kwargs.get("model", "resnet50")


def _costly(node: object) -> object:
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=True)
    if not isinstance(node, dict):
        return node
    return {key: _costly(value) for key, value in node.items() if key not in FREE}


class _Meter(Callback):
    """Counts the FLOPs of the first step and times the others."""

    def __init__(self):
        self.counter = FlopCounterMode(display=False)
        self.seconds: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx: int) -> None:
        if batch_idx == 0:
            self.counter.__enter__()
        self._start = clock(pl_module.device)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        if batch_idx == 0:
            self.counter.__exit__(None, None, None)
        else:
            self.seconds.append(clock(pl_module.device) - self._start)
            trainer.should_stop |= self.seconds[-1] > SLOW


def clock(device: torch.device) -> float:
    """Wall-clock time after synchronising a GPU; on a CPU, the CPU time of this process."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


class KernelCounter(TorchDispatchMode):
    """Counts, on any device, the kernels that a GPU would launch.

    Each computation counts as one kernel, although some, such as convolutions, launch several.
    An operation on a list of tensors, as in optimisers with `fused=True` and in gradient clipping,
    counts as the number of launches for such a list. Compiled backward passes do not count.
    """

    def __init__(self):
        super().__init__()
        self.n_kernels = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        is_free = func.is_view or "::" in name or name in FREE_OPERATIONS
        if name.startswith(("_foreach", "_fused")):
            self.n_kernels += _n_launches(args[0])
        elif "CompiledFunction" not in type(torch._C._current_autograd_node()).__name__:
            self.n_kernels += not is_free
        return func(*args, **(kwargs or {}))


def _n_launches(tensors: list[Tensor]) -> int:
    """Number of times that a CUDA kernel is launched for a list of tensors."""
    n_values = sum(tensor.numel() for tensor in tensors)
    return max(math.ceil(len(tensors) / MAX_TENSORS), math.ceil(n_values / MAX_VALUES))


class _CountedStep(Callback):
    """Counts the kernels of the second step, because the first one creates optimiser states."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx: int) -> None:
        if batch_idx == 1:
            if "training_losses" in vars(pl_module):
                pl_module.training_losses = _disable_current_modes()(pl_module.training_losses)
            self.counter = KernelCounter()
            self.counter.__enter__()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        if batch_idx == 1:
            self.counter.__exit__(None, None, None)


def count_kernels(step: Step, precision: str = "32-true") -> int:
    """Count the kernels of a training step, on the CPU and with a small batch of noise.

    The forward and backward passes of a compiled step, which are CUDA graphs, count as one each.
    """
    cfg, counted = step.cfg.copy(), _CountedStep()
    cfg.trainer.accelerator, cfg.trainer.precision = "cpu", precision
    for part in ("optimizer_feat", "optimizer_online", "optimizer_pred"):
        OmegaConf.update(cfg, f"{part}.kwargs.fused", True, force_add=True)
    traced = functools.partial(torch.compile, backend="aot_eager")  # its kernels are not counted
    with mock.patch.object(torch, "compile", traced):
        train(replace(step, cfg=cfg), torch.rand(N_COUNTED, *step.shape), 2, counted)
    return counted.counter.n_kernels + 2 * cfg.trainer.compile


def compare_kernels(is_quick: bool) -> list[Comparison]:
    """Compare kernels per step, or launches if compiled, with the kernels of an earlier version."""
    comparisons = []
    for name, n_earlier, high in KERNELS:
        overrides = ["distortion=VIC"] if "viz" in name else ["tower.kwargs.weights=random"]
        cfg = compose_config([f"experiment={name}", "logger=none", *overrides])
        forms = ("kernels per step of", False, high), ("launches per compiled step of", True, 0.5)
        for what, cfg.trainer.compile, goal in forms:
            n, what = count_kernels(Step.of(cfg, "featurizer")), f"{what} {name}"
            comparisons.append(Comparison(what, "earlier", "", [n], [n_earlier], high=goal))
    return comparisons


@functools.cache
def measure(step: Step) -> Cost:
    """Cost of a step; for large images on a CPU, it is extrapolated from a smaller batch."""
    device = building.pick_device(step.cfg)
    n = step.batch_size
    if device.type == "cpu" and len(step.shape) == 3:
        n = max(2, min(n, MAX_PIXELS // (step.shape[1] * step.shape[2])))
    run = _measure_tower if step.stage == "tower" else _measure_training
    with one_thread():
        seconds, flops, n_kernels = run(step, torch.rand(n, *step.shape), device)
    return Cost(seconds * step.batch_size / n, flops * step.batch_size / n, n_kernels)


def _measure_training(step: Step, x: torch.Tensor, device: torch.device) -> Cost:
    meter = _Meter()
    train(step, x, 1 + N_REPEATS, meter)
    # a GPU's default precision is mixed, which the CPU emulates with bfloat16
    precision = "bf16-mixed" if step.has_default_precision else "32-true"
    n_kernels = count_kernels(step, precision)
    return Cost(min(meter.seconds), meter.counter.get_total_flops(), n_kernels)


def train(
    step: Step, source: torch.Tensor | DataModule, n_steps: int, *callbacks: Callback
) -> None:
    """Train the compressor or predictor of a step for `n_steps`, as the experiment does.

    Parameters
    ----------
    source : a data set; or inputs x [B, *shape], which get random targets and are repeated.
    """
    cfg, is_predictor = step.cfg.copy(), step.stage == "predictor"
    cfg.rate.kwargs.warmup_k_epoch = 0  # as in all epochs after the warm-up
    module = building.build_compressor(cfg)
    if isinstance(source, torch.Tensor):
        source = _with_targets(step, source, "none" if is_predictor else module.distortion.needs)
    if is_predictor:
        module = building.build_predictor(cfg, step.shape, module)
    else:
        callbacks = (*callbacks, Freezer(list(cfg.finetune.frozen)))
    with tempfile.TemporaryDirectory() as folder:
        cfg.paths.results = cfg.paths.pretrained = folder
        trainer = short_trainer(cfg, n_steps, *callbacks, stage=step.stage)
        trainer.fit(module, datamodule=OneEpoch(source, n_steps))


def _with_targets(step: Step, x: torch.Tensor, auxiliary: str) -> Batch:
    data = step.cfg.data_pred if step.stage == "predictor" else step.cfg.data_feat
    y = torch.randint(max(1, data.n_outputs), (len(x),))
    if data.task == "regression":
        y = torch.rand(len(x), data.n_outputs)
    auxiliaries = {"none": None, "target": y}
    return Batch(x, y, auxiliaries.get(auxiliary, torch.rand_like(x)))


def _measure_tower(step: Step, x: torch.Tensor, device: torch.device) -> Cost:
    name = _backbone(step.cfg.tower)
    if name in CLIP:
        class_name, *arguments = CLIP[name]
        network = getattr(import_clip().model, class_name)(*arguments)
    else:
        network = models.get_model(name)
    tower, x, seconds = Backbone(network, side=step.shape[-1]).to(device), x.to(device), []
    with FlopCounterMode(display=False) as counter, KernelCounter() as kernels:
        tower(x)
    for _ in range(N_REPEATS):
        start = clock(device)
        tower(x)
        seconds.append(clock(device) - start)
    return Cost(min(seconds), counter.get_total_flops(), kernels.n_kernels)
