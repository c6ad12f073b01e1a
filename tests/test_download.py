"""Downloads from a server on the loopback address that breaks off, lies and refuses."""

import hashlib
import io
import re
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pooch
import pytest
import requests

from acl_lib.datasets import esc, fsdnoisy18k, open_corpus
from acl_lib.datasets.download import fetch, matches, unpack

CONTENT = bytes(range(256)) * 2000  # half a megabyte


class Server(ThreadingHTTPServer):
    """Serves ``files``; sends at most ``breath`` bytes per connection; logs ranges."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"/sound.bin": CONTENT}
        self.breath: int | None = None
        self.knows_ranges = True
        self.ranges: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        content = self.server.files.get(unquote(urlsplit(self.path).path))
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
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
        fetch(f"{server.url}/sound.bin", tmp_path / "s.bin", progress=False, attempts=1)
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
        fetch(f"{server.url}/nothing", tmp_path / "s.bin", progress=False)
    assert len(server.ranges) == 1 and names(tmp_path) == []


def test_a_read_only_folder_is_answered_with_the_way_out(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    with pytest.raises(PermissionError, match="ACL_DATA"):
        fetch("http://127.0.0.1/x", tmp_path / "x", progress=False)


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


def test_esc50_says_that_nothing_vouches_for_it(server, monkeypatch, tmp_path):
    table = b"filename,fold,target,category,esc10,src_file,take\n1-7-A-0.wav,1,0,dog,True,7,A\n"
    top = "ESC-50-master"
    server.files = {
        "/esc50": zipped({f"{top}/meta/esc50.csv": table, f"{top}/audio/1-7-A-0.wav": b"bark"})
    }
    monkeypatch.setattr(esc, "ESC50_ARCHIVE", f"{server.url}/esc50")
    with pytest.warns(UserWarning, match="not verified"):
        corpus = open_corpus("esc50", root=tmp_path / "esc50", download=True)
    assert len(corpus) == 1 and names(tmp_path) == ["esc50"]
