"""Arrays or records -> one matplotlib Figure: axes with units, colours that everyone can tell."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

# Okabe and Ito's colours, which colour-blind readers can tell apart
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
SECONDS = 220 / 22_050  # of a frame of the standard front end


def log_mels(
    mels: Sequence[Float[Tensor, "F T"]],
    titles: Sequence[str],
    *,
    columns: int = 3,
    seconds_per_frame: float = SECONDS,
) -> Figure:
    """Log-mel spectrograms side by side on one colour scale.

    Args:
        mels: log10 power, band 0 lowest.
        titles: one for each.
        columns: pictures in a row.
        seconds_per_frame: unit of the time axis.
    """
    columns = min(columns, len(mels))
    rows = -(-len(mels) // columns)
    figure = _figure(3.0 * columns, 2.1 * rows + 0.4)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    low = min(float(mel.quantile(0.02)) for mel in mels)
    high = max(float(mel.max()) for mel in mels)
    for axis in axes.flat[len(mels) :]:
        axis.remove()
    for axis, mel, title in zip(axes.flat, mels, titles, strict=False):
        image = axis.imshow(
            mel.numpy(),
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=low,
            vmax=high,
            extent=(0, mel.shape[1] * seconds_per_frame, 0, mel.shape[0]),
        )
        axis.set_title(title, fontsize=10)
    for axis in axes[:, 0]:
        axis.set_ylabel("mel band")
    for axis in axes.flat[max(0, len(mels) - columns) : len(mels)]:
        axis.set_xlabel("time (s)")
    figure.colorbar(image, ax=axes, label="log10 power", shrink=0.8)
    return figure


def loss_curve(history: Sequence[float], *, chance: float | None = None) -> Figure:
    """Mean loss of each epoch, and the loss of an encoder that cannot tell its views apart.

    Args:
        history: nats, one value an epoch.
        chance: log(2B - 1) for NT-Xent; drawn as a dashed line.
    """
    figure = _figure(6.0, 3.0)
    axis = figure.subplots()
    axis.plot(range(1, len(history) + 1), history, "o-", ms=3, color=COLOURS[0], label="NT-Xent")
    if chance is not None:
        axis.axhline(chance, color=COLOURS[6], ls="--", lw=1, label=f"chance, {chance:.2f} nats")
    axis.set(xlabel="epoch", ylabel="loss (nats)", ylim=(0, None))
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(frameon=False)
    _open(axis)
    return figure


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
    figure = _figure(7.0, 0.55 * len(rows) + 0.9)
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
    _open(axis)
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
    figure = _figure(7.0, 0.42 * len(groups) + 1.2)
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
    _open(axis)
    return figure


def geometry(spaces: dict[str, dict[str, float]], measures: dict[str, str]) -> Figure:
    """How spaces lie on the sphere: a panel for each measure, a row for each space.

    Args:
        spaces: name -> measure -> value, as in `Record.geometry`.
        measures: what to draw of it, and the label of its axis.
    """
    figure = _figure(2.1 * len(measures) + 1, 0.42 * len(spaces) + 1.1)
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
        _open(axis)
    axes[0].set_yticks(range(len(spaces)), spaces)
    axes[0].set_ylim(len(spaces) - 0.5, -0.5)
    return figure


def belonging(pairs: dict[str, Bool[Tensor, "B B"]], names: Sequence[str]) -> Figure:
    """Which rows of a batch belong together: one square of pairs for each rule.

    Args:
        pairs: title -> True where i and j are a positive pair; the diagonal is drawn apart.
        names: of the rows.
    """
    figure = _figure(3.6 * len(pairs) + 1, 4.2)
    axes = np.atleast_1d(figure.subplots(1, len(pairs), sharey=True))
    kinds = ListedColormap(["white", COLOURS[0], "0.75"])
    for axis, (title, same) in zip(axes, pairs.items(), strict=True):
        cells = same.int().fill_diagonal_(2).numpy()
        axis.imshow(cells, cmap=kinds, vmin=0, vmax=2)
        axis.set_title(title, fontsize=10)
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_xticks(np.arange(len(names)) - 0.5, minor=True)
        axis.set_yticks(np.arange(len(names)) - 0.5, minor=True)
        axis.grid(which="minor", color="0.85", lw=0.5)
        axis.tick_params(which="both", length=0)
    kinds = {"positive": COLOURS[0], "negative": "white", "itself": "0.75"}
    patches = [Patch(facecolor=c, edgecolor="0.6", label=name) for name, c in kinds.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False)
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
    figure = _figure(6.5, 2.9)
    axis = figure.subplots()
    axis.hist(values.numpy(), bins=bins, color="0.75")
    for k, (name, place) in enumerate(marks.items()):
        axis.axvline(
            place, color=COLOURS[k], ls=("-", "--", ":")[k % 3], label=f"{name}, {place:.2f}"
        )
    axis.set(xlabel=label, ylabel="how often", yticks=[])
    axis.legend(frameon=False)
    _open(axis)
    return figure


def seeds(rows: dict[str, dict]) -> Figure:
    """Accuracy of every seed as a dot, and the mean over seeds with its interval.

    Args:
        rows: name -> "per_seed", "mean" and "interval", as fractions; see `records.over_seeds`.
    """
    figure = _figure(7.0, 0.5 * len(rows) + 0.9)
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
    _open(axis)
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
    figure = _figure(5.0 * len(points), 4.6)
    axes = np.atleast_1d(figure.subplots(1, len(points)))
    labels = labels.numpy()
    for axis, (title, xy) in zip(axes, points.items(), strict=True):
        for k, name in enumerate(classes):
            mine = xy[labels == k]
            if len(mine):
                colour = COLOURS[k % len(COLOURS)]
                marker = MARKERS[(k // len(COLOURS) + k) % len(MARKERS)]
                axis.scatter(*mine.T, s=14, marker=marker, color=colour, alpha=0.7, label=name)
        axis.set(title=title, xticks=[], yticks=[])
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    return figure


def _figure(width: float, height: float) -> Figure:
    """An empty figure, in inches; a notebook draws it where it is returned, and only there."""
    figure = plt.figure(figsize=(width, height), layout="constrained")
    plt.close(figure)  # else pyplot draws it once more at the end of the cell
    return figure


def _open(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)


def waveforms(wavs: dict[str, Float[Tensor, " L"]], sample_rate: int) -> Figure:
    """Waveforms side by side, each against its own time: in ms where it is shorter than 0.5 s.

    Args:
        wavs: title -> samples, full scale 1.
        sample_rate: Hz.
    """
    figure = _figure(3.8 * len(wavs), 2.4)
    axes = np.atleast_1d(figure.subplots(1, len(wavs), sharey=True))
    for axis, (title, wav) in zip(axes, wavs.items(), strict=True):
        seconds = np.arange(len(wav)) / sample_rate
        unit, scale = ("ms", 1000) if len(wav) < 0.5 * sample_rate else ("s", 1)
        axis.plot(scale * seconds, wav.numpy(), lw=0.7, color=COLOURS[0])
        axis.set(xlabel=f"time ({unit})")
        axis.set_title(title, fontsize=10)
        _open(axis)
    axes[0].set_ylabel("pressure (full scale 1)")
    return figure


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
    figure = _figure(6.8, 3.0)
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
    _open(axis)
    return figure


def class_sizes(corpora: dict[str, dict[str, dict[str, int]]]) -> Figure:
    """Clips of every class, split into parts, a panel for each corpus with its own scale.

    Args:
        corpora: title -> class -> part -> clips; parts do not overlap.
    """
    parts = list(dict.fromkeys(p for k in corpora.values() for row in k.values() for p in row))
    figure = _figure(4.4 * len(corpora), 0.2 * max(map(len, corpora.values())) + 1.2)
    axes = np.atleast_1d(figure.subplots(1, len(corpora)))
    for axis, (title, classes) in zip(axes, corpora.items(), strict=True):
        left = np.zeros(len(classes))
        for k, part in enumerate(parts):
            clips = np.array([row.get(part, 0) for row in classes.values()])
            axis.barh(
                range(len(classes)),
                clips,
                left=left,
                color=COLOURS[k % len(COLOURS)],
                hatch=("", "////", "....")[k % 3],
                edgecolor="white",
                lw=0,
            )
            left += clips
        axis.set_yticks(range(len(classes)), classes, fontsize=8)
        axis.set_ylim(len(classes) - 0.4, -0.6)
        axis.set_xlabel("clips")
        axis.set_title(title, fontsize=10)
        _open(axis)
    patches = [
        Patch(
            facecolor=COLOURS[k % len(COLOURS)],
            hatch=("", "////", "....")[k % 3],
            edgecolor="white",
            lw=0,
            label=part,
        )
        for k, part in enumerate(parts)
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=4, frameon=False)
    return figure


def label_matrix(
    counts: Int[Tensor, "K J"], labels: Sequence[str], truths: Sequence[str]
) -> Figure:
    """How many clips of each label are what in truth; an empty cell is 0.

    Args:
        counts: clips with label k (row) that are sounds of j (column).
        labels, truths: names of rows and columns.
    """
    figure = _figure(0.27 * len(truths) + 2.2, 0.24 * len(labels) + 2.0)
    axis = figure.subplots()
    axis.imshow(counts.numpy(), cmap="Blues", vmin=0, vmax=max(1, 1.6 * counts.max().item()))
    for row, column in counts.nonzero().tolist():
        axis.text(
            column, row, str(counts[row, column].item()), ha="center", va="center", fontsize=8
        )
    axis.set_xticks(range(len(truths)), truths, rotation=90, fontsize=8)
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.set(xlabel="what the clip is", ylabel="what the label says")
    axis.tick_params(length=0)
    return figure


def panels(
    x: Float[Tensor, " n"],
    rows: dict[str, dict[str, Float[Tensor, " n"]]],
    xlabel: str,
    *,
    marks: dict[str, float] | None = None,
    log: str = "",
    dots: bool = False,
) -> Figure:
    """Several quantities over the same axis, a panel for each unit; equal names look alike.

    Args:
        x: places, ascending.
        rows: label of a panel's axis, with its unit -> name -> values at these places.
        xlabel: with its unit.
        marks: name -> place of a vertical line in every panel.
        log: axes with a logarithmic scale, "x", "y" or "xy".
        dots: mark the places; for few.
    """
    figure = _figure(max(6.0, 4.2 * len(rows)), 3.3)
    axes = np.atleast_1d(figure.subplots(1, len(rows)))
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
        _open(axis)
    if len(names) > 1:
        shown = [handles[name] for name in names]
        figure.legend(shown, names, loc="outside upper center", ncols=4, frameon=False)
    return figure


def angles(groups: dict[str, Float[Tensor, " _"]], *, margin: float) -> Figure:
    """How large the angles of several kinds of pairs are, as shares of each kind, and the margin.

    Args:
        groups: kind -> angles in radians.
        margin: radians.
    """
    figure = _figure(6.8, 3.1)
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
    _open(axis)
    return figure


def pair_forces(
    terms: dict[str, tuple[Float[Tensor, "n n"], Float[Tensor, "n n"]]], same: Bool[Tensor, "n n"]
) -> Figure:
    """What a loss does to every pair against the pair's angle: a column for each term.

    Args:
        terms: title -> angles in radians and forces per radian, positive where they push apart.
        same: True where both are views of one clip.
    """
    figure = _figure(4.2 * len(terms) + 0.4, 5.4)
    axes = figure.subplots(2, len(terms), squeeze=False, sharex=True, sharey="row")
    once = np.triu(np.ones(same.shape, dtype=bool), 1)  # every pair in one of its two orders
    kinds = {"views of one clip": same.numpy(), "views of two clips": ~same.numpy()}
    for k, (row, (kind, mine)) in enumerate(zip(axes, kinds.items(), strict=True)):
        for axis, (title, (theta, force)) in zip(row, terms.items(), strict=True):
            x, y = theta.rad2deg().numpy()[mine & once], force.numpy()[mine & once]
            axis.plot(x, y, MARKERS[k], ms=(4, 2)[k], color=COLOURS[k], alpha=0.6)
            axis.axhline(0, color="0.6", lw=1, zorder=0)
            axis.set_title(f"{title}\n{kind}", fontsize=10)
            _open(axis)
        row[0].set_ylabel("force (per rad)\n< 0 pulls, > 0 pushes")
    for axis in axes[1]:
        axis.set_xlabel("angle (degrees)")
    return figure


def circle_paths(runs: dict[str, Float[Tensor, "T n"]]) -> Figure:
    """Points that move on a circle: time runs outward, so that every path can be followed.

    Args:
        runs: title -> angle in radians of every point at every step; the first half of the points
            are one view of each clip, the second half, dashed, the other.
    """
    figure = _figure(3.7 * len(runs), 3.9)
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
    figure = _figure(3.7 * len(squares) + 1.3, 4.6)
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


def on_circle(
    places: dict[str, Float[Tensor, "n 2"]], y: Int[Tensor, " n"], classes: Sequence[str]
) -> Figure:
    """Directions in the plane, a circle for each arrangement; a class has a colour and a shape.

    Args:
        places: title -> vectors of any norm, drawn at norm 1.
        y: class of each row.
        classes: their names.
    """
    figure = _figure(2.9 * len(places), 3.4)
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


def spreads(
    rows: dict[str, Float[Tensor, " _"]], label: str, *, reference: float | None = None
) -> Figure:
    """How values of several kinds are spread: middle, quarters and tenths, on a logarithmic axis.

    Args:
        rows: kind -> positive values, in the order to draw.
        label: of the axis, with its unit.
        reference: a dashed line.
    """
    figure = _figure(7.0, 0.36 * len(rows) + 1.0)
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
    _open(axis)
    return figure


def feature_maps(
    maps: dict[str, Float[Tensor, "_ _"]],
    *,
    bands: int = 96,
    seconds: float = 101 * SECONDS,
    columns: int = 3,
) -> Figure:
    """What a patch has become, layer by layer: every picture covers the same second and bands.

    Args:
        maps: title -> values, band 0 lowest; each picture has a scale of its own.
        bands, seconds: what the pictures cover.
        columns: pictures in a row.
    """
    columns = min(columns, len(maps))
    rows = -(-len(maps) // columns)
    figure = _figure(2.7 * columns, 2.0 * rows + 0.2)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axis in axes.flat[len(maps) :]:
        axis.remove()
    extent = (0, seconds, 0, bands)
    for axis, (title, values) in zip(axes.flat, maps.items(), strict=False):
        axis.imshow(values.numpy(), origin="lower", aspect="auto", cmap="magma", extent=extent)
        axis.set_title(title, fontsize=10)
    for axis in axes[:, 0]:
        axis.set_ylabel("mel band")
    for axis in axes.flat[max(0, len(maps) - columns) : len(maps)]:
        axis.set_xlabel("time (s)")
        axis.tick_params(labelbottom=True)
    return figure


def two_spaces(sizes: dict[str, str]) -> Figure:
    """The way from a clip to h and z, and which loss looks where.

    Source: redrawn after Wang, Tripathy and Mesaros 2023, fig. 1, with sizes.

    Args:
        sizes: what to write below "clip", "x", "h" and "z", and inside the encoder "f" and the
            head "g".
    """
    figure = _figure(9.6, 4.3)
    axis = figure.subplots()
    axis.set(xlim=(0, 11.4), ylim=(-0.15, 5.0))
    axis.set_axis_off()
    middle, lanes = 2.3, {"i": 3.75, "j": 1.0}

    def box(x: float, y: float, text: str, below: str = "", colour: str = "0.93") -> None:
        style = {"boxstyle": "round,pad=0.35", "facecolor": colour, "edgecolor": "0.4"}
        axis.text(x, y, text, ha="center", va="center", fontsize=13, bbox=style)
        axis.text(x, y - 0.42, below, ha="center", va="top", fontsize=8)

    def arrow(start: tuple, end: tuple, text: str = "", **style) -> None:
        look = {"arrowstyle": "-|>", "color": "0.3", "lw": 1.2} | style
        axis.annotate("", end, start, arrowprops=look)
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        axis.text(x, y + 0.08, text, ha="center", va="bottom", fontsize=8)

    def tall(x: float, text: str, colour: str) -> None:
        low, high = lanes["j"] - 0.45, lanes["i"] + 0.45
        face = plt.Rectangle((x - 0.6, low), 1.2, high - low, facecolor=colour, edgecolor="0.4")
        axis.add_patch(face)
        axis.text(x, middle, text, ha="center", va="center", fontsize=9)

    pale = {"f": "#CFE3F2", "g": "#F6DCC8"}
    away = plt.Rectangle((8.15, -0.1), 3.2, 4.75, fill=False, ls="--", edgecolor=COLOURS[1])
    axis.add_patch(away)
    axis.text(9.75, 4.72, "thrown away after training", ha="center", color=COLOURS[1], fontsize=9)
    axis.text(7.35, 4.72, "kept", ha="center", color=COLOURS[0], fontsize=9)
    box(0.55, middle, "clip", sizes["clip"])
    tall(5.95, f"encoder\n$f$\n\n{sizes['f']}", pale["f"])
    tall(8.95, f"head\n$g$\n\n{sizes['g']}", pale["g"])
    for v, y in lanes.items():
        arrow((1.0, middle), (1.65, y), "")
        box(1.95, y, f"$x_{v}$", sizes["x"])
        arrow((2.3, y), (3.1, y), "mix-back")
        box(3.4, y, f"$x'_{v}$")
        arrow((3.75, y), (4.45, y), "DA")
        box(4.75, y, rf"$\tilde{{x}}_{v}$", sizes["x"])
        arrow((5.08, y), (5.35, y))
        arrow((6.55, y), (7.0, y))
        box(7.35, y, f"$h_{v}$", sizes["h"], pale["f"])
        arrow((7.7, y), (8.35, y))
        arrow((9.55, y), (10.2, y))
        box(10.55, y, f"$z_{v}$", sizes["z"], pale["g"])
    for x, text, colour in (
        (7.35, "$L_A$\nangular margin", COLOURS[0]),
        (10.55, "$L_C$\nNT-Xent", COLOURS[1]),
    ):
        arrow((x, middle - 0.4), (x, lanes["j"] + 0.38), color=colour)
        arrow((x, middle + 0.4), (x, lanes["i"] - 0.78), color=colour)
        axis.text(x, middle, text, ha="center", va="center", fontsize=10, color=colour)
    return figure


def patches(
    mels: Sequence[Float[Tensor, "F P"]], titles: Sequence[str], *, columns: int = 4
) -> Figure:
    """Patches side by side on one scale of twelve colours, cell by cell: a small file for a page.

    Args:
        mels: log10 power, band 0 lowest.
        titles: one for each.
        columns: pictures in a row.
    """
    columns = min(columns, len(mels))
    rows = -(-len(mels) // columns)
    figure = _figure(2.6 * columns + 0.7, 2.2 * rows + 0.3)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axis in axes[len(mels) :]:
        axis.remove()
    axes = list(axes[: len(mels)])
    low = min(float(mel.quantile(0.02)) for mel in mels)
    high = max(float(mel.max()) for mel in mels)
    for k, (axis, mel, title) in enumerate(zip(axes, mels, titles, strict=True)):
        image = axis.imshow(
            mel.numpy(),
            origin="lower",
            aspect="auto",
            interpolation="nearest",  # smoothed grain would make the file four times as large
            cmap=plt.get_cmap("magma", 12),
            vmin=low,
            vmax=high,
            extent=(0, mel.shape[1] * SECONDS, 0, mel.shape[0]),
        )
        axis.set_title(title, fontsize=10)
        if k % columns == 0:
            axis.set_ylabel("mel band")
        if k + columns >= len(mels):
            axis.set_xlabel("time (s)")
            axis.tick_params(labelbottom=True)
    figure.colorbar(image, ax=axes, label="log10 power", shrink=0.9)
    return figure
