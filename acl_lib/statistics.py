"""Is the difference real: intervals, paired tests, and how much data or how many seeds it takes.

What is resampled must be independent: clips cut from one recording, or one speaker, are not, and
form a group. Several trainings differ by their seeds, whatever the number of clips.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LEVEL = 0.05  # of the two-sided tests whose power is asked for

# the bootstrap draws as many resamples at a time as fit into arrays of this number of entries
DRAWS_AT_ONCE = 2**22


def wilson_interval(
    successes: int, trials: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of a proportion, sound at small n and near 0 and 1.

    Source: Wilson 1927, without continuity correction.

    Args:
        successes: 0 to trials.
        trials: independent units (clips that share a recording are not).

    Returns:
        Lower and upper end, as fractions; (0.0, 1.0) without trials.

    Raises:
        ValueError: successes outside 0 to trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"need 0 <= successes <= trials; got {successes} of {trials}")
    if not trials:
        return 0.0, 1.0
    from scipy.stats import norm

    z = norm.ppf(0.5 + confidence / 2)
    p, shrink = successes / trials, 1 + z * z / trials
    centre = (p + z * z / (2 * trials)) / shrink
    half = z / shrink * math.sqrt(p * (1 - p) / trials + (z / (2 * trials)) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_interval(
    hits: Bool[Tensor, " N"] | Int[Tensor, " N"] | Float[Tensor, " N"],
    weights: Int[Tensor, " N"] | Float[Tensor, " N"] | None = None,
    strata: Int[Tensor, " N"] | None = None,
    groups: Int[Tensor, " N"] | None = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Interval of an accuracy over what other sources would have given.

    Source: Efron 1979 (bootstrap), percentile interval; whole groups are drawn with replacement,
    as many as there are, and bring all their clips.

    Args:
        hits: 1 or True where a clip is right, 0 where it is wrong.
        weights: > 0, what each clip counts; its number of patches gives the interval of
            `patch_weighted_accuracy`. None: all alike.
        strata: the accuracy is the mean over them; the class of each clip gives the interval of
            `balanced_accuracy`. Classes absent from a resample are left out of that resample's
            mean; the draw itself is not stratified. None: one mean over all clips.
        groups: source recording or speaker of each clip. None: every clip is its own.
        resamples, seed: draws, and the seed of their generator: same seed, same interval.
        confidence: between 0 and 1, exclusive.

    Returns:
        Lower and upper end, as fractions. No resample differs where all clips are right: (1.0,
        1.0), where `wilson_interval` is sound.

    Raises:
        ValueError: lengths that differ, fewer than two groups, weights that are not > 0, or a
            confidence or a number of resamples out of range.
    """
    drawn = _resampled(hits[None], weights, strata, groups, resamples, seed)[1:, 0]
    return _ends(drawn, confidence)


def paired_bootstrap(
    right_a: Bool[Tensor, " N"] | Int[Tensor, " N"] | Float[Tensor, " N"],
    right_b: Bool[Tensor, " N"] | Int[Tensor, " N"] | Float[Tensor, " N"],
    groups: Int[Tensor, " N"] | None = None,
    *,
    weights: Int[Tensor, " N"] | Float[Tensor, " N"] | None = None,
    strata: Int[Tensor, " N"] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float, float]:
    """Difference in accuracy of two systems on the same clips, and its interval.

    Source: Efron 1979 (bootstrap), percentile interval; a resample holds the same sources for both
    systems, so that what makes a source hard for both cancels out.

    Args:
        right_a, right_b: 1 or True where the system is right; entry n of both is clip n.
        groups, weights, strata, resamples, seed, confidence: as in `bootstrap_interval`.

    Returns:
        Accuracy of b minus accuracy of a, then its lower and upper end, as fractions between -1
        and 1; all 0 where the two are right on the same clips.

    Raises:
        ValueError: as `bootstrap_interval` does.
    """
    _check_lengths(right_a, right_b=right_b)
    both = torch.stack([right_a.double(), right_b.double()])
    means = _resampled(both, weights, strata, groups, resamples, seed)
    difference = means[:, 1] - means[:, 0]
    return difference[0].item(), *_ends(difference[1:], confidence)


