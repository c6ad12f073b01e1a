"""kill -9 at random moments: after a restart, is the result that of a job left alone?

Four jobs, as the command line does them, on twelve tiny sounds: preparing the log-mels of a corpus,
training a run with its probes, sweeping a grid on two Dask workers, building a book of one page
with its kernel. A job is killed once it has spent a random share of the processor time that it
takes undisturbed; then the same command is started again, to its end. Every other time the job
alone is killed, else all processes below it too. Some jobs are killed three times before they end.
Results are compared without the times that they state.

    python benchmarks/faults.py

Takes about half an hour, and goes on where it stopped.

The sweeps of the record are a second run. In the first, 1 of 50 (the job alone killed, at 0.79 of
its time) differed, in a record or in what was left lying about: it did not note in which. 40 more
kills around that moment all ended equal. Workers forked here, unlike those of `acl sweep`, may
outlive their killed sweep; whether one did then is not known.
"""

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil
import soundfile
from timing import write_record

OUT = Path(__file__).resolve().parents[1] / "book" / "results" / "faults.json"
RECORD = OUT.parent / "esc10" / "contrastive-all-seed0.json"  # all that the ledger is made of
SEED = 2026
TICK = 0.01  # seconds between two looks at what a job has spent; the system counts in these
# what takes longer to import than a whole job here
WARM = "torch._dynamo scipy.stats distributed papermill IPython nbclient acl_lib.sweeps "
WARM += "acl_lib.publish acl_lib.__main__ acl_lib.ledger acl_lib.explorers"
SETTINGS = {
    "width": 8,
    "epochs": 3,
    "batch": 4,
    "precision": "float32",
    "penalties": [0.1],
    "alpha": 0.5,
    "select_by": "knn",
    "select_share": 0.4,
    "select_neighbours": 3,
}


def write_sounds(folder: Path, *, clips: int = 12) -> None:
    """Clips of 0.5 to 1.7 s of three classes in two folds."""
    folder.mkdir(parents=True)
    lines = ["path,label,fold,source"]
    for n in range(clips):
        rng = np.random.default_rng(n)
        t = np.arange(round((0.5 + 0.1 * (n % 13)) * 22_050)) / 22_050
        hertz = (3000, 300, 900)[n % 3] * rng.uniform(0.8, 1.25)
        wav = 0.3 * np.sin(2 * np.pi * hertz * t) + 0.01 * rng.standard_normal(len(t))
        soundfile.write(folder / f"{n:02d}.wav", wav, 22_050)
        lines.append(f"{n:02d}.wav,{'abc'[n % 3]},{1 + n // 3 % 2},s{n // 3}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")


# --- the four jobs --------------------------------------------------------------------------------


def corpus_of(root: Path, name: str = "sounds") -> str:
    return f"folder:{root.parent / name / 'clips.csv'}"


def prepare(root: Path) -> int:
    """`acl prepare`, which saves every few clips."""
    from acl_lib import features
    from acl_lib.__main__ import main

    features.SAVE_BYTES = 1 << 16
    return main(["prepare", "acl", "--corpus", corpus_of(root, "many")])


def train(root: Path) -> int:
    """`acl run` with two folds and both trained readers; its state is saved after every epoch."""
    from acl_lib import training
    from acl_lib.__main__ import main

    training.CHECKPOINT_SECONDS = 0.0
    settings = SETTINGS | {"solver": "sgd", "probe_epochs": 2, "finetune_epochs": 2}
    words = [word for k, v in settings.items() for word in ("--set", f"{k}={v!r}")]
    return main(["run", "acl", "--corpus", corpus_of(root), "--threads", "1", *words])


def sweep(root: Path) -> int:
    """`acl sweep` of two runs on two workers."""
    import dask

    from acl_lib import training
    from acl_lib.__main__ import main

    training.CHECKPOINT_SECONDS = 0.0
    dask.config.set({"distributed.worker.multiprocessing-method": "fork"})  # from what is imported
    write_grid(root)
    return main(["sweep", str(root / "grid.yaml"), "--jobs", "2", "--devices", "cpu"])


def write_grid(root: Path) -> None:
    """A grid of one arm and two seeds, unless it is there."""
    path = root / "grid.yaml"
    if path.exists():
        return
    grid = {
        "question": "Does it run?",
        "recipe": "acl",
        "settings": SETTINGS | {"corpus": corpus_of(root)},
        "arms": {"one": {}},
        "seeds": [0, 1],
        "records": str(root / "records"),
    }
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(grid))
    os.replace(part, path)


def book(root: Path) -> int:
    """`python -m acl_lib.publish` in a project of one page."""
    from acl_lib import publish

    publish.SOURCES, publish.COPIES = root / "notebooks", root / "book" / "notebooks"
    publish.VENDOR, publish.RESULTS = root / "book" / "vendor", root.parent / "results"
    publish.MATHJAX = publish.VENDOR / "tex-svg.js"
    publish.WELCOME, publish.LEDGER = publish.VENDOR / "welcome.html", publish.VENDOR / "ledger.csv"
    write_page(root)
    return publish.main([])


