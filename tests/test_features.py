"""Sound file to log-mel to store: librosa's numbers, damaged files, full disks."""

import builtins
import errno
import inspect
import math
import os
import re
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny import memory_store, striped_store, write_corpus

from acl_lib import features
from acl_lib.config import RESAMPLERS, MelConfig
from acl_lib.datasets import sound_files
from acl_lib.features import (
    LogMel,
    LogMelStore,
    StoreError,
    UnreadableAudioError,
    load_waveform,
    repeat_to,
)
from acl_lib.probing import log_mel_statistics
from acl_lib.views import gather_patches

RATE = 22_050
SILENCE = math.log10(MelConfig().floor)


def tone(hertz: float, seconds: float, rate: int = RATE) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def real_sound() -> Path:
    if "ACL_DATA" not in os.environ:
        pytest.skip("ACL_DATA names no folder with esc10")
    path = next(Path(os.environ["ACL_DATA"], "esc10").rglob("1-100032-A.ogg"), None)
    return path or pytest.skip("no ESC-10 below ACL_DATA")


def strongest(wav: torch.Tensor) -> float:
    """Frequency of the largest peak, Hz."""
    power = torch.fft.rfft(wav * torch.hann_window(len(wav))).abs()
    return power.argmax().item() * RATE / len(wav)


# --- the waveform ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "rate", "channels"),
    [
        ("wav", 22_050, 1),
        ("wav", 44_100, 2),
        ("wav", 8_000, 1),
        ("wav", 96_000, 6),
        ("flac", 48_000, 2),
        ("ogg", 44_100, 2),
        ("ogg", 8_000, 1),
        ("mp3", 44_100, 2),
        ("mp3", 16_000, 1),
    ],
)
def test_every_format_rate_and_number_of_channels_becomes_one_centred_channel(
    tmp_path, suffix, rate, channels
):
    path = tmp_path / f"tone.{suffix}"
    samples = np.stack([tone(1000, 1.5, rate) + 0.1] * channels, axis=1)
    soundfile.write(path, samples, rate)
    wav = load_waveform(path)
    assert wav.dtype == torch.float32
    slack = 0.06 if suffix == "mp3" else 1e-3  # MP3 comes in whole frames, with padding
    assert len(wav) / RATE == pytest.approx(1.5, abs=slack)
    assert abs(wav.mean().item()) < 1e-6
    assert 0.9 < wav.abs().max().item() < 1
    assert strongest(wav) == pytest.approx(1000, abs=1)


def test_the_level_is_the_peak_plus_a_little_and_channels_are_averaged(tmp_path):
    left = np.zeros((RATE, 2))
    left[:, 0] = tone(500, 1.0)
    soundfile.write(tmp_path / "left.wav", left, RATE, subtype="FLOAT")
    centred = left.mean(1) - left.mean()
    expected = centred / (np.abs(centred).max() + 0.005)
    assert np.allclose(load_waveform(tmp_path / "left.wav").numpy(), expected, atol=1e-6)
    left[:, 1] = -left[:, 0]
    soundfile.write(tmp_path / "opposite.wav", left, RATE, subtype="FLOAT")
    assert load_waveform(tmp_path / "opposite.wav").abs().max() == 0
    quiet = 1e-4 * tone(500, 1.0)
    soundfile.write(tmp_path / "quiet.wav", quiet, RATE, subtype="FLOAT")
    assert load_waveform(tmp_path / "quiet.wav").abs().max() < 0.02  # not blown up


@pytest.mark.parametrize("resampler", ["soxr_hq", "kaiser_best"])
def test_resampling_lets_nothing_from_above_half_the_rate_through(tmp_path, resampler):
    both = tone(15_000, 1.0, 44_100) + 0.1 * tone(3000, 1.0, 44_100)
    soundfile.write(tmp_path / "both.wav", both, 44_100)
    wav = load_waveform(tmp_path / "both.wav", resampler=resampler)
    power = torch.fft.rfft(wav * torch.hann_window(len(wav))).abs() ** 2
    hertz = torch.arange(len(power)) * RATE / len(wav)
    folded = power[(hertz - (RATE - 15_000)).abs() < 20].sum()
    kept = power[(hertz - 3000).abs() < 20].sum()
    assert folded < 1e-8 * kept


@pytest.mark.parametrize("resampler", RESAMPLERS)
def test_every_resampler_of_a_recipe_is_known(tmp_path, resampler):
    soundfile.write(tmp_path / "a.wav", tone(440, 0.3, 16_000), 16_000)
    wav = load_waveform(tmp_path / "a.wav", resampler=resampler)
    assert strongest(wav) == pytest.approx(440, abs=4)


