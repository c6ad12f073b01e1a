"""The authors' features: real ones in the folder of data, and made-up ones that must be refused."""

import errno
import hashlib
import pickle
import threading
import zipfile

import pytest
import requests
import torch
import torch.nn.functional as F
from test_download import Server

from acl_lib import published, released
from acl_lib.datasets import CorpusNotFoundError, download
from acl_lib.released import (
    CLASSES,
    download_released_features,
    load_released_features,
    released_checksums,
    released_dir,
    released_folders,
)

# the table of the corpus: clips in the test set, of each class in alphabetical order
TEST_SIZES = [42, 71, 57, 70, 52, 56, 49, 30, 54, 30, 54, 38, 72, 36, 53, 31, 30, 52, 40, 30]
SIZES = (3,) * 7 + (4,)  # clips of the eight files of a made-up folder
CLIPS = sum(SIZES)


def small(monkeypatch, width=6):
    """Let a folder hold 25 clips of few numbers instead of 947 of 512."""
    monkeypatch.setattr(released, "CLIPS_OF_FILE", SIZES)
    monkeypatch.setattr(released, "WIDTH", width)


def batch(clips=3, width=6, seed=0, dtype=torch.float32, head=None):
    """What one file holds; the authors' tensors still ask for a gradient."""
    generator = torch.Generator().manual_seed(seed)
    h = [torch.rand(clips, width, generator=generator) for _ in range(2)]
    z = [head(view) if head else torch.randn(clips, width, generator=generator) for view in h]
    return {
        "h": [view.to(dtype).requires_grad_() for view in h],
        "z": [F.normalize(view.detach()).to(dtype).requires_grad_() for view in z],
        "labels": torch.randint(20, (clips,), generator=generator),
    }


def write_folder(root, name, *, labels=None, seed=0, **options):
    """All eight files of a folder; gives back what they hold."""
    (root / name).mkdir(parents=True)
    batches = [batch(clips, seed=seed + k, **options) for k, clips in enumerate(SIZES)]
    for k, held in enumerate(batches):
        if labels is not None:
            held["labels"] = labels[3 * k : 3 * k + SIZES[k]].clone()
        torch.save(held, root / name / f"tensors{k}.pt")
    return batches


@pytest.fixture
def little(monkeypatch):
    small(monkeypatch)


# --- reading


def test_the_real_folders_hold_the_test_set():
    if not released_dir().is_dir():
        pytest.skip("the authors' features need ACL_DATA/acl_published_features")
    found = load_released_features()
    assert set(found) <= set(released_folders())
    first = next(iter(found.values()))
    for features in found.values():
        assert features.h.shape == features.z.shape == (2, 947, 512)
        assert features.h.dtype == features.z.dtype == torch.float32
        assert not features.h.requires_grad and features.h.min() >= 0
        torch.testing.assert_close(features.z.norm(dim=2), torch.ones(2, 947), rtol=0, atol=1e-3)
        assert features.y.bincount().tolist() == TEST_SIZES
        assert torch.equal(features.y, first.y)  # one order of clips everywhere


def test_folders_files_and_views_keep_their_order(little, tmp_path):
    batches = write_folder(tmp_path, "t0.2")
    for name in ("t0.2a0.3", "t0.1", "t1.0", "t0.25", "t0.2a0.4"):  # the last two: not the authors'
        write_folder(tmp_path, name)
    (tmp_path / "README.md").write_text("no folder")
    found = load_released_features(tmp_path)
    assert list(found) == ["t0.1", "t0.2", "t0.2a0.3", "t1.0"]
    assert [f.temperature for f in found.values()] == [0.1, 0.2, 0.2, 1.0]
    assert [f.alpha for f in found.values()] == [1.0, 1.0, 0.3, 1.0]
    got = found["t0.2"]
    assert (got.name, got.stored, got.original) == ("t0.2", "float32", False)
    for view in (0, 1):
        torch.testing.assert_close(got.h[view], torch.cat([b["h"][view] for b in batches]).detach())
        torch.testing.assert_close(got.z[view], torch.cat([b["z"][view] for b in batches]).detach())
    assert not got.h.requires_grad and not got.z.requires_grad


def test_labels_become_classes_in_alphabetical_order(little, tmp_path):
    """The authors' data sets sort the numbers of the classes as text."""
    assert list(CLASSES) == sorted(CLASSES) and len(set(CLASSES)) == 20
    write_folder(tmp_path, "t0.2", labels=torch.arange(CLIPS) % 20)
    got = load_released_features(tmp_path)["t0.2"]
    order = [0, 1, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 2, 3, 4, 5, 6, 7, 8, 9]
    assert got.y.tolist() == order + order[: CLIPS - 20]
    assert got.classes[got.y[2]] == "Glass" and got.classes[got.y[12]] == "Clapping"


