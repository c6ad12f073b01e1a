"""The loop, and the steps it turns.

    pairs = view_pairs(store, pool, views=..., generator=...)
    step = SimCLRStep(encoder, head, pairs, loss=...)
    history = train(step, pool, [encoder, head], config=..., generator=...)

The loop fetches, runs forward, backward and the optimiser; what is printed, drawn, scored or
stored besides is the caller's, through callbacks after each epoch.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from . import augment, checkpoints, parallel
from .config import LossConfig, TrainConfig, ViewConfig
from .losses import acl, angular_margin, queue_nt_xent, supcon, supervised_acl
from .views import all_patches, draw_backgrounds, gather_patches, mix_back, random_patches

Step = Callable[[Tensor], Tensor]  # ids of clips or patches (B,) -> loss ()
CHECKPOINT_SECONDS = 30.0  # between two writings of a run's state


def seed_everything(seed: int, device: str | torch.device = "cpu") -> torch.Generator:
    """Seed weights and dropout, and give the generator that every other draw comes from."""
    torch.manual_seed(seed)
    return torch.Generator(device).manual_seed(seed)


def half_precision(precision: str, device: str | torch.device) -> bool:
    """Whether a run computes in bfloat16: "auto" says yes where the processor has it in hardware.

    Raises:
        ValueError: precision is none of "auto", "float32", "bfloat16".
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision must be auto, float32 or bfloat16; got {precision!r}")
    if precision == "auto":
        on_cpu = torch.device(device).type == "cpu"
        return torch.cpu._is_avx512_bf16_supported() if on_cpu else torch.cuda.is_bf16_supported()
    return precision == "bfloat16"


def autocast(precision: str, device: str | torch.device) -> torch.autocast:
    """The autocast context of a precision; does nothing for float32."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=half_precision(precision, kind))


def augmentations(views: ViewConfig) -> augment.Compose:
    """The steps that a view configuration leaves on, in the order of the authors' code."""
    steps: list = []
    if views.reverberation:
        steps.append(augment.Reverberation(longest=views.reverberation))
    if views.coloured_noise:
        steps.append(augment.ColouredNoise(energy_ratio=views.coloured_noise))
    if views.crop_scale < 1:
        steps.append(augment.RandomResizedCrop(scale=(views.crop_scale, 1.0)))
    if views.compander < 1:
        steps.append(augment.Compander(low=views.compander))
    if views.frequency_masks:
        steps.append(augment.FrequencyMask(count=views.frequency_masks))
    if views.time_masks:
        steps.append(augment.TimeMask(count=views.time_masks))
    if views.noise:
        steps.append(augment.GaussianNoise(max_sigma=views.noise))
    if views.blur:
        steps.append(augment.GaussianBlur(p=views.blur))
    return augment.Compose(steps)


def view_pairs(
    store, pool: Int[Tensor, " n"], *, views: ViewConfig, generator: torch.Generator
) -> Callable[[Int[Tensor, " B"]], Float[Tensor, "2*B 1 F P"]]:
    """A function from clips to their two augmented, standardised views, all x_i above all x_j.

    Backgrounds and the mean and standard deviation come from the pool alone, so that a test
    fold outside the pool leaves no trace in training.

    Args:
        store: a `features.LogMelStore` on the device of the generator.
        pool: the clips that training may see.

    Raises:
        ValueError: the pool is empty, or all of it is silent.
    """
    return _random_views(store, pool, views, generator, copies=2)


def labelled_views(
    store,
    pool: Int[Tensor, " n"],
    *,
    views: ViewConfig,
    generator: torch.Generator,
    scale: tuple | None = None,
) -> tuple[Callable[[Int[Tensor, " B"]], Float[Tensor, "B 1 F P"]], Int[Tensor, " M"]]:
    """What supervised training turns through: items, their views, and the clip of each item.

    With `views.patches` "random" an item is a clip, met at another time in every epoch; with
    "all" it is one of the patches at every `patch_hop` frames of the clips.

    Args:
        store, pool: as in `view_pairs`.
        scale: mean and standard deviation that the network knows; the pool's when None.

    Returns:
        A function from items to their augmented, standardised views, and the clip of every item:
        item m, an index into it, belongs to clip ``clips[m]``.

    Raises:
        ValueError: the pool is empty, or all of it is silent.
    """
    if views.patches == "random":
        make = _random_views(store, pool, views, generator, copies=1, scale=scale)
        return (lambda items: make(pool[items])), pool
    mean, std = scale or standardisation(store, pool, views.standardise)
    change = augmentations(views)
    at, clips = all_patches(
        store.starts,
        store.lengths,
        pool,
        patch_frames=views.patch_frames,
        hop=views.patch_hop,
        last_start=views.last_start,
    )

    def gather(items: Int[Tensor, " B"]) -> Float[Tensor, "B 1 F P"]:
        x = gather_patches(store.frames, at[items], views.patch_frames)
        return change(x, generator).sub_(mean).div_(std)

    return gather, clips


