"""Building blocks of the synthetic sounds: tones, noises, envelopes, a room, a background."""

import numpy as np
from jaxtyping import Float64
from numpy.random import Generator
from scipy.fft import next_fast_len
from scipy.signal import fftconvolve

SAMPLE_RATE = 22_050
Wave = Float64[np.ndarray, " L"]


def samples(seconds: float) -> int:
    return max(16, round(seconds * SAMPLE_RATE))


def tone(hertz: Wave, tilt: float, harmonics: int = 6) -> Wave:
    """Harmonic tone along a curve of fundamental frequencies; nothing above 10 kHz."""
    phase = 2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE
    orders = range(1, harmonics + 1)
    return sum(k**-tilt * np.sin(k * phase) * (k * hertz < 10_000) for k in orders)


def steady(hertz: float, seconds: float, tilt: float, harmonics: int = 6) -> Wave:
    return faded(tone(np.full(samples(seconds), hertz), tilt, harmonics))


def struck(partials: list[tuple[float, float, float]], seconds: float) -> Wave:
    """Sum of decaying partials, each (Hz, amplitude, seconds to fall by 60 dB)."""
    n = samples(seconds)
    t = np.arange(n) / SAMPLE_RATE
    heard = [(f, a, t60) for f, a, t60 in partials if f < 10_000]
    return faded(sum(a * np.sin(2 * np.pi * f * t) * decay(n, t60) for f, a, t60 in heard), 0.002)


def noise(rng: Generator, n: int, *, slope: float = 0.0, centre: float = 0.0) -> Wave:
    """Noise of rms 1 with power ~ f**slope, in a band of 2 octaves if a centre in Hz is given."""
    size = next_fast_len(n, real=True)  # a prime length would take ten times as long
    hertz = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 30.0)
    gain = hertz ** (slope / 2)
    if centre:
        gain = gain * np.exp(-0.5 * np.log2(hertz / centre) ** 2)
    wav = np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * gain, size)[:n]
    return wav / np.sqrt(np.mean(wav**2))


def decay(n: int, seconds: float) -> Wave:
    """Envelope that falls by 60 dB in the given time."""
    return np.exp(-np.log(1000) * np.arange(n) / SAMPLE_RATE / seconds)


def faded(wav: Wave, seconds: float = 0.015) -> Wave:
    """The same with raised-cosine ends, equal on both sides, so that it does not click."""
    n = min(samples(seconds), len(wav) // 2)
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(n) + 0.5) / n)
    return wav * np.concatenate([ramp, np.ones(len(wav) - 2 * n), ramp[::-1]])


def placed(seconds: float, pieces: list[tuple[float, Wave]]) -> Wave:
    """Pieces added at their start times in seconds; what hangs over the end is cut."""
    wav = np.zeros(samples(seconds))
    for start, piece in pieces:
        at = round(start * SAMPLE_RATE)
        wav[at : at + len(piece)] += piece[: max(0, len(wav) - at)]
    return wav


def silence(seconds: float) -> Wave:
    return np.zeros(samples(seconds))


def in_room(rng: Generator, wav: Wave) -> Wave:
    """Direct sound and an exponentially decaying tail: a room without early reflections."""
    t60 = rng.uniform(0.1, 0.5)
    n = samples(t60)
    tail = noise(rng, n, slope=rng.uniform(-1, 0)) * decay(n, t60)
    tail *= rng.uniform(0.1, 0.5) / np.sqrt(np.sum(tail**2))
    return wav + fftconvolve(wav, tail)[: len(wav)]


def background(rng: Generator, n: int) -> Wave:
    """Noise from brown (slope -2) to nearly blue, 18 to 40 dB below 1, swelling by up to 6 dB."""
    wav = noise(rng, n, slope=rng.uniform(-2, 0.5))
    decibels = rng.uniform(-6, 6, 3 + n // SAMPLE_RATE) - rng.uniform(18, 40)
    knots = np.linspace(0, n, len(decibels))
    return wav * 10 ** (np.interp(np.arange(n), knots, decibels) / 20)
