"""What the page on using this book says of costs and devices is what the records say."""

import json
import re

import pytest

from acl_lib.publish import RESULTS, ROOT
from acl_lib.records import read_all

PAGE = (ROOT / "book" / "how_to_use.md").read_text(encoding="utf-8")


def costs(pattern, key="cpu_seconds"):
    """Minutes of processor time in the records of a pattern."""
    found = [r.cost[key] / 60 for r in read_all(sorted((RESULTS / "esc10").glob(pattern)))]
    assert found
    return found


def told(before, after=""):
    """The numbers between two pieces of the page."""
    words = re.search(rf"{before} (\d+(?: to \d+)?){after}", PAGE)
    return [int(number) for number in words[1].split(" to ")]


def test_the_seconds_of_quick_are_those_of_the_synthetic_story():
    story = json.loads((RESULTS / "synthetic_story.json").read_text())
    took = [seed["systems"]["contrastive"]["cpu_seconds"] for seed in story["seeds"]]
    assert told("pretrained and probed:", " seconds") == [round(min(took)), round(max(took))]


@pytest.mark.parametrize(
    ("before", "minutes"),
    [
        ("on all 400 clips:", costs("*-all-*", "train_cpu_seconds")),
        ("both baselines", costs("*-all-*")),
        ("probes and baselines:", [*costs("contrastive-train-*"), *costs("acl*-train-*")]),
        ("with labels", costs("supervised*-train-*")),
    ],
)
def test_the_minutes_of_laptop_are_those_of_the_records(before, minutes):
    low, *_, high = [*told(before), *told(before)]
    assert low - 0.5 < min(minutes) and max(minutes) < high + 0.5


def test_what_has_no_record_yet_has_none_and_all_were_made_on_processors():
    records = read_all([RESULTS])
    assert {record.cost["kind"] for record in records} == {"cpu"}
    empty = set(re.findall(r"^\| `(\w+)` .*\| no record yet \|$", PAGE, re.M))
    assert empty == {"gpu", "paper"} and empty.isdisjoint(r.recipe.profile for r in records)
