"""What this project promises, what tests each promise, and what the recorded runs found.

For instance:

    found = read("book/results")
    print(table("Nothing is lost", found))
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

NAMES = "faults fuzz_audio mutants stubs suite classroom notebooks reproduced provenance".split()
JOBS = {"prepare": "preparing", "train": "training", "sweep": "sweeping", "book": "a book"}


@dataclass(frozen=True)
class Promise:
    """One promise, where it is tested, and what a record says of it."""

    part: str
    text: str
    tests: str  # files of the project, separated by blanks
    record: str = ""  # one of `NAMES`
    found: Callable[[dict], str] | None = None  # the record's figures in words


def read(folder: str | os.PathLike) -> dict[str, dict | None]:
    """The records of the promises in a folder by their names; None for what was not made."""
    paths = {name: Path(folder) / f"{name}.json" for name in NAMES}
    return {
        name: json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        for name, path in paths.items()
    }


def kills(record: dict) -> dict[str, list[float]]:
    """Of each job, the share of its work that it had done when it was killed."""
    return {
        JOBS[job]: [kill["share"] for line in found["once"]["lines"] for kill in line["kills"]]
        for job, found in record["jobs"].items()
    }


def _faults(record: dict) -> str:
    parts = []
    for job, found in record["jobs"].items():
        once, often = found["once"], found["three times"]
        parts.append(
            f"{JOBS[job]} {once['equal']} of {once['n']}, killed three times {often['equal']} of "
            f"{often['n']}"
        )
    half = sum(found["once"]["half_written_when_killed"] for found in record["jobs"].values())
    return f"equal: {'; '.join(parts)}. {half} kills met work half done"


def _fuzz(record: dict) -> str:
    outcomes = record["outcomes"]
    return f"{record['files']:,} files: " + ", ".join(f"{n:,} {o}" for o, n in outcomes.items())


def _two_hours(record: dict) -> str:
    found = {k: row for k, row in record["unusual"].items() if k.startswith("two_hours")}
    return ", ".join(
        f"{name.partition('.')[2]} {row['outcome']}, {row['peak_mb'] / 1e3:.1f} GB at most"
        for name, row in found.items()
    )


def survived(record: dict) -> dict[str, tuple[float, float, float]]:
    """Of each module the share of mutants that a test noticed, with Wilson's interval."""
    return {name: (row["share"], *row["wilson_95"]) for name, row in record["modules"].items()}


def _mutants(record: dict) -> str:
    return "; ".join(
        f"{name} {row['killed']} of {row['mutants']} (drawn from {row['mutants_in_all']}; "
        f"{row['wilson_95'][0]:.0%} to {row['wilson_95'][1]:.0%})"
        for name, row in record["modules"].items()
    )


def _stubs(record: dict) -> str:
    low, high = record["wilson_95"]
    lost = record["not_noticed"]
    mended = sum("since" in row["why"] for row in lost)
    return (
        f"noticed: {record['noticed']} of {record['functions']} functions and methods (drawn from "
        f"{record['functions_in_all']}; {low:.0%} to {high:.0%}); {mended} of the "
        f"{len(lost)} others have a test since"
    )


def _suite(record: dict) -> str:
    return (
        f"{record['passed']:,} passed in {record['wall_seconds'] / 60:.1f} minutes on "
        f"{record['cores']} cores"
    )


def _class(record: dict) -> str:
    line = record["line"]
    return (
        f"{record['kernels_alive']} kernels alive at the end, {record['failed']} of {record['n']} "
        f"notebooks failed; {record['peak_gb']:.1f} GB at most, "
        f"{line['gb_for_each_student']:.2f} GB for one more"
    )


def memory_of_class(record: dict) -> tuple[list[int], list[float]]:
    """Number of students that were there, and the memory of server and kernels in GB."""
    last = {row["student"]: row["total_gb"] for row in record["rows"]}
    return list(last), list(last.values())


def _notebooks(record: dict) -> str:
    peak = {name: row["peak_mb"] / 1e3 for name, row in record["notebooks"].items()}
    least, most = min(peak, key=peak.get), max(peak, key=peak.get)
    return f"{len(peak)} pages: {peak[least]:.1f} GB ({least}) to {peak[most]:.1f} GB ({most})"


def _reproduced(record: dict) -> str:
    count = Counter(row["outcome"] for row in record.values())
    far = [row["how_far"] for row in record.values() if "how_far" in row]
    points = max((row["points"] for row in far), default=0.0)
    listed = ", ".join(f"{n} {outcome}" for outcome, n in count.most_common())
    current = sum(row["current"] for row in record.values())
    return (
        f"{len(record)} records: {listed}; those made again at most {points:.1f} points off. "
        f"{current} are of today's code, or of older code of which a record of the same method was "
        f"repeated by today's to the last digit"
    )


def _provenance(record: dict) -> str:
    return (
        f"{record['numbers']} numbers on {record['pages']} pages: {record['traced']} found in "
        f"outputs, records or tables, {record['listed']} listed with their source, "
        f"{record['without_a_source']} without; of {record['changed']} changed ones "
        f"{record['noticed']} were noticed"
    )


