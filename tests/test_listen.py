"""The player holds the sound it was given, at its level, under its name."""

import base64
import io
import math
import re

import numpy as np
import pytest
import soundfile
import torch

from acl_lib.listen import SAMPLE_RATES, player


def tone(sample_rate=22050, frequency=440.0, seconds=1.0, level=0.5):
    t = torch.arange(int(seconds * sample_rate)) / sample_rate
    return level * torch.sin(2 * math.pi * frequency * t)


def heard(page):
    coded = re.search(r'src="data:audio/mpeg;base64,([^"]+)"', page.data)[1]
    return soundfile.read(io.BytesIO(base64.b64decode(coded)))


@pytest.mark.parametrize("sample_rate", SAMPLE_RATES)
def test_the_tone_that_went_in_is_heard(sample_rate):
    sound, rate = heard(player(tone(sample_rate), sample_rate, label="a"))
    assert (rate, len(sound)) == (sample_rate, sample_rate)
    middle = sound[sample_rate // 4 : 3 * sample_rate // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert spectrum.argmax() * 2 == pytest.approx(440, abs=3)  # half a second: 2 Hz a bin
    assert np.sqrt(2 * (middle**2).mean()) == pytest.approx(0.5, rel=0.05)


def test_faint_sounds_stay_faint_and_loud_ones_do_not_clip():
    faint, _ = heard(player(tone(level=0.01), 22050, label="a"))
    loud, _ = heard(player(tone(level=3.0), 22050, label="a"))
    assert 0.005 < np.abs(faint).max() < 0.02
    assert 0.85 < np.abs(loud[5000:15000]).max() < 1.0


@pytest.mark.parametrize("wav", [torch.zeros(22050), torch.ones(1)])
def test_silence_and_a_single_sample_play(wav):
    sound, _ = heard(player(wav, 22050, label="a"))
    assert len(sound) == len(wav)
    assert np.isfinite(sound).all()


def test_it_is_a_labelled_figure_and_the_same_at_every_run():
    page = player(tone(), 22050, label='a "dog" & <cat>')
    assert page.data == player(tone(), 22050, label='a "dog" & <cat>').data
    name = "a &quot;dog&quot; &amp; &lt;cat&gt;"
    assert f"<figcaption>{name}</figcaption>" in page.data
    assert f'aria-label="{name}"' in page.data
    assert page.data.startswith('<figure class="acl-audio">')
    five = player(
        torch.randn(5 * 22050, generator=torch.Generator().manual_seed(0)), 22050, label="a"
    )
    assert len(five.data) < 150_000  # noise is the worst case; as 16-bit WAV it would be 294,000


def test_compression_makes_a_smaller_sound_that_is_still_the_same():
    draw = torch.Generator().manual_seed(0)
    wav = tone() + 0.1 * torch.randn(len(tone()), generator=draw)
    plain, small = (player(wav, 22050, label="a", compression=c) for c in (None, 0.7))
    assert len(small.data) < 0.85 * len(plain.data)
    (a, _), (b, _) = heard(plain), heard(small)
    assert np.corrcoef(a, b)[0, 1] > 0.9


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("wav", "sample_rate", "label", "message"),
    [
        (tone(), 96_000, "a", "96000 Hz"),
        (torch.zeros(0), 22050, "a", r"\(0,\)"),
        (torch.zeros(2, 100), 22050, "a", r"\(2, 100\)"),
        (torch.tensor([0.0, math.nan]), 22050, "a", "finite"),
        (tone(), 22050, " ", "label"),
    ],
)
def test_mistakes_are_named(wav, sample_rate, label, message):
    with pytest.raises(ValueError, match=message):
        player(wav, sample_rate, label=label)
