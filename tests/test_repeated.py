"""Older code counts as today's once a record of its method has been repeated exactly."""

from pathlib import Path

import pytest

from acl_lib.config import recipe
from acl_lib.records import Record
from acl_lib.repeated import is_current, speak_for


def record(code, method="simclr"):
    made = recipe({"simclr": "acl", "supervised": "supervised"}[method])
    empty = {name: {} for name in "corpus results geometry cost versions".split()}
    lists = {name: [] for name in "history selection splits".split()}
    path = Path("some/where/acl.json")
    return Record(recipe=made, code=code, commit="", path=path, **empty, **lists)


def test_a_record_of_todays_code_is_current_and_another_is_not(tmp_path):
    file = tmp_path / "repeated.json"
    assert is_current(record("b"), "b", file=file)
    assert not is_current(record("a"), "b", file=file)


def test_a_repetition_speaks_for_its_code_and_its_method_alone(tmp_path):
    file = tmp_path / "repeated.json"
    speak_for(record("a"), "b", file=file)
    assert is_current(record("a"), "b", file=file)
    assert not is_current(record("a", "supervised"), "b", file=file)
    assert not is_current(record("c"), "b", file=file)
    assert not is_current(record("b"), "a", file=file)  # not backwards
    assert "where/acl.json" in file.read_text()


def test_repetitions_lead_on_from_one_code_to_the_next(tmp_path):
    file = tmp_path / "repeated.json"
    for old, new in (("a", "b"), ("b", "c"), ("c", "b")):  # and around
        speak_for(record(old), new, file=file)
    assert is_current(record("a"), "c", file=file)
    assert not is_current(record("a"), "d", file=file)


def test_the_same_step_is_written_once(tmp_path):
    file = tmp_path / "repeated.json"
    for _ in range(2):
        speak_for(record("a"), "b", file=file)
    assert file.read_text().count('"old"') == 1


@pytest.mark.parametrize("text", ["[", "{"])
def test_a_damaged_file_is_no_permission(tmp_path, text):
    file = tmp_path / "repeated.json"
    file.write_text(text)
    with pytest.raises(ValueError, match="line 1"):
        is_current(record("a"), "b", file=file)
