"""What do networks that were trained on spoken digits tell apart, voices or words?

The plan, fixed before it was run: the networks of grids/additive_margin_fsdd.yaml, SimCLR symmetric
without a margin, five seeds of three pairs of speakers each, whom the network has not heard; the
equal error rate of every pair of a test's clips, once asked for "one speaker", once for "one
digit"; beside it the same network untrained and the mean log-mel. The mean over a seed's three
tests is one observation, its interval Student's over seeds. Training hears words rather than voices
if it lowers the error of digits and not that of speakers, by those intervals of its difference.
Seen before: three networks of the laptop profile, whose error of digits was 20 to 28 %.

Prints a table and writes book/results/voices_or_words.json; runs that exist are not made again.

    python benchmarks/voices_or_words.py [--seeds 0 1 2 3 4]
"""

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import torch
from timing import write_record

from acl_lib.config import recipe
from acl_lib.experiments import (
    code_fingerprint,
    load_network,
    new_network,
    open_recipe_corpus,
    open_store,
    run,
)
from acl_lib.metrics import equal_error_rate
from acl_lib.probing import embed
from acl_lib.splits import evaluation_splits
from acl_lib.statistics import seed_interval
from acl_lib.training import standardisation
from acl_lib.verification import all_trials, cosine_scores

RECORD = Path(__file__).parents[1] / "book" / "results" / "voices_or_words.json"


def errors(seed: int) -> dict[str, dict[str, float]]:
    """system -> "speaker" or "digit" -> equal error rate, the mean over the seed's tests."""
    wanted = recipe(
        "nt_xent_am", corpus="fsdd", profile="quick", splits=3, positive_margin=0.0, seed=seed
    )
    record = run(wanted, device="cpu")
    corpus = open_recipe_corpus(wanted)
    store = open_store(corpus, wanted)
    digits = torch.tensor([int(clip.path.name.split("_")[0]) for clip in corpus.clips])
    untrained = new_network(wanted, len(corpus.classes)).encoder.eval()
    found = defaultdict(list)
    for number, split in enumerate(evaluation_splits(corpus, wanted)):
        mean, std = standardisation(store, split.pretrain)
        spaces = {}
        for name, encoder in (
            ("trained", load_network(record, number).encoder),
            ("untrained", untrained),
        ):
            spaces[name] = embed(
                encoder,
                store,
                split.test,
                mean=mean,
                std=std,
                patch_frames=wanted.views.patch_frames,
                hop=wanted.probe.hop,
            )
        bands = store.sums[:, 0] / store.lengths[:, None]
        heard = store.sums[split.pretrain, 0].sum(0) / store.lengths[split.pretrain].sum()
        spaces["mean log-mel"] = bands[split.test] - heard, split.test
        for asked, y in (("speaker", corpus.labels), ("digit", digits)):
            trials = all_trials(split.test, y)
            for name, (h, clip) in spaces.items():
                error = equal_error_rate(cosine_scores(h, clip, trials), trials.same)
                found[name, asked].append(error.item())
    systems = dict.fromkeys(name for name, _ in found)
    return {
        name: {asked: fmean(found[name, asked]) for asked in ("speaker", "digit")}
        for name in systems
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--record", type=Path, default=RECORD)
    args = parser.parse_args()
    torch.set_num_threads(1)
    by_seed = {seed: errors(seed) for seed in args.seeds}
    rows = []
    for asked in ("speaker", "digit"):
        for name in by_seed[args.seeds[0]]:
            values = [by_seed[seed][name][asked] for seed in args.seeds]
            plain = [by_seed[seed]["untrained"][asked] for seed in args.seeds]
            gains = [a - b for a, b in zip(values, plain, strict=True)]
            row = {"asked": asked, "system": name, "eer": fmean(values), "by_seed": values}
            if name == "trained":
                row["minus_untrained"] = fmean(gains)
                row["interval"] = list(seed_interval(gains))
            rows.append(row)
            print(f"{asked:8} {name:13} {row['eer']:.1%}", end="")
            if name == "trained":
                low, high = (100 * end for end in row["interval"])
                print(f"; minus untrained {100 * row['minus_untrained']:+.1f}", end="")
                print(f" ({low:+.1f} to {high:+.1f})", end="")
            print()
    write_record(args.record, {"seeds": args.seeds, "code": code_fingerprint(), "rows": rows})


if __name__ == "__main__":
    main()
