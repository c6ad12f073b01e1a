r"""The equations: what a batch of representations h and projections z costs.

Letters: B clips in a batch, two views i and j of each; s a cosine; theta an angle in radians.
Losses divide every row by its norm themselves, so h and z may come with any norm, and compute in
float32 (float64 stays float64) under any autocast: half precision rounds cosines near 1.
"""

import functools
import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .blockwise import by_blocks, log_sum_exp_of_others, of_partners, shortfall_sum

# From so many rows on, the sums over pairs are made tile by tile: less memory, and less time.
BLOCKWISE_ROWS = 4096

# A shorter row has no direction: it counts as 0, at right angles to every row that has one, and
# receives no gradient, which the division by its norm would make larger than 1e6.
SHORTEST_ROW = 1e-6

# acos has an infinite slope at cosines of 1 and -1, which float32 reaches by rounding (its step
# below 1 is 6e-8; 1 - 1e-10 *is* 1). At 1 - 1e-6 the angle is 1.4e-3 rad and the slope 707: a
# duplicate among the negatives costs 0.6 % less than margin^2 and gets no gradient.
COSINE_LIMIT = 1 - 1e-6

REDUCTIONS = ("paper_scaled", "paper_code", "mean")
MARGIN_KINDS = ("additive", "angular")  # of the positive: off its cosine, on its angle


def pair_angles(h_i: Float[Tensor, "B d"], h_j: Float[Tensor, "B d"]) -> Float[Tensor, "B"]:
    r"""Angle between row b of one view and row b of the other.

    .. math:: \theta_b = 2\,\mathrm{atan2}(\lVert u - v \rVert, \lVert u + v \rVert), \quad
              u = h_{i,b} / \lVert h_{i,b} \rVert,\; v = h_{j,b} / \lVert h_{j,b} \rVert

    This is arccos<u, v>: in the rhombus of two unit vectors |u - v| = 2 sin(theta / 2) and |u + v|
    = 2 cos(theta / 2). Unlike arccos it keeps its digits near 0 and pi in float32.

    Args:
        h_i, h_j: vectors of any norm; row b of both belongs to clip b.

    Returns:
        Angles in radians, 0 to pi; pi / 2 for orthogonal rows. Where both rows point the same way
        or opposite ways the angle has no derivative: its gradient there is 0.

    Raises:
        ValueError: if the shapes differ.
    """
    _check_pair(h_i, h_j, at_least=1)
    return _angles(_unit(h_i), _unit(h_j))


def nt_xent(
    z_i: Float[Tensor, "B d"], z_j: Float[Tensor, "B d"], *, temperature: float
) -> Float[Tensor, ""]:
    r"""Cross-entropy of every view picking its partner out of the 2B - 1 other views.

    .. math:: L_C = \frac{1}{2B} \sum_{i=1}^{2B} -\log \frac{\exp(s_{i,p(i)} / \tau)}
              {\sum_{k \ne i} \exp(s_{i,k} / \tau)}, \quad s_{i,k} = \cos(z_i, z_k)

    Source: Chen et al. 2020 (SimCLR), eq. 1; Wang, Tripathy and Mesaros 2023, eq. 1. p(i) is the
    other view of the same clip.

    Args:
        z_i, z_j: projections of the two views, any norm; row b of both belongs to clip b.
        temperature: tau > 0, unitless; small values weigh the nearest negatives (0.2 in the paper).

    Returns:
        Nats; log(2B - 1) when all cosines are equal.

    Raises:
        ValueError: if temperature <= 0, the shapes differ, or B < 2 (no negatives).
    """
    _check_options(temperature=temperature)
    return _pick_partner(z_i, z_j, temperature)


