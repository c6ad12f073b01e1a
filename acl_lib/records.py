"""What a run found: one JSON file with its intervals, and what several of them say together."""

from __future__ import annotations

import itertools
import json
import math
import os
import statistics
import string
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from . import config, metrics
from .config import Recipe
from .statistics import (
    bootstrap_interval,
    mcnemar,
    paired_bootstrap,
    seed_interval,
    wilson_interval,
)
from .verification import unpack_rates
from .whole import write_whole

Key = int | tuple[str, int]  # a seed; or an arm and a seed

# a class, as one letter of a record's predictions
LETTERS = string.ascii_letters + string.digits + "".join(map(chr, range(0xC0, 0x250)))
RESAMPLES = 2000  # of the sources, for an interval
REPRESENTATIONS = {
    "trained": "trained encoder",
    "untrained": "untrained encoder",
    "statistics": "log-mel statistics",
}
READERS = {
    "linear": "linear probe",
    "knn": "nearest neighbours",
    "classifier": "its own classifier",
    "linear_sgd": "linear layer trained by SGD",
    "finetuned": "fine-tuned",
    "cosine": "cosine of h",
    "cosine_z": "cosine of z",
}
VERIFIERS = ("cosine", "cosine_z")  # readers that are asked whether two clips are of one speaker
MEASURE = {r: "eer" if r in VERIFIERS else "accuracy" for r in READERS}  # of a score, by its reader
INTERVAL = {r: "eer_interval" if r in VERIFIERS else "interval" for r in READERS}


