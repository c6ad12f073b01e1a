"""Curves over a common axis, and histograms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from .style import COLOURS, MARKERS, new_figure, open_axis


def curves(
    x: Float[Tensor, " n"],
    rows: dict[str, Float[Tensor, " n"]],
    xlabel: str,
    ylabel: str,
    *,
    dots: bool = False,
) -> Figure:
    """Several quantities over the same axis; each has a colour and, where they may meet, a dash.

    Args:
        x: places, ascending.
        rows: name -> values at these places; a single one needs no legend.
        xlabel, ylabel: with their units.
        dots: mark the places; for few.
    """
    figure = new_figure(6.8, 3.0)
    axis = figure.subplots()
    for k, (name, values) in enumerate(rows.items()):
        axis.plot(
            x.numpy(),
            values.numpy(),
            ("-", "--", ":", "-.")[k % 4],
            marker=MARKERS[k % len(MARKERS)] if dots else None,
            color=COLOURS[k % len(COLOURS)],
            lw=1.2,
            label=name,
        )
    axis.set(xlabel=xlabel, ylabel=ylabel)
    if len(rows) > 1:
        figure.legend(loc="outside upper center", ncols=min(len(rows), 4), frameon=False)
    open_axis(axis)
    return figure


def seed_curves(
    x: Float[Tensor, " n"],
    rows: dict[str, Float[Tensor, "S n"]],
    xlabel: str,
    ylabel: str,
    *,
    marks: dict[str, float] | None = None,
) -> Figure:
    """Several runs at each place: every seed a dot, their mean a line.

    Args:
        x: places, ascending.
        rows: name -> values of each seed at these places.
        xlabel, ylabel: with their units.
        marks: name -> height of a dashed line.
    """
    figure = new_figure(6.8, 3.2)
    axis = figure.subplots()
    for k, (name, values) in enumerate(rows.items()):
        look = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)]}
        places = x.expand_as(values).flatten().numpy()
        axis.plot(places, values.flatten().numpy(), ls="", ms=4, mfc="none", alpha=0.8, **look)
        axis.plot(x.numpy(), values.mean(0).numpy(), lw=1.6, ms=6, label=name, **look)
    for k, (name, height) in enumerate((marks or {}).items()):
        axis.axhline(height, color="0.4", ls=("--", ":")[k % 2], lw=1.2, label=name)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    if len(rows) + len(marks or {}) > 1:
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
    open_axis(axis)
    return figure


def panels(
    x: Float[Tensor, " n"],
    rows: dict[str, dict[str, Float[Tensor, " n"]]],
    xlabel: str,
    *,
    marks: dict[str, float] | None = None,
    log: str = "",
    dots: bool = False,
    columns: int | None = None,
) -> Figure:
    """Several quantities over the same axis, a panel for each unit; equal names look alike.

    Args:
        x: places, ascending.
        rows: label of a panel's axis, with its unit -> name -> values at these places.
        xlabel: with its unit.
        marks: name -> place of a vertical line in every panel.
        log: axes with a logarithmic scale, "x", "y" or "xy".
        dots: mark the places; for few.
        columns: panels side by side; all of them when None.
    """
    columns = columns or len(rows)
    lines = -(-len(rows) // columns)
    figure = new_figure(max(6.0, 4.2 * columns), 3.0 * lines + 0.3)
    axes = np.atleast_1d(figure.subplots(lines, columns)).flatten()
    for empty in axes[len(rows) :]:
        empty.remove()
    axes = axes[: len(rows)]
    names = list(dict.fromkeys(name for lines in rows.values() for name in lines))
    handles = {}
    for axis, (ylabel, lines) in zip(axes, rows.items(), strict=True):
        for name, values in lines.items():
            k = names.index(name)
            (handles[name],) = axis.plot(
                x.numpy(),
                values.numpy(),
                ("-", "--", ":", "-.")[k % 4],
                marker=MARKERS[k % len(MARKERS)] if dots else None,
                color=COLOURS[k % len(COLOURS)],
                lw=1.6,
            )
        for name, place in (marks or {}).items():
            axis.axvline(place, color="0.6", lw=1, zorder=0)
            axis.annotate(
                name,
                (place, 1),
                (-3, -2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                rotation=90,
                ha="right",
                va="top",
                fontsize=8,
                color="0.35",
            )
        axis.set(xlabel=xlabel, ylabel=ylabel)
        if "x" in log:
            axis.set_xscale("log")
        if "y" in log:
            axis.set_yscale("log")
        if dots:
            axis.set_xticks(x.tolist(), [f"{place:g}" for place in x.tolist()])
            axis.set_xticks([], minor=True)
        open_axis(axis)
    if len(names) > 1:
        shown = [handles[name] for name in names]
        figure.legend(shown, names, loc="outside upper center", ncols=4, frameon=False)
    return figure


def loss_curve(history: Sequence[float], *, chance: float | None = None) -> Figure:
    """Mean loss of each epoch, and the loss of an encoder that cannot tell its views apart.

    Args:
        history: nats, one value an epoch.
        chance: log(2B - 1) for NT-Xent; drawn as a dashed line.
    """
    figure = new_figure(6.0, 3.0)
    axis = figure.subplots()
    axis.plot(range(1, len(history) + 1), history, "o-", ms=3, color=COLOURS[0], label="NT-Xent")
    if chance is not None:
        axis.axhline(chance, color=COLOURS[6], ls="--", lw=1, label=f"chance, {chance:.2f} nats")
    axis.set(xlabel="epoch", ylabel="loss (nats)", ylim=(0, None))
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(frameon=False)
    open_axis(axis)
    return figure


def histogram(
    values: Float[Tensor, " n"], marks: dict[str, float], label: str, *, bins: int = 60
) -> Figure:
    """How often values occur, and where some marks lie among them.

    Args:
        values: in the unit of the marks.
        marks: name -> place of a line.
        label: of the axis, with its unit.
    """
    import seaborn as sns  # it brings pandas and scipy.stats, which half the pages do without

    figure = new_figure(6.5, 2.9)
    axis = figure.subplots()
    sns.histplot(x=values.numpy(), bins=bins, color="0.75", edgecolor="white", lw=0.3, ax=axis)
    for k, (name, place) in enumerate(marks.items()):
        axis.axvline(
            place, color=COLOURS[k], ls=("-", "--", ":")[k % 3], label=f"{name}, {place:.2f}"
        )
    axis.set(xlabel=label, ylabel="how often", yticks=[])
    axis.legend(frameon=False)
    open_axis(axis)
    return figure
