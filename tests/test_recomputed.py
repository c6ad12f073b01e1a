"""Fig. 3 from the real features, and every measure of them against loops on small ones."""

import errno
import functools
import itertools
import json
import math
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from test_released import CLIPS, small, write_folder

from acl_lib import released
from acl_lib.__main__ import main
from acl_lib.models import ProjectionHead
from acl_lib.publish import ROOT
from acl_lib.published import TABLES
from acl_lib.recomputed import (
    HEAD_BOUND,
    features_record,
    features_tables,
    folder_of,
    head_deviation,
    knn_pairs,
    knn_right,
    measure,
    recompute_figure3,
    uniformity_tolerance_correlation,
    untrained_head,
    write_record,
)
from acl_lib.released import ReleasedFeatures, load_released_features, released_dir

# From the full tensors, computed by other code: -U, T, cosine between classes and gap on h, clips
# of 947 that 20 weighted neighbours in h get right, in percent, and the same standardised
H = {
    "t0.2": (1.2259, 0.7282, 0.6704, 0.0579, 39.5, 40.5),
    "t0.2a0.3": (0.3355, 0.9271, 0.9145, 0.0126, 36.2, 33.9),
    "t0.3": (0.8481, 0.8113, 0.7747, 0.0366, 38.8, 42.2),
    "t0.3a0.4": (0.2732, 0.9417, 0.9298, 0.0119, 35.6, 34.0),
}
Z = {  # -U, T, cosine between classes and gap
    "t0.2": (0.3719, 0.9189, 0.9031, 0.0158),
    "t0.2a0.3": (0.2605, 0.9437, 0.9316, 0.0121),
    "t0.3": (0.2954, 0.9357, 0.9238, 0.0119),
    "t0.3a0.4": (0.1874, 0.9595, 0.9516, 0.0078),
}
GEOMETRY = ("minus_uniformity", "tolerance", "between_class_cosine", "class_gap")


@functools.cache
def real():
    if not released_dir().is_dir():
        pytest.skip("the authors' features need ACL_DATA/acl_published_features")
    return load_released_features()


@functools.cache
def record():
    return features_record(real())


def made_up(name="t0.2", *, clips=30, width=5, classes=4, seed=0, head=None):
    g = torch.Generator().manual_seed(seed)
    h = torch.rand(2, clips, width, generator=g)
    z = head(h.flatten(0, 1)).view(2, clips, -1) if head else torch.randn(h.shape, generator=g)
    temperature, alpha = released._settings(name)
    y = torch.arange(clips) % classes
    return ReleasedFeatures(
        name, temperature, alpha, h, F.normalize(z.detach(), dim=2), y, "float32", False
    )


# --- the real features


def test_all_cells_of_the_table_but_one_come_out():
    cells = record()["cells"]
    assert len(cells) == 2 * len(real())
    wrong = [(c["folder"], c["measure"]) for c in cells if not c["agrees"]]
    assert wrong == [("t0.3a0.4", "tolerance")] * ("t0.3a0.4" in real())
    for cell in cells:
        row = TABLES["temperature"].rows[released.released_folders().index(cell["folder"])]
        assert cell["published"] == row[3 + (cell["measure"] == "tolerance")]
    told = features_tables(record())
    if wrong:
        assert "does not agree: tolerance of t0.3a0.4, published 0.9437, recomputed 0.9595" in told
    assert f"{len(cells) - len(wrong)} of {len(cells)} cells agree to 4 decimals" in told


@pytest.mark.parametrize("name", H)
def test_what_the_table_does_not_say_of_h_and_z(name):
    found = measure(real()[name])
    assert [round(found["z"][key], 4) for key in GEOMETRY] == list(Z[name])
    assert [round(found["h"][key], 4) for key in GEOMETRY] == list(H[name][:4])
    for key, percent in zip(("knn", "knn_standardised"), H[name][4:], strict=True):
        got = found["h"][key]
        assert got["n"] == 947 and got["accuracy"] == got["right"] / 947
        assert 100 * got["accuracy"] == pytest.approx(percent, abs=0.05 + 100 / 947)  # one clip
        low, high = stats.binomtest(got["right"], 947).proportion_ci(method="wilson")
        assert got["interval"] == pytest.approx([low, high])
    assert round(100 * found["h"]["knn"]["accuracy"], 1) == H[name][4]