@dataclass(frozen=True)
class Record:
    """What a run did and found: one JSON file, plus the networks it trained beside it."""

    recipe: Recipe
    corpus: dict  # name, fingerprint, clips, classes, labels and sources of the clips
    results: dict  # representation -> reader -> what `score` says
    geometry: dict  # space -> uniformity, tolerance and so on: see `geometry`
    history: list  # mean loss of each epoch, for each pretraining
    selection: list  # epoch whose weights were kept, and all scores, for each pretraining
    splits: list  # names of the pretrainings, in the order of `history`
    cost: dict
    versions: dict
    code: str  # hash of the modules that can change a number
    commit: str  # of the working copy, "+" where it had changes; "" outside of one
    path: Path

    @classmethod
    def read(cls, path: str | os.PathLike) -> Record:
        """A record from its JSON file.

        Raises:
            ValueError: the file is no record of this layout.
        """
        path = Path(path)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            recipe = config.from_json(json.dumps(values.pop("recipe")))
            kinds = {"dict": dict, "list": list, "str": str}
            for f in fields(cls):
                if f.type in kinds and not isinstance(got := values.get(f.name), kinds[f.type]):
                    raise TypeError(f"{f.name} must be a {f.type}; got {str(got)[:60]!r}")
            return cls(recipe=recipe, path=path, **values)
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ValueError(f"{path} is no record of a run: {error}") from None

    def write(self) -> None:
        """Put the record on disk, whole or not at all."""
        write_whole(self.path, json.dumps(self.content(), indent=1, ensure_ascii=False) + "\n")

    def content(self) -> dict:
        """Everything but the path, as plain values."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "path"} | {
            "recipe": asdict(self.recipe)
        }

    def table(self) -> str:
        """Accuracies beside both baselines, with intervals, as a table to print."""
        r, cost = self.recipe, self.cost
        labels = r.method in ("supervised", "supcon")
        seen = {
            "all": "all clips, no labels",
            "train": "the training clips only",
        }.get(r.pretrain_on, f"the training clips in {r.pretrain_on!r} only")
        lines = [
            f"{r.name} on {r.corpus}: profile {r.profile}, seed {r.seed}, alpha {r.loss.alpha:g}"
            + (f", temperature {r.loss.temperature:g}" if r.method != "supervised" else ""),
            f"{'trained, with labels,' if labels else 'pretrained'} on {seen}",
            results_table(self.results),
        ]
        lines.append(
            f"{cost['train_cpu_seconds'] / len(self.splits):.0f} CPU-seconds a training "
            f"({len(self.splits)} of them), {cost['cpu_seconds']:.0f} in all on {cost['device']}"
        )
        return "\n".join(lines)


def results_table(results: dict) -> str:
    """Representations and readers with their scores and intervals, as a table to print."""
    if any(reader in VERIFIERS for reader in results["trained"]):
        return _verification_table(results)
    lines = [f"{'':46} accuracy   95 % interval   balanced   by patches   clips   folds"]
    for key, name in REPRESENTATIONS.items():
        for reader, got in results[key].items():
            low, high = got["interval"]
            folds = got["folds"]
            shown = " ".join(f"{100 * a:.1f}" for a in folds) if folds[1:] else "-"
            lines.append(
                f"{name + ', ' + READERS[reader]:46} {100 * got['accuracy']:6.2f} %   "
                f"{100 * low:5.1f} to {100 * high:4.1f}   {100 * got['balanced']:6.2f} %    "
                f"{100 * got['patch_weighted']:6.2f} %  {got['n']:6}   {shown}"
            )
    return "\n".join(lines)


def _verification_table(results: dict) -> str:
    lines = [
        f"{'':38}  equal error   95 % (speakers)   minDCF   95 % (speakers)   trials   speakers"
    ]
    for key, name in REPRESENTATIONS.items():
        for reader, got in results[key].items():
            low, high = (100 * end for end in got["eer_interval"])
            cheap, dear = got["min_dcf_interval"]
            lines.append(
                f"{name + ', ' + READERS[reader]:38}    {100 * got['eer']:6.2f} %   "
                f"{low:5.1f} to {high:4.1f} %   {got['min_dcf']:6.3f}   {cheap:6.3f} to "
                f"{dear:.3f}  {got['trials']:8}   {got['speakers']:8}"
            )
    return "\n".join(lines)


def score(
    guess: Int[Tensor, " N"],
    y: Int[Tensor, " N"],
    *,
    source: Int[Tensor, " N"],
    patches: Int[Tensor, " N"],
    fold: Int[Tensor, " N"],
    num_classes: int,
) -> dict:
    """All that a record says of one representation and one reader.

    Args:
        guess: class that was read from each clip; -1 where the clip was not tested.
        y, source: class and source of each clip.
        patches: number of patches of each clip.
        fold: number of the fold in which each clip was tested.

    Returns:
        accuracy (clips, "micro") with Wilson's interval and the one from resampled sources;
        balanced (mean over classes, "macro") and patch_weighted (a clip counts as often as it has
        patches: what the authors' self-supervised code reports) with theirs; per_class, n, folds
        and their standard deviation, predictions (one letter a clip, "-" where not tested).
    """
    judged = guess >= 0
    right, y_, source_, weight = (x[judged] for x in (guess == y, y, source, patches))

    def interval(**how: Tensor) -> list[float] | None:
        if len(source_.unique()) < 2:
            return None  # a single recording says nothing about another
        return list(bootstrap_interval(right, groups=source_, resamples=RESAMPLES, **how))

    folds = [right[fold[judged] == k].double().mean().item() for k in fold[judged].unique()]
    letters = [LETTERS[g] if g >= 0 else "-" for g in guess.tolist()]
    return {
        "accuracy": right.double().mean().item(),
        "interval": list(wilson_interval(int(right.sum()), len(right))),
        "interval_by_source": interval(),
        "balanced": metrics.balanced_accuracy(guess[judged], y_, num_classes).item(),
        "balanced_interval": interval(strata=y_),
        "patch_weighted": metrics.patch_weighted_accuracy(guess[judged], y_, weight).item(),
        "patch_weighted_interval": interval(weights=weight),
        "per_class": [
            None if math.isnan(a) else a
            for a in metrics.per_class_accuracy(guess[judged], y_, num_classes).tolist()
        ],
        "n": len(right),
        "folds": folds,
        "fold_sd": statistics.stdev(folds) if folds[1:] else None,
        "predictions": "".join(letters),
    }


def geometry(
    h: Float[Tensor, "N d"], clip: Int[Tensor, " N"], y: Int[Tensor, " C"]
) -> dict[str, float]:
    """How the clips lie on the sphere: two patches of each clip, its first and its last.

    Args:
        h, clip: patches and the clip of each, as from `probing.embed`.
        y: class of every clip of the corpus.

    Returns:
        alignment (between the two patches of a clip), uniformity (of the first patches),
        tolerance, between_class_cosine, class_gap and effective_rank (of both together), see
        `metrics`; nothing where fewer than two clips of a class have two patches.
    """
    clips, count = clip.unique_consecutive(return_counts=True)
    last = count.cumsum(0) - 1
    first = last - count + 1
    two = count > 1
    first, last, y = first[two], last[two], y[clips[two]]
    if not len(y) or y.bincount().max() < 2 or len(y.unique()) < 2:
        return {}
    both, labels = torch.cat([h[first], h[last]]), torch.cat([y, y])
    return {
        "alignment": metrics.alignment(h[first], h[last]).item(),
        "uniformity": metrics.uniformity(h[first]).item(),
        "tolerance": metrics.tolerance(both, labels).item(),
        "between_class_cosine": metrics.between_class_cosine(both, labels).item(),
        "class_gap": metrics.class_gap(both, labels).item(),
        "effective_rank": metrics.effective_rank(both).item(),
    }


def method_name(recipe: Recipe) -> str:
    """What a recipe compares: its loss, in words."""
    loss = recipe.loss
    first, mixed = {
        "simclr": ("NT-Xent", "ACL"),
        "moco": ("MoCo", "MoCo + ACL"),
        "supervised": ("cross-entropy", "cross-entropy + angular margin"),
        "supcon": ("supervised contrastive", ""),  # one term: alpha is 1
    }[recipe.method]
    name = first if loss.alpha == 1 else f"{mixed}, alpha {loss.alpha:g}, {loss.reduction}"
    if loss.positive_margin:
        kind = {"additive": "margin", "angular": "angular margin"}[loss.margin_kind]
        name += f", {kind} {loss.positive_margin:g}"
    return name if loss.symmetric else f"{name}, one way"


def _distinct_names(records: Sequence[Record]) -> list[str]:
    """`method_name` of each record, with the settings in which recipes of that name differ.

    Raises:
        ValueError: two records of one recipe, seed and corpus: they are one observation.
    """
    apart = ("name", "seed", "corpus", "profile", "pretrain_on")  # what is told elsewhere
    kinds, alike = [], {}
    for record in records:
        recipe = asdict(record.recipe)
        settings = {
            k: v for part in recipe.values() if isinstance(part, dict) for k, v in part.items()
        }
        settings |= {k: v for k, v in recipe.items() if not isinstance(v, dict) and k not in apart}
        kind = record.recipe.corpus, record.recipe.profile, method_name(record.recipe)
        kinds.append((kind, settings))
        alike.setdefault(kind, []).append(settings)
    names, seen = [], {}
    for record, (kind, settings) in zip(records, kinds, strict=True):
        differ = [k for k, v in settings.items() if any(other[k] != v for other in alike[kind])]
        names.append(", ".join([kind[-1], *(f"{k} {settings[k]}" for k in differ)]))
        run = record.corpus["fingerprint"], kind, names[-1], record.recipe.pretrain_on
        first = seen.setdefault((*run, record.recipe.seed), record)
        if first is not record:
            raise ValueError(
                f"{first.path} and {record.path} hold the same recipe and seed, {names[-1]}: one "
                "observation, not two. Report one of them; `acl reproduce` compares two"
            )
    return names


def over_seeds(records: Sequence[Record], *, reader: str = "linear") -> dict[str, dict]:
    """Accuracies, or equal error rates, of a method and protocol over seeds, and of the baselines.

    The baselines come from the records that pretrained on all clips, where there are any.

    Args:
        reader: what asks the representations, by its name in `READERS`.

    Returns:
        name -> per_seed, mean, interval, train_cpu_seconds (mean of one training). The
        interval is Student's over seeds; of a single seed, Wilson's over its clips.

    Raises:
        ValueError: no records, or one recipe and seed twice.
    """
    if not records:
        raise ValueError("no records to compare: make some with `acl run ... --record FILE`")
    lenient = [r for r in records if r.recipe.pretrain_on == "all"] or records
    groups: dict[str, list[tuple[Record, dict]]] = {}
    for record, method in zip(records, _distinct_names(records), strict=True):
        verb = "pretrained" if record.recipe.method in ("simclr", "moco") else "trained"
        name = f"{method}; {verb} on {record.recipe.pretrain_on}"
        if reader in record.results["trained"]:
            groups.setdefault(name, []).append((record, record.results["trained"][reader]))
    for key, some in (
        ("untrained", {r.recipe.seed: r for r in lenient}.values()),
        ("statistics", lenient[:1]),
    ):
        asked = [(r, r.results[key][reader]) for r in some if reader in r.results[key]]
        groups |= {REPRESENTATIONS[key]: asked} if asked else {}
    rows = {}
    for name, group in groups.items():
        values = [result[MEASURE[reader]] for _, result in group]
        seconds = [r.cost["train_cpu_seconds"] / len(r.splits) for r, _ in group]
        rows[name] = {
            "per_seed": values,
            "mean": statistics.fmean(values),
            "interval": seed_interval(values) if values[1:] else group[0][1][INTERVAL[reader]],
            "train_cpu_seconds": statistics.fmean(seconds),
        }
    return rows


def compare(records: Sequence[Record], *, reader: str = "linear") -> list[dict]:
    """Every two methods that were asked about the same clips, over the seeds that both have.

    Args:
        reader: what asks the trained representations.

    Returns:
        For each pair: a, b (names), corpus, pretrain_on, and what `paired` says.

    Raises:
        ValueError: one recipe and seed twice.
    """
    tables: dict[tuple, dict[str, dict[int, Record]]] = {}
    for record, name in zip(records, _distinct_names(records), strict=True):
        recipe = record.recipe
        if reader in record.results["trained"] and "labels" in record.corpus:
            asked = (record.corpus["fingerprint"], recipe.profile, recipe.pretrain_on)
            methods = tables.setdefault(asked, {})
            methods.setdefault(name, {})[recipe.seed] = record
    pairs = []
    for methods in tables.values():
        plain_first = sorted(methods, key=lambda name: ("alpha" in name, name))
        for a, b in itertools.combinations(plain_first, 2):
            if not methods[a].keys() & methods[b].keys():
                continue
            found = paired(methods[a], methods[b], reader=reader)
            some = methods[a][found["seeds"][0]]
            where = {"corpus": some.corpus["name"], "pretrain_on": some.recipe.pretrain_on}
            pairs.append({"a": a, "b": b, **where, **found})
    return pairs


def paired(
    a: dict[Key, Record],
    b: dict[Key, Record],
    *,
    reader: str = "linear",
    confidence: float = 0.95,
) -> dict:
    """Two methods on the same clips, seed by seed: is the second better?

    Args:
        a, b: records of each method by seed, or by arm and seed; they share at least one.
        reader: what asks the trained representations.
        confidence: of the intervals, between 0 and 1, exclusive.

    Returns:
        seeds; per_seed (b - a of the accuracy of each, or of its equal error rate); difference
        (their mean); interval (paired bootstrap over sources of the clips' means over seeds);
        seed_interval (Student's over the seeds, None for a single one); p (exact McNemar test by
        sources, one for each seed; none of error rates).

    Raises:
        ValueError: no seed in common, or other clips.
    """
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        raise ValueError(f"no seed in common: {sorted(a)} and {sorted(b)}")
    if any(a[s].corpus["fingerprint"] != b[s].corpus["fingerprint"] for s in seeds):
        raise ValueError("the two methods were asked about different clips")
    if reader in VERIFIERS:
        per_seed = [
            b[s].results["trained"][reader]["eer"] - a[s].results["trained"][reader]["eer"]
            for s in seeds
        ]
        # every record has drawn the same speakers, so that the gap of a resample is one of speakers
        gap = _drawn(b, seeds, reader) - _drawn(a, seeds, reader)
        tail = (1 - confidence) / 2
        ends = gap.nanquantile(gap.new_tensor([tail, 1 - tail])).tolist()
        return _pair(seeds, per_seed, ends, [], confidence)
    sides = [[_right(records[seed], reader) for seed in seeds] for records in (a, b)]
    per_seed, rows, sources, p = [], [], [], []
    for one, two, seed in zip(*sides, seeds, strict=True):
        judged = (one >= 0) & (two >= 0)
        source = torch.tensor(a[seed].corpus["sources"])[judged]
        one, two = one[judged], two[judged]
        per_seed.append((two.double().mean() - one.double().mean()).item())
        p.append(mcnemar(one == 1, two == 1, groups=source))
        rows.append(torch.stack([one, two]).double())
        sources.append(source)
    alike = all(torch.equal(source, sources[0]) for source in sources)
    if alike:  # the clips of a corpus, asked about once a seed: their means over the seeds
        both, source = torch.stack(rows).mean(0), sources[0]
    else:  # each seed makes, or chooses, clips of its own
        both = torch.cat(rows, dim=1)
        source = torch.cat([s + i * 1_000_000 for i, s in enumerate(sources)])
    _, low, high = paired_bootstrap(*both, groups=source, confidence=confidence)
    return _pair(seeds, per_seed, [low, high], p, confidence)


def _pair(seeds: list, per_seed: list, interval: list, p: list, confidence: float) -> dict:
    ends = list(seed_interval(per_seed, confidence=confidence)) if per_seed[1:] else None
    return {
        "seeds": seeds,
        "per_seed": per_seed,
        "difference": statistics.fmean(per_seed),
        "interval": interval,
        "seed_interval": ends,
        "p": p,
    }


def _drawn(records: dict[Key, Record], seeds: list[Key], reader: str) -> Float[Tensor, " R"]:
    """The equal error of every resample, the mean of some seeds' records."""
    results = [records[seed].results["trained"][reader] for seed in seeds]
    return torch.stack([unpack_rates(result["resampled"]) for result in results]).nanmean(0)


def _right(record: Record, reader: str) -> Int[Tensor, " N"]:
    """1 where a clip was read rightly, 0 where not, -1 where it was not tested."""
    guesses = record.results["trained"][reader]["predictions"]
    labels = record.corpus["labels"]
    return torch.tensor(
        [-1 if g == "-" else int(g == y) for g, y in zip(guesses, labels, strict=True)]
    )


def read_all(paths: Sequence[str | os.PathLike]) -> list[Record]:
    """The records in some files, and in all JSON files below some folders.

    Raises:
        ValueError: a named file is no record; or there is none at all.
    """
    records = []
    for path in map(Path, paths):
        if not path.is_dir():
            records.append(Record.read(path))
            continue
        for file in sorted(path.rglob("*.json")):
            try:
                records.append(Record.read(file))
            except ValueError:
                continue  # a folder of results holds other things too
    if not records:
        raise ValueError(f"no record in {', '.join(map(str, paths))}: make some with `acl run`")
    return records


def report(records: Sequence[Record]) -> str:
    """Records side by side: means over seeds with intervals, then every two methods paired."""
    lines = []
    corpora = sorted({(r.corpus["name"], r.corpus["fingerprint"]) for r in records})
    for name, fingerprint in corpora:
        mine = [r for r in records if r.corpus["fingerprint"] == fingerprint]
        for profile in sorted({r.recipe.profile for r in mine}):
            some = [r for r in mine if r.recipe.profile == profile]
            for reader in ("linear", "knn", "classifier", *VERIFIERS):
                if not any(reader in r.results["trained"] for r in some):
                    continue
                title = f"{name}, {profile}, {READERS[reader]}"
                title += ", equal error" * (reader in VERIFIERS)
                lines.append(f"{title:60} seeds     mean   95 % interval")
                for method, row in over_seeds(some, reader=reader).items():
                    low, high = row["interval"]
                    lines.append(
                        f"  {method:58} {len(row['per_seed']):5}  {100 * row['mean']:6.2f} %   "
                        f"{100 * low:5.1f} to {100 * high:5.1f}"
                    )
                lines.append("")
    if pairs := compare(records):
        lines.append("linear probe, paired: b - a, 95 % by resampled sources, exact McNemar p")
    for pair in pairs:
        low, high = pair["interval"]
        lines += [
            f"  {pair['corpus']}, pretrained on {pair['pretrain_on']}: a = {pair['a']}",
            f"      b = {pair['b']}: {100 * pair['difference']:+.2f} points "
            f"({100 * low:+.1f} to {100 * high:+.1f}), seeds {pair['seeds']}, p "
            + ", ".join(f"{p:.2g}" for p in pair["p"]),
        ]
    return "\n".join(lines).rstrip()


class Difference(str):
    """A line that says what is otherwise in two records, and its parts: name, old, new."""

    name: str
    old: object
    new: object

    def __new__(cls, name: str, old, new) -> Difference:
        line = super().__new__(cls, f"{name}: {old} in the record, {new} now")
        line.name, line.old, line.new = name, old, new
        return line


def differences(name: str, old, new) -> list[Difference]:
    """Lines that name what an older value has and a newer one has otherwise; more is no difference.

    Args:
        old, new: values as in JSON; dictionaries and lists are walked through.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(f"{name}.{key}", old[key], new.get(key)) for key in old]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(f"{name}[{i}]", a, b) for i, (a, b) in enumerate(zip(old, new, strict=True))]
    else:
        return [] if old == new else [Difference(name, old, new)]
    return [line for pair in pairs for line in differences(*pair)]
