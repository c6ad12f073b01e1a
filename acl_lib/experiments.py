"""Recipe -> record: the one place that wires corpus, store, training and probe together.

For instance:

    record = run(recipe("acl", corpus="esc10", profile="laptop"))
    print(record.table())
"""

from __future__ import annotations

import ast
import contextlib
import copy
import hashlib
import io
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import tokenize
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import psutil
import torch
from filelock import FileLock
from jaxtyping import Int
from torch import Tensor, nn
from tqdm.auto import tqdm

from . import checkpoints, parallel
from .config import LabelConfig, Recipe, with_settings
from .datasets import MADE, Corpus, cache_dir, open_corpus
from .features import LogMel, LogMelStore
from .models import BaselineCNN, Classifier, Part, ProjectionHead, ResNet18
from .probing import (
    clip_posterior,
    embed,
    knn,
    knn_score,
    linear_probe,
    log_mel_statistics,
    train_classifier,
)
from .records import (
    LETTERS,
    REPRESENTATIONS,
    Record,
    differences,
    geometry,
    score,
    write_whole,
)
from .splits import Split, evaluation_splits, lessons, source_numbers, vocabulary
from .training import (
    History,
    KeyMemory,
    MoCoStep,
    SimCLRStep,
    SupConStep,
    SupervisedStep,
    half_precision,
    labelled_views,
    seed_everything,
    standardisation,
    train,
    view_pairs,
)
from .verification import all_trials, cosine_scores, listed_trials, verification_score

Scale = tuple  # mean and standard deviation, of all values or of each band: see `standardisation`

# what a change to can change a number; what `config` holds, a record's recipe tells
CODE = (
    "datasets/label_noise features views augment models blockwise losses parallel training probing "
    "metrics splits verification experiments"
).split()


def runs_dir() -> Path:
    """Where runs are kept: `$ACL_RUNS`, or `runs` in the working folder."""
    return Path(os.environ.get("ACL_RUNS", "runs")).absolute()


def open_store(
    corpus: Corpus, recipe: Recipe, *, skip_unreadable: bool = False, progress: bool = True
) -> LogMelStore:
    """The log-mel store of a corpus, from the cache or made now."""
    mel = LogMel(**asdict(recipe.mel))
    return LogMelStore.build(
        corpus,
        mel,
        cache_dir(),
        skip_unreadable=skip_unreadable,
        progress=progress and _draws_bars(),
    )


@dataclass(frozen=True)
class Network:
    """What a recipe trains, by its parts."""

    encoder: nn.Module  # x -> h
    d: int  # width of h
    head: nn.Module | None = None  # h -> z, of "simclr", "moco" and "supcon"
    classifier: nn.Module | None = None  # x -> logits, h, of "supervised"

    @property
    def modules(self) -> list[nn.Module]:
        """What is trained, without repetitions."""
        return [self.classifier] if self.classifier else [self.encoder, self.head]

    def state(self) -> list[dict]:
        return [module.state_dict() for module in self.modules]


def new_network(recipe: Recipe, num_classes: int, device: str | torch.device = "cpu") -> Network:
    """The untrained network of a recipe: its seed decides the weights."""
    torch.manual_seed(recipe.seed)
    if recipe.train.network == "baseline_cnn":
        network = BaselineCNN(
            num_classes, n_mels=recipe.mel.n_mels, patch_frames=recipe.views.patch_frames
        ).to(device)
        return Network(Part(network, 1), d=48, classifier=network)
    encoder = ResNet18(recipe.train.width).to(device, memory_format=torch.channels_last)
    d = 8 * recipe.train.width
    if recipe.method == "supervised":
        return Network(encoder, d, classifier=Classifier(encoder, d, num_classes).to(device))
    head = ProjectionHead(d, d, recipe.train.projection or d).to(device)
    return Network(encoder, d, head=head)


def load_network(record: Record, split: int = 0) -> Network:
    """The trained network of a record, in eval mode; the first training's unless told otherwise.

    Raises:
        FileNotFoundError: the record was moved away from its run, or came without one.
    """
    return _trained(record, split, "cpu")[0]


def _trained(record: Record, split: int, device: str) -> tuple[Network, Scale]:
    path = _weights(record.path.parent, record.splits[split])
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is not there: the networks of a record lie beside it in the folder of its "
            "run; `run(record.recipe)` finds that folder or makes it again"
        )
    return _load(path, record.recipe, len(record.corpus["classes"]), device)[:2]


