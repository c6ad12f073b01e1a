"""The loop learns, repeats itself bit for bit, and never sees a clip outside its pool."""

import math
from dataclasses import replace

import naive
import pytest
import torch
import torch.nn.functional as F
from tiny import memory_store, striped_store
from torch import nn

from acl_lib import augment, losses, training
from acl_lib.config import LossConfig, TrainConfig, ViewConfig
from acl_lib.models import Classifier, ProjectionHead, ResNet18
from acl_lib.training import (
    KeyMemory,
    MoCoStep,
    SimCLRStep,
    SupConStep,
    SupervisedStep,
    augmentations,
    autocast,
    half_precision,
    labelled_views,
    make_optimizer,
    seed_everything,
    standardisation,
    train,
    view_pairs,
)

CLIPS = 12
QUICK = TrainConfig(width=8, epochs=4, batch=6, lr=0.05, precision="float32")
PLAIN = ViewConfig(mix_back=0.0, crop_scale=1.0, compander=1.0, noise=0.0)


def pretrain(store, pool, *, seed=0, config=QUICK, loss=None, views=None):
    """What a recipe does, with its parts in hand: history, encoder, head."""
    loss, views = loss or LossConfig(), views or ViewConfig()
    generator = seed_everything(seed)
    encoder, head = ResNet18(config.width), ProjectionHead(8 * config.width, 32, 32)
    pairs = view_pairs(store, pool, views=views, generator=generator)
    step = SimCLRStep(encoder, head, pairs, loss, config.precision, config.two_passes)
    history = train(step, pool, [encoder, head], config=config, generator=generator)
    return history.loss, encoder, head


