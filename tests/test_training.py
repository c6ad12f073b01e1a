"""The loop learns, repeats itself bit for bit, and never sees a clip outside its pool."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny import memory_store, striped_store
from torch import nn

from acl_lib import augment
from acl_lib.config import OPTIMIZERS, LossConfig, TrainConfig, ViewConfig
from acl_lib.models import ProjectionHead, ResNet18
from acl_lib.training import (
    augmentations,
    autocast,
    half_precision,
    make_optimizer,
    seed_everything,
    simclr_step,
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
    step = simclr_step(encoder, head, pairs, loss=loss, precision=config.precision)
    history = train(step, pool, [encoder, head], config=config, generator=generator)
    return history, encoder, head


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
    assert history == [1.5, 3.5] and told == [(1, 1.5), (2, 3.5)]
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


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
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
    object.__setattr__(config, "optimizer", "adam")  # past the check of the configuration itself
    with pytest.raises(ValueError, match="sgd or adamw; got 'adam'"):
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


def test_bfloat16_trains_to_about_the_same_loss():
    store, pool = striped_store(CLIPS), torch.arange(CLIPS)
    config = replace(QUICK, epochs=2, lr=0.01)
    exact, _, _ = pretrain(store, pool, config=config)
    half, _, _ = pretrain(store, pool, config=replace(config, precision="bfloat16"))
    assert half == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_the_run_with_advice(bad):
    weight, told = nn.Linear(1, 1), []

    def step(clips):
        return (weight.weight * 0).sum() + (bad if len(told) == 1 else 1.0)

    with pytest.raises(FloatingPointError, match=r"epoch 2; lower the learning rate \(0.03\)"):
        train(
            step,
            torch.arange(8),
            [weight],
            config=TrainConfig(epochs=3, batch=4),
            generator=torch.Generator(),
            on_epoch=lambda *epoch: told.append(epoch),
        )
    assert told == [(1, 1.0)]


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
