"""Two coordinates for each representation, to look at."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from torch import Tensor


def pca(h: Float[Tensor, "n d"], *, dimensions: int = 2) -> Float[np.ndarray, "n 2"]:
    """Coordinates along the axes of largest variance: linear, and the same every time."""
    from sklearn.decomposition import PCA

    return PCA(dimensions, svd_solver="full").fit_transform(h.double().numpy())


def umap(
    h: Float[Tensor, "n d"], *, seed: int = 0, neighbours: int = 15
) -> Float[np.ndarray, "n 2"]:
    """Coordinates that keep neighbours together; distances between groups mean nothing.

    The cosine is the distance, as in the losses. The same seed gives another map on another
    system or version, so a map is looked at, never measured.

    Source: McInnes, Healy and Melville 2018.
    """
    from umap import UMAP  # its first import compiles for 15 s

    n_neighbors = min(neighbours, len(h) - 1)
    return UMAP(
        metric="cosine", random_state=seed, n_jobs=1, n_neighbors=n_neighbors
    ).fit_transform(h.numpy())
