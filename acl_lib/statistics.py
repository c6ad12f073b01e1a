"""Is the difference real."""

from __future__ import annotations

import math
from collections.abc import Sequence


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
