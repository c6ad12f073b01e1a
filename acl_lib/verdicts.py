"""The paper's claims beside our evidence: what held, what did not, what cannot be told yet.

For instance:

    for verdict in verdicts("grids"):
        print(verdict.claim, verdict.verdict, verdict.evidence, sep="; ")

The rules are those of the grids, which state them; they were written before the runs. One claim was
divided after them: tolerance and uniformity are judged in h and in z apart, where the rule spoke of
both at once.
"""

from __future__ import annotations

import functools
import json
import math
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import torch
from IPython.display import HTML

from .grids import Findings
from .published import compare_systems, compare_temperatures
from .records import Record, paired
from .statistics import best_of_noise, flat_curve_test, pairs_needed, seed_interval

HELD, NOT, UNCLEAR, UNTESTED = "held", "did not hold", "not distinguishable", "not tested"
Read = Callable[[str], Findings]  # a grid by its name
PAPER_GAIN = 0.029  # of self-supervised ACL, Table 2
FSDNOISY18K = "not run: nobody had the audio"
OWN = "the paper's own figures"
FEATURES = Path(__file__).parents[1] / "book" / "results" / "published_features.json"
FEATURES_COMMAND = "acl published"
MONO = "font-family: monospace"  # a page's own colours of code are for one background


@dataclass(frozen=True)
class Verdict:
    """One claim, and what became of it."""

    claim: str
    paper: str  # the figures behind it, as printed
    evidence: str  # ours, with n, seeds and 95 % intervals
    verdict: str  # HELD, NOT, UNCLEAR or UNTESTED
    needed: str  # what would decide an open one
    command: str  # makes the evidence again
    fsdnoisy18k: str = FSDNOISY18K


def decide(*intervals: Sequence[float]) -> str:
    """HELD if all intervals lie above 0, NOT if all lie below, else UNCLEAR."""
    if all(low > 0 for low, _ in intervals):
        return HELD
    return NOT if all(high < 0 for _, high in intervals) else UNCLEAR


def of_errors(pair: dict) -> str:
    """What a difference of error rates says, by the rule of `grids/additive_margin.yaml`.

    Args:
        pair: of `Findings.pair` or `Findings.versus`, with two seeds or more.

    Returns:
        "lowers the error" or "raises the error" where the intervals over seeds and over speakers
        both lie on one side of 0, else "not distinguishable".
    """
    word = decide(pair["seed_interval"], pair["interval"])
    return {HELD: "raises the error", NOT: "lowers the error"}.get(word, UNCLEAR)


def verdicts(
    folder: str | os.PathLike, *, records: str | os.PathLike | None = None
) -> list[Verdict]:
    """Every claim, by the grids of a folder and their records.

    A claim whose grid is not complete is "not tested", and says how much of it is there.

    Args:
        folder: of the grids.
        records: folder of the records, instead of the grids' own.
    """

    @functools.cache  # several claims ask one grid
    def read(name: str) -> Findings:
        return Findings.read(Path(folder) / f"{name}.yaml", records=records)

    return [verdict for claim in CLAIMS for verdict in claim(read)]


def table(rows: Sequence[Verdict]) -> HTML:
    """The verdicts as a page shows them: a claim a row, and below it what would settle it."""
    head = "".join(
        f"<th>{name}</th>" for name in ("Claim", "Paper", "Here", "FSDnoisy18k", "Verdict")
    )
    lines = []
    for row in rows:
        cells = [row.claim, row.paper, row.evidence, row.fsdnoisy18k]
        shown = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        again = f' Again: <span style="{MONO}">{escape(row.command)}</span>' if row.command else ""
        lines += [
            f'<tr style="vertical-align: top">{shown}<td><b>{row.verdict}</b></td></tr>',
            f'<tr><td colspan="5" style="padding-bottom: 0.9em">Open: {escape(row.needed)}.'
            f"{again}</td></tr>",
        ]
    style = "font-size: 0.85em; text-align: left; border-spacing: 0.7em 0.1em"
    body = "\n".join(lines)
    return HTML(
        f'<div style="overflow-x: auto"><table style="{style}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _open(
    found: Findings, printed: Mapping[str, str], theirs: str = FSDNOISY18K
) -> Iterator[Verdict]:
    """Claims, each with the paper's figures, whose grid is not complete."""
    share = f"{found.made} of {len(found.grid.cells)} runs are made"
    rest = f"the rest of {found.grid.name}"
    for claim, paper in printed.items():
        yield Verdict(claim, paper, share, UNTESTED, rest, _sweep(found), theirs)


