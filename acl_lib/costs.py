"""What the records of `benchmarks/` say: rows for figures, and tables.

For instance:

    records = read("book/results")
    figures.ratios(beside_others(records), "CPU time, times ours")
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

NAMES = (
    "losses augment step threads large_batches several_processes long_corpora metrics gpu_protocol"
).split()
Ratio = tuple[float, float, float]  # median, least and most within a round
Points = list[tuple[float, float]]  # size and cost


def read(folder: str | os.PathLike) -> dict[str, dict | None]:
    """The records in a folder by the names of their scripts; None for what was not measured."""
    paths = {name: Path(folder) / f"benchmark_{name}.json" for name in NAMES}
    return {
        name: json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        for name, path in paths.items()
    }


def beside_others(records: dict, *, clips: int = 2048, rows: int = 10_000) -> dict[str, Ratio]:
    """How much longer the alternatives take: losses of so many clips, views, uniformity of rows."""
    found = {
        f"{row['loss']}: {row['by'].replace('pytorch-metric-learning', 'pml')}": row
        for row in records["losses"]["rows"]
        if row["clips"] == clips
    }
    found |= {f"views: {row['by']}": row for row in records["augment"]["rows"]}
    found |= {
        f"uniformity: {row['by']}": row
        for row in records["metrics"]["rows"]
        if (row["measure"], row["rows"]) == ("uniformity", rows)
    }
    return {
        name: tuple(row["ratio_to_ours"][end] for end in ("median", "min", "max"))
        for name, row in found.items()
        if row["by"] != "acl_lib"
    }


def steps(record: dict) -> str:
    """A table of a step by width: speed, what bfloat16 gives, the share outside the network."""
    half = {row["width"]: row for row in record["rows"] if row["precision"] == "bfloat16"}
    lines = []
    for width, gain in _half_precision_gains(record).items():
        speed, share = (
            half[width][key] for key in ("clips_per_cpu_second", "share_outside_network")
        )
        lines.append((width, f"{speed:.0f}", f"{gain:.2f}", f"{share:.0%}"))
    title = "width", "clips a CPU second", "float32 / bfloat16", "outside the network"
    return _table(title, lines)


def threads(record: dict) -> dict[str, Ratio]:
    """Wall time of a step with several threads over that with one, calm and busy."""
    waits = {"ACTIVE": "spin", "PASSIVE": "sleep"}
    return {
        f"{'busy' if row['busy_processes'] else 'calm'}, {row['threads']} threads that "
        f"{waits[row['waiting']]}": (row["ratio_to_one_thread"], *row["ratio_range"])
        for row in record["rows"]
        if row["threads"] > 1
    }


def memory(record: dict, losses: Sequence[str], features: str = "tight") -> dict[str, Points]:
    """Rows of a batch and the MB that a loss takes for them, by the whole matrix and by tiles."""
    found = {}
    for loss in losses:
        mine, last = (
            [row for row in record[part] if (row["loss"], row["features"]) == (loss, features)]
            for part in ("rows", "largest")
        )
        found[f"{loss}, whole"] = [(float(row["rows"]), row["whole_extra_mb"]) for row in mine]
        found[f"{loss}, tiles"] = [(float(row["rows"]), row["tiles_extra_mb"]) for row in mine]
        found[f"{loss}, tiles"] += [(float(row["rows"]), row["extra_mb"]) for row in last]
    return found


def large_batches(record: dict) -> str:
    """A table of the largest batch that both ways were measured with."""
    lines = []
    for row in _largest(record):
        seconds = (f"{row[f'{way}_cpu_ms'] / 1e3:.1f}" for way in ("whole", "tiles"))
        extra = f"{row['tiles_extra_mb']:.0f}"
        ratio = _spread(row["time_ratio"], *row["time_ratio_range"])
        lines.append((row["loss"], row["features"], *seconds, ratio, extra))
    title = "loss", "rows are", "matrix (CPU s)", "tiles (CPU s)", "ratio", "tiles (MB)"
    return _table(title, lines)


def rounding(record: dict) -> str:
    """A line: the largest error of a gradient in float32 and float64, over its norm."""
    ways = "whole_float32", "tiles_float32", "tiles_float64"
    worst = (max(row[f"{way}_gradient"] for row in record["errors"]) for way in ways)
    return "matrix {:.0e}, tiles {:.0e}; in float64 tiles {:.0e}".format(*worst)


def shared_batches(record: dict) -> str:
    """A table of one batch in two processes: how far from one process, and what it costs."""
    lines = []
    for row in record["rows"]:
        single, exact = row["float32"], row["float64"]
        apart = (
            f"{number:.0e}"
            for number in (
                single["gradient_difference"],
                single["gradient_difference_of_threads"],
                exact["gradient_difference"],
            )
        )
        costs = (
            _spread(row[way]["ratio_to_one"], *row[way]["ratio_range"])
            for way in ("two", "one, two threads")
        )
        lines.append((row["loss"], *apart, *costs))
    title = "loss", "apart", "threads apart", "in float64", "two processes", "two threads"
    return _table(title, lines)


def hours(record: dict) -> tuple[dict[str, Points], dict[str, tuple[float, float]]]:
    """Hours of sound and what their log-mels cost; and the same of the projection."""
    made, far = record["prepare"], record["projection"]
    measured = {
        "CPU seconds": [(row["hours"], row["cpu_seconds"]) for row in made],
        "store (MB)": [(row["hours"], row["bytes"] / 1e6) for row in made],
    }
    return measured, {
        "CPU seconds": (float(far["hours"]), 3600 * far["prepare_cpu_hours"]),
        "store (MB)": (float(far["hours"]), 1e3 * far["store_gigabytes"]),
    }


def measures(record: dict) -> tuple[dict[str, Points], dict[str, tuple[float, float]]]:
    """Rows and the CPU seconds of each measure; and the projection of a million rows."""
    measured: dict[str, Points] = {}
    for row in record["rows"]:
        if row["by"] == "acl_lib":
            name = row["measure"].replace("between_class_", "between-class ")
            measured.setdefault(name, []).append((float(row["rows"]), row["cpu_seconds"]))
    million = record["uniformity_of_a_million_rows"]["projected_cpu_hours"]
    return measured, {"uniformity": (1e6, 3600 * million)}


def aims(records: dict) -> str:
    """A table: what was aimed at, whether it was reached, the value, and what measures it again."""
    large, several = records["large_batches"], records["several_processes"]
    stream, gpu = records["long_corpora"]["streaming"], records["gpu_protocol"]
    extra = max(row["tiles_extra_mb"] for row in _largest(large))
    slowest = max(row["time_ratio_range"][1] for row in large["rows"])
    peak = max(row["peak_mb"] for row in large["largest"]) / 1e3
    apart = max(max(row["float64"].values()) for row in several["rows"])
    others = min(low for _, low, _ in beside_others(records).values())
    low, high = stream["wall_ratio"]["min"], stream["wall_ratio"]["max"]
    middle = stream["wall_ratio"]["median"]
    gain = _half_precision_gains(records["step"])
    widest = max(gain, default=0)
    calm = threads(records["threads"])
    quickest = min(calm.values(), key=lambda ratio: ratio[0])
    slow = max(calm.values(), key=lambda ratio: ratio[0])
    checks = [
        (
            f"bfloat16 halves a step at width {widest}",
            gain[widest] >= 2 if gain else None,
            f"{gain[widest]:.2f} times as fast" if gain else "",
            "step",
        ),
        (
            "threads by what is idle, not by cores",
            slow[0] > 1 > quickest[0],
            f"{quickest[0]:.2f} calm, {slow[0]:.2f} busy",
            "threads",
        ),
        ("16,384 rows within 200 MB", extra <= 200, f"{extra:.0f} MB", "large_batches"),
        ("tiles no slower than the matrix", slowest <= 1, f"{slowest:.2f}", "large_batches"),
        ("65,536 rows in 24 GB", peak < 24, f"{peak:.1f} GB", "large_batches"),
        ("two processes as one, to 1e-5", apart < 1e-5, f"{apart:.0e}", "several_processes"),
        (
            "streaming costs 20 % at most (median)",
            middle <= 1.2,
            _spread(middle, low, high),
            "long_corpora",
        ),
        ("quicker than others", others > 1, f"{others:.2f} times, least", "losses, augment"),
        (
            "measures exact at any number of rows",
            True,
            "closed forms",
            "tests/test_metrics.py",
        ),
        (
            "the protocol in 10 minutes on a GPU",
            gpu and _minutes(gpu) <= 10,
            f"{_minutes(gpu):.1f} minutes" if gpu else "",
            "gpu_protocol",
        ),
        ("a sweep fills several GPUs", None, "on processors", "tests/test_sweeps.py"),
    ]
    words = {True: "yes", False: "no", None: "not measured"}
    lines = [(aim, words[held], value, f"`{script}`") for aim, held, value, script in checks]
    return _table(("aim", "reached", "found", "measured by"), lines)


def _half_precision_gains(record: dict) -> dict[int, float]:
    """Width -> how many times as fast a step is in bfloat16, where both were measured."""
    ms = {(row["width"], row["precision"]): row["step_ms"] for row in record["rows"]}
    return {
        width: ms[width, "float32"] / ms[width, precision]
        for width, precision in sorted(ms)
        if precision == "bfloat16"
    }


def _minutes(gpu: dict) -> float:
    """Projected minutes of the longer recipe with its probe, each run in its fastest way."""
    return max(min(part["projected_whole_minutes"].values()) for part in gpu["recipes"])


def _largest(record: dict) -> list[dict]:
    most = max(row["rows"] for row in record["rows"])
    return [row for row in record["rows"] if row["rows"] == most]


def _spread(middle: float, low: float, high: float) -> str:
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _table(title: Sequence, lines: Sequence[Sequence]) -> str:
    rows = [title, ["---"] * len(title), *lines]
    return "\n".join(" | ".join(map(str, row)) for row in rows)
