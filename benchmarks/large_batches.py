"""Memory and time of the losses of a large batch: tile by tile against the whole matrix.

Forward and backward on one thread, each call in a process of its own: processor time, and how far
the peak of its memory rises above what it had with its inputs. Both ways take turns; a ratio is
that of one turn. The rows are random directions, or tight ones with cosines about 0.9, of which
nearly all pairs lie within the margin. Linux only: it asks the kernel for the peak. Prints a table,
writes book/results/benchmark_large_batches.json.

    python benchmarks/large_batches.py [--rows 4096 8192 16384] [--largest 65536] [--rounds 3]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from timing import peak_mb, write_record

from acl_lib import losses
from acl_lib.blockwise import TILE

RECORD = Path(__file__).parents[1] / "book" / "results" / "benchmark_large_batches.json"
FORMS = {
    "nt_xent": lambda a, b: losses.nt_xent(a, b, temperature=0.2),
    "nt_xent_additive": lambda a, b: losses.nt_xent_additive(a, b, temperature=0.2, margin=0.1),
    "nt_xent_angular": lambda a, b: losses.nt_xent_angular(a, b, temperature=0.2, margin=0.1),
    "angular_margin": losses.angular_margin,
    "supcon": lambda z: losses.supcon(z, torch.arange(len(z)) % 20, temperature=0.2),
}
WHOLE, TILES = "whole matrix", "tiles"


def rows_of(form: str, rows: int, d: int, kind: str) -> list[torch.Tensor]:
    """What a loss is given: "random" directions, or "tight" ones with cosines about 0.9."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, rows // 2, d, generator=generator)
    if kind == "tight":
        x = torch.randn(d, generator=generator) + x / 3
    parts = [x.flatten(0, 1)] if form == "supcon" else x
    return [part.clone().requires_grad_() for part in parts]


def value_and_gradients(form: str, by: str, given: list) -> tuple[torch.Tensor, tuple]:
    losses.BLOCKWISE_ROWS = 2 if by == TILES else sys.maxsize
    value = FORMS[form](*given)
    return value.detach(), torch.autograd.grad(value, given)


def one_call(form: str, by: str, kind: str, rows: int, d: int) -> dict:
    """What one call costs; to be asked in a fresh process."""
    torch.set_num_threads(1)
    value_and_gradients(form, by, rows_of(form, 16, d, kind))  # loads what it needs
    given = rows_of(form, rows, d, kind)
    before = peak_mb(afresh=True)
    started = time.process_time()
    value_and_gradients(form, by, given)
    spent = time.process_time() - started
    return {"cpu_seconds": spent, "extra_mb": peak_mb() - before, "peak_mb": peak_mb()}


def in_a_process(*call) -> dict:
    words = [sys.executable, __file__, "--call", *map(str, call)]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def errors(form: str, kind: str, rows: int, d: int) -> dict:
    """How far both ways are from the whole matrix in float64, of the value and of the gradient."""
    given = rows_of(form, rows, d, kind)
    exact = [x.detach().double().requires_grad_() for x in given]
    value, slopes = value_and_gradients(form, WHOLE, exact)
    slope = torch.cat(slopes)
    row = {"loss": form, "features": kind, "rows": rows}
    ways = {"whole_float32": (WHOLE, given), "tiles_float32": (TILES, given)}
    for name, (by, x) in (ways | {"tiles_float64": (TILES, exact)}).items():
        its_value, its_slopes = value_and_gradients(form, by, x)
        row[f"{name}_value"] = (abs(its_value - value) / abs(value)).item()
        row[f"{name}_gradient"] = ((torch.cat(its_slopes) - slope).norm() / slope.norm()).item()
    return row


def compare(form: str, kind: str, rows: int, d: int, rounds: int) -> dict:
    turns = [
        {by: in_a_process(form, by, kind, rows, d) for by in (WHOLE, TILES)} for _ in range(rounds)
    ]
    ratios = [turn[TILES]["cpu_seconds"] / turn[WHOLE]["cpu_seconds"] for turn in turns]
    row = {"loss": form, "features": kind, "rows": rows, "d": d, "n": rounds}
    for by, short in ((WHOLE, "whole"), (TILES, "tiles")):
        row[f"{short}_cpu_ms"] = round(1e3 * min(turn[by]["cpu_seconds"] for turn in turns), 1)
        row[f"{short}_extra_mb"] = round(max(turn[by]["extra_mb"] for turn in turns), 1)
    row["time_ratio"] = round(statistics.median(ratios), 3)
    row["time_ratio_range"] = [round(min(ratios), 3), round(max(ratios), 3)]
    return row


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, nargs="+", default=[4096, 8192, 16384])
    options.add_argument("--largest", type=int, default=65536, help="rows, in tiles alone")
    options.add_argument("--d", type=int, default=512)
    options.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS))
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--out", type=Path, default=RECORD)
    options.add_argument("--call", nargs=5, metavar=("FORM", "BY", "KIND", "ROWS", "D"))
    chosen = options.parse_args()
    if chosen.call:
        form, by, kind, rows, d = chosen.call
        print(json.dumps(one_call(form, by, kind, int(rows), int(d))))
        return
    torch.set_num_threads(1)
    cases = [(form, kind) for form in chosen.forms for kind in ("random", "tight")]
    costs = f"{'whole ms':>9} {'MB':>6} {'tiles ms':>9} {'MB':>6} {'ratio':>6}"
    print(f"{'loss':17} {'features':8} {'rows':>6} {costs}")
    rows, equal, largest = [], [], []
    for form, kind in cases:
        for number in chosen.rows:
            row = compare(form, kind, number, chosen.d, chosen.rounds)
            rows.append(row)
            print(
                f"{form:17} {kind:8} {number:6} {row['whole_cpu_ms']:9.1f} "
                f"{row['whole_extra_mb']:6.0f} {row['tiles_cpu_ms']:9.1f} "
                f"{row['tiles_extra_mb']:6.0f} {row['time_ratio']:6.2f}",
                flush=True,
            )
        equal.append(errors(form, kind, min(chosen.rows), chosen.d))
        print(" " * 26, {k: f"{v:.1e}" for k, v in equal[-1].items() if type(v) is float})
    for form, kind in cases if chosen.largest else ():
        cost = in_a_process(form, TILES, kind, chosen.largest, chosen.d)
        largest.append(
            {
                "loss": form,
                "features": kind,
                "rows": chosen.largest,
                "cpu_seconds": round(cost["cpu_seconds"], 1),
                "extra_mb": round(cost["extra_mb"], 1),
                "peak_mb": round(cost["peak_mb"], 1),
            }
        )
        print(f"{form:17} {kind:8} {chosen.largest:6} {largest[-1]}", flush=True)
    measured = (
        "forward and backward, float32, CPU time of one thread (least of n), most extra memory of "
        "n; time ratio tiles / whole matrix: median and range of n turns"
    )
    parts = {"rows": rows, "errors": equal, "largest": largest}
    write_record(chosen.out, {"measured": measured, "tile": TILE["cpu"], **parts})


if __name__ == "__main__":
    main()
