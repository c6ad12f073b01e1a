"""Every run of a grid is made once, whoever dies, whoever else is at it, wherever workers are."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import dask
import nbformat
import psutil
import pytest
import torch
from distributed import KilledWorker
from filelock import FileLock
from tiny import write_corpus

from acl_lib import sweeps
from acl_lib.__main__ import main
from acl_lib.experiments import runs_dir
from acl_lib.grids import Grid
from acl_lib.records import Record
from acl_lib.sweeps import TRIES, run_grid, states

# run by every Python that starts: it writes down which files are complete, and it lets workers be
# forked from a process that has imported what takes longer than a whole run here
WITNESS = """import os, sys

def told(event, args):
    if event == "os.rename" and str(args[1]).endswith((".pt", ".json")):
        with open(os.environ["MADE"], "a") as log:
            log.write(f"{args[1]}\\n")

sys.addaudithook(told)
if "forkserver" in str(sys.orig_argv):
    import acl_lib.sweeps, distributed, scipy.stats, torch._dynamo
"""
SETTINGS = "width: 8, epochs: 2, batch: 4, precision: float32, penalties: [0.1]"
LINE = re.compile(r"\[\d+/\d+\] (\S+): (made|found|failed)")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with twelve sounds, caches, and one who counts the files that are made."""
    folder = tmp_path_factory.mktemp("sweeps")
    write_corpus(folder / "sounds")
    for name in ("witness", "temporary", "elsewhere"):
        (folder / name).mkdir()
    (folder / "witness" / "sitecustomize.py").write_text(WITNESS)
    (folder / "made.txt").touch()
    return folder


def environment(place):
    above = filter(None, [os.environ.get("PYTHONPATH")])
    return os.environ | {
        "ACL_CACHE": str(place / "cache"),
        "TMPDIR": str(place / "temporary"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(place / "witness"), *above]),
        "MADE": str(place / "made.txt"),
        "DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "forkserver",
    }


@pytest.fixture(scope="module")
def scheduler(place):
    """Address of a Dask scheduler with a worker, in processes and a working folder of their own."""
    file = place / "scheduler.json"
    options = {"cwd": place / "elsewhere", "env": environment(place), "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "dask"]
    where = ["--scheduler-file", str(file), "--no-dashboard"]
    parts = ["scheduler", "--host", "127.0.0.1:0"], ["worker", "--nthreads", "1"]
    parts[1].extend(["--preload", "acl_lib.sweeps"])
    processes = [subprocess.Popen([*dask, *words, *where], **options) for words in parts]
    while not (file.exists() and file.read_text().endswith("}")):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.1)
    yield json.loads(file.read_text())["address"]
    for process in reversed(processes):
        process.terminate()
        process.wait(60)


def write_grid(folder, place, *, arms="{alpha: [1, 0.5]}", seeds="[0, 1, 2]", settings=SETTINGS):
    """A grid whose runs take a second."""
    path = folder / "tiny.yaml"
    corpus = f"corpus: 'folder:{place / 'sounds' / 'clips.csv'}'"
    path.write_text(
        f"question: Does it run?\nrecipe: acl\nsettings: {{{settings}, {corpus}}}\n"
        f"arms: {arms}\nseeds: {seeds}\nrecords: records\n"
    )
    return path


# What torchrun tells a sweep on each device. Its runs are not parts of one run for that: a run that
# would be, and looked for its place among the others, would fail.
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "none"}


class Sweep:
    """`acl sweep` in a process of its own, as torchrun would start it."""

    def __init__(self, path, place, *words):
        command = [sys.executable, "-m", "acl_lib", "sweep", str(path), *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        env = environment(place) | TORCHRUN
        self.process = subprocess.Popen(command, env=env, **pipes)
        self.said = ""

    def until(self, i):
        """Wait for the i-th outcome."""
        for line in self.process.stdout:
            self.said += line
            if line.startswith(f"[{i}/"):
                return
        pytest.fail(f"ended early: {self.said} {self.process.stderr.read()}")

    def below(self):
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self):
        """Its exit code, what became of each cell, and its messages."""
        out, err = self.process.communicate(timeout=300)
        outcomes = LINE.findall(self.said + out)
        assert len(dict(outcomes)) == len(outcomes)
        return self.process.returncode, dict(outcomes), err


def found(cells):
    """Name -> what a record found, without time and commit."""
    kept = {}
    for cell in cells:
        values = json.loads(cell.target.read_text(encoding="utf-8"))
        kept[cell.name] = {k: v for k, v in values.items() if k not in ("cost", "commit")}
    return kept


