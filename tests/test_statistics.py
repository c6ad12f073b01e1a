"""Intervals and tests against scipy's, full enumeration, simulation and closed forms."""

import itertools
import math

import naive
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from acl_lib import statistics
from acl_lib.metrics import balanced_accuracy, patch_weighted_accuracy
from acl_lib.statistics import (
    best_of_noise,
    bootstrap_interval,
    detectable_accuracy_difference,
    detectable_difference,
    flat_curve_test,
    mcnemar,
    paired_bootstrap,
    pairs_needed,
    sd_from_neighbours,
    seed_interval,
    seeds_per_arm,
    two_proportion_test,
    von_neumann_ratio,
    von_neumann_test,
    wilson_interval,
)


def some_clips(n=60, sources=15, seed=0):
    """Right by a, right by b, patches, class and source of n clips."""
    g = torch.Generator().manual_seed(seed)
    right_a, right_b = torch.rand(n, generator=g) < 0.7, torch.rand(n, generator=g) < 0.8
    patches, y = torch.randint(1, 9, (n,), generator=g), torch.randint(4, (n,), generator=g)
    return right_a, right_b, patches, y, torch.randint(sources, (n,), generator=g)


# --- intervals


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 10), (5, 10), (337, 947), (400, 400)])
def test_wilson_is_scipys(hits, n, confidence):
    expected = stats.binomtest(hits, n).proportion_ci(confidence, method="wilson")
    assert wilson_interval(hits, n, confidence=confidence) == pytest.approx(tuple(expected))


def test_wilsons_ends_are_where_the_score_test_turns():
    low, high = wilson_interval(34, 40)
    for p in (low, high):
        z = (34 / 40 - p) / math.sqrt(p * (1 - p) / 40)
        assert abs(z) == pytest.approx(stats.norm.ppf(0.975))
    assert low < 34 / 40 < high


def test_wilson_is_symmetric_within_0_and_1_and_knows_nothing_without_trials():
    for hits in range(21):
        low, high = wilson_interval(hits, 20)
        assert 0 <= low <= hits / 20 <= high <= 1
        mirrored = wilson_interval(20 - hits, 20)
        assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]))
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("hits", "n"), [(-1, 5), (6, 5), (1, 0), (0, -1)])
def test_impossible_counts_are_told(hits, n):
    with pytest.raises(ValueError, match=f"got {hits} of {n}"):
        wilson_interval(hits, n)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_seed_interval_is_students(confidence):
    values = [0.855, 0.8475, 0.861, 0.852]
    expected = stats.t.interval(confidence, 3, np.mean(values), stats.sem(values))
    assert seed_interval(values, confidence=confidence) == pytest.approx(expected)
    assert seed_interval([0.7, 0.7]) == (0.7, 0.7)
    low, high = seed_interval([0.0, 1.0])  # t of one degree of freedom is Cauchy's
    assert high - low == pytest.approx(math.tan(0.475 * math.pi))


@pytest.mark.parametrize("values", [[], [0.8]])
def test_one_seed_says_nothing_about_spread(values):
    with pytest.raises(ValueError, match=f"at least 2 seeds; got {len(values)}"):
        seed_interval(values)


# --- bootstrap


@pytest.mark.parametrize("weighted", [False, True], ids=["clips", "patches"])
@pytest.mark.parametrize("balanced", [False, True], ids=["pooled", "balanced"])
@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "by source"])
def test_the_bootstrap_draws_from_the_distribution_of_all_resamples(weighted, balanced, grouped):
    """5 sources have 3,125 equally likely resamples; an end of the interval is a quantile of them.

    10,000 draws put a quantile where the distribution function is within 0.01 of the wanted level.
    """
    groups = [7, 7, 7, 2, 2, 9, 9, 4, 5] if grouped else [0, 1, 2, 3, 4]
    hits = [1, 1, 0, 0, 1, 1, 0, 1, 0][: len(groups)]
    weights = [3, 1, 4, 1, 5, 9, 2, 6, 5][: len(groups)] if weighted else [1] * len(groups)
    strata = [0, 1, 2, 0, 1, 2, 0, 1, 2][: len(groups)] if balanced else [0] * len(groups)
    exact = np.array(
        [naive.accuracy_of(clips, hits, weights, strata) for clips in naive.every_resample(groups)]
    )
    ends = bootstrap_interval(
        torch.tensor(hits).bool(),
        torch.tensor(weights) if weighted else None,
        torch.tensor(strata) if balanced else None,
        torch.tensor(groups) if grouped else None,
        confidence=0.6,
    )
    for end, level in zip(ends, (0.2, 0.8), strict=True):
        assert (exact < end - 1e-9).mean() < level + 0.01
        assert (exact < end + 1e-9).mean() > level - 0.01