def _load(
    path: Path, recipe: Recipe, num_classes: int, device: str | torch.device
) -> tuple[Network, Scale, dict]:
    saved = checkpoints.load(path, device=device)
    network = new_network(recipe, num_classes, device)
    for module, state in zip(network.modules, saved["modules"], strict=True):
        module.load_state_dict(state)
        module.eval()
    return network, tuple(saved["scale"]), saved["history"]


def fit(
    recipe: Recipe,
    store: LogMelStore,
    y: Int[Tensor, " N"],
    split: Split,
    *,
    num_classes: int,
    on_epoch: Callable[[int, float], bool | None] | None = None,
    checkpoint: str | os.PathLike | None = None,
) -> tuple[Network, Scale, History]:
    """Train the network of a recipe on the clips that a split lets it see.

    Args:
        store: on the device to train on.
        y: class of every clip; without labels, those of the selecting clips alone are looked at,
            and none where the last epoch is kept; with them those of the training clips too.
        on_epoch, checkpoint: as in `training.train`.

    Returns:
        The network with the weights that were kept, the mean and standard deviation that its
        patches come with, and the history.
    """
    device = store.device
    network = new_network(recipe, num_classes, device)
    generator = seed_everything(recipe.seed, device)
    pool, validate, y = split.pretrain.to(device), split.validate.to(device), y.to(device)
    settings, select = recipe.train, recipe.select
    scale = standardisation(store, pool, recipe.views.standardise)

    if network.head:
        pairs = view_pairs(store, pool, views=recipe.views, generator=generator)
        trained = map(parallel.replica, network.modules)
        parts = *trained, pairs, recipe.loss, settings.precision, settings.two_passes
        if recipe.method == "moco":
            memory = KeyMemory(
                *network.modules,
                d=settings.projection or network.d,
                queue=recipe.moco.queue,
                directions=1 + recipe.loss.symmetric,
                generator=generator,
            )
            step = MoCoStep(
                *parts,
                memory=memory,
                momentum=recipe.moco.key_momentum,
                groups=recipe.moco.key_groups,
                generator=generator,
            )
        elif recipe.method == "supcon":
            step = SupConStep(*parts, y=y)
        else:
            step = SimCLRStep(*parts)
        ids = pool

        def score() -> float:
            to_z = nn.Sequential(network.encoder, network.head)
            z, clip = _embed(recipe, to_z, store, validate, scale)
            return knn_score(
                z, clip, y, neighbours=select.select_neighbours, num_classes=num_classes
            )

    else:
        views, clips = labelled_views(store, pool, views=recipe.views, generator=generator)
        trained = parallel.replica(network.classifier)
        step = SupervisedStep(trained, views, y[clips], recipe.loss, settings.precision)
        ids = torch.arange(len(clips), device=device)

        @torch.no_grad()
        def score() -> float:
            views, clips = labelled_views(
                store,
                validate,
                views=recipe.views.plain(),
                generator=torch.Generator(device).manual_seed(recipe.seed),
                scale=scale,
            )
            network.classifier.eval()
            judge = replace(step, network=network.classifier, views=views, y=y[clips])
            items = torch.arange(len(clips), device=device)
            whole = max(len(items) // settings.batch, 1) * settings.batch
            losses = [judge(some) for some in items[:whole].split(settings.batch)]
            return -(sum(losses) / len(losses)).item()

    history = train(
        step,
        ids,
        network.modules,
        config=settings,
        generator=generator,
        on_epoch=on_epoch,
        score=score if select.select_by != "last" else None,
        score_every=select.select_every,
        checkpoint=checkpoint,
    )
    return network, scale, history


def _embed(recipe: Recipe, model: nn.Module, store, clips, scale) -> tuple[Tensor, Tensor]:
    return embed(
        model,
        store,
        clips,
        mean=scale[0],
        std=scale[1],
        patch_frames=recipe.views.patch_frames,
        hop=recipe.probe.hop,
        precision=recipe.train.precision,
    )


def run(
    recipe: Recipe,
    *,
    device: str = "auto",
    threads: int | str | None = None,
    again: bool = False,
    skip_unreadable: bool = False,
    progress: bool = True,
    folder: str | os.PathLike | None = None,
) -> Record:
    """Train, probe, compare with both baselines, and write the record; or find it again.

    A run of the same recipe, corpus, code and kind of device that is already in `runs_dir()` is
    returned as it is; one that was interrupted goes on where it stopped, to the same record. The
    record always carries the same network untrained, and log-mel statistics, under the same
    readers and folds. Started by torchrun, several processes train together (see `parallel`); the
    first of them probes and writes.

    Args:
        device: "cpu", "cuda" or "auto".
        threads: processor threads of torch; as they are when None; "free": as many as cores are
            idle, and after an interruption as many as before it. Sums depend on them in their last
            digit, so that a record is repeated exactly with its own number of threads only.
        again: run even if a record exists.
        skip_unreadable: take unreadable files as silence instead of stopping.
        progress: draw progress bars.
        folder: where runs are kept, instead of `runs_dir()`.

    Returns:
        The record, whose `path` lies in that folder.

    Raises:
        ValueError: no such device; or as `evaluation_splits` does.
        OSError: the corpus is not there, or the disk is full.
        UnreadableAudioError: names every unreadable file, unless `skip_unreadable`.
        FloatingPointError: the loss or its gradient stopped being finite.
    """
    device = _device(device)
    if threads not in (None, "free"):
        if threads < 1:
            raise ValueError(f"threads must be at least 1; got {threads}")
        torch.set_num_threads(threads)
    with parallel.joined(device):
        progress = progress and parallel.is_first()
        with parallel.first_ahead():
            whole = open_recipe_corpus(recipe, progress=progress)
        corpus, _ = vocabulary(whole, recipe)
        what = "".join([recipe.digest(), whole.fingerprint(), code_fingerprint(), device])
        what += str(skip_unreadable) * skip_unreadable
        key = hashlib.sha256(what.encode()).hexdigest()[:12]
        home = Path(folder) if folder else runs_dir()
        home = home / f"{recipe.name}-{corpus.name}-{key}"
        splits = evaluation_splits(corpus, recipe)
        home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home.parent / f".{home.name}.lock")  # who else makes this run is waited for
        with lock if parallel.is_first() else contextlib.nullcontext():
            if parallel.from_first(lambda: _is_made(home, again)):
                return Record.read(home / "record.json")
            if threads == "free":
                torch.set_num_threads(parallel.from_first(lambda: _free_threads(home)))
            started, cpu_started = time.perf_counter(), time.process_time()
            with parallel.first_ahead():
                store = open_store(
                    whole, recipe, skip_unreadable=skip_unreadable, progress=progress
                )
            work = _Work(recipe, whole, store.to(device), home, progress)
            for split in splits:
                work.hear(split)
                work.fit(split)
                if parallel.is_first():
                    with parallel.alone():
                        work.ask(split)
            with parallel.first_ahead():
                if parallel.is_first():
                    spent = time.perf_counter() - started, time.process_time() - cpu_started
                    record = work.record(device, *spent)
                    record.write()
                    _clear(home)
        return record if parallel.is_first() else Record.read(home / "record.json")