def test_copies_in_half_precision_and_originals_are_told_apart(little, monkeypatch, tmp_path):
    write_folder(tmp_path, "t0.2", dtype=torch.float16)
    got = load_released_features(tmp_path)["t0.2"]
    assert (got.stored, got.original, got.h.dtype) == ("float16", False, torch.float32)
    blobs = {f"t0.2/{p.name}": blob(p.read_bytes()) for p in (tmp_path / "t0.2").iterdir()}
    monkeypatch.setattr(released, "released_checksums", lambda: blobs)
    assert load_released_features(tmp_path)["t0.2"].original
    blobs["t0.2/tensors7.pt"] = "0" * 40
    assert not load_released_features(tmp_path)["t0.2"].original


def test_the_default_folder_is_below_that_of_the_data(little, monkeypatch, tmp_path):
    monkeypatch.setenv("ACL_DATA", str(tmp_path))
    write_folder(released_dir(), "t0.9a0.3")
    assert list(load_released_features()) == ["t0.9a0.3"]
    assert published.load_released_features is load_released_features


# --- what is not there


def test_without_folders_the_way_to_them_is_told(tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CorpusNotFoundError, match=r"20 folders \(t0.1 to t1.0a0.9\)"):
            load_released_features(root)
        with pytest.raises(CorpusNotFoundError, match=r"acl published --download.*ACL_DATA"):
            load_released_features(root)


def test_missing_files_are_named(little, tmp_path):
    write_folder(tmp_path, "t0.2")
    write_folder(tmp_path, "t0.3")
    (tmp_path / "t0.3" / "tensors4.pt").unlink()
    (tmp_path / "t0.3" / "tensors7.pt").rename(tmp_path / "t0.3" / "tensors7.pt.part")
    with pytest.raises(CorpusNotFoundError, match=r"t0.3/tensors4.pt, t0.3/tensors7.pt not found"):
        load_released_features(tmp_path)
    (tmp_path / "t0.5").mkdir()
    with pytest.raises(CorpusNotFoundError, match=r"and 2 more not found.*remove the folder"):
        load_released_features(tmp_path)


# --- what must not be read


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return eval, (f"open({str(self.path)!r}, 'w').close()",)


def test_code_in_a_file_is_not_run(little, tmp_path):
    write_folder(tmp_path, "t0.2")
    trap, file = tmp_path / "trap", tmp_path / "t0.2" / "tensors3.pt"
    torch.save(batch() | {"extra": Malicious(trap)}, file)
    with pytest.raises(
        ValueError, match=r"tensors3.pt holds more than tensors.*none of it was run"
    ):
        load_released_features(tmp_path)
    file.write_bytes(pickle.dumps(Malicious(trap)))
    with pytest.raises(ValueError, match=r"tensors3.pt is damaged, or no file of torch"):
        load_released_features(tmp_path)
    torch.save(Malicious(trap), file, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"tensors3.pt is damaged"):
        load_released_features(tmp_path)
    assert not trap.exists()
    torch.load(file, weights_only=False)  # the trap is one
    assert trap.exists()


def test_damage_is_noticed(little, tmp_path):
    write_folder(tmp_path, "t0.2")
    file = tmp_path / "t0.2" / "tensors2.pt"
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    flipped = bytearray(whole)
    flipped[largest.header_offset + 200] ^= 255  # inside of an array
    for content in (b"", whole[:-100], whole[: len(whole) // 2], bytes(flipped), b"version https"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"tensors2.pt is damaged.*acl published --download"):
            load_released_features(tmp_path)
    file.write_bytes(whole)
    assert load_released_features(tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"h": [torch.ones(3, 6)]}, r"two views h of 3 by 6 .* got \[\(3, 6, 'float32'\)\]"),
        ({"h": torch.ones(3, 6)}, r"two views h"),
        ({"z": [torch.ones(3, 6), torch.ones(3, 5)]}, r"two views z .* \(3, 5, 'float32'\)\]"),
        ({"z": [torch.ones(4, 6)] * 2}, r"two views z of 3 by 6 .*\(4, 6, 'float32'\)"),
        ({"z": [torch.ones(3, 6), "z"]}, r"two views z .* 'str'\]"),
        ({"z": [torch.ones(3, 6).double()] * 2}, r"'float64'"),
        ({"h": [torch.ones(3, 6), torch.full((3, 6), torch.nan)]}, "numbers in h that are not fin"),
        ({"labels": torch.tensor([0, 20, 1])}, "labels from 0 to 19; got 0 to 20"),
        ({"labels": torch.tensor([0, -1, 1])}, "labels from 0 to 19; got -1 to 1"),
        ({"labels": torch.ones(3)}, r"3 labels in int64; got \(3, 'float32'\)"),
        ({"labels": torch.ones(2, dtype=torch.long)}, r"3 labels in int64; got \(2, 'int64'\)"),
        ({"labels": [1, 2, 3]}, "3 labels in int64; got list"),
        ({"labels": None}, "must hold h, z and labels; got"),
    ],
)
def test_other_content_is_told(little, tmp_path, change, told):
    write_folder(tmp_path, "t0.2")
    held = {key: value for key, value in (batch() | change).items() if value is not None}
    torch.save(held, tmp_path / "t0.2" / "tensors0.pt")
    with pytest.raises(ValueError, match=rf"t0.2.tensors0.pt .*{told}.*remove the folder"):
        load_released_features(tmp_path)