def closeness(encoder, head, store, clips) -> float:
    """Mean cosine of z between the two views of a clip, less that between views of two clips."""
    pairs = view_pairs(store, clips, views=PLAIN, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        z = F.normalize(head.eval()(encoder.eval()(pairs(clips))))
    cosine = z[: len(clips)] @ z[len(clips) :].T
    n = len(clips)
    return (cosine.trace() / n - (cosine.sum() - cosine.trace()) / (n * (n - 1))).item()


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_the_loss_falls_and_the_views_of_a_clip_come_closer(alpha):
    store, pool = striped_store(CLIPS), torch.arange(CLIPS)
    torch.manual_seed(0)
    untrained = ResNet18(8), ProjectionHead(64, 32, 32)
    config = replace(QUICK, epochs=30, batch=12, optimizer="adamw", lr=3e-3)
    history, encoder, head = pretrain(store, pool, config=config, loss=LossConfig(alpha=alpha))
    assert len(history) == 30 and sum(history[-5:]) < 0.6 * sum(history[:5])
    assert closeness(encoder, head, store, pool) > closeness(*untrained, store, pool) + 0.3


def test_the_same_seed_gives_the_same_history_bit_for_bit_and_another_seed_does_not():
    store, pool = striped_store(CLIPS), torch.arange(CLIPS)
    views = ViewConfig(time_masks=1, frequency_masks=1, blur=0.5)
    first, one, _ = pretrain(store, pool, views=views)
    torch.randn(3)  # whatever was drawn before does not matter
    second, two, _ = pretrain(store, pool, views=views)
    assert first == second
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert pretrain(store, pool, seed=1, views=views)[0] != first


def poisoned(store, clips):
    """The same store in which every number of some clips is nan."""
    parts = [part.clone() for part in store.frames.split(store.lengths.tolist())]
    for clip in clips:
        parts[clip].fill_(torch.nan)
    return memory_store(parts)


def test_clips_outside_the_pool_leave_no_trace():
    store, pool = striped_store(CLIPS), torch.tensor([0, 2, 3, 5, 6, 8, 9, 11])
    views = ViewConfig(mix_back=0.5)
    bad = poisoned(store, [1, 4, 7, 10])
    history, encoder, _ = pretrain(bad, pool, views=views)
    assert history == pretrain(store, pool, views=views)[0]
    assert all(w.isfinite().all() for w in [*encoder.parameters(), *encoder.buffers()])
    with pytest.raises(FloatingPointError):  # the poison works
        pretrain(bad, torch.arange(CLIPS), views=views)


def test_views_are_pairs_of_a_clip_on_the_scale_of_the_pool():
    # every clip has a level of its own, so that a view tells where it comes from
    levels = torch.tensor([-7.0, -3.0, 0.0, 2.0, 5.0])
    store = memory_store([torch.full((110, 8), level) for level in levels.tolist()])
    pool = torch.tensor([1, 2, 4])
    mean, std = levels[pool].mean(), levels[pool].std(correction=0)
    pairs = view_pairs(store, pool, views=PLAIN, generator=torch.Generator().manual_seed(0))
    x = pairs(torch.tensor([4, 1, 2]))
    assert x.shape == (6, 1, 8, 101)
    expected = ((levels[torch.tensor([4, 1, 2, 4, 1, 2])] - mean) / std).view(-1, 1, 1, 1)
    assert torch.allclose(x, expected.expand_as(x), atol=1e-5)
    shorter = view_pairs(
        store,
        pool,
        views=ViewConfig(patch_frames=50),
        generator=torch.Generator().manual_seed(0),
    )
    assert shorter(pool).shape == (6, 1, 8, 50)


def test_views_differ_from_each_other_in_time_background_and_augmentation():
    store, pool = striped_store(6, bands=96), torch.arange(6)  # with few bands no crop fits

    def views(**changes):
        generator = torch.Generator().manual_seed(0)
        settings = vars(PLAIN) | changes
        return view_pairs(store, pool, views=ViewConfig(**settings), generator=generator)(pool)

    x = views()
    assert not any(torch.equal(a, b) for a, b in zip(x[:6], x[6:], strict=True))
    for change in ({"mix_back": 0.05}, {"crop_scale": 0.8}, {"compander": 0.75}, {"noise": 0.01}):
        assert not torch.equal(views(**change), x)


def test_a_batch_larger_than_the_pool_is_the_pool():
    store, pool = striped_store(CLIPS), torch.arange(8)
    seen = []

    def step(clips):
        seen.append(clips.tolist())
        return (weight.weight * 0).sum()

    weight = nn.Linear(1, 1)
    config = TrainConfig(epochs=3, batch=100)
    train(step, pool, [weight], config=config, generator=torch.Generator().manual_seed(0))
    assert [sorted(clips) for clips in seen] == [list(range(8))] * 3
    assert len({tuple(clips) for clips in seen}) == 3
    assert len(pretrain(store, pool, config=config)[0]) == 3


def test_an_epoch_sees_every_clip_once_but_for_the_last_odd_ones():
    seen, weight = [], nn.Linear(1, 1)
    told = []

    def step(clips):
        seen.append(clips.tolist())
        return (weight.weight * 0).sum() + len(seen)

    history = train(
        step,
        torch.arange(10, 20),
        [weight.eval()],
        config=TrainConfig(epochs=2, batch=4),
        generator=torch.Generator().manual_seed(0),
        on_epoch=lambda epoch, loss: told.append((epoch, loss)),
    )
    assert [len(clips) for clips in seen] == [4, 4, 4, 4]
    for epoch in (seen[:2], seen[2:]):
        clips = {clip for batch in epoch for clip in batch}
        assert len(clips) == 8 and clips <= set(range(10, 20))
    assert history.loss == [1.5, 3.5] and told == [(1, 1.5), (2, 3.5)]
    assert weight.training


def rates(config: TrainConfig, steps: int) -> list[float]:
    optimizer, scheduler = make_optimizer([nn.Linear(2, 2)], config, steps)
    used = []
    for _ in range(steps):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return used


def test_sgd_divides_its_rate_by_ten_at_65_and_85_percent():
    used = rates(TrainConfig(optimizer="sgd", lr=0.03), 20)
    assert used == pytest.approx([0.03] * 13 + [0.003] * 4 + [0.0003] * 3)
    optimizer, _ = make_optimizer([nn.Linear(2, 2)], TrainConfig(weight_decay=0.01), 20)
    group = optimizer.param_groups[0]
    assert (group["momentum"], group["weight_decay"]) == (0.9, 0.01)


def test_adamw_warms_up_for_a_tenth_and_ends_near_zero():
    used = rates(TrainConfig(optimizer="adamw", lr=1e-3), 100)
    assert used[0] == pytest.approx(1e-3 / 25)
    assert max(used) == pytest.approx(1e-3) and used.index(max(used)) == 9
    assert used[-1] < 1e-8
    assert used[:10] == sorted(used[:10]) and used[9:] == sorted(used[9:], reverse=True)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_any_number_of_steps_has_a_schedule(optimizer):
    for steps in range(1, 41):
        used = rates(TrainConfig(optimizer=optimizer, lr=0.1), steps)
        assert all(0 < rate <= 0.1 + 1e-12 for rate in used), steps


def test_the_optimiser_holds_the_weights_of_all_modules():
    modules = [nn.Linear(2, 3), nn.Linear(3, 1)]
    optimizer, _ = make_optimizer(modules, TrainConfig(), 5)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for module in modules for p in module.parameters()}


