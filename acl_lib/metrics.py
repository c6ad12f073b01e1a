"""Numbers from arrays."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor


def accuracy(posterior: Float[Tensor, "N K"], y: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    """Share of rows whose largest posterior is the right class; ties go to the lowest class.

    Returns:
        Fraction between 0 and 1; 1/K is chance when the classes are balanced.
    """
    return (posterior.argmax(dim=1) == y).float().mean()
