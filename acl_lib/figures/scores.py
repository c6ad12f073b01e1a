"""Accuracies and differences, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from .style import COLOURS, MARKERS, new_figure, open_axis


def accuracies(scores: dict[str, dict], *, interval: str = "interval") -> Figure:
    """Share of the test clips that were read rightly, with its interval, one row for each name.

    Args:
        scores: name -> what `records.score` says, in the order to draw.
        interval: "interval" (Wilson's, over clips) or "interval_by_source".
    """
    clips = " or ".join(sorted({str(s["n"]) for s in scores.values()}))
    over = {"interval": "", "interval_by_source": " over sources"}[interval]
    return intervals(
        {name: (s["accuracy"], *s[interval]) for name, s in scores.items()},
        f"test clips classified right (%)\n95 % interval{over}, n = {clips}",
    )


def intervals(
    rows: dict[str, tuple[float, float, float]], label: str, *, difference: bool = False
) -> Figure:
    """Values with their intervals, one in each row, in percent.

    Args:
        rows: name -> value, lower and upper end, as fractions.
        label: of the axis, with its unit.
        difference: draw signs, and a line at zero.
    """
    figure = new_figure(7.0, 0.55 * len(rows) + 0.9)
    axis = figure.subplots()
    for at, ends in enumerate(rows.values()):
        value, low, high = (100 * end for end in ends)
        axis.errorbar(
            value,
            at,
            xerr=[[value - low], [high - value]],
            fmt=MARKERS[at % len(MARKERS)],
            color=COLOURS[at % len(COLOURS)],
            capsize=4,
        )
        axis.annotate(
            f"{value:+.1f}" if difference else f"{value:.1f} %",
            (value, at),
            (0, 7),
            textcoords="offset points",
            ha="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    if difference:
        axis.axvline(0, color=COLOURS[6], ls="--", lw=1)
    axis.set_yticks(range(len(rows)), rows)
    axis.set_ylim(len(rows) - 0.4, -0.7)
    axis.set_xlabel(label)
    open_axis(axis)
    return figure


def differences(pairs: Sequence[dict]) -> Figure:
    """How much better the second of two methods is on the same clips, for each pair.

    Args:
        pairs: as from `records.compare`.
    """
    rows = {
        f"{p['b']}\nminus {p['a']} ({p['pretrain_on']})": (p["difference"], *p["interval"])
        for p in pairs
    }
    label = "difference (points), 95 % interval over sources"
    return intervals(rows, label, difference=True)


def side_by_side(
    rows: dict[str, Sequence[tuple[float, float, float]]], groups: Sequence[str], label: str
) -> Figure:
    """Values with intervals of several systems in each of several groups, in percent.

    Args:
        rows: system -> for every group value, lower and upper end, as fractions.
        groups: classes or corpora, in the order to draw.
        label: of the axis, with its unit.
    """
    figure = new_figure(7.0, 0.42 * len(groups) + 1.2)
    axis = figure.subplots()
    for k, (name, ends) in enumerate(rows.items()):
        value, low, high = 100 * np.array(ends).T
        axis.errorbar(
            value,
            np.arange(len(groups)) + 0.3 * (k - (len(rows) - 1) / 2),
            xerr=[value - low, high - value],
            fmt=MARKERS[k],
            color=COLOURS[k],
            capsize=3,
            label=name,
        )
    axis.set_yticks(range(len(groups)), groups)
    axis.set_ylim(len(groups) - 0.4, -0.6)
    axis.grid(axis="x", color="0.9")
    axis.set_axisbelow(True)
    axis.set_xlabel(label)
    figure.legend(loc="outside upper center", ncols=len(rows), frameon=False)
    open_axis(axis)
    return figure


def seeds(rows: dict[str, dict]) -> Figure:
    """Accuracy of every seed as a dot, and the mean over seeds with its interval.

    Args:
        rows: name -> "per_seed", "mean" and "interval", as fractions; see `records.over_seeds`.
    """
    figure = new_figure(7.0, 0.5 * len(rows) + 0.9)
    axis = figure.subplots()
    for at, row in enumerate(rows.values()):
        mean, (low, high) = 100 * row["mean"], (100 * end for end in row["interval"])
        for k, value in enumerate(row["per_seed"]):  # equal values side by side
            axis.plot(100 * value, at - 0.18 - 0.07 * k, "k.", ms=5)
        axis.errorbar(
            mean, at, xerr=[[mean - low], [high - mean]], fmt="D", color=COLOURS[0], capsize=4
        )
    axis.set_yticks(range(len(rows)), [name.replace("; ", "\n") for name in rows])
    axis.set_ylim(len(rows) - 0.6, -0.8)
    axis.set_xlabel("test clips classified right (%): each seed, mean, 95 % interval")
    open_axis(axis)
    return figure