def test_the_bootstrap_of_clips_is_scipys():
    right = some_clips(n=200)[0].double()
    expected = stats.bootstrap(
        (right.numpy(),), np.mean, method="percentile", n_resamples=10_000, rng=1
    ).confidence_interval
    assert bootstrap_interval(right) == pytest.approx(tuple(expected), abs=0.006)
    # and the binomial's: normal at this size
    half = 1.96 * math.sqrt(right.mean() * (1 - right.mean()) / 200)
    low, high = bootstrap_interval(right)
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)


def test_the_difference_is_of_the_accuracy_that_weights_and_strata_say():
    a, b, patches, y, source = some_clips()
    plain, low, high = paired_bootstrap(a, b, source)
    assert plain == pytest.approx((b.double().mean() - a.double().mean()).item())
    assert low < plain < high
    guess_a, guess_b = torch.where(a, y, -1), torch.where(b, y, -1)
    macro = balanced_accuracy(guess_b, y, 4) - balanced_accuracy(guess_a, y, 4)
    assert paired_bootstrap(a, b, source, strata=y)[0] == pytest.approx(macro.item())
    heavy = patch_weighted_accuracy(guess_b, y, patches)
    heavy = heavy - patch_weighted_accuracy(guess_a, y, patches)
    assert paired_bootstrap(a, b, source, weights=patches)[0] == pytest.approx(heavy.item())


def test_both_systems_are_judged_on_the_same_resample():
    a, b, patches, y, source = some_clips()
    assert paired_bootstrap(a, a, source, strata=y, weights=patches) == (0, 0, 0)
    difference, low, high = paired_bootstrap(a, b, source)
    assert paired_bootstrap(b, a, source) == pytest.approx((-difference, -high, -low), abs=1e-3)
    # b is right wherever a is, and nowhere worse: no resample can show a loss
    assert paired_bootstrap(a, a | b, source)[1] >= 0
    _, low, high = paired_bootstrap(a, b, source, resamples=1)
    assert low == high != difference  # what was observed is no resample
    against_none = paired_bootstrap(torch.zeros_like(b), b, source)
    assert against_none[1:] == pytest.approx(bootstrap_interval(b, groups=source))


@pytest.mark.parametrize("pairs", [1, 15, 700, 10**9])
def test_the_interval_does_not_depend_on_the_block_but_on_the_seed(monkeypatch, pairs):
    a, b, patches, y, source = some_clips()
    expected = paired_bootstrap(a, b, source, weights=patches, strata=y, resamples=500)
    other = paired_bootstrap(a, b, source, weights=patches, strata=y, resamples=500, seed=1)
    monkeypatch.setattr(statistics, "DRAWS_AT_ONCE", pairs)
    got = paired_bootstrap(a, b, source, weights=patches, strata=y, resamples=500)
    assert got == pytest.approx(expected) and got != other


def test_groups_of_one_clip_and_weights_and_strata_that_do_not_differ_change_nothing():
    a, b, _, _, source = some_clips()
    alone, three, one = torch.arange(60) * 5 + 100, torch.full((60,), 3), torch.full((60,), 7)
    assert bootstrap_interval(a, groups=alone) == bootstrap_interval(a)
    assert bootstrap_interval(a, three, one, source) == pytest.approx(
        bootstrap_interval(a, groups=source)
    )
    assert paired_bootstrap(a, b, alone) == paired_bootstrap(a, b)
    assert mcnemar(a, b, alone) == mcnemar(a, b)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    bootstrap_interval(a, resamples=10)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's generator is left alone