def test_kaiser_best_is_resampys(tmp_path):
    x = np.zeros(800, dtype=np.float32)
    x[400], x[411] = 1, -0.5
    # resampy 0.2.2, resample(x, 44_100, 22_050, filter="kaiser_best")[199:208]
    expected = [0.0205809, 0.4822691, 0.0134435, -0.0068912, -0.0040973]
    expected += [0.0275607, -0.1362001, -0.1793437, 0.0703135]
    found = features._resample(x, 44_100, 22_050, "kaiser_best")
    assert len(found) == 400 and np.abs(found[199:208] - expected).max() < 2e-7


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_two_band_limited_resamplers_agree_on_a_band_limited_sound(tmp_path, rate):
    top = 0.4 * min(rate, RATE)
    both = sum(tone(hertz, 0.5, rate) for hertz in np.linspace(100, top, 7)) / 7
    soundfile.write(tmp_path / "a.wav", both, rate, subtype="FLOAT")
    ours, other = (
        load_waveform(tmp_path / "a.wav", resampler=name) for name in ("kaiser_best", "soxr_hq")
    )
    assert len(ours) == len(other) == RATE // 2
    assert (ours - other)[500:-500].abs().max() < 1e-4


def test_a_real_sound_has_nearly_the_same_log_mel_by_two_resamplers():
    ours, other = (LogMel(resampler=name).read(real_sound()) for name in ("kaiser_best", "soxr_hq"))
    assert (ours - other).abs()[:90].max() < 0.02  # the rest lies where one lets through less


@pytest.mark.parametrize("rate", [44_099, 22_051, 8_001])
def test_rates_without_a_common_factor_fill_no_memory(rate):
    seconds = 3
    wav = tone(1000, seconds, rate).astype(np.float32)
    tracemalloc.start()
    try:
        found = features._resample(wav, rate, RATE, "kaiser_best")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200e6  # bytes; all taps of 44,099 to 22,050 would be 2 GB
    assert len(found) == pytest.approx(seconds * RATE, rel=1e-4)
    assert strongest(torch.from_numpy(found)) == pytest.approx(1000, abs=0.5)


def test_the_shortest_sounds_and_silence_are_sounds(tmp_path):
    for name, samples in {
        "0.3 s": tone(800, 0.3),
        "one sample": np.array([0.5]),
        "silence": np.zeros(RATE),
        "a constant": np.full(RATE, 0.7),
    }.items():
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, samples, RATE)
        wav = load_waveform(path)
        assert len(wav) == len(samples) and wav.isfinite().all()
        mel = LogMel().read(path)
        assert mel.shape == (96, 101) and mel.isfinite().all()
        if name != "0.3 s":
            assert wav.abs().max() < 1e-4
            assert torch.allclose(mel, torch.tensor(SILENCE), atol=0.02)


