"""Does the margin help against wrong labels? Four parts of the synthetic corpus, five seeds.

The plan, fixed before any of it was run: cross-entropy against cross-entropy + angular margin at
alpha 0.7, trained on each of the parts of FSDnoisy18k's layout, the seed making corpus, weights and
draws; the network's own classifier answers for the test clips, whose labels are right. For each
part the paired difference of a seed is one observation, its interval Student's over seeds. Prints a
table and writes book/results/label_noise.json; finished runs are found again.

    python benchmarks/label_noise.py [--seeds 0 1 2 3 4] [--profile laptop]
"""

import argparse
import json
from pathlib import Path

from timing import write_record

from acl_lib.config import recipe
from acl_lib.experiments import code_fingerprint, run
from acl_lib.statistics import seed_interval

RECORD = Path(__file__).parents[1] / "book" / "results" / "label_noise.json"
PARTS = ("clean", "noisy_small", "noisy", "train")
LOSSES = {"CE": "supervised", "CE + margin": "supervised_acl"}


def answers(part, loss, seed, profile):
    """Accuracy and the answer for every test clip of one training."""
    settings = recipe(LOSSES[loss], profile=profile, pretrain_on=part, seed=seed)
    record = run(settings, threads=1)
    own = record.results["trained"]["classifier"]
    return {
        "part": part,
        "loss": loss,
        "seed": seed,
        "accuracy": own["accuracy"],
        "n": own["n"],
        "predictions": own["predictions"],
        "corpus": record.corpus["fingerprint"],
        "cpu_seconds": record.cost["train_cpu_seconds"],
    }


def summary(runs):
    """part -> accuracy of each loss by seed, and the differences with their interval."""
    table = {}
    for part in PARTS:
        by = {
            loss: [r["accuracy"] for r in runs if (r["part"], r["loss"]) == (part, loss)]
            for loss in LOSSES
        }
        gains = [b - a for a, b in zip(*by.values(), strict=True)]
        table[part] = {
            **by,
            "difference": sum(gains) / len(gains),
            "interval": seed_interval(gains) if len(gains) > 1 else None,
        }
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--record", type=Path, default=RECORD)
    args = parser.parse_args()
    code = code_fingerprint()
    runs = [
        answers(part, loss, seed, args.profile)
        for seed in args.seeds
        for part in PARTS
        for loss in LOSSES
    ]
    table = summary(runs)
    for part, row in table.items():
        means = "  ".join(f"{k} {100 * sum(row[k]) / len(row[k]):5.1f} %" for k in LOSSES)
        low, high = row["interval"] or (float("nan"),) * 2
        ends = f"({100 * low:+.1f} to {100 * high:+.1f})"
        print(f"{part:12} {means}  difference {100 * row['difference']:+.1f} {ends}")
    settings = recipe("supervised_acl", profile=args.profile)
    record = {
        "profile": args.profile,
        "recipe": json.loads(settings.to_json()),
        "summary": table,
        "runs": runs,
        "code": code,
    }
    write_record(args.record, record)
    print(f"written to {args.record}")


if __name__ == "__main__":
    main()
