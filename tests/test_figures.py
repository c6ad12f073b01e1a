"""Figures show the numbers they were given, all of them, and name their units."""

import io

import matplotlib.pyplot as plt
import pytest
import torch

from acl_lib import figures

SCORE = {
    "accuracy": 0.85,
    "interval": [0.81, 0.88],
    "interval_by_source": [0.80, 0.89],
    "n": 400,
}
SPACE = {"alignment": 0.4, "uniformity": -1.2}


def bars(axis):
    """Both ends of every interval of an axis, in the order in which they were drawn."""
    spans = [x for line in axis.lines if len(x := line.get_xdata()) == 8]  # cap, bar, cap
    return [pytest.approx((x[3], x[4])) for x in spans if x[3] == x[3]]  # no NaN


def rows(axis):
    return [label.get_text() for label in axis.get_yticklabels()]


def test_an_accuracy_stands_in_percent_beside_its_number_of_clips():
    axis = figures.accuracies({"trained": SCORE, "untrained": SCORE}).axes[0]
    assert rows(axis) == ["trained", "untrained"]
    assert bars(axis) == [(81, 88), (81, 88)]
    assert [text.get_text() for text in axis.texts] == ["85.0 %", "85.0 %"]
    assert "n = 400" in axis.get_xlabel()


def test_intervals_over_sources_are_drawn_and_named_where_asked_for():
    axis = figures.accuracies({"trained": SCORE}, interval="interval_by_source").axes[0]
    assert bars(axis) == [(80, 89)]
    assert "sources" in axis.get_xlabel()


def test_a_difference_has_a_sign_a_line_at_zero_and_both_names():
    pair = {"a": "A", "b": "B", "pretrain_on": "all", "difference": -0.05, "interval": (-0.1, 0.01)}
    axis = figures.differences([pair]).axes[0]
    assert rows(axis) == ["B\nminus A (all)"]
    assert [text.get_text() for text in axis.texts] == ["-5.0"]
    assert any(list(line.get_xdata()) == [0, 0] for line in axis.lines)


def test_systems_stand_side_by_side_in_every_group():
    ends = [(0.5, 0.4, 0.6), (0.9, 0.8, 1.0)]
    figure = figures.side_by_side({"one": ends, "two": ends}, ["rain", "sea"], "right (%)")
    axis = figure.axes[0]
    assert rows(axis) == ["rain", "sea"]
    assert bars(axis) == 2 * [(40, 60), (80, 100)]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two"]


def test_seeds_that_are_equal_are_both_to_be_seen():
    row = {"per_seed": [0.8, 0.8, 0.82], "mean": 0.807, "interval": (0.78, 0.83)}
    figure = figures.seeds({"NT-Xent; pretrained on all": row})
    figure.savefig(io.BytesIO())  # the swarm settles
    axis = figure.axes[0]
    dots = {tuple(at) for at in axis.collections[0].get_offsets()}
    assert sorted(round(x) for x, _ in dots) == [80, 80, 82] and len(dots) == 3
    assert bars(axis) == [(78, 83)]
    assert rows(axis) == ["NT-Xent\npretrained on all"]


def test_a_heat_map_begins_below_and_its_numbers_can_be_read():
    values = torch.tensor([[1.0, float("nan")], [3.0, 2.0]])
    texts = [["one", "no run"], ["three", "two"]]
    labels = ("temperature", "alpha", "right (%)")
    figure = figures.heat_map(values, texts, rows=["0", "1"], columns=["a", "b"], labels=labels)
    axis, bar = figure.axes
    assert rows(axis) == ["0", "1"] and axis.get_ylim()[0] < axis.get_ylim()[1]
    assert [text.get_text() for text in axis.texts] == ["one", "no run", "three", "two"]
    assert [text.get_color() for text in axis.texts] == ["white", "black", "black", "black"]
    assert axis.collections[0].get_array().mask.ravel().tolist() == [False, True, False, False]
    assert (axis.get_xlabel(), axis.get_ylabel(), bar.get_ylabel()) == labels


