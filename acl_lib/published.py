"""What the papers and their code report, as data: every figure as printed, one run per setting.

    table = TABLES["alpha_sweep"]
    table.column("linear_micro")

Accuracies are percent; a table's `metrics` say of what. The functions compute from the tables what
can be computed: how sure the numbers are, and how many of them luck alone would give. The authors'
features are read by `load_released_features`, which is that of `released`.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .released import load_released_features as load_released_features
from .statistics import (
    best_of_noise,
    sd_from_neighbours,
    seed_interval,
    two_proportion_test,
    von_neumann_ratio,
    von_neumann_test,
    wilson_interval,
)

TEST_CLIPS = 947
TEST_PATCHES = 8866  # the unit of what the authors' self-supervised code calls micro accuracy
METRICS = {
    "clips": "share of the test clips of FSDnoisy18k that are classified right: k / 947",
    "patches": "share of the test patches whose clip is classified right: k / 8866; long clips "
    "weigh more",
    "macro": "mean over the 20 classes of the share of their test clips that are classified right",
    "minus_uniformity": "minus the uniformity of z, one view of each test clip, in nats",
    "tolerance": "mean cosine of z within a class, both views of each test clip",
    "eer": "equal error rate on VoxCeleb1-O, in percent",
    "min_dcf": "minimum detection cost on VoxCeleb1-O",
}
ACCURACIES = ("clips", "patches", "macro")
SWEEPS = ("alpha_sweep", "supervised_alpha_sweep")


@dataclass(frozen=True)
class Table:
    """One published table.

    Attributes:
        source: where it is printed.
        columns: names; `alpha` weighs the first term, 1.0 is the loss without the angular one.
        rows: values as printed; None where there is none.
        metrics: column -> key of METRICS, or one for each row where they differ. Columns that were
            set and not measured have none.
    """

    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple, ...]
    metrics: dict[str, str | tuple[str, ...]] = field(default_factory=dict, hash=False)

    def column(self, name: str) -> list:
        """All values of a column, from the first row to the last.

        Raises:
            ValueError: no such column; names those there are.
        """
        if name not in self.columns:
            raise ValueError(f"no column {name!r}; there are {', '.join(self.columns)}")
        at = self.columns.index(name)
        return [row[at] for row in self.rows]

    def metric(self, name: str) -> tuple[str, ...]:
        """What each row of a column measures, as keys of METRICS.

        Raises:
            ValueError: no such column, or one of what was set; names those that were measured.
        """
        if name not in self.metrics:
            raise ValueError(f"{name!r} measures nothing; {', '.join(self.metrics)} do")
        metric = self.metrics[name]
        return (metric,) * len(self.rows) if isinstance(metric, str) else metric


TABLES = {
    # cross-entropy against cross-entropy + angular margin, by the part that was trained on
    "supervised": Table(
        "Wang, Tripathy and Mesaros 2023, Table 1",
        ("part", "ce", "ce_margin", "alpha"),
        (
            ("all", 70.1, 73.6, 0.7),
            ("noisy", 66.4, 68.3, 0.4),
            ("noisy_small", 33.7, 39.9, 0.2),
            ("clean", 60.2, 64.5, 0.5),
        ),
        {"ce": "clips", "ce_margin": "clips"},
    ),
    # two metrics in one column
    "systems": Table(
        "Wang, Tripathy and Mesaros 2023, Table 2",
        ("system", "accuracy", "alpha"),
        (
            ("supervised", 70.1, 1.0),
            ("supervised + margin", 73.6, 0.7),
            ("self-supervised", 74.2, 1.0),
            ("self-supervised + ACL", 77.1, 0.3),
        ),
        {"accuracy": ("clips", "clips", "patches", "patches")},
    ),
    # self-supervised, temperature 0.2: linear probe and end-to-end fine-tuning
    "alpha_sweep": Table(
        "README of the authors' self-supervised code",
        (
            "alpha",
            "linear_micro",
            "linear_macro",
            "finetuned_noisy_micro",
            "finetuned_noisy_macro",
            "finetuned_clean_micro",
            "finetuned_clean_macro",
        ),
        (
            (0.0, 71.295, 71.125, 71.566, 71.132, 79.044, 76.803),
            (0.1, 74.994, 72.924, 72.513, 73.125, 79.596, 77.349),
            (0.2, 74.701, 72.656, 76.156, 74.001, 78.04, 76.477),
            (0.3, 77.07, 74.463, 72.118, 72.521, 79.856, 76.608),
            (0.4, 71.712, 70.757, 72.795, 72.551, 79.912, 76.654),
            (0.5, 74.013, 72.688, 73.303, 72.114, 78.141, 76.12),
            (0.6, 76.596, 74.975, 76.416, 76.0, 79.461, 77.963),
            (0.7, 75.671, 73.688, 71.701, 72.487, 78.017, 76.176),
            (0.8, 76.472, 73.687, 76.416, 75.596, 76.731, 76.116),
            (0.9, 74.453, 73.291, 77.543, 74.953, 78.119, 76.513),
            (1.0, 74.16, 72.698, 77.521, 75.563, 79.111, 77.057),
        ),
        {
            "linear_micro": "patches",
            "linear_macro": "macro",
            "finetuned_noisy_micro": "patches",
            "finetuned_noisy_macro": "macro",
            "finetuned_clean_micro": "patches",
            "finetuned_clean_macro": "macro",
        },
    ),
    # the classifier's own accuracy, by the part that was trained on; 1.0 is plain cross-entropy
    "supervised_alpha_sweep": Table(
        "README of the authors' supervised code",
        ("alpha", "clean", "all", "noisy", "noisy_small"),
        (
            (0.1, 56.0, 67.4, 64.9, 34.5),
            (0.2, 61.4, 69.8, 65.4, 39.9),
            (0.3, 61.0, 71.9, 68.3, 39.3),
            (0.4, 62.1, 72.7, 68.3, 33.5),
            (0.5, 64.5, 71.2, 67.7, 39.0),
            (0.6, 63.0, 71.3, 66.9, 33.3),
            (0.7, 57.9, 73.6, 67.5, 35.0),
            (0.8, 58.1, 72.7, 67.1, 31.6),
            (0.9, 58.6, 71.6, 66.1, 33.1),
            (1.0, 60.2, 70.1, 66.4, 33.7),
        ),
        {"clean": "clips", "all": "clips", "noisy": "clips", "noisy_small": "clips"},
    ),
    # Fig. 3: at each temperature NT-Xent and ACL with one alpha; linear probe, and z (the tolerance
    # of ACL at 0.3 repeats the one at 0.2: the released features give 0.9595)
    "temperature": Table(
        "README of the authors' self-supervised code, Fig. 3 of the paper",
        ("temperature", "alpha", "linear_micro", "minus_uniformity", "tolerance"),
        (
            (0.1, 1.0, 77.081, 0.3976, 0.9113),
            (0.1, 0.7, 78.356, 0.2447, 0.9471),
            (0.2, 1.0, 74.16, 0.3719, 0.9189),
            (0.2, 0.3, 77.07, 0.2605, 0.9437),
            (0.3, 1.0, 75.57, 0.2954, 0.9357),
            (0.3, 0.4, 75.615, 0.1874, 0.9437),
            (0.4, 1.0, 75.175, 0.3126, 0.9328),
            (0.4, 0.8, 75.389, 0.1733, 0.9632),
            (0.5, 1.0, 74.893, 0.3377, 0.9269),
            (0.5, 0.3, 77.149, 0.1944, 0.9589),
            (0.6, 1.0, 75.626, 0.3106, 0.9339),
            (0.6, 0.7, 77.645, 0.1839, 0.9601),
            (0.7, 1.0, 75.897, 0.3166, 0.9301),
            (0.7, 0.2, 76.664, 0.2118, 0.9532),
            (0.8, 1.0, 74.126, 0.3129, 0.9329),
            (0.8, 0.9, 75.276, 0.1512, 0.9684),
            (0.9, 1.0, 72.93, 0.268, 0.944),
            (0.9, 0.3, 76.81, 0.2052, 0.9595),
            (1.0, 1.0, 71.329, 0.356, 0.9271),
            (1.0, 0.9, 75.964, 0.153, 0.9676),
        ),
        {
            "linear_micro": "patches",
            "minus_uniformity": "minus_uniformity",
            "tolerance": "tolerance",
        },
    ),
    # VoxCeleb1-O: equal error rate in percent, minimum detection cost; None where not printed
    "speaker_verification": Table(
        "README v2.0 of the sslsv toolkit (Fast ResNet-34); the last row: Lepage and Dehak 2024",
        ("system", "eer", "min_dcf"),
        (
            ("LIM", 16.13, 0.9015),
            ("CPC", 12.77, 0.8033),
            ("SimCLR", 9.05, 0.6364),
            ("MoCo", 8.49, 0.5990),
            ("DeepCluster", 15.16, 0.8193),
            ("SwAV", 11.82, 0.7177),
            ("W-MSE", 14.62, 0.8506),
            ("Barlow Twins", 13.22, 0.7658),
            ("VICReg", 11.33, 0.6658),
            ("BYOL", 13.99, 0.7509),
            ("SimSiam", 28.94, 0.9984),
            ("DINO", 6.04, 0.4526),
            ("supervised, additive angular margin", 2.95, 0.3122),
            ("SimCLR, symmetric, additive margin", 7.85, None),
        ),
        {"eer": "eer", "min_dcf": "min_dcf"},
    ),
}


def values_of(metric: str) -> list[float]:
    """All different values of one metric that the two READMEs print, ascending.

    Args:
        metric: key of METRICS.
    """
    tables = [TABLES[name] for name in (*SWEEPS, "temperature")]
    columns = [(t, c) for t in tables for c in t.metrics if set(t.metric(c)) == {metric}]
    return sorted({value for table, column in columns for value in table.column(column)})


def fitting_denominators(
    values: Sequence[float], *, up_to: int = 10_000, digits: int = 3
) -> list[int]:
    """Numbers n for which every printed percentage is some whole k over n, to its last digit.

    By chance some n fits a percentage with d digits with a probability of about n / 10^(d + 2), so
    it is many values at once that tell, and only below 10^(d + 2).

    Args:
        values: percentages as printed, 0 to 100.
        up_to: largest n to try.
        digits: behind the point.

    Returns:
        Ascending; a multiple of one that fits also fits.

    Raises:
        ValueError: no values, or one outside 0 to 100.
    """
    if not len(values) or not all(0 <= value <= 100 for value in values):
        raise ValueError(f"need percentages from 0 to 100; got {list(values)}")
    n = np.arange(1, up_to + 1)
    half = 0.5 * 10.0**-digits * (1 + 1e-9)  # ties may have been rounded either way
    for value in values:
        n = n[np.abs(100 * np.rint(value / 100 * n) / n - value) <= half]
    return n.tolist()


def accuracy_intervals(table: Table, column: str) -> list[tuple[float, float, float]]:
    """Each accuracy of a column with Wilson's 95 % interval over the 947 test clips.

    For shares of clips this is the uncertainty of the test clips and of nothing else, not of the
    training. For the metrics "patches" and "macro" it is too narrow: clips of unequal weight tell
    less than 947 equal ones.

    Returns:
        Value, lower and upper end of each row, as fractions; the interval is that of the nearest
        number of clips.

    Raises:
        ValueError: the column is no accuracy.
    """
    if not set(table.metric(column)) <= set(ACCURACIES):
        raise ValueError(f"{column!r} is no accuracy but {METRICS[table.metric(column)[0]]}")
    shares = [value / 100 for value in table.column(column)]
    ends = (wilson_interval(round(s * TEST_CLIPS), TEST_CLIPS) for s in shares)
    return [(s, float(low), float(high)) for s, (low, high) in zip(shares, ends, strict=True)]


def compare_systems() -> list[dict]:
    """The five comparisons on which the paper rests, each as a test of two proportions.

    Returns:
        For Table 2's self-supervised pair and the four parts of Table 1: what, metric, alpha, a
        (plain) and b (with the angular margin), difference, z and p (`two_proportion_test` with
        947 clips each: for the metric "patches" p is too small), interval_a and interval_b
        (Wilson's), overlap (of the intervals) and outside (b above the interval of a: the weak
        sense in which the paper's words hold). Fractions.
    """
    supervised, systems = TABLES["supervised"], TABLES["systems"]
    pairs = [("self-supervised", *accuracy_intervals(systems, "accuracy")[2:], "patches", 0.3)]
    for part, a, b, alpha in zip(
        supervised.column("part"),
        accuracy_intervals(supervised, "ce"),
        accuracy_intervals(supervised, "ce_margin"),
        supervised.column("alpha"),
        strict=True,
    ):
        pairs.append((f"supervised, {part}", a, b, "clips", alpha))
    found = []
    for what, (a, *around_a), (b, *around_b), metric, alpha in pairs:
        z, p = two_proportion_test(a, b, TEST_CLIPS)
        found.append(
            {
                "what": what,
                "metric": metric,
                "alpha": alpha,
                "a": a,
                "b": b,
                "difference": b - a,
                "z": z,
                "p": p,
                "interval_a": around_a,
                "interval_b": around_b,
                "overlap": around_b[0] <= around_a[1],
                "outside": b > around_a[1],
            }
        )
    return found


def sweep_noise(sweep: str, column: str) -> dict:
    """How noisy a published sweep over alpha is, and what choosing its best gains by luck.

    Args:
        sweep: "alpha_sweep" or "supervised_alpha_sweep"; one run for each alpha, alpha 1 the last.
        column: of its accuracies.

    Returns:
        metric; k (values of alpha below 1); sd over all alphas and sd_from_neighbours, which a
        trend hardly moves; ratio (von Neumann's, 2 for noise) and p (how often a random order is
        as smooth); mean_gain of alpha < 1 over plain, better (how many are), best_alpha, best_gain;
        luck and luck_from_neighbours (`best_of_noise` of k with either sd). In points.

    Raises:
        ValueError: no such sweep or column.
    """
    if sweep not in SWEEPS:
        raise ValueError(f"no sweep over alpha {sweep!r}: {' or '.join(SWEEPS)}")
    table = TABLES[sweep]
    metric = table.metric(column)[0]
    alphas, values = table.column("alpha"), table.column(column)
    *tried, plain = values
    best, spread, steps = max(tried), statistics.stdev(values), sd_from_neighbours(values)
    return {
        "metric": metric,
        "k": len(tried),
        "sd": spread,
        "sd_from_neighbours": steps,
        "ratio": von_neumann_ratio(values),
        "p": von_neumann_test(values),
        "mean_gain": statistics.fmean(tried) - plain,
        "better": sum(value > plain for value in tried),
        "best_alpha": alphas[values.index(best)],
        "best_gain": best - plain,
        "luck": best_of_noise(len(tried), spread),
        "luck_from_neighbours": best_of_noise(len(tried), steps),
    }


def compare_temperatures() -> dict:
    """ACL against NT-Xent over the ten temperatures of Fig. 3, paired by temperature.

    The pairs are not fair: ACL has another alpha at each temperature, by all appearances the best
    of up to ten on the test clips, and NT-Xent is one run; `sweep_noise` says what such a choice
    gains by luck.

    Returns:
        temperatures, alphas, plain and acl (accuracies by patches), differences; mean and sd of
        the three, under their names; interval (Student's 95 %, of the mean difference, over
        temperatures). In points.
    """
    rows = TABLES["temperature"].rows
    plain = {row[0]: row[2] for row in rows if row[1] == 1}
    chosen = {row[0]: row[2] for row in rows if row[1] < 1}
    columns = {"plain": [*plain.values()], "acl": [chosen[tau] for tau in plain]}
    columns["differences"] = [b - a for a, b in zip(*columns.values(), strict=True)]
    return {
        "temperatures": [*plain],
        "alphas": [next(r[1] for r in rows if r[0] == tau and r[1] < 1) for tau in plain],
        **columns,
        "mean": {name: statistics.fmean(values) for name, values in columns.items()},
        "sd": {name: statistics.stdev(values) for name, values in columns.items()},
        "interval": [*map(float, seed_interval(columns["differences"]))],
    }


def tables_report() -> str:
    """What the published tables say of themselves, as text to print."""
    lines = ["the five comparisons: percent, two proportions of 947 clips each, Wilson's intervals"]
    for row in compare_systems():
        ends = [
            f"{100 * low:.2f} to {100 * high:.2f}"
            for low, high in (row["interval_a"], row["interval_b"])
        ]
        lines.append(
            f"{row['what']:24} {100 * row['a']:.1f} and {100 * row['b']:.1f} by {row['metric']:8}"
            f"z {row['z']:.2f}, p {row['p']:<6.2g} {' and '.join(ends)}"
            f"{', overlap' if row['overlap'] else ''}"
        )
    lines += [
        "",
        "sweeps over alpha, one run each: spread; von Neumann's ratio (2 for noise), and how often",
        "a random order is as smooth; best minus plain; the same by luck, with the spread of all",
        "runs or that between neighbours",
        f"{'column':24}{'metric':9}{'sd':>5} {'ratio':>6} {'p':>6} {'best':>6} {'luck':>5} "
        f"{'neighbours':>11}",
    ]
    for sweep in SWEEPS:
        for column in TABLES[sweep].metrics:
            got = sweep_noise(sweep, column)
            lines.append(
                f"{column:24}{got['metric']:9}{got['sd']:5.2f} {got['ratio']:6.2f} "
                f"{got['p']:6.3f} {got['best_gain']:+6.2f} {got['luck']:5.2f} "
                f"{got['luck_from_neighbours']:11.2f}"
            )
    got = compare_temperatures()
    low, high = got["interval"]
    lines += [
        "",
        f"ten temperatures, ACL with another alpha at each: minus NT-Xent "
        f"{got['mean']['differences']:+.2f} ({low:+.2f} to {high:+.2f}) points;",
        f"spread over temperatures {got['sd']['plain']:.2f} for NT-Xent, {got['sd']['acl']:.2f} "
        "for ACL",
        "",
    ]
    patches, clips = values_of("patches"), values_of("clips")
    fits = ", ".join(map(str, fitting_denominators(patches, up_to=40_000)))
    some = fitting_denominators(clips, up_to=1000, digits=1)
    lines += [
        f"denominators up to 40000 that fit all {len(patches)} values by patches: {fits}",
        f"that fit all {len(clips)} values by clips, which have one digit: {len(some)} of the "
        f"numbers up to 1000, {TEST_CLIPS} {'is one' if TEST_CLIPS in some else 'is none'}",
    ]
    return "\n".join(lines)
