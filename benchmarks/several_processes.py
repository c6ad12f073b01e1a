"""One batch in one process and shared by two: the same loss and gradient, and what a step costs.

Two gloo processes with a thread each take half of a batch; one process takes the whole, with one
thread and with two. The views are ready, so that only sharing differs: encoder, head, loss and
backward at width 32 in float32. Differences are of the loss and, over all weights, of the gradient.
On two cores of one machine; GPUs would use NCCL and were not to be had. Prints a table, writes
book/results/benchmark_several_processes.json.

    python benchmarks/several_processes.py [--clips 32] [--rounds 5]
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from timing import write_record

from acl_lib import parallel
from acl_lib.config import LossConfig, recipe
from acl_lib.experiments import new_network
from acl_lib.training import KeyMemory, MoCoStep, SimCLRStep, seed_everything

RECORD = Path(__file__).parents[1] / "book" / "results" / "benchmark_several_processes.json"
# where it can be had, processes are forked from one that has imported everything
START = "forkserver" if "forkserver" in mp.get_all_start_methods() else "spawn"
LOSSES = {
    "NT-Xent": LossConfig(),
    "ACL": LossConfig(alpha=0.3),
    "NT-Xent-AM": LossConfig(positive_margin=0.1),
    "MoCo": LossConfig(),
}


class Shared:
    """A step of one loss, with views that are the same in every process."""

    def __init__(self, name: str, clips: int, width: int, dtype: torch.dtype) -> None:
        settings = recipe("acl", width=width)
        generator = seed_everything(0)
        x = torch.randn(2, clips, 1, 96, 101, generator=generator).to(dtype)
        modules = [module.to(dtype) for module in new_network(settings, 2).modules]
        parts = {"pairs": lambda ids: x[:, ids].flatten(0, 1), "loss": LOSSES[name]}
        kind, kept = SimCLRStep, []
        if name == "MoCo":
            memory = KeyMemory(*modules, d=8 * width, queue=256, directions=2, generator=generator)
            memory = memory.to(dtype)
            parts |= {"memory": memory, "momentum": 0.9, "generator": generator}
            kind, kept = MoCoStep, [memory]
        self.clips, self.modules, self.all = clips, modules, [*modules, *kept]
        self.step = kind(*map(parallel.replica, modules), **parts, precision="float32")

    def __call__(self) -> tuple[float, torch.Tensor]:
        """Loss of the whole batch, and the gradient of all weights."""
        weights = [p for module in self.modules for p in module.parameters()]
        for p in weights:
            p.grad = None
        with parallel.synchronised(*self.all):
            loss = self.step(parallel.my_part(torch.arange(self.clips)))
            loss.backward()
        return loss.item(), torch.cat([p.grad.flatten() for p in weights])


def work(rank: int, processes: int, threads: int, options, folder: str) -> None:
    """What each process does; the first leaves what it found in a file."""
    torch.set_num_threads(threads)
    if processes > 1:
        meet = f"file://{folder}/meet"
        dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=processes)
    found = {}
    for name in LOSSES:
        exact = Shared(name, options.clips, options.width, torch.float64)()
        step = Shared(name, options.clips, options.width, torch.float32)
        single = step()
        spent = []
        for _ in range(options.steps):
            started = time.perf_counter()
            step()
            spent.append(1e3 * (time.perf_counter() - started))
        found[name] = {"float64": exact, "float32": single, "ms": statistics.median(spent)}
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    if processes > 1:
        dist.destroy_process_group()


def ask(processes: int, threads: int, options) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        given = (processes, threads, options, folder)
        mp.start_processes(work, given, nprocs=processes, start_method=START)
        return torch.load(f"{folder}/found.pt", weights_only=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RECORD)
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    mp.set_forkserver_preload(["acl_lib.experiments"])
    ways = {"one": (1, 1), "one, two threads": (1, 2), "two": (2, 1)}
    turns = [{way: ask(*how, options) for way, how in ways.items()} for _ in range(options.rounds)]
    rows = []
    print(f"{'loss':11} {'apart':>9} {'in float64':>10} {'ms: 1':>8} {'2 threads':>9} {'2':>8}")
    for name in LOSSES:
        row = {"loss": name, "n": options.rounds}
        for dtype in ("float32", "float64"):
            (loss, slope), (shared_loss, shared_slope) = (
                turns[0][way][name][dtype] for way in ("one", "two")
            )
            row[dtype] = {
                "loss_difference": abs(shared_loss - loss) / abs(loss),
                "gradient_difference": ((shared_slope - slope).norm() / slope.norm()).item(),
            }
        # how far float32 itself reaches: the same in another order of its sums
        one, threads = (turns[0][way][name]["float32"][1] for way in ("one", "one, two threads"))
        row["float32"]["gradient_difference_of_threads"] = (
            (threads - one).norm() / one.norm()
        ).item()
        for way in ways:
            ms = [turn[way][name]["ms"] for turn in turns]
            ratios = [turn[way][name]["ms"] / turn["one"][name]["ms"] for turn in turns]
            row[way] = {
                "ms": round(statistics.median(ms), 1),
                "ratio_to_one": round(statistics.median(ratios), 3),
                "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
            }
        rows.append(row)
        print(
            f"{name:11} {row['float32']['gradient_difference']:9.1e} "
            f"{row['float64']['gradient_difference']:10.1e} "
            f"{row['one']['ms']:8.1f} {row['one, two threads']['ms']:9.1f} {row['two']['ms']:8.1f}"
        )
    measured = (
        "wall time of forward, loss and backward, ready views, float32: median of n starts of the "
        "median of their steps; differences relative, of the loss and of the gradient's norm"
    )
    about = {"measured": measured, "clips": options.clips, "width": options.width}
    write_record(options.out, {**about, "steps": options.steps, "rows": rows})


if __name__ == "__main__":
    main()
