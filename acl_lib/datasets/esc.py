"""ESC-10 and ESC-50: environmental sounds of 5 s in 5 folds."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from tqdm import tqdm

from acl_lib.datasets.base import Corpus
from acl_lib.datasets.clips import Clip, CorpusNotFoundError, check_audio, sorted_clips
from acl_lib.datasets.download import fetch, matches
from acl_lib.datasets.tables import below, read_rows
from acl_lib.datasets.validation import ValidationReport

ESC10_TREE = (  # the last commit that holds the sounds
    "https://raw.githubusercontent.com/karolpiczak/ESC-10/553c8f1743b9dba6b282e1323c3ca8fa76923448"
)
ESC50_TREE = "https://raw.githubusercontent.com/karolpiczak/ESC-50/master"


class ESC10(Corpus):
    """400 clips of 10 classes (``001 - Dog bark/1-100032-A.ogg``) from 304 recordings.

    The first digit of a file name is the fold, the second number the Freesound id, the letter the
    take; takes of one recording share their ``source``.

    Source: Piczak 2015, ESC: Dataset for Environmental Sound Classification.
    """

    @classmethod
    def open(cls, root: Path | str, *, audio: str = "required") -> "ESC10":
        """Read the published folders; licences come from ATTRIBUTION.md or README.md if there.

        Args:
            root: folder that holds the ten class folders.
            audio: "required" raises when any of the 400 files is missing, "present" opens what is
                there, "optional" opens the published list without looking.

        Raises:
            CorpusNotFoundError: if files are missing.
        """
        root = Path(root).absolute()
        published = esc10_checksums()
        classes = tuple(sorted({_class_name(path) for path in published}))
        licences = _esc10_licences(root)
        clips = []
        for path in published:
            name = path.rpartition("/")[2]
            fold, freesound_id, _take = name.split("-")
            clips.append(
                Clip(
                    path=root / path,
                    label=classes.index(_class_name(path)),
                    source=f"{fold}-{freesound_id}",
                    fold=int(fold),
                    licence=licences.get(name, "CC BY 3.0 as a corpus"),
                )
            )
        remedy = (
            f"Download it with open_corpus('esc10', root={str(root)!r}, download=True), place the "
            "class folders there, or set ACL_DATA to the folder that holds esc10."
        )
        kept, notes = check_audio(sorted_clips(clips), audio=audio, corpus="esc10", remedy=remedy)
        return cls("esc10", root, classes, kept, notes)

    @classmethod
    def download(cls, root: Path | str, *, progress: bool = True) -> None:
        """Fetch the files that are missing or damaged, each checked against its git blob id."""
        checksums = {path: f"git:{blob}" for path, blob in esc10_checksums().items()}
        _fetch_all(ESC10_TREE, Path(root).absolute(), checksums, "ESC-10", progress)

    def validate(self, *, progress: bool = True) -> ValidationReport:
        """As for every corpus; and every file is compared with the published one."""
        report = super().validate(progress=progress)
        published = esc10_checksums()
        there = {self.relative_path(clip) for clip in self.clips if clip.path.is_file()}
        problems = tuple(
            f"{path} is not the published file"
            for path, blob in published.items()
            if path in there and not matches(self.root / path, f"git:{blob}")
        )
        return replace(report, problems=report.problems + problems)


class ESC50(Corpus):
    """2,000 clips of 50 classes; the subset "esc10" are ESC-10's recordings as wav.

    Source: Piczak 2015, in the layout of the corpus's repository: audio/ and meta/esc50.csv.
    """

    @classmethod
    def open(cls, root: Path | str, *, audio: str = "required") -> "ESC50":
        """Read meta/esc50.csv; source is fold and Freesound id.

        Args:
            root: folder that holds audio/ and meta/.
            audio: as in :meth:`ESC10.open`.

        Raises:
            CorpusNotFoundError: if the CSV or sound files are missing.
            ValueError: if the CSV lacks a column, or holds a row that cannot be read.
        """
        root = Path(root).absolute()
        table = root / "meta" / "esc50.csv"
        remedy = (
            f"Place the folder of the ESC-50 repository (audio/, meta/) at {root}, set ACL_DATA "
            "to the folder that holds esc50, or pass download=True."
        )
        if not table.is_file():
            raise CorpusNotFoundError(f"esc50 not found: no {table}. {remedy}")
        rows = list(read_rows(table, ("filename", "fold", "category", "esc10", "src_file")))
        if not rows:
            raise ValueError(f"{table} has no rows below its header")
        classes = tuple(sorted({row["category"] for _, row in rows}))
        number = {name: k for k, name in enumerate(classes)}
        clips = []
        for where, row in rows:
            if row["fold"] not in "12345":
                raise ValueError(f"{where}: folds are 1 to 5, got {row['fold']!r}")
            in_esc10 = row["esc10"] == "True"
            clips.append(
                Clip(
                    path=below(root / "audio", row["filename"], where=where),
                    label=number[row["category"]],
                    source=f"{row['fold']}-{row['src_file']}",
                    fold=int(row["fold"]),
                    subsets=frozenset({"esc10"} if in_esc10 else ()),
                    licence="CC BY" if in_esc10 else "CC BY-NC",
                )
            )
        kept, notes = check_audio(sorted_clips(clips), audio=audio, corpus="esc50", remedy=remedy)
        return cls("esc50", root, classes, kept, notes)

    @classmethod
    def download(cls, root: Path | str, *, progress: bool = True) -> None:
        """Fetch the files that are missing or damaged, each checked against its MD5.

        The author publishes no checksums; these are of the index of soundata, version 2.0.
        """
        checksums = {path: f"md5:{md5}" for path, md5 in esc50_checksums().items()}
        _fetch_all(ESC50_TREE, Path(root).absolute(), checksums, "ESC-50", progress)


def esc10_checksums() -> dict[str, str]:
    """Path below the corpus folder -> git blob id of ESC-10's 400 published files."""
    text = (files("acl_lib.datasets") / "checksums" / "esc10.txt").read_text(encoding="utf-8")
    lines = (line.split(" ", 2) for line in text.splitlines())  # id, bytes, path with spaces
    return {path: blob for blob, _, path in lines}


def esc50_checksums() -> dict[str, str]:
    """Path below the corpus folder -> MD5 of ESC-50's 2,000 sounds and their table."""
    text = (files("acl_lib.datasets") / "checksums" / "esc50.txt").read_text(encoding="utf-8")
    lines = (line.split(" ") for line in text.splitlines())
    return {path: md5 for md5, path in lines}


def _fetch_all(tree: str, root: Path, checksums: dict[str, str], name: str, progress: bool) -> None:
    def one(path: str) -> None:
        fetch(f"{tree}/{quote(path)}", root / path, checksum=checksums[path], progress=False)

    with ThreadPoolExecutor(8) as pool:
        jobs = pool.map(one, checksums)
        for _ in tqdm(jobs, name, len(checksums), unit=" files", disable=not progress):
            pass


def _class_name(path: str) -> str:
    return re.sub(r"^\d+ - ", "", path.partition("/")[0])


def _esc10_licences(root: Path) -> dict[str, str]:
    """File name -> licence; empty where the list of attributions was not copied along."""
    lists = (root / "ATTRIBUTION.md", root / "README.md")
    text = next((p.read_text(encoding="utf-8") for p in lists if p.is_file()), "")
    return dict(re.findall(r"^- \*\*\[(\S+?\.ogg)\].*\(\[(.+?)\]\(http://creative", text, re.M))
