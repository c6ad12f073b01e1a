"""Batched patches out of a store of log-mel frames: pairs, backgrounds, mix-back, all patches.

A store keeps the frames of all clips back to back, time-major: clip c is
``frames[starts[c] : starts[c] + lengths[c]]``. Everything here runs on the device of ``starts``,
without a loop over the batch; frames that a GPU has no room for may lie on the CPU. A patch is
(1, F, P); its frames stay adjacent in memory, so it is a transposed view: call ``.contiguous()``
where the layout matters.
"""

import ctypes
import math
import mmap

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

PATCH_FRAMES = 101  # 1 s at 22,050 Hz and a hop of 220
_MADVISE = None
if hasattr(mmap, "MADV_WILLNEED"):  # not on Windows
    _MADVISE = ctypes.CDLL(None).madvise
    _MADVISE.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int


def patch_pairs(
    frames: Float[Tensor, "T F"],
    starts: Int64[Tensor, "N"],
    lengths: Int64[Tensor, "N"],
    clips: Int64[Tensor, "B"],
    generator: torch.Generator,
    *,
    patch_frames: int = PATCH_FRAMES,
    last_start: bool = True,
) -> tuple[Float[Tensor, "B 1 F {patch_frames}"], Float[Tensor, "B 1 F {patch_frames}"]]:
    """Two patches of each clip at independent random times: the positive pair before augmentation.

    Source: Fonseca et al. 2021, sampling within the clip (temporal proximity); overlap is allowed.
    See `random_patches` for the arguments, the draw and what it raises.

    Returns:
        x_i, x_j: float32, log10 power; row b of both comes from clip ``clips[b]``. They are equal
        where a clip has exactly ``patch_frames`` frames.
    """
    where = {"patch_frames": patch_frames, "last_start": last_start}
    x_i = random_patches(frames, starts, lengths, clips, generator, **where)
    x_j = random_patches(frames, starts, lengths, clips, generator, **where)
    return x_i, x_j


def random_patches(
    frames: Float[Tensor, "T F"],
    starts: Int64[Tensor, "N"],
    lengths: Int64[Tensor, "N"],
    clips: Int64[Tensor, "B"],
    generator: torch.Generator,
    *,
    patch_frames: int = PATCH_FRAMES,
    last_start: bool = True,
) -> Float[Tensor, "B 1 F {patch_frames}"]:
    """One patch of each clip, its first frame uniform over {0, ..., length - patch_frames}.

    Args:
        frames: log10 power of all clips, float16 or float32.
        starts, lengths: first frame and number of frames of every clip in the store.
        clips: ids in 0..N-1, repeats allowed.
        generator: on the device of the store.
        patch_frames: length of a patch in frames.
        last_start: False leaves out the last of the starts wherever there is another, as the
            authors' code does (an exclusive upper bound).

    Raises:
        ValueError: if a clip is shorter than a patch (read back on the CPU only).
    """
    places = _places(lengths[clips], patch_frames, last_start)
    return gather_patches(frames, starts[clips] + _below(places, generator), patch_frames)


def draw_backgrounds(
    clips: Int64[Tensor, "B"], pool: Int64[Tensor, "n"], generator: torch.Generator
) -> Int64[Tensor, "2 B"]:
    """Two clips of the pool per clip, uniform, different from the clip and from each other.

    The pool is read as a ring: steps of 1..n-1 from the clip's own place never come back to it, and
    the second step jumps over the first. A clip outside the pool may draw all of it.

    Args:
        clips: ids of the clips to be mixed.
        pool: ids to draw from, sorted and unique, n >= 3.

    Raises:
        ValueError: if n < 3, or the pool is not sorted and unique (read back on the CPU only).
    """
    n = len(pool)
    if n < 3:
        raise ValueError(f"a pair needs 2 backgrounds besides itself; got a pool of {n}: widen it")
    _check(pool[1:] > pool[:-1], "pool must be sorted and unique: pass pool.unique()")
    place = torch.searchsorted(pool, clips).clamp(max=n - 1)
    own = (pool[place] == clips).long()  # 1: step 0 is the clip itself, and taken
    first = own + _below(n - own, generator)
    second = own + _below(n - own - 1, generator)
    second += second >= first
    return pool[(place + torch.stack([first, second])) % n]


def mix_back(
    patch: Float[Tensor, "B 1 F P"],
    background: Float[Tensor, "B 1 F P"],
    energy_ratio: Float[Tensor, "B"],
) -> Float[Tensor, "B 1 F P"]:
    r"""Mix a background into a patch in power, at a chosen fraction of the patch's energy.

    .. math:: \log_{10}\left[(1 - \lambda)\, 10^{p} + \lambda \frac{E_p}{E_b}\, 10^{b}\right],
              \quad E_p = \sum_{f,t} 10^{p_{ft}}

    Source: Fonseca et al. 2021, mix-back, as coded: the background's energy is a fraction of the
    foreground's *original* energy.

    Args:
        patch, background: log10 power. A cell more than 37 decades below the peak of its patch
            counts as 37 below: float32 ends there.
        energy_ratio: lambda in [0, 1), one per example; 0.05 puts the background 13 dB below.

    Returns:
        log10 power; to rounding the patch itself at lambda = 0, and where patch or background has
        no energy at all (-inf everywhere).

    Raises:
        ValueError: if lambda leaves [0, 1) (read back on the CPU only).
    """
    within = (energy_ratio >= 0) & (energy_ratio < 1)
    _check(within, "energy_ratio must lie in [0, 1): draw it as U(0, 0.05)")
    fore, top = _relative_power(patch)
    back, back_top = _relative_power(background)
    ratio = energy_ratio[:, None, None, None] * (top.isfinite() & back_top.isfinite())
    share = ratio * fore.sum((-2, -1), keepdim=True) / back.sum((-2, -1), keepdim=True)
    return fore.mul_(1 - ratio).addcmul_(back, share).log10_().add_(top)