def test_a_recording_is_transformed_in_pieces_to_the_same_log_mel(monkeypatch):
    wav = torch.randn(7 * 220 + 30_000, generator=torch.Generator().manual_seed(0))
    whole = LogMel()(wav)
    for piece in (1, 7, len(whole[0]) - 1):
        monkeypatch.setattr(features, "PIECE", piece)
        torch.testing.assert_close(LogMel()(wav), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
def test_a_cut_wav_file_is_no_sound_and_one_without_its_last_words_is(tmp_path, subtype):
    soundfile.write(tmp_path / "whole.wav", tone(440, 0.2), RATE, subtype=subtype)
    raw = (tmp_path / "whole.wav").read_bytes()
    path = tmp_path / "other.wav"
    for cut in (1, len(raw) // 2, len(raw) - 60):
        path.write_bytes(raw[:-cut])
        with pytest.raises(UnreadableAudioError, match=r"cut off|'data'"):
            load_waveform(path)
    # what follows the samples, a list of words say, may be cut; a stream knows no length
    path.write_bytes(raw + b"LIST" + (100).to_bytes(4, "little") + b"INFO")
    assert torch.equal(load_waveform(path), load_waveform(tmp_path / "whole.wav"))
    at = raw.index(b"data") + 4
    path.write_bytes(raw[:at] + b"\xff\xff\xff\xff" + raw[at + 4 :])
    assert torch.equal(load_waveform(path), load_waveform(tmp_path / "whole.wav"))


def damaged_files(folder: Path) -> dict[str, Path]:
    """One file for each way in which a sound cannot be read."""
    good = tone(440, 1.0)
    for name, samples in {
        "empty": np.zeros(0),
        "nan": np.where(np.arange(RATE) == 9, np.nan, good),
        "infinite": np.where(np.arange(RATE) == 9, np.inf, good),
        "overflowing": np.full(RATE, 3e38),
    }.items():
        soundfile.write(folder / f"{name}.wav", samples, RATE, subtype="FLOAT")
    soundfile.write(folder / "two_samples_at_96_kHz.wav", good[:2], 96_000)
    soundfile.write(folder / "two_billion_samples_a_second.wav", good, 2_000_000_000)
    soundfile.write(folder / "good.flac", good, RATE)
    flac = (folder / "good.flac").read_bytes()
    (folder / "good.flac").unlink()
    (folder / "cut_in_the_header.flac").write_bytes(flac[:30])
    (folder / "no_bytes.wav").touch()
    (folder / "text.wav").write_text("not a sound\n" * 50)
    (folder / "folder.wav").mkdir()
    paths = {path.stem: path for path in folder.iterdir()}
    return paths | {"missing": folder / "missing.wav"}


@pytest.mark.parametrize("resampler", ["soxr_hq", "kaiser_best"])
def test_what_cannot_be_read_is_named_with_the_next_step(tmp_path, resampler):
    paths = damaged_files(tmp_path)
    assert len(paths) == 11
    for name, path in paths.items():
        if (name, resampler) == ("two_samples_at_96_kHz", "kaiser_best"):
            continue  # one sample is left
        with pytest.raises(UnreadableAudioError) as caught:
            load_waveform(path, resampler=resampler)
        message = str(caught.value)
        assert str(path) in message and "leave it out" in message and "\n" not in message


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_every_cut_of_a_compressed_file_is_named(tmp_path, suffix):
    soundfile.write(tmp_path / f"a.{suffix}", tone(440, 0.5), RATE)
    raw = (tmp_path / f"a.{suffix}").read_bytes()
    path = tmp_path / f"cut.{suffix}"
    for tenth in range(10):
        path.write_bytes(raw[: len(raw) * tenth // 10])
        with pytest.raises(UnreadableAudioError, match=re.escape(str(path))):
            load_waveform(path)


def test_an_ogg_file_that_lost_a_page_or_a_bit_is_damaged(tmp_path):
    path = tmp_path / "a.ogg"
    soundfile.write(path, tone(440, 5.0), RATE)
    raw = path.read_bytes()
    starts = [m.start() for m in re.finditer(b"OggS", raw)] + [len(raw)]
    assert len(starts) > 4
    load_waveform(path)
    for page in range(1, len(starts) - 1):  # without its first page it is no Ogg file at all
        path.write_bytes(raw[: starts[page]] + raw[starts[page + 1] :])
        with pytest.raises(UnreadableAudioError):
            load_waveform(path)
    generator = np.random.default_rng(0)
    for at in generator.integers(100, len(raw), 20):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << generator.integers(8)]) + raw[at + 1 :])
        with pytest.raises(UnreadableAudioError):
            load_waveform(path)


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
def test_the_samples_of_a_flac_file_are_those_of_its_md5(tmp_path, subtype):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.stack([tone(440, 0.5), tone(700, 0.5)], 1), RATE, subtype=subtype)
    expected = soundfile.read(path, dtype="float32")[0]
    found = np.concatenate([block for _, block in sound_files.read_blocks(path)])
    assert found.dtype == np.float32 and np.array_equal(found, expected)
    raw = bytearray(path.read_bytes())
    for at in (27, 41):  # of the MD5
        other = raw.copy()
        other[at] ^= 1
        path.write_bytes(other)
        with pytest.raises(UnreadableAudioError, match="vouches"):
            load_waveform(path)
    path.write_bytes(raw[:26] + bytes(16) + raw[42:])  # it vouches for none
    assert load_waveform(path).isfinite().all()


@pytest.mark.parametrize("rate", [1, 999, 1_000_001, 2_000_000_000])
def test_a_rate_that_no_sound_has_fills_no_memory(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(440, 0.1), rate)
    with pytest.raises(UnreadableAudioError, match=f"{rate} samples a second"):
        load_waveform(tmp_path / "a.wav")


# --- the spectrogram ------------------------------------------------------------------------------


def librosa_log_mel(wav: torch.Tensor) -> np.ndarray:
    import librosa

    mel = librosa.feature.melspectrogram(
        y=wav.double().numpy(),
        sr=RATE,
        n_fft=2048,
        win_length=660,
        hop_length=220,
        window="hamming",
        pad_mode="reflect",
        n_mels=96,
        fmin=50,
        fmax=10_500,
        norm=None,
    )
    return np.log10(mel + 1.1e-8)


def test_a_real_sound_has_librosas_log_mel():
    wav = load_waveform(real_sound())
    assert np.abs(LogMel()(wav).numpy() - librosa_log_mel(wav)).max() <= 1e-5


def test_made_sounds_have_librosas_log_mel():
    rng = torch.Generator().manual_seed(0)
    click = torch.zeros(30_000)
    click[12_345] = 1
    noise = 0.1 * torch.randn(40_001, generator=rng)
    for wav in (click, noise, torch.from_numpy(tone(1000, 1.5)).float()):
        expected = librosa_log_mel(wav)
        wrong = np.abs(LogMel()(wav).numpy() - expected)
        # single precision ends some 60 dB below the loudest band of a frame
        assert wrong[expected > expected.max(0) - 4].max() <= 1e-5
        assert wrong.max() <= 1e-3


