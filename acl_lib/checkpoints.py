"""State <-> disk: written whole or not at all, checked, and read without running what is in it."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import torch


def save(path: str | os.PathLike, state: dict) -> None:
    """Write tensors and plain values to a file that is complete as soon as it has its name.

    Raises:
        OSError: the disk is full or not writable; nothing half-made is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()  # torch's own writer turns a full disk into an error without its reason
    torch.save(state, content)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content.getbuffer())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load(path: str | os.PathLike, *, device: str | torch.device = "cpu") -> dict:
    """Read what `save` wrote; anything but tensors and plain values is refused unread.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or one that holds code.
    """
    torch.empty(0, device=device)  # no such device: say so before the file is blamed for it
    with open(path, "rb") as file:
        try:
            if damaged := zipfile.ZipFile(file).testzip():  # torch.load looks at no checksum
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
            file.seek(0)
            return torch.load(file, map_location=device, weights_only=True)
        except Exception as error:  # damage makes its readers stumble in many ways
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"{path} is damaged or no checkpoint ({reason}): delete it to have it made again"
            ) from None
