"""Recorded sweeps as points: what each record says at its alpha and temperature, how surely."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from .. import figures
from ..config import recipe
from ..published import TABLES, TEST_CLIPS, Table
from ..records import Record
from ..statistics import best_of_noise, seed_interval, wilson_interval
from .page import explorer

PERCENT, GEOMETRY = "accuracy", "geometry"

# key, words, kind; in the order in which one takes the place of another that a sweep lacks
MEASURES = (
    ("linear", "linear probe of h (%)", PERCENT),
    ("knn", "nearest neighbours in h (%)", PERCENT),
    ("linear_z", "linear probe of z (%)", PERCENT),
    ("knn_z", "nearest neighbours in z (%)", PERCENT),
    ("classifier", "the network's own classifier (%)", PERCENT),
    ("linear_micro", "linear probe, by patches (%)", PERCENT),
    ("linear_macro", "linear probe, by classes (%)", PERCENT),
    ("finetuned_noisy_micro", "fine-tuned on noisy, by patches (%)", PERCENT),
    ("finetuned_noisy_macro", "fine-tuned on noisy, by classes (%)", PERCENT),
    ("finetuned_clean_micro", "fine-tuned on clean, by patches (%)", PERCENT),
    ("finetuned_clean_macro", "fine-tuned on clean, by classes (%)", PERCENT),
    *(
        (f"{name}_{space}", f"{name.replace('_', ' ')} of {space}", GEOMETRY)
        for space in "hz"
        for name in ("class_gap", "uniformity", "tolerance", "alignment")
    ),
)

LOSSES = (
    ("scaled", "ACL, sum as at 128 clips"),
    ("code", "ACL, sum over its own batch"),
    ("mean", "ACL, mean over pairs"),
    ("margin", "cross-entropy + margin"),
    ("cnn", "cross-entropy + margin, the authors' CNN"),
    ("supcon", "supervised contrastive"),
)
ACL = ["scaled", "code"]  # alpha 1 is the end of both, and at 128 clips they are one
PLANNED = ["scaled", "mean"]  # the readings in the planned grids

# key, words, note
SWEEPS = (
    (
        "synthetic",
        "synthetic corpus, without labels",
        "Profile quick, one corpus, seeds of weights and draws.",
    ),
    (
        "fold",
        "ESC-10, one fold",
        "Profile laptop, four folds to train on, the 80 clips of the first to test.",
    ),
    (
        "esc10_all",
        "ESC-10, three seeds",
        "Profile laptop, pretrained on all clips without labels, five folds of readers.",
    ),
    (
        "esc10_planned",
        "ESC-10, planned grids",
        "Profile quick, a network for each of five folds; questions and rules in grids/.",
    ),
    ("esc10_train", "ESC-10, strict folds", "Profile laptop, a network for each of five folds."),
    (
        "noisy",
        "synthetic, labels: noisy",
        "Profile laptop, trained with labels of which some are wrong.",
    ),
    (
        "noisy_small",
        "synthetic, labels: noisy_small",
        "Profile laptop, trained with few labels of which some are wrong.",
    ),
    ("published_alpha", "published: without labels", "FSDnoisy18k."),
    (
        "published_temperature",
        "published: figure 3",
        "FSDnoisy18k. ACL has another alpha at each temperature; uniformity with its sign turned; "
        "z of a head that was not trained; the tolerance of ACL at 0.3 repeats that at 0.2.",
    ),
    *(
        (f"published_{part}", f"published: labels, {part}", f"FSDnoisy18k, trained on {part}.")
        for part in ("all", "clean", "noisy", "noisy_small")
    ),
)


def gather(folder: str | os.PathLike) -> list[dict]:
    """All recorded sweeps and the published ones as points, each at one alpha and temperature.

    Args:
        folder: that of the book's records; what is not there is left out.

    Returns:
        Points: sweep and losses (keys of SWEEPS and LOSSES), name (in words), alpha, temperature
        (None where there is none), measures and records (files in the folder, or the paper's
        table). A measure holds value (accuracies in percent), low and high (95 %), interval: over
        "seeds" (Student's), over "clips" (Wilson's) or "none"; n (clips of each seed, None where
        the record does not count them), seeds and the value of each. Published runs name no seed.
    """
    folder = Path(folder)
    return [
        *_grid(folder),
        *_fold(folder),
        *_records(folder),
        *_planned(folder),
        *_wrong_labels(folder),
        *_published(),
    ]


def luck(points: Sequence[dict]) -> dict[str, dict]:
    """What the best of a sweep's cells is expected to gain over their mean, were they all equal.

    The spread is that of the seeds within cells; where a cell has one seed, it is not known.

    Returns:
        "sweep/loss/measure" -> cells, sd (of single runs) and gain (of means over seeds), in
        points.
    """
    found = {}
    accuracies = [key for key, _, kind in MEASURES if kind == PERCENT]
    for sweep in dict.fromkeys(p["sweep"] for p in points):
        for loss, _ in LOSSES:
            mine = [p for p in points if p["sweep"] == sweep and loss in p["losses"]]
            for key in accuracies:
                each = [p["measures"][key]["each"] for p in mine if key in p["measures"]]
                if len(each) < 2 or min(map(len, each)) < 2:
                    continue
                spread = statistics.fmean(map(statistics.variance, each))
                of_means = statistics.fmean(statistics.variance(v) / len(v) for v in each)
                found[f"{sweep}/{loss}/{key}"] = {
                    "cells": len(each),
                    "sd": math.sqrt(spread),
                    "gain": best_of_noise(len(each), math.sqrt(of_means)),
                }
    return found


def results(
    folder: str | os.PathLike = "../book/results",
    *,
    sweep: str = "synthetic",
    measure: str = "linear",
    loss: str = "scaled",
    view: str = "map",
    axis: str = "alpha",
):
    """The recorded sweeps over alpha and temperature, as a map or as curves with intervals.

    Args:
        folder: that of the book's records.
        sweep, measure, loss: keys of SWEEPS, MEASURES and LOSSES; a measure or loss that the sweep
            lacks gives way to the first of its kind, and the page says so.
        view: "map" or "curves".
        axis: of the curves, "alpha" or "temperature".

    Raises:
        ValueError: the folder has nothing of this sweep; names those that it has.
    """
    points = gather(folder)
    known = [key for key, *_ in SWEEPS if any(p["sweep"] == key for p in points)]
    if sweep not in known:
        raise ValueError(f"no sweep {sweep!r} in {folder}; there are {', '.join(known)}")
    state = {
        "sweep": sweep,
        "measure": measure,
        "loss": loss,
        "view": view,
        "axis": axis,
        "points": points,
        "luck": luck(points),
        "sweeps": [list(row) for row in SWEEPS if row[0] in known],
        "measures": [list(row) for row in MEASURES],
        "losses": [list(row) for row in LOSSES],
    }
    return explorer(
        "results",
        state,
        lambda: _draw(points, sweep, measure, loss),
        f"{dict(row[:2] for row in SWEEPS)[sweep]}: {dict(row[:2] for row in MEASURES)[measure]} "
        "at each alpha and temperature, with the number of seeds in every cell",
    )


def _point(sweep: str, losses: list[str], name: str, alpha, temperature, measures, records) -> dict:
    return {
        "sweep": sweep,
        "losses": losses,
        "name": name,
        "alpha": alpha,
        "temperature": temperature,
        "measures": measures,
        "records": records,
    }


def _measured(values: dict[int, float], n: int | None, *, percent: bool = False) -> dict:
    """Mean over seeds with Student's interval; of one seed, with Wilson's if it is an accuracy."""
    each = [100 * v if percent else v for v in values.values()]
    low = high = None
    over = "none"
    if len(each) > 1:
        (low, high), over = map(float, seed_interval(each)), "seeds"
    elif percent:
        ends = wilson_interval(round(each[0] / 100 * n), n)
        (low, high), over = (100 * end for end in ends), "clips"
    value = statistics.fmean(each)
    return {
        "value": value,
        "low": None if low is None else float(low),
        "high": None if high is None else float(high),
        "interval": over,
        "n": n,
        "seeds": list(values),
        "each": each,
    }


def _accuracies(runs: dict[int, dict], suffix: str = "") -> dict[str, dict]:
    """Of each reader, from what it said of each seed's network."""
    found = {}
    for reader in next(iter(runs.values()), {}):
        (n,) = {run[reader]["n"] for run in runs.values()}
        each = {seed: run[reader]["accuracy"] for seed, run in runs.items()}
        found[reader + suffix] = _measured(each, n, percent=True)
    return found


