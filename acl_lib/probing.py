"""What an h knows: embed every patch, ask a reader, average over a clip's patches.

The readers of a frozen h are the linear probe and the nearest neighbours; `train_classifier` is the
authors' linear evaluation, and fine-tuning. Every reader gives a posterior of the test clips.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .config import LossConfig, ProbeConfig, TrainConfig, ViewConfig
from .metrics import accuracy, balanced_accuracy
from .models import Classifier, Part
from .training import SupervisedStep, autocast, labelled_views, seed_everything, train
from .views import all_patches, gather_patches


@torch.no_grad()
def embed(
    encoder: nn.Module,
    store,
    clips: Int[Tensor, " n"],
    *,
    mean: float | Float[Tensor, "F 1"],
    std: float | Float[Tensor, "F 1"],
    patch_frames: int = 101,
    hop: int = 50,
    precision: str = "auto",
    batch: int = 128,
) -> tuple[Float[Tensor, "N d"], Int[Tensor, " N"]]:
    """Representations of all patches of some clips, from a frozen encoder.

    Args:
        encoder: put into eval mode, so that BatchNorm uses its running statistics.
        store: a `features.LogMelStore` on the encoder's device.
        mean, std: of the clips the encoder was trained on, in log10 power; of all values, or of
            each mel band.
        hop: frames between the patches of a clip; 50 is half a second.

    Returns:
        h (N, d) in float32 and, for each patch, its clip.
    """
    encoder.eval()
    at, clip = all_patches(store.starts, store.lengths, clips, patch_frames=patch_frames, hop=hop)
    rows = []
    for start in at.split(batch):
        x = gather_patches(store.frames, start, patch_frames).sub_(mean).div_(std)
        with autocast(precision, x.device):
            rows.append(encoder(x.contiguous(memory_format=torch.channels_last)).float())
    return torch.cat(rows), clip


def log_mel_statistics(store, clips: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
    """What a clip's spectrum says without any learning: the baseline every encoder must beat.

    Returns:
        Mean, standard deviation, maximum, minimum and mean absolute frame-to-frame change of
        each mel band over the whole clip, in log10 power: d = 5 F.
    """
    # all 42 hours at once would take some 30 GB
    return torch.cat([_log_mel_statistics(store, some) for some in clips.split(256)])


def _log_mel_statistics(store, clips: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
    lengths = store.lengths[clips]
    clip = torch.arange(len(clips), device=clips.device).repeat_interleave(lengths)
    first = lengths.cumsum(0) - lengths
    row = torch.arange(len(clip), device=clips.device)
    row += store.starts[clips][clip] - first[clip]
    mel = store.frames[row.to(store.frames.device)].to(row.device).float()
    change = torch.diff(mel, dim=0, prepend=mel[:1]).abs()
    change[first] = 0  # the step from one clip to the next is no change

    def fold(values: Tensor, how: str) -> Tensor:
        start = values.new_zeros(len(clips), values.shape[1])
        into = clip[:, None].expand_as(values)
        return start.scatter_reduce(0, into, values, how, include_self=False)

    mean = fold(mel, "mean")
    std = fold((mel - mean[clip]).square(), "mean").sqrt()
    return torch.cat([mean, std, fold(mel, "amax"), fold(mel, "amin"), fold(change, "mean")], dim=1)


@dataclass(frozen=True)
class Probe:
    """A fitted multinomial logistic regression with the standardisation it was fitted behind."""

    centre: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]
    weight: Float[Tensor, "d K"]
    bias: Float[Tensor, " K"]

    def __call__(self, h: Float[Tensor, "N d"]) -> Float[Tensor, "N K"]:
        """Posteriors of patches; rows sum to 1."""
        return (((h - self.centre) / self.scale) @ self.weight + self.bias).softmax(dim=1)


def fit_logistic(
    h: Float[Tensor, "N d"],
    y: Int[Tensor, " N"],
    *,
    num_classes: int,
    penalties: tuple[float, ...],
) -> list[Probe]:
    """Multinomial logistic regressions on standardised h, one per L2 penalty, to convergence.

    Each minimises mean cross-entropy + penalty / 2 * |weight|^2; the bias is free, and a dimension
    that never varies gets no weight. L-BFGS on all rows, in coordinates that make the problem
    round (the axes of the covariance, each divided by its curvature): a third of the steps, the
    same minimum.

    Args:
        penalties: L2 per row, > 0; scikit-learn's C is 1 / (N * penalty).

    Returns:
        The probes in the order of the penalties.
    """
    centre, scale = _standard(h)
    x = (h - centre) / scale
    variance, axes = torch.linalg.eigh(x.T @ x / len(x))
    x = x @ axes
    weight = x.new_zeros(x.shape[1], num_classes)
    bias = x.new_zeros(num_classes)
    found = {}
    for penalty in sorted(penalties, reverse=True):  # each starts where the stronger one ended
        # 0.3 is about the curvature of a cross-entropy, p (1 - p), when a few classes compete
        unit = (0.3 * variance.clamp(min=0) + penalty).rsqrt()[:, None]
        weight, bias = _minimise(x, y, weight, bias, unit, penalty)
        found[penalty] = Probe(centre, scale, axes @ weight, bias)
    return [found[penalty] for penalty in penalties]


def _standard(h: Float[Tensor, "N d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Mean and standard deviation of each dimension; inf for one that never varies."""
    centre, scale = h.mean(0), h.std(0, correction=0)
    return centre, torch.where(scale > 1e-6 * (1 + centre.abs()), scale, torch.inf)


