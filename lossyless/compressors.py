"""The learnable compressor: encoder, bottleneck and distortion, trained together."""

import math
from numbers import Real

import torch
from torch import Tensor, nn

from lossyless.all_gather import gather
from lossyless.base import Batch, Compressor
from lossyless.distortions import Distortion
from lossyless.distributions import FAMILIES, CondDist
from lossyless.joint_training import JointlyTrained
from lossyless.optim import BetaAnnealer, PartOptimizer
from lossyless.predictors import OnlineEvaluator
from lossyless.rates import Rate
from lossyless.tracking import LossTracker

NATS_PER_BIT = math.log(2)
MAX_TRANSFORM_EXAMPLES = 20_000  # enough for the covariance of a few thousand dimensions


class LearnableCompressor(Compressor, JointlyTrained):
    """Encoder, bottleneck and distortion, trained to minimise

        loss = distortion / factor_beta_d + beta * factor_beta_r * rate          (nats)

    where `beta` is the weight of the rate: larger = fewer bits (the paper's 1/beta). This is the
    Lagrangian of the paper's rate-invariance trade-off, with variational bounds on rate and
    distortion. The loss and its terms are logged in bits.

        x [B, *shape] --p_ZlX--> z [B, z_dim] --rate--> z_hat [B, z_dim] --distortion--> [B]
                                                          '--(detached)--> online probe

    Parameters
    ----------
    p_ZlX : the encoder.
    rate : the bottleneck.
    distortion : measures how much information about its target is lost.
    optimizer : optimises encoder, rate and distortion.
    beta : non-negative; 0 leaves the rate out of the loss.
    beta_anneal : "constant", "linear" or "geometric"; see `BetaAnnealer`.
    factor_beta_r, factor_beta_d : bring rates and distortions to comparable magnitudes.
    online : probe trained on the detached z_hat.
    online_optimizer : optimises the probe; required if there is one.
    is_reconstruct : whether predictors receive reconstructions rather than z_hat; requires a direct
        distortion.
    """

    def __init__(
        self,
        p_ZlX: CondDist,
        rate: Rate,
        distortion: Distortion,
        optimizer: PartOptimizer,
        beta: float = 1.0,
        beta_anneal: str = "linear",
        factor_beta_r: float = 1.0,
        factor_beta_d: float = 1.0,
        online: OnlineEvaluator | None = None,
        online_optimizer: PartOptimizer | None = None,
        is_reconstruct: bool = False,
    ):
        super().__init__()
        if is_reconstruct and not distortion.has_decoder:
            raise ValueError(
                f"{type(distortion).__name__} has no decoder, so there are no reconstructions to "
                "predict from: choose a direct distortion (VC, VIC) or featurizer=neural_feat"
            )
        if p_ZlX.family is not FAMILIES[rate.family]:
            raise ValueError(
                f"{type(rate).__name__} needs an encoder with family={rate.family!r}, not "
                f"{p_ZlX.family.__name__}"
            )
        _check_latent_shapes(p_ZlX, rate)
        if not (isinstance(beta, Real) and 0 <= beta < math.inf):
            raise ValueError(
                f"beta={beta!r} (featurizer.loss.beta): expected a finite number >= 0; a "
                "negative weight would reward bits"
            )
        if online is not None and online_optimizer is None:
            raise ValueError("an online evaluator needs `online_optimizer`")
        self.p_ZlX = p_ZlX
        self.rate = rate
        self.distortion = distortion
        self.online = online
        self.optimizer = optimizer
        self.online_optimizer = online_optimizer
        self.beta = beta
        self.annealer = BetaAnnealer(beta, beta_anneal)
        self.factor_beta_r = factor_beta_r
        self.factor_beta_d = factor_beta_d
        self.is_reconstruct = is_reconstruct
        self.tracker = LossTracker("feat")

    # --- sender and receiver

    @property
    def codec(self) -> Rate:
        return self.rate

    def forward(self, x: Tensor) -> Tensor:
        """Compute the inputs for predictors from x [B, *shape], without coding."""
        _, z_hat, _, _ = self._through_bottleneck(x)
        return self.receive(z_hat)

    @torch.no_grad()
    def represent(self, x: Tensor) -> Tensor:
        """Map x [B, *shape] to z [B, z_dim] with the sender's network, before quantisation."""
        return self.p_ZlX(x).rsample().float()

    def receive(self, z_hat: Tensor) -> Tensor:
        """Return the inputs for predictors: z_hat itself, or reconstructions [B, *shape]."""
        return self.distortion.reconstruct(z_hat) if self.is_reconstruct else z_hat

    @torch.no_grad()
    def rates(self, x: Tensor) -> Tensor:
        """Theoretical rates [B] of x [B, *shape], in nats."""
        _, _, rates, _ = self._through_bottleneck(x)
        return rates

    # --- training

    def losses(
        self, batch: Batch, *, is_warming_up: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None, dict[str, Tensor]]:
        """Return rates in nats, distortions and any probe losses, each [B], and metrics to log."""
        z, z_hat, rates, terms = self._through_bottleneck(batch.x, is_warming_up)
        if self.distortion.needs == "positive":  # a separate pass: batch-norm statistics per view
            _, target, _, _ = self._through_bottleneck(batch.aux, is_warming_up)
        else:
            target = z if self.distortion.needs == "none" else batch.aux
        distortions, distortion_logs = self.distortion(z_hat, target)

        online_losses, metrics = None, {}
        if self.online is not None:
            online_losses, metrics = self.online.losses(z_hat, batch.y)
        own = self._in_bits(rates, distortions, terms)
        metrics |= own | distortion_logs | own  # logs cannot replace the loss, which is monitored
        zmin, zmax = z_hat.detach().aminmax()
        metrics |= {"zmin": zmin, "zmax": zmax, "zmean": z_hat.detach().mean()}
        return rates, distortions, online_losses, metrics

    def _through_bottleneck(
        self, x: Tensor, is_warming_up: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Return z and z_hat [B, z_dim], rates [B] in nats, and the terms of the rates."""
        p_ZlX = self.p_ZlX(x)
        z = p_ZlX.rsample()
        return z, *self.rate(z, p_ZlX, is_warming_up=is_warming_up)

    def _weighted(self, rate: Tensor, distortion: Tensor, beta: float) -> Tensor:
        if self.factor_beta_d != 1:
            distortion = distortion / self.factor_beta_d
        return torch.add(distortion, rate, alpha=beta * self.factor_beta_r)

    @torch.no_grad()
    def _in_bits(self, rates: Tensor, distortions: Tensor, terms: dict) -> dict[str, Tensor]:
        means = torch.stack([rates, distortions, *terms.values()]).mean(1)
        rate, distortion, *others = (means / NATS_PER_BIT).unbind()
        return {
            # with the final beta, so that the epochs of an annealed run are comparable
            "loss": self._weighted(rate, distortion, self.beta),
            "rate": rate,
            "distortion": distortion,
            "ratedist": rate + distortion,
            **dict(zip(terms, others, strict=True)),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        is_warming_up = self.current_epoch < self.rate.warmup_k_epoch
        rates, distortions, online_losses, metrics = self.training_losses(
            batch, is_warming_up=is_warming_up
        )
        self.tracker.add(self, "train", metrics, batch_size=len(batch.x))
        losses = self._weighted(rates, distortions, self.annealer(self.global_step, self._n_steps))
        return (losses if online_losses is None else losses + online_losses).mean()

    def on_train_start(self) -> None:
        self._n_steps = self.trainer.estimated_stepping_batches
        if self.rate.is_transform_missing:  # False when training resumes
            self._fit_transform()

    @torch.no_grad()
    def _fit_transform(self) -> None:
        """Fit the rate's transform to representations of the training data."""
        if any(parameter.requires_grad for parameter in self.p_ZlX.parameters()):
            raise ValueError(
                f"the transform of {type(self.rate).__name__} is fitted to fixed representations, "
                "but the encoder is trained: freeze it (finetune=freezer), or use a rate without a "
                "transform, such as rate=H_factorized or rate=H_hyper"
            )
        was_training = self.p_ZlX.training
        self.p_ZlX.eval()
        representations, n_examples = [], 0
        for batch in self.trainer.train_dataloader:
            representations.append(gather(self.represent(batch.x.to(self.device))))
            n_examples += len(representations[-1])
            if n_examples >= MAX_TRANSFORM_EXAMPLES:
                break
        self.p_ZlX.train(was_training)
        self.rate.fit_transform(torch.cat(representations))

    def evaluation_step(self, batch: Batch, split: str) -> None:
        if self.distortion.needs == "positive" and len(batch.x) == 1:
            return  # a single example in the last batch has no negatives
        *_, metrics = self.losses(batch)
        self.tracker.add(self, split, metrics, batch_size=len(batch.x))

    def on_validation_start(self) -> None:
        self.tracker.check_finite()  # names the first bad step; `update` could not
        self.rate.update()

    def parts(self) -> dict[str, tuple[nn.Module | list[nn.Module], PartOptimizer]]:
        compressor = [self.p_ZlX, self.rate, self.distortion]
        parts = {"featurizer": (compressor, self.optimizer)}
        if self.online is not None:
            parts["online"] = (self.online, self.online_optimizer)
        return parts


def _check_latent_shapes(p_ZlX: CondDist, rate: Rate) -> None:
    """Raise ValueError if the latent images [C, s, s] of encoder and rate differ in shape."""
    encoded = getattr(p_ZlX.mapper, "latent_shape", None)
    priced = getattr(rate, "latent_shape", None)
    if encoded is not None and priced is not None and encoded != priced:
        raise ValueError(
            f"{type(p_ZlX.mapper).__name__} outputs latent images of shape {encoded}, but "
            f"{type(rate).__name__} expects {priced}: set z_dim={math.prod(encoded)} and "
            f"latent_side={encoded[-1]} for the rate"
        )
