"""Corpora and stores small enough that a test trains on them in a second."""

from pathlib import Path

import numpy as np
import soundfile
import torch

from acl_lib.datasets import AudioFolder, Corpus
from acl_lib.features import LogMelStore

KINDS = ("high", "low", "noise")


def sound(kind: str, seconds: float, rate: int, seed: int) -> np.ndarray:
    """A tone of about 3 kHz or 300 Hz, or noise, with a little noise behind."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    hertz = {"high": 3000, "low": 300, "noise": 0}[kind] * rng.uniform(0.8, 1.25)
    behind = 0.3 if kind == "noise" else 0.01
    return 0.3 * np.sin(2 * np.pi * hertz * t) + behind * rng.standard_normal(len(t))


def write_corpus(root: Path, *, clips: int = 12, folds: int = 2, rate: int = 22_050) -> Corpus:
    """Clips of 0.5 to 1.7 s of three classes, in folds; the same numbers in every call."""
    root.mkdir(parents=True, exist_ok=True)
    lines = ["path,label,fold,source"]
    for i in range(clips):
        kind, fold = KINDS[i % 3], 1 + i // 3 % folds
        soundfile.write(root / f"{i:02d}.wav", sound(kind, 0.5 + 0.1 * (i % 13), rate, i), rate)
        lines.append(f"{i:02d}.wav,{kind},{fold},s{i // 3}")
    (root / "clips.csv").write_text("\n".join(lines) + "\n")
    return AudioFolder.open(root / "clips.csv", name="tiny")


def memory_store(clips: list[torch.Tensor]) -> LogMelStore:
    """A store in memory of log-mels (T, F)."""
    lengths = torch.tensor([len(clip) for clip in clips])
    frames = torch.cat(clips)
    wide = [clip.double() for clip in clips]
    sums = torch.stack([torch.stack([c.sum(0), c.square().sum(0)]) for c in wide])
    return LogMelStore(frames, lengths.cumsum(0) - lengths, lengths, sums)


def striped_store(clips: int, *, bands: int = 32, frames: int = 130, seed: int = 0) -> LogMelStore:
    """Every clip has a pattern of bands of its own, and noise that differs from frame to frame."""
    rng = torch.Generator().manual_seed(seed)
    pattern = torch.randn(clips, 1, bands, generator=rng) - 2
    noise = 0.5 * torch.randn(clips, frames, bands, generator=rng)
    return memory_store(list((pattern + noise).half()))
