"""Records that explorers show, made again by `acl explorers build`.

They lie in book/results/explorers/ and hold coordinates, neighbours, curves and measures, no sound.
"""

from __future__ import annotations

import json
from pathlib import Path

from ..whole import write_whole
from .maps import map_record
from .media import record_path


def build(corpus: str = "synthetic", profile: str = "quick") -> list[Path]:
    """Train the networks of the map and of the training explorer, and write both records.

    About two minutes of processor time for synthetic in "quick"; ESC-10 needs "laptop", for eight.

    Args:
        corpus: "synthetic" or "esc10".
        profile: size of networks and schedule; real sounds need "laptop" to be told apart.

    Returns:
        The files.
    """
    from .live import training_record

    makers = {"map": map_record, "training": training_record}
    return [write(record_path(k, corpus), make(corpus, profile)) for k, make in makers.items()]


def write(path: Path, record: dict) -> Path:
    """Store a record; a reader never sees half a file.

    Raises:
        ValueError: a number in it is not finite.
    """
    write_whole(path, json.dumps(record, allow_nan=False) + "\n")
    return path