def nt_xent_one_way(
    z_i: Float[Tensor, "B d"], z_j: Float[Tensor, "B d"], *, temperature: float
) -> Float[Tensor, ""]:
    r"""Cross-entropy of view i picking its partner out of the B views j.

    .. math:: L = \frac{1}{B} \sum_{b=1}^{B} -\log \frac{\exp(\cos(z_{i,b}, z_{j,b}) / \tau)}
              {\sum_{k=1}^{B} \exp(\cos(z_{i,b}, z_{j,k}) / \tau)}

    Source: van den Oord et al. 2018 (InfoNCE), eq. 4, with cosine / tau as the score. Anchors come
    from view i only, B - 1 negatives from view j only; not symmetric in its arguments.

    Args:
        z_i, z_j: anchors and candidates, any norm; row b of both belongs to clip b.
        temperature: tau > 0, unitless.

    Returns:
        Nats; log(B) when all cosines are equal.

    Raises:
        ValueError: if temperature <= 0, the shapes differ, or B < 2 (no negatives).
    """
    _check_options(temperature=temperature)
    return _pick_partner_one_way(z_i, z_j, temperature)


def nt_xent_additive(
    z_i: Float[Tensor, "B d"], z_j: Float[Tensor, "B d"], *, temperature: float, margin: float
) -> Float[Tensor, ""]:
    r"""NT-Xent-AM: every view picks its partner, whose cosine counts a margin less.

    .. math:: L = \frac{1}{2B} \sum_{i=1}^{2B} -\log \frac{\exp((s_{i,p(i)} - m) / \tau)}
              {\exp((s_{i,p(i)} - m) / \tau) + \sum_{k \ne i, p(i)} \exp(s_{i,k} / \tau)}

    Source: Lepage and Dehak 2024, in the symmetric form of their code (sslsv, "nt-xent-cosface");
    the margin is that of CosFace (Wang et al. 2018). It multiplies every negative by
    exp(m / tau), so that a margin means nothing without its temperature.

    Args:
        z_i, z_j: projections of the two views, any norm; row b of both belongs to clip b.
        temperature: tau > 0, unitless; 0.03 in the authors' code.
        margin: m, a difference of cosines, not an angle, in [0, 2); 0.1 in the authors' code. At 0
            this is `nt_xent`, bit for bit.

    Returns:
        Nats; log(1 + (2B - 2) exp(m / tau)) when all cosines are equal.

    Raises:
        ValueError: if temperature <= 0, margin is outside [0, 2), the shapes differ, or B < 2.
    """
    _check_options(temperature=temperature, additive=margin)
    return _pick_partner(z_i, z_j, temperature, margin)


def nt_xent_additive_one_way(
    z_i: Float[Tensor, "B d"], z_j: Float[Tensor, "B d"], *, temperature: float, margin: float
) -> Float[Tensor, ""]:
    r"""View i picks its partner out of the B views j, whose cosine counts a margin less.

    .. math:: L = \frac{1}{B} \sum_{b=1}^{B} -\log \frac{\exp((\cos(z_{i,b}, z_{j,b}) - m) / \tau)}
              {\exp((\cos(z_{i,b}, z_{j,b}) - m) / \tau) +
               \sum_{k \ne b} \exp(\cos(z_{i,b}, z_{j,k}) / \tau)}

    Source: Lepage and Dehak 2024, in the form that their code calls not symmetric. Anchors come
    from view i only, B - 1 negatives from view j only.

    Args:
        z_i, z_j: anchors and candidates, any norm; row b of both belongs to clip b.
        temperature, margin: as in `nt_xent_additive`. At margin 0 this is `nt_xent_one_way`.

    Returns:
        Nats; log(1 + (B - 1) exp(m / tau)) when all cosines are equal.

    Raises:
        ValueError: as `nt_xent_additive` does.
    """
    _check_options(temperature=temperature, additive=margin)
    return _pick_partner_one_way(z_i, z_j, temperature, margin)


