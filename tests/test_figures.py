"""Figures show the numbers they were given, all of them, and name their units."""

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
    spans = [c for c in axis.collections for c in c.get_segments()]
    return [pytest.approx((s[0, 0], s[1, 0])) for s in spans]


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
    axis = figures.seeds({"NT-Xent; pretrained on all": row}).axes[0]
    dots = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axis.lines]
    assert len(set(dots)) == len(dots) == 3 + 1 + 2  # the mean and its two caps
    assert rows(axis) == ["NT-Xent\npretrained on all"]


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
