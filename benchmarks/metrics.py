"""What the geometry of many rows costs: uniformity, tolerance and the cosine between classes.

Against the forms that keep all pairs: for uniformity torch.pdist, as in Wang and Isola's code, and
the matrix of cosines; for the other two the matrix of cosines with masks. CPU time of one thread;
contenders take turns, a ratio is taken within a round; memory is what a process of its own takes
more while it computes. Uniformity goes through all pairs: for a million rows on a CPU its time is
projected with the square of their number, on a GPU it is measured. Prints a table and writes
book/results/benchmark_metrics.json.

    python benchmarks/metrics.py [--rows 2500 5000 10000 20000] [--many 10000 100000 1000000]
"""

import argparse
import itertools
import math
import multiprocessing
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import cpu_seconds_by_round, peak_mb, ratio_with_spread, write_record

from acl_lib import metrics

RECORD = Path(__file__).parents[1] / "book" / "results" / "benchmark_metrics.json"
MILLION = 1_000_000
CLASSES = 20
D = {"uniformity": 512, "tolerance": 128, "between_class_cosine": 128}


def pdist(h, y):
    """Wang and Isola's `lunif`, in the precision of the rows."""
    return torch.pdist(F.normalize(h, dim=1)).pow(2).mul(-2).exp().mean().log()


def all_potentials(h, y):
    u = F.normalize(h.double(), dim=1)
    potentials = (4 * (u @ u.T - 1)).exp()
    return ((potentials.sum() - potentials.diagonal().sum()) / (len(u) * (len(u) - 1))).log()


def masked_mean(h, y, same):
    u = F.normalize(h.double(), dim=1)
    asked = (y[:, None] == y) == same
    return (u @ u.T)[asked.fill_diagonal_(False)].mean()


CONTENDERS = {  # the first of each is ours
    "uniformity": {
        "acl_lib": lambda h, y: metrics.uniformity(h),
        "torch.pdist, float32": pdist,
        "all pairs": all_potentials,
    },
    "tolerance": {
        "acl_lib": metrics.tolerance,
        "all pairs": lambda h, y: masked_mean(h, y, True),
    },
    "between_class_cosine": {
        "acl_lib": metrics.between_class_cosine,
        "all pairs": lambda h, y: masked_mean(h, y, False),
    },
}


def labelled_rows(n: int, d: int, device: str = "cpu"):
    """Non-negative rows, as an encoder's h are, around the centres of their classes."""
    generator = torch.Generator(device).manual_seed(0)
    y = torch.arange(n, device=device) % CLASSES
    centre = torch.randn(CLASSES, d, generator=generator, device=device)
    h = torch.randn(n, d, generator=generator, device=device)
    return h.add_(centre[y]).relu_(), y


def _extra_megabytes(measure: str, by: str, n: int) -> float:
    torch.set_num_threads(1)
    h, y = labelled_rows(n, D[measure])
    CONTENDERS[measure][by](h[:300], y[:300])  # libraries load at the first call
    before = peak_mb(afresh=True)
    CONTENDERS[measure][by](h, y)
    return round(peak_mb() - before, 1)


def extra_megabytes(measure: str, by: str, n: int) -> float | None:
    """What a call takes beyond its rows, in a process of its own; None where only Linux knows."""
    if sys.platform != "linux":
        return None
    with multiprocessing.get_context("spawn").Pool(1) as alone:
        return alone.apply(_extra_megabytes, (measure, by, n))


def measured(measure: str, n: int, *, pairs_up_to: int, rounds: int) -> list[dict]:
    """All that fit in turns; what keeps all pairs, up to so many rows."""
    h, y = labelled_rows(n, D[measure])
    group = {
        by: call for by, call in CONTENDERS[measure].items() if by == "acl_lib" or n <= pairs_up_to
    }
    steps = {by: lambda call=call: call(h, y) for by, call in group.items()}
    values = {by: step().item() for by, step in steps.items()}
    seconds = cpu_seconds_by_round(steps, rounds=rounds)
    found = []
    for by in group:
        found.append(
            {
                "measure": measure,
                "by": by,
                "rows": n,
                "d": D[measure],
                "cpu_seconds": float(f"{min(seconds[by]):.4g}"),
                "ratio_to_ours": ratio_with_spread(seconds[by], seconds["acl_lib"]),
                "extra_mb": extra_megabytes(measure, by, n),
                "difference_to_ours": float(f"{values[by] - values['acl_lib']:.2g}"),
            }
        )
        show(found[-1])
    return found


