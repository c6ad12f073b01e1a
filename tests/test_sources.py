"""Every number in the book's prose stands in an output, a record or a table in print.

A number counts as traced if it stands, to its printed digits, in the outputs, code or equations of
its own page, in a published table, or in `sources.json`: there a sentence of the page is named with
where its numbers come from, or with the runs of a grid that they are computed from again.
"""

import json
import random
import re

import nbformat
import pytest
from prose import in_print, is_share, numbers, shown, stands_in, values

from acl_lib.grids import Findings
from acl_lib.publish import COPIES, ROOT, SOURCES

# settings, computed by tests of their names; and rules, plans and news, which measure nothing
OTHERS = {"how_to_use", "reproduction_log", "notation", "contributing", "for_teachers", "changes"}
SAID = json.loads((ROOT / "tests" / "sources.json").read_text(encoding="utf-8"))
EVERYWHERE = SAID["everywhere"]
PAGES = {p.stem: p for p in sorted((ROOT / "book").glob("*.md")) if p.stem not in OTHERS}
NOTEBOOKS = sorted(SOURCES.glob("*.ipynb"))


def known(text, outputs=""):
    """Values that stand on a page outside of its prose, in print, or in the list for all pages."""
    beside = "\n".join(re.findall(r"```.*?```|\$[^$]+\$|`[^`]*`", text, re.S))
    return values(outputs) | values(beside) | in_print() | {float(k) for k in EVERYWHERE}


def untraced(page, text, there):
    """The words around each number of a page that has no source."""
    spans = [
        (m.start(), m.end())
        for entry in SAID["pages"].get(page, [])
        for m in re.finditer(words(entry["says"]), text)
    ]
    return [
        " ".join(text[max(0, m.start() - 40) : m.end() + 30].split())
        for m in numbers(text)
        if not any(start <= m.start() < end for start, end in spans)
        and not stands_in(m.group(), there, share=is_share(text, m))
    ]


def words(says):
    """A pattern for these words, however the lines of the page are broken."""
    return r"\s+".join(map(re.escape, says.split()))


def markdown(path):
    nb = nbformat.read(path, as_version=4)
    return "\n\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")


def outputs(path):
    nb = nbformat.read(path, as_version=4)
    return "\n".join(shown(cell) for cell in nb.cells if cell.cell_type == "code")


@pytest.mark.parametrize("page", PAGES)
def test_every_number_of_a_page_has_its_source(page):
    text = PAGES[page].read_text(encoding="utf-8")
    assert untraced(page, text, known(text)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_number_of_a_notebook_has_its_source(path):
    copy = COPIES / path.name
    if not copy.exists():
        pytest.skip("`make book` makes the executed copy whose outputs hold the numbers")
    text = markdown(path)
    assert untraced(path.stem, text, known(text, outputs(copy))) == []


def test_a_number_that_nothing_on_its_page_says_is_found():
    text = "It reads 83.7 % of the clips, in `0.5` of the time, or 0.5, and 41.3 points more."
    found = untraced("none", text, known(text, "accuracy 0.8372"))
    assert len(found) == 1 and "41.3" in found[0]


@pytest.mark.parametrize("page", SAID["pages"])
def test_a_sentence_in_the_list_stands_on_its_page_and_names_its_source(page):
    text = (PAGES.get(page) or SOURCES / f"{page}.ipynb").read_text(encoding="utf-8")
    text = markdown(SOURCES / f"{page}.ipynb") if page not in PAGES else text
    for entry in SAID["pages"][page]:
        assert re.search(words(entry["says"]), text), f"{page} says no longer: {entry['says']}"
        assert entry.get("grid") or len(entry["source"]) > 10, entry


GRIDS = [e for entries in SAID["pages"].values() for e in entries if "grid" in e]


@pytest.mark.parametrize("entry", GRIDS, ids=lambda e: f"{e['grid']} {e['arm']}")
def test_a_sentence_about_runs_is_computed_again(entry):
    found = Findings.read(ROOT / "grids" / f"{entry['grid']}.yaml")
    confidence = entry.get("confidence", 0.95)
    pair = found.pair(entry["arm"], entry.get("condition", ""), confidence=confidence)
    ends = [*pair["interval"], *(pair["seed_interval"] or [])]
    there = {100 * abs(value) for value in [pair["difference"], *ends]}
    for number in numbers(entry["says"]):
        assert any(
            f"{value:.{len(number.group().partition('.')[2])}f}" == number.group()
            for value in there | {100 * confidence}
        ), (number.group(), sorted(there))


def test_most_changed_digits_are_noticed():
    """A changed number may meet another value of its page by chance: one in three or so does."""
    draw, noticed, tried = random.Random(0), 0, 0
    for path in NOTEBOOKS:
        copy = COPIES / path.name
        if not copy.exists():
            pytest.skip("`make book` makes the executed copies whose outputs hold the numbers")
        text = markdown(path)
        there = known(text, outputs(copy))
        for match in numbers(text):
            digits = match.group()
            place = draw.choice([i for i, sign in enumerate(digits) if sign.isdigit()])
            other = draw.choice([d for d in "123456789" if d != digits[place]])
            changed = digits[:place] + other + digits[place + 1 :]
            share = is_share(text, match)
            if stands_in(digits, there, share=share):
                noticed += not stands_in(changed, there, share=share)
            else:
                noticed += 1  # its sentence is listed word for word
            tried += 1
    print(f"{noticed} of {tried} changed digits noticed")
    assert noticed > 0.6 * tried
