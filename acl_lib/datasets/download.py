"""Downloads that go on where the line broke and count only once their checksum is right.

Nothing is asked for over a line that others can write to, and an archive is looked through before
the first of its files is written.
"""

import errno
import hashlib
import lzma
import os
import shutil
import stat
import struct
import tempfile
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pooch
import requests
from tqdm import tqdm

SECURE = ("https://",)  # how every address starts, also one that a server sends us on to
CHUNK = 1 << 16
BROKEN_LINE = (
    requests.exceptions.ConnectionError,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.Timeout,
)
ENTRIES = 200_000  # of an archive; FSDnoisy18k's largest has 17,586
GROWTH = 20  # times an archive's size, and SMALL besides, is what may come out; sounds grow by 2
SMALL = 1 << 26  # bytes
DAMAGE = (  # in the words of the readers of an archive
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,  # a method of compression that nobody knows
    OverflowError,
    UnicodeError,
)


def fetch(
    url: str,
    target: Path,
    *,
    checksum: str,
    progress: bool = True,
    attempts: int = 5,
) -> Path:
    """Bring a file to ``target``, unless it is there already and whole.

    What arrives is kept beside it as ``<name>.part`` and continued after a broken line, also by
    a later call; ``target`` appears in one step, after the checksum was right.

    Args:
        url: where the file lies, an address of https.
        target: where it shall lie.
        checksum: "md5:<hex>", "sha256:<hex>", or "git:<hex>" for a git blob id.
        progress: show a progress bar.
        attempts: how often in a row the line may break without bringing anything.

    Raises:
        ValueError: if the file that came has another checksum; it is deleted. If the address, or
            one that the server sends on to, is not of https; it is not asked.
        ConnectionError: if the line broke too often; the part that came is kept.
        requests.HTTPError: if the server refuses.
        PermissionError: if the folder cannot be written to.
    """
    if target.is_file():
        if matches(target, checksum):
            return target
        target.unlink()  # damaged, and pooch would not notice in a git blob
    part = target.with_name(f"{target.name}.part")

    def resume(url: str, output_file: str, _pooch: object) -> None:
        _bring(url, part, progress=progress, attempts=attempts)
        if not matches(part, checksum):
            part.unlink()
            raise ValueError(
                f"{url} did not bring the published file (expected {checksum}); it was deleted. "
                "Try again; if it stays so, the server holds another version"
            )
        os.replace(part, output_file)

    pooch.get_logger().setLevel("WARNING")  # one line per file of 400
    known = None if checksum.startswith("git:") else checksum
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
    with _session() as session, _ask(session, url, headers) as response:
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


def _session() -> requests.Session:
    """One that knows no way to an address which is not `SECURE`, wherever it is sent on to."""
    session = requests.Session()
    https = session.adapters["https://"]
    session.adapters.clear()
    for start in SECURE:
        session.mount(start, https)
    return session


def _ask(session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
    try:
        return session.get(url, headers=headers, stream=True, timeout=30)
    except requests.exceptions.InvalidSchema as error:
        raise ValueError(
            f"{url} is not asked for, or sends on to an address that is not: downloads come over "
            f"https alone ({error})"
        ) from None


def unpack(archive: Path, target: Path, *, progress: bool = True) -> None:
    """Unpack a zip to the folder ``target``, which appears in one step.

    A single folder at the top of the archive becomes ``target``, whatever it is called.

    Raises:
        ValueError: if the archive is damaged or encrypted; names a path outside of itself, or one
            path twice where upper and lower case count as the same; holds anything but files and
            folders; would grow to more than `GROWTH` times its size; or ``target`` holds files
            already.
        OSError: if the disk has no room for what is in it.
    """
    if target.is_dir() and any(target.iterdir()):
        raise ValueError(f"{target} holds files already: move them away before unpacking")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpack-") as scratch:
        content = Path(scratch, "content")
        content.mkdir()
        try:
            with zipfile.ZipFile(archive) as file:
                members = file.infolist()
                _refuse_hostile(members, archive, free=shutil.disk_usage(scratch).free)
                for member in tqdm(members, f"unpack {archive.name}", disable=not progress):
                    file.extract(member, content)  # never more than announced; compares the CRC
        except (*DAMAGE, OSError) as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise  # of the disk; a place before the archive's begin is no valid argument
            raise ValueError(f"{archive} is damaged ({error}): delete it and try again") from error
        entries = [p for p in content.iterdir() if p.name != "__MACOSX"]
        whole = entries[0] if len(entries) == 1 and entries[0].is_dir() else content
        if target.is_dir():
            target.rmdir()  # empty; Windows replaces no folder
        os.replace(whole, target)


def _refuse_hostile(members: Sequence[zipfile.ZipInfo], archive: Path, *, free: int) -> None:
    """Look at everything that an archive announces, before any of it is written."""

    def refuse(why: str) -> ValueError:
        return ValueError(f"{archive} {why}; nothing was unpacked. Delete it and try again")

    if len(members) > ENTRIES:
        raise refuse(f"announces {len(members)} entries, more than {ENTRIES}")
    size, most = sum(m.file_size for m in members), GROWTH * archive.stat().st_size + SMALL
    if size > most:
        raise refuse(f"would grow to {size / 1e6:.0f} MB, and {most / 1e6:.0f} MB is plausible")
    if size > free:
        raise OSError(
            errno.ENOSPC,
            f"{archive} needs {size / 1e6:.0f} MB and {archive.parent} has {free / 1e6:.0f} MB "
            "left: free some space, or set ACL_DATA to another folder",
        )
    files: dict[str, str] = {}  # as a file system that knows no case would see them
    folders: set[str] = set()
    for member in members:
        name = member.orig_filename
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in name or not path.parts:
            raise refuse(f"names a path outside of itself: {name!r}")
        if "\0" in name:
            raise refuse(f"holds a name with a null character: {name!r}")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise refuse(f"holds a link or device: {name!r}")
        if member.flag_bits & 1:
            raise refuse(f"is encrypted: {name!r}")
        parts = [unicodedata.normalize("NFC", p).casefold().rstrip(". ") for p in path.parts]
        if not all(parts):
            raise refuse(f"holds a name of dots or spaces: {name!r}")
        folders |= {"/".join(parts[:n]) for n in range(1, len(parts))}
        if member.is_dir():
            folders.add("/".join(parts))
        elif (key := "/".join(parts)) in files:
            raise refuse(f"names one file twice: {files[key]!r} and {name!r}")
        else:
            files[key] = name
    if both := sorted(folders & files.keys()):
        raise refuse(f"holds a file that is a folder too: {files[both[0]]!r}")