def test_unknown_words_are_told():
    config = TrainConfig()
    object.__setattr__(config, "optimizer", "lion")  # past the check of the configuration itself
    with pytest.raises(ValueError, match="sgd, adamw or adam; got 'lion'"):
        make_optimizer([nn.Linear(1, 1)], config, 3)
    for call in (half_precision, autocast):
        with pytest.raises(ValueError, match="auto, float32 or bfloat16; got 'float16'"):
            call("float16", "cpu")


def test_half_precision_is_where_it_was_asked_for():
    encoder, x = ResNet18(4).eval(), torch.randn(2, 1, 32, 101)
    for precision, kind in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with autocast(precision, "cpu"):
            assert encoder.layer1[0].conv1(torch.randn(1, 4, 8, 8)).dtype == kind
            assert encoder(x).dtype == torch.float32
    assert isinstance(half_precision("auto", "cpu"), bool)


def test_bfloat16_sees_about_the_same_loss_and_learns():
    """One step compared, not a trajectory: rounding grows from step to step in a batch of six."""
    store, pool = striped_store(CLIPS), torch.arange(CLIPS)

    def first_step(precision):
        generator = seed_everything(0)
        encoder, head = ResNet18(8), ProjectionHead(64, 32, 32)
        pairs = view_pairs(store, pool, views=ViewConfig(), generator=generator)
        loss = SimCLRStep(encoder, head, pairs, LossConfig(), precision)(pool[:6])
        loss.backward()
        return loss.item(), torch.cat([p.grad.flatten() for p in encoder.parameters()])

    (exact, slope), (half, half_slope) = first_step("float32"), first_step("bfloat16")
    assert half == pytest.approx(exact, rel=0.02) and half != exact
    assert F.cosine_similarity(slope, half_slope, dim=0) > 0.85
    history, _, _ = pretrain(store, pool, config=replace(QUICK, precision="bfloat16", epochs=8))
    assert history[-1] < 0.8 * history[0]


class Line(nn.Module):
    """One weight, and a loss that a test can spoil at a step of its choice."""

    def __init__(self, spoil=None):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.steps, self.spoil = 0, spoil

    def step(self, ids):
        self.steps += 1
        loss = self.weight.square() + ids.float().mean() * 0
        return self.spoil(loss, self) if self.spoil and self.steps == 4 else loss


def fit_line(line, **options):
    config = options.pop("config", TrainConfig(epochs=3, batch=4))
    generator = torch.Generator().manual_seed(0)
    return train(line.step, torch.arange(8), [line], config=config, generator=generator, **options)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_the_run_where_it_is_and_with_advice(bad):
    told, line = [], Line(lambda loss, _: loss * 0 + bad)
    says = rf"loss became {bad} at step 2 of epoch 2 while.*learning rate \(0.03\).*temperature"
    with pytest.raises(FloatingPointError, match=says):
        fit_line(line, on_epoch=lambda *epoch: told.append(epoch))
    assert len(told) == 1 and line.steps == 4
    assert line.weight.isfinite()  # stopped before the step was taken


def test_a_gradient_that_is_no_number_is_told_apart_and_named():
    def spoil(loss, line):
        return loss + (line.weight - line.weight.detach()).sqrt()  # 0, with an infinite slope

    says = r"gradient became (inf|nan) at step 2 of epoch 2, where the loss was 0\.\d+: in weight;"
    with pytest.raises(FloatingPointError, match=says):
        fit_line(Line(spoil))


def test_weights_that_overflow_are_told_apart():
    def spoil(loss, line):
        with torch.no_grad():
            line.weight.fill_(math.inf)
        return line.weight.square()

    with pytest.raises(FloatingPointError, match=r"weights left .* before step 2 of epoch 2"):
        fit_line(Line(spoil))


# --- schedules of the caller, selection, short batches --------------------------------------------


def test_a_callback_may_end_the_training():
    line = Line()
    history = fit_line(line, on_epoch=lambda epoch, loss: epoch == 2)
    assert len(history.loss) == 2 and line.steps == 4 and history.epoch == 2


def test_a_callback_may_change_the_temperature_for_the_next_epoch():
    store, pool = striped_store(CLIPS), torch.arange(CLIPS)

    def losses(temperature):
        generator = seed_everything(0)
        encoder, head = ResNet18(8), ProjectionHead(64, 32, 32)
        pairs = view_pairs(store, pool, views=PLAIN, generator=generator)
        step = SimCLRStep(encoder, head, pairs, LossConfig(), "float32")

        def on_epoch(epoch, loss):
            step.loss = replace(step.loss, temperature=temperature)

        options = {"config": replace(QUICK, epochs=2), "generator": generator}
        return train(step, pool, [encoder, head], on_epoch=on_epoch, **options).loss

    same, warmer = losses(0.2), losses(1.0)
    assert same[0] == warmer[0] and same[1] != pytest.approx(warmer[1], rel=0.05)