def nt_xent_angular(
    z_i: Float[Tensor, "B d"], z_j: Float[Tensor, "B d"], *, temperature: float, margin: float
) -> Float[Tensor, ""]:
    r"""NT-Xent-AAM: every view picks its partner, whose angle counts a margin more.

    .. math:: L = \frac{1}{2B} \sum_{i=1}^{2B} -\log \frac{\exp(\psi(\theta_{i,p(i)}) / \tau)}
              {\exp(\psi(\theta_{i,p(i)}) / \tau) + \sum_{k \ne i, p(i)} \exp(s_{i,k} / \tau)}
              , \quad \psi(\theta) = \begin{cases} \cos(\theta + m) & \theta \le \pi - m \\
              \cos\theta - m \sin m & \theta > \pi - m \end{cases}

    Source: Lepage and Dehak's code (sslsv, "nt-xent-arcface"); the margin is that of ArcFace (Deng
    et al. 2019), with their way on where the angle would pass pi. Deviation: the angle comes from
    `pair_angles`, not from arccos, whose infinite slope at a cosine of 1 would reach the gradient.

    Args:
        z_i, z_j: projections of the two views, any norm; row b of both belongs to clip b.
        temperature: tau > 0, unitless.
        margin: m in radians, in [0, pi); 0.005 to 0.2 in the authors' code. At 0 this is `nt_xent`,
            bit for bit; up to 2.3 a partner further off never costs less.

    Returns:
        Nats; log(1 + (2B - 2) exp((1 - cos m) / tau)) when all rows are alike.

    Raises:
        ValueError: if temperature <= 0, margin is outside [0, pi), the shapes differ, or B < 2.
    """
    _check_options(temperature=temperature, angular=margin)
    return _pick_partner(z_i, z_j, temperature, margin, "angular")


def nt_xent_angular_one_way(
    z_i: Float[Tensor, "B d"], z_j: Float[Tensor, "B d"], *, temperature: float, margin: float
) -> Float[Tensor, ""]:
    r"""View i picks its partner out of the B views j, whose angle counts a margin more.

    .. math:: L = \frac{1}{B} \sum_{b=1}^{B} -\log \frac{\exp(\psi(\theta_{b,b}) / \tau)}
              {\exp(\psi(\theta_{b,b}) / \tau) +
               \sum_{k \ne b} \exp(\cos(z_{i,b}, z_{j,k}) / \tau)}

    Source: as `nt_xent_angular`, in the form that the authors' code calls not symmetric.

    Args:
        z_i, z_j: anchors and candidates, any norm; row b of both belongs to clip b.
        temperature, margin: as in `nt_xent_angular`. At margin 0 this is `nt_xent_one_way`.

    Returns:
        Nats; log(1 + (B - 1) exp((1 - cos m) / tau)) when all rows are alike.

    Raises:
        ValueError: as `nt_xent_angular` does.
    """
    _check_options(temperature=temperature, angular=margin)
    toll = _angular_toll(pair_angles(z_i, z_j), margin)
    return _pick_partner_one_way(z_i, z_j, temperature, toll)


def contrastive(
    z_i: Float[Tensor, "B d"],
    z_j: Float[Tensor, "B d"],
    *,
    temperature: float,
    positive_margin: float = 0.0,
    margin_kind: str = "additive",
    symmetric: bool = True,
) -> Float[Tensor, ""]:
    """NT-Xent in one of its forms: with a margin on the positive or none, both ways or one.

    Args:
        z_i, z_j, temperature: as in `nt_xent`.
        positive_margin, margin_kind: "additive", off the cosine, as in `nt_xent_additive`;
            "angular", on the angle in radians, as in `nt_xent_angular`. At 0 there is no margin.
        symmetric: whether both views are anchors, or view i alone, as in `nt_xent_one_way`.

    Returns:
        Nats.

    Raises:
        ValueError: as that form does, or if the kind is unknown.
    """
    _check_positive_margin(positive_margin, margin_kind)
    form = {
        ("additive", True): nt_xent_additive,
        ("additive", False): nt_xent_additive_one_way,
        ("angular", True): nt_xent_angular,
        ("angular", False): nt_xent_angular_one_way,
    }[margin_kind, symmetric]
    return form(z_i, z_j, temperature=temperature, margin=positive_margin)


