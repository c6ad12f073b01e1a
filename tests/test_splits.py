"""Who sees which clip: no source on two sides, official splits, subsets, a share held out."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import write_corpus

from acl_lib.config import recipe
from acl_lib.datasets import Clip, Corpus, open_corpus, synthetic
from acl_lib.splits import (
    Split,
    evaluation_splits,
    held_out,
    lessons,
    source_numbers,
    vocabulary,
)

SMALL = {"corpus": "tiny", "width": 8, "epochs": 1, "precision": "float32"}


def small(name="contrastive", **settings):
    return recipe(name, **SMALL | settings)


@pytest.fixture
def tiny(tmp_path):
    """Twelve sounds in two folds."""
    return write_corpus(tmp_path / "sounds")


def corpus_of(tmp_path, clips):
    return Corpus("made", tmp_path, ("a", "b"), tuple(clips))


def clip(i, source, fold=None, split=None):
    return Clip(path=Path(f"/{i}.wav"), label=i % 2, source=source, fold=fold, split=split)


def test_the_official_split_of_a_corpus_is_kept(monkeypatch):
    monkeypatch.setitem(synthetic.PROFILES, "quick", 60)
    wanted = small(corpus="synthetic", batch=16)
    corpus = open_corpus("synthetic", progress=False)
    (split,) = evaluation_splits(corpus, wanted)
    assert split.name == "test" and len(split.test) == 20 and not len(split.validate)
    assert {corpus.clips[i].split for i in split.test.tolist()} == {"test"}
    assert {corpus.clips[i].split for i in split.pretrain.tolist()} == {"train"}
    assert len(split.pretrain) == 40
    assert all("clean" in corpus.clips[i].subsets for i in split.probe.tolist())
    for part in ("noisy", "noisy_small", "train"):
        (other,) = evaluation_splits(corpus, replace(wanted, probe_on=part))
        subset = {"train": "all"}.get(part, part)
        assert [i for i in range(60) if subset in corpus.clips[i].subsets] == other.probe.tolist()
    (every,) = evaluation_splits(corpus, replace(wanted, pretrain_on="all"))
    assert len(every.pretrain) == 60 and torch.equal(every.probe, split.probe)
    noisy = corpus.select([c.split == "test" or "noisy" in c.subsets for c in corpus.clips])
    with pytest.raises(ValueError, match="probe_on='clean'; its subsets are all, noisy"):
        evaluation_splits(noisy, wanted)


def test_no_source_is_ever_on_both_sides(tmp_path, tiny):
    sources = [f"s{i // 3}" for i in range(40)]
    without_folds = corpus_of(tmp_path, [clip(i, s) for i, s in enumerate(sources)])
    for corpus, count in ((without_folds, 5), (tiny, 2)):
        splits = evaluation_splits(corpus, small())
        source = source_numbers(corpus)
        assert len(splits) == count
        for split in splits:
            learned = set(source[split.pretrain].tolist()) | set(source[split.probe].tolist())
            assert learned.isdisjoint(source[split.test].tolist())
            assert len(split.pretrain) + len(split.test) == len(corpus)
        tested = torch.cat([split.test for split in splits])
        assert sorted(tested.tolist()) == list(range(len(corpus)))


def test_splits_that_cannot_be_are_told(tmp_path):
    def made(*rows):
        clips = [
            Clip(Path(f"/{i}.wav"), 0, source, fold, split)
            for i, (source, fold, split) in enumerate(rows)
        ]
        return corpus_of(tmp_path, clips)

    for corpus, says in (
        (made(("a", 1, None), ("b", 2, None), ("a", 2, None)), "1 test clips.*of 'a'"),
        (made(("a", None, "train"), ("b", None, "test"), ("a", None, "test")), "2.wav of 'a'"),
        (made(("a", 1, None), ("b", None, None)), "1 of 2 clips have no fold, such as 1.wav"),
        (made(("a", 1, None), ("b", 1, None)), "fold 1: 0 clips to learn from and 2 to test on"),
        (made(("a", None, None), ("a", None, None)), "0 clips to learn from"),
        (made(("a", None, "test")), "0 clips to learn from and 1 to test on"),
    ):
        with pytest.raises(ValueError, match=says):
            evaluation_splits(corpus, small())


def test_a_clip_of_neither_side_is_left_alone(tmp_path):
    corpus = corpus_of(
        tmp_path, [clip(0, "a", split="train"), clip(1, "b", split="test"), clip(2, "c")]
    )
    (split,) = evaluation_splits(corpus, small())
    assert (split.pretrain.tolist(), split.test.tolist()) == ([0], [1])


SIDES = ("pretrain", "validate", "test")
SELECTING = [
    ("paper_code", {}),
    ("paper_code_supervised", {}),
    ("supervised", {"select_by": "loss", "select_on": "clean"}),
    ("acl", {"select_by": "knn", "select_share": 0.3}),
    ("acl", {"select_by": "knn", "finetune_epochs": 2}),
]


@pytest.mark.parametrize(("name", "settings"), SELECTING)
def test_training_selection_and_test_share_no_source(monkeypatch, tiny, name, settings):
    monkeypatch.setitem(synthetic.PROFILES, "quick", 80)
    for corpus in (open_corpus("synthetic", progress=False), tiny):
        source = source_numbers(corpus)
        for split in evaluation_splits(corpus, recipe(name, **settings)):
            sides = [set(source[getattr(split, side)].tolist()) for side in SIDES]
            assert all(sides)
            assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
            assert not set(source[split.probe].tolist()) & sides[2]
            if recipe(name, **settings).probe.chooses_epoch:  # on the selecting clips
                assert not set(source[split.probe].tolist()) & sides[1]


def test_the_papers_code_learns_from_noisy_clips_and_selects_on_clean_ones(monkeypatch):
    monkeypatch.setitem(synthetic.PROFILES, "quick", 80)
    corpus = open_corpus("synthetic", progress=False)
    subsets = [clip.subsets for clip in corpus.clips]
    (split,) = evaluation_splits(corpus, recipe("paper_code"))
    assert all("noisy" in subsets[i] for i in [*split.pretrain.tolist(), *split.probe.tolist()])
    assert all("clean" in subsets[i] for i in split.validate.tolist())
    (text,) = evaluation_splits(corpus, recipe("paper_text"))
    assert len(text.pretrain) == len(text.probe) == sum(c.split == "train" for c in corpus.clips)


def test_selection_without_clips_to_select_on_is_told(tmp_path):
    corpus = corpus_of(tmp_path, [clip(i, f"s{i % 2}", fold=1 + i % 2) for i in range(6)])
    with pytest.raises(ValueError, match=r"got 3 and 0. Keep the last epoch"):
        evaluation_splits(corpus, small("acl", select_by="knn"))


def test_a_share_is_held_out_of_every_class_in_whole_sources():
    y = torch.tensor([0] * 40 + [1] * 20 + [2] * 3 + [3])
    source = torch.arange(64) // 2
    held = held_out(y, source, 0.15)
    assert [int(held[y == k].sum()) for k in range(4)] == [6, 4, 2, 0]  # whole pairs
    for one in source.unique():
        assert len(held[source == one].unique()) == 1  # all of it or nothing
    assert not held[y == 3].any()  # its one source is needed to learn from
    for k in range(3):
        assert held[y == k].any() and not held[y == k].all()
    assert torch.equal(held, held_out(y, source, 0.15))


def noisy(rate, kind="in_vocabulary", outside=0, **settings):
    return small("supervised", label_noise=rate, noise_kind=kind, outside=outside, **settings)


def test_a_fold_without_noise_hears_the_corpus_as_it_is(tiny):
    for split in evaluation_splits(tiny, small()):
        told = lessons(tiny, small(), split)
        assert told.sound.tolist() == list(range(12)) and torch.equal(told.y, tiny.labels)
        assert torch.equal(told.source, source_numbers(tiny))


@pytest.mark.parametrize("rate", [0.2, 0.5, 1.0])
def test_the_labels_of_training_clips_are_wrong_and_those_of_test_clips_right(tiny, rate):
    wanted = noisy(rate)
    for split in evaluation_splits(tiny, wanted):
        told = lessons(tiny, wanted, split)
        changed = (told.y != tiny.labels).nonzero().flatten()
        assert len(changed) == round(rate * 6)
        assert not torch.isin(changed, split.test).any()
        assert told.sound.tolist() == list(range(12))  # the sounds stay
        again = lessons(tiny, replace(wanted, loss=replace(wanted.loss, alpha=0.5)), split)
        assert torch.equal(told.y, again.y)  # arms of a seed share their victims
        if rate < 1:
            other = lessons(tiny, noisy(rate, seed=1), split)
            assert not torch.equal(told.y, other.y)


def test_foreign_sounds_keep_the_label_of_the_place_and_bring_their_source(tiny):
    wanted = noisy(0.5, "out_of_vocabulary", 1)
    corpus, outside = vocabulary(tiny, wanted)
    assert (corpus.classes, outside.classes) == (("low", "noise"), ("high",))
    place = [
        tiny.clips.index(replace(c, label=tiny.classes.index(corpus.classes[c.label])))
        for c in corpus.clips
    ]
    for split in evaluation_splits(corpus, wanted):
        told = lessons(tiny, wanted, split)
        foreign = (told.sound != torch.tensor(place)).nonzero().flatten()
        assert len(foreign) == round(0.5 * 4) and torch.equal(told.y, corpus.labels)
        assert not torch.isin(foreign, split.test).any()
        assert {tiny.classes[tiny.clips[i].label] for i in told.sound[foreign].tolist()} == {"high"}


def test_few_foreign_sounds_are_heard_more_than_once(tiny):
    # the four clips of one class stand in for seven of the eight of the other two
    wanted = noisy(1.0, "out_of_vocabulary", 1)
    split = Split("one", *(torch.arange(k) for k in (7, 0, 7)), torch.tensor([7]))
    heard = lessons(tiny, wanted, split).sound[split.pretrain].tolist()
    assert sorted(heard.count(i) for i in set(heard)) == [1, 2, 2, 2]


def test_a_vocabulary_of_one_class_is_refused_and_seeds_go_around(tiny):
    with pytest.raises(ValueError, match=r"outside=2 leaves 1 of the 3 classes"):
        vocabulary(tiny, noisy(0.1, outside=2))
    held = [vocabulary(tiny, noisy(0.1, outside=1, seed=s))[1].classes for s in range(4)]
    assert held == [("high",), ("low",), ("noise",), ("high",)]
