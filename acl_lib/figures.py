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
