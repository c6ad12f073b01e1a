"""Reading every file of a corpus once, to say what is in it and what is wrong with it."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tqdm import tqdm

from acl_lib.datasets.clips import Clip
from acl_lib.datasets.sound_files import SoundFileError, read_blocks

SHORTEST_SECONDS = 0.3  # the shortest clips FSDnoisy18k publishes
SILENT_PEAK = 1e-4  # full scale is 1; three steps of 16 bit, a file of nothing but dither


@dataclass(frozen=True)
class ValidationReport:
    """What was found; paths are relative to the corpus's root, durations in seconds.

    Args:
        name: the corpus.
        clips: number of clips.
        sources: number of different recordings or speakers.
        counts: class name -> part ("clips", subsets, splits, "fold 1") -> number of clips.
        seconds: total, shortest, median and longest duration of the readable clips.
        sample_rates, channels: value -> number of files.
        unreadable: path and reason; missing and empty files are here too.
        not_finite: files that hold NaN or infinity.
        too_short: files below 0.3 s.
        silent: files whose samples spread by less than 1e-4 of full scale around their middle.
        duplicates: groups of files with equal samples; silent files are not compared.
        leaking_sources: sources with clips in more than one fold or split.
        empty_classes: classes without a clip.
        problems: deviations from what the corpus's authors published.
        notes: the corpus's own notes.
    """

    name: str
    clips: int
    sources: int
    counts: dict[str, dict[str, int]]
    seconds: tuple[float, float, float, float]
    sample_rates: dict[int, int]
    channels: dict[int, int]
    unreadable: tuple[tuple[str, str], ...]
    not_finite: tuple[str, ...]
    too_short: tuple[str, ...]
    silent: tuple[str, ...]
    duplicates: tuple[tuple[str, ...], ...]
    leaking_sources: tuple[str, ...]
    empty_classes: tuple[str, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def findings(self) -> dict[str, tuple[str, ...]]:
        """Everything to look at, by kind; empty when the corpus is fine."""
        found = {
            "unreadable": tuple(f"{path}: {reason}" for path, reason in self.unreadable),
            "NaN or infinity": self.not_finite,
            f"shorter than {SHORTEST_SECONDS} s": self.too_short,
            "silent": self.silent,
            "same samples": tuple(" = ".join(group) for group in self.duplicates),
            "source in several folds or splits": self.leaking_sources,
            "class without clips": self.empty_classes,
            "not as published": self.problems,
        }
        return {kind: items for kind, items in found.items() if items}

    def __str__(self) -> str:
        total, shortest, median, longest = self.seconds
        rates = ", ".join(f"{rate} Hz ({n})" for rate, n in self.sample_rates.items())
        channels = ", ".join(f"{c} channel{'s' * (c > 1)} ({n})" for c, n in self.channels.items())
        lines = [
            f"{self.name}: {self.clips} clips of {self.sources} sources, {total / 3600:.2f} h, "
            f"{shortest:.2f} to {longest:.2f} s (median {median:.2f} s)",
            f"{rates or 'no sample rate'}; {channels or 'no channel'}",
            "",
            *_table(self.counts),
            "",
        ]
        for kind, items in self.findings.items():
            more = [f"  ... and {len(items) - 10} more"] if len(items) > 10 else []
            lines += [f"{kind}: {len(items)}", *(f"  {item}" for item in items[:10]), *more]
        lines += ["" if self.findings else "nothing wrong was found", *self.notes]
        return "\n".join(lines).strip()


def _table(counts: dict[str, dict[str, int]]) -> list[str]:
    names = {part for row in counts.values() for part in row}
    parts = sorted(names, key=lambda part: (part != "clips", part))
    total = {part: sum(row.get(part, 0) for row in counts.values()) for part in parts}
    width = max(map(len, [*counts, "total"]))
    cells = {part: max(len(part), 6) for part in parts}
    return [
        "  ".join([" " * width, *(f"{part:>{cells[part]}}" for part in parts)]),
        *(
            "  ".join([f"{name:<{width}}", *(f"{row.get(p, 0):>{cells[p]}}" for p in parts)])
            for name, row in [*counts.items(), ("total", total)]
        ),
    ]


@dataclass(frozen=True)
class _Reading:
    """One file's samples in numbers; ``reason`` is set where they could not be read."""

    reason: str = ""
    seconds: float = 0.0
    rate: int = 0
    channels: int = 0
    finite: bool = True
    spread: float = 0.0
    content: str = ""


