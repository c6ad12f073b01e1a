"""FSDnoisy18k: 20 classes from Freesound, most labels unverified; and corpora in its layout."""

from dataclasses import replace
from pathlib import Path

from acl_lib.datasets.base import Corpus
from acl_lib.datasets.clips import Clip, CorpusNotFoundError, check_audio, sorted_clips
from acl_lib.datasets.download import fetch, unpack
from acl_lib.datasets.tables import below, read_rows
from acl_lib.datasets.validation import ValidationReport

RECORD = "https://zenodo.org/record/2529934/files"
ARCHIVES = {  # folder -> MD5 of its zip, as published with Zenodo record 2529934
    "FSDnoisy18k.meta": "96e27a4a63b7a2870522ddcedb5d8296",
    "FSDnoisy18k.doc": "093a1ca185ec341ca4eac14215e7f96b",
    "FSDnoisy18k.audio_test": "1ac73d70b4ef3f81900d98c261a832de",
    "FSDnoisy18k.audio_train": "34dc1d34ca44622af5bf439ceb6f0d55",
}
PUBLISHED = {"all": 17585, "clean": 1772, "noisy": 15813, "noisy_small": 1003, "test": 947}
TRAIN_COLUMNS = ("fname", "label", "manually_verified", "noisy_small")


class FSDnoisy18k(Corpus):
    """Sound events with real label noise: train clips (clean and noisy) and a clean test split.

    Subsets: "all" (every train clip), "clean" (label verified by a person), "noisy" (not
    verified), "noisy_small" (part of noisy, as long as clean in total), "test".

    Source: Fonseca et al. 2019, Zenodo record 2529934. We deviate in one point: files that stand
    in both train.csv and test.csv are dropped from training, and named in ``notes``.
    """

    @classmethod
    def open(
        cls, root: Path | str, *, name: str = "fsdnoisy18k", audio: str = "required"
    ) -> "FSDnoisy18k":
        """Read the official layout below ``root``; other class lists and sizes are welcome.

        Args:
            root: folder that holds FSDnoisy18k.meta, .audio_train and .audio_test. Where
                FSDnoisy18k.meta/truth.csv (fname,true_label) exists it fills ``true_label``; a
                name that is no class, or none, is a sound out of the vocabulary.
            name: name of the corpus read.
            audio: what to do about missing sound files: "required" raises, "present" drops their
                clips, "optional" opens the metadata without looking.

        Raises:
            CorpusNotFoundError: if metadata or sound files are missing.
            ValueError: if a CSV lacks a column or holds a value that cannot be read.
        """
        root = Path(root).absolute()
        meta = root / "FSDnoisy18k.meta"
        remedy = (
            f"Download it with open_corpus({name!r}, root={str(root)!r}, download=True) or place "
            "the folders FSDnoisy18k.meta, FSDnoisy18k.audio_train and FSDnoisy18k.audio_test "
            "(Zenodo record 2529934) there, or set ACL_DATA to the folder above it."
        )
        if not ((meta / "train.csv").is_file() and (meta / "test.csv").is_file()):
            raise CorpusNotFoundError(f"{name}: no train.csv and test.csv in {meta}. {remedy}")
        train = _read(meta / "train.csv", TRAIN_COLUMNS)
        test = _read(meta / "test.csv", TRAIN_COLUMNS[:2])
        twice = sorted(train.keys() & test.keys())
        notes = tuple(
            f"{f} stands in train ({train[f]['label']}) and in test ({test[f]['label']}): "
            "dropped from training"
            for f in twice
        )
        classes = tuple(sorted({row["label"] for row in (*train.values(), *test.values())}))
        number = {label: k for k, label in enumerate(classes)}
        truth_csv = meta / "truth.csv"
        truth = _read(truth_csv, ("fname", "true_label")) if truth_csv.is_file() else {}

        def clip(fname: str, row: dict[str, str], split: str, subsets: set[str]) -> Clip:
            return Clip(
                path=root / f"FSDnoisy18k.audio_{split}" / fname,
                label=number[row["label"]],
                source=Path(fname).stem,  # the Freesound id
                split=split,
                subsets=frozenset(subsets),
                licence="CC BY or CC0, clip by clip in FSDnoisy18k.doc",
                true_label=number.get(truth[fname]["true_label"]) if fname in truth else None,
            )

        clips = [clip(f, row, "test", {"test"}) for f, row in test.items()]
        clips += [
            clip(f, row, "train", _subsets(row, meta / "train.csv"))
            for f, row in train.items()
            if f not in test
        ]
        kept, missing = check_audio(sorted_clips(clips), audio=audio, corpus=name, remedy=remedy)
        return cls(name, root, classes, kept, notes + missing)

    @classmethod
    def download(cls, root: Path | str, *, progress: bool = True) -> None:
        """Fetch and unpack the archives whose folders are not below ``root`` yet."""
        root = Path(root).absolute()
        for folder, md5 in ARCHIVES.items():
            if (root / folder).is_dir():
                continue
            archive = root / f"{folder}.zip"
            fetch(
                f"{RECORD}/{archive.name}?download=1",
                archive,
                checksum=f"md5:{md5}",
                progress=progress,
            )
            unpack(archive, root / folder, progress=progress)
            archive.unlink()  # 13 GB of sound need not lie there twice

    def validate(self, *, progress: bool = True) -> ValidationReport:
        """As for every corpus; and the rows of the published CSVs are counted."""
        report = super().validate(progress=progress)
        if self.name != "fsdnoisy18k":
            return report
        meta = self.root / "FSDnoisy18k.meta"
        rows = [
            _subsets(row, meta / "train.csv")
            for row in _read(meta / "train.csv", TRAIN_COLUMNS).values()
        ]
        found = {name: sum(name in subsets for subsets in rows) for name in PUBLISHED}
        found["test"] = len(_read(meta / "test.csv", TRAIN_COLUMNS[:2]))
        problems = tuple(
            f"{name}: {found[name]} rows in the CSV, published {count}"
            for name, count in PUBLISHED.items()
            if found[name] != count
        )
        return replace(report, problems=report.problems + problems)


def _subsets(row: dict[str, str], path: Path) -> set[str]:
    flags = row["manually_verified"], row["noisy_small"]
    if not set(flags) <= {"0", "1"}:
        raise ValueError(f"{path}, {row['fname']}: flags are 0 or 1, got {flags}")
    verified, small = flags
    subsets = {"all", "clean" if verified == "1" else "noisy"}
    return subsets | {"noisy_small"} if small == "1" else subsets


def _read(path: Path, columns: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Rows of a CSV by file name, each with at least the given columns."""
    rows: dict[str, dict[str, str]] = {}
    for where, row in read_rows(path, columns, may_be_empty=("true_label",)):
        if row["fname"] in rows:
            raise ValueError(f"{where}: {row['fname']} is named twice")
        below(path.parent, row["fname"], where=where)
        rows[row["fname"]] = row
    return rows
