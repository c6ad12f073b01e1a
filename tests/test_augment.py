"""Augmentations against Pillow, torchvision, roll and their stated distributions."""

import math

import beartype
import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from torchvision.transforms.functional import gaussian_blur

from acl_lib import augment

BANDS, P = 96, 101
EVERY = [
    augment.RandomResizedCrop(),
    augment.Compander(),
    augment.GaussianNoise(),
    augment.TimeMask(),
    augment.FrequencyMask(),
    augment.GaussianBlur(),
    augment.TimeShift(),
    augment.FrequencyShift(),
    augment.TimeReversal(),
    augment.Reverberation(),
    augment.ColouredNoise(),
    augment.Compose([augment.RandomResizedCrop(), augment.Compander(), augment.GaussianNoise()]),
]
every_transform = pytest.mark.parametrize("transform", EVERY, ids=lambda t: type(t).__name__)
stretch = jaxtyping.jaxtyped(typechecker=beartype.beartype)(augment._stretch)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def patches(n, seed=0, *, bands=BANDS, frames=P):
    return 2.2 * torch.randn(n, 1, bands, frames, generator=rng(seed)) - 1.4


def apply(transform, x, generator):
    """Call a transform with its shapes checked."""
    checked = jaxtyping.jaxtyped(typechecker=beartype.beartype)(type(transform).__call__)
    return checked(transform, x, generator)


# Every transform


@every_transform
def test_each_example_gets_its_own_draw_and_the_input_stays(transform):
    x = patches(1).expand(24, 1, BANDS, P)
    before = x.clone()
    y = apply(transform, x, rng())
    assert torch.equal(x, before)
    assert y.shape == x.shape and y.isfinite().all()
    coins = isinstance(transform, augment.TimeReversal)
    assert len(y.unique(dim=0)) >= (2 if coins else 8)


@every_transform
def test_same_generator_state_same_batch_and_two_calls_are_two_views(transform):
    x = patches(16)
    assert torch.equal(transform(x, rng(3)), transform(x, rng(3)))
    generator = rng(3)
    assert not torch.equal(transform(x, generator), transform(x, generator))


@every_transform
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_type_follows_the_batch(transform, dtype):
    assert apply(transform, patches(2).to(dtype), rng()).dtype == dtype


@every_transform
def test_memory_layout_does_not_change_the_values(transform):
    x = patches(4)
    time_major = x.mT.contiguous().mT  # as the store gives patches
    assert torch.equal(transform(x, rng()), transform(time_major, rng()))


