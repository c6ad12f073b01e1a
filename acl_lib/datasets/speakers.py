"""Corpora of speakers, for verification: who is tested is heard in no training."""

import itertools
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Self

from tqdm.auto import tqdm

from acl_lib.datasets.base import Corpus
from acl_lib.datasets.clips import Clip, CorpusNotFoundError, check_audio, sorted_clips
from acl_lib.datasets.download import fetch

FSDD_TREE = (
    "https://raw.githubusercontent.com/Jakobovski/free-spoken-digit-dataset/"
    "26eb9aaf76e81b692f806f9140c2d2777410d7a1"
)


@dataclass(frozen=True, repr=False)
class SpeakerCorpus(Corpus):
    """Clips labelled by who speaks; asked whether two clips are of one speaker."""

    task: str = "verification"


class FSDD(SpeakerCorpus):
    """Spoken digits of six speakers at 8 kHz, 0.14 to 2.3 s; too few to judge a method by.

    Tested are all 15 pairs of speakers, each with a network that has heard the other four.

    Source: Jackson and others, Free Spoken Digit Dataset; ``recordings/7_jackson_32.wav`` is the
    digit, the speaker, the take.
    """

    @classmethod
    def open(cls, root: Path | str, *, audio: str = "present") -> Self:
        """Read ``root/recordings``.

        Args:
            root: folder that holds recordings/.
            audio: as in :meth:`ESC10.open`; by default what is there of the published 3,000.

        Raises:
            CorpusNotFoundError: if files are missing.
        """
        root = Path(root).absolute()
        published = sorted(fsdd_checksums())
        names = tuple(sorted({path.split("_")[1] for path in published}))
        clips = [
            Clip(
                path=root / path,
                label=names.index(path.split("_")[1]),
                source=path.split("_")[1],
                licence="CC BY-SA 4.0",
            )
            for path in published
        ]
        remedy = (
            f"Download it with open_corpus('fsdd', root={str(root)!r}, download=True), place the "
            "folder recordings there, or set ACL_DATA to the folder that holds fsdd."
        )
        kept, notes = check_audio(sorted_clips(clips), audio=audio, corpus="fsdd", remedy=remedy)
        pairs = tuple(itertools.combinations(names, 2))
        return cls("fsdd", root, names, kept, notes, holdouts=pairs)

    @classmethod
    def download(cls, root: Path | str, *, progress: bool = True) -> None:
        """Fetch the files that are missing or damaged, each checked against its git blob id."""
        root, published = Path(root).absolute(), fsdd_checksums()

        def one(item: tuple[str, str]) -> None:
            path, blob = item
            fetch(f"{FSDD_TREE}/{path}", root / path, checksum=f"git:{blob}", progress=False)

        with ThreadPoolExecutor(8) as pool:
            jobs = pool.map(one, published.items())
            for _ in tqdm(jobs, "FSDD", len(published), unit=" files", disable=not progress):
                pass


class VoxCeleb1(SpeakerCorpus):
    """Celebrities in interviews, 16 kHz: 1,211 speakers to train on, the 40 of VoxCeleb1-O to test.

    Expected are ``wav/id10001/<video>/00001.wav`` and the official trial list ``veri_test.txt`` (or
    ``veri_test2.txt``, the cleaned one); the folder wav may also lie in dev/ and test/. Speakers of
    the list are tested, all others train.

    Source: Nagrani and others 2017. The data set has to be asked for.
    """

    @classmethod
    def open(cls, root: Path | str, *, trials: str = "veri_test.txt") -> Self:
        """Read what is below ``root``.

        Args:
            root: folder that holds wav/, or dev/wav/ and test/wav/, and the trial list.
            trials: name of the list: lines of ``1 id10270/a/00001.wav id10270/b/00002.wav``, 1 for
                the same speaker, 0 for two.

        Raises:
            CorpusNotFoundError: if the list, or a file of it, or all training speakers are missing.
            ValueError: if a line of the list cannot be read.
        """
        root = Path(root).absolute()
        remedy = f"Place wav/ and the trial list {trials} of VoxCeleb1 at {root}."
        table = root / trials
        if not table.is_file():
            raise CorpusNotFoundError(f"voxceleb1 not found: no {table}. {remedy}")
        homes = [home for part in ("", "dev", "test") if (home := root / part / "wav").is_dir()]
        found = {
            path.relative_to(home).as_posix(): path
            for home in homes
            for path in home.glob("id*/*/*.wav")
        }
        pairs = []
        for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), 1):
            if not (match := re.fullmatch(r"([01]) (\S+/\S+/\S+) (\S+/\S+/\S+)", line.strip())):
                raise ValueError(f"{table}, line {number}: need '0 or 1, file, file', got {line!r}")
            same, a, b = match.groups()
            if (same == "1") != (a.split("/")[0] == b.split("/")[0]):
                raise ValueError(f"{table}, line {number}: {line!r} contradicts its own speakers")
            pairs.append((a, b))
        wanted = sorted({name for pair in pairs for name in pair})
        tested = {name.split("/")[0] for name in wanted}
        if lacking := [name for name in wanted if name not in found]:
            raise CorpusNotFoundError(
                f"{len(lacking)} of {len(wanted)} files of {table.name} are missing, such as "
                f"{lacking[0]}. {remedy}"
            )
        speakers = tuple(sorted({name.split("/")[0] for name in found}))
        if not set(speakers) - tested:
            raise CorpusNotFoundError(f"voxceleb1 has no speaker to train on. {remedy}")
        number = {speaker: i for i, speaker in enumerate(speakers)}
        clips = sorted_clips(
            Clip(
                path=path,
                label=number[speaker := name.split("/")[0]],
                source=speaker,
                split="test" if speaker in tested else "train",
                licence="as of its videos",
            )
            for name, path in found.items()
            if name.split("/")[0] not in tested or name in set(wanted)
        )
        place = {clip.path: i for i, clip in enumerate(clips)}
        listed = tuple((place[found[a]], place[found[b]]) for a, b in pairs)
        return cls("voxceleb1", root, speakers, clips, trials=listed)


def fsdd_checksums() -> dict[str, str]:
    """Path below the corpus folder -> git blob id of FSDD's 3,000 published files."""
    text = (files("acl_lib.datasets") / "checksums" / "fsdd.txt").read_text(encoding="utf-8")
    lines = (line.split(" ") for line in text.splitlines())  # id, bytes, path
    return {path: blob for blob, _, path in lines}