def _shapes(runs: dict[int, dict]) -> dict[str, dict]:
    """Of each measure and space, from the geometry of each seed's network."""
    known = {key for key, _, kind in MEASURES if kind == GEOMETRY}
    return {
        f"{name}_{space}": _measured({s: run[space][name] for s, run in runs.items()}, None)
        for space, first in next(iter(runs.values()), {}).items()
        for name in first
        if f"{name}_{space}" in known
    }


def _words(alpha: float) -> str:
    return {0: "angular margin alone", 1: "NT-Xent"}.get(alpha, f"ACL, alpha {alpha:g}")


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _grid(folder: Path) -> Iterable[dict]:
    file = "alpha_temperature_synthetic.json"
    cells: dict[tuple, dict] = {}
    for run in _read(folder / file).get("runs", ()):
        cells.setdefault((run["alpha"], run["temperature"]), {})[run["seed"]] = run
    for (alpha, temperature), runs in cells.items():
        measures = _accuracies({s: r["readers"] for s, r in runs.items()})
        measures |= _shapes({s: r["geometry"] for s, r in runs.items()})
        tau = temperature if alpha else None  # NT-Xent weighs nothing there
        yield _point("synthetic", ["scaled"], _words(alpha), alpha, tau, measures, [file])


def _fold(folder: Path) -> Iterable[dict]:
    file = "one_fold.json"
    for name, run in _read(folder / file).get("networks", {}).items():
        if name.split(",")[0] not in ("NT-Xent", "ACL"):
            continue
        loss, seed = run["recipe"]["loss"], run["recipe"]["seed"]
        measures = _accuracies({seed: run["readers"]["h"]})
        measures |= _accuracies({seed: run["readers"]["z"]}, "_z") | _shapes(
            {seed: run["geometry"]}
        )
        alpha, tau = loss["alpha"], loss["temperature"]
        yield _point("fold", ["scaled"], _words(alpha), alpha, tau, measures, [file])


