"""Injected label noise: how much, where, and what stays as it was."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acl_lib.datasets import Clip, Corpus, with_label_noise


def corpus(n: int, classes: str = "abcd", name: str = "fake", tests: int = 0) -> Corpus:
    clips = tuple(
        Clip(
            path=Path("/nowhere", name, f"{i:05d}.wav"),
            label=i % len(classes),
            source=str(i),
            split="test" if i < tests else "train",
            subsets=frozenset({"test" if i < tests else "all"}),
        )
        for i in range(n)
    )
    return Corpus(name, Path("/nowhere", name), tuple(classes), clips)


def wrong(noisy: Corpus) -> list[int]:
    return [i for i, c in enumerate(noisy.clips) if c.split == "train" and c.label != c.true_label]


@given(n=st.integers(1, 60), rate=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_exactly_the_rounded_number_of_labels_is_wrong(n, rate, seed):
    noisy = with_label_noise(corpus(n), rate, "in_vocabulary", seed)
    assert len(wrong(noisy)) == round(rate * n)


def test_flips_change_labels_of_training_clips_only():
    clean = corpus(100, tests=30)
    noisy = with_label_noise(clean, 1.0, "in_vocabulary", 0)
    assert noisy.clips[:30] == clean.clips[:30]
    for before, after in zip(clean.clips[30:], noisy.clips[30:], strict=True):
        assert after.label != before.label and after.true_label == before.label
        assert replace(after, label=before.label, true_label=None) == before
    assert "70 of 70" in noisy.notes[-1]


def test_a_flip_goes_to_every_other_class_equally_often():
    noisy = with_label_noise(corpus(8000), 1.0, "in_vocabulary", 0)
    flips = Counter((c.true_label, c.label) for c in noisy.clips)
    assert len(flips) == 12  # 4 classes, 3 others each
    # 2000 clips per class, p = 1/3: standard deviation 21.1, so 5 of them
    assert all(abs(n - 2000 / 3) < 105 for n in flips.values())


def test_the_seed_decides():
    first, again, other = (
        with_label_noise(corpus(50), 0.5, "in_vocabulary", seed).clips for seed in (3, 3, 4)
    )
    assert first == again != other


def test_sounds_from_outside_keep_the_label_and_have_no_true_one():
    inside, outside = corpus(40, tests=10), corpus(25, classes="xyz", name="other")
    noisy = with_label_noise(inside, 0.5, "out_of_vocabulary", 1, outside=outside)
    assert [c.label for c in noisy.clips] == [c.label for c in inside.clips]
    assert noisy.clips[:10] == inside.clips[:10]
    victims = wrong(noisy)
    assert len(victims) == 15
    for i in victims:
        guest, victim = noisy.clips[i], inside.clips[i]
        assert guest.true_label is None and guest.subsets == victim.subsets
        assert guest.path.parent.name == "other" and guest.source.startswith("other:")
    assert len({noisy.clips[i].path for i in victims}) == 15  # no sound twice
    assert noisy.fingerprint() != inside.fingerprint()


def test_classes_held_out_of_the_same_corpus_keep_their_sources():
    whole = corpus(40)
    noisy = with_label_noise(
        whole.keep_classes("abc"), 0.2, "out_of_vocabulary", 0, outside=whole.keep_classes("d")
    )
    held_out = {c.source for c in whole.clips if c.label == 3}
    assert {noisy.clips[i].source for i in wrong(noisy)} <= held_out


def test_what_was_out_of_vocabulary_stays_so():
    inside, outside = corpus(40), corpus(40, classes="xyz", name="other")
    once = with_label_noise(inside, 0.5, "out_of_vocabulary", 0, outside=outside)
    twice = with_label_noise(once, 0.5, "in_vocabulary", 0)
    assert [c.true_label for c in twice.clips] == [c.true_label for c in once.clips]


@pytest.mark.parametrize(
    ("rate", "kind", "outside", "message"),
    [
        (1.1, "in_vocabulary", None, "1.1"),
        (-0.1, "in_vocabulary", None, "-0.1"),
        (float("nan"), "in_vocabulary", None, "nan"),
        (0.5, "symmetric", None, "symmetric"),
        (0.5, "out_of_vocabulary", None, "outside="),
        (0.5, "in_vocabulary", corpus(9, "xyz"), "outside="),
        (0.5, "out_of_vocabulary", corpus(9, "xya"), "'a'"),
        (0.5, "out_of_vocabulary", corpus(9, "xyz"), "10 clips from outside, fake has 9"),
    ],
)
def test_what_cannot_be_done_is_refused(rate, kind, outside, message):
    with pytest.raises(ValueError, match=message):
        with_label_noise(corpus(20), rate, kind, 0, outside=outside)


def test_one_class_has_nothing_to_flip_to():
    with pytest.raises(ValueError, match="second class"):
        with_label_noise(corpus(20, "a"), 0.5, "in_vocabulary", 0)


def test_sounds_from_outside_are_taken_again_only_when_asked_and_all_were_taken():
    few = corpus(3, "xyz", "outside")
    with pytest.raises(ValueError, match=r"has 3; reuse=True takes some of them more than once"):
        with_label_noise(corpus(8), 1.0, "out_of_vocabulary", 0, outside=few)
    noisy = with_label_noise(corpus(8), 1.0, "out_of_vocabulary", 0, outside=few, reuse=True)
    taken = Counter(c.path.name for c in noisy.clips)
    assert sorted(taken.values()) == [2, 3, 3] and all(c.true_label is None for c in noisy.clips)
    enough = corpus(8, "xyz", "outside")
    once = [
        with_label_noise(corpus(8), 0.5, "out_of_vocabulary", 0, outside=enough, reuse=again)
        for again in (False, True)
    ]
    assert once[0].clips == once[1].clips
    with pytest.raises(ValueError, match="has 0"):
        with_label_noise(
            corpus(8), 1.0, "out_of_vocabulary", 0, outside=corpus(0, "xyz"), reuse=True
        )
