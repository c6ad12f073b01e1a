"""Data flows forward: who may import whom."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "acl_lib"
LEAVES = "config datasets augment models metrics statistics".split()
TABLE = {
    **{name: set() for name in [*LEAVES, "figures", "projection", "listen", "__init__"]},
    "whole": set(),
    "origins": set(),
    "checkpoints": {"whole"},
    "features": {"datasets"},
    "views": set(),
    "blockwise": set(),
    "parallel": set(),
    "losses": {"blockwise"},
    "training": {"config", "losses", "checkpoints", "views", "augment", "models", "parallel"},
    "probing": {"config", "features", "views", "metrics", "models", "training"},
    "splits": {"config", "datasets", "probing"},
    "verification": {"metrics"},
    "records": {"config", "metrics", "statistics", "verification", "whole"},
    "experiments": {
        *LEAVES,
        *"checkpoints losses features views parallel training probing splits".split(),
        *"records verification".split(),
    },
    "grids": {"config", "records", "statistics"},
    "repeated": {"records", "whole"},
    "again": {*"datasets experiments grids records repeated whole".split()},
    "sweeps": {"datasets", "experiments", "grids", "repeated"},
    "ledger": {"experiments", "grids", "records", "repeated", "whole"},
    "released": {"datasets"},
    "published": {"released", "statistics"},
    "recomputed": {*"metrics models published records released statistics whole".split()},
    "verdicts": {"grids", "published", "records", "statistics"},
    "publish": {"config", "datasets", "explorers", "ledger", "origins", "whole"},
    "reference": set(),
    "costs": set(),
    "promises": set(),
    "lab": set(),
}
TABLE["explorers"] = set(TABLE) - {"__init__", "publish", "reference", "lab"}
TABLE["__main__"] = set(TABLE) - {"__init__"}
SLOW = {"librosa", "umap"}  # their first import compiles for 10 s and more


def imported(nodes: list[ast.AST], package: list[str]) -> set[str]:
    """Dotted names of what is imported in a file of this package; `from a import b` gives a.b."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            names |= {f"{origin}.{alias.name}" for alias in node.names}
    return names


def faults(file: str, source: str) -> list[str]:
    """What a file of acl_lib imports against the table, or at the top although it is slow."""
    *folders, name = file.removesuffix(".py").split("/")
    module, package = [*folders, name][0], ["acl_lib", *folders]
    tree = ast.parse(source)
    everywhere = imported(ast.walk(tree), package)
    ours = {dotted.split(".")[1] for dotted in everywhere if dotted.startswith("acl_lib.")}
    slow = {dotted.split(".")[0] for dotted in imported(tree.body, package)} & SLOW
    return sorted(ours - TABLE[module] - {module} | slow)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_a_module_imports_only_what_comes_before_it(path):
    file = path.relative_to(PACKAGE).as_posix()
    module = file.split("/")[0].removesuffix(".py")
    assert module in TABLE, f"{module} is new: give it a place in the table of this test"
    assert faults(file, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("losses.py", "from acl_lib import models"),
        ("losses.py", "def f():\n    from .models import ResNet18"),
        ("datasets/esc.py", "from ..features import LogMel"),
        ("features.py", "import librosa.filters"),
    ],
)
def test_a_wrong_arrow_is_found(file, source):
    assert faults(file, source)


def test_a_right_arrow_is_let_pass():
    assert faults("features.py", "from .datasets import Corpus\ndef f():\n    import librosa") == []
    assert faults("datasets/esc.py", "from .base import Clip\nfrom . import base") == []


def test_the_table_has_no_circle():
    done = set()
    while left := {m for m in TABLE if m not in done}:
        ready = {m for m in left if TABLE[m] <= done}
        assert ready, f"circle among {left}"
        done |= ready
