"""What holds for every test: checked shapes, folders of its own, no corpus that is not there."""

import os
from pathlib import Path

import jaxtyping
import pytest
from beartype import BeartypeConf
from beartype.claw import beartype_packages
from hypothesis import settings

# Signatures are promises: each call that a test makes is checked, shapes where there are any.
PACKAGE = Path(__file__).resolve().parents[1] / "acl_lib"
shapes, types = [], []
for path in PACKAGE.rglob("*.py"):
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    if path.stem == "__init__":
        continue  # its name would be that of all modules in it
    if "jaxtyping" not in path.read_text():
        types.append(name)
    elif path.parent == PACKAGE:  # deeper ones have Self, which beartype refuses on single methods
        shapes.append(name)
jaxtyping.install_import_hook(shapes, "beartype.beartype")
beartype_packages(  # many times as fast; an int is a float, as type checkers have it
    types, conf=BeartypeConf(is_pep484_tower=True)
)

# the same examples in every run: a change that fails is a change of the code
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")

# tests of real recordings skip without ACL_DATA; a folder that does not exist is as good as none
if folder := os.environ.get("ACL_DATA"):
    if Path(folder).is_dir():
        os.environ["ACL_DATA"] = str(Path(folder).absolute())
    else:
        del os.environ["ACL_DATA"]


# files whose tests mostly wait, the longest first: begun last they would hold up the end
WAITING = (
    "sweeps faults lab site explorer_circle explorers_page parallel benchmarks same_again classroom"
).split()


def pytest_collection_modifyitems(items):
    turn = {f"test_{name}.py": at for at, name in enumerate(WAITING)}
    items.sort(key=lambda item: turn.get(item.path.name, len(turn)))


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Caches and runs of a test stay out of the reader's own."""
    monkeypatch.setenv("ACL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ACL_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def unchecked():
    """For tests of what a caller with a wrong shape or type is told: signatures are not checked."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
