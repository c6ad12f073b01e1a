"""Guesses and trials against scikit-learn, geometry against loops, closed forms and the paper."""

import functools
import json
import math
import os
import subprocess
import sys

import naive
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_curve
from torch.overrides import TorchFunctionMode

from acl_lib import metrics
from acl_lib.metrics import (
    accuracy,
    alignment,
    balanced_accuracy,
    between_class_cosine,
    class_gap,
    effective_rank,
    equal_error_rate,
    error_rates,
    min_dcf,
    patch_weighted_accuracy,
    per_class_accuracy,
    tolerance,
    uniformity,
)
from acl_lib.released import load_released_features, released_dir

LABELLED = [tolerance, between_class_cosine, class_gap]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def on_circle(*degrees):
    theta = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([theta.cos(), theta.sin()], dim=1)


def rows(n=40, d=6, k=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return h, torch.randint(k, (n,), generator=generator)


def guesses(n=60, k=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    guess, y, patches = (torch.randint(k, (n,), generator=generator) for _ in range(3))
    return guess, y, patches


# --- guesses


def test_accuracy_counts_the_largest_and_ties_go_to_the_lowest_class():
    posterior = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.5, 0.5], [0.5, 0.5]])
    assert accuracy(posterior, torch.tensor([1, 0, 0, 1])).item() == 0.75


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_balanced_and_per_class_accuracy_are_scikit_learns(pairs):
    guess, y = (torch.tensor(column) for column in zip(*pairs, strict=True))
    expected = balanced_accuracy_score(y, guess)
    assert balanced_accuracy(guess, y, 5).item() == pytest.approx(expected, abs=1e-14)
    recall = recall_score(y, guess, labels=range(5), average=None, zero_division=math.nan)
    assert per_class_accuracy(guess, y, 5).tolist() == pytest.approx(recall.tolist(), nan_ok=True)


def test_a_class_that_does_not_occur_is_nan_and_stays_out_of_the_mean():
    guess, y = torch.tensor([0, 0, 3, 1]), torch.tensor([0, 0, 0, 1])
    each = per_class_accuracy(guess, y, 4)
    assert each.isnan().tolist() == [False, False, True, True]
    assert each[:2].tolist() == [2 / 3, 1]
    assert balanced_accuracy(guess, y, 4).item() == pytest.approx((2 / 3 + 1) / 2)


def test_one_guess_for_all_is_right_in_one_of_the_classes_that_occur():
    y = torch.tensor([0, 0, 0, 0, 0, 0, 0, 2, 3, 3])
    guess = torch.zeros_like(y)
    assert (guess == y).double().mean().item() == 0.7
    assert balanced_accuracy(guess, y, 20).item() == pytest.approx(1 / 3)


def test_a_guess_that_is_no_class_is_wrong():
    guess, y = torch.tensor([-1, 7, 1]), torch.tensor([0, 1, 1])
    assert per_class_accuracy(guess, y, 2).tolist() == [0, 0.5]


@pytest.mark.parametrize("seed", range(4))
def test_a_clip_weighs_as_much_as_its_patches(seed):
    guess, y, patches = guesses(seed=seed)
    expected = naive.patch_weighted(guess.tolist(), y.tolist(), patches.tolist())
    assert patch_weighted_accuracy(guess, y, patches).item() == pytest.approx(expected)
    alike = torch.full_like(y, 7)
    plain = (guess == y).double().mean().item()
    assert patch_weighted_accuracy(guess, y, alike).item() == pytest.approx(plain)


