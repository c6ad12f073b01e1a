"""All runs of a grid, each exactly once: on this machine, on its GPUs, or on a cluster.

For instance:

    for outcome in run_grid(Grid.read("grids/alpha_esc10.yaml"), jobs=2):
        print(outcome.cell.name, outcome.status)
"""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import threading
import time
import traceback
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
from filelock import FileLock, Timeout

from .datasets import cache_dir, data_dir
from .experiments import code_fingerprint, run, runs_dir
from .grids import Cell, Grid, find
from .repeated import is_current

TRIES = 2  # of a run that fails; one whose worker dies goes on in another in any case
ANSWER, WORKER = 15, 60  # seconds that a scheduler has to answer, and its first worker to come

_ONE_RUN = threading.Lock()  # in a process: torch's seed and its number of threads are all of its


@dataclass(frozen=True)
class Outcome:
    """What became of a cell."""

    cell: Cell
    status: str  # "made", "found" (another process has made it in the meantime), "failed"
    seconds: float = 0.0
    error: str = ""  # and where its traceback lies


def states(cells: Sequence[Cell]) -> list[str]:
    """Whether cells are "done", "stale" (by other code, or of an older notebook) or "open"."""
    code = code_fingerprint()

    def state(cell: Cell) -> str:
        if cell.recipe:
            record = find(cell)
            if record is None:
                return "open"
            return "done" if is_current(record, code) else "stale"
        if not cell.target.exists():
            return "open"
        stamp = nbformat.read(cell.target, as_version=4).metadata.get("acl")
        return "done" if stamp == {"key": cell.key(), "code": code} else "stale"

    return [state(cell) for cell in cells]


def run_grid(
    grid: Grid,
    *,
    jobs: int | None = None,
    devices: Sequence[str] = (),
    scheduler: str | None = None,
    part: tuple[int, int] = (1, 1),
    renew: bool = False,
) -> Iterator[Outcome]:
    """Make the runs of a grid that are not made yet, several at a time.

    Dask gives them to workers: processes of this machine with one thread each, or those of a
    scheduler that runs already. A run whose worker dies is given to another and goes on where it
    stopped; so does the whole grid when this process dies and is started again. What another
    process is making at the same time is left to it, and its result taken.

    Args:
        jobs: worker processes; None: one for each device, or core.
        devices: "cuda:0", "cuda:1", ... or "cpu"; a worker keeps to one. None given: all GPUs
            there are, or the processor.
        scheduler: address of a Dask scheduler, such as "tcp://host:8786", whose workers see the
            same folders and have this library; jobs and devices are then theirs.
        part: (k, n): only every n-th cell from the k-th on, for a job array.
        renew: also what was made by older code.

    Yields:
        An outcome for each of these runs, as soon as it is known.

    Raises:
        ValueError: no such device; a part outside 1 to n.
        OSError: the scheduler does not answer, has no workers, or goes away.
    """
    wanted = {"open", "stale"} if renew else {"open"}
    mine = grid.part(*part)
    todo = [cell for cell, now in zip(mine, states(mine), strict=True) if now in wanted]
    if not todo:
        return
    # torchrun may have started this sweep beside others: its runs are not parts of one run for that
    os.environ.pop("TORCHELASTIC_RUN_ID", None)
    from distributed import as_completed  # half a second that a finished grid can spare

    with _client(jobs, devices, scheduler) as client:

        def give(cells: Sequence[Cell], wait: bool = False) -> dict:
            return {
                client.submit(
                    _make,
                    _absolute(cell),
                    runs_dir(),
                    wanted,
                    wait,
                    key=f"{cell.name}-{cell.key()}{'-again' if wait else ''}",
                    priority=-i,  # in the grid's order
                    pure=False,
                ): cell
                for i, cell in enumerate(cells)
            }

        cells, busy = give(todo), []
        stream = as_completed(list(cells))
        for future in stream:
            cell = cells[future]
            if (outcome := _outcome(future, cell, scheduler)) is None:
                busy.append(cell)  # another process has it: ask again when the rest is done
            else:
                yield outcome
            if busy and not stream.count():
                again = give(busy, wait=True)
                cells |= again
                stream.update(again)
                busy = []


def _absolute(cell: Cell) -> Cell:
    """The same cell for a worker in another working folder."""
    notebook = cell.notebook and cell.notebook.absolute()
    return replace(cell, target=cell.target.absolute(), notebook=notebook)


def _outcome(future, cell: Cell, scheduler: str | None) -> Outcome | None:
    from distributed import KilledWorker

    try:
        outcome = future.result()
    except KilledWorker as error:  # more often than chance would have it
        what = "its worker died again and again: is there too little memory for so many jobs?"
        return Outcome(cell, "failed", error=f"{what} ({str(error).partition('. ')[0]})")
    except CancelledError:
        raise OSError(
            f"the scheduler at {scheduler} went away; what is made is kept, and the same command "
            "goes on from there once a scheduler runs"
        ) from None
    except Exception as error:  # it never began, for instance where a worker lacks the library
        return Outcome(cell, "failed", error=f"{type(error).__name__}: {error}")
    return outcome and replace(outcome, cell=cell)


