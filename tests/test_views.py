"""Patches out of a store: where they may start, which backgrounds they meet, mix-back in power."""

import math
import mmap

import beartype
import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from acl_lib import views

P, BANDS = 101, 96
typed = jaxtyping.jaxtyped(typechecker=beartype.beartype)
patch_pairs, random_patches = typed(views.patch_pairs), typed(views.random_patches)
draw_backgrounds, mix_back = typed(views.draw_backgrounds), typed(views.mix_back)
all_patches, gather_patches = typed(views.all_patches), typed(views.gather_patches)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def store(lengths, bands=3):
    """Frames that say where they come from: band 0 is the clip, band 1 the frame within it."""
    lengths = torch.tensor(lengths)
    starts = lengths.cumsum(0) - lengths
    clip = torch.arange(len(lengths)).repeat_interleave(lengths)
    within = torch.arange(int(lengths.sum())) - starts[clip]
    frames = torch.stack([clip, within, *[-within] * (bands - 2)], 1).float()
    return frames, starts, lengths


def test_a_pair_never_leaves_its_clip_and_reads_consecutive_frames():
    frames, starts, lengths = store([101, 130, 102, 300])
    clips = torch.tensor([0, 3, 2, 1, 3, 2] * 50)
    for x in patch_pairs(frames, starts, lengths, clips, rng()):
        assert x.shape == (300, 1, 3, P)
        assert (x[:, 0, 0] == clips[:, None]).all()
        first = x[:, 0, 1, :1]
        assert (x[:, 0, 1] == first + torch.arange(P)).all()
        assert (x[:, 0, 2] == -x[:, 0, 1]).all()


def test_every_start_is_drawn_equally_often_the_last_one_too():
    frames, starts, lengths = store([150, 110])
    x = random_patches(frames, starts, lengths, torch.ones(20_000, dtype=torch.int64), rng())
    drawn = x[:, 0, 1, 0].long().bincount(minlength=10)
    assert len(drawn) == 10  # starts 0..9 in 110 frames
    assert stats.chisquare(drawn.numpy()).pvalue > 1e-3


def test_without_the_last_start_every_other_one_is_drawn_equally_often():
    data, clips = store([101, 110, 102]), torch.tensor([0, 1, 2]).repeat(9_000)
    for x in patch_pairs(*data, clips, rng(), last_start=False):
        first = x[:, 0, 1, 0].long()
        assert (first[clips == 0] == 0).all()  # 101 frames: the one patch there is
        assert (first[clips == 2] == 0).all()  # 102 frames: the last start left out
        drawn = first[clips == 1].bincount(minlength=9)
        assert len(drawn) == 9  # starts 0..8 in 110 frames
        assert stats.chisquare(drawn.numpy()).pvalue > 1e-3


def test_the_two_starts_of_a_pair_are_independent():
    frames, starts, lengths = store([103])
    x_i, x_j = patch_pairs(frames, starts, lengths, torch.zeros(9_000, dtype=torch.int64), rng())
    both = (3 * x_i[:, 0, 1, 0] + x_j[:, 0, 1, 0]).long().bincount(minlength=9)
    assert stats.chisquare(both.numpy()).pvalue > 1e-3


def test_same_generator_state_same_patches_and_another_seed_others():
    data, clips = store([400, 500]), torch.tensor([0, 1] * 8)
    again = [patch_pairs(*data, clips, rng(seed)) for seed in (1, 1, 2)]
    assert torch.equal(again[0][0], again[1][0]) and torch.equal(again[0][1], again[1][1])
    assert not torch.equal(again[0][0], again[2][0])


def test_a_half_precision_store_gives_float32_patches_with_its_values():
    frames = torch.randn(700, BANDS, generator=rng()).half()
    starts, lengths = torch.tensor([0, 300]), torch.tensor([300, 400])
    x, _ = patch_pairs(frames, starts, lengths, torch.tensor([1, 0]), rng())
    assert x.dtype == torch.float32
    windows = frames[300:].float().unfold(0, P, 1)  # (300, F, P): every patch of clip 1
    assert (windows == x[0]).all((1, 2)).any()


def test_a_clip_shorter_than_a_patch_is_refused():
    frames, starts, lengths = store([101, 100])
    clips = torch.tensor([1, 0])
    with pytest.raises(ValueError, match=r"1 of 2 .* fewer than 101 frames"):
        patch_pairs(frames, starts, lengths, clips, rng())
    with pytest.raises(ValueError, match="fewer than 101 frames"):
        all_patches(starts, lengths, clips)


