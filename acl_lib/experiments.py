"""Recipe -> record: the one place that wires corpus, store, training and probe together.

record = run(recipe("acl", corpus="esc10", profile="laptop"))
print(record.table())
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import string
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm

from . import checkpoints, config
from .config import Recipe
from .datasets import Corpus, cache_dir, open_corpus
from .features import LogMel, LogMelStore
from .models import ProjectionHead, ResNet18
from .probing import embed, folds_by_group, linear_probe, log_mel_statistics
from .statistics import seed_interval, wilson_interval
from .training import half_precision, seed_everything, simclr_step, train, view_pairs

# what a change to can change a number
CODE = "config features views augment models losses training probing metrics".split()
LETTERS = string.ascii_letters + string.digits  # a class, as one letter of a record's predictions
NAMES = {
    "trained": "trained encoder, linear probe",
    "untrained": "untrained encoder, same probe",
    "statistics": "log-mel statistics, same probe",
}


@dataclass(frozen=True)
class Split:
    """Which clips a fold may learn from. Pretraining sees no labels; `test` is opened once."""

    name: str
    pretrain: Int[Tensor, " p"]
    probe: Int[Tensor, " n"]
    test: Int[Tensor, " m"]


@dataclass(frozen=True)
class Record:
    """What a run did and found: one JSON file, plus the encoders it trained beside it."""

    recipe: Recipe
    corpus: dict  # name, fingerprint, clips, classes
    results: dict  # trained, untrained, statistics -> accuracy, interval, n, folds, predictions
    history: list  # mean loss of each epoch, for each pretraining
    splits: list  # names of the pretrainings, in the order of `history`
    cost: dict
    versions: dict
    code: str
    path: Path

    @classmethod
    def read(cls, path: str | os.PathLike) -> Record:
        """A record from its JSON file."""
        path = Path(path)
        values = json.loads(path.read_text())
        return cls(
            **values | {"recipe": config.from_json(json.dumps(values["recipe"])), "path": path}
        )

    def write(self) -> None:
        """Put the record on disk, whole or not at all."""
        values = asdict(self)
        del values["path"]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(values, indent=1) + "\n")
        os.replace(part, self.path)

    def encoder(self, split: int = 0) -> ResNet18:
        """The trained encoder, in eval mode; the first pretraining's unless told otherwise."""
        encoder = ResNet18(self.recipe.train.width)
        encoder.load_state_dict(checkpoints.load(_weights(self.path.parent, self.splits[split])))
        return encoder.eval()

    def table(self) -> str:
        """Accuracy of the probe beside both baselines, as a table to print."""
        r, cost = self.recipe, self.cost
        seen = "all clips, no labels" if r.pretrain_on == "all" else "the training clips only"
        lines = [
            f"{r.name} on {r.corpus}: profile {r.profile}, seed {r.seed}, alpha {r.loss.alpha:g}, "
            f"temperature {r.loss.temperature:g}",
            f"pretrained on {seen}",
            f"{'':31} accuracy   95 % interval   clips   folds",
        ]
        for key, name in NAMES.items():
            got = self.results[key]
            low, high = got["interval"]
            folds = " ".join(f"{100 * a:.1f}" for a in got["folds"]) if got["folds"][1:] else "-"
            lines.append(
                f"{name:31} {100 * got['accuracy']:6.2f} %   {100 * low:5.1f} to {100 * high:4.1f}"
                f"   {got['n']:6}   {folds}"
            )
        lines.append(
            f"{cost['train_cpu_seconds'] / len(self.splits):.0f} CPU-seconds a pretraining "
            f"({len(self.splits)} of them), {cost['wall_seconds']:.0f} s in all on {cost['device']}"
        )
        return "\n".join(lines)