def all_patches(
    starts: Int64[Tensor, "N"],
    lengths: Int64[Tensor, "N"],
    clips: Int64[Tensor, "B"],
    *,
    patch_frames: int = PATCH_FRAMES,
    hop: int = 50,
    last_start: bool = True,
) -> tuple[Int64[Tensor, "M"], Int64[Tensor, "M"]]:
    """Where all patches of some clips start: frame 0, hop, 2 hop, ... while a whole patch fits.

    Args:
        starts, lengths, clips, last_start: as in `random_patches`.
        hop: frames between two patches of a clip, >= 1.

    Returns:
        patch_starts: frame in the store, for `gather_patches`; clip by clip in the order given.
        clip: the clip id of every patch. A clip has floor((length - patch_frames) / hop) + 1
        patches: 1 in 1 s, 59 in 30 s; without the last start ceil((length - patch_frames) / hop),
        at least 1.

    Raises:
        ValueError: if hop < 1, or a clip is shorter than a patch (read back on the CPU only).
    """
    if hop < 1:
        raise ValueError(f"hop counts frames and must be >= 1; got {hop}")
    count = (_places(lengths[clips], patch_frames, last_start) - 1) // hop + 1
    clip = clips.repeat_interleave(count)
    before = (count.cumsum(0) - count).repeat_interleave(count)  # patches of the clips ahead
    nth = torch.arange(len(clip), device=clip.device) - before
    return starts[clip] + hop * nth, clip


def gather_patches(
    frames: Float[Tensor, "T F"], patch_starts: Int64[Tensor, "n"], patch_frames: int
) -> Float[Tensor, "n 1 F {patch_frames}"]:
    """Read the patches that start at the given frames of the store, as float32.

    Args:
        frames: on the device of `patch_starts`, or on the CPU where a GPU has no room for them: the
            patches alone are sent there.

    Returns:
        Log10 power, a transposed view of time-major memory, on the device of `patch_starts`.
    """
    rows = patch_starts[:, None] + torch.arange(patch_frames, device=patch_starts.device)
    rows = rows.flatten().to(frames.device)
    _read_ahead(frames, rows[::patch_frames], patch_frames)
    patch = frames.index_select(0, rows)  # twice as fast as frames[rows]
    if patch.device != patch_starts.device:
        patch = patch.pin_memory().to(patch_starts.device, non_blocking=True)
    return patch.float().view(len(patch_starts), 1, patch_frames, frames.shape[1]).mT


def _read_ahead(
    frames: Float[Tensor, "T F"], patch_starts: Int64[Tensor, "n"], length: int
) -> None:
    """Let the system fetch patches of a memory-mapped store from the disk, all at once.

    Left to itself it waits for one after the other, and fetches megabytes around each. A system
    call a patch costs microseconds; where frames lie in memory it does nothing.
    """
    if frames.is_cpu and _MADVISE:
        row = frames.stride(0) * frames.itemsize  # bytes
        begin = frames.data_ptr() + row * patch_starts
        page = begin % mmap.PAGESIZE  # madvise begins with a whole page
        for address, size in torch.stack([begin - page, page + row * length], 1).tolist():
            _MADVISE(address, size, mmap.MADV_WILLNEED)


def _relative_power(
    patch: Float[Tensor, "B 1 F P"],
) -> tuple[Float[Tensor, "B 1 F P"], Float[Tensor, "B 1 1 1"]]:
    """10^(patch - top) and top, the peak of each patch; exp2 is the fastest of the exponentials."""
    top = patch.amax((-2, -1), keepdim=True)
    finite = top.where(top.isfinite(), 0)  # -inf - -inf is no number
    return (patch - finite).clamp_(min=-37).mul_(math.log2(10)).exp2_(), top


def _places(lengths: Int64[Tensor, "B"], patch_frames: int, last_start: bool) -> Int64[Tensor, "B"]:
    """The number of frames of each clip at which a patch may start, >= 1."""
    message = f"a clip has fewer than {patch_frames} frames: repeat short clips in the store"
    _check(lengths >= patch_frames, message)
    return (lengths - patch_frames + int(last_start)).clamp(min=1)


def _below(count: Int64[Tensor, "B"], generator: torch.Generator) -> Int64[Tensor, "B"]:
    """Uniform integers in {0, ..., count - 1}; the bias is below count / 2^31."""
    drawn = torch.randint(1 << 31, count.shape, generator=generator, device=count.device)
    return drawn % count


def _check(good: Bool[Tensor, "..."], message: str) -> None:
    """Raise if anything is bad, on the CPU: reading a GPU's value back would stall its queue."""
    if good.device.type == "cpu" and not good.all():
        raise ValueError(f"{int((~good).sum())} of {good.numel()} values refused: {message}")
