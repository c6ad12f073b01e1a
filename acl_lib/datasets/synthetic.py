"""SyntheticEvents: a corpus made on the spot, in FSDnoisy18k's layout; nothing to download."""

import csv
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import numpy as np
import soundfile
from numpy.random import SeedSequence, default_rng
from tqdm.auto import tqdm

from acl_lib.datasets import synthesis, waveforms
from acl_lib.datasets.base import Corpus, cache_dir
from acl_lib.datasets.clips import CorpusNotFoundError
from acl_lib.datasets.fsdnoisy18k import FSDnoisy18k
from acl_lib.datasets.synthesis import CLASSES, OUTSIDE, clip_seconds, make_clip
from acl_lib.datasets.waveforms import SAMPLE_RATE

LAYOUT = 1  # to be raised when files are named, written or described in another way
PROFILES = {"quick": 400, "laptop": 2000}  # clips
# noisy is what test and clean leave, noisy_small a part of it
SHARES = {"test": 0.3, "clean": 0.4, "noisy_small": 0.15}


@dataclass(frozen=True)
class Row:
    """One sound file to be made: what its label says, and what it really is."""

    label: str
    kind: str  # a class, or a kind of sound outside the vocabulary
    noise: str  # "none", "in_vocabulary" or "out_of_vocabulary"
    subset: str  # "test", "clean", "noisy_small", or "noisy" for the rest of noisy


class SyntheticEvents(Corpus):
    """20 classes of artificial sound events, with FSDnoisy18k's subsets and label noise.

    Half of the classes come in pairs that are each other's time reversal (see
    :mod:`acl_lib.datasets.synthesis`), so that statistics over time cannot tell them apart and
    learning to look along time pays. Test and clean labels are true; test is balanced exactly.
    """

    @classmethod
    def open(
        cls,
        root: Path | str | None = None,
        *,
        profile: str = "quick",
        seed: int = 0,
        clips: int | None = None,
        in_vocabulary: float = 0.2,
        out_of_vocabulary: float = 0.4,
        progress: bool = True,
    ) -> Self:
        """Find this corpus on disk, or make it there (about 20 ms of processor time a clip).

        Args:
            root: folder to keep it in, in a subfolder named by a hash of these options and of the
                generators' code; by default :func:`cache_dir`.
            profile: "quick" (400 clips) or "laptop" (2,000); 3 s a clip on average, 0.3 to 30 s.
            seed: same seed, same bytes; any non-negative integer.
            clips: number of clips, in place of the profile's; at least 60, so that each class
                occurs in each subset.
            in_vocabulary: fraction of the noisy clips whose label is another class's.
            out_of_vocabulary: fraction of the noisy clips that are no sound of the 20 classes. In
                total about 60 % of FSDnoisy18k's noisy labels show noise.
            progress: draw a progress bar while making it.

        Raises:
            ValueError: if the profile is unknown, clips < 60, or the fractions are no fractions.
            CorpusNotFoundError: if files of it were deleted after it was made.
            OSError: if the folder cannot be written; nothing half-made is left behind.
        """
        if profile not in PROFILES:
            raise ValueError(f"unknown profile {profile!r}; there are {', '.join(PROFILES)}")
        rows = plan(
            PROFILES[profile] if clips is None else clips,
            seed=seed,
            in_vocabulary=in_vocabulary,
            out_of_vocabulary=out_of_vocabulary,
        )
        home = (Path(root) if root is not None else cache_dir()).absolute()
        folder = home / f"synthetic-{_key(rows, seed)}"
        if not folder.is_dir():
            _write(rows, seed, folder, progress=progress)
        try:
            read = FSDnoisy18k.open(folder, name="synthetic")
        except CorpusNotFoundError as error:
            raise CorpusNotFoundError(
                f"{folder} has lost files: delete it, and the corpus is made again"
            ) from error
        note = (
            f"synthetic sounds, seed {seed}; of the noisy labels {in_vocabulary:.0%} name another "
            f"class and {out_of_vocabulary:.0%} stand on a sound outside the vocabulary"
        )
        made = tuple(replace(clip, licence="CC0: made by acl_lib") for clip in read.clips)
        return cls(read.name, read.root, read.classes, made, (*read.notes, note))

    def fingerprint(self) -> str:
        """As for every corpus, and of the generators' code: lengths alone do not show a change."""
        return hashlib.sha256(f"{super().fingerprint()} {self.root.name}".encode()).hexdigest()[:16]


open_synthetic = SyntheticEvents.open


