"""How the benchmarks measure: process CPU time of one thread, contenders in turn, the least wins.

CPU time and the least of several rounds are what an unquiet machine disturbs least; contenders
take turns, so that a disturbance meets all of them. Ratios carry over between machines.
"""

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch


def cpu_seconds(step: Callable[[], object], *, at_least: float = 0.05) -> float:
    """CPU seconds of one call, averaged over as many calls as fill `at_least` seconds."""
    calls, started = 0, time.process_time()
    while (spent := time.process_time() - started) < at_least:
        step()
        calls += 1
    return spent / calls


def least_cpu_seconds(
    contenders: dict[str, Callable[[], object]], *, rounds: int, at_least: float = 0.05
) -> dict[str, float]:
    """Least CPU seconds per call of each contender over the rounds."""
    least = dict.fromkeys(contenders, float("inf"))
    for step in contenders.values():
        step()  # first calls allocate
    for _ in range(rounds):
        for name, step in contenders.items():
            least[name] = min(least[name], cpu_seconds(step, at_least=at_least))
    return least


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
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps({**record, "machine": machine()}, indent=indent) + "\n")
    os.replace(unfinished, path)
