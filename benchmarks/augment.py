"""Cost of making a pair of views, batched, against a loop over patches with NumPy and Pillow.

Both do the authors' configuration: 2 patches and 2 backgrounds per clip, mix-back, random resized
crop, compander, noise, standardise. One thread, process CPU time, the least of several rounds in
which the two alternate. Prints a table and writes book/results/benchmark_augment.json.

    python benchmarks/augment.py [--pairs 32] [--rounds 12]
"""

import argparse
import json
import math
import os
import platform
import time
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image

from acl_lib import augment, views

RECORD = Path(__file__).parents[1] / "book" / "results" / "benchmark_augment.json"
P, BANDS, MEAN, STD = 101, 96, -1.4, 2.2


def cpu_seconds(step, times=5):
    started = time.process_time()
    for _ in range(times):
        step()
    return (time.process_time() - started) / times


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


def loop(frames, starts, lengths, n_pairs, rng):
    """The same views one patch at a time, as a data set's item function would make them."""

    def patch(clip):
        first = starts[clip] + rng.integers(lengths[clip] - P + 1)
        return frames[first : first + P].astype(np.float32)

    def box():
        for _ in range(10):
            area = BANDS * P * rng.uniform(0.8, 1)
            ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if w <= BANDS and h <= P:
                return w, h
        return BANDS, P

    pairs = []
    for clip in rng.permutation(len(starts))[:n_pairs]:
        others = (clip + 1 + rng.choice(len(starts) - 1, 2, replace=False)) % len(starts)
        ratio = np.float32(rng.uniform(0, 0.05))
        for other in others:
            power, back = 10 ** patch(clip), 10 ** patch(other)
            mixed = np.log10((1 - ratio) * power + ratio * power.sum() / back.sum() * back)
            w, h = box()
            x, y = rng.integers(BANDS - w + 1), rng.integers(P - h + 1)
            image = Image.fromarray(mixed).crop((x, y, x + w, y + h))
            view = np.asarray(image.resize((BANDS, P), Image.Resampling.BILINEAR))
            view = view * np.float32(rng.uniform(0.75, 1))
            sigma = np.float32(rng.uniform(0, 0.01))
            view = view + sigma * rng.standard_normal(view.shape, dtype=np.float32)
            pairs.append((view - MEAN) / STD)
    return torch.from_numpy(np.stack(pairs)[:, None]).float()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=32, help="clips in a batch")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--output", type=Path, default=RECORD)
    options = parser.parse_args()
    torch.set_num_threads(1)

    lengths = torch.full((400,), 501)  # as many 5-s clips as ESC-10 has
    starts = lengths.cumsum(0) - lengths
    noise = torch.randn(int(lengths.sum()), BANDS, generator=torch.Generator().manual_seed(0))
    frames = (MEAN + STD * noise).half()
    stages = batched_stages(frames, starts, lengths, options.pairs)
    arrays, rng = [t.numpy() for t in (frames, starts, lengths)], np.random.default_rng(0)
    torch.empty(6_000_000)  # as in a training step: glibc keeps freed memory from then on
    best = dict.fromkeys([*stages, "loop"], math.inf)
    for _ in range(options.rounds):
        for name, stage in stages.items():
            best[name] = min(best[name], cpu_seconds(stage))
        once = cpu_seconds(lambda: loop(*arrays, options.pairs, rng), times=1)
        best["loop"] = min(best["loop"], once)

    micro = {name: 1e6 * seconds / options.pairs for name, seconds in best.items()}
    whole = sum(micro[name] for name in stages)
    print(f"{'stage':<18}{'CPU us per pair':>16}")
    for name in stages:
        print(f"{name:<18}{micro[name]:>16.1f}")
    print(f"{'all, batched':<18}{whole:>16.1f}\n{'all, patch by patch':<18}{micro['loop']:>15.1f}")
    print(f"the loop costs {micro['loop'] / whole:.1f} times as much")

    record = {
        "benchmark": "views and augmentation",
        "pairs_per_batch": options.pairs,
        "threads": 1,
        "cpu_microseconds_per_pair": {name: round(micro[name], 1) for name in stages},
        "batched_total": round(whole, 1),
        "loop_total": round(micro["loop"], 1),
        "loop_over_batched": round(micro["loop"] / whole, 2),
        "rounds": options.rounds,
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "pillow": PIL.__version__,
        },
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    part = options.output.with_suffix(".part")
    part.write_text(json.dumps(record, indent=2) + "\n")
    os.replace(part, options.output)


if __name__ == "__main__":
    main()
