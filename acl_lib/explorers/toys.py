"""Points and pushes: explorers that compute everything they show."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

from .. import figures
from ..losses import acl
from .page import explorer


def circle(
    *,
    alpha: float = 0.3,
    temperature: float = 0.2,
    margin: float = 0.5,
    clips: int = 8,
    sphere: bool = False,
    quarter: bool = False,
    compare: bool = True,
    reduction: str = "mean",
    play: bool = False,
    small: bool = False,
):
    """Two views of each clip as points that the gradient of ACL moves, or the reader's hand.

    The same points stand for z and for h, so that both terms can be seen at work.

    Args:
        alpha, temperature, margin, reduction: as in `losses.acl`.
        clips: 8, 12 or 16, of four classes.
        sphere: points on the sphere instead of the circle.
        quarter: no negative coordinates, as behind the encoder's ReLU.
        compare: show alpha = 1 from the same start beside it.
        play: move by itself once half of it is on the screen; readers who asked their system for
            less motion see the end at once.
        small: the picture with the slider of alpha, no other setting and no table.
    """
    state = dict(locals())

    def draw() -> Figure:
        options = {"temperature": temperature, "margin": margin, "reduction": reduction}
        weights = dict.fromkeys((alpha, 1.0))
        return figures.circle_paths(
            {f"alpha = {a:g}": _downhill(clips, alpha=a, **options) for a in weights}
        )

    return explorer(
        "circle",
        state,
        draw,
        "Points on the circle, two for each clip, moved by the gradient of ACL: the two views of a "
        "clip meet, and clips move apart",
    )


def penalty(
    *,
    temperature: float = 0.2,
    alpha: float = 0.3,
    margin: float = 0.5,
    additive: float = 0.1,
    positive: float = 0.9,
):
    """The gradient that a negative gets, against its cosine: NT-Xent, NT-Xent-AM and ACL.

    Args:
        temperature, alpha, margin: as in `losses.acl`, summed as in the authors' code at 128 clips.
        additive: margin that NT-Xent-AM takes from the cosine of the positive.
        positive: cosine of the anchor and its positive.
    """
    state = dict(locals())

    def draw() -> Figure:
        cosine = torch.linspace(-1, 1, 201)
        taus = sorted({0.05, temperature, 1.0})
        shares = {f"tau = {t:g}": 201 * torch.softmax(cosine / t, 0) / t for t in taus}
        return figures.curves(
            cosine, shares, "cosine of the negative", "push, over 1 / number of negatives"
        )

    return explorer(
        "penalty",
        state,
        draw,
        "Push on a negative against its cosine at three temperatures: the lower the temperature, "
        "the more of it goes to the nearest negatives",
    )


def _downhill(clips: int, steps: int = 60, **options) -> torch.Tensor:
    """Angles (T, 2B) of points that go down the gradient of ACL, from a fixed start."""
    draw = torch.Generator().manual_seed(7)
    centre = 2 * torch.pi * torch.rand(clips, generator=draw)
    phi = centre.repeat(2) + 1.2 * (torch.rand(2 * clips, generator=draw) - 0.5)
    path = [phi]
    for _ in range(steps):
        phi = phi.detach().requires_grad_()
        i, j = torch.stack([phi.cos(), phi.sin()], 1).chunk(2)
        (slope,) = torch.autograd.grad(acl(i, j, i, j, **options), phi)
        phi = phi - slope * (0.05 / slope.abs().max().clamp(min=0.05))
        path.append(phi)
    return torch.stack(path).detach()
