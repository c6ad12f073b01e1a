"""Every point of the results explorer is what its record says, and JavaScript sums it up alike."""

import json
import re
import statistics

import pytest
from scipy import integrate, stats
from test_explorers import javascript, needs_node

from acl_lib import explorers
from acl_lib.explorers import sweeps
from acl_lib.grids import Findings
from acl_lib.publish import ROOT
from acl_lib.published import TABLES

FOLDER = ROOT / "book" / "results"
POINTS = sweeps.gather(FOLDER)
KINDS = {key: kind for key, _, kind in sweeps.MEASURES}


def point(sweep, alpha, temperature=None, loss="scaled"):
    (found,) = [
        p
        for p in POINTS
        if (p["sweep"], p["alpha"], p["temperature"]) == (sweep, alpha, temperature)
        and loss in p["losses"]
    ]
    return found


def raw(file):
    return json.loads((FOLDER / file).read_text())


def student(values):
    ends = stats.t.interval(0.95, len(values) - 1, statistics.fmean(values), stats.sem(values))
    return pytest.approx(tuple(ends), rel=1e-9)


def wilson(share, n):
    ends = stats.binomtest(round(share * n), n).proportion_ci(method="wilson")
    return pytest.approx((100 * ends.low, 100 * ends.high), rel=1e-9)


def ends(got):
    return got["low"], got["high"]


def test_the_grid_is_that_of_its_record():
    file = "alpha_temperature_synthetic.json"
    cells = {}
    for run in raw(file)["runs"]:
        cells.setdefault((run["alpha"], run["temperature"] if run["alpha"] else None), []).append(
            run
        )
    assert len(cells) == sum(p["sweep"] == "synthetic" for p in POINTS)
    for cell, runs in cells.items():
        found = point("synthetic", *cell)
        assert found["records"] == [file]
        for reader in ("linear", "knn"):
            got = found["measures"][reader]
            shares = [100 * r["readers"][reader]["accuracy"] for r in runs]
            assert got["value"] == pytest.approx(statistics.fmean(shares))
            assert got["n"] == runs[0]["readers"][reader]["n"]
            assert (got["seeds"], got["each"]) == ([r["seed"] for r in runs], shares)
            assert got["interval"] == "seeds" and ends(got) == student(shares)
        for space in "hz":
            got = found["measures"][f"class_gap_{space}"]
            gaps = [r["geometry"][space]["class_gap"] for r in runs]
            assert got["value"] == pytest.approx(statistics.fmean(gaps)) and got["n"] is None
            assert ends(got) == (student(gaps) if len(gaps) > 1 else (None, None))


def test_the_fold_is_that_of_its_record():
    networks = raw("one_fold.json")["networks"]
    got = point("fold", 0.3, 0.5)["measures"]
    wanted = networks["ACL, tau 0.5"]
    for space, suffix in (("h", ""), ("z", "_z")):
        for reader in ("linear", "knn"):
            said, mine = wanted["readers"][space][reader], got[reader + suffix]
            assert (mine["value"], mine["n"]) == (100 * said["accuracy"], said["n"] == 80 and 80)
            assert ends(mine) == pytest.approx([100 * end for end in said["interval"]])
            assert mine["interval"] == "clips" and len(mine["each"]) == 1
        gap = got[f"class_gap_{space}"]
        assert gap["value"] == wanted["geometry"][space]["class_gap"]
        assert (gap["interval"], *ends(gap)) == ("none", None, None)
    assert sum(p["sweep"] == "fold" for p in POINTS) == 10


@pytest.mark.parametrize("how", ["code", "scaled"])
def test_three_seeds_of_esc10_are_three_records(how):
    found = point("esc10_all", 0.3, 0.2, how)
    files = [f"esc10/acl_paper_{how}-all-seed{seed}.json" for seed in range(3)]
    assert found["records"] == files
    shares = [100 * raw(f)["results"]["trained"]["linear"]["accuracy"] for f in files]
    got = found["measures"]["linear"]
    assert (got["each"], got["seeds"], got["n"]) == (shares, [0, 1, 2], 400)
    assert ends(got) == student(shares)
    assert point("esc10_all", 1.0, 0.2, how)["name"] == "NT-Xent"
    strict = point("esc10_train", 0.3, 0.2, how)["measures"]["linear"]
    share = raw(f"esc10/acl_paper_{how}-train-seed0.json")["results"]["trained"]["linear"]
    assert ends(strict) == pytest.approx([100 * end for end in share["interval"]])


def test_the_planned_runs_are_those_of_their_grid():
    grid = Findings.read(ROOT / "grids" / "acl_esc10.yaml")
    for arm, alpha, loss in (
        ("NT-Xent", 1.0, "mean"),
        ("ACL, batch-scaled sum", 0.3, "scaled"),
        ("ACL, mean", 0.3, "mean"),
    ):
        got = point("esc10_planned", alpha, 0.2, loss)["measures"]["linear"]
        assert got["each"] == [100 * share for share in grid.values(arm)]
        assert got["seeds"] == sorted(grid.of(arm)) and got["n"] == 400