@pytest.mark.parametrize("name", H)
def test_the_real_z_come_from_a_head_that_was_never_trained(name):
    features = real()[name]
    assert head_deviation(features) <= HEAD_BOUND[features.stored]
    with torch.random.fork_rng():
        torch.manual_seed(271829)
        other = ProjectionHead(512, 512, 512).eval()
    assert head_deviation(features, other) > 0.01  # any other head is far off


def test_over_the_real_folders_the_two_measures_say_the_same():
    r = record()["correlation"]
    assert r["folders"] == len(real()) and r["z"] < -0.98 and r["h"] < -0.98


def test_the_record_of_the_book_is_what_the_features_give():
    kept = json.loads((ROOT / "book" / "results" / "published_features.json").read_text())
    assert sorted(kept["folders"]) == sorted(H) and len(kept["not_found"]) == 16
    assert kept["files"] == "copies in float16, not the published files"
    ours = features_record({name: real()[name] for name in H})
    for key in ("folders", "cells", "pairs", "correlation"):
        assert_alike(kept[key], ours[key])


def assert_alike(a, b):
    """Equal but for how a processor rounds: a clip more or less, and a head's last bits."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_alike(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for pair in zip(a, b, strict=True):
            assert_alike(*pair)
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5)
    else:
        assert a == b


# --- the measures, by loops


@pytest.mark.parametrize("space", "hz")
def test_measures_are_those_of_loops_over_pairs(space):
    features = made_up(clips=22, classes=3)
    u = F.normalize(getattr(features, space).double(), dim=2)
    y = features.y.tolist()
    potentials = [
        math.exp(-2 * float((u[0, i] - u[0, j]).square().sum()))
        for i, j in itertools.combinations(range(22), 2)
    ]
    same, other = [], []
    for (v, i), (w, j) in itertools.permutations(itertools.product(range(2), range(22)), 2):
        (same if y[i] == y[j] else other).append(float(u[v, i] @ u[w, j]))
    got = measure(features)[space]
    assert got["minus_uniformity"] == pytest.approx(-math.log(np.mean(potentials)))
    assert got["tolerance"] == pytest.approx(np.mean(same))
    assert got["between_class_cosine"] == pytest.approx(np.mean(other))
    assert got["class_gap"] == pytest.approx(np.mean(same) - np.mean(other))
    h = getattr(features, space)[0].double()
    for key, rows in (("knn", h), ("knn_standardised", (h - h.mean(0)) / h.std(0))):
        assert got[key]["right"] == sum(knn_by_loops(rows, y, 20, 0.07))


def knn_by_loops(h, y, neighbours, temperature):
    right = []
    for i in range(len(h)):
        cosine = {
            j: float(h[i] @ h[j] / (h[i].norm() * h[j].norm())) for j in range(len(h)) if j != i
        }
        votes = {}
        for j in sorted(cosine, key=cosine.get, reverse=True)[:neighbours]:
            votes[y[j]] = votes.get(y[j], 0.0) + math.exp(cosine[j] / temperature)
        right.append(max(votes, key=votes.get) == y[i])
    return right


@pytest.mark.parametrize(("neighbours", "temperature"), [(1, 0.07), (3, 0.5), (7, 0.07), (39, 2)])
def test_neighbours_vote_as_in_loops(neighbours, temperature):
    g = torch.Generator().manual_seed(neighbours)
    h, y = torch.randn(40, 4, generator=g), torch.randint(5, (40,), generator=g)
    ours = knn_right(h, y, neighbours=neighbours, temperature=float(temperature))
    assert ours.tolist() == knn_by_loops(h.double(), y.tolist(), neighbours, temperature)
    torch.testing.assert_close(
        knn_right(7 * h, y, neighbours=neighbours, temperature=float(temperature)), ours
    )


def test_a_clip_does_not_vote_for_itself_and_near_ones_weigh_more():
    degrees = torch.tensor([0.0, 10, 100, 110])
    h = torch.stack([degrees.deg2rad().cos(), degrees.deg2rad().sin()], dim=1)
    assert not knn_right(h, torch.tensor([0, 1, 0, 1]), neighbours=1).any()
    assert knn_right(h, torch.tensor([0, 0, 1, 1]), neighbours=1).all()
    # two far ones of class 1 against a near one of class 0
    y = torch.tensor([0, 0, 1, 1])
    assert knn_right(h, y, neighbours=3, temperature=0.07)[0]
    assert not knn_right(h, y, neighbours=3, temperature=100.0)[0]


@pytest.mark.parametrize("options", [{"neighbours": 0}, {"neighbours": 30}, {"temperature": 0.0}])
def test_impossible_neighbours_are_told(options):
    features = made_up()
    with pytest.raises(ValueError, match="need 1 to 29 neighbours for 30 rows"):
        knn_right(features.h[0], features.y, **options)


# --- the table, the pairs, the head


def cells_of(name, u, t):
    return recompute_figure3({name: {"z": {"minus_uniformity": u, "tolerance": t}}})


def test_a_cell_agrees_to_half_of_its_last_digit():
    cells = cells_of("t0.4a0.8", 0.1733 + 5e-5, 0.9632 - 5e-5)
    assert [cell["agrees"] for cell in cells] == [True, True]
    cells = cells_of("t0.4a0.8", 0.1733 - 6e-5, 0.9633)
    assert [cell["agrees"] for cell in cells] == [False, False]
    assert [cell["measure"] for cell in cells] == ["minus_uniformity", "tolerance"]
    assert [cell["published"] for cell in cells] == [0.1733, 0.9632]
    assert recompute_figure3({}) == []
    names = {folder_of(*row[:2]) for row in TABLES["temperature"].rows}
    assert names == set(released.released_folders())


def test_pairs_are_of_one_temperature_and_counted_by_clips():
    found = {name: made_up(name, seed=k) for k, name in enumerate(("t0.2", "t0.2a0.3", "t0.5a0.3"))}
    pairs = knn_pairs(found)
    assert [(p["a"], p["b"], p["rows"]) for p in pairs] == [
        ("t0.2", "t0.2a0.3", "as they are"),
        ("t0.2", "t0.2a0.3", "standardised"),
    ]
    for pair in pairs:
        rows = [found[name].h[0].double() for name in ("t0.2", "t0.2a0.3")]
        if pair["rows"] == "standardised":
            rows = [(h - h.mean(0)) / h.std(0) for h in rows]
        y = found["t0.2"].y.tolist()
        a, b = (knn_by_loops(h, y, 20, 0.07) for h in rows)
        assert pair["difference"] == pytest.approx((sum(b) - sum(a)) / 30)
        assert pair["interval"][0] <= pair["difference"] <= pair["interval"][1]
        only_b, only_a = (
            sum(x and not z for x, z in zip(*s, strict=True)) for s in ((b, a), (a, b))
        )
        assert pair["p"] == pytest.approx(stats.binomtest(only_b, only_a + only_b).pvalue)


def test_pairs_need_the_same_clips():
    other = made_up("t0.2a0.3", classes=5)
    with pytest.raises(ValueError, match=r"t0.2 and t0.2a0.3 hold other clips.*--download"):
        knn_pairs({"t0.2": made_up(), "t0.2a0.3": other})


def test_correlation_needs_three_and_is_minus_one_on_a_line():
    rows = [{"minus_uniformity": x, "tolerance": 1 - 0.2 * x} for x in (0.1, 0.2, 0.5)]
    assert uniformity_tolerance_correlation(rows) == pytest.approx(-1)
    assert uniformity_tolerance_correlation(rows[:2]) is None
    assert uniformity_tolerance_correlation(rows[:1] * 3) is None
    table = TABLES["temperature"]
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    columns = map(table.column, ("minus_uniformity", "tolerance"))
    assert uniformity_tolerance_correlation(rows) == pytest.approx(np.corrcoef(*columns)[0, 1])


def test_the_head_is_drawn_anew_each_time_and_leaves_the_generator_alone():
    before = torch.get_rng_state()
    one, two = untrained_head(), untrained_head()
    assert torch.equal(before, torch.get_rng_state()) and not one.training
    assert all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))


def test_the_deviation_is_that_of_the_largest_cell():
    """In numpy and float64, from the weights; then one cell is moved."""
    first, norm, _, last = head = untrained_head()
    features = made_up(clips=4, width=512, classes=2, head=head)
    w, b, v, c = (t.detach().double().numpy() for t in (*first.parameters(), *last.parameters()))
    hidden = (features.h.flatten(0, 1).double().numpy() @ w.T + b) / np.sqrt(1 + norm.eps)
    z = np.maximum(hidden, 0) @ v.T + c
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    assert np.abs(z - features.z.flatten(0, 1).numpy()).max() < HEAD_BOUND["float32"]
    assert head_deviation(features) == head_deviation(features, head) < HEAD_BOUND["float32"]
    features.z[1, 2, 77] += 0.25
    assert head_deviation(features) == pytest.approx(0.25, abs=1e-6)


# --- the command


@pytest.fixture
def folders(monkeypatch, tmp_path):
    """Three small folders; z of the last is not that of the authors' head."""
    small(monkeypatch, width=512)
    labels = torch.arange(CLIPS) % 4
    heads = {"t0.2": untrained_head(), "t0.2a0.3": untrained_head(), "t0.4": None}
    for k, (name, head) in enumerate(heads.items()):
        how = {"labels": labels, "width": 512, "head": head, "seed": 10 * k}
        write_folder(tmp_path / "features", name, **how)
    return tmp_path / "features"


