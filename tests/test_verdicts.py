"""Verdicts on made-up records whose answer is known, by the rules of the real grids."""

from html import escape
from pathlib import Path

import pytest
import torch

from acl_lib import sweeps
from acl_lib import verdicts as judge
from acl_lib.datasets.synthetic import SyntheticEvents
from acl_lib.experiments import runs_dir
from acl_lib.grids import Findings, Grid
from acl_lib.records import LETTERS, Record, score
from acl_lib.verdicts import HELD, NOT, UNCLEAR, UNTESTED

GRIDS = Path(__file__).resolve().parents[1] / "grids"
N, K = 400, 10
Y = torch.arange(N) % K
SHAPE = {"uniformity": -1.0, "tolerance": 0.5, "class_gap": 0.2, "between_class_cosine": 0.3}


def write(cell, share, *, shape=None, more=(), seed=0):
    """The record of a cell that gets a share of the clips right, and those in `more` as well."""
    draw = torch.Generator().manual_seed(100 * cell.seed + seed)
    right = torch.rand(N, generator=draw) < share
    right[list(more)] = True
    found = score(
        torch.where(right, Y, (Y + 1) % K),
        Y,
        source=torch.arange(N),
        patches=torch.ones(N, dtype=torch.long),
        fold=torch.arange(N) % 5,
        num_classes=K,
    )
    Record(
        recipe=cell.recipe,
        corpus={
            "name": cell.recipe.corpus,
            "fingerprint": "f",
            "clips": N,
            "classes": list("abcdefghij"),
            "labels": "".join(LETTERS[k] for k in Y.tolist()),
            "sources": list(range(N)),
        },
        results={"trained": dict.fromkeys(("linear", "classifier", "linear_sgd"), found)},
        geometry={"h": shape or SHAPE, "z": shape or SHAPE},
        history=[],
        selection=[],
        splits=[],
        cost={},
        versions={},
        code="c",
        commit="",
        path=cell.target,
    ).write()


@pytest.fixture
def made(tmp_path):
    """made(grid, effect) writes all records of a grid and gives what reads its findings."""

    def make(name, effect, *others):
        for one in (name, *others):
            for cell in Grid.read(GRIDS / f"{one}.yaml", records=tmp_path).cells:
                write(cell, **effect(cell))
        return lambda name: Findings.read(GRIDS / f"{name}.yaml", records=tmp_path)

    return make


def by_claim(found):
    return {v.claim: v for v in found}


