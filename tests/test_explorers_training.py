"""The training explorer: a record and a page that draws it, and a thread that obeys the reader."""

import json
import re
import time

import pytest
import torch
from test_explorers import javascript, needs_node
from tiny import write_corpus

from acl_lib import experiments, explorers
from acl_lib.config import recipe
from acl_lib.explorers import live, page
from acl_lib.losses import pair_angles

SMALL = {"width": 8, "batch": 4, "precision": "float32", "patch_frames": 32, "hop": 16}
KEYS = {"epoch", "train_loss", "loss", "nt_xent", "angular", "angles", "map", *live.MEASURES}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Twelve sounds in two folds, which every recipe opens; no printed book."""
    monkeypatch.delenv("ACL_PUBLISH", raising=False)
    corpus = write_corpus(tmp_path / "sounds")
    monkeypatch.setattr(experiments, "open_corpus", lambda name, **options: corpus)
    return corpus


def small(name="acl", **settings):
    return recipe(name, **{"corpus": "tiny", "epochs": 2} | SMALL | settings)


def until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


@pytest.fixture
def widget(tiny):
    made = explorers.training(small(epochs=5000))
    yield made
    made.close()


def test_a_record_has_a_row_for_every_epoch_and_repeats_itself(tiny, monkeypatch):
    asked = live.config.recipe

    def quicker(name, **settings):
        return asked(name, **settings | SMALL | {"epochs": 2})

    monkeypatch.setattr(live.config, "recipe", quicker)
    record = live.training_record("tiny", "quick")
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    held = [n for n, clip in enumerate(tiny.clips) if clip.fold == 1]
    assert record["clips"] == held and len(record["labels"]) == len(held)
    for run in record["runs"].values():
        assert [row["epoch"] for row in run["epochs"]] == [0, 1, 2]
        assert all(set(row) == KEYS for row in run["epochs"])
        assert all(torch.tensor(row["map"]).shape == (len(held), 2) for row in run["epochs"])
    untrained = [run["epochs"][0] for run in record["runs"].values()]
    assert untrained[0]["angles"] == untrained[1]["angles"]
    # the same numbers as any other training of the recipe
    bench = live._Bench(quicker("acl", corpus="tiny", pretrain_on="train"), tiny)
    split = experiments.evaluation_splits(tiny, bench.recipe)[0]
    store = experiments.open_store(tiny, bench.recipe)
    history = experiments.fit(bench.recipe, store, tiny.labels, split, num_classes=3)[2]
    told = [row["train_loss"] for row in record["runs"]["ACL"]["epochs"][1:]]
    assert told == pytest.approx(history.loss, abs=2e-3)


def test_median_angles_are_those_of_the_pairs():
    draw = torch.Generator().manual_seed(0)
    h, clip = torch.rand(6, 5, generator=draw), torch.tensor([0, 1, 2, 0, 1, 2])
    y = torch.tensor([0, 0, 1])[clip]
    groups = {name: [] for name in live.GROUPS}
    for a in range(6):
        for b in range(a + 1, 6):
            theta = torch.rad2deg(pair_angles(h[a : a + 1], h[b : b + 1])).item()
            same = "same class" if y[a] == y[b] else "other class"
            groups["same clip" if clip[a] == clip[b] else same].append(theta)
    wanted = {k: torch.tensor(v).quantile(0.5).item() for k, v in groups.items()}
    assert live.median_angles(h, clip, y) == pytest.approx(wanted, abs=1e-4)
    assert live.median_angles(h[:1], clip[:1], y[:1])["same clip"] is None


def test_a_reader_starts_pauses_cools_and_keeps_a_training(widget):
    assert widget.phase == "idle" and widget.network is None
    widget.ask = "start"
    assert widget.ask == ""  # so that the same button can be pressed again
    until(lambda: widget.phase == "running" and len(widget.history) > 1)
    weights = [p.detach().clone() for p in widget.network.encoder.parameters()]
    widget.temperature = 0.07
    until(lambda: widget.marks)
    assert widget.marks[-1][1] == 0.07

    widget.ask = "pause"
    until(lambda: widget.phase == "paused")
    steps, rows = list(widget.steps), len(widget.history)
    time.sleep(0.3)
    assert widget.steps == steps and len(widget.history) == rows
    assert "Paused at epoch" in widget.status

    widget.ask = "resume"
    until(lambda: len(widget.history) > rows)
    widget.ask = "stop"
    until(lambda: widget.phase == "done")
    assert re.fullmatch(r"Stopped at epoch [\d.]+, kept\.", widget.status)
    assert widget.error is None
    moved = zip(weights, widget.network.encoder.parameters(), strict=True)
    assert any(not torch.equal(before, after) for before, after in moved)
    assert not widget.network.encoder.training
    assert widget.network.encoder(torch.zeros(2, 1, 96, 32)).shape == (2, 64)
    (run,) = widget.runs.values()
    assert all(set(row) == KEYS for row in run["epochs"])
    assert len(widget.history) == len(run["epochs"]) and len(widget.labels) == 6
    json.dumps([widget.runs, widget.steps, widget.marks], allow_nan=False)


def test_starting_again_and_closing_end_the_thread(widget):
    def alive():
        return [t for t in live.threading.enumerate() if isinstance(t, live._Run)]

    widget.ask = "start"
    until(lambda: widget.network is not None)
    (first,) = alive()
    widget.ask = "start"
    assert not first.is_alive() and len(alive()) == 1
    widget.close()
    assert alive() == []


def test_a_training_runs_to_its_end_and_can_be_short(tiny):
    widget = explorers.training(small("contrastive"))
    widget.ask = "start"
    until(lambda: widget.phase in ("done", "failed"))
    assert widget.status == "Finished after epoch 2." and widget.epoch == 2
    assert [row["epoch"] for row in widget.history] == [0, 1, 2]
    assert list(widget.runs) == ["NT-Xent"]
    widget.close()


def test_an_error_is_told_and_kept(tiny, monkeypatch):
    widget = explorers.training(small())

    def broken(*args, **options):
        raise FloatingPointError("the loss became nan")

    monkeypatch.setattr(live, "train", broken)
    widget.ask = "start"
    until(lambda: widget.phase == "failed")
    assert isinstance(widget.error, FloatingPointError)
    assert widget.status == "FloatingPointError: the loss became nan"
    widget.close()


def test_a_recipe_with_labels_is_refused(tiny):
    with pytest.raises(ValueError, match="trains with labels"):
        explorers.training(small("supervised"))


@pytest.mark.parametrize("how", [{"corpus": "synthetic"}, {"recipe": recipe("acl")}])
def test_the_printed_book_shows_a_record(monkeypatch, how):
    monkeypatch.setenv("ACL_PUBLISH", "1")
    before = live.threading.active_count()
    html = explorers.training(**how).data
    assert live.threading.active_count() == before  # nothing trains in the book
    assert "import " not in html.split("<script")[1].split("pageModel({")[0].split("//")[0]
    state = json.loads(re.search(r"pageModel\((\{.*?\})\), el", html)[1])
    assert list(state["runs"]) == ["NT-Xent", "ACL"] and not state["live"]
    assert len(html) < 500_000 and len(re.search(r'<img alt="([^"]+)"', html)[1]) > 20


def test_a_missing_record_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(live, "record_path", lambda kind, corpus: tmp_path / corpus)
    with pytest.raises(FileNotFoundError, match="acl explorers build"):
        explorers.training()


def test_the_module_joins_with_what_is_shared():
    assert "import " not in re.sub(r"//.*", "", page.module("training"))


@needs_node
def test_curves_sentence_and_map_are_those_of_the_rows():
    rows = [
        {
            "epoch": epoch,
            "loss": 3 - epoch,
            "class_gap": gap,
            "angles": {"same clip": 10.4, "same class": 20, "other class": None},
            "map": [[0, 0], [2, 1], [-1, 3]],
        }
        for epoch, gap in ((0, None), (1, 0.25))
    ]
    got = javascript(f"""
        const runs = {{ ACL: {{ epochs: {json.dumps(rows)}, plan: 1 }} }}, rows = runs.ACL.epochs;
        return {{ gap: training.series(runs, ["ACL"], "class_gap"),
          angles: training.series(runs, ["ACL"], "angles").map((line) => line.points.length),
          told: training.told("ACL", rows[1]), first: training.told("ACL", rows[0]),
          last: training.rowAt(rows, 7).epoch, square: training.square(rows[0].map) }}""")
    assert got["gap"] == [{"name": "ACL", "group": "", "points": [[1, 0.25]]}]
    assert got["angles"] == [2, 2, 0] and got["last"] == 1
    assert got["told"].startswith("ACL after epoch 1: patches of a clip are 10° apart")
    assert "class gap 0.25" in got["told"] and "class gap unknown" in got["first"]
    assert got["square"] == {"middle": [0.5, 1.5], "half": pytest.approx(0.54 * 3)}
