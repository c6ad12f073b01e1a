"""Whoever is killed, whatever is full, locked or gone: nothing is lost, and it is said plainly.

Three kills of each job here; fifty are a recorded run, `benchmarks/faults.py`.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs signals and limits of POSIX")
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def faults():
    sys.path.insert(0, str(BENCHMARKS))  # also for the processes that it starts
    import faults

    yield faults
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def folder(faults):
    with faults.place() as folder:
        folder.chmod(0o755)
        yield folder


@pytest.fixture(scope="module")
def whole(faults, folder):
    """Job -> its result and CPU seconds where nothing went wrong; made once."""
    made = {}

    def result(job):
        if job not in made:
            made[job] = faults.undisturbed(job, folder)
        return made[job]

    return result


def failed(faults, root, job, **how):
    """What a job says that ends with an error; it is a message, and no file is half there."""
    one = faults.Job(job, root, **how)
    assert one.ended(120) and one.process.exitcode in (1, 2)
    said = (root / "said.txt").read_text()
    (root / "said.txt").unlink()
    assert said and "Traceback" not in said
    assert not [p for p in root.rglob("*.part") if p.is_file()]
    return said


# --- whoever is killed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "number"), [("prepare", 0), ("train", 1), ("sweep", 1), ("book", 0)]
)
def test_a_job_that_is_killed_three_times_ends_as_one_that_was_left_alone(
    faults, folder, whole, job, number
):
    line = faults.trial(job, folder, *whole(job), number, 3)
    assert len(line["kills"]) == 3 and all(kill["cpu_seconds"] > 0 for kill in line["kills"])
    assert line["difference"] == 0, line


def test_results_that_differ_are_told_apart(faults):
    same = {"a": [1, 2.5, "x", None], "b": {"c": True}}
    assert faults.largest_difference(same, json.loads(json.dumps(same))) == 0
    assert faults.largest_difference(same, same | {"a": [1, 2.0, "x", None]}) == 0.5
    for other in (
        same | {"a": [1, 2.5, "y", None]},
        same | {"a": [1, 2.5, "x"]},
        {"a": same["a"]},
        same | {"a": [1, 2.5, "x", 0]},
    ):
        assert faults.largest_difference(same, other) == float("inf")


def test_the_recorded_run_says_what_it_found(faults):
    record = json.loads(faults.OUT.read_text())
    assert record["jobs"].keys() == faults.JOBS.keys()
    for job in record["jobs"].values():
        for kind in ("once", "three times"):
            found = job[kind]
            lines = found.pop("lines")
            assert found == faults.summary(lines)
            assert found["equal"] == found["n"] == len(lines)
            assert found["largest_difference"] == 0
        assert job["once"]["n"] == 50


# --- full, closed, twice at once ------------------------------------------------------------------

STRANGER = 65_534  # a user to whom nothing here belongs
ROOT = os.name == "posix" and os.getuid() == 0


@pytest.fixture
def fresh(folder, whole, tmp_path_factory):
    """A new folder for a job, where the log-mels lie already."""
    roots = []

    def make(job):
        whole("train")
        roots.append(folder / f"{job}-{len(list(folder.iterdir()))}")
        if job in ("train", "sweep"):
            shutil.copytree(folder / "train-whole" / "cache", roots[-1] / "cache")
        roots[-1].mkdir(exist_ok=True)
        return roots[-1]

    yield make
    for root in roots:
        root.chmod(0o755)
        shutil.rmtree(root)


@pytest.mark.parametrize(
    ("job", "what"),
    [("train", ".resume"), ("book", "tex-svg.js")],
)
def test_a_full_disk_is_told_with_what_and_where_and_the_next_step(faults, fresh, whole, job, what):
    root = fresh(job)
    said = failed(faults, root, job, largest=50_000)
    assert str(root) in said and what in said and "too large" in said
    assert "again" in said
    faults.Job(job, root).to_its_end()  # with space
    assert faults.largest_difference(whole(job)[0], faults.JOBS[job][1](root)) == 0


@pytest.mark.parametrize("job", ["sweep", "book"])
def test_a_folder_that_may_not_be_written_is_told_with_a_way_out(faults, fresh, job):
    root = fresh(job)
    (root / "said.txt").touch()
    if job == "book":
        faults.write_page(root)
    faults.write_grid(root)
    root.chmod(0o555)
    said = failed(faults, root, job, user=STRANGER if ROOT else None)
    assert "Permission denied" in said and str(root) in said
    assert ("run it again" if job == "book" else "set ACL_") in said


def test_two_that_build_a_book_at_once_build_it_once(faults, fresh, whole):
    """Two that prepare: tests/test_features.py; two that sweep: tests/test_sweeps.py."""
    root = fresh("book")
    both = [faults.Job("book", root) for _ in range(2)]
    assert all(one.ended(240) and one.process.exitcode == 0 for one in both)
    assert faults.largest_difference(whole("book")[0], faults.book_of(root)) == 0
    said = (root / "said.txt").read_text()
    assert "Another process is building this book: waiting for it" in said
    assert said.count("1 executed, 0 current") == said.count("0 executed, 1 current") == 1
