"""The one hand-off between data and models."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """A batch of examples as every model of this package receives it.

    Attributes
    ----------
    x : Tensor [B, *shape]
        What the sender sees: an (augmented) example X, or its decoded representation in the
        prediction stage.
    y : Tensor [B] or [B, n_outputs]
        Target of the downstream task: int64 classes, or float32 values.
    aux : Tensor [B, *shape] or None
        What the distortion compares with. Which variable that is follows from the distortion:
        X itself (VC), the unaugmented representative of X's equivalence class (VIC), another
        member of the class (BINCE), nothing.
    """

    x: Tensor
    y: Tensor
    aux: Tensor | None = None
