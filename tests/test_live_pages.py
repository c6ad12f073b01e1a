"""Explorers of the pages as JupyterLab shows them; the book holds them as pages without a kernel.

`make book` executes every page, so that what is left to try is the live side of its explorers: each
is made by its own cell and by those earlier ones that it rests on.
"""

import ast
import os

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from ipywidgets import DOMWidget

from acl_lib.origins import Names
from acl_lib.publish import SOURCES

CACHE = os.environ.get("ACL_CACHE")  # the book's: its log-mels are made already


def code_of(path):
    nb = nbformat.read(path, as_version=4)
    return [cell.source for cell in nb.cells if cell.cell_type == "code"]


def leading_to(cells, last):
    """The cells that one needs, itself included: imports, and where its names come from."""
    needed, chosen = set(), []
    for source in reversed(cells[: last + 1]):
        names = [Names(statement) for statement in ast.parse(source).body]
        given = set().union(*(name.stored | name.changed for name in names))
        imports = source.startswith(("import", "from"))
        if not chosen or imports or given & needed:
            chosen.append(source)
            needed = needed.union(*(name.loaded for name in names))
    return chosen[::-1]


LIVE = [
    pytest.param(path, at, id=f"{path.stem} {at}")
    for path in sorted(SOURCES.glob("*.ipynb"))
    for at, source in enumerate(code_of(path))
    if "explorers." in source
]


def test_pages_with_explorers_are_found_and_cells_led_back():
    assert len(LIVE) >= 8
    cells = ["import a", "x = 1", "y = 2", "z = x", "w = z", "show(z)"]
    assert leading_to(cells, 5) == ["import a", "x = 1", "z = x", "show(z)"]


@pytest.mark.parametrize(("path", "at"), LIVE)
def test_an_explorer_of_a_page_is_a_widget_in_jupyterlab(path, at, monkeypatch):
    monkeypatch.delenv("ACL_PUBLISH", raising=False)
    if CACHE:
        monkeypatch.setenv("ACL_CACHE", CACHE)
    monkeypatch.chdir(SOURCES)
    shell = InteractiveShell()
    for source in leading_to(code_of(path), at):
        ran = shell.run_cell(source)
        ran.raise_error()
    assert isinstance(ran.result, DOMWidget)
    ran.result.close()
