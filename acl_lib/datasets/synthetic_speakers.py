"""SyntheticSpeakers: voices made on the spot, for verification; nothing to download."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import numpy as np
import soundfile
from numpy.random import SeedSequence, default_rng
from tqdm.auto import tqdm

from acl_lib.datasets import voices, waveforms
from acl_lib.datasets.base import cache_dir
from acl_lib.datasets.clips import Clip, check_audio, sorted_clips
from acl_lib.datasets.speakers import SpeakerCorpus
from acl_lib.datasets.voices import make_utterance, make_voice
from acl_lib.datasets.waveforms import SAMPLE_RATE

SPEAKERS = 40  # to train on; as many others to test on
UTTERANCES = {"quick": (10, 5), "laptop": (20, 5)}  # of a training speaker, of a test speaker
SECONDS = (1.5, 2.5)


class SyntheticSpeakers(SpeakerCorpus):
    """80 voices made by formulas: 40 to train on, 40 others to test on.

    Every utterance has a room, a microphone and a noise of its own; see
    :mod:`acl_lib.datasets.voices`.
    """

    @classmethod
    def open(
        cls,
        root: Path | str | None = None,
        *,
        profile: str = "quick",
        seed: int = 0,
        progress: bool = True,
    ) -> Self:
        """Find this corpus on disk, or make it there (about 27 ms of processor time a clip).

        Args:
            root: folder to keep it in, in a subfolder named by a hash of these options and of the
                generators' code; by default :func:`cache_dir`.
            profile: "quick" (10 utterances of each training speaker) or "laptop" (20); 5 of each
                test speaker; 1.5 to 2.5 s.
            seed: same seed, same bytes; any non-negative integer.
            progress: draw a progress bar while making it.

        Raises:
            ValueError: if the profile is unknown.
            CorpusNotFoundError: if files of it were deleted after it was made.
            OSError: if the folder cannot be written; nothing half-made is left behind.
        """
        if profile not in UTTERANCES:
            raise ValueError(f"unknown profile {profile!r}; there are {', '.join(UTTERANCES)}")
        plan = [
            (split, f"speaker {speaker + before:02d}", take)
            for before, split, takes in zip(
                (0, SPEAKERS), ("train", "test"), UTTERANCES[profile], strict=True
            )
            for speaker in range(SPEAKERS)
            for take in range(takes)
        ]
        home = (Path(root) if root is not None else cache_dir()).absolute()
        sources = (Path(module.__file__) for module in (waveforms, voices))
        code = [source.read_text(encoding="utf-8") for source in sources]
        key = hashlib.sha256(repr((plan, seed, SECONDS, code)).encode()).hexdigest()[:12]
        folder = home / f"synthetic-speakers-{key}"
        if not folder.is_dir():
            _speak(plan, seed, folder, progress=progress)
        names = tuple(sorted({speaker for _, speaker, _ in plan}))
        clips = [
            Clip(
                path=_place(folder, *row),
                label=names.index(row[1]),
                source=row[1],
                split=row[0],
                licence="CC0: made by acl_lib",
            )
            for row in plan
        ]
        kept, _ = check_audio(
            sorted_clips(clips),
            audio="required",
            corpus="synthetic_speakers",
            remedy=f"Delete {folder}, and the corpus is made again.",
        )
        note = f"voices made by formulas, seed {seed}; no speaker of the test is in the training"
        return cls("synthetic_speakers", folder, names, kept, (note,))

    def fingerprint(self) -> str:
        """As for every corpus, and of the generators' code: lengths alone do not show a change."""
        return hashlib.sha256(f"{super().fingerprint()} {self.root.name}".encode()).hexdigest()[:16]


def _place(folder: Path, split: str, speaker: str, take: int) -> Path:
    return folder / split / speaker / f"{take:02d}.wav"


def _speak(plan: list[tuple[str, str, int]], seed: int, folder: Path, *, progress: bool) -> None:
    """Make all files in a temporary folder beside ``folder``, then give it its name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.part.") as temporary:
        part = Path(temporary) / folder.name

        def make(row: tuple[str, str, int]) -> None:
            split, speaker, take = row
            person = [seed, int(speaker.split()[1])]
            voice = make_voice(default_rng(SeedSequence(person)))
            rng = default_rng(SeedSequence([*person, take]))  # its own: the order does not matter
            wav = make_utterance(voice, rng, seconds=rng.uniform(*SECONDS))
            path = _place(part, split, speaker, take)
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.round(wav * 32_767).astype(np.int16), SAMPLE_RATE)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = pool.map(make, plan)
            list(tqdm(jobs, "synthetic speakers", len(plan), unit="clip", disable=not progress))
        try:
            os.replace(part, folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, with the same bytes
                raise
