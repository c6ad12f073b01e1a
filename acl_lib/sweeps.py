"""All runs of a grid, each exactly once: on this machine, on its GPUs, or on a cluster.

For instance::

    for outcome in run_grid(Grid.read("grids/alpha_esc10.yaml"), jobs=2):
        print(outcome.cell.name, outcome.status)
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
from filelock import FileLock, Timeout

from .experiments import code_fingerprint, run, runs_dir
from .grids import Cell, Grid, find

SCRATCH = "acl-sweep-"  # folders of the workers, in the system's folder for temporary files
TRIES = 2  # of a run that fails; one whose worker dies is made again in any case


@dataclass(frozen=True)
class Outcome:
    """What became of a cell."""

    cell: Cell
    status: str  # "made", "failed"
    seconds: float = 0.0
    error: str = ""  # and where its traceback lies


def state(cell: Cell) -> str:
    """Whether a cell is "done", "stale" (made by other code, or of another notebook) or "open"."""
    if cell.recipe:
        record = find(cell)
        if record is None:
            return "open"
        return "done" if record.code == code_fingerprint() else "stale"
    if not cell.target.exists():
        return "open"
    stamp = nbformat.read(cell.target, as_version=4).metadata.get("acl")
    return "done" if stamp == _stamp(cell) else "stale"


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
    stopped; so does the whole grid when this process dies and is started again. Whatever else
    makes a run of the grid at the same time is left alone, and its result taken.

    Args:
        jobs: worker processes; None: one for each device, or core.
        devices: "cuda:0", "cuda:1", ... or "cpu"; a worker keeps to one. None given: all GPUs
            there are, or the processor.
        scheduler: address of a Dask scheduler, such as "tcp://host:8786", whose workers see the
            same folders and have this library; jobs and devices are then theirs.
        part: (k, n): only every n-th cell from the k-th on, for a job array.
        renew: also what was made by older code.

    Yields:
        An outcome for each run made here, as soon as it is known.

    Raises:
        ValueError: no such device; a part outside 1 to n.
        OSError: the scheduler does not answer.
    """
    k, n = part
    if not 1 <= k <= n:
        raise ValueError(f"part is K/N with K in 1 to N; got {k}/{n}")
    wanted = {"open", "stale"} if renew else {"open"}
    todo = [cell for cell in grid.cells[k - 1 :: n] if state(cell) in wanted]
    if not todo:
        return
    from distributed import as_completed  # half a second that a finished grid can spare

    with _client(jobs, devices, scheduler) as client:

        def give(cell: Cell, wait: bool = False):
            name = f"{cell.name}-{cell.key()}{'-again' if wait else ''}"
            return client.submit(_make, cell, runs_dir(), renew, wait, key=name, pure=False)

        cells = {give(cell): cell for cell in todo}
        busy, stream = [], as_completed(list(cells))
        for future in stream:
            cell = cells[future]
            if future.status == "finished" and (outcome := future.result()) is None:
                busy.append(cell)  # another process has it: ask again when the rest is done
            elif future.status == "finished":
                yield outcome
            else:  # its workers died, more often than chance would have it
                yield Outcome(cell, "failed", error=str(future.exception()))
            if not stream.count() and busy:
                again = {give(cell, wait=True): cell for cell in busy}
                cells |= again
                stream.update(again)
                busy = []


def _make(cell: Cell, runs: Path, renew: bool, wait: bool) -> Outcome | None:
    """Make one run, in a worker; None where another process is making it."""
    started, log = time.monotonic(), runs / "failed" / f"{cell.name}.txt"
    cell.target.parent.mkdir(parents=True, exist_ok=True)
    locks = runs / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(locks / f"{cell.key()}.lock", timeout=-1 if wait else 0):
            for left in reversed(range(TRIES)):
                try:
                    if state(cell) == "open" or renew:
                        (_run_recipe if cell.recipe else _run_notebook)(cell, runs)
                    break
                except Exception:
                    if not left:
                        raise
    except Timeout:
        return None
    except Exception as error:
        log.parent.mkdir(exist_ok=True)
        log.write_text(traceback.format_exc(), encoding="utf-8")
        what = f"{type(error).__name__}: {error}; the traceback is in {log}"
        return Outcome(cell, "failed", time.monotonic() - started, what)
    log.unlink(missing_ok=True)
    return Outcome(cell, "made", time.monotonic() - started)


def _run_recipe(cell: Cell, runs: Path) -> None:
    record = run(cell.recipe, threads=1, progress=False, folder=runs)
    replace(record, path=cell.target).write()


def _run_notebook(cell: Cell, runs: Path) -> None:
    import papermill

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
    nb.metadata["acl"] = _stamp(cell)
    nbformat.write(nb, running)
    os.replace(running, cell.target)
    failed.unlink(missing_ok=True)


def _stamp(cell: Cell) -> dict:
    return {"key": cell.key(), "code": code_fingerprint()}


@contextlib.contextmanager
def _client(jobs: int | None, devices: Sequence[str], scheduler: str | None):
    """A Dask client of the scheduler at an address, or of workers that end with it."""
    import torch
    from distributed import Client, Nanny, Scheduler, SpecCluster

    if scheduler:
        with Client(scheduler) as client:
            yield client
        return
    there = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if unknown := set(devices) - {"cpu", *there}:
        raise ValueError(
            f"no device {', '.join(sorted(unknown))}; there are {', '.join(['cpu', *there])}"
        )
    devices = list(devices) or there or ["cpu"]
    jobs = jobs or (len(devices) if devices != ["cpu"] else os.cpu_count() or 1)
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1; got {jobs}")

    def worker(i: int, folder: str) -> dict:
        device = devices[i % len(devices)]
        seen = device.removeprefix("cuda:") if device != "cpu" else ""
        # one thread: two runs that share a core's threads wait for each other
        env = {"CUDA_VISIBLE_DEVICES": seen, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        quiet = {"silence_logs": logging.CRITICAL, "dashboard": False}
        place = {"env": env, "local_directory": folder, "nthreads": 1, "memory_limit": None}
        return {"cls": Nanny, "options": {**place, **quiet}}

    here = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard": False}}
    with (
        tempfile.TemporaryDirectory(prefix=SCRATCH, ignore_cleanup_errors=True) as folder,
        SpecCluster(
            workers={i: worker(i, folder) for i in range(jobs)},
            scheduler=here,
            silence_logs="CRITICAL",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
