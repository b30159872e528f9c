"""Distortions: how much information about the target a representation loses (nats).

All implement `forward(z_hat, target) -> distortions [B], logs`. The attribute `needs` names the
target, which determines what the data must provide as `Batch.aux`:

    needs             Batch.aux                             target                  method
    "input"           x itself                              aux                     VC ("VAE")
    "representative"  the unaugmented x                     aux                     VIC
    "positive"        another augmentation of the same x    z_hat of aux            BINCE
    "none"            nothing                               z, before quantisation  lossy Z
    "target"          y, the target of the task             aux                     supervised

In distributed training, each process passes its share of the batch to `forward`. A distortion that
compares the examples of a batch with each other must gather the other shares with
`Distortion.gathered`; otherwise its results depend on the number of devices.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossyless.all_gather import gather, rank
from lossyless.architectures import Architecture
from lossyless.predictors import PredictionHead
from lossyless.rates.likelihoods import LowerBound
from lossyless.torch_state import full_precision

DistortionOutput = tuple[Tensor, dict[str, Tensor]]


class Distortion(nn.Module, ABC):
    """A bound on the information lost about the maximal invariant, H[M(X)|Z], up to a constant."""

    #: the target, as in the first column of the table above
    needs: str
    #: whether there is a decoder, and thus a method `reconstruct(z_hat) -> [B, *shape]`
    has_decoder = False

    @abstractmethod
    def forward(self, z_hat: Tensor, target: Tensor) -> DistortionOutput:
        """Return distortions [B] in nats for z_hat [B, z_dim], and terms to log: means over the
        batch, with information in bits."""

    def gathered(self, rows: Tensor) -> tuple[Tensor, int]:
        """Gather the rows [n, ...] of this process and all others.

        Returns all rows [N, ...] and the index of this process's first row. Gradients flow to all
        processes, and all must call this method.

        In evaluation mode, processes are independent: N = n, and the index is 0.
        """
        return (gather(rows), rank() * len(rows)) if self.training else (rows, 0)


class DirectDistortion(Distortion):
    """-log q(target | z_hat), up to constants, for a decoder q: the distortion of VC and VIC.

    The two differ in their target: reconstructing the input keeps all of its information (VC);
    reconstructing the unaugmented representative of an augmented input keeps only what all
    augmentations share (VIC).

    Parameters
    ----------
    arch : architecture of the decoder.
    z_dim : dimensions of the representation.
    shape : shape of one target.
    kind : one of
        "vector": squared error, averaged over dimensions, as in the paper's code (not a negative
            log density in nats, so the scale of beta differs from that for images);
        "bw_image": binary cross-entropy of the pixels, summed, for targets in [0, 1];
        "colour_image": squared error of the pixels, summed, for targets in [0, 1].
    needs : "input" (VC) or "representative" (VIC).
    """

    has_decoder = True
    KINDS = ("vector", "bw_image", "colour_image")

    def __init__(self, arch: Architecture, z_dim: int, shape: Sequence[int], kind: str, needs: str):
        super().__init__()
        if kind not in self.KINDS:
            raise ValueError(f"unknown kind of data {kind!r}: expected one of {self.KINDS}")
        if needs not in ("input", "representative"):
            raise ValueError(
                f"a direct distortion reconstructs the 'input' (VC) or the 'representative' "
                f"(VIC), not {needs!r}"
            )
        self.kind = kind
        self.needs = needs
        self.decoder = arch((z_dim,), tuple(shape))

    def forward(self, z_hat: Tensor, target: Tensor) -> DistortionOutput:
        prediction, target = self.decoder(z_hat).float(), target.float()
        if self.kind == "vector":
            return F.mse_loss(prediction, target, reduction="none").flatten(1).mean(1), {}
        if self.kind == "bw_image":
            errors = F.binary_cross_entropy_with_logits(prediction, target, reduction="none")
        else:
            errors = F.mse_loss(torch.sigmoid(prediction), target, reduction="none")
        return errors.flatten(1).sum(1), {}

    def reconstruct(self, z_hat: Tensor) -> Tensor:
        """Reconstruct the targets [B, *shape] from z_hat; image pixels are in [0, 1]."""
        prediction = self.decoder(z_hat).float()
        return prediction if self.kind == "vector" else torch.sigmoid(prediction)


class ContrastiveDistortion(Distortion):
    """InfoNCE between the representations of two augmentations of the same image (BINCE).

    Each of the 2B representations in a batch must identify its partner among the others:

        loss = -log  e^{s+/T} / (e^{s+/T} + m * sum of e^{s-/T} over the 2B - 2 negatives)

    where s is the cosine similarity after a projection head (SimCLR, arXiv:2002.05709). With m = 1,
    log(number of candidates) - loss is nearly a lower bound on I[Z; Z+] (Oord et al.,
    arXiv:1807.03748). The bound needs independent negatives, but here the negatives come in pairs
    of views: if I[Z; Z+] is one bit, the expected bound can reach 1.005 bits. With a larger m, the
    value is only an estimate, since each negative is counted several times.

    In distributed training, the candidates are the representations of all processes: B counts the
    examples of all shares, which must have equal sizes. Each process returns the distortions of its
    share; their gradients, averaged over processes, are those of the whole batch. In evaluation
    mode, processes are independent.

    Parameters
    ----------
    z_dim : dimensions of the representation.
    arch : architecture of the projection head.
    temperature : T, or its lower bound if T is learned.
    is_train_temperature : whether T is learned (through its logarithm).
    initial_temperature : initial value of T if it is learned, unless the bound is higher.
    effective_batch_size : number of images per batch that the loss emulates: every negative counts
        m = (effective_batch_size - 1) / (B - 1) times. None: the actual number, so that m = 1.
    project_factor : the projection has max(10, project_factor * z_dim) dimensions.
    """

    needs = "positive"

    def __init__(
        self,
        z_dim: int,
        arch: Architecture,
        temperature: float = 0.01,
        is_train_temperature: bool = True,
        initial_temperature: float = 0.07,
        effective_batch_size: int | None = None,
        project_factor: float = 0.5,
    ):
        super().__init__()
        if effective_batch_size is not None and effective_batch_size < 2:
            raise ValueError(
                f"effective_batch_size={effective_batch_size}: expected at least 2, since each "
                "image needs negatives"
            )
        if min(temperature, initial_temperature) <= 0:
            raise ValueError(
                f"temperature={temperature}, initial_temperature={initial_temperature}: expected "
                "positive numbers"
            )
        self.projector = arch((z_dim,), (max(10, int(project_factor * z_dim)),))
        # unlike a clamp, it lets gradients raise a temperature that is below the bound
        self.lower_bound = LowerBound(math.log(temperature))
        self.effective_batch_size = effective_batch_size
        start = initial_temperature if is_train_temperature else temperature
        log_temperature = torch.tensor(math.log(start))
        self.log_temperature = nn.Parameter(log_temperature, requires_grad=is_train_temperature)

    @property
    def temperature(self) -> Tensor:
        return self.lower_bound(self.log_temperature[None]).exp()[0]

    def forward(self, z_hat: Tensor, target: Tensor) -> DistortionOutput:
        projections = self.projector(torch.cat([z_hat, target]))
        precision = torch.promote_types(projections.dtype, torch.float32)
        features = F.normalize(projections.to(precision), dim=-1)
        candidates, first = self.gathered(features)  # own rows start at column `first`
        n_own, n_candidates = len(features), len(candidates)
        batch_size = n_candidates // 2
        if batch_size < 2:
            raise ValueError("the contrastive distortion needs at least 2 examples per batch")
        # a temperature of .01 multiplies rounding errors by 100
        with full_precision(z_hat.device.type):
            logits = features @ candidates.T / self.temperature
        own = first + torch.arange(n_own, device=logits.device)
        positives = own.roll(n_own // 2)
        log_weights = torch.full_like(logits, self._log_multiplicity(batch_size))
        log_weights.scatter_(1, positives[:, None], 0.0)
        log_weights.scatter_(1, own[:, None], -torch.inf)  # mask self-similarity
        # added after dividing by the temperature: m multiplies probabilities, not similarities
        losses = F.cross_entropy(logits + log_weights, positives, reduction="none")
        distortions = losses.unflatten(0, (2, -1)).mean(0)
        n_counted = 1 + 2 * ((self.effective_batch_size or batch_size) - 1)
        return distortions, {
            "I_q_zm": (math.log(n_counted) - distortions.mean().detach()) / math.log(2),
            "temperature": self.temperature.detach(),
        }

    def _log_multiplicity(self, batch_size: int) -> float:
        if self.effective_batch_size is None:
            return 0.0
        return math.log((self.effective_batch_size - 1) / (batch_size - 1))


class LossyZ(Distortion):
    """||z_hat - z||_p: keeps the output of a pretrained, frozen encoder; the paper uses p = 1."""

    needs = "none"

    def __init__(self, p_norm: float = 1):
        super().__init__()
        self.p_norm = p_norm

    def forward(self, z_hat: Tensor, target: Tensor) -> DistortionOutput:
        return torch.linalg.vector_norm(z_hat - target.float(), ord=self.p_norm, dim=-1), {}


class TargetDistortion(Distortion):
    """-log q(y | z_hat): keeps the information that a single task needs.

    The supervised baseline, and the only distortion that uses labels.

    Parameters
    ----------
    arch : architecture of q.
    z_dim : dimensions of the representation.
    task : "classification" (cross-entropy, nats) or "regression" (squared error, averaged over
        the outputs; not a negative log density in nats).
    n_outputs : number of classes, or dimensions of the target.
    """

    needs = "target"

    def __init__(self, arch: Architecture, z_dim: int, task: str, n_outputs: int):
        super().__init__()
        self.head = PredictionHead(arch, (z_dim,), task, n_outputs)

    def forward(self, z_hat: Tensor, target: Tensor) -> DistortionOutput:
        distortions, metrics = self.head.losses(z_hat, target)
        del metrics["loss"]  # equals the distortion, which is logged in bits
        return distortions, {f"target_{name}": value for name, value in metrics.items()}