def _free_threads(home: Path) -> int:
    """As many threads as cores are idle, up to torch's own number; noted for what goes on later.

    Threads that wait for a core make a step slower than one thread alone (`benchmarks/threads.py`).
    """
    note = home / "threads.resume"
    if not note.exists():
        idle = psutil.cpu_times_percent(interval=0.5).idle / 100 * psutil.cpu_count()
        write_whole(note, str(max(1, min(round(idle), torch.get_num_threads()))))
    return int(note.read_text())


def _is_made(home: Path, again: bool) -> bool:
    if again:
        for file in home.iterdir():
            file.unlink()
    made = (home / "record.json").exists()
    if made:
        _clear(home)  # it may have died before it could
    return made


def _clear(home: Path) -> None:
    """Remove what a run is taken up from, once its record is there."""
    for leftover in (*home.glob("*.resume"), *home.glob("*.part")):
        leftover.unlink()


def reproduce(
    record: Record, *, device: str | None = None, progress: bool = True
) -> tuple[list[str], list[str]]:
    """Run a record's recipe again, with its device and threads, and say what came out otherwise.

    The new run lies in `runs_dir()/reproduced` until it is done; an interrupted one goes on.

    Args:
        device: another kind of device than the record's; its numbers will differ a little.

    Returns:
        One line for each number of the record that differs, none where it repeats itself exactly;
        and one for each circumstance that does (code, corpus, versions, device).
    """
    fresh = run(
        record.recipe,
        device=device or record.cost["kind"],
        threads=record.cost["threads"],
        progress=progress,
        folder=runs_dir() / "reproduced",
    )
    numbers, circumstances = (
        [line for name in names for line in differences(name, old[name], new[name])]
        for names, old, new in (
            (("results", "geometry", "history", "selection"), vars(record), vars(fresh)),
            (("code", "commit", "corpus", "versions"), vars(record), vars(fresh)),
        )
    )
    for name in ("kind", "device", "threads", "bfloat16"):
        circumstances += differences(name, record.cost[name], fresh.cost[name])
    circumstances += differences("ranks", record.cost.get("ranks", 1), fresh.cost["ranks"])
    shutil.rmtree(fresh.path.parent)  # or the next would find it and compare nothing new
    return numbers, circumstances


