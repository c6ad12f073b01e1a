"""Accuracies and differences, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

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
    _with_ends(axis, [(name, name, ends) for name, ends in rows.items()])
    for at, (value, *_) in enumerate(rows.values()):
        value = 100 * value
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
    axis.set_ylim(len(rows) - 0.4, -0.7)
    axis.set(xlabel=label, ylabel="")
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
    points = [
        (group, system, ends)
        for system, line in rows.items()
        for group, ends in zip(groups, line, strict=True)
    ]
    _with_ends(axis, points, dodge=0.75 - 0.75 / len(rows), legend=True)
    handles, names = axis.get_legend_handles_labels()
    axis.get_legend().remove()
    axis.set_ylim(len(groups) - 0.4, -0.6)
    axis.grid(axis="x", color="0.9")
    axis.set_axisbelow(True)
    axis.set(xlabel=label, ylabel="")
    figure.legend(handles, names, loc="outside upper center", ncols=len(rows), frameon=False)
    open_axis(axis)
    return figure


def seeds(rows: dict[str, dict]) -> Figure:
    """Accuracy of every seed as a dot, and the mean over seeds with its interval.

    Args:
        rows: name -> "per_seed", "mean" and "interval", as fractions; see `records.over_seeds`.
    """
    import seaborn as sns  # it brings pandas and scipy.stats, which half the pages do without

    figure = new_figure(7.0, 0.5 * len(rows) + 0.9)
    axis = figure.subplots()
    names = [name.replace("; ", "\n") for name in rows]
    each = [
        (100 * v, name)
        for name, row in zip(names, rows.values(), strict=True)
        for v in row["per_seed"]
    ]
    accuracy, where = zip(*each, strict=True)
    sns.swarmplot(x=accuracy, y=where, order=names, color="black", size=4, ax=axis)
    means = [
        (name, "mean", (row["mean"], *row["interval"]))
        for name, row in zip(names, rows.values(), strict=True)
    ]
    _with_ends(axis, means)
    axis.set_ylim(len(rows) - 0.6, -0.8)
    axis.set(xlabel="test clips classified right (%): each seed, mean, 95 % interval", ylabel="")
    open_axis(axis)
    return figure


def heat_map(
    values: Float[Tensor, "R C"],
    texts: Sequence[Sequence[str]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    labels: tuple[str, str, str],
) -> Figure:
    """Values of a grid as colours with their numbers; a cell that holds NaN is hatched.

    Args:
        values: of each cell; the first row stands at the bottom.
        texts: what is written into each cell.
        rows, columns: settings, in ascending order.
        labels: of columns, of rows, and of the values with their unit.
    """
    import seaborn as sns  # it brings pandas and scipy.stats, which half the pages do without

    figure = new_figure(1.1 * len(columns) + 2.2, 0.5 * len(rows) + 1.0)
    axis = figure.subplots()
    grid = values.numpy()
    axis.patch.set(hatch="//", edgecolor="0.8")
    sns.heatmap(
        grid,
        mask=np.isnan(grid),
        cmap="cividis",
        xticklabels=list(columns),
        yticklabels=list(rows),
        linewidths=1.5,
        cbar_kws={"label": labels[2]},
        ax=axis,
    )
    low, high = np.nanmin(grid), np.nanmax(grid)
    for (row, column), value in np.ndenumerate(grid):
        share = 0.0 if high == low else (value - low) / (high - low)
        light = np.isnan(value) or share > 0.46  # where black stands out more than white on cividis
        axis.text(
            column + 0.5,
            row + 0.5,
            texts[row][column],
            ha="center",
            va="center",
            fontsize=8,
            color="black" if light else "white",
        )
    axis.invert_yaxis()
    axis.tick_params(axis="y", rotation=0)
    axis.set(xlabel=labels[0], ylabel=labels[1])
    return figure


def _with_ends(
    axis: Axes,
    points: Sequence[tuple[str, str, tuple[float, float, float]]],
    **options,
) -> None:
    """Values with the ends of their intervals, which are known: seaborn is to compute none.

    Of the three numbers of a point the median is its value and the range its interval.

    Args:
        points: row, system (which has a colour and a shape), and value, lower and upper end.
        options: of seaborn's `pointplot`.
    """
    import seaborn as sns  # it brings pandas and scipy.stats, which half the pages do without

    systems = list(dict.fromkeys(system for _, system, _ in points))
    long = [(row, system, 100 * end) for row, system, ends in points for end in ends]
    row, system, percent = zip(*long, strict=True)
    sns.pointplot(
        x=percent,
        y=row,
        hue=system,
        estimator="median",
        errorbar=("pi", 100),
        markers=[MARKERS[k % len(MARKERS)] for k in range(len(systems))],
        palette=[COLOURS[k % len(COLOURS)] for k in range(len(systems))],
        linestyle="none",
        capsize=0.15,
        markersize=6,
        err_kws={"linewidth": 1.5},
        ax=axis,
        **{"legend": False, **options},
    )