def test_five_clips_of_30_s_are_worth_the_papers_gain():
    """947 clips, 8866 patches: a table value is a number of patches, not of clips."""
    patches = torch.cat([torch.full((5,), 59), torch.full((941,), 9), torch.tensor([102])])
    y = torch.zeros(947, dtype=torch.long)
    better = torch.ones(947, dtype=torch.long)
    better[:5] = 0
    assert (len(patches), int(patches.sum())) == (947, 8866)
    gain = patch_weighted_accuracy(better, y, patches).item()
    assert gain == 295 / 8866 > 0.77070 - 0.74160
    assert (better == y).double().mean().item() < 0.006


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda y: per_class_accuracy(y[:2], y, 3), r"got \(3,\) for \(2,\)"),
        (lambda y: balanced_accuracy(y[:1], y, 3), r"got \(3,\) for \(1,\)"),
        (lambda y: per_class_accuracy(y, y, 2), "0 to 1, got 0 to 2"),
        (lambda y: balanced_accuracy(y, y - 1, 3), "0 to 2, got -1 to 1"),
        (lambda y: balanced_accuracy(y[:0], y[:0], 3), "at least 1 clip"),
        (lambda y: patch_weighted_accuracy(y, y, y[:1]), r"got \(3,\) for \(1,\)"),
        (lambda y: patch_weighted_accuracy(y[:1], y, y), r"got \(3,\) for \(1,\)"),
        (lambda y: patch_weighted_accuracy(y, y, 0 * y), "got 0 in all over 3 clips"),
        (lambda y: patch_weighted_accuracy(y, y, y - 1), "count 0 or more"),
        (lambda y: patch_weighted_accuracy(y, y, 5 - 3 * y), "got 6 in all"),  # 5, 2 and -1
    ],
)
def test_wrong_guesses_are_told(unchecked, call, told):
    with pytest.raises(ValueError, match=told):
        call(torch.arange(3))


# --- verification

trial_lists = st.lists(
    st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=30
).filter(lambda trials: len({same for _, same in trials}) == 2)


def pairs(trials):
    scores, same = zip(*trials, strict=True)
    return torch.tensor(scores, dtype=torch.float64), torch.tensor(same)


@settings(deadline=None, max_examples=100)
@given(trial_lists, st.sampled_from([(0.01, 1.0, 1.0), (0.5, 1.0, 1.0), (0.05, 10.0, 1.0)]))
def test_verification_is_what_a_scan_over_all_thresholds_says(trials, costs):
    """Few different scores, so that many are equal; fractions, so that the scan is exact."""
    scores, same = pairs(trials)
    expected = float(naive.equal_error(scores.tolist(), same.tolist()))
    assert equal_error_rate(scores, same).item() == pytest.approx(expected, abs=1e-14)
    names = dict(zip(("prior", "cost_miss", "cost_false_alarm"), costs, strict=True))
    expected = naive.smallest_cost(scores.tolist(), same.tolist(), *costs)
    assert min_dcf(scores, same, **names).item() == pytest.approx(float(expected), abs=1e-12)
    for threshold, miss, alarm in zip(*error_rates(scores, same), strict=True):
        exact = naive.both_errors(scores.tolist(), same.tolist(), threshold.item())
        assert (miss.item(), alarm.item()) == pytest.approx(tuple(map(float, exact)))


@settings(deadline=None, max_examples=50)
@given(trial_lists)
def test_error_rates_are_the_corners_of_scikit_learns_roc(trials):
    scores, same = pairs(trials)
    false_alarm, hit, threshold = roc_curve(same, scores, drop_intermediate=False)
    for ours, theirs in zip(
        error_rates(scores, same), (threshold, 1 - hit, false_alarm), strict=True
    ):
        assert ours.tolist() == pytest.approx(theirs.tolist(), abs=1e-14)


@settings(deadline=None, max_examples=50)
@given(trial_lists)
def test_the_two_kinds_of_pairs_can_trade_places(trials):
    scores, same = pairs(trials)
    swapped = equal_error_rate(-scores, ~same).item()
    assert equal_error_rate(scores, same).item() == pytest.approx(swapped, abs=1e-14)
    turned = equal_error_rate(-scores, same).item()  # an error above a half is a sign turned round
    assert equal_error_rate(scores, same).item() + turned == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize(
    ("together", "apart", "expected"),
    [
        ([0.9, 0.8], [0.1, 0.2, 0.3], 0),
        ([0.1, 0.2], [0.8, 0.9], 1),
        ([0.5, 0.5, 0.5], [0.5], 1 / 2),  # all equal: a coin
        ([0.9, 0.4], [0.6, 0.1], 1 / 2),
        ([0.9, 0.8, 0.7, 0.3], [0.6, 0.2, 0.1, 0.0], 1 / 4),
        ([0.9, 0.3], [0.6, 0.2, 0.1], 1 / 3),  # one half is missed, no score has one half alarmed
        ([0.9, 0.5], [0.5, 0.1], 1 / 4),  # the tie lets half of the one and half of the other in
    ],
)
def test_equal_error_rates_by_hand(together, apart, expected):
    scores = torch.tensor([*together, *apart])
    same = torch.arange(len(scores)) < len(together)
    assert equal_error_rate(scores, same).item() == pytest.approx(expected, abs=1e-15)
    order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(0))
    assert equal_error_rate(scores[order] * 7 - 3, same[order]).item() == pytest.approx(expected)


