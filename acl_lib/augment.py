"""Augmentations: a batch of log-mel patches in, a batch out, a different draw for every example.

``transform(x, generator)`` takes x (B, 1, F, P) in log10 power and a generator on the device of x,
and returns a new batch of the same shape, device and type; x is left alone. Values are in log10
units, widths and shifts in cells: frames (10 ms) along P, mel bands along F.

The authors' configuration (Fonseca et al. 2021, Wang et al. 2023) is RandomResizedCrop, Compander,
GaussianNoise; the text of Wang et al. 2023 names RandomResizedCrop, the two masks and GaussianBlur.
The shifts and the reversal stand in that code, off.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Generator, Tensor

Patches = Float[Tensor, "B 1 F P"]


@dataclass(frozen=True)
class Compose:
    """Apply transforms in order; an empty list leaves the batch as it is."""

    transforms: Sequence[Callable[[Tensor, Generator], Tensor]]

    def __post_init__(self):
        object.__setattr__(self, "transforms", tuple(self.transforms))

    def __call__(self, x: Patches, generator: Generator) -> Patches:
        for transform in self.transforms:
            x = transform(x, generator)
        return x


@dataclass(frozen=True)
class RandomResizedCrop:
    """Cut a random box and stretch it bilinearly back to (F, P): a mild warp of time and pitch.

    The result equals Pillow's crop and bilinear resize to 1e-5. Up to ten boxes are drawn, the
    first that fits is used, else the whole patch. With the defaults an accepted box keeps 93 % of
    each axis on average, and none fits a patch whose bands / frames lie outside 3/5 to 5/3.

    Source: Fonseca et al. 2021, whose code crops a time x frequency image, so that ``ratio``, width
    over height, is bands / frames. Our patches are (F, P); ``ratio`` keeps that meaning.

    Args:
        scale: range of the box's area as a fraction of the patch's, within (0, 1], uniform.
        ratio: range of bands / frames of the box, in cells, > 0, log-uniform.
    """

    scale: tuple[float, float] = (0.8, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self):
        _require(0 < self.scale[0] <= self.scale[1] <= 1, "scale within (0, 1]", self.scale)
        _require(0 < self.ratio[0] <= self.ratio[1], "0 < ratio, low to high", self.ratio)

    def __call__(self, x: Patches, generator: Generator) -> Patches:
        bands, frames = self.box(*x.shape[-2:], _uniform(x, generator, len(x), 2, 10))
        corner = _uniform(x, generator, len(x), 2)
        low = _integer(corner[:, 0], x.shape[-2] - bands)
        first = _integer(corner[:, 1], x.shape[-1] - frames)
        x = _stretch(x[:, 0].mT, first, frames)  # rows are frames
        return _stretch(x.mT, low, bands)[:, None]  # rows are bands

    def box(
        self, n_bands: int, n_frames: int, uniform: Float[Tensor, "B 2 tries"]
    ) -> tuple[Int64[Tensor, "B"], Int64[Tensor, "B"]]:
        """Bands and frames of each box, from uniform draws of area and ratio for every try."""
        area = n_bands * n_frames * _between(self.scale, uniform[:, 0])
        ratio = _between([math.log(end) for end in self.ratio], uniform[:, 1]).exp()
        bands, frames = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (bands >= 1) & (bands <= n_bands) & (frames >= 1) & (frames <= n_frames)
        chosen = fits.byte().argmax(1, keepdim=True)  # the first of equals
        bands, frames = bands.gather(1, chosen)[:, 0], frames.gather(1, chosen)[:, 0]
        found = fits.any(1)
        return bands.where(found, n_bands).long(), frames.where(found, n_frames).long()


@dataclass(frozen=True)
class Compander:
    """Multiply the log10 patch by U(low, 1): scales contrast, pivots at a log10 power of 0.

    Args:
        low: smallest factor, within (0, 1].
    """

    low: float = 0.75

    def __post_init__(self):
        _require(0 < self.low <= 1, "low within (0, 1]", self.low)

    def __call__(self, x: Patches, generator: Generator) -> Patches:
        factor = _between((self.low, 1.0), _uniform(x, generator, len(x)))
        return x * _per_example(factor).to(x.dtype)


@dataclass(frozen=True)
class GaussianNoise:
    """Add iid N(0, sigma^2) to every cell, sigma ~ U(0, max_sigma) per example.

    Args:
        max_sigma: log10 units, >= 0; the default is under 0.5 % of a corpus's spread of about 2.2.
    """

    max_sigma: float = 0.01

    def __post_init__(self):
        _require(self.max_sigma >= 0, "max_sigma >= 0", self.max_sigma)

    def __call__(self, x: Patches, generator: Generator) -> Patches:
        sigma = _per_example(self.max_sigma * _uniform(x, generator, len(x)))
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return noise.mul_(sigma.to(x.dtype)).add_(x)


@dataclass(frozen=True)
class TimeMask:
    """Fill ``count`` runs of frames with the patch's minimum, each 0 to max_width frames wide.

    Source: Park et al. 2019 (SpecAugment): width uniform, then the start uniform where it fits.

    Args:
        count: number of masks, >= 0; they may overlap.
        max_width: frames, >= 0; at most P.
    """

    count: int = 2
    max_width: int = 20

    def __post_init__(self):
        _require(self.count >= 0 and self.max_width >= 0, "count, max_width >= 0", self)

    def __call__(self, x: Patches, generator: Generator) -> Patches:
        hidden = _runs(x, generator, x.shape[-1], self.count, self.max_width)
        return torch.where(hidden[:, None, None, :], x.amin((-2, -1), keepdim=True), x)


@dataclass(frozen=True)
class FrequencyMask:
    """Fill ``count`` runs of bands with the patch's minimum, each 0 to max_width bands wide.

    Source and arguments: as `TimeMask`, in mel bands (at most F).
    """

    count: int = 2
    max_width: int = 20

    def __post_init__(self):
        _require(self.count >= 0 and self.max_width >= 0, "count, max_width >= 0", self)

    def __call__(self, x: Patches, generator: Generator) -> Patches:
        hidden = _runs(x, generator, x.shape[-2], self.count, self.max_width)
        return torch.where(hidden[:, None, :, None], x.amin((-2, -1), keepdim=True), x)


@dataclass(frozen=True)
class GaussianBlur:
    """Blur time and frequency with one Gaussian per example, reflected at the borders.

    Source: Chen et al. 2020 (SimCLR), appendix A: sigma ~ U(0.1, 2), a kernel of a tenth of the
    image, half of the examples. Wang et al. 2023 name a blur and give no value.

    Args:
        sigma: range of the standard deviation in cells, > 0, uniform.
        radius: the kernel has 2 radius + 1 taps; below F and P.
        p: probability that an example is blurred.
    """

    sigma: tuple[float, float] = (0.1, 2.0)
    radius: int = 5
    p: float = 0.5

    def __post_init__(self):
        _require(0 < self.sigma[0] <= self.sigma[1], "0 < sigma, low to high", self.sigma)
        _require(self.radius >= 0 and 0 <= self.p <= 1, "radius >= 0, p within [0, 1]", self)

    def __call__(self, x: Patches, generator: Generator) -> Patches:
        uniform = _uniform(x, generator, len(x), 2)
        sigma = _between(self.sigma, uniform[:, :1])
        tap = torch.arange(-self.radius, self.radius + 1, device=x.device)
        weight = torch.softmax(-0.5 * (tap / sigma) ** 2, dim=1)  # (B, taps)
        weight = torch.where(uniform[:, 1:] < self.p, weight, (tap == 0).float()).to(x.dtype)
        for _ in range(2):  # the last axis, then, transposed, the other
            n = x.shape[-1]
            padded = F.pad(x, (self.radius, self.radius, 0, 0), mode="reflect")
            shifted = (_per_example(w) * padded[..., k : k + n] for k, w in enumerate(weight.T))
            x = sum(shifted).mT
        return x


@dataclass(frozen=True)
class Reverberation:
    r"""Let every band ring on: each frame's power comes again in the later ones, ever weaker.

    .. math:: \log_{10}\left[10^{x_t} + g \sum_{k \ge 1} 10^{-6 k \Delta / T} 10^{x_{t-k}}\right]

    Source: the exponential model of late reverberation in the power domain (Lebart et al. 2001). T
    ~ U(0, longest); g is such that the echoes of a sound have U(0, strongest) times its energy.
    What was before the patch does not ring into it.

    Args:
        longest: reverberation time T60, seconds, > 0.
        strongest: energy of the echoes relative to the direct sound, > 0.
        frame_seconds: Delta, from one frame to the next.
    """

    longest: float = 0.5
    strongest: float = 1.0
    frame_seconds: float = 0.01

    def __post_init__(self):
        good = min(self.longest, self.strongest, self.frame_seconds) > 0
        _require(good, "longest, strongest, frame_seconds > 0", self)

    def __call__(self, x: Patches, generator: Generator) -> Patches:
        uniform = _uniform(x, generator, len(x), 2)
        seconds = (self.longest * uniform[:, 0]).clamp(min=1e-9)
        frame = torch.arange(x.shape[-1], device=x.device)
        lag = frame - frame[:, None]  # (from, to)
        fall = 10 ** (-6 * self.frame_seconds / seconds)[:, None, None]
        energy = self.strongest * uniform[:, 1, None, None]
        echo = torch.where(lag > 0, energy * (1 - fall) * fall ** (lag - 1).clamp(min=0), 0)
        power, top = _relative_power(x)
        with torch.autocast(x.device.type, enabled=False):  # it would round to half precision
            rung = power[:, 0] @ (echo + torch.eye(len(frame), device=x.device))
        return (rung[:, None].log10() + top).to(x.dtype)


@dataclass(frozen=True)
class ColouredNoise:
    r"""Add a steady noise in power, tilted over the bands: a fan, a street, a hiss.

    .. math:: x'_{ft} = \log_{10}\left[10^{x_{ft}} + n_{ft}\right] \\
              \log_{10} n_{ft} = c + s f / F + 0.15\,\varepsilon_{ft}

    The tilt s ~ U(-2, 1) per example, in log10 power from the lowest band to the highest; c makes
    the noise's energy U(0, energy_ratio) times the patch's; eps ~ N(0, 1) in every cell.

    Args:
        energy_ratio: largest energy of the noise relative to the patch's, > 0; 0.1 is 10 dB below.
        tilt: range of s.
    """

    energy_ratio: float = 0.1
    tilt: tuple[float, float] = (-2.0, 1.0)

    def __post_init__(self):
        _require(self.energy_ratio > 0, "energy_ratio > 0", self.energy_ratio)

    def __call__(self, x: Patches, generator: Generator) -> Patches:
        uniform = _uniform(x, generator, len(x), 2)
        height = torch.linspace(0, 1, x.shape[-2], device=x.device)[:, None]
        rough = torch.randn(x.shape, generator=generator, device=x.device)
        noise = 10 ** (_per_example(_between(self.tilt, uniform[:, 0])) * height + 0.15 * rough)
        power, top = _relative_power(x)
        share = power.sum((-2, -1), keepdim=True) / noise.sum((-2, -1), keepdim=True)
        energy = _per_example(self.energy_ratio * uniform[:, 1])
        return ((power + energy * share * noise).log10() + top).to(x.dtype)


@dataclass(frozen=True)
class TimeShift:
    """Roll each patch circularly by 1 to max_frames frames, towards later times.

    Args:
        max_frames: frames, >= 1.
    """

    max_frames: int = 30

    def __post_init__(self):
        _require(self.max_frames >= 1, "max_frames >= 1", self.max_frames)

    def __call__(self, x: Patches, generator: Generator) -> Patches:
        source = _rolled(x, generator, x.shape[-1], self.max_frames)
        return x.gather(-1, source[:, None, None, :].expand_as(x))


@dataclass(frozen=True)
class FrequencyShift:
    """Roll each patch circularly by 1 to max_bands mel bands, upwards: the top comes in below.

    Args:
        max_bands: mel bands, >= 1.
    """

    max_bands: int = 10

    def __post_init__(self):
        _require(self.max_bands >= 1, "max_bands >= 1", self.max_bands)

    def __call__(self, x: Patches, generator: Generator) -> Patches:
        source = _rolled(x, generator, x.shape[-2], self.max_bands)
        return x.gather(-2, source[:, None, :, None].expand_as(x))


@dataclass(frozen=True)
class TimeReversal:
    """Play a patch backwards with probability p."""

    p: float = 0.5

    def __post_init__(self):
        _require(0 <= self.p <= 1, "p within [0, 1]", self.p)

    def __call__(self, x: Patches, generator: Generator) -> Patches:
        reverse = _per_example(_uniform(x, generator, len(x)) < self.p)
        return torch.where(reverse, x.flip(-1), x)


def _stretch(
    x: Float[Tensor, "B R C"], first: Int64[Tensor, "B"], size: Int64[Tensor, "B"]
) -> Float[Tensor, "B R C"]:
    """Rows first .. first + size - 1 of each example, stretched linearly over all R rows.

    Row r reads at ((2r + 1) size - R) / 2R, clamped to the box, as Pillow does. Numerator and
    remainder are whole numbers, exact in float32 up to R = 2896; the quotient itself would be off
    by 1e-5 near row 100. Two row look-ups cost a fraction of a matrix product with the same
    weights, and no autocast or TF32 can round them.
    """
    batch, rows, columns = x.shape
    place = (2.0 * torch.arange(rows, device=x.device) + 1) * size[:, None] - rows
    place = place.clamp_(min=0).minimum(2.0 * rows * (size[:, None] - 1))
    whole = (place / (2 * rows)).floor_()
    weight = (place - 2 * rows * whole) / (2 * rows)
    offset = (first + rows * torch.arange(batch, device=x.device))[:, None]
    lower = (whole.long() + offset).flatten()
    upper = lower + (weight > 0).flatten()  # weight 0: at the last row of the box, or on a row
    flat = x.reshape(batch * rows, columns)
    stretched = flat.index_select(0, lower)
    stretched.lerp_(flat.index_select(0, upper), weight.view(-1, 1).to(x.dtype))
    return stretched.view(batch, rows, columns)


def _runs(
    x: Patches, generator: Generator, n: int, count: int, max_width: int
) -> Bool[Tensor, "B {n}"]:
    """True inside ``count`` random runs of the n cells of an axis."""
    uniform = _uniform(x, generator, 2, len(x), count, 1)
    width = _integer(uniform[0], min(max_width, n))
    start = _integer(uniform[1], n - width)
    cell = torch.arange(n, device=x.device)
    return ((cell >= start) & (cell < start + width)).any(1)


def _rolled(x: Patches, generator: Generator, n: int, largest: int) -> Int64[Tensor, "B {n}"]:
    """For each cell of an axis the cell that moves there."""
    shift = 1 + _integer(_uniform(x, generator, len(x), 1), largest - 1)
    return (torch.arange(n, device=x.device) - shift) % n


def _relative_power(x: Patches) -> tuple[Patches, Float[Tensor, "B 1 1 1"]]:
    """10^(x - top) and top, the peak of each patch; 37 decades below it float32 ends."""
    x = x.float().contiguous()  # one order of adding, whatever the layout
    top = x.amax((-2, -1), keepdim=True)
    return 10 ** (x - top).clamp(min=-37), top


def _uniform(x: Tensor, generator: Generator, *shape: int) -> Float[Tensor, "..."]:
    """U[0, 1) in float32 whatever the type of x, so that its precision does not change the draw."""
    return torch.rand(shape, generator=generator, device=x.device)


def _integer(uniform: Float[Tensor, "..."], largest: int | Int64[Tensor, "..."]) -> Tensor:
    """Uniform integers in {0, ..., largest}."""
    return (uniform * (largest + 1)).long()


def _between(ends: Sequence[float], uniform: Tensor) -> Tensor:
    return ends[0] + (ends[1] - ends[0]) * uniform


def _per_example(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _require(ok: bool, rule: str, got: object) -> None:
    if not ok:
        raise ValueError(f"need {rule}; got {got}")
