"""Verification: how the scores of same and of different pairs lie about a threshold."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from torch import Tensor

from .style import COLOURS, new_figure, open_axis


def trial_scores(
    scores: Float[Tensor, " N"],
    same: Bool[Tensor, " N"],
    *,
    threshold: float,
    error: float,
    label: str = "cosine of the pair",
) -> Figure:
    """Scores of both kinds of pairs, as shares of their kind, and what a threshold gets wrong.

    Args:
        scores: of pairs (trials), larger where the two are more alike.
        same: whether the two belong together.
        threshold: in the unit of the scores.
        error: equal error rate, as a fraction.
        label: of the axis, with its unit.
    """
    import seaborn as sns  # it brings pandas and scipy.stats, which half the pages do without

    figure = new_figure(6.8, 3.2)
    axis = figure.subplots()
    kinds = {"different": ~same, "same": same}
    low, high = float(scores.min()), float(scores.max())
    for k, (name, mine) in enumerate(kinds.items()):
        sns.histplot(
            x=scores[mine].numpy(),
            stat="percent",
            bins=50,
            binrange=(low, high),
            element="step",
            alpha=0.35,
            color=COLOURS[k],
            linestyle=("-", "--")[k],
            linewidth=1.5,
            label=f"{name}, {int(mine.sum())} pairs",
            ax=axis,
        )
    note = f"threshold {threshold:.2f}\nequal error {100 * error:.1f} %"
    axis.axvline(threshold, color=COLOURS[6], ls=":", lw=1.5, label=note)
    sides = {"refused": (-6, "right"), "accepted": (6, "left")}
    for word, (shift, align) in sides.items():
        axis.annotate(
            word,
            (threshold, 1),
            (shift, -2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha=align,
            va="top",
            fontsize=9,
        )
    axis.set(xlabel=label, ylabel="share of its kind (%)", xlim=(low, high))
    axis.margins(y=0.15)
    axis.legend(frameon=False, fontsize=9)
    open_axis(axis)
    return figure


def det_curves(systems: dict[str, tuple[Float[Tensor, " R"], Float[Tensor, " R"]]]) -> Figure:
    """Misses against false alarms for every threshold, both on a normal scale.

    Args:
        systems: name -> quantiles of the two rates; see `verification.det_points`.
    """
    figure = new_figure(5.2, 4.6)
    axis = figure.subplots()
    for k, (name, (alarm, miss)) in enumerate(systems.items()):
        style = {"color": COLOURS[k], "ls": ("-", "--", "-.", ":")[k % 4], "lw": 1.6}
        axis.plot(alarm.numpy(), miss.numpy(), label=name, **style)
    shares = torch.tensor([0.001, 0.01, 0.05, 0.2, 0.5, 0.8], dtype=torch.double)
    at, names = torch.special.ndtri(shares).tolist(), [f"{100 * s:g}" for s in shares.tolist()]
    axis.plot([-4, 2], [-4, 2], color="0.6", lw=0.8, zorder=0)  # equal errors
    axis.set_xticks(at, names)
    axis.set_yticks(at, names)
    ends = (at[0] - 0.1, at[-1] + 0.1)
    axis.set(xlim=ends, ylim=ends, xlabel="false alarms (%)", ylabel="misses (%)", aspect="equal")
    axis.grid(color="0.92")
    axis.legend(frameon=False, fontsize=9)
    open_axis(axis)
    return figure
