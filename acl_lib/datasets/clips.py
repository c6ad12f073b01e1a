"""One clip, and whether its sound file is there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


class CorpusNotFoundError(FileNotFoundError):
    """A corpus or some of its files are missing; the message says what to do."""


@dataclass(frozen=True)
class Clip:
    """One sound file and what is known about it.

    Args:
        path: absolute path of the sound file.
        label: index into the corpus's ``classes``, as the corpus (or injected noise) says.
        source: recording or speaker the clip was cut from; clips of one source are not independent.
        fold: 1, 2, ... in corpora made for cross-validation.
        split: "train" or "test" where the corpus has an official split.
        subsets: named parts the clip belongs to, such as "noisy_small".
        licence: licence of this clip, as far as the corpus tells.
        true_label: index into ``classes``, only where noise was injected or the corpus is
            synthetic; None is unknown, or a sound of none of the classes.
    """

    path: Path
    label: int
    source: str
    fold: int | None = None
    split: str | None = None
    subsets: frozenset[str] = frozenset()
    licence: str = ""
    true_label: int | None = None


def sorted_clips(clips: Iterable[Clip]) -> tuple[Clip, ...]:
    """Clips in the order of their paths, whatever the order of the file system."""
    return tuple(sorted(clips, key=lambda clip: clip.path.as_posix()))


def check_audio(
    clips: Sequence[Clip], *, audio: str, corpus: str, remedy: str
) -> tuple[tuple[Clip, ...], tuple[str, ...]]:
    """Clips to keep, and a note, when some of the announced sound files are missing.

    Args:
        clips: what the metadata announces.
        audio: "required" refuses missing files, "present" drops their clips and says so in a
            note, "optional" looks at no file (metadata only: to count, not to listen).
        corpus: name for the messages.
        remedy: sentence that says how to get the files.

    Raises:
        CorpusNotFoundError: if files are missing and required, or all are missing.
        ValueError: if ``audio`` is none of the three words.
    """
    if audio not in ("required", "present", "optional"):
        raise ValueError(f"audio is 'required', 'present' or 'optional', got {audio!r}")
    if audio == "optional":
        return tuple(clips), ()
    there = [clip.path.is_file() for clip in clips]
    if all(there):
        return tuple(clips), ()
    kept = tuple(clip for clip, is_there in zip(clips, there, strict=True) if is_there)
    names = [clip.path.name for clip, is_there in zip(clips, there, strict=True) if not is_there]
    listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    missing = f"{len(names)} of {len(clips)} sound files of {corpus} are missing ({listed})"
    if audio == "required" or not kept:
        where = ", ".join(sorted({str(clip.path.parent) for clip in clips})[:3])
        raise CorpusNotFoundError(
            f"{missing}; looked in {where}. {remedy} "
            "audio='present' goes on without them, audio='optional' reads the metadata only."
        )
    return kept, (f"{missing} and were left out",)
