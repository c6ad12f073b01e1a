"""Voices made by formulas: a speaker and a random generator in, an utterance out.

A glottal pulse train, rough and breathy as the speaker is, passes four resonances that move from
vowel to vowel. What makes a speaker are the pitch and its liveliness, the length of the vocal
tract, small shifts of each resonance, the tilt of the source, the breath and the rate of speech;
what is said, and the room, microphone and noise around it, are drawn for every utterance. They are
no human voices: vowels follow each other without words.

Every draw comes from the generator that is handed in, so an utterance is the same wherever it is
made, to rounding.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy.random import Generator

from acl_lib.datasets.waveforms import SAMPLE_RATE, Wave, background, faded, in_room, noise, samples

# the first three resonances of ten English vowels, men's means in Hz: Peterson and Barney 1952
VOWELS = np.array(
    [
        (270, 2290, 3010),
        (390, 1990, 2550),
        (530, 1840, 2480),
        (660, 1720, 2410),
        (730, 1090, 2440),
        (570, 840, 2410),
        (440, 1020, 2240),
        (300, 870, 2240),
        (640, 1190, 2390),
        (490, 1350, 1690),
    ],
    dtype=float,
)
FOURTH = 3500.0  # Hz, the resonance that vowels leave alone
BANDWIDTHS = np.array([70.0, 100.0, 150.0, 250.0])  # Hz
FRAME, HOP, FFT = 512, 256, 2048  # samples: of the moving filter


@dataclass(frozen=True)
class Voice:
    """What the utterances of a speaker have in common."""

    pitch: float  # Hz
    liveliness: float  # semitones by which the pitch moves
    resonances: tuple[float, ...]  # factor on each of the four
    tilt: float  # dB an octave, of the source
    breath: float  # dB, of the noise in the source, below the pulses
    rate: float  # syllables a second
    roughness: float  # share by which a pulse comes too early or late


def make_voice(rng: Generator) -> Voice:
    """A speaker: pitch from deep to high, and a vocal tract that tends to be shorter with it."""
    height = rng.uniform()  # 0: deep
    pitch = 85 * 3 ** (0.85 * height + 0.15 * rng.uniform())
    tract = 0.88 + 0.3 * (0.7 * height + 0.3 * rng.uniform())
    return Voice(
        pitch=pitch,
        liveliness=rng.uniform(0.5, 4.0),
        resonances=tuple(tract * np.exp(rng.normal(0, 0.05, 4))),
        tilt=rng.uniform(-9, -3),
        breath=rng.uniform(-35, -12),
        rate=rng.uniform(2.5, 6.0),
        roughness=rng.uniform(0.002, 0.03),
    )


def make_utterance(voice: Voice, rng: Generator, *, seconds: float) -> Wave:
    """A few syllables of a voice, in a room, through a microphone, over a noise.

    Args:
        rng: where every draw comes from; its state moves on.
        seconds: length, at least 0.2.

    Returns:
        Samples at 22,050 Hz with a peak between -12 and -1 dB of full scale.

    Raises:
        ValueError: if the utterance is too short.
    """
    if seconds < 0.2:
        raise ValueError(f"an utterance needs 0.2 s or more; got {seconds}")
    n = samples(seconds)
    pitch = voice.pitch * 2 ** (rng.normal(0, 1) / 12)  # of this utterance
    formants, loudness, contour = _score(voice, rng, n)
    hertz = pitch * 2 ** (voice.liveliness * contour / 12)
    source = _pulses(hertz, voice.roughness, rng)
    breath = noise(rng, n) * 10 ** (voice.breath / 20)
    wav = _through(formants, (source + breath) * loudness, voice.tilt)
    wav = _microphone(in_room(rng, faded(wav)), rng)
    level = np.sqrt(np.mean(wav**2))
    wav += background(rng, n) * level * 10 ** (rng.uniform(0, 8) / 20)
    return wav / np.abs(wav).max() * 10 ** (rng.uniform(-12, -1) / 20)


def _score(voice: Voice, rng: Generator, n: int) -> tuple[Float64[np.ndarray, "L 4"], Wave, Wave]:
    """What is said: resonances in Hz, loudness and pitch contour, for each sample."""
    length = SAMPLE_RATE / voice.rate
    starts = np.cumsum(np.r_[0, length * rng.uniform(0.7, 1.3, int(n / (0.7 * length)) + 2)])
    vowels = VOWELS[rng.integers(len(VOWELS), size=len(starts))]
    targets = np.c_[vowels, np.full(len(vowels), FOURTH)] * voice.resonances
    # a vowel is reached in the middle of its syllable, and moved to evenly before and after
    middle = starts + length / 2
    t = np.arange(n)
    formants = np.stack([np.interp(t, middle, column) for column in targets.T], axis=1)
    into = (t - starts[np.searchsorted(starts, t, side="right") - 1]) / length
    loudness = 0.08 + np.sin(np.pi * np.clip(into, 0, 1)) ** 1.5
    loudness *= 10 ** (np.interp(t, middle, rng.uniform(-6, 0, len(starts))) / 20)
    return formants, loudness, np.interp(t, middle, rng.normal(0, 0.7, len(starts)))


def _pulses(hertz: Wave, roughness: float, rng: Generator) -> Wave:
    """A pulse at every turn of the phase, of rms 1 as a whole."""
    phase = np.cumsum(hertz) / SAMPLE_RATE
    turns = np.arange(1, int(phase[-1]))
    at = np.searchsorted(phase, turns + roughness * rng.standard_normal(len(turns)))
    wav = np.zeros(len(hertz))
    wav[at[at < len(wav)]] = 1.0
    return wav / np.sqrt(np.mean(wav**2) + 1e-12)


def _through(formants: Float64[np.ndarray, "L 4"], source: Wave, tilt: float) -> Wave:
    """The source through resonances that move: filtered frame by frame, and added up."""
    n = len(source)
    starts = np.arange(-HOP, n, HOP)
    padded = np.pad(source, (HOP, FRAME + FFT))
    window = np.hanning(FRAME + 1)[:-1]
    frames = padded[starts[:, None] + HOP + np.arange(FRAME)] * window
    hertz = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE)
    poles = np.exp(-np.pi * BANDWIDTHS / SAMPLE_RATE)  # radius
    angle = 2 * np.pi * formants[np.clip(starts + HOP, 0, n - 1)] / SAMPLE_RATE
    turn = np.exp(-2j * np.pi * hertz / SAMPLE_RATE)
    response = np.ones((len(starts), len(hertz)), dtype=complex)
    for k, radius in enumerate(poles):
        pair = 1 - 2 * radius * np.cos(angle[:, k, None]) * turn + radius**2 * turn**2
        response *= (1 - 2 * radius * np.cos(angle[:, k, None]) + radius**2) / pair
    response *= (np.maximum(hertz, 50) / 500) ** (tilt / 6.02)
    heard = np.fft.irfft(np.fft.rfft(frames, FFT) * response, FFT)
    out = np.zeros(n + 2 * HOP + FFT)
    for start, piece in zip(starts + HOP, heard, strict=True):
        out[start : start + FFT] += piece
    return out[HOP : HOP + n]


def _microphone(wav: Wave, rng: Generator) -> Wave:
    """A smooth curve of up to about 4 dB over the octaves, another one every time."""
    hertz = np.fft.rfftfreq(len(wav), 1 / SAMPLE_RATE)
    octave = np.log2(np.maximum(hertz, 50) / 50)
    decibels = np.interp(octave, np.linspace(0, octave[-1], 6), rng.normal(0, 2, 6))
    return np.fft.irfft(np.fft.rfft(wav) * 10 ** (decibels / 20), len(wav))
