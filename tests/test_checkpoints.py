"""A checkpoint is whole, unchanged and harmless, or it is refused."""

import os
import pickle
import zipfile

import pytest
import torch

from acl_lib import checkpoints

STATE = {"weight": torch.arange(300.0).view(3, 100), "step": 7, "name": "a", "rates": [0.1, 0.01]}


class Evil:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_what_was_saved_is_read_again(tmp_path):
    path = tmp_path / "new" / "folder" / "a.pt"
    checkpoints.save(path, STATE)
    back = checkpoints.load(path)
    assert torch.equal(back.pop("weight"), STATE["weight"])
    assert back == {key: value for key, value in STATE.items() if key != "weight"}
    assert [p.name for p in path.parent.iterdir()] == ["a.pt"]
    assert checkpoints.load(str(path), device="meta")["weight"].device.type == "meta"


def test_a_model_comes_back(tmp_path):
    model = torch.nn.BatchNorm1d(4)
    model(torch.randn(8, 4))
    checkpoints.save(tmp_path / "a.pt", model.state_dict())
    other = torch.nn.BatchNorm1d(4)
    other.load_state_dict(checkpoints.load(tmp_path / "a.pt"))
    assert torch.equal(other.running_mean, model.running_mean)


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    checkpoints.save(tmp_path / "a.pt", STATE)
    resource = pytest.importorskip("resource", reason="file size limits are POSIX")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            checkpoints.save(tmp_path / "a.pt", STATE | {"step": 8})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(PermissionError("no")))
        with pytest.raises(PermissionError):
            checkpoints.save(tmp_path / "a.pt", STATE | {"step": 8})
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        checkpoints.save(tmp_path / "a.pt", {"what": lambda: 0})
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]
    assert checkpoints.load(tmp_path / "a.pt")["step"] == 7


def test_code_in_a_file_is_not_run(tmp_path):
    mark = tmp_path / "ran"
    torch.save({"weight": torch.ones(2), "evil": Evil(mark)}, tmp_path / "zip.pt")
    torch.save(Evil(mark), tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Evil(mark)))
    for name in ("zip", "legacy", "bare"):
        with pytest.raises(ValueError, match=rf"{name}\.pt is damaged or no checkpoint"):
            checkpoints.load(tmp_path / f"{name}.pt")
    assert not mark.exists()
    torch.load(tmp_path / "zip.pt", weights_only=False)  # the trap works
    assert mark.exists()


def test_every_flipped_byte_and_every_cut_is_found(tmp_path):
    path = tmp_path / "a.pt"
    checkpoints.save(path, STATE)
    raw = path.read_bytes()
    refused = 0
    for at in range(0, len(raw), 17):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 0xFF]) + raw[at + 1 :])
        try:  # some bytes of a zip file mean nothing
            state = checkpoints.load(path)
        except ValueError as error:
            assert "delete it to have it made again" in str(error)
            refused += 1
        else:
            assert torch.equal(state["weight"], STATE["weight"]) and state["step"] == 7
    assert refused > len(raw) / 17 / 2
    for length in range(0, len(raw), 97):
        path.write_bytes(raw[:length])
        with pytest.raises(ValueError, match="damaged or no checkpoint"):
            checkpoints.load(path)


def test_other_files_are_refused_and_missing_ones_named(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("hello.txt", "hello")
    for name in ("a.txt", "b.zip"):
        with pytest.raises(ValueError, match=f"{name} is damaged or no checkpoint"):
            checkpoints.load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        checkpoints.load(tmp_path / "none.pt")


def test_a_missing_device_is_not_blamed_on_the_file(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    checkpoints.save(tmp_path / "a.pt", STATE)
    with pytest.raises((RuntimeError, AssertionError), match=r"(?i)cuda|nvidia"):
        checkpoints.load(tmp_path / "a.pt", device="cuda")
