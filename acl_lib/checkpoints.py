"""State <-> disk: written whole or not at all, and read without running what is in it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import torch


def save(path: str | os.PathLike, state: dict) -> None:
    """Write tensors and plain values to a file that is complete as soon as it has its name."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        torch.save(state, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load(path: str | os.PathLike, *, device: str | torch.device = "cpu") -> dict:
    """Read what `save` wrote; anything but tensors and plain values is refused unread.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or one that holds code.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"{path} is damaged or no checkpoint: {first}; delete it") from None