def _random_views(
    store,
    pool: Int[Tensor, " n"],
    views: ViewConfig,
    generator: torch.Generator,
    *,
    copies: int,
    scale: tuple | None = None,
) -> Callable[[Tensor], Tensor]:
    mean, std = scale or standardisation(store, pool, views.standardise)
    change = augmentations(views)

    def draw(clips: Int[Tensor, " n"]) -> list[Tensor]:
        return [
            random_patches(
                store.frames,
                store.starts,
                store.lengths,
                clips,
                generator,
                patch_frames=views.patch_frames,
                last_start=views.last_start,
            )
            for _ in range(copies)
        ]

    def make(clips: Int[Tensor, " B"]) -> Float[Tensor, "M 1 F P"]:
        x = torch.cat(draw(clips))
        if views.mix_back:
            behind = draw_backgrounds(clips, pool, generator)[:copies]
            background = torch.cat([draw(other)[0] for other in behind])
            ratio = torch.rand(len(clips), generator=generator, device=x.device) * views.mix_back
            x = mix_back(x, background, ratio.repeat(copies))  # one ratio for all views of a clip
        return change(x, generator).sub_(mean).div_(std)

    return make


def standardisation(
    store, pool: Int[Tensor, " n"], per: str = "global"
) -> tuple[float | Float[Tensor, "F 1"], float | Float[Tensor, "F 1"]]:
    """Mean and standard deviation of the clips of a pool, in log10 power.

    Args:
        per: "global", two numbers; "band", one pair for every mel band, as columns.

    Raises:
        ValueError: the pool is empty, or all of it is silent.
    """
    if not len(pool):
        raise ValueError("the pool has no clips to train on")
    mean, std = store.mel_statistics(pool)
    if std == 0:
        raise ValueError(f"all {len(pool)} clips of the pool are silent: there is nothing to learn")
    if per == "global":
        return mean, std
    centre, scale = store.band_statistics(pool)
    return centre[:, None], scale[:, None]