@pytest.mark.parametrize("samples", [22_051, 22_219, 22_220, 44_099, 66_000, 70_001])
def test_a_frame_every_220_samples(samples):
    assert LogMel()(torch.zeros(samples)).shape == (96, 1 + samples // 220)


@pytest.mark.parametrize("samples", [1, 2, 660, 7000, 22_049, 22_050])
def test_a_clip_of_at_most_a_second_is_repeated_to_one(samples):
    wav = torch.randn(samples, generator=torch.Generator().manual_seed(0))
    filled = repeat_to(wav, RATE)
    assert len(filled) == RATE
    assert (filled == wav[torch.arange(RATE) % samples]).all()
    assert torch.equal(LogMel()(wav), LogMel()(filled)) and LogMel()(wav).shape == (96, 101)


@pytest.mark.parametrize(
    ("min_seconds", "samples", "repeated"),
    [(2.0, 5000, 44_100), (2.0, 44_101, 44_101), (0.5, 7000, 11_025), (1e-6, 3, 1025)],
)
def test_the_shortest_length_is_a_setting(min_seconds, samples, repeated):
    mel = LogMel(min_seconds=min_seconds)
    wav = torch.randn(samples, generator=torch.Generator().manual_seed(0))
    assert mel(wav).shape == (96, 1 + repeated // 220)
    assert torch.equal(mel(wav), mel(repeat_to(wav, repeated))) and mel(wav).isfinite().all()


def test_the_floor_is_a_setting_and_deep_floors_stay_exact():
    noise = 0.1 * torch.randn(30_000, generator=torch.Generator().manual_seed(0))
    deep, usual = LogMel(floor=2.2e-16), LogMel()
    assert torch.allclose(deep(torch.zeros(9)), torch.tensor(math.log10(2.2e-16)))
    assert torch.allclose(10 ** deep(noise) + usual.floor, 10 ** usual(noise), rtol=1e-5)


def test_a_tone_lands_in_the_band_around_it_and_an_octave_of_level_is_a_number():
    def slaney(hertz: float) -> float:  # 3 mels in 200 Hz up to 1 kHz, then 27 in a factor 6.4
        return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)

    lowest, highest = slaney(50), slaney(10_500)
    for hertz in (120, 440, 1000, 2500, 6000, 10_000):
        mel = LogMel()(torch.from_numpy(tone(hertz, 1.2)).float())
        band = 97 * (slaney(hertz) - lowest) / (highest - lowest) - 1
        assert abs(mel[:, 20:100].mean(1).argmax().item() - band) <= 0.51, hertz
    loud, soft = (LogMel()(a * torch.from_numpy(tone(1000, 1.2)).float()) for a in (1.0, 0.1))
    top = loud.amax(0)[20:100]
    assert torch.allclose(top - soft.amax(0)[20:100], torch.tensor(2.0), atol=1e-4)


def test_the_settings_of_a_recipe_are_those_of_log_mel():
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(LogMel.__init__).parameters.items()
        if name != "self"
    }
    assert asdict(MelConfig()) == defaults == LogMel().settings
    other = replace(MelConfig(), sample_rate=16_000, fmax=8000.0, n_mels=40, hop_length=160)
    mel = LogMel(**asdict(other))
    assert mel.settings == asdict(other)
    assert mel(torch.zeros(32_000)).shape == (40, 201)


# --- the store ------------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "sounds", clips=6)


def build(corpus, tmp_path, mel=None, **options):
    return LogMelStore.build(corpus, mel or LogMel(), tmp_path / "cache", progress=False, **options)


def leftovers(tmp_path):
    return sorted(p.name for p in (tmp_path / "cache").rglob("*") if p.name.endswith(".part"))


@pytest.mark.parametrize("workers", [1, 3, None])
def test_a_store_holds_the_log_mel_of_every_clip_in_order(corpus, tmp_path, workers):
    store = build(corpus, tmp_path, workers=workers)
    assert store.frames.dtype == torch.float16 and store.starts[0] == 0
    assert store.starts.tolist() == [0, *store.lengths.cumsum(0)[:-1].tolist()]
    assert len(store.frames) == store.lengths.sum()
    for clip, start, length in zip(corpus.clips, store.starts, store.lengths, strict=True):
        mel = LogMel().read(clip.path)
        assert torch.equal(store.frames[start : start + length], mel.T.half())
    assert leftovers(tmp_path) == []


def test_a_second_build_reads_no_sound(corpus, tmp_path, monkeypatch):
    first = build(corpus, tmp_path)
    monkeypatch.setattr(features, "load_waveform", lambda *a, **k: pytest.fail("decoded again"))
    second = build(corpus, tmp_path)
    for name in ("frames", "starts", "lengths", "sums"):
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_what_is_written_into_the_frames_does_not_reach_the_file(corpus, tmp_path):
    build(corpus, tmp_path).frames.fill_(7)
    assert build(corpus, tmp_path).frames.max() < 7