LOST, IN, SAFE = "Nothing is lost", "Nothing is let in", "Nothing is run that was not asked for"
SAME, LOAD, KEPT = "The same again", "A class of thirty", "It can be kept up"
PROMISES = (
    Promise(
        LOST,
        "`kill -9` at any moment of preparing, training, sweeping or building a book: started "
        "again, the result is that of a job left alone",
        "benchmarks/faults.py tests/test_faults.py",
        "faults",
        _faults,
    ),
    Promise(
        LOST,
        "a damaged checkpoint falls back to the one before it, and says so",
        "tests/test_checkpoints.py tests/test_faults.py",
    ),
    Promise(
        LOST,
        "a full disk, a closed folder or a file that vanished is named, with what to do; nothing "
        "half written has a final name",
        "tests/test_faults.py tests/test_features.py tests/test_sweeps.py tests/test_publish.py",
    ),
    Promise(
        LOST,
        "two processes that want the same store, run, sweep or book make it once",
        "tests/test_features.py tests/test_experiments.py tests/test_sweeps.py "
        "tests/test_publish.py",
    ),
    Promise(
        IN,
        "a damaged or lying sound file is read rightly or refused by its name",
        "benchmarks/fuzz_audio.py tests/test_fuzz_audio.py tests/test_features.py",
        "fuzz_audio",
        _fuzz,
    ),
    Promise(
        IN,
        "two hours of nothing fit into a laptop",
        "benchmarks/fuzz_audio.py tests/test_fuzz_audio.py",
        "fuzz_audio",
        _two_hours,
    ),
    Promise(
        IN,
        "a table that leads out of its folder, lacks a column or breaks off is refused by its line",
        "tests/test_tables.py",
    ),
    Promise(
        IN,
        "an archive with paths that lead out, links, devices or a bomb is refused before a byte of "
        "it is written",
        "tests/test_download.py",
    ),
    Promise(
        IN,
        "a grid, recipe or record with unknown keys, wrong types, NaN, references or endless "
        "nesting is refused by its name",
        "tests/test_grids.py tests/test_config.py tests/test_records.py",
    ),
    Promise(
        IN,
        "losses, measures, statistics, views and augmentations keep their properties for drawn "
        "inputs, and their gradients are finite",
        "tests/test_properties.py",
    ),
    Promise(
        SAFE,
        "checkpoints and features are read without running anything that is in them",
        "tests/test_safety.py tests/test_checkpoints.py tests/test_released.py",
    ),
    Promise(
        SAFE,
        "downloads come over https alone and count only once their checksum is right",
        "tests/test_download.py",
    ),
    Promise(
        SAFE,
        "the built book asks no other computer for anything, and tells the browser to refuse",
        "tests/browser/test_site.py",
    ),
    Promise(
        SAFE,
        "JupyterLab from `make lab`, and the workers of a sweep, are heard on this machine alone; "
        "JupyterLab asks for its token",
        "tests/browser/test_lab.py tests/test_safety.py",
    ),
    Promise(
        SAFE,
        "every dependency is listed with its version and licence",
        "tests/test_environment.py",
    ),
    Promise(
        SAME,
        "one seed on one machine gives one record in two processes: without labels, with a queue, "
        "and with labels",
        "tests/test_same_again.py",
    ),
    Promise(
        SAME,
        "two threads draw the same views and round otherwise",
        "tests/test_same_again.py",
    ),
    Promise(
        SAME,
        "every committed record can be made again, and what is not the same says how far off it is",
        "tests/test_again.py",
        "reproduced",
        _reproduced,
    ),
    Promise(
        SAME,
        "every number of the book has its source, and below every figure and table that rests on "
        "records, plans or published tables stand their names",
        "tests/test_origins.py tests/test_sources.py tests/test_reproduction_log.py "
        "tests/test_how_to_use.py",
        "provenance",
        _provenance,
    ),
    Promise(
        LOAD,
        "thirty students on one server of two cores and 24 GB run two pages each",
        "benchmarks/classroom.py tests/test_classroom.py",
        "classroom",
        _class,
    ),
    Promise(
        LOAD,
        "every page says how much memory it takes",
        "benchmarks/notebooks.py tests/test_notebooks.py",
        "notebooks",
        _notebooks,
    ),
    Promise(
        KEPT,
        "a small mistake in losses, measures or statistics makes a test fail",
        "benchmarks/mutants.py tests/test_benchmarks.py",
        "mutants",
        _mutants,
    ),
    Promise(
        KEPT,
        "a public function that does nothing makes a test fail",
        "benchmarks/stubs.py tests/test_benchmarks.py",
        "stubs",
        _stubs,
    ),
    Promise(
        KEPT,
        "with the book built, all tests take less than ten minutes",
        "benchmarks/suite.py tests/test_benchmarks.py",
        "suite",
        _suite,
    ),
    Promise(
        KEPT,
        "the newest versions of all dependencies are tried every week, and what broke is told",
        ".github/workflows/newest.yml tests/test_environment.py",
    ),
)


def parts() -> tuple[str, ...]:
    """What is promised, in a few words each."""
    return tuple(dict.fromkeys(promise.part for promise in PROMISES))


def table(part: str, found: dict[str, dict | None]) -> str:
    """Promises, their tests and what was found, in Markdown.

    Args:
        part: one of `parts()`.
        found: as from `read`.

    Raises:
        ValueError: there is no such part.
    """
    chosen = [promise for promise in PROMISES if promise.part == part]
    if not chosen:
        raise ValueError(f"no part {part!r}; there are {', '.join(parts())}")
    lines = ["| We promise | Tested by | Found |", "|---|---|---|"]
    for promise in chosen:
        tests = ", ".join(f"`{Path(name).name}`" for name in promise.tests.split())
        says = "tests alone, no longer run"
        if promise.found:
            record = found[promise.record]
            says = "no record" if record is None else promise.found(record)
            says += f" (`{promise.record}.json`)"
        lines.append(f"| {promise.text} | {tests} | {says} |")
    return "\n".join(lines)
