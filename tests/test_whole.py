import errno
import os
from pathlib import Path

import pytest

from acl_lib.whole import whole, write_whole


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_the_older_one_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_whole(path, "ä\r\n")
    assert path.read_bytes() == b"\xc3\xa4\r\n"  # no line end is translated
    with whole(path) as part:
        assert part.parent == path.parent and str(os.getpid()) in part.name
        part.write_bytes(b"half")
        assert path.read_bytes() == b"\xc3\xa4\r\n"
    write_whole(str(path), memoryview(b"more"))
    assert path.read_bytes() == b"more" and names(path.parent) == ["a.txt"]


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), ValueError("no"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))],
    ids=repr,
)
def test_whatever_stops_the_writing_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a"
    write_whole(path, b"1")
    with pytest.raises(type(error)) as caught, whole(path) as part:
        part.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"1" and names(tmp_path) == ["a"]
    if isinstance(error, OSError):
        assert "No space left" in str(caught.value) and str(path) in str(caught.value)


def test_an_error_keeps_the_words_and_the_name_that_it_came_with(tmp_path):
    with pytest.raises(OSError, match=r"^no number$"), whole(tmp_path / "a"):
        raise OSError("no number")
    with pytest.raises(OSError, match=r"sound\.wav"), whole(tmp_path / "a"):
        Path(tmp_path / "sound.wav").read_bytes()
    with pytest.raises(FileNotFoundError, match=r"'.*a.*part'"), whole(tmp_path / "a"):
        pass  # nobody wrote it
    assert names(tmp_path) == []


def test_two_processes_do_not_write_into_one_part(tmp_path, monkeypatch):
    with whole(tmp_path / "a") as one:
        monkeypatch.setattr(os, "getpid", lambda: -7)
        with whole(tmp_path / "a") as two:
            one.write_text("one"), two.write_text("two")
        assert (tmp_path / "a").read_text() == "two"
    assert (tmp_path / "a").read_text() == "one" and names(tmp_path) == ["a"]
