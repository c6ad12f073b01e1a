"""Time of a training step by number of threads, on a calm and on a busy machine.

The ACL step of the laptop profile, each time in a process of its own: with 1 thread up to all
cores, with threads that spin while they wait (OpenMP's usual way) or that sleep, and beside none,
or as many busy processes as there are cores. Wall time: that is what threads are for. Prints a
table, writes book/results/benchmark_threads.json.

    python benchmarks/threads.py [--steps 12] [--rounds 5]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from step import stages
from timing import write_record

from acl_lib.config import recipe
from acl_lib.experiments import open_recipe_corpus, open_store

RECORD = Path(__file__).parents[1] / "book" / "results" / "benchmark_threads.json"
BUSY = "while True: pass"


def step_ms(steps: int, width: int) -> float:
    """Median wall milliseconds of a step, with the threads that OMP_NUM_THREADS says."""
    settings = recipe("acl", profile="laptop", width=width)
    store = open_store(open_recipe_corpus(recipe("acl")), settings, progress=False)
    step = stages(settings, store, torch.arange(len(store.starts)))["step"]
    spent = []
    for _ in range(steps + 3):
        started = time.perf_counter()
        step()
        spent.append(time.perf_counter() - started)
    return 1e3 * statistics.median(spent[3:])


def measured(threads: int, waiting: str, busy: int, steps: int, width: int) -> float:
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": waiting}
    beside = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
    try:
        words = [sys.executable, __file__, "--child", "--steps", steps, "--width", width]
        return json.loads(subprocess.check_output(list(map(str, words)), env=env, text=True))
    finally:
        for process in beside:
            process.kill()
            process.wait()


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=12)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--width", type=int, default=32)
    options.add_argument("--child", action="store_true", help="one measurement")
    options.add_argument("--out", type=Path, default=RECORD)
    chosen = options.parse_args()
    if chosen.child:
        print(step_ms(chosen.steps, chosen.width))
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    counts = sorted({1, cores} | {2**i for i in range(1, 10) if 2**i < cores})
    cases = [
        (busy, waiting, threads)
        for busy in (0, cores)
        for waiting in ("ACTIVE", "PASSIVE")
        for threads in counts
    ]
    found: dict[tuple, list[float]] = {case: [] for case in cases}
    for _ in range(chosen.rounds):  # in turns
        for busy, waiting, threads in cases:
            ms = measured(threads, waiting, busy, chosen.steps, chosen.width)
            found[busy, waiting, threads].append(ms)
    rows = []
    print(
        f"{'busy beside':>11} {'waiting':>8} {'threads':>7} {'ms a step':>10} {'to 1 thread':>20}"
    )
    for busy, waiting, threads in cases:
        mine, one = found[busy, waiting, threads], found[busy, waiting, 1]
        ratios = [ms / alone for ms, alone in zip(mine, one, strict=True)]
        row = {
            "busy_processes": busy,
            "waiting": waiting,
            "threads": threads,
            "step_ms": round(statistics.median(mine), 1),
            "step_ms_range": [round(min(mine), 1), round(max(mine), 1)],
            "ratio_to_one_thread": round(statistics.median(ratios), 3),
            "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
            "n": chosen.rounds,
        }
        rows.append(row)
        low, high = row["ratio_range"]
        print(
            f"{busy:11} {waiting:>8} {threads:7} {row['step_ms']:10.1f} "
            f"{row['ratio_to_one_thread']:7.2f} ({low:.2f} to {high:.2f})",
            flush=True,
        )
    measured_as = "wall time of a step, 32 clips: median of n processes; ratios within a round"
    write_record(
        chosen.out,
        {"measured": measured_as, "cores": cores, "width": chosen.width, "rows": rows},
    )


if __name__ == "__main__":
    main()
