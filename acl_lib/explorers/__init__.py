"""What a reader can drag: one ES module each, live in JupyterLab, inlined in the printed page.

    circle(alpha=0.3)                    # points on the circle or sphere under the gradient of ACL
    penalty(temperature=0.2)             # what each negative gets, against its cosine
    explore(draw, alpha=[0, 0.5, 1])     # sliders over a figure that a notebook draws itself

In JupyterLab `circle` and `penalty` are widgets (anywidget) whose values are traits: `w.alpha`
reads what the slider says, `w.alpha = 1` moves it. In the book the same text runs in the page,
without a kernel and without a network, from a double-clicked file too.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import itertools
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from .. import figures
from ..losses import acl

FOLDER = Path(__file__).parent
_number = itertools.count(1)  # ids that are the same each time a notebook runs

# what an explorer needs of a widget's model, without a kernel
MODEL = """
function pageModel(state) {
  const calls = {};
  const tell = (event) => (calls[event] ?? []).forEach((call) => call());
  return {
    page: true,
    get: (name) => state[name],
    set(name, value) { state[name] = value; tell(`change:${name}`); tell("change"); },
    on(event, call) { (calls[event] ??= []).push(call); },
    off(event, call) { calls[event] = (calls[event] ?? []).filter((known) => known !== call); },
    save_changes() {},
  };
}
"""


def circle(
    *,
    alpha: float = 0.3,
    temperature: float = 0.2,
    margin: float = 0.5,
    clips: int = 8,
    sphere: bool = False,
    quarter: bool = False,
    compare: bool = True,
    reduction: str = "mean",
    play: bool = False,
    small: bool = False,
):
    """Two views of each clip as points that the gradient of ACL moves, or the reader's hand.

    The same points stand for z and for h, so that both terms can be seen at work.

    Args:
        alpha, temperature, margin, reduction: as in `losses.acl`.
        clips: 8, 12 or 16, of four classes.
        sphere: points on the sphere instead of the circle.
        quarter: no negative coordinates, as behind the encoder's ReLU.
        compare: show alpha = 1 from the same start beside it.
        play: move by itself once half of it is on the screen; readers who asked their system for
            less motion see the end at once.
        small: the picture with the slider of alpha, no other setting and no table.
    """
    state = dict(locals())

    def draw() -> Figure:
        options = {"temperature": temperature, "margin": margin, "reduction": reduction}
        weights = dict.fromkeys((alpha, 1.0))
        return figures.circle_paths(
            {f"alpha = {a:g}": _downhill(clips, alpha=a, **options) for a in weights}
        )

    return _explorer(
        "circle",
        state,
        draw,
        "Points on the circle, two for each clip, moved by the gradient of ACL: the two views of a "
        "clip meet, and clips move apart",
    )


def penalty(
    *,
    temperature: float = 0.2,
    alpha: float = 0.3,
    margin: float = 0.5,
    additive: float = 0.1,
    positive: float = 0.9,
):
    """The gradient that a negative gets, against its cosine: NT-Xent, NT-Xent-AM and ACL.

    Args:
        temperature, alpha, margin: as in `losses.acl`, summed as in the authors' code at 128 clips.
        additive: margin that NT-Xent-AM takes from the cosine of the positive.
        positive: cosine of the anchor and its positive.
    """
    state = dict(locals())

    def draw() -> Figure:
        cosine = torch.linspace(-1, 1, 201)
        taus = sorted({0.05, temperature, 1.0})
        shares = {f"tau = {t:g}": 201 * torch.softmax(cosine / t, 0) / t for t in taus}
        return figures.curves(
            cosine, shares, "cosine of the negative", "push, over 1 / number of negatives"
        )

    return _explorer(
        "penalty",
        state,
        draw,
        "Push on a negative against its cosine at three temperatures: the lower the temperature, "
        "the more of it goes to the nearest negatives",
    )


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
    frames = [_data(draw(**at)) for at in places]
    axes = [[name, list(values), len(values) // 2] for name, values in choices.items()]
    middle = 0
    for _, values, start in axes:
        middle = middle * len(values) + start
    state = {"axes": axes, "frames": frames, "captions": captions, "title": title}
    return _html("frames", state, _picture(frames[middle], captions[middle]))


def module(name: str) -> str:
    """The text of an explorer and of what it shares with the others, as one ES module.

    A page that was opened from a file may not import a neighbour, so the two are joined here.
    """
    shared = re.sub(r"^export ", "", _read("shared"), flags=re.M)
    own = re.sub(r'^import .* from "./shared.mjs";\n', "", _read(name), flags=re.M)
    return shared + re.sub(r"^export (?!default)", "", own, flags=re.M)


def page(name: str, state: dict, picture: str) -> str:
    """HTML that holds the whole explorer; the picture stays where scripts are off."""
    text = module(name).replace("export default", "const explorer =")
    values = json.dumps(state).replace("</", "<\\/")
    key = hashlib.sha256((text + values).encode()).hexdigest()[:8]
    place = f"acl-{key}-{next(_number)}"
    return (
        f'<div id="{place}" class="acl-widget">{picture}</div>\n'
        f'<script type="module">{MODEL}{text}\n'
        f'const el = document.getElementById("{place}");\n'
        f"explorer.render({{ model: pageModel({values}), el }});\n</script>"
    )


def _explorer(name: str, state: dict, draw: Callable[[], Figure], alt: str):
    """The explorer as a widget where a kernel is, as HTML where the book is printed."""
    if os.environ.get("ACL_PUBLISH"):
        return _html(name, state, _picture(_data(draw()), alt))
    import anywidget
    import traitlets

    kinds = {bool: traitlets.Bool, int: traitlets.Int, float: traitlets.Float}
    traits = {
        key: kinds.get(type(value), traitlets.Unicode)(value).tag(sync=True)
        for key, value in state.items()
    }
    return type(name.title(), (anywidget.AnyWidget,), {"_esm": module(name), **traits})()


def _html(name: str, state: dict, picture: str):
    from IPython.display import HTML

    return HTML(page(name, state, picture))


def _downhill(clips: int, steps: int = 60, **options) -> torch.Tensor:
    """Angles (T, 2B) of points that go down the gradient of ACL, from a fixed start."""
    draw = torch.Generator().manual_seed(7)
    centre = 2 * torch.pi * torch.rand(clips, generator=draw)
    phi = centre.repeat(2) + 1.2 * (torch.rand(2 * clips, generator=draw) - 0.5)
    path = [phi]
    for _ in range(steps):
        phi = phi.detach().requires_grad_()
        i, j = torch.stack([phi.cos(), phi.sin()], 1).chunk(2)
        (slope,) = torch.autograd.grad(acl(i, j, i, j, **options), phi)
        phi = phi - slope * (0.05 / slope.abs().max().clamp(min=0.05))
        path.append(phi)
    return torch.stack(path).detach()


def _data(figure: Figure) -> str:
    """A figure as the address of a small picture."""
    file = io.BytesIO()
    figure.savefig(
        file, format="webp", dpi=80, bbox_inches="tight", pil_kwargs={"quality": 80, "method": 6}
    )
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _picture(data: str, alt: str) -> str:
    return f'<img alt="{html.escape(alt)}" src="{data}">'


def _read(name: str) -> str:
    return (FOLDER / f"{name}.mjs").read_text(encoding="utf-8")