@torch.enable_grad()
def _minimise(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, unit: Tensor, penalty: float
) -> tuple[Tensor, Tensor]:
    step, bias = (weight / unit).requires_grad_(), bias.clone().requires_grad_()
    x = x * unit.T
    solver = torch.optim.LBFGS(
        [step, bias],
        max_iter=300,
        history_size=20,
        tolerance_grad=1e-4,
        tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        solver.zero_grad()
        fit = F.cross_entropy(x @ step + bias, y)
        fit = fit + penalty / 2 * (step * unit).square().sum()
        fit.backward()
        return fit

    solver.step(closure)
    return (step * unit).detach(), bias.detach()


def clip_posterior(
    patch_posterior: Float[Tensor, "N K"], clip: Int[Tensor, " N"], clips: Int[Tensor, " n"]
) -> Float[Tensor, "n K"]:
    """A clip's posterior: the mean over its patches, so that a long clip counts once.

    Args:
        clip: the clip of each patch.
        clips: the clips to report, in this order; nan for one without patches.
    """
    rows = 1 + int(torch.cat([clip, clips]).max())
    mean = patch_posterior.new_full((rows, patch_posterior.shape[1]), torch.nan)
    into = clip[:, None].expand_as(patch_posterior)
    return mean.scatter_reduce(0, into, patch_posterior, "mean", include_self=False)[clips]


def linear_probe(
    h: Float[Tensor, "N d"],
    clip: Int[Tensor, " N"],
    y: Int[Tensor, " C"],
    *,
    train: Int[Tensor, " n"],
    test: Int[Tensor, " m"],
    groups: Int[Tensor, " C"],
    num_classes: int,
    config: ProbeConfig,
) -> tuple[Float[Tensor, "m K"], float]:
    """Fit a linear probe on the training clips and give the posterior of each test clip.

    The L2 penalty is the one with the best clip accuracy over inner folds of the training clips;
    clips of one source stay together; with a single source, the largest penalty is taken. The
    test clips are used once, at the end.

    Args:
        h, clip: patches and the clip of each, as from `embed`.
        y: class of every clip of the corpus; indexed by clip.
        train, test: disjoint clips.
        groups: source of every clip of the corpus, as a number.

    Returns:
        Posterior of the test clips, mean over each clip's patches; the chosen penalty.
    """

    def fit(on: Tensor, penalties: tuple[float, ...]) -> list[Probe]:
        mine = torch.isin(clip, on)
        return fit_logistic(h[mine], y[clip[mine]], num_classes=num_classes, penalties=penalties)

    def posterior(probe: Probe, of: Tensor) -> Tensor:
        mine = torch.isin(clip, of)
        return clip_posterior(probe(h[mine]), clip[mine], of)

    hits = dict.fromkeys(sorted(config.penalties, reverse=True), 0.0)  # ties: the stronger
    fold = folds_by_group(groups[train], config.inner_folds)
    inner = fold.unique()
    for k in inner if len(hits) > 1 and len(inner) > 1 else ():
        left, held = train[fold != k], train[fold == k]
        for penalty, probe in zip(hits, fit(left, tuple(hits)), strict=True):
            hits[penalty] += accuracy(posterior(probe, held), y[held]).item() * len(held)
    best = max(hits, key=hits.get)
    return posterior(fit(train, (best,))[0], test), best


def knn_votes(
    h: Float[Tensor, "M d"],
    clip: Int[Tensor, " M"],
    gallery: Float[Tensor, "N d"],
    gallery_clip: Int[Tensor, " N"],
    gallery_y: Int[Tensor, " N"],
    *,
    neighbours: int,
    num_classes: int,
) -> Float[Tensor, "M K"]:
    """Share of each class among the nearest rows of other clips, by cosine.

    Args:
        h, clip: rows to judge and the clip of each.
        gallery, gallery_clip, gallery_y: rows that vote, their clips and classes.
        neighbours: votes of equal weight; all rows of other clips where there are fewer.

    Returns:
        Rows sum to 1; a row without neighbours has nothing but zeros.
    """
    shares = []
    gallery = F.normalize(gallery, dim=1)
    votes = F.one_hot(gallery_y, num_classes).float()
    at_once = max(1, min(2048, 2**26 // len(gallery)))  # 2**26 cosines are 256 MB
    for rows, mine in zip(h.split(at_once), clip.split(at_once), strict=True):
        cosine = F.normalize(rows, dim=1) @ gallery.T
        cosine.masked_fill_(mine[:, None] == gallery_clip, -torch.inf)
        nearest = cosine.topk(min(neighbours, len(gallery)), dim=1)
        counted = votes[nearest.indices] * nearest.values.isfinite()[:, :, None]
        shares.append(counted.sum(1) / counted.sum((1, 2))[:, None].clamp(min=1))
    return torch.cat(shares)


def knn(
    h: Float[Tensor, "N d"],
    clip: Int[Tensor, " N"],
    y: Int[Tensor, " C"],
    *,
    train: Int[Tensor, " n"],
    test: Int[Tensor, " m"],
    num_classes: int,
    neighbours: int,
) -> Float[Tensor, "m K"]:
    """Posterior of the test clips: votes of the nearest training patches, mean over a clip's.

    Rows are standardised on the training patches, as for the linear probe: without it a few large
    dimensions would decide the cosine.

    Args:
        h, clip, y, train, test: as in `linear_probe`.
        neighbours: patches of training clips that vote on a patch.
    """
    mine, asked = torch.isin(clip, train), torch.isin(clip, test)
    centre, scale = _standard(h[mine])
    h = (h - centre) / scale
    votes = knn_votes(
        h[asked],
        clip[asked],
        h[mine],
        clip[mine],
        y[clip[mine]],
        neighbours=neighbours,
        num_classes=num_classes,
    )
    return clip_posterior(votes, clip[asked], test)


def knn_score(
    z: Float[Tensor, "N d"],
    clip: Int[Tensor, " N"],
    y: Int[Tensor, " C"],
    *,
    neighbours: int,
    num_classes: int,
) -> float:
    """Class-balanced accuracy with which clips are known by their neighbours among the others.

    Every patch takes the majority class of its nearest patches of other clips, every clip that of
    its patches; ties go to the lowest class. Labels are used: a checkpoint chosen by this score is
    not chosen without them.

    Source: the checkpoint selection of the authors' code (on z, 200 neighbours).
    """
    votes = knn_votes(z, clip, z, clip, y[clip], neighbours=neighbours, num_classes=num_classes)
    clips = clip.unique()
    majority = F.one_hot(votes.argmax(1), num_classes).float()
    guess = clip_posterior(majority, clip, clips).argmax(1)
    return balanced_accuracy(guess, y[clips], num_classes).item()


def train_classifier(
    encoder: nn.Module,
    store,
    y: Int[Tensor, " C"],
    *,
    train_on: Int[Tensor, " n"],
    validate: Int[Tensor, " v"],
    test: Int[Tensor, " m"],
    mean: float | Float[Tensor, "F 1"],
    std: float | Float[Tensor, "F 1"],
    d: int,
    num_classes: int,
    views: ViewConfig,
    config: TrainConfig,
    hop: int,
    seed: int,
    frozen: str = "",
    score_every: int = 1,
    on_epoch: Callable[[int, float], bool | None] | None = None,
    checkpoint: str | os.PathLike | None = None,
) -> Float[Tensor, "m K"]:
    """Train a linear layer on an encoder's h, or the encoder with it, and judge the test clips.

    One random patch of each clip an epoch, not augmented. With `validate` clips the epoch with the
    best class-balanced accuracy on them is kept, otherwise the last.

    Source: the authors' code: linear evaluation (`frozen="moving"`) and fine-tuning (`frozen=""`).

    Args:
        encoder: changed in place unless `frozen` is "still".
        y: class of every clip of the corpus; indexed by clip.
        train_on, validate, test: disjoint clips.
        mean, std: as in `embed`.
        d: width of h.
        views: length of a patch; the rest of it is not used.
        config: optimiser and schedule.
        hop: frames between the patches that judge a clip.
        frozen: "": the encoder learns too; "still": it does not; "moving": it does not, but its
            BatchNorm statistics follow the batches.
        score_every, on_epoch, checkpoint: as in `training.train`.

    Returns:
        Posterior of the test clips: softmax of each patch, mean over a clip's patches.
    """
    device = store.device
    generator = seed_everything(seed, device)
    network = Classifier(encoder, d, num_classes).to(device)
    make, clips = labelled_views(
        store, train_on, views=views.plain(), generator=generator, scale=(mean, std)
    )
    step = SupervisedStep(network, make, y[clips], LossConfig(), config.precision, frozen)

    def posterior(of: Tensor) -> Tensor:
        logits, clip = embed(
            Part(network, 0),
            store,
            of,
            mean=mean,
            std=std,
            patch_frames=views.patch_frames,
            hop=hop,
            precision=config.precision,
        )
        return clip_posterior(logits.softmax(1), clip, of)

    def score() -> float:
        return balanced_accuracy(posterior(validate).argmax(1), y[validate], num_classes).item()

    train(
        step,
        torch.arange(len(clips), device=device),
        [network],
        config=config,
        generator=generator,
        on_epoch=on_epoch,
        score=score if len(validate) else None,
        score_every=score_every,
        checkpoint=checkpoint,
    )
    return posterior(test)


def folds_by_group(groups: Int[Tensor, " n"], folds: int) -> Int[Tensor, " n"]:
    """A fold (0 to folds - 1) for each row, whole groups together; the same on every machine."""
    _, number = groups.unique(return_inverse=True)
    order = torch.randperm(int(number.max()) + 1, generator=torch.Generator().manual_seed(0))
    return order.to(groups.device)[number] % folds
