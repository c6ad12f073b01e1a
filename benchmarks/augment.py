"""Cost of making a pair of views, batched, against one patch at a time with NumPy and Pillow.

All do the authors' configuration: 2 patches and 2 backgrounds per clip, mix-back, random resized
crop, compander, noise, standardise. One patch at a time comes as a plain loop, and as most would
write it: a data set whose item is the two views of a clip, behind torch's DataLoader, without and
with worker processes, an epoch of 400 clips at a time. One thread, CPU time with that of the
workers; in every round all have their turn, and a ratio is taken within the round. Prints a table
and writes book/results/benchmark_augment.json.

    python benchmarks/augment.py [--pairs 32] [--clips 400] [--rounds 12] [--out FILE]
"""

import argparse
import math
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image
from timing import cpu_seconds_by_round, ratio_with_spread, write_record
from torch.utils.data import DataLoader, Dataset, get_worker_info

from acl_lib import augment, views

RECORD = Path(__file__).parents[1] / "book" / "results" / "benchmark_augment.json"
P, BANDS, MEAN, STD = 101, 96, -1.4, 2.2
WORKERS = (0, 2)


def batched_stages(frames, starts, lengths, n_pairs):
    """Name -> function; each stage works on what the stages before it left in ``state``."""
    generator = torch.Generator().manual_seed(0)
    pool = torch.arange(len(starts))
    state = {"clips": torch.randperm(len(starts), generator=generator)[:n_pairs]}
    crop, compander, noise = (
        augment.RandomResizedCrop(),
        augment.Compander(),
        augment.GaussianNoise(),
    )

    def read(clips):
        return views.random_patches(frames, starts, lengths, clips, generator)

    def mix():
        ratio = 0.05 * torch.rand(n_pairs, generator=generator)
        both = zip(state["pair"], state["background"], strict=True)
        state["mixed"] = [views.mix_back(x, b, ratio) for x, b in both]

    def backgrounds():
        drawn = views.draw_backgrounds(state["clips"], pool, generator)
        state["background"] = [read(clips) for clips in drawn]

    def each(transform, before, after):
        def stage():
            state[after] = [transform(x, generator) for x in state[before]]

        return stage

    def pair():
        state["pair"] = views.patch_pairs(frames, starts, lengths, state["clips"], generator)

    return {
        "two patches": pair,
        "two backgrounds": backgrounds,
        "mix-back": mix,
        "resized crop": each(crop, "mixed", "cropped"),
        "compander": each(compander, "cropped", "companded"),
        "noise": each(noise, "companded", "noisy"),
        "standardise": each(lambda x, _: (x - MEAN) / STD, "noisy", "x"),
    }


class Views(Dataset):
    """The same views of one clip at a time, as a data set's item function would make them."""

    def __init__(self, frames, starts, lengths):
        self.frames, self.starts, self.lengths = (x.numpy() for x in (frames, starts, lengths))
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return len(self.starts)

    def __getitem__(self, clip):
        others = (clip + 1 + self.rng.choice(len(self) - 1, 2, replace=False)) % len(self)
        ratio = np.float32(self.rng.uniform(0, 0.05))
        return torch.from_numpy(np.stack([self.view(clip, other, ratio) for other in others]))

    def view(self, clip, background, ratio):
        rng = self.rng
        power, back = 10 ** self.patch(clip), 10 ** self.patch(background)
        mixed = np.log10((1 - ratio) * power + ratio * power.sum() / back.sum() * back)
        w, h = self.box()
        x, y = rng.integers(BANDS - w + 1), rng.integers(P - h + 1)
        image = Image.fromarray(mixed).crop((x, y, x + w, y + h))
        view = np.asarray(image.resize((BANDS, P), Image.Resampling.BILINEAR))
        view = view * np.float32(rng.uniform(0.75, 1))
        sigma = np.float32(rng.uniform(0, 0.01))
        view = view + sigma * rng.standard_normal(view.shape, dtype=np.float32)
        return ((view - MEAN) / STD)[None]

    def patch(self, clip):
        first = self.starts[clip] + self.rng.integers(self.lengths[clip] - P + 1)
        return self.frames[first : first + P].astype(np.float32)

    def box(self):
        for _ in range(10):
            area = BANDS * P * self.rng.uniform(0.8, 1)
            ratio = math.exp(self.rng.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if w <= BANDS and h <= P:
                return w, h
        return BANDS, P


def draw_anew(worker):
    """Without it all workers would draw the same crops."""
    info = get_worker_info()
    info.dataset.rng = np.random.default_rng(info.seed)


def epoch(data, n_pairs, workers):
    """All batches of an epoch; workers are started anew, as they are unless one asks otherwise."""
    loader = DataLoader(data, n_pairs, shuffle=True, num_workers=workers, worker_init_fn=draw_anew)
    return lambda: sum(len(batch) for batch in loader)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=32, help="clips in a batch")
    parser.add_argument("--clips", type=int, default=400, help="clips in an epoch")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path, default=RECORD)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)

    n_pairs, clips = options.pairs, options.clips
    lengths = torch.full((clips,), 501)  # 400 clips of 5 s are as many as ESC-10 has
    starts = lengths.cumsum(0) - lengths
    noise = torch.randn(int(lengths.sum()), BANDS, generator=torch.Generator().manual_seed(0))
    frames = (MEAN + STD * noise).half()
    stages = batched_stages(frames, starts, lengths, n_pairs)
    data = Views(frames, starts, lengths)
    loop = {"loop": lambda: torch.stack([data[clip] for clip in range(n_pairs)])}
    loaders = {
        f"DataLoader, {workers} workers": epoch(data, n_pairs, workers) for workers in WORKERS
    }
    torch.empty(6_000_000)  # as in a training step: glibc keeps freed memory from then on
    seconds = cpu_seconds_by_round(stages | loop | loaders, rounds=options.rounds)

    per_pair = {name: clips if name in loaders else n_pairs for name in seconds}
    micro = {name: [1e6 * s / per_pair[name] for s in some] for name, some in seconds.items()}
    whole = [sum(some) for some in zip(*(micro[name] for name in stages), strict=True)]
    print(f"{'stage':<24}{'CPU us per pair':>16}")
    for name in stages:
        print(f"{name:<24}{min(micro[name]):>16.1f}")
    print(f"{'all, batched':<24}{min(whole):>16.1f}")
    rows = []
    for name in ("loop", *loaders):
        ratio = ratio_with_spread(micro[name], whole)
        rows.append(
            {
                "by": name,
                "cpu_microseconds_per_pair": round(min(micro[name]), 1),
                "clips_per_cpu_second": round(1e6 / min(micro[name]), 1),
                "ratio_to_ours": ratio,
            }
        )
        print(
            f"{name:<24}{min(micro[name]):>16.1f}  {ratio['median']:.2f} times as much "
            f"({ratio['min']:.2f} to {ratio['max']:.2f} in {ratio['rounds']} rounds)"
        )
    measured = (
        "views and augmentation: CPU time with that of worker processes, least of the rounds; "
        "ratio to ours, batched, within a round, its median, least and most over the rounds"
    )
    record = {
        "measured": measured,
        "pairs_per_batch": n_pairs,
        "clips_per_epoch": clips,
        "cpu_microseconds_per_pair": {name: round(min(micro[name]), 1) for name in stages},
        "batched_total": round(min(whole), 1),
        "batched_clips_per_cpu_second": round(1e6 / min(whole), 1),
        "rows": rows,
        "versions": {"numpy": np.__version__, "pillow": PIL.__version__},
    }
    write_record(options.out, record)


if __name__ == "__main__":
    main()
