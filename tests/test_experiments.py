"""Recipe to record, on corpora of a few sounds: what is found again, and who sees which clip."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import write_corpus

from acl_lib import experiments
from acl_lib.config import ProbeConfig, recipe
from acl_lib.datasets import Clip, Corpus, cache_dir, synthetic
from acl_lib.experiments import (
    LETTERS,
    NAMES,
    Record,
    code_fingerprint,
    evaluation_splits,
    new_encoder,
    over_seeds,
    run,
    runs_dir,
    source_numbers,
)
from acl_lib.features import UnreadableAudioError
from acl_lib.statistics import wilson_interval

SMALL = {"width": 8, "epochs": 1, "batch": 4, "precision": "float32", "penalties": [0.1]}


def small(name="contrastive", **settings):
    return recipe(name, **{"corpus": "tiny"} | SMALL | settings)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Twelve sounds in two folds, which every recipe opens."""
    corpus = write_corpus(tmp_path / "sounds")
    monkeypatch.setattr(experiments, "open_corpus", lambda name, **options: corpus)
    return corpus


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def numbers(record):
    return record.results, record.history, record.splits


def test_a_record_says_what_was_done_and_found(tiny):
    wanted = small("acl", epochs=2)
    record = run(wanted, progress=False)
    assert record.recipe == wanted and record.code == code_fingerprint()
    assert record.corpus == {
        "name": "tiny",
        "fingerprint": tiny.fingerprint(),
        "clips": 12,
        "classes": ["high", "low", "noise"],
    }
    assert record.splits == ["fold 1", "fold 2"]
    assert [len(losses) for losses in record.history] == [2, 2]
    assert set(record.results) == set(NAMES)
    for got in record.results.values():
        guess = torch.tensor([LETTERS.index(letter) for letter in got["predictions"]])
        right = guess == tiny.labels
        assert got["n"] == 12 and got["accuracy"] == right.double().mean()
        assert got["interval"] == list(wilson_interval(int(right.sum()), 12))
        fold = torch.tensor([clip.fold for clip in tiny.clips])
        assert got["folds"] == [right[fold == k].double().mean().item() for k in (1, 2)]
        assert got["fold_sd"] == pytest.approx(torch.tensor(got["folds"]).std().item())
    assert record.results["statistics"]["accuracy"] >= 0.75  # tones and noise
    assert record.cost["train_cpu_seconds"] <= record.cost["cpu_seconds"]
    assert record.cost["device"] and record.cost["bfloat16"] is False
    assert set(record.versions) == {"torch", "torchaudio", "numpy", "soxr", "python"}
    table = record.table()
    assert all(name in table for name in NAMES.values())
    assert f"{100 * record.results['trained']['accuracy']:.2f} %" in table
    assert "alpha 0.3" in table and "the training clips only" in table


def test_a_record_read_from_disk_is_the_record(tiny):
    record = run(small(), progress=False)
    assert record.path.is_relative_to(runs_dir())
    assert Record.read(record.path) == record
    assert json.loads(record.path.read_text())["recipe"]["seed"] == 0
    names = sorted(p.name for p in record.path.parent.iterdir())
    assert names == ["encoder-fold-1.pt", "encoder-fold-2.pt", "record.json"]


def test_a_run_is_found_again_and_repeats_itself_bit_for_bit(tiny, monkeypatch, one_thread):
    wanted = small("acl")
    first = run(wanted, progress=False)
    with monkeypatch.context() as spy:
        spy.setattr(experiments, "pretrain", lambda *a, **k: pytest.fail("trained again"))
        assert run(wanted, progress=False) == first
    second = run(wanted, again=True, progress=False)
    assert numbers(second) == numbers(first) and second.path == first.path
    other = run(replace(wanted, seed=1), progress=False)
    assert other.path != first.path and other.history != first.history
    assert other.results["statistics"] == first.results["statistics"]  # these have no seed


def test_other_sounds_or_other_code_make_another_record(tiny, monkeypatch):
    first = run(small(), progress=False)
    monkeypatch.setattr(experiments, "code_fingerprint", lambda: "other")
    trained = []
    real = experiments.pretrain
    monkeypatch.setattr(experiments, "pretrain", lambda *a, **k: trained.append(1) or real(*a, **k))
    assert run(small(), progress=False).path != first.path and len(trained) == 2