def _read(path: Path) -> _Reading:
    lowest, highest, finite, frames = float("inf"), -float("inf"), True, 0
    digest = hashlib.sha1(usedforsecurity=False)
    try:
        for rate, block in read_blocks(path):  # noqa: B007 (the rate is used below)
            low, high = float(block.min()), float(block.max())  # NaN stays NaN
            finite &= abs(low) + abs(high) < float("inf")
            lowest, highest = min(low, lowest), max(high, highest)
            frames, channels = frames + len(block), block.shape[1]
            digest.update(block)
    except SoundFileError as error:
        return _Reading(reason=str(error))
    content = f"{rate} {channels} {digest.hexdigest()}"
    spread = (highest - lowest) / 2
    return _Reading("", frames / rate, rate, channels, finite, spread, content)


def _counts(clips: Sequence[Clip], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter] = {name: Counter(clips=0) for name in classes}
    for clip in clips:
        parts = {"clips", *clip.subsets} | ({clip.split} if clip.split else set())
        parts |= {f"fold {clip.fold}"} if clip.fold is not None else set()
        counts[classes[clip.label]].update(parts)
    return {name: dict(row) for name, row in counts.items()}


def validate(
    clips: Sequence[Clip],
    *,
    name: str,
    classes: Sequence[str],
    paths: Sequence[str],
    notes: tuple[str, ...] = (),
    progress: bool = True,
) -> ValidationReport:
    """Read every sound file and report; damage is listed, never raised.

    Args:
        clips: the clips to read.
        name, classes, notes: those of the corpus.
        paths: what to call each clip in the report.
        progress: show a progress bar.

    Returns:
        The report; ``str`` of it is a readable table.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # decoding and hashing leave Python
        jobs = pool.map(_read, [clip.path for clip in clips])
        readings = list(tqdm(jobs, name, len(clips), unit=" clips", disable=not progress))
    good = [(path, r) for path, r in zip(paths, readings, strict=True) if not r.reason]
    bad = [(path, r.reason) for path, r in zip(paths, readings, strict=True) if r.reason]
    same: dict[str, list[str]] = defaultdict(list)
    for path, r in good:
        if r.spread >= SILENT_PEAK:  # all silence is alike
            same[r.content].append(path)
    homes: dict[str, set] = defaultdict(set)
    for clip in clips:
        homes[clip.source].add((clip.fold, clip.split))
    durations = [r.seconds for _, r in good] or [0.0]
    counts = _counts(clips, classes)
    return ValidationReport(
        name=name,
        clips=len(clips),
        sources=len(homes),
        counts=counts,
        seconds=(sum(durations), min(durations), median(durations), max(durations)),
        sample_rates=dict(sorted(Counter(r.rate for _, r in good).items())),
        channels=dict(sorted(Counter(r.channels for _, r in good).items())),
        unreadable=tuple(bad),
        not_finite=tuple(path for path, r in good if not r.finite),
        too_short=tuple(path for path, r in good if round(r.seconds, 3) < SHORTEST_SECONDS),
        silent=tuple(path for path, r in good if r.finite and r.spread < SILENT_PEAK),
        duplicates=tuple(tuple(group) for group in same.values() if len(group) > 1),
        leaking_sources=tuple(sorted(s for s, places in homes.items() if len(places) > 1)),
        empty_classes=tuple(name for name, row in counts.items() if not row["clips"]),
        notes=notes,
    )
