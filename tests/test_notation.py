"""What book/notation.md says of names, defaults, calls and equations is so."""

import ast
import functools
import importlib
import inspect
import re
from dataclasses import asdict

import nbformat
import pytest

from acl_lib.config import recipe
from acl_lib.publish import ROOT, SOURCES

PAGE = (ROOT / "book" / "notation.md").read_text(encoding="utf-8")


def rows(heading):
    """Cells of every row of the tables below a heading."""
    part = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in re.split(r" \| ", line.strip("| "))] for line in lines]
    return [row for row in cells[1:] if set(row[0]) != {"-"}]


def find(dotted):
    """`losses.acl` -> the function."""
    module, *names = dotted.split(".")
    return functools.reduce(getattr, names, importlib.import_module(f"acl_lib.{module}"))


@pytest.mark.parametrize("row", rows("What can be set"), ids=lambda row: row[0])
def test_defaults_are_those_of_the_recipes(row):
    word = row[0].strip("`")
    for name, said in zip(("contrastive", "paper_code"), row[-2:], strict=True):
        parts = [part for part in asdict(recipe(name)).values() if isinstance(part, dict)]
        (value,) = [part[word] for part in parts if word in part]
        assert said == (value if isinstance(value, str) else f"{value:g}")


@pytest.mark.parametrize("row", rows("What comes out"), ids=lambda row: row[0])
def test_functions_exist(row):
    assert callable(find(row[0].strip("`")))


@pytest.mark.parametrize("row", rows("The walk of the data"), ids=lambda row: row[0])
def test_every_call_of_the_walk_fits_its_function(row):
    calls = [node for node in ast.walk(ast.parse(row[1].strip("`"))) if isinstance(node, ast.Call)]
    assert calls
    for call in calls:
        if isinstance(call.func, ast.Call):  # of an object that the inner call makes
            made = find(ast.unparse(call.func.func))
            if not inspect.isclass(made):
                continue
            given, function = [None], getattr(made, "forward", None) or made.__call__
        else:
            given, function = [], find(ast.unparse(call.func))
        given += [None] * len(call.args)
        inspect.signature(function).bind(*given, **{k.arg: None for k in call.keywords})


def test_equations_stand_where_the_page_says_and_none_is_missing():
    listed = {}
    for number, _, page in rows("The equations"):
        title, name = re.fullmatch(r"\[(.+)\]\(notebooks/(\w+)\.ipynb\)", page).groups()
        listed.setdefault((title, name), []).append(number)
    tagged = {p.stem for p in SOURCES.glob("*.ipynb") if "\\tag{" in p.read_text("utf-8")}
    assert {name for _, name in listed} == tagged
    for (title, name), numbers in listed.items():
        cells = nbformat.read(SOURCES / f"{name}.ipynb", as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        assert text.startswith(f"# {title}\n"), f"the title of {name} has changed"
        assert numbers == re.findall(r"\\tag\{([\d.]+)\}", text), f"equations of {name}"
