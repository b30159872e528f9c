"""Other ways to train the same compressor: what our trainer is compared with."""

import copy

import torch
from compressai.entropy_models import EntropyBottleneck
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from lossyless.base import Batch
from lossyless.compressors import LearnableCompressor


class BareLoop:
    """The mathematics of `LearnableCompressor`, without trainer, hooks, metrics and checks.

    Works on a copy of the compressor, with optimisers built as it builds them.
    """

    def __init__(self, compressor: LearnableCompressor):
        self.model = copy.deepcopy(compressor).train()
        self.weight_r = compressor.beta * compressor.factor_beta_r
        self.compressor_parameters = self._trainable("p_ZlX", "rate", "distortion")
        self.online_parameters = self._trainable("online")
        self.compressor_optimizer = compressor.optimizer.optimizer(self.compressor_parameters)
        self.online_optimizer = compressor.online_optimizer.optimizer(self.online_parameters)

    def step(self, batch: Batch) -> None:
        """One training step, with one backward pass for compressor and probe."""
        loss, z_hat = self._compressor_loss(batch)
        probe_losses, _ = self.model.online.losses(z_hat, batch.y)
        self.compressor_optimizer.zero_grad()
        self.online_optimizer.zero_grad()
        (loss + probe_losses.mean()).backward()
        self._update_compressor()
        self._update_online()

    def _trainable(self, *names: str) -> list[torch.nn.Parameter]:
        modules = [self.model.get_submodule(name) for name in names]
        return [p for module in modules for p in module.parameters() if p.requires_grad]

    def _encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """z_hat [B, z_dim] and rates [B] in nats."""
        p_ZlX = self.model.p_ZlX(batch.x)
        z_hat, rates, _ = self.model.rate(p_ZlX.rsample(), p_ZlX)
        return z_hat, rates

    def _compressor_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        z_hat, rates = self._encode(batch)
        distortions, _ = self.model.distortion(z_hat, batch.aux)
        loss = distortions.mean() / self.model.factor_beta_d + self.weight_r * rates.mean()
        return loss, z_hat

    def _update_compressor(self) -> None:
        if self.model.optimizer.max_grad_norm is not None:
            clip_grad_norm_(self.compressor_parameters, self.model.optimizer.max_grad_norm)
        self.compressor_optimizer.step()

    def _update_online(self) -> None:
        if self.model.online_optimizer.max_grad_norm is not None:
            clip_grad_norm_(self.online_parameters, self.model.online_optimizer.max_grad_norm)
        self.online_optimizer.step()


class ThreePasses(BareLoop):
    """One pass for each of three optimisers, as a trainer with several optimisers would do it that
    calls the training step once for each (Lightning before 2.0).

    1. Compressor: encode, rate, distortion; backward; step.
    2. Probe: encode the batch again, in training mode but without a graph, since such a trainer
       freezes the parameters of all other optimisers meanwhile; probe; backward; step.
    3. Coder: CompressAI's auxiliary loss of the entropy bottlenecks, which needs their quantiles
       only; backward; step.

    It is the least work that the scheme can do: nothing is encoded for the coder, no distortion is
    computed for the probe, nothing is logged.
    """

    def __init__(self, compressor: LearnableCompressor):
        super().__init__(compressor)
        modules = self.model.rate.modules()
        self.bottlenecks = [module for module in modules if isinstance(module, EntropyBottleneck)]
        quantiles = [bottleneck.quantiles.requires_grad_() for bottleneck in self.bottlenecks]
        self.coder_optimizer = torch.optim.Adam(quantiles)

    def step(self, batch: Batch) -> None:
        """One training step: two encodings and three backward passes."""
        loss, _ = self._compressor_loss(batch)
        self.compressor_optimizer.zero_grad()
        loss.backward()
        self._update_compressor()

        with torch.no_grad():
            z_hat, _ = self._encode(batch)
        probe_losses, _ = self.model.online.losses(z_hat, batch.y)
        self.online_optimizer.zero_grad()
        probe_losses.mean().backward()
        self._update_online()

        auxiliary_loss = sum(bottleneck.loss() for bottleneck in self.bottlenecks)
        self.coder_optimizer.zero_grad()
        auxiliary_loss.backward()
        self.coder_optimizer.step()
