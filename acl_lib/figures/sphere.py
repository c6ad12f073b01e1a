"""Representations on the sphere: angles, cosines, forces, maps."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from torch import Tensor

from .style import COLOURS, MARKERS, new_figure, open_axis


def on_circle(
    places: dict[str, Float[Tensor, "n 2"]], y: Int[Tensor, " n"], classes: Sequence[str]
) -> Figure:
    """Directions in the plane, a circle for each arrangement; a class has a colour and a shape.

    Args:
        places: title -> vectors of any norm, drawn at norm 1.
        y: class of each row.
        classes: their names.
    """
    figure = new_figure(2.9 * len(places), 3.4)
    axes = np.atleast_1d(figure.subplots(1, len(places)))
    turn = np.linspace(0, 2 * np.pi, 200)
    for axis, (title, z) in zip(axes, places.items(), strict=True):
        axis.plot(np.cos(turn), np.sin(turn), color="0.8", lw=1, zorder=0)
        u = (z / z.norm(dim=1, keepdim=True)).numpy()
        for k, name in enumerate(classes):
            colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
            axis.plot(*u[y.numpy() == k].T, marker, ms=8, color=colour, alpha=0.7, label=name)
        axis.set_title(title, fontsize=10)
        axis.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal")
        axis.set_axis_off()
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
    return figure


def circle_paths(runs: dict[str, Float[Tensor, "T n"]]) -> Figure:
    """Points that move on a circle: time runs outward, so that every path can be followed.

    Args:
        runs: title -> angle in radians of every point at every step; the first half of the points
            are one view of each clip, the second half, dashed, the other.
    """
    figure = new_figure(3.7 * len(runs), 3.9)
    axes = figure.subplots(1, len(runs), squeeze=False, subplot_kw={"projection": "polar"})[0]
    for axis, (title, phi) in zip(axes, runs.items(), strict=True):
        steps, clips = len(phi), phi.shape[1] // 2
        radius = 0.4 + 0.6 * np.log1p(np.arange(steps)) / np.log(steps)  # the first steps are long
        for n in range(2 * clips):
            colour, path = COLOURS[n % clips % len(COLOURS)], phi[:, n].numpy()
            axis.plot(path, radius, color=colour, ls=("-", "--")[n // clips], lw=1.3)
            axis.plot(path[0], radius[0], "o", ms=3, color=colour)
            axis.plot(path[-1], radius[-1], MARKERS[n % clips % len(MARKERS)], color=colour)
        for place, style in ((0.4, ":"), (1.0, "-")):
            axis.plot(np.linspace(0, 2 * np.pi, 200), np.full(200, place), style, color="0.7", lw=1)
        axis.set_title(title, fontsize=10)
        axis.set(rlim=(0, 1.08), yticks=[])
        axis.set_xticks(np.arange(0, 2 * np.pi, np.pi / 2))
        axis.grid(False)
        axis.spines["polar"].set_visible(False)
    figure.supxlabel("inner circle: start; outer circle: end (log of the step)", fontsize=9)
    return figure


def angles(groups: dict[str, Float[Tensor, " _"]], *, margin: float) -> Figure:
    """How large the angles of several kinds of pairs are, as shares of each kind, and the margin.

    Args:
        groups: kind -> angles in radians.
        margin: radians.
    """
    figure = new_figure(6.8, 3.1)
    axis = figure.subplots()
    top = max(90.0, *(float(theta.max().rad2deg()) for theta in groups.values()))
    for k, (name, theta) in enumerate(groups.items()):
        degrees = theta.rad2deg().numpy()
        axis.hist(
            degrees,
            bins=np.arange(0, top + 2, 2),
            weights=np.full(len(degrees), 100 / len(degrees)),
            histtype=("stepfilled", "step")[k % 2],
            color=COLOURS[k],
            alpha=(0.5, 1.0)[k % 2],
            lw=1.8,
            label=f"{name}, {len(degrees)} pairs",
        )
    limit = float(np.degrees(margin))
    axis.axvline(limit, color=COLOURS[6], ls="--", lw=1.2, label=f"margin, {limit:.1f} degrees")
    axis.set(xlabel="angle (degrees)", ylabel="share of its kind (%)", xlim=(0, top))
    axis.legend(frameon=False)
    open_axis(axis)
    return figure


def cosines(
    squares: dict[str, Float[Tensor, "n n"]], positive: Bool[Tensor, "n n"], names: Sequence[str]
) -> Figure:
    """Cosines of all pairs of views as squares of one colour scale, the positives framed.

    Args:
        squares: title -> cosines, row the anchor, column the candidate; nan where a loss does not
            look, drawn grey.
        positive: True where row and column are the two views of one clip.
        names: of the views.
    """
    figure = new_figure(3.7 * len(squares) + 1.3, 4.6)
    axes = np.atleast_1d(figure.subplots(1, len(squares), sharey=True))
    scale = plt.get_cmap("RdBu_r").with_extremes(bad="0.75")
    for axis, (title, square) in zip(axes, squares.items(), strict=True):
        image = axis.imshow(square.numpy(), cmap=scale, vmin=-1, vmax=1)
        for row, column in (positive & ~square.isnan()).nonzero().tolist():
            corner = (column - 0.5, row - 0.5)
            axis.add_patch(plt.Rectangle(corner, 1, 1, fill=False, edgecolor="black", lw=1.8))
        axis.set_title(title, fontsize=10)
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_xlabel("candidate")
        axis.tick_params(length=0)
    axes[0].set_ylabel("anchor")
    figure.colorbar(image, ax=axes, label="cosine (framed: positive; grey: not read)", shrink=0.8)
    return figure


def pair_forces(
    terms: dict[str, tuple[Float[Tensor, "n n"], Float[Tensor, "n n"]]], same: Bool[Tensor, "n n"]
) -> Figure:
    """What a loss does to every pair against the pair's angle: a column for each term.

    Args:
        terms: title -> angles in radians and forces per radian, positive where they push apart.
        same: True where both are views of one clip.
    """
    figure = new_figure(4.2 * len(terms) + 0.4, 5.4)
    axes = figure.subplots(2, len(terms), squeeze=False, sharex=True, sharey="row")
    once = np.triu(np.ones(same.shape, dtype=bool), 1)  # every pair in one of its two orders
    kinds = {"views of one clip": same.numpy(), "views of two clips": ~same.numpy()}
    for k, (row, (kind, mine)) in enumerate(zip(axes, kinds.items(), strict=True)):
        for axis, (title, (theta, force)) in zip(row, terms.items(), strict=True):
            x, y = theta.rad2deg().numpy()[mine & once], force.numpy()[mine & once]
            axis.plot(x, y, MARKERS[k], ms=(4, 2)[k], color=COLOURS[k], alpha=0.6)
            axis.axhline(0, color="0.6", lw=1, zorder=0)
            axis.set_title(f"{title}\n{kind}", fontsize=10)
            open_axis(axis)
        row[0].set_ylabel("force (per rad)\n< 0 pulls, > 0 pushes")
    for axis in axes[1]:
        axis.set_xlabel("angle (degrees)")
    return figure


def spreads(
    rows: dict[str, Float[Tensor, " _"]], label: str, *, reference: float | None = None
) -> Figure:
    """How values of several kinds are spread: middle, quarters and tenths, on a logarithmic axis.

    Args:
        rows: kind -> positive values, in the order to draw.
        label: of the axis, with its unit.
        reference: a dashed line.
    """
    figure = new_figure(7.0, 0.36 * len(rows) + 1.0)
    axis = figure.subplots()
    for at, values in enumerate(rows.values()):
        low, quarter, middle, third, high = np.quantile(values.numpy(), (0.1, 0.25, 0.5, 0.75, 0.9))
        axis.plot([low, high], [at, at], color="0.65", lw=1.5)
        axis.plot([quarter, third], [at, at], color=COLOURS[0], lw=6, solid_capstyle="butt")
        axis.plot(middle, at, "o", color="white", mec=COLOURS[0], ms=8)
    if reference is not None:
        axis.axvline(reference, color=COLOURS[6], ls="--", lw=1)
    axis.set_xscale("log")
    axis.set_yticks(range(len(rows)), rows)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlabel(f"{label}\ndot: median, bar: middle half, line: 80 % of all")
    axis.grid(axis="x", color="0.9")
    axis.set_axisbelow(True)
    open_axis(axis)
    return figure


def geometry(spaces: dict[str, dict[str, float]], measures: dict[str, str]) -> Figure:
    """How spaces lie on the sphere: a panel for each measure, a row for each space.

    Args:
        spaces: name -> measure -> value, as in `Record.geometry`.
        measures: what to draw of it, and the label of its axis.
    """
    figure = new_figure(2.1 * len(measures) + 1, 0.42 * len(spaces) + 1.1)
    axes = np.atleast_1d(figure.subplots(1, len(measures), sharey=True))
    for axis, (key, label) in zip(axes, measures.items(), strict=True):
        values = [space[key] for space in spaces.values()]
        for at, value in enumerate(values):
            colour, marker = COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)]
            axis.plot([0, value], [at, at], color="0.8", lw=1, zorder=0)
            axis.plot(value, at, marker, color=colour)
            side = 7 if value >= 0 else -7
            axis.annotate(
                f"{value:.2f}",
                (value, at),
                (side, 0),
                textcoords="offset points",
                ha="left" if value >= 0 else "right",
                va="center",
                fontsize=9,
            )
        axis.axvline(0, color="0.6", lw=1)
        low, high = min(0.0, *values), max(0.0, *values)
        room = 0.45 * (high - low or 1)  # for the numbers
        axis.set_xlim(low - room * (low < 0), high + room * (high > 0))
        axis.set_xlabel(label)
        open_axis(axis)
    axes[0].set_yticks(range(len(spaces)), spaces)
    axes[0].set_ylim(len(spaces) - 0.5, -0.5)
    return figure


def maps(
    points: dict[str, Float[np.ndarray, "n 2"]], labels: Int[Tensor, " n"], classes: Sequence[str]
) -> Figure:
    """Two-dimensional maps of the same clips; a class has a colour and a shape, and its name.

    Args:
        points: title -> coordinates, without units.
        labels: class of each clip.
        classes: their names.
    """
    import seaborn as sns  # it brings pandas and scipy.stats, which half the pages do without

    figure = new_figure(5.0 * len(points), 4.6)
    axes = np.atleast_1d(figure.subplots(1, len(points)))
    labels = labels.numpy()
    present = [k for k in range(len(classes)) if (labels == k).any()]
    order, belongs = [classes[k] for k in present], [classes[k] for k in labels]
    for axis, (title, xy) in zip(axes, points.items(), strict=True):
        sns.scatterplot(
            x=xy[:, 0],
            y=xy[:, 1],
            hue=belongs,
            style=belongs,
            hue_order=order,
            style_order=order,
            palette=[COLOURS[k % len(COLOURS)] for k in present],
            markers=[MARKERS[(k // len(COLOURS) + k) % len(MARKERS)] for k in present],
            legend=axis is axes[0],
            s=20,
            alpha=0.8,
            linewidth=0.2,
            ax=axis,
        )
        axis.set(title=title, xticks=[], yticks=[])
    handles, names = axes[0].get_legend_handles_labels()
    axes[0].get_legend().remove()
    figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    return figure
