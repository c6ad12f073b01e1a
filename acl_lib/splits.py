"""Who may see which clip: the folds of a corpus, and what a recipe may learn from in each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from .config import Recipe
from .datasets import Corpus, with_label_noise
from .probing import folds_by_group


@dataclass(frozen=True)
class Split:
    """Which clips a fold may learn from. `test` is opened once; no source is on two sides of it."""

    name: str
    pretrain: Int[Tensor, " p"]
    validate: Int[Tensor, " v"]  # selects the epoch that is kept; none where the last is
    probe: Int[Tensor, " n"]
    test: Int[Tensor, " m"]


def evaluation_splits(corpus: Corpus, recipe: Recipe) -> list[Split]:
    """The folds of a corpus, or its official split; clips of one source never on both sides.

    A corpus with neither is cut into five folds by source; one with `holdouts` has a split for each
    of them. `recipe.splits` takes some. A recipe's subsets ("clean", "noisy",
    "noisy_small") are those of corpora that have them; elsewhere they are all training clips, and
    a share of those selects.

    Raises:
        ValueError: nothing to learn from, to select on or to test on; a source on both sides; a
            clip without a fold among clips with one; no training clip in a subset of the recipe.
    """
    everything, source = torch.arange(len(corpus)), source_numbers(corpus)
    subsets = sorted({name for clip in corpus.clips for name in clip.subsets})

    def part(train: Tensor, name: str, setting: str) -> Tensor:
        if name == "train" or not subsets:
            return train
        named = train & torch.tensor([name in clip.subsets for clip in corpus.clips])
        if not named.any():
            raise ValueError(
                f"no training clip of {corpus.name} is in {setting}={name!r}; "
                f"its subsets are {', '.join(subsets)}"
            )
        return named

    def split(name: str, train: Tensor, test: Tensor) -> Split:
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
        probe = part(train, recipe.probe_on, "probe_on")
        validate = torch.zeros_like(train)
        if recipe.pretrain_on == "all":
            pool = torch.ones_like(train)
        else:
            pool = part(train, recipe.pretrain_on, "pretrain_on")
        if recipe.select.select_by != "last":
            if subsets and recipe.select.select_on != "share":
                validate = part(train, recipe.select.select_on, "select_on")
            else:
                held = held_out(corpus.labels[pool], source[pool], recipe.select.select_share)
                validate[pool] = held
            pool = pool & ~torch.isin(source, source[validate])
            if not (validate.any() and pool.any()):
                raise ValueError(
                    f"{corpus.name}, {name}: selecting needs clips to learn from and others to "
                    f"select on; got {int(pool.sum())} and {int(validate.sum())}. Keep the last "
                    "epoch (select_by='last'), or take another select_on or select_share"
                )
            if recipe.probe.chooses_epoch:  # on these clips too
                probe = probe & ~torch.isin(source, source[validate])
        return Split(name, *(everything[side] for side in (pool, validate, probe, test)))

    def some(splits: list[Split]) -> list[Split]:
        count = recipe.splits
        if count > len(splits):
            raise ValueError(
                f"{corpus.name} has {len(splits)} splits; splits={count} asks for more"
            )
        return [splits[(count * recipe.seed + i) % len(splits)] for i in range(count)] or splits

    if corpus.holdouts:
        held = [
            torch.tensor([clip.source in names for clip in corpus.clips])
            for names in corpus.holdouts
        ]
        names = ["without " + " and ".join(some) for some in corpus.holdouts]
        return some([split(name, ~test, test) for name, test in zip(names, held, strict=True)])
    if any(clip.split == "test" for clip in corpus.clips):
        train, test = (
            torch.tensor([clip.split == side for clip in corpus.clips])
            for side in ("train", "test")
        )
        return some([split("test", train, test)])
    if corpus.folds:
        if without := [clip.path.name for clip in corpus.clips if clip.fold is None]:
            raise ValueError(
                f"{corpus.name}: {len(without)} of {len(corpus)} clips have no fold, such as "
                f"{without[0]}; give one to every clip or to none"
            )
        fold = torch.tensor([clip.fold for clip in corpus.clips])
    else:
        fold = 1 + folds_by_group(source, 5)
    return some([split(f"fold {k}", fold != k, fold == k) for k in sorted(set(fold.tolist()))])


@dataclass(frozen=True)
class Lessons:
    """What a fold hears and is told of each clip of the corpus; of test clips the truth."""

    sound: Int[Tensor, " N"]  # the clip of the whole corpus that is heard in this place
    y: Int[Tensor, " N"]
    source: Int[Tensor, " N"]


def vocabulary(whole: Corpus, recipe: Recipe) -> tuple[Corpus, Corpus | None]:
    """The corpus that a recipe classifies, and the clips of the classes it holds outside.

    Raises:
        ValueError: fewer than two classes would be left.
    """
    count, classes = recipe.labels.outside, whole.classes
    if not count:
        return whole, None
    if len(classes) - count < 2:
        raise ValueError(
            f"outside={count} leaves {max(len(classes) - count, 0)} of the {len(classes)} classes "
            f"of {whole.name}; two at least are needed"
        )
    outside = {classes[(count * recipe.seed + i) % len(classes)] for i in range(count)}
    return whole.keep_classes(set(classes) - outside), whole.keep_classes(outside)


def lessons(whole: Corpus, recipe: Recipe, split: Split) -> Lessons:
    """The corpus as a fold's training hears it: with the recipe's label noise, if any.

    The seed draws the victims among all clips of the vocabulary that are not tested. Where there
    are fewer foreign sounds than victims, some are heard twice.

    Args:
        whole: the corpus with all its classes; `split` counts the clips of its `vocabulary`.
    """
    corpus, outside = vocabulary(whole, recipe)
    noise = recipe.labels
    if noise.label_noise > 0:
        tested = set(split.test.tolist())
        sides = (
            replace(c, split="test" if i in tested else "train") for i, c in enumerate(corpus.clips)
        )
        corpus = with_label_noise(
            replace(corpus, clips=tuple(sides)),
            noise.label_noise,
            noise.noise_kind,
            recipe.seed,
            outside=outside if noise.noise_kind == "out_of_vocabulary" else None,
            reuse=True,
        )
    place = {clip.path: i for i, clip in enumerate(whole.clips)}
    sound = torch.tensor([place[clip.path] for clip in corpus.clips])
    return Lessons(sound, corpus.labels, source_numbers(corpus))


def held_out(y: Int[Tensor, " n"], source: Int[Tensor, " n"], share: float) -> Tensor:
    """A share of the clips of every class, whole sources together; the same on every machine.

    Returns:
        A mask; of each class at least one source where it has two.
    """
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0)).tolist()
    total = torch.bincount(y).tolist()
    several = {k for k in range(len(total)) if len(source[y == k].unique()) > 1}
    taken, sources = [0] * len(total), set()
    for i in order:
        k, one = int(y[i]), int(source[i])
        if k in several and one not in sources and taken[k] < share * total[k]:
            sources.add(one)
            for other in y[source == one].tolist():
                taken[other] += 1
    return torch.isin(source, torch.tensor(sorted(sources), dtype=source.dtype))


def source_numbers(corpus: Corpus) -> Int[Tensor, " N"]:
    """The source of every clip, as a number."""
    number = {source: i for i, source in enumerate(sorted({c.source for c in corpus.clips}))}
    return torch.tensor([number[clip.source] for clip in corpus.clips])
