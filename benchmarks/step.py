"""Speed of a whole training step, and how much of it is spent outside the network.

Widths 16, 32 and 64, in float32 and bfloat16: views, forward, loss, backward, optimiser on batches
of 32 clips of the synthetic corpus; then the network alone, on ready views. One thread, process
CPU time, least of several rounds. Prints a table, writes book/results/benchmark_step.json.

    python benchmarks/step.py [--widths 16 32 64] [--rounds 3] [--emulate] [--out FILE]
"""

import argparse
from pathlib import Path

import torch
from timing import least_cpu_seconds, write_record

from acl_lib.config import recipe
from acl_lib.experiments import new_network, open_recipe_corpus, open_store
from acl_lib.training import (
    SimCLRStep,
    autocast,
    half_precision,
    make_optimizer,
    seed_everything,
    view_pairs,
)

RECORD = Path(__file__).parents[1] / "book" / "results" / "benchmark_step.json"


def stages(settings, store, clips):
    """The whole step, and the forward and backward of encoder and head alone."""
    fresh = new_network(settings, num_classes=20)
    encoder, head = fresh.encoder.train(), fresh.head.train()
    generator = seed_everything(0)
    pairs = view_pairs(store, clips, views=settings.views, generator=generator)
    precision = settings.train.precision
    step = SimCLRStep(encoder, head, pairs, settings.loss, precision)
    optimizer, _ = make_optimizer([encoder, head], settings.train, 10)
    batch = clips[: settings.train.batch]
    ready = pairs(batch).contiguous(memory_format=torch.channels_last)

    def whole():
        optimizer.zero_grad(set_to_none=True)
        step(batch).backward()
        optimizer.step()

    def network():
        with autocast(precision, "cpu"):
            z = head(encoder(ready))
        torch.autograd.grad(z.float().sum(), [*encoder.parameters(), *head.parameters()])

    return {"step": whole, "network": network}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--emulate", action="store_true", help="bfloat16 also without hardware")
    parser.add_argument("--out", type=Path, default=RECORD)
    options = parser.parse_args()
    torch.set_num_threads(1)
    native = half_precision("auto", "cpu")
    precisions = ("float32", "bfloat16") if native or options.emulate else ("float32",)
    if not native:
        print("This processor has no bfloat16 instructions; --emulate measures how slow it gets.")
    base = recipe("acl", profile="laptop")
    store = open_store(open_recipe_corpus(recipe("acl")), base)
    clips, rows = torch.arange(len(store.starts)), []
    print(f"{'width':>5} {'precision':>9} {'clips/s':>9} {'ms a step':>10} {'outside network':>16}")
    for width in options.widths:
        for precision in precisions:
            settings = recipe("acl", profile="laptop", width=width, precision=precision)
            seconds = least_cpu_seconds(stages(settings, store, clips), rounds=options.rounds)
            row = {
                "width": width,
                "precision": precision,
                "clips_per_cpu_second": round(settings.train.batch / seconds["step"], 1),
                "step_ms": round(1e3 * seconds["step"], 1),
                "share_outside_network": round(1 - seconds["network"] / seconds["step"], 4),
            }
            rows.append(row)
            print(
                f"{width:5} {precision:>9} {row['clips_per_cpu_second']:9.1f} "
                f"{row['step_ms']:10.1f} {row['share_outside_network']:16.1%}",
                flush=True,
            )
    measured = f"ACL step of {base.train.batch} clips, least of {options.rounds} rounds"
    write_record(options.out, {"measured": measured, "bfloat16_in_hardware": native, "rows": rows})


if __name__ == "__main__":
    main()
