"""Numbers from arrays: right guesses, errors at a threshold, how representations lie on the sphere.

The geometry divides every row by its norm itself, computes in float64 and gives no gradient. A row
of zeros has no direction: it stays at the centre of the sphere, at a cosine of 0 with every row
and at a distance of 1 from every other row that is not zero too.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

# `uniformity` takes this number of pairs at a time: arrays of 8 MiB, which a cache holds, whatever
# the number of rows. Up to 4096 rows, some rows with all others; beyond, 256 with 4096, because a
# few rows against all would read all of them again and again.
PAIRS_AT_ONCE = 2**20


def accuracy(posterior: Float[Tensor, "N K"], y: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    """Share of rows whose largest posterior is the right class; ties go to the lowest class.

    Returns:
        Fraction between 0 and 1; 1/K is chance when the classes are balanced.
    """
    return (posterior.argmax(dim=1) == y).float().mean()


def per_class_accuracy(
    guess: Int[Tensor, " N"], y: Int[Tensor, " N"], num_classes: int
) -> Float[Tensor, " K"]:
    """Share of the clips of each class that are guessed right (the recall of each class).

    Args:
        guess: class read from each clip; a number that is no class is wrong.
        y: right class of each clip, 0 to num_classes - 1.

    Returns:
        Fractions between 0 and 1; nan where a class has no clip.

    Raises:
        ValueError: lengths that differ, or a y that is no class.
    """
    _check_labels(guess, y)
    if len(y) and not 0 <= y.min() <= y.max() < num_classes:
        raise ValueError(
            f"y must lie in 0 to {num_classes - 1}, got {y.min()} to {y.max()}: "
            f"drop clips without a class, or give their num_classes"
        )
    right = y[guess == y].bincount(minlength=num_classes)
    return right.double() / y.bincount(minlength=num_classes)  # 0 / 0 is nan


def balanced_accuracy(
    guess: Int[Tensor, " N"], y: Int[Tensor, " N"], num_classes: int
) -> Float[Tensor, ""]:
    r"""Mean over the classes of the share guessed right: every class weighs the same ("macro").

    .. math:: \operatorname{mean}_{c:\,n_c > 0}
              \frac{1}{n_c} \sum_{n:\,y_n = c} [\hat{y}_n = c]

    Source: the "macro" accuracy of the authors' self-supervised code. Classes without a clip in y
    are left out of the mean.

    Args:
        guess, y, num_classes: as in `per_class_accuracy`.

    Returns:
        Fraction between 0 and 1; one guess for all clips gives 1 over the number of classes in y.

    Raises:
        ValueError: no clip at all, or as `per_class_accuracy` does.
    """
    if not len(y):
        raise ValueError("need at least 1 clip, got 0")
    return per_class_accuracy(guess, y, num_classes).nanmean()


def patch_weighted_accuracy(
    guess: Int[Tensor, " N"], y: Int[Tensor, " N"], patches: Int[Tensor, " N"]
) -> Float[Tensor, ""]:
    r"""Share of the patches that belong to clips guessed right: long clips weigh more.

    .. math:: \sum_n p_n [\hat{y}_n = y_n] \Big/ \sum_n p_n

    Source: what the authors' self-supervised code calls micro accuracy: its published values are
    whole multiples of 1/8866, the number of patches of 947 test clips. Their supervised values are
    plain shares of clips; the two cannot be compared.

    Args:
        guess, y: class read from each clip, right class of each clip.
        patches: p, patches of about 1 s that each clip was cut into, 0 or more.

    Returns:
        Fraction between 0 and 1; the plain accuracy when all clips are equally long.

    Raises:
        ValueError: lengths that differ, a negative number of patches, or no patch at all.
    """
    _check_labels(guess, y)
    _check_labels(patches, y)
    if (patches < 0).any() or not patches.sum() > 0:
        raise ValueError(
            f"patches must count 0 or more for each clip and 1 or more in all, "
            f"got {int(patches.sum())} in all over {len(patches)} clips"
        )
    return ((guess == y) * patches).sum().double() / patches.sum()


def error_rates(
    scores: Float[Tensor, " N"], same: Bool[Tensor, " N"]
) -> tuple[Float[Tensor, " R"], Float[Tensor, " R"], Float[Tensor, " R"]]:
    """Both errors of saying "same" wherever a score reaches a threshold, for every threshold.

    Args:
        scores: of pairs (trials), larger where the two are more alike; only their order counts.
        same: whether the two belong together, to one speaker or one class.

    Returns:
        Thresholds from infinity down over the R - 1 different scores; the share of the same pairs
        below each (misses, from 1 to 0); the share of the different pairs at or above it (false
        alarms, from 0 to 1). Shares in float64; equal scores are one threshold.

    Raises:
        ValueError: lengths that differ, a score that is nan, or only one kind of pairs.
    """
    if scores.ndim != 1 or scores.shape != same.shape:
        raise ValueError(
            f"need one score and one answer for each pair, got {tuple(scores.shape)} and "
            f"{tuple(same.shape)}"
        )
    if not 0 < same.sum() < len(same) or scores.isnan().any():
        raise ValueError(
            f"need same and different pairs, all with a score, got {int(same.sum())} same of "
            f"{len(same)} and {int(scores.isnan().sum())} nan"
        )
    values, kind = scores.detach().unique(return_inverse=True)  # ascending
    same_at = kind[same].bincount(minlength=len(values)).flip(0)
    every = kind.bincount(minlength=len(values)).flip(0)
    accepted, alarms = same_at.cumsum(0), (every - same_at).cumsum(0)
    nothing = accepted.new_zeros(1)
    miss = (accepted[-1] - torch.cat([nothing, accepted])).double() / accepted[-1]
    false_alarm = torch.cat([nothing, alarms]).double() / alarms[-1]
    return torch.cat([values.new_full((1,), torch.inf), values.flip(0)]), miss, false_alarm


def equal_error_rate(scores: Float[Tensor, " N"], same: Bool[Tensor, " N"]) -> Float[Tensor, ""]:
    r"""Error of the threshold at which misses and false alarms are equally frequent.

    .. math:: \mathrm{EER} = P_{miss}(t) = P_{fa}(t)

    Source: the usual measure of speaker verification. Between two neighbouring scores the two rates
    jump; we take the point where the straight line between them, on the ROC, crosses P_miss = P_fa.
    Others take the larger of the two rates, or their mean, at one score; the more scores are equal,
    the more that differs from this.

    Args:
        scores, same: as in `error_rates`.

    Returns:
        Fraction between 0 and 1; 0 when every same pair scores above every different one, 0.5
        when scores say nothing, all equal ones too.

    Raises:
        ValueError: as `error_rates` does.
    """
    _, miss, false_alarm = error_rates(scores, same)
    gap = miss - false_alarm  # falls from 1 to -1
    after = int((gap <= 0).int().argmax())
    before = after - 1
    share = gap[before] / (gap[before] - gap[after])
    return false_alarm[before] + share * (false_alarm[after] - false_alarm[before])


def min_dcf(
    scores: Float[Tensor, " N"],
    same: Bool[Tensor, " N"],
    *,
    prior: float = 0.01,
    cost_miss: float = 1.0,
    cost_false_alarm: float = 1.0,
) -> Float[Tensor, ""]:
    r"""Smallest detection cost that any threshold reaches, over that of not listening at all.

    .. math:: \min_t \frac{c_m \pi P_{miss}(t) + c_f (1 - \pi) P_{fa}(t)}
              {\min(c_m \pi, c_f (1 - \pi))}

    Source: the detection cost function of the NIST speaker recognition evaluations, normalised by
    the better of always "different" and always "same".

    Args:
        scores, same: as in `error_rates`.
        prior: pi, how often a pair is the same where the system is to be used, 0 to 1, exclusive;
            not how often it is here.
        cost_miss, cost_false_alarm: c_m and c_f, > 0.

    Returns:
        Between 0 and 1; 0 when some threshold makes no error, 1 when none is better than not
        listening. At the prior of 0.01 a false alarm weighs 99 times a miss.

    Raises:
        ValueError: a prior or a cost out of range, or as `error_rates` does.
    """
    if not 0 < prior < 1 or not cost_miss > 0 or not cost_false_alarm > 0:
        raise ValueError(
            f"need 0 < prior < 1 and costs > 0, got {prior}, {cost_miss} and {cost_false_alarm}"
        )
    _, miss, false_alarm = error_rates(scores, same)
    never, always = cost_miss * prior, cost_false_alarm * (1 - prior)
    return (never * miss + always * false_alarm).min() / min(never, always)


@torch.no_grad()
def alignment(h_i: Float[Tensor, "N d"], h_j: Float[Tensor, "N d"]) -> Float[Tensor, ""]:
    r"""Mean squared distance, on the sphere, between row n of one view and row n of the other.

    .. math:: \operatorname{mean}_n \lVert u_n - v_n \rVert^2, \quad
              u_n = h_{i,n} / \lVert h_{i,n} \rVert,\; v_n = h_{j,n} / \lVert h_{j,n} \rVert

    Source: Wang and Isola 2020, section 4.1, with their exponent at 2. The mean cosine of the
    pairs is one minus half of it.

    Args:
        h_i, h_j: vectors of any norm; row n of both belongs to clip n.

    Returns:
        Between 0, where the views coincide, and 4, where they are opposite; 2 for orthogonal
        views. Lower is more invariant.

    Raises:
        ValueError: if the shapes differ, or there is no row.
    """
    if h_i.shape != h_j.shape or not len(h_i):
        raise ValueError(
            f"the two views must have one shape (N, d) with N >= 1, got {tuple(h_i.shape)} and "
            f"{tuple(h_j.shape)}: row n of both belongs to clip n"
        )
    return (_unit(h_i) - _unit(h_j)).square().sum(1).mean()


@torch.no_grad()
def uniformity(h: Float[Tensor, "N d"], *, t: float = 2.0) -> Float[Tensor, ""]:
    r"""Logarithm of the mean Gaussian potential of all pairs of rows on the sphere.

    .. math:: \log \operatorname{mean}_{i<j} \exp(-t \lVert u_i - u_j \rVert^2), \quad
              u_i = h_i / \lVert h_i \rVert

    Source: Wang and Isola 2020, section 4.1, over the N(N - 1) / 2 pairs without a row's pair with
    itself. Wang, Tripathy and Mesaros 2023 plot minus this, of one view of every clip. Exact in
    memory that grows with N, not with its square.

    Args:
        h: vectors of any norm, one view of each clip.
        t: sharpness of the potential, > 0, unitless; 2 in both sources.

    Returns:
        Nats between -4t and 0; 0 when all rows point one way, about -2t when they are spread evenly
        over many dimensions. Lower is more uniform.

    Raises:
        ValueError: if t <= 0, or there are fewer than two rows.
    """
    if not t > 0 or len(h) < 2:
        raise ValueError(f"need t > 0 and at least 2 rows, got {t} and {len(h)}")
    u = _unit(h)
    squares = t * u.square().sum(1)
    rows = max(1, math.isqrt(PAIRS_AT_ONCE) // 4, PAIRS_AT_ONCE // len(u))
    columns = PAIRS_AT_ONCE // rows
    tiles = -(-len(u) // rows), -(-len(u) // columns)
    # made first: numbers kept between the large arrays would hold their memory apart
    logs = u.new_full(tiles, -torch.inf)
    for i, top in enumerate(range(0, len(u), rows)):
        for j, left in enumerate(range(top, len(u), columns)):  # earlier pairs are done
            first, others = slice(top, top + rows), slice(left, left + columns)
            potentials = 2 * t * u[first] @ u[others].T  # becomes -t |u_i - u_j|^2, in place
            potentials -= squares[first, None]
            potentials -= squares[others]
            if left == top:
                size = len(potentials)
                seen = torch.ones(size, size, dtype=torch.bool, device=u.device).tril()  # j <= i
                potentials[:, :size].masked_fill_(seen, -torch.inf)
            logs[i, j] = potentials.flatten().logsumexp(0)
    return logs.flatten().logsumexp(0) - math.log(len(u) * (len(u) - 1) / 2)


@torch.no_grad()
def tolerance(h: Float[Tensor, "N d"], y: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    r"""Mean cosine of two rows of one class, over all pairs of all classes.

    .. math:: T = \operatorname{mean}_{i \ne j,\, y_i = y_j} \cos(h_i, h_j)
                = \frac{\sum_c (\lVert s_c \rVert^2 - n_c)}{\sum_c n_c (n_c - 1)}

    where s_c is the sum of the unit rows of class c and n_c their number: linear in N.

    Source: Wang and Liu 2021, without a row's pair with itself. The formula of Wang,
    Tripathy and Mesaros 2023 puts the indicator of the class inside a mean over all pairs, which
    read literally is T times the share of pairs of one class; their values are T. They stack both
    views and repeat the labels, so that a clip's two views are a pair.

    A large T alone says that rows are close, not that classes are: see `class_gap`.

    Args:
        h: vectors of any norm.
        y: class of each row.

    Returns:
        Between -1 and 1; 1 when every class points one way.

    Raises:
        ValueError: if y does not label every row, or no two rows share a class.
    """
    same, same_pairs, _, _ = _sums_of_cosines(h, y)
    if not same_pairs:
        raise ValueError(f"need two rows of one class, got {len(h)} rows, each of its own")
    return same / same_pairs


@torch.no_grad()
def between_class_cosine(h: Float[Tensor, "N d"], y: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    r"""Mean cosine of two rows of different classes, over all such pairs.

    .. math:: \operatorname{mean}_{y_i \ne y_j} \cos(h_i, h_j)

    Source: ours, `tolerance` for the other pairs; also from the sums of the classes.

    Args:
        h: vectors of any norm.
        y: class of each row.

    Returns:
        Between -1 and 1; 0 when classes are orthogonal, 1 when all rows point one way.

    Raises:
        ValueError: if y does not label every row, or there are fewer than two classes.
    """
    same, same_pairs, every, pairs = _sums_of_cosines(h, y)
    if pairs == same_pairs:
        raise ValueError(f"need rows of two classes, got {len(h)} rows of one class or none")
    return (every - same) / (pairs - same_pairs)


@torch.no_grad()
def class_gap(h: Float[Tensor, "N d"], y: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    r"""How much closer, in cosine, rows of one class are than rows of two.

    .. math:: \operatorname{mean}_{i \ne j,\, y_i = y_j} \cos(h_i, h_j) -
              \operatorname{mean}_{y_i \ne y_j} \cos(h_i, h_j)

    Source: ours; `tolerance` minus `between_class_cosine`.

    Args:
        h: vectors of any norm.
        y: class of each row.

    Returns:
        Between -2 and 2; 0 when the rows know nothing of the classes, 1 when every class is a
        direction of its own, at right angles to the others.

    Raises:
        ValueError: as the two terms do.
    """
    return tolerance(h, y) - between_class_cosine(h, y)


@torch.no_grad()
def effective_rank(h: Float[Tensor, "N d"]) -> Float[Tensor, ""]:
    r"""Number of directions over which the rows spread on the sphere, fractions included.

    .. math:: \exp\Big(-\sum_k p_k \log p_k\Big), \quad p_k = \lambda_k \Big/ \sum_l \lambda_l

    where the lambda are the eigenvalues of the covariance of the unit rows.

    Source: Roy and Vetterli 2007, for the covariance matrix, whose singular values
    are the lambda: the squares of those of the unit rows minus their mean. Without the centring
    the first direction is the mean itself, which every non-negative h has; without the squares
    many faint directions count as much as a few strong ones.

    Args:
        h: vectors of any norm.

    Returns:
        Between 1 and the smaller of d and N - 1; d when the rows spread alike in all directions,
        0 when they all point one way and have none.

    Raises:
        ValueError: if there are fewer than two rows.
    """
    if len(h) < 2:
        raise ValueError(f"need at least 2 rows to spread, got {len(h)}")
    u = _unit(h)
    u = u - u.mean(0)
    variances = torch.linalg.eigvalsh(u.T @ u).clamp(min=0) / len(u)
    spread = variances.sum()  # below 1e-24 it is what rounding leaves of equal rows
    return torch.where(spread > 1e-24, torch.special.entr(variances / spread).sum().exp(), 0)


def _unit(h: Float[Tensor, "N d"]) -> Float[Tensor, "N d"]:
    return F.normalize(h.double(), dim=1)


def _sums_of_cosines(
    h: Float[Tensor, "N d"], y: Int[Tensor, " N"]
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Over ordered pairs of two rows: sum and number of those of one class, then of all."""
    _check_labels(h, y)
    classes, of = y.unique(return_inverse=True)
    u = _unit(h)
    sums = u.new_zeros(len(classes), u.shape[1]).index_add_(0, of, u)
    itself = u.square().sum()  # N, less the rows of zeros
    sizes = of.bincount()
    same, every = sums.square().sum() - itself, sums.sum(0).square().sum() - itself
    return same, (sizes * (sizes - 1)).sum(), every, len(h) * (len(h) - 1)


def _check_labels(x: Tensor, y: Tensor) -> None:
    if y.ndim != 1 or x.shape[:1] != y.shape:
        raise ValueError(
            f"need one class y for each of the rows, got {tuple(y.shape)} for {tuple(x.shape)}"
        )