def _judged(
    found: Findings,
    claim: str,
    paper: str,
    evidence: str,
    verdict: str,
    needed: str = "more seeds",
    theirs: str = FSDNOISY18K,
) -> Verdict:
    """A claim that a complete grid answers; `needed` is said where it leaves the claim open."""
    settled = needed if verdict == UNCLEAR else "decided here"
    return Verdict(claim, paper, evidence, verdict, settled, _sweep(found), theirs)


def _sweep(found: Findings) -> str:
    return f"acl sweep grids/{found.grid.name}.yaml --records again"


def _on_fsdnoisy18k(read: Read, name: str, arm: str, condition: str = "") -> str:
    """What a grid on the paper's corpus says, if somebody has run it."""
    found = read(name)
    if not found.complete:
        return FSDNOISY18K
    pair = found.pair(arm, condition)
    said = _of_pair(pair, found.of(arm, condition)[pair["seeds"][0]], found.grid.reader)
    return f"{decide(pair['seed_interval'], pair['interval'])}: {said}"


def _points(value: float, interval: Sequence[float] | None = None) -> str:
    ends = "" if interval is None else f" ({100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})"
    return f"{100 * value:+.1f}{ends}"


def _of_pair(pair: dict, record: Record, reader: str) -> str:
    """A paired difference in words, with both intervals."""
    n = record.results["trained"][reader]["n"]
    low, high = (100 * end for end in pair["interval"])
    return (
        f"{_points(pair['difference'], pair['seed_interval'])} points over "
        f"{len(pair['seeds'])} seeds, {low:+.1f} to {high:+.1f} over recordings, n = {n}"
    )


def _seeds_for(values: Sequence[float]) -> str:
    """How many seeds would show the paper's gain, and how many the one that was seen."""
    sd, seen = statistics.stdev(values), statistics.fmean(values)
    if sd == 0 or seen == 0:
        return "other seeds: these do not differ"
    told = f"{100 * PAPER_GAIN:.1f} points would show with {pairs_needed(PAPER_GAIN, sd)} seeds"
    if abs(seen) < PAPER_GAIN:
        told += f", the {_points(seen)} seen with {pairs_needed(seen, sd)}"
    return f"{told} (sd {100 * sd:.1f})"


def _reads_better(read: Read) -> Iterator[Verdict]:
    paper = "74.2 to 77.1 %, one run each"
    by_sum = _on_fsdnoisy18k(read, "paper_fsdnoisy18k", "ACL")  # the authors' sum, no mean
    for name, size in (("acl_esc10", "width 16"), ("acl_esc10_wide", "width 32")):
        found = read(name)
        for arm in found.grid.arms[1:]:
            theirs = by_sum if arm.endswith("sum") else FSDNOISY18K
            claim = f"ACL ({arm.removeprefix('ACL, ')}) reads better than NT-Xent; {size}"
            if not found.complete:
                yield from _open(found, {claim: paper}, theirs)
                continue
            pair = found.pair(arm)
            yield _judged(
                found,
                claim,
                paper,
                _of_pair(pair, found.of(arm)[pair["seeds"][0]], found.grid.reader),
                decide(pair["seed_interval"], pair["interval"]),
                _seeds_for(pair["per_seed"]),
                theirs,
            )


def _classes_gain(read: Read) -> Iterator[Verdict]:
    found, claim = read("acl_esc10"), "Most classes gain, the weakest most"
    paper = "13 of 20 classes"
    if not found.complete:
        yield from _open(found, {claim: paper})
        return
    reader = found.grid.reader

    def per_class(arm: str) -> torch.Tensor:
        rows = [r.results["trained"][reader]["per_class"] for r in found.of(arm).values()]
        return torch.tensor(rows, dtype=torch.double).mean(0)

    plain, arm = per_class(found.grid.baseline), found.grid.arms[1]
    gain = per_class(arm) - plain
    ranks = [values.argsort().argsort().double() for values in (plain, gain)]
    r = torch.corrcoef(torch.stack(ranks))[0, 1].item()
    draw = torch.Generator().manual_seed(0)
    order = torch.rand(10_000, len(plain), generator=draw).argsort(1)
    centred = [(rank - rank.mean()) / (rank - rank.mean()).norm() for rank in ranks]
    p = ((centred[1][order] @ centred[0] <= r + 1e-12).sum().item() + 1) / 10_001
    more = int((gain > 0).sum())
    verdict = NOT if 2 * more <= len(gain) else (HELD if r < 0 and p < 0.05 else UNCLEAR)
    yield _judged(
        found,
        claim,
        paper,
        f"{more} of {len(gain)} classes gain by {arm}; rank correlation of gain and accuracy "
        f"{r:+.2f}, p {p:.2g}; {len(found.of(arm))} seeds",
        verdict,
        "a corpus with more classes",
    )


