import math

import naive
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from acl_lib import losses
from acl_lib.losses import (
    acl,
    angular_margin,
    contrastive,
    nt_xent,
    nt_xent_additive,
    nt_xent_additive_one_way,
    nt_xent_angular,
    nt_xent_angular_one_way,
    nt_xent_one_way,
    pair_angles,
    queue_nt_xent,
    supcon,
    supervised_acl,
    supervised_angular_margin,
)
from acl_lib.released import load_released_features, released_dir

REDUCTIONS = ["paper_scaled", "paper_code", "mean"]
degree = math.pi / 180


def on_circle(*degrees, dtype=torch.float64):
    angle = torch.tensor(degrees, dtype=torch.float64) * degree
    return torch.stack([angle.cos(), angle.sin()], dim=1).to(dtype)


def gaussian(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def value_and_gradients(loss, *tensors):
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    value = loss(*leaves)
    return value, torch.autograd.grad(value, leaves)


def assert_same(ours, reference, *tensors, tolerance=1e-10):
    value, gradients = value_and_gradients(ours, *tensors)
    expected, expected_gradients = value_and_gradients(reference, *tensors)
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=tolerance, atol=tolerance)


# --- against loops over the equations ---------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
@pytest.mark.parametrize(
    "ours, loops", [(nt_xent, naive.contrastive), (nt_xent_one_way, naive.one_way)]
)
def test_contrastive_losses_are_their_equations(ours, loops, temperature):
    assert_same(
        lambda a, b: ours(a, b, temperature=temperature),
        lambda a, b: loops(a, b, temperature),
        gaussian(5, 4),
        gaussian(5, 4, seed=1),
    )


@pytest.mark.parametrize("temperature", [0.03, 0.2])
@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(
    "ours, loops",
    [(nt_xent_additive, naive.additive), (nt_xent_additive_one_way, naive.additive_one_way)],
)
def test_additive_margins_are_their_equations(ours, loops, margin, temperature):
    assert_same(
        lambda a, b: ours(a, b, temperature=temperature, margin=margin),
        lambda a, b: loops(a, b, margin, temperature),
        gaussian(5, 4),
        gaussian(5, 4, seed=1),
    )


@pytest.mark.parametrize("temperature", [0.03, 0.2])
@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5, 1.5, 3.1])
@pytest.mark.parametrize(
    "ours, loops",
    [
        (nt_xent_angular, naive.angular_positive),
        (nt_xent_angular_one_way, naive.angular_positive_one_way),
    ],
)
def test_margins_of_the_angle_are_arcfaces(ours, loops, margin, temperature):
    """At large margins some angles pass pi, where the straight line goes on."""
    assert_same(
        lambda a, b: ours(a, b, temperature=temperature, margin=margin),
        lambda a, b: loops(a, b, margin, temperature),
        gaussian(5, 4),
        gaussian(5, 4, seed=1),
    )


@pytest.mark.parametrize("margin", [0.005, 0.2, 1.0, 2.3])
def test_a_margin_of_the_angle_is_finite_everywhere_and_never_helps_the_partner(margin):
    theta = torch.linspace(0, 180, 721, dtype=torch.float64)
    first = on_circle(*[0.0] * len(theta)).requires_grad_()
    second = on_circle(*theta.tolist()).requires_grad_()
    negative = on_circle(90)
    options = {"temperature": 0.2, "margin": margin, "margin_kind": "angular"}
    each = torch.stack(
        [
            queue_nt_xent(first[i : i + 1], second[i : i + 1], negative, **options)
            for i in range(len(theta))
        ]
    )
    assert each.isfinite().all()
    assert (each.diff() >= -1e-12).all()  # the further apart, the dearer
    each.sum().backward()
    assert first.grad.isfinite().all() and second.grad.isfinite().all()
    assert first.grad.norm(dim=1).max() < 2 * math.sqrt(2) / 0.2


