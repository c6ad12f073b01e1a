"""Memory of other processes, as Linux tells it, in 10^6 bytes.

Memory of no file ("anonymous") is what one more process of a kind costs. Libraries and log-mels are
mapped files: processes that use the same share them, and a proportional set size counts each of
their pages once, divided among those who have it.
"""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil


def memory_mb(pid: int) -> dict[str, float]:
    """What a process has now, its peak, and its part of no file; zeros when it has ended."""
    names = {"VmRSS": "resident", "VmHWM": "peak", "RssAnon": "anonymous"}
    found = dict.fromkeys(names.values(), 0.0)
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return found
    for name, _, value in (line.partition(":") for line in lines):
        if name in names:
            found[names[name]] = 1.024e-3 * int(value.split()[0])
    return found


def proportional_mb(pid: int) -> float:
    """Proportional set size of a process; 0 when it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return 1.024e-3 * int(text.split("\nPss:")[1].split()[0])


def family(pid: int) -> list[int]:
    """A process and all below it; empty when it has ended."""
    try:
        process = psutil.Process(pid)
        return [pid, *(below.pid for below in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def arguments(pid: int) -> list[str]:
    """The words that a process was started with; empty when it has ended."""
    try:
        return psutil.Process(pid).cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def total_mb(pids: Iterable[int], what: str) -> float:
    return sum(memory_mb(pid)[what] for pid in pids)


class Watch:
    """Ask again and again, in a thread, until the block ends; keep the largest of every answer."""

    def __init__(self, ask: Callable[[], dict[str, float]], *, every_seconds: float) -> None:
        self.ask, self.every_seconds, self.most = ask, every_seconds, {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._end.wait(self.every_seconds):
            self.look()

    def look(self) -> None:
        for name, value in self.ask().items():
            self.most[name] = max(value, self.most.get(name, value))

    def __enter__(self):
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *failed) -> None:
        self._end.set()
        self._thread.join()
