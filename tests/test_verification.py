"""Errors over speakers against copies of the trials, scikit-learn and torchmetrics."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_curve
from torchmetrics.classification import BinaryEER

from acl_lib.metrics import equal_error_rate, min_dcf
from acl_lib.verification import (
    Trials,
    all_trials,
    binned_scores,
    cosine_scores,
    det_points,
    listed_trials,
    pack_rates,
    resampled_errors,
    unpack_rates,
    verification_score,
    weighted_errors,
)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def made(speakers=8, takes=5, *, seed=0, noise=1.0):
    """Representations, speakers and trials of made-up utterances."""
    voice = torch.randn(speakers, 6, generator=rng(seed), dtype=torch.double)
    y = torch.arange(speakers).repeat_interleave(takes)
    h = voice[y] + noise * torch.randn(len(y), 6, generator=rng(seed + 1), dtype=torch.double)
    trials = all_trials(torch.arange(len(y)), y)
    return cosine_scores(h, torch.arange(len(y)), trials), trials


def test_every_pair_is_a_trial_once():
    y = torch.tensor([0, 0, 1, 1, 1, 2])
    trials = all_trials(torch.tensor([0, 2, 3, 5]), y)
    pairs = list(zip(trials.a.tolist(), trials.b.tolist(), strict=True))
    assert pairs == [(0, 2), (0, 3), (0, 5), (2, 3), (2, 5), (3, 5)]
    assert trials.same.tolist() == [False, False, False, True, False, False]


def test_a_list_of_one_kind_is_refused():
    y = torch.tensor([0, 0, 1])
    with pytest.raises(ValueError, match="1 of one among 1"):
        listed_trials(torch.tensor([[0, 1]]), y)
    with pytest.raises(ValueError, match="0 of one among 2"):
        listed_trials(torch.tensor([[0, 2], [1, 2]]), y)


def test_a_clip_is_the_mean_direction_of_its_patches():
    h = torch.tensor([[2.0, 0.0], [0.0, 7.0], [1.0, 0.0], [0.0, 1.0]])
    clip = torch.tensor([4, 4, 9, 11])
    trials = Trials(*(torch.tensor(x) for x in ([4, 9], [9, 11], [0, 0], [0, 1])))
    assert cosine_scores(h, clip, trials).tolist() == pytest.approx([0.5**0.5, 0.0], abs=2e-5)


def test_rates_and_scores_survive_the_record():
    rates = torch.tensor([0.0, 0.123456, 1.0, torch.nan], dtype=torch.double)
    kept = unpack_rates(pack_rates(rates))
    assert kept[[0, 2]].tolist() == [0, 1] and kept[3].isnan()
    assert kept[1].item() == pytest.approx(0.123456, abs=2e-5)
    scores, trials = made()
    for some in (scores, 0.98 + scores / 1000):  # an untrained network's cosines lie close together
        again, same = binned_scores(verification_score([(some, trials)])["scores"])
        for kind in (True, False):
            gap = again[same == kind] - some[trials.same == kind].sort().values
            assert gap.abs().max() <= (some.max() - some.min()) / 256 * (1 + 1e-9)


@pytest.mark.parametrize("tied", [False, True])
def test_weighted_errors_are_those_of_copies_of_the_trials(tied):
    scores, trials = made(6, 4)
    scores = (4 * scores).round() / 4 if tied else scores
    weights = torch.randint(0, 4, (20, len(trials)), generator=rng(3)).double()
    eer, dcf = weighted_errors(scores, trials.same, weights)
    for r in range(20):
        copies = weights[r].long()
        some, same = scores.repeat_interleave(copies), trials.same.repeat_interleave(copies)
        assert eer[r].item() == pytest.approx(equal_error_rate(some, same).item(), abs=1e-12)
        assert dcf[r].item() == pytest.approx(min_dcf(some, same).item(), abs=1e-12)


def test_one_kind_without_weight_is_nan():
    scores, trials = made(3, 3)
    eer, dcf = weighted_errors(scores, trials.same, (~trials.same)[None].double())
    assert eer.isnan().all() and dcf.isnan().all()


def test_resampled_speakers_bring_their_pairs():
    """By hand: the trials of a resample, with copies of a speaker never against each other."""
    scores, trials = made(5, 3)
    eer, _ = resampled_errors([(scores, trials)], resamples=30, seed=7)
    drawn = torch.randint(5, (30, 5), generator=rng(7))
    for r in range(30):
        copies = [
            (s.item(), yes)
            for i in drawn[r].tolist()
            for s, yes, a, b in zip(
                scores, trials.same.tolist(), trials.speaker_a, trials.speaker_b, strict=True
            )
            for j in ([i] if yes else drawn[r].tolist())
            if a == i and b == j
        ]
        one, same = (
            torch.tensor([c[0] for c in copies]).double(),
            torch.tensor([c[1] for c in copies]),
        )
        if 0 < same.sum() < len(same):
            assert eer[r].item() == pytest.approx(equal_error_rate(one, same).item(), abs=1e-12)
        else:
            assert eer[r].isnan()


def test_folds_weigh_as_many_pairs_of_two_as_they_have():
    folds = [made(2, 4, seed=s) for s in (0, 5)]
    moved = Trials(*(x + 2 for x in vars(folds[1][1]).values()))  # other speakers, other clips
    folds[1] = (folds[1][0], moved)
    eer, _ = resampled_errors(folds, resamples=200, seed=1)
    drawn = torch.randint(4, (200, 4), generator=rng(1))
    times = torch.stack([(drawn == s).sum(1) for s in range(4)], 1)
    assert torch.equal(eer.isnan(), (times[:, 0] * times[:, 1] + times[:, 2] * times[:, 3]) == 0)
    equal = (times == 1).all(1)  # every speaker once: the plain mean
    plain = sum(equal_error_rate(s, t.same).item() for s, t in folds) / 2
    assert equal.any() and eer[equal].tolist() == pytest.approx([plain] * int(equal.sum()))


def test_the_interval_covers_the_truth_over_speakers():
    """40 experiments with other speakers: their errors lie in one's interval about as often."""
    many = torch.tensor(
        [equal_error_rate(*_pair(made(20, 4, seed=10 * s))).item() for s in range(60)]
    )
    covered = 0
    for s in range(20):
        low, high = verification_score([made(20, 4, seed=10 * s)])["eer_interval"]
        covered += low <= many.mean() <= high
    assert covered >= 16  # of 20 at 95 %; the bootstrap is a little narrow


