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


def align(
    points: Float[np.ndarray, "n 2"], reference: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n 2"]:
    """Turn or mirror a map until its points lie as near as they can to those of another.

    Both are centred and scaled to a root mean square radius of 1 first. Distances within the map
    keep their ratios; only the view changes, so that an eye can follow points between two maps.

    Source: Schönemann 1966, orthogonal Procrustes.
    """
    points, reference = (
        at / np.sqrt((at**2).sum(1).mean().clip(1e-24))
        for at in (points - points.mean(0), reference - reference.mean(0))
    )
    left, _, right = np.linalg.svd(points.T @ reference)
    return points @ left @ right