def _records(folder: Path) -> Iterable[dict]:
    cells: dict[tuple, list[Record]] = {}
    for path in sorted((folder / "esc10").glob("*.json")):
        record = Record.read(path)
        r = record.recipe
        key = r.method, r.pretrain_on, r.loss.alpha, r.loss.reduction
        cells.setdefault(key, []).append(record)
    for (method, seen, alpha, reduction), group in cells.items():
        runs = {r.recipe.seed: r.results["trained"] for r in group}
        measures = _accuracies(runs)
        measures |= _shapes({r.recipe.seed: r.geometry for r in group})
        losses, name = {
            "simclr": (
                ACL if alpha == 1 else [reduction.removeprefix("paper_")],
                _words(alpha),
            ),
            "supervised": (["margin"], "cross-entropy" + (" + margin" if alpha < 1 else "")),
            "supcon": (["supcon"], "supervised contrastive"),
        }[method]
        tau = None if method == "supervised" else group[0].recipe.loss.temperature
        files = [f"esc10/{r.path.name}" for r in group]
        yield _point(f"esc10_{seen}", losses, name, alpha, tau, measures, files)


def _planned(folder: Path) -> Iterable[dict]:
    """The runs of grids/ that differ from each other in alpha, temperature and reduction alone."""
    place = folder / "sweeps" / "esc10-quick"
    cells: dict[tuple, list[Record]] = {}
    for path in sorted(place.glob("acl,*.json")):
        record = Record.read(path)
        loss = record.recipe.loss
        own = {"alpha": loss.alpha, "temperature": loss.temperature, "reduction": loss.reduction}
        plain = recipe("acl", corpus="esc10", profile="quick", seed=record.recipe.seed, **own)
        if record.recipe == plain:
            cells.setdefault((loss.alpha, loss.temperature, loss.reduction), []).append(record)
    for (alpha, tau, reduction), group in cells.items():
        measures = _accuracies({r.recipe.seed: r.results["trained"] for r in group})
        measures |= _shapes({r.recipe.seed: r.geometry for r in group})
        losses = PLANNED if alpha == 1 else [reduction.removeprefix("paper_")]
        files = [f"sweeps/esc10-quick/{r.path.name}" for r in group]
        tau = tau if alpha else None
        yield _point("esc10_planned", losses, _words(alpha), alpha, tau, measures, files)