def over_seeds(records: Sequence[Record]) -> dict[str, dict]:
    """Accuracies of the same method and protocol over seeds, and those of the baselines.

    The baselines come from the records that pretrained on all clips, where there are any.

    Returns:
        name -> per_seed, mean, interval, train_cpu_seconds (mean of one pretraining). The
        interval is Student's over seeds; of a single seed, Wilson's over its clips.

    Raises:
        ValueError: no records.
    """
    if not records:
        raise ValueError("no records to compare: make some with `acl run ... --record FILE`")
    lenient = [r for r in records if r.recipe.pretrain_on == "all"] or records
    groups: dict[str, list[tuple[Record, dict]]] = {}
    for record in records:
        loss = record.recipe.loss
        name = "NT-Xent" if loss.alpha == 1 else f"ACL, alpha {loss.alpha:g}, {loss.reduction}"
        name += f"; pretrained on {record.recipe.pretrain_on}"
        groups.setdefault(name, []).append((record, record.results["trained"]))
    groups["untrained encoder"] = [
        (r, r.results["untrained"]) for r in {r.recipe.seed: r for r in lenient}.values()
    ]
    groups["log-mel statistics"] = [(r, r.results["statistics"]) for r in lenient[:1]]
    rows = {}
    for name, group in groups.items():
        values = [result["accuracy"] for _, result in group]
        seconds = [r.cost["train_cpu_seconds"] / len(r.splits) for r, _ in group]
        rows[name] = {
            "per_seed": values,
            "mean": statistics.fmean(values),
            "interval": seed_interval(values) if values[1:] else group[0][1]["interval"],
            "train_cpu_seconds": statistics.fmean(seconds),
        }
    return rows


def runs_dir() -> Path:
    """Where runs are kept: `$ACL_RUNS`, or `runs` in the working folder."""
    return Path(os.environ.get("ACL_RUNS", "runs")).absolute()


def evaluation_splits(corpus: Corpus, recipe: Recipe) -> list[Split]:
    """The folds of a corpus, or its official split; clips of one source never on both sides.

    A corpus with neither is cut into five folds by source.

    Raises:
        ValueError: nothing to learn from or to test on; a source on both sides; a clip without a
            fold among clips with one; no training clip in the subset `probe_on`.
    """
    everything, source = torch.arange(len(corpus)), source_numbers(corpus)

    def split(name: str, train: Tensor, test: Tensor, labelled: Tensor | None = None) -> Split:
        if not (train.any() and test.any()):
            raise ValueError(
                f"{corpus.name}, {name}: {int(train.sum())} clips to learn from and "
                f"{int(test.sum())} to test on; it needs two folds or sources at least"
            )
        if (both := torch.isin(source, source[train]) & test).any():
            one = corpus.clips[int(both.nonzero()[0])]
            raise ValueError(
                f"{corpus.name}, {name}: {int(both.sum())} test clips have a source that training "
                f"clips have too, such as {one.path.name} of {one.source!r}; correct the folds"
            )
        pretrain = everything if recipe.pretrain_on == "all" else everything[train]
        probe = everything[train if labelled is None else labelled]
        return Split(name, pretrain, probe, everything[test])

    if any(clip.split == "test" for clip in corpus.clips):
        train = torch.tensor([clip.split == "train" for clip in corpus.clips])
        test = torch.tensor([clip.split == "test" for clip in corpus.clips])
        named = train & torch.tensor([recipe.probe_on in clip.subsets for clip in corpus.clips])
        subsets = sorted({name for clip in corpus.clips for name in clip.subsets})
        if subsets and not named.any():
            raise ValueError(
                f"no training clip of {corpus.name} is in probe_on={recipe.probe_on!r}; "
                f"its subsets are {', '.join(subsets)}"
            )
        return [split("test", train, test, named if subsets else train)]
    if corpus.folds:
        if without := [clip.path.name for clip in corpus.clips if clip.fold is None]:
            raise ValueError(
                f"{corpus.name}: {len(without)} of {len(corpus)} clips have no fold, such as "
                f"{without[0]}; give one to every clip or to none"
            )
        fold = torch.tensor([clip.fold for clip in corpus.clips])
    else:
        fold = 1 + folds_by_group(source, 5)
    return [split(f"fold {k}", fold != k, fold == k) for k in sorted(set(fold.tolist()))]


def source_numbers(corpus: Corpus) -> Int[Tensor, " N"]:
    """The source of every clip, as a number."""
    number = {source: i for i, source in enumerate(sorted({c.source for c in corpus.clips}))}
    return torch.tensor([number[clip.source] for clip in corpus.clips])


def open_store(
    corpus: Corpus, recipe: Recipe, *, skip_unreadable: bool = False, progress: bool = True
) -> LogMelStore:
    """The log-mel store of a corpus, from the cache or made now."""
    mel = LogMel(**asdict(recipe.mel))
    return LogMelStore.build(
        corpus, mel, cache_dir(), skip_unreadable=skip_unreadable, progress=progress
    )