def _pair(found):
    return found[0], found[1].same


def test_a_score_says_all_of_it_and_agrees_with_others():
    scores, trials = made(10, 6)
    found = verification_score([(scores, trials)])
    alarm, right, _ = roc_curve(trials.same, scores, drop_intermediate=False)
    at = np.argmin(np.abs(1 - right - alarm))
    assert found["eer"] == pytest.approx((1 - right[at] + alarm[at]) / 2, abs=5e-3)
    theirs = BinaryEER()(scores, trials.same.int()).item()
    assert found["eer"] == pytest.approx(theirs, abs=5e-3)
    low, high = found["eer_interval"]
    assert low < found["eer"] < high
    assert (found["trials"], found["same"], found["speakers"]) == (1770, 150, 10)
    assert found["folds"] == [found["eer"]]
    drawn = unpack_rates(found["resampled"])
    assert drawn.nanquantile(0.025).item() == pytest.approx(low, abs=1e-4)


def test_the_same_speakers_are_drawn_for_every_system():
    one, two = (verification_score([made(20, 5, noise=noise)]) for noise in (1.0, 0.9))
    gap = unpack_rates(two["resampled"]) - unpack_rates(one["resampled"])
    low, high = gap.nanquantile(gap.new_tensor([0.025, 0.975])).tolist()
    assert low < two["eer"] - one["eer"] < high
    alone = [found["eer_interval"] for found in (one, two)]
    assert high - low < sum(end - start for start, end in alone) / 2**0.5


def test_speakers_who_are_in_no_trial_are_drawn_and_change_nothing_else():
    found = made(4, 4)
    everyone = torch.arange(7)
    eer, _ = resampled_errors([found], speakers=everyone, resamples=300, seed=2)
    drawn = torch.randint(7, (300, 7), generator=rng(2))
    times = torch.stack([(drawn == s).sum(1) for s in range(4)], 1).double()
    w = torch.where(
        found[1].same,
        times[:, found[1].speaker_a],
        times[:, found[1].speaker_a] * times[:, found[1].speaker_b],
    )
    assert torch.equal(eer.isnan(), (w * ~found[1].same).sum(1) == 0)
    expected = weighted_errors(*_pair(found), w)[0]
    assert torch.allclose(eer, expected, equal_nan=True)


def test_normal_scores_are_a_straight_line_on_the_scale_of_a_det_curve():
    draw = torch.randn(2, 100_000, generator=rng(), dtype=torch.double)
    scores = torch.cat([draw[0] + 2, draw[1]])
    same = torch.arange(200_000) < 100_000
    alarm, miss = det_points(scores, same)
    middle = (alarm.abs() < 2) & (miss.abs() < 2)
    assert (alarm + miss + 2)[middle].abs().max() < 0.05