def assert_made_once(cells, place, runs):
    """Every network and every record was complete once, and nothing half-made is left."""
    assert set(states(cells)) == {"done"}
    log = (place / "made.txt").read_text().splitlines()
    times = Counter(name for name in log if Path(name).is_relative_to(runs.parent))
    assert set(times.values()) == {1}
    assert {str(cell.target) for cell in cells} <= set(times)
    # two folds a run; a record in the folder of the run, and one where the grid wants it
    kinds = Counter(Path(name).suffix for name in times)
    assert kinds == {".pt": 2 * len(cells), ".json": 2 * len(cells)}
    assert not [p for end in ("*.part", "*.resume") for p in runs.rglob(end)]


@pytest.fixture(scope="module")
def undisturbed(place, scheduler):
    """What the records say where nothing went wrong."""
    path = write_grid(place / "elsewhere", place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACL_RUNS", str(place / "elsewhere" / "runs"))
        grid = Grid.read(path)
        outcomes = list(run_grid(grid, scheduler=scheduler))
    assert sorted(o.cell.name for o in outcomes) == sorted(cell.name for cell in grid.cells)
    assert {o.status for o in outcomes} == {"made"}
    assert_made_once(grid.cells, place, place / "elsewhere" / "runs")
    return found(grid.cells)


# --- whoever dies ---------------------------------------------------------------------------------

needs_sigkill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")


@needs_sigkill
def test_a_grid_of_which_a_worker_is_killed_is_made_once_and_as_if_none_were(
    tmp_path, place, undisturbed
):
    path = write_grid(tmp_path, place)
    sweep = Sweep(path, place, "--jobs", "2", "--devices", "cpu")
    sweep.until(2)
    workers = [p for p in sweep.below() if "forkserver" in str(p.parent().cmdline())]
    assert len(workers) == 2
    workers[0].kill()
    code, outcomes, err = sweep.end()
    assert code == 0 and "distributed" not in err and "Traceback" not in err
    assert len(outcomes) == 6 and set(outcomes.values()) == {"made"}
    cells = Grid.read(path).cells
    assert_made_once(cells, place, runs_dir())
    assert found(cells) == {cell.name: undisturbed[cell.name] for cell in cells}
    assert not any(worker.is_running() for worker in workers)


@needs_sigkill
def test_a_sweep_that_is_killed_leaves_no_process_and_the_next_one_goes_on(
    tmp_path, place, scheduler, undisturbed
):
    path = write_grid(tmp_path, place)
    killed = Sweep(path, place, "--jobs", "1", "--devices", "cpu")
    killed.until(1)
    grid = Grid.read(path)
    outcomes = run_grid(grid, scheduler=scheduler)  # two at once
    first = next(outcomes)
    below = killed.below()
    killed.process.kill()
    _, alive = psutil.wait_procs(below, timeout=30)
    assert not alive
    code, before, _ = killed.end()
    assert code == -signal.SIGKILL and set(before.values()) <= {"made", "found"}
    others = [first, *outcomes]
    assert {o.status for o in others} <= {"made", "found"}
    made = [o.cell.name for o in others if o.status == "made"]
    made += [name for name, how in before.items() if how == "made"]
    assert len(before) < 6 and len(set(made)) == len(made)
    assert_made_once(grid.cells, place, runs_dir())
    assert found(grid.cells) == undisturbed
    # the next one that is local clears what the killed one left for its workers
    with sweeps._client(1, ["cpu"], None):
        left = [p for p in (runs_dir() / "dask-scratch-space").iterdir() if p.suffix != ".lock"]
        assert len([p for p in left if p.is_dir()]) == 2  # a scheduler's and a worker's: its own
    left = {p.name for p in (place / "temporary").iterdir()}
    others = {name for name in left if name.startswith(("torch", "pymp"))}  # torch, multiprocessing
    assert left - others <= {"dask-scratch-space"}  # of the tests' own scheduler


class Future:
    """One whose run ended with this error."""

    def __init__(self, error):
        self.error = error

    def result(self):
        raise self.error


def test_a_run_whose_worker_dies_again_and_again_is_a_failure_of_that_run(tmp_path, place):
    cell = Grid.read(write_grid(tmp_path, place)).cells[0]
    worker = SimpleNamespace(address="tcp://x:1")
    outcome = sweeps._outcome(Future(KilledWorker(cell.name, worker, 3)), cell, None)
    assert outcome.status == "failed" and "too little memory for so many jobs" in outcome.error


# --- what fails -----------------------------------------------------------------------------------


@pytest.fixture
def said(capsys):
    """Exit code, output and messages of `acl sweep`."""

    def run(*words):
        capsys.readouterr()
        code = main(["sweep", *map(str, words)])
        return code, *capsys.readouterr()

    return run


def test_what_fails_stops_nothing_else_and_is_tried_again(tmp_path, place, scheduler, said):
    late = tmp_path / "late" / "clips.csv"
    path = write_grid(
        tmp_path,
        place,
        arms=f"{{fine: {{}}, late: {{corpus: 'folder:{late}'}}, wild: {{lr: 1.0e+30}}}}",
        seeds="[0]",
    )
    code, out, err = said(path, "--scheduler", scheduler)
    assert code == 1
    assert err.endswith("acl: 2 of 3 runs failed; the same command tries them again\n")
    lines = [line for line in out.splitlines() if line.startswith("[")]
    assert len(lines) == 3 and sum(": made in " in line for line in lines) == 1
    (missing,) = (line for line in lines if "CorpusNotFoundError: no folder or CSV" in line)
    (wild,) = (line for line in lines if "FloatingPointError" in line)
    for line in (missing, wild):
        log = Path(re.search(r"the traceback is in (.*\.txt) in \d+ s", line)[1])
        assert log.parent == runs_dir() / "failed" and "Traceback" in log.read_text()
    write_corpus(late.parent)
    code, out, err = said(path, "--scheduler", scheduler)
    assert (
        code == 1
        and "acl: 1 of 2 runs failed" in err
        and "1 made, 0 made by other code, 2 to" in out
    )
    logs = list((runs_dir() / "failed").iterdir())
    assert len(logs) == 1 and "lr=1e+30" in logs[0].name
    assert [s for s in states(Grid.read(path).cells)] == ["done", "done", "open"]


def in_process(monkeypatch, results):
    """`sweeps.run` that gives or raises these, one a call; the calls."""
    calls = []

    def run(recipe, **options):
        result = results[len(calls)]
        calls.append(options)
        if isinstance(result, Exception):
            raise result
        return result(recipe)

    monkeypatch.setattr(sweeps, "run", run)
    return calls


def record(recipe):
    plain = {"corpus": {}, "results": {}, "geometry": {}, "cost": {}, "versions": {}, "commit": ""}
    lists = {"history": [], "selection": [], "splits": []}
    code = sweeps.code_fingerprint()
    return Record(recipe=recipe, path=Path("/none"), code=code, **plain, **lists)


def test_a_run_is_tried_as_often_as_said(tmp_path, place, monkeypatch):
    cell = Grid.read(write_grid(tmp_path, place)).cells[0]
    calls = in_process(monkeypatch, [OSError("disk full")] * TRIES)
    outcome = sweeps._make(cell, runs_dir(), {"open"}, False)
    assert len(calls) == TRIES == 2 and outcome.status == "failed"
    assert outcome.error.startswith("OSError: disk full; the traceback is in ")
    log = Path(outcome.error.rpartition(" in ")[2])
    assert "OSError: disk full" in log.read_text()
    assert not cell.target.exists()
    half = cell.target.with_name(f"{cell.target.name}.1.part")
    half.parent.mkdir(parents=True, exist_ok=True)
    half.touch()  # of a worker that was killed
    calls = in_process(monkeypatch, [OSError("disk full"), record])
    outcome = sweeps._make(cell, runs_dir(), {"open"}, False)
    assert (len(calls), outcome.status, outcome.error) == (2, "made", "")
    assert not log.exists() and states([cell]) == ["done"] and not half.exists()
    assert {"threads": 1, "progress": False, "folder": runs_dir()} == calls[0]


# --- whoever else is at it ------------------------------------------------------------------------


def test_what_another_process_makes_is_asked_for_last_and_taken(
    tmp_path, place, scheduler, monkeypatch
):
    grid = Grid.read(write_grid(tmp_path, place, seeds="[0]"))
    first, second = grid.cells
    (runs_dir() / "locks").mkdir(parents=True)
    lock = FileLock(runs_dir() / "locks" / f"{first.key()}.lock")
    lock.acquire()
    outcomes = run_grid(grid, scheduler=scheduler)
    assert (next(outcomes).cell, first.target.exists()) == (second, False)
    in_process(monkeypatch, [record])
    sweeps._run_recipe(first, runs_dir())  # here, while the worker waits
    lock.release()
    (last,) = outcomes
    assert (last.cell, last.status) == (first, "found")


def test_a_process_makes_one_run_at_a_time(tmp_path, place, monkeypatch):
    """Torch's seed and number of threads belong to the whole process."""
    cells = Grid.read(write_grid(tmp_path, place)).cells
    running, most = [], []

    def run(recipe, **options):
        running.append(recipe)
        most.append(len(running))
        time.sleep(0.05)
        running.remove(recipe)
        return record(recipe)

    monkeypatch.setattr(sweeps, "run", run)
    made = []
    threads = [
        threading.Thread(
            target=lambda c=c: made.append(sweeps._make(c, runs_dir(), {"open"}, False))
        )
        for c in cells
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [o.status for o in made] == ["made"] * 6 and max(most) == 1


# --- what is made again ---------------------------------------------------------------------------


def test_a_dry_run_makes_nothing_and_older_code_is_left_unless_renewed(
    tmp_path, place, scheduler, said, monkeypatch
):
    path = write_grid(tmp_path, place, seeds="[0]")
    code, out, err = said(path, "--dry-run")
    assert (code, err) == (0, "") and sorted(p.name for p in tmp_path.iterdir()) == ["tiny.yaml"]
    assert "2 runs: 0 made, 0 made by other code, 2 to do" in out
    assert out.count("  open  acl,") == 2 and "rule: " in out and "cost: " in out
    monkeypatch.chdir(tmp_path)  # the worker is elsewhere
    assert said("tiny.yaml", "--scheduler", scheduler)[0] == 0
    cells = Grid.read(path).cells
    assert states(cells) == ["done", "done"]
    values = json.loads(cells[0].target.read_text())
    cells[0].target.write_text(json.dumps(values | {"code": "older"}))
    assert states(cells) == ["stale", "done"]
    code, out, err = said(path, "--scheduler", "nobody:1")  # nothing to do needs nobody
    assert (code, err) == (0, "") and "1 made, 1 made by other code, 0 to do" in out
    assert "  stale acl," in said(path, "--dry-run")[1]
    code, out, err = said(path, "--renew", "--scheduler", scheduler)
    assert code == 0 and "1 made by other code, 1 to do" in out and out.count(": made in") == 1
    assert states(cells) == ["done", "done"]
    assert json.loads(cells[0].target.read_text()) == values


# --- notebooks ------------------------------------------------------------------------------------


def write_notebook(path, last):
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [
        nbformat.v4.new_code_cell(text)
        for text in ("alpha = 0.5\nseed = 0", "import os\nprint(alpha, seed)", last)
    ]
    cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


def test_a_notebook_is_executed_with_each_cells_parameters_and_kept_where_it_fails(
    tmp_path, place, scheduler, said
):
    path = tmp_path / "pages.yaml"
    path.write_text(
        "question: Does it run?\nnotebook: page.ipynb\narms: {alpha: [0.1, 0.9]}\nseeds: [7]\n"
        "records: copies\n"
    )
    page, (low, high) = tmp_path / "page.ipynb", ("page,alpha=0.1,seed=7", "page,alpha=0.9,seed=7")
    where = "print(os.environ['ACL_RUNS'], os.environ['ACL_DATA'], os.getcwd())"
    write_notebook(page, f"{where}\nassert alpha < 0.5, 'too much'")
    copies = tmp_path / "copies"
    code, out, err = said(path, "--scheduler", scheduler)
    assert code == 1 and "acl: 1 of 2 runs failed" in err
    assert f"{high}: AssertionError: too much; the traceback is in " in out
    assert {p.name for p in copies.iterdir()} == {f"{low}.ipynb", f"{high}.failed.ipynb"}
    failed = nbformat.read(copies / f"{high}.failed.ipynb", as_version=4)
    (error,) = (o for c in failed.cells for o in c.get("outputs", ()) if o.output_type == "error")
    assert error.evalue == "too much" and "alpha < " in "".join(error.traceback)
    shown = (copies / f"{low}.ipynb").read_text()
    assert "0.1 7" in shown and str(runs_dir()) in shown and f" {tmp_path}" in shown
    assert states(Grid.read(path).cells) == ["done", "open"]
    write_notebook(page, where)
    assert states(Grid.read(path).cells) == ["stale", "open"]  # another notebook than was executed
    code, out, _ = said(path, "--scheduler", scheduler)
    assert code == 0 and out.count(": made in") == 1
    assert {p.name for p in copies.iterdir()} == {f"{low}.ipynb", f"{high}.ipynb"}
    assert "0.9 7" in (copies / f"{high}.ipynb").read_text()
    assert not list((runs_dir() / "failed").iterdir())
    assert states(Grid.read(path).cells) == ["stale", "done"]


# --- where the workers are ------------------------------------------------------------------------


def test_mistakes_are_told_before_any_worker_starts(tmp_path, place, said):
    path = write_grid(tmp_path, place)
    for words, says in (
        (("--devices", "cuda:7"), "no device cuda:7; there are cpu"),
        (("--devices", "gpu,cpu"), "no device gpu; there are cpu"),
        (("--jobs", "0"), "jobs must be at least 1; got 0"),
        (("--part", "3/2"), "a part is K/N with K from 1 to N, such as 2/8; got 3/2"),
        (("--part", "0/2"), "got 0/2"),
        (("--part", "2"), "--part takes K/N, such as 2/8; got '2'"),
        (("--set", "alpha=0.3"), "alpha is what the grid compares"),
        (("--set", "seeds=[3]"), "--set is not for seeds: see acl sweep --help"),
        (("--set", "tau=1"), "tiny.yaml: unknown setting 'tau'"),
    ):
        code, _, err = said(path, *words)
        assert code == 1 and err.startswith("acl: ") and says in err and err.count("\n") == 1, err
    assert said(tmp_path / "gone.yaml")[2].startswith("acl: ")
    assert not runs_dir().exists()


def test_parts_share_a_grid_out(tmp_path, place, said):
    path = write_grid(tmp_path, place)
    names = [
        line.split()[1]
        for k in (1, 2, 3, 4)
        for line in said(path, "--dry-run", "--part", f"{k}/4")[1].splitlines()
        if line.startswith("  open ")
    ]
    assert sorted(names) == sorted(cell.name for cell in Grid.read(path).cells)


def test_a_worker_sees_one_device_counted_among_those_this_process_may_use(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert sweeps._visible(None, []) == ["0", "1"]  # one worker a GPU
    assert sweeps._visible(3, []) == ["0", "1", "0"]
    assert sweeps._visible(None, ["cuda:1"]) == ["1"]
    assert sweeps._visible(None, ["cuda:0", "cuda:0", "cpu"]) == ["0", "0", ""]
    assert sweeps._visible(2, ["cpu"]) == ["", ""]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")  # as a batch system sets it
    assert sweeps._visible(None, ["cuda:0", "cuda:1"]) == ["5", "3"]
    with pytest.raises(ValueError, match="no device cuda:2; there are cuda:0, cuda:1, cpu"):
        sweeps._visible(None, ["cuda:2"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert sweeps._visible(None, []) == [""] * dask.system.CPU_COUNT


def test_a_scheduler_that_does_not_answer_or_has_no_workers_is_told_soon(
    tmp_path, place, said, monkeypatch
):
    assert sweeps.ANSWER <= 20
    monkeypatch.setattr(sweeps, "ANSWER", 1)
    monkeypatch.setattr(sweeps, "WORKER", 1)
    path = write_grid(tmp_path, place)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    started = time.monotonic()
    for address in (nobody, "nowhere"):
        code, _, err = said(path, "--scheduler", address)
        assert code == 1 and err.startswith(f"acl: no Dask scheduler answers at {address} (")
        assert "`dask scheduler` starts one" in err and f"`dask worker {address} --nthr" in err
    from distributed import LocalCluster

    own = {"n_workers": 0, "dashboard_address": ":0", "processes": False, "protocol": "tcp"}
    with LocalCluster(**own, silence_logs="CRITICAL") as empty:
        code, _, err = said(path, "--scheduler", empty.scheduler_address)
    assert code == 1 and "has no workers: start some, `dask worker tcp://127.0.0.1" in err
    assert time.monotonic() - started < 60
    assert not runs_dir().exists()


def test_a_scheduler_that_goes_away_is_told(tmp_path, place):
    cell = Grid.read(write_grid(tmp_path, place)).cells[0]
    with pytest.raises(OSError, match="tcp://x:1 went away; what is made is kept"):
        sweeps._outcome(Future(sweeps.CancelledError()), cell, "tcp://x:1")
