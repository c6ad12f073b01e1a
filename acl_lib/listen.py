"""A sound becomes a player in a page: MP3 inside the HTML, nothing to fetch, no kernel."""

from __future__ import annotations

import base64
import html
import io

import soundfile
import torch
from IPython.display import HTML
from jaxtyping import Float
from torch import Tensor

# MPEG-1, 2 and 2.5 layer III know no other rates
SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def mp3(wav: Float[Tensor, " L"], sample_rate: int, *, compression: float | None = None) -> bytes:
    """A waveform as an MP3 file.

    MP3 because every browser plays it: 5 s at 22,050 Hz take about 40 kB, as WAV ten times that.
    The level is kept, so that a faint sound is heard to be faint; only peaks above 0.9 are brought
    down to 0.9, since the coder overshoots and would clip.

    Args:
        wav: samples, full scale 1.
        sample_rate: Hz, one of `SAMPLE_RATES`.
        compression: 0 (finest) to 1 (smallest); None is libsndfile's choice, between the two.

    Raises:
        ValueError: if the waveform is not one channel, empty or not finite, or MP3 does not know
            the sample rate.
    """
    if sample_rate not in SAMPLE_RATES:
        raise ValueError(f"MP3 has no {sample_rate} Hz; resample to one of {SAMPLE_RATES}")
    if wav.dim() != 1 or wav.numel() == 0 or not torch.isfinite(wav).all():
        raise ValueError(f"need one channel of finite samples, got shape {tuple(wav.shape)}")
    wav = wav.detach().cpu().float()
    wav = wav * min(1.0, 0.9 / max(wav.abs().max().item(), 1e-9))
    sound = io.BytesIO()
    kind = {"format": "MP3", "subtype": "MPEG_LAYER_III"}
    if compression is not None:
        kind |= {"compression_level": compression, "bitrate_mode": "VARIABLE"}
    soundfile.write(sound, wav.numpy(), sample_rate, **kind)
    return sound.getvalue()


def player(
    wav: Float[Tensor, " L"], sample_rate: int, *, label: str, compression: float | None = None
) -> HTML:
    """Show a waveform as a labelled player that works in JupyterLab and in the built book.

    Args:
        wav, sample_rate, compression: as for `mp3`.
        label: what is heard; caption of the player and its name for screen readers.

    Raises:
        ValueError: as `mp3` does, or if the label is empty.
    """
    sound = mp3(wav, sample_rate, compression=compression)
    if not label.strip():
        raise ValueError("need a label: screen readers announce the player by it")
    source = "data:audio/mpeg;base64," + base64.b64encode(sound).decode()
    text = html.escape(label, quote=True)
    return HTML(
        f'<figure class="acl-audio"><figcaption>{text}</figcaption>'
        f'<audio controls preload="metadata" aria-label="{text}" src="{source}"></audio></figure>'
    )