def test_nothing_varies_where_all_clips_are_right():
    right = torch.ones(20, dtype=torch.bool)
    assert bootstrap_interval(right, strata=torch.arange(20) % 3) == (1, 1)
    assert bootstrap_interval(~right) == (0, 0)


def test_the_interval_covers_the_truth_if_sources_are_resampled_and_only_then():
    """Sources of 8 clips that are right or wrong together in 9 of 10 cases; the truth is 0.7."""
    g = torch.Generator().manual_seed(0)
    source = torch.arange(40).repeat_interleave(8)
    covered = {"sources": 0, "clips": 0}
    for trial in range(150):
        of_source = (torch.rand(40, generator=g) < 0.7)[source]
        own = torch.rand(320, generator=g) < 0.7
        right = torch.where(torch.rand(320, generator=g) < 0.9, of_source, own)
        for name, groups in (("sources", source), ("clips", None)):
            low, high = bootstrap_interval(right, groups=groups, resamples=300, seed=trial)
            covered[name] += low <= 0.7 <= high
    assert 0.89 <= covered["sources"] / 150 <= 0.99
    assert covered["clips"] / 150 < 0.7


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda x, k: bootstrap_interval(x, weights=k[:3]), r"weights .* 6 clips, got \(3,\)"),
        (lambda x, k: bootstrap_interval(x, strata=k[:3]), r"strata .* 6 clips, got \(3,\)"),
        (lambda x, k: bootstrap_interval(x, groups=k[:3]), r"groups .* 6 clips, got \(3,\)"),
        (lambda x, k: bootstrap_interval(x, groups=0 * k), "at least 2 groups.*got 1 and"),
        (lambda x, k: bootstrap_interval(x[:0]), "at least 2 groups.*got 0 and"),
        (lambda x, k: bootstrap_interval(x, weights=k), "weights must be > 0, got 0"),
        (lambda x, k: bootstrap_interval(x, resamples=0), "at least 1 resample; got 6 and 0"),
        (lambda x, k: bootstrap_interval(x, confidence=95.0), "between 0 and 1, got 95"),
        (lambda x, k: paired_bootstrap(x, x[:5]), r"right_b .* 6 clips, got \(5,\)"),
        (lambda x, k: paired_bootstrap(x, x, k[:5]), r"groups .* 6 clips, got \(5,\)"),
        (lambda x, k: mcnemar(x, x[:5]), r"right_b .* 6 clips, got \(5,\)"),
        (lambda x, k: mcnemar(x, x, k[:5]), r"groups .* 6 clips, got \(5,\)"),
    ],
)
def test_clips_that_cannot_be_resampled_are_told(unchecked, call, told):
    with pytest.raises(ValueError, match=told):
        call(torch.tensor([1, 1, 0, 1, 0, 0]).bool(), torch.arange(6))


# --- paired test


@pytest.mark.parametrize(
    ("only_a", "only_b"), [(0, 0), (0, 5), (3, 3), (3, 12), (40, 67), (300, 0)]
)
def test_mcnemar_of_single_clips_is_the_binomial_test_of_the_discordant_ones(only_a, only_b):
    agreed = torch.tensor([True, False, True])
    a = torch.cat([agreed, torch.ones(only_a).bool(), torch.zeros(only_b).bool()])
    b = torch.cat([agreed, torch.zeros(only_a).bool(), torch.ones(only_b).bool()])
    n = only_a + only_b
    expected = stats.binomtest(only_b, n).pvalue if n else 1
    assert mcnemar(a, b) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(b, a) == pytest.approx(expected, rel=1e-9)
    if not only_a and only_b:
        assert mcnemar(a, b) == pytest.approx(2.0 ** (1 - n))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(-3, 3)), max_size=25))
def test_mcnemar_of_sources_is_the_share_of_sign_flips_that_are_as_extreme(clips):
    a, b, groups = zip(*clips, strict=True) if clips else ((), (), ())
    right_a, right_b = torch.tensor(a, dtype=torch.bool), torch.tensor(b, dtype=torch.bool)
    got = mcnemar(right_a, right_b, torch.tensor(groups, dtype=torch.long))
    assert got == pytest.approx(naive.sign_flips(a, b, groups), abs=1e-12)