def new_encoder(recipe: Recipe, device: str | torch.device = "cpu") -> ResNet18:
    """The untrained encoder of a recipe: its seed decides the weights."""
    torch.manual_seed(recipe.seed)
    return ResNet18(recipe.train.width).to(device, memory_format=torch.channels_last)


def pretrain(
    recipe: Recipe,
    store: LogMelStore,
    pool: Int[Tensor, " n"],
    *,
    on_epoch: Callable[[int, float], None] | None = None,
) -> tuple[ResNet18, list[float]]:
    """Contrastive pretraining of a recipe on a pool of clips, whose labels are not looked at.

    Args:
        store: on the device to train on.
        pool: clips to train on.
        on_epoch: called with the number of finished epochs and the epoch's mean loss.

    Returns:
        The encoder (the head is thrown away) and the mean loss of each epoch.
    """
    device = store.frames.device
    encoder = new_encoder(recipe, device)
    d = 8 * recipe.train.width
    head = ProjectionHead(d, d, d).to(device)
    generator = seed_everything(recipe.seed, device)
    pool = pool.to(device)
    pairs = view_pairs(store, pool, views=recipe.views, generator=generator)
    step = simclr_step(encoder, head, pairs, loss=recipe.loss, precision=recipe.train.precision)
    history = train(
        step, pool, [encoder, head], config=recipe.train, generator=generator, on_epoch=on_epoch
    )
    return encoder, history


