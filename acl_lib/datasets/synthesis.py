"""The sounds of the synthetic corpus: a kind of sound and a random generator in, a clip out.

A clip repeats one event of about half a second, each time at another pitch, level and timbre, in
one room and over one background noise. Ten of the kinds are five pairs of time reversals (rising
and falling sweep or notes, accelerating and slowing taps, swelling and fading noise, long-short and
short-long beeps): statistics that ignore the order of the frames confuse them.

Every draw comes from the generator that is handed in, so a clip is the same wherever it is made (to
the last bit of 16, which depends on the rounding of the machine's sine and Fourier transform).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from acl_lib.datasets.waveforms import (
    SAMPLE_RATE,
    Wave,
    background,
    decay,
    faded,
    in_room,
    noise,
    placed,
    samples,
    silence,
    steady,
    struck,
    tone,
)


@dataclass(frozen=True)
class Style:
    """What the events of a clip have in common."""

    pitch: float  # Hz; most events lie within 4 semitones of it
    seconds: float  # about the length of an event
    depth: float  # 0 to 1: how fast or far the kind's own movement goes
    tilt: float = 1.0  # harmonic k has amplitude k**-tilt; drawn anew for each event

    def near(self, rng: Generator, semitones: float = 4.0) -> float:
        """A frequency in the clip's register, Hz."""
        return self.pitch * 2 ** (rng.uniform(-semitones, semitones) / 12)


def _sweep(rng: Generator, style: Style, *, rising: bool) -> Wave:
    octaves = (1.2 + 1.2 * style.depth) * np.linspace(-0.5, 0.5, samples(style.seconds))
    return faded(tone(style.near(rng) * 2 ** (octaves if rising else -octaves), style.tilt), 0.05)


def _notes(rng: Generator, style: Style, *, rising: bool) -> Wave:
    steps = np.cumsum(rng.integers(3, 6, 4))  # semitones
    hertz = style.near(rng) * 2 ** ((steps - steps.mean()) / 12)
    order = hertz if rising else hertz[::-1]
    return np.concatenate([steady(f, style.seconds / 4, style.tilt) for f in order])


def _taps(rng: Generator, style: Style, *, ratio: float) -> Wave:
    """5 to 7 taps on one object; each gap is the one before times ratio."""
    gaps = ratio ** np.arange(int(rng.integers(5, 8)))
    times = np.concatenate([[0], np.cumsum(gaps)[:-1]]) / gaps.sum() * style.seconds * 1.1
    centre, n = style.near(rng), samples(0.05)
    taps = [noise(rng, n, centre=centre) * decay(n, 0.06) for _ in times]
    return placed(style.seconds * 1.1 + 0.05, list(zip(times, taps, strict=True)))


def _ramp(rng: Generator, style: Style, *, rising: bool) -> Wave:
    n = samples(style.seconds)
    wav = noise(rng, n, centre=style.near(rng, 6)) * 10 ** (np.linspace(-30, 0, n) / 20)
    return faded(wav)[:: 1 if rising else -1]


def _beeps(rng: Generator, style: Style, *, long_first: bool) -> Wave:
    hertz, unit = style.near(rng), style.seconds
    long, short = (steady(hertz, s * unit, style.tilt) for s in (0.4, 0.12))
    gap = silence(0.1 * unit)
    order = [long, gap, short, gap, short]
    return np.concatenate([*(order if long_first else order[::-1]), silence(0.3 * unit)])


def _swing(rng: Generator, style: Style) -> tuple[Wave, Wave]:
    """A steady frequency and, beside it, a slow sine of 4 to 7 Hz at a random phase."""
    t = np.arange(samples(style.seconds)) / SAMPLE_RATE
    swing = np.sin(2 * np.pi * ((4 + 3 * style.depth) * t + rng.uniform()))
    return np.full(len(t), style.near(rng)), swing


