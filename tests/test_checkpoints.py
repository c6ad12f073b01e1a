"""A checkpoint is whole, unchanged and harmless, or it is refused."""

import os
import pickle
import zipfile

import pytest
import torch

from acl_lib import checkpoints, training
from acl_lib.config import TrainConfig

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


# --- the one before -------------------------------------------------------------------------------


def saved(path, *steps):
    for step in steps:
        checkpoints.save(path, STATE | {"step": step})


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_file_that_is_written_again_keeps_the_one_before_it(tmp_path):
    path, before = tmp_path / "a.resume", tmp_path / "a.before.resume"
    saved(path, 1)
    assert names(tmp_path) == ["a.resume"]
    saved(path, 2, 3)
    assert names(tmp_path) == ["a.before.resume", "a.resume"]
    assert (checkpoints.load(path)["step"], checkpoints.load(before)["step"]) == (3, 2)
    path.unlink()  # somebody wants to begin anew
    saved(path, 1)
    assert names(tmp_path) == ["a.resume"]


def test_a_cut_file_falls_back_to_the_one_before_with_a_word(tmp_path):
    path = tmp_path / "a.pt"
    saved(path, 1, 2)
    raw = path.read_bytes()
    os.utime(tmp_path / "a.before.pt", (1000, 1000))
    for length in (0, 1, 100, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:length])  # its first name was a link: the other is of another file
        os.utime(path, (1031, 1031))
        with pytest.warns(UserWarning, match=r"a\.pt is damaged .* a\.before\.pt") as told:
            assert checkpoints.load(path)["step"] == 1
        assert len(told) == 1 and "in the 31 s between the two is done again" in str(told[0])
        assert path.read_bytes() == raw[:length]  # another process may be reading it too


def test_a_damaged_file_never_takes_the_place_of_the_whole_one_before_it(tmp_path):
    path = tmp_path / "a.pt"
    saved(path, 1, 2)
    path.write_bytes(path.read_bytes()[:-100])
    saved(path, 3)
    assert checkpoints.load(path)["step"] == 3
    assert checkpoints.load(tmp_path / "a.before.pt")["step"] == 1


def test_two_damaged_files_are_both_named(tmp_path):
    path = tmp_path / "a.pt"
    saved(path, 1, 2)
    for name in names(tmp_path):
        (tmp_path / name).write_bytes(b"half")
    with pytest.raises(
        ValueError, match=r"a\.pt is damaged .*a\.before\.pt .*: delete both to have"
    ):
        checkpoints.load(path)


def test_a_whole_file_has_the_name_at_every_moment(tmp_path, monkeypatch):
    path, replace, seen = tmp_path / "a.pt", os.replace, []

    def watched(*names):
        seen.append(checkpoints.load(path)["step"])
        replace(*names)
        seen.append(checkpoints.load(path)["step"])

    saved(path, 1)
    monkeypatch.setattr(os, "replace", watched)
    saved(path, 2, 3)
    assert seen == [1, 1, 1, 2, 2, 2, 2, 3]


@pytest.mark.parametrize("fails", [1, 2])
def test_a_save_that_fails_half_way_changes_nothing_that_is_read(tmp_path, monkeypatch, fails):
    path, replace, calls = tmp_path / "a.pt", os.replace, []

    def failing(*names):
        calls.append(names)
        if len(calls) == fails:
            raise PermissionError("no")
        replace(*names)

    saved(path, 1, 2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        with pytest.raises(PermissionError):
            saved(path, 3)
    assert names(tmp_path) == ["a.before.pt", "a.pt"]
    assert checkpoints.load(path)["step"] == 2
    assert checkpoints.load(tmp_path / "a.before.pt")["step"] == {1: 1, 2: 2}[fails]
    saved(path, 4)  # the second time both names are of one file
    assert names(tmp_path) == ["a.before.pt", "a.pt"]
    assert checkpoints.load(tmp_path / "a.before.pt")["step"] == 2


def test_the_one_before_needs_no_links_and_no_tidy_predecessor(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    saved(path, 1)
    os.link(path, tmp_path / f"a.before.pt.{os.getpid()}.part")  # of a killed one with this number
    saved(path, 2)
    assert (checkpoints.load(path)["step"], names(tmp_path)) == (2, ["a.before.pt", "a.pt"])

    def refused(*names):
        raise OSError("Operation not supported")

    monkeypatch.setattr(os, "link", refused)
    saved(path, 3)
    assert checkpoints.load(path)["step"] == 3
    assert checkpoints.load(tmp_path / "a.before.pt")["step"] == 2


def fitted(path=None, *, stop=None):
    """Weights and losses of a training with dropout; `stop`: the epoch in which it dies."""
    generator = training.seed_everything(0)
    x = torch.randn(16, 4, generator=generator)
    model = torch.nn.Sequential(torch.nn.Dropout(0.2), torch.nn.Linear(4, 1))

    def on_epoch(epoch, loss):
        if epoch == stop:
            raise KeyboardInterrupt

    history = training.train(
        lambda ids: (model(x[ids]) - x[ids].sum(1, keepdim=True)).square().mean(),
        torch.arange(16),
        [model],
        config=TrainConfig(epochs=5, batch=4),
        generator=generator,
        on_epoch=on_epoch,
        checkpoint=path,
    )
    return model[1].weight.detach(), history.loss


@pytest.mark.parametrize("length", [0, 1000, -1])
def test_a_training_whose_newest_state_is_cut_ends_as_one_that_was_left_alone(
    tmp_path, monkeypatch, length
):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    weight, loss = fitted()
    path = tmp_path / "one.resume"
    with pytest.raises(KeyboardInterrupt):
        fitted(path, stop=4)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.warns(UserWarning, match=r"going on from the one before it, one\.before\.resume"):
        again, losses = fitted(path)
    assert torch.equal(again, weight) and losses == loss
    for name in names(tmp_path):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match="delete both to have it made again"):
        fitted(path)
