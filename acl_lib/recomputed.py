"""Fig. 3 of the paper again, from the authors' released features, and what it does not say.

    record = features_record(load_released_features())
    print(features_tables(record))

The published uniformity and tolerance are those of z. The same of h, the other half of a
tolerance, neighbours, and where z comes from, need no training and no sounds either.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .metrics import between_class_cosine, class_gap, tolerance, uniformity
from .models import LinearClassifier, ProjectionHead, ResNet18
from .published import TABLES
from .released import CLASSES, COMMIT, REMEDY, REPOSITORY, WIDTH, ReleasedFeatures, released_folders
from .statistics import mcnemar, paired_bootstrap, wilson_interval
from .whole import write_whole

HEAD_SEED = 271828  # the only seed of the authors' code
HEAD_BOUND = {"float32": 1e-6, "float16": 1e-3}  # what rounding may leave between z and g(h)
AGREE = 0.5e-4 + 1e-6  # 4 printed decimals; a copy in float16 moves a mean by less than 1e-6


def measure(features: ReleasedFeatures) -> dict[str, dict]:
    """What lies in h and in z: spread, closeness within and between classes, neighbours.

    As in the authors' code, the uniformity is that of the first view; the cosines are of both
    views stacked, without a row's pair with itself and with the pair of a clip's two views. The
    neighbours are those of the first view, whose rows are augmented patches of about 1 s: their
    accuracy compares the encoders and is none of a system.

    Returns:
        "h" and "z" -> minus_uniformity (nats), tolerance, between_class_cosine, class_gap (their
        difference), knn and knn_standardised (`knn_right` of the rows as they are, and with mean 0
        and spread 1 in each dimension): right, n, accuracy, interval (Wilson's).
    """
    found = {}
    for space in "hz":
        views = getattr(features, space)
        rows, labels = views.flatten(0, 1), torch.cat([features.y, features.y])
        found[space] = {
            "minus_uniformity": -uniformity(views[0]).item(),
            "tolerance": tolerance(rows, labels).item(),
            "between_class_cosine": between_class_cosine(rows, labels).item(),
            "class_gap": class_gap(rows, labels).item(),
            "knn": _accuracy(knn_right(views[0], features.y)),
            "knn_standardised": _accuracy(knn_right(_standardised(views[0]), features.y)),
        }
    return found


def recompute_figure3(found: Mapping[str, dict]) -> list[dict]:
    """Each cell of the published table of uniformity and tolerance beside what the features say.

    Args:
        found: folder -> what `measure` says of it.

    Returns:
        Two cells for each folder, in the order of `published.TABLES["temperature"]`: folder,
        measure, published, recomputed (both of z), agrees (to the 4 decimals that are printed).
    """
    table = TABLES["temperature"]
    cells = []
    for row in table.rows:
        printed = dict(zip(table.columns, row, strict=True))
        name = folder_of(printed["temperature"], printed["alpha"])
        for key in ("minus_uniformity", "tolerance") if name in found else ():
            got = found[name]["z"][key]
            cells.append(
                {
                    "folder": name,
                    "measure": key,
                    "published": printed[key],
                    "recomputed": got,
                    "agrees": abs(got - printed[key]) <= AGREE,
                }
            )
    return cells


def folder_of(temperature: float, alpha: float) -> str:
    """The folder of features of an encoder: `t0.2a0.3`, or `t0.2` for alpha 1."""
    return f"t{temperature}" + (f"a{alpha}" if alpha < 1 else "")


def knn_right(
    h: Float[Tensor, "N d"],
    y: Int[Tensor, " N"],
    *,
    neighbours: int = 20,
    temperature: float = 0.07,
) -> Bool[Tensor, " N"]:
    r"""Which rows get their class from the nearest of all other rows.

    .. math:: \hat{y}_i = \operatorname*{argmax}_c \sum_{j \in N_i,\, y_j = c}
              \exp(\cos(h_i, h_j) / \tau)

    where N_i are the rows with the largest cosine, row i itself left out.

    Source: the weighted vote of Wu et al. 2018, with their temperature. Ties go to the lowest
    class. Unlike `probing.knn_votes`, near rows weigh more.

    Args:
        h: vectors of any norm.
        y: class of each row, 0 or more.
        neighbours: rows that vote, 1 to N - 1.
        temperature: tau > 0; small values listen to the nearest.

    Returns:
        Whether each row's class is the one that its neighbours say.

    Raises:
        ValueError: neighbours or temperature out of range.
    """
    if not 1 <= neighbours < len(h) or not temperature > 0:
        raise ValueError(
            f"need 1 to {len(h) - 1} neighbours for {len(h)} rows, and temperature > 0; got "
            f"{neighbours} and {temperature}"
        )
    u = F.normalize(h.double(), dim=1)
    cosine = (u @ u.T).fill_diagonal_(-torch.inf)
    nearest = cosine.topk(neighbours, dim=1)
    weight = ((nearest.values - 1) / temperature).exp()  # at most 1: no overflow
    votes = weight.new_zeros(len(h), int(y.max()) + 1)
    return votes.scatter_add_(1, y[nearest.indices], weight).argmax(1) == y


def knn_pairs(features: Mapping[str, ReleasedFeatures]) -> list[dict]:
    """ACL against NT-Xent at one temperature: whose neighbours in h know more classes.

    Returns:
        For each temperature of which both folders are there, twice: temperature, a (NT-Xent) and b
        (ACL), rows ("as they are" or "standardised"), difference (accuracy of b minus that of a),
        interval (paired bootstrap over clips; which of them share a recording is not published)
        and p (McNemar's exact test).

    Raises:
        ValueError: the two folders do not hold the same clips.
    """
    pairs = []
    plain = {f.temperature: f for f in features.values() if f.alpha == 1}
    for b in (f for f in features.values() if f.alpha < 1 and f.temperature in plain):
        a = plain[b.temperature]
        if not torch.equal(a.y, b.y):
            raise ValueError(
                f"{a.name} and {b.name} hold other clips, or in another order. {REMEDY}"
            )
        for rows, of in (("as they are", lambda h: h), ("standardised", _standardised)):
            right_a, right_b = (knn_right(of(f.h[0]), f.y) for f in (a, b))
            difference, low, high = paired_bootstrap(right_a, right_b)
            pairs.append(
                {
                    "temperature": b.temperature,
                    "a": a.name,
                    "b": b.name,
                    "rows": rows,
                    "difference": difference,
                    "interval": [low, high],
                    "p": mcnemar(right_a, right_b),
                }
            )
    return pairs


def uniformity_tolerance_correlation(rows: Sequence[Mapping[str, float]]) -> float | None:
    """Pearson's correlation of minus uniformity and tolerance over several encoders.

    Args:
        rows: minus_uniformity and tolerance of each encoder, in one space.

    Returns:
        Between -1 and 1; at -1 each of the two measures says what the other says. None for fewer
        than three encoders, or where they are all alike in one of the two.
    """
    columns = [[row[key] for row in rows] for key in ("minus_uniformity", "tolerance")]
    if len(rows) < 3 or min(len(set(column)) for column in columns) < 2:
        return None
    return statistics.correlation(*columns)


def untrained_head() -> ProjectionHead:
    """The projection head that the authors' code holds before any training, in eval mode.

    Source: their code draws, from one seed, the encoder with its layer of 20 classes and then the
    head, and stores no head. The global generator is left as it was.

    Returns:
        512 -> 512 -> 512, with the running mean 0 and variance 1 of a new BatchNorm.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(HEAD_SEED)
        ResNet18(), LinearClassifier(WIDTH, len(CLASSES))  # they draw before the head does
        return ProjectionHead(WIDTH, WIDTH, WIDTH).eval()


@torch.no_grad()
def head_deviation(features: ReleasedFeatures, head: torch.nn.Module | None = None) -> float:
    """How far the released z lie from the released h sent through a head.

    Args:
        head: h -> z of any norm; None: `untrained_head`.

    Returns:
        Largest absolute difference over both views, all clips and dimensions, once all have norm
        1. Within `HEAD_BOUND` the head is the one that made z.
    """
    head = untrained_head() if head is None else head
    ours = F.normalize(head(features.h.flatten(0, 1)), dim=1)
    return (ours - features.z.flatten(0, 1)).abs().max().item()


def features_record(features: Mapping[str, ReleasedFeatures]) -> dict:
    """All that this module computes from the features, as plain values for a JSON file.

    Returns:
        measured, source, files (what they are), clips; folders (name -> temperature, alpha, stored,
        original, h and z as from `measure`, head_deviation and head_bound), not_found (names);
        cells (`recompute_figure3`), pairs (`knn_pairs`), correlation (h, z, and over how many
        folders); versions.
    """
    head = untrained_head()
    copies = sorted({f.stored for f in features.values() if not f.original})
    folders = {
        name: {
            "temperature": f.temperature,
            "alpha": f.alpha,
            "stored": f.stored,
            "original": f.original,
            **measure(f),
            "head_deviation": head_deviation(f, head),
            "head_bound": HEAD_BOUND[f.stored],
        }
        for name, f in features.items()
    }
    correlation = {
        space: uniformity_tolerance_correlation([row[space] for row in folders.values()])
        for space in "hz"
    }
    published = "the published files, byte for byte"
    return {
        "measured": "the authors' released features: Fig. 3 of the paper, and what it does not say",
        "source": f"{REPOSITORY} at {COMMIT}",
        "files": f"copies in {' and '.join(copies)}, not the published files"
        if copies
        else published,
        "clips": len(next(iter(features.values())).y),
        "folders": folders,
        "not_found": [name for name in released_folders() if name not in folders],
        "cells": recompute_figure3(folders),
        "pairs": knn_pairs(features),
        "correlation": correlation | {"folders": len(folders)},
        "versions": {name: version(name) for name in ("torch", "scipy")}
        | {"python": platform.python_version()},
    }


def write_record(record: Mapping, path: str | os.PathLike) -> None:
    """Put a record on disk as JSON, whole or not at all.

    Raises:
        ValueError: a number in it is not finite.
    """
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(path, text + "\n")


def features_tables(record: Mapping) -> str:
    """What `features_record` found, as text to print: the published table again, and the rest."""
    folders, missing = record["folders"], record["not_found"]
    total = len(folders) + len(missing)
    what = f"{len(folders)} of {total} folders, {record['clips']} clips each; {record['files']}"
    what += f"\nnot found: {', '.join(missing)}" if missing else ""
    parts = [what, _published_part(record), _unpublished_part(folders)]
    if record["pairs"]:
        parts.append(_pairs_part(record["pairs"]))
    r = record["correlation"]
    if r["z"] is not None:
        parts.append(
            f"correlation of minus uniformity and tolerance over {r['folders']} folders: "
            f"h {r['h']:.4f}, z {r['z']:.4f}"
        )
    return "\n\n".join([*parts, _origin_of_z(folders)])


def _published_part(record: Mapping) -> str:
    cells = record["cells"]
    lines = [
        f"{'z':12}minus uniformity       tolerance",
        f"{'folder':12}published recomputed   published recomputed",
    ]
    for name in record["folders"]:
        mine = [cell for cell in cells if cell["folder"] == name]
        numbers = "   ".join(f"{c['published']:9.4f} {c['recomputed']:10.4f}" for c in mine)
        wrong = "" if all(cell["agrees"] for cell in mine) else "   does not agree"
        lines.append(f"{name:12}{numbers}{wrong}")
    lines.append(f"{sum(c['agrees'] for c in cells)} of {len(cells)} cells agree to 4 decimals")
    lines += [
        f"does not agree: {cell['measure'].replace('_', ' ')} of {cell['folder']}, published "
        f"{cell['published']:.4f}, recomputed {cell['recomputed']:.4f}"
        for cell in cells
        if not cell["agrees"]
    ]
    return "\n".join(lines)


def _unpublished_part(folders: Mapping[str, dict]) -> str:
    lines = [
        "what the table does not say; kNN: share of the clips (%) whose class the 20 nearest other",
        "clips say, with Wilson's 95 % interval, for rows as they are and for standardised ones",
        f"{'folder':10}   -uniformity  tolerance  between classes    gap   "
        f"{'kNN':20}kNN, standardised",
    ]
    for name, row in folders.items():
        for space in "hz":
            got = row[space]
            knn = "   ".join(
                f"{100 * k['accuracy']:.1f} ({100 * k['interval'][0]:.1f} to "
                f"{100 * k['interval'][1]:.1f})"
                for k in (got["knn"], got["knn_standardised"])
            )
            lines.append(
                f"{name if space == 'h' else '':10} {space} {got['minus_uniformity']:11.4f} "
                f"{got['tolerance']:10.4f} {got['between_class_cosine']:16.4f} "
                f"{got['class_gap']:6.4f}   {knn}"
            )
    return "\n".join(lines)


def _pairs_part(pairs: Sequence[dict]) -> str:
    lines = ["kNN in h, ACL minus NT-Xent on the same clips: points, 95 % interval, McNemar's p"]
    for pair in pairs:
        low, high = (100 * end for end in pair["interval"])
        lines.append(
            f"{pair['b']} minus {pair['a']}, rows {pair['rows']:12} "
            f"{100 * pair['difference']:+5.1f} ({low:+.1f} to {high:+.1f}), p {pair['p']:.2g}"
        )
    return "\n".join(lines)


def _origin_of_z(folders: Mapping[str, dict]) -> str:
    lines = [f"z beside h sent through a head that was never trained (seed {HEAD_SEED})"]
    for name, row in folders.items():
        within = row["head_deviation"] <= row["head_bound"]
        lines.append(
            f"{name:12}largest difference {row['head_deviation']:.1e}, {row['stored']} allows "
            f"{row['head_bound']:g}: {'this head' if within else 'another head'} made z"
        )
    return "\n".join(lines)


def _standardised(h: Float[Tensor, "N d"]) -> Float[Tensor, "N d"]:
    """Rows whose dimensions have mean 0 and spread 1; one that never varies stays 0."""
    h = h.double()
    spread = h.std(0, correction=0)
    return (h - h.mean(0)) / torch.where(spread > 1e-9, spread, torch.inf)


def _accuracy(right: Bool[Tensor, " N"]) -> dict:
    hits, n = int(right.sum()), len(right)
    low, high = wilson_interval(hits, n)
    return {"right": hits, "n": n, "accuracy": hits / n, "interval": [float(low), float(high)]}