def test_shapes_are_checked_as_written():
    frames, starts, lengths = store([101])
    with pytest.raises(jaxtyping.TypeCheckError):
        patch_pairs(frames[None], starts, lengths, torch.tensor([0]), rng())
    with pytest.raises(jaxtyping.TypeCheckError):
        mix_back(torch.zeros(2, 1, 4, 5), torch.zeros(2, 1, 4, 6), torch.zeros(2))


# All patches of a clip


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(7, 60), min_size=1, max_size=6),
    st.integers(1, 9),
    st.booleans(),
    st.data(),
)
def test_all_patches_are_those_a_loop_finds(lengths, hop, last_start, data):
    frames, starts, lengths = store(lengths)
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=6))
    expected = []
    for c in chosen:
        t = 0
        while t + 7 < lengths[c] or (t + 7 == lengths[c] and (last_start or t == 0)):
            expected.append((int(starts[c]) + t, c))
            t += hop
    clips = torch.tensor(chosen, dtype=torch.int64)
    patch_starts, clip = all_patches(
        starts, lengths, clips, patch_frames=7, hop=hop, last_start=last_start
    )
    assert list(zip(patch_starts.tolist(), clip.tolist(), strict=True)) == expected
    x = gather_patches(frames, patch_starts, 7)
    assert (x[:, 0, 0] == clip[:, None]).all()


