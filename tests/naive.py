"""The equations of the papers as plain loops over pairs, in their letters: slow, easy to check.

N clips; view a of clip n is row n, view b row n + N of the 2N rows; S_ij says whether i and j
belong together. Results are torch scalars, so that gradients can be compared too. Below the losses:
measures of guesses and of geometry, and the exact distributions behind resampling tests.
"""

import itertools
import math
from fractions import Fraction

import torch


def stacked(x_a, x_b):
    """The 2N rows, and for each the index of its clip."""
    return [*x_a, *x_b], [*range(len(x_a)), *range(len(x_b))]


def sim(u, v):
    return (u * v).sum() / (u.square().sum().sqrt() * v.square().sum().sqrt())


def contrastive(z_a, z_b, tau):
    """L_C: Chen et al. 2020, eq. 1, for every ordered pair of views of one clip."""
    z, clip = stacked(z_a, z_b)
    losses = []
    for i in range(len(z)):
        for j in range(len(z)):
            if i != j and clip[i] == clip[j]:
                others = sum(torch.exp(sim(z[i], z[k]) / tau) for k in range(len(z)) if k != i)
                losses.append(-torch.log(torch.exp(sim(z[i], z[j]) / tau) / others))
    return sum(losses) / len(losses)


def one_way(z_a, z_b, tau):
    """InfoNCE: anchors in view a, one positive and N - 1 negatives in view b."""
    losses = []
    for n in range(len(z_a)):
        candidates = sum(torch.exp(sim(z_a[n], z_b[k]) / tau) for k in range(len(z_b)))
        losses.append(-torch.log(torch.exp(sim(z_a[n], z_b[n]) / tau) / candidates))
    return sum(losses) / len(losses)


def margin_softmax(positive, negatives, m, tau):
    """CosFace's logits: the margin is taken from the right cosine alone."""
    right = torch.exp((positive - m) / tau)
    return -torch.log(right / (right + sum(torch.exp(s / tau) for s in negatives)))


def additive(z_a, z_b, m, tau):
    """NT-Xent-AM: the 2N views as anchors, 2N - 2 negatives for each."""
    z, clip = stacked(z_a, z_b)
    losses = []
    for i in range(len(z)):
        positive = [sim(z[i], z[k]) for k in range(len(z)) if k != i and clip[k] == clip[i]]
        negatives = [sim(z[i], z[k]) for k in range(len(z)) if clip[k] != clip[i]]
        losses.append(margin_softmax(*positive, negatives, m, tau))
    return sum(losses) / len(losses)


def additive_one_way(z_a, z_b, m, tau):
    """The same with anchors in view a, and N - 1 negatives in view b."""
    losses = []
    for n in range(len(z_a)):
        negatives = [sim(z_a[n], z_b[k]) for k in range(len(z_b)) if k != n]
        losses.append(margin_softmax(sim(z_a[n], z_b[n]), negatives, m, tau))
    return sum(losses) / len(losses)


def queued(q, k, queue, m, tau, positive=lambda c, m: c - m):
    """MoCo: He et al. 2020, eq. 1, and a margin."""
    losses = []
    for n in range(len(q)):
        negatives = [sim(q[n], row) for row in queue]
        losses.append(margin_softmax(positive(sim(q[n], k[n]), m), negatives, 0, tau))
    return sum(losses) / len(losses)


def arcface(c, m):
    """Deng et al. 2019, from the cosine alone; where the angle would pass pi, a straight line."""
    if c > math.cos(math.pi - m):
        return c * math.cos(m) - torch.sqrt(1 - c**2) * math.sin(m)
    return c - m * math.sin(math.pi - m)


def angular_positive(z_a, z_b, m, tau):
    """NT-Xent with ArcFace's margin: the 2N views as anchors, 2N - 2 negatives for each."""
    z, clip = stacked(z_a, z_b)
    losses = []
    for i in range(len(z)):
        (positive,) = [sim(z[i], z[k]) for k in range(len(z)) if k != i and clip[k] == clip[i]]
        negatives = [sim(z[i], z[k]) for k in range(len(z)) if clip[k] != clip[i]]
        losses.append(margin_softmax(arcface(positive, m), negatives, 0, tau))
    return sum(losses) / len(losses)


def angular_positive_one_way(z_a, z_b, m, tau):
    """The same with anchors in view a, and N - 1 negatives in view b."""
    losses = []
    for n in range(len(z_a)):
        negatives = [sim(z_a[n], z_b[k]) for k in range(len(z_b)) if k != n]
        losses.append(margin_softmax(arcface(sim(z_a[n], z_b[n]), m), negatives, 0, tau))
    return sum(losses) / len(losses)


def supervised_contrastive(z, y, tau):
    """L_out: Khosla et al. 2020, eq. 2, over the anchors whose P(i) is not empty."""
    losses = []
    for i in range(len(z)):
        A = [k for k in range(len(z)) if k != i]
        P = [p for p in A if y[p] == y[i]]
        if P:
            others = sum(torch.exp(sim(z[i], z[a]) / tau) for a in A)
            terms = [torch.log(torch.exp(sim(z[i], z[p]) / tau) / others) for p in P]
            losses.append(-sum(terms) / len(P))
    return sum(losses) / len(losses)