def test_changed_sounds_settings_or_clips_make_another_store(corpus, tmp_path):
    def stores():
        return {p.name for p in (tmp_path / "cache" / "logmel").iterdir()}

    store = build(corpus, tmp_path)
    build(corpus, tmp_path, LogMel(n_mels=64))
    build(corpus.select([0, 1, 2]), tmp_path)
    assert len(stores()) == 3
    soundfile.write(corpus.clips[0].path, tone(440, 3.0), RATE)
    again = build(corpus, tmp_path)
    assert len(stores()) == 4
    assert again.lengths[0] == 1 + 3 * RATE // 220 != store.lengths[0]
    assert torch.equal(again.lengths[1:], store.lengths[1:])


def test_unreadable_clips_are_all_named_and_the_good_ones_kept(corpus, tmp_path, monkeypatch):
    bad = [corpus.clips[i].path for i in (1, 4)]
    bad[0].write_text("not a sound")
    bad[1].unlink()
    with pytest.raises(UnreadableAudioError) as caught:
        build(corpus, tmp_path)
    message = str(caught.value)
    assert "2 of 6 files" in message and "skip_unreadable=True" in message
    assert all(str(path) in message for path in bad)
    assert str(corpus.clips[0].path) not in message

    decoded = []
    read = features.load_waveform
    monkeypatch.setattr(
        features, "load_waveform", lambda path, **k: decoded.append(path) or read(path, **k)
    )
    with pytest.raises(UnreadableAudioError, match="2 of 6"):
        build(corpus, tmp_path)
    store = build(corpus, tmp_path, skip_unreadable=True)
    assert decoded == []
    for i, clip in enumerate(corpus.clips):
        mine = store.frames[store.starts[i] :][: store.lengths[i]]
        if clip.path in bad:  # as long as the shortest clip
            assert mine.shape == (101, 96)
            assert torch.allclose(mine.float(), torch.tensor(SILENCE), atol=0.01)
        else:
            assert torch.equal(mine, LogMel().read(clip.path).T.half())

    longer = build(corpus, tmp_path, LogMel(min_seconds=2.0), skip_unreadable=True)
    assert longer.lengths[1] == 201

    soundfile.write(bad[0], tone(440, 1.0), RATE)  # repaired: the store is made anew
    with pytest.raises(UnreadableAudioError, match="1 of 6"):
        build(corpus, tmp_path)


def test_mean_and_deviation_are_those_of_the_chosen_clips(corpus, tmp_path):
    store = build(corpus, tmp_path)
    parts = [part.double() for part in store.frames.split(store.lengths.tolist())]
    for clips in ([0, 1, 2, 3, 4, 5], [4], [5, 1, 1]):
        values = torch.cat([parts[i] for i in clips]).numpy()
        mean, std = store.mel_statistics(torch.tensor(clips))
        assert mean == pytest.approx(values.mean(), abs=1e-9)
        assert std == pytest.approx(values.std(), abs=1e-9)
    assert store.mel_statistics() == store.mel_statistics(torch.arange(6))


def test_every_band_has_its_own_mean_and_deviation(corpus, tmp_path):
    store = build(corpus, tmp_path)
    parts = [part.double().numpy() for part in store.frames.split(store.lengths.tolist())]
    for clips in ([0, 1, 2, 3, 4, 5], [4], [5, 1, 1]):
        values = np.concatenate([parts[i] for i in clips])
        mean, std = store.band_statistics(torch.tensor(clips))
        assert mean.dtype == std.dtype == torch.float32 and mean.shape == (96,)
        np.testing.assert_allclose(mean.numpy(), values.mean(0), rtol=1e-6)
        np.testing.assert_allclose(std.numpy(), values.std(0), rtol=1e-6)
    assert torch.equal(store.band_statistics()[1], store.band_statistics(torch.arange(6))[1])


@pytest.mark.parametrize("level", [SILENCE, -15.66, 0.0, 0.1])
def test_a_band_that_never_varies_is_divided_by_one(level):
    frames = torch.randn(3000, 4, generator=torch.Generator().manual_seed(0))
    frames[:, 2] = level
    store = memory_store([frames, frames[:700].double()])  # double: rounded sums of squares
    mean, std = store.band_statistics()
    assert mean[2] == pytest.approx(level, abs=1e-6) and std[2] == 1
    assert (std[[0, 1, 3]] < 1.1).all() and (std[[0, 1, 3]] != 1).all()


def test_another_layout_of_the_files_makes_another_store(corpus, tmp_path, monkeypatch):
    build(corpus, tmp_path)
    monkeypatch.setattr(features, "LAYOUT", features.LAYOUT + 1)
    build(corpus, tmp_path)
    assert len(list((tmp_path / "cache" / "logmel").iterdir())) == 2


