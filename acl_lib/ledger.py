"""All records in one table: a row for each question that was put to each run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import pandas

from .experiments import code_fingerprint
from .grids import flat, label
from .records import Record, read_all
from .repeated import is_current
from .whole import write_whole

SETTINGS = (  # columns of their own; the others that a run changed stand together in `settings`
    "alpha temperature margin reduction positive_margin margin_kind symmetric width epochs batch "
    "label_noise noise_kind"
).split()
GEOMETRY = "alignment uniformity tolerance between_class_cosine class_gap effective_rank".split()


def ledger(paths: Sequence[str | os.PathLike]) -> pandas.DataFrame:
    """The records in some files and folders, tidy.

    A record that lies in two places is taken once.

    Returns:
        One row for each record, representation and reader: recipe, method, corpus, profile, seed,
        pretrain_on, the settings of `SETTINGS`, all that differ from the plain recipe;
        representation, reader, accuracy with both intervals, n, balanced, patch_weighted; of
        verification eer with its interval over speakers, min_dcf and n, its trials; the
        measures of `GEOMETRY`, of the h of trained and untrained networks; cost, code, commit,
        file; `stale` where code that can change a number has changed since, and no record of the
        same method has been repeated exactly by today's (`repeated`).

    Raises:
        ValueError: no record there.
    """
    now, once = code_fingerprint(), {}
    for record in read_all(paths):
        once.setdefault(json.dumps(record.content(), sort_keys=True), record)
    return pandas.DataFrame([row for record in once.values() for row in _rows(record, now)])


def _rows(record: Record, now: str) -> list[dict]:
    recipe, cost = record.recipe, record.cost
    settings = flat(recipe)
    shared = {
        "recipe": recipe.name,
        "method": recipe.method,
        "corpus": recipe.corpus,
        "profile": recipe.profile,
        "seed": recipe.seed,
        "pretrain_on": recipe.pretrain_on,
        **{name: settings[name] for name in SETTINGS},
        "settings": label(recipe),
    }
    made = {
        "train_cpu_seconds": cost["train_cpu_seconds"],
        "device": cost["kind"],
        "bfloat16": cost["bfloat16"],
        "code": record.code,
        "stale": not is_current(record, now),
        "commit": record.commit,
        "file": record.path.as_posix(),
    }
    rows = []
    for representation, readers in record.results.items():
        space = {"trained": "h", "untrained": "untrained h"}.get(representation)
        shape = record.geometry.get(space, {})
        for reader, got in readers.items():
            rows.append(
                {
                    **shared,
                    "representation": representation,
                    "reader": reader,
                    **_scored(got),
                    **{k: shape.get(k) for k in GEOMETRY},
                    **made,
                }
            )
    return rows


def _scored(got: dict) -> dict:
    """A score in columns; None in those of the other task."""
    by_source = got.get("interval_by_source") or (None, None)
    ends = got.get("interval", (None, None)), got.get("eer_interval", (None, None))
    return {
        "accuracy": got.get("accuracy"),
        "low": ends[0][0],
        "high": ends[0][1],
        "low_by_source": by_source[0],
        "high_by_source": by_source[1],
        "n": got.get("n", got.get("trials")),
        "balanced": got.get("balanced"),
        "patch_weighted": got.get("patch_weighted"),
        "eer": got.get("eer"),
        "eer_low": ends[1][0],
        "eer_high": ends[1][1],
        "min_dcf": got.get("min_dcf"),
    }


def write_csv(table: pandas.DataFrame, path: str | os.PathLike) -> None:
    """Put the table on disk, whole or not at all; six digits, no index."""
    write_whole(path, table.to_csv(index=False, float_format="%.6g"))
