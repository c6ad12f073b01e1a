"""The reference pages show all of acl_lib and nothing else; no build is needed to know it."""

import collections
import dataclasses
import importlib
import inspect
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

import acl_lib
from acl_lib import config, losses, reference

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(acl_lib.__file__).parent
MODULES = sorted(
    ".".join(["acl_lib", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(
        ".__init__"
    )
    for path in PACKAGE.rglob("*.py")
)
# the bytes of this file are part of what names a synthetic corpus: a docstring would rename it
WITHOUT_A_SENTENCE = {"acl_lib.datasets.waveforms": {"samples", "steady", "silence"}}


def public(module):
    """Functions and classes of a module, without what it imports."""
    return {
        name: thing
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(thing) or inspect.isclass(thing))
        and thing.__module__ == module.__name__
    }


def pages():
    """The overview and the pages below it, as the table of contents orders them."""
    parts = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())["parts"]
    (entry,) = [c for part in parts for c in part["chapters"] if c["file"] == "api"]
    names = ["api", *(section["file"] for section in entry["sections"])]
    assert {f"api/{path.stem}" for path in (ROOT / "book" / "api").glob("*.md")} == {*names[1:]}
    return [(ROOT / "book" / f"{name}.md").read_text() for name in names]


def shown():
    """Module -> options of the directive that shows it; a list, as one could be shown twice."""
    directive = r"^\.\. automodule:: (\S+)\n((?:   :.+\n)*)"
    return [found for page in pages() for found in re.findall(directive, page, re.M)]


def test_every_module_is_shown_once():
    times = collections.Counter(name for name, _ in shown())
    with_names = {name for name in MODULES if public(importlib.import_module(name))}
    assert set(times) >= with_names, "add it to a page in book/api/ and to book/api.md"
    assert set(times) <= set(MODULES), "there is no such module"
    assert set(times.values()) == {1}


def test_the_overview_has_the_order_of_the_pages():
    listed = re.findall(r"^   ~(acl_lib\.\w+)$", pages()[0], re.M)
    assert listed == [name for name, _ in shown() if name.count(".") == 1]


def test_what_a_page_leaves_out_exists_and_is_neither_function_nor_class():
    for name, options in shown():
        module = importlib.import_module(name)
        for left_out in re.findall(r":exclude-members: (.+)", options):
            for word in left_out.split(", "):
                assert hasattr(module, word)
                assert word not in public(module)


def test_links_lead_to_notebooks():
    for page in pages():
        for target in re.findall(r":doc:`/(\S+)`", page):
            assert (ROOT / f"{target}.ipynb").exists()


@pytest.mark.parametrize("name", MODULES)
def test_a_public_name_opens_with_a_sentence(name):
    """Autodoc leaves out what has no docstring."""
    module = importlib.import_module(name)
    assert re.match(r"[A-Z].*?[.?](\n|$)", module.__doc__ or "", re.S), f"what is {name}?"
    for word, thing in public(module).items():
        if word not in WITHOUT_A_SENTENCE.get(name, ()):
            first = (thing.__doc__ or "").strip().split("\n")[0]
            assert re.fullmatch(r"[A-Z\d`].*[.?]", first), f"{name}: {word} says {first!r}"


def test_names_without_a_sentence_are_shown_too():
    options = dict(shown())
    for name, words in WITHOUT_A_SENTENCE.items():
        assert ":undoc-members:" in options[name]
        without = {
            k for k, thing in public(importlib.import_module(name)).items() if not thing.__doc__
        }
        assert without == words


# ---- what acl_lib.reference adds to Sphinx


def test_a_signature_shows_shapes_as_they_are_written():
    written, returns = reference.signature(losses.nt_xent)
    assert (
        written == "(z_i: Float[Tensor, 'B d'], z_j: Float[Tensor, 'B d'], *, temperature: float)"
    )
    assert returns == "Float[Tensor, '']"


@dataclass
class Above:
    """What a class is made of."""

    rate: float = 1e-3  # 1 / s

    def twice(self, other: "Above") -> "Above":
        return other


@dataclass(kw_only=True)
class Below(Above):
    """And one that adds to it."""

    # said above,
    # on two lines
    names: list[str] = field(default_factory=list)
    quiet: bool


class Same(Above):
    """And one that does not."""


def test_fields_are_read_with_their_comments():
    assert reference.fields(Above) == [("rate", "float = 1e-3", "1 / s")]
    assert reference.fields(Below)[1:] == [
        ("names", "list[str] = list()", "said above, on two lines"),
        ("quiet", "bool", ""),
    ]
    assert reference.fields(Same) == []


def test_signatures_of_classes_and_methods():
    assert reference.signature(Above) == ("(rate: float = 1e-3)", None)
    assert reference.signature(Above.twice) == ("(other: Above)", "Above")
    assert reference.signature(Same) is None


@pytest.mark.parametrize(
    "part", [t for t in public(config).values() if dataclasses.is_dataclass(t)]
)
def test_every_setting_is_in_its_table(part):
    rows = reference.fields(part)
    assert [name for name, *_ in rows] == [f.name for f in dataclasses.fields(part)]
    assert all(" = " in kind for _, kind, _ in rows)
