"""Cost of the losses, forward and backward, against lightly's and pytorch-metric-learning's.

One thread, process CPU time; in every round all contenders have their turn, and a ratio is taken
within the round. Beside it the memory that the forward pass keeps for the backward pass. Prints a
table and writes book/results/benchmark_losses.json.

    python benchmarks/losses.py [--clips 32 128 512 2048] [--d 128] [--rounds 7] [--out FILE]
"""

import argparse
from pathlib import Path

import torch
from lightly.loss import NTXentLoss
from pytorch_metric_learning import losses as pml
from timing import cpu_seconds_by_round, ratio_with_spread, write_record

from acl_lib import losses

RECORD = Path(__file__).parents[1] / "book" / "results" / "benchmark_losses.json"
CUBIC_UP_TO = 128  # pytorch-metric-learning's NTXentLoss compares every positive with every pair


def contenders(clips: int) -> dict[str, dict[str, object]]:
    """Losses of two views, by what they compute; the first of each group is ours."""
    y = torch.arange(clips) % 20
    nt_xent = {
        "acl_lib": lambda a, b: losses.nt_xent(a, b, temperature=0.2),
        "lightly": NTXentLoss(temperature=0.2),
        "pytorch-metric-learning SupConLoss": pml.SelfSupervisedLoss(pml.SupConLoss(0.2)),
    }
    if clips <= CUBIC_UP_TO:
        cubic = pml.SelfSupervisedLoss(pml.NTXentLoss(0.2))
        nt_xent["pytorch-metric-learning NTXentLoss"] = cubic
    theirs = pml.SupConLoss(0.2)
    return {
        "nt_xent": nt_xent,
        "supcon": {
            "acl_lib": lambda a, b: losses.supcon(torch.cat([a, b]), y.repeat(2), temperature=0.2),
            "pytorch-metric-learning SupConLoss": lambda a, b: theirs(
                torch.cat([a, b]), y.repeat(2)
            ),
        },
        "angular_margin": {"acl_lib": losses.angular_margin},
        "acl": {"acl_lib": lambda a, b: losses.acl(a, b, a, b, alpha=0.3, temperature=0.2)},
        "supervised_angular_margin": {
            "acl_lib": lambda a, b: losses.supervised_angular_margin(a, y)
        },
    }


def views_of_clips(clips: int, d: int) -> list[torch.Tensor]:
    """Non-negative rows with the closeness of an encoder's h: about half within the margin."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(1, d, generator=generator).relu()
    spread = 0.4 * torch.randn(2, clips, d, generator=generator)
    return [x.requires_grad_() for x in (centre + spread).relu()]


def forward_backward(loss, views):
    return lambda: torch.autograd.grad(loss(*views), views, allow_unused=True)


def kept_bytes(loss, views) -> int:
    """Bytes of the tensors that the forward pass keeps, views of one memory counted once."""
    kept = {}

    def keep(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss(*views)
    given = {x.untyped_storage().data_ptr() for x in views}
    return sum(storage.nbytes() for at, storage in kept.items() if at not in given)


def main(arguments=None):
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--clips", type=int, nargs="+", default=[32, 128, 512, 2048])
    options.add_argument("--d", type=int, default=128)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--out", type=Path, default=RECORD)
    chosen = options.parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    title = f"{'ratio':>7} {'least':>6} {'most':>6}"
    print(f"{'loss':26} {'by':35} {'clips':>5} {'ms':>9} {title} {'kept MB':>8}")
    for clips in chosen.clips:
        views = views_of_clips(clips, chosen.d)
        for name, group in contenders(clips).items():
            steps = {by: forward_backward(loss, views) for by, loss in group.items()}
            seconds = cpu_seconds_by_round(steps, rounds=chosen.rounds)
            for by, loss in group.items():
                ratio = ratio_with_spread(seconds[by], seconds["acl_lib"])
                row = {
                    "loss": name,
                    "by": by,
                    "clips": clips,
                    "cpu_ms": round(1e3 * min(seconds[by]), 4),
                    "ratio_to_ours": ratio,
                    "kept_mb": round(kept_bytes(loss, views) / 1e6, 3),
                }
                rows.append(row)
                print(
                    f"{name:26} {by:35} {clips:5} {row['cpu_ms']:9.3f} "
                    f"{ratio['median']:7.2f} {ratio['min']:6.2f} {ratio['max']:6.2f} "
                    f"{row['kept_mb']:8.2f}",
                    flush=True,
                )
    measured = (
        "forward and backward of two views, float32: CPU time, least of the rounds; ratio to ours "
        "within a round, its median, least and most over the rounds"
    )
    write_record(chosen.out, {"measured": measured, "d": chosen.d, "rows": rows})


if __name__ == "__main__":
    main()
