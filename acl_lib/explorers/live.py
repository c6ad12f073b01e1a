"""Watch a network learn: a recorded run to leaf through, or a running one to steer.

A network is looked at after every epoch, on clips that training never sees: losses, angles,
measures of the sphere, and a map. `training_record` keeps what two networks showed; in JupyterLab
`training` shows the same of a network that is being trained, in a thread beside the kernel.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor

from .. import config, figures, projection
from ..config import Recipe, with_settings
from ..datasets import Corpus
from ..experiments import Network, code_fingerprint, new_network, open_recipe_corpus, open_store
from ..losses import angular_margin, nt_xent
from ..probing import embed
from ..records import geometry
from ..splits import Split, evaluation_splits
from ..training import SimCLRStep, seed_everything, standardisation, train, view_pairs
from .media import record_path
from .page import explorer

NETWORKS = {"NT-Xent": "contrastive", "ACL": "acl"}  # name -> recipe
GROUPS = ("same clip", "same class", "other class")  # what two patches have in common
MEASURES = ("alignment", "uniformity", "tolerance", "class_gap")
MOST = 100  # clips that are looked at
PACE = 0.2  # least seconds between two messages about steps
LONGEST = 1000  # steps in the curve; then every second one is dropped


def training(recipe: Recipe | None = None, *, corpus: str = "esc10"):
    """A pretraining epoch by epoch: recorded, or live where a recipe and a kernel are given.

    The live widget trains nothing before its Start button is pressed, and then in a thread, on the
    clips that the first split of the recipe's corpus leaves for training. Its temperature is the
    trait `temperature`, which takes effect from the next step; the curves stay at the recipe's, so
    that they can be compared. Once started, it holds

    - ``network`` and ``scale``: the `experiments.Network`, and the mean and standard deviation
      that its patches come with; usable when paused or stopped,
    - ``history``: a row for each epoch, as in the record, without the maps,
    - ``error``: what ended the training, or None.

    Starting seeds torch's global generator, as every training does: draw from a generator of your
    own in cells that run meanwhile.

    Args:
        recipe: of a contrastive network to train; in the printed book, whose corpus is shown.
        corpus: of the record to show; "synthetic" where there is none of it.

    Raises:
        ValueError: the recipe trains with labels.
        FileNotFoundError: no record has been made.
    """
    if recipe is not None and not os.environ.get("ACL_PUBLISH"):
        return _live(recipe)
    record = _read(recipe.corpus if recipe else corpus)
    runs = {
        name: {"epochs": run["epochs"], "plan": run["recipe"]["train"]["epochs"]}
        for name, run in record["runs"].items()
    }
    one = next(iter(record["runs"].values()))["recipe"]
    state = {
        "shown": "both",
        "measure": "angles",
        "epoch": 0,
        "runs": runs,
        "labels": record["labels"],
        "classes": record["classes"],
        "about": f"{record['corpus']['name']}, profile {one['profile']}, seed {one['seed']}",
        "live": False,
    }
    return explorer(
        "training",
        state,
        lambda: _angle_curves(runs),
        "Median angle between two patches against the epoch, for the same clip, the same class and "
        "other classes, under NT-Xent and under ACL",
    )


def training_record(corpus: str, profile: str) -> dict:
    """Train two networks, NT-Xent and ACL, and keep what every epoch shows on unheard clips.

    The first split is held out: its test clips, at most `MOST` and equally many of each class, are
    what is looked at. Epoch 0 is the untrained network. One thread: sums depend on it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _record(corpus, profile)
    finally:
        torch.set_num_threads(threads)