@pytest.mark.skipif(views._MADVISE is None, reason="the system takes no advice")
def test_the_system_is_asked_for_exactly_the_pages_that_the_patches_lie_on(tmp_path, monkeypatch):
    page, row = mmap.PAGESIZE, BANDS * 2  # bytes
    values = torch.randn(4000, BANDS, generator=rng()).half()
    values.numpy().tofile(tmp_path / "frames")
    mapped = np.memmap(tmp_path / "frames", dtype=np.float16, mode="c", shape=(4000, BANDS))
    frames = torch.from_numpy(mapped)
    answers, asked, advise = [], set(), views._MADVISE

    def told(address, size, advice):
        assert advice == mmap.MADV_WILLNEED and (address - frames.data_ptr()) % page == 0
        first = (address - frames.data_ptr()) // page
        asked.update(range(first, first + math.ceil(size / page)))
        answers.append(advise(address, size, advice))

    monkeypatch.setattr(views, "_MADVISE", told)
    patch_starts = torch.tensor([0, 3899, 1234])
    found = gather_patches(frames, patch_starts, P)
    wanted = [range(s * row // page, ((s + P) * row - 1) // page + 1) for s in (0, 3899, 1234)]
    assert asked == set().union(*wanted) and answers == [0, 0, 0]
    monkeypatch.setattr(views, "_MADVISE", None)
    assert torch.equal(found, gather_patches(values, patch_starts, P))


@pytest.mark.parametrize(("frames", "patches"), [(101, 1), (150, 1), (151, 2), (3007, 59)])
def test_number_of_patches_at_a_hop_of_50(frames, patches):
    assert (
        len(all_patches(torch.tensor([0]), torch.tensor([frames]), torch.tensor([0]))[0]) == patches
    )


@pytest.mark.parametrize(("hop", "patch_frames"), [(50, 100), (100, 100), (50, 101), (7, 20)])
def test_number_of_patches_is_the_closed_form(hop, patch_frames):
    lengths = torch.arange(patch_frames, patch_frames + 400)
    starts, clips = lengths.cumsum(0) - lengths, torch.arange(400)
    for last_start in (True, False):
        where = {"patch_frames": patch_frames, "hop": hop, "last_start": last_start}
        patches = all_patches(starts, lengths, clips, **where)[1].bincount().tolist()
        room = (lengths - patch_frames).tolist()
        if last_start:
            assert patches == [n // hop + 1 for n in room]
        else:
            assert patches == [max(1, math.ceil(n / hop)) for n in room]


def test_a_hop_of_zero_is_refused():
    with pytest.raises(ValueError, match="got 0"):
        all_patches(torch.tensor([0]), torch.tensor([200]), torch.tensor([0]), hop=0)


# Backgrounds


@settings(deadline=None)
@given(st.sets(st.integers(0, 30), min_size=3, max_size=12), st.integers(0, 2**31 - 1))
def test_backgrounds_come_from_the_pool_and_differ_from_the_clip_and_each_other(ids, seed):
    pool, clips = torch.tensor(sorted(ids)), torch.arange(31)
    first, second = draw_backgrounds(clips, pool, rng(seed))
    assert torch.isin(first, pool).all() and torch.isin(second, pool).all()
    assert (first != clips).all() and (second != clips).all() and (first != second).all()


@pytest.mark.parametrize("clip", [2, 5, 11, 7])  # first, middle and last of the pool; outside it
def test_every_ordered_pair_of_backgrounds_is_equally_likely(clip):
    pool = torch.tensor([2, 3, 5, 8, 11])
    first, second = draw_backgrounds(torch.full((24_000,), clip), pool, rng())
    pairs = torch.stack([first, second], 1).unique(dim=0, return_counts=True)[1]
    others = 5 - int(clip in pool)
    assert len(pairs) == others * (others - 1)
    assert stats.chisquare(pairs.numpy()).pvalue > 1e-3


def test_a_pool_too_small_or_unsorted_is_refused():
    clips = torch.tensor([0])
    with pytest.raises(ValueError, match="pool of 2"):
        draw_backgrounds(clips, torch.tensor([0, 1]), rng())
    for pool in ([0, 2, 1], [0, 1, 1, 2]):
        with pytest.raises(ValueError, match="sorted and unique"):
            draw_backgrounds(clips, torch.tensor(pool), rng())


# Mix-back


def energy(x):
    return (10 ** x.double()).sum((1, 2, 3))


def naive_mix_back(patch, background, energy_ratio):
    """The formula as it stands, patch by patch, in float64."""
    mixed = []
    for p, b, lam in zip(patch.double(), background.double(), energy_ratio.double(), strict=True):
        power, other = 10**p, 10**b
        beta = lam * power.sum() / other.sum()
        mixed.append(torch.log10((1 - lam) * power + beta * other))
    return torch.stack(mixed)


def patches(n, seed, loudness=0.0):
    return 2.2 * torch.randn(n, 1, BANDS, P, generator=rng(seed)) - 1.4 + loudness


def test_mix_back_is_the_formula():
    p, b, lam = patches(6, 1), patches(6, 2), torch.tensor([0, 0.01, 0.05, 0.3, 0.7, 0.99])
    torch.testing.assert_close(
        mix_back(p, b, lam).double(), naive_mix_back(p, b, lam), atol=2e-6, rtol=0
    )


def test_mix_back_reads_patches_as_the_store_gives_them_and_leaves_them_alone():
    frames = torch.randn(600, BANDS, generator=rng())
    starts, lengths = torch.tensor([0, 300]), torch.tensor([300, 300])
    p, b = patch_pairs(frames, starts, lengths, torch.tensor([0, 1]), rng())
    before, lam = (p.clone(), b.clone()), torch.tensor([0.05, 0.2])
    mixed = mix_back(p, b, lam)
    torch.testing.assert_close(mixed.double(), naive_mix_back(p, b, lam), atol=2e-6, rtol=0)
    assert torch.equal(p, before[0]) and torch.equal(b, before[1])


def test_ratio_zero_changes_nothing():
    p = patches(3, 1)
    torch.testing.assert_close(mix_back(p, patches(3, 2), torch.zeros(3)), p, atol=2e-6, rtol=0)


@pytest.mark.parametrize("loudness", [-20.0, 0.0, 20.0])
def test_the_background_brings_that_share_of_the_patchs_energy_however_loud_it_was(loudness):
    p, b, lam = patches(4, 1), patches(4, 2, loudness), torch.tensor([0.01, 0.05, 0.2, 0.5])
    mixed = mix_back(p, b, lam)
    torch.testing.assert_close(energy(mixed), energy(p), rtol=1e-5, atol=0)
    added = energy(mixed) - (1 - lam.double()) * energy(p)
    torch.testing.assert_close(added, lam.double() * energy(p), rtol=1e-3, atol=0)


def test_digital_silence_mixes_to_a_flat_floor_and_no_energy_changes_nothing():
    p, floor = patches(2, 1), torch.full((2, 1, BANDS, P), -7.96)
    lam = torch.tensor([0.05, 0.2])
    expected = naive_mix_back(p, floor, lam)
    torch.testing.assert_close(mix_back(p, floor, lam).double(), expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(mix_back(floor, floor, lam), floor, atol=2e-6, rtol=0)
    nothing = torch.full_like(floor, -torch.inf)
    torch.testing.assert_close(mix_back(p, nothing, lam), p, atol=2e-6, rtol=0)
    assert torch.equal(mix_back(nothing, p, lam), nothing)


def test_extreme_levels_stay_finite():
    p = torch.full((2, 1, BANDS, P), -300.0)
    p[0, 0, 0, 0], p[1] = 200.0, 250.0
    for first, second in ((p, p.flip(0)), (p.flip(0), p)):
        assert mix_back(first, second, torch.tensor([0.05, 0.0])).isfinite().all()


@pytest.mark.parametrize("ratio", [-0.01, 1.0, torch.nan])
def test_an_energy_ratio_outside_zero_to_one_is_refused(ratio):
    with pytest.raises(ValueError, match="1 of 2 values refused: energy_ratio"):
        mix_back(patches(2, 1), patches(2, 2), torch.tensor([0.05, ratio]))
