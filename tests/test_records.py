"""What records say: every number of a score by hand, records over seeds, pairs of methods."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from acl_lib.config import recipe
from acl_lib.records import (
    LETTERS,
    Record,
    compare,
    differences,
    geometry,
    over_seeds,
    paired,
    read_all,
    report,
    results_table,
    score,
)
from acl_lib.statistics import mcnemar, paired_bootstrap, wilson_interval

Y = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
GUESS = torch.tensor([0, 0, 0, 1, 1, 2, 2, -1])  # the last clip was not tested
SOURCES = torch.tensor([0, 0, 1, 1, 2, 3, 4, 4])


def scored(guess=GUESS):
    return score(
        guess,
        Y,
        source=SOURCES,
        patches=torch.tensor([1, 2, 3, 4, 10, 1, 1, 99]),
        fold=torch.tensor([0, 0, 0, 0, 1, 1, 1, -1]),
        num_classes=4,
    )


def record(seed=0, guess=GUESS, name="contrastive", pretrain_on="train", **changes):
    wanted = recipe(name, corpus="made", seed=seed, pretrain_on=pretrain_on)
    readers = {"linear": scored(guess), "knn": scored()}
    return Record(
        recipe=wanted,
        corpus={
            "name": "made",
            "fingerprint": "f",
            "clips": 8,
            "classes": list("abcd"),
            "labels": "".join(LETTERS[k] for k in Y.tolist()),
            "sources": SOURCES.tolist(),
        },
        results={key: dict(readers) for key in ("trained", "untrained", "statistics")},
        geometry={},
        history=[[1.0]],
        selection=[{"epoch": 1, "scores": []}],
        splits=["all" if pretrain_on == "all" else "fold 1"],
        cost={"train_cpu_seconds": 2.0, "cpu_seconds": 3.0, "device": "x"},
        versions={},
        code="c",
        commit="",
        path=Path("record.json"),
    )


def test_a_score_is_what_a_hand_would_count():
    got = scored()
    assert (got["n"], got["predictions"]) == (7, "aaabbcc-")
    assert got["accuracy"] == 5 / 7 and got["interval"] == list(wilson_interval(5, 7))
    assert got["balanced"] == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    assert got["patch_weighted"] == pytest.approx((1 + 2 + 3 + 10 + 1) / 22)
    assert got["per_class"] == [3 / 4, 1 / 2, 1.0, None]
    assert got["folds"] == [3 / 4, 2 / 3] and got["fold_sd"] == pytest.approx(0.0589, abs=1e-4)
    for name in ("interval_by_source", "balanced_interval", "patch_weighted_interval"):
        low, high = got[name]
        assert 0 <= low <= high <= 1
    low, high = got["interval_by_source"]
    assert low <= got["accuracy"] <= high


def test_letters_name_many_classes_and_none_twice():
    assert len(set(LETTERS)) == len(LETTERS) > 400 and "-" not in LETTERS
    assert all(letter.isprintable() for letter in LETTERS)


def test_a_record_survives_its_file_and_other_files_are_no_records(tmp_path):
    made = replace(record(), path=tmp_path / "deep" / "record.json")
    made.write()
    assert Record.read(made.path) == made
    assert [p.name for p in made.path.parent.iterdir()] == ["record.json"]
    values = json.loads(made.path.read_text())
    for name, text in {
        "text.json": "not JSON",
        "list.json": "[1]",
        "short.json": json.dumps({k: v for k, v in values.items() if k != "history"}),
        "more.json": json.dumps(values | {"unknown": 1}),
        "bad.json": json.dumps(values | {"recipe": values["recipe"] | {"sede": 1}}),
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=rf"{name} is no record of a run"):
            Record.read(tmp_path / name)
    assert read_all([tmp_path]) == [made]  # what is no record is passed over in a folder
    with pytest.raises(ValueError, match="no record of a run"):
        read_all([tmp_path / "bad.json"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no record in"):
        read_all([tmp_path / "empty"])


def with_accuracy(made, accuracy):
    results = json.loads(json.dumps(made.results))
    for readers in results.values():
        readers["linear"]["accuracy"] = accuracy
    return replace(made, results=results)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, "recursion"),
        ('{"recipe": {"loss": {"alpha": NaN}}}', "alpha must be a finite number; got nan"),
        ('{"recipe": {"tau": 1}}', "unknown"),
        ('{"recipe": {}, "results": []}', "corpus must be a dict; got 'None'"),
        ('{"recipe": {}, "corpus": {}, "results": "none"}', "results must be a dict; got 'none'"),
    ],
)
def test_a_record_of_wrong_parts_is_refused_by_file_and_part(tmp_path, text, says):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ValueError, match=rf"bad.json is no record of a run: .*{says}"):
        Record.read(tmp_path / "bad.json")


def test_records_are_compared_over_seeds():
    some = [
        with_accuracy(record(0), 0.5),
        with_accuracy(record(1), 0.7),
        with_accuracy(record(0, name="acl", pretrain_on="all"), 0.6),
    ]
    rows = over_seeds(some)
    plain, angular = (
        rows["NT-Xent; pretrained on train"],
        rows["ACL, alpha 0.3, paper_scaled; pretrained on all"],
    )
    assert plain["per_seed"] == [0.5, 0.7] and plain["mean"] == pytest.approx(0.6)
    half = 12.706 * 0.1  # Student's t with one degree of freedom
    assert plain["interval"] == pytest.approx((0.6 - half, 0.6 + half), abs=1e-3)
    assert angular["per_seed"] == [0.6] and plain["train_cpu_seconds"] == 2.0
    assert angular["interval"] == some[2].results["trained"]["linear"]["interval"]
    assert rows["untrained encoder"]["per_seed"] == [0.6]  # of the runs on all clips
    assert over_seeds(some, reader="knn")["log-mel statistics"]["per_seed"] == [5 / 7]
    with pytest.raises(ValueError, match="no records"):
        over_seeds([])


def test_two_methods_are_compared_clip_by_clip_over_the_seeds_that_both_have():
    better = torch.where(GUESS >= 0, Y, -1)
    some = [
        record(0),
        record(1),
        record(2),
        record(0, better, "acl"),
        record(1, GUESS, "acl"),
        record(0, better, "acl", "all"),  # another question
    ]
    (pair,) = compare(some)
    assert (pair["a"], pair["b"]) == ("NT-Xent", "ACL, alpha 0.3, paper_scaled")
    assert pair["seeds"] == [0, 1] and pair["corpus"] == "made"
    assert pair["difference"] == pytest.approx((2 / 7 + 0) / 2)
    assert pair["interval"][0] <= pair["difference"] <= pair["interval"][1]
    judged = GUESS >= 0
    expected = mcnemar((GUESS == Y)[judged], (better == Y)[judged], groups=SOURCES[judged])
    assert pair["p"] == [expected, 1.0]
    told = report(some)
    assert "+14.29 points" in told and "NT-Xent; pretrained on train" in told
    assert compare(some[:3]) == []
    labelled = [record(name=name) for name in ("supervised_acl", "supervised")]
    (pair,) = compare(labelled)
    assert pair["a"] == "cross-entropy" and pair["b"].startswith("cross-entropy + angular margin")


def test_seeds_that_ask_about_other_clips_bring_their_own_recordings():
    better = torch.where(GUESS >= 0, Y, -1)
    other = SOURCES.roll(1)

    def about(one, sources):
        return replace(one, corpus=one.corpus | {"sources": sources.tolist(), "fingerprint": "g"})

    plain = {0: record(0), 1: about(record(1), other)}
    angular = {0: record(0, better, "acl"), 1: about(record(1, better, "acl"), other)}
    found = paired(plain, angular)
    assert found["per_seed"] == pytest.approx([2 / 7, 2 / 7]) and found["seeds"] == [0, 1]
    assert found["difference"] == pytest.approx(2 / 7)
    judged = GUESS >= 0
    right = torch.cat([(GUESS == Y)[judged]] * 2), torch.cat([(better == Y)[judged]] * 2)
    groups = torch.cat([SOURCES[judged], 10 + other[judged]])
    assert found["interval"] == list(paired_bootstrap(*right, groups=groups)[1:])
    assert found["seed_interval"] == pytest.approx([2 / 7, 2 / 7])
    wider = paired(plain, {0: angular[0], 1: plain[1]}, confidence=0.99)["seed_interval"]
    narrow = paired(plain, {0: angular[0], 1: plain[1]})["seed_interval"]
    assert wider[0] < narrow[0] < narrow[1] < wider[1]
    assert paired({0: plain[0]}, angular)["seed_interval"] is None
    with pytest.raises(ValueError, match="no seed in common"):
        paired({2: record(2)}, angular)
    with pytest.raises(ValueError, match="different clips"):
        paired({0: about(record(0), other)}, angular)


def test_recipes_of_one_name_are_told_apart_and_a_seed_counts_once():
    tuned = replace(record(0).recipe, probe=replace(record(0).recipe.probe, finetune_epochs=40))
    some = [record(0), record(1), replace(record(0), recipe=tuned)]
    rows = over_seeds(some)
    assert [len(row["per_seed"]) for name, row in rows.items() if "NT-Xent" in name] == [2, 1]
    assert "NT-Xent, finetune_epochs 40; pretrained on train" in rows
    (pair,) = compare(some)
    assert pair["b"] == "NT-Xent, finetune_epochs 40" and pair["seeds"] == [0]
    twice = [record(0), replace(record(0), path=Path("again.json"))]
    for call in (over_seeds, compare, report):
        with pytest.raises(ValueError, match=r"record.json and again.json hold the same recipe"):
            call(twice)


def test_differences_are_named_to_the_last_key():
    old = {"a": [1, {"b": 2.0}], "c": "x", "gone": 1}
    new = {"a": [1, {"b": 2.5}], "c": "x", "came": 2}  # what came since is no difference
    assert differences("r", old, new) == [
        "r.a[1].b: 2.0 in the record, 2.5 now",
        "r.gone: 1 in the record, None now",
    ]
    assert differences("r", old, old) == []
    assert differences("r", [1, 2], [1]) == ["r: [1, 2] in the record, [1] now"]


def test_geometry_is_measured_between_the_first_and_the_last_patch_of_a_clip():
    angle = torch.deg2rad(torch.tensor([0.0, 77.0, 60.0, 90.0, 33.0, 0.0, 0.0, 90.0, 90.0]))
    h = torch.stack([angle.cos(), angle.sin()], 1)
    clip = torch.tensor([4, 4, 4, 1, 7, 2, 2, 3, 3])  # 4: 0 and 60 degrees; 2: 0, 0; 3: 90, 90
    y = torch.tensor([9, 0, 0, 1, 0, 9, 9, 1])
    got = geometry(h, clip, y)
    assert got["alignment"] == pytest.approx((1 + 0 + 0) / 3, abs=1e-6)  # chord of 60 degrees: 1
    same = [0.5, 1, 1, 0.5, 0.5, 1]  # class 0: rows at 0, 60, 0, 0; pairs in one order
    other = [0, 3**0.5 / 2, 0, 0] * 2  # the two rows at 90 degrees
    tolerance = (2 * sum(same) + 2 * 1) / (12 + 2)
    assert got["tolerance"] == pytest.approx(tolerance, abs=1e-6)
    assert got["between_class_cosine"] == pytest.approx(sum(other) / 8, abs=1e-6)
    assert geometry(h[3:5], clip[3:5], y) == {}  # no clip with two patches


def test_a_table_has_a_line_for_each_reader_of_each_representation():
    got = {"accuracy": 0.8512, "interval": [0.81, 0.885], "balanced": 0.84, "n": 400}
    got |= {"patch_weighted": 0.7, "folds": [0.8, 0.9]}
    rows = {"linear": got, "knn": got | {"folds": [0.8]}}
    table = results_table({"trained": rows, "untrained": {"linear": got}, "statistics": {}})
    head, linear, knn, untrained = table.splitlines()
    assert "95 % interval" in head and linear.startswith("trained encoder, linear probe ")
    assert "85.12 %    81.0 to 88.5    84.00 %     70.00 %     400   80.0 90.0" in linear
    assert knn.startswith("trained encoder, nearest neighbours") and knn.endswith("400   -")
    assert untrained.startswith("untrained encoder, linear probe")
    eer = {"eer": 0.215, "eer_interval": [0.19, 0.242], "min_dcf": 0.998, "trials": 19900}
    eer |= {"min_dcf_interval": [0.9, 1.0], "speakers": 40}
    voices = {"trained": {"cosine": eer}, "untrained": {}, "statistics": {}}
    head, line = results_table(voices).splitlines()
    assert "equal error" in head and line.startswith("trained encoder, cosine of h")
    assert "21.50 %    19.0 to 24.2 %    0.998    0.900 to 1.000     19900         40" in line
