"""The map: clips under four networks, to look at, listen to and follow from one to another."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version

import numpy as np
import torch
from matplotlib.figure import Figure

from .. import figures, projection
from ..config import Recipe, recipe
from ..datasets import Corpus
from ..experiments import (
    code_fingerprint,
    fit,
    new_network,
    open_recipe_corpus,
    open_store,
)
from ..features import LogMelStore
from ..probing import embed, linear_probe
from ..records import geometry
from ..splits import Split, evaluation_splits, source_numbers
from ..statistics import wilson_interval
from ..training import standardisation
from . import media
from .page import explorer

NETWORKS = {"untrained": "contrastive", "NT-Xent": "contrastive", "ACL": "acl", "CE": "supervised"}
PER_CLASS = 5  # clips of a corpus with a test split
NEIGHBOURS = 5
CORPUS_LINES = {
    "synthetic": "The sounds were made by the library from a seed.",
    "esc10": "ESC-10 (Piczak 2015), CC BY 3.0 as a corpus (creativecommons.org/licenses/by/3.0); "
    "each clip is CC0 or CC BY and was cut or looped to 5 s; title and author stand beside it.",
}


def sound_map(corpus: str | None = None, *, network: str = "NT-Xent", kind: str = "UMAP"):
    """Clips on a map that can be heard, with their nearest neighbours in h, under four networks.

    Args:
        corpus: "synthetic" or "esc10"; by default real sounds where they are, see
            `media.best_corpus`.
        network: "untrained", "NT-Xent", "ACL" or "CE" (cross-entropy, with labels).
        kind: "PCA" or "UMAP".

    Raises:
        FileNotFoundError: no such corpus, or no record of its map.
        ValueError: the record is of other sounds than those that are there.
    """
    opened, record = media.open_mapped(corpus or media.best_corpus())
    numbers = record["clips"]
    names = [media.clip_name(opened.clips[n]) for n in numbers]
    shown = ("maps", "neighbours", "cosines", "probe", "geometry")
    state = {
        "network": network,
        "kind": kind,
        "unheard": False,
        "highlight": "all",
        "clip": names[record["unheard"].index(1)],
        "hover": False,
        "names": names,
        "labels": record["labels"],
        "classes": record["classes"],
        "unheardClips": record["unheard"],
        "sources": record["sources"],
        "tested": record["tested"],
        "networks": {
            name: {key: found[key] for key in shown} for name, found in record["networks"].items()
        },
        "credits": media.credits(opened, numbers),
        "corpus": opened.name,
        "corpusLine": CORPUS_LINES.get(opened.name, ""),
        "media": f"../_static/vendor/clips/{media.media_folder(opened)}",
    }

    def draw() -> Figure:
        maps = {n: np.array(record["networks"][n]["maps"][kind]) for n in ("untrained", network)}
        titles = {f"{name}, {kind}": at for name, at in maps.items()}
        return figures.maps(titles, torch.tensor(record["labels"]), record["classes"])

    def live(widget) -> None:
        clips = dict(zip(names, (opened.clips[n] for n in numbers), strict=True))

        def answer(_, asked: dict, __) -> None:
            if (name := asked.get("clip")) in clips:
                widget.send({"clip": name, **media.addresses(clips[name])})

        widget.on_msg(answer)

    return explorer(
        "map",
        state,
        draw,
        f"{kind} maps of {len(names)} clips under an untrained encoder and {network}, a colour and "
        "a shape for each class",
        live=live,
    )


def map_record(
    corpus: str = "synthetic", profile: str = "quick", *, seed: int = 0, **settings
) -> dict:
    """Train three networks, and find what the map shows of them and of an untrained one.

    Of a corpus with folds, all clips, and the first fold's are those that no network hears; of one
    with a test split, the first five test clips of each class. One thread: sums depend on it.

    Args:
        corpus, profile, seed, settings: as for `config.recipe`.

    Returns:
        What JSON knows, coordinates with three decimals.
    """
    threads = torch.get_num_threads()
    try:
        return _record({"corpus": corpus, "profile": profile, "seed": seed, **settings})
    finally:
        torch.set_num_threads(threads)


def _record(options: dict) -> dict:
    plan = {name: recipe(which, **options) for name, which in NETWORKS.items()}
    first = plan["untrained"]
    corpus = open_recipe_corpus(first, progress=False)
    split, store = evaluation_splits(corpus, first)[0], open_store(corpus, first, progress=False)
    clips = torch.arange(len(corpus)) if corpus.folds else _first(corpus, split.test)
    networks, reference = {}, {}
    for name, settings in plan.items():
        found = _measured(settings, corpus, store, split, clips, trained=name != "untrained")
        for kind, xy in found.pop("points").items():
            reference.setdefault(kind, reference.get("PCA", xy))
            found["maps"][kind] = _rounded(projection.align(xy, reference[kind]))
            if name == "untrained":  # the others are turned onto it
                reference[kind] = projection.align(xy, reference[kind])
        networks[name] = found
    return {
        "corpus": {"name": corpus.name, "fingerprint": corpus.fingerprint()},
        "profile": first.profile,
        "seed": first.seed,
        "split": split.name,
        "tested": len(split.test),
        "classes": list(corpus.classes),
        "clips": clips.tolist(),
        "labels": corpus.labels[clips].tolist(),
        "sources": source_numbers(corpus)[clips].tolist(),
        "unheard": torch.isin(clips, split.test).int().tolist(),
        "networks": networks,
        "code": code_fingerprint(),
        "machine": {
            "processor": platform.machine(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "umap": version("umap-learn"),
            "threads": 1,
        },
    }


def _first(corpus: Corpus, test: torch.Tensor) -> torch.Tensor:
    """The first test clips of each class."""
    y = corpus.labels[test]
    return torch.cat([test[y == k][:PER_CLASS] for k in range(len(corpus.classes))])


def _measured(
    settings: Recipe,
    corpus: Corpus,
    store: LogMelStore,
    split: Split,
    clips: torch.Tensor,
    *,
    trained: bool,
) -> dict:
    """One network: where the clips lie, who is near whom, and what counts on unheard clips."""
    torch.set_num_threads(1)  # each time: UMAP puts it back
    y, num_classes = corpus.labels, len(corpus.classes)
    if trained:
        network, scale, _ = fit(settings, store, y, split, num_classes=num_classes)
    else:
        network = new_network(settings, num_classes)
        scale = standardisation(store, split.pretrain, settings.views.standardise)
    options = {"mean": scale[0], "std": scale[1], "precision": settings.train.precision}
    h, clip = embed(network.encoder, store, torch.arange(len(corpus)), **options)
    ask = {"train": split.probe, "test": split.test, "num_classes": num_classes}
    groups = source_numbers(corpus)
    posterior, _ = linear_probe(h, clip, y, groups=groups, config=settings.probe, **ask)
    right, n = int((posterior.argmax(1) == y[split.test]).sum()), len(split.test)
    tested = torch.isin(clip, split.test)
    h_clip = torch.stack([h[clip == k].mean(0) for k in clips.tolist()])
    cosines, neighbours = near(h_clip)
    measures = ("uniformity", "tolerance", "class_gap")
    shape = geometry(h[tested], clip[tested], y)
    return {
        "recipe": json.loads(settings.to_json()),
        "points": {
            "PCA": projection.pca(h_clip),
            "UMAP": projection.umap(h_clip, seed=settings.seed),
        },
        "maps": {},
        "neighbours": neighbours.tolist(),  # places in the record's list of clips
        "cosines": _rounded(cosines),
        "probe": {"accuracy": right / n, "interval": wilson_interval(right, n), "n": n},
        "geometry": {key: round(shape[key], 4) for key in measures if key in shape},
    }


def near(h: torch.Tensor, count: int = NEIGHBOURS) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines (n, count) and places (n, count) of each row's nearest other rows, nearest first."""
    u = torch.nn.functional.normalize(h.double(), dim=1)
    cosine = (u @ u.T).fill_diagonal_(-torch.inf)  # no clip is its own neighbour
    return cosine.topk(min(count, len(h) - 1))


def _rounded(rows) -> list[list[float]]:
    return [[round(value, 3) for value in row] for row in rows.tolist()]