def plan(
    clips: int, *, seed: int, in_vocabulary: float, out_of_vocabulary: float
) -> tuple[Row, ...]:
    """Which sounds to make, in random order: counts are exact, only who is hit is drawn.

    Labels are spread evenly over the classes in each subset, before noise.

    Raises:
        ValueError: see :meth:`SyntheticEvents.open`.
    """
    if clips < 3 * len(CLASSES):
        raise ValueError(f"need at least {3 * len(CLASSES)} clips (3 a class); got {clips}")
    if min(in_vocabulary, out_of_vocabulary) < 0 or in_vocabulary + out_of_vocabulary > 1:
        raise ValueError(
            "in_vocabulary and out_of_vocabulary are fractions of the noisy clips, together at "
            f"most 1; got {in_vocabulary} and {out_of_vocabulary}"
        )
    rng = default_rng(SeedSequence([seed, clips]))  # clips themselves are seeded by 0..clips - 1
    names = tuple(CLASSES)
    counts = {s: len(names) * max(1, round(v * clips / len(names))) for s, v in SHARES.items()}
    noisy = clips - counts["test"] - counts["clean"]
    small = min(counts["noisy_small"], noisy)
    labels = [names[i % len(names)] for i in range(noisy)]
    hit = rng.permutation(noisy)
    flips, outside = round(in_vocabulary * noisy), round(out_of_vocabulary * noisy)
    rows = [Row(name, name, "none", "noisy") for name in labels]
    for i in hit[:flips]:
        others = [name for name in names if name != labels[i]]
        kind = others[rng.integers(len(others))]
        rows[i] = Row(labels[i], kind, "in_vocabulary", "noisy")
    for k, i in enumerate(hit[flips : flips + outside]):
        kind = tuple(OUTSIDE)[k % len(OUTSIDE)]
        rows[i] = Row(labels[i], kind, "out_of_vocabulary", "noisy")
    rows[:small] = [replace(row, subset="noisy_small") for row in rows[:small]]
    for subset in ("clean", "test"):
        rows += [Row(n, n, "none", subset) for n in names * (counts[subset] // len(names))]
    return tuple(rows[i] for i in rng.permutation(clips))


def _key(rows: Sequence[Row], seed: int) -> str:
    """Changes with the plan, the seed and the code that makes sounds, not with this module's."""
    sources = (Path(module.__file__) for module in (waveforms, synthesis))
    code = [source.read_text(encoding="utf-8") for source in sources]
    return hashlib.sha256(repr((LAYOUT, tuple(rows), seed, code)).encode()).hexdigest()[:12]


def _write(rows: Sequence[Row], seed: int, folder: Path, *, progress: bool) -> None:
    """Make all files in a temporary folder beside ``folder``, then give it its name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.part.") as temporary:
        part = Path(temporary) / folder.name
        for name in ("audio_train", "audio_test", "meta"):
            (part / f"FSDnoisy18k.{name}").mkdir(parents=True)

        def make(i: int) -> None:
            rng = default_rng(SeedSequence([seed, i]))  # its own, so the order does not matter
            wav = make_clip(rows[i].kind, rng, seconds=clip_seconds(rng))
            split = "test" if rows[i].subset == "test" else "train"
            pcm = np.round(wav * 32_767).astype(np.int16)
            soundfile.write(part / f"FSDnoisy18k.audio_{split}" / _fname(i), pcm, SAMPLE_RATE)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            done = pool.map(make, range(len(rows)))
            list(tqdm(done, "synthetic corpus", len(rows), unit="clip", disable=not progress))
        _write_metadata(rows, part / "FSDnoisy18k.meta")
        try:
            os.replace(part, folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, with the same bytes
                raise


def _fname(i: int) -> str:
    return f"{i:05d}.wav"


def _write_metadata(rows: Sequence[Row], meta: Path) -> None:
    """The published columns; aso_id (a node of Google's AudioSet) has no value for these sounds."""
    named = [(_fname(i), row) for i, row in enumerate(rows)]
    tables = {
        "train.csv": [("fname", "label", "aso_id", "manually_verified", "noisy_small")]
        + [
            (f, r.label, "", int(r.subset == "clean"), int(r.subset == "noisy_small"))
            for f, r in named
            if r.subset != "test"
        ],
        "test.csv": [("fname", "label", "aso_id")]
        + [(f, r.label, "") for f, r in named if r.subset == "test"],
        "truth.csv": [("fname", "true_label", "noise")] + [(f, r.kind, r.noise) for f, r in named],
    }
    for name, table in tables.items():
        with (meta / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(table)
