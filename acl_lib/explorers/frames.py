"""Sliders over a figure that a notebook draws itself."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from .page import address, as_html, picture


def explore(draw: Callable[..., Figure], *, title: str = "Explorer", **choices: Sequence):
    """Sliders over a figure: live in JupyterLab, over frames drawn beforehand in the book.

    Args:
        draw: called with one value for each name, returns a figure.
        title: what is explored, for those who hear the page.
        choices: name -> the values that its slider takes; it starts in the middle.
    """
    if not os.environ.get("ACL_PUBLISH"):
        from ipywidgets import SelectionSlider, interactive

        sliders = {
            name: SelectionSlider(
                options=values, value=values[len(values) // 2], continuous_update=False
            )
            for name, values in choices.items()
        }
        return interactive(draw, **sliders)
    places = [dict(zip(choices, at, strict=True)) for at in itertools.product(*choices.values())]
    captions = [f"{title}: " + ", ".join(f"{k} = {v}" for k, v in at.items()) for at in places]
    frames = [address(draw(**at)) for at in places]
    axes = [[name, list(values), len(values) // 2] for name, values in choices.items()]
    middle = 0
    for _, values, start in axes:
        middle = middle * len(values) + start
    state = {"axes": axes, "frames": frames, "captions": captions, "title": title}
    return as_html("frames", state, picture(frames[middle], captions[middle]))