def run(
    recipe: Recipe,
    *,
    device: str = "auto",
    again: bool = False,
    skip_unreadable: bool = False,
    progress: bool = True,
) -> Record:
    """Pretrain, probe, compare with both baselines, and write the record; or find it again.

    A run of the same recipe, corpus and code that is already in `runs_dir()` is returned as it
    is. The record always carries the same encoder untrained, and log-mel statistics, under the
    same probe and folds.

    Args:
        device: "cpu", "cuda" or "auto".
        again: run even if a record exists.
        skip_unreadable: take unreadable files as silence instead of stopping.
        progress: draw progress bars.

    Returns:
        The record, whose `path` lies in `runs_dir()`.

    Raises:
        ValueError: no such device; or as `evaluation_splits` does.
        OSError: the corpus is not there, or the disk is full.
        UnreadableAudioError: names every unreadable file, unless `skip_unreadable`.
        FloatingPointError: the loss stopped being finite.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device was found; use device='cpu' or 'auto'")
    corpus = open_recipe_corpus(recipe, progress=progress)
    folder = runs_dir() / f"{recipe.name}-{recipe.corpus}-{_run_key(recipe, corpus)}"
    if (folder / "record.json").exists() and not again:
        return Record.read(folder / "record.json")
    splits = evaluation_splits(corpus, recipe)
    once = recipe.pretrain_on == "all"
    folder.mkdir(parents=True, exist_ok=True)
    started, cpu_started = time.perf_counter(), time.process_time()
    store = open_store(corpus, recipe, skip_unreadable=skip_unreadable, progress=progress)
    store = store.to(device)
    judge = _Judge(recipe, corpus, store)
    history, names, train_cpu = [], [], 0.0
    encoder = None
    for split in splits:
        if encoder is None or not once:
            name = "all" if once else split.name
            before = time.process_time()
            with _bar(f"{recipe.name}, {name}", recipe, len(split.pretrain), progress) as bar:
                encoder, losses = pretrain(recipe, store, split.pretrain, on_epoch=bar.tick)
            train_cpu += time.process_time() - before
            checkpoints.save(_weights(folder, name), encoder.state_dict())
            history.append(losses)
            names.append(name)
            judge.embed(encoder, split)
        judge.score(split)
    record = Record(
        recipe=recipe,
        corpus={
            "name": corpus.name,
            "fingerprint": corpus.fingerprint(),
            "clips": len(corpus),
            "classes": list(corpus.classes),
        },
        results=judge.results(),
        history=history,
        splits=names,
        cost={
            "train_cpu_seconds": round(train_cpu, 1),
            "cpu_seconds": round(time.process_time() - cpu_started, 1),
            "wall_seconds": round(time.perf_counter() - started, 1),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
            "bfloat16": half_precision(recipe.train.precision, device),
        },
        versions={name: version(name) for name in ("torch", "torchaudio", "numpy", "soxr")}
        | {"python": platform.python_version()},
        code=code_fingerprint(),
        path=folder / "record.json",
    )
    record.write()
    return record


def open_recipe_corpus(recipe: Recipe, *, progress: bool = True) -> Corpus:
    """The corpus of a recipe; the synthetic one comes in the size of the profile."""
    made = {"profile": recipe.profile, "progress": progress}
    return open_corpus(recipe.corpus, **made if recipe.corpus == "synthetic" else {})


def code_fingerprint() -> str:
    """A hash of the modules that can change a number."""
    here = Path(__file__).parent
    text = b"".join((here / f"{name}.py").read_bytes() for name in CODE)
    return hashlib.sha256(text).hexdigest()[:16]


class _Judge:
    """Scores the trained encoder and both baselines on the same folds with the same probe."""

    def __init__(self, recipe: Recipe, corpus: Corpus, store: LogMelStore) -> None:
        self.recipe, self.store = recipe, store
        device = store.frames.device
        self.y = corpus.labels.to(device)
        self.groups = source_numbers(corpus).to(device)
        self.num_classes = len(corpus.classes)
        self.clips = torch.arange(len(corpus), device=device)
        self.h = {"statistics": (log_mel_statistics(store, self.clips), self.clips)}
        self.guess = {key: torch.full_like(self.y, -1) for key in NAMES}
        self.folds: dict[str, list[float]] = {key: [] for key in NAMES}

    def embed(self, encoder: ResNet18, split: Split) -> None:
        mean, std = self.store.mel_statistics(split.pretrain)
        untrained = new_encoder(self.recipe, self.y.device)
        for key, model in (("trained", encoder), ("untrained", untrained)):
            self.h[key] = embed(
                model,
                self.store,
                self.clips,
                mean=mean,
                std=std,
                patch_frames=self.recipe.views.patch_frames,
                hop=self.recipe.probe.hop,
                precision=self.recipe.train.precision,
            )

    def score(self, split: Split) -> None:
        test = split.test.to(self.y.device)
        for key in NAMES:
            h, clip = self.h[key]
            posterior, _ = linear_probe(
                h,
                clip,
                self.y,
                train=split.probe.to(self.y.device),
                test=test,
                groups=self.groups,
                num_classes=self.num_classes,
                config=self.recipe.probe,
            )
            self.guess[key][test] = posterior.argmax(dim=1)
            right = self.guess[key][test] == self.y[test]
            self.folds[key].append(right.double().mean().item())

    def results(self) -> dict:
        return {key: self._result(key) for key in NAMES}

    def _result(self, key: str) -> dict:
        judged = self.guess[key] >= 0
        right, n = int((self.guess[key] == self.y)[judged].sum()), int(judged.sum())
        letters = [LETTERS[g] if g >= 0 else "-" for g in self.guess[key].tolist()]
        return {
            "accuracy": right / n,
            "interval": list(wilson_interval(right, n)),  # as it comes back from JSON
            "n": n,
            "folds": self.folds[key],
            "fold_sd": statistics.stdev(self.folds[key]) if self.folds[key][1:] else None,
            "predictions": "".join(letters),  # one letter a clip, "-" where it was not tested
        }


class _bar:
    """A progress bar over clips, with clips per second and the time left."""

    def __init__(self, title: str, recipe: Recipe, pool: int, progress: bool) -> None:
        self.pool = pool
        self.bar = tqdm(
            total=pool * recipe.train.epochs, desc=title, unit="clip", disable=not progress
        )

    def __enter__(self) -> _bar:
        return self

    def tick(self, epoch: int, loss: float) -> None:
        self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self.bar.update(self.pool)

    def __exit__(self, *failed) -> None:
        self.bar.close()


def _run_key(recipe: Recipe, corpus: Corpus) -> str:
    what = recipe.digest() + corpus.fingerprint() + code_fingerprint()
    return hashlib.sha256(what.encode()).hexdigest()[:12]


def _weights(folder: Path, split: str) -> Path:
    return folder / f"encoder-{split.replace(' ', '-')}.pt"


def _processor() -> str:
    """The processor's model, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()