def _tremolo(rng: Generator, style: Style) -> Wave:
    hertz, swing = _swing(rng, style)
    return faded(tone(hertz, style.tilt) * (0.55 + 0.5 * swing))


def _vibrato(rng: Generator, style: Style) -> Wave:
    hertz, swing = _swing(rng, style)
    return faded(tone(hertz * 2 ** (0.25 * swing), style.tilt))


def _siren(rng: Generator, style: Style) -> Wave:
    hertz = style.near(rng)
    pair = [steady(hertz * ratio, style.seconds / 4, style.tilt) for ratio in (0.85, 1.2)]
    return np.concatenate(pair * 2)


def _chord(rng: Generator, style: Style) -> Wave:
    root = max(style.near(rng) * 0.8, 400)
    wav = sum(steady(root * 2 ** (s / 12), style.seconds, style.tilt, 3) for s in (0, 4, 7))
    return wav * decay(len(wav), style.seconds * 2)


def _bell(rng: Generator, style: Style) -> Wave:
    ratios = np.array([0.5, 1.0, 1.19, 1.56, 2.0, 2.51, 2.66, 3.01, 4.17])  # not harmonic
    ratios = style.near(rng) * ratios * (1 + 0.01 * rng.standard_normal(len(ratios)))
    t60 = [style.seconds * 2 * (style.pitch / f) ** 0.5 for f in ratios]
    return struck([(f, 1.0, s) for f, s in zip(ratios, t60, strict=True)], style.seconds * 1.2)


def _pluck(rng: Generator, style: Style) -> Wave:
    hertz = style.near(rng) * 0.5
    return struck([(k * hertz, 1 / k, 1.2 / k**0.7) for k in range(1, 13)], style.seconds * 0.5)


def _motor(rng: Generator, style: Style) -> Wave:
    n = samples(style.seconds)
    drift = np.cumsum(rng.standard_normal(n)) / np.sqrt(n)
    turns = np.cumsum((18 + 14 * style.depth) * (1 + 0.05 * drift)) / SAMPLE_RATE
    return faded(np.exp(-6 * (turns % 1)) * noise(rng, n, centre=style.near(rng)))


def _crackling(rng: Generator, style: Style) -> Wave:
    n, times = samples(0.004), rng.uniform(0, style.seconds, 1 + rng.poisson(40 * style.seconds))
    clicks = [rng.exponential() * rng.standard_normal(n) * decay(n, 0.004) for _ in times]
    return placed(style.seconds, list(zip(times, clicks, strict=True)))


def _dripping(rng: Generator, style: Style) -> Wave:
    n, times = samples(0.06), rng.uniform(0, style.seconds, int(rng.integers(3, 6)))
    curves = [style.near(rng) * 1.5 * 2 ** np.linspace(0, 0.8, n) for _ in times]
    drips = [faded(tone(curve, 3, 2) * decay(n, 0.08), 0.003) for curve in curves]
    return placed(style.seconds + 0.06, list(zip(times, drips, strict=True)))


def _cricket(rng: Generator, style: Style) -> Wave:
    chirp = steady(style.near(rng, 1) * 4, 0.02, 2.0, 1)
    return placed(style.seconds, [(t, chirp) for t in np.arange(0, 0.5, 0.045) * style.seconds])


def _foghorn(rng: Generator, style: Style) -> Wave:
    return steady(style.near(rng) * 0.12, style.seconds * 1.3, 0.5, 12)


def _heartbeat(rng: Generator, style: Style) -> Wave:
    thumps = [struck([(hertz, 1.0, 0.15)], 0.15) for hertz in (70.0, 55.0)]
    return placed(style.seconds, [(0.0, thumps[0]), (0.35 * style.seconds, thumps[1])])