@every_transform
def test_autocast_does_not_round_a_view(transform):
    x = patches(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = transform(x, rng())
    assert torch.equal(inside, transform(x, rng()))


@every_transform
def test_shapes_are_checked_as_written(transform):
    with pytest.raises(jaxtyping.TypeCheckError):
        apply(transform, patches(2)[:, 0], rng())


def test_an_empty_composition_is_the_identity_and_order_counts():
    x = patches(2)
    assert augment.Compose([])(x, rng()) is x
    mask, compander = augment.TimeMask(), augment.Compander()
    generator = rng(5)
    expected = compander(mask(x, generator), generator)
    assert torch.equal(augment.Compose([mask, compander])(x, rng(5)), expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: augment.RandomResizedCrop(scale=(0.8, 1.2)),
        lambda: augment.RandomResizedCrop(scale=(0.0, 1.0)),
        lambda: augment.RandomResizedCrop(ratio=(2.0, 1.0)),
        lambda: augment.Compander(low=0.0),
        lambda: augment.GaussianNoise(max_sigma=-1.0),
        lambda: augment.TimeMask(count=-1),
        lambda: augment.FrequencyMask(max_width=-1),
        lambda: augment.GaussianBlur(sigma=(0.0, 1.0)),
        lambda: augment.GaussianBlur(p=2.0),
        lambda: augment.TimeShift(max_frames=0),
        lambda: augment.FrequencyShift(max_bands=0),
        lambda: augment.TimeReversal(p=-0.5),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match=r"need .*; got "):
        make()


# Random resized crop


def pillow_crop(patch, low, bands, first, frames):
    """Pillow's crop and bilinear resize of one (F, P) patch; its width is our time axis."""
    image = Image.fromarray(patch.numpy())  # float32: Pillow's mode F
    box = (int(first), int(low), int(first + frames), int(low + bands))
    resized = image.crop(box).resize(image.size, Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_stretching_a_box_equals_pillow(data):
    n_bands, n_frames = data.draw(st.sampled_from([(96, 101), (40, 33), (8, 9)]))
    bands, frames = data.draw(st.integers(1, n_bands)), data.draw(st.integers(1, n_frames))
    low = data.draw(st.integers(0, n_bands - bands))
    first = data.draw(st.integers(0, n_frames - frames))
    x = patches(1, data.draw(st.integers(0, 99)), bands=n_bands, frames=n_frames)
    one = torch.tensor
    over_time = stretch(x[:, 0].mT, one([first]), one([frames]))
    ours = stretch(over_time.mT, one([low]), one([bands]))[0]
    expected = pillow_crop(x[0, 0], low, bands, first, frames)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_the_whole_crop_equals_pillow_at_the_boxes_it_drew():
    x, crop = patches(32, 4), augment.RandomResizedCrop()
    y = crop(x, rng(9))
    generator = rng(9)  # the same draws again: area and ratio of ten tries, then the corner
    bands, frames = crop.box(BANDS, P, torch.rand(32, 2, 10, generator=generator))
    corner = torch.rand(32, 2, generator=generator)
    low, first = (
        (corner[:, 0] * (BANDS - bands + 1)).long(),
        (corner[:, 1] * (P - frames + 1)).long(),
    )
    for b in range(32):
        expected = pillow_crop(x[b, 0], low[b], bands[b], first[b], frames[b])
        torch.testing.assert_close(y[b, 0], expected, atol=1e-5, rtol=0)


def test_boxes_are_those_of_the_authors_loop():
    crop, n = augment.RandomResizedCrop(), 2000
    uniform = torch.rand(n, 2, 10, generator=rng())
    bands, frames = crop.box(BANDS, P, uniform)
    whole = 0
    for b in range(n):
        box = None
        for area, ratio in uniform[b].T.double().tolist():
            area = BANDS * P * (0.8 + 0.2 * area)
            ratio = math.exp(math.log(3 / 4) + ratio * (math.log(4 / 3) - math.log(3 / 4)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if box is None and w <= BANDS and h <= P:
                box = (w, h)
        whole += box is None
        assert (int(bands[b]), int(frames[b])) == (box or (BANDS, P))
    assert 0 < whole < 0.02 * n  # 0.59^10 is 0.5 %


def test_accepted_boxes_keep_93_percent_of_each_axis_and_never_less_than_79():
    uniform = torch.rand(20_000, 2, 10, generator=rng())
    bands, frames = augment.RandomResizedCrop().box(BANDS, P, uniform)
    for kept in (bands / BANDS, frames / P):
        assert kept.mean().item() == pytest.approx(0.93, abs=0.01)
        assert 0.78 < kept.min() and kept.max() == 1
    fits = augment.RandomResizedCrop().box(BANDS, P, uniform.reshape(-1, 2, 1))
    accepted = (fits[0] < BANDS) | (fits[1] < P)  # a refused single try keeps the whole patch
    assert accepted.float().mean().item() == pytest.approx(0.41, abs=0.01)


@pytest.mark.parametrize(
    ("bands", "fits"), [(32, 0), (58, 0), (64, 1), (96, 1), (164, 1), (172, 0)]
)
def test_a_patch_that_is_no_square_has_boxes_or_stays_whole(bands, fits):
    x, crop = patches(200, bands=bands), augment.RandomResizedCrop()
    changed = (crop(x, rng()) - x).abs().amax((1, 2, 3)) > 1e-5
    assert changed.any() == bool(fits)  # 3/5 and 5/3 of 101 frames are 61 and 168 bands


def test_ratio_is_bands_over_frames():
    uniform = torch.rand(500, 2, 10, generator=rng())
    wide = augment.RandomResizedCrop(scale=(0.3, 0.3), ratio=(3.0, 3.0)).box(96, 96, uniform)
    assert (wide[0] == 91).all() and (wide[1] == 30).all()  # sqrt(.3 * 3) and sqrt(.3 / 3) of 96


def test_a_ramp_stays_a_ramp_with_the_slope_of_the_box():
    x = torch.arange(P).float().expand(8, 1, BANDS, P)
    y = augment.RandomResizedCrop(scale=(0.5, 0.5), ratio=(1.0, 1.0))(x, rng())
    slope = y[..., 40:60].diff()
    torch.testing.assert_close(slope, torch.full_like(slope, 70 / 101), atol=1e-4, rtol=0)


# Level and noise


def test_compander_scales_each_patch_by_one_factor_between_low_and_one():
    x = patches(2000, frames=5, bands=4)
    factor = augment.Compander()(x, rng()) / x
    assert (factor.amax((1, 2, 3)) - factor.amin((1, 2, 3)) < 1e-5).all()
    factor = factor.mean((1, 2, 3)).numpy()
    assert stats.kstest(factor, stats.uniform(0.75, 0.25).cdf).pvalue > 1e-3


def test_noise_is_gaussian_of_a_sigma_uniform_up_to_the_largest():
    x = torch.zeros(400, 1, BANDS, P)
    noise = augment.GaussianNoise(max_sigma=0.5)(x, rng())
    sigma = noise.std((1, 2, 3))
    assert stats.kstest(sigma.numpy(), stats.uniform(0, 0.5).cdf).pvalue > 1e-3
    white = (noise / sigma[:, None, None, None]).flatten()
    assert abs(stats.kurtosis(white.numpy())) < 0.02
    neighbours = (noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean()
    assert abs(neighbours) < 0.01


# Masks


@pytest.mark.parametrize(
    ("mask", "axis"),
    [(augment.TimeMask, -1), (augment.FrequencyMask, -2)],
    ids=["time", "frequency"],
)
def test_a_mask_is_one_full_run_of_bounded_width_filled_with_the_minimum(mask, axis):
    x, generator = patches(3000, bands=30, frames=31), rng()
    other, n = -3 - axis, x.shape[axis]
    lowest = x.amin((-2, -1), keepdim=True)
    widths = torch.zeros(13).long()  # 0..12, all alike
    starts = {w: torch.zeros(n - w + 1).long() for w in (3, 12)}
    for _ in range(8):
        y = mask(count=1, max_width=12)(x, generator)
        hidden = (y == lowest).all(other)[:, 0]  # (B, cells of the axis)
        assert torch.equal(torch.where(hidden[:, None].unsqueeze(other), lowest, x), y)
        edges = hidden.long().diff(dim=1, prepend=torch.zeros(3000, 1).long())
        assert ((edges == 1).sum(1) <= 1).all()
        width = hidden.sum(1)
        widths += width.bincount(minlength=13)  # longer, and an error, if wider than 12
        for w, seen in starts.items():  # a narrow run may start later than a wide one
            seen += hidden[width == w].long().argmax(1).bincount(minlength=n - w + 1)
    for seen in (widths, *starts.values()):
        assert stats.chisquare(seen.numpy()).pvalue > 1e-3


def test_two_masks_hide_up_to_two_widths_and_none_hides_nothing():
    x = patches(500)
    lowest = x.amin((-2, -1), keepdim=True)
    hidden = (augment.TimeMask()(x, rng()) == lowest).all(-2).sum(-1)
    assert 20 < hidden.max() <= 40
    assert torch.equal(augment.TimeMask(count=0)(x, rng()), x)
    assert torch.equal(augment.FrequencyMask(max_width=0)(x, rng()), x)


def test_a_mask_wider_than_the_patch_is_cut_to_it():
    y = augment.TimeMask(count=1, max_width=1000)(patches(200, frames=8), rng())
    assert y.shape[-1] == 8


# Blur, shifts, reversal


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur_equals_torchvision(sigma):
    x = patches(3).double()
    y = augment.GaussianBlur(sigma=(sigma, sigma), p=1.0)(x, rng())
    torch.testing.assert_close(y, gaussian_blur(x, [11, 11], [sigma, sigma]), atol=1e-5, rtol=0)


def test_blur_widths_differ_between_examples_and_half_are_left_sharp():
    x = torch.zeros(1000, 1, 21, 21)
    x[..., 10, 10] = 1
    y = augment.GaussianBlur()(x, rng())
    torch.testing.assert_close(y.sum((1, 2, 3)), torch.ones(1000))
    sharp = y[:, 0, 10, 10] == 1
    assert 430 < sharp.sum() < 570
    assert len(y[~sharp, 0, 10, 10].unique()) > 400


@pytest.mark.parametrize(
    ("shift", "largest", "axis"),
    [(augment.TimeShift(), 30, -1), (augment.FrequencyShift(), 10, -2)],
    ids=["time", "frequency"],
)
def test_a_shift_is_a_roll_by_one_to_its_largest(shift, largest, axis):
    x = patches(600, bands=12, frames=31)
    y = shift(x, rng())
    rolls = torch.stack([x.roll(n, axis) for n in range(1, largest + 1)])
    same = (rolls == y).all(-1).all(-1)[..., 0]  # (shifts, B)
    assert (same.sum(0) == 1).all()
    assert stats.chisquare(same.sum(1).numpy()).pvalue > 1e-3


def test_reversal_flips_time_in_half_of_the_examples():
    x = patches(600, bands=4)
    y = augment.TimeReversal()(x, rng())
    flipped = (y == x.flip(-1)).all(-1).all(-1)[:, 0]
    assert torch.equal(y[~flipped], x[~flipped])
    assert 240 < flipped.sum() < 360
    assert torch.equal(augment.TimeReversal(p=1.0)(x, rng()), x.flip(-1))


# Rooms and noises


def test_a_click_rings_on_as_a_straight_line_that_falls_60_db_in_its_time():
    x = torch.full((50, 1, 4, P), -30.0)
    x[..., 10] = 0.0
    y = augment.Reverberation(longest=1.0)(x, rng())
    assert y[..., :10].max() < -29  # no sound before the sound
    seconds = torch.rand(50, 2, generator=rng())[:, 0]
    long = seconds > 0.2
    fall = y[long, 0, :, 11:41].diff(dim=-1)  # log10 a frame
    assert torch.allclose(fall, (-0.06 / seconds[long])[:, None, None].expand_as(fall), atol=1e-4)
    energy = (10 ** y[..., 11:].double()).sum((-2, -1)) / 4
    assert 0.8 < energy.max() <= 1.0


def test_an_echo_is_the_sum_of_all_earlier_frames():
    x = 2 * torch.randn(3, 1, 5, 12, generator=rng())
    y = augment.Reverberation(longest=0.2, strongest=0.7)(x, rng(4))
    uniform = torch.rand(3, 2, generator=rng(4))
    for b in range(3):
        a = 10 ** (-6 * 0.01 / (0.2 * uniform[b, 0].item()))
        gain = 0.7 * uniform[b, 1].item() * (1 - a) / a
        for t in range(12):
            echo = sum(gain * a ** (t - s) * 10 ** x[b, 0, :, s].double() for s in range(t))
            expected = (10 ** x[b, 0, :, t].double() + echo).log10()
            assert torch.allclose(y[b, 0, :, t].double(), expected, atol=1e-4)


def test_a_steady_noise_has_at_most_its_share_of_the_energy_and_a_tilt():
    x = 1.5 * torch.randn(400, 1, 32, 50, generator=rng())
    noise = augment.ColouredNoise(energy_ratio=0.1, tilt=(-2.0, -2.0))
    y = noise(x, rng(1))
    added = (10 ** y.double() - 10 ** x.double()).clamp(min=0)
    share = added.sum((-2, -1)) / (10 ** x.double()).sum((-2, -1))
    assert share.max() < 0.1 and share.mean().item() == pytest.approx(0.05, abs=0.005)
    quiet = torch.full_like(x, -30.0)
    quiet[..., 0, 0] = 3.0
    bands = noise(quiet, rng(1)).mean((0, 1, 3))  # beside one loud cell, noise alone
    assert bands[1] - bands[-1] == pytest.approx(2 * 30 / 31, abs=0.02)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: augment.Reverberation(longest=0.0),
        lambda: augment.Reverberation(strongest=-1.0),
        lambda: augment.ColouredNoise(energy_ratio=0.0),
    ],
)
def test_rooms_and_noises_refuse_what_is_none(bad):
    with pytest.raises(ValueError, match="> 0"):
        bad()