@dataclass
class SimCLRStep:
    """One step of contrastive training: clips -> two views -> h -> z -> loss.

    Both views pass through the encoder as one batch, so BatchNorm sees 2B views at once; with
    `two_passes` it sees B at a time, as in the authors' code. `loss` may be replaced between two
    epochs, to follow a schedule of temperatures say.

    Source: Chen et al. 2020 (SimCLR), algorithm 1; the loss is ACL, eq. 3 of the ACL paper.
    """

    encoder: nn.Module
    head: nn.Module
    pairs: Callable[[Tensor], Tensor]
    loss: LossConfig
    precision: str = "auto"
    two_passes: bool = False
    passed: float = 0.0  # share of the training, for the margin's schedule; `train` moves it on

    def __call__(self, clips: Int[Tensor, " B"]) -> Float[Tensor, ""]:
        z_i, z_j, h_i, h_j = map(parallel.gather, self.views(clips))
        loss = self.loss.at(self.passed)
        return acl(
            z_i,
            z_j,
            h_i,
            h_j,
            alpha=loss.alpha,
            temperature=loss.temperature,
            margin=loss.margin,
            reduction=loss.reduction,
            positive_margin=loss.positive_margin,
            margin_kind=loss.margin_kind,
            symmetric=loss.symmetric,
        )

    def views(self, clips: Int[Tensor, " B"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """z_i, z_j, h_i, h_j of two fresh views of each clip."""
        x = self.pairs(clips).contiguous(memory_format=torch.channels_last)
        with autocast(self.precision, x.device):
            if self.two_passes:
                h_i, h_j = (self.encoder(view) for view in x.chunk(2))
                return self.head(h_i), self.head(h_j), h_i, h_j
            h = self.encoder(x)
            return *self.head(h).chunk(2), *h.chunk(2)


class KeyMemory(nn.Module):
    """MoCo's other half: an encoder that follows the trained one, and its keys of older batches.

    Source: He et al. 2020 (MoCo), algorithm 1. A queue for each direction, as in Lepage and Dehak's
    code: keys of one view are negatives to queries of the other.

    Args:
        encoder, head: x -> h -> z; copied.
        d: width of z.
        queue: keys of each direction, Q; random directions until they are filled.
        directions: 2 where both views are queries, else 1.
        generator: draws the first keys.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        *,
        d: int,
        queue: int,
        directions: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.encoder, self.head = (copy.deepcopy(part).train() for part in (encoder, head))
        self.requires_grad_(False)
        first = torch.randn(directions, queue, d, generator=generator, device=generator.device)
        self.register_buffer("queue", F.normalize(first, dim=2))  # (V, Q, d), oldest first

    @torch.no_grad()
    def follow(self, encoder: nn.Module, head: nn.Module, momentum: float) -> None:
        """Move every weight a step of 1 - momentum towards the trained one's."""
        mine = [*self.encoder.parameters(), *self.head.parameters()]
        theirs = [*encoder.parameters(), *head.parameters()]
        torch._foreach_lerp_(mine, [p.detach() for p in theirs], 1 - momentum)

    @torch.no_grad()
    def push(self, k: Float[Tensor, "V B d"]) -> None:
        """Put keys into the queues; the oldest leave."""
        self.queue = torch.cat([self.queue, k], dim=1)[:, -self.queue.shape[1] :]


@dataclass(kw_only=True)
class MoCoStep(SimCLRStep):
    """One step of momentum contrast: each query picks its key among the keys of older batches.

    Both views are queries and keys, the mean of both directions is the loss; unless
    `loss.symmetric` is off: then view i asks, and view j is its key. With `groups` BatchNorm sees a
    part of the batch at a time, and the keys' parts are drawn anew, so that a query and its key
    have not the same company.

    Source: He et al. 2020 (MoCo), algorithm 1 and section 3.3; margin and symmetry as in Lepage and
    Dehak 2024. The angular term of ACL, on the h of the queries, is ours.
    """

    memory: KeyMemory
    momentum: float
    groups: int = 1
    generator: torch.Generator  # shuffles the keys

    @property
    def kept(self) -> list[nn.Module]:
        """What a checkpoint holds besides the trained modules."""
        return [self.memory]

    def __call__(self, clips: Int[Tensor, " B"]) -> Float[Tensor, ""]:
        x = self.pairs(clips).contiguous(memory_format=torch.channels_last)
        loss, n = self.loss.at(self.passed), len(clips)
        self.memory.follow(self.encoder, self.head, self.momentum)
        k = self._keys(x if loss.symmetric else x[n:])
        with autocast(self.precision, x.device):
            asked = x if loss.symmetric else x[:n]
            parts = [self.encoder(part) for part in asked.chunk(self.groups)]
            h, q = torch.cat(parts), torch.cat([self.head(part) for part in parts])
        # (V, B, d): of view i and j, or of one alone
        q, k, h = (_gathered(some.view(-1, n, some.shape[1])) for some in (q, k, h))
        picks = [
            queue_nt_xent(
                query,
                key,
                queue,
                temperature=loss.temperature,
                margin=loss.positive_margin,
                margin_kind=loss.margin_kind,
            )
            for query, key, queue in zip(q, k.flip(0), self.memory.queue.flip(0), strict=True)
        ]
        self.memory.push(k)
        first = sum(picks) / len(picks)
        if not loss.symmetric:
            return first
        h_i, h_j = h
        second = angular_margin(h_i, h_j, margin=loss.margin, reduction=loss.reduction)
        return loss.alpha * first + (1 - loss.alpha) * second

    @torch.no_grad()
    def _keys(self, x: Float[Tensor, "N 1 F P"]) -> Float[Tensor, "N d"]:
        order = torch.arange(len(x), device=x.device)
        if self.groups > 1:
            order = torch.randperm(len(x), generator=self.generator, device=x.device)
        with autocast(self.precision, x.device):
            z = torch.cat(
                [
                    self.memory.head(self.memory.encoder(x[part]))
                    for part in order.chunk(self.groups)
                ]
            )
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        return F.normalize(z, dim=1)[order.argsort()]


@dataclass(kw_only=True)
class SupConStep(SimCLRStep):
    """One step of supervised contrastive training: all views of a class are each other's partners.

    Source: Khosla et al. 2020, eq. 2; of the loss settings it reads the temperature.
    """

    y: Int[Tensor, " N"]  # class of every clip

    def __call__(self, clips: Int[Tensor, " B"]) -> Float[Tensor, ""]:
        z_i, z_j = map(parallel.gather, self.views(clips)[:2])
        y = parallel.gather(self.y[clips]).repeat(2)
        return supcon(torch.cat([z_i, z_j]), y, temperature=self.loss.temperature)


@dataclass
class SupervisedStep:
    """One step of training with labels: items -> one view -> h -> logits -> loss.

    With `frozen` the encoder is used as it is and only the classifier learns; "moving" leaves its
    BatchNorm in train mode, so that the statistics of the "frozen" encoder follow the batches, as
    they do in the authors' linear evaluation.

    Source: cross-entropy and angular margin, section 4 of the ACL paper.
    """

    network: nn.Module  # x -> logits, h; see `models.Classifier`
    views: Callable[[Tensor], Tensor]
    y: Int[Tensor, " M"]  # class of every item
    loss: LossConfig = field(default_factory=LossConfig)
    precision: str = "auto"
    frozen: str = ""  # "", "still" or "moving"

    def __call__(self, items: Int[Tensor, " B"]) -> Float[Tensor, ""]:
        x = self.views(items).contiguous(memory_format=torch.channels_last)
        with autocast(self.precision, x.device):
            if self.frozen:
                self.network.encoder.train(self.frozen == "moving")
                with torch.no_grad():
                    h = self.network.encoder(x)
                logits = self.network.linear(h)
            else:
                logits, h = self.network(x)
        return supervised_acl(
            *map(parallel.gather, (logits, h, self.y[items])),
            alpha=self.loss.alpha,
            margin=self.loss.margin,
            reduction=self.loss.reduction,
        )


def _gathered(x: Float[Tensor, "V b d"]) -> Float[Tensor, "V B d"]:
    return parallel.gather(x.transpose(0, 1)).transpose(0, 1)


def make_optimizer(
    modules: list[nn.Module], config: TrainConfig, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Optimiser and learning-rate schedule over a number of steps.

    "sgd": momentum 0.9, rate divided by 10 after each share `config.drops` of the steps (65 % and
    85 % are the authors' epochs 325 and 425 of 500). "adamw": one cycle with 10 % warm-up.
    "adam": halved when the selection's score has not risen by 1e-4 for 5 scores, and so stepped
    with scores.

    Raises:
        ValueError: another optimiser's name.
    """
    weights = [p for module in modules for p in module.parameters() if p.requires_grad]
    # one kernel for all weights; a processor's adds in another order than what records came from
    how = {"weight_decay": config.weight_decay, "fused": True if weights[0].is_cuda else None}
    if config.optimizer == "sgd":
        made = torch.optim.SGD(weights, lr=config.lr, momentum=0.9, **how)
        drops = [round(share * steps) for share in config.drops]
        return made, torch.optim.lr_scheduler.MultiStepLR(made, drops)
    if config.optimizer == "adamw":
        made = torch.optim.AdamW(weights, lr=config.lr, **how)
        total = max(steps, 3)
        return made, torch.optim.lr_scheduler.OneCycleLR(
            made,
            config.lr,
            total_steps=total,
            pct_start=max(0.1, 2 / total),  # up and down take a step at least: torch divides by it
        )
    if config.optimizer == "adam":
        made = torch.optim.Adam(weights, lr=config.lr, **how)
        return made, torch.optim.lr_scheduler.ReduceLROnPlateau(
            made, "max", factor=0.5, patience=5, threshold_mode="abs"
        )
    raise ValueError(f"optimizer must be sgd, adamw or adam; got {config.optimizer!r}")


@dataclass(frozen=True)
class History:
    """What a training left besides the weights."""

    loss: list[float]  # mean over the steps of each epoch
    scores: dict[int, float]  # of the epochs that were scored; larger is better
    epoch: int  # whose weights were kept, from 1
    cpu_seconds: float


def train(
    step: Step,
    pool: Int[Tensor, " n"],
    modules: list[nn.Module],
    *,
    config: TrainConfig,
    generator: torch.Generator,
    on_epoch: Callable[[int, float], bool | None] | None = None,
    score: Callable[[], float] | None = None,
    score_every: int = 1,
    checkpoint: str | os.PathLike | None = None,
) -> History:
    """Minimise a step's loss over a pool of ids, each once an epoch in random order.

    Unless `config.drop_last` is off, the ids left over after the last full batch sit out the
    epoch, so that every step has the same number of negatives; with fewer ids than a batch, the
    pool is the batch.

    Among several processes (see `parallel`) each takes its part of every batch, with random draws
    of its own, so that its number of processes changes the draws, not what is computed of them.

    Args:
        step: ids (B,) -> loss; see `SimCLRStep` and `SupervisedStep`. Among several processes, the
            ids of this one -> the loss of all.
        pool: ids of the clips or items to train on, on the device of the generator.
        modules: what is trained, put into train mode here.
        on_epoch: called with the number of finished epochs and the epoch's mean loss. It may
            change the step (`step.loss = ...`); True ends the training with this epoch.
        score: how good the modules are now; the weights of the best epoch are put back at the
            end. It must draw from no generator of the training.
        score_every: epochs between two scores; the last epoch is always scored.
        checkpoint: file that holds the state of the training, written after an epoch once
            `CHECKPOINT_SECONDS` have passed since the last. A training that finds its file goes
            on from there, to the same result as one that was never interrupted.

    Returns:
        The history; the loss is in the unit of the step's loss.

    Raises:
        FloatingPointError: the loss or its gradient stopped being finite; says where.
        ValueError: the checkpoint is damaged, or belongs to another training; a batch that cannot
            be shared by the processes.
    """
    batch, used = _shared(config, len(pool))
    batches = math.ceil(used / batch)
    run = _Run(step, modules, config, generator, steps=config.epochs * batches, ids=len(pool))
    if checkpoint is not None and Path(checkpoint).exists():
        run.restore(Path(checkpoint), pool.device)
    with parallel.synchronised(*modules, *run.kept):
        while not run.done:
            for module in modules:
                module.train()
            order = pool[torch.randperm(len(pool), generator=generator, device=pool.device)]
            with parallel.own_draws(generator):
                trace = run.epoch(order[:used].split(batch))
            run.loss.append((sum(trace[:, 0]) / batches).item())
            epoch = len(run.loss)
            stop = on_epoch is not None and on_epoch(epoch, run.loss[-1])
            run.done = epoch == config.epochs or stop is True
            if score is not None and (run.done or epoch % score_every == 0):
                run.rate(parallel.from_first(score))
            if checkpoint is not None and parallel.is_first():
                run.save(Path(checkpoint))
    return run.finish()


def _shared(config: TrainConfig, ids: int) -> tuple[int, int]:
    """Ids of a batch, and of an epoch: what all processes can share, of what there is."""
    if config.batch != parallel.divisible(config.batch):
        raise ValueError(
            f"a batch of {config.batch} cannot be shared by {parallel.ranks()} processes equally: "
            f"set batch={parallel.divisible(config.batch) or parallel.ranks()}, or start others"
        )
    batch = parallel.divisible(min(config.batch, ids))
    if not batch:
        raise ValueError(f"{ids} clips are too few for {parallel.ranks()} processes")
    return batch, ids // batch * batch if config.drop_last else parallel.divisible(ids)


class _Run:
    """Everything that a training needs to go on after an interruption."""

    def __init__(self, step, modules, config, generator, *, steps: int, ids: int) -> None:
        self.step, self.modules, self.config, self.generator = step, modules, config, generator
        self.optimizer, self.scheduler = make_optimizer(modules, config, steps)
        self.plateau = config.optimizer == "adam"
        self.kept = getattr(step, "kept", [])
        named = {"modules": modules, "kept": self.kept}
        texts = {name: [str(module) for module in some] for name, some in named.items()}
        self.identity = {**asdict(config), "ids": ids, **texts}
        self.loss: list[float] = []
        self.scores: dict[int, float] = {}
        self.best: list[dict] = []  # the modules' states at the best score
        self.done = False
        self.cpu_before, self.cpu_started = 0.0, time.process_time()
        self.saved = time.monotonic()

    def epoch(self, batches: tuple[Tensor, ...]) -> Float[Tensor, "S 2"]:
        """Take a step with each batch; gives the loss and the gradient's norm of each."""
        steps = self.config.epochs * len(batches)
        trace = torch.zeros(len(batches), 2, device=batches[0].device)
        for i, ids in enumerate(batches):
            self.optimizer.zero_grad(set_to_none=True)
            if hasattr(self.step, "passed"):
                self.step.passed = (len(self.loss) * len(batches) + i) / steps
            loss = self.step(parallel.my_part(ids))
            loss.backward()
            trace[i, 0], trace[i, 1] = loss.detach(), _gradient_norm(self.modules)
            if not trace.is_cuda:  # a GPU is asked once an epoch: the answer would stall its queue
                self.stop_if_not_finite(trace[: i + 1])
            self.optimizer.step()
            if not self.plateau:
                self.scheduler.step()
        self.stop_if_not_finite(trace)
        return trace

    def rate(self, score: float) -> None:
        if not self.scores or score > max(self.scores.values()):
            self.best = copy.deepcopy(self._states())
        self.scores[len(self.loss)] = score
        if self.plateau:
            self.scheduler.step(score)

    def finish(self) -> History:
        kept = len(self.loss)
        if self.scores:
            kept = max(self.scores, key=self.scores.get)  # the first of equals, as in `rate`
            for module, state in zip(self.modules, self.best, strict=True):
                module.load_state_dict(state)
        spent = parallel.total(self._cpu_seconds())
        return History(self.loss, self.scores, kept, round(spent, 1))

    def save(self, path: Path) -> None:
        if not self.done and time.monotonic() - self.saved < CHECKPOINT_SECONDS:
            return
        device = self.generator.device
        checkpoints.save(
            path,
            {
                "identity": self.identity,
                "modules": self._states(),
                "kept": [module.state_dict() for module in self.kept],
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "generator": self.generator.get_state(),
                "torch": torch.get_rng_state(),  # dropout draws from these two
                "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
                "step_loss": asdict(self.step.loss) if hasattr(self.step, "loss") else None,
                "loss": self.loss,
                "scores": self.scores,
                "best": self.best,
                "done": self.done,
                "cpu_seconds": self._cpu_seconds(),
            },
        )
        self.saved = time.monotonic()

    def restore(self, path: Path, device: torch.device) -> None:
        state = checkpoints.load(path, device=device)
        if state["identity"] != self.identity:
            other = [k for k, v in self.identity.items() if state["identity"].get(k) != v]
            raise ValueError(
                f"{path} belongs to another training (it differs in {', '.join(other)}): delete "
                "it, or name another checkpoint"
            )
        for name, modules in (("modules", self.modules), ("kept", self.kept)):
            for module, saved in zip(modules, state[name], strict=True):
                module.load_state_dict(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.generator.set_state(state["generator"].cpu())
        torch.set_rng_state(state["torch"].cpu())
        if state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"].cpu(), self.generator.device)
        if state["step_loss"] is not None:
            self.step.loss = LossConfig(**state["step_loss"])
        self.loss, self.scores, self.best = state["loss"], state["scores"], state["best"]
        self.done, self.cpu_before = state["done"], state["cpu_seconds"]

    def stop_if_not_finite(self, trace: Float[Tensor, "S 2"]) -> None:
        """Say which came first, at which step, and what may help."""
        fine = trace.isfinite()
        if fine.all():
            return
        at = int((~fine.all(1)).nonzero()[0])
        loss, norm = trace[at].tolist()
        where = f"at step {at + 1} of epoch {len(self.loss) + 1}"
        slower = f"lower the learning rate ({self.config.lr:g})"
        named = [pair for module in self.modules for pair in module.named_parameters()]
        if math.isfinite(loss):
            bad = [n for n, p in named if p.grad is not None and not p.grad.isfinite().all()]
            raise FloatingPointError(
                f"the gradient became {norm} {where}, where the loss was {loss:.4g}: in "
                f"{', '.join(bad[:3])}{' and more' if bad[3:] else ''}; {slower}, or compute in "
                "float32"
            )
        if any(not p.isfinite().all() for _, p in named):
            raise FloatingPointError(
                f"the weights left the range of their numbers before {where[3:]}; {slower}"
            )
        raise FloatingPointError(
            f"the loss became {loss} {where} while all weights were finite; {slower}, raise the "
            "temperature, or look for clips that hold NaN with `acl corpora`"
        )

    def _states(self) -> list[dict]:
        return [module.state_dict() for module in self.modules]

    def _cpu_seconds(self) -> float:
        return self.cpu_before + time.process_time() - self.cpu_started


def _gradient_norm(modules: list[nn.Module]) -> Float[Tensor, ""]:
    return torch.nn.utils.get_total_norm(
        [p.grad for module in modules for p in module.parameters() if p.grad is not None]
    )
