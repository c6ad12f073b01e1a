"""Numbers in the prose of the book, and where on the page or in print each of them stands."""

import json
import re
from dataclasses import asdict
from functools import cache
from pathlib import Path

import nbformat

from acl_lib.config import PROFILES, RECIPES, recipe
from acl_lib.published import TABLES

NUMBER = r"(?<![\w.$\\/-])[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e-?\d+)?(?![\w/]|\.\d|,\d{3})"
ELSEWHERE = (  # numbers that name a place, not a quantity
    r"```.*?```",
    r"\$\$.*?\$\$",
    r"\$[^$]*\$",
    r"`[^`]*`",
    r"\]\([^)]*\)",
    r"<[^>]+>",
    r"\{\w+(:\w+)?\}",
    r"\b(eqs?\.|equations?|sections?|figs?\.|figures?|tables?|pages?) [\d.]+((, | and | to )[\d.]+)*",
    r"^#+ [^\n]*$",
    r"^\s*\d+\. ",
)
YEAR = r"(19|20)\d\d"


def prose(text: str) -> str:
    """Markdown with what names places and settings blanked out, every letter where it was."""
    for pattern in ELSEWHERE:
        text = re.sub(
            pattern, lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S | re.M | re.I
        )
    return text


def numbers(text: str) -> list[re.Match]:
    """Numbers to be traced: all but years and counts up to twelve without a unit."""
    found = []
    for match in re.finditer(NUMBER, prose(text)):
        plain = match.group()
        unit = re.match(r" ?(%|points?\b|seconds?\b|s\b|nats?\b|times\b)", text[match.end() :])
        small = re.fullmatch(r"\d+", plain) and int(plain) <= 12 and not unit
        if not small and not re.fullmatch(YEAR, plain):
            found.append(match)
    return found


def value(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-"))


def values(text: str) -> set[float]:
    return {abs(value(m)) for m in re.findall(NUMBER, text)}


def stands_in(printed: str, known: set[float]) -> bool:
    """Whether a known value, or 100 times it, rounds to the number that is printed."""
    digits = len(printed.split(".")[1]) if "." in printed and "e" not in printed else 0
    if "e" in printed:
        return any(f"{x:.1e}" == f"{abs(value(printed)):.1e}" for x in known)
    near, half = abs(value(printed)), 0.5 * 10**-digits * (1 + 1e-6)
    return any(abs(x - near) <= half or abs(100 * x - near) <= half for x in known)


@cache
def in_print() -> frozenset[float]:
    """Every value of the published tables."""
    cells = [cell for table in TABLES.values() for row in table.rows for cell in row]
    return frozenset(abs(cell) for cell in cells if isinstance(cell, int | float))


@cache
def settings() -> frozenset[float]:
    """Every number that a recipe of a profile sets."""
    text = [json.dumps(asdict(recipe(n, profile=p))) for n in RECIPES for p in PROFILES]
    return frozenset(values(re.sub(r"[:,]", " ", " ".join(text))))


def shown(cell: nbformat.NotebookNode) -> str:
    """What a code cell says and prints: its source and its outputs, as text."""
    parts = [cell.source]
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        parts += [output.get("text", ""), data.get("text/plain", ""), data.get("text/markdown", "")]
        page = data.get("text/html", "")
        if len(page) < 100_000:
            parts.append(re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", page, flags=re.S))
    return "\n".join(parts)