def test_nothing_is_judged_before_its_grid_is_complete(tmp_path):
    rows = judge.verdicts(GRIDS, records=tmp_path)
    ours = [row for row in rows if row.command.startswith("acl sweep")]
    assert len(ours) > 15 and {row.verdict for row in ours} == {UNTESTED}
    assert all("0 of" in row.evidence for row in ours)
    assert len({row.claim for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("gain", "expected"), [(range(300, 360), HELD), ((), UNCLEAR)], ids=["better", "same"]
)
def test_acl_is_judged_by_seeds_and_by_recordings(made, gain, expected):
    def effect(cell):
        # other clips at each seed are right by chance; the arms differ by some clips, or by noise
        same = 0 if gain else sum(map(ord, cell.arm))
        return {"share": 0.7, "more": gain if cell.arm != "NT-Xent" else (), "seed": same}

    rows = by_claim(judge._reads_better(made("acl_esc10", effect)))
    mine = [v for claim, v in rows.items() if claim.endswith("width 16")]
    assert [v.verdict for v in mine] == [expected] * 2
    assert "n = 400" in mine[0].evidence and "10 seeds" in mine[0].evidence
    assert (mine[0].needed == "decided here") == (expected == HELD)
    others = [v for claim, v in rows.items() if claim.endswith("width 32")]
    assert {v.verdict for v in others} == {UNTESTED}


def test_a_loss_that_is_worse_did_not_hold_and_seeds_alone_do_not_decide():
    assert judge.decide((-0.03, -0.01), (-0.05, -0.001)) == NOT
    assert judge.decide((0.01, 0.03), (-0.001, 0.05)) == UNCLEAR
    assert judge.decide((0.01, 0.03), (0.001, 0.05)) == HELD


def test_an_error_is_lowered_by_both_intervals_or_not_at_all():
    below, across, above = [-0.03, -0.01], [-0.01, 0.01], [0.01, 0.03]
    for seeds, speakers, said in (
        (below, below, "lowers the error"),
        (above, above, "raises the error"),
        (below, across, UNCLEAR),
        (across, above, UNCLEAR),
        (below, above, UNCLEAR),
    ):
        assert judge.of_errors({"seed_interval": seeds, "interval": speakers}) == said


def test_most_classes_gain_and_the_weakest_most(made):
    weak = [i for i in range(N) if Y[i] < 4]

    def effect(cell):
        # classes 0 to 3 are hard for NT-Xent, and ACL mends them
        hard = cell.arm == "NT-Xent"
        easy = [i for i in range(N) if Y[i] >= 4 and (i // K) % 10 < 8 + (not hard)]
        return {"share": 0.2, "more": easy if hard else easy + weak}

    (verdict,) = judge._classes_gain(made("acl_esc10", effect))
    assert verdict.verdict == HELD and verdict.evidence.startswith("10 of 10 classes")

    def worse(cell):
        return {"share": 0.2, "more": weak if cell.arm == "NT-Xent" else ()}

    (verdict,) = judge._classes_gain(made("acl_esc10", worse))
    assert verdict.verdict == NOT


def test_a_curve_with_a_peak_is_told_from_noise(made):
    def peak(cell):
        alpha = cell.recipe.loss.alpha
        return {"share": 0.5, "more": range(int(150 - 300 * abs(alpha - 0.3)))}

    shape, suitable = judge._curve(made("alpha_esc10", peak))
    assert (shape.verdict, suitable.verdict) == (HELD, HELD)
    assert "best, alpha 0.3" in shape.evidence and "+" in suitable.evidence

    def noise(cell):
        return {"share": 0.7, "seed": int(1000 * cell.recipe.loss.alpha) + 7}

    shape, suitable = judge._curve(made("alpha_esc10", noise))
    assert (shape.verdict, suitable.verdict) == (UNCLEAR, UNCLEAR)
    assert suitable.needed.startswith("2.9 points would show with ")


def test_the_sphere_is_judged_by_signs_and_the_accuracy_by_every_temperature(made):
    def effect(cell):
        acl = cell.arm == "ACL"
        moved = {**SHAPE, "tolerance": 0.7, "uniformity": -0.5, "class_gap": 0.1}
        # NT-Xent falls with temperature, ACL does not, and loses at the lowest
        tau = cell.recipe.loss.temperature
        more = range(200) if acl else range(int(280 - 200 * tau))
        return {"share": 0.3, "shape": moved if acl else SHAPE, "more": more}

    rows = by_claim(judge._temperatures(made("temperature_esc10", effect)))
    assert [v.verdict for v in rows.values()] == [HELD, HELD, NOT, NOT, HELD]
    apart = rows["ACL separates the classes better"]
    assert "0 of 12 for h, 0 for z" in apart.evidence


def test_signs_that_are_all_reversed_did_not_hold_and_mixed_ones_are_open(made):
    def reversed_signs(cell):
        moved = {**SHAPE, "tolerance": 0.4, "uniformity": -2.0}
        return {"share": 0.5, "shape": moved if cell.arm == "ACL" else SHAPE}

    def told(found):
        return [
            v.verdict for c, v in by_claim(judge._temperatures(found)).items() if "tolerant" in c
        ]

    assert told(made("temperature_esc10", reversed_signs)) == [NOT, NOT]

    def half(cell):
        up = cell.recipe.loss.temperature < 0.3
        moved = {**SHAPE, "tolerance": 0.7 if up else 0.4, "uniformity": -0.5 if up else -2.0}
        return {"share": 0.5, "shape": moved if cell.arm == "ACL" else SHAPE}

    assert told(made("temperature_esc10", half)) == [UNCLEAR, UNCLEAR]


def test_the_margin_with_labels_is_judged_in_each_condition(made):
    def effect(cell):
        # helps where labels are wrong, and there alone
        helps = cell.condition.startswith("40 %") and cell.recipe.loss.alpha == 0.5
        return {"share": 0.6, "more": range(80) if helps else ()}

    rows = by_claim(judge._supervised(made("supervised_esc10", effect)))
    esc10 = {c: v.verdict for c, v in rows.items() if "ESC-10" in c}
    assert list(esc10.values()) == [UNCLEAR, HELD, HELD]
    assert rows["The margin helps more where labels are wrong"].verdict == HELD
    assert {v.verdict for c, v in rows.items() if "made-up" in c} == {UNTESTED}


def test_the_column_of_the_papers_corpus_fills_once_its_grid_is_run(made):
    def effect(cell):
        return {"share": 0.7, "more": range(300, 360) if cell.arm == "ACL" else ()}

    rows = list(judge._reads_better(made("acl_esc10", effect, "paper_fsdnoisy18k")))
    assert rows[0].fsdnoisy18k.startswith("held: +") and "10 seeds" in rows[0].fsdnoisy18k
    assert rows[2].verdict == UNTESTED  # of our own corpus some runs are missing


def test_the_papers_grid_runs_dry_on_made_up_sounds_in_the_layout_of_fsdnoisy18k(
    tmp_path, monkeypatch
):
    made = SyntheticEvents.open(tmp_path / "made", clips=60, progress=False)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "fsdnoisy18k").symlink_to(made.root)
    monkeypatch.setenv("ACL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ACL_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("ACL_CACHE", str(tmp_path / "cache"))
    small = {"width": 8, "epochs": 2, "batch": 16, "penalties": [0.1]}
    small |= {"probe_epochs": 2, "select_neighbours": 10, "precision": "float32"}
    grid = Grid.read(
        GRIDS / "paper_fsdnoisy18k.yaml", seeds=[0, 1], records=tmp_path / "records", **small
    )
    # in this process; test_sweeps has the workers
    outcomes = [sweeps._make(cell, runs_dir(), {"open"}, False) for cell in grid.cells]
    assert [o.status for o in outcomes] == ["made"] * 4, [o.error for o in outcomes]
    found = Findings(grid, grid.found())
    assert found.complete and found.made == 4
    pair = found.pair("ACL")
    assert pair["seeds"] == [0, 1] and len(pair["p"]) == 2
    record = found.of("ACL")[0]
    assert record.results["trained"]["linear_sgd"]["n"] == 20
    assert record.recipe.loss.reduction == "paper_code" and record.recipe.loss.alpha == 0.3


def test_training_without_labels_is_compared_on_the_same_clips(made):
    def effect(cell):
        free = cell.recipe.method == "simclr"
        return {"share": 0.6, "more": () if free else range(100)}

    read = made("acl_esc10", effect, "supervised_esc10")
    (verdict,) = judge._without_labels(read)
    assert verdict.verdict == NOT and "3 seeds" in verdict.evidence


def test_the_printed_gains_are_tested_as_printed():
    (verdict,) = judge._printed_significance(lambda name: None)
    assert verdict.verdict == NOT and "1 of 5 below .05" in verdict.evidence


def test_every_row_of_the_table_names_a_command_or_says_that_there_is_none():
    rows = judge.verdicts(GRIDS)
    text = judge.table(rows).data
    assert text.count("<tr") == 1 + 2 * len(rows)
    for row in rows:
        assert escape(row.claim) in text and escape(row.evidence) in text
        assert row.command == "" or f">{escape(row.command)}</span>" in text
        assert row.command or row.verdict == UNTESTED