def _curve(read: Read) -> Iterator[Verdict]:
    found = read("alpha_esc10")
    shape, suitable = "Accuracy depends on alpha", "Alpha in [0.2, 0.4] is suitable"
    printed = "best at 0.3, one run each; 71.7 at 0.4"
    if not found.complete:
        yield from _open(found, {shape: printed, suitable: printed})
        return
    seeds = sorted(found.of(found.grid.baseline))
    values = torch.tensor([found.values(arm) for arm in found.grid.arms], dtype=torch.double).T
    means, p = values.mean(0), flat_curve_test(values)
    sd = math.sqrt(values.var(0).mean().item() / len(seeds))  # of a mean over the seeds
    tried = len(found.grid.arms) - 1
    best = int(means[1:].argmax()) + 1
    lead, luck = (means[best] - means[0]).item(), best_of_noise(tried, sd)
    yield _judged(
        found,
        shape,
        printed,
        f"means from {100 * means.min():.1f} to {100 * means.max():.1f} %, p {p:.2g} for a flat "
        f"curve; best, {found.grid.arms[best]}, leads NT-Xent by {_points(lead)}, the best of "
        f"{tried} of noise by {_points(luck)}; {len(seeds)} seeds",
        HELD if p < 0.05 else UNCLEAR,
    )
    some = [found.grid.arms.index(f"alpha {alpha}") for alpha in (0.2, 0.3, 0.4)]
    gains = (values[:, some].mean(1) - values[:, 0]).tolist()
    interval = seed_interval(gains)
    yield _judged(
        found,
        suitable,
        printed,
        f"mean of the three minus NT-Xent {_points(statistics.fmean(gains), interval)} points, "
        f"{len(seeds)} seeds",
        decide(interval),
        _seeds_for(gains),
    )


def _temperatures(read: Read) -> Iterator[Verdict]:
    found, published = read("temperature_esc10"), compare_temperatures()
    tolerant = {s: f"At every temperature {s} is more tolerant and less uniform" for s in "hz"}
    apart = "ACL separates the classes better"
    better = "ACL reads better at every temperature"
    stable = "ACL is more stable over temperature"
    printed = {
        tolerant["h"]: "not shown",
        tolerant["z"]: "Fig. 3: ten of ten temperatures, by a head that was not trained",
        apart: "from tolerance; no figure",
        better: "ten of ten temperatures, alpha chosen at each",
        stable: f"sd over temperature {published['sd']['acl']:.2f} with ACL, "
        f"{published['sd']['plain']:.2f} without",
    }
    if not found.complete:
        yield from _open(found, printed)
        return
    plain, acl = found.grid.arms
    cells = [
        (found.of(plain, tau)[seed], found.of(acl, tau)[seed])
        for tau in found.grid.conditions
        for seed in sorted(found.of(plain, tau))
    ]

    def signs(space: str, measure: str) -> int:
        """In how many cells the measure is larger with ACL."""
        return sum(b.geometry[space][measure] > a.geometry[space][measure] for a, b in cells)

    n = len(cells)
    grown = {(s, m): signs(s, m) for s in "hz" for m in ("tolerance", "uniformity", "class_gap")}
    for space, claim in tolerant.items():
        more, less = (grown[space, measure] for measure in ("tolerance", "uniformity"))
        yield _judged(
            found,
            claim,
            printed[claim],
            f"tolerance higher in {more} of {n} pairs, minus uniformity lower in {less}",
            HELD if more == less == n else NOT if more == less == 0 else UNCLEAR,
        )
    gaps = [grown[s, "class_gap"] for s in "hz"]
    verdict = HELD if min(gaps) == n else NOT if max(gaps) == 0 else UNCLEAR
    yield _judged(
        found,
        apart,
        printed[apart],
        f"same-class minus other-class cosine larger in {gaps[0]} of {n} for h, {gaps[1]} for z",
        verdict,
    )
    pairs = {tau: found.pair(acl, tau) for tau in found.grid.conditions}
    ends = {
        tau: found.pair(acl, tau, confidence=1 - 0.05 / len(pairs))["interval"] for tau in pairs
    }
    below = [tau for tau, (_, high) in ends.items() if high < 0]
    above = [tau for tau, (low, _) in ends.items() if low > 0]
    verdict = NOT if below else HELD if len(above) == len(ends) else UNCLEAR
    gains = ", ".join(
        f"{tau.removeprefix('temperature ')}: {_points(pairs[tau]['difference'])}" for tau in pairs
    )
    yield _judged(
        found,
        better,
        printed[better],
        f"{gains} points, two seeds; interval below 0 at {len(below)}, above at {len(above)}",
        verdict,
    )

    by_seed, of_mean = {}, {}
    for arm in (plain, acl):  # the spread over the temperatures, of each seed and of their mean
        curve = torch.tensor([found.values(arm, tau) for tau in found.grid.conditions])
        by_seed[arm], of_mean[arm] = curve.std(0), curve.mean(1).std().item()
    smaller = by_seed[acl] <= 0.5 * by_seed[plain]
    verdict = HELD if smaller.all() else NOT if (by_seed[acl] >= by_seed[plain]).all() else UNCLEAR
    yield _judged(
        found,
        stable,
        printed[stable],
        f"sd over six temperatures {100 * of_mean[acl]:.2f} with ACL, {100 * of_mean[plain]:.2f} "
        f"without; alpha 0.3 throughout, {len(smaller)} seeds",
        verdict,
    )


