"""Downloads that go on where the line broke and count only once their checksum is right."""

import hashlib
import os
import tempfile
import time
import zipfile
from pathlib import Path, PurePosixPath

import pooch
import requests
from tqdm import tqdm

CHUNK = 1 << 16
BROKEN_LINE = (
    requests.exceptions.ConnectionError,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.Timeout,
)


def fetch(
    url: str,
    target: Path,
    *,
    checksum: str | None = None,
    progress: bool = True,
    attempts: int = 5,
) -> Path:
    """Bring a file to ``target``, unless it is there already and whole.

    What arrives is kept beside it as ``<name>.part`` and continued after a broken line, also by
    a later call; ``target`` appears in one step, after the checksum was right.

    Args:
        url: where the file lies.
        target: where it shall lie.
        checksum: "md5:<hex>", "sha256:<hex>", or "git:<hex>" for a git blob id; None trusts the
            server.
        progress: show a progress bar.
        attempts: how often in a row the line may break without bringing anything.

    Raises:
        ValueError: if the file that came has another checksum; it is deleted.
        ConnectionError: if the line broke too often; the part that came is kept.
        requests.HTTPError: if the server refuses.
        PermissionError: if the folder cannot be written to.
    """
    if target.is_file():
        if checksum is None or matches(target, checksum):
            return target
        target.unlink()  # damaged, and pooch would not notice in a git blob
    part = target.with_name(f"{target.name}.part")

    def resume(url: str, output_file: str, _pooch: object) -> None:
        _bring(url, part, progress=progress, attempts=attempts)
        if checksum and not matches(part, checksum):
            part.unlink()
            raise ValueError(
                f"{url} did not bring the published file (expected {checksum}); it was deleted. "
                "Try again; if it stays so, the server holds another version"
            )
        os.replace(part, output_file)

    pooch.get_logger().setLevel("WARNING")  # one line per file of 400
    known = checksum if checksum and not checksum.startswith("git:") else None
    try:
        pooch.retrieve(url, known, fname=target.name, path=target.parent, downloader=resume)
    except PermissionError as error:
        raise PermissionError(
            f"cannot write to {target.parent}: set ACL_DATA to a folder that you may write to"
        ) from error
    return target


def matches(path: Path, checksum: str) -> bool:
    """Does the file have this checksum ("md5:<hex>", "sha256:<hex>", "git:<hex>")?"""
    kind, _, expected = checksum.partition(":")
    digest = hashlib.new("sha1" if kind == "git" else kind, usedforsecurity=False)
    if kind == "git":  # a blob id covers "blob SIZE\0" and the content
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == expected


def _bring(url: str, part: Path, *, progress: bool, attempts: int) -> None:
    """Append to ``part`` until it is whole; give up after ``attempts`` that brought nothing."""
    fruitless = 0
    while True:
        start = part.stat().st_size if part.exists() else 0
        try:
            _append(url, part, start, progress=progress)
            return
        except BROKEN_LINE as error:
            grown = part.exists() and part.stat().st_size > start
            fruitless = 0 if grown else fruitless + 1
            if fruitless >= attempts:
                raise ConnectionError(
                    f"{url} broke off: {error}. What came is kept in {part}; call again to go on"
                ) from error
            time.sleep(min(2**fruitless - 1, 30))  # at once after progress, then 1, 3, 7 ... s


def _append(url: str, part: Path, start: int, *, progress: bool) -> None:
    headers = {"Accept-Encoding": "identity"}  # ranges count the bytes of the file itself
    if start:
        headers["Range"] = f"bytes={start}-"
    with requests.get(url, headers=headers, stream=True, timeout=30) as response:
        if response.status_code == 416 and start:  # nothing behind our last byte
            if response.headers.get("Content-Range") == f"bytes */{start}":
                return
            part.unlink()
            raise requests.exceptions.ConnectionError(f"{part.name} was longer than the file")
        if response.status_code >= 500:
            raise requests.exceptions.ConnectionError(f"the server answers {response.status_code}")
        response.raise_for_status()
        continued = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        start = start if response.status_code == 206 and continued else 0
        coming = response.headers.get("Content-Length")
        bar = tqdm(
            desc=part.stem,
            initial=start,
            total=start + int(coming) if coming else None,
            unit="B",
            unit_scale=True,
            disable=not progress,
        )
        with bar, part.open("ab" if start else "wb") as file:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))


def unpack(archive: Path, target: Path, *, progress: bool = True) -> None:
    """Unpack a zip to the folder ``target``, which appears in one step.

    A single folder at the top of the archive becomes ``target``, whatever it is called.

    Raises:
        ValueError: if the archive is damaged, names a path outside of itself, or ``target`` holds
            files already.
    """
    if target.is_dir() and any(target.iterdir()):
        raise ValueError(f"{target} holds files already: move them away before unpacking")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpack-") as scratch:
        content = Path(scratch, "content")
        content.mkdir()
        try:
            with zipfile.ZipFile(archive) as file:
                members = tqdm(file.infolist(), f"unpack {archive.name}", disable=not progress)
                for member in members:
                    _refuse_outside(member.filename, archive)
                    file.extract(member, content)  # compares the CRC as well
        except zipfile.BadZipFile as error:
            raise ValueError(f"{archive} is damaged ({error}): delete it and try again") from error
        entries = [p for p in content.iterdir() if p.name != "__MACOSX"]
        whole = entries[0] if len(entries) == 1 and entries[0].is_dir() else content
        if target.is_dir():
            target.rmdir()  # empty; Windows replaces no folder
        os.replace(whole, target)


def _refuse_outside(name: str, archive: Path) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise ValueError(f"{archive} names a path outside of itself: {name!r}; not unpacked")