def probe(
    record: Record,
    *,
    corpus: str | None = None,
    split: int = 0,
    device: str = "auto",
    progress: bool = True,
    **settings,
) -> dict:
    """Ask the networks of a record other questions, or the same about another corpus.

    About its own corpus every fold is judged by the network that did not see it; about another
    corpus by one network, which has seen none of it.

    Args:
        corpus: another corpus, by the name that `open_corpus` takes.
        split: number of the training whose network goes to another corpus.
        settings: fields of `config.ProbeConfig`, and `probe_on`.

    Returns:
        representation -> reader -> score, as in `Record.results`.

    Raises:
        ValueError: a setting that is none of the probe's.
        FileNotFoundError: the networks do not lie beside the record.
    """
    if other := set(settings) - {*asdict(record.recipe.probe), "probe_on"}:
        raise ValueError(
            f"{', '.join(sorted(other))} belongs to the training; the probe's settings are "
            f"{', '.join([*asdict(record.recipe.probe), 'probe_on'])}"
        )
    abroad = corpus not in (None, record.recipe.corpus)
    recipe = with_settings(record.recipe, **settings)
    if abroad:  # what was done to the clips of one corpus has no place in another
        recipe = replace(recipe, corpus=corpus, labels=LabelConfig(), splits=0)
    opened = open_recipe_corpus(recipe, progress=progress)
    device = _device(device)
    store = open_store(opened, recipe, progress=progress).to(device)
    work = _Work(recipe, opened, store, None, progress)
    for i, part in enumerate(evaluation_splits(work.corpus, recipe)):
        work.hear(part)
        if i == 0 or not (abroad or record.splits == ["all"]):
            network, scale = _trained(record, split if abroad else i, device)
            if abroad:
                network = replace(network, classifier=None)  # it knows other classes
            work.take(record.recipe, network, scale)
        work.ask(part)
    return work.results()


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device was found; use device='cpu' or 'auto'")
    return name


def open_recipe_corpus(recipe: Recipe, *, progress: bool = True) -> Corpus:
    """The corpus of a recipe; those made on the spot come in the size of the profile."""
    size = "quick" if recipe.profile == "quick" else "laptop"
    made = {"profile": size, "progress": progress and _draws_bars()}
    return open_corpus(recipe.corpus, **made if recipe.corpus in MADE else {})


def code_fingerprint() -> str:
    """A hash of the modules that can change a number, as they were when Python loaded this one."""
    return _LOADED


