"""The synthetic corpus: same seed, same bytes; true labels; sounds that are what they say."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from acl_lib.datasets import CorpusNotFoundError, FSDnoisy18k, open_corpus
from acl_lib.datasets.synthesis import CLASSES, OUTSIDE, Style, make_clip
from acl_lib.datasets.synthetic import PROFILES, open_synthetic, plan
from acl_lib.datasets.waveforms import SAMPLE_RATE

PLAIN = Style(pitch=900.0, seconds=0.8, depth=0.5)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def corpus(home):
    return open_synthetic(home, clips=60, progress=False)


def contents(root: Path) -> dict[str, bytes]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def truth(corpus) -> dict[str, dict[str, str]]:
    with (corpus.root / "FSDnoisy18k.meta" / "truth.csv").open() as file:
        return {row["fname"]: row for row in csv.DictReader(file)}


def event(kind: str, seed: int = 0) -> np.ndarray:
    return (CLASSES | OUTSIDE)[kind](np.random.default_rng(seed), PLAIN)


def spectrogram(wav: np.ndarray) -> np.ndarray:
    """Power, frames of 46 ms by frequencies."""
    frames = np.lib.stride_tricks.sliding_window_view(wav, 1024)[::256] * np.hanning(1024)
    return np.abs(np.fft.rfft(frames)) ** 2


def fundamental(wav: np.ndarray) -> np.ndarray:
    """Frequency of the strongest component in each audible frame, Hz."""
    power = spectrogram(wav)
    power = power[power.sum(1) > 1e-3 * power.sum(1).max()]
    return power.argmax(1) * SAMPLE_RATE / 1024


def onsets(wav: np.ndarray) -> np.ndarray:
    """Times in seconds at which the level jumps up."""
    level = np.sqrt(np.convolve(wav**2, np.ones(110) / 110))[::110]
    loud = level > 0.3 * level.max()
    return np.flatnonzero(loud[1:] & ~loud[:-1]) * 110 / SAMPLE_RATE


def test_the_same_seed_gives_identical_bytes_and_another_seed_does_not(corpus, tmp_path):
    again = open_synthetic(tmp_path, clips=60, progress=False)
    assert contents(again.root) == contents(corpus.root)
    other = open_synthetic(tmp_path, clips=60, seed=1, progress=False)
    sounds = {name for name in contents(corpus.root) if name.endswith(".wav")}
    mine, theirs = contents(corpus.root), contents(other.root)
    assert not any(mine[name] == theirs.get(name) for name in sounds)
    assert other.fingerprint() != corpus.fingerprint() == again.fingerprint()


def test_it_is_found_again_not_made_again(corpus, home):
    before = {path: path.stat().st_mtime_ns for path in corpus.root.rglob("*.wav")}
    again = open_corpus("synthetic", root=home, clips=60, progress=False)
    assert again == corpus and len(before) == 60
    assert {path: path.stat().st_mtime_ns for path in corpus.root.rglob("*.wav")} == before
    assert [path.name for path in home.iterdir()] == [corpus.root.name]  # nothing left over


def test_the_loader_of_fsdnoisy18k_reads_it(corpus):
    read = FSDnoisy18k.open(corpus.root, name="synthetic")
    assert read.classes == corpus.classes == tuple(sorted(CLASSES))
    assert [c.label for c in read.clips] == [c.label for c in corpus.clips]
    with (corpus.root / "FSDnoisy18k.meta" / "train.csv").open() as file:
        columns = next(csv.reader(file))
    assert columns == ["fname", "label", "aso_id", "manually_verified", "noisy_small"]


@pytest.mark.parametrize("clips", [60, 97, *PROFILES.values()])
def test_every_class_is_in_every_subset_and_test_is_balanced(clips):
    rows = plan(clips, seed=3, in_vocabulary=0.2, out_of_vocabulary=0.4)
    assert len(rows) == clips
    for subset in ("test", "clean", "noisy_small"):
        counts = Counter(row.label for row in rows if row.subset == subset)
        assert counts.keys() == CLASSES.keys()
        assert max(counts.values()) - min(counts.values()) <= (subset == "noisy_small")
    assert clips < 400 or 0.3 * clips == sum(row.subset == "test" for row in rows)


@pytest.mark.parametrize("rates", [(0.0, 0.0), (0.2, 0.4), (0.5, 0.5), (1.0, 0.0)])
def test_noise_rates_are_as_declared_and_only_noisy_clips_are_hit(rates):
    rows = plan(400, seed=0, in_vocabulary=rates[0], out_of_vocabulary=rates[1])
    noisy = [row for row in rows if row.subset in ("noisy", "noisy_small")]
    counts = Counter(row.noise for row in noisy)
    assert counts["in_vocabulary"] == round(rates[0] * len(noisy))
    assert counts["out_of_vocabulary"] == round(rates[1] * len(noisy))
    for row in rows:
        if row.subset in ("test", "clean") or row.noise == "none":
            assert row.kind == row.label
        elif row.noise == "in_vocabulary":
            assert row.kind in CLASSES and row.kind != row.label
        else:
            assert row.kind in OUTSIDE


def test_true_labels_reach_the_clips(corpus):
    known = truth(corpus)
    for clip in corpus.clips:
        row = known[clip.path.name]
        name = None if clip.true_label is None else corpus.classes[clip.true_label]
        assert name == (None if row["noise"] == "out_of_vocabulary" else row["true_label"])
        if {"test", "clean"} & clip.subsets:
            assert clip.true_label == clip.label
    wrong = [c for c in corpus.subset("noisy").clips if c.true_label != c.label]
    assert len(wrong) == round(0.6 * len(corpus.subset("noisy")))


def test_sounds_are_mono_16_bit_finite_and_of_the_lengths_promised(corpus):
    for clip in corpus.clips:
        info = soundfile.info(clip.path)
        assert (info.samplerate, info.channels, info.subtype) == (SAMPLE_RATE, 1, "PCM_16")
        assert 0.29 < info.duration < 30.01
        wav, _ = soundfile.read(clip.path)
        assert 0.2 < np.abs(wav).max() <= 1


@pytest.mark.parametrize("seconds", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("kind", [*CLASSES, *OUTSIDE])
def test_every_kind_makes_a_sound_at_every_length(kind, seconds):
    for seed in range(2):
        wav = make_clip(kind, np.random.default_rng(seed), seconds=seconds)
        assert len(wav) == round(seconds * SAMPLE_RATE)
        assert np.isfinite(wav).all() and 0.2 < np.abs(wav).max() <= 1


@pytest.mark.parametrize("kind", ["rising sweep", "rising notes"])
def test_rising_kinds_rise_and_their_partners_fall(kind):
    for seed in range(5):
        up, down = fundamental(event(kind, seed)), fundamental(event(f"falling{kind[6:]}", seed))
        assert up[-3:].mean() > 1.5 * up[:3].mean()
        assert down[:3].mean() > 1.5 * down[-3:].mean()


def test_taps_accelerate_slow_down_or_keep_time():
    for seed in range(5):
        gaps = {
            kind: np.diff(onsets(event(f"{kind} taps", seed)))[:4]
            for kind in ("accelerating", "slowing", "regular")
        }
        assert gaps["accelerating"][0] > 1.5 * gaps["accelerating"][2]
        assert gaps["slowing"][-1] > 1.5 * gaps["slowing"][0]
        assert np.ptp(gaps["regular"]) < 0.02


def test_noise_swells_or_fades():
    for kind, louder in (("swelling noise", 1), ("fading noise", 0)):
        halves = [half.std() for half in np.array_split(event(kind), 2)]
        assert halves[louder] > 3 * halves[1 - louder]


def test_beeps_come_long_or_short_first():
    for kind, first in (("long-short beeps", 0), ("short-long beeps", -1)):
        wav = np.abs(event(kind))
        sounding = np.convolve(wav, np.ones(400) / 400, "same") > 0.1 * wav.max()
        edges = np.flatnonzero(np.diff(sounding.astype(int), prepend=0, append=0))
        lengths = edges[1::2] - edges[::2]
        assert len(lengths) == 3 and lengths.argmax() == first % 3


def test_tremolo_moves_in_level_vibrato_and_siren_in_pitch():
    level = {kind: spectrogram(event(kind)).sum(1)[4:-4] for kind in ("tremolo", "vibrato")}
    spread = {kind: np.percentile(v, 90) / np.percentile(v, 10) for kind, v in level.items()}
    assert spread["tremolo"] > 10 > 3 > spread["vibrato"]
    assert np.ptp(fundamental(event("vibrato"))) > 3 * np.ptp(fundamental(event("tremolo"))[4:-4])
    quarters = [np.median(q) for q in np.array_split(fundamental(event("two-tone siren")), 4)]
    assert quarters[1] > 1.2 * quarters[0] and quarters[3] > 1.2 * quarters[2]


@pytest.mark.parametrize("kind", ["bell", "plucked string", "chord"])
def test_struck_kinds_die_away(kind):
    first, *_, last = (part.std() for part in np.array_split(event(kind), 4))
    assert first > 1.5 * last


def test_crackling_is_impulsive_and_a_motor_is_less_so():
    def crest(wav):
        return np.abs(wav).max() / wav.std()

    assert crest(event("crackling")) > 2 * crest(event("motor"))


@pytest.mark.parametrize("kind", ["sweep", "noise", "beeps"])
def test_reversed_pairs_have_the_same_spectra_in_another_order(kind):
    """What makes the corpus worth learning on: sorted over time, each band's levels agree."""
    names = {
        "sweep": ("rising sweep", "falling sweep"),
        "noise": ("swelling noise", "fading noise"),
        "beeps": ("long-short beeps", "short-long beeps"),
    }[kind]
    one, other = (np.log10(spectrogram(event(name))[:, 10:200] + 1e-3) for name in names)
    n = min(len(one), len(other))
    apart = np.abs(one[:n] - other[:n]).mean()
    assert np.abs(np.sort(one[:n], 0) - np.sort(other[:n], 0)).mean() < 0.35 * apart


@pytest.mark.parametrize(
    "options, message",
    [
        ({"profile": "huge"}, "quick, laptop"),
        ({"clips": 59}, "at least 60"),
        ({"in_vocabulary": 0.7}, "0.7"),
        ({"out_of_vocabulary": -0.1}, "-0.1"),
    ],
)
def test_bad_options_are_refused_with_the_next_step(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        open_synthetic(tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_a_corpus_that_lost_a_file_says_how_to_get_it_back(tmp_path):
    made = open_synthetic(tmp_path, clips=60, progress=False)
    made.clips[5].path.unlink()
    with pytest.raises(CorpusNotFoundError, match="delete it"):
        open_synthetic(tmp_path, clips=60, progress=False)


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soundfile, "write", full)
    with pytest.raises(OSError, match="No space"):
        open_synthetic(tmp_path, clips=60, progress=False)
    assert not list(tmp_path.iterdir())