def test_a_source_that_one_system_wins_as_a_whole_is_one_piece_of_evidence():
    a, b = torch.zeros(12, dtype=torch.bool), torch.ones(12, dtype=torch.bool)
    assert mcnemar(a, b) == pytest.approx(2 / 2**12)
    assert mcnemar(a, b, torch.arange(12) // 4) == pytest.approx(2 / 2**3)
    assert mcnemar(a, b, torch.zeros(12, dtype=torch.long)) == 1
    b[::2], a[::2] = False, True  # every source is a draw
    assert mcnemar(a, b, torch.arange(12) // 2) == 1


def test_mcnemar_rejects_no_more_than_it_says_when_the_systems_are_alike():
    g = torch.Generator().manual_seed(0)
    source = torch.arange(30).repeat_interleave(6)
    systems = (torch.rand(300, 2, 30, generator=g) < 0.5)[:, :, source]  # right by whole sources
    grouped = sum(mcnemar(a, b, source) <= 0.05 for a, b in systems)
    single = sum(mcnemar(a, b) <= 0.05 for a, b in systems)
    assert grouped <= 0.08 * 300 and single > 0.25 * 300


# --- power


@pytest.mark.parametrize(
    ("trials", "discordant", "power"), [(60, 0.4, 0.8), (947, 0.2, 0.8), (400, 0.1, 0.5)]
)
def test_mcnemar_finds_the_detectable_difference_as_often_as_asked(trials, discordant, power):
    difference = detectable_accuracy_difference(trials, discordant, power=power)
    g = torch.Generator().manual_seed(1)
    u = torch.rand(2000, trials, generator=g)
    only_b = (u < (discordant + difference) / 2).sum(1)
    only_a = (u < discordant).sum(1) - only_b
    p = stats.binom.cdf(torch.minimum(only_a, only_b), only_a + only_b, 0.5) * 2
    assert (p <= 0.05).mean() == pytest.approx(power, abs=0.03)
    # and near the textbook's normal approximation
    z, z_power = stats.norm.ppf([0.975, power])
    normal = (z + z_power) * math.sqrt(discordant / trials)
    assert normal < difference < 1.2 * normal


def test_landmarks_of_the_paired_test():
    assert detectable_accuracy_difference(947, 0.2) == pytest.approx(0.042, abs=5e-4)
    finer = detectable_accuracy_difference(947, 0.1)
    assert finer < detectable_accuracy_difference(947, 0.2)  # agreement sharpens the comparison
    # six clips, all discordant: only 6 of 6 gives p <= 0.05 (2 / 64)
    sure = detectable_accuracy_difference(6, 1.0)
    assert ((1 + sure) / 2) ** 6 + ((1 - sure) / 2) ** 6 == pytest.approx(0.8)
    with pytest.raises(ValueError, match="test on more clips"):
        detectable_accuracy_difference(5, 1.0)


@pytest.mark.parametrize(("effect", "seeds"), [(1.0, 5), (3.0709, 3), (0.9, 20)])
def test_the_power_of_the_t_test_is_the_simulated_one(effect, seeds):
    rng = np.random.Generator(np.random.PCG64(0))
    a, b = rng.normal(size=(2, 20_000, seeds))
    found = (stats.ttest_ind(a, b + effect, axis=1).pvalue < 0.05).mean()
    assert statistics._power_of_t(effect, seeds) == pytest.approx(found, abs=0.01)


def test_landmarks_of_the_seeds():
    assert seeds_per_arm(1.9, 1.8) == seeds_per_arm(-19.0, 18.0) == 16
    assert seeds_per_arm(2.9, 1.8) == 8
    normal = {d: 2 * ((1.959964 + 0.841621) * 1.8 / d) ** 2 for d in (1.9, 2.9)}
    assert [math.ceil(n) for n in normal.values()] == [15, 7]  # the normal approximation's
    assert seeds_per_arm(100.0, 1.0) == 2
    assert seeds_per_arm(0.5, 1.0) == 64  # Cohen 1988, table 2.4.1: d = 0.5
    assert seeds_per_arm(0.8, 1.0) == 26  # d = 0.8
    assert detectable_difference(1.0, 3) == pytest.approx(3.07, abs=5e-3)
    assert detectable_difference(1.0, 20) == pytest.approx(0.909, abs=5e-4)


@pytest.mark.parametrize("power", [0.06, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("seeds", [2, 3, 10, 100, 1000, 100_000])
def test_seeds_and_differences_are_inverse(seeds, power):
    difference = detectable_difference(1.8, seeds, power=power)
    assert detectable_difference(18.0, seeds, power=power) == pytest.approx(10 * difference)
    little = 0.1 / seeds  # one seed more is worth about 0.5 / seeds of the difference
    assert seeds_per_arm(difference * (1 + little), 1.8, power=power) == seeds
    assert seeds_per_arm(difference * (1 - little), 1.8, power=power) == seeds + 1


@pytest.mark.parametrize("seeds", [2, 3, 20, 1000, 10**6])
def test_the_power_is_a_rising_number_everywhere(seeds):
    """scipy's noncentral t gives nan in far tails: the sum of both tails must not meet it."""
    powers = [statistics._power_of_t(e, seeds) for e in [0.0, *np.geomspace(1e-4, 100, 200)]]
    assert powers[0] == pytest.approx(0.05)
    assert np.all(np.diff(powers) > -1e-9) and powers[-1] == pytest.approx(1)


# --- selection


def test_the_best_of_noise_is_known_for_few_and_simulated_for_many():
    sqrt = math.sqrt(math.pi)
    assert best_of_noise(1, 5.0) == pytest.approx(0, abs=1e-12)
    assert best_of_noise(2, 1.0) == pytest.approx(1 / sqrt)
    assert best_of_noise(3, 1.0) == pytest.approx(1.5 / sqrt)
    assert best_of_noise(4, 1.0) == pytest.approx(6 / sqrt * math.atan(math.sqrt(2)) / math.pi)
    assert best_of_noise(10, 1.86) == pytest.approx(2.86, abs=5e-3)
    assert best_of_noise(10, 0.0) == 0
    g = torch.Generator().manual_seed(0)
    best = torch.randn(20_000, 50, generator=g).amax(1)
    assert best_of_noise(50, 1.0) == pytest.approx(best.mean().item(), abs=0.015)


@pytest.mark.parametrize("k", [10**3, 10**6, 10**12])
def test_the_best_of_very_many_follows_the_law_of_extremes(k):
    """Gumbel: the mean lies Euler's constant times 1 / (k phi(a)) above a, exceeded once in k."""
    a = stats.norm.isf(1 / k)
    assert best_of_noise(k, 1.0) == pytest.approx(
        a + np.euler_gamma / (k * stats.norm.pdf(a)), rel=0.01
    )


# --- two shares, and values in an order


@pytest.mark.parametrize(
    ("a", "n_a", "b", "n_b"), [(703, 947, 730, 947), (3, 10, 9, 12), (0, 5, 5, 5)]
)
def test_two_proportions_are_pearsons_chi_squared(a, n_a, b, n_b):
    z, p = two_proportion_test(a / n_a, b / n_b, n_a, n_b)
    table = [[a, n_a - a], [b, n_b - b]]
    found = stats.chi2_contingency(table, correction=False)
    assert z > 0 and (z * z, p) == pytest.approx((found.statistic, found.pvalue))
    assert two_proportion_test(b / n_b, a / n_a, n_b, n_a) == pytest.approx((-z, p))


def test_two_equal_shares_differ_by_nothing():
    assert two_proportion_test(0.7, 0.7, 947) == (0.0, 1.0)
    assert two_proportion_test(0.0, 0.0, 5) == two_proportion_test(1.0, 1.0, 5, 9) == (0.0, 1.0)
    assert two_proportion_test(0.7, 0.8, 50) == two_proportion_test(0.7, 0.8, 50, 50)


@pytest.mark.parametrize("values", [[1.0, 3.0, 2.0], [4.0, 4.0, 5.0, -1.0], [0.1, 0.3, 0.2, 0.9]])
def test_neumanns_ratio_is_steps_over_spread(values):
    mean = sum(values) / len(values)
    steps = sum((values[n + 1] - values[n]) ** 2 for n in range(len(values) - 1))
    ratio = von_neumann_ratio(values)
    assert ratio == pytest.approx(steps / sum((v - mean) ** 2 for v in values))
    assert von_neumann_ratio([5 - 3 * v for v in values]) == pytest.approx(ratio)
    # of two estimates of one spread, the one that looks at neighbours
    assert sd_from_neighbours(values) == pytest.approx(np.std(values, ddof=1) * (ratio / 2) ** 0.5)


def test_noise_has_a_ratio_of_2_and_neighbours_tell_its_spread():
    draws = np.random.default_rng(0).normal(size=(4000, 11))
    assert np.mean([von_neumann_ratio(d.tolist()) for d in draws]) == pytest.approx(2, abs=0.04)
    trend = np.linspace(0, 5, 11)  # a slope of half a deviation a step
    variances = [sd_from_neighbours((d + trend).tolist()) ** 2 for d in draws]
    assert np.mean(variances) == pytest.approx(1 + 0.5**2 / 2, abs=0.03)
    assert np.mean([np.var(d + trend, ddof=1) for d in draws]) > 3


@pytest.mark.parametrize("values", [[1.0, 2.0, 4.0, 3.0, 6.0], [3.0, 1.0, 3.0, 1.0, 2.0, 2.0]])
def test_smoothness_is_compared_with_every_order(values):
    ratio = von_neumann_ratio(values)
    orders = [von_neumann_ratio(order) for order in itertools.permutations(values)]
    exact = np.mean([other <= ratio + 1e-9 for other in orders])
    assert von_neumann_test(values, permutations=50_000) == pytest.approx(exact, abs=0.01)
    assert von_neumann_test(values, seed=1) == von_neumann_test(values, seed=1)


def test_a_straight_line_is_as_smooth_as_can_be(monkeypatch):
    line = [float(n) for n in range(11)]
    assert von_neumann_test(line, permutations=999) == 1 / 1000
    assert von_neumann_test([0.0, 9.0, 1.0, 8.0, 2.0], permutations=99) > 0.9
    few = von_neumann_test([1.0, 2.0, 4.0, 3.0, 6.0, 5.0], permutations=500)
    monkeypatch.setattr(statistics, "DRAWS_AT_ONCE", 60)  # the same draws, ten at a time
    assert von_neumann_test([1.0, 2.0, 4.0, 3.0, 6.0, 5.0], permutations=500) == few


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: two_proportion_test(74.2, 77.1, 947), "divide percentages by 100"),
        (lambda: two_proportion_test(0.5, math.nan, 947), "got 0.5 of 947 and nan of 947"),
        (lambda: two_proportion_test(0.5, 0.6, 0), "at least 1 clip"),
        (lambda: von_neumann_ratio([1.0, 2.0]), "at least 3 values in an order, got 2"),
        (lambda: sd_from_neighbours([]), "got 0"),
        (lambda: von_neumann_ratio([0.1, 0.1, 0.1]), "3 equal values"),
        (lambda: von_neumann_test([0.7] * 9), "9 equal values"),
        (lambda: von_neumann_test([1.0, 2.0, 3.0], permutations=0), "got 0"),
        (lambda: best_of_noise(0, 1.0), "at least 1 setting and sd >= 0; got 0"),
        (lambda: best_of_noise(3, -1.0), "got 3 and -1"),
        (lambda: seeds_per_arm(0.0, 1.0), "other than 0"),
        (lambda: seeds_per_arm(1.0, 0.0), "sd > 0"),
        (lambda: seeds_per_arm(1.0, 1.0, power=1.0), "between 0.05 and 1, got 1.0"),
        (lambda: seeds_per_arm(math.nan, 1.0), "other than 0"),
        (lambda: detectable_difference(1.0, 1), "at least 2 seeds of each method; got 1.0 and 1"),
        (lambda: detectable_difference(0.0, 5), "sd > 0"),
        (lambda: detectable_difference(1.0, 5, power=0.05), "got 0.05"),
        (lambda: detectable_accuracy_difference(0, 0.2), "trials >= 1"),
        (lambda: detectable_accuracy_difference(100, 0.0), "0 < discordant"),
        (lambda: detectable_accuracy_difference(100, 20.0), "got 100 and 20"),
        (lambda: detectable_accuracy_difference(100, 0.2, power=80.0), "got 80"),
    ],
)
def test_impossible_plans_are_told(call, told):
    with pytest.raises(ValueError, match=told):
        call()


def test_pairs_needed_are_those_of_a_t_test_of_one_sample():
    assert pairs_needed(0.5, 1.0) == pairs_needed(-5.0, 10.0) == 34  # Cohen 1988: d = 0.5
    assert pairs_needed(0.8, 1.0) == 15
    assert pairs_needed(100.0, 1.0) == 2
    rng = np.random.default_rng(0)
    for effect in (0.7, 2.0):
        n = pairs_needed(effect, 1.0)
        found = [
            np.mean(stats.ttest_1samp(rng.normal(effect, 1, (4000, m)), 0, axis=1).pvalue < 0.05)
            for m in (n - 1, n)
        ]
        assert found[0] < 0.82 and found[1] > 0.78 and found[0] < found[1]
    for wrong in ((0.0, 1.0), (1.0, 0.0), (1.0, -1.0)):
        with pytest.raises(ValueError, match="difference other than 0 and sd > 0"):
            pairs_needed(*wrong)


def test_a_flat_curve_is_called_another_as_often_as_promised():
    g = torch.Generator().manual_seed(0)
    seeds = 5 * torch.randn(300, 3, 1, generator=g)  # what a seed does to all settings
    noise = seeds + torch.randn(300, 3, 6, generator=g)
    found = [flat_curve_test(values, shuffles=199) for values in noise]
    assert 0.02 < sum(p <= 0.05 for p in found) / 300 < 0.09
    peak = torch.tensor([0.0, 1.0, 3.0, 1.0, 0.0, 0.0])
    assert flat_curve_test(noise[0] + peak, shuffles=999) < 0.05
    assert flat_curve_test(noise[0] + peak, seed=1) == flat_curve_test(noise[0] + peak, seed=1)


def test_a_flat_curve_of_two_settings_is_counted_out():
    values = torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 4.0]])
    # of 8 ways to swap, two have the largest spread: none swapped, and all
    assert flat_curve_test(values, shuffles=20_000) == pytest.approx(2 / 8, abs=0.01)
    with pytest.raises(ValueError, match="two at least"):
        flat_curve_test(torch.zeros(3, 1))


