"""Intervals against scipy's and against the equation they solve; accuracy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from acl_lib.metrics import accuracy
from acl_lib.statistics import seed_interval, wilson_interval


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


def test_accuracy_counts_the_largest_and_ties_go_to_the_lowest_class():
    posterior = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.5, 0.5], [0.5, 0.5]])
    assert accuracy(posterior, torch.tensor([1, 0, 0, 1])).item() == 0.75