def queue_nt_xent(
    q: Float[Tensor, "B d"],
    k: Float[Tensor, "B d"],
    queue: Float[Tensor, "K d"],
    *,
    temperature: float,
    margin: float = 0.0,
    margin_kind: str = "additive",
) -> Float[Tensor, ""]:
    r"""Every query picks its key out of that key and a queue of older ones.

    .. math:: L = \frac{1}{B} \sum_{b=1}^{B} -\log \frac{\exp((\cos(q_b, k_b) - m) / \tau)}
              {\exp((\cos(q_b, k_b) - m) / \tau) + \sum_{l=1}^{K} \exp(\cos(q_b, n_l) / \tau)}

    Source: He et al. 2020 (MoCo), eq. 1, with the margin of Lepage and Dehak 2024. The other keys
    of the batch are no negatives. Gradients reach whatever asks for them: MoCo's keys and queue
    come out of its momentum encoder without. Put the keys into the queue after the loss, or each
    is its query's own negative.

    Args:
        q, k: queries and their keys, any norm; row b of both belongs to clip b.
        queue: the K negatives n_l, one in each row, any norm; of a queue that is still filling hand
            in the rows that are filled.
        temperature, margin: as in `nt_xent_additive`; or in `nt_xent_angular`, by
        margin_kind: "additive" or "angular".

    Returns:
        Nats; log(1 + K exp(m / tau)) when all cosines are equal, with an additive margin.

    Raises:
        ValueError: if temperature <= 0, the margin is out of range or of an unknown kind, the
            shapes differ, the queue is empty or of another width.
    """
    _check_positive_margin(margin, margin_kind)
    _check_options(temperature=temperature)
    _check_pair(q, k, at_least=1)
    if queue.ndim != 2 or queue.shape[1] != q.shape[1] or not len(queue):
        raise ValueError(
            f"the queue must have a shape (K, {q.shape[1]}) with K >= 1, got {tuple(queue.shape)}: "
            f"one negative in each row"
        )
    u, v = _unit(q), _unit(queue)
    toll = margin if margin_kind == "additive" else _angular_toll(pair_angles(q, k), margin)
    if len(u) + len(v) >= BLOCKWISE_ROWS:
        nobody, every = torch.full_like(q[:, 0], -1).long(), torch.zeros_like(queue[:, 0]).long()
        others = log_sum_exp_of_others(u, nobody, (v, every), temperature=temperature)
        return _cross_entropy_against(_cosines(u, _unit(k)) - toll, others, temperature)
    u = u / temperature
    positive = (u * _unit(k)).sum(1, keepdim=True)  # (B, 1)
    logits = torch.cat([positive, _product(u, v)], dim=1)  # (B, 1 + K)
    first = torch.zeros(len(q), dtype=torch.long, device=q.device)
    return _margin_cross_entropy(logits, first, toll / temperature)


def supcon(
    z: Float[Tensor, "N d"], y: Int[Tensor, "N"], *, temperature: float
) -> Float[Tensor, ""]:
    r"""Cross-entropy of every view picking the views of its class out of the N - 1 others.

    .. math:: L = \operatorname{mean}_{i:\,P(i) \ne \emptyset} \frac{-1}{|P(i)|} \sum_{p \in P(i)}
              \log \frac{\exp(s_{i,p} / \tau)}{\sum_{k \ne i} \exp(s_{i,k} / \tau)}, \quad
              P(i) = \{p \ne i : y_p = y_i\}

    Source: Khosla et al. 2020, eq. 2 (L_out), as a mean over the anchors that have a positive and
    without a factor for the temperature. With y = arange(B) twice it is `nt_xent`.

    Args:
        z: projections of all views stacked, any norm.
        y: class of each row.
        temperature: tau > 0, unitless.

    Returns:
        Nats; log(N - 1) when all cosines are equal, 0 when no class occurs twice.

    Raises:
        ValueError: if temperature <= 0, y does not label every row, or N < 2.
    """
    _check_options(temperature=temperature)
    _check_labels(z, y)
    z = _unit(z)
    if len(z) >= BLOCKWISE_ROWS:
        return _supcon_of_many(z, y, temperature)
    logits = _product(z / temperature, z)  # (N, N)
    logits.fill_diagonal_(-torch.inf)
    positive = (y[:, None] == y).fill_diagonal_(False)
    positives = positive.sum(1)  # (N,)
    log_p = logits.log_softmax(1).masked_fill(~positive, 0)  # 0 * -inf on the diagonal is nan
    per_anchor = -log_p.sum(1) / positives.clamp(min=1)
    return per_anchor.sum() / (positives > 0).sum().clamp(min=1)


