"""The contract of all rates."""

from abc import abstractmethod

import torch
from torch import Tensor

from lossyless.base import Codec
from lossyless.distributions import Conditional, check_z_dim

RateOutput = tuple[Tensor, Tensor, dict[str, Tensor]]


class Rate(Codec):
    """A bottleneck with a price, which codes representations z [N, z_dim].

    Parameters
    ----------
    z_dim : dimensions of the representation.
    warmup_k_epoch : for so many epochs the rate does not move the encoder, which the distortion
        alone trains, through the noise of the quantisation.
    is_end_to_end : if False, no gradient flows from here to the encoder: a bottleneck is fitted
        to a representation that something else determines (staggered training).
    """

    #: family of p(Z|X) that the encoder must have, see `distributions.FAMILIES`
    family = "deterministic"

    def __init__(self, z_dim: int, warmup_k_epoch: int = 0, is_end_to_end: bool = True):
        check_z_dim(z_dim)
        super().__init__()
        self.z_dim = z_dim
        self.warmup_k_epoch = warmup_k_epoch
        self.is_end_to_end = is_end_to_end

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.z_dim,)

    def forward(
        self, z: Tensor, p_ZlX: Conditional | None = None, *, is_warming_up: bool = False
    ) -> RateOutput:
        """Pass z through the bottleneck.

        Parameters
        ----------
        z : Tensor [B, z_dim], a sample of `p_ZlX`.
        p_ZlX : the batch of distributions that z was drawn from; for rates that price these rather
            than z. Others do without.
        is_warming_up : whether z_hat alone, and not the rates, has a gradient to z.

        Returns
        -------
        z_hat : Tensor [B, z_dim], float32
        rates : Tensor [B], nats per example
        logs : means over the batch of the terms of the rate, in nats
        """
        z_in = z
        if is_warming_up or not self.is_end_to_end:
            z_in, p_ZlX = z.detach(), None if p_ZlX is None else p_ZlX.detach()
        # probabilities of 1e-9 and cumulated logits do not survive half precision
        with torch.autocast(z.device.type, enabled=False):
            z_hat, rates, logs = self._bottleneck(z_in.float(), p_ZlX)
        if is_warming_up and self.is_end_to_end:
            z_hat = z_hat + (z - z.detach()).float()  # training adds noise to z: the gradient is 1
        return z_hat, rates, logs

    @abstractmethod
    def _bottleneck(self, z: Tensor, p_ZlX: Conditional | None) -> RateOutput:
        """What `forward` returns, of float32 z [B, z_dim] and without autocast.

        In training mode z_hat and rates have gradients; in evaluation mode z_hat is, to the bit,
        what `decompress` makes of the bytes of `compress`. Both are on the device of z.
        """

    @property
    def is_transform_missing(self) -> bool:
        """Whether `fit_transform` has to be called before anything else."""
        return False

    def fit_transform(self, z: Tensor) -> None:
        """Fit what is computed from representations z [N, z_dim] of the training data, not learnt.

        Nothing for rates without a transform.
        """

    def update(self) -> None:
        """Make everything that coding needs from the current parameters.

        Call it whenever evaluation starts: it fixes the tables, and the centres of the
        quantisation cells that evaluation-mode rounding uses.
        """