def test_clips_are_taken_in_any_order_and_more_than_once_without_a_copy(corpus, tmp_path):
    store = LogMelStore.build(corpus, LogMel(), tmp_path / "cache", progress=False)
    order = torch.tensor([2, 0, 2])
    some = store.take(order)
    assert some.frames is store.frames
    assert torch.equal(some.lengths, store.lengths[order])
    assert torch.equal(some.starts, store.starts[order])
    assert some.mel_statistics(torch.tensor([1])) == store.mel_statistics(torch.tensor([0]))
    assert some.mel_statistics() == pytest.approx(store.mel_statistics(order))


def test_a_store_moves_whole(corpus, tmp_path):
    store = build(corpus, tmp_path)
    there = store.to("meta")
    assert {t.device.type for t in vars(there).values()} == {"meta"}
    assert {k: (t.shape, t.dtype) for k, t in vars(there).items()} == {
        k: (t.shape, t.dtype) for k, t in vars(store).items()
    }
    assert torch.equal(store.to("cpu").frames, store.frames)


def test_frames_stay_behind_when_they_would_take_more_than_half_of_a_gpus_free_memory(monkeypatch):
    free = {"cuda:0": 1000, "cuda:1": 10**6}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[str(device)], 10**9))
    first, second = torch.device("cuda:0"), torch.device("cuda:1")
    assert features._has_room(first, 500) and not features._has_room(first, 501)
    assert features._has_room(second, 501)
    assert features._has_room(torch.device("cpu"), 10**12)


def test_a_store_whose_frames_stay_behind_works_where_the_rest_of_it_is(monkeypatch):
    store = striped_store(5)
    monkeypatch.setattr(features, "_has_room", lambda device, size: size < store.frames.nbytes)
    there = store.to("meta")
    assert there.frames is store.frames and there.device.type == "meta"
    assert {there.starts.device.type, there.lengths.device.type} == {"meta"}
    assert store.device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_without_room_for_the_frames_gets_the_same_patches(monkeypatch):
    store = striped_store(50)
    whole = store.to("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 10**9))
    split = store.to("cuda")
    assert split.frames is store.frames and split.device.type == whole.frames.device.type == "cuda"
    at = split.starts + torch.arange(50, device="cuda") % 30
    expected = gather_patches(whole.frames, at, 101)
    found = gather_patches(split.frames, at, 101)
    assert found.device == expected.device and torch.equal(found, expected)
    assert found.stride() == expected.stride()
    clips = torch.arange(50, device="cuda")
    assert torch.equal(log_mel_statistics(split, clips), log_mel_statistics(whole, clips))
    assert split.mel_statistics(clips) == whole.mel_statistics(clips)


def test_a_corpus_without_clips_is_told(corpus, tmp_path):
    with pytest.raises(ValueError, match="tiny has no clips"):
        build(corpus.select([]), tmp_path)


def full_disk_by_limit(monkeypatch):
    """The system itself refuses to let any file grow beyond 50 kB."""
    resource = pytest.importorskip("resource", reason="file size limits are POSIX")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class FullDisk:
    """Files of which the eighth write finds no space left on the device."""

    writes = 0  # to all of them

    def __init__(self, path, mode):
        self.file = builtins.open(path, mode)

    def __enter__(self):
        return self

    def __exit__(self, *failed):
        self.file.close()

    def __iter__(self):
        return iter(self.file)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, content):
        FullDisk.writes += 1
        if FullDisk.writes == 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(content)


def full_disk_by_errno(monkeypatch):
    monkeypatch.setattr(FullDisk, "writes", 0)
    monkeypatch.setattr(features, "open", FullDisk, raising=False)
    return lambda: monkeypatch.delattr(features, "open")