def angular_margin(
    h_i: Float[Tensor, "B d"],
    h_j: Float[Tensor, "B d"],
    *,
    margin: float = 0.5,
    reduction: str = "paper_scaled",
) -> Float[Tensor, ""]:
    r"""Squared angle between the views of a clip; squared shortfall from the margin between clips.

    .. math:: L_A = w_+ \operatorname{mean}_{S_{ij}=1} \theta_{ij}^2 +
              w_- \operatorname{mean}_{S_{ij}=0} \max(0, m - \theta_{ij})^2

    Source: Wang, Tripathy and Mesaros 2023, eq. 2, whose inner product is a cosine in the authors'
    code: that code adds 2B ordered positives and 2B(2B - 2) ordered negatives and divides by 25.

    Args:
        h_i, h_j: representations of the two views, any norm; row b of both belongs to clip b.
        margin: m in radians, between 0 and pi; 0.5 (28.6 degrees) in the authors' code.
        reduction: `w_+` and `w_-`. "paper_code": 2B / 25 and 2B(2B - 2) / 25, the authors' sum,
            whose balance moves with B. "paper_scaled": the same at B = 128 for every B, 10.24 and
            2600.96. "mean": 1 and 1.

    Returns:
        rad^2; 0 when views coincide and clips stand at least the margin apart.

    Raises:
        ValueError: if margin is outside (0, pi), the shapes differ, B < 2 (no negatives), or the
            reduction is unknown.
    """
    _check_options(margin=margin, reduction=reduction)
    _check_pair(h_i, h_j, at_least=2)
    clips = len(h_i)
    u = torch.cat([_unit(h_i), _unit(h_j)])
    clip = torch.arange(clips, device=u.device).repeat(2)
    large = len(u) >= BLOCKWISE_ROWS
    angle = of_partners(u)[1] if large else _angles(u[:clips], u[clips:])
    positive = angle.square().mean()  # both orders have this mean
    negative = _shortfalls(u, clip, margin) / (2 * clips * (2 * clips - 2))
    w_positive, w_negative = {
        "paper_scaled": (2 * 128 / 25, 2 * 128 * (2 * 128 - 2) / 25),
        "paper_code": (2 * clips / 25, 2 * clips * (2 * clips - 2) / 25),
        "mean": (1, 1),
    }[reduction]
    return w_positive * positive + w_negative * negative


def supervised_angular_margin(
    h: Float[Tensor, "B d"],
    y: Int[Tensor, "B"],
    *,
    margin: float = 0.5,
    reduction: str = "paper_scaled",
) -> Float[Tensor, ""]:
    r"""Squared angle within a class; squared shortfall from the margin between classes.

    .. math:: L_A = w \operatorname{mean}_{i \ne j} \begin{cases} \theta_{ij}^2 & y_i = y_j \\
              \max(0, m - \theta_{ij})^2 & y_i \ne y_j \end{cases}

    Source: Wang, Tripathy and Mesaros 2023, eq. 2, where the labels define S; the authors' code
    adds all B(B - 1) ordered pairs and divides by 50.

    Args:
        h: representations, any norm.
        y: class of each row.
        margin: m in radians, between 0 and pi; 0.5 in the authors' code.
        reduction: "paper_code": w = B(B - 1) / 50, the authors' sum. "paper_scaled": the same at
            B = 64 for every B, 80.64. "mean": mean over the pairs of one class plus mean over the
            pairs of two, as if both were equally frequent; an empty set adds 0.

    Returns:
        rad^2; 0 when classes are points that stand at least the margin apart.

    Raises:
        ValueError: if margin is outside (0, pi), y does not label every row, B < 2, or the
            reduction is unknown.
    """
    _check_options(margin=margin, reduction=reduction)
    _check_labels(h, y)
    u = _unit(h)
    same_class = y[:, None] == y
    first, second = same_class.triu(1).nonzero(as_tuple=True)  # every pair of a class, once
    positive = 2 * _angles(u[first], u[second]).square().sum()  # in both orders
    negative = _shortfalls(u, y, margin)
    pairs, positives = len(h) * (len(h) - 1), 2 * len(first)
    w_positive, w_negative = {
        "paper_scaled": (64 * 63 / 50 / pairs, 64 * 63 / 50 / pairs),
        "paper_code": (1 / 50, 1 / 50),
        "mean": (1 / max(positives, 1), 1 / max(pairs - positives, 1)),
    }[reduction]
    return w_positive * positive + w_negative * negative


