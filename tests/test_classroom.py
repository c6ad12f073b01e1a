"""What notebooks and a class of thirty take: how it is measured, recorded and told."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from acl_lib.publish import RESULTS, ROOT, RUNS, SOURCES

COSTS = json.loads((RESULTS / "notebooks.json").read_text())
CLASS = json.loads((RESULTS / "classroom.json").read_text())
PAGE = (ROOT / "book" / "how_to_use.md").read_text(encoding="utf-8")
STATED = re.compile(r"about\s+(\d+)\s+seconds\s+and\s+(\d\.\d)\s+GB\s+of\s+memory", re.I)
linux = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="memory of processes is read from /proc"
)


@pytest.fixture(scope="module")
def benchmarks():
    """Imports a module of benchmarks/ by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield __import__


# ---- how it is measured


@linux
def test_memory_of_a_process_is_what_it_holds_and_what_it_held(benchmarks):
    processes = benchmarks("processes")
    code = """
import sys
block = bytearray(b"x") * 80_000_000
print(flush=True); sys.stdin.readline()
del block
print(flush=True); sys.stdin.readline()
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as child:
        child.stdout.readline()
        full, parts = processes.memory_mb(child.pid), processes.proportional_mb(child.pid)
        assert 80 < full["anonymous"] < 110 and full["anonymous"] < full["resident"] < 130
        assert full["anonymous"] - 1 < parts < full["resident"] + 1
        assert child.pid in processes.family(processes.psutil.Process().pid)
        child.stdin.write(b"\n"), child.stdin.flush(), child.stdout.readline()
        empty = processes.memory_mb(child.pid)
        assert empty["anonymous"] < full["anonymous"] - 75
        assert empty["peak"] >= full["resident"] - 1
        child.stdin.write(b"\n"), child.stdin.flush()
    ended = dict.fromkeys(("resident", "peak", "anonymous"), 0)
    assert processes.memory_mb(child.pid) == ended and processes.family(child.pid) == []


def test_a_watch_keeps_the_most_of_every_answer(benchmarks):
    answers = iter([{"a": 1, "b": -5}, {"a": 4, "b": -7}, {"a": 2, "b": -3}])
    watch = benchmarks("processes").Watch(lambda: next(answers), every_seconds=3600)
    with watch:
        watch.look(), watch.look()
    assert watch.most == {"a": 4, "b": -3}


@linux
def test_a_kernel_counts_from_its_own_program_on(benchmarks, monkeypatch):
    """Just forked, it shares the memory of the process that starts it, however much that is."""
    module = benchmarks("notebooks")
    own = os.getpid()
    monkeypatch.setattr(module, "family", lambda pid: [pid, own])
    assert module.memory_mb(own)["peak"] > 50 and module.kernels_mb(set()) == {}
    with subprocess.Popen(["sleep", "60"]) as other:
        monkeypatch.setattr(module, "family", lambda pid: [pid, other.pid])
        while not (found := module.kernels_mb(set())):
            assert other.poll() is None
        other.kill()
    assert 0 < found["peak_mb"] < 50


@linux
def test_a_notebook_costs_what_its_kernel_holds(benchmarks, tmp_path, monkeypatch):
    module = benchmarks("notebooks")
    cells = "block = bytearray(b'x') * 150_000_000\nlen(block)", "del block"
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nb.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nb, tmp_path / "a.ipynb")
    monkeypatch.setattr(module, "EVERY_SECONDS", 0.02)
    monkeypatch.chdir(tmp_path)
    found = module.cost_of(tmp_path / "a.ipynb", tmp_path / "copy" / "a.ipynb", {})
    assert found["processes"] == 1 and 150 < found["peak_mb"] < 350
    assert 0 < found["cpu_seconds"] <= 2 * found["wall_seconds"]
    assert (tmp_path / "copy" / "a.ipynb").exists()


@linux
def test_a_class_of_two_keeps_its_last_kernels_and_tells_a_cell_that_failed(benchmarks, tmp_path):
    """The second notebook has a kernel of its own; the first of its failures is expected."""
    pytest.importorskip("jupyterlab")
    beside = "import pathlib\nassert pathlib.Path('04_nt_xent.ipynb').exists()"
    first = [(beside, False), ("block = bytearray(b'x') * 200_000_000", False)]
    second = [("half = bytearray(b'x') * 100_000_000", False), ("1 / 0", True)]
    second += [("block", False), ("1 / 0", False)]
    classroom = benchmarks("classroom")
    with classroom.lab(tmp_path) as server:
        *_, found = classroom.attend(server, 2, {"a": first, "b": second})
    order = [(row["student"], row["notebook"]) for row in found["rows"]]
    assert order == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]
    assert found["n"] == 4 and found["kernels_alive"] == 2 and found["failed"] == 2
    told = [row["failed"] and row["failed"].split(":")[0] for row in found["rows"]]
    assert told == [None, "NameError"] * 2
    line, total = found["line"], [row["total_gb"] for row in found["rows"]]
    assert 0.1 < line["gb_for_each_student"] < 0.2 and line["n"] == 2
    assert found["server_alone"]["total_gb"] + 0.1 < total[1] < total[0] < total[2]
    assert total[2] - 0.02 < found["peak_gb"] < total[2] + 0.3
    kept = found["kernel_anonymous_mb"]
    assert 200 < kept["a"] < 300 and 100 < kept["b"] < 200 <= found["most_for_one_kernel_mb"]


def test_the_death_of_a_kernel_is_told_with_the_memory_that_was_left(benchmarks):
    """The server then starts another in its place, which knows nothing of the notebook."""
    classroom = benchmarks("classroom")
    states = [b"a widget's bytes"]
    for state in ("busy", "restarting", "idle"):
        about = {"msg_type": "status", "parent_header": {}, "content": {"execution_state": state}}
        states.append(json.dumps(about))
    kernel = object.__new__(classroom.Kernel)
    kernel.session = "s"
    kernel.socket = SimpleNamespace(send=json.loads, recv=iter(states).__next__)
    with pytest.raises(classroom.KernelDiedError, match=r"GB of memory left, in the cell\nx = 1"):
        kernel.run("x = 1")


def test_the_summary_of_a_class_is_its_line_and_its_thirds(benchmarks):
    rows = [
        {
            "student": student,
            "notebook": name,
            "cpu_seconds": 10.0 * k + student,
            "wall_seconds": 20.0,
            "failed": None if student < 3 else "NameError: x",
            "total_gb": 0.1 + 0.5 * student - 0.2 * (k == 0),
            "anonymous_gb": 0.4 * student,
            "kernel_anonymous_mb": 600 + 100 * k,
            "kernel_peak_mb": 700 + student,
        }
        for student in (1, 2, 3)
        for k, name in enumerate(("a", "b"))
    ]
    alone = {"total_gb": 0.1, "anonymous_gb": 0.08}
    most = {"anonymous_gb": 1.5, "minus_available_gb": -3.25}
    found = benchmarks("classroom").summary(alone, rows, most, "b")
    assert found["line"] == {
        "gb_for_server": 0.1,
        "gb_for_each_student": 0.5,
        "largest_distance_gb": 0,
        "n": 3,
    }
    assert found["peak_gb"] == 1.9  # files: 0.4 at the third student's b
    assert found["least_available_gb"] == 3.25 and found["most_for_one_kernel_mb"] == 703
    assert found["failed"] == 2 and found["kernel_anonymous_mb"] == {"a": 600, "b": 700}
    seconds = {"median": 12, "first_third": 11, "last_third": 13}
    assert found["seconds"]["b"]["cpu_seconds"] == seconds


# ---- the records, and what is said of them


def test_every_notebook_was_measured_after_the_runs_that_pages_share():
    assert set(COSTS["notebooks"]) == {path.stem for path in SOURCES.glob("*.ipynb")}
    assert set(COSTS["shared_runs"]) == set(RUNS.values())


@pytest.mark.parametrize("path", sorted(SOURCES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_header_tells_the_memory_of_the_record_and_about_its_seconds(path):
    stated = STATED.search(nbformat.read(path, as_version=4).cells[0].source)
    assert stated, "the first cell says: about N seconds and G GB of memory"
    measured = COSTS["notebooks"][path.stem]
    assert float(stated[2]) == math.ceil(measured["peak_mb"] / 100) / 10  # GB, rounded up
    assert 0.5 <= int(stated[1]) / measured["cpu_seconds"] <= 2


def test_a_class_of_thirty_fits_into_24_gb():
    """By the line through the students who came; no cell failed, and their kernels were alive."""
    came, line = CLASS["line"]["n"], CLASS["line"]
    assert CLASS["n"] == len(CLASS["rows"]) == 2 * came and CLASS["kernels_alive"] == came == 30
    assert {row["notebook"] for row in CLASS["rows"]} == {"07_acl", "12_embedding_analysis"}
    assert CLASS["failed"] == 0 and CLASS["cores"] == 2 and CLASS["peak_gb"] < 24
    assert line["gb_for_server"] + 30 * line["gb_for_each_student"] < 24
    assert line["largest_distance_gb"] < 0.5 * line["gb_for_each_student"]


def test_the_page_tells_what_a_class_took():
    line, seconds, kept = (CLASS[key] for key in ("line", "seconds", "kernel_anonymous_mb"))
    seven, twelve = "07_acl", "12_embedding_analysis"
    server, student = (f"{line[k]:.2f}" for k in ("gb_for_server", "gb_for_each_student"))
    for told in (
        f"thirty need {line['gb_for_server'] + 30 * line['gb_for_each_student']:.0f} GB",
        f"kernels took {CLASS['peak_gb']:.1f} GB at most",
        f"takes {server} GB and every student {student} GB",
        f"*N* students need {server} + {student} *N* GB",
        f"{kept[seven] / 1e3:.2f} GB after 07, {kept[twelve] / 1e3:.2f} GB after 12",
        f"07 took {seconds[seven]['cpu_seconds']['median']:.0f} seconds of processor time",
        f"12 took {seconds[twelve]['cpu_seconds']['median']:.0f}, the medians",
    ):
        assert told in PAGE


def test_the_server_of_a_class_is_started_with_options_that_exist():
    kernels = pytest.importorskip("jupyter_server.services.kernels.kernelmanager")
    options = re.findall(r"--MappingKernelManager\.(\w+)=", PAGE)
    assert options == ["cull_idle_timeout", "cull_connected"]
    assert set(options) <= set(kernels.AsyncMappingKernelManager.class_trait_names())


def test_what_half_the_pages_do_without_is_not_fetched_for_them():
    """Names that notebooks import; seaborn with pandas, UMAP with numba would cost them seconds."""
    code = "from acl_lib import experiments, explorers, figures, listen, metrics, projection\n"
    code += "import sys; print({'seaborn', 'umap', 'sklearn', 'librosa'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