def write_page(root: Path) -> None:
    """A notebook that prints numbers, unless it is there."""
    import nbformat

    path = root / "notebooks" / "01_numbers.ipynb"
    if path.exists():
        return
    codes = "profile = 'quick'", "for n in range(2000):\n    print(n * n)"
    cells = [nbformat.v4.new_code_cell(code) for code in codes]
    for n, cell in enumerate(cells):
        cell.id = str(n)
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nb = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    nbformat.write(nb, part)
    os.replace(part, path)


# --- what they leave ------------------------------------------------------------------------------


def digests(root: Path, pattern: str) -> dict[str, str]:
    """Path -> SHA-256 of all files below a folder that match."""
    files = sorted(path for path in root.glob(pattern) if path.is_file())
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def store_of(root: Path) -> dict:
    """Every byte of the store."""
    return digests(root, "cache/logmel/**/*")


def record_of(path: Path) -> dict:
    """A record without what it says of time."""
    values = json.loads(path.read_text(encoding="utf-8"))
    return {k: v for k, v in values.items() if k != "cost"}


def run_of(root: Path) -> dict:
    """The record, every weight of its networks, and the names of the files beside it."""
    from acl_lib import checkpoints

    (path,) = (root / "runs").glob("*/record.json")
    networks = {}
    for file in sorted(path.parent.glob("*.pt")):
        state = checkpoints.load(file)
        networks[file.name] = [
            {name: tensor.tolist() for name, tensor in part.items()} for part in state["modules"]
        ]
    names = sorted(file.name for file in path.parent.iterdir())
    return {"record": record_of(path), "networks": networks, "files": names}


def records_of(root: Path) -> dict:
    """Every record of the grid, and what lies about beside records and networks."""
    left = [p.name for end in ("part", "resume") for p in root.rglob(f"*.{end}")]
    files = sorted((root / "records").rglob("*.json"))
    return {"left": left, **{file.name: record_of(file) for file in files}}


def book_of(root: Path) -> dict:
    """Every byte of the copies and of what lies beside them."""
    return digests(root, "book/**/*")


JOBS: dict[str, tuple[Callable[[Path], int], Callable[[Path], dict]]] = {
    "prepare": (prepare, store_of),
    "train": (train, run_of),
    "sweep": (sweep, records_of),
    "book": (book, book_of),
}


def largest_difference(a: object, b: object) -> float:
    """Of two numbers anywhere in two results; infinite where they differ in anything else."""
    if type(a) is not type(b):
        return float("inf")
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return float("inf")
        return max((largest_difference(a[k], b[k]) for k in a), default=0.0)
    if isinstance(a, list):
        if len(a) != len(b):
            return float("inf")
        return max(map(largest_difference, a, b), default=0.0)
    if a == b:
        return 0.0
    return abs(a - b) if isinstance(a, (int, float)) else float("inf")


def half_written(root: Path) -> list[str]:
    """Kinds of files and folders that are not finished: their last suffixes, each once."""
    ends = (".part", ".resume", ".running.ipynb")
    return sorted({end for p in root.rglob("*") for end in ends if p.name.endswith(end)})


# --- killing --------------------------------------------------------------------------------------


def perform(job: str, root: str, largest: int | None, user: int | None) -> None:
    """A job in a process of its own, in a folder of its own; what it says goes to a file."""
    os.environ |= {
        "ACL_RUNS": f"{root}/runs",
        "ACL_CACHE": f"{root}/cache",
        "OMP_NUM_THREADS": "1",
        "DASK_DISTRIBUTED__COMM__RETRY__COUNT": "0",
    }
    os.chdir(root)
    with open("said.txt", "a") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    import torch

    torch.set_num_threads(1)
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    if user is not None:
        os.setuid(user)
    sys.exit(JOBS[job][0](Path(root)))