def test_wrong_labels_are_those_of_their_summary():
    summary = raw("label_noise.json")["summary"]
    for network, loss in (("resnet18", "margin"), ("baseline_cnn", "cnn")):
        for part in ("noisy", "noisy_small"):
            for alpha, said in summary[network][part].items():
                got = point(part, float(alpha), None, loss)["measures"]["classifier"]
                assert got["each"] == [100 * v for v in said["accuracies"]]
                assert ends(got) == student(got["each"]) and got["n"] == 600


def test_published_numbers_are_as_printed_and_have_no_interval():
    table = TABLES["alpha_sweep"]
    for row in table.rows:
        found = point("published_alpha", row[0], 0.2 if row[0] else None)
        assert found["records"] == [table.source]
        assert [m["value"] for m in found["measures"].values()] == list(row[1:])
    for tau, alpha, accuracy, uniformity, tolerance in TABLES["temperature"].rows:
        got = point("published_temperature", alpha, tau)["measures"]
        values = [got[k]["value"] for k in ("linear_micro", "uniformity_z", "tolerance_z")]
        assert values == [accuracy, -uniformity, tolerance]
    supervised = TABLES["supervised_alpha_sweep"]
    for part in supervised.columns[1:]:
        values = [
            point(f"published_{part}", alpha, None, "cnn")["measures"]["classifier"]["value"]
            for alpha in supervised.column("alpha")
        ]
        assert values == supervised.column(part)
    for p in POINTS:
        if p["sweep"].startswith("published"):
            assert {(m["interval"], m["low"]) for m in p["measures"].values()} == {("none", None)}


def test_what_a_point_names_exists_and_json_holds_it():
    sources = {table.source for table in TABLES.values()}
    for p in POINTS:
        assert all(r in sources or (FOLDER / r).is_file() for r in p["records"])
        assert set(p["measures"]) <= set(KINDS) and p["measures"]
        assert p["losses"] and set(p["losses"]) <= dict(sweeps.LOSSES).keys()
    assert {p["sweep"] for p in POINTS} <= {key for key, *_ in sweeps.SWEEPS}
    assert len(json.dumps(POINTS, allow_nan=False)) < 200_000


def test_no_cell_of_a_map_holds_two_runs():
    for loss, _ in sweeps.LOSSES:
        cells = [(p["sweep"], p["alpha"], p["temperature"]) for p in POINTS if loss in p["losses"]]
        assert len(set(cells)) == len(cells)


def test_luck_is_that_of_the_spread_within_cells():
    mine = [p["measures"]["linear"]["each"] for p in POINTS if p["sweep"] == "synthetic"]
    got = sweeps.luck(POINTS)["synthetic/scaled/linear"]
    spread = statistics.fmean(statistics.variance(v) for v in mine) ** 0.5
    cells = len(mine)

    def density(x):  # of the largest of so many normal draws
        return x * cells * stats.norm.pdf(x) * stats.norm.cdf(x) ** (cells - 1)

    largest = integrate.quad(density, -10, 10)[0]
    assert got["cells"] == cells and got["sd"] == pytest.approx(spread)
    assert got["gain"] == pytest.approx(largest * spread / 3**0.5, rel=1e-6)
    assert not [key for key in sweeps.luck(POINTS) if key.startswith(("published", "fold"))]


def test_a_folder_without_the_sweep_says_what_there_is(tmp_path):
    with pytest.raises(ValueError, match="published_alpha"):
        explorers.results(tmp_path)


@needs_node
@pytest.mark.parametrize(
    ("sweep", "loss", "measure"),
    [
        ("synthetic", "scaled", "linear"),
        ("synthetic", "scaled", "class_gap_h"),
        ("fold", "scaled", "knn_z"),
        ("noisy_small", "cnn", "classifier"),
        ("published_alpha", "code", "linear_macro"),
    ],
)
def test_javascript_sums_up_as_python_does(sweep, loss, measure):
    mine = [p for p in POINTS if p["sweep"] == sweep and loss in p["losses"]]
    got = [p["measures"][measure] for p in mine]
    values = [m["value"] for m in got]
    data = {"points": POINTS, "measures": sweeps.MEASURES, "losses": sweeps.LOSSES}
    asked = {"sweep": sweep, "loss": loss, "measure": measure}
    found = javascript(f"""
        const found = results.chosen({json.dumps(data)}, {json.dumps(asked)});
        return {{ ...results.summary(found.cells), range: results.range(found.cells),
          loss: found.loss, measure: found.measure, has: found.has,
          values: found.cells.map((c) => c.value) }}""")
    assert found["values"] == values
    assert (found["loss"], found["measure"]) == (loss, measure)
    assert set(found["has"]) == {key for p in mine for key in p["measures"]}
    assert found["mean"] == pytest.approx(statistics.fmean(values), rel=1e-12)
    assert (found["best"]["value"], found["least"]["value"]) == (max(values), min(values))
    best = got[values.index(max(values))]
    if best["low"] is None:
        assert found["meets"] is None
        assert found["range"] == {"min": min(values), "max": max(values)}
    else:
        apart = [m for m in got if m["high"] < best["low"] or m["low"] > best["high"]]
        assert found["meets"] == len(got) - 1 - len(apart)
        wanted = {"min": min(m["low"] for m in got), "max": max(m["high"] for m in got)}
        assert found["range"] == wanted


