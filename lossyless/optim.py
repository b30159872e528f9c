"""Optimisation: a joint optimiser for separately configured parts, schedules, beta annealing.

The compressor and its online probe have disjoint parameters, so their losses are summed and one
backward pass serves both. Each part has its own optimiser, schedule and gradient clipping, exactly
as if it were trained alone. The trainer sees a single optimiser, and counts one step per batch.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

Scheduler = LRScheduler | ReduceLROnPlateau


@dataclass
class PartOptimizer:
    """Optimiser settings for one part."""

    #: called with the parameters and, on a GPU, `fused=True`, which all optimisers in
    #: conf/optimizer/ accept: one kernel then updates many parameters
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    #: called with the optimiser and the number of epochs; the result is stepped every epoch
    scheduler: Callable[[Optimizer, int], Scheduler] | None = None
    max_grad_norm: float | None = None  # norm to which gradients are clipped


@dataclass
class _Part:
    optimizer: Optimizer
    parameters: list[nn.Parameter]
    max_grad_norm: float | None
    scheduler: Scheduler | None


class JointOptimizer(Optimizer):
    """The optimisers of several parts with disjoint parameters, stepped as one."""

    def __init__(self, parts: dict[str, _Part]):
        # `super().__init__` would copy the parameter groups, which belong to the parts
        self.__setstate__({"parts": parts, "defaults": {}})

    @property
    def param_groups(self) -> list[dict]:
        return [group for part in self.parts.values() for group in part.optimizer.param_groups]

    @property
    def state(self) -> dict:
        return {k: v for part in self.parts.values() for k, v in part.optimizer.state.items()}

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether the optimisers themselves skip steps with infinite gradients.

        If so, `GradScaler` passes them its flag `found_inf`, which stays on the GPU. Otherwise, it
        reads the flag itself, which makes the host wait for the GPU.
        """
        optimizers = [part.optimizer for part in self.parts.values()]
        return all(getattr(o, "_step_supports_amp_scaling", False) for o in optimizers)

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts.values():
            part.optimizer.found_inf = getattr(self, "found_inf", None)
            part.optimizer.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts.values():
            part.optimizer.zero_grad(set_to_none)

    def clip_gradients(self) -> None:
        """Clip the gradients of each part to the part's own maximum norm."""
        for part in self.parts.values():
            if part.max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(part.parameters, part.max_grad_norm)

    def state_dict(self) -> dict:
        return {name: part.optimizer.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state_dict: dict) -> None:
        """Load a state, which may have been saved on another device."""
        for name, part in self.parts.items():
            optimizer, saved = part.optimizer, state_dict[name]
            fused = {"fused": optimizer.defaults.get("fused")}
            groups = [group | fused for group in saved["param_groups"]]
            optimizer.load_state_dict(saved | {"param_groups": groups})
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    if torch.is_tensor(value) and value.ndim == 4:  # a convolution
                        state[key] = torch.empty_like(parameter).copy_(value)  # same layout


class JointScheduler:
    """The schedules of all parts of a `JointOptimizer`, stepped together once per epoch.

    `JointlyTrained` steps them before checkpoints are written. Lightning would step plateau
    schedules only afterwards, so a resumed run would miss a step. Plateau schedules follow the
    logged metric named `monitor`.
    """

    def __init__(self, optimizer: JointOptimizer, monitor: str):
        self.optimizer = optimizer
        self.monitor = monitor
        parts = optimizer.parts.items()
        self._schedulers = {name: part.scheduler for name, part in parts if part.scheduler}

    def step(self, metrics: Mapping[str, Tensor]) -> None:
        """Step all schedules. Raises ValueError if a plateau schedule's metric was not logged."""
        for name, scheduler in self._schedulers.items():
            if not isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step()
            elif self.monitor in metrics:
                scheduler.step(metrics[self.monitor])
            else:
                raise ValueError(
                    f"the plateau schedule of part {name!r} needs the metric {self.monitor!r}, "
                    f"but the epoch logged {sorted(metrics)}: validate every epoch, or use "
                    "another schedule"
                )

    def state_dict(self) -> dict:
        return {name: scheduler.state_dict() for name, scheduler in self._schedulers.items()}

    def load_state_dict(self, state_dict: dict) -> None:
        for name, scheduler in self._schedulers.items():
            scheduler.load_state_dict(state_dict[name])


