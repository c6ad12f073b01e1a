"""A reader's own sounds: one folder per class, or a CSV."""

import re
from pathlib import Path

from acl_lib.datasets.base import Corpus
from acl_lib.datasets.clips import Clip, CorpusNotFoundError, check_audio, sorted_clips
from acl_lib.datasets.tables import below, read_rows

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


class AudioFolder(Corpus):
    """Sounds of your own, with or without folds and sources."""

    @classmethod
    def open(
        cls, root: Path | str, *, name: str | None = None, audio: str = "required"
    ) -> "AudioFolder":
        """Read ``root/class_name/*.wav`` (flac, ogg, mp3), or a CSV ``path,label[,fold][,source]``.

        Args:
            root: folder of class folders, or the CSV itself; its paths count from its own folder.
                Without a source column, every file is a recording of its own.
            name: name of the corpus, in records and caches; by default that of the folder or CSV
                as one word: ``my birds.csv`` is my_birds.
            audio: for a CSV, as in :meth:`ESC10.open`.

        Raises:
            CorpusNotFoundError: if ``root`` or files of the CSV are missing.
            ValueError: if a class folder is empty, or the CSV lacks a column or a value.
        """
        root = Path(root).expanduser().absolute()
        own = root.stem if root.is_file() else root.name
        name = name or re.sub(r"\W+", "_", own).strip("_") or "folder"
        if root.is_file():
            rows, root = _csv_rows(root), root.parent
        elif root.is_dir():
            rows = _folder_rows(root)
        else:
            raise CorpusNotFoundError(f"no folder or CSV at {root}: pass root=<your sounds>")
        classes = tuple(sorted({row["label"] for row in rows}))
        number = {label: k for k, label in enumerate(classes)}
        clips = [
            Clip(
                path=root / row["path"],
                label=number[row["label"]],
                source=row.get("source") or row["path"],
                fold=int(row["fold"]) if row.get("fold") else None,
            )
            for row in rows
        ]
        kept, notes = check_audio(
            sorted_clips(clips), audio=audio, corpus=name, remedy="Correct the CSV's paths."
        )
        return cls(name, root, classes, kept, notes)


def _folder_rows(root: Path) -> list[dict[str, str]]:
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise ValueError(f"{root} holds no class folders: put your sounds in {root}/<class>/")
    rows = []
    for folder in folders:
        sounds = [
            p
            for p in folder.iterdir()
            if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
        ]
        if not sounds:
            raise ValueError(
                f"class folder {folder} holds no {', '.join(SUFFIXES)} file: fill or remove it"
            )
        rows += [{"path": f"{folder.name}/{p.name}", "label": folder.name} for p in sounds]
    return rows


def _csv_rows(path: Path) -> list[dict[str, str]]:
    rows = []
    for where, row in read_rows(path, ("path", "label")):
        row["path"] = row["path"].replace("\\", "/")  # written on Windows
        below(path.parent, row["path"], where=where)
        if row.get("fold") and not re.fullmatch("[0-9]{1,9}", row["fold"]):
            raise ValueError(f"{where}: need a whole number as fold, got {row['fold']!r}")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} has no rows below its header: one line path,label per sound")
    return rows