def test_the_weights_of_the_best_epoch_are_put_back():
    line, seen = Line(), []

    def score():
        seen.append(line.weight.item())
        return [0.2, 0.9, 0.9, 0.1][len(seen) - 1]

    history = fit_line(line, config=TrainConfig(epochs=4, batch=4), score=score)
    assert history.epoch == 2 and line.weight.item() == seen[1]  # the first of equals
    assert history.scores == {1: 0.2, 2: 0.9, 3: 0.9, 4: 0.1}
    rare = fit_line(Line(), config=TrainConfig(epochs=5, batch=4), score=float, score_every=2)
    assert list(rare.scores) == [2, 4, 5]


def test_adam_halves_its_rate_when_the_score_stands_still():
    rates, line = [], Line()
    config = TrainConfig(epochs=14, batch=8, optimizer="adam", lr=0.1)

    def step(ids):
        rates.append(optimizer_of[0].param_groups[0]["lr"])
        return line.step(ids)

    optimizer_of, real = [], training.make_optimizer

    def spy(*a):
        made = real(*a)
        optimizer_of.append(made[0])
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "make_optimizer", spy)
        generator = torch.Generator().manual_seed(0)
        train(step, torch.arange(8), [line], config=config, generator=generator, score=lambda: 0.5)
    assert rates == [0.1] * 7 + [0.05] * 6 + [0.025]  # 5 scores without a rise, the first is one


def test_without_drop_last_the_odd_ones_make_a_short_batch():
    sizes = []
    line = Line()

    def step(ids):
        sizes.append(len(ids))
        return line.step(ids)

    config = TrainConfig(epochs=2, batch=4, drop_last=False)
    train(step, torch.arange(10), [line], config=config, generator=torch.Generator().manual_seed(0))
    assert sizes == [4, 4, 2] * 2


def test_two_passes_give_batch_norm_one_view_at_a_time():
    seen = []
    encoder, head = ResNet18(8), ProjectionHead(64, 32, 32)
    encoder.register_forward_hook(lambda m, x, y: seen.append(len(x[0])))
    x = torch.randn(12, 1, 32, 101)
    once = SimCLRStep(encoder, head, lambda clips: x, LossConfig(), "float32")(torch.arange(6))
    twice = SimCLRStep(encoder, head, lambda clips: x, LossConfig(), "float32", two_passes=True)
    value = twice(torch.arange(6))
    assert seen == [12, 6, 6] and not torch.equal(once, value)
    encoder.eval()
    head.eval()
    one = SimCLRStep(encoder, head, lambda clips: x, LossConfig(), "float32")(torch.arange(6))
    assert torch.allclose(
        one, twice(torch.arange(6)), rtol=1e-5
    )  # no batch statistics, no difference


# --- a margin that rises --------------------------------------------------------------------------


def test_a_margin_rises_by_half_a_cosine_over_its_share_of_the_steps():
    seen = []
    loss = LossConfig(positive_margin=0.4, margin_warmup=0.5)

    class Step:
        passed = 0.0

        def __init__(self):
            self.w = nn.Parameter(torch.ones(()))

        def __call__(self, ids):
            seen.append(loss.at(self.passed).positive_margin)
            return self.w**2

    class Module(nn.Module):
        def __init__(self, step):
            super().__init__()
            self.w = step.w

    step = Step()
    config = replace(QUICK, epochs=4, batch=6)
    train(step, torch.arange(12), [Module(step)], config=config, generator=torch.Generator())
    rise = [0.4 * (1 - math.cos(math.pi * k / 4)) / 2 for k in range(4)]
    assert seen == pytest.approx([*rise, 0.4, 0.4, 0.4, 0.4])
    assert LossConfig(positive_margin=0.4).at(0.0).positive_margin == 0.4


def test_a_step_reckons_with_the_margin_of_its_moment():
    encoder, head = ResNet18(8).eval(), ProjectionHead(64, 32, 32).eval()
    x = torch.randn(12, 1, 32, 101)
    loss = LossConfig(positive_margin=0.4, margin_warmup=0.5)
    step = SimCLRStep(encoder, head, lambda clips: x, loss, "float32")
    z_i, z_j, _, _ = step.views(torch.arange(6))
    for passed, margin in ((0.0, 0.0), (0.25, 0.2), (0.5, 0.4), (0.9, 0.4)):
        step.passed = passed
        plain = losses.nt_xent_additive(z_i, z_j, temperature=0.2, margin=margin)
        assert step(torch.arange(6)).item() == pytest.approx(plain.item(), rel=1e-5)


