"""Sounds and corpora: waveforms, log-mels, patches, feature maps, classes and labels."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from .style import COLOURS, SECONDS, new_figure, open_axis


def waveforms(wavs: dict[str, Float[Tensor, " L"]], sample_rate: int) -> Figure:
    """Waveforms side by side, each against its own time: in ms where it is shorter than 0.5 s.

    Args:
        wavs: title -> samples, full scale 1.
        sample_rate: Hz.
    """
    figure = new_figure(3.8 * len(wavs), 2.4)
    axes = np.atleast_1d(figure.subplots(1, len(wavs), sharey=True))
    for axis, (title, wav) in zip(axes, wavs.items(), strict=True):
        seconds = np.arange(len(wav)) / sample_rate
        unit, scale = ("ms", 1000) if len(wav) < 0.5 * sample_rate else ("s", 1)
        axis.plot(scale * seconds, wav.numpy(), lw=0.7, color=COLOURS[0])
        axis.set(xlabel=f"time ({unit})")
        axis.set_title(title, fontsize=10)
        open_axis(axis)
    axes[0].set_ylabel("pressure (full scale 1)")
    return figure


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
    figure = new_figure(3.0 * columns, 2.1 * rows + 0.4)
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
    figure.colorbar(image, ax=figure.axes, label="log10 power", shrink=0.8)  # without the removed
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
    figure = new_figure(2.6 * columns + 0.7, 2.2 * rows + 0.3)
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
    figure = new_figure(2.7 * columns, 2.0 * rows + 0.2)
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
    figure = new_figure(9.6, 4.3)
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


def class_sizes(corpora: dict[str, dict[str, dict[str, int]]]) -> Figure:
    """Clips of every class, split into parts, a panel for each corpus with its own scale.

    Args:
        corpora: title -> class -> part -> clips; parts do not overlap.
    """
    parts = list(dict.fromkeys(p for k in corpora.values() for row in k.values() for p in row))
    figure = new_figure(4.4 * len(corpora), 0.2 * max(map(len, corpora.values())) + 1.2)
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
        open_axis(axis)
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
    figure = new_figure(0.27 * len(truths) + 2.2, 0.24 * len(labels) + 2.0)
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


def belonging(pairs: dict[str, Bool[Tensor, "B B"]], names: Sequence[str]) -> Figure:
    """Which rows of a batch belong together: one square of pairs for each rule.

    Args:
        pairs: title -> True where i and j are a positive pair; the diagonal is drawn apart.
        names: of the rows.
    """
    figure = new_figure(3.6 * len(pairs) + 1, 4.2)
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