def show(row: dict) -> None:
    ratio, extra = row["ratio_to_ours"], row["extra_mb"]
    print(
        f"{row['measure']:21} {row['by']:21} {row['rows']:8} {row['d']:4} "
        f"{row['cpu_seconds']:10.4f} {ratio['median']:7.2f} {ratio['min']:7.2f} "
        f"{ratio['max']:7.2f} {'' if extra is None else extra:>8} "
        f"{row['difference_to_ours']:9.1e}",
        flush=True,
    )


def on_gpu(n: int) -> dict:
    h, _ = labelled_rows(n, D["uniformity"], "cuda")
    metrics.uniformity(h[:5000])
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held, started = torch.cuda.memory_allocated(), time.perf_counter()
    metrics.uniformity(h).item()
    seconds = time.perf_counter() - started
    return {
        "measure": "uniformity",
        "device": torch.cuda.get_device_name(),
        "rows": n,
        "d": D["uniformity"],
        "seconds": round(seconds, 3),
        "extra_mb": round((torch.cuda.max_memory_allocated() - held) / 1e6, 1),
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[2500, 5000, 10_000, 20_000], help="of uniformity"
    )
    parser.add_argument(
        "--many", type=int, nargs="+", default=[10_000, 100_000, MILLION], help="of the cosines"
    )
    parser.add_argument("--pairs-up-to", type=int, default=10_000, help="rows of the other forms")
    parser.add_argument("--gpu-rows", type=int, nargs="+", default=[100_000, MILLION])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RECORD)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(
        f"{'measure':21} {'by':21} {'rows':>8} {'d':>4} {'CPU s':>10} {'ratio':>7} {'least':>7}"
        f" {'most':>7} {'extra MB':>8} {'differs':>9}"
    )
    limits = {"pairs_up_to": options.pairs_up_to, "rounds": options.rounds}
    found = [row for n in options.rows for row in measured("uniformity", n, **limits)]
    largest = [row for row in found if row["by"] == "acl_lib"][-1]
    seconds = largest["cpu_seconds"] * (MILLION / largest["rows"]) ** 2
    growth = growths([row for row in found if row["by"] == "acl_lib"])
    print(f"projected, not measured: a million rows take {seconds / 3600:.1f} CPU hours")
    for measure in ("tolerance", "between_class_cosine"):
        found += [row for n in options.many for row in measured(measure, n, **limits)]
    gpu = [on_gpu(n) for n in options.gpu_rows] if torch.cuda.is_available() else []
    for row in gpu:
        print(f"{row['device']}: uniformity of {row['rows']} rows {row['seconds']:.2f} s")
    record = {
        "measured": (
            "CPU seconds of one call, least of the rounds; ratio to ours within a round, its "
            "median, least and most over the rounds; extra_mb: highest memory of a process during "
            "the call, less that before"
        ),
        "rows": found,
        "uniformity_of_a_million_rows": {
            "projected_cpu_hours": round(seconds / 3600, 2),
            "from_rows": largest["rows"],
            "exponent_measured": growth,
            "projection": "seconds times the square of the number of rows; not measured",
        },
        "gpu": gpu,
    }
    write_record(options.out, record)


def growths(rows: list[dict]) -> list[float]:
    """With which power of the number of rows the time grew from each size to the next."""
    return [
        round(
            math.log(b["cpu_seconds"] / a["cpu_seconds"]) / math.log(b["rows"] / a["rows"]),
            3,
        )
        for a, b in itertools.pairwise(rows)
    ]


if __name__ == "__main__":
    main()
