"""Clips in the hand: explorers that show sounds as pictures and let them be heard."""

from __future__ import annotations

import base64

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from .. import figures, listen
from ..config import MelConfig, ViewConfig
from ..features import LogMelStore, load_waveform
from ..training import augmentations
from ..views import gather_patches, mix_back
from .page import explorer

CLIPS = 4
STEP = 0.05  # log10 power between two values of a byte: half a decibel


def two_views(
    data,
    store: LogMelStore,
    *,
    views: ViewConfig = ViewConfig(),  # noqa: B008  frozen
    mel: MelConfig = MelConfig(),  # noqa: B008
):
    """Two views of a clip, made of it step by step: cut, mixed, cropped, masked; seen and heard.

    Four clips are shown, from classes spread evenly over those of the corpus: of each the first
    clip of two seconds or more, cut to two (of one second where a corpus has no longer ones).
    Each is a background of the others. A view is heard from its picture alone, by tones in every
    mel band.

    Args:
        data: a `datasets.Corpus`.
        store: the log-mels of its clips.
        views: where the sliders begin.
        mel: how the store was made.

    Raises:
        ValueError: the corpus has fewer than three clips of a patch or more.
    """
    frames = views.patch_frames
    chosen, length = _clips(data, store.lengths, frames)
    mean, std = store.mel_statistics()
    start = {"first": 0.0, "second": 1.0}
    last = (length - frames) * mel.hop_length / mel.sample_rate
    theirs = ViewConfig()
    state = {
        "clips": [_packed(data, store, n, length, mel) for n in chosen],
        "centres": _centres(mel),
        "level": _level(mel),
        "rate": mel.sample_rate,
        "hop": mel.hop_length,
        "frames": frames,
        "mean": mean,
        "std": std,
        "theirs": _settings(theirs),
        "clip": "0",
        **{name: min(seconds, last) for name, seconds in start.items()},
        "strength": 1.0,
        **_settings(views),
        "width": 20,  # of the authors' masks
        "seed": 0,
    }

    def draw() -> Figure:
        starts = [round(state[name] * mel.sample_rate / mel.hop_length) for name in start]
        where = store.starts[torch.tensor([chosen[0], chosen[0], *chosen[1:3]])]
        where[:2] += torch.tensor(starts)
        x_i, x_j, *behind = gather_patches(store.frames, where, frames).contiguous().split(1)
        x = torch.cat([x_i, x_j])
        mixed = mix_back(x, torch.cat(behind), torch.full((2,), views.mix_back))
        changed = augmentations(views)(mixed, torch.Generator().manual_seed(0))
        titles = [f"{what} {k}" for what in ("patch", "view") for k in (1, 2)]
        return figures.patches([*x[:, 0], *changed[:, 0]], titles)

    return explorer(
        "views",
        state,
        draw,
        "Two log-mel patches of one clip, and beside them the two views made of them by mix-back, "
        "crop, compander and noise",
    )


def _clips(data, lengths: Tensor, frames: int) -> tuple[list[int], int]:
    """Which clips are shown, and how many frames of each."""
    for length in (frames + 100, frames):
        long = (lengths >= length).nonzero()[:, 0].tolist()
        first: dict = {}
        for n in long:
            first.setdefault(data.clips[n].label, n)
        if len(first) >= CLIPS:
            break
    firsts = [first[label] for label in sorted(first)]
    chosen = [firsts[k * len(firsts) // CLIPS] for k in range(min(CLIPS, len(firsts)))]
    if len(firsts) < CLIPS:
        chosen = [*firsts, *(n for n in long if n not in firsts)][:CLIPS]
    if len(chosen) < 3:
        raise ValueError(f"need 3 clips of {frames} frames or more, got {len(chosen)}")
    return chosen, length


def _packed(data, store: LogMelStore, n: int, length: int, mel: MelConfig) -> dict:
    """A clip as the page takes it: name, log-mel in bytes, sound as MP3."""
    begin = int(store.starts[n])
    values = store.frames[begin : begin + length].float()
    low = float(values.min())
    cells = ((values - low) / STEP).round().clamp(max=255).byte()
    wav = load_waveform(data.clips[n].path, sample_rate=mel.sample_rate, resampler=mel.resampler)[
        : length * mel.hop_length
    ]
    name = data.classes[data.clips[n].label]
    sound = base64.b64encode(listen.mp3(wav, mel.sample_rate)).decode()
    return {
        "name": name,
        "cells": base64.b64encode(cells.numpy().tobytes()).decode(),
        "low": low,
        "step": STEP,
        "range": [float(values.flatten().quantile(0.02)), float(values.max())],
        "sound": f"data:audio/mpeg;base64,{sound}",
    }


def _settings(views: ViewConfig) -> dict:
    return {
        "mix": views.mix_back,
        "crop": views.crop_scale,
        "compander": views.compander,
        "noise": views.noise,
        "timeMasks": views.time_masks,
        "frequencyMasks": views.frequency_masks,
        "blurred": views.blur > 0,
    }


def _centres(mel: MelConfig) -> list[float]:
    """Frequency at which each mel band has its peak, in Hz, to half a hertz."""
    half = mel.sample_rate // 2
    bank = melscale_fbanks(
        2 * half + 1, mel.fmin, mel.fmax, mel.n_mels, mel.sample_rate, mel_scale="slaney"
    )
    return (bank.argmax(0) / 2).tolist()


def _level(mel: MelConfig) -> float:
    """Amplitude of a tone whose power, over all bins of a frame, is 1 (Parseval)."""
    energy = torch.hamming_window(mel.win_length).square().sum().item()
    return 2 / (mel.n_fft * energy) ** 0.5
