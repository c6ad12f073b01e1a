"""Recipe to record, on corpora of a few sounds: what is found again, and who sees which clip."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
import torch
from tiny import write_corpus

from acl_lib import experiments
from acl_lib.config import ProbeConfig, recipe
from acl_lib.datasets import cache_dir
from acl_lib.experiments import (
    code_fingerprint,
    load_network,
    new_network,
    probe,
    reproduce,
    run,
    runs_dir,
)
from acl_lib.features import UnreadableAudioError
from acl_lib.records import LETTERS, REPRESENTATIONS, Record, method_name
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
        "labels": "abc" * 4,
        "sources": [i // 3 for i in range(12)],
    }
    assert record.splits == ["fold 1", "fold 2"]
    assert [len(losses) for losses in record.history] == [2, 2]
    assert record.selection == [{"epoch": 2, "scores": []}] * 2
    assert set(record.results) == set(REPRESENTATIONS)
    fold = torch.tensor([clip.fold for clip in tiny.clips])
    for readers in record.results.values():
        assert set(readers) == {"linear", "knn"}
        for got in readers.values():
            guess = torch.tensor([LETTERS.index(letter) for letter in got["predictions"]])
            right = guess == tiny.labels
            assert got["n"] == 12 and got["accuracy"] == right.double().mean()
            assert got["interval"] == list(wilson_interval(int(right.sum()), 12))
            assert got["folds"] == [right[fold == k].double().mean().item() for k in (1, 2)]
            assert got["fold_sd"] == pytest.approx(torch.tensor(got["folds"]).std().item())
    assert record.results["statistics"]["linear"]["accuracy"] >= 0.75  # tones and noise
    assert record.cost["train_cpu_seconds"] <= record.cost["cpu_seconds"] + 0.2  # both rounded
    assert record.cost["device"] and record.cost["bfloat16"] is False
    assert record.cost["kind"] == "cpu" and record.cost["threads"] == torch.get_num_threads()
    assert set(record.versions) == {"torch", "torchaudio", "numpy", "soxr", "python"}
    table = record.table()
    assert all(name in table for name in REPRESENTATIONS.values())
    assert f"{100 * record.results['trained']['linear']['accuracy']:.2f} %" in table
    assert "alpha 0.3" in table and "the training clips only" in table


@pytest.mark.parametrize("name", ["supervised", "supervised_acl"])
def test_a_supervised_record_has_its_own_classifier_and_saw_no_test_label(
    tiny, monkeypatch, one_thread, name
):
    wanted = small(name, epochs=6, lr=0.05)
    record = run(wanted, progress=False)
    assert set(record.results["trained"]) == {"linear", "knn", "classifier"}
    assert set(record.results["untrained"]) == {"linear", "knn"}
    assert record.results["trained"]["classifier"]["n"] == 12
    assert "its own classifier" in record.table() and "with labels" in record.table()
    turned = [
        replace(clip, label=(clip.label + 1) % 3) if clip.fold == 1 else clip for clip in tiny.clips
    ]
    other = replace(tiny, clips=tuple(turned))
    monkeypatch.setattr(experiments, "open_corpus", lambda name, **options: other)
    second = run(wanted, progress=False)
    assert second.history[0] == record.history[0] and second.history[1] != record.history[1]


def test_a_supervised_contrastive_record_has_a_head_and_no_classifier(tiny, one_thread):
    record = run(small("supcon"), progress=False)
    network = load_network(record)
    assert set(record.results["trained"]) == {"linear", "knn"}
    assert network.head and not network.classifier
    assert "with labels" in record.table() and "temperature 0.2" in record.table()
    assert method_name(record.recipe) == "supervised contrastive"
    assert record.history != run(small(), progress=False).history  # the labels have a say


def test_a_record_read_from_disk_is_the_record(tiny):
    record = run(small(), progress=False)
    assert record.path.is_relative_to(runs_dir())
    assert Record.read(record.path) == record
    assert json.loads(record.path.read_text())["recipe"]["seed"] == 0
    names = sorted(p.name for p in record.path.parent.iterdir())
    assert names == ["network-fold-1.pt", "network-fold-2.pt", "record.json"]


def test_a_run_is_found_again_and_repeats_itself_bit_for_bit(tiny, monkeypatch, one_thread):
    wanted = small("acl")
    first = run(wanted, progress=False)
    with monkeypatch.context() as spy:
        spy.setattr(experiments, "fit", lambda *a, **k: pytest.fail("trained again"))
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
    real = experiments.fit
    monkeypatch.setattr(experiments, "fit", lambda *a, **k: trained.append(1) or real(*a, **k))
    assert run(small(), progress=False).path != first.path and len(trained) == 2


def test_the_encoder_of_a_record_is_the_one_that_was_judged(tiny):
    record = run(small(), progress=False)
    for split in (0, 1):
        encoder = load_network(record, split).encoder
        assert not encoder.training
        untrained = new_network(record.recipe, 3).encoder
        moved = [
            not torch.equal(a, b)
            for a, b in zip(encoder.parameters(), untrained.parameters(), strict=True)
        ]
        assert all(moved)
    one, two = load_network(record, 0).encoder, load_network(record, 1).encoder
    assert not torch.equal(one.conv1.weight, two.conv1.weight)
    moved_away = replace(record, path=record.path.parent / "elsewhere" / "record.json")
    with pytest.raises(FileNotFoundError, match=r"`run\(record.recipe\)` finds"):
        load_network(moved_away)


@pytest.mark.parametrize("pretrain_on", ["train", "all"])
def test_who_is_pretrained_on(tiny, monkeypatch, pretrain_on):
    pools = []
    real = experiments.fit

    def spy(recipe, store, y, split, **options):
        pools.append(split.pretrain.tolist())
        return real(recipe, store, y, split, **options)

    monkeypatch.setattr(experiments, "fit", spy)
    record = run(small(pretrain_on=pretrain_on), progress=False)
    fold = [clip.fold for clip in tiny.clips]
    if pretrain_on == "all":
        assert pools == [list(range(12))] and record.splits == ["all"]
        assert "all clips, no labels" in record.table()
    else:
        assert pools == [[i for i in range(12) if fold[i] != k] for k in (1, 2)]
    got = record.results["trained"]["linear"]
    assert got["n"] == 12 and len(got["folds"]) == 2


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
    for key in REPRESENTATIONS:
        for reader in ("linear", "knn"):
            for i, clip in enumerate(tiny.clips):
                if clip.fold == 1:  # judged by a probe that saw the labels of fold 2 only
                    old, new = (r.results[key][reader]["predictions"][i] for r in (first, second))
                    assert old == new


def test_a_damaged_file_among_good_ones(tiny):
    tiny.clips[4].path.write_text("not a sound")
    with pytest.raises(UnreadableAudioError, match=r"1 of 12 files(.|\n)*04\.wav"):
        run(small(), progress=False)
    record = run(small(pretrain_on="all"), skip_unreadable=True, progress=False)
    assert record.results["trained"]["linear"]["n"] == 12


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
    assert run(small(), progress=False).results["trained"]["linear"]["n"] == 12


def test_the_code_of_a_record_is_that_of_the_modules_which_decide_numbers(tmp_path):
    (tmp_path / "datasets").mkdir()
    for name in experiments.CODE:
        (tmp_path / f"{name}.py").write_text(name)
    seen = {experiments._fingerprint_of(tmp_path)}
    for name in experiments.CODE:
        (tmp_path / f"{name}.py").write_text(f"{name}, changed")
        seen.add(experiments._fingerprint_of(tmp_path))
    assert len(seen) == 1 + len(experiments.CODE)
    assert code_fingerprint() == experiments._fingerprint_of(Path(experiments.__file__).parent)


def test_what_only_a_reader_sees_does_not_change_the_fingerprint_and_all_else_does():
    code = '''"""Of a module."""

import math  # for pi

A = "# no comment"


class B:
    """Of a class,
    on two lines."""

    def c(self, x):
        """Of a function."""
        "a string, as a statement"
        return x + 1  # one more
'''
    bare = experiments._bare(code)
    assert "Of a" not in bare and "one more" not in bare and '"# no comment"' in bare
    same = (
        code.replace("one more", "another")
        .replace("Of a class", "It says\n\n    more")
        .replace("\n\n\n", "\n\n\n# a heading\n\n")
    )
    assert same != code and experiments._bare(same) == bare
    for old, new in (
        ("x + 1", "x + 2"),
        ("# no", "# a"),
        ("as a", "no"),
        ("(self, x)", "(self,x)"),
    ):
        assert experiments._bare(code.replace(old, new)) != bare


def test_wrong_labels_are_learned_and_right_ones_asked_for(tiny, one_thread):
    right = run(small("supervised"), progress=False)
    wrong = run(small("supervised", label_noise=1.0), progress=False)
    assert wrong.corpus == right.corpus  # labels are the truth
    assert wrong.history != right.history
    for record in (right, wrong):
        got = record.results["statistics"]["linear"]
        hits = [a == b for a, b in zip(got["predictions"], record.corpus["labels"], strict=True)]
        assert sum(hits) / 12 == pytest.approx(got["accuracy"])
    # statistics tell these sounds apart, so a reader that was told wrong is wrong
    honest, misled = (r.results["statistics"]["linear"]["accuracy"] for r in (right, wrong))
    assert honest > 0.9 and misled < 0.5


def test_a_record_names_the_vocabulary_and_hears_the_rest_as_foreign_sounds(tiny, one_thread):
    foreign = {"label_noise": 0.5, "noise_kind": "out_of_vocabulary", "outside": 1}
    record = run(small("supervised", **foreign), progress=False)
    assert record.corpus["classes"] == ["low", "noise"] and record.corpus["clips"] == 8
    assert record.results["trained"]["classifier"]["n"] == 8
    other = run(small("supervised", seed=1, **foreign), progress=False)
    assert other.corpus["classes"] == ["high", "noise"]  # the seed holds the next one outside
    assert other.corpus["fingerprint"] != record.corpus["fingerprint"]
    again = probe(record, hop=50, progress=False)
    assert (
        again["trained"]["linear"]["predictions"]
        == (record.results["trained"]["linear"]["predictions"])
    )


def test_a_foreign_sound_that_changes_is_another_run(tiny, one_thread):
    foreign = {"label_noise": 0.5, "noise_kind": "out_of_vocabulary", "outside": 1}
    record = run(small("supervised", **foreign), progress=False)
    soundfile.write(tiny.clips[0].path, 0.1 * torch.ones(9_000), 22_050)  # of the class outside
    assert tiny.clips[0].label not in [tiny.classes.index(c) for c in record.corpus["classes"]]
    other = run(small("supervised", **foreign), progress=False)
    assert other.path != record.path and other.history != record.history


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
    one, same, other = (new_network(small(seed=seed), 3).encoder.conv1.weight for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_supervised_and_contrastive_start_from_the_same_encoder():
    one, other = (new_network(small(name), 3).encoder for name in ("acl", "supervised"))
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


# --- asked again, repeated, continued ------------------------------------------------------------


def test_a_record_repeats_itself_exactly_and_says_what_does_not(tiny, monkeypatch, one_thread):
    record = run(small("supervised_acl"), progress=False)
    assert reproduce(record, progress=False) == ([], [])
    trained = []
    real = experiments.fit
    monkeypatch.setattr(experiments, "fit", lambda *a, **k: trained.append(1) or real(*a, **k))
    results = json.loads(json.dumps(record.results))
    results["trained"]["knn"]["accuracy"] = 2.0
    numbers, since = reproduce(replace(record, results=results, code="older"), progress=False)
    assert since == [f"code: older in the record, {record.code} now"]
    right = record.results["trained"]["knn"]["accuracy"]
    assert numbers == [f"results.trained.knn.accuracy: 2.0 in the record, {right} now"]
    assert len(trained) == 2  # both folds, truly again


def test_a_probe_of_its_own_corpus_says_the_same_and_other_settings_say_another(tiny, one_thread):
    for name in ("contrastive", "supervised"):
        record = run(small(name), progress=False)
        assert probe(record, progress=False) == record.results
    other = probe(record, neighbours=1, hop=25, progress=False)
    assert other["trained"]["knn"] != record.results["trained"]["knn"]
    with pytest.raises(ValueError, match="lr belongs to the training; the probe's"):
        probe(record, lr=0.1, progress=False)


def test_a_network_is_asked_about_sounds_it_never_heard(tiny, monkeypatch, tmp_path):
    record = run(small("supervised"), progress=False)
    abroad = write_corpus(tmp_path / "abroad", clips=18, folds=3)
    monkeypatch.setattr(
        experiments, "open_corpus", lambda name, **k: abroad if name == "abroad" else tiny
    )
    results = probe(record, corpus="abroad", progress=False)
    assert results["trained"]["linear"]["n"] == 18
    assert set(results["trained"]) == {"linear", "knn"}  # its classifier knows other classes
    assert len(results["untrained"]["linear"]["folds"]) == 3
    misled = replace(record, recipe=small("supervised", label_noise=0.9))
    assert probe(misled, corpus="abroad", progress=False) == results  # it spoiled those labels only


def test_selection_keeps_the_epoch_with_the_best_score(tiny, one_thread):
    for name, by in (("acl", "knn"), ("supervised_acl", "loss")):
        settings = {"select_by": by, "select_share": 0.4, "epochs": 3, "select_neighbours": 3}
        record = run(small(name, **settings), progress=False)
        for chosen in record.selection:
            scores = dict(chosen["scores"])
            assert list(scores) == [1, 2, 3]
            assert scores[chosen["epoch"]] == max(scores.values())
        plain = run(small(name, **settings | {"select_by": "last"}), progress=False)
        assert plain.selection[0]["scores"] == []


def test_a_linear_layer_trained_by_sgd_and_fine_tuning_are_readers_too(tiny, one_thread):
    wanted = small(solver="sgd", probe_epochs=3, finetune_epochs=2, moving_batchnorm=True)
    record = run(wanted, progress=False)
    assert {"linear_sgd", "finetuned"} <= set(record.results["trained"])
    assert record.results["trained"]["finetuned"]["n"] == 12
    assert reproduce(record, progress=False) == ([], [])  # the encoder is as it was for the others


def test_the_geometry_of_a_record_is_that_of_its_test_clips(tiny, one_thread):
    record = run(small(patch_frames=40), progress=False)
    assert set(record.geometry) == {"h", "untrained h", "z"}
    for values in record.geometry.values():
        gap = values["tolerance"] - values["between_class_cosine"]
        assert values["class_gap"] == pytest.approx(gap)
        assert 0 <= values["alignment"] <= 4 and values["uniformity"] <= 0
        assert values["effective_rank"] >= 1


def test_idle_cores_decide_the_threads_once_for_a_run(tmp_path, monkeypatch):
    def idle(percent):
        monkeypatch.setattr(
            experiments.psutil, "cpu_times_percent", lambda interval: SimpleNamespace(idle=percent)
        )
        return experiments._free_threads(tmp_path)

    monkeypatch.setattr(experiments.psutil, "cpu_count", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert idle(0.0) == 1
    assert idle(100.0) == 1  # as before the interruption
    for percent, threads in ((100.0, 4), (40.0, 3), (25.0, 2), (3.0, 1)):
        (tmp_path / "threads.resume").unlink()
        assert idle(percent) == threads


def test_a_full_disk_leaves_no_empty_note_of_the_threads(tmp_path, monkeypatch):
    resource = pytest.importorskip("resource", reason="file size limits are POSIX")
    times = SimpleNamespace(idle=100.0)
    monkeypatch.setattr(experiments.psutil, "cpu_times_percent", lambda interval: times)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            experiments._free_threads(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
    assert experiments._free_threads(tmp_path) >= 1


def test_what_a_run_left_that_died_beside_its_record_goes_when_it_is_found(tiny, one_thread):
    record = run(small(), progress=False)
    for name in ("fold-1.resume", "fold-1.before.resume", "record.json.1.part"):
        (record.path.parent / name).touch()
    networks = sorted(p.name for p in record.path.parent.glob("*.pt"))
    assert run(small(), progress=False) == record
    assert sorted(p.name for p in record.path.parent.iterdir()) == [*networks, "record.json"]
