r"""Sums over all pairs of rows without their N x N cosines: a tile at a time, made again if needed.

What the losses ask of a large batch. A tile of cosines is made, summed and dropped; where a
gradient needs it later it is made again, so that memory grows with N d instead of N^2. Cosines of
a batch with itself are made for one half of the pairs and serve both orders. Rows are unit vectors
in float32 or float64, whose products stay in that type under any autocast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

# rows of a tile: 1 MB of float32 stays in the cache of a core, 64 MB keep a GPU busy
TILE = {"cpu": 512, "cuda": 4096}


def by_blocks(f: Callable[..., Tensor], *x: Float[Tensor, "N d"]) -> Tensor:
    """A function of each row, of one or of several tensors: what lies between is made again.

    Args:
        f: rows -> rows; it must not mix them.
        x: handed to f some rows at a time.

    Returns:
        ``f(*x)``; of it and of x alone something is kept for the gradient.
    """
    some = zip(*(part.split(_tile(part)) for part in x), strict=True)
    again = {"use_reentrant": False, "preserve_rng_state": False}
    return torch.cat([checkpoint(f, *rows, **again) for rows in some])


def log_sum_exp_of_others(
    u: Float[Tensor, "N d"],
    who: Int[Tensor, " N"],
    keys: tuple[Float[Tensor, "M d"], Int[Tensor, " M"]] | None = None,
    *,
    temperature: float,
) -> Float[Tensor, " N"]:
    r"""For each row the logarithm of what it sees of rows that are not of its own.

    .. math:: \ell_i = \log \sum_{j:\, w_j \ne w_i} \exp(\langle u_i, v_j \rangle / \tau)

    Args:
        u: unit rows.
        who: what a row is of, such as a clip; rows of one kind do not see each other.
        keys: v and its w; without them the rows of u see each other.
        temperature: tau > 0, unitless.

    Returns:
        Nats; -inf for a row that sees nobody, which has no gradient.
    """
    v, whose = (None, who) if keys is None else keys
    return _LogSumExp.apply(u, v, who, whose, 1 / temperature)


def of_partners(u: Float[Tensor, "N d"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    r"""Cosine and angle of row b and row B + b.

    .. math:: \langle u_b, u_{B+b} \rangle, \quad
              2\,\mathrm{atan2}(\lVert u_b - u_{B+b} \rVert, \lVert u_b + u_{B+b} \rVert)

    Args:
        u: unit rows, all views i above all views j: N = 2B.

    Returns:
        Cosines; angles in radians, which have no gradient at 0 and pi.
    """
    return _Partners.apply(u)


def shortfall_sum(
    u: Float[Tensor, "N d"], who: Int[Tensor, " N"], *, margin: float, cosine_limit: float
) -> Float[Tensor, ""]:
    r"""Squared shortfalls of all ordered pairs of rows that are not of one kind.

    .. math:: \sum_{i, j:\, w_i \ne w_j} \max(0, m - \arccos \langle u_i, u_j \rangle)^2

    Args:
        u: unit rows.
        who: what a row is of, such as a clip.
        margin: m in radians, between 0 and pi.
        cosine_limit: cosines beyond it count as it, and push nowhere.

    Returns:
        rad^2.
    """
    return _ShortfallSum.apply(u, who, margin, cosine_limit)


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, v, who, whose, scale):
        seen = u.new_full((len(u),), -torch.inf)
        for rows, columns, twice in _tiles(u, v):
            s = _logits(u, v, who, whose, scale, rows, columns)
            seen[rows] = torch.logaddexp(seen[rows], s.logsumexp(1))
            if twice:
                seen[columns] = torch.logaddexp(seen[columns], s.logsumexp(0))
        ctx.scale = scale
        ctx.save_for_backward(u, v, who, whose, seen)
        return seen

    @staticmethod
    @once_differentiable
    def backward(ctx, slope):
        u, v, who, whose, seen = ctx.saved_tensors
        grad_u = torch.zeros_like(u)
        grad_v = grad_u if v is None else torch.zeros_like(v)
        for rows, columns, twice in _tiles(u, v):
            s = _logits(u, v, who, whose, ctx.scale, rows, columns)
            share = (s - seen[rows, None]).exp_().mul_(slope[rows, None])
            if twice:
                share += s.sub_(seen[columns]).exp_().mul_(slope[columns])
            _spread(share.mul_(ctx.scale), u, v, rows, columns, grad_u, grad_v)
        return grad_u, None if v is None else grad_v, None, None, None


class _Partners(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        found = [
            ((a * b).sum(1), 2 * torch.atan2(*_chords(a - b, a + b)))
            for a, b in zip(*_halves(u), strict=True)
        ]
        cosine, angle = map(torch.cat, zip(*found, strict=True))
        return cosine, angle

    @staticmethod
    @once_differentiable
    def backward(ctx, of_cosine, of_angle):
        (u,) = ctx.saved_tensors
        grad = torch.zeros_like(u)
        size = _tile(u)
        slopes = of_cosine[:, None].split(size), of_angle[:, None].split(size)
        for a, b, grad_a, grad_b, slope, turn in zip(
            *_halves(u), *_halves(grad), *slopes, strict=True
        ):
            apart, along = a - b, a + b
            chord, cochord = (x[:, None] for x in _chords(apart, along))
            turn = 2 * turn / (chord.square() + cochord.square())
            apart *= torch.where(chord > 0, turn * cochord / chord, 0)
            along *= torch.where(cochord > 0, turn * chord / cochord, 0)
            grad_a.addcmul_(slope, b).add_(apart).sub_(along)
            grad_b.addcmul_(slope, a).sub_(apart).sub_(along)
        return grad


class _ShortfallSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, who, margin, cosine_limit):
        total = u.new_zeros((), dtype=torch.float64)
        grad = torch.zeros_like(u) if ctx.needs_input_grad[0] else None
        for rows, columns, twice in _tiles(u, None):
            c = _product(u[rows], u[columns])
            c.masked_fill_(who[rows, None] == who[columns], -1)
            if c.max() <= math.cos(margin):  # nobody in this tile is too close
                continue
            bounded = c.clamp(-cosine_limit, cosine_limit)
            short = F.relu(margin - bounded.acos())
            total += short.square().sum(dtype=torch.float64) * (1 + twice)
            if grad is not None:
                slope = short.mul_(2).div_(bounded.square_().neg_().add_(1).sqrt_())
                slope.masked_fill_(c.abs_() > cosine_limit, 0)
                _spread(slope.mul_(1 + twice), u, None, rows, columns, grad, grad)
        if grad is not None:
            ctx.save_for_backward(grad)
        return total.to(u.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, slope):
        (grad,) = ctx.saved_tensors
        return grad * slope, None, None, None


def _halves(u: Tensor) -> list[tuple[Tensor, ...]]:
    """The upper and the lower half of the rows, each in blocks."""
    return [half.split(_tile(u)) for half in u.chunk(2)]


def _chords(apart: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
    """Twice the sine and the cosine of half the angle between two unit rows."""
    return torch.linalg.vector_norm(apart, dim=1), torch.linalg.vector_norm(along, dim=1)


def _tile(u: Tensor) -> int:
    return TILE.get(u.device.type, TILE["cpu"])


def _tiles(u: Tensor, v: Tensor | None) -> Iterator[tuple[slice, slice, bool]]:
    """Rows and columns of each tile, and whether it stands for its mirror image too."""
    size, others = _tile(u), u if v is None else v
    for top in range(0, len(u), size):
        for left in range(top if v is None else 0, len(others), size):
            rows, columns = slice(top, top + size), slice(left, left + size)
            yield rows, columns, v is None and left > top


def _product(u: Tensor, v: Tensor) -> Tensor:
    with torch.autocast(u.device.type, enabled=False):  # it would round to half precision here
        return u @ v.T


def _logits(u, v, who, whose, scale, rows, columns) -> Tensor:
    others = u if v is None else v
    s = _product(u[rows] * scale, others[columns])
    return s.masked_fill_(who[rows, None] == whose[columns], -torch.inf)


def _spread(slope, u, v, rows, columns, grad_u, grad_v) -> None:
    """What the slopes of a tile's cosines mean for the rows on its two sides."""
    grad_u[rows].addmm_(slope, (u if v is None else v)[columns])
    grad_v[columns].addmm_(slope.T, u[rows])