def _radio_static(rng: Generator, style: Style) -> Wave:
    open_gate = rng.uniform(size=12) < 0.6
    n = samples(style.seconds)
    return noise(rng, n, slope=-0.5) * np.repeat(open_gate, -(-n // 12))[:n]


def _laser(rng: Generator, style: Style) -> Wave:
    curve = style.near(rng) * 4 * 2 ** np.linspace(0, -3, samples(0.12))
    zap = faded(tone(curve, 1.5, 3))
    return placed(style.seconds, [(t, zap) for t in (0.0, 0.3 * style.seconds)])


Event = Callable[[Generator, Style], Wave]

CLASSES: dict[str, Event] = {  # alphabetical
    "accelerating taps": lambda rng, style: _taps(rng, style, ratio=0.7),
    "bell": _bell,
    "chord": _chord,
    "crackling": _crackling,
    "dripping": _dripping,
    "fading noise": lambda rng, style: _ramp(rng, style, rising=False),
    "falling notes": lambda rng, style: _notes(rng, style, rising=False),
    "falling sweep": lambda rng, style: _sweep(rng, style, rising=False),
    "long-short beeps": lambda rng, style: _beeps(rng, style, long_first=True),
    "motor": _motor,
    "plucked string": _pluck,
    "regular taps": lambda rng, style: _taps(rng, style, ratio=1.0),
    "rising notes": lambda rng, style: _notes(rng, style, rising=True),
    "rising sweep": lambda rng, style: _sweep(rng, style, rising=True),
    "short-long beeps": lambda rng, style: _beeps(rng, style, long_first=False),
    "slowing taps": lambda rng, style: _taps(rng, style, ratio=1 / 0.7),
    "swelling noise": lambda rng, style: _ramp(rng, style, rising=True),
    "tremolo": _tremolo,
    "two-tone siren": _siren,
    "vibrato": _vibrato,
}
OUTSIDE: dict[str, Event] = {  # out of the vocabulary: only ever heard under a wrong label
    "cricket": _cricket,
    "foghorn": _foghorn,
    "heartbeat": _heartbeat,
    "laser": _laser,
    "radio static": _radio_static,
}


def clip_seconds(rng: Generator) -> float:
    """Length of a clip, 0.3 to 30 s: log-normal with mean 3 and median 2.5."""
    return float(np.clip(rng.lognormal(np.log(2.5), 0.6), 0.3, 30.0))


def make_clip(kind: str, rng: Generator, *, seconds: float) -> Wave:
    """One clip: events of a kind, in a room, over a background noise.

    Args:
        kind: a key of CLASSES or OUTSIDE.
        rng: where every draw comes from; its state moves on.
        seconds: length of the clip, above 0.1; a clip below about a second holds one quick event.

    Returns:
        Samples at 22,050 Hz with a peak between -12 and -1 dB of full scale, so |x| < 1.

    Raises:
        ValueError: if the kind is unknown or the clip too short.
    """
    events = CLASSES | OUTSIDE
    if kind not in events or seconds < 0.1:
        raise ValueError(f"need seconds >= 0.1, a kind of {list(events)}; got {seconds}, {kind!r}")
    wav, at = silence(seconds), 0
    style = Style(
        pitch=900 * 2 ** rng.uniform(-0.6, 0.6),
        seconds=min(rng.uniform(0.4, 0.7), 0.9 * seconds),
        depth=rng.uniform(),
    )
    rest = rng.uniform(0.0, 0.25) * style.seconds
    while at < len(wav):
        event = events[kind](rng, replace(style, tilt=rng.uniform(0.6, 2.0)))
        gain = 10 ** (rng.uniform(-8, 0) / 20) / (np.abs(event).max() + 1e-9)
        wav[at : at + len(event)] += gain * event[: len(wav) - at]
        at += len(event) + round(rest * rng.uniform(0.8, 1.2) * SAMPLE_RATE)
    wav = in_room(rng, wav)
    wav += background(rng, len(wav)) * np.sqrt(np.mean(wav**2))
    return wav / np.abs(wav).max() * 10 ** (rng.uniform(-12, -1) / 20)