def _record(corpus: str, profile: str) -> dict:
    runs = {}
    for name, which in NETWORKS.items():
        settings = config.recipe(which, corpus=corpus, profile=profile, pretrain_on="train", seed=0)
        data = open_recipe_corpus(settings, progress=False)
        bench = _Bench(settings, data)
        rows = [bench.look()]

        def on_epoch(epoch: int, loss: float, rows=rows, bench=bench) -> None:
            rows.append(bench.look(epoch, loss, rows[-1]["map"]))

        history = bench.train(bench.step, on_epoch)
        runs[name] = {
            "recipe": json.loads(settings.to_json()),
            "epochs": rows,
            "cpu_seconds": history.cpu_seconds,
        }
    return {
        "corpus": {"name": data.name, "fingerprint": data.fingerprint()},
        "classes": list(data.classes),
        "clips": bench.clips.tolist(),
        "labels": data.labels[bench.clips].tolist(),
        "runs": runs,
        "code": code_fingerprint(),
        "versions": {name: version(name) for name in ("torch", "numpy", "scikit-learn")},
    }


class _Bench:
    """A network before its first step, what it learns from, and the clips it is looked at on."""

    def __init__(self, recipe: Recipe, corpus: Corpus) -> None:
        split = evaluation_splits(corpus, recipe)[0]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.recipe, self.y = recipe, corpus.labels
        self.clips = unheard(corpus.labels, split)
        self.pool = split.pretrain.to(device)
        self.store = open_store(corpus, recipe, progress=False).to(device)
        # the order of `experiments.fit`, and so its numbers
        self.network: Network = new_network(recipe, len(corpus.classes), device)
        self.generator = seed_everything(recipe.seed, device)
        self.scale = standardisation(self.store, self.pool, recipe.views.standardise)
        pairs = view_pairs(self.store, self.pool, views=recipe.views, generator=self.generator)
        self.step = SimCLRStep(
            *self.network.modules,
            pairs,
            recipe.loss,
            recipe.train.precision,
            recipe.train.two_passes,
        )
        batch = min(recipe.train.batch, len(self.pool))
        whole = len(self.pool) // batch
        self.batches = whole if recipe.train.drop_last else math.ceil(len(self.pool) / batch)

    def train(self, step: Callable[[Tensor], Tensor], on_epoch: Callable):
        return train(
            step,
            self.pool,
            self.network.modules,
            config=self.recipe.train,
            generator=self.generator,
            on_epoch=on_epoch,
        )

    def look(
        self, epoch: float = 0, trained: float | None = None, before: list | None = None
    ) -> dict:
        """The row of an epoch; the temperature of its NT-Xent is that of the recipe."""
        h, clip = embed(
            self.network.encoder,
            self.store,
            self.clips.to(self.pool.device),
            mean=self.scale[0],
            std=self.scale[1],
            patch_frames=self.recipe.views.patch_frames,
            hop=self.recipe.probe.hop,
            precision=self.recipe.train.precision,
        )
        with torch.no_grad():
            z = self.network.head.eval()(h).float().cpu()
        h, clip, loss = h.cpu(), clip.cpu(), self.recipe.loss
        present, count = clip.unique_consecutive(return_counts=True)
        last = count.cumsum(0) - 1
        first, two = last - count + 1, count > 1
        first, last = (at[two] if two.sum() > 1 else at for at in (first, last))
        options = {"margin": loss.margin, "reduction": loss.reduction}
        contrast = nt_xent(z[first], z[last], temperature=loss.temperature).item()
        angular = angular_margin(h[first], h[last], **options).item()
        ends = torch.cat([first, last])
        h_clip = torch.stack([h[clip == n].mean(0) for n in present])
        xy = projection.pca(h_clip)
        xy = projection.align(xy, xy if before is None else np.array(before))
        row = {
            "epoch": epoch,
            "train_loss": trained,
            "loss": loss.alpha * contrast + (1 - loss.alpha) * angular,
            "nt_xent": contrast,
            "angular": angular,
            "angles": median_angles(h[ends], clip[ends], self.y[clip[ends]]),
            **dict.fromkeys(MEASURES),
        }
        row |= {k: v for k, v in geometry(h, clip, self.y).items() if k in MEASURES}
        return _rounded(row) | {"map": [[round(v, 3) for v in at] for at in xy.tolist()]}


