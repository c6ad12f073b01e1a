"""Views made by hand are those of the library, and sound as their pictures say."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny
import torch
from test_explorers import javascript, needs_node

from acl_lib import augment, explorers, views
from acl_lib.config import MelConfig, ViewConfig
from acl_lib.datasets.base import Clip
from acl_lib.explorers import sounds
from acl_lib.features import LogMel, LogMelStore

MEL = MelConfig()


def patch(seed, bands=12, frames=17, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(1, 1, bands, frames, generator=draw, dtype=torch.float64).to(dtype)


def text(x):
    return json.dumps(x[0, 0].tolist())


def same(got, wanted, atol=1e-6):
    torch.testing.assert_close(torch.tensor(got).double(), wanted[0, 0].double(), rtol=0, atol=atol)


@needs_node
@pytest.mark.parametrize("ratio", [0, 0.05, 0.9])
def test_mix_back_is_that_of_the_library(ratio):
    x, b = patch(0), patch(1) - 3
    wanted = views.mix_back(x, b, torch.tensor([ratio], dtype=torch.float64))
    same(javascript(f"return views.mixBack({text(x)}, {text(b)}, {ratio})"), wanted)


@needs_node
@pytest.mark.parametrize(("low", "bands", "first", "frames"), [(0, 12, 0, 17), (2, 7, 5, 1)])
def test_a_crop_is_stretched_as_in_the_library(low, bands, first, frames):
    x = patch(2)
    one = torch.ones(1, dtype=torch.long)
    wanted = augment._stretch(x[:, 0].mT, first * one, frames * one)
    wanted = augment._stretch(wanted.mT, low * one, bands * one)[:, None]
    box = {"low": low, "bands": bands, "first": first, "frames": frames}
    same(
        javascript(
            f"return views.resizedCrop({text(x)}, {json.dumps(box)}).map((r) => Array.from(r))"
        ),
        wanted,
    )


@needs_node
def test_the_box_of_a_crop_is_the_one_the_library_takes():
    uniform = torch.rand(20, 2, 10, generator=torch.Generator().manual_seed(3))
    wanted = augment.RandomResizedCrop((0.3, 1.0)).box(96, 101, uniform)
    tries = json.dumps(uniform.mT.tolist())
    got = javascript(f"return {tries}.map((tries) => views.cropSize(96, 101, 0.3, tries))")
    assert [(box["bands"], box["frames"]) for box in got] == list(
        zip(*(side.tolist() for side in wanted), strict=True)
    )


@needs_node
def test_masks_hold_the_smallest_value():
    x = patch(4)
    wanted = x.clone()
    wanted[..., 2:5, :] = x.min()
    wanted[..., 10] = x.min()
    same(
        javascript(f"return views.mask({text(x)}, {{bands: [[2, 3]], frames: [[10, 1]]}})"), wanted
    )


@needs_node
@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_blur_is_that_of_the_library(sigma):
    x = patch(5)
    wanted = augment.GaussianBlur((sigma, sigma), p=1.0)(x, torch.Generator())
    # sigma and the weights of the library's kernel are in single precision
    got = javascript(f"return views.blur({text(x)}, {sigma}).map((row) => Array.from(row))")
    same(got, wanted, 1e-5)


@needs_node
def test_nothing_is_left_of_the_steps_at_strength_nought():
    x, b = patch(6), patch(7)
    settings = {"mix": 0.5, "crop": 0.4, "compander": 0.3, "noise": 1, "timeMasks": 2}
    settings |= {"frequencyMasks": 2, "width": 9, "blurred": True}
    ask = f"const s = {json.dumps(settings)}, rows = [{text(x)}, {text(b)}];"
    plain = "return views.view(...rows, views.scaled(s, 0), 3, 1).x"
    same(javascript(f"{ask}{plain}"), x)
    assert javascript(f"{ask} return views.scaled(s, 1)") == pytest.approx(settings)
    made = javascript(f"""{ask}
        const of = (seed, which) =>
          views.view(...rows, s, seed, which).x.map((row) => Array.from(row));
        return [of(3, 1), of(3, 1), of(3, 2), of(4, 1)]""")
    assert made[0] == made[1] != made[2] != made[3] != made[0]  # a draw of its own for each view


@needs_node
def test_the_steps_come_in_the_order_of_training():
    """Each step in its place: mix-back, compander, frequency mask, time mask."""
    x, b = patch(8), patch(9)
    settings = {"mix": 0.3, "crop": 1, "compander": 0.5, "noise": 0, "timeMasks": 0}
    settings |= {"frequencyMasks": 0, "width": 0, "blurred": False}
    got = javascript(f"return views.view({text(x)}, {text(b)}, {json.dumps(settings)}, 1, 1)")
    mixed = views.mix_back(x, b, torch.tensor([0.3], dtype=torch.float64))
    assert 0.5 <= got["drawn"]["factor"] < 1
    same(got["x"], mixed * got["drawn"]["factor"])


@needs_node
def test_two_other_clips_stand_behind():
    for k, (i, j) in enumerate(
        javascript("""
        return Array.from({ length: 60 }, (_, k) => views.backgrounds(k % 6, 6, k))""")
    ):
        assert len({k % 6, i, j}) == 3 and {i, j} <= set(range(6))


@needs_node
def test_likeness_is_cosine_and_mean_distance():
    x, y = patch(10), patch(11)
    got = javascript(f"return views.likeness({text(x)}, {text(y)}, -0.3, 1.5)")
    u, v = ((z.flatten() + 0.3) / 1.5 for z in (x, y))
    assert got["cosine"] == pytest.approx(torch.cosine_similarity(u, v, dim=0).item(), rel=1e-6)
    assert got["apart"] == pytest.approx((x - y).abs().mean().item(), rel=1e-6)


@needs_node
def test_a_view_sounds_as_its_picture_says():
    t = torch.arange(22_050) / 22_050
    wav = 0.3 * torch.sin(2 * torch.pi * (400 + 900 * t) * t)
    wav += 0.05 * torch.randn(len(t), generator=torch.Generator().manual_seed(0))
    x = LogMel()(wav)
    voice = {"centres": sounds._centres(MEL), "level": sounds._level(MEL), "rate": 22_050}
    rounded = [[round(v, 2) for v in row] for row in x.tolist()]  # a command line has an end
    found = javascript(f"""
        const voice = {{ ...{json.dumps(voice)}, hop: 220 }};
        const {{ wav, gain }} = views.sounded({rounded}, voice);
        const file = views.wavFile(wav, 22050);
        return {{ gain, file: Array.from(new Uint8Array(file)) }}""")
    sound, rate = soundfile.read(io.BytesIO(bytes(found["file"])), dtype="float32")
    assert rate == 22_050 and len(sound) == 22_000
    assert np.abs(sound).max() == pytest.approx(0.9, abs=1e-3)
    error = (LogMel()(torch.from_numpy(sound) / found["gain"]) - x)[x >= x.median()]
    assert error.abs().mean() < 0.5 and error.mean().abs() < 0.25


@needs_node
def test_silence_is_not_blown_up():
    voice = {"centres": sounds._centres(MEL), "level": sounds._level(MEL), "rate": 22_050}
    loudest = javascript(f"""
        const patch = Array.from({{ length: 96 }}, () => Array(101).fill(-7.96));
        return views.sounded(patch, {{ ...{json.dumps(voice)}, hop: 220 }}).wav
          .reduce((a, b) => Math.max(a, Math.abs(b)), 0)""")
    assert loudest < 0.02


def test_band_centres_are_those_of_slaneys_scale():
    def hertz(mel):
        return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))

    low, high = 50 * 3 / 200, 15 + 27 * np.log(10.5) / np.log(6.4)
    wanted = hertz(np.linspace(low, high, 98))[1:-1]
    assert np.abs(np.array(sounds._centres(MEL)) - wanted).max() <= 0.5


# ---- the clips


class Tiny:
    """Clips of chosen lengths and classes."""

    def __init__(self, labels):
        self.clips = [
            Clip(path=Path(f"{n}.wav"), label=label, source=str(n))
            for n, label in enumerate(labels)
        ]


def test_clips_come_from_classes_spread_over_the_corpus():
    labels = [k // 2 for k in range(24)]
    lengths = torch.full((24,), 500)
    chosen, length = sounds._clips(Tiny(labels), lengths, 101)
    assert chosen == [0, 6, 12, 18] and length == 201


def test_a_corpus_of_short_clips_is_shown_too():
    chosen, length = sounds._clips(Tiny([0, 0, 1]), torch.tensor([101, 150, 900]), 101)
    assert sorted(chosen) == [0, 1, 2] and length == 101
    with pytest.raises(ValueError, match="3 clips"):
        sounds._clips(Tiny([0, 0]), torch.tensor([101, 101]), 101)


@pytest.fixture
def corpus(tmp_path):
    data = tiny.write_corpus(tmp_path, clips=12)
    return data, LogMelStore.build(data, LogMel(), tmp_path, progress=False)


def packed(html):
    """The values that the page of an explorer holds."""
    return json.JSONDecoder().raw_decode(html.rsplit("pageModel(", 1)[1])[0]


@needs_node
def test_the_page_holds_the_log_mels_and_the_sounds(corpus, monkeypatch):
    monkeypatch.setenv("ACL_PUBLISH", "1")
    data, store = corpus
    html = explorers.two_views(data, store).data
    assert len(html) < 400_000 and not re.search(r'(src|href)="(?!data:)', html)
    found = packed(html)
    assert found == packed(explorers.two_views(data, store).data)
    assert (found["mix"], found["theirs"]["crop"]) == (ViewConfig().mix_back, 0.8)
    chosen, length = sounds._clips(data, store.lengths, 101)
    assert len(found["clips"]) == len(chosen) == 4
    for n, clip in zip(chosen, found["clips"], strict=True):
        assert clip.pop("sound").startswith("data:audio/mpeg;base64,")
        assert clip["name"] == data.classes[data.clips[n].label]
    ask = f"views.unpacked({json.dumps(clip)}, 96).map((row) => Array.from(row))"
    begin = int(store.starts[n])
    wanted = store.frames[begin : begin + length].float().T
    error = (torch.tensor(javascript(f"return {ask}")) - wanted).abs().max()
    assert error <= sounds.STEP / 2 + 1e-4


def test_it_is_a_widget_in_a_notebook(corpus, monkeypatch):
    monkeypatch.delenv("ACL_PUBLISH", raising=False)
    widget = explorers.two_views(*corpus, views=ViewConfig(mix_back=0.2, time_masks=2))
    assert (widget.mix, widget.timeMasks, widget.seed, widget.clip) == (0.2, 2, 0, "0")