def acl(
    z_i: Float[Tensor, "B d"],
    z_j: Float[Tensor, "B d"],
    h_i: Float[Tensor, "B D"],
    h_j: Float[Tensor, "B D"],
    *,
    alpha: float,
    temperature: float,
    margin: float = 0.5,
    reduction: str = "paper_scaled",
    positive_margin: float = 0.0,
    margin_kind: str = "additive",
    symmetric: bool = True,
) -> Float[Tensor, ""]:
    r"""Angular contrastive loss: NT-Xent on z mixed with the angular margin on h.

    .. math:: L = \alpha L_C + (1 - \alpha) L_A

    Source: Wang, Tripathy and Mesaros 2023, eq. 3. `nt_xent` at alpha = 1, `angular_margin` at 0.
    With a margin on the positive, or one way, L_C is that form of NT-Xent: ours, in no paper. Both
    terms are always computed, so that at alpha = 0 the head receives gradients of 0, not
    None: weight decay and several-GPU training treat the two differently.

    Args:
        z_i, z_j: projections of the two views, any norm; row b of both belongs to clip b.
        h_i, h_j: representations of the two views, any norm.
        alpha: weight of NT-Xent, 0 to 1; 0.3 in the paper.
        temperature, margin, reduction: as in `nt_xent` and `angular_margin`.
        positive_margin, margin_kind: as in `contrastive`.
        symmetric: whether both views are anchors of L_C, or view i alone.

    Returns:
        Nats and rad^2, added as they are.

    Raises:
        ValueError: if alpha is outside [0, 1], or as the two terms do.
    """
    _check_options(alpha=alpha)
    first = contrastive(
        z_i,
        z_j,
        temperature=temperature,
        positive_margin=positive_margin,
        margin_kind=margin_kind,
        symmetric=symmetric,
    )
    return alpha * first + (1 - alpha) * angular_margin(
        h_i, h_j, margin=margin, reduction=reduction
    )


def supervised_acl(
    logits: Float[Tensor, "B K"],
    h: Float[Tensor, "B d"],
    y: Int[Tensor, "B"],
    *,
    alpha: float,
    margin: float = 0.5,
    reduction: str = "paper_scaled",
) -> Float[Tensor, ""]:
    r"""Cross-entropy of the classes mixed with the angular margin that their labels define on h.

    .. math:: L = \alpha\,\mathrm{CE}(\text{logits}, y) + (1 - \alpha) L_A(h, y)

    Source: Wang, Tripathy and Mesaros 2023, section 4.

    Args:
        logits: unnormalised class scores.
        h: representations that the margin acts on, any norm.
        y: class of each row, 0 to K - 1.
        alpha: weight of the cross-entropy, 0 to 1.
        margin, reduction: as in `supervised_angular_margin`.

    Returns:
        Nats and rad^2, added as they are.

    Raises:
        ValueError: if alpha is outside [0, 1], or as `supervised_angular_margin` does.
    """
    _check_options(alpha=alpha)
    angular = supervised_angular_margin(h, y, margin=margin, reduction=reduction)
    return alpha * F.cross_entropy(_wide(logits), y) + (1 - alpha) * angular


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _row_by_row(f):
    """Of a large batch, what a function makes between its rows and its result is not kept."""

    @functools.wraps(f)
    def rows(*x: Float[Tensor, "N d"]) -> Float[Tensor, "N ..."]:
        return by_blocks(f, *x) if 2 * len(x[0]) >= BLOCKWISE_ROWS else f(*x)

    return rows


