"""Glossary and notebooks point at each other: each word at its page, the page at the word."""

import re

import nbformat
import pytest

from acl_lib.publish import ROOT, SOURCES

PAGE = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
ENTRIES = dict(re.findall(r"^### (.+)\n\n((?:(?!#).+\n)+)", PAGE, re.M))  # word -> what it means
LINK = r"\[([^]]+)\]\(notebooks/(\w+)\.ipynb\)"  # title and name of a notebook


def slug(word):
    """What MyST makes of a heading, and JupyterLab too where it has no capitals."""
    return re.sub(r"[^\w\- ]", "", word.lower()).replace(" ", "-")


def prose(name):
    nb = nbformat.read(SOURCES / f"{name}.ipynb", as_version=4)
    return "\n\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")


def test_the_words_are_in_alphabetical_order_and_occur_once():
    words = re.findall(r"^### (.+)$", PAGE, re.M)
    assert words == list(ENTRIES), "an entry is a heading, an empty line, and one paragraph"
    assert words == sorted(words, key=str.casefold)
    assert len({slug(word) for word in words}) == len(words)


def test_the_letters_of_a_part_hold_its_words():
    for first, last, words in re.findall(r"^## (\w) to (\w)\n((?:(?!## ).*\n)+)", PAGE, re.M):
        for word in re.findall(r"^### (.+)$", words, re.M):
            assert first <= word[0].upper() <= last, f"{word} stands under {first} to {last}"


@pytest.mark.parametrize("word", ENTRIES)
def test_a_word_and_its_page_link_each_other(word):
    links = re.findall(LINK, ENTRIES[word])
    assert links, "which page teaches it?"
    for title, name in links:
        text = prose(name)
        assert text.startswith(f"# {title}\n"), f"the title of {name} has changed"
        back = f"](../book/glossary.md#{slug(word)})"
        assert back in text, f"{name}: link the first use of the word, [{word}{back}"


@pytest.mark.parametrize("path", sorted(SOURCES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_what_a_notebook_links_is_in_the_glossary(path):
    linked = re.findall(r"\]\([^)]*glossary\.md(?:#([^)]*))?\)", prose(path.stem))
    assert set(linked) <= {slug(word) for word in ENTRIES}
    assert len(linked) == len(set(linked)), "link the first use alone"