def test_the_encoder_of_a_record_is_the_one_that_was_judged(tiny):
    record = run(small(), progress=False)
    for split in (0, 1):
        encoder = record.encoder(split)
        assert not encoder.training
        untrained = new_encoder(record.recipe)
        moved = [
            not torch.equal(a, b)
            for a, b in zip(encoder.parameters(), untrained.parameters(), strict=True)
        ]
        assert all(moved)
    one, two = record.encoder(0), record.encoder(1)
    assert not torch.equal(one.conv1.weight, two.conv1.weight)


@pytest.mark.parametrize("pretrain_on", ["train", "all"])
def test_who_is_pretrained_on(tiny, monkeypatch, pretrain_on):
    pools = []
    real = experiments.pretrain

    def spy(recipe, store, pool, **options):
        pools.append(pool.tolist())
        return real(recipe, store, pool, **options)

    monkeypatch.setattr(experiments, "pretrain", spy)
    record = run(small(pretrain_on=pretrain_on), progress=False)
    fold = [clip.fold for clip in tiny.clips]
    if pretrain_on == "all":
        assert pools == [list(range(12))] and record.splits == ["all"]
        assert "all clips, no labels" in record.table()
    else:
        assert pools == [[i for i in range(12) if fold[i] != k] for k in (1, 2)]
    assert record.results["trained"]["n"] == 12 and len(record.results["trained"]["folds"]) == 2


def test_the_test_labels_decide_nothing_but_the_score(tiny, monkeypatch, one_thread):
    first = run(small(), progress=False)
    turned = [
        replace(clip, label=(clip.label + 1) % 3) if clip.fold == 1 else clip for clip in tiny.clips
    ]
    monkeypatch.setattr(
        experiments, "open_corpus", lambda name, **options: replace(tiny, clips=tuple(turned))
    )
    second = run(small(), progress=False)
    assert second.history == first.history  # pretraining looks at no label
    for key in NAMES:
        for i, clip in enumerate(tiny.clips):
            if clip.fold == 1:  # judged by a probe that saw the labels of fold 2 only
                old, new = (r.results[key]["predictions"][i] for r in (first, second))
                assert old == new


def test_the_official_split_of_a_corpus_is_kept(monkeypatch):
    monkeypatch.setitem(synthetic.PROFILES, "quick", 60)
    wanted = small(corpus="synthetic", batch=16)
    record = run(wanted, progress=False)
    corpus = experiments.open_recipe_corpus(wanted, progress=False)
    (split,) = evaluation_splits(corpus, wanted)
    assert record.splits == ["test"] and len(split.test) == record.results["trained"]["n"] == 20
    for i, letter in enumerate(record.results["trained"]["predictions"]):
        assert (letter == "-") == (corpus.clips[i].split == "train")
    assert record.results["trained"]["fold_sd"] is None
    assert {corpus.clips[i].split for i in split.pretrain.tolist()} == {"train"}
    assert len(split.pretrain) == 40
    assert all("clean" in corpus.clips[i].subsets for i in split.probe.tolist())
    for part in ("noisy", "all"):
        (other,) = evaluation_splits(corpus, replace(wanted, probe_on=part))
        assert [i for i in range(60) if part in corpus.clips[i].subsets] == other.probe.tolist()
    (every,) = evaluation_splits(corpus, replace(wanted, pretrain_on="all"))
    assert len(every.pretrain) == 60 and torch.equal(every.probe, split.probe)
    for part in ("cleen", "test"):
        with pytest.raises(ValueError, match=f"probe_on='{part}'; its subsets are all, clean"):
            evaluation_splits(corpus, replace(wanted, probe_on=part))


def corpus_of(tmp_path, clips):
    return Corpus("made", tmp_path, ("a", "b"), tuple(clips))


def clip(i, source, fold=None, split=None):
    return Clip(path=Path(f"/{i}.wav"), label=i % 2, source=source, fold=fold, split=split)


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