def _fingerprint_of(package: Path) -> str:
    text = "".join(_bare((package / f"{name}.py").read_text(encoding="utf-8")) for name in CODE)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _bare(source: str) -> str:
    """A module without what only a reader sees: docstrings, comments, empty lines."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                lines[first.lineno - 1 : first.end_lineno] = [""] * (
                    first.end_lineno - first.lineno + 1
                )
    return "\n".join(line.rstrip() for line in lines if line.strip())


# read once: a file may change while a run of what was loaded from it goes on
_LOADED = _fingerprint_of(Path(__file__).parent)


class _Work:
    """One run: trains what is not trained yet, and asks everything the same questions."""

    def __init__(
        self, recipe: Recipe, whole: Corpus, sounds: LogMelStore, home: Path | None, progress: bool
    ) -> None:
        self.recipe, self.whole, self.sounds = recipe, whole, sounds
        self.home, self.progress = home, progress
        self.corpus, _ = vocabulary(whole, recipe)
        corpus, device = self.corpus, sounds.device
        self.y = corpus.labels.to(device)
        self.source = source_numbers(corpus).to(device)
        self.num_classes = len(corpus.classes)
        self.clips = self.asked = torch.arange(len(corpus), device=device)
        self.verifies = corpus.task == "verification"
        if self.num_classes > len(LETTERS) and not self.verifies:
            raise ValueError(f"a record names up to {len(LETTERS)} classes; got {self.num_classes}")
        self.trials: dict[tuple[str, str], list] = {}  # representation, reader -> scores and trials
        self.spaces: dict[str, tuple[Tensor, Tensor]] = {}  # representation -> h, clip
        self.guesses: dict[tuple[str, str], Tensor] = {}  # representation, reader -> class
        self.fold = torch.full_like(self.y, -1)
        self.patches = torch.ones_like(self.y)
        self.shapes: dict[str, list[dict]] = {}  # space -> geometry of each split
        self.histories: list[dict] = []
        self.trainings: list[str] = []
        self.cpu_before = 0.0  # of trainings that an earlier process did

    def hear(self, split: Split) -> None:
        """From now on clips sound, and are labelled, as they are for this fold's training."""
        told = lessons(self.whole, self.recipe, split)
        self.told, self.told_source = told.y.to(self.y.device), told.source.to(self.y.device)
        self.store = self.sounds.take(told.sound)
        if self.verifies:
            self.asked = split.test.to(self.y.device)

    def fit(self, split: Split) -> None:
        """The network of a split: from its file, or trained now; one for all that see the same."""
        once = self.recipe.pretrain_on == "all"
        if once and self.trainings:
            return
        name = "all" if once else split.name
        path = _weights(self.home, name)
        if path.exists():
            network, scale, past = _load(path, self.recipe, self.num_classes, self.y.device)
            self.cpu_before += past["cpu_seconds"]
        else:
            before = time.process_time()
            with self._bar(name, len(split.pretrain), self.recipe.train.epochs) as bar:
                network, scale, history = fit(
                    self.recipe,
                    self.store,
                    self.told,
                    split,
                    num_classes=self.num_classes,
                    on_epoch=bar.tick,
                    checkpoint=_resume(self.home, name),
                )
            past = asdict(history)
            if parallel.is_first():
                saved = {"modules": network.state(), "scale": scale, "history": past}
                checkpoints.save(path, saved)
            self.cpu_before += past["cpu_seconds"] - (time.process_time() - before)
        self.histories.append(past)
        self.trainings.append(name)
        if parallel.is_first():
            self.take(self.recipe, network, scale)

    def take(self, recipe: Recipe, network: Network, scale: Scale) -> None:
        """Ask about this network from now on, and about the same untrained.

        Args:
            recipe: the one that the network was trained by.
        """
        self.network, self.scale = network, scale
        untrained = new_network(recipe, self.num_classes, self.y.device)
        for name, one in (("trained", network), ("untrained", untrained)):
            self.spaces[name] = _embed(recipe, one.encoder, self.store, self.asked, scale)
        if self.verifies:
            return
        if "statistics" not in self.spaces or self.recipe.labels.label_noise > 0:
            self.spaces["statistics"] = log_mel_statistics(self.store, self.clips), self.clips

    def ask(self, split: Split) -> None:
        """Every reader, fitted on the probe's clips, about every representation of the test."""
        recipe, device = self.recipe, self.y.device
        if self.verifies:
            self._verify(split)
            self._measure(split)
            return
        probe, test = split.probe.to(device), split.test.to(device)
        self.fold[test] = self.fold.max() + 1
        self.patches[test] = self.spaces["trained"][1].bincount(minlength=len(self.y))[test]
        options = {"train": probe, "test": test, "num_classes": self.num_classes}
        for name, (h, clip) in self.spaces.items():
            posterior, _ = linear_probe(
                h, clip, self.told, groups=self.told_source, config=recipe.probe, **options
            )
            self._keep(name, "linear", test, posterior)
            posterior = knn(h, clip, self.told, neighbours=recipe.probe.neighbours, **options)
            self._keep(name, "knn", test, posterior)
        if self.network.classifier:
            logits, clip = _embed(
                recipe, Part(self.network.classifier, 0), self.store, test, self.scale
            )
            self._keep("trained", "classifier", test, clip_posterior(logits.softmax(1), clip, test))
        if recipe.probe.solver == "sgd":
            frozen = "moving" if recipe.probe.moving_batchnorm else "still"
            self._train_reader("linear_sgd", split, frozen)
        if recipe.probe.finetune_epochs:
            self._train_reader("finetuned", split, "")
        self._measure(split)

    def _verify(self, split: Split) -> None:
        """Score every trial of the split by cosine, in each representation, and in z."""
        listed = torch.tensor(self.corpus.trials)
        trials = listed_trials(listed, self.y) if len(listed) else all_trials(split.test, self.y)
        self.spaces["statistics"] = self._mean_log_mels(split), self.asked
        spaces = {(name, "cosine"): space for name, space in self.spaces.items()}
        if self.network.head:
            spaces["trained", "cosine_z"] = self._z(), self.spaces["trained"][1]
        for asked, (h, clip) in spaces.items():
            scores = cosine_scores(h, clip, trials)
            self.trials.setdefault(asked, []).append((scores, trials))

    def _mean_log_mels(self, split: Split) -> Tensor:
        """The mean of each band of each clip, less the mean of those that training has heard."""
        sums, lengths = self.store.sums[:, 0].cpu(), self.store.lengths.cpu()
        heard, clips = split.pretrain.cpu(), self.asked.cpu()
        usual = sums[heard].sum(0) / lengths[heard].sum()
        return sums[clips] / lengths[clips, None] - usual

    def _tested_in_any(self) -> Tensor:
        """Speakers of the test of any split, so that records of some splits draw the same ones."""
        splits = evaluation_splits(self.corpus, replace(self.recipe, splits=0))
        return torch.cat([self.y.cpu()[split.test.cpu()] for split in splits]).unique()

    @torch.no_grad()
    def _z(self) -> Tensor:
        return self.network.head.eval()(self.spaces["trained"][0])

    def _train_reader(self, reader: str, split: Split, frozen: str) -> None:
        recipe, probe, device = self.recipe, self.recipe.probe, self.y.device
        epochs = probe.probe_epochs if frozen else probe.finetune_epochs
        plan = replace(
            recipe.train,
            optimizer="sgd",
            epochs=epochs,
            drops=(0.4, 0.8),
            lr=probe.probe_lr if frozen else probe.finetune_lr,
            weight_decay=1e-4,
        )
        name = f"{split.name} {reader}"
        with self._bar(name, len(split.probe), epochs) as bar:
            posterior = train_classifier(
                copy.deepcopy(self.network.encoder),
                self.store,
                self.told,
                train_on=split.probe.to(device),
                validate=split.validate.to(device),
                test=split.test.to(device),
                mean=self.scale[0],
                std=self.scale[1],
                d=self.network.d,
                num_classes=self.num_classes,
                views=recipe.views,
                config=plan,
                hop=probe.hop,
                seed=recipe.seed,
                frozen=frozen,
                score_every=recipe.select.select_every,
                on_epoch=bar.tick,
                checkpoint=self.home and _resume(self.home, name),
            )
        self._keep("trained", reader, split.test.to(device), posterior)

    def _keep(self, name: str, reader: str, test: Tensor, posterior: Tensor) -> None:
        guess = self.guesses.setdefault((name, reader), torch.full_like(self.y, -1))
        guess[test] = posterior.argmax(dim=1)

    def _measure(self, split: Split) -> None:
        test = split.test.to(self.y.device)
        spaces = {"h": self.spaces["trained"], "untrained h": self.spaces["untrained"]}
        if self.network.head:
            spaces["z"] = self._z(), spaces["h"][1]
        for space, (h, clip) in spaces.items():
            mine = torch.isin(clip, test)
            self.shapes.setdefault(space, []).append(geometry(h[mine], clip[mine], self.y))

    def results(self) -> dict:
        """representation -> reader -> score."""
        asked: dict[str, dict] = {name: {} for name in REPRESENTATIONS}
        for (name, reader), folds in self.trials.items():
            asked[name][reader] = verification_score(folds, speakers=self._tested_in_any())
        for (name, reader), guess in self.guesses.items():
            asked[name][reader] = score(
                guess.cpu(),
                self.y.cpu(),
                source=self.source.cpu(),
                patches=self.patches.cpu(),
                fold=self.fold.cpu(),
                num_classes=self.num_classes,
            )
        return asked

    def geometry(self) -> dict:
        """space -> mean over the splits of what `geometry` says."""
        return {
            space: {k: statistics.fmean(s[k] for s in shapes) for k in shapes[0]}
            for space, shapes in self.shapes.items()
            if all(shapes)
        }

    def record(self, device: str, wall: float, cpu: float) -> Record:
        """Everything found, once all folds were asked; seconds are of this process."""
        corpus = self.corpus
        answered = {}  # what the answer for each clip is about; trials leave error rates alone
        if not self.verifies:
            answered["labels"] = "".join(LETTERS[clip.label] for clip in corpus.clips)
            answered["sources"] = source_numbers(corpus).tolist()
        return Record(
            recipe=self.recipe,
            corpus={
                "name": corpus.name,
                "fingerprint": corpus.fingerprint(),
                "clips": len(corpus),
                "classes": list(corpus.classes),
                **answered,
            },
            results=self.results(),
            geometry=self.geometry(),
            history=[past["loss"] for past in self.histories],
            selection=[
                {"epoch": past["epoch"], "scores": [list(pair) for pair in past["scores"].items()]}
                for past in self.histories
            ],
            splits=self.trainings,
            cost={
                "train_cpu_seconds": round(sum(past["cpu_seconds"] for past in self.histories), 1),
                "cpu_seconds": round(cpu + self.cpu_before, 1),
                "wall_seconds": round(wall, 1),  # since the last interruption
                "threads": torch.get_num_threads(),
                "ranks": parallel.ranks(),  # processes that trained together
                "kind": device,
                "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
                "bfloat16": half_precision(self.recipe.train.precision, device),
            },
            versions={name: version(name) for name in ("torch", "torchaudio", "numpy", "soxr")}
            | {"python": platform.python_version()},
            code=code_fingerprint(),
            commit=_commit(),
            path=self.home / "record.json",
        )

    def _bar(self, name: str, ids: int, epochs: int) -> _Bar:
        return _Bar(f"{self.recipe.name}, {name}", ids, epochs, self.progress)