# --- momentum contrast ----------------------------------------------------------------------------


def moco(x, *, loss=None, queue=7, momentum=0.9, groups=1, train_mode=False, seed=0):
    """A step on given views, with its encoder and head."""
    torch.manual_seed(seed)
    encoder, head = ResNet18(8), ProjectionHead(64, 32, 16)
    loss = loss or LossConfig()
    generator = torch.Generator().manual_seed(seed)
    memory = KeyMemory(
        encoder,
        head,
        d=16,
        queue=queue,
        directions=1 + loss.symmetric,
        generator=generator,
    )
    for module in (encoder, head, memory):
        module.train(train_mode)
    return MoCoStep(
        encoder,
        head,
        lambda clips: x,
        loss,
        "float32",
        memory=memory,
        momentum=momentum,
        groups=groups,
        generator=generator,
    )


@pytest.mark.parametrize("margin", [0.0, 0.2])
def test_moco_asks_each_view_for_its_key_among_the_keys_of_the_other_views(margin):
    """Against the equation in loops, with the queues as they were before the step."""
    x = torch.randn(10, 1, 32, 101)
    step = moco(x, loss=LossConfig(positive_margin=margin))
    with torch.no_grad():
        z = step.head(step.encoder(x))  # keys are those of a copy: the same
        q_i, q_j = z.chunk(2)
        before = step.memory.queue.clone()
        there = naive.queued(q_i, q_j, before[1], margin, 0.2)
        back = naive.queued(q_j, q_i, before[0], margin, 0.2)
        assert step(torch.arange(5)).item() == pytest.approx(((there + back) / 2).item(), rel=1e-5)
    k = F.normalize(z, dim=1).view(2, 5, 16)
    assert torch.allclose(step.memory.queue, torch.cat([before[:, 5:], k], 1), atol=1e-6)
    assert torch.allclose(step.memory.queue.norm(dim=2), torch.ones(2, 7))


def test_one_way_asks_view_i_alone_and_remembers_view_j():
    x = torch.randn(10, 1, 32, 101)
    step = moco(x, loss=LossConfig(symmetric=False))
    with torch.no_grad():
        q_i, k_j = step.head(step.encoder(x)).chunk(2)
        before = step.memory.queue.clone()
        expected = naive.queued(q_i, k_j, before[0], 0.0, 0.2)
        assert step(torch.arange(5)).item() == pytest.approx(expected.item(), rel=1e-5)
    assert before.shape == (1, 7, 16)
    assert torch.allclose(step.memory.queue[0, -5:], F.normalize(k_j, dim=1), atol=1e-6)


def test_the_oldest_keys_leave_first_and_a_batch_may_fill_the_queue():
    memory = moco(torch.randn(4, 1, 32, 101), queue=3).memory
    for n in range(4):
        memory.push(torch.full((2, 2, 16), float(n)))
    assert memory.queue[0, :, 0].tolist() == [2.0, 3.0, 3.0]
    memory.push(torch.stack([torch.arange(5.0)[:, None].expand(5, 16)] * 2))
    assert memory.queue[1, :, 0].tolist() == [2.0, 3.0, 4.0]


def test_the_key_encoder_follows_by_its_momentum_and_is_never_trained():
    step = moco(torch.randn(8, 1, 32, 101), momentum=0.75, train_mode=True)
    before = [p.clone() for p in step.memory.parameters()]
    with torch.no_grad():
        for p in (*step.encoder.parameters(), *step.head.parameters()):
            p.add_(1.0)
    step(torch.arange(4)).backward()
    theirs = [*step.encoder.parameters(), *step.head.parameters()]
    for old, new, other in zip(before, step.memory.parameters(), theirs, strict=True):
        assert torch.allclose(new, 0.75 * old + 0.25 * other, atol=1e-6)
        assert new.grad is None and other.grad is not None


def test_the_angular_term_of_acl_goes_with_moco():
    x = torch.randn(10, 1, 32, 101)
    whole = moco(x, loss=LossConfig(alpha=0.3))(torch.arange(5))
    first = moco(x)(torch.arange(5))
    h_i, h_j = moco(x).encoder(x).chunk(2)
    second = losses.angular_margin(h_i, h_j)
    assert torch.allclose(whole, 0.3 * first + 0.7 * second, rtol=1e-5)


