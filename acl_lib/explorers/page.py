"""An explorer as a widget where a kernel is, and as HTML that holds all of it in the book."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import itertools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

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


def module(name: str) -> str:
    """The text of an explorer and of what it shares with the others, as one ES module.

    A page that was opened from a file may not import a neighbour, so the two are joined here.
    """
    shared = re.sub(r"^export ", "", _read("shared"), flags=re.M)
    own = re.sub(r'^import .* from "./shared.mjs";\n', "", _read(name), flags=re.M)
    return shared + re.sub(r"^export (?!default)", "", own, flags=re.M)


def page(name: str, state: dict, still: str) -> str:
    """HTML that holds the whole explorer; the still picture stays where scripts are off."""
    text = module(name).replace("export default", "const explorer =")
    values = json.dumps(state).replace("</", "<\\/")
    key = hashlib.sha256((text + values).encode()).hexdigest()[:8]
    place = f"acl-{key}-{next(_number)}"
    return (
        f'<div id="{place}" class="acl-widget">{still}</div>\n'
        f'<script type="module">{MODEL}{text}\n'
        f'const el = document.getElementById("{place}");\n'
        f"explorer.render({{ model: pageModel({values}), el }});\n</script>"
    )


def explorer(
    name: str,
    state: dict,
    draw: Callable[[], Figure],
    alt: str,
    *,
    live: Callable[[Any], None] | None = None,
):
    """The explorer as a widget where a kernel is, as HTML where the book is printed.

    Args:
        name: of its module, `name`.mjs.
        state: value of each trait; what JSON knows.
        draw: makes the still figure that stays where scripts are off.
        alt: what that figure shows, in words.
        live: called with the widget, to answer its messages and watch its traits.
    """
    if os.environ.get("ACL_PUBLISH"):
        return as_html(name, state, picture(address(draw()), alt))
    import anywidget
    import traitlets

    kinds = {
        bool: traitlets.Bool,
        int: traitlets.Int,
        float: traitlets.Float,
        str: traitlets.Unicode,
    }
    traits = {
        key: kinds.get(type(value), traitlets.Any)(value).tag(sync=True)
        for key, value in state.items()
    }
    widget = type(name.title(), (anywidget.AnyWidget,), {"_esm": module(name), **traits})()
    if live:
        live(widget)
    return widget


def as_html(name: str, state: dict, still: str):
    """Wrap `page` for the output of a notebook's cell."""
    from IPython.display import HTML

    return HTML(page(name, state, still))


def address(figure: Figure) -> str:
    """A figure as the address of a small picture."""
    file = io.BytesIO()
    figure.savefig(
        file, format="webp", dpi=80, bbox_inches="tight", pil_kwargs={"quality": 80, "method": 6}
    )
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def picture(data: str, alt: str) -> str:
    """An image element from its address and what it shows in words."""
    return f'<img alt="{html.escape(alt)}" src="{data}">'


def _read(name: str) -> str:
    return (FOLDER / f"{name}.mjs").read_text(encoding="utf-8")
