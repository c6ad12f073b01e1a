"""Does learning pay on the synthetic corpus? Four systems over several seeds, one table, a record.

The seed makes the corpus and the networks. All systems learn from the labels of the clean clips and
are tested on the test clips: a linear probe on log-mel statistics, on an untrained encoder, on an
encoder pretrained with NT-Xent on all training clips without labels; and the same encoder trained
with the labels. Prints a table and writes book/results/synthetic_story.json.

    python benchmarks/synthetic_story.py [--seeds 0 1 2 3 4] [--profile quick]
"""

import argparse
import json
import time
from pathlib import Path

import torch
from timing import write_record

from acl_lib.config import recipe
from acl_lib.datasets.synthetic import open_synthetic
from acl_lib.experiments import code_fingerprint, fit, new_network, open_store
from acl_lib.models import Part
from acl_lib.probing import clip_posterior, embed, linear_probe, log_mel_statistics
from acl_lib.splits import evaluation_splits, source_numbers
from acl_lib.statistics import seed_interval, wilson_interval
from acl_lib.training import half_precision

RECORD = Path(__file__).parents[1] / "book" / "results" / "synthetic_story.json"
SUPERVISED_EPOCHS = 60  # of 160 clips, one patch each: the cost of 20 epochs of pairs of 280 clips
SYSTEMS = ("statistics", "untrained", "contrastive", "supervised")


def story(seed, profile):
    """Test accuracy and CPU-seconds of each system on the corpus of a seed."""
    settings = recipe("contrastive", corpus="synthetic", profile=profile, seed=seed)
    labelled = recipe(
        "supervised", profile=profile, seed=seed, pretrain_on="clean", epochs=SUPERVISED_EPOCHS
    )
    corpus = open_synthetic(profile=profile, seed=seed)
    store = open_store(corpus, settings)
    (split,) = evaluation_splits(corpus, settings)
    y, groups = corpus.labels, source_numbers(corpus)
    clips, num_classes = torch.arange(len(corpus)), len(corpus.classes)
    judged = torch.cat([split.probe, split.test])

    def patches(network, scale):
        mean, std = scale
        return embed(network, store, judged, mean=mean, std=std, precision=settings.train.precision)

    def probed(h, clip):
        return linear_probe(
            h,
            clip,
            y,
            train=split.probe,
            test=split.test,
            groups=groups,
            num_classes=num_classes,
            config=settings.probe,
        )[0]

    def statistics():
        return probed(log_mel_statistics(store, clips), clips)

    def untrained():
        encoder = new_network(settings, num_classes).encoder
        return probed(*patches(encoder, store.mel_statistics(split.pretrain)))

    def contrastive():
        network, scale, _ = fit(settings, store, y, split, num_classes=num_classes)
        return probed(*patches(network.encoder, scale))

    def supervised():
        (clean,) = evaluation_splits(corpus, labelled)
        network, scale, _ = fit(labelled, store, y, clean, num_classes=num_classes)
        logits, clip = patches(Part(network.classifier, 0), scale)
        return clip_posterior(logits.softmax(1), clip, split.test)

    results = {}
    for name, system in zip(SYSTEMS, (statistics, untrained, contrastive, supervised), strict=True):
        started = time.process_time()
        right = int((system().argmax(1) == y[split.test]).sum())
        results[name] = {
            "right": right,
            "accuracy": right / len(split.test),
            "cpu_seconds": round(time.process_time() - started, 1),
        }
        print(f"seed {seed}  {name:12} {100 * results[name]['accuracy']:5.1f} %", flush=True)
    sizes = {"clips": len(corpus), "probe": len(split.probe), "test": len(split.test)}
    return {"seed": seed, "corpus": corpus.fingerprint(), "sizes": sizes, "systems": results}


def summary(seeds):
    """Mean over seeds with Student's interval, and Wilson's interval of all test clips together."""
    table = {}
    for name in SYSTEMS:
        values = [run["systems"][name]["accuracy"] for run in seeds]
        right = sum(run["systems"][name]["right"] for run in seeds)
        n = sum(run["sizes"]["test"] for run in seeds)
        table[name] = {
            "mean": sum(values) / len(values),
            "interval": seed_interval(values),
            "wilson": wilson_interval(right, n),
            "n": n,
            "per_seed": values,
        }
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--profile", default="quick", choices=["quick", "laptop"])
    parser.add_argument("--record", type=Path, default=RECORD)
    args = parser.parse_args()
    code = code_fingerprint()  # now: files may change while this runs, loaded modules do not
    seeds = [story(seed, args.profile) for seed in args.seeds]
    table = summary(seeds)
    print(f"\n{'system':12}  mean   95 % over seeds   95 % pooled    clips")
    for name, row in table.items():
        (low, high), (wilson_low, wilson_high) = row["interval"], row["wilson"]
        print(
            f"{name:12} {100 * row['mean']:5.1f}   {100 * low:5.1f} to {100 * high:5.1f}"
            f"    {100 * wilson_low:5.1f} to {100 * wilson_high:5.1f}   {row['n']:5}"
        )
    settings = recipe("contrastive", corpus="synthetic", profile=args.profile)
    record = {
        "profile": args.profile,
        "recipe": json.loads(settings.to_json()),
        "supervised_epochs": SUPERVISED_EPOCHS,
        "summary": table,
        "seeds": seeds,
        "bfloat16": half_precision(settings.train.precision, "cpu"),
        "code": code,
    }
    write_record(args.record, record)
    print(f"written to {args.record}")


if __name__ == "__main__":
    main()