def content(tmp_path) -> dict[str, bytes]:
    """The bytes of the only store, by file."""
    (folder,) = (tmp_path / "cache" / "logmel").iterdir()
    assert folder.suffix != ".part"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def expected_content(corpus, tmp_path) -> dict[str, bytes]:
    """The bytes of a store that was made without interruption, somewhere else."""
    build(corpus, tmp_path / "whole")
    return content(tmp_path / "whole")


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The names of the files that this process decodes."""
    names, load = [], features.load_waveform

    def told(path, **options):
        names.append(Path(path).name)
        return load(path, **options)

    monkeypatch.setattr(features, "load_waveform", told)
    return names


@pytest.mark.parametrize(
    ("fill", "save_bytes", "kept"),
    [
        (full_disk_by_limit, 1 << 23, 0),  # all are saved at once, at the end
        (full_disk_by_limit, 1, 2),  # 50 kB are two clips and a half
        (full_disk_by_errno, 1 << 23, 0),
        (full_disk_by_errno, 1, 2),  # the sums of the third
    ],
)
def test_a_full_disk_is_told_and_what_was_saved_is_kept(
    corpus, tmp_path, monkeypatch, decoded, fill, save_bytes, kept
):
    threads = torch.get_num_threads()
    expected = expected_content(corpus, tmp_path)
    monkeypatch.setattr(features, "SAVE_BYTES", save_bytes)
    undo = fill(monkeypatch)
    try:
        with pytest.raises(StoreError) as caught:
            build(corpus, tmp_path)
    finally:
        undo()
    message = str(caught.value)
    assert str(tmp_path / "cache") in message
    assert "Free some space and run it again, or set ACL_CACHE" in message
    assert (f"0.1 MB; {kept} of 6 clips are kept" in message) == (kept > 0)
    assert caught.value.__cause__.errno in (errno.EFBIG, errno.ENOSPC)
    assert len(leftovers(tmp_path)) == 1 and torch.get_num_threads() == threads
    decoded.clear()
    build(corpus, tmp_path)  # with space again
    assert sorted(decoded) == [f"{n:02d}.wav" for n in range(kept, 6)]
    assert content(tmp_path) == expected


def test_a_cache_that_cannot_be_written_is_told(corpus, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="Free some space and run it again, or set") as caught:
        build(corpus, tmp_path)
    assert "MB" not in str(caught.value)  # nothing was read, so nothing is known


@pytest.mark.parametrize("name", ["frames.f16", "sums.f64"])
def test_a_store_that_was_damaged_says_what_to_delete(corpus, tmp_path, name):
    build(corpus, tmp_path)
    (folder,) = (tmp_path / "cache" / "logmel").iterdir()
    with (folder / name).open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(StoreError, match="delete it, and it is made again") as caught:
        build(corpus, tmp_path)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x80\x04trap", b"[]", b'{"lengths": [[]]}', b"{}"])
def test_a_store_whose_index_is_none_says_what_to_delete(corpus, tmp_path, content):
    build(corpus, tmp_path)
    (folder,) = (tmp_path / "cache" / "logmel").iterdir()
    (folder / "index.json").write_bytes(content)
    with pytest.raises(StoreError, match="delete it, and it is made again"):
        build(corpus, tmp_path)


KILLED = """
import os, sys
from pathlib import Path
from acl_lib import features
from acl_lib.datasets import AudioFolder

class Killed(features.LogMel):
    def read(self, path):
        if path.name == at:
            os._exit(9)  # no handler, no cleaning up
        return super().read(path)

clips, cache, *kills = sys.argv[1:]
for kill in kills:
    at, save_bytes = kill.split(":")
    if not (child := os.fork()):
        features.SAVE_BYTES = int(save_bytes)
        corpus = AudioFolder.open(Path(clips), name="tiny")
        features.LogMelStore.build(corpus, Killed(), cache, workers=1)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 9:
        sys.exit(f"{at} was not met")
