"""Records made again: how far off, in which order, and what the book's own rows say."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from acl_lib import again
from acl_lib.again import FILE, OUTCOMES, TOLERANCE, HowFar, how_far, outcome, reproduce_folder
from acl_lib.config import recipe
from acl_lib.datasets import CorpusNotFoundError
from acl_lib.experiments import code_fingerprint
from acl_lib.publish import RESULTS
from acl_lib.records import Record, differences
from acl_lib.repeated import is_current


def record(path, *, cost=1.0, code="now", **settings):
    empty = {name: {} for name in "corpus results geometry versions".split()}
    lists = {name: [] for name in "history selection splits".split()}
    cost = {"cpu_seconds": cost, "kind": "cpu", "threads": 1}
    made = Record(
        recipe=replace(recipe("acl"), **settings),
        code=code,
        commit="",
        cost=cost,
        path=Path(path),
        **empty,
        **lists,
    )
    made.write()
    return made


def test_distances_are_the_largest_of_each_kind():
    old = {"linear": {"accuracy": 0.80, "predictions": "aabb"}, "knn": {"accuracy": 0.5}}
    new = {"linear": {"accuracy": 0.78, "predictions": "abba"}, "knn": {"accuracy": 0.5}}
    lines = differences("results", {"trained": old}, {"trained": new})
    lines += differences("history", [[2.0, 1.0]], [[2.002, 1.1]])
    lines += differences("geometry", {"h": {"tolerance": 0.5}}, {"h": {"tolerance": 0.4}})
    far = how_far(lines)
    assert far.points == pytest.approx(2) and far.answers == 2
    assert far.first_loss == pytest.approx(0.001, rel=0.01)
    assert far.loss == pytest.approx(1 / 11) and far.geometry == pytest.approx(0.1)
    assert "2.00 points, 2 answers" in str(far)


def test_the_outcome_is_exact_within_or_beyond():
    def lines(new):
        return differences("results", {"a": {"accuracy": 0.5}}, {"a": {"accuracy": new}})

    assert [outcome(lines(x)) for x in (0.5, 0.55, 0.7)] == list(OUTCOMES[:3])
    assert how_far(lines(None)).points == math.inf  # a number that is missing is no near miss


@pytest.fixture
def three(tmp_path, monkeypatch):
    """Two seeds of one arm and one of a dear arm, made again without any training."""
    record(tmp_path / "a0.json", cost=10, seed=0)
    record(tmp_path / "a1.json", cost=11, seed=1)
    record(tmp_path / "b0.json", cost=100, method="moco")
    (tmp_path / "other.json").write_text("[]")
    made = []
    monkeypatch.setattr(again, "code_fingerprint", lambda: "now")
    monkeypatch.setattr(again, "reproduce", lambda r, **k: made.append(r.path.name) or ([], []))
    return tmp_path, made


def rows(folder):
    return {n: row["outcome"] for n, row in json.loads((folder / FILE).read_text()).items()}


def test_a_budget_buys_what_it_can_and_every_record_has_a_row(three, monkeypatch):
    folder, made = three
    monkeypatch.setattr(again, "is_current", lambda record, now: record.recipe.seed == 1)
    assert [name for name, _ in reproduce_folder(folder, budget=15)] == ["a0.json"] == made
    assert rows(folder) == {"a0.json": "exact", "a1.json": OUTCOMES[3], "b0.json": OUTCOMES[3]}
    assert [row["current"] for row in again.read_rows(folder).values()] == [False, True, False]


def test_the_same_command_goes_on_with_one_of_each_kind_first(three):
    folder, made = three
    list(reproduce_folder(folder, budget=15))
    list(reproduce_folder(folder, budget=105))
    assert made == ["a0.json", "b0.json"]
    list(reproduce_folder(folder, budget=105))
    assert made == ["a0.json", "b0.json", "a1.json"]
    record(folder / "a0.json", cost=10, seed=0, code="of another day")  # is no longer what it was
    list(reproduce_folder(folder, budget=1))
    assert rows(folder)["a0.json"] == OUTCOMES[3]


def test_records_of_a_corpus_that_is_not_there_say_so(three, monkeypatch):
    def missing(record, **options):
        raise CorpusNotFoundError("not here")

    monkeypatch.setattr(again, "reproduce", missing)
    assert list(reproduce_folder(three[0], budget=1000)) == []
    assert set(rows(three[0]).values()) == {"no corpus"}


def test_every_record_of_the_book_has_a_row_and_no_result_is_beyond_tolerance():
    """Losses on the way may be, and are then counted so; a score that moved as far would tell."""
    told = json.loads((RESULTS / FILE).read_text())
    runs = {}
    for path in RESULTS.rglob("*.json"):
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values, dict) and {"recipe", "cost"} <= set(values):
            runs[path.relative_to(RESULTS).as_posix()] = path
    assert set(told) == set(runs), "acl reproduce book/results --budget 0 mends the rows"
    now = code_fingerprint()
    for name, row in told.items():
        assert row["current"] == is_current(Record.read(runs[name]), now), "as above"
        assert row["outcome"] in OUTCOMES, (name, row)
        assert ("code" in row) == (row["outcome"] in OUTCOMES[:3]), (name, row)
        if "how_far" in row:
            far = HowFar(**row["how_far"])
            assert far.within(TOLERANCE) == (row["outcome"] == "within tolerance"), name
            assert far.points <= TOLERANCE.points, name
