"""Does the margin help against wrong labels? Four parts of the synthetic corpus, five seeds.

The plan, fixed before any of it was run: the ResNet18 with cross-entropy (alpha 1) against
cross-entropy + angular margin at alpha 0.7, trained on each of the parts of FSDnoisy18k's layout,
the seed making weights and draws, on one corpus; the network's own classifier answers for the test
clips, whose labels are right. For each part the paired difference of a seed is one observation, its
interval Student's over seeds. Added after those results were seen: alpha 0.2, and the authors'
supervised network.

The first plan's record is book/results/label_noise_first.json, made by the first form of this file.

Prints a table and writes book/results/label_noise.json after each run; a run that is in it already
is not made again, unless told so.

    python benchmarks/label_noise.py [--seeds 0 1 2 3 4] [--parts noisy] [--networks resnet18]
"""

import argparse
import itertools
import json
import time
from pathlib import Path

import torch
from timing import write_record

from acl_lib.config import recipe
from acl_lib.experiments import code_fingerprint, fit, open_recipe_corpus, open_store
from acl_lib.models import Part
from acl_lib.probing import clip_posterior, embed
from acl_lib.records import LETTERS
from acl_lib.splits import evaluation_splits
from acl_lib.statistics import seed_interval
from acl_lib.training import half_precision

RECORD = Path(__file__).parents[1] / "book" / "results" / "label_noise.json"
NETWORKS = ("resnet18", "baseline_cnn")
PARTS = ("clean", "noisy_small", "noisy", "train")
ALPHAS = (1.0, 0.7, 0.2)


def settings(network, part, alpha, seed):
    """The recipe of one cell; alpha = 1 is plain cross-entropy."""
    return recipe(
        "supervised", profile="laptop", network=network, pretrain_on=part, alpha=alpha, seed=seed
    )


def answers(*cell):
    """Accuracy and the answer for every test clip of one training, by its own classifier."""
    wanted = settings(*cell)
    corpus = open_recipe_corpus(wanted)
    store, (split,) = open_store(corpus, wanted), evaluation_splits(corpus, wanted)
    y, classes, started = corpus.labels, len(corpus.classes), time.process_time()
    network, (mean, std), _ = fit(wanted, store, y, split, num_classes=classes)
    seconds = time.process_time() - started
    logits, clip = embed(
        Part(network.classifier, 0), store, split.test, mean=mean, std=std, hop=wanted.probe.hop
    )
    guess = clip_posterior(logits.softmax(1), clip, split.test).argmax(1)
    return {
        **dict(zip(("network", "part", "alpha", "seed"), cell, strict=True)),
        "accuracy": (guess == y[split.test]).double().mean().item(),
        "n": len(guess),
        "predictions": "".join(LETTERS[k] for k in guess.tolist()),
        "corpus": corpus.fingerprint(),
        "cpu_seconds": round(seconds, 1),
        "bfloat16": half_precision(wanted.train.precision, "cpu"),
        "code": code_fingerprint(),
    }


def summary(runs):
    """network -> part -> alpha -> accuracy by seed, and its difference from alpha = 1."""
    table = {}
    for network, part in itertools.product(NETWORKS, PARTS):
        by_alpha = {
            alpha: {
                r["seed"]: r["accuracy"]
                for r in runs
                if (r["network"], r["part"], r["alpha"]) == (network, part, alpha)
            }
            for alpha in ALPHAS
        }
        plain, row = by_alpha[1.0], {}
        for alpha, accuracies in by_alpha.items():
            gains = [accuracies[seed] - plain[seed] for seed in sorted(accuracies.keys() & plain)]
            row[f"{alpha:g}"] = {
                "accuracies": [accuracies[seed] for seed in sorted(accuracies)],
                "difference": sum(gains) / len(gains) if gains else None,
                "interval": seed_interval(gains) if len(gains) > 1 and alpha < 1 else None,
            }
        table.setdefault(network, {})[part] = row
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--again", action="store_true", help="also what the record holds")
    args = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(args.record.read_text())["runs"] if args.record.exists() else []
    runs = {(r["network"], r["part"], r["alpha"], r["seed"]): r for r in known}
    for seed, network, part, alpha in itertools.product(
        args.seeds, args.networks, args.parts, ALPHAS
    ):
        cell = network, part, alpha, seed
        if args.again or cell not in runs:
            runs[cell] = answers(*cell)
            made = list(runs.values())
            recipes = {
                network: json.loads(settings(network, *cell[1:]).to_json()) for network in NETWORKS
            }
            write_record(args.record, {"recipes": recipes, "summary": summary(made), "runs": made})
    for network, parts in summary(list(runs.values())).items():
        for part, row in parts.items():
            for alpha, found in row.items():
                if found["accuracies"]:
                    mean = sum(found["accuracies"]) / len(found["accuracies"])
                    low, high = found["interval"] or (float("nan"),) * 2
                    print(
                        f"{network:12} {part:12} alpha {alpha:4} {100 * mean:5.1f} %  difference "
                        f"{100 * found['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
                    )


if __name__ == "__main__":
    main()
