"""Wrong labels on purpose: how a corpus looks when nobody checked it."""

from collections.abc import Iterable
from dataclasses import replace

import torch

from acl_lib.datasets.base import Corpus
from acl_lib.datasets.clips import Clip


def with_label_noise(
    corpus: Corpus,
    rate: float,
    kind: str,
    seed: int,
    *,
    outside: Corpus | None = None,
    reuse: bool = False,
) -> Corpus:
    """Give ``round(rate * N)`` of the N training clips a wrong label, and remember the right one.

    in_vocabulary: the clip stays, its label becomes one of the other classes, all equally likely.
    out_of_vocabulary: the label stays, the sound is replaced by one of ``outside``; its true label
    is None. The replaced clip keeps its position, so index n means the same in both corpora.

    Clips of the test split are never touched; names of subsets stay as they were. A
    cross-validation corpus has none: score its held-out clips against ``true_label``. Where the
    corpus knows no true label, the label it came with is taken for the truth.

    Args:
        corpus: clips with the labels to spoil.
        rate: fraction of the training clips, in [0, 1].
        kind: "in_vocabulary" or "out_of_vocabulary".
        seed: same seed, same victims.
        outside: for out_of_vocabulary, a corpus that shares no class with ``corpus``; see
            :meth:`Corpus.keep_classes`.
        reuse: take clips of ``outside`` again once all have been taken; else no clip is taken
            twice.

    Raises:
        ValueError: if rate or kind is not as above, ``outside`` is missing, superfluous, too small
            or shares a class, or there is only one class to flip to.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is a fraction of the clips in [0, 1], got {rate}")
    if kind not in ("in_vocabulary", "out_of_vocabulary"):
        raise ValueError(f"kind is 'in_vocabulary' or 'out_of_vocabulary', got {kind!r}")
    if (kind == "out_of_vocabulary") != (outside is not None):
        raise ValueError(f"outside= goes with kind='out_of_vocabulary' only, got kind={kind!r}")
    generator = torch.Generator().manual_seed(seed)
    train = [i for i, clip in enumerate(corpus.clips) if clip.split != "test"]
    order = torch.randperm(len(train), generator=generator).tolist()
    victims = [train[i] for i in order[: round(rate * len(train))]]
    clips = _with_known_truth(corpus.clips)
    if outside is None:
        _flip(clips, victims, len(corpus.classes), generator)
    else:
        _replace(clips, victims, corpus, outside, generator, reuse)
    note = f"{kind} label noise: {len(victims)} of {len(train)} training clips, seed {seed}"
    return replace(corpus, clips=tuple(clips), notes=(*corpus.notes, note))


def _with_known_truth(clips: Iterable[Clip]) -> list[Clip]:
    clips = list(clips)
    if any(clip.true_label is not None for clip in clips):
        return clips  # this corpus knows, and None already means out of vocabulary
    return [c if c.split == "test" else replace(c, true_label=c.label) for c in clips]


def _flip(
    clips: list[Clip], victims: list[int], num_classes: int, generator: torch.Generator
) -> None:
    if victims and num_classes < 2:
        raise ValueError("in_vocabulary noise needs a second class to flip to, got 1 class")
    steps = torch.randint(1, max(num_classes, 2), (len(victims),), generator=generator).tolist()
    for i, step in zip(victims, steps, strict=True):
        clips[i] = replace(clips[i], label=(clips[i].label + step) % num_classes)


def _replace(
    clips: list[Clip],
    victims: list[int],
    corpus: Corpus,
    outside: Corpus,
    generator: torch.Generator,
    reuse: bool,
) -> None:
    shared = set(corpus.classes) & {outside.classes[clip.label] for clip in outside.clips}
    if shared:
        raise ValueError(
            f"outside shares classes {sorted(shared)} with {corpus.name}; see keep_classes"
        )
    if len(outside) < len(victims) and not (reuse and len(outside)):
        raise ValueError(
            f"rate asks for {len(victims)} clips from outside, {outside.name} has {len(outside)}; "
            "reuse=True takes some of them more than once"
        )
    rounds = -(-len(victims) // max(len(outside), 1))
    orders = [torch.randperm(len(outside), generator=generator).tolist() for _ in range(rounds)]
    chosen = [j for order in orders for j in order][: len(victims)]
    for i, j in zip(victims, chosen, strict=True):
        guest = outside.clips[j]
        foreign = outside.name != corpus.name  # ids of two corpora may coincide by chance
        clips[i] = replace(
            clips[i],
            path=guest.path,
            source=f"{outside.name}:{guest.source}" if foreign else guest.source,
            licence=guest.licence,
            true_label=None,
        )
