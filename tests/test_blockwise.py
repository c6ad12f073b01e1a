"""The losses of a large batch, tile by tile, are those of the whole matrix."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from acl_lib import blockwise, losses

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
B, D, K = 7, 5, 11
Y = torch.tensor([0, 1, 1, 5, 0, 1, 2, 5, 0, 1, 3, 3, 1, 0])
FORMS = {
    "nt_xent": lambda a, b: losses.nt_xent(a, b, temperature=0.2),
    "one way": lambda a, b: losses.nt_xent_one_way(a, b, temperature=0.02),
    "additive": lambda a, b: losses.nt_xent_additive(a, b, temperature=0.03, margin=0.1),
    "additive one way": lambda a, b: losses.nt_xent_additive_one_way(
        a, b, temperature=0.2, margin=0.4
    ),
    "angular": lambda a, b: losses.nt_xent_angular(a, b, temperature=0.2, margin=0.3),
    "angular one way": lambda a, b: losses.nt_xent_angular_one_way(
        a, b, temperature=0.2, margin=0.3
    ),
    "queue": lambda a, b: losses.queue_nt_xent(a, b, queue(a), temperature=0.1, margin=0.2),
    "supcon": lambda a, b: losses.supcon(torch.cat([a, b]), Y, temperature=0.2),
    "margin": lambda a, b: losses.angular_margin(a, b, margin=1.2),
    "wide margin": lambda a, b: losses.angular_margin(a, b, margin=3.1, reduction="mean"),
    "margin of classes": lambda a, b: losses.supervised_angular_margin(
        torch.cat([a, b]), Y, margin=1.2
    ),
}


def queue(like):
    return torch.randn(K, D, generator=torch.Generator().manual_seed(3)).to(like)


def views(seed, spread=1.0, dtype=torch.double):
    draw = torch.Generator().manual_seed(seed)
    x = 1 + spread * torch.randn(2, B, D, generator=draw, dtype=torch.double)
    return x.to(dtype).requires_grad_()


def value_and_slope(form, x):
    value = form(*x)
    return value.detach(), torch.autograd.grad(value, x)[0]


@pytest.fixture
def in_tiles(monkeypatch):
    def of(rows):
        monkeypatch.setattr(losses, "BLOCKWISE_ROWS", 2)
        monkeypatch.setattr(blockwise, "TILE", {"cpu": rows})

    return of


@pytest.mark.parametrize("tile", [1, 3, 7, 14, 100])
@pytest.mark.parametrize("spread", [1.0, 0.2])  # apart; nearly all pairs within the margin
@pytest.mark.parametrize("name", FORMS)
def test_tiles_give_the_value_and_the_gradient_of_the_whole(name, spread, tile, in_tiles):
    x = views(0, spread)
    whole, slope = value_and_slope(FORMS[name], x)
    in_tiles(tile)
    got, got_slope = value_and_slope(FORMS[name], x)
    assert got.item() == pytest.approx(whole.item(), rel=1e-12)
    torch.testing.assert_close(got_slope, slope, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", FORMS)
def test_in_float32_to_six_digits(name, in_tiles):
    exact, slope = value_and_slope(FORMS[name], views(1))
    in_tiles(4)
    got, got_slope = value_and_slope(FORMS[name], views(1, dtype=torch.float))
    assert got.item() == pytest.approx(exact.item(), rel=1e-6)
    assert (got_slope - slope).norm() <= 2e-6 * slope.norm()


@pytest.mark.parametrize("name", FORMS)
def test_gradients_are_those_of_finite_differences(name, in_tiles):
    """Along a direction drawn; every entry is compared with the whole matrix's above."""
    in_tiles(3)
    x = tuple(views(2).detach().requires_grad_())
    assert torch.autograd.gradcheck(FORMS[name], x, fast_mode=True)


def test_a_margin_of_nothing_is_nt_xent_bit_for_bit_in_tiles_too(in_tiles):
    in_tiles(4)
    x = views(4, dtype=torch.float)
    assert losses.nt_xent(*x, temperature=0.2) == losses.nt_xent_additive(
        *x, temperature=0.2, margin=0.0
    )