@needs_node
def test_what_a_sweep_lacks_gives_way_to_its_like():
    data = {"points": POINTS, "measures": sweeps.MEASURES, "losses": sweeps.LOSSES}
    asked = [
        ("published_alpha", "linear", "scaled"),
        ("published_temperature", "class_gap_h", "margin"),
        ("noisy", "uniformity_h", "scaled"),
    ]
    got = javascript(f"""
        const data = {json.dumps(data)};
        return {json.dumps(asked)}.map(([sweep, measure, loss]) => {{
          const found = results.chosen(data, {{ sweep, measure, loss }});
          return [found.measure, found.loss];
        }})""")
    assert got == [["linear_micro", "scaled"], ["uniformity_z", "scaled"], ["classifier", "margin"]]
    for (sweep, measure, loss), (wanted, _) in zip(asked, got, strict=True):
        label = sweeps._draw(POINTS, sweep, measure, loss).axes[1].get_ylabel()
        assert label == {key: words for key, words, _ in sweeps.MEASURES}[wanted]


@needs_node
def test_numbers_can_be_read_on_every_colour():
    pairs = javascript("""
        return Array.from({ length: 101 }, (_, k) => results.shade(k / 100))
          .map((rgb) => [rgb, results.inkOn(rgb)])""")
    for rgb, ink in pairs:
        line = [v / 255 for v in rgb]
        line = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in line]
        light = sum(v * w for v, w in zip(line, (0.2126, 0.7152, 0.0722), strict=True))
        assert (light + 0.05 if ink == "#000" else 1.05) / (
            0.05 if ink == "#000" else light + 0.05
        ) > 4.5
    lights = [sum(rgb) for rgb, _ in pairs]
    assert lights == sorted(lights)


@needs_node
def test_lines_hold_every_cell_and_arrows_reach_it():
    data = {"points": POINTS, "measures": sweeps.MEASURES, "losses": sweeps.LOSSES}
    lines, grid = javascript(f"""
        const asked = {{ sweep: "synthetic", loss: "scaled", measure: "linear" }};
        const {{ cells }} = results.chosen({json.dumps(data)}, asked);
        const lines = ["alpha", "temperature"].map((axis) =>
          results.linesOf(cells, axis).map((l) => [l.name, l.cells.map((c) => c.alpha)]));
        const items = [[0, 0], [50, 0], [0, 40], [50, 40]];
        const ways = [[1, 0], [0, 1], [-1, 0], [0, -1]];
        const grid = ways.map((way) => shared.toward(items, 0, way));
        return [lines, grid]""")
    over_alpha, over_temperature = lines
    assert [alphas for _, alphas in over_alpha] == 5 * [[0, 0.3, 0.5, 0.7, 1]]
    assert [len(alphas) for _, alphas in over_temperature] == [1, 5, 5, 5, 5]
    assert grid == [1, 2, 0, 0]


@needs_node
def test_names_on_an_axis_stand_apart():
    places = [[v, v] for v in range(11)]
    narrow, wide = javascript(f"return [300, 900].map((width) => results.apart({places}, width))")
    assert narrow == [0, 2, 4, 6, 8, 10] and wide == list(range(11))


def test_a_page_holds_all_it_shows_and_is_the_same_again(monkeypatch):
    monkeypatch.setenv("ACL_PUBLISH", "1")
    once, again = (explorers.results(FOLDER, view="curves").data for _ in range(2))
    state = json.loads(re.search(r"pageModel\((\{.*?\})\), el", once)[1])
    assert state["view"] == "curves" and state["points"] == sweeps.gather(FOLDER)
    assert "./shared.mjs" not in once and "NaN" not in once
    number = re.compile(r"(acl-[0-9a-f]{8})-\d+")  # counts the explorers of a notebook
    assert number.sub(r"\1", once) == number.sub(r"\1", again)


def test_it_is_a_widget_in_a_notebook(monkeypatch):
    monkeypatch.delenv("ACL_PUBLISH", raising=False)
    widget = explorers.results(FOLDER, sweep="fold", measure="knn_z")
    assert (widget.sweep, widget.measure, widget.view) == ("fold", "knn_z", "map")