def test_a_file_must_hold_a_dictionary(little, tmp_path):
    write_folder(tmp_path, "t0.2")
    torch.save([torch.ones(2)], tmp_path / "t0.2" / "tensors0.pt")
    with pytest.raises(ValueError, match="must hold h, z and labels; got list"):
        load_released_features(tmp_path)


# --- fetching


def blob(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def server(monkeypatch):
    """Two small folders, on the loopback address."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    monkeypatch.setattr(download, "SECURE", ("https://", server.url))  # this one, in tests alone
    names = [f"{folder}/tensors{k}.pt" for folder in ("t0.2", "t0.2a0.3") for k in range(8)]
    server.files = {f"/{name}": name.encode() * 1000 for name in names}
    monkeypatch.setattr(released, "TREE", server.url)
    blobs = {name: blob(server.files[f"/{name}"]) for name in names}
    monkeypatch.setattr(released, "released_checksums", lambda: blobs)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_list_of_published_files():
    published = released_checksums()
    assert len(published) == 160 and len(set(published.values())) == 160
    assert {len(blob) for blob in published.values()} == {40}
    assert released_folders()[:3] == ["t0.1", "t0.1a0.7", "t0.2"] and len(released_folders()) == 20
    for folder in released_folders():
        assert all(f"{folder}/tensors{k}.pt" in published for k in range(len(SIZES)))
    pairs = zip(*map(published_column, ("temperature", "alpha")), strict=True)
    assert released_folders() == [f"t{tau}" + (f"a{a}" if a < 1 else "") for tau, a in pairs]


def published_column(name):
    return published.TABLES["temperature"].column(name)


def test_only_what_is_missing_or_other_is_fetched(server, tmp_path):
    (tmp_path / "t0.2").mkdir()
    (tmp_path / "t0.2" / "tensors0.pt").write_bytes(b"a copy in half precision")
    (tmp_path / "t0.2" / "tensors1.pt").write_bytes(server.files["/t0.2/tensors1.pt"])
    (tmp_path / "t0.2" / "tensors2.pt.part").write_bytes(server.files["/t0.2/tensors2.pt"][:500])
    download_released_features(tmp_path, progress=False)
    for name, content in server.files.items():
        assert (tmp_path / name[1:]).read_bytes() == content
    assert len(server.ranges) == 15 and server.ranges.count("bytes=500-") == 1
    download_released_features(tmp_path, progress=False)
    assert len(server.ranges) == 15


def test_another_content_is_not_kept_and_a_refusal_is_told(server, tmp_path):
    right = server.files["/t0.2/tensors5.pt"]
    server.files["/t0.2/tensors5.pt"] = b"something else"
    with pytest.raises(ValueError, match=r"t0.2/tensors5.pt did not bring the published file"):
        download_released_features(tmp_path, progress=False)
    assert not (tmp_path / "t0.2" / "tensors5.pt").exists()
    del server.files["/t0.2/tensors5.pt"]
    with pytest.raises(requests.HTTPError, match="404"):
        download_released_features(tmp_path, progress=False)
    server.files["/t0.2/tensors5.pt"] = right
    download_released_features(tmp_path, progress=False)
    assert (tmp_path / "t0.2" / "tensors5.pt").read_bytes() == right


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_is_not_writable(monkeypatch, tmp_path, number):
    def refuse(*a, **k):
        raise OSError(number, "no")

    monkeypatch.setattr(released, "fetch", refuse)
    with pytest.raises(PermissionError, match=r"cannot write to .*--root"):
        download_released_features(tmp_path, progress=False)