def test_the_command_prints_all_and_writes_a_record(folders, capsys, tmp_path):
    file = tmp_path / "records" / "features.json"
    assert main(["published", "--root", str(folders), "--record", str(file)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("3 of 20 folders, 25 clips each; copies in float32, not the published")
    assert "not found: t0.1, t0.1a0.7, t0.3, " in out and "0 of 6 cells agree" in out
    assert "does not agree: minus uniformity of t0.4, published 0.3126, recomputed " in out
    assert "over 3 folders" in out and "t0.2a0.3 minus t0.2, rows standardised" in out
    assert out.count("this head made z") == 2 and out.count("another head made z") == 1
    assert out.splitlines()[-1] == f"record: {file}"
    written = json.loads(file.read_text())
    found = features_record(load_released_features(folders))
    assert written == json.loads(json.dumps(found)) and written["source"].endswith(released.COMMIT)
    assert [p.name for p in file.parent.iterdir()] == ["features.json"]


def test_one_folder_has_no_pair_and_no_correlation(folders, capsys):
    for name in ("t0.2", "t0.4"):
        for file in (folders / name).iterdir():
            file.unlink()
        (folders / name).rmdir()
    assert main(["published", "--root", str(folders)]) == 0
    out = capsys.readouterr().out
    assert "correlation" not in out and "McNemar" not in out and "t0.2a0.3" in out


def test_what_is_wrong_is_one_line(folders, capsys, tmp_path):
    assert main(["published", "--root", str(tmp_path / "nowhere")]) == 1
    said = capsys.readouterr()
    assert said.out == "" and "nowhere" in said.err and "--download" in said.err
    (folders / "t0.2" / "tensors1.pt").write_bytes(b"")
    assert main(["published", "--root", str(folders)]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("acl: ") and "tensors1.pt is damaged" in said.err
    assert said.err.count("\n") == 1 and said.out == ""


def test_the_download_comes_first_and_goes_to_the_root(folders, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        released, "download_released_features", lambda root, *, progress: asked.append(root)
    )
    assert main(["published", "--root", str(folders), "--download"]) == 0
    assert asked == [folders] and "3 of 20 folders" in capsys.readouterr().out
    monkeypatch.setenv("ACL_DATA", str(folders.parent))
    folders.rename(folders.parent / "acl_published_features")
    assert main(["published"]) == 0 and "3 of 20 folders" in capsys.readouterr().out


def test_a_record_is_whole_or_not_there(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_record({"r": math.nan}, tmp_path / "record.json")

    def fail(*a):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_record({"r": 1.0}, tmp_path / "record.json")
    assert list(tmp_path.iterdir()) == []
