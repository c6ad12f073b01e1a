"""What things cost: how cost grows, and how much more the alternative takes."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .style import COLOURS, MARKERS, new_figure, open_axis


def growth(
    rows: dict[str, Sequence[tuple[float, float]]],
    xlabel: str,
    ylabel: str,
    *,
    projected: dict[str, tuple[float, float]] | None = None,
    limit: tuple[float, str] | None = None,
) -> Figure:
    """Cost against size, both on logarithmic axes: a straight line is a power.

    Args:
        rows: name -> size and cost, measured, by size.
        xlabel, ylabel: with their units.
        projected: name -> a size and a cost that nobody measured, drawn hollow at a dashed line.
        limit: a cost, and what it is the limit of.
    """
    figure = new_figure(6.8, 3.4)
    axis = figure.subplots()
    for k, (name, points) in enumerate(rows.items()):
        colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
        axis.loglog(*zip(*points, strict=True), marker=marker, color=colour, lw=1.2, label=name)
        if projected and name in projected:
            line = zip(points[-1], projected[name], strict=True)
            axis.loglog(*line, "--", color=colour, lw=1)
            axis.loglog(*projected[name], marker, color=colour, mfc="white", ms=8)
    if projected:
        axis.loglog([], [], "ko--", mfc="white", ms=8, lw=1, label="projected, not measured")
    if limit:
        axis.axhline(limit[0], color=COLOURS[6], ls=":", lw=1, label=limit[1])
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.minorticks_off()
    sizes = {x for points in rows.values() for x, _ in points}
    sizes |= {x for x, _ in (projected or {}).values()}
    axis.set_xticks(sorted(sizes), [f"{x:,.12g}" for x in sorted(sizes)])
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    open_axis(axis)
    return figure


def ratios(rows: dict[str, tuple[float, float, float]], label: str) -> Figure:
    """How many times as much each alternative takes, on a logarithmic axis with a line at 1.

    Args:
        rows: name -> median, least and most of the ratios within a round.
        label: of the axis.
    """
    figure = new_figure(7.0, 0.42 * len(rows) + 0.9)
    axis = figure.subplots()
    for at, (middle, low, high) in enumerate(rows.values()):
        axis.plot([low, high], [at, at], color=COLOURS[0], lw=2)
        axis.plot(middle, at, MARKERS[0], color=COLOURS[0], ms=7)
        axis.annotate(
            f"{middle:.3g}", (middle, at), (0, 7), textcoords="offset points", ha="center"
        )
    axis.axvline(1, color=COLOURS[6], ls="--", lw=1)
    axis.set_xscale("log")
    every = [end for row in rows.values() for end in row] + [1]
    axis.set_xlim(min(every) / 1.3, max(every) * 1.3)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set_ylim(len(rows) - 0.5, -0.8)
    axis.set_xlabel(label)
    open_axis(axis)
    return figure


def moments(rows: dict[str, Sequence[float]], label: str) -> Figure:
    """When something happened on the way from start to end, a row of marks for each job.

    Args:
        rows: name -> shares of the way, 0 to 1.
        label: of the axis.
    """
    figure = new_figure(7.0, 0.4 * len(rows) + 0.8)
    axis = figure.subplots()
    for at, shares in enumerate(rows.values()):
        axis.plot(list(shares), [at] * len(shares), "|", color=COLOURS[at % len(COLOURS)], ms=13)
    names = [f"{name}, {len(shares)} times" for name, shares in rows.items()]
    axis.set_yticks(range(len(rows)), names)
    axis.set(xlabel=label, ylim=(len(rows) - 0.4, -0.6), xlim=(-0.02, 1.02))
    open_axis(axis)
    return figure