def mcnemar(
    right_a: Bool[Tensor, " N"],
    right_b: Bool[Tensor, " N"],
    groups: Int[Tensor, " N"] | None = None,
) -> float:
    r"""Probability, were two systems alike, of a difference at least as large as the one seen.

    .. math:: p = P\Big(\Big|\sum_g s_g d_g\Big| \ge \Big|\sum_g d_g\Big|\Big), \quad
              P(s_g = 1) = P(s_g = -1) = \tfrac{1}{2}

    where d_g counts the clips of source g that only b gets right minus those that only a does.

    Source: McNemar 1947, two-sided and exact (a binomial test of the discordant clips), which this
    is when every clip is its own source. With groups, Fisher's randomisation test: were the
    systems alike, swapping them on a whole source would be a fair coin. The distribution of the
    sum is computed, not drawn.

    Args:
        right_a, right_b: where each system is right; entry n of both is clip n.
        groups: source recording or speaker of each clip. None: every clip is its own.

    Returns:
        Probability; 1.0 when the systems are right on the same clips, 2 ** (1 - n) when one of
        them wins all n discordant sources.

    Raises:
        ValueError: lengths that differ.
    """
    import numpy as np
    from scipy.stats import binom

    _check_lengths(right_a, right_b=right_b, groups=groups)
    group = _numbered(torch.arange(len(right_a)) if groups is None else groups)
    won = torch.zeros(len(right_a), dtype=torch.long)  # there are at most as many groups as clips
    won.index_add_(0, group, right_b.long().cpu() - right_a.long().cpu())
    chances = np.ones(1)  # of w, the sum of |d| over the groups whose sign is +
    for size, count in zip(*won[won != 0].abs().unique(return_counts=True), strict=True):
        steps = np.zeros(int(size * count) + 1)
        steps[:: int(size)] = binom.pmf(np.arange(int(count) + 1), int(count), 0.5)
        chances = np.convolve(chances, steps)
    total = len(chances) - 1
    extreme = np.abs(2 * np.arange(total + 1) - total) >= abs(int(won.sum()))
    return min(1.0, math.fsum(chances[extreme]))


def detectable_accuracy_difference(trials: int, discordant: float, *, power: float = 0.8) -> float:
    """Smallest true difference in accuracy that `mcnemar` finds, at 5 %, with that probability.

    Source: the exact unconditional power of McNemar's test (Connor 1987 gives the normal
    approximation): the number of discordant clips is binomial, and each is b's with probability
    1/2 + difference / (2 * discordant).

    Args:
        trials: clips, one of each source.
        discordant: share of clips that exactly one of the systems gets right, 0 to 1, exclusive
            of 0.
        power: probability to find it, above the 5 % of the test and below 1.

    Returns:
        Difference as a fraction, at most `discordant`; 0.042 for 947 clips of which 20 % are
        discordant.

    Raises:
        ValueError: values out of range, or too few discordant clips for any difference.
    """
    import numpy as np
    from scipy.optimize import brentq
    from scipy.stats import binom

    _check_power(power)
    if trials < 1 or not 0 < discordant <= 1:
        raise ValueError(f"need trials >= 1, 0 < discordant <= 1; got {trials} and {discordant}")
    found = np.arange(trials + 1)  # number of discordant clips
    chance = binom.pmf(found, trials, discordant)
    needed = binom.isf(LEVEL / 2, found, 0.5) + 1  # wins that give p <= LEVEL

    def excess(difference: float) -> float:
        win = 0.5 + difference / (2 * discordant)
        wins = binom.sf(needed - 1, found, win) + binom.sf(needed - 1, found, 1 - win)
        return float(chance @ wins) - power

    if excess(discordant) < 0:
        raise ValueError(
            f"{trials} clips of which {discordant:.1%} are discordant show no difference with a "
            f"power of {power}, not even if one system wins them all: test on more clips"
        )
    return brentq(excess, 0.0, discordant)


def seed_interval(values: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean over seeds: what another seed's mean would do.

    Returns:
        Lower and upper end, in the unit of the values.

    Raises:
        ValueError: fewer than two values, which say nothing about their spread.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"need the results of at least 2 seeds; got {n}")
    from scipy.stats import t

    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = t.ppf(0.5 + confidence / 2, n - 1) * spread / math.sqrt(n)
    return mean - half, mean + half


def seeds_per_arm(difference: float, sd: float, *, power: float = 0.8) -> int:
    """How many seeds each of two methods needs for a t-test at 5 % to find a true difference.

    Source: Student's two-sided test of two independent arms of equal size and spread; its exact
    power, from the noncentral t distribution. The normal approximation asks for one seed less, or
    two.

    Args:
        difference: of the true means, in the unit of sd; not 0.
        sd: standard deviation between the seeds of one method, > 0.
        power: probability to find it, above the 5 % of the test and below 1.

    Returns:
        Seeds of each method, at least 2; at an sd of 1.8 points 16 for 1.9 points, 8 for 2.9.

    Raises:
        ValueError: values out of range.
    """
    _check_power(power)
    if not abs(difference) > 0 or not sd > 0:
        raise ValueError(f"need a difference other than 0 and sd > 0; got {difference} and {sd}")
    effect = abs(difference) / sd
    return _first_enough(lambda seeds: _power_of_t(effect, seeds), power)