def test_the_cost_of_not_listening_is_1_and_a_false_alarm_weighs_99_misses():
    same = torch.arange(200) < 100
    assert min_dcf(torch.zeros(200), same).item() == 1
    assert min_dcf(same.double(), same).item() == 0
    one_alarm = same.double()
    one_alarm[150] = 2  # above every same pair
    assert min_dcf(one_alarm, same).item() == pytest.approx(99 / 100)
    one_miss = same.double()
    one_miss[0] = -1
    assert min_dcf(one_miss, same).item() == pytest.approx(1 / 100)


def test_scores_of_two_bell_curves_have_the_error_of_their_overlap():
    """Means two standard deviations apart: the threshold half-way errs on Phi(-1) of either."""
    generator = torch.Generator().manual_seed(0)
    same = torch.arange(400_000) < 100_000
    scores = torch.randn(400_000, generator=generator) + 2 * same
    expected = torch.special.ndtr(torch.tensor(-1.0)).item()
    assert equal_error_rate(scores, same).item() == pytest.approx(expected, abs=3e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_rates_are_exact_whatever_the_type_and_the_device(device):
    scores = torch.linspace(0, 1, 21).half().to(device).requires_grad_()
    same = torch.arange(21, device=device) % 3 == 0
    expected = float(naive.equal_error(scores.tolist(), same.tolist()))
    got = equal_error_rate(scores, same)
    assert got.dtype == torch.float64 and got.device.type == device and not got.requires_grad
    assert got.item() == pytest.approx(expected, abs=1e-15)


def test_torchmetrics_takes_the_mean_at_the_nearest_threshold():
    """So that its error and ours differ by less than the step between two thresholds."""
    classification = pytest.importorskip("torchmetrics.functional.classification")
    generator = torch.Generator().manual_seed(3)
    same = torch.arange(60) < 20
    scores = torch.rand(60, generator=generator) + 0.4 * same
    theirs = classification.binary_eer(scores / 2, same.long()).item()
    assert equal_error_rate(scores, same).item() == pytest.approx(theirs, abs=1 / 20)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda s, y: equal_error_rate(s[:2], y), r"\(2,\) and \(3,\)"),
        (lambda s, y: equal_error_rate(s, y | True), "3 same of 3"),
        (lambda s, y: min_dcf(s, y & False), "0 same of 3"),
        (lambda s, y: error_rates(s[:0], y[:0]), "0 same of 0"),
        (lambda s, y: error_rates(s / 0, y), "1 nan"),  # 0 / 0
        (lambda s, y: min_dcf(s, y, prior=1.0), "got 1.0"),
        (lambda s, y: min_dcf(s, y, cost_miss=0.0), "got 0.01, 0.0"),
        (lambda s, y: min_dcf(s, y, cost_false_alarm=-1.0), "-1.0"),
    ],
)
def test_trials_that_cannot_be_judged_are_told(unchecked, call, told):
    with pytest.raises(ValueError, match=told):
        call(torch.arange(3.0), torch.tensor([True, False, True]))


# --- geometry


@pytest.mark.parametrize("seed", range(3))
def test_the_geometry_is_what_the_loops_say(seed):
    h, y = rows(seed=seed)
    other, _ = rows(seed=100 + seed)
    same, different = naive.class_cosines(h, y)
    t, apart = naive.mean(same), naive.mean(different)
    torch.testing.assert_close(alignment(h, other), naive.alignment(h, other))
    torch.testing.assert_close(uniformity(h), naive.uniformity(h, 2))
    torch.testing.assert_close(uniformity(h, t=0.3), naive.uniformity(h, 0.3))
    torch.testing.assert_close(tolerance(h, y), t)
    torch.testing.assert_close(between_class_cosine(h, y), apart)
    torch.testing.assert_close(class_gap(h, y), t - apart)
    # the paper's formula, read literally: a mean over all pairs, with an indicator of the class
    literal = sum(same) / (len(same) + len(different))
    share = len(same) / (len(same) + len(different))
    torch.testing.assert_close(tolerance(h, y) * share, literal)


