"""Downloads from a server on the loopback address that breaks off, lies and refuses."""

import hashlib
import io
import re
import shutil
import stat
import struct
import threading
import zipfile
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import numpy as np
import pooch
import pytest
import requests

from acl_lib.datasets import download, esc, fsdnoisy18k, open_corpus
from acl_lib.datasets.download import fetch, matches, unpack
from acl_lib.datasets.speakers import FSDD_TREE, fsdd_checksums
from acl_lib.released import TREE, released_checksums

CONTENT = bytes(range(256)) * 2000  # half a megabyte


class Server(ThreadingHTTPServer):
    """Serves ``files``; sends at most ``breath`` bytes per connection; logs ranges."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"/sound.bin": CONTENT}
        self.breath: int | None = None
        self.knows_ranges = True
        self.moved: dict[str, str] = {}  # path -> where the server sends on to
        self.ranges: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        if self.path in self.server.moved:
            self.send_response(302)
            self.send_header("Location", self.server.moved[self.path])
            self.send_header("Content-Length", "0")
            return self.end_headers()
        content = self.server.files.get(unquote(urlsplit(self.path).path))
        if content is None:
            return self.send_error(404)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
        if not self.server.knows_ranges:
            start = 0
        if asked and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: self.server.breath])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    monkeypatch.setattr(download, "SECURE", ("https://", server.url))  # this one, in tests alone
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def md5(content: bytes) -> str:
    return "md5:" + hashlib.md5(content).hexdigest()


def names(folder) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_broken_line_is_taken_up_where_it_broke(server, tmp_path):
    server.breath = 200_000
    target = fetch(
        f"{server.url}/sound.bin", tmp_path / "s.bin", checksum=md5(CONTENT), progress=False
    )
    assert target.read_bytes() == CONTENT
    assert names(tmp_path) == ["s.bin"]
    starts = [int(r.removeprefix("bytes=")[:-1]) for r in server.ranges[1:]]
    assert server.ranges[0] is None and len(starts) >= 2
    assert starts == sorted(set(starts)) and starts[0] > 0  # every connection went on further


def test_a_later_call_goes_on_with_the_part(server, tmp_path):
    (tmp_path / "s.bin.part").write_bytes(CONTENT[:300_000])
    fetch(f"{server.url}/sound.bin", tmp_path / "s.bin", checksum=md5(CONTENT), progress=False)
    assert (tmp_path / "s.bin").read_bytes() == CONTENT
    assert server.ranges == ["bytes=300000-"]


def test_giving_up_keeps_what_came(server, tmp_path):
    (tmp_path / "s.bin.part").write_bytes(CONTENT[:1000])
    server.breath = 0
    with pytest.raises(ConnectionError, match="call again"):
        fetch(
            f"{server.url}/sound.bin",
            tmp_path / "s.bin",
            checksum=md5(CONTENT),
            progress=False,
            attempts=1,
        )
    assert names(tmp_path) == ["s.bin.part"]
    assert (tmp_path / "s.bin.part").read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize("extra", [b"", b"too much"])
def test_a_part_that_is_whole_or_too_long(server, tmp_path, extra):
    (tmp_path / "s.bin.part").write_bytes(CONTENT + extra)
    fetch(f"{server.url}/sound.bin", tmp_path / "s.bin", checksum=md5(CONTENT), progress=False)
    assert (tmp_path / "s.bin").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.knows_ranges = False
    (tmp_path / "s.bin.part").write_bytes(b"x" * 1000)
    fetch(f"{server.url}/sound.bin", tmp_path / "s.bin", checksum=md5(CONTENT), progress=False)
    assert (tmp_path / "s.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["md5", "sha256", "git"])
def test_another_content_never_arrives(server, tmp_path, kind):
    digits = {"md5": 32, "sha256": 64, "git": 40}[kind]
    with pytest.raises(ValueError, match="did not bring the published file"):
        fetch(
            f"{server.url}/sound.bin",
            tmp_path / "s.bin",
            checksum=f"{kind}:{'0' * digits}",
            progress=False,
        )
    assert names(tmp_path) == []


def test_git_blob_ids_are_those_of_git(tmp_path):
    (tmp_path / "empty").write_bytes(b"")  # both ids: git hash-object
    (tmp_path / "hello").write_bytes(b"hello\n")
    assert matches(tmp_path / "empty", "git:e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")
    assert matches(tmp_path / "hello", "git:ce013625030ba8dba906f756967f9e9ca394464a")
    assert not matches(tmp_path / "hello", "git:e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")


def test_a_whole_file_is_not_fetched_again_and_a_damaged_one_is(server, tmp_path):
    target = tmp_path / "s.bin"
    for content, requests_made in ((CONTENT, 0), (CONTENT[:-1] + b"x", 1)):
        target.write_bytes(content)
        fetch(f"{server.url}/sound.bin", target, checksum=md5(CONTENT), progress=False)
        assert target.read_bytes() == CONTENT
        assert len(server.ranges) == requests_made


def test_a_refusal_is_not_tried_again(server, tmp_path):
    with pytest.raises(requests.HTTPError, match="404"):
        fetch(f"{server.url}/nothing", tmp_path / "s.bin", checksum=md5(b""), progress=False)
    assert len(server.ranges) == 1 and names(tmp_path) == []


def test_a_read_only_folder_is_answered_with_the_way_out(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    with pytest.raises(PermissionError, match="ACL_DATA"):
        fetch("http://127.0.0.1/x", tmp_path / "x", checksum=md5(b""), progress=False)


@pytest.mark.parametrize("kind", ["http", "HTTP", "ftp", "file"])
def test_nothing_is_asked_for_but_over_https(server, monkeypatch, tmp_path, kind):
    monkeypatch.undo()
    assert download.SECURE == ("https://",)
    address = server.url.replace("http", kind) + "/sound.bin"
    (tmp_path / "s.bin.part").write_bytes(CONTENT[:10])
    with pytest.raises(ValueError, match="https alone"):
        fetch(address, tmp_path / "s.bin", checksum=md5(CONTENT), progress=False)
    assert server.ranges == [] and names(tmp_path) == ["s.bin.part"]


def test_a_server_that_sends_on_is_followed_over_https_alone(server, tmp_path):
    server.moved = {"/here": "/sound.bin"}
    fetch(f"{server.url}/here", tmp_path / "s.bin", checksum=md5(CONTENT), progress=False)
    assert (tmp_path / "s.bin").read_bytes() == CONTENT and len(server.ranges) == 2
    elsewhere = f"http://localhost:{server.server_port}/sound.bin"
    server.moved = {"/here": "/there", "/there": elsewhere}
    with pytest.raises(ValueError, match=f"https alone.*{elsewhere}"):
        fetch(f"{server.url}/here", tmp_path / "t.bin", checksum=md5(CONTENT), progress=False)
    assert len(server.ranges) == 4 and names(tmp_path) == ["s.bin"]  # the last was not asked


def test_no_download_goes_without_a_checksum(tmp_path):
    with pytest.raises(TypeError, match="checksum"):
        fetch("https://127.0.0.1/x", tmp_path / "x", progress=False)
    for list_of in (esc.esc10_checksums, esc.esc50_checksums, fsdd_checksums, released_checksums):
        sums = list_of()
        assert len(sums) in (400, 2001, 3000, 160)
        assert all(re.fullmatch("[0-9a-f]{32}|[0-9a-f]{40}", value) for value in sums.values())
    assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in fsdnoisy18k.ARCHIVES.values())
    for tree in (esc.ESC10_TREE, esc.ESC50_TREE, FSDD_TREE, fsdnoisy18k.RECORD, TREE):
        assert tree.startswith(download.SECURE)


# --- archives ----------------------------------------------------------------------------------


def zipped(files: dict[str, bytes]) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return memory.getvalue()


@pytest.mark.parametrize("top", ["", "whatever-master/"])
def test_unpack_with_and_without_a_folder_at_the_top(tmp_path, top):
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped({f"{top}one.txt": b"1", f"{top}sub/two.txt": b"2"}))
    (tmp_path / "here").mkdir()  # an empty folder is no obstacle
    unpack(archive, tmp_path / "here", progress=False)
    assert (tmp_path / "here" / "sub" / "two.txt").read_bytes() == b"2"
    assert names(tmp_path) == ["a.zip", "here"]
    with pytest.raises(ValueError, match="holds files already"):
        unpack(archive, tmp_path / "here", progress=False)


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "a/../../out.txt", "C:/out.txt"])
def test_unpack_refuses_paths_that_lead_out(tmp_path, name):
    (tmp_path / "a.zip").write_bytes(zipped({"good.txt": b"1", name: b"2"}))
    with pytest.raises(ValueError, match="outside"):
        unpack(tmp_path / "a.zip", tmp_path / "here", progress=False)
    assert names(tmp_path) == ["a.zip"]


def test_unpack_leaves_nothing_of_a_damaged_archive(tmp_path):
    content = zipped({"one.txt": b"1" * 1000, "two.txt": b"2" * 1000})
    for damaged in (content[:-30], content.replace(b"2" * 1000, b"3" * 1000)):
        (tmp_path / "a.zip").write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            unpack(tmp_path / "a.zip", tmp_path / "here", progress=False)
        assert names(tmp_path) == ["a.zip"]


def entry(name: str, **fields: int) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo("placeholder")
    made.filename = name  # as it is: the usual way would tidy it
    for field, value in fields.items():
        setattr(made, field, value)
    return made


HOSTILE = {
    "out by backslashes": ([("..\\out.txt", b"1")], "outside"),
    "a share": ([("//server/share/out.txt", b"1")], "outside"),
    "a drive": ([("D:out.txt", b"1")], "outside"),
    "a second stream": ([("a.txt:hidden", b"1")], "outside"),
    "no name": ([("./", b"")], "outside"),
    "dots": ([("a/.../b.txt", b"1")], "dots or spaces"),
    "a link": ([(entry("a", external_attr=(stat.S_IFLNK | 0o777) << 16), b"/etc")], "link or dev"),
    "a device": ([(entry("a", external_attr=(stat.S_IFCHR | 0o666) << 16), b"")], "link or dev"),
    "a pipe": ([(entry("a", external_attr=(stat.S_IFIFO | 0o666) << 16), b"")], "link or dev"),
    "one name": ([("a.txt", b"1"), ("a.txt", b"2")], "one file twice"),
    "one name but for the case": ([("b/A.txt", b"1"), ("B/a.TXT", b"2")], "one file twice"),
    "one name but for dots": ([("a.txt", b"1"), ("./a.txt", b"2")], "one file twice"),
    "one name in two spellings": ([("\u00e9.txt", b"1"), ("e\u0301.txt", b"2")], "one file twice"),
    "a file and folder": ([("a", b"1"), ("a/b.txt", b"2")], "folder too"),
    "too many": ([(f"{i}.txt", b"") for i in range(40)], "40 entries"),
    "a bomb": ([("zeros", bytes(1 << 20))], "would grow to"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("what", HOSTILE)
def test_unpack_refuses_what_would_harm_before_it_writes(monkeypatch, tmp_path, what):
    members, message = HOSTILE[what]
    monkeypatch.setattr(download, "ENTRIES", 30)
    monkeypatch.setattr(download, "SMALL", 1 << 16)
    monkeypatch.setattr(zipfile.ZipFile, "extract", None)  # not even tried
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=message) as error:
        unpack(tmp_path / "a.zip", tmp_path / "here", progress=False)
    assert "a.zip" in str(error.value) and names(tmp_path) == ["a.zip"]


def patched(raw: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """An archive in which one field of every header of a kind is another."""
    for match in re.finditer(re.escape(signature), raw):
        at = match.start() + offset
        raw = raw[:at] + value + raw[at + len(value) :]
    return raw


LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"


def test_unpack_refuses_archives_that_lie(tmp_path):
    plain = zipped({"one.txt": b"1" * 1000})
    lies = {
        "encrypted": patched(patched(plain, LOCAL, 6, b"\1\0"), CENTRAL, 8, b"\1\0"),
        "null character": plain.replace(b"one.txt", b"one.t\0t"),
        "would grow to": patched(plain, CENTRAL, 24, struct.pack("<I", 0xFFFFFFF0)),
        "unknown method": patched(patched(plain, LOCAL, 8, b"\x63\0"), CENTRAL, 10, b"\x63\0"),
        "said to be shorter": patched(plain, CENTRAL, 24, struct.pack("<I", 10)),
        "said to be compressed": patched(
            patched(plain, LOCAL, 8, b"\x08\0"), CENTRAL, 10, b"\x08\0"
        ),
        "a name in no alphabet": patched(
            patched(plain, LOCAL, 6, b"\0\x08"), CENTRAL, 8, b"\0\x08"
        ).replace(b"one.txt", b"\xff\xfe\xfd.txt"),
        "a newer format": patched(plain, CENTRAL, 6, b"\xff\0"),
    }
    for what, raw in lies.items():
        (tmp_path / "a.zip").write_bytes(raw)
        with pytest.raises(ValueError, match=f"a.zip .*({what}|damaged)"):
            unpack(tmp_path / "a.zip", tmp_path / "here", progress=False)
        assert names(tmp_path) == ["a.zip"], what


def test_unpack_survives_a_thousand_damaged_archives(tmp_path):
    names_of = {f"f/{i}.wav": zlib.compress(CONTENT[: 40 * i]) for i in range(6)}
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in names_of.items():
            archive.writestr(name, content)
    raw, generator, outcomes = memory.getvalue(), np.random.default_rng(0), {True: 0, False: 0}
    for _ in range(1000):
        bad = bytearray(raw)
        for at in generator.integers(len(raw), size=generator.integers(1, 4)):
            bad[at] = generator.integers(256)
        (tmp_path / "a.zip").write_bytes(bad[: generator.integers(len(raw) // 2, 2 * len(raw))])
        try:
            unpack(tmp_path / "a.zip", tmp_path / "here", progress=False)
        except ValueError as error:
            assert "a.zip" in str(error) and not (tmp_path / "here").exists()
            outcomes[False] += 1
        else:
            found = [p for p in (tmp_path / "here").rglob("*") if p.is_file()]
            contents = names_of.values()
            assert len(found) <= 6 and all(p.read_bytes() in contents for p in found)
            shutil.rmtree(tmp_path / "here")
            outcomes[True] += 1
    assert min(outcomes.values()) > 20 and names(tmp_path) == ["a.zip"]


def test_unpack_asks_for_room_first(monkeypatch, tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped({"one.txt": b"1" * 1000}))
    full = shutil.disk_usage(tmp_path)._replace(free=999)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(OSError, match="ACL_DATA"):
        unpack(tmp_path / "a.zip", tmp_path / "here", progress=False)
    assert names(tmp_path) == ["a.zip"]


def test_an_archive_as_large_as_fsdnoisy18ks_passes_the_look(tmp_path):
    train = [entry(f"t/{i}.wav", file_size=1_200_000) for i in range(17_585)]

    class Archive(type(tmp_path)):  # of 13 GB, of which only the size is asked
        def stat(self, **options):
            return type("Size", (), {"st_size": 13_000_000_000})

    for member in train:
        member.orig_filename = member.filename
    download._refuse_hostile(train, Archive("a.zip"), free=10**11)


# --- whole corpora -----------------------------------------------------------------------------


def test_fsdnoisy18k_arrives_ready_to_open(server, monkeypatch, tmp_path):
    train = "fname,label,aso_id,manually_verified,noisy_small\n1.wav,Fire,/m/0,1,0\n"
    meta = {"train.csv": train.encode(), "test.csv": b"fname,label,aso_id\n2.wav,Fire,/m/0\n"}
    folders = {
        "FSDnoisy18k.meta": meta,
        "FSDnoisy18k.doc": {"README.md": b"read me"},
        "FSDnoisy18k.audio_test": {"2.wav": b"not opened here"},
        "FSDnoisy18k.audio_train": {"1.wav": b"not opened here"},
    }
    archives = {f: zipped({f"{f}/{n}": c for n, c in g.items()}) for f, g in folders.items()}
    server.files = {f"/{folder}.zip": content for folder, content in archives.items()}
    monkeypatch.setattr(fsdnoisy18k, "RECORD", server.url)
    sums = {folder: hashlib.md5(content).hexdigest() for folder, content in archives.items()}
    monkeypatch.setattr(fsdnoisy18k, "ARCHIVES", sums)
    for _ in range(2):  # the second time nothing is left to fetch
        corpus = open_corpus("fsdnoisy18k", root=tmp_path / "fsd", download=True)
        assert [c.path.name for c in corpus.clips] == ["2.wav", "1.wav"]
        assert len(server.ranges) == 4
    assert names(tmp_path / "fsd") == sorted(folders)


def test_esc10_files_are_checked_one_by_one(server, monkeypatch, tmp_path):
    sounds = {"001 - Dog bark/1-1-A.ogg": b"bark", "002 - Rain/2-2-A.ogg": b"rain"}
    blobs = {p: hashlib.sha1(b"blob %d\0" % len(c) + c).hexdigest() for p, c in sounds.items()}
    server.files = {f"/{path}": content for path, content in sounds.items()}
    monkeypatch.setattr(esc, "ESC10_TREE", server.url)
    monkeypatch.setattr(esc, "esc10_checksums", lambda: blobs)
    corpus = open_corpus("esc10", root=tmp_path / "esc10", download=True)
    assert corpus.classes == ("Dog bark", "Rain") and corpus.folds == (1, 2)
    corpus.clips[0].path.write_bytes(b"miaow")  # damaged afterwards: mended by the next call
    open_corpus("esc10", root=tmp_path / "esc10", download=True)
    assert corpus.clips[0].path.read_bytes() == b"bark" and len(server.ranges) == 3
    server.files["/002 - Rain/2-2-A.ogg"] = b"hail"
    corpus.clips[1].path.unlink()
    with pytest.raises(ValueError, match="did not bring the published file"):
        open_corpus("esc10", root=tmp_path / "esc10", download=True)


def test_esc50_files_are_checked_one_by_one(server, monkeypatch, tmp_path):
    table = b"filename,fold,target,category,esc10,src_file,take\n1-7-A-0.wav,1,0,dog,True,7,A\n"
    sounds = {"audio/1-7-A-0.wav": b"bark", "meta/esc50.csv": table}
    server.files = {f"/{path}": content for path, content in sounds.items()}
    monkeypatch.setattr(esc, "ESC50_TREE", server.url)
    sums = {path: hashlib.md5(content).hexdigest() for path, content in sounds.items()}
    monkeypatch.setattr(esc, "esc50_checksums", lambda: sums)
    for _ in range(2):  # the second time nothing is left to fetch
        corpus = open_corpus("esc50", root=tmp_path / "esc50", download=True)
        assert len(corpus) == 1 and len(server.ranges) == 2
    server.files["/meta/esc50.csv"] = table.replace(b"dog", b"cat")
    (tmp_path / "esc50" / "meta" / "esc50.csv").unlink()
    with pytest.raises(ValueError, match="did not bring the published file"):
        open_corpus("esc50", root=tmp_path / "esc50", download=True)
    assert names(tmp_path / "esc50" / "meta") == []
