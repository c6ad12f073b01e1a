"""What alpha and temperature do together: a grid of ACL on the synthetic corpus, three seeds each.

The plan, fixed before any of it was run: profile `quick`, the recipe `acl` with the authors' sum as
their batch of 128 has it, every alpha at every temperature; alpha 0 knows no temperature and is run
once. The seed makes weights and draws; the corpus is one. A linear probe and nearest neighbours
answer for the test clips, from labels of the clean clips.

Prints a table and writes book/results/alpha_temperature_synthetic.json after each run; a run that
is in it already is not made again.

    python benchmarks/alpha_temperature.py [--seeds 0 1 2]
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from timing import write_record

from acl_lib.config import recipe
from acl_lib.experiments import run
from acl_lib.statistics import seed_interval

RECORD = Path(__file__).parents[1] / "book" / "results" / "alpha_temperature_synthetic.json"
ALPHAS = (0.0, 0.3, 0.5, 0.7, 1.0)
TEMPERATURES = (0.05, 0.1, 0.2, 0.5, 1.0)
CELLS = [(0.0, 0.2)] + [(a, t) for a in ALPHAS if a for t in TEMPERATURES]


def settings(alpha, temperature, seed):
    return recipe("acl", profile="quick", alpha=alpha, temperature=temperature, seed=seed)


def answers(*cell):
    """What the readers and measures say of one training."""
    with tempfile.TemporaryDirectory() as folder:  # networks are not kept
        record = run(settings(*cell), threads=1, progress=False, folder=folder)
    return {
        **dict(zip(("alpha", "temperature", "seed"), cell, strict=True)),
        "readers": {
            reader: {"accuracy": got["accuracy"], "n": got["n"]}
            for reader, got in record.results["trained"].items()
        },
        "untrained": record.results["untrained"]["linear"]["accuracy"],
        "geometry": record.geometry,
        "loss": record.history[0],
        "corpus": record.corpus["fingerprint"],
        "cpu_seconds": record.cost["cpu_seconds"],
        "bfloat16": record.cost["bfloat16"],
        "code": record.code,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    known = json.loads(RECORD.read_text())["runs"] if RECORD.exists() else []
    runs = {(r["alpha"], r["temperature"], r["seed"]): r for r in known}
    base = json.loads(settings(0.3, 0.2, 0).to_json())
    for seed in args.seeds:
        for cell in CELLS:
            if (*cell, seed) not in runs:
                runs[*cell, seed] = answers(*cell, seed)
                write_record(RECORD, {"recipe": base, "runs": list(runs.values())}, indent=None)
    for alpha, temperature in CELLS:
        some = [r for (a, t, _), r in runs.items() if (a, t) == (alpha, temperature)]
        got = torch.tensor([r["readers"]["linear"]["accuracy"] for r in some])
        low, high = seed_interval(got.tolist()) if len(got) > 1 else (float("nan"),) * 2
        tau = f"temperature {temperature:g}" if alpha else "no temperature"
        print(
            f"alpha {alpha:g}, {tau:16} {100 * got.mean():5.1f} % "
            f"({100 * low:.1f} to {100 * high:.1f}), {len(got)} seeds"
        )


if __name__ == "__main__":
    main()