def test_shuffled_groups_change_the_company_of_the_keys_and_nothing_else():
    x = torch.randn(12, 1, 32, 101)
    # without batch statistics groups make no difference: every key comes back to its place
    alone, groups = (moco(x, groups=g) for g in (1, 3))
    assert torch.allclose(alone(torch.arange(6)), groups(torch.arange(6)), rtol=1e-5)
    assert torch.allclose(alone.memory.queue, groups.memory.queue, atol=1e-5)
    seen = []
    step = moco(x, groups=3, train_mode=True)
    step.memory.encoder.register_forward_hook(lambda m, x, y: seen.append(x[0]))
    step(torch.arange(6))
    assert [len(part) for part in seen] == [4, 4, 4]
    heard = torch.cat(seen)
    assert not torch.equal(heard, x)
    assert torch.equal(heard.flatten(1).sum(1).sort().values, x.flatten(1).sum(1).sort().values)


def pretrain_moco(store, *, path=None, kill_at=None, epochs=3):
    generator = seed_everything(0)
    encoder, head = ResNet18(8), ProjectionHead(64, 32, 16)
    memory = KeyMemory(encoder, head, d=16, queue=10, directions=2, generator=generator)
    pool = torch.arange(CLIPS)
    step = MoCoStep(
        encoder,
        head,
        view_pairs(store, pool, views=ViewConfig(), generator=generator),
        LossConfig(positive_margin=0.1, margin_warmup=0.5),
        "float32",
        memory=memory,
        momentum=0.9,
        groups=2,
        generator=generator,
    )

    def on_epoch(epoch, loss):
        if epoch == kill_at:
            raise Killed

    history = None
    try:
        history = train(
            step,
            pool,
            [encoder, head],
            config=replace(QUICK, epochs=epochs),
            generator=generator,
            on_epoch=on_epoch,
            checkpoint=path,
        )
    except Killed:
        pass
    return history, encoder, head, memory


