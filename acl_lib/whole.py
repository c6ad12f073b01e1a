"""Bytes -> a file that is all there or not there: a reader never sees half of one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[Path]:
    """A file to write, which takes its name, or an older one's place, when the block has ended.

        with whole("a.png") as part:
            figure.savefig(part, format="png")

    Yields:
        The place to write at, in the same folder, which is made where it is missing.

    Raises:
        OSError: the disk is full or not writable, with the name of the file that was wanted.
            Whatever the block raises leaves the older file as it was and nothing half-made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        if error.errno and not error.filename:  # a full disk does not say where
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike, content: str | bytes | memoryview) -> None:
    """Put a text, in UTF-8, or bytes on disk as `whole` does."""
    with whole(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