def _any_alpha(found: Findings, condition: str) -> tuple[str, str, list[float]]:
    """Whether any alpha gains, Bonferroni over them: verdict, words, and the best one's gains."""
    arms = found.grid.arms[1:]
    gains = {arm: found.pair(arm, condition)["per_seed"] for arm in arms}
    confidence = 1 - 0.05 / len(arms)
    ends = {arm: seed_interval(g, confidence=confidence) for arm, g in gains.items()}
    verdict = UNCLEAR
    if any(low > 0 for low, _ in ends.values()):
        verdict = HELD
    elif all(high < 0 for _, high in ends.values()):
        verdict = NOT
    shown = ", ".join(f"{arm}: {_points(statistics.fmean(gains[arm]), ends[arm])}" for arm in arms)
    best = gains[max(arms, key=lambda arm: statistics.fmean(gains[arm]))]
    return verdict, f"{shown} points, {len(best)} seeds ({confidence:.1%} intervals)", best


def _supervised(read: Read) -> Iterator[Verdict]:
    printed = {pair["what"]: _points(pair["difference"]) for pair in compare_systems()}
    for name, where in (("supervised_esc10", "ESC-10"), ("supervised_synthetic", "made-up sounds")):
        found = read(name)
        for condition in found.grid.conditions:
            claim = f"The margin helps a classifier; {where}, {condition}"
            theirs = FSDNOISY18K
            if f"supervised, {condition}" in printed:
                other = read("paper_fsdnoisy18k_supervised")
                if other.complete:
                    theirs = ": ".join(_any_alpha(other, condition)[:2])
            paper = (
                printed.get(f"supervised, {condition}", "+1.9 to +6.2") + " points, one run each"
            )
            if not found.complete:
                yield from _open(found, {claim: paper}, theirs)
                continue
            verdict, shown, gains = _any_alpha(found, condition)
            yield _judged(found, claim, paper, shown, verdict, _seeds_for(gains), theirs)
    found = read("supervised_esc10")
    clean, *noisy = found.grid.conditions
    claim, paper = "The margin helps more where labels are wrong", "noisy small +6.2, clean +4.3"
    if not found.complete:
        yield from _open(found, {claim: paper})
        return
    usual = found.pair("alpha 0.5", clean)["per_seed"]
    more = {
        condition: [
            b - a
            for a, b in zip(usual, found.pair("alpha 0.5", condition)["per_seed"], strict=True)
        ]
        for condition in noisy
    }
    ends = {condition: seed_interval(values) for condition, values in more.items()}
    results = [decide(interval) for interval in ends.values()]
    verdict = results[0] if len(set(results)) == 1 else UNCLEAR
    widest = max(more.values(), key=statistics.stdev)
    yield _judged(
        found,
        claim,
        paper,
        "gain of alpha 0.5 beyond its gain on right labels: "
        + ", ".join(f"{c}: {_points(statistics.fmean(v), ends[c])}" for c, v in more.items())
        + f" points, {len(usual)} seeds",
        verdict,
        _seeds_for(widest),
    )


