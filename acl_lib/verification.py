r"""Are two clips of one speaker? Trials, their scores, and errors with intervals over speakers.

For instance:

    trials = all_trials(test, y)
    scores = cosine_scores(h, clip, trials)
    found = verification_score([(scores, trials)])

Letters: M trials, each of two clips; S speakers; R resamples.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .metrics import equal_error_rate, error_rates, min_dcf

RESAMPLES = 1000
NUMBERS_AT_ONCE = 2**23  # of resampled trials: arrays of 64 MiB
STEPS = 32_767  # of a rate in a record: two bytes a resample
BINS = 256  # of the scores in a record
PRIOR = 0.01  # of "same", in minDCF


@dataclass(frozen=True)
class Trials:
    """Pairs of clips, and who speaks in each."""

    a: Int[Tensor, " M"]  # clip
    b: Int[Tensor, " M"]
    speaker_a: Int[Tensor, " M"]
    speaker_b: Int[Tensor, " M"]

    def __len__(self) -> int:
        return len(self.a)

    @property
    def same(self) -> Bool[Tensor, " M"]:
        """Whether both are of one speaker."""
        return self.speaker_a == self.speaker_b


def all_trials(clips: Int[Tensor, " n"], y: Int[Tensor, " N"]) -> Trials:
    """Every pair of some clips, in one of its orders.

    Args:
        clips: ids of the clips.
        y: speaker of every clip of the corpus.

    Raises:
        ValueError: as `listed_trials` does.
    """
    first, second = torch.triu_indices(len(clips), len(clips), 1)
    return listed_trials(torch.stack([clips.cpu()[first], clips.cpu()[second]], dim=1), y)


def listed_trials(pairs: Int[Tensor, "M 2"], y: Int[Tensor, " N"]) -> Trials:
    """The pairs of a list, such as the official one of VoxCeleb1-O.

    Raises:
        ValueError: no pair of one speaker, or none of two.
    """
    a, b = (side.contiguous() for side in pairs.cpu().unbind(1))
    found = Trials(a, b, y.cpu()[a], y.cpu()[b])
    if not 0 < found.same.sum() < len(found):
        raise ValueError(
            f"trials need pairs of one speaker and pairs of two; got {int(found.same.sum())} of "
            f"one among {len(found)}"
        )
    return found


def cosine_scores(
    h: Float[Tensor, "P d"], clip: Int[Tensor, " P"], trials: Trials
) -> Float[Tensor, " M"]:
    """Cosine of both clips of every trial, a clip being the mean direction of its patches.

    Args:
        h: representation of every patch, any norm.
        clip: the clip of every patch; every clip of a trial has one at least.

    Returns:
        float64 between -1 and 1.
    """
    ids, place = clip.cpu().unique(return_inverse=True)
    u = F.normalize(h.cpu().double(), dim=1)
    mean = torch.zeros(len(ids), u.shape[1], dtype=u.dtype).index_add_(0, place, u)
    mean = F.normalize(mean, dim=1)
    at = [torch.searchsorted(ids, side) for side in (trials.a, trials.b)]
    return (mean[at[0]] * mean[at[1]]).sum(1)


def verification_score(
    folds: Sequence[tuple[Float[Tensor, " M"], Trials]],
    *,
    speakers: Int[Tensor, " S"] | None = None,
    seed: int = 0,
) -> dict:
    """All that a record says of one system that scored the trials of each fold.

    Args:
        speakers, seed: as in `resampled_errors`.

    Returns:
        eer and min_dcf (prior 0.01, costs 1), means over the folds; eer_interval and
        min_dcf_interval, 95 % over resampled speakers; folds (the EER of each); trials, same,
        speakers (numbers); resampled (the EER of each resample; see `unpack_rates`); scores (how
        many of each kind in each bin; see `binned_scores`).
    """
    errors = [equal_error_rate(scores, trials.same).item() for scores, trials in folds]
    costs = [min_dcf(scores, trials.same, prior=PRIOR).item() for scores, trials in folds]
    drawn = resampled_errors(folds, speakers=speakers, seed=seed)
    ends = [[q.item() for q in d.nanquantile(d.new_tensor([0.025, 0.975]))] for d in drawn]
    scores = torch.cat([scores for scores, _ in folds])
    same = torch.cat([trials.same for _, trials in folds])
    return {
        "eer": sum(errors) / len(errors),
        "eer_interval": ends[0],
        "min_dcf": sum(costs) / len(costs),
        "min_dcf_interval": ends[1],
        "folds": errors,
        "trials": len(same),
        "same": int(same.sum()),
        "speakers": len(heard(folds)),
        "resampled": pack_rates(drawn[0]),
        "scores": _binned(scores, same),
    }


def _binned(scores: Float[Tensor, " M"], same: Bool[Tensor, " M"]) -> dict:
    low, high = scores.min().item(), scores.max().item()
    counts = [some.histc(BINS, low, high).long().tolist() for some in (scores[same], scores[~same])]
    return {"range": [low, high], "same": counts[0], "different": counts[1]}


def binned_scores(bins: dict) -> tuple[Float[Tensor, " M"], Bool[Tensor, " M"]]:
    """The `scores` of a record as scores again, and which are of one speaker.

    Those of a bin, 1/256 of the range, are spread evenly over it: fine for a picture, too coarse
    for an error rate.
    """
    low, high = bins["range"]
    places = []
    for kind in ("same", "different"):
        counts = torch.tensor(bins[kind])
        bin_of = torch.arange(BINS).repeat_interleave(counts)
        before = (counts.cumsum(0) - counts)[bin_of]
        within = (torch.arange(len(bin_of)) - before + 0.5) / counts[bin_of]
        places.append((bin_of + within).double() / BINS)
    scores = low + (high - low) * torch.cat(places)
    return scores, torch.arange(len(scores)) < len(places[0])


def heard(folds: Sequence[tuple[Float[Tensor, " M"], Trials]]) -> Int[Tensor, " S"]:
    """The speakers of all folds, ascending."""
    return torch.cat([s for _, t in folds for s in (t.speaker_a, t.speaker_b)]).unique()


def resampled_errors(
    folds: Sequence[tuple[Float[Tensor, " M"], Trials]],
    *,
    speakers: Int[Tensor, " S"] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Float[Tensor, " R"], Float[Tensor, " R"]]:
    """EER and minDCF if other speakers had been met: a bootstrap over speakers.

    Trials share clips and speakers and are not independent; speakers are. A speaker drawn c times
    brings its own pairs c times, and its pairs with one drawn c' times c c' times; pairs of copies
    of one speaker do not count. Over several folds the mean, each fold weighing as many pairs of
    two speakers as it has then. The same seed draws the same speakers for every system.

    Args:
        speakers: to draw from, ascending; those of the folds when None.

    Returns:
        EER and minDCF of each resample; nan where no fold has both kinds of pairs.
    """
    names = heard(folds) if speakers is None else speakers
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(names), (resamples, len(names)), generator=generator)
    times = F.one_hot(drawn, len(names)).sum(1).double()  # (R, S)
    weight = torch.zeros(resamples, dtype=torch.double)
    sums = torch.zeros(2, resamples, dtype=torch.double)
    for scores, trials in folds:
        own = [torch.searchsorted(names, s) for s in (trials.speaker_a, trials.speaker_b)]
        for rows in torch.arange(resamples).split(max(1, NUMBERS_AT_ONCE // len(trials))):
            w = times[rows][:, own[0]]
            w = torch.where(trials.same, w, w * times[rows][:, own[1]])
            eer, dcf = weighted_errors(scores, trials.same, w)
            mine = (w * ~trials.same).sum(1)
            good = eer.isfinite()
            weight[rows] += torch.where(good, mine, 0)
            for total, values in zip(sums, (eer, dcf), strict=True):
                total[rows] += torch.where(good, mine * values, 0)
    return sums[0] / weight, sums[1] / weight


def weighted_errors(
    scores: Float[Tensor, " M"], same: Bool[Tensor, " M"], weights: Float[Tensor, "R M"]
) -> tuple[Float[Tensor, " R"], Float[Tensor, " R"]]:
    """`equal_error_rate` and `min_dcf` where trial m counts `weights[r, m]` times, for every r.

    Returns:
        nan where one kind of trials has no weight.
    """
    order = scores.argsort(descending=True)
    scores, same, weights = scores[order], same[order], weights[:, order].double()
    last = torch.cat([scores[1:] != scores[:-1], scores.new_ones(1, dtype=torch.bool)])
    rates = []
    for kind in (same, ~same):  # the share accepted from each threshold on, and from above all
        reached = (weights * kind).cumsum(1)
        share = reached[:, last] / reached[:, -1:]
        rates.append(torch.cat([share.new_zeros(len(share), 1), share], dim=1))
    miss, alarm = 1 - rates[0], rates[1]
    gap = miss - alarm  # falls from 1 to -1
    after = (gap <= 0).int().argmax(1, keepdim=True).clamp(min=1)
    left, right = (gap.gather(1, at) for at in (after - 1, after))
    low, high = (alarm.gather(1, at) for at in (after - 1, after))
    eer = (low + left / (left - right) * (high - low))[:, 0]
    cost = ((PRIOR * miss + (1 - PRIOR) * alarm) / PRIOR).amin(1)
    return eer, torch.where(eer.isfinite(), cost, torch.nan)


def pack_rates(rates: Float[Tensor, " R"]) -> str:
    """Rates as text: base64 of two bytes each, little-endian, in steps of 1 / 32,767; nan is -1."""
    steps = (STEPS * rates).round().nan_to_num(-1).to(torch.int16)
    return base64.b64encode(steps.numpy().astype("<i2").tobytes()).decode()


def unpack_rates(text: str) -> Float[Tensor, " R"]:
    """What `pack_rates` has packed, to its steps."""
    steps = torch.tensor(np.frombuffer(base64.b64decode(text), "<i2").astype(np.int16))
    return torch.where(steps < 0, torch.nan, steps.double() / STEPS)


def det_points(
    scores: Float[Tensor, " M"], same: Bool[Tensor, " M"]
) -> tuple[Float[Tensor, " R"], Float[Tensor, " R"]]:
    """Both error rates on the scale of a DET curve, where normal scores give straight lines.

    Source: Martin and others 1997. Thresholds at which a rate is 0 or 1 have no place on it.

    Returns:
        False alarms and misses, as quantiles of the normal distribution.
    """
    _, miss, alarm = error_rates(scores, same)
    inside = (miss > 0) & (miss < 1) & (alarm > 0) & (alarm < 1)
    return torch.special.ndtri(alarm[inside]), torch.special.ndtri(miss[inside])