def unheard(y: Int[Tensor, " N"], split: Split) -> Int[Tensor, " n"]:
    """The first test clips of each class that training has no part in, at most `MOST` in all."""
    test = split.test[~torch.isin(split.test, split.pretrain)]
    classes = y[test].unique()
    each = max(2, MOST // max(len(classes), 1))
    some = [test[y[test] == k][:each] for k in classes]
    return torch.cat(some).sort().values if some else test


def median_angles(
    h: Float[Tensor, "N d"], clip: Int[Tensor, " N"], y: Int[Tensor, " N"]
) -> dict[str, float | None]:
    """Median angle in degrees between two patches, by what they share; None where none do."""
    u = F.normalize(h.double(), dim=1)
    apart, along = (torch.cdist(u, v, compute_mode="donot_use_mm_for_euclid_dist") for v in (u, -u))
    theta = torch.rad2deg(2 * torch.atan2(apart, along))  # keeps its digits near 0
    upper = torch.ones_like(theta, dtype=torch.bool).triu(1)
    same_clip, same_class = clip[:, None] == clip, y[:, None] == y
    masks = (same_clip, same_class & ~same_clip, ~same_class)
    groups = {name: theta[upper & mask] for name, mask in zip(GROUPS, masks, strict=True)}
    return {name: at.quantile(0.5).item() if len(at) else None for name, at in groups.items()}


def _rounded(value):
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return round(value, 3) if isinstance(value, float) else value


def _read(corpus: str) -> dict:
    for name in (corpus, "synthetic"):
        path = record_path("training", name)
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
    raise FileNotFoundError(f"{path} is not there: make it with `acl explorers build`")


def _angle_curves(runs: dict) -> Figure:
    epochs = torch.tensor([float(row["epoch"]) for row in next(iter(runs.values()))["epochs"]])
    rows = {
        f"median angle in h, {name} (degrees)": {
            f"{group}": torch.tensor([row["angles"][group] for row in run["epochs"]])
            for group in GROUPS
        }
        for name, run in runs.items()
    }
    return figures.panels(epochs, rows, "epoch (0: untrained)")


# ---- a running training


def _live(recipe: Recipe):
    if recipe.method != "simclr":
        raise ValueError(f"training shows contrastive recipes; {recipe.name!r} trains with labels")
    held = with_settings(recipe, pretrain_on="train")  # or no clip would be unheard
    state = {
        "shown": "both",
        "measure": "angles",
        "epoch": 0,
        "runs": {},
        "labels": [],
        "classes": [],
        "about": f"{recipe.corpus}, profile {recipe.profile}, seed {recipe.seed}",
        "live": True,
        "temperature": float(recipe.loss.temperature),
        "steps": [],  # [epochs so far, loss] of the training's steps
        "marks": [],  # [epochs so far, temperature] where it was changed
        "phase": "idle",  # running, paused, done or failed
        "status": "Not started.",
        "ask": "",  # what a button wants: start, pause, resume or stop
    }

    def attach(widget) -> None:
        widget.network = widget.scale = widget.error = None
        widget.history = []
        thread: list[_Run] = []

        def end() -> None:
            for run in thread:
                run.end()
                run.join()
            thread.clear()

        def answer(change) -> None:
            if change["new"] == "start":
                end()
                thread.append(_Run(widget, held))
                thread[0].start()
            elif change["new"] and thread:
                {"pause": thread[0].pause, "resume": thread[0].resume, "stop": thread[0].end}[
                    change["new"]
                ]()
            widget.ask = ""

        def closing(close=widget.close) -> None:
            end()
            close()

        widget.observe(answer, "ask")
        widget.close = closing

    return explorer("training", state, lambda: None, "", live=attach)


class _Ended(Exception):
    """The reader wants no further step."""


class _Run(threading.Thread):
    """One training beside the kernel; torch lets the kernel work while it computes."""

    def __init__(self, widget, recipe: Recipe) -> None:
        super().__init__(daemon=True)
        self.widget, self.recipe = widget, recipe
        self.going, self.ended = threading.Event(), threading.Event()
        self.going.set()
        self.steps: list[list[float]] = []
        self.rows: list[dict] = []
        self.done, self.every, self.sent = 0, 1, 0.0

    def pause(self) -> None:
        self.going.clear()

    def resume(self) -> None:
        self.going.set()

    def end(self) -> None:
        self.ended.set()
        self.going.set()

    def run(self) -> None:
        tell = self.widget.set_trait
        self.widget.error, self.widget.history = None, []
        try:
            for name, value in {"runs": {}, "steps": [], "marks": [], "epoch": 0}.items():
                tell(name, value)
            tell("status", "Opening the corpus.")
            tell("phase", "running")
            status = self._train()
            tell("status", status)
            tell("phase", "done")
        except Exception as error:  # it would end in a log that nobody reads
            self.widget.error = error
            tell("status", f"{type(error).__name__}: {error}")
            tell("phase", "failed")
        finally:
            if self.widget.network:
                for module in self.widget.network.modules:
                    module.eval()

    def _train(self) -> str:
        corpus = open_recipe_corpus(self.recipe, progress=False)
        self.bench = bench = _Bench(self.recipe, corpus)
        self.widget.network, self.widget.scale = bench.network, bench.scale
        self.widget.set_trait("classes", list(corpus.classes))
        self.widget.set_trait("labels", corpus.labels[bench.clips].tolist())
        self._show(0, None)
        try:
            bench.train(self._step, self._show)
        except _Ended:
            if self.done % bench.batches:
                self._show(round(self.done / bench.batches, 2), None)
            self.widget.set_trait("steps", list(self.steps))
            return f"Stopped at epoch {self.done / bench.batches:.1f}, kept."
        self.widget.set_trait("steps", list(self.steps))
        return f"Finished after epoch {self.recipe.train.epochs}."

    def _step(self, clips: Int[Tensor, " B"]) -> Float[Tensor, ""]:
        at, step, widget = self.done / self.bench.batches, self.bench.step, self.widget
        if not self.going.is_set():
            widget.set_trait("steps", list(self.steps))
            widget.set_trait("status", f"Paused at epoch {at:.1f}.")
            widget.set_trait("phase", "paused")
            self.going.wait()
            widget.set_trait("phase", "running")
        if self.ended.is_set():
            raise _Ended
        if widget.temperature != step.loss.temperature:
            step.loss = replace(step.loss, temperature=widget.temperature)
            before = [m for m in widget.marks if at - m[0] > 0.25]  # a slider passes many values
            widget.set_trait("marks", [*before, [round(at, 3), round(widget.temperature, 3)]])
        loss = step(clips)
        self.done += 1
        if self.done % self.every == 0:
            self.steps.append([round(self.done / self.bench.batches, 3), round(loss.item(), 4)])
        if len(self.steps) > LONGEST:
            self.steps, self.every = self.steps[1::2], 2 * self.every
        if time.monotonic() - self.sent > PACE:
            self.sent = time.monotonic()
            widget.set_trait("steps", list(self.steps))
            of = self.recipe.train.epochs * self.bench.batches
            widget.set_trait("status", f"Step {self.done} of {of}.")
        return loss

    def _show(self, epoch: float, loss: float | None) -> None:
        before = self.rows[-1]["map"] if self.rows else None
        self.rows.append(self.bench.look(epoch, loss and round(loss, 3), before))
        self.widget.history = [
            {key: value for key, value in row.items() if key != "map"} for row in self.rows
        ]
        name = "NT-Xent" if self.recipe.loss.alpha == 1 else "ACL"
        run = {"epochs": list(self.rows), "plan": self.recipe.train.epochs}
        follows = self.widget.epoch >= len(self.rows) - 2  # unless the reader looks at an old one
        self.widget.set_trait("runs", {name: run})
        if follows:
            self.widget.set_trait("epoch", len(self.rows) - 1)