class Job:
    """A job that runs, is watched, and may be killed.

    Args:
        job: its name in `JOBS`.
        root: folder that it works in.
        largest: bytes that no file may exceed, as if the disk were full then.
        user: number of the user who does it, instead of this one.
    """

    def __init__(
        self, job: str, root: Path, *, largest: int | None = None, user: int | None = None
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(WARM.split())
        self.process = context.Process(target=perform, args=(job, str(root), largest, user))
        self.started = time.monotonic()
        self.process.start()
        self.main = psutil.Process(self.process.pid)
        self.below: dict[psutil.Process, float] = {}  # CPU seconds of each, as last seen
        self._looked = 0.0

    def spent(self) -> float:
        """CPU seconds of the job and of all processes that it started."""
        if time.monotonic() - self._looked > 10 * TICK:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.below |= {p: 0.0 for p in self.main.children(True) if p not in self.below}
            self._looked = time.monotonic()
        for process in self.below:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                times = process.cpu_times()
                self.below[process] = times.user + times.system
        try:
            times = self.main.cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return times.user + times.system + sum(self.below.values())

    def ended(self, seconds: float = 0.0) -> bool:
        self.process.join(seconds)
        return self.process.exitcode is not None

    def to_its_end(self) -> float:
        """CPU seconds of a job that is left alone.

        Raises:
            RuntimeError: it failed.
        """
        spent = 0.0
        while not self.ended(TICK):
            spent = max(spent, self.spent())
        if self.process.exitcode:
            raise RuntimeError(f"the job ended with {self.process.exitcode}")
        return spent

    def kill_after(self, cpu_seconds: float, *, alone: bool) -> bool:
        """Kill it once it has spent so much; whether it was still there."""
        while self.spent() < cpu_seconds:
            if self.ended(TICK):
                return False
        os.kill(self.process.pid, signal.SIGKILL)
        for process in () if alone else self.below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.join()
        return self.process.exitcode == -signal.SIGKILL


def killed(
    job: str, root: Path, *, whole: float, rng: random.Random, times: int = 1, alone: bool = False
) -> list[dict]:
    """Start a job, kill it at a random moment, so many times one after the other; then to its end.

    Args:
        whole: CPU seconds of an undisturbed job. A job that has ended before its moment came is
            begun anew with half of it.

    Returns:
        A line for each kill: CPU seconds, their share of the whole, wall seconds, what was
        half-written then.
    """
    kills, below, moment = [], {}, rng.uniform(0, whole)
    while len(kills) < times:
        one = Job(job, root)
        if not one.kill_after(moment, alone=alone):
            one.process.join()
            shutil.rmtree(root)
            kills, moment = [], moment / 2
            continue
        wall = time.monotonic() - one.started
        below |= one.below
        kills.append(
            {
                "cpu_seconds": round(moment, 3),
                "share": round(moment / whole, 3),
                "wall_seconds": round(wall, 2),
                "half_written": half_written(root),
            }
        )
        moment = rng.uniform(0, whole / 2)  # less is left to do
    Job(job, root).to_its_end()
    for process in below:  # a forked worker holds the pipe by which another would notice
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return kills


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A folder for jobs, with the sounds in it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        write_sounds(Path(folder) / "sounds")
        write_sounds(Path(folder) / "many", clips=100)  # to prepare
        (Path(folder) / "results").mkdir()
        shutil.copy(RECORD, Path(folder) / "results")
        yield Path(folder)


def undisturbed(job: str, folder: Path) -> tuple[dict, float]:
    """The result of a job that is left alone, and its CPU seconds."""
    whole = Job(job, folder / f"{job}-whole").to_its_end()
    return JOBS[job][1](folder / f"{job}-whole"), whole


def trial(job: str, folder: Path, expected: dict, whole: float, number: int, times: int) -> dict:
    """One line of the record."""
    rng = random.Random(f"{SEED}, {job}, {number}, {times}")
    root, alone = folder / f"{job}-{number}-{times}", number % 2 == 1
    kills = killed(job, root, whole=whole, rng=rng, times=times, alone=alone)
    found = JOBS[job][1](root)
    who = "the job alone" if alone else "all processes"
    line = {"number": number, "killed": who, "kills": kills}
    line["difference"] = largest_difference(expected, found)
    if line["difference"]:
        line["in"] = [
            name for name in {**expected, **found} if expected.get(name) != found.get(name)
        ]
        line["left"] = [p.name for end in ("part", "resume") for p in root.rglob(f"*.{end}")]
    shutil.rmtree(root, ignore_errors=True)
    return line


def summary(lines: list[dict]) -> dict:
    """What the lines of a job say together."""
    kills = [kill for line in lines for kill in line["kills"]]
    half = sum(bool(kill["half_written"]) for kill in kills)
    return {
        "n": len(lines),
        "kills": len(kills),
        "equal": sum(line["difference"] == 0 for line in lines),
        "largest_difference": max(line["difference"] for line in lines),
        "half_written_when_killed": half,
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--moments", type=int, default=50, help="of each job")
    parser.add_argument("--chains", type=int, default=5, help="jobs killed three times in a row")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    names = ("torch", "filelock", "distributed", "papermill", "ipykernel", "nbclient")
    record = {"seed": SEED, "jobs": {}, "versions": {name: version(name) for name in names}}
    if options.out.exists():
        record["jobs"] = json.loads(options.out.read_text())["jobs"]
    with place() as folder:
        for job in options.jobs:
            mine = record["jobs"].setdefault(job, {"once": {}, "three times": {}})
            expected, whole = undisturbed(job, folder)
            mine["cpu_seconds"] = round(whole, 2)
            wanted = {"once": (1, options.moments), "three times": (3, options.chains)}
            for kind, (times, moments) in wanted.items():
                lines = mine[kind].get("lines", [])
                for number in range(len(lines), moments):
                    lines.append(trial(job, folder, expected, whole, number, times))
                    mine[kind] = summary(lines) | {"lines": lines}
                    write_record(options.out, record, indent=None)
            for kind in wanted:
                told = {k: v for k, v in mine[kind].items() if k != "lines"}
                print(f"{job}, killed {kind}: {told}", flush=True)


if __name__ == "__main__":
    main()
