"""What a corpus is: clips in a fixed order, with the names of their classes."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from acl_lib.datasets.clips import Clip
from acl_lib.datasets.validation import ValidationReport, validate


def data_dir() -> Path:
    """Absolute folder that holds one folder per corpus: ``$ACL_DATA``, else ``data``."""
    return Path(os.environ.get("ACL_DATA") or "data").expanduser().absolute()


def cache_dir() -> Path:
    """Absolute folder for what can be computed again: ``$ACL_CACHE``, else ``cache``."""
    return Path(os.environ.get("ACL_CACHE") or "cache").expanduser().absolute()


@dataclass(frozen=True, repr=False)
class Corpus:
    """Clips in a fixed order (by path below ``root``), with the names of their classes.

    Args:
        name: short name, as ``open_corpus`` takes it.
        root: absolute folder below which the sound files lie.
        classes: class names in alphabetical order; ``Clip.label`` counts them from 0.
        clips: the clips.
        notes: what was changed on the way from the published corpus to this one.
        task: what a test asks: "classification", which class a clip is of; or "verification",
            whether two clips are of one class, that no training has heard.
        holdouts: of "verification" without an official split: which sources are tested together,
            one split for each; training hears the others.
        trials: of "verification": the pairs of clips that are asked about, by index; all pairs of
            a test when empty.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]
    notes: tuple[str, ...] = ()
    task: str = "classification"
    holdouts: tuple[tuple[str, ...], ...] = ()
    trials: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return len(self.clips)

    def __repr__(self) -> str:  # 18,000 clips would fill the page
        folds = f", {len(self.folds)} folds" if self.folds else ""
        return (
            f"<{type(self).__name__} {self.name}: {len(self)} clips, {len(self.classes)} classes, "
            f"{len(self.sources)} sources{folds}>"
        )

    @property
    def labels(self) -> Int64[Tensor, " N"]:
        """Class index of every clip."""
        return torch.tensor([clip.label for clip in self.clips], dtype=torch.long)

    @property
    def folds(self) -> tuple[int, ...]:
        """Fold numbers that occur, ascending; empty without cross-validation folds."""
        return tuple(sorted({clip.fold for clip in self.clips if clip.fold is not None}))

    @property
    def sources(self) -> tuple[str, ...]:
        """The different recordings or speakers, sorted."""
        return tuple(sorted({clip.source for clip in self.clips}))

    def relative_path(self, clip: Clip) -> str:
        """Path of a clip below ``root`` with forward slashes: the same on every machine."""
        if clip.path.is_relative_to(self.root):
            return clip.path.relative_to(self.root).as_posix()
        return "/".join(clip.path.parts[-2:])  # clips brought in from another corpus

    def subset(self, name: str) -> "Corpus":
        """Clips of a named part: a split ("train", "test") or a subset ("all", "noisy", ...).

        Raises:
            ValueError: if no clip belongs to it.
        """
        keep = [name == clip.split or name in clip.subsets for clip in self.clips]
        if not any(keep):
            known = {part for clip in self.clips for part in {clip.split, *clip.subsets} - {None}}
            raise ValueError(f"{self.name} has no subset {name!r}; it has {sorted(known)}")
        return self.select(keep)

    def select(self, which: Tensor | Sequence[int] | Sequence[bool]) -> "Corpus":
        """Clips at the given indices, in the order given, or where a mask of length N is true.

        Raises:
            ValueError: if a mask has another length than the corpus.
        """
        which = torch.as_tensor(which)
        if which.dtype == torch.bool:
            if which.shape != (len(self),):
                raise ValueError(f"mask of shape {tuple(which.shape)} for {len(self)} clips")
            which = which.nonzero().flatten()
        return replace(self, clips=tuple(self.clips[i] for i in which.tolist()), trials=())

    def keep_classes(self, names: Iterable[str]) -> "Corpus":
        """Clips of these classes only, labels counted anew; other true labels become None.

        Raises:
            ValueError: if a name is not a class of this corpus.
        """
        classes = tuple(sorted(set(names)))
        if unknown := set(classes) - set(self.classes):
            raise ValueError(f"{self.name} has no class {sorted(unknown)}; it has {self.classes}")
        index = {self.classes.index(name): new for new, name in enumerate(classes)}
        clips = (
            replace(clip, label=index[clip.label], true_label=index.get(clip.true_label))
            for clip in self.clips
            if clip.label in index
        )
        return replace(self, classes=classes, clips=tuple(clips), trials=())

    def fingerprint(self) -> str:
        """16 hex digits of classes, clips, labels and file sizes; the same on every machine."""
        digest = hashlib.sha256(repr((self.name, self.classes)).encode())
        for clip in self.clips:
            size = clip.path.stat().st_size if clip.path.is_file() else -1
            digest.update(repr((self.relative_path(clip), clip.label, size)).encode())
        return digest.hexdigest()[:16]

    def validate(self, *, progress: bool = True) -> ValidationReport:
        """Read every file; report counts, durations and damage instead of raising."""
        return validate(
            self.clips,
            name=self.name,
            classes=self.classes,
            paths=[self.relative_path(clip) for clip in self.clips],
            notes=self.notes,
            progress=progress,
        )
