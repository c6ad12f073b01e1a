"""What all figures share: colours that everyone can tell, sizes in inches, open axes."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
SECONDS = 220 / 22_050  # of a frame of the standard front end


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches; a notebook draws it where it is returned, and only there."""
    figure = plt.figure(figsize=(width, height), layout="constrained")
    plt.close(figure)  # else pyplot draws it once more at the end of the cell
    return figure


def open_axis(axis: Axes) -> None:
    """Take the frame away above and on the right."""
    axis.spines[["top", "right"]].set_visible(False)
