"""Numbers in the prose of the book, and where on the page or in print each of them stands."""

import re
from functools import cache

import nbformat

from acl_lib.published import TABLES

NUMBER = (
    r"(?<![\w.$\\/-])[-+\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e-?\d+)?"
    r"(?![\w/]|\.\d|,\d{3})"
)
ELSEWHERE = (  # numbers that name a place, not a quantity
    r"```.*?```",
    r"\$\$.*?\$\$",
    r"\$[^$]*\$",
    r"`[^`]*`",
    r"\]\([^)]*\)",
    r"<[^>]+>",
    r"\{\w+(:\w+)?\}",
    r"\b(eqs?\.|equations?|sections?|figs?\.|figures?|tables?|pages?) "
    r"[\d.]+((, | and | to )[\d.]+)*",
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
    return float(text.replace(",", "").replace("\u2212", "-"))


def values(text: str) -> set[float]:
    return {abs(value(m)) for m in re.findall(NUMBER, text)}


def stands_in(printed: str, known: set[float], *, share: bool = False) -> bool:
    """Whether a known value rounds to the number that is printed.

    Args:
        share: printed in percent, points or about: 100 times a value may stand for it as well, and
            a number without decimals for one that has some.
    """
    near = abs(value(printed))
    if "e" in printed:
        return any(f"{x:.1e}" == f"{near:.1e}" for x in known)
    digits = len(printed.split(".")[1]) if "." in printed else 0
    half = 0.5 * 10**-digits * (1 + 1e-6) if digits or share else 1e-9
    scales = (1, 100) if share else (1,)
    return any(abs(scale * x - near) <= half for x in known for scale in scales)


def is_share(text: str, match: re.Match) -> bool:
    """Whether a number's clause speaks of percent, points, seconds, or says that it is about."""
    clause = re.split(r"[.;:](?=\s)", text[match.end() : match.end() + 60])[0]
    before = text[max(0, match.start() - 12) : match.start()]
    return bool(re.search(r"%|\bpoints?\b|\bseconds\b", clause) or "about" in before)


@cache
def in_print() -> frozenset[float]:
    """Every value of the published tables."""
    cells = [cell for table in TABLES.values() for row in table.rows for cell in row]
    return frozenset(abs(cell) for cell in cells if isinstance(cell, int | float))


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
