"""Older code that gives the numbers of today's: found by repeating a record, and written down.

A record carries a fingerprint of the code that made it (`experiments.code_fingerprint`). When that
code changes, nobody knows whether the numbers would, until a record is run again. One that repeats
itself exactly speaks for the records of its method and its code.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from .records import Record
from .whole import write_whole

FILE = Path(__file__).parents[1] / "book" / "results" / "repeated.json"


def is_current(record: Record, now: str, *, file: str | os.PathLike = FILE) -> bool:
    """Whether today's code is known to give a record's numbers.

    Args:
        now: fingerprint of today's code.
        file: where `speak_for` has written.

    Returns:
        True for a record of today's code, and for one whose code leads to it over repetitions of
        records of the same method.
    """
    known, fresh = {record.code}, {record.code}
    steps = [step for step in _read(file) if step["method"] == record.recipe.method]
    while fresh and now not in known:
        fresh = {step["new"] for step in steps if step["old"] in fresh} - known
        known |= fresh
    return now in known


def speak_for(record: Record, now: str, *, file: str | os.PathLike = FILE) -> None:
    """Write down that a record was repeated exactly by code of another fingerprint.

    Args:
        record: as it was made before.
        now: fingerprint of the code that repeated it.
        file: JSON; other lines in it stay.
    """
    step = {
        "method": record.recipe.method,
        "old": record.code,
        "new": now,
        "record": f"{record.path.parent.name}/{record.path.name}",
    }
    steps = _read(file)
    if step not in steps:
        write_whole(file, json.dumps([*steps, step], indent=1) + "\n")


def _read(file: str | os.PathLike) -> list[dict]:
    path = Path(file)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
