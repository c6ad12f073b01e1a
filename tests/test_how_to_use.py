"""What the page on using this book says of costs and devices is what the records say."""

import json
import re
import shlex

import pytest

from acl_lib.__main__ import _parser
from acl_lib.grids import KEYS, Grid
from acl_lib.ledger import ledger
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


def table(heading):
    """The words in code marks in the first column of the table with this heading, line by line."""
    rows = PAGE.partition(f"| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [re.findall(r"`(\w+)`", row.split(" | ")[0]) for row in rows]


def test_the_grid_of_the_page_is_one_and_its_lines_are_explained(tmp_path):
    (text,) = re.findall(r"```yaml\n(question: .*?)```", PAGE, re.S)
    (tmp_path / "mine.yaml").write_text(text)
    grid = Grid.read(tmp_path / "mine.yaml")
    assert len(grid.cells) == 12 and "That makes twelve runs." in PAGE
    assert "`wide: {width: 32, lr: 0.01}`" in PAGE
    (tmp_path / "mine.yaml").write_text(
        text.replace("width: [16, 32]", "wide: {width: 32, lr: 0.01}")
    )
    assert Grid.read(tmp_path / "mine.yaml").cells[0].recipe.train.lr == 0.01
    assert sorted(word for row in table("Line") for word in row) == sorted(KEYS)


def test_the_columns_of_the_ledger_are_all_explained():
    named = [word for row in table("Columns") for word in row]
    columns = set(ledger([RESULTS / "sweeps" / "esc10-quick" / "acl,seed=0.json"]).columns)
    assert columns <= set(named)
    assert set(named) - columns == set()


def test_every_sweep_of_the_page_has_options_that_exist():
    commands = re.findall(r"acl sweep [^`'#\n]+", PAGE)
    assert len(commands) == 7
    for command in commands:
        words = re.sub(r"\$\(\(.*?\)\)|\$\w+|\$\(\w+\)", "1", command)
        assert _parser().parse_args(shlex.split(words)[1:]).grid.name == "mine.yaml"