"""


def killed(tmp_path, *kills: str) -> None:
    """Build the store of `corpus` in other processes, one after another.

    Each dies while it decodes a clip: "07.wav:50" saves every 50 bytes until then.
    """
    folders = [tmp_path / "sounds" / "clips.csv", tmp_path / "cache"]
    subprocess.run([sys.executable, "-c", KILLED, *map(str, folders), *kills], check=True)
    assert len(leftovers(tmp_path)) == 1
    assert not list((tmp_path / "cache").rglob("index.json"))


def test_a_killed_build_goes_on_where_it_stopped_to_the_same_bytes(tmp_path, decoded):
    corpus = write_corpus(tmp_path / "sounds", clips=12)
    corpus.clips[1].path.write_text("not a sound")
    with pytest.raises(UnreadableAudioError, match="1 of 12"):
        build(corpus, tmp_path / "whole")
    expected = content(tmp_path / "whole")
    killed(tmp_path, "07.wav:1", "11.wav:50000")
    decoded.clear()
    with pytest.raises(UnreadableAudioError, match="1 of 12"):  # the first process met it
        build(corpus, tmp_path)
    assert content(tmp_path) == expected and leftovers(tmp_path) == []
    at = int(min(decoded)[:2])
    assert at > 3  # four at most are ahead of what one thread has written
    assert sorted(decoded) == [f"{n:02d}.wav" for n in range(at, 12)]


def test_a_build_stopped_by_hand_goes_on_too(corpus, tmp_path, monkeypatch, decoded):
    expected = expected_content(corpus, tmp_path)
    monkeypatch.setattr(features, "SAVE_BYTES", 1)
    save, saved = features._Unfinished._save, []

    def stop(part):
        save(part)
        saved.append(part)
        if len(saved) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(features._Unfinished, "_save", stop)
        with pytest.raises(KeyboardInterrupt):
            build(corpus, tmp_path)
    decoded.clear()
    build(corpus, tmp_path)
    assert sorted(decoded) == ["04.wav", "05.wav"]
    assert content(tmp_path) == expected


@pytest.mark.parametrize(
    ("name", "spoil", "kept"),
    [
        ("frames.f16", lambda raw: raw + b"half a clip", 4),
        ("sums.f64", lambda raw: raw + b"half a clip", 4),
        ("clips.jsonl", lambda raw: raw + b"[101, nu", 4),  # a line cut short vouches for nothing
        ("clips.jsonl", lambda raw: raw[:-1], 3),
        ("clips.jsonl", lambda raw: b"", 0),
        ("frames.f16", lambda raw: raw[:-1], 0),
        ("sums.f64", lambda raw: b"", 0),
    ],
)
def test_what_no_line_vouches_for_is_made_again(
    corpus, tmp_path, monkeypatch, decoded, name, spoil, kept
):
    expected = expected_content(corpus, tmp_path)
    monkeypatch.setattr(features, "SAVE_BYTES", 1)
    with monkeypatch.context() as patch:
        patch.setattr(features, "_in_turn", lambda pool, work, clips, ahead: map(work, clips[:4]))
        patch.setattr(features._Unfinished, "finish", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build(corpus, tmp_path)
    (path,) = (tmp_path / "cache" / "logmel").glob(f"*.part/{name}")
    path.write_bytes(spoil(path.read_bytes()))
    decoded.clear()
    build(corpus, tmp_path)
    assert sorted(decoded) == [f"{n:02d}.wav" for n in range(kept, 6)]
    assert content(tmp_path) == expected


def test_a_file_that_vanishes_while_a_store_is_made_leaves_no_trace_in_it(
    corpus, tmp_path, monkeypatch
):
    expected = expected_content(corpus, tmp_path)
    away, read = tmp_path / "away.wav", features.LogMel.read

    def vanishing(mel, path):
        if path.name == "03.wav":
            path.rename(away)
        return read(mel, path)

    with monkeypatch.context() as patch:
        patch.setattr(features.LogMel, "read", vanishing)
        with pytest.raises(StoreError, match=r"tiny vanished or changed .* run it again"):
            build(corpus, tmp_path)
    assert leftovers(tmp_path) == [] and not list((tmp_path / "cache").rglob("index.json"))
    away.rename(corpus.clips[3].path)
    build(corpus, tmp_path)
    assert content(tmp_path) == expected


def test_taking_up_a_store_says_how_much_is_there(corpus, tmp_path, capsys):
    killed(tmp_path, "05.wav:1")
    LogMelStore.build(corpus, LogMel(), tmp_path / "cache", progress=True)
    first = capsys.readouterr().err.strip().split("\r")[0]
    assert 0 < int(first.partition("/6")[0].rpartition(" ")[2]) < 6


TOLD = """
import os, sys, time
from pathlib import Path
from acl_lib.datasets import AudioFolder
from acl_lib.features import LogMel, LogMelStore
class Told(LogMel):
    def read(self, path):
        print(path.name, flush=True)
        time.sleep(0.1)
        return super().read(path)
root = Path(sys.argv[2])
other = os.fork()
(root / f"{os.getpid()}.ready").touch()
while len(list(root.glob("*.ready"))) < 2:
    time.sleep(0.01)
corpus = AudioFolder.open(Path(sys.argv[1]), name="tiny")
store = LogMelStore.build(corpus, Told(), root / "cache", workers=1, progress=False)
assert len(store.lengths) == 6
if other:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""


def test_two_processes_that_want_one_store_make_it_once(corpus, tmp_path):
    expected = expected_content(corpus, tmp_path)
    command = [sys.executable, "-c", TOLD, *map(str, [corpus.root / "clips.csv", tmp_path])]
    both = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    assert both.returncode == 0
    assert sorted(both.stdout.split()) == [f"{n:02d}.wav" for n in range(6)]
    assert content(tmp_path) == expected


def test_only_a_few_clips_are_in_work_or_waiting_at_a_time():
    begun, taken = [], 0
    with ThreadPoolExecutor(2) as pool:
        for n in features._in_turn(pool, lambda n: begun.append(n) or n, range(50), ahead=3):
            assert n == taken and len(begun) <= taken + 3
            taken += 1
    assert taken == 50 and sorted(begun) == list(range(50))


def test_two_threads_may_ask_for_the_same_store(corpus, tmp_path):
    stores = []
    threads = [
        threading.Thread(target=lambda: stores.append(build(corpus, tmp_path))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 2 and torch.equal(stores[0].frames, stores[1].frames)
    assert leftovers(tmp_path) == []


def test_torchs_threads_are_given_back(corpus, tmp_path, monkeypatch):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        build(corpus, tmp_path, workers=2)
        assert torch.get_num_threads() == 3
        monkeypatch.setattr(features, "load_waveform", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build(corpus, tmp_path, LogMel(n_mels=32))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
