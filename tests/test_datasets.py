"""Corpora on disk: what is found, what is refused, and what the report says about damage."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from acl_lib.datasets import (
    ESC10,
    ESC50,
    AudioFolder,
    Clip,
    Corpus,
    CorpusNotFoundError,
    FSDnoisy18k,
    cache_dir,
    data_dir,
    open_corpus,
)
from acl_lib.datasets.esc import esc10_checksums

# the published class table of FSDnoisy18k: all, clean, noisy, noisy_small, test
PUBLISHED_CLASSES = {
    "Acoustic_guitar": (998, 102, 896, 84, 42),
    "Bass_guitar": (1106, 106, 1000, 83, 71),
    "Clapping": (928, 82, 846, 19, 57),
    "Coin_(dropping)": (759, 170, 589, 83, 70),
    "Crash_cymbal": (1076, 76, 1000, 57, 52),
    "Dishes_and_pots_and_pans": (847, 83, 764, 27, 56),
    "Engine": (1132, 137, 995, 109, 49),
    "Fart": (758, 71, 687, 48, 30),
    "Fire": (832, 81, 751, 33, 54),
    "Fireworks": (382, 51, 331, 22, 30),
    "Glass": (1155, 157, 998, 96, 54),
    "Hi-hat": (992, 81, 911, 66, 38),
    "Piano": (1096, 96, 1000, 67, 72),
    "Rain": (508, 65, 443, 37, 36),
    "Slam": (1078, 78, 1000, 11, 53),
    "Squeak": (998, 67, 931, 33, 31),
    "Tearing": (490, 62, 428, 29, 30),
    "Walk_or_footsteps": (1077, 77, 1000, 35, 52),
    "Wind": (1057, 64, 993, 23, 40),
    "Writing": (316, 66, 250, 41, 30),
}
FILES_IN_BOTH_CSVS = ("393581", "414515", "417524")
SUBSETS = ("all", "clean", "noisy", "noisy_small", "test")


def real_corpus(name: str) -> Path:
    folder = Path(os.environ.get("ACL_DATA", "data"), name)
    if not folder.is_dir():
        pytest.skip(f"no {folder}: ACL_DATA does not name a folder that holds {name}")
    return folder


def noise(seed: int, seconds: float = 0.5, rate: int = 8000, channels: int = 1) -> np.ndarray:
    shape = (round(seconds * rate), channels)
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)


def write(path: Path, wav: np.ndarray, rate: int = 8000, subtype: str = "PCM_16") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wav, rate, subtype=subtype if path.suffix == ".wav" else None)


def write_csv(path: Path, rows: list[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def fsd(tmp_path: Path) -> Path:
    """Six train clips and two test clips of three classes; 3.wav stands in both CSVs."""
    meta = tmp_path / "FSDnoisy18k.meta"
    train = [("Wind", 1, 0), ("Fire", 0, 1), ("Fire", 0, 0), ("Glass", 0, 0), ("Glass", 1, 0)]
    rows = [(f"{i}.wav", label, "/m/0", v, s) for i, (label, v, s) in enumerate(train, 1)]
    header = ("fname", "label", "aso_id", "manually_verified", "noisy_small")
    write_csv(meta / "train.csv", [header, *rows])
    write_csv(meta / "test.csv", [header[:3], ("3.wav", "Wind", "/m/0"), ("9.wav", "Fire", "/m/0")])
    for i in range(1, 6):
        write(tmp_path / "FSDnoisy18k.audio_train" / f"{i}.wav", noise(i))
    for i in (3, 9):
        write(tmp_path / "FSDnoisy18k.audio_test" / f"{i}.wav", noise(i))
    return tmp_path


# --- the interface -----------------------------------------------------------------------------


def test_folders_come_from_the_environment_and_are_absolute(monkeypatch, tmp_path):
    monkeypatch.setenv("ACL_DATA", str(tmp_path / "d"))
    monkeypatch.delenv("ACL_CACHE", raising=False)
    monkeypatch.chdir(tmp_path)
    assert data_dir() == tmp_path / "d"
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.setenv("ACL_DATA", "")  # set but empty is not set
    assert data_dir() == tmp_path / "data"


def test_select_takes_indices_in_order_and_masks_of_the_right_length(fsd):
    corpus = FSDnoisy18k.open(fsd)
    picked = corpus.select([4, 0])
    assert picked.clips == (corpus.clips[4], corpus.clips[0])
    assert isinstance(picked, FSDnoisy18k)
    mask = corpus.labels == 1
    assert corpus.select(mask).labels.tolist() == [1] * int(mask.sum())
    assert len(corpus.select(torch.tensor([], dtype=torch.long))) == 0
    with pytest.raises(ValueError, match="mask of shape"):
        corpus.select([True, False])


def test_an_unknown_subset_is_answered_with_the_known_ones(fsd):
    with pytest.raises(ValueError, match=r"'noisy_small', 'test', 'train'"):
        FSDnoisy18k.open(fsd).subset("curated")


def test_keep_classes_counts_labels_anew(fsd):
    corpus = FSDnoisy18k.open(fsd)
    kept = corpus.keep_classes(["Wind", "Glass"])
    assert kept.classes == ("Glass", "Wind")
    for clip in kept.clips:
        before = next(c for c in corpus.clips if c.path == clip.path)
        assert kept.classes[clip.label] == corpus.classes[before.label]
    with pytest.raises(ValueError, match="no class"):
        corpus.keep_classes(["Thunder"])


def test_fingerprint_ignores_the_place_and_sees_labels_and_sizes(fsd, tmp_path_factory):
    corpus = FSDnoisy18k.open(fsd)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(fsd, elsewhere)
    assert FSDnoisy18k.open(elsewhere).fingerprint() == corpus.fingerprint()
    assert corpus.select(range(3)).fingerprint() != corpus.fingerprint()
    write(elsewhere / "FSDnoisy18k.audio_train" / "1.wav", noise(1, seconds=0.6))
    assert FSDnoisy18k.open(elsewhere).fingerprint() != corpus.fingerprint()


def test_open_corpus_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("ACL_DATA", str(tmp_path))
    for name in ("esc10", "esc50", "fsdnoisy18k"):
        with pytest.raises(CorpusNotFoundError, match="download=True") as error:
            open_corpus(name)
        assert str(tmp_path / name) in str(error.value)
        assert "ACL_DATA" in str(error.value)
    with pytest.raises(ValueError, match=r"fsdnoisy18k.*folder:PATH"):
        open_corpus("fsd")
    for name, root in (("folder", None), ("folder:", None), ("folder:here", tmp_path)):
        with pytest.raises(ValueError, match=f"'folder:PATH', or 'folder' and root=; got '{name}'"):
            open_corpus(name, root=root)
    with pytest.raises(CorpusNotFoundError, match="nowhere"):
        open_corpus("folder", root=tmp_path / "nowhere")
    with pytest.raises(CorpusNotFoundError, match="nowhere"):
        open_corpus(f"folder:{tmp_path}/nowhere")


# --- FSDnoisy18k -------------------------------------------------------------------------------


def test_fsd_subsets_splits_and_the_file_in_both_csvs(fsd):
    corpus = FSDnoisy18k.open(fsd)
    assert corpus.classes == ("Fire", "Glass", "Wind")
    names = {s: [c.path.name for c in corpus.subset(s).clips] for s in (*SUBSETS, "train")}
    assert names == {
        "all": ["1.wav", "2.wav", "4.wav", "5.wav"],
        "train": ["1.wav", "2.wav", "4.wav", "5.wav"],
        "clean": ["1.wav", "5.wav"],
        "noisy": ["2.wav", "4.wav"],
        "noisy_small": ["2.wav"],
        "test": ["3.wav", "9.wav"],
    }
    assert len(corpus.notes) == 1
    assert "3.wav" in corpus.notes[0] and "Fire" in corpus.notes[0] and "Wind" in corpus.notes[0]
    assert {c.source for c in corpus.clips} == {"1", "2", "3", "4", "5", "9"}
    assert all(c.true_label is None for c in corpus.clips)
    assert corpus.validate(progress=False).problems[0].startswith("all: 5 rows")


def test_fsd_layout_may_carry_the_truth_and_another_name(fsd):
    rows = [("fname", "true_label", "noise"), ("1.wav", "Wind", ""), ("2.wav", "Glass", "in")]
    rows += [("4.wav", "", "out"), ("9.wav", "Fire", "")]
    write_csv(fsd / "FSDnoisy18k.meta" / "truth.csv", rows)
    corpus = FSDnoisy18k.open(fsd, name="synthetic")
    truth = {c.path.name: c.true_label for c in corpus.clips}
    assert truth == {
        "1.wav": 2,
        "2.wav": 1,
        "3.wav": None,
        "4.wav": None,
        "5.wav": None,
        "9.wav": 0,
    }
    assert corpus.name == "synthetic"
    assert corpus.validate(progress=False).problems == ()


def test_fsd_metadata_without_audio(fsd):
    shutil.rmtree(fsd / "FSDnoisy18k.audio_train")
    with pytest.raises(CorpusNotFoundError, match=r"4 of 6 sound files .*1\.wav, 2\.wav, 4\.wav, "):
        FSDnoisy18k.open(fsd)
    assert len(FSDnoisy18k.open(fsd, audio="optional")) == 6
    present = FSDnoisy18k.open(fsd, audio="present")
    assert [c.split for c in present.clips] == ["test", "test"]
    assert "4 of 6" in present.notes[-1]
    shutil.rmtree(fsd / "FSDnoisy18k.audio_test")
    with pytest.raises(CorpusNotFoundError, match="6 of 6"):
        FSDnoisy18k.open(fsd, audio="present")
    with pytest.raises(ValueError, match="'maybe'"):
        FSDnoisy18k.open(fsd, audio="maybe")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("fname", "label")], "manually_verified"),
        ([("fname", "label", "manually_verified", "noisy_small"), ("1.wav", "A", "yes", 0)], "yes"),
        ([("fname", "label", "manually_verified", "noisy_small"), ("1.wav", "A")], "line 2"),
    ],
)
def test_fsd_metadata_that_cannot_be_read(fsd, rows, message):
    write_csv(fsd / "FSDnoisy18k.meta" / "train.csv", rows)
    with pytest.raises(ValueError, match=message):
        FSDnoisy18k.open(fsd)


def test_fsd_real_metadata_has_the_published_counts():
    root = real_corpus("fsdnoisy18k")
    corpus = FSDnoisy18k.open(root, audio="optional")
    assert [len(corpus.subset(s)) for s in SUBSETS] == [17582, 1772, 15810, 1003, 947]
    assert all(fid in note for fid, note in zip(FILES_IN_BOTH_CSVS, corpus.notes, strict=True))
    assert corpus.classes == tuple(PUBLISHED_CLASSES)
    dropped = {"Fireworks": 2, "Fire": 1}  # published counts hold the three files of both CSVs
    counts = [torch.bincount(corpus.subset(s).labels, minlength=20).tolist() for s in SUBSETS]
    for k, (name, published) in enumerate(PUBLISHED_CLASSES.items()):
        found = [count[k] for count in counts]
        less = dropped.get(name, 0)
        assert found == [published[0] - less, published[1], published[2] - less, *published[3:]]
    report = FSDnoisy18k.validate(corpus.select([0, 1]), progress=False)
    assert report.problems == ()


# --- ESC ---------------------------------------------------------------------------------------


def test_esc10_real_corpus():
    corpus = ESC10.open(real_corpus("esc10"))
    assert len(corpus) == 400 and corpus.folds == (1, 2, 3, 4, 5)
    assert len(corpus.sources) == 304
    assert torch.bincount(corpus.labels).tolist() == [40] * 10
    assert corpus.classes[0] == "Baby cry" and list(corpus.classes) == sorted(corpus.classes)
    takes = [c for c in corpus.clips if c.source == "5-193473"]
    assert [c.path.name for c in takes] == ["5-193473-A.ogg", "5-193473-B.ogg"]
    assert {c.fold for c in takes} == {5} and takes[0].licence == "CC-BY"
    assert sum(c.licence == "CC0" for c in corpus.clips) == 233
    one_per_class = corpus.select(range(0, 400, 40))
    assert one_per_class.validate(progress=False).findings == {}  # read, and as published


def test_esc10_names_missing_files_and_finds_altered_ones(tmp_path):
    paths = list(esc10_checksums())[:3]
    for i, path in enumerate(paths):
        write(tmp_path / path, noise(i))
    with pytest.raises(CorpusNotFoundError, match="397 of 400"):
        ESC10.open(tmp_path)
    corpus = ESC10.open(tmp_path, audio="present")
    assert [corpus.relative_path(c) for c in corpus.clips] == sorted(paths)
    report = corpus.validate(progress=False)
    assert len(report.problems) == 3  # noise is not the published bark
    assert len(report.empty_classes) == 9


def test_esc50_layout(tmp_path):
    header = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
    rows = [
        ("1-7-A-0.wav", 1, 0, "dog", "True", 7, "A"),
        ("1-7-B-0.wav", 1, 0, "dog", "True", 7, "B"),
    ]
    rows += [("2-8-A-5.wav", 2, 5, "cat", "False", 8, "A")]
    write_csv(tmp_path / "meta" / "esc50.csv", [header, *rows])
    for i, row in enumerate(rows):
        write(tmp_path / "audio" / row[0], noise(i))
    corpus = ESC50.open(tmp_path)
    assert corpus.classes == ("cat", "dog") and corpus.labels.tolist() == [1, 1, 0]
    assert corpus.sources == ("1-7", "2-8") and corpus.folds == (1, 2)
    assert len(corpus.subset("esc10")) == 2
    (tmp_path / "audio" / "2-8-A-5.wav").unlink()
    with pytest.raises(CorpusNotFoundError, match="1 of 3"):
        ESC50.open(tmp_path)


# --- your own sounds ---------------------------------------------------------------------------


def test_audio_folder_reads_four_formats_and_nothing_else(tmp_path):
    for i, suffix in enumerate((".wav", ".flac", ".ogg", ".mp3")):
        write(tmp_path / "rain" / f"a{suffix}", noise(i))
    write(tmp_path / "bell" / "B.WAV", noise(9))
    (tmp_path / "bell" / "notes.txt").write_text("not a sound")
    (tmp_path / ".hidden").mkdir()
    corpus = open_corpus("folder", root=tmp_path, name="mine")
    assert corpus.name == "mine" and corpus.classes == ("bell", "rain")
    paths = [corpus.relative_path(c) for c in corpus.clips]
    assert paths == ["bell/B.WAV", "rain/a.flac", "rain/a.mp3", "rain/a.ogg", "rain/a.wav"]
    assert len(corpus.sources) == 5 and corpus.folds == ()
    assert corpus.validate(progress=False).findings == {}


@pytest.mark.parametrize(
    ("folder", "name"),
    [("birds", "birds"), ("my birds: v1.2", "my_birds_v1_2"), ("Vögel", "Vögel"), ("--", "folder")],
)
def test_your_own_sounds_have_a_name_for_files(monkeypatch, tmp_path, folder, name):
    write(tmp_path / folder / "rain" / "a.wav", noise(0))
    table = tmp_path / f"{folder}.csv"
    write_csv(table, [("path", "label"), (f"{folder}/rain/a.wav", "rain")])
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path / folder, f"{folder}/", f"./{folder}", table, table.name):
        corpus = open_corpus(f"folder:{place}")
        assert isinstance(corpus, AudioFolder) and corpus.name == name
        assert corpus.clips[0].path == tmp_path / folder / "rain" / "a.wav"
        assert open_corpus("folder", root=place).fingerprint() == corpus.fingerprint()
    monkeypatch.chdir(tmp_path / folder)
    assert open_corpus("folder:.").name == name
    assert open_corpus("folder:.", name="mine").name == "mine"


def test_audio_folder_names_the_empty_class(tmp_path):
    write(tmp_path / "rain" / "a.wav", noise(0))
    (tmp_path / "silence").mkdir()
    with pytest.raises(ValueError, match="silence"):
        AudioFolder.open(tmp_path)
    with pytest.raises(ValueError, match="no class folders"):
        AudioFolder.open(tmp_path / "rain")


def test_audio_folder_from_a_csv(tmp_path):
    for i in range(3):
        write(tmp_path / "sounds" / f"{i}.wav", noise(i))
    table = tmp_path / "mine.csv"
    rows = [("path", "label", "fold", "source"), ("sounds/2.wav", "b", "2", "ann")]
    rows += [("sounds\\0.wav", "a", "", ""), (str(tmp_path / "sounds" / "1.wav"), "a", "1", "bob")]
    write_csv(table, rows)
    corpus = AudioFolder.open(table)
    assert [c.path.name for c in corpus.clips] == ["0.wav", "1.wav", "2.wav"]
    assert [c.source for c in corpus.clips] == ["sounds/0.wav", "bob", "ann"]
    assert [c.fold for c in corpus.clips] == [None, 1, 2]
    write_csv(table, [("path", "label"), ("sounds/7.wav", "a"), ("sounds/0.wav", "a")])
    with pytest.raises(CorpusNotFoundError, match=r"1 of 2 .*7\.wav"):
        AudioFolder.open(table)
    for rows in ([("file", "label")], [("path", "label")], [("path", "label"), ("a.wav", "")]):
        write_csv(table, rows)
        with pytest.raises(ValueError, match=r"mine\.csv"):
            AudioFolder.open(table)


# --- the report --------------------------------------------------------------------------------


def test_report_lists_every_kind_of_trouble_and_keeps_the_good(tmp_path):
    bad = noise(1)
    bad[100] = np.nan
    write(tmp_path / "a" / "good.wav", noise(0))
    write(tmp_path / "a" / "copy.flac", soundfile.read(tmp_path / "a" / "good.wav")[0])
    write(tmp_path / "a" / "nan.wav", bad, subtype="FLOAT")
    write(tmp_path / "a" / "just_long_enough.wav", noise(2, seconds=0.3))
    write(tmp_path / "a" / "short.wav", noise(3, seconds=0.29))
    write(tmp_path / "b" / "silent.wav", np.zeros(8000))
    write(tmp_path / "b" / "offset.wav", np.full(8000, 0.5))  # silence, once its mean is taken off
    write(tmp_path / "b" / "stereo.wav", noise(4, rate=96000, channels=2), rate=96000)
    write(tmp_path / "b" / "whole.wav", noise(5))
    write(tmp_path / "b" / "whole.mp3", noise(5, seconds=2))
    for whole in ("whole.wav", "whole.mp3"):
        content = (tmp_path / "b" / whole).read_bytes()
        cut = tmp_path / "b" / f"cut{Path(whole).suffix}"
        cut.write_bytes(content[: len(content) // 2])
    (tmp_path / "b" / "text.ogg").write_text("no sound at all")
    corpus = AudioFolder.open(tmp_path)
    (tmp_path / "b" / "whole.wav").unlink()
    report = corpus.validate(progress=False)
    unreadable = dict(report.unreadable)
    assert unreadable.keys() == {"b/cut.wav", "b/cut.mp3", "b/text.ogg", "b/whole.wav"}
    assert "cut off" in unreadable["b/cut.wav"] and "cut off" in unreadable["b/cut.mp3"]
    assert "no such file" in unreadable["b/whole.wav"]
    assert report.not_finite == ("a/nan.wav",)
    assert report.too_short == ("a/short.wav",)
    assert report.silent == ("b/offset.wav", "b/silent.wav")
    assert report.duplicates == (("a/copy.flac", "a/good.wav"),)
    assert report.sample_rates == {8000: 8, 96000: 1} and report.channels == {1: 8, 2: 1}
    assert report.seconds[1] == pytest.approx(0.29) and report.seconds[3] == pytest.approx(2)
    assert report.counts == {"a": {"clips": 5}, "b": {"clips": 8}}
    table = str(report)
    assert "a/nan.wav" in table and "13" in table and str(tmp_path) not in table


def test_report_sees_a_source_in_two_folds_and_an_empty_class(tmp_path):
    for i in range(3):
        write(tmp_path / f"{i}.wav", noise(i))
    clips = tuple(
        Clip(path=tmp_path / f"{i}.wav", label=0, source="ann" if i else "bob", fold=i + 1)
        for i in range(3)
    )
    report = Corpus("mine", tmp_path, ("a", "b"), clips).validate(progress=False)
    assert report.leaking_sources == ("ann",)
    assert report.empty_classes == ("b",)
    assert "class without clips: 1" in str(report)


def test_report_of_nothing_is_a_report(tmp_path):
    report = Corpus("empty", tmp_path, ("a",), ()).validate(progress=False)
    assert report.clips == 0 and report.empty_classes == ("a",)
    assert "0 clips" in str(report)