@pytest.mark.parametrize("kind", ["additive", "angular"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_every_form_of_the_first_term_goes_into_acl(kind, symmetric):
    z_i, z_j, h_i, h_j = (gaussian(6, 4, seed=seed) for seed in range(4))
    form = {"positive_margin": 0.3, "margin_kind": kind, "symmetric": symmetric}
    named = {
        ("additive", True): nt_xent_additive,
        ("additive", False): nt_xent_additive_one_way,
        ("angular", True): nt_xent_angular,
        ("angular", False): nt_xent_angular_one_way,
    }[kind, symmetric](z_i, z_j, temperature=0.1, margin=0.3)
    assert torch.equal(contrastive(z_i, z_j, temperature=0.1, **form), named)
    mixed = acl(z_i, z_j, h_i, h_j, alpha=0.3, temperature=0.1, **form)
    assert torch.equal(mixed, 0.3 * named + 0.7 * angular_margin(h_i, h_j))


@pytest.mark.parametrize("margin", [0.0, 0.1])
@pytest.mark.parametrize("clips, keys", [(5, 7), (1, 3), (4, 1)])
def test_a_queue_gives_the_negatives_of_its_equation(clips, keys, margin):
    assert_same(
        lambda q, k, queue: queue_nt_xent(q, k, queue, temperature=0.2, margin=margin),
        lambda q, k, queue: naive.queued(q, k, queue, margin, 0.2),
        gaussian(clips, 4),
        gaussian(clips, 4, seed=1),
        gaussian(keys, 4, seed=2),
    )


@pytest.mark.parametrize("margin", [0.1, 1.0])
def test_a_queue_takes_a_margin_of_the_angle_too(margin):
    options = {"temperature": 0.2, "margin": margin, "margin_kind": "angular"}
    assert_same(
        lambda q, k, queue: queue_nt_xent(q, k, queue, **options),
        lambda q, k, queue: naive.queued(q, k, queue, margin, 0.2, naive.arcface),
        *(gaussian(n, 4, seed=seed) for seed, n in enumerate((5, 5, 7))),
    )


def test_supcon_is_its_equation_and_leaves_out_anchors_without_a_positive():
    y = torch.tensor([2, 0, 2, 5, 2, 0, 1])  # classes 5 and 1 occur once
    assert_same(
        lambda z: supcon(z, y, temperature=0.2),
        lambda z: naive.supervised_contrastive(z, y, 0.2),
        gaussian(7, 3),
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("margin", [0.5, 1.2, 3.1])
def test_angular_margin_is_its_equation(margin, reduction):
    assert_same(
        lambda a, b: angular_margin(a, b, margin=margin, reduction=reduction),
        lambda a, b: naive.angular(a, b, margin, reduction),
        gaussian(5, 3),
        gaussian(5, 3, seed=1),
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("y", [[0, 1, 0, 0, 1, 2], [0, 1, 2, 3, 4, 5], [3, 3, 3, 3, 3, 3]])
def test_supervised_angular_margin_is_its_equation(y, reduction):
    y = torch.tensor(y)
    assert_same(
        lambda h: supervised_angular_margin(h, y, margin=1.2, reduction=reduction),
        lambda h: naive.supervised_angular(h, y, 1.2, reduction),
        gaussian(6, 3),
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_acl_mixes_the_two_equations(reduction):
    assert_same(
        lambda z_i, z_j, h_i, h_j: acl(
            z_i, z_j, h_i, h_j, alpha=0.3, temperature=0.2, margin=1.0, reduction=reduction
        ),
        lambda z_i, z_j, h_i, h_j: (
            0.3 * naive.contrastive(z_i, z_j, 0.2) + 0.7 * naive.angular(h_i, h_j, 1.0, reduction)
        ),
        *(gaussian(4, 3, seed=seed) for seed in (0, 1)),
        *(gaussian(4, 5, seed=seed) for seed in (2, 3)),
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_supervised_acl_mixes_cross_entropy_and_the_margin_of_its_labels(reduction):
    y = torch.tensor([0, 1, 0, 2])

    def loops(logits, h):
        cross_entropy = [
            -torch.log(logits[b].exp()[y[b]] / logits[b].exp().sum()) for b in range(4)
        ]
        return 0.7 * sum(cross_entropy) / 4 + 0.3 * naive.supervised_angular(h, y, 1.0, reduction)

    assert_same(
        lambda logits, h: supervised_acl(logits, h, y, alpha=0.7, margin=1.0, reduction=reduction),
        loops,
        gaussian(4, 3),
        gaussian(4, 5, seed=1),
    )


# --- against other people's code --------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.07, 0.2, 0.5])
def test_nt_xent_equals_lightly_and_pytorch_metric_learning(temperature):
    lightly = pytest.importorskip("lightly.loss")
    pml = pytest.importorskip("pytorch_metric_learning.losses")
    z_i, z_j = gaussian(64, 128), gaussian(64, 128, seed=1)
    value, gradients = value_and_gradients(
        lambda a, b: nt_xent(a, b, temperature=temperature), z_i, z_j
    )
    for theirs in (
        lightly.NTXentLoss(temperature=temperature),
        pml.SelfSupervisedLoss(pml.SupConLoss(temperature=temperature)),
    ):
        expected, expected_gradients = value_and_gradients(theirs, z_i, z_j)
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(gradients, expected_gradients, rtol=0, atol=1e-10)


def test_a_queue_costs_what_lightlys_memory_bank_does():
    """lightly puts the keys into its bank after the loss as well."""
    lightly = pytest.importorskip("lightly.loss")
    theirs = lightly.NTXentLoss(temperature=0.2, memory_bank_size=(64, 16))
    q, k = (gaussian(8, 16, seed=seed, dtype=torch.float32) for seed in (0, 1))
    theirs(q, k)  # the first call makes the bank
    queue = theirs.memory_bank.bank.clone()
    value = queue_nt_xent(q, k, queue, temperature=0.2)
    torch.testing.assert_close(value, theirs(q.requires_grad_(), k), rtol=1e-6, atol=1e-6)


def test_supcon_equals_pytorch_metric_learning():
    pml = pytest.importorskip("pytorch_metric_learning.losses")
    z, y = gaussian(40, 16), torch.arange(40) % 7
    y[-1] = 7  # an anchor without a positive
    assert_same(
        lambda z: supcon(z, y, temperature=0.1),
        lambda z: pml.SupConLoss(temperature=0.1)(z, y),
        z,
    )


# --- closed forms, in degrees -----------------------------------------------------------------


@pytest.mark.parametrize("degrees", [0, 73, 200])
def test_indistinguishable_views_cost_the_logarithm_of_the_choices(degrees):
    z = on_circle(degrees, degrees, degrees)
    assert nt_xent(z, z, temperature=0.2).item() == pytest.approx(math.log(5))
    assert nt_xent_one_way(z, z, temperature=0.2).item() == pytest.approx(math.log(3))
    assert supcon(z, torch.tensor([1, 1, 0]), temperature=0.2).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("temperature", [0.03, 0.2])
def test_a_margin_multiplies_every_negative(margin, temperature):
    """Equal cosines leave 1 against so many negatives, each exp(m / tau) strong."""
    options = {"temperature": temperature, "margin": margin}
    alike, more = on_circle(73, 73, 73), on_circle(73, 73, 73, 73, 73)
    times = math.exp(margin / temperature)
    for value, negatives in (
        (nt_xent_additive(alike, alike, **options), 4),
        (nt_xent_additive_one_way(alike, alike, **options), 2),
        (queue_nt_xent(alike, alike, more, **options), 5),
    ):
        assert value.item() == pytest.approx(math.log1p(negatives * times))


def test_a_margin_of_tau_log_3_is_every_negative_three_times():
    q, k, queue = (gaussian(6, 4, seed=seed) for seed in (0, 1, 2))
    margin = queue_nt_xent(q, k, queue, temperature=0.2, margin=0.2 * math.log(3))
    copies = queue_nt_xent(q, k, queue.repeat(3, 1), temperature=0.2)
    torch.testing.assert_close(margin, copies, rtol=1e-12, atol=0)


@pytest.mark.parametrize("apart", [30, 90, 180])
def test_two_clips_at_an_angle_with_a_margin(apart):
    z = on_circle(0, apart)
    gap = (math.cos(apart * degree) - 1 + 0.1) / 0.2
    options = {"temperature": 0.2, "margin": 0.1}
    both = nt_xent_additive(z, z, **options).item()
    assert both == pytest.approx(math.log1p(2 * math.exp(gap)))
    one_way = nt_xent_additive_one_way(z, z, **options).item()
    queued = queue_nt_xent(z, z, z.flip(0)[:1], **options).item()  # query 2 meets itself
    assert one_way == pytest.approx(math.log1p(math.exp(gap)))
    itself = math.log1p(math.exp(0.1 / 0.2))
    assert queued == pytest.approx((math.log1p(math.exp(gap)) + itself) / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_a_margin_they_are_the_losses_known_bit_for_bit(dtype):
    z_i, z_j = gaussian(6, 4, dtype=dtype), gaussian(6, 4, seed=1, dtype=dtype)
    soft = {"temperature": 0.2}
    for ours, known in (
        (nt_xent_additive, nt_xent),
        (nt_xent_additive_one_way, nt_xent_one_way),
        (nt_xent_angular, nt_xent),
        (nt_xent_angular_one_way, nt_xent_one_way),
    ):
        got = value_and_gradients(lambda a, b, f=ours: f(a, b, margin=0.0, **soft), z_i, z_j)
        wanted = value_and_gradients(lambda a, b, f=known: f(a, b, **soft), z_i, z_j)
        assert torch.equal(got[0], wanted[0])
        assert all(torch.equal(g, w) for g, w in zip(got[1], wanted[1], strict=True))


def test_a_queue_of_the_other_keys_is_one_way_for_that_query():
    z_i, z_j = gaussian(5, 4), gaussian(5, 4, seed=1)
    each = [
        queue_nt_xent(
            z_i[b : b + 1],
            z_j[b : b + 1],
            z_j[torch.arange(5) != b],
            temperature=0.2,
            margin=0.1,
        )
        for b in range(5)
    ]
    one_way = nt_xent_additive_one_way(z_i, z_j, temperature=0.2, margin=0.1)
    torch.testing.assert_close(torch.stack(each).mean(), one_way, rtol=1e-12, atol=0)


def test_keys_without_gradient_leave_the_encoder_of_the_queries_alone_to_learn():
    q, k, queue = gaussian(4, 3).requires_grad_(), gaussian(4, 3, seed=1), gaussian(9, 3, seed=2)
    queue_nt_xent(q, k, queue, temperature=0.2).backward()
    assert q.grad.isfinite().all() and q.grad.any()


@pytest.mark.parametrize("apart", [30, 90, 180])
def test_nt_xent_of_two_clips_at_an_angle(apart):
    z = on_circle(0, apart)
    gap = (math.cos(apart * degree) - 1) / 0.2
    assert nt_xent(z, z, temperature=0.2).item() == pytest.approx(math.log1p(2 * math.exp(gap)))
    one_way = nt_xent_one_way(z, z, temperature=0.2).item()
    assert one_way == pytest.approx(math.log1p(math.exp(gap)))


def test_one_way_looks_at_one_direction_only():
    z_i, z_j = on_circle(0, 0), on_circle(0, 90)  # both anchors prefer the first candidate
    forth = nt_xent_one_way(z_i, z_j, temperature=1.0).item()
    back = nt_xent_one_way(z_j, z_i, temperature=1.0).item()
    assert forth == pytest.approx(math.log(1 + math.e) - 0.5)
    assert back == pytest.approx(math.log(2))


def test_supcon_with_a_class_per_clip_is_nt_xent():
    z_i, z_j, y = gaussian(6, 4), gaussian(6, 4, seed=1), torch.arange(6)
    both = supcon(torch.cat([z_i, z_j]), torch.cat([y, y]), temperature=0.2)
    torch.testing.assert_close(both, nt_xent(z_i, z_j, temperature=0.2), rtol=1e-12, atol=0)


def test_supcon_without_any_positive_is_zero_with_zero_gradient():
    value, (gradient,) = value_and_gradients(
        lambda z: supcon(z, torch.arange(4), temperature=0.2), gaussian(4, 3)
    )
    assert value == 0 and not gradient.any()


def test_views_apart_cost_their_angle_squared_wherever_clips_stand_apart():
    h_i, h_j = on_circle(0, 90, 180), on_circle(10, 80, 190)  # views 10 degrees apart, clips >= 70
    mean = angular_margin(h_i, h_j, reduction="mean").item()
    code = angular_margin(h_i, h_j, reduction="paper_code").item()
    assert mean == pytest.approx((10 * degree) ** 2)
    assert code == pytest.approx(6 * (10 * degree) ** 2 / 25)


def test_clips_closer_than_the_margin_cost_their_shortfall_squared():
    h = on_circle(0, 20, 120)  # of the 24 ordered negatives, 8 are 20 degrees apart
    shortfall = (0.5 - 20 * degree) ** 2
    assert angular_margin(h, h, reduction="mean").item() == pytest.approx(shortfall / 3)
    assert angular_margin(h, h, reduction="paper_code").item() == pytest.approx(8 * shortfall / 25)


def test_labels_decide_which_angles_attract():
    h, y = on_circle(0, 15, 25), torch.tensor([0, 0, 1])
    within = (15 * degree) ** 2
    between = (0.5 - 25 * degree) ** 2 + (0.5 - 10 * degree) ** 2
    code = supervised_angular_margin(h, y, reduction="paper_code").item()
    mean = supervised_angular_margin(h, y, reduction="mean").item()
    assert code == pytest.approx(2 * (within + between) / 50)
    assert mean == pytest.approx(within + between / 2)


# --- reductions -------------------------------------------------------------------------------


def test_paper_scaled_is_the_authors_sum_at_their_batch_sizes():
    h_i, h_j = gaussian(128, 3), gaussian(128, 3, seed=1)
    scaled, code = (angular_margin(h_i, h_j, reduction=r) for r in ("paper_scaled", "paper_code"))
    assert scaled.item() == pytest.approx(code.item(), rel=1e-12)
    h, y = gaussian(64, 3), torch.arange(64) % 20
    scaled, code = (
        supervised_angular_margin(h, y, reduction=r) for r in ("paper_scaled", "paper_code")
    )
    assert scaled.item() == pytest.approx(code.item(), rel=1e-12)


@pytest.mark.parametrize("clips", [2, 32, 128])
def test_weight_of_the_positives_and_of_the_negatives(clips):
    """At batch 32 the authors' sum is another method; scaled, it is one method at every size."""
    far_apart = on_circle(*(360 * b / clips for b in range(clips)))
    views = far_apart, far_apart @ on_circle(1, 91)  # turned by 1 degree
    equally_apart = torch.eye(clips, dtype=torch.float64) + 1
    theta = math.acos((clips + 2) / (clips + 3))
    weights = {"paper_code": clips / 128, "paper_scaled": 1}
    for reduction, share in weights.items():
        positives = angular_margin(*views, margin=0.01, reduction=reduction).item()
        assert positives == pytest.approx(10.24 * share * degree**2)
    weights["paper_code"] *= (2 * clips - 2) / 254
    for reduction, share in weights.items():
        negatives = angular_margin(equally_apart, equally_apart, margin=2.0, reduction=reduction)
        assert negatives.item() == pytest.approx(2600.96 * share * (2 - theta) ** 2)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_acl_at_its_ends_is_one_term_and_the_other_gets_gradients_of_zero(alpha):
    tensors = [gaussian(4, 3, seed=seed) for seed in range(4)]
    value, gradients = value_and_gradients(
        lambda z_i, z_j, h_i, h_j: acl(z_i, z_j, h_i, h_j, alpha=alpha, temperature=0.2), *tensors
    )
    z, h = tensors[:2], tensors[2:]
    alone = nt_xent(*z, temperature=0.2) if alpha else angular_margin(*h)
    silent, heard = (gradients[2:], gradients[:2]) if alpha else (gradients[:2], gradients[2:])
    assert torch.equal(value, alone)
    assert not any(gradient.any() for gradient in silent)
    assert all(gradient.any() for gradient in heard)


# --- hard inputs: finite, and right -----------------------------------------------------------


def hard_pairs():
    """Row 0: identical views. 1: opposite. 2, 3: one clip twice. 4: a dead view. 5: both dead."""
    x_i, x_j = gaussian(8, 16), gaussian(8, 16, seed=1)
    x_j[0] = x_i[0]
    x_j[1] = -x_i[1]
    x_i[3], x_j[3] = x_i[2], x_j[2]
    x_i[4] = 0
    x_i[5] = x_j[5] = 0
    return x_i, x_j


ALL = {
    "pair_angles": lambda a, b: pair_angles(a, b).square().sum(),
    "nt_xent": lambda a, b: nt_xent(a, b, temperature=0.01),
    "nt_xent_one_way": lambda a, b: nt_xent_one_way(a, b, temperature=0.01),
    "nt_xent_additive": lambda a, b: nt_xent_additive(a, b, temperature=0.03, margin=0.1),
    "nt_xent_angular": lambda a, b: nt_xent_angular(a, b, temperature=0.03, margin=0.1),
    "nt_xent_angular_one_way": lambda a, b: nt_xent_angular_one_way(
        a, b, temperature=0.03, margin=0.1
    ),
    "nt_xent_additive_one_way": lambda a, b: nt_xent_additive_one_way(
        a, b, temperature=0.03, margin=0.1
    ),
    "queue_nt_xent": lambda a, b: queue_nt_xent(
        a, b, torch.cat([b.flip(0), a]), temperature=0.03, margin=0.1
    ),
    "supcon": lambda a, b: supcon(torch.cat([a, b]), torch.arange(16) % 5, temperature=0.01),
    "angular_margin": lambda a, b: angular_margin(a, b),
    "angular_margin, wide": lambda a, b: angular_margin(a, b, margin=3.14159),
    "supervised_angular_margin": lambda a, b: supervised_angular_margin(
        torch.cat([a, b]), torch.arange(16) % 5
    ),
    "acl": lambda a, b: acl(a, b, a, b, alpha=0.3, temperature=0.01),
    "supervised_acl": lambda a, b: supervised_acl(
        a, b, torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]), alpha=0.3
    ),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ALL)
def test_hard_inputs_give_finite_values_and_gradients(name, dtype):
    value, gradients = value_and_gradients(ALL[name], *(x.to(dtype) for x in hard_pairs()))
    assert value.isfinite() and value.dtype == torch.promote_types(dtype, torch.float32)
    assert all(gradient.isfinite().all() and gradient.dtype == dtype for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ALL)
def test_half_precision_rows_and_autocast_change_nothing(name, dtype):
    """Rows are cast up, and no product is rounded down again."""
    pairs = [x.to(dtype) for x in hard_pairs()]
    expected, expected_gradients = value_and_gradients(ALL[name], *(x.float() for x in pairs))
    for inputs, autocast in ((pairs, False), (pairs, True), ([x.float() for x in pairs], True)):
        leaves = [x.clone().requires_grad_() for x in inputs]
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            value = ALL[name](*leaves)
        gradients = torch.autograd.grad(value, leaves)  # outside, as the loop does
        assert torch.equal(value, expected)
        for gradient, reference in zip(gradients, expected_gradients, strict=True):
            step = 2 * torch.finfo(gradient.dtype).eps
            torch.testing.assert_close(gradient, reference.to(gradient.dtype), rtol=step, atol=step)


@pytest.mark.parametrize("name", ALL)
def test_float32_has_six_digits_of_float64(name):
    exact, exact_gradients = value_and_gradients(ALL[name], *hard_pairs())
    value, gradients = value_and_gradients(ALL[name], *(x.float() for x in hard_pairs()))
    assert value.item() == pytest.approx(exact.item(), rel=3e-5)
    for gradient, reference in zip(gradients, exact_gradients, strict=True):
        torch.testing.assert_close(gradient.double(), reference, rtol=1e-3, atol=1e-4)


def test_identical_and_opposite_views_are_exact_and_push_nowhere():
    x = gaussian(4, 16, dtype=torch.float32)
    for other, angle in ((x, 0), (-x, math.pi), (3 * x, 0)):
        angles, gradients = value_and_gradients(
            lambda a, b: pair_angles(a, b).square().mean(), x, other
        )
        assert angles.sqrt().item() == pytest.approx(angle, abs=1e-6)
        assert all(gradient.abs().max() < 1e-6 for gradient in gradients)


@pytest.mark.parametrize("angle", [1e-7, 1e-5, 1e-3, 0.1])
def test_small_and_nearly_opposite_angles_keep_their_digits_in_float32(angle):
    x = torch.tensor([[1.0, 0.0]])
    near, far = torch.tensor([[1.0, math.tan(angle)]]), torch.tensor([[-1.0, math.tan(angle)]])
    assert pair_angles(x, near).item() == pytest.approx(angle, rel=1e-6)
    assert pair_angles(x, far).item() == pytest.approx(math.pi - angle, rel=1e-6)


def test_rows_without_direction_get_no_gradient_and_stand_at_right_angles():
    x_i, x_j = hard_pairs()
    angles = pair_angles(x_i, x_j)
    assert angles[4].item() == pytest.approx(math.pi / 2)
    for loss in ALL.values():
        _, (g_i, g_j) = value_and_gradients(loss, x_i, x_j)
        assert loss is ALL["supervised_acl"] or not g_i[[4, 5]].any()
        assert not g_j[5].any()


def test_duplicates_among_the_negatives_cost_the_margin_squared_up_to_the_guard():
    h = on_circle(0, 0, 90, dtype=torch.float32)
    value = angular_margin(h, h, reduction="mean").item()
    assert value == pytest.approx(8 / 24 * 0.25, rel=6e-3)


@pytest.mark.parametrize("noise", [1e-2, 1e-3])
def test_near_duplicates_among_the_negatives_push_with_bounded_force(noise):
    """The slope of arccos diverges there; along the sphere the force is 2 * margin at most."""
    h = gaussian(1, 8) + noise * gaussian(2, 8, seed=1)
    h = torch.nn.functional.normalize(h).float()
    _, gradients = value_and_gradients(
        lambda h: angular_margin(h, h, reduction="paper_code") * 25, h
    )
    assert gradients[0].norm(dim=1).max() <= 8 * 2 * 0.5 * 1.05  # 8 ordered negatives touch a row


# --- calculus and symmetries ------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ALL if name != "angular_margin, wide"])
def test_gradients_are_those_of_finite_differences(name):
    pairs = [gaussian(8, 3, seed=seed).requires_grad_() for seed in (4, 5)]
    loss = ALL[name]
    assert torch.autograd.gradcheck(loss, pairs, atol=1e-5, rtol=1e-4)


seeds = st.integers(0, 2**31 - 1)


def symmetric_losses(z_i, z_j):
    return torch.stack(
        [
            nt_xent(z_i, z_j, temperature=0.2),
            nt_xent_one_way(z_i, z_j, temperature=0.2) + nt_xent_one_way(z_j, z_i, temperature=0.2),
            nt_xent_additive(z_i, z_j, temperature=0.2, margin=0.1),
            nt_xent_additive_one_way(z_i, z_j, temperature=0.2, margin=0.1)
            + nt_xent_additive_one_way(z_j, z_i, temperature=0.2, margin=0.1),
            queue_nt_xent(z_i, z_j, torch.cat([z_i, z_j]), temperature=0.2, margin=0.1)
            + queue_nt_xent(z_j, z_i, torch.cat([z_i, z_j]), temperature=0.2, margin=0.1),
            angular_margin(z_i, z_j, margin=1.0),
            acl(z_i, z_j, z_i, z_j, alpha=0.3, temperature=0.2, margin=1.0),
        ]
    )


@settings(max_examples=25, deadline=None)
@given(seed=seeds, clips=st.integers(2, 6), d=st.integers(2, 6))
def test_losses_see_angles_between_clips_and_nothing_else(seed, clips, d):
    z_i, z_j = gaussian(clips, d, seed=seed), gaussian(clips, d, seed=seed + 1)
    expected = symmetric_losses(z_i, z_j)
    scale = gaussian(clips, 1, seed=seed + 2).exp()
    rotation, _ = torch.linalg.qr(gaussian(d, d, seed=seed + 3))
    order = torch.randperm(clips, generator=torch.Generator().manual_seed(seed))
    for changed in (
        (z_i * scale, z_j / scale),
        (z_i @ rotation, z_j @ rotation),
        (z_i[order], z_j[order]),
        (z_j, z_i),
    ):
        torch.testing.assert_close(symmetric_losses(*changed), expected, rtol=1e-8, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, rows=st.integers(2, 8), classes=st.integers(1, 8))
def test_supervised_losses_see_which_labels_agree_and_nothing_else(seed, rows, classes):
    generator = torch.Generator().manual_seed(seed)
    h, y = gaussian(rows, 3, seed=seed), torch.randint(classes, (rows,), generator=generator)
    order, names = torch.randperm(rows, generator=generator), torch.randperm(8, generator=generator)
    for loss in (
        lambda h, y: supervised_angular_margin(h, y, margin=1.0),
        lambda h, y: supervised_angular_margin(h, y, margin=1.0, reduction="mean"),
        lambda h, y: supcon(h, y, temperature=0.2),
    ):
        for changed in ((h[order], y[order]), (h, names[y]), (5 * h, y)):
            torch.testing.assert_close(loss(*changed), loss(h, y), rtol=1e-8, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, temperature=st.floats(0.01, 10), margin=st.floats(0.01, 3.1))
def test_losses_are_never_negative(seed, temperature, margin):
    x_i, x_j = (gaussian(4, 3, seed=seed + k, dtype=torch.float32) for k in (0, 1))
    assert nt_xent(x_i, x_j, temperature=temperature) >= 0
    more = nt_xent_additive(x_i, x_j, temperature=temperature, margin=margin / 3)
    assert more >= nt_xent(x_i, x_j, temperature=temperature)  # a margin makes it dearer
    assert queue_nt_xent(x_i, x_j, x_i, temperature=temperature, margin=margin / 3) >= 0
    assert angular_margin(x_i, x_j, margin=margin) >= 0


# --- real features, and mistakes --------------------------------------------------------------


@pytest.mark.parametrize(
    "model, negatives, positives", [("t0.2", 0.1, 3.30), ("t0.2a0.3", 31.5, 0.92)]
)
def test_published_representations_cost_what_the_authors_sum_says(model, negatives, positives):
    """Batches of 128 clips; the two parts of the sum / 25 were tabulated from the full tensors."""
    if not released_dir().is_dir():
        pytest.skip(f"published features not found in {released_dir()}: set ACL_DATA")
    batches = load_released_features()[model].h[:, : 7 * 128].split(128, dim=1)
    costs = [angular_margin(*h, reduction="paper_code").item() for h in batches]
    assert sum(costs) / 7 == pytest.approx(negatives + positives, rel=0.02)


z = gaussian(4, 3)
y = torch.arange(4)


@pytest.mark.parametrize(
    "call, got",
    [
        (lambda: nt_xent(z, z, temperature=0.0), "0.0"),
        (lambda: nt_xent(z, z, temperature=math.nan), "nan"),
        (lambda: nt_xent_one_way(z, z, temperature=-0.2), "-0.2"),
        (lambda: supcon(z, y, temperature=0.0), "0.0"),
        (lambda: nt_xent_additive(z, z, temperature=0.0, margin=0.1), "0.0"),
        (lambda: nt_xent_additive(z, z, temperature=0.2, margin=-0.1), "-0.1"),
        (lambda: nt_xent_additive(z, z, temperature=0.2, margin=28.6), "28.6.*not an angle"),
        (lambda: nt_xent_additive(z, z[:3], temperature=0.2, margin=0.1), r"\(3, 3\)"),
        (lambda: nt_xent_additive(z[:1], z[:1], temperature=0.2, margin=0.1), "got 1"),
        (lambda: nt_xent_additive_one_way(z[:1], z[:1], temperature=0.2, margin=0.1), "got 1"),
        (lambda: nt_xent_additive_one_way(z, z, temperature=0.2, margin=math.nan), "nan"),
        (lambda: queue_nt_xent(z, z, z[:0], temperature=0.2), r"\(0, 3\)"),
        (lambda: queue_nt_xent(z, z, z.T, temperature=0.2), r"\(K, 3\).*\(3, 4\)"),
        (lambda: queue_nt_xent(z, z[:2], z, temperature=0.2), r"\(2, 3\)"),
        (lambda: queue_nt_xent(z, z, z, temperature=0.2, margin=2.0), "2.0"),
        (lambda: queue_nt_xent(z, z, z, temperature=0.2, margin_kind="arc"), "additive, angular"),
        (lambda: contrastive(z, z, temperature=0.2, margin_kind="arc"), "'arc'"),
        (lambda: nt_xent_angular(z, z, temperature=0.2, margin=3.2), "radians, got 3.2"),
        (lambda: nt_xent_angular(z[:1], z[:1], temperature=0.2, margin=0.1), "got 1"),
        (lambda: nt_xent_angular_one_way(z, z, temperature=0.2, margin=-0.1), "-0.1"),
        (lambda: nt_xent(z[:1], z[:1], temperature=0.2), "got 1"),
        (lambda: nt_xent_one_way(z[:1], z[:1], temperature=0.2), "got 1"),
        (lambda: supcon(z[:1], y[:1], temperature=0.2), "got 1"),
        (lambda: angular_margin(z[:1], z[:1]), "got 1"),
        (lambda: supervised_angular_margin(z[:1], y[:1]), "got 1"),
        (lambda: nt_xent(z, z[:3], temperature=0.2), r"\(4, 3\) and \(3, 3\)"),
        (lambda: angular_margin(z, z[:, :2]), r"\(4, 3\) and \(4, 2\)"),
        (lambda: pair_angles(z[0], z[0]), r"\(3,\)"),
        (lambda: supcon(z, y[:3], temperature=0.2), r"\(3,\)"),
        (lambda: supervised_angular_margin(z, y[:3]), r"\(3,\)"),
        (lambda: angular_margin(z, z, margin=0.0), "0.0"),
        (lambda: supervised_angular_margin(z, y, margin=math.pi), "3.14"),
        (lambda: angular_margin(z, z, reduction="sum"), "'sum'"),
        (lambda: supervised_angular_margin(z, y, reduction="sum"), "'sum'"),
        (lambda: acl(z, z, z, z, alpha=1.1, temperature=0.2), "1.1"),
        (lambda: supervised_acl(z, z, y % 3, alpha=-0.1), "-0.1"),
    ],
)
def test_mistakes_are_named_with_the_value_got(call, got, unchecked):
    with pytest.raises(ValueError, match=got):
        call()


def test_signatures_state_shapes_that_are_checked():
    with pytest.raises(TypeCheckError):
        nt_xent(z, z[:3], temperature=0.2)
    with pytest.raises(TypeCheckError):
        supcon(z, y.double(), temperature=0.2)


def test_no_clip_at_all_is_told():
    nothing, queue = torch.zeros(0, 3), torch.ones(4, 3)
    with pytest.raises(ValueError, match="need B >= 1 clips, got 0"):
        pair_angles(nothing, nothing)
    with pytest.raises(ValueError, match="need B >= 1 clips, got 0"):
        queue_nt_xent(nothing, nothing, queue, temperature=0.2)


def test_the_angle_that_just_reaches_pi_still_turns():
    """psi is cos(theta + m) up to and including theta = pi - m, where it is -1."""
    margin = 0.3
    theta = torch.tensor([math.pi - margin], dtype=torch.float64)
    assert theta.item() == math.pi - margin
    toll = losses._angular_toll(theta, margin)
    assert (theta.cos() - toll).item() == pytest.approx(-1)
