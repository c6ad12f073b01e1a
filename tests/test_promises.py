"""Every promise names tests that exist and a record that was made; the page shows all of them."""

import re
from pathlib import Path

import nbformat
import pytest

from acl_lib import promises

ROOT = Path(__file__).resolve().parents[1]
FOUND = promises.read(ROOT / "book" / "results")
PAGE = nbformat.read(ROOT / "notebooks" / "18_what_we_promise.ipynb", as_version=4)


@pytest.mark.parametrize("promise", promises.PROMISES, ids=lambda promise: promise.text[:40])
def test_a_promise_names_what_tests_it(promise):
    names = promise.tests.split()
    assert names and all((ROOT / name).is_file() for name in names)
    assert bool(promise.record) == bool(promise.found)
    if promise.found:
        assert FOUND[promise.record], f"{promise.record}.json was not made"
        assert any(character.isdigit() for character in promise.found(FOUND[promise.record]))
    assert any(name.endswith(".py") and "def test" in (ROOT / name).read_text() for name in names)


def test_the_page_shows_every_part_with_its_figures():
    code = "\n".join(cell.source for cell in PAGE.cells if cell.cell_type == "code")
    shown = re.findall(r'(?:promises\.table\(|part = )"([^"]+)"', code)
    assert shown == list(promises.parts())
    for part in shown:
        table = promises.table(part, FOUND)
        assert "no record" not in table
        assert table.count("\n") == 1 + sum(p.part == part for p in promises.PROMISES)


def test_a_record_that_is_not_there_is_told(tmp_path):
    assert "no record (`faults.json`)" in promises.table("Nothing is lost", promises.read(tmp_path))
    with pytest.raises(ValueError, match="there are Nothing is lost, "):
        promises.table("Nothing", FOUND)


def test_what_the_records_must_say():
    """Figures that the promises would be broken without."""
    for found in FOUND["faults"]["jobs"].values():
        assert found["once"]["equal"] == found["once"]["n"] == found["once"]["kills"] == 50
        assert found["three times"]["equal"] == found["three times"]["n"]
    assert set(FOUND["faults"]["jobs"]) == set(promises.JOBS)
    fuzz = FOUND["fuzz_audio"]
    assert fuzz["files"] >= 2000 and not fuzz["not_read_rightly"]
    assert fuzz["outcomes"]["read"] + fuzz["outcomes"]["refused"] == fuzz["files"]
    assert all(row["outcome"] in ("read", "refused") for row in fuzz["unusual"].values())
    assert all(row["share"] >= 0.85 for row in FOUND["mutants"]["modules"].values())
    assert FOUND["stubs"]["functions"] >= 70
    assert FOUND["stubs"]["noticed"] / FOUND["stubs"]["functions"] >= 0.85
    assert FOUND["suite"]["wall_seconds"] < 600 and not FOUND["suite"].get("failed")
    assert FOUND["classroom"]["failed"] == 0 and FOUND["classroom"]["kernels_alive"] == 30
    assert FOUND["classroom"]["peak_gb"] < 24
    assert FOUND["provenance"]["without_a_source"] == 0


def test_the_memory_of_a_class_is_what_was_there_after_each_students_last_page():
    rows = [
        {"student": 1, "notebook": "a", "total_gb": 1.0},
        {"student": 1, "notebook": "b", "total_gb": 1.5},
        {"student": 2, "notebook": "a", "total_gb": 2.0},
    ]
    assert promises.memory_of_class({"rows": rows}) == ([1, 2], [1.5, 2.0])
