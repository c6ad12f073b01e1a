"""What holds for every test: checked shapes, folders of its own, no corpus that is not there."""

import os
from pathlib import Path

import jaxtyping
import pytest
from hypothesis import settings

# Signatures are promises: each call that a test makes is checked. Not in acl_lib.datasets, whose
# classes return Self, which beartype refuses on single methods.
PACKAGE = Path(__file__).resolve().parents[1] / "acl_lib"
MODULES = [f"acl_lib.{path.stem}" for path in PACKAGE.glob("*.py") if path.stem != "__init__"]
jaxtyping.install_import_hook(MODULES, "beartype.beartype")

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