@pytest.mark.parametrize("degrees", [0, 1e-6, 30, 90, 179.9, 180])
def test_alignment_is_the_squared_chord_and_one_minus_half_of_it_the_cosine(degrees):
    value = alignment(3 * on_circle(10, 200), on_circle(10 + degrees, 200 - degrees)).item()
    assert value == pytest.approx(4 * math.sin(math.radians(degrees) / 2) ** 2, abs=1e-15)
    assert 1 - value / 2 == pytest.approx(math.cos(math.radians(degrees)), abs=1e-14)


def test_uniformity_of_points_in_known_places():
    assert uniformity(on_circle(25, 25, 25)).item() == pytest.approx(0, abs=1e-15)
    assert uniformity(on_circle(0, 180)).item() == pytest.approx(-8)
    assert uniformity(on_circle(0, 180), t=500.0).item() == pytest.approx(-2000)  # exp(-2000) is 0
    assert uniformity(torch.eye(9)).item() == pytest.approx(-4)
    # four corners of a square: 4 sides of squared length 2, 2 diagonals of 4
    square = math.log((4 * math.exp(-4) + 2 * math.exp(-8)) / 6)
    assert uniformity(on_circle(0, 90, 180, 270)).item() == pytest.approx(square)


def test_tolerance_and_gap_of_points_in_known_places():
    cos = math.cos(math.radians(20))
    h, y = on_circle(0, 20, 90, 110), torch.tensor([4, 4, 9, 9])
    assert tolerance(h, y).item() == pytest.approx(cos)
    # 90, 110, 70 and 90 degrees apart
    assert between_class_cosine(h, y).item() == pytest.approx(0, abs=1e-15)
    assert class_gap(h, y).item() == pytest.approx(cos)
    y = torch.arange(3).repeat(2)
    assert class_gap(torch.eye(3).repeat(2, 1), y).item() == pytest.approx(1)
    one_way = torch.ones(6, 3)
    assert tolerance(one_way, y).item() == pytest.approx(1)  # high, and knows nothing of classes
    assert class_gap(one_way, y).item() == pytest.approx(0, abs=1e-14)


def test_pairs_are_pooled_over_classes_not_averaged_by_class():
    h, y = on_circle(0, 0, 0, 0, 90), torch.tensor([0, 0, 0, 1, 1])
    assert tolerance(h, y).item() == pytest.approx((6 * 1 + 2 * 0) / 8)


@pytest.mark.parametrize("d", [1, 2, 5, 30])
def test_effective_rank_counts_directions(d):
    both_ways = torch.cat([torch.eye(d), -torch.eye(d)])
    assert effective_rank(both_ways).item() == pytest.approx(d)
    unused = torch.zeros(2 * d, 4)
    assert effective_rank(torch.cat([both_ways, unused], dim=1)).item() == pytest.approx(d)
    assert effective_rank(torch.eye(d + 1)).item() == pytest.approx(d)  # a simplex round its mean


def test_effective_rank_is_the_entropy_of_the_squared_singular_values_of_centred_unit_rows():
    h, _ = rows(n=30, d=8)
    u = torch.stack([naive.unit(v) for v in h])
    s = torch.linalg.svdvals(u - u.mean(0)).square()
    expected = torch.distributions.Categorical(s).entropy().exp()
    torch.testing.assert_close(effective_rank(h), expected)
    few, _ = rows(n=4, d=50)
    assert 1 < effective_rank(few).item() <= 3 + 1e-9  # N - 1, however many dimensions