def test_a_space_has_a_row_and_a_measure_a_panel():
    figure = figures.geometry({"h": SPACE, "z": SPACE}, {"uniformity": "nats", "alignment": "a"})
    assert [axis.get_xlabel() for axis in figure.axes] == ["nats", "a"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["-1.20", "-1.20"]
    assert rows(figure.axes[0]) == ["h", "z"]


def test_pairs_are_drawn_as_they_are_given_and_no_row_is_its_own_pair():
    same = torch.eye(4, dtype=torch.bool)
    same[0, 1] = same[1, 0] = True
    before = same.clone()
    image = figures.belonging({"label": same}, list("abcd")).axes[0].images[0].get_array()
    assert image.tolist() == [[2, 1, 0, 0], [1, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 2]]
    assert torch.equal(same, before)


def test_marks_stand_in_the_legend_with_their_numbers():
    axis = figures.histogram(torch.arange(10.0), {"luck": 2.5}, "points").axes[0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["luck, 2.50"]


def test_a_figure_is_left_open_nowhere():
    figures.loss_curve([4.1, 3.0], chance=4.14)
    assert plt.get_fignums() == []


def test_log_mels_share_a_scale_and_no_empty_picture_is_left():
    mels = [torch.arange(12.0).view(3, 4) + 10 * k for k in range(3)]
    figure = figures.log_mels(mels, ["one", "two", "three"], columns=2, seconds_per_frame=0.5)
    *axes, bar = figure.axes
    assert [axis.get_title() for axis in axes] == ["one", "two", "three"]
    for axis, mel in zip(axes, mels, strict=True):
        (image,) = axis.images
        assert (image.get_array() == mel.numpy()).all() and image.origin == "lower"
        assert image.get_extent() == [0, 2.0, 0, 3]  # seconds, bands
        assert image.get_clim() == (pytest.approx(0.22), 31)  # of all three
    assert [axis.get_xlabel() for axis in axes] == ["", "time (s)", "time (s)"]
    assert [axis.get_ylabel() for axis in axes] == ["mel band", "", "mel band"]
    assert bar.get_ylabel() == "log10 power"


def test_a_short_waveform_is_measured_in_milliseconds():
    wavs = {"long": torch.zeros(22_050), "short": torch.linspace(-1, 1, 661)}
    long, short = figures.waveforms(wavs, 22_050).axes
    assert [long.get_xlabel(), short.get_xlabel()] == ["time (s)", "time (ms)"]
    assert short.lines[0].get_xdata()[-1] == pytest.approx(30, abs=0.1)
    assert short.lines[0].get_ydata()[-1] == 1


def test_curves_keep_their_values_and_a_single_one_has_no_legend():
    x = torch.arange(3.0)
    both = figures.curves(x, {"a": x, "b": 2 * x}, "time (s)", "power", dots=True)
    assert [list(line.get_ydata()) for line in both.axes[0].lines] == [[0, 1, 2], [0, 2, 4]]
    assert [text.get_text() for text in both.legends[0].get_texts()] == ["a", "b"]
    assert figures.curves(x, {"a": x}, "time (s)", "power").legends == []


def test_the_bars_of_a_class_add_up_to_its_clips():
    sizes = {"theirs": {"rain": {"clean": 3, "noisy": 9}, "wind": {"noisy": 4}}, "ours": {}}
    sizes["ours"] = {"bell": {"clips": 5}}
    figure = figures.class_sizes(sizes)
    ends = [max(bar.get_x() + bar.get_width() for bar in axis.patches) for axis in figure.axes]
    assert ends == [12, 5]
    assert rows(figure.axes[0]) == ["rain", "wind"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["clean", "noisy", "clips"]


def test_a_matrix_of_labels_names_what_it_counts_and_leaves_zeros_empty():
    counts = torch.tensor([[3, 0, 1], [0, 2, 0]])
    axis = figures.label_matrix(counts, ["a", "b"], ["a", "b", "none"]).axes[0]
    assert sorted(text.get_text() for text in axis.texts) == ["1", "2", "3"]
    assert rows(axis) == ["a", "b"]
    assert [axis.get_xlabel(), axis.get_ylabel()] == ["what the clip is", "what the label says"]


def test_a_panel_has_its_unit_and_equal_names_look_alike():
    x, y = torch.arange(1.0, 4.0), torch.tensor([1.0, 4.0, 9.0])
    rows = {"cost (rad^2)": {"a": y, "b": 2 * y}, "slope (rad)": {"b": 3 * y}}
    figure = figures.panels(x, rows, "angle (rad)", marks={"margin": 2.0}, log="xy")
    first, second = figure.axes
    assert [axis.get_ylabel() for axis in figure.axes] == list(rows)
    assert second.lines[0].get_ydata().tolist() == [3, 12, 27]
    assert second.lines[0].get_color() == first.lines[1].get_color() != first.lines[0].get_color()
    assert first.get_xscale() == first.get_yscale() == "log"
    assert [text.get_text() for text in second.texts] == ["margin"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_angles_are_shares_of_their_kind_and_stand_in_degrees_beside_the_margin():
    groups = {"same": torch.tensor([0.12, 0.13]), "different": torch.full((8,), 0.9)}
    axis = figures.angles(groups, margin=0.5).axes[0]
    heights = [max(patch.get_xy()[:, 1]) for patch in axis.patches]
    assert heights == [pytest.approx(100)] * 2
    names = [text.get_text() for text in axis.get_legend().get_texts()]
    assert {"same, 2 pairs", "different, 8 pairs", "margin, 28.6 degrees"} == set(names)


def test_a_pair_is_drawn_once_in_the_row_of_its_kind():
    same = torch.eye(2, dtype=torch.bool).repeat(2, 2)  # two clips, two views
    theta = torch.full((4, 4), torch.pi / 3)
    force = torch.arange(16.0).view(4, 4)
    figure = figures.pair_forces({"NT-Xent": (theta, force), "angular": (theta, -force)}, same)
    together, _, apart, other = (axis.lines[0] for axis in figure.axes)
    assert together.get_ydata().tolist() == [2, 7]  # pairs (0, 2) and (1, 3)
    assert apart.get_ydata().tolist() == [1, 3, 6, 11]
    assert other.get_ydata().tolist() == [-1, -3, -6, -11]
    assert together.get_xdata().tolist() == pytest.approx([60, 60])


def test_every_view_has_a_path_from_the_inner_to_the_outer_circle():
    phi = torch.linspace(0, 1, 5)[:, None] * torch.tensor([1.0, 2.0, 3.0, 4.0])
    figure = figures.circle_paths({"one": phi, "two": phi})
    assert [axis.get_title() for axis in figure.axes] == ["one", "two"]
    paths = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 5]
    assert [line.get_xdata()[-1] for line in paths] == [1, 2, 3, 4]
    assert all(line.get_ydata()[0] == 0.4 and line.get_ydata()[-1] == 1 for line in paths)


def test_a_positive_is_framed_only_where_a_loss_looks():
    positive = torch.eye(4, dtype=torch.bool).roll(2, 0)
    full, half = torch.full((4, 4), 0.5), torch.full((4, 4), 0.5)
    half[2:] = torch.nan
    figure = figures.cosines({"both": full, "one way": half}, positive, list("abcd"))
    framed = [[p.get_xy() for p in axis.patches] for axis in figure.axes[:2]]
    assert framed[0] == [(1.5, -0.5), (2.5, 0.5), (-0.5, 1.5), (0.5, 2.5)]
    assert framed[1] == framed[0][:2]
    image = figure.axes[1].images[0]
    assert image.get_array().mask[2:].all() and image.get_clim() == (-1, 1)


def test_directions_are_drawn_at_norm_one_in_the_marker_of_their_class():
    z = torch.tensor([[3.0, 0.0], [0.0, 0.5], [-2.0, 0.0]])
    figure = figures.on_circle({"start": z}, torch.tensor([0, 1, 0]), ["rain", "piano"])
    rain, piano = figure.axes[0].lines[1:]
    assert list(rain.get_xdata()) == [1, -1] and list(piano.get_ydata()) == [1]
    assert rain.get_marker() != piano.get_marker()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["rain", "piano"]


def test_a_spread_shows_the_middle_of_every_kind_and_names_its_unit():
    values = torch.linspace(1, 9, 81)
    figure = figures.spreads({"noise": values, "crop": 2 * values}, "change (log10 units)")
    (axis,) = figure.axes
    dots = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "o"]
    assert dots == [pytest.approx(5), pytest.approx(10)]
    assert rows(axis) == ["noise", "crop"]
    assert axis.get_xscale() == "log" and "log10 units" in axis.get_xlabel()


def test_maps_of_every_size_cover_the_same_second():
    figure = figures.feature_maps({"patch": torch.rand(96, 101), "last": torch.rand(3, 4)})
    extents = {tuple(axis.images[0].get_extent()) for axis in figure.axes}
    assert len(figure.axes) == 2 and len(extents) == 1
    assert figure.axes[1].get_title() == "last"


def test_the_two_spaces_carry_the_sizes_they_were_given():
    sizes = {"clip": "96 x 502", "x": "96 x 101", "h": "512 a", "z": "512 b", "f": "11 M", "g": "5"}
    (axis,) = figures.two_spaces(sizes).axes
    written = "\n".join(text.get_text() for text in axis.texts)
    assert all(size in written for size in sizes.values())
    assert written.count("512 a") == written.count("512 b") == 2  # one for each view


@pytest.mark.parametrize("count", [1, 4, 5])
def test_patches_share_one_colour_scale_however_many_there_are(count):
    mels = [torch.rand(96, 101) + k for k in range(count)]
    *axes, bar = figures.patches(mels, [str(k) for k in range(count)]).axes
    assert [axis.get_title() for axis in axes] == [str(k) for k in range(count)]
    assert len({axis.images[0].get_clim() for axis in axes}) == 1
    assert "log10 power" in bar.get_ylabel()


def test_both_kinds_of_trials_are_shares_of_their_kind_on_both_sides_of_the_threshold():
    scores = torch.tensor([0.1, 0.2, 0.2, 0.3, 0.9, 0.95])
    same = torch.tensor([False, False, False, True, True, True])
    figure = figures.trial_scores(scores, same, threshold=0.25, error=0.125, label="cosine")
    (axis,) = figure.axes
    assert {text.get_text() for text in axis.get_legend().get_texts()} == {
        "different, 3 pairs",
        "same, 3 pairs",
        "threshold 0.25\nequal error 12.5 %",
    }
    tops = [max(area.get_paths()[0].vertices[:, 1]) for area in axis.collections]
    assert tops == [pytest.approx(200 / 3), pytest.approx(100 / 3)]
    assert [list(line.get_xdata()) for line in axis.lines] == [[0.25, 0.25]]
    assert [text.get_text() for text in axis.texts] == ["refused", "accepted"]
    assert axis.get_xlabel() == "cosine" and "%" in axis.get_ylabel()
    assert plt.get_fignums() == []


def test_a_det_curve_has_both_rates_in_percent_on_a_normal_scale():
    line = torch.linspace(-3, 1, 9)
    figure = figures.det_curves({"one": (line, -2 - line), "two": (line, -1 - line)})
    (axis,) = figure.axes
    curves = {line.get_label(): line for line in axis.lines if line.get_label()[0] != "_"}
    assert list(curves) == ["one", "two"]
    assert torch.allclose(torch.tensor(curves["two"].get_ydata()), -1 - line)
    assert [tick.get_text() for tick in axis.get_xticklabels()] == "0.1 1 5 20 50 80".split()
    fifty = dict(zip(axis.get_xticks(), axis.get_xticklabels(), strict=True))
    assert fifty[0.0].get_text() == "50"
    assert "%" in axis.get_xlabel() and "%" in axis.get_ylabel()


def test_every_seed_is_a_dot_and_their_mean_a_line():
    x, values = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([[1.0, 2.0, 3.0], [3.0, 4.0, 7.0]])
    figure = figures.seed_curves(x, {"ACL": values}, "alpha", "accuracy (%)", marks={"luck": 6.0})
    dots, mean, luck = figure.axes[0].lines
    assert sorted(dots.get_xdata()) == [0, 0, 0.5, 0.5, 1, 1]
    assert sorted(dots.get_ydata()) == [1, 2, 3, 3, 4, 7]
    assert list(mean.get_ydata()) == [2, 3, 5] and set(luck.get_ydata()) == {6.0}
    assert [text.get_text() for text in figure.legends[0].texts] == ["ACL", "luck"]
    alone = figures.seed_curves(x, {"ACL": values}, "alpha", "accuracy (%)")
    assert not alone.legends


def test_panels_stand_in_rows_and_no_empty_one_is_left():
    x, line = torch.tensor([1.0, 2.0]), {"a": torch.tensor([1.0, 2.0])}
    figure = figures.panels(x, {"one": line, "two": line, "three": line}, "x", columns=2)
    assert [axis.get_ylabel() for axis in figure.axes] == ["one", "two", "three"]
    figure.canvas.draw()
    at = [axis.get_position() for axis in figure.axes]
    assert at[0].y0 == pytest.approx(at[1].y0) and at[2].y1 < at[0].y0


def test_growth_draws_what_was_measured_full_and_what_was_not_hollow():
    points = [(1.0, 10.0), (10.0, 100.0)]
    figure = figures.growth(
        {"ours": points, "theirs": points},
        "hours",
        "CPU s",
        projected={"ours": (1000.0, 1e4)},
        limit=(200.0, "200 MB"),
    )
    axis = figure.axes[0]
    assert axis.get_xscale() == axis.get_yscale() == "log"
    lines = [(list(line.get_xdata()), line.get_linestyle()) for line in axis.lines]
    assert ([1.0, 10.0], "-") in lines and ([10.0, 1000.0], "--") in lines
    hollow = [line for line in axis.lines if line.get_markerfacecolor() == "white"]
    assert [list(line.get_xdata()) for line in hollow] == [[1000.0], []]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "10", "1,000"]
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["ours", "theirs", "projected, not measured", "200 MB"]


def test_moments_have_a_mark_each_in_the_row_of_their_job():
    axis = figures.moments({"training": [0.1, 0.9, 0.5], "a book": [0.2]}, "share").axes[0]
    assert [list(line.get_xdata()) for line in axis.lines] == [[0.1, 0.9, 0.5], [0.2]]
    assert [list(line.get_ydata()) for line in axis.lines] == [[0, 0, 0], [1]]
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == ["training, 3 times", "a book, 1 times"]


def test_ratios_say_their_median_and_span_their_range():
    axis = figures.ratios({"lightly": (4.56, 4.45, 4.78), "whole": (0.7, 0.6, 0.8)}, "x").axes[0]
    assert rows(axis) == ["lightly", "whole"]
    assert [text.get_text() for text in axis.texts] == ["4.56", "0.7"]
    assert [list(line.get_xdata()) for line in axis.lines[::2]] == [
        [4.45, 4.78],
        [0.6, 0.8],
        [1, 1],
    ]
    assert axis.get_xlim()[0] < 0.6 and axis.get_xlim()[1] > 4.78
