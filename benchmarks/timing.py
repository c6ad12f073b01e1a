"""How the benchmarks measure: process CPU time of one thread, contenders in turn, round by round.

CPU time and the least of several rounds are what an unquiet machine disturbs least; contenders
take turns, so that a disturbance meets all of them. A ratio is taken within a round, and comes with
its spread over the rounds; ratios carry over between machines.
"""

import json
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from acl_lib.whole import write_whole


def spent_cpu_seconds() -> float:
    """CPU seconds of this process, and of the worker processes that it started and saw end."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def cpu_seconds(step: Callable[[], object], *, at_least: float = 0.05) -> float:
    """CPU seconds of one call, averaged over as many calls as fill `at_least` seconds."""
    calls, started = 0, spent_cpu_seconds()
    while (spent := spent_cpu_seconds() - started) < at_least:
        step()
        calls += 1
    return spent / calls


def cpu_seconds_by_round(
    contenders: dict[str, Callable[[], object]], *, rounds: int, at_least: float = 0.05
) -> dict[str, list[float]]:
    """CPU seconds per call of each contender in each round; in a round all have their turn."""
    for step in contenders.values():
        step()  # first calls allocate
    seconds = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, step in contenders.items():
            seconds[name].append(cpu_seconds(step, at_least=at_least))
    return seconds


def least_cpu_seconds(
    contenders: dict[str, Callable[[], object]], *, rounds: int, at_least: float = 0.05
) -> dict[str, float]:
    """Least CPU seconds per call of each contender over the rounds."""
    seconds = cpu_seconds_by_round(contenders, rounds=rounds, at_least=at_least)
    return {name: min(some) for name, some in seconds.items()}


def ratio_with_spread(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """How many times as long they take: median, least and most over the rounds, and their number.

    Args:
        theirs, ours: seconds, round by round; a round of the one is divided by the same of the
            other.
    """
    by_round = [a / b for a, b in zip(theirs, ours, strict=True)]
    return {
        "median": round(statistics.median(by_round), 3),
        "min": round(min(by_round), 3),
        "max": round(max(by_round), 3),
        "rounds": len(by_round),
    }


def peak_mb(*, afresh: bool = False) -> float:
    """Most memory that this process had, in 10^6 bytes; afresh: from what it has now on (Linux)."""
    if afresh:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return 1.024e-3 * int(status.split("VmHWM:")[1].split()[0])


def machine() -> dict[str, object]:
    """What a reader of a record needs in order to compare: no name, no path."""
    return {
        "processor": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def write_record(path: Path, record: dict, *, indent: int | None = 1) -> None:
    """Store the record and the machine it was measured on; a reader never sees half a file."""
    write_whole(path, json.dumps({**record, "machine": machine()}, indent=indent) + "\n")