@pytest.mark.parametrize("norm", [1.0, 0.3, 1e4])
def test_rows_that_all_point_one_way_have_no_direction_to_spread_over(norm):
    row = norm * torch.rand(1, 512, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    h = row * torch.linspace(1, 9, 50, dtype=torch.float64)[:, None]
    assert effective_rank(h).item() == 0


@pytest.mark.parametrize(
    "measure", [uniformity, effective_rank, *LABELLED, alignment], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("device", DEVICES)
def test_order_norms_rotation_type_and_device_do_not_matter(measure, device):
    h, y = rows()
    other, _ = rows(seed=9)
    second = {alignment: (other,), uniformity: (), effective_rank: ()}.get(measure, (y,))
    value = measure(h, *second)
    assert value.dtype == torch.float64 and not value.requires_grad
    generator = torch.Generator().manual_seed(5)
    order = torch.randperm(len(h), generator=generator)
    norms = torch.rand(len(h), 1, generator=generator, dtype=torch.float64) * 100 + 1e-3
    q = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
    moved = [x[order] @ q if x.is_floating_point() else x[order] + 7 for x in second]
    torch.testing.assert_close(measure((h * norms)[order] @ q, *moved), value)
    there = [x.to(device) for x in (h.float().requires_grad_(), *second)]
    got = measure(*there)
    assert got.device.type == device and not got.requires_grad
    torch.testing.assert_close(got.cpu(), value, atol=1e-6, rtol=1e-6)


def test_half_precision_in_does_not_mean_half_precision_sums():
    """65,504 is the largest float16; the sums of 4,000 rows of norm 20 are beyond it."""
    h = (rows(n=4000, d=16)[0].abs() * 20).half()
    y = torch.zeros(4000, dtype=torch.long)
    torch.testing.assert_close(tolerance(h, y), tolerance(h.double(), y))
    torch.testing.assert_close(uniformity(h), uniformity(h.double()))
    torch.testing.assert_close(effective_rank(h), effective_rank(h.double()))


def test_a_row_of_zeros_has_a_cosine_of_0_and_stays_at_the_centre():
    h, y = torch.cat([on_circle(0, 0), torch.zeros(2, 2)]), torch.tensor([0, 0, 0, 1])
    assert tolerance(h, y).item() == pytest.approx(2 / 6)
    assert between_class_cosine(h, y).item() == 0
    assert alignment(h, h.flip(0)).item() == pytest.approx(1)
    # one pair of equal rows, one of zeros, four at a distance of 1
    assert uniformity(h).item() == pytest.approx(math.log((2 + 4 * math.exp(-2)) / 6))
    assert effective_rank(h).item() == pytest.approx(1)
    nothing = torch.zeros(5, 3)
    assert effective_rank(nothing).item() == 0
    assert tolerance(nothing, torch.zeros(5, dtype=torch.long)).item() == 0
    assert uniformity(nothing).item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("pairs", [1, 20, 40, 41, 200, 400, 1599, 1600, 10**6])
def test_uniformity_does_not_depend_on_the_block(monkeypatch, pairs):
    h, _ = rows()
    value = naive.uniformity(h, 2)
    monkeypatch.setattr(metrics, "PAIRS_AT_ONCE", pairs)
    torch.testing.assert_close(uniformity(h), value)


def crowds(*sizes, d=8):
    """Rows of all norms along a few axes, shuffled, so many along each; and the axis of each."""
    axis = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    generator = torch.Generator().manual_seed(2)
    axis = axis[torch.randperm(len(axis), generator=generator)]
    norms = 0.1 + torch.rand(len(axis), 1, generator=generator)
    return norms * torch.eye(d)[axis], axis


@pytest.mark.parametrize("t", [0.5, 2.0, 30.0])
def test_uniformity_of_20_000_rows_is_what_counting_says(t):
    """Rows of one axis are equal, of two at a squared distance of 2: the pairs can be counted."""
    sizes = [1, 9, 1990, 5000, 13_000]
    n = sum(sizes)
    pairs, alike = math.comb(n, 2), sum(math.comb(size, 2) for size in sizes)
    expected = math.log((alike + (pairs - alike) * math.exp(-2 * t)) / pairs)
    assert n == 20_000
    assert uniformity(crowds(*sizes)[0], t=t).item() == pytest.approx(expected, abs=1e-12)


def test_uniformity_of_many_different_rows_is_what_their_distances_say():
    """Against distances in place of products, summed in double precision without logarithms."""
    h = rows(n=5001, d=5)[0]
    u = h / h.norm(dim=1, keepdim=True)
    total = sum((-2 * (v - u[i + 1 :]).square().sum(1)).exp().sum() for i, v in enumerate(u))
    torch.testing.assert_close(uniformity(h), (total / math.comb(len(u), 2)).log())


def test_cosines_of_200_000_rows_are_what_counting_says():
    """A class is a bundle of axes; two rows have a cosine of 1 on one axis, and else of 0."""
    sizes = [1, 999, 19_000, 80_000, 100_000]
    h, axis = crowds(*sizes)
    y = torch.tensor([3, 3, 7, 7, 9])[axis]
    squares = {3: [1, 999], 7: [19_000, 80_000], 9: [100_000]}
    alike = sum(n * (n - 1) for n in sizes)
    same_class = sum(sum(some) * (sum(some) - 1) for some in squares.values())
    assert tolerance(h, y).item() == pytest.approx(alike / same_class, abs=1e-12)
    assert between_class_cosine(h, y).item() == pytest.approx(0, abs=1e-12)
    mixed = torch.arange(len(h)) % 2  # now every class has all axes
    counts = torch.stack([axis[mixed == k].bincount(minlength=5) for k in (0, 1)])
    first, second = counts.tolist()
    expected = sum(a * b for a, b in zip(first, second, strict=True)) / (sum(first) * sum(second))
    assert between_class_cosine(h, mixed).item() == pytest.approx(expected, abs=1e-12)
    pairs = sum(sum(some) * (sum(some) - 1) for some in (first, second))
    alike = sum(n * (n - 1) for n in (*first, *second))
    assert tolerance(h, mixed).item() == pytest.approx(alike / pairs, abs=1e-12)


# a process for each measure, forked from one that has imported them
MEMORY = """
import json, multiprocessing, sys
import torch
from acl_lib import metrics

def peak():
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

def extra(name, labelled):
    torch.set_num_threads(1)
    h, y = torch.randn(20_000, 64), torch.arange(20_000) % 20
    getattr(metrics, name)(h[:300], *[y[:300]] * labelled)  # libraries load at the first call
    before = peak()
    getattr(metrics, name)(h, *[y] * labelled)
    return peak() - before

with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
    print(json.dumps(pool.starmap(extra, json.loads(sys.argv[1]), chunksize=1)))
"""


def test_many_rows_take_a_multiple_of_their_own_memory():
    """20,000 rows of 64 are 10 MB in double precision, and 3,200 MB if all pairs are kept."""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("only Linux tells the highest memory of a process")
    calls = json.dumps([["uniformity", 0], ["class_gap", 1]])
    env = dict(os.environ, OMP_NUM_THREADS="1")
    words = [sys.executable, "-c", MEMORY, calls]
    done = subprocess.run(words, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    for extra in json.loads(done.stdout):
        assert 5 < extra < 150, done.stdout  # MB; three copies of the rows, six arrays of 8 MB


class Largest(TorchFunctionMode):
    """Number of entries of the largest tensor that a call of torch returns."""

    entries = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.entries = max(self.entries, result.numel())
        return result


@pytest.mark.parametrize(
    "measure", [uniformity, effective_rank, *LABELLED], ids=lambda f: f.__name__
)
def test_nothing_of_n_times_n_entries_is_ever_built(measure):
    n = 6000
    h, y = rows(n=n, d=4)
    with Largest() as largest:
        value = measure(h, *([y] if measure in LABELLED else []))
    assert n * 4 <= largest.entries <= metrics.PAIRS_AT_ONCE < n * n / 30
    assert value.isfinite()


def test_many_rows_spread_evenly_have_the_uniformity_of_the_sphere():
    """In d dimensions E exp(-t |u - v|^2) = exp(-2t) 0F1(d / 2; t^2), here by its series."""
    t, d = 2.0, 8
    term, bessel = 1.0, 1.0
    for n in range(30):
        term *= t**2 / ((n + 1) * (d / 2 + n))
        bessel += term
    value = uniformity(rows(n=8000, d=d)[0]).item()
    assert value == pytest.approx(-2 * t + math.log(bessel), abs=3e-3)
    assert effective_rank(rows(n=8000, d=d)[0]).item() == pytest.approx(d, rel=1e-3)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda h, y: alignment(h, h[:2]), r"\(4, 2\) and \(2, 2\)"),
        (lambda h, y: alignment(h[:0], h[:0]), "N >= 1"),
        (lambda h, y: uniformity(h[:1]), "at least 2 rows, got 2.0 and 1"),
        (lambda h, y: uniformity(h, t=0.0), "t > 0"),
        (lambda h, y: tolerance(h, y), "4 rows, each of its own"),
        (lambda h, y: tolerance(h, y[:2]), r"got \(2,\) for \(4, 2\)"),
        (lambda h, y: between_class_cosine(h, 0 * y), "two classes"),
        (lambda h, y: between_class_cosine(h[:0], y[:0]), "two classes"),
        (lambda h, y: class_gap(h, 0 * y), "two classes"),
        (lambda h, y: class_gap(h, y), "each of its own"),
        (lambda h, y: effective_rank(h[:1]), "at least 2 rows to spread, got 1"),
    ],
)
def test_rows_without_the_pairs_are_told(unchecked, call, told):
    with pytest.raises(ValueError, match=told):
        call(on_circle(0, 40, 90, 200), torch.arange(4))


