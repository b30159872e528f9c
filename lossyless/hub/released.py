"""The bottlenecks that the paper's authors released: factorized priors of the 512 features of CLIP
ViT-B/32, trained on COCO.

Only a table: it is read where nobody wants to wait for torch.
"""

from dataclasses import dataclass

_RELEASE = "https://github.com/YannDubs/lossyless/releases/download/v1.0"


@dataclass(frozen=True)
class ReleasedBottleneck:
    """A file of released weights.

    Attributes
    ----------
    beta : weight of the rate in training; larger means fewer bits.
    n_bits : entropy of the model, bits per image.
    url, sha256 : of the file.
    """

    beta: float
    n_bits: int
    url: str
    sha256: str


RELEASED = {
    "b001": ReleasedBottleneck(
        beta=0.01,
        n_bits=2351,
        url=f"{_RELEASE}/beta1e-02_factorized_rate.pt",
        sha256="298a7b2bafb6851be1c82c0bb090fa64c6fcc6b0e5791f4103701bb3cba45d51",
    ),
    "b005": ReleasedBottleneck(
        beta=0.05,
        n_bits=1366,
        url=f"{_RELEASE}/beta5e-02_factorized_rate.pt",
        sha256="7668107582423542480e1d21986e24f97706e761f43889547a79f74a5a6d2ad8",
    ),
    "b01": ReleasedBottleneck(
        beta=0.1,
        n_bits=953,
        url=f"{_RELEASE}/beta1e-01_factorized_rate.pt",
        sha256="410eb8fe6abbb3b51db9c8ab9f8ef7a04dcc13356a481ddd863cf91a91deef13",
    ),
}