def _make(cell: Cell, runs: Path, wanted: Collection[str], wait: bool) -> Outcome | None:
    """Make one run, in a worker; None where another process is making it."""
    started = time.monotonic()
    log = runs / "failed" / f"{cell.target.parent.name},{cell.name}.txt"
    locks = runs / "locks"
    try:
        cell.target.parent.mkdir(parents=True, exist_ok=True)
        locks.mkdir(parents=True, exist_ok=True)
        with _ONE_RUN, FileLock(locks / f"{cell.key()}.lock", timeout=-1 if wait else 0):
            if states([cell])[0] not in wanted:
                return Outcome(cell, "found")
            for left in reversed(range(TRIES)):
                try:
                    (_run_recipe if cell.recipe else _run_notebook)(cell, runs)
                    break
                except Exception:
                    if not left:
                        raise
    except Timeout:
        return None
    except Exception as error:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(traceback.format_exc(), encoding="utf-8")
        what = getattr(error, "ename", type(error).__name__)  # of a cell of a notebook
        what = f"{what}: {getattr(error, 'evalue', error)}; the traceback is in {log}"
        return Outcome(cell, "failed", time.monotonic() - started, what)
    log.unlink(missing_ok=True)
    return Outcome(cell, "made", time.monotonic() - started)


def _run_recipe(cell: Cell, runs: Path) -> None:
    record = run(cell.recipe, threads=1, progress=False, folder=runs)
    for part in cell.target.parent.glob(f"{glob.escape(cell.target.name)}.*.part"):
        part.unlink()  # of a worker that was killed
    replace(record, path=cell.target).write()


def _run_notebook(cell: Cell, runs: Path) -> None:
    import papermill

    # the kernel starts in the notebook's folder, and is to find what this process finds
    os.environ |= {
        "ACL_RUNS": str(runs),
        "ACL_CACHE": str(cache_dir()),
        "ACL_DATA": str(data_dir()),
    }
    running = cell.target.with_suffix(".running.ipynb")
    failed = cell.target.with_suffix(".failed.ipynb")
    try:
        papermill.execute_notebook(
            cell.notebook,
            running,
            parameters=cell.parameters,
            cwd=cell.notebook.parent,
            progress_bar=False,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        )
    except Exception:
        if running.exists():
            os.replace(running, failed)
        raise
    nb = nbformat.read(running, as_version=4)
    nb.metadata["acl"] = {"key": cell.key(), "code": code_fingerprint()}
    nbformat.write(nb, running)
    os.replace(running, cell.target)
    failed.unlink(missing_ok=True)


@contextlib.contextmanager
def _client(jobs: int | None, devices: Sequence[str], scheduler: str | None):
    """A Dask client of the scheduler at an address, or of workers that end with it."""
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster
    from distributed.utils import silence_logging_cmgr

    if scheduler:
        with silence_logging_cmgr(logging.CRITICAL), _answering(scheduler) as client:
            yield client
        return
    seen = _visible(jobs, devices)
    # where Dask will make it: a folder that is closed would be a traceback of its own
    (runs_dir() / "dask-scratch-space").mkdir(parents=True, exist_ok=True)

    def worker(device: str) -> dict:
        # one thread: two runs that share a core's threads wait for each other
        env = {"CUDA_VISIBLE_DEVICES": device, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        calm = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"  # Ctrl-C is for us
        quiet = {"silence_logs": logging.CRITICAL, "preload": [calm]}
        options = {"env": env, "nthreads": 1, "memory_limit": None}
        return {"cls": Nanny, "options": options | quiet | own}

    # on this machine only: whoever reaches a port of Dask can run code
    own = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    with (
        # of a sweep that was killed, the next one clears this folder
        dask.config.set({"temporary-directory": str(runs_dir())}),
        SpecCluster(
            workers={i: worker(device) for i, device in enumerate(seen)},
            scheduler={"cls": Scheduler, "options": {"port": 0} | own},
            silence_logs="CRITICAL",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _answering(scheduler: str):
    """A client of a scheduler that answers and has workers."""
    from distributed import Client

    start = f"`dask worker {scheduler} --nthreads 1`"
    try:
        client = Client(scheduler, timeout=ANSWER)
    except (OSError, ValueError) as error:
        raise OSError(
            f"no Dask scheduler answers at {scheduler} ({error}). `dask scheduler` starts one and "
            f"prints its address, {start} a worker"
        ) from None
    try:
        client.wait_for_workers(1, timeout=WORKER)
    except TimeoutError:
        client.close()
        raise OSError(f"the scheduler at {scheduler} has no workers: start some, {start}") from None
    return client


def _visible(jobs: int | None, devices: Sequence[str]) -> list[str]:
    """What each worker sees of the GPUs: the value of its CUDA_VISIBLE_DEVICES.

    Raises:
        ValueError: no such device, or no jobs.
    """
    import torch
    from dask.system import CPU_COUNT  # of this process, which may not have all cores

    count = torch.cuda.device_count()
    # "cuda:0" is the first that this process may use, which is not the first of every machine
    mine = os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = mine.split(",")[:count] if mine else [str(i) for i in range(count)]
    there = {f"cuda:{i}": number for i, number in enumerate(numbers)}
    known = there | {"cpu": ""}
    if unknown := [name for name in devices if name not in known]:
        raise ValueError(f"no device {', '.join(unknown)}; there are {', '.join(known)}")
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs must be at least 1; got {jobs}")
    devices = list(devices or there or ["cpu"])
    jobs = jobs or (CPU_COUNT if devices == ["cpu"] else len(devices))
    return [known[devices[i % len(devices)]] for i in range(jobs)]