def test_a_moco_training_taken_up_again_has_its_queue_and_its_key_encoder(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    store = striped_store(CLIPS)
    whole, encoder, _, memory = pretrain_moco(store)
    for kill in (2, 3):
        path = tmp_path / f"{kill}"
        assert pretrain_moco(store, path=path, kill_at=kill)[0] is None
        assert path.exists()
        history, again, _, kept = pretrain_moco(store, path=path)
        assert history.loss == whole.loss
        for one, other in ((encoder, again), (memory, kept)):
            states = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
            assert all(torch.equal(a, b) for a, b in states)


def test_moco_brings_the_views_of_a_clip_together():
    store, pool = striped_store(CLIPS), torch.arange(CLIPS)
    torch.manual_seed(0)
    before = closeness(ResNet18(8), ProjectionHead(64, 32, 16), store, pool)
    _, encoder, head, _ = pretrain_moco(store, epochs=30)
    assert closeness(encoder, head, store, pool) > before + 0.3


# --- with labels ----------------------------------------------------------------------------------


def test_supervised_contrastive_pairs_all_views_of_a_class():
    encoder, head = ResNet18(8).eval(), ProjectionHead(64, 32, 32).eval()
    x = torch.randn(12, 1, 32, 101)
    loss, y = LossConfig(temperature=0.3), torch.tensor([0, 1, 0, 2, 1, 3])
    clips = torch.tensor([5, 4, 3, 2, 1, 0])
    with torch.no_grad():
        z = head(encoder(x))
        step = SupConStep(encoder, head, lambda _: x, loss, "float32", y=y)
        by_label = naive.supervised_contrastive(z, y[clips].repeat(2), 0.3)
        assert step(clips).item() == pytest.approx(float(by_label), rel=1e-5)
        alone = SupConStep(encoder, head, lambda _: x, loss, "float32", y=torch.arange(6))
        same = SimCLRStep(encoder, head, lambda _: x, loss, "float32")
        assert alone(clips).item() == pytest.approx(same(clips).item(), rel=1e-5)


def supervised(store, y, pool, *, config=QUICK, views=PLAIN, seed=0, frozen="", **options):
    generator = seed_everything(seed)
    network = Classifier(ResNet18(config.width), 8 * config.width, int(y.max()) + 1)
    make, clips = labelled_views(store, pool, views=views, generator=generator)
    step = SupervisedStep(network, make, y[clips], precision=config.precision, frozen=frozen)
    ids = torch.arange(len(clips))
    history = train(step, ids, [network], config=config, generator=generator, **options)
    return history, network


def test_labels_are_learnt_from_the_pool_alone():
    store, y = striped_store(CLIPS, bands=96), torch.arange(CLIPS) % 3
    pool = torch.tensor([0, 2, 3, 5, 6, 8, 9, 10])
    config = replace(QUICK, epochs=12, optimizer="adamw", lr=3e-3)
    history, _ = supervised(store, y, pool, config=config, views=ViewConfig())
    assert history.loss[-1] < 0.5 * history.loss[0]
    outside = [1, 4, 7, 11]
    bad = poisoned(store, outside)
    other = y.clone()
    other[torch.tensor(outside)] = 2
    again, _ = supervised(bad, other, pool, config=config, views=ViewConfig())
    assert again.loss == history.loss


def test_every_patch_is_an_item_with_the_label_of_its_clip():
    lengths = [101, 151, 152, 251]
    rng = torch.Generator().manual_seed(0)
    store = memory_store([torch.randn(n, 32, generator=rng).half() for n in lengths])
    views = replace(PLAIN, patches="all")
    pool = torch.tensor([3, 1, 2])
    make, clips = labelled_views(store, pool, views=views, generator=rng)
    assert clips.tolist() == [3, 3, 3, 3, 1, 1, 2, 2]
    _, some = labelled_views(store, pool, views=replace(views, last_start=False), generator=rng)
    assert some.tolist() == [3, 3, 3, 1, 2, 2]  # ceil((n - 101) / 50), at least one
    mean, std = store.mel_statistics(pool)
    x = make(torch.tensor([1, 6]))
    for row, start in zip(x, (store.starts[3] + 50, store.starts[2]), strict=True):
        expected = (store.frames[start : start + 101].float().T - mean) / std
        assert torch.allclose(row[0], expected, atol=1e-5)


def test_bands_are_standardised_one_by_one():
    rng = torch.Generator().manual_seed(0)
    loud = torch.arange(1, 9) * torch.randn(300, 8, generator=rng) - torch.arange(8)
    store = memory_store([loud, loud + 1, 100 * loud])
    pool = torch.tensor([0, 1])
    centre, scale = standardisation(store, pool, "band")
    both = torch.cat([loud, loud + 1])
    assert torch.allclose(centre[:, 0], both.mean(0), atol=1e-4)
    assert torch.allclose(scale[:, 0], both.std(0, correction=0), atol=1e-4)
    make, _ = labelled_views(
        store, pool, views=replace(PLAIN, standardise="band", patch_frames=300), generator=rng
    )
    x = make(torch.arange(2)).transpose(1, 2).transpose(0, 1).flatten(1)  # (F, everything)
    assert torch.allclose(x.mean(1), torch.zeros(8), atol=1e-4)
    assert torch.allclose(x.std(1, correction=0), torch.ones(8), atol=1e-4)


@pytest.mark.parametrize(("frozen", "moves"), [("still", False), ("moving", True)])
def test_a_frozen_encoder_keeps_its_weights_and_its_statistics_where_they_are_told_to(
    frozen, moves
):
    store, y = striped_store(CLIPS, bands=96), torch.arange(CLIPS) % 3
    config = replace(QUICK, lr=0.5)
    torch.manual_seed(0)
    before = Classifier(ResNet18(8), 64, 3)
    _, network = supervised(store, y, torch.arange(CLIPS), config=config, frozen=frozen)
    pairs = zip(before.encoder.parameters(), network.encoder.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(before.linear.weight, network.linear.weight)
    assert torch.equal(before.encoder.bn1.running_mean, network.encoder.bn1.running_mean) != moves


# --- interruptions --------------------------------------------------------------------------------


class Killed(Exception):
    pass


def interrupted(path, kill_at, monkeypatch, *, config, score=True):
    """A training with dropout, a schedule and a selection, killed at a step and taken up again."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    store, y = striped_store(CLIPS, bands=96), torch.arange(CLIPS) % 3
    steps = []

    def once(kill):
        generator = seed_everything(0)
        network = Classifier(nn.Sequential(ResNet18(8), nn.Dropout(0.5)), 64, 3)
        make, clips = labelled_views(
            store, torch.arange(CLIPS), views=ViewConfig(), generator=generator
        )
        step = SupervisedStep(network, make, y[clips], LossConfig(alpha=0.9), "float32")

        def killing(ids):
            steps.append(ids)
            if kill is not None and len(steps) == kill:
                raise Killed
            return step(ids)

        killing.loss = None

        def on_epoch(epoch, loss):
            step.loss = replace(step.loss, alpha=1 - 0.1 * epoch)

        proxy = _Proxy(step, killing)
        return (
            train(
                proxy,
                torch.arange(CLIPS),
                [network],
                config=config,
                generator=generator,
                on_epoch=on_epoch,
                score=(lambda: network.linear.bias.sum().item()) if score else None,
                checkpoint=path,
            ),
            network,
        )

    if kill_at is not None:
        with pytest.raises(Killed):
            once(kill_at)
    return once(None)


class _Proxy:
    """A step that counts, with the loss of the step behind it."""

    def __init__(self, step, call):
        self._step, self._call = step, call

    loss = property(
        lambda self: self._step.loss, lambda self, new: setattr(self._step, "loss", new)
    )

    def __call__(self, ids):
        return self._call(ids)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adam"])
def test_a_training_taken_up_again_ends_as_if_it_had_never_stopped(
    tmp_path, monkeypatch, optimizer
):
    config = replace(QUICK, optimizer=optimizer, lr=0.01, epochs=5, batch=5, drop_last=False)
    whole, expected = interrupted(tmp_path / "whole", None, monkeypatch, config=config)
    for kill in (1, 4, 8, 12):  # in the first epoch, at the start of one, within, near the end
        history, network = interrupted(tmp_path / f"{kill}", kill, monkeypatch, config=config)
        assert (history.loss, history.scores) == (whole.loss, whole.scores), kill
        assert history.epoch == whole.epoch
        states = zip(network.state_dict().values(), expected.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in states)


def test_a_finished_training_is_not_trained_again(tmp_path):
    first, second = Line(), Line()
    done = fit_line(first, checkpoint=tmp_path / "c")
    again = fit_line(second, checkpoint=tmp_path / "c")
    assert second.steps == 0 and again.loss == done.loss and second.weight == first.weight


def test_a_checkpoint_of_another_training_is_refused_by_what_differs(tmp_path):
    fit_line(Line(), checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match=r"another training \(it differs in lr\): delete"):
        fit_line(Line(), checkpoint=tmp_path / "c", config=TrainConfig(epochs=3, batch=4, lr=0.5))
    (tmp_path / "c").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="damaged or no checkpoint"):
        fit_line(Line(), checkpoint=tmp_path / "c")


def test_checkpoints_are_written_now_and_then_and_at_the_end(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(
        training.checkpoints, "save", lambda path, state: written.append(len(state["loss"]))
    )
    fit_line(Line(), checkpoint=tmp_path / "c")
    assert written == [3]
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    fit_line(Line(), checkpoint=tmp_path / "c")
    assert written == [3, 1, 2, 3]


def test_the_default_views_are_the_authors_configuration():
    assert augmentations(ViewConfig()).transforms == (
        augment.RandomResizedCrop(scale=(0.8, 1.0), ratio=(3 / 4, 4 / 3)),
        augment.Compander(low=0.75),
        augment.GaussianNoise(max_sigma=0.01),
    )
    assert (ViewConfig().mix_back, ViewConfig().patch_frames) == (0.05, 101)


def test_every_step_of_the_papers_text_can_be_switched_on_and_all_off():
    views = ViewConfig(time_masks=2, frequency_masks=2, blur=0.5, compander=1.0, noise=0.0)
    kinds = [type(step) for step in augmentations(views).transforms]
    assert kinds == [
        augment.RandomResizedCrop,
        augment.FrequencyMask,
        augment.TimeMask,
        augment.GaussianBlur,
    ]
    assert augmentations(PLAIN).transforms == ()
    plain = replace(views, patch_frames=50, compander=0.75, noise=0.1).plain()
    assert augmentations(plain).transforms == ()
    assert plain == replace(PLAIN, patch_frames=50)


@pytest.mark.parametrize(
    ("clips", "views", "says"),
    [
        (0, ViewConfig(), "no clips to train on"),
        (1, ViewConfig(), "needs 2 backgrounds besides itself; got a pool of 1"),
        (2, ViewConfig(), "needs 2 backgrounds besides itself; got a pool of 2"),
        (1, PLAIN, "need B >= 2 clips, got 1"),
    ],
)
def test_a_pool_too_small_to_learn_from_is_told(clips, views, says):
    with pytest.raises(ValueError, match=says):
        pretrain(striped_store(3), torch.arange(clips), views=views)


def test_a_pool_of_silence_is_told_and_silence_among_sounds_is_not():
    silence = torch.full((130, 32), -7.96)
    with pytest.raises(ValueError, match="all 4 clips of the pool are silent"):
        pretrain(memory_store([silence] * 4), torch.arange(4))
    sounds = list(striped_store(8).frames.split(130))
    store = memory_store([*sounds, silence.half(), silence.half()])
    history, _, _ = pretrain(store, torch.arange(10), loss=LossConfig(alpha=0.3))
    assert all(math.isfinite(loss) for loss in history)


def test_a_clip_shorter_than_a_patch_is_told():
    with pytest.raises(ValueError, match="fewer than 140 frames"):
        pretrain(striped_store(6), torch.arange(6), views=ViewConfig(patch_frames=140))