def configure_parts(
    parts: dict[str, tuple[nn.Module | list[nn.Module], PartOptimizer]],
    n_epochs: int,
    monitor: str,
) -> dict:
    """Build what a LightningModule's `configure_optimizers` returns, for jointly trained parts.

    Parameters
    ----------
    parts : name -> module or modules, and the settings of their optimiser.
    n_epochs : length of training.
    monitor : name of the logged metric that plateau schedules follow.
    """
    built = {}
    for name, (modules, settings) in parts.items():
        modules = nn.ModuleList(modules) if isinstance(modules, list) else modules
        parameters = [p for p in modules.parameters() if p.requires_grad]
        if not parameters:
            continue
        is_on_gpu = parameters[0].is_cuda
        optimizer = settings.optimizer(parameters, **({"fused": True} if is_on_gpu else {}))
        scheduler = settings.scheduler and settings.scheduler(optimizer, n_epochs)
        built[name] = _Part(optimizer, parameters, settings.max_grad_norm, scheduler)
    joint = JointOptimizer(built)
    return {"optimizer": joint, "lr_scheduler": JointScheduler(joint, monitor)}


class BetaAnnealer:
    """A schedule that increases the weight of the rate at the start of training.

    The weight rises from `START * beta` at step 0 to `beta` after the fraction `WARM_UP` of all
    steps, and then stays constant. The `mode` is "constant" (always beta), "linear" or "geometric".
    """

    START = 1e-5
    WARM_UP = 0.1
    MODES = ("constant", "linear", "geometric")

    def __init__(self, beta: float, mode: str = "linear"):
        if mode not in self.MODES:
            raise ValueError(f"unknown beta_anneal {mode!r}: expected one of {self.MODES}")
        self.beta = beta
        self.mode = mode

    def __call__(self, step: int, n_steps: int) -> float:
        """The weight at `step` of `n_steps`."""
        progress = min(1.0, step / max(1.0, self.WARM_UP * n_steps))
        if self.mode == "constant" or progress == 1.0:
            return self.beta
        if self.mode == "linear":
            return self.beta * (self.START + (1 - self.START) * progress)
        return self.beta * math.exp(math.log(self.START) * (1 - progress))


# Schedules, all with the signature (optimizer, n_epochs, **options) -> scheduler.


def exponential_decay(optimizer: Optimizer, n_epochs: int, total_factor: float) -> Scheduler:
    """Decay the learning rate exponentially, by a factor of `total_factor` in total."""
    return lr_scheduler.ExponentialLR(optimizer, total_factor ** (-1 / n_epochs))


def uniform_multistep(
    optimizer: Optimizer, n_epochs: int, total_factor: float, n_steps: int = 3
) -> Scheduler:
    """Divide the learning rate by `total_factor` in total, in `n_steps` equal steps."""
    # the first epoch always has the full learning rate
    distance = max(1, n_epochs // (n_steps + 1))
    milestones = [distance * (i + 1) for i in range(n_steps)]
    return lr_scheduler.MultiStepLR(optimizer, milestones, total_factor ** (-1 / n_steps))


def cosine(optimizer: Optimizer, n_epochs: int) -> Scheduler:
    """Decay the learning rate to zero along half a cosine period."""
    return lr_scheduler.CosineAnnealingLR(optimizer, n_epochs)


def cosine_restart(optimizer: Optimizer, n_epochs: int, period: int, growth: int) -> Scheduler:
    """Repeat cosine decays over `period`, `growth * period`, ... epochs, whatever `n_epochs` is."""
    return lr_scheduler.CosineAnnealingWarmRestarts(optimizer, period, growth)


def plateau(
    optimizer: Optimizer, n_epochs: int, factor: float, patience: int, min_lr: float = 0.0
) -> Scheduler:
    """Multiply the learning rate by `factor`, down to `min_lr`, when the monitored metric has not
    improved for more than `patience` epochs."""
    return ReduceLROnPlateau(optimizer, factor=factor, patience=patience, min_lr=min_lr)


def sgd_like_adam(params: Iterable[nn.Parameter], lr: float, **options: object) -> Optimizer:
    """SGD with learning rate 100 * `lr`, so that searches can use the same range as for Adam."""
    return torch.optim.SGD(params, lr=100 * lr, **options)