@_row_by_row
def _unit(x: Float[Tensor, "N d"]) -> Float[Tensor, "N d"]:
    x = _wide(x)
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return torch.where(norm > SHORTEST_ROW, x, 0) / norm.clamp(min=SHORTEST_ROW)


def _product(u: Float[Tensor, "N d"], v: Float[Tensor, "M d"]) -> Float[Tensor, "N M"]:
    with torch.autocast(u.device.type, enabled=False):  # it would round to half precision here
        return u @ v.T


def _pick_partner(
    z_i: Float[Tensor, "B d"],
    z_j: Float[Tensor, "B d"],
    temperature: float,
    margin: float = 0.0,
    kind: str = "additive",
) -> Float[Tensor, ""]:
    """Every view picks its partner out of the others, against a margin."""
    _check_pair(z_i, z_j, at_least=2)
    clips, toll = len(z_i), margin
    large = 2 * clips >= BLOCKWISE_ROWS
    if kind == "angular" and not large:
        toll = _angular_toll(pair_angles(z_i, z_j), margin).repeat(2)
    z = torch.cat([_unit(z_i), _unit(z_j)])
    if large:
        cosine, angle = of_partners(z)
        if kind == "angular":
            toll = _angular_toll(angle, margin)
        clip = torch.arange(clips, device=z.device).repeat(2)
        others = log_sum_exp_of_others(z, clip, temperature=temperature)
        return _cross_entropy_against((cosine - toll).repeat(2), others, temperature)
    logits = _product(z / temperature, z)
    logits.fill_diagonal_(-torch.inf)  # no view picks itself
    partner = torch.arange(len(z), device=z.device).roll(clips)
    return _margin_cross_entropy(logits, partner, toll / temperature)


def _pick_partner_one_way(
    z_i: Float[Tensor, "B d"],
    z_j: Float[Tensor, "B d"],
    temperature: float,
    toll: float | Float[Tensor, "B"] = 0.0,
) -> Float[Tensor, ""]:
    """Every view i picks its partner out of the views j, after a toll is taken off their cosine."""
    _check_pair(z_i, z_j, at_least=2)
    u, v = _unit(z_i), _unit(z_j)
    clip = torch.arange(len(u), device=u.device)
    if 2 * len(u) >= BLOCKWISE_ROWS:
        others = log_sum_exp_of_others(u, clip, (v, clip), temperature=temperature)
        return _cross_entropy_against(_cosines(u, v) - toll, others, temperature)
    return _margin_cross_entropy(_product(u / temperature, v), clip, toll / temperature)


def _margin_cross_entropy(
    logits: Float[Tensor, "N M"], y: Int[Tensor, "N"], toll: float | Float[Tensor, "N"]
) -> Float[Tensor, ""]:
    """Cross-entropy after a toll, in units of the logits, is taken off the right ones."""
    if isinstance(toll, Tensor) or toll:
        logits[torch.arange(len(y), device=y.device), y] -= toll
    return F.cross_entropy(logits, y)


def _cross_entropy_against(
    right: Float[Tensor, "N"], others: Float[Tensor, "N"], temperature: float
) -> Float[Tensor, ""]:
    """Cross-entropy of a cosine against the log of the sum of the others."""
    lead = others - right / temperature
    return torch.logaddexp(lead, torch.zeros_like(lead)).mean()  # softplus, at all sizes


