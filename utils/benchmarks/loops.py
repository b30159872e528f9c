"""Other ways to train the same compressor: what our trainer is compared with."""

import copy

import torch
from torch.nn.utils import clip_grad_norm_

from lossyless.batch import Batch
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

    def _compressor_loss(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        p_ZlX = self.model.p_ZlX(batch.x)
        z_hat, rates, _ = self.model.rate(p_ZlX.rsample(), p_ZlX)
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
    """One pass for each of three optimisers, as Lightning 1.3 trains with several optimisers.

    The compressor; the probe, which encodes the batch again; the coder, whose auxiliary loss moves
    the quantiles of CompressAI's entropy bottleneck.
    """

    def __init__(self, compressor: LearnableCompressor):
        super().__init__(compressor)
        self.prior = self.model.rate.prior
        self.prior.quantiles.requires_grad_(True)
        self.coder_optimizer = torch.optim.Adam([self.prior.quantiles])

    def step(self, batch: Batch) -> None:
        """One training step: three forward and three backward passes."""
        loss, _ = self._compressor_loss(batch)
        self.compressor_optimizer.zero_grad()
        loss.backward()
        self._update_compressor()

        with torch.no_grad():
            p_ZlX = self.model.p_ZlX(batch.x)
            z_hat, _, _ = self.model.rate(p_ZlX.rsample(), p_ZlX)
        probe_losses, _ = self.model.online.losses(z_hat, batch.y)
        self.online_optimizer.zero_grad()
        probe_losses.mean().backward()
        self._update_online()

        auxiliary_loss = self.prior.loss()
        self.coder_optimizer.zero_grad()
        auxiliary_loss.backward()
        self.coder_optimizer.step()
