"""What holds for any input: shapes, ranges, what must not matter, and gradients that are finite.

Other tests compare values with equations; here inputs are drawn, extreme ones among them.
"""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_views import store

from acl_lib import augment, blockwise, losses, metrics, statistics, views

DTYPES = [torch.float32, torch.bfloat16, torch.float64]
seeds = st.integers(0, 2**31 - 1)
few, more = settings(max_examples=5), settings(max_examples=20)


def rng(seed):
    return torch.Generator().manual_seed(seed)


def gaussian(*shape, seed, dtype=torch.float64):
    return torch.randn(shape, generator=rng(seed), dtype=torch.float64).to(dtype)


def classes(rows):
    return torch.arange(rows) % 3


# every public loss of two views
COMMON = {"temperature": 0.2}
LOSSES = {
    "nt_xent": lambda a, b: losses.nt_xent(a, b, **COMMON),
    "one way": lambda a, b: losses.nt_xent_one_way(a, b, **COMMON),
    "additive": lambda a, b: losses.nt_xent_additive(a, b, margin=0.3, **COMMON),
    "additive one way": lambda a, b: losses.nt_xent_additive_one_way(a, b, margin=0.3, **COMMON),
    "angular": lambda a, b: losses.nt_xent_angular(a, b, margin=0.4, **COMMON),
    "angular one way": lambda a, b: losses.nt_xent_angular_one_way(a, b, margin=0.4, **COMMON),
    "contrastive": lambda a, b: losses.contrastive(
        a, b, positive_margin=0.4, margin_kind="angular", symmetric=False, **COMMON
    ),
    "queue": lambda a, b: losses.queue_nt_xent(a, b, a + 2 * b, margin=0.2, **COMMON),
    "queue, angular": lambda a, b: losses.queue_nt_xent(
        a, b, a + 2 * b, margin=0.2, margin_kind="angular", **COMMON
    ),
    "margin": lambda a, b: losses.angular_margin(a, b, margin=1.2),
    "margin, mean": lambda a, b: losses.angular_margin(a, b, margin=2.5, reduction="mean"),
    "acl": lambda a, b: losses.acl(a, b, b, a, alpha=0.3, margin=1.2, **COMMON),
}
SYMMETRIC = {"nt_xent", "additive", "angular", "margin", "margin, mean"}
LABELLED = {
    "supcon": lambda h, y: losses.supcon(h, y, **COMMON),
    "margin": lambda h, y: losses.supervised_angular_margin(h, y, margin=1.2),
    "margin, mean": lambda h, y: losses.supervised_angular_margin(
        h, y, margin=2.5, reduction="mean"
    ),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def tiled(patch, rows):
    """From now on in tiles of so many rows."""
    patch.setattr(losses, "BLOCKWISE_ROWS", 2)
    patch.setattr(blockwise, "TILE", {"cpu": rows})


# --- losses


@every_loss
@pytest.mark.parametrize("tile", [None, 3], ids=["whole", "tiles"])
@few
@given(seed=seeds, clips=st.integers(2, 6), d=st.integers(2, 5))
def test_order_rotation_and_norms_of_the_rows_cost_nothing(name, tile, seed, clips, d):
    loss, a, b = LOSSES[name], gaussian(clips, d, seed=seed), gaussian(clips, d, seed=seed + 1)
    order = torch.randperm(clips, generator=rng(seed))
    turn = torch.linalg.qr(gaussian(d, d, seed=seed + 2))[0]
    norms = gaussian(clips, 1, seed=seed + 3).exp()
    changed = [(a[order], b[order]), (a @ turn, b @ turn)]
    if "queue" not in name:  # its negatives here are sums of the rows, whose norms then count
        changed.append((a * norms, b / norms))
    if name in SYMMETRIC:
        changed.append((b, a))
    with pytest.MonkeyPatch.context() as patch:
        if tile:
            tiled(patch, tile)
        value = loss(a, b)
        for views_ in changed:
            torch.testing.assert_close(loss(*views_), value, rtol=1e-8, atol=1e-9)
    assert value.shape == () and value >= 0


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("tile", [None, 3], ids=["whole", "tiles"])
@few
@given(seed=seeds, rows=st.integers(2, 9), d=st.integers(2, 5))
def test_labelled_losses_see_angles_and_which_labels_agree(name, tile, seed, rows, d):
    loss, h, y = LABELLED[name], gaussian(rows, d, seed=seed), classes(rows)
    order = torch.randperm(rows, generator=rng(seed))
    turn = torch.linalg.qr(gaussian(d, d, seed=seed + 2))[0]
    norms = gaussian(rows, 1, seed=seed + 3).exp()
    with pytest.MonkeyPatch.context() as patch:
        if tile:
            tiled(patch, tile)
        value = loss(h, y)
        for changed in ((h[order], y[order]), (h @ turn, y), (h * norms, y), (h, 7 - y)):
            torch.testing.assert_close(loss(*changed), value, rtol=1e-8, atol=1e-9)
    assert value.shape == () and value >= 0


def extreme(kind, seed):
    """Two views of 6 clips."""
    a, b = gaussian(6, 4, seed=seed), gaussian(6, 4, seed=seed + 1)
    return {
        "huge": (1e4 * a, 1e4 * b),
        "tiny": (1e-6 * a, 1e-6 * b),
        "both": (1e4 * a, 1e-6 * b),
        "all equal": (a[:1].expand(6, 4), a[:1].expand(6, 4)),
        "opposite": (a, -a),
        "no rows with a direction": (0 * a, 0 * b),
        "some rows without": (a * (torch.arange(6) % 2)[:, None], b),
    }[kind]


EXTREMES = [
    "huge", "tiny", "both", "all equal", "opposite", "no rows with a direction",
    "some rows without",
]  # fmt: skip


@pytest.mark.parametrize("kind", EXTREMES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tile", [None, 4], ids=["whole", "tiles"])
def test_extreme_rows_give_finite_losses_and_gradients(kind, dtype, tile, monkeypatch):
    if tile:
        tiled(monkeypatch, tile)
    pair = [x.to(dtype) for x in extreme(kind, seed=0)]
    h = torch.cat(pair)
    forms = {name: (form, pair) for name, form in LOSSES.items()}
    for name, form in LABELLED.items():
        forms[name, "labelled"] = (lambda x, form=form: form(x, classes(12)), [h])
    forms["supervised_acl"] = (
        lambda x: losses.supervised_acl(x, x, classes(12), alpha=0.5), [h]
    )  # fmt: skip
    forms["pair_angles"] = (lambda a, b: losses.pair_angles(a, b).sum(), pair)
    for name, (form, inputs) in forms.items():
        leaves = [x.clone().requires_grad_() for x in inputs]
        value = form(*leaves)
        value.backward()
        assert value.isfinite() and value.dtype == torch.promote_types(dtype, torch.float32)
        for leaf in leaves:
            assert leaf.grad.isfinite().all() and leaf.grad.dtype == dtype, name


@few
@given(seed=seeds, alpha=st.floats(0, 1), clips=st.integers(2, 6))
def test_acl_lies_on_the_line_between_its_parts(seed, alpha, clips):
    x = [gaussian(clips, 4, seed=seed + k) for k in range(4)]
    ends = losses.nt_xent(*x[:2], **COMMON), losses.angular_margin(*x[2:], margin=0.7)
    value = losses.acl(*x, alpha=alpha, margin=0.7, **COMMON)
    torch.testing.assert_close(value, alpha * ends[0] + (1 - alpha) * ends[1])
    h, y = torch.cat(x[2:]), classes(2 * clips)
    logits = torch.cat(x[:2])
    ends = [losses.supervised_acl(logits, h, y, alpha=end) for end in (1.0, 0.0)]
    assert torch.equal(ends[0], torch.nn.functional.cross_entropy(logits, y))
    assert torch.equal(ends[1], losses.supervised_angular_margin(h, y))
    value = losses.supervised_acl(logits, h, y, alpha=alpha)
    torch.testing.assert_close(value, alpha * ends[0] + (1 - alpha) * ends[1])


@few
@given(seed=seeds, small=st.floats(0, 1), wider=st.floats(0.01, 1))
def test_a_larger_margin_never_costs_less_and_none_is_nt_xent(seed, small, wider):
    a, b = gaussian(4, 3, seed=seed), gaussian(4, 3, seed=seed + 1)
    for kind, symmetric in itertools.product(losses.MARGIN_KINDS, (True, False)):

        def cost(margin, kind=kind, symmetric=symmetric):
            options = {"margin_kind": kind, "symmetric": symmetric, **COMMON}
            return losses.contrastive(a, b, positive_margin=margin, **options)

        bare = losses.nt_xent if symmetric else losses.nt_xent_one_way
        assert torch.equal(cost(0.0), bare(a, b, **COMMON))
        if kind == "additive":
            assert cost(small + wider / 2) >= cost(small)
    assert losses.angular_margin(a, b, margin=small + wider) >= losses.angular_margin(
        a, b, margin=small + wider / 2
    )


@few
@given(seed=seeds, clips=st.integers(1, 6), d=st.integers(2, 6))
def test_angles_lie_between_0_and_pi_and_their_supplements_add_up(seed, clips, d):
    a, b = gaussian(clips, d, seed=seed), gaussian(clips, d, seed=seed + 1)
    theta = losses.pair_angles(a, b)
    assert theta.shape == (clips,) and (theta >= 0).all() and (theta <= math.pi).all()
    torch.testing.assert_close(losses.pair_angles(b, a), theta)
    torch.testing.assert_close(losses.pair_angles(a, -b), math.pi - theta)
    torch.testing.assert_close(theta.cos(), torch.cosine_similarity(a, b))


# --- measures


@more
@given(seed=seeds, n=st.integers(3, 12), d=st.integers(2, 5), scale=st.sampled_from([1e-6, 1, 1e4]))
def test_geometry_stays_within_its_bounds(seed, n, d, scale):
    h, other, y = scale * gaussian(n, d, seed=seed), gaussian(n, d, seed=seed + 1), classes(n)
    edge = 1e-12
    assert -edge <= metrics.alignment(h, other) <= 4 + edge
    for t in (0.5, 2.0):
        assert -4 * t - edge <= metrics.uniformity(h, t=t) <= edge
    assert 1 - edge <= metrics.effective_rank(h) <= min(d, n - 1) + 1e-9
    apart = metrics.between_class_cosine(h, y)
    assert -1 - edge <= apart <= 1 + edge
    y = y % 2
    together, apart = metrics.tolerance(h, y), metrics.between_class_cosine(h, y)
    assert -1 - edge <= together <= 1 + edge
    torch.testing.assert_close(metrics.class_gap(h, y), together - apart)
    assert torch.equal(metrics.alignment(h, other), metrics.alignment(other, h))
    assert metrics.alignment(h, h) == 0


@more
@given(seed=seeds, n=st.integers(1, 30), k=st.integers(1, 5))
def test_accuracies_are_fractions_that_no_order_of_the_clips_changes(seed, n, k):
    posterior = gaussian(n, k, seed=seed).softmax(1)
    guess, y = posterior.argmax(1), torch.randint(k, (n,), generator=rng(seed + 1))
    lengths, order = torch.randint(1, 9, (n,), generator=rng(seed)), torch.randperm(n)
    for measure in (
        lambda p, g, y, long: metrics.accuracy(p, y),
        lambda p, g, y, long: metrics.balanced_accuracy(g, y, k),
        lambda p, g, y, long: metrics.patch_weighted_accuracy(g, y, long),
        lambda p, g, y, long: metrics.per_class_accuracy(g, y, k),
    ):
        value = measure(posterior, guess, y, lengths)
        assert ((value >= 0) & (value <= 1) | value.isnan()).all()
        again = measure(*(x[order] for x in (posterior, guess, y, lengths)))
        torch.testing.assert_close(again, value, equal_nan=True)
    right = metrics.per_class_accuracy(y, y, k)
    assert (
        torch.equal(right.isnan(), y.bincount(minlength=k) == 0)
        and (right.nan_to_num(1) == 1).all()
    )


@more
@given(
    trials=st.lists(st.tuples(st.integers(-4, 4), st.booleans()), max_size=20),
    prior=st.floats(0.01, 0.99),
)
def test_only_the_order_of_scores_counts_in_verification(trials, prior):
    trials = [*trials, (0, True), (1, False)]
    scores = torch.tensor([score for score, _ in trials], dtype=torch.float64)
    same = torch.tensor([alike for _, alike in trials])
    rates = metrics.error_rates(scores, same)
    others = metrics.error_rates(scores.exp() * 3 - 1, same)
    assert torch.equal(rates[1], others[1]) and torch.equal(rates[2], others[2])
    for thresholds, miss, alarm in (rates, others):
        assert (thresholds.diff() < 0).all() and (miss.diff() <= 0).all()
        assert (alarm.diff() >= 0).all()
        assert (miss[0], miss[-1], alarm[0], alarm[-1]) == (1, 0, 0, 1)
    assert 0 <= metrics.equal_error_rate(scores, same) <= 1
    assert 0 <= metrics.min_dcf(scores, same, prior=prior) <= 1


# --- statistics


@more
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_surer_interval_is_a_wider_one_round_the_share(counts):
    right, n = counts
    widths = []
    for confidence in (0.2, 0.8, 0.95, 0.999):
        low, high = statistics.wilson_interval(right, n, confidence=confidence)
        assert 0 <= low <= right / n + 1e-12 and right / n - 1e-12 <= high <= 1
        widths.append(high - low)
    assert widths == sorted(widths)
    assert statistics.wilson_interval(right, n) == statistics.wilson_interval(
        right, n, confidence=0.95
    )


@more
@given(seed=seeds, n=st.integers(2, 30), sources=st.integers(2, 8))
def test_intervals_do_not_see_what_sources_and_classes_are_called(seed, n, sources):
    g = rng(seed)
    a, b = torch.rand(n, generator=g) < 0.6, torch.rand(n, generator=g) < 0.7
    source, y = torch.arange(n) % sources, torch.randint(3, (n,), generator=g)
    options = {"resamples": 50, "seed": seed % 1000}
    found = statistics.bootstrap_interval(a, None, y, source, **options)
    assert found == statistics.bootstrap_interval(a, None, y * 5 - 2, source * 3 + 7, **options)
    assert 0 <= found[0] <= found[1] <= 1
    wide = statistics.bootstrap_interval(a, None, y, source, confidence=0.99, **options)
    assert wide[0] <= found[0] and found[1] <= wide[1]
    forth = statistics.paired_bootstrap(a, b, source, strata=y, **options)
    back = statistics.paired_bootstrap(b, a, source, strata=y, **options)
    assert back == pytest.approx((-forth[0], -forth[2], -forth[1]))
    assert -1 <= forth[1] <= forth[2] <= 1
    p = statistics.mcnemar(a, b, source)
    assert p == pytest.approx(statistics.mcnemar(b, a, source * 3 + 7)) and 0 < p <= 1


@more
@given(values=st.lists(st.floats(-10, 10).map(lambda x: round(x, 3)), min_size=3, max_size=9))
def test_a_shift_or_a_mirror_moves_no_measure_of_smoothness(values):
    low, high = statistics.seed_interval(values)
    wide = statistics.seed_interval(values, confidence=0.99)
    assert wide[0] <= low <= sum(values) / len(values) + 1e-9 and high <= wide[1]
    moved = [3 - 2 * v for v in values]
    assert statistics.seed_interval(moved) == pytest.approx((3 - 2 * high, 3 - 2 * low), abs=1e-9)
    spread = statistics.sd_from_neighbours(values)
    assert spread >= 0
    assert statistics.sd_from_neighbours(moved[::-1]) == pytest.approx(2 * spread, abs=1e-9)
    if max(values) - min(values) > 0.01:
        ratio = statistics.von_neumann_ratio(values)
        assert 0 <= ratio <= 4
        assert statistics.von_neumann_ratio(moved[::-1]) == pytest.approx(ratio)
        assert 0 < statistics.von_neumann_test(values, permutations=20) <= 1


@more
@given(a=st.floats(0, 1), b=st.floats(0, 1), n=st.integers(1, 900), m=st.integers(1, 900))
def test_two_shares_can_trade_places(a, b, n, m):
    z, p = statistics.two_proportion_test(a, b, n, m)
    back = statistics.two_proportion_test(b, a, m, n)
    assert back == pytest.approx((-z, p)) and 0 <= p <= 1
    assert z * (b - a) >= 0
    assert statistics.two_proportion_test(a, b, n) == statistics.two_proportion_test(a, b, n, n)


@more
@given(seed=seeds, rows=st.integers(1, 5), settings_=st.integers(2, 5))
def test_a_level_of_its_own_for_each_seed_does_not_make_a_curve(seed, rows, settings_):
    values, level = gaussian(rows, settings_, seed=seed), gaussian(rows, 1, seed=seed + 1)
    p = statistics.flat_curve_test(values, shuffles=40)
    assert 0 < p <= 1
    assert statistics.flat_curve_test(values + level, shuffles=40) == p


@more
@given(effect=st.floats(0.3, 3), sd=st.floats(0.1, 5))
def test_plans_depend_on_the_effect_in_units_of_the_spread(effect, sd):
    for plan in (statistics.seeds_per_arm, statistics.pairs_needed):
        seeds_needed = plan(effect, 1.0)
        assert seeds_needed >= 2
        assert plan(-effect * sd * 1.0001, sd) <= seeds_needed <= plan(effect * sd * 0.9999, sd)
        assert plan(effect, 1.0, power=0.9) >= seeds_needed
    assert statistics.best_of_noise(5, sd) == pytest.approx(sd * statistics.best_of_noise(5, 1.0))


# --- views


lengths_of_clips = st.lists(st.integers(5, 30), min_size=1, max_size=6)


@more
@given(lengths=lengths_of_clips, patch=st.integers(1, 5), seed=seeds, last=st.booleans())
def test_both_views_are_whole_pieces_of_their_own_clip(lengths, patch, seed, last):
    frames, starts, lengths = store(lengths)
    clips = torch.randint(len(lengths), (8,), generator=rng(seed))
    options = {"patch_frames": patch, "last_start": last}
    pair = views.patch_pairs(frames, starts, lengths, clips, rng(seed), **options)
    for x in pair:
        assert x.shape == (8, 1, 3, patch) and x.dtype == torch.float32
        assert (x[:, 0, 0] == clips[:, None]).all()
        first, within = x[:, 0, 1, 0], x[:, 0, 1]
        assert (within == first[:, None] + torch.arange(patch)).all()
        assert (first >= 0).all() and (first + patch <= lengths[clips]).all()
    one = views.random_patches(frames, starts, lengths, clips, rng(seed), **options)
    assert torch.equal(one, pair[0])


@more
@given(lengths=lengths_of_clips, patch=st.integers(1, 5), hop=st.integers(1, 5))
def test_all_patches_cover_every_frame_but_a_rest_shorter_than_a_hop(lengths, patch, hop):
    frames, starts, lengths = store(lengths)
    hop = min(hop, patch)
    clips = torch.arange(len(lengths)).flip(0)
    first, clip = views.all_patches(starts, lengths, clips, patch_frames=patch, hop=hop)
    assert torch.equal(clip.unique_consecutive(), clips)
    x = views.gather_patches(frames, first, patch)
    assert (x[:, 0, 0] == clip[:, None]).all()
    for c in range(len(lengths)):
        covered = x[clip == c][:, 0, 1].unique()
        assert torch.equal(covered, torch.arange(len(covered)).float())
        assert lengths[c] - hop < len(covered) <= lengths[c]


@more
@given(seed=seeds, ratio=st.floats(0, 0.99), level=st.floats(-8, 8))
def test_mixing_back_leaves_the_shape_and_moves_with_the_level(seed, ratio, level):
    x, y = gaussian(3, 1, 4, 6, seed=seed), gaussian(3, 1, 4, 6, seed=seed + 1)
    share = torch.full((3,), ratio, dtype=torch.float64)
    mixed = views.mix_back(x, y, share)
    assert mixed.shape == x.shape and mixed.isfinite().all()
    assert (mixed >= x + math.log10(1 - ratio) - 1e-9).all()
    torch.testing.assert_close(views.mix_back(x + level, y, share), mixed + level)
    torch.testing.assert_close(views.mix_back(x, y + level, share), mixed)


# --- augmentations

TRANSFORMS = [
    augment.RandomResizedCrop(),
    augment.Compander(),
    augment.GaussianNoise(),
    augment.TimeMask(),
    augment.FrequencyMask(),
    augment.GaussianBlur(radius=2),
    augment.TimeShift(),
    augment.FrequencyShift(),
    augment.TimeReversal(),
    augment.Reverberation(),
    augment.ColouredNoise(),
    augment.Compose([augment.TimeMask(), augment.Compander()]),
]
every_transform = pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: type(t).__name__)
BETWEEN = (  # draw no value that lies outside those of the patch
    augment.RandomResizedCrop,
    augment.TimeMask,
    augment.FrequencyMask,
    augment.GaussianBlur,
    augment.TimeShift,
    augment.FrequencyShift,
    augment.TimeReversal,
)
LOUDER = (augment.Reverberation, augment.ColouredNoise)  # add power, and take none away


@every_transform
@few
@given(
    seed=seeds,
    shape=st.tuples(st.integers(1, 5), st.integers(4, 20), st.integers(4, 20)),
    level=st.sampled_from([-30.0, 0.0, 5.0]),
)
def test_a_transform_keeps_the_shape_and_promised_ranges(transform, seed, shape, level):
    examples, bands, frames = shape
    x = level + 2 * gaussian(examples, 1, bands, frames, seed=seed, dtype=torch.float32)
    before, y = x.clone(), transform(x, rng(seed))
    assert torch.equal(x, before)
    assert y.shape == x.shape and y.dtype == x.dtype and y.isfinite().all()
    assert torch.equal(transform(x, rng(seed)), y)
    if isinstance(transform, BETWEEN):
        low, high = x.amin((-2, -1)), x.amax((-2, -1))
        assert (y.amin((-2, -1)) >= low - 1e-4).all() and (y.amax((-2, -1)) <= high + 1e-4).all()
    if isinstance(transform, LOUDER):
        assert (y >= x - 1e-4).all()
    if isinstance(transform, (augment.TimeShift, augment.FrequencyShift, augment.TimeReversal)):
        assert torch.equal(y.flatten(1).sort().values, x.flatten(1).sort().values)


@every_transform
@few
@given(seed=seeds)
def test_another_seed_draws_another_batch(transform, seed):
    x = gaussian(12, 1, 16, 16, seed=1, dtype=torch.float32)
    assert not torch.equal(transform(x, rng(seed)), transform(x, rng(seed + 1)))


NOTHING = [
    augment.RandomResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0)),
    augment.Compander(low=1.0),
    augment.GaussianNoise(max_sigma=0.0),
    augment.TimeMask(max_width=0),
    augment.FrequencyMask(count=0),
    augment.GaussianBlur(p=0.0, radius=2),
    augment.GaussianBlur(radius=0, p=1.0),
    augment.TimeReversal(p=0.0),
    augment.Compose([]),
]


@pytest.mark.parametrize("transform", NOTHING, ids=str)
@few
@given(seed=seeds, side=st.integers(4, 20))
def test_settings_of_no_effect_leave_the_batch_as_it_is(transform, seed, side):
    x = gaussian(3, 1, side, side, seed=seed, dtype=torch.float32)
    assert torch.equal(transform(x, rng(seed)), x)
