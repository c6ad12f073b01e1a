"""The JavaScript that a reader drags says what acl_lib says; the page holds all that it needs."""

import json
import math
import re
import shutil
import subprocess

import pytest
import torch
import torch.nn.functional as F

from acl_lib import explorers, figures, losses, metrics
from acl_lib.explorers import page

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node runs the JavaScript")


def javascript(code):
    """What the code prints, with the shared functions and those of the explorers at hand."""
    folder = page.FOLDER.as_uri()
    imports = "".join(
        f'import * as {name} from "{folder}/{name}.mjs";'
        for name in ("shared", "circle", "map", "penalty", "results", "views", "training")
    )
    line = f"{imports}console.log(JSON.stringify((() => {{{code}}})()))"
    done = subprocess.run(
        ["node", "--input-type=module"], input=line, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def exactly(values):
    return torch.tensor(values, dtype=torch.float64)


def on_sphere(clips, dimensions, seed, close=False):
    """Unit rows, none nearer to another than the library's `COSINE_LIMIT`, which costs digits."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * clips, dimensions, generator=draw, dtype=torch.float64)
    x = F.normalize(x if not close else 0.2 * x + 1, dim=1)
    assert (x @ x.T).fill_diagonal_(0).max() < losses.COSINE_LIMIT
    return x


def with_gradient(loss, rows):
    rows = rows.clone().requires_grad_()
    value = loss(rows)
    value.backward()
    return value.item(), rows.grad


@needs_node
@pytest.mark.parametrize("close", [False, True], ids=["spread", "inside the margin"])
@pytest.mark.parametrize(("clips", "dimensions"), [(4, 2), (8, 3), (16, 3)])
def test_losses_and_gradients_are_those_of_the_library(clips, dimensions, close):
    rows = on_sphere(clips, dimensions, clips, close)
    ask = f"const rows = {json.dumps(rows.tolist())};"
    got = javascript(f"{ask} return shared.ntXent(rows, 0.2)")
    value, gradient = with_gradient(lambda r: losses.nt_xent(*r.chunk(2), temperature=0.2), rows)
    assert got["loss"] == pytest.approx(value, rel=1e-6)
    torch.testing.assert_close(exactly(got["gradient"]), gradient, rtol=1e-6, atol=1e-9)
    for reduction in losses.REDUCTIONS:
        got = javascript(f"{ask} return shared.angularMargin(rows, 0.5, '{reduction}')")
        value, gradient = with_gradient(
            lambda r, how=reduction: losses.angular_margin(*r.chunk(2), margin=0.5, reduction=how),
            rows,
        )
        assert got["loss"] == pytest.approx(value, rel=1e-6)
        torch.testing.assert_close(exactly(got["gradient"]), gradient, rtol=1e-6, atol=1e-9 * value)


@needs_node
def test_measures_are_those_of_the_library():
    rows, y = on_sphere(8, 3, 0), torch.arange(8) // 2
    got = javascript(f"return shared.measures({json.dumps(rows.tolist())}, circle.classes(8))")
    i, j = rows.chunk(2)
    wanted = {
        "alignment": metrics.alignment(i, j),
        "uniformity": metrics.uniformity(i),
        "tolerance": metrics.tolerance(rows, y.repeat(2)),
        "classGap": metrics.class_gap(rows, y.repeat(2)),
    }
    assert got == {name: pytest.approx(value.item(), rel=1e-6) for name, value in wanted.items()}


@needs_node
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("quarter", ["false", "true"])
def test_play_goes_downhill_and_brings_views_together(dimensions, quarter):
    found = javascript(f"""
        const settings = {{ alpha: 0.3, temperature: 0.2, margin: 0.5, reduction: "mean",
          quarter: {quarter} }};
        let now = {{ rows: circle.start(8, {dimensions}, {quarter}), length: 1 }};
        const losses = [shared.acl(now.rows, settings).loss], before = circle.meanAngle(now.rows);
        for (let k = 0; k < 200; k++) {{
          now = shared.descend(now.rows, settings, now.length);
          losses.push(shared.acl(now.rows, settings).loss);
        }}
        return {{ losses, before, after: circle.meanAngle(now.rows), rows: now.rows }}""")
    assert all(b <= a + 1e-12 for a, b in zip(found["losses"], found["losses"][1:], strict=False))
    assert found["after"] < found["before"]
    rows = torch.tensor(found["rows"])
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(16))
    assert quarter == "false" or (rows >= 0).all()


@needs_node
def test_a_swap_leaves_the_loss_and_changes_the_gap():
    found = javascript("""
        const settings = { alpha: 0.3, temperature: 0.2, margin: 0.5, reduction: "mean" };
        const rows = circle.start(8, 2, false), other = circle.swapped(rows, 0, 4);
        return [rows, other].map((r) =>
          [shared.acl(r, settings).loss, shared.measures(r, circle.classes(8)).classGap])""")
    (loss, gap), (loss_after, gap_after) = found
    assert loss_after == pytest.approx(loss, rel=1e-12)
    assert abs(gap_after - gap) > 0.01


@needs_node
def test_penalties_are_the_gradients_of_an_anchor():
    cosines = [-0.5, 0.2, 0.7, 0.95]
    options = {"temperature": 0.2, "margin": 0.5, "additive": 0.1, "alpha": 0.3, "positive": 0.9}
    got = javascript(f"return penalty.penalties({{...{json.dumps(options)}, cosines: {cosines}}})")
    s = torch.tensor([0.9, *cosines], dtype=torch.float64, requires_grad=True)

    def slope(loss):
        (gradient,) = torch.autograd.grad(loss, s, retain_graph=True)
        return gradient[1:]

    anchor = torch.zeros(1, dtype=torch.long)
    contrast = slope(F.cross_entropy(s[None] / 0.2, anchor))
    margin = torch.tensor([0.1, 0, 0, 0, 0], dtype=torch.float64)
    additive = slope(F.cross_entropy((s - margin)[None] / 0.2, anchor))
    # the authors' sum over ordered pairs / 25, over the anchor's share 1 / 256 of NT-Xent's mean
    angular = slope(256 / 25 * F.relu(0.5 - s[1:].acos()).square().sum())
    for name, wanted in (
        ("contrast", contrast),
        ("additive", additive),
        ("acl", 0.3 * contrast + 0.7 * angular),
    ):
        torch.testing.assert_close(exactly(got[name]), wanted, rtol=1e-6, atol=1e-9)


@needs_node
def test_an_arrow_key_moves_a_point_by_three_degrees():
    moved = javascript("""
        return [[[1, 0], 1, 0], [[1, 0], 0, 1], [[1, 0, 0], 1, 0], [[1, 0, 0], 0, 1],
                [[0, 0, 1], 0, 1]].map(([u, a, b]) => circle.nudged(u, a, b))""")
    t = math.radians(3)
    around, up = [math.cos(t), -math.sin(t)], [math.cos(t), math.sin(t)]
    wanted = [around, up, [*around, 0], [math.cos(t), 0, math.sin(t)]]
    for got, place in zip(moved, wanted, strict=False):
        assert got == pytest.approx(place, abs=1e-12)
    assert math.hypot(*moved[-1]) == pytest.approx(1) and moved[-1][2] > 0.99  # over the pole


@needs_node
def test_a_link_gives_a_control_only_what_it_can_hold():
    asked = """
        const slider = { min: 0, max: 1 }, choice = { kind: "choice", options: [["a b", "A"]] };
        return [["0.3", slider], ["7", slider], ["-1", slider], ["", slider], ["x", slider],
                ["1", { kind: "tick" }], ["0", { kind: "tick" }], ["yes", { kind: "tick" }],
                ["a b", choice], ["c", choice]].map(([t, c]) => shared.fromLink(t, c) ?? null)"""
    assert javascript(asked) == [0.3, 1, 0, None, None, True, False, None, "a b", None]


@needs_node
@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (61.5, 88, [65, 70, 75, 80, 85]),
        (0, 0.004, [0, 0.001, 0.002, 0.003, 0.004]),
    ],
)
def test_a_chart_counts_in_round_numbers(low, high, wanted):
    assert javascript(f"return shared.ticks({low}, {high})") == wanted


@pytest.fixture
def printed(monkeypatch):
    monkeypatch.setenv("ACL_PUBLISH", "1")


@pytest.mark.parametrize("make", [explorers.circle, explorers.penalty])
def test_a_page_needs_nothing_from_elsewhere(printed, make):
    html = make(alpha=0.4).data
    assert '"alpha": 0.4' in html
    assert "import " not in html.split("<script")[1] and "\nexport" not in html
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert len(re.search(r'<img alt="([^"]+)"', html)[1]) > 20
    assert html.count("</script>") == 1


def test_a_circle_can_play_by_itself_and_be_the_picture_alone(printed):
    states = [
        json.loads(re.search(r"pageModel\((\{.*?\})\)", html.data)[1])
        for html in (explorers.circle(), explorers.circle(play=True, small=True))
    ]
    assert [(s["play"], s["small"]) for s in states] == [(False, False), (True, True)]
    assert {**states[0], "play": True, "small": True} == states[1]


def test_frames_stand_in_for_sliders_where_the_book_is_printed(printed):
    calls = []

    def draw(alpha, margin):
        calls.append((alpha, margin))
        x = torch.linspace(0, 1, 3)
        return figures.curves(x, {"a": alpha * x}, "x", "y")

    html = explorers.explore(draw, title="A try", alpha=[0, 0.5, 1], margin=[1, 2]).data
    assert calls == [(a, m) for a in (0, 0.5, 1) for m in (1, 2)]
    assert html.count("data:image/webp;base64,") == 7  # six frames, and the one that stays
    assert "A try: alpha = 0.5, margin = 2" in html


def test_explorers_are_widgets_in_a_notebook(monkeypatch):
    monkeypatch.delenv("ACL_PUBLISH", raising=False)
    widget = explorers.circle(alpha=0.4, clips=12)
    assert (widget.alpha, widget.clips, widget.sphere, widget.reduction) == (0.4, 12, False, "mean")
    assert "export default" in widget._esm and "./shared.mjs" not in widget._esm
    sliders = explorers.explore(lambda alpha: None, alpha=[0, 0.5, 1]).children
    assert sliders[0].value == 0.5 and math.isclose(sliders[0].options[-1], 1)