def test_duplicates_among_the_negatives_are_bounded_in_tiles_too(in_tiles):
    x = torch.ones(2, B, D).requires_grad_()
    whole, slope = value_and_slope(FORMS["margin"], x)
    in_tiles(4)
    got, got_slope = value_and_slope(FORMS["margin"], x)
    assert got == pytest.approx(whole.item(), rel=1e-6)
    assert slope.norm() == got_slope.norm() == 0


def test_a_row_that_sees_nobody_sees_nothing():
    u = torch.eye(3)
    seen = blockwise.log_sum_exp_of_others(u, torch.zeros(3).long(), temperature=1.0)
    assert seen.tolist() == [-math.inf] * 3


def test_under_autocast_nothing_is_rounded(in_tiles):
    in_tiles(4)
    x = views(5, dtype=torch.float)
    for form in FORMS.values():
        value, slope = value_and_slope(form, x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            again = form(*x)
            slope_again = torch.autograd.grad(again, x)[0]
        assert again == value and torch.equal(slope_again, slope)


def test_the_gradient_cannot_be_taken_twice_by_mistake(in_tiles):
    in_tiles(4)
    x = views(6)
    (slope,) = torch.autograd.grad(FORMS["nt_xent"](*x), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_views_that_nearly_coincide_keep_their_digits_in_tiles_too(in_tiles):
    x = views(7)[0].detach()
    near = x + 1e-6 * views(8)[0].detach()
    exact, slope = value_and_slope(FORMS["margin"], torch.stack([x, near]).requires_grad_())
    in_tiles(4)
    single = torch.stack([x, near]).requires_grad_()
    got, got_slope = value_and_slope(FORMS["margin"], single)
    assert got.item() == pytest.approx(exact.item(), rel=1e-12)
    torch.testing.assert_close(got_slope, slope, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("views_are", ["equal", "opposite", "zero"])
def test_partners_without_a_slope_get_none(views_are, in_tiles):
    x = views(9).detach()
    x[1] = {"equal": x[0], "opposite": -x[0], "zero": torch.zeros_like(x[0])}[views_are]
    whole, slope = value_and_slope(FORMS["angular"], x.requires_grad_())
    in_tiles(3)
    got, got_slope = value_and_slope(FORMS["angular"], x)
    assert got.item() == pytest.approx(whole.item(), rel=1e-12)
    torch.testing.assert_close(got_slope, slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("rows", [losses.BLOCKWISE_ROWS - 2, losses.BLOCKWISE_ROWS])
def test_large_batches_are_taken_in_tiles_without_being_told(rows, monkeypatch):
    calls = []
    for name in ("log_sum_exp_of_others", "shortfall_sum"):
        kept = getattr(blockwise, name)
        monkeypatch.setattr(
            losses, name, lambda *a, kept=kept, **k: calls.append(kept) or kept(*a, **k)
        )
    z = torch.randn(2, rows // 2, 4)
    losses.acl(*z, *z, alpha=0.3, temperature=0.2)
    losses.supcon(z.flatten(0, 1), torch.arange(rows) % 3, temperature=0.2)
    assert len(calls) == (3 if rows >= losses.BLOCKWISE_ROWS else 0)


# a process for each form, forked from one that has imported what is measured
MEMORY = """
import json, multiprocessing, sys
import large_batches, torch._dynamo

calls = [(form, "tiles", "tight", 8192, 512) for form in sys.argv[1:]]
with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
    print(json.dumps(pool.starmap(large_batches.one_call, calls, chunksize=1)))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="asks Linux for the peak")
def test_tiles_of_many_rows_of_512_take_little_memory():
    """At 8,192 rows a little more than half of what the record has, for all forms, at 16,384."""
    forms = "nt_xent_angular", "angular_margin", "supcon"
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(BENCHMARKS), str(ROOT)])}
    words = [sys.executable, "-c", MEMORY, *forms]
    told = subprocess.run(words, check=True, capture_output=True, text=True, env=env)
    for form, cost in zip(forms, json.loads(told.stdout), strict=True):
        # the gradient alone is 17, a whole matrix 268
        assert 4e-6 * 8192 * 512 < cost["extra_mb"] < 130, form
