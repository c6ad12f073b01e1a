"""Maps are the same every time, and turn without being bent."""

import math

import numpy as np
import torch

from acl_lib import projection


def test_an_aligned_map_lies_on_the_map_it_was_turned_from():
    draw = np.random.default_rng(0)
    here = draw.normal(size=(30, 2))
    turn = np.array([[math.cos(2), math.sin(2)], [-math.sin(2), math.cos(2)]])
    mirror = np.diag([1, -1])
    there = 3 * here @ turn @ mirror + [5, -2]
    got = projection.align(there, here)
    wanted = here - here.mean(0)
    np.testing.assert_allclose(got, wanted / np.sqrt((wanted**2).sum(1).mean()), atol=1e-12)


def test_aligning_keeps_the_ratios_of_distances():
    draw = np.random.default_rng(1)
    there, here = draw.normal(size=(2, 20, 2))
    got = projection.align(there, here)
    ratio = torch.pdist(torch.tensor(got)) / torch.pdist(torch.tensor(there))
    torch.testing.assert_close(ratio, ratio[0].expand_as(ratio))