RIGHT_A, RIGHT_B, PATCHES, *_ = some_clips()
CURVES = torch.tensor([[0.0, 1.0, 3.0], [0.0, 2.0, 1.0], [1.0, 2.0, 4.0]])
DRAWS = {"resamples": 10_000, "seed": 0, "confidence": 0.95}


@pytest.mark.parametrize(
    ("call", "defaults"),
    [
        (lambda **kw: bootstrap_interval(RIGHT_A, PATCHES, **kw), DRAWS),
        (lambda **kw: paired_bootstrap(RIGHT_A, RIGHT_B, weights=PATCHES, **kw), DRAWS),
        (lambda **kw: wilson_interval(3, 7, **kw), {"confidence": 0.95}),
        (lambda **kw: seed_interval([0.1, 0.4], **kw), {"confidence": 0.95}),
        (lambda **kw: flat_curve_test(CURVES, **kw), {"shuffles": 10_000, "seed": 0}),
        (
            lambda **kw: von_neumann_test([0.1, 0.2, 0.4, 0.3], **kw),
            {"permutations": 100_000, "seed": 0},
        ),
    ],
)
def test_defaults_are_as_many_draws_as_said_of_seed_0_at_95_percent(call, defaults):
    assert call() == call(**defaults)


def test_one_clip_each_is_enough_to_differ():
    z, p = two_proportion_test(0.0, 1.0, 1)
    assert z == pytest.approx(math.sqrt(2)) and p == pytest.approx(2 * stats.norm.sf(math.sqrt(2)))


def test_settings_that_do_not_differ_at_all_have_a_probability_of_one():
    assert flat_curve_test(torch.ones(3, 2), shuffles=9) == 1


@pytest.mark.parametrize("confidence", [0.0, 1.0, 1.5])
def test_no_interval_is_certain_or_without_any_confidence(confidence):
    with pytest.raises(ValueError, match=f"between 0 and 1, got {confidence}"):
        bootstrap_interval(some_clips()[0], confidence=confidence, resamples=5)
