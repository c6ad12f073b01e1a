"""Arrays or records -> one matplotlib Figure: axes with units, colours that everyone can tell."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
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
    figure = _figure(3 * columns, 2.1 * rows + 0.4)
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
    figure = _figure(6, 3)
    axis = figure.subplots()
    axis.plot(range(1, len(history) + 1), history, "o-", ms=3, color=COLOURS[0], label="NT-Xent")
    if chance is not None:
        axis.axhline(chance, color=COLOURS[6], ls="--", lw=1, label=f"chance, {chance:.2f} nats")
    axis.set(xlabel="epoch", ylabel="loss (nats)", ylim=(0, None))
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(frameon=False)
    _open(axis)
    return figure


def accuracies(results: dict[str, dict], names: dict[str, str]) -> Figure:
    """Accuracy with its interval, one row for each representation under the same probe.

    Args:
        results: `Record.results`.
        names: what to call each of them, in the order to draw.
    """
    figure = _figure(6.5, 0.55 * len(names) + 0.9)
    axis = figure.subplots()
    for row, key in enumerate(names):
        got = results[key]
        value, (low, high) = 100 * got["accuracy"], (100 * end for end in got["interval"])
        axis.errorbar(
            value,
            row,
            xerr=[[value - low], [high - value]],
            fmt=MARKERS[row],
            color=COLOURS[row],
            capsize=4,
        )
        axis.annotate(
            f"{value:.1f} %", (value, row), (0, 7), textcoords="offset points", ha="center"
        )
    axis.set_yticks(range(len(names)), names.values())
    axis.set_ylim(len(names) - 0.4, -0.7)
    axis.set_xlabel(f"test clips classified right (%), 95 % interval, n = {got['n']}")
    _open(axis)
    return figure


def seeds(rows: dict[str, dict]) -> Figure:
    """Accuracy of every seed as a dot, and the mean over seeds with its interval.

    Args:
        rows: name -> "per_seed", "mean" and "interval", as fractions; see `over_seeds`.
    """
    figure = _figure(7, 0.45 * len(rows) + 0.9)
    axis = figure.subplots()
    for at, row in enumerate(rows.values()):
        mean, (low, high) = 100 * row["mean"], (100 * end for end in row["interval"])
        axis.plot([100 * v for v in row["per_seed"]], [at - 0.2] * len(row["per_seed"]), "k.")
        axis.errorbar(
            mean, at, xerr=[[mean - low], [high - mean]], fmt="D", color=COLOURS[0], capsize=4
        )
    axis.set_yticks(range(len(rows)), rows)
    axis.set_ylim(len(rows) - 0.4, -0.6)
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
    figure = _figure(5 * len(points), 4.6)
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
