"""What every notebook takes in `quick`: memory at its peak, processor time, time by the clock.

Executes the notebooks one after another as the book does, with caches and runs of its own that
begin empty: the runs that pages share come first, then the notebooks in their order. The memory is
that of the notebook's kernel and of the processes below it; one run of each. Writes
book/results/notebooks.json after every notebook, and keeps what it holds of those not named.

    python benchmarks/notebooks.py [NAME ...] [--out FILE]
"""

import argparse
import json
import os
import resource
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import nbformat
from processes import Watch, arguments, family, memory_mb, total_mb
from timing import write_record

from acl_lib import publish

RECORD = publish.RESULTS / "notebooks.json"
EVERY_SECONDS = 0.1


def ended_cpu_seconds() -> float:
    """CPU seconds of the processes that this one started and saw end."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


def kernels_mb(others: set[int]) -> dict[str, float]:
    """Of the processes below this one but `others`; the kernel counts with its own peak.

    Empty until the kernel runs a program of its own: before that it is this process once more.
    """
    below = [process for process in family(os.getpid())[1:] if process not in others]
    if not below or arguments(below[0]) in ([], arguments(os.getpid())):
        return {}
    kernel, *further = below
    return {
        "peak_mb": memory_mb(kernel)["peak"] + total_mb(further, "resident"),
        "peak_anonymous_mb": total_mb(below, "anonymous"),
        "processes": len(below),
    }


def cost_of(path: Path, copy: Path, values: dict) -> dict[str, float]:
    """Execute a notebook and say what it took."""
    wall, cpu = time.monotonic(), ended_cpu_seconds()
    there = set(family(os.getpid()))
    with Watch(lambda: kernels_mb(there), every_seconds=EVERY_SECONDS) as watch:
        publish.publish(path, copy, values, "measured")
    return {
        **{name: round(most) for name, most in watch.most.items()},
        "cpu_seconds": round(ended_cpu_seconds() - cpu, 1),
        "wall_seconds": round(time.monotonic() - wall, 1),
    }


def main(arguments: list[str] | None = None) -> None:
    sources = {path.stem: path for path in sorted(publish.SOURCES.glob("*.ipynb"))}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as 04_nt_xent; or all")
    parser.add_argument("--out", type=Path, default=RECORD)
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(sources):
        parser.error(f"no notebook {', '.join(sorted(unknown))}; there are {', '.join(sources)}")
    names = options.names or list(sources)
    known = json.loads(options.out.read_text()) if options.out.exists() else {}
    rows, shared = known.get("notebooks", {}), known.get("shared_runs", {})

    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"ACL_CACHE": f"{folder}/cache", "ACL_RUNS": f"{folder}/runs"}
        os.environ["ACL_PUBLISH"] = "1"  # kernels inherit it, as when the book is built
        read = [nbformat.read(sources[name], as_version=4) for name in names]
        publish.make_clips(read)
        publish.write_ledger()
        for recipe in sorted({publish.RUNS[name] for name in names if name in publish.RUNS}):
            cpu = ended_cpu_seconds()
            if publish.share_runs({recipe}, "synthetic", "quick"):
                parser.exit(1, f"the run {recipe} failed, see above\n")
            shared[recipe] = {"cpu_seconds": round(ended_cpu_seconds() - cpu, 1)}
        for name, nb in zip(names, read, strict=True):
            asked = publish.assigned(publish.parameter_cell(nb).source)
            values = {"corpus": "synthetic", "profile": "quick"}
            values = {key: value for key, value in values.items() if key in asked}
            rows[name] = cost_of(sources[name], Path(folder, f"{name}.ipynb"), values)
            print(
                f"{name:30}", *(f"{key} {value:g}" for key, value in rows[name].items()), flush=True
            )
            record = {
                "profile": "quick",
                "corpus": "synthetic",
                "seed": 0,
                "n": 1,
                "threads_per_kernel": os.environ.get("OMP_NUM_THREADS"),
                "sampled_every_seconds": EVERY_SECONDS,
                "conditions": "other programs ran too: wall_seconds hold for that day only",
                "versions": {p: version(p) for p in ("ipykernel", "papermill", "matplotlib")},
                "shared_runs": shared,
                "notebooks": dict(sorted(rows.items())),
            }
            write_record(options.out, record)


if __name__ == "__main__":
    main()
