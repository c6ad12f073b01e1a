"""Corpora of speakers: who is tested is never trained on; files in the layouts of the real ones."""

import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from tiny import write_corpus

from acl_lib.config import recipe
from acl_lib.datasets import (
    FSDD,
    CorpusNotFoundError,
    SyntheticSpeakers,
    VoxCeleb1,
    open_corpus,
    synthetic_speakers,
)
from acl_lib.datasets.base import data_dir
from acl_lib.datasets.voices import make_utterance, make_voice
from acl_lib.experiments import load_network, probe, run
from acl_lib.features import LogMel
from acl_lib.ledger import ledger
from acl_lib.records import Record, paired, report
from acl_lib.splits import evaluation_splits
from acl_lib.verification import binned_scores


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    """All speakers, and a tenth of what those to train on say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic_speakers, "UTTERANCES", {"quick": (1, 5)})
        yield SyntheticSpeakers.open(tmp_path_factory.mktemp("voices"), progress=False)


def test_a_fingerprint_tells_voices_of_other_formulas_apart(voices, tmp_path):
    """The folder is named by the code that made it; files and their lengths may be the same."""
    shutil.copytree(voices.root, tmp_path / "other")
    here = [
        replace(c, path=tmp_path / "other" / c.path.relative_to(voices.root)) for c in voices.clips
    ]
    other = replace(voices, root=tmp_path / "other", clips=tuple(here))
    assert [other.relative_path(c) for c in here] == [voices.relative_path(c) for c in voices.clips]
    assert re.fullmatch("[0-9a-f]{16}", voices.fingerprint())
    assert other.fingerprint() != voices.fingerprint() == voices.fingerprint()


def test_forty_speakers_train_and_forty_others_are_tested(voices):
    sides = {
        side: {c.source for c in voices.clips if c.split == side} for side in ("train", "test")
    }
    assert len(sides["train"]) == len(sides["test"]) == 40
    assert not sides["train"] & sides["test"]
    assert len(voices) == 40 * 1 + 40 * 5 and voices.task == "verification"
    (split,) = evaluation_splits(voices, recipe("contrastive", corpus="synthetic_speakers"))
    assert len(split.test) == 200 and len(split.pretrain) == 40
    speaker = voices.labels
    assert not set(speaker[split.pretrain].tolist()) & set(speaker[split.test].tolist())


def test_the_same_seed_speaks_the_same_and_another_is_other_people(tmp_path):
    voice = make_voice(np.random.default_rng(3))
    one, two = (make_utterance(voice, np.random.default_rng(5), seconds=1.0) for _ in range(2))
    assert np.array_equal(one, two) and len(one) == 22_050
    other = make_utterance(
        make_voice(np.random.default_rng(4)), np.random.default_rng(5), seconds=1.0
    )
    assert not np.array_equal(one, other)
    assert 0.25 < np.abs(one).max() < 1
    with pytest.raises(ValueError, match=r"0\.2 s or more"):
        make_utterance(voice, np.random.default_rng(5), seconds=0.1)


def test_a_deep_voice_has_its_pulses_at_its_pitch():
    """The period of the wave, by autocorrelation, is that of the voice."""
    for seed in range(6):
        voice = make_voice(np.random.default_rng(seed))
        wav = make_utterance(voice, np.random.default_rng(seed), seconds=1.0)
        power = np.abs(np.fft.rfft(wav, 2**16)) ** 2
        lags = np.fft.irfft(power)
        low, high = round(22_050 / (1.6 * voice.pitch)), round(22_050 / (voice.pitch / 1.6))
        found = 22_050 / (low + np.argmax(lags[low:high]))
        assert abs(12 * np.log2(found / voice.pitch)) < 4  # semitones: of the utterance, and lively


def test_speakers_differ_more_than_utterances_in_the_mean_of_their_log_mels(voices):
    mel = LogMel(n_mels=40, fmin=20.0, fmax=7600.0)
    some = [c for c in voices.clips if c.split == "test"][:100]
    means = torch.stack([mel.read(c.path).mean(1) for c in some])
    means -= means.mean(0)
    y = torch.tensor([c.label for c in some])
    within = torch.stack([means[y == k].var(0) for k in y.unique()]).mean(0)
    between = torch.stack([means[y == k].mean(0) for k in y.unique()]).var(0) - within / 5
    assert (between > 0).float().mean() > 0.8  # a share of the bands tells speakers apart


def test_a_corpus_that_lost_files_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic_speakers, "UTTERANCES", {"quick": (1, 2)})
    made = SyntheticSpeakers.open(tmp_path, progress=False)
    assert len(made) == 120
    made.clips[3].path.unlink()
    with pytest.raises(CorpusNotFoundError, match=r"Delete .*made again"):
        SyntheticSpeakers.open(tmp_path, progress=False)
    with pytest.raises(ValueError, match="unknown profile"):
        SyntheticSpeakers.open(tmp_path, profile="huge")
    assert not list(tmp_path.glob("*.part*"))


def digits(root, speakers=("george", "jackson", "lucas", "nicolas", "theo", "yweweler"), takes=2):
    (root / "recordings").mkdir(parents=True)
    for speaker in speakers:
        for digit in range(2):
            for take in range(takes):
                wav = np.random.default_rng(take).normal(0, 0.1, 3000)
                soundfile.write(root / "recordings" / f"{digit}_{speaker}_{take}.wav", wav, 8000)


def test_fsdd_tests_every_pair_of_speakers_that_training_has_not_heard(tmp_path):
    digits(tmp_path)
    corpus = FSDD.open(tmp_path)
    assert len(corpus) == 24 and len(corpus.classes) == 6
    assert "2976 of 3000 sound files" in corpus.notes[0]
    splits = evaluation_splits(corpus, recipe("contrastive", corpus="fsdd"))
    assert len(splits) == 15 and splits[0].name == "without george and jackson"
    y = corpus.labels
    for split in splits:
        tested = set(y[split.test].tolist())
        assert len(tested) == 2 and not tested & set(y[split.pretrain].tolist())
    some = [
        [s.name for s in evaluation_splits(corpus, recipe("moco", corpus="fsdd", splits=3, seed=k))]
        for k in range(6)
    ]
    assert [n for names in some[:5] for n in names] == [s.name for s in splits]
    assert some[5] == some[0]  # around
    with pytest.raises(ValueError, match="15 splits; splits=16"):
        evaluation_splits(corpus, recipe("moco", corpus="fsdd", splits=16))


def test_real_digits():
    root = data_dir() / "fsdd"
    if not root.is_dir():
        pytest.skip("no fsdd in ACL_DATA")
    corpus = FSDD.open(root)
    assert len(corpus) == 300 and corpus.sources == corpus.classes
    assert len(corpus.validate(progress=False).problems) == 0


def vox(root, parts=("",)):
    """Three speakers, two of them tested."""
    for i, name in enumerate(("id10001", "id10270", "id10271")):
        home = root / parts[i % len(parts)] / "wav" / name
        for video in ("aaa", "bbb"):
            (home / video).mkdir(parents=True)
            for k in range(2):
                wav = np.random.default_rng(k).normal(0, 0.1, 16_000)
                soundfile.write(home / video / f"{k:05d}.wav", wav, 16_000)
    lines = [
        "1 id10270/aaa/00000.wav id10270/bbb/00001.wav",
        "0 id10270/aaa/00000.wav id10271/bbb/00001.wav",
        "1 id10271/aaa/00000.wav id10271/bbb/00001.wav",
    ]
    (root / "veri_test.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("parts", [("",), ("dev", "test", "test")])
def test_voxceleb_in_its_published_layouts(tmp_path, parts):
    vox(tmp_path, parts)
    corpus = VoxCeleb1.open(tmp_path)
    split = {c.source: c.split for c in corpus.clips}
    assert split == {"id10001": "train", "id10270": "test", "id10271": "test"}
    assert len(corpus) == 4 + 4  # of the tested speakers the files of the list alone
    pairs = [
        [corpus.clips[i].path.relative_to(tmp_path).as_posix()[-23:] for i in pair]
        for pair in corpus.trials
    ]
    assert pairs[1] == ["id10270/aaa/00000.wav", "id10271/bbb/00001.wav"] or pairs[1][0].endswith(
        "id10270/aaa/00000.wav"
    )
    assert len(pairs) == 3


@pytest.mark.parametrize(
    ("line", "error", "says"),
    [
        ("2 id10270/aaa/00000.wav id10270/bbb/00001.wav", ValueError, "line 4: need '0 or 1"),
        ("0 id10270/aaa/00000.wav id10270/bbb/00001.wav", ValueError, "line 4.*contradicts"),
        (
            "1 id10270/aaa/00007.wav id10270/bbb/00001.wav",
            CorpusNotFoundError,
            "1 of 5 files.*00007",
        ),
    ],
)
def test_a_trial_list_that_cannot_be_is_told(tmp_path, line, error, says):
    vox(tmp_path)
    with (tmp_path / "veri_test.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(error, match=says):
        VoxCeleb1.open(tmp_path)


def test_voxceleb_without_its_parts_is_told(tmp_path):
    with pytest.raises(CorpusNotFoundError, match=r"veri_test\.txt"):
        VoxCeleb1.open(tmp_path)
    vox(tmp_path)
    for path in (tmp_path / "wav" / "id10001").rglob("*.wav"):
        path.unlink()
    with pytest.raises(CorpusNotFoundError, match="no speaker to train on"):
        VoxCeleb1.open(tmp_path)
    with pytest.raises(ValueError, match="has to be asked for"):
        open_corpus("voxceleb1", root=tmp_path, download=True)


@pytest.fixture
def few(tmp_path, monkeypatch):
    """Six voices to train on and six others, two utterances each; runs and caches of their own."""
    monkeypatch.setattr(synthetic_speakers, "SPEAKERS", 6)
    monkeypatch.setattr(synthetic_speakers, "UTTERANCES", {"quick": (2, 2)})
    monkeypatch.setenv("ACL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ACL_RUNS", str(tmp_path / "runs"))


def small(name, **settings):
    size = {"width": 8, "epochs": 1, "batch": 6, "precision": "float32"}
    return recipe(name, corpus="synthetic_speakers", **size | settings)


@pytest.mark.parametrize("name", ["nt_xent_am", "moco_am", "acl_am", "moco_acl", "supervised"])
def test_a_record_of_verification_says_how_well_pairs_are_told_apart(few, name):
    record = run(small(name), progress=False)
    asked = {key: list(readers) for key, readers in record.results.items()}
    z = [] if name == "supervised" else ["cosine_z"]
    assert asked == {"trained": ["cosine", *z], "untrained": ["cosine"], "statistics": ["cosine"]}
    for readers in record.results.values():
        for got in readers.values():
            assert (got["trials"], got["same"], got["speakers"]) == (66, 6, 6)
            low, high = got["eer_interval"]
            assert 0 <= low <= got["eer"] <= high <= 1
            scores, same = binned_scores(got["scores"])
            assert (len(scores), same.sum()) == (66, 6)
    assert "equal error" in record.table() and "6" in record.table()
    assert Record.read(record.path).content() == record.content()
    rows = ledger([record.path])
    assert rows.eer.notna().all() and rows.accuracy.isna().all() and set(rows.n) == {66}
    assert "equal error" in report([record])


def test_the_same_trials_are_paired_over_seeds(few):
    by_name = {
        name: {s: run(small(name, seed=s), progress=False) for s in (0, 1)}
        for name in ("contrastive", "nt_xent_am")
    }
    found = paired(*by_name.values(), reader="cosine")
    gaps = [
        b.results["trained"]["cosine"]["eer"] - a.results["trained"]["cosine"]["eer"]
        for a, b in zip(*(some.values() for some in by_name.values()), strict=True)
    ]
    assert found["per_seed"] == gaps and found["difference"] == sum(gaps) / 2
    assert found["interval"][0] <= found["interval"][1] and found["p"] == []


def test_test_speakers_leave_no_trace_in_the_training(few, monkeypatch):
    """Whoever is tested says something else: the losses of the training are the same."""
    one = run(small("nt_xent_am"), progress=False)
    write = synthetic_speakers.soundfile.write

    def write_noise(path, wav, rate):
        noise = np.random.default_rng(0).normal(0, 3000, len(wav)).astype(np.int16)
        write(path, noise if path.parts[-3] == "test" else wav, rate)

    monkeypatch.setattr(synthetic_speakers.soundfile, "write", write_noise)
    monkeypatch.setenv("ACL_CACHE", f"{os.environ['ACL_CACHE']}-other")
    two = run(small("nt_xent_am"), again=True, progress=False)
    assert one.history == two.history
    kinds = [r.results["trained"]["cosine"]["scores"] for r in (one, two)]
    assert kinds[0] != kinds[1]


def test_a_network_of_moco_is_found_again(few):
    record = run(small("moco_am"), progress=False)
    network = load_network(record)
    assert network.head is not None
    assert run(small("moco_am"), progress=False).path == record.path


def test_a_network_of_voices_is_asked_about_sounds_and_the_other_way_round(few, tmp_path):
    write_corpus(tmp_path / "sounds")
    sounds = f"folder:{tmp_path / 'sounds' / 'clips.csv'}"
    of_voices = run(small("nt_xent_am"), progress=False)
    classes = probe(of_voices, corpus=sounds, progress=False)
    assert set(classes["trained"]) == {"linear", "knn"}
    assert classes["trained"]["linear"]["n"] == 12
    of_sounds = run(replace(small("contrastive"), corpus=sounds), progress=False)
    pairs = probe(of_sounds, corpus="synthetic_speakers", progress=False)
    assert set(pairs["trained"]) == {"cosine", "cosine_z"}
    assert pairs["trained"]["cosine"]["trials"] == 66