class _Bar:
    """How far a training is, in clips: a bar on a terminal and in a notebook, lines elsewhere."""

    def __init__(self, title: str, clips: int, epochs: int, progress: bool) -> None:
        self.title, self.clips, self.epochs, self.started = title, clips, epochs, None
        self.lines = progress and not _draws_bars()
        hidden = not progress or self.lines
        self.bar = tqdm(total=clips * epochs, desc=title, unit="clip", disable=hidden)

    def __enter__(self) -> _Bar:
        return self

    def tick(self, epoch: int, loss: float) -> None:
        self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self.bar.update(epoch * self.clips - self.bar.n)  # after an interruption, all at once
        now = time.perf_counter()
        first, begun = self.started = self.started or (epoch, now)
        if self.lines and 10 * epoch // self.epochs > 10 * (epoch - 1) // self.epochs:
            line = f"{self.title}: epoch {epoch} of {self.epochs}, loss {loss:.3f}"
            if epoch > first:
                each = (now - begun) / (epoch - first)
                left = each * (self.epochs - epoch)
                line += f", {self.clips / each:.0f} clips/s, {left:.0f} s left"
            print(line, file=sys.stderr, flush=True)

    def __exit__(self, *failed) -> None:
        self.bar.close()


def _draws_bars() -> bool:
    return sys.stderr.isatty() or tqdm.__name__ == "tqdm_notebook"


def _weights(home: Path, name: str) -> Path:
    return home / f"network-{name.replace(' ', '-')}.pt"


def _resume(home: Path, name: str) -> Path:
    return home / f"{name.replace(' ', '-')}.resume"


def _commit() -> str:
    """The commit of the working copy that this package lies in."""

    def git(*words: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain", "--", "."))
    except (OSError, subprocess.CalledProcessError):
        return ""


def _processor() -> str:
    """The processor's model, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()