def margin_terms(h, S, m_g):
    """Wang et al. 2023, eq. 2: the terms of the ordered pairs with S_ij = 1 and with S_ij = 0."""
    together, apart = [], []
    for i in range(len(h)):
        for j in range(len(h)):
            theta = torch.acos(sim(h[i], h[j])) if i != j else None
            if i != j and S[i] == S[j]:
                together.append(theta**2)
            elif i != j:
                apart.append(torch.clamp(m_g - theta, min=0) ** 2)
    return together, apart


def mean(terms):
    return sum(terms) / len(terms) if terms else torch.tensor(0.0)


def angular(h_a, h_b, m_g, reduction):
    """L_A of two views: added up as in the authors' code, scaled to their batch, or averaged."""
    together, apart = margin_terms(*stacked(h_a, h_b), m_g)
    if reduction == "paper_code":
        return (sum(together) + sum(apart)) / 25
    if reduction == "paper_scaled":  # 256 positives and 256 * 254 negatives in a batch of 128
        return 256 / 25 * mean(together) + 256 * 254 / 25 * mean(apart)
    return mean(together) + mean(apart)


def supervised_angular(h, y, m_g, reduction):
    """L_A of labelled rows."""
    together, apart = margin_terms(h, y, m_g)
    if reduction == "paper_code":
        return (sum(together) + sum(apart)) / 50
    if reduction == "paper_scaled":  # 64 * 63 pairs in a batch of 64
        return 64 * 63 / 50 * mean(together + apart)
    return mean(together) + mean(apart)


def patch_weighted(guess, y, patches):
    """Every patch of a clip is as right as the clip."""
    right = [g == c for g, c, n in zip(guess, y, patches, strict=True) for _ in range(n)]
    return sum(right) / len(right)


def both_errors(scores, same, threshold):
    """Share of the same pairs below a threshold, and of the different ones that reach it."""
    together = [s for s, yes in zip(scores, same, strict=True) if yes]
    apart = [s for s, yes in zip(scores, same, strict=True) if not yes]
    misses, alarms = sum(s < threshold for s in together), sum(s >= threshold for s in apart)
    return Fraction(misses, len(together)), Fraction(alarms, len(apart))


def equal_error(scores, same):
    """Where a line between the errors of two neighbouring thresholds meets miss = false alarm."""
    steps = [both_errors(scores, same, t) for t in [float("inf"), *sorted(set(scores))[::-1]]]
    for (m, f), (m_next, f_next) in itertools.pairwise(steps):
        if m_next <= f_next:
            return f + (m - f) / ((m - f) - (m_next - f_next)) * (f_next - f)


def smallest_cost(scores, same, prior, cost_miss, cost_false_alarm):
    costs = []
    for threshold in [float("inf"), *scores]:
        miss, alarm = both_errors(scores, same, threshold)
        costs.append(cost_miss * prior * miss + cost_false_alarm * (1 - prior) * alarm)
    return min(costs) / min(cost_miss * prior, cost_false_alarm * (1 - prior))


def unit(v):
    return v / v.square().sum().sqrt()


def alignment(h_a, h_b):
    """Wang and Isola 2020, alpha = 2."""
    return mean([(unit(u) - unit(v)).square().sum() for u, v in zip(h_a, h_b, strict=True)])


def uniformity(h, t):
    """Wang and Isola 2020, over the unordered pairs of two rows."""
    pairs = itertools.combinations([unit(v) for v in h], 2)
    return mean([torch.exp(-t * (u - v).square().sum()) for u, v in pairs]).log()


def class_cosines(h, y):
    """Cosines of the ordered pairs i != j of one class, and of two."""
    same, different = [], []
    for i in range(len(h)):
        for j in range(len(h)):
            if i != j:
                (same if y[i] == y[j] else different).append(sim(h[i], h[j]))
    return same, different


def accuracy_of(clips, hits, weights, strata):
    """Mean over the strata among these clips (which may repeat) of the weighted share of hits."""
    shares = []
    for stratum in {strata[n] for n in clips}:
        mine = [n for n in clips if strata[n] == stratum]
        shares.append(sum(weights[n] * hits[n] for n in mine) / sum(weights[n] for n in mine))
    return sum(shares) / len(shares)


def every_resample(groups):
    """The clips of each of the G^G equally likely draws of G groups with replacement."""
    names = sorted(set(groups))
    for drawn in itertools.product(names, repeat=len(names)):
        yield [n for name in drawn for n in range(len(groups)) if groups[n] == name]


def sign_flips(right_a, right_b, groups):
    """Share of the 2^G swaps of the systems on whole groups that differ at least as observed."""
    won = {}
    for a, b, g in zip(right_a, right_b, groups, strict=True):
        won[g] = won.get(g, 0) + int(b) - int(a)
    signs = itertools.product([1, -1], repeat=len(won))
    sums = [abs(sum(s * d for s, d in zip(some, won.values(), strict=True))) for some in signs]
    return sum(total >= abs(sum(won.values())) for total in sums) / len(sums)
