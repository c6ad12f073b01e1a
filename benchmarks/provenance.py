"""How many numbers of the book's prose have a source, and how many changed ones are noticed.

    python benchmarks/provenance.py          # after `make book`, whose copies hold the outputs

Counts what `tests/test_sources.py` checks, and changes one digit of 200 numbers that it traced.
"""

import json
import random
import sys
from pathlib import Path

from acl_lib.publish import COPIES, RESULTS, ROOT
from acl_lib.whole import write_whole

sys.path.insert(0, str(ROOT / "tests"))
from prose import is_share, numbers, stands_in
from test_sources import NOTEBOOKS, PAGES, known, markdown, outputs, untraced

SEED, CHANGES = 0, 200


def changed(digits: str, draw: random.Random) -> str:
    """A number with one digit drawn anew."""
    place = draw.choice([i for i, sign in enumerate(digits) if sign.isdigit()])
    other = draw.choice([d for d in "123456789" if d != digits[place]])
    return digits[:place] + other + digits[place + 1 :]


def counted() -> dict:
    """Counts over all pages.

    Raises:
        FileNotFoundError: a notebook has no executed copy.
    """
    pages = [
        (path.stem, text := path.read_text(encoding="utf-8"), known(text))
        for path in PAGES.values()
    ]
    for path in NOTEBOOKS:
        if not (COPIES / path.name).exists():
            raise FileNotFoundError(f"{path.name} has no executed copy: `make book` makes it")
        text = markdown(path)
        pages.append((path.stem, text, known(text, outputs(COPIES / path.name))))
    told, traced = {"numbers": 0, "traced": 0, "listed": 0, "without_a_source": 0}, []
    for name, text, there in pages:
        lacking = len(untraced(name, text, there))
        found = numbers(text)
        mine = [
            (match.group(), is_share(text, match), there)
            for match in found
            if stands_in(match.group(), there, share=is_share(text, match))
        ]
        told["numbers"] += len(found)
        told["traced"] += len(mine)
        told["without_a_source"] += lacking
        told["listed"] += len(found) - len(mine) - lacking
        traced += mine
    draw = random.Random(SEED)
    noticed = sum(
        not stands_in(changed(digits, draw), there, share=share)
        for digits, share, there in draw.sample(traced, CHANGES)
    )
    return {"seed": SEED, "pages": len(pages), **told, "changed": CHANGES, "noticed": noticed}


def main() -> None:
    told = counted()
    write_whole(Path(RESULTS / "provenance.json"), json.dumps(told, indent=1) + "\n")
    print(told)


if __name__ == "__main__":
    main()