def _supcon_of_many(
    z: Float[Tensor, "N d"], y: Int[Tensor, "N"], temperature: float
) -> Float[Tensor, ""]:
    """`supcon`, whose positives need no N x N: a class's cosines add up to its sum's square."""
    every = torch.arange(len(z), device=z.device)
    others = log_sum_exp_of_others(z, every, temperature=temperature)
    _, of = y.unique(return_inverse=True)
    size = of.bincount()
    sums = z.new_zeros(len(size), z.shape[1]).index_add(0, of, z)
    alone = z.new_zeros(len(size)).index_add(0, of, _cosines(*[z.detach()] * 2))  # 1 or 0 each
    cosines = (sums.square().sum(1) - alone) / (size - 1).clamp(min=1)  # of a class's anchors
    anchors = size[of] > 1
    total = others[anchors].sum() - cosines.sum() / temperature
    return total / anchors.sum().clamp(min=1)


def _angular_toll(theta: Float[Tensor, "N"], margin: float) -> Float[Tensor, "N"]:
    """What a margin of the angle takes off the cosine: cos theta - psi(theta), 0 without margin."""
    within = 2 * torch.sin(theta + margin / 2) * math.sin(margin / 2)  # = cos - cos(theta + m)
    return torch.where(theta <= math.pi - margin, within, margin * math.sin(margin))


@_row_by_row
def _cosines(u: Float[Tensor, "N d"], v: Float[Tensor, "N d"]) -> Float[Tensor, "N"]:
    return (u * v).sum(1)


@_row_by_row
def _angles(u: Float[Tensor, "N d"], v: Float[Tensor, "N d"]) -> Float[Tensor, "N"]:
    chord, cochord = torch.linalg.vector_norm(u - v, dim=1), torch.linalg.vector_norm(u + v, dim=1)
    return 2 * torch.atan2(chord, cochord)


def _shortfalls(u: Float[Tensor, "N d"], who: Int[Tensor, "N"], margin: float) -> Float[Tensor, ""]:
    """Squared shortfalls from the margin, of all ordered pairs that are not of one kind."""
    if len(u) >= BLOCKWISE_ROWS:
        return shortfall_sum(u, who, margin=margin, cosine_limit=COSINE_LIMIT)
    theta = torch.acos(_product(u, u).clamp(-COSINE_LIMIT, COSINE_LIMIT))
    same = who[:, None] == who  # with the diagonal
    return F.relu(margin - theta).square().masked_fill(same, 0).sum()


def _check_pair(x_i: Tensor, x_j: Tensor, at_least: int) -> None:
    if x_i.shape != x_j.shape or x_i.ndim != 2:
        raise ValueError(
            f"the two views must have one shape (B, d), got {tuple(x_i.shape)} and "
            f"{tuple(x_j.shape)}: row b of both belongs to clip b"
        )
    if len(x_i) < at_least:
        raise ValueError(
            f"need B >= {at_least} clips, got {len(x_i)}: a lone pair has no negatives"
        )


def _check_labels(x: Tensor, y: Tensor) -> None:
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise ValueError(
            f"need rows (N, d) and one label for each, got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if len(x) < 2:
        raise ValueError(f"need at least 2 rows to form a pair, got {len(x)}")


def _check_positive_margin(margin: float, kind: str) -> None:
    if kind not in MARGIN_KINDS:
        raise ValueError(f"margin_kind must be one of {', '.join(MARGIN_KINDS)}, got {kind!r}")
    _check_options(**{kind: margin})


def _check_options(
    *,
    temperature: float = 0.2,
    margin: float = 0.5,
    additive: float = 0.1,
    angular: float = 0.1,
    alpha: float = 0.3,
    reduction: str = "paper_scaled",
) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}; the paper's is 0.2")
    if not 0 < margin < math.pi:
        raise ValueError(f"margin must lie in (0, pi) radians, got {margin}; the paper's is 0.5")
    if not 0 <= additive < 2:
        raise ValueError(
            f"an additive margin must lie in [0, 2), got {additive}: it is a difference of "
            f"cosines, not an angle; 0.1 in the authors' code"
        )
    if not 0 <= angular < math.pi:
        raise ValueError(
            f"the margin of an angle must lie in [0, pi) radians, got {angular}; 0.005 to 0.2 in "
            f"the authors' code"
        )
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1], got {alpha}; 1 is the first term alone")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
