"""State <-> disk: written whole or not at all, checked, and read without running what is in it.

A file that is written again keeps the one before it, `a.before.pt` beside `a.pt`, and where the
newer is damaged the older is read instead, with a warning.
"""

from __future__ import annotations

import io
import os
import shutil
import warnings
import zipfile
from pathlib import Path

import torch

from .whole import whole


def save(path: str | os.PathLike, state: dict) -> None:
    """Write tensors and plain values to a file that is complete as soon as it has its name.

    A whole file that has the name already is kept as the one before; at every moment a whole one
    has the name.

    Raises:
        OSError: the disk is full or not writable; nothing half-made is left behind.
    """
    path = Path(path)
    content = io.BytesIO()  # torch's own writer turns a full disk into an error without its reason
    torch.save(state, content)
    with whole(path) as part:
        part.write_bytes(content.getbuffer())
        _keep(path)


def load(path: str | os.PathLike, *, device: str | torch.device = "cpu") -> dict:
    """Read what `save` wrote; anything but tensors and plain values is refused unread.

    Where the file is damaged, the one before it is read, with a warning that says so.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or one that holds code, and none before it that is whole.
    """
    torch.empty(0, device=device)  # no such device: say so before the file is blamed for it
    path = Path(path)
    try:
        return _read(path, device)
    except ValueError as error:
        before = _before(path)
        if not before.exists():
            raise ValueError(f"{error}: delete it to have it made again") from None
        try:
            state = _read(before, device)
        except ValueError as other:
            raise ValueError(
                f"{error}, and so is the one before it, {other}: delete both to have it made again"
            ) from None
        seconds = path.stat().st_mtime - before.stat().st_mtime
        warnings.warn(
            f"{error}: going on from the one before it, {before.name}. What was done in the "
            f"{seconds:.0f} s between the two is done again; nothing else is lost",
            stacklevel=2,
        )
        return state


def _read(path: Path, device: str | torch.device) -> dict:
    with open(path, "rb") as file:
        try:
            _check(file)
            file.seek(0)
            return torch.load(file, map_location=device, weights_only=True)
        except Exception as error:  # damage makes its readers stumble in many ways
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{path} is damaged or no checkpoint ({reason})") from None


def _check(file) -> None:
    if damaged := zipfile.ZipFile(file).testzip():  # torch.load looks at no checksum
        raise zipfile.BadZipFile(f"wrong checksum of {damaged}")


def _before(path: Path) -> Path:
    return path.with_name(f"{path.stem}.before{path.suffix}")


def _keep(path: Path) -> None:
    """Give the file that is about to be replaced a second name, unless it is damaged."""
    before = _before(path)
    if not path.exists():
        before.unlink(missing_ok=True)  # of one that somebody deleted, to begin anew
        return
    try:
        with open(path, "rb") as file:
            _check(file)
    except Exception:
        return  # the one before it is worth more
    spare = before.with_name(f"{before.name}.{os.getpid()}.part")
    spare.unlink(missing_ok=True)  # of a killed process with this number
    try:
        try:
            os.link(path, spare)
        except OSError:  # a file system without links
            shutil.copyfile(path, spare)
        os.replace(spare, before)
    finally:
        spare.unlink(missing_ok=True)  # also where both names are of one file already
