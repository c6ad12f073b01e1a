"""What is installed for the project, under which licences: the table of constraints.txt.

python benchmarks/dependencies.py             # write the table anew
python benchmarks/dependencies.py --changed   # which installed versions are others than pinned

Reads constraints.txt and what the installed packages say of themselves, and asks no network. Writes
book/results/dependencies.csv, which the page "What this stands on" shows. A package that only
another system needs, and that is not installed here, keeps what the table said of it before.
"""

import argparse
import csv
import importlib.metadata
import re
import tomllib
from collections import Counter
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from acl_lib.whole import whole

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "book" / "results" / "dependencies.csv"

# Older packages name their licence in words of their own; SPDX's word for each.
WORDS = {
    r"3.Clause|^BSD-3$": "BSD-3-Clause",
    r"2.Clause": "BSD-2-Clause",
    r"Apache": "Apache-2.0",
    r"MPL.2|Mozilla Public License 2": "MPL-2.0",
    r"\bMIT\b": "MIT",
    r"\bISC\b": "ISC",
    r"PSF|Python Software Foundation": "PSF-2.0",
    r"NVIDIA|Proprietary": "LicenseRef-NVIDIA-Proprietary",
}
# What the metadata does not say, or says of the Python code alone; read in the packages themselves.
ALSO = {
    "cuda-toolkit": "no files of its own: it names NVIDIA's packages",
    "docutils": "one tool of it is under the GPL; the book does not use it",
    "soundfile": "its wheels hold libsndfile (LGPL-2.1-or-later) as a library of its own",
}
COPYLEFT = re.compile(r"\b(A?GPL|LGPL|MPL|EPL|CDDL|EUPL)\b")
FIELDS = ("package", "version", "named by", "licence", "note", "read from", "what it says it is")


def pins() -> dict[str, str]:
    """Package -> version, as constraints.txt has them."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    plain = [line.split("#")[0].strip() for line in lines]
    return {canonicalize_name(n): v for n, v in (line.split("==") for line in plain if line)}


def asked_for() -> dict[str, str]:
    """Package named in pyproject.toml -> the part of the project that wants it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"library": project["dependencies"], **project["optional-dependencies"]}
    return {canonicalize_name(Requirement(r).name): k for k, some in groups.items() for r in some}


def licence(package: importlib.metadata.Distribution) -> tuple[str, str]:
    """A package's licence in SPDX's words where it can be said so, and where that is read from.

    The expression of the metadata counts first, then its free text, then its classifiers. Which BSD
    licence "BSD" is, the licence file tells: only that of three clauses names the contributors.
    """
    said = package.metadata
    if expression := said.get("License-Expression"):
        return expression, "expression"
    text = (said.get("License") or "").strip().partition("\n")[0][:80]
    if re.fullmatch(r"[A-Za-z]+-[\d.]+(-\w+)*( (AND|OR) [\w.-]+)*", text):
        return text, "text"
    classifiers = [c for c in said.get_all("Classifier") or [] if c.startswith("License ::")]
    words = [c.split(" :: ")[-1] for c in classifiers]
    if len(words) > 1:
        return " / ".join(words), "classifiers"
    for source, told in (("text", text), ("classifiers", " ".join(words))):
        for pattern, spdx in WORDS.items():
            if re.search(pattern, told, re.I):
                return spdx, source
    for file in package.files or []:
        if re.match(r"(?i)(licen[cs]e|copying)", file.name) and file.suffix != ".py":
            whole = " ".join(file.read_text(encoding="utf-8").split())
            if re.search(r"(?i)neither the name|names? of .{0,80}contributors may", whole):
                return "BSD-3-Clause", "licence file"
            if "Redistributions in binary form" in whole:
                return "BSD-2-Clause", "licence file"
    return ("BSD", "classifiers") if "BSD" in f"{text} {words}" else ("not said", "")


def table(known: dict[str, dict]) -> list[dict]:
    """A row for each pinned package: those that the project names first.

    Args:
        known: rows of an earlier record by name, for packages that are not installed here.
    """
    installed = {
        canonicalize_name(d.metadata["Name"]): d for d in importlib.metadata.distributions()
    }
    wanted, rows = asked_for(), []
    for name, version in pins().items():
        if name in installed:
            said, source = licence(installed[name])
            use = " ".join((installed[name].metadata.get("Summary") or "").split())[:120]
        else:
            before = known.get(name, {})
            said, source = before.get("licence", "not said"), before.get("read from", "")
            use = before.get("what it says it is", "")
        note = [ALSO[name]] if name in ALSO else []
        if COPYLEFT.search(said):
            note.append("copyleft: its own files stay under it; here it is used, not changed")
        if "Proprietary" in said:
            note.append("not free software; comes with PyTorch for CUDA on Linux, not with --cpu")
        row = (name, version, wanted.get(name, ""), said, "; ".join(note), source, use)
        rows.append(dict(zip(FIELDS, row, strict=True)))
    return sorted(rows, key=lambda row: (not row["named by"], row["named by"], row["package"]))


def changed() -> list[tuple[str, str, str]]:
    """Package, pinned version, installed version, of those that differ; new ones have no pin."""
    pinned = pins()
    found = {
        canonicalize_name(d.metadata["Name"]): Version(d.version).public  # 2.11.0+cpu is 2.11.0
        for d in importlib.metadata.distributions()
    }
    mine = {"acl-lib", "pip"}
    return [
        (name, pinned.get(name, "none"), found[name])
        for name in sorted(found.keys() - mine)
        if name not in pinned or Version(pinned[name]) != Version(found[name])
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("record", nargs="?", type=Path, default=RECORD)
    parser.add_argument("--changed", action="store_true", help="print them, write nothing")
    options = parser.parse_args()
    if options.changed:
        print("| package | constraints.txt | installed |\n| --- | --- | --- |")
        print(*(f"| {' | '.join(row)} |" for row in changed()), sep="\n")
        return
    path = options.record
    known = {}
    if RECORD.exists():
        with RECORD.open(newline="", encoding="utf-8") as file:
            known = {row["package"]: row for row in csv.DictReader(file)}
    rows = table(known)
    with whole(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for name, count in Counter(row["licence"] for row in rows).most_common():
        print(f"{count:4d}  {name}")


if __name__ == "__main__":
    main()
