"""The base class of all rates."""

from abc import abstractmethod

from torch import Tensor

from lossyless.base import Codec
from lossyless.distributions import Conditional, check_z_dim
from lossyless.torch_state import full_precision

RateOutput = tuple[Tensor, Tensor, dict[str, Tensor]]


class Rate(Codec):
    """A bottleneck that codes representations z [N, z_dim] and computes their rates in nats.

    Parameters
    ----------
    z_dim : dimensions of the representation.
    warmup_k_epoch : number of initial epochs in which the rate does not train the encoder; only the
        distortion does, through the noisy z_hat.
    is_end_to_end : if False, no gradient flows to the encoder: the bottleneck is fitted to a given
        representation (staggered training).
    """

    #: required family of the encoder's p(Z|X), see `distributions.FAMILIES`
    family = "deterministic"

    def __init__(self, z_dim: int, warmup_k_epoch: int = 0, is_end_to_end: bool = True):
        check_z_dim(z_dim)
        if not hasattr(self, "format_name"):
            raise TypeError(f"{type(self).__name__} needs a `format_name` for its payloads")
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
        p_ZlX : the distributions that z was drawn from; needed by rates such as `MIRate`.
        is_warming_up : whether gradients reach z through z_hat only, and not through the rates.

        Returns
        -------
        z_hat : Tensor [B, z_dim], `z_dtype`
        rates : Tensor [B], nats per example
        terms : terms of the rate by name, Tensor [B] each, nats, without gradients
        """
        z_in = z
        if is_warming_up or not self.is_end_to_end:
            z_in, p_ZlX = z.detach(), None if p_ZlX is None else p_ZlX.detach()
        # half precision cannot represent probabilities of 1e-9 or cumulative logits
        with full_precision(z.device.type):
            z_hat, rates, terms = self._bottleneck(z_in.to(self.z_dtype), p_ZlX)
        if is_warming_up and self.is_end_to_end:
            # quantisation adds noise to z, so the gradient is 1
            z_hat = z_hat + (z - z.detach()).float()
        return z_hat, rates, terms

    @abstractmethod
    def _bottleneck(self, z: Tensor, p_ZlX: Conditional | None) -> RateOutput:
        """Compute the output of `forward` for z [B, z_dim] of type `z_dtype`, without autocast.

        In training, z_hat and differentiable rates have gradients. In evaluation, z_hat matches
        what `decompress` returns after `compress`, bit for bit. All outputs are on z's device.
        """

    @property
    def is_transform_missing(self) -> bool:
        """Whether `fit_transform` must be called first."""
        return False

    def fit_transform(self, z: Tensor) -> None:
        """Fit the transform to representations z [N, z_dim] of the training data.

        Does nothing for rates without a transform.
        """

    def update(self) -> None:
        """Compute the coding tables from the current parameters.

        Call it whenever evaluation starts: it fixes the tables, and the centres of the quantisation
        cells used in evaluation mode.
        """