def _without_labels(read: Read) -> Iterator[Verdict]:
    free, told = (read(name) for name in ("acl_esc10", "supervised_esc10"))
    claim, paper = "Training without labels reads better than with them", "74.2 against 70.1 %"
    condition = told.grid.conditions[0]
    if not (free.complete and told.complete):
        yield from _open(told if free.complete else free, {claim: paper})
        return
    pair = paired(told.of(told.grid.baseline, condition), free.of(free.grid.baseline))
    verdict = decide(pair["seed_interval"], pair["interval"])
    yield Verdict(
        claim,
        paper + ", metrics and networks differ",
        _of_pair(pair, free.of(free.grid.baseline)[pair["seeds"][0]], "linear"),
        verdict,
        _seeds_for(pair["per_seed"]) if verdict == UNCLEAR else "decided here",
        f"{_sweep(told)}; {_sweep(free)}",
    )


def _printed_significance(read: Read) -> Iterator[Verdict]:
    pairs = compare_systems()
    clear = [pair for pair in pairs if pair["p"] < 0.05]
    every = ", ".join(f"{p['what'].removeprefix('supervised, ')} {p['p']:.2g}" for p in pairs)
    yield Verdict(
        "All five gains are significant",
        "by 95 % intervals",
        f"p of two proportions, n = 947: {every}; {len(clear)} of 5 below .05",
        HELD if len(clear) == len(pairs) else NOT,
        "answers for every clip, more seeds",
        "acl published --tables",
        OWN,
    )


def _released(read: Read) -> Iterator[Verdict]:
    trained, apart = (
        "Fig. 3 shows a z that was trained",
        "ACL's released features lie further apart",
    )
    if not FEATURES.exists():
        for claim in (trained, apart):
            yield Verdict(claim, "Fig. 3", "no record", UNTESTED, FEATURES_COMMAND, "", OWN)
        return
    record = json.loads(FEATURES.read_text(encoding="utf-8"))
    folders = record["folders"]
    same = [name for name, row in folders.items() if row["head_deviation"] <= row["head_bound"]]
    worst = max(row["head_deviation"] for row in folders.values())
    yield Verdict(
        trained,
        "Fig. 3",
        f"a head made from the authors' seed, never trained, gives their z in {len(same)} of "
        f"{len(folders)} folders (largest difference {worst:.0e}, files in half precision)",
        NOT if len(same) == len(folders) else UNCLEAR,
        f"the other {len(record['not_found'])} folders, by --download",
        FEATURES_COMMAND,
        OWN,
    )
    pairs = [pair for pair in record["pairs"] if pair["rows"] == "as they are"]
    gaps = [[folders[pair[side]]["h"]["class_gap"] for side in "ab"] for pair in pairs]
    shown = ", ".join(f"{a:.3f} to {b:.3f}" for a, b in gaps)
    near = ", ".join(_points(pair["difference"], pair["interval"]) for pair in pairs)
    grown = sum(b > a for a, b in gaps)
    yield Verdict(
        apart,
        "better separation, from tolerance",
        f"class gap of h {shown} from NT-Xent to ACL, one run each; nearest neighbours {near} "
        f"points, n = {record['clips']}",
        HELD if grown == len(gaps) else NOT if grown == 0 else UNCLEAR,
        "decided here for these encoders",
        FEATURES_COMMAND,
        OWN,
    )


def _margin_on_z(read: Read) -> Iterator[Verdict]:
    yield Verdict(
        "The margin works better on h than on z",
        "said, without figures",
        "no run",
        UNTESTED,
        "an arm with the margin on z, which the recipes do not have",
        "",
    )


CLAIMS = (
    _reads_better,
    _classes_gain,
    _curve,
    _temperatures,
    _supervised,
    _without_labels,
    _printed_significance,
    _released,
    _margin_on_z,
)