# --- the published values

# -U of z (view 1) and T of z (both views) as the authors' table has them, to 4 decimals; then from
# the same features: T of different classes and the gap on z; -U, T, T of different classes, gap,
# cosine of the two views and effective rank (view 1) on h. The table prints the T of t0.2a0.3
# (0.9437) once more at t0.3a0.4, where the features say 0.9595.
PUBLISHED = {
    "t0.2": (0.3719, 0.9189, 0.9031, 0.0158, 1.2259, 0.7282, 0.6704, 0.0579, 0.8457, 47.9),
    "t0.2a0.3": (0.2605, 0.9437, 0.9316, 0.0121, 0.3355, 0.9271, 0.9145, 0.0126, 0.9555, 47.5),
    "t0.3": (0.2954, 0.9357, 0.9238, 0.0119, 0.8481, 0.8113, 0.7747, 0.0366, 0.8937, 41.0),
    "t0.3a0.4": (0.1874, 0.9595, 0.9516, 0.0078, 0.2732, 0.9417, 0.9298, 0.0119, 0.9667, 33.6),
}


@functools.cache
def features():
    if not released_dir().is_dir():
        pytest.skip("the authors' features need ACL_DATA/acl_published_features")
    return load_released_features()


def released(name):
    """Both views of h and z, and the classes, of the 947 test clips."""
    found = features()[name]
    return list(found.h), list(found.z), found.y


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_papers_uniformity_and_tolerance_come_out_of_its_features(name):
    _, z, y = released(name)
    assert len(y) == 947
    both, labels = torch.cat(z), torch.cat([y, y])
    got = (
        -uniformity(z[0]),
        tolerance(both, labels),
        between_class_cosine(both, labels),
        class_gap(both, labels),
    )
    assert [round(value.item(), 4) for value in got] == list(PUBLISHED[name][:4])


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_same_measures_of_the_encoders_output(name):
    h, _, y = released(name)
    both, labels = torch.cat(h), torch.cat([y, y])
    got = (
        -uniformity(h[0]),
        tolerance(both, labels),
        between_class_cosine(both, labels),
        class_gap(both, labels),
        1 - alignment(*h) / 2,
    )
    assert [round(value.item(), 4) for value in got] == list(PUBLISHED[name][4:9])
    assert round(effective_rank(h[0]).item(), 1) == PUBLISHED[name][9]


def test_accuracies_are_those_of_torchmetrics():
    classification = pytest.importorskip("torchmetrics.functional.classification")
    rng = torch.Generator().manual_seed(0)
    posterior = torch.rand(200, 5, generator=rng).softmax(1)
    y = torch.randint(5, (200,), generator=rng) ** 2 % 5  # unbalanced
    y[:5] = torch.arange(5)
    guess = posterior.argmax(1)

    def theirs(average):
        return classification.multiclass_accuracy(guess, y, 5, average=average).double()

    assert accuracy(posterior, y).double() == pytest.approx(theirs("micro").item())
    assert balanced_accuracy(guess, y, 5).item() == pytest.approx(theirs("macro").item())
    assert torch.allclose(per_class_accuracy(guess, y, 5), theirs(None))