def pairs_needed(difference: float, sd: float, *, power: float = 0.8) -> int:
    """How many seeds a paired t-test at 5 % needs to find a true mean difference of two methods.

    Source: Student's two-sided test of one sample, the differences; its exact power, from the
    noncentral t distribution.

    Args:
        difference: true mean of the paired differences; not 0.
        sd: standard deviation between the differences of seeds, > 0.
        power: probability to find it, above the 5 % of the test and below 1.

    Returns:
        Seeds that both methods have, at least 2; 34 for a difference of half an sd.

    Raises:
        ValueError: values out of range.
    """
    _check_power(power)
    if not abs(difference) > 0 or not sd > 0:
        raise ValueError(f"need a difference other than 0 and sd > 0; got {difference} and {sd}")
    effect = abs(difference) / sd
    return _first_enough(lambda n: _power_of_shift(n - 1, effect * math.sqrt(n)), power)


def detectable_difference(sd: float, seeds: int, *, power: float = 0.8) -> float:
    """Smallest true difference that a t-test at 5 % finds with so many seeds of each method.

    Source: as `seeds_per_arm`, of which this is the inverse.

    Args:
        sd: standard deviation between the seeds of one method, > 0.
        seeds: of each method, at least 2.
        power: probability to find it, above the 5 % of the test and below 1.

    Returns:
        Difference in the unit of sd; 3.1 times sd with 3 seeds, 0.9 times with 20.

    Raises:
        ValueError: values out of range.
    """
    from scipy.optimize import brentq

    _check_power(power)
    if not sd > 0 or seeds < 2:
        raise ValueError(f"need sd > 0 and at least 2 seeds of each method; got {sd} and {seeds}")
    enough = 1.0
    while _power_of_t(enough, seeds) < power:
        enough *= 2
    return sd * brentq(lambda effect: _power_of_t(effect, seeds) - power, 0.0, enough)


def flat_curve_test(
    values: Float[Tensor, "S K"], *, shuffles: int = 10_000, seed: int = 0
) -> float:
    """Probability, were all settings alike, of means that spread at least as far as those seen.

    Source: Fisher's randomisation test; the settings are shuffled within each seed, so that what a
    seed does to all of them stays out of it.

    Args:
        values: of each seed (rows) and setting (columns).
        shuffles, seed: draws, and the seed of their generator.

    Returns:
        (1 + shufflings that spread as far) / (1 + shuffles): never 0.

    Raises:
        ValueError: fewer than two settings.
    """
    if values.ndim != 2 or values.shape[1] < 2:
        raise ValueError(f"need seeds x settings, two at least; got {tuple(values.shape)}")
    values = values.double()
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(shuffles, *values.shape, generator=generator).argsort(2)
    shuffled = values.expand(shuffles, -1, -1).gather(2, order).mean(1).var(1)
    seen = values.mean(0).var() * (1 - 1e-12)  # the same sums in another order
    return (1 + int((shuffled >= seen).sum())) / (1 + shuffles)


def best_of_noise(k: int, sd: float) -> float:
    r"""What the best of k equally good settings is expected to gain over their mean by luck.

    .. math:: E \max_{n \le k} x_n = \sigma \int_0^\infty 1 - \Phi(x)^k - \Phi(-x)^k \, dx, \quad
              x_n \sim N(0, \sigma^2)

    Source: the expectation of the largest of k independent normal draws, integrated numerically.

    Args:
        k: settings tried, one run each, at least 1.
        sd: standard deviation between runs of one setting, 0 or more.

    Returns:
        In the unit of sd; 0 for k = 1, 2.86 for k = 10 and sd = 1.86.

    Raises:
        ValueError: k < 1 or sd < 0.
    """
    if k < 1 or not sd >= 0:
        raise ValueError(f"need at least 1 setting and sd >= 0; got {k} and {sd}")
    from scipy.integrate import quad
    from scipy.special import log_ndtr

    def beyond(x: float) -> float:  # as exponentials of logarithms: exact where 1 - Phi is tiny
        return -math.expm1(k * log_ndtr(x)) - math.exp(k * log_ndtr(-x))

    return sd * quad(beyond, 0, math.inf)[0]