def _wrong_labels(folder: Path) -> Iterable[dict]:
    file = "label_noise.json"
    cells: dict[tuple, dict] = {}
    for run in _read(folder / file).get("runs", ()):
        key = run["part"], run["network"], run["alpha"]
        cells.setdefault(key, {})[run["seed"]] = {"classifier": run}
    for (part, network, alpha), runs in cells.items():
        losses = [{"resnet18": "margin", "baseline_cnn": "cnn"}[network]]
        name = "cross-entropy" + (" + margin" if alpha < 1 else "")
        yield _point(part, losses, name, alpha, None, _accuracies(runs), [file])


def _published() -> Iterable[dict]:
    def printed(value: float, n: int | None = TEST_CLIPS) -> dict:
        nothing = {"low": None, "high": None, "interval": "none", "seeds": []}
        return {"value": value, **nothing, "n": n, "each": [value]}

    def rows(table: Table) -> Iterable[dict]:
        return (dict(zip(table.columns, row, strict=True)) for row in table.rows)

    table = TABLES["alpha_sweep"]
    for row in rows(table):
        alpha = row.pop("alpha")
        measures = {column: printed(value) for column, value in row.items()}
        tau = 0.2 if alpha else None
        yield _point("published_alpha", ACL, _words(alpha), alpha, tau, measures, [table.source])
    table = TABLES["temperature"]
    for row in rows(table):
        alpha = row["alpha"]
        measures = {
            "linear_micro": printed(row["linear_micro"]),
            "uniformity_z": printed(-row["minus_uniformity"], None),
            "tolerance_z": printed(row["tolerance"], None),
        }
        name = "NT-Xent" if alpha == 1 else "ACL, another alpha at each"
        yield _point(
            "published_temperature", ACL, name, alpha, row["temperature"], measures, [table.source]
        )
    table = TABLES["supervised_alpha_sweep"]
    for row in rows(table):
        alpha = row.pop("alpha")
        name = "cross-entropy" + (" + margin" if alpha < 1 else "")
        for part, value in row.items():
            measures = {"classifier": printed(value)}
            yield _point(f"published_{part}", ["cnn"], name, alpha, None, measures, [table.source])


def _draw(points: list[dict], sweep: str, measure: str, loss: str) -> Figure:
    """The map, as a figure; what the sweep lacks gives way as in the page."""
    mine = [p for p in points if p["sweep"] == sweep]
    known = [key for key, _ in LOSSES if any(key in p["losses"] for p in mine)]
    loss = loss if loss in known else known[0]
    mine = [p for p in mine if loss in p["losses"]]
    asked = dict((key, kind) for key, _, kind in MEASURES)
    has = [key for key in asked if any(key in p["measures"] for p in mine)]
    if measure not in has:
        measure = next((key for key in has if asked[key] == asked[measure]), has[0])
    mine = [p for p in mine if measure in p["measures"]]
    alphas = sorted({p["alpha"] for p in mine})
    taus = sorted({p["temperature"] for p in mine if p["temperature"] is not None}) or [None]
    values = torch.full((len(alphas), len(taus)), float("nan"))
    texts = [["no run"] * len(taus) for _ in alphas]
    for p in mine:
        got, row = p["measures"][measure], alphas.index(p["alpha"])
        across = taus if p["temperature"] is None else [p["temperature"]]
        seeds = f"{len(got['each'])} seeds" if got["each"][1:] else "1 run"
        number = f"{got['value']:.{1 if asked[measure] == PERCENT else 3}f}\n{seeds}"
        for tau in across:
            values[row, taus.index(tau)] = got["value"]
            texts[row][taus.index(tau)] = number if tau == across[len(across) // 2] else ""
    return figures.heat_map(
        values,
        texts,
        rows=[f"{alpha:g}" for alpha in alphas],
        columns=["none" if tau is None else f"{tau:g}" for tau in taus],
        labels=("temperature", "alpha", dict(row[:2] for row in MEASURES)[measure]),
    )
