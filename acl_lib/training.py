"""The loop, and the SimCLR step it turns.

    pairs = view_pairs(store, pool, views=..., generator=...)
    step = simclr_step(encoder, head, pairs, loss=...)
    history = train(step, pool, [encoder, head], config=..., generator=...)

The loop fetches, runs forward, backward and the optimiser; what is printed, drawn or stored is
the caller's, through one callback per epoch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from . import augment
from .config import LossConfig, TrainConfig, ViewConfig
from .losses import acl
from .views import draw_backgrounds, mix_back, patch_pairs

Step = Callable[[Tensor], Tensor]  # clip ids (B,) -> loss ()


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
    if not len(pool):
        raise ValueError("the pool has no clips to train on")
    frames, starts, lengths = store.frames, store.starts, store.lengths
    mean, std = store.mel_statistics(pool)
    if std == 0:
        raise ValueError(f"all {len(pool)} clips of the pool are silent: there is nothing to learn")
    change = augmentations(views)

    def draw(clips: Int[Tensor, " n"]) -> tuple[Tensor, Tensor]:
        return patch_pairs(
            frames, starts, lengths, clips, generator, patch_frames=views.patch_frames
        )

    def make(clips: Int[Tensor, " B"]) -> Float[Tensor, "2*B 1 F P"]:
        x = torch.cat(draw(clips))
        if views.mix_back:
            behind = draw_backgrounds(clips, pool, generator)
            background = torch.cat([draw(behind[0])[0], draw(behind[1])[0]])
            ratio = torch.rand(len(clips), generator=generator, device=x.device) * views.mix_back
            x = mix_back(x, background, ratio.repeat(2))  # one ratio for both views of a clip
        return change(x, generator).sub_(mean).div_(std)

    return make


def simclr_step(
    encoder: nn.Module,
    head: nn.Module,
    pairs: Callable[[Tensor], Tensor],
    *,
    loss: LossConfig,
    precision: str = "auto",
) -> Step:
    """One step of contrastive training: clips -> two views -> h -> z -> loss.

    Both views pass through the encoder as one batch, so BatchNorm sees 2B views at once; the
    authors' code makes two passes. Differences are measured by the recipes, not hidden here.

    Source: Chen et al. 2020 (SimCLR), algorithm 1; the loss is ACL, eq. 3 of the ACL paper.
    """

    def step(clips: Int[Tensor, " B"]) -> Float[Tensor, ""]:
        x = pairs(clips).contiguous(memory_format=torch.channels_last)
        with autocast(precision, x.device):
            h = encoder(x)
            z = head(h)
        return acl(
            *z.chunk(2),
            *h.chunk(2),
            alpha=loss.alpha,
            temperature=loss.temperature,
            margin=loss.margin,
            reduction=loss.reduction,
        )

    return step


def make_optimizer(
    modules: list[nn.Module], config: TrainConfig, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Optimiser and learning-rate schedule over a number of steps.

    "sgd": momentum 0.9, rate divided by 10 at 65 % and 85 % of the steps (the authors' epochs
    325 and 425 of 500). "adamw": one cycle with 10 % warm-up.

    Raises:
        ValueError: another optimiser's name.
    """
    weights = [p for module in modules for p in module.parameters()]
    if config.optimizer == "sgd":
        made = torch.optim.SGD(
            weights, lr=config.lr, momentum=0.9, weight_decay=config.weight_decay
        )
        drops = [round(0.65 * steps), round(0.85 * steps)]
        return made, torch.optim.lr_scheduler.MultiStepLR(made, drops)
    if config.optimizer == "adamw":
        made = torch.optim.AdamW(weights, lr=config.lr, weight_decay=config.weight_decay)
        total = max(steps, 3)
        return made, torch.optim.lr_scheduler.OneCycleLR(
            made,
            config.lr,
            total_steps=total,
            pct_start=max(0.1, 2 / total),  # up and down take a step at least: torch divides by it
        )
    raise ValueError(f"optimizer must be sgd or adamw; got {config.optimizer!r}")


def train(
    step: Step,
    pool: Int[Tensor, " n"],
    modules: list[nn.Module],
    *,
    config: TrainConfig,
    generator: torch.Generator,
    on_epoch: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Minimise a step's loss over a pool of clips, every clip once an epoch in random order.

    The clips left over after the last full batch sit out the epoch, so that every step has the
    same number of negatives; with fewer clips than a batch, the pool is the batch.

    Args:
        step: clips (B,) -> loss; see `simclr_step`.
        pool: ids of the clips to train on, on the device of the generator.
        modules: what is trained, put into train mode here.
        on_epoch: called with the number of finished epochs and the epoch's mean loss.

    Returns:
        The mean loss of each epoch, in the unit of the step's loss.

    Raises:
        FloatingPointError: the loss stopped being finite.
    """
    batch = min(config.batch, len(pool))
    batches = len(pool) // batch
    optimizer, scheduler = make_optimizer(modules, config, config.epochs * batches)
    for module in modules:
        module.train()
    history = []
    for epoch in range(1, config.epochs + 1):
        order = pool[torch.randperm(len(pool), generator=generator, device=pool.device)]
        total = torch.zeros((), device=pool.device)
        for clips in order[: batches * batch].split(batch):
            optimizer.zero_grad(set_to_none=True)
            loss = step(clips)
            loss.backward()
            optimizer.step()
            scheduler.step()
            total += loss.detach()
        history.append((total / batches).item())
        if history[-1] != history[-1] or abs(history[-1]) == float("inf"):
            raise FloatingPointError(
                f"the loss became {history[-1]} in epoch {epoch}; lower the learning rate "
                f"({config.lr}) or raise the temperature"
            )
        if on_epoch:
            on_epoch(epoch, history[-1])
    return history