def two_proportion_test(
    share_a: float, share_b: float, trials: int, trials_b: int | None = None
) -> tuple[float, float]:
    r"""How often two equally good systems, tested on different clips, lie at least so far apart.

    .. math:: z = \frac{b - a}{\sqrt{p (1 - p) (1 / n_a + 1 / n_b)}}, \quad
              p = \frac{n_a a + n_b b}{n_a + n_b}, \quad
              P = \operatorname{erfc}\left(\frac{|z|}{\sqrt 2}\right)

    Source: the usual normal approximation with a pooled share, two-sided, without continuity
    correction. Where the answers for each clip are known, `mcnemar` uses that the clips were the
    same, and is sharper.

    Args:
        share_a, share_b: fractions of the clips that each system gets right.
        trials, trials_b: n_a and n_b, clips of each; None: the same number.

    Returns:
        z, positive where b is better, and P; (0.0, 1.0) for equal shares.

    Raises:
        ValueError: a share outside 0 to 1, or no clips.
    """
    n_a, n_b = trials, trials if trials_b is None else trials_b
    if not (0 <= share_a <= 1 and 0 <= share_b <= 1) or min(n_a, n_b) < 1:
        raise ValueError(
            f"need shares between 0 and 1 of at least 1 clip; got {share_a} of {n_a} and "
            f"{share_b} of {n_b}: divide percentages by 100"
        )
    if share_a == share_b:
        return 0.0, 1.0
    pooled = (n_a * share_a + n_b * share_b) / (n_a + n_b)
    z = (share_b - share_a) / math.sqrt(pooled * (1 - pooled) * (1 / n_a + 1 / n_b))
    return z, math.erfc(abs(z) / math.sqrt(2))


def sd_from_neighbours(values: Sequence[float]) -> float:
    r"""Spread of single runs around a smooth curve, from the steps between neighbours.

    .. math:: \sqrt{\operatorname{mean}_n (x_{n+1} - x_n)^2 / 2}

    Source: von Neumann 1941. A trend moves the standard deviation of all values, but hardly the
    steps: what they leave is the noise. Of pure noise both estimate the same.

    Args:
        values: results of one run each, in the order of the setting that was varied.

    Returns:
        In the unit of the values; 0 where they are all equal.

    Raises:
        ValueError: fewer than three values.
    """
    return math.sqrt(_steps_and_spread(values)[0] / (2 * (len(values) - 1)))


def von_neumann_ratio(values: Sequence[float]) -> float:
    r"""Whether a curve is smooth: its squared steps over its squared distances from the mean.

    .. math:: \sum_{n=1}^{N-1} (x_{n+1} - x_n)^2 \Big/ \sum_{n=1}^{N} (x_n - \bar x)^2

    Source: von Neumann 1941, with N - 1 in both means, so that the ratio of noise is 2 on average
    for any N; his own has N below and so N / (N - 1) times as much.

    Args:
        values: in the order of the setting that was varied.

    Returns:
        Between 0 and 4; 2 for noise, near 0 for a smooth curve, above 2 where values alternate.

    Raises:
        ValueError: fewer than three values, or all equal.
    """
    steps, spread = _steps_and_spread(values)
    if not spread:
        raise ValueError(f"{len(values)} equal values have no spread to compare steps with")
    return steps / spread