def test_a_damaged_file_among_good_ones(tiny):
    tiny.clips[4].path.write_text("not a sound")
    with pytest.raises(UnreadableAudioError, match=r"1 of 12 files(.|\n)*04\.wav"):
        run(small(), progress=False)
    record = run(small(pretrain_on="all"), skip_unreadable=True, progress=False)
    assert record.results["trained"]["n"] == 12


def test_a_missing_gpu_is_told_before_any_work(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="use device='cpu' or 'auto'"):
        run(small(), device="cuda")
    assert not cache_dir().exists() and not runs_dir().exists()


def test_a_failed_run_leaves_no_record(tiny, monkeypatch):
    def fail(*a, **k):
        raise FloatingPointError("the loss became nan")

    with monkeypatch.context() as broken:
        broken.setattr(experiments, "train", fail)
        with pytest.raises(FloatingPointError):
            run(small(), progress=False)
    assert not list(runs_dir().rglob("*.json")) and not list(runs_dir().rglob("*.part"))
    assert run(small(), progress=False).results["trained"]["n"] == 12


def test_the_code_of_a_record_is_that_of_the_modules_which_decide_numbers(tmp_path, monkeypatch):
    for name in experiments.CODE:
        (tmp_path / f"{name}.py").write_text(name)
    monkeypatch.setattr(experiments, "__file__", str(tmp_path / "experiments.py"))
    seen = {code_fingerprint()}
    for name in experiments.CODE:
        (tmp_path / f"{name}.py").write_text(f"{name}, changed")
        seen.add(code_fingerprint())
    assert len(seen) == 1 + len(experiments.CODE)


def test_records_are_compared_over_seeds(tiny):
    record = run(small(), progress=False)

    def seeded(seed, accuracy, name="contrastive", pretrain_on="train"):
        results = {k: v | {"accuracy": accuracy} for k, v in record.results.items()}
        wanted = small(name, seed=seed, pretrain_on=pretrain_on)
        return replace(record, recipe=wanted, results=results)

    rows = over_seeds([seeded(0, 0.5), seeded(1, 0.7), seeded(0, 0.6, "acl", "all")])
    plain, angular = (
        rows["NT-Xent; pretrained on train"],
        rows["ACL, alpha 0.3, paper_scaled; pretrained on all"],
    )
    assert plain["per_seed"] == [0.5, 0.7] and plain["mean"] == pytest.approx(0.6)
    half = 12.706 * 0.1  # Student's t with one degree of freedom
    assert plain["interval"] == pytest.approx((0.6 - half, 0.6 + half), abs=1e-3)
    assert angular["per_seed"] == [0.6]
    assert angular["interval"] == record.results["trained"]["interval"]
    assert rows["untrained encoder"]["per_seed"] == [0.6]  # of the runs on all clips
    with pytest.raises(ValueError, match="no records"):
        over_seeds([])


def test_the_probe_of_a_recipe_is_the_one_that_is_fitted(tiny, monkeypatch):
    used = set()
    real = experiments.linear_probe
    monkeypatch.setattr(
        experiments, "linear_probe", lambda *a, **k: used.add(k["config"]) or real(*a, **k)
    )
    run(small(hop=25, penalties=[0.01, 0.1], inner_folds=2), progress=False)
    assert used == {ProbeConfig(hop=25, penalties=(0.01, 0.1), inner_folds=2)}


def test_test_clips_have_no_say_in_the_scale_of_what_is_embedded(tiny, monkeypatch):
    scales = []
    real = experiments.embed
    monkeypatch.setattr(
        experiments, "embed", lambda *a, **k: scales.append((k["mean"], k["std"])) or real(*a, **k)
    )
    run(small(), progress=False)
    store = experiments.open_store(tiny, small(), progress=False)
    fold = torch.tensor([clip.fold for clip in tiny.clips])
    expected = [store.mel_statistics((fold != k).nonzero().flatten()) for k in (1, 2)]
    assert scales == [expected[0]] * 2 + [expected[1]] * 2  # the trained encoder, the untrained


def test_the_seed_decides_the_weights():
    one, same, other = (new_encoder(small(seed=seed)).conv1.weight for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