def von_neumann_test(
    values: Sequence[float], *, permutations: int = 100_000, seed: int = 0
) -> float:
    """How often the same values in random order are at least as smooth.

    Source: a permutation test of `von_neumann_ratio`, one-sided; the order seen counts as one of
    the permutations, so the probability is never 0.

    Args:
        values: in the order of the setting that was varied.
        permutations, seed: draws, and the seed of their generator: same seed, same probability.

    Returns:
        Probability; small where neighbours are alike, 1.0 where no order is rougher.

    Raises:
        ValueError: as `von_neumann_ratio` does, or permutations < 1.
    """
    if permutations < 1:
        raise ValueError(f"need at least 1 permutation, got {permutations}")
    ratio = von_neumann_ratio(values)
    x = torch.tensor(values, dtype=torch.float64)
    spread = (x - x.mean()).square().sum()
    generator = torch.Generator().manual_seed(seed)
    smooth = 1
    for rows in torch.arange(permutations).split(max(1, DRAWS_AT_ONCE // len(x))):
        keys = torch.rand(len(rows), len(x), generator=generator, dtype=torch.float64)
        others = x[keys.argsort(1)].diff(dim=1).square().sum(1) / spread
        smooth += int((others <= ratio + 1e-9).sum())  # sums of equal steps in another order
    return smooth / (1 + permutations)


def _resampled(
    hits: Tensor,
    weights: Tensor | None,
    strata: Tensor | None,
    groups: Tensor | None,
    resamples: int,
    seed: int,
) -> Float[Tensor, "R S"]:
    """Accuracies of S systems, of which `hits (S, N)`: row 0 as observed, then of each resample."""
    _check_lengths(hits[0], weights=weights, strata=strata, groups=groups)
    hits = hits.double().cpu()
    weight = torch.ones_like(hits[0]) if weights is None else weights.double().cpu()
    if not (weight > 0).all():
        raise ValueError(f"weights must be > 0, got {weight.min()}: leave clips out that count 0")
    clips = torch.arange(len(weight))
    group = _numbered(clips if groups is None else groups)
    stratum = _numbered(torch.zeros_like(clips) if strata is None else strata)
    num_groups, num_strata = len(group.unique()), len(stratum.unique())
    if num_groups < 2 or resamples < 1:
        raise ValueError(
            f"need at least 2 groups, as one says nothing about their spread, and at least 1 "
            f"resample; got {num_groups} and {resamples}"
        )
    # what each group adds to each stratum: the weighted hits of each system, last the weights
    parts = torch.cat([hits * weight, weight[None]])
    sums = parts.new_zeros(len(parts), num_groups * num_strata)
    sums.index_add_(1, group * num_strata + stratum, parts)
    sums = sums.view(len(parts), num_groups, num_strata).movedim(1, 0)

    generator = torch.Generator().manual_seed(seed)
    means = [_accuracies(sums.new_ones(1, num_groups), sums)]
    at_once = max(1, DRAWS_AT_ONCE // max(num_groups, sums[0].numel()))
    for rows in torch.arange(resamples).split(at_once):
        drawn = torch.randint(num_groups, (len(rows), num_groups), generator=generator)
        drawn += num_groups * torch.arange(len(rows))[:, None]
        times = drawn.flatten().bincount(minlength=drawn.numel()).view_as(drawn)
        means.append(_accuracies(times.double(), sums))
    return torch.cat(means)


def _accuracies(times: Float[Tensor, "R G"], sums: Float[Tensor, "G P K"]) -> Float[Tensor, "R S"]:
    """Of each system, where group g is drawn `times[:, g]` times; P = S + 1, the weights last."""
    drawn = torch.tensordot(times, sums, 1)  # (R, P, K)
    return (drawn[:, :-1] / drawn[:, -1:]).nanmean(2)  # 0 / 0: a stratum that is absent


def _ends(drawn: Float[Tensor, " R"], confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}; 0.95 is usual")
    tail = (1 - confidence) / 2
    low, high = drawn.quantile(drawn.new_tensor([tail, 1 - tail])).tolist()
    return low, high


def _numbered(names: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """The groups or strata, renamed 0, 1, 2 ... without a gap."""
    return names.cpu().unique(return_inverse=True)[1]


def _steps_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Sums of the squared steps between neighbours, and of the squares around the mean."""
    if len(values) < 3:
        raise ValueError(f"need at least 3 values in an order, got {len(values)}")
    mean = math.fsum(values) / len(values)
    steps = math.fsum((b - a) ** 2 for a, b in pairwise(values))
    # equal values: their mean may round to another number
    spread = math.fsum((v - mean) ** 2 for v in values) if max(values) > min(values) else 0.0
    return steps, spread


def _power_of_t(effect: float, seeds: int) -> float:
    """Of the two-sided test at LEVEL, arms of so many seeds, means `effect` deviations apart."""
    return _power_of_shift(2 * (seeds - 1), effect * math.sqrt(seeds / 2))


def _power_of_shift(freedom: int, shift: float) -> float:
    from scipy.stats import nct, t

    bound = t.isf(LEVEL / 2, freedom)
    # the lower tail by symmetry: its cdf is nan at some large shifts (scipy 1.17)
    return float(nct.sf(bound, freedom, shift) + nct.sf(bound, freedom, -shift))


def _first_enough(power_of: Callable[[int], float], power: float) -> int:
    """The smallest number of seeds, at least 2, whose power is enough."""
    enough = 2
    while power_of(enough) < power:
        enough *= 2
    return 2 + bisect_left(range(2, enough), power, key=power_of)


def _check_lengths(clips: Tensor, **others: Tensor | None) -> None:
    for name, other in others.items():
        if other is not None and other.shape != clips.shape:
            raise ValueError(
                f"{name} must have one entry for each of the {len(clips)} clips, "
                f"got {tuple(other.shape)}"
            )


def _check_power(power: float) -> None:
    if not LEVEL < power < 1:
        raise ValueError(f"power must lie between {LEVEL} and 1, got {power}; 0.8 is usual")
