"""What a run is: frozen dataclasses, three profiles, JSON in and out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from dataclasses import asdict, dataclass, field, replace


@dataclass(frozen=True)
class MelConfig:
    """Sound to log-mel. Defaults: the authors' self-supervised front end (10 ms per frame)."""

    sample_rate: int = 22_050  # Hz
    n_fft: int = 2048
    win_length: int = 660  # samples, 30 ms
    hop_length: int = 220  # samples, 10 ms
    n_mels: int = 96
    fmin: float = 50.0  # Hz
    fmax: float = 10_500.0  # Hz
    resampler: str = "soxr_hq"  # band-limited


@dataclass(frozen=True)
class ViewConfig:
    """Two patches of a clip and what is done to each. Defaults: the authors' configuration.

    The paper's text names SpecAugment and Gaussian blur, which the authors' configuration leaves
    off; it leaves out compression and noise, which are on. Zero switches a step off.
    """

    patch_frames: int = 101  # about 1 s
    mix_back: float = 0.05  # largest energy of the background, relative to the patch
    crop_scale: float = 0.8  # smallest share of the area that a crop keeps; 1 is off
    compander: float = 0.75  # smallest factor on the log10 power; 1 is off
    noise: float = 0.01  # largest standard deviation, log10 power
    time_masks: int = 0
    frequency_masks: int = 0
    blur: float = 0.0  # probability of a Gaussian blur


@dataclass(frozen=True)
class LossConfig:
    """`alpha * NT-Xent(z) + (1 - alpha) * angular margin(h)`; alpha = 1 is plain NT-Xent."""

    alpha: float = 1.0
    temperature: float = 0.2
    margin: float = 0.5  # radians
    reduction: str = "paper_scaled"  # of the angular term; see losses.angular_margin


@dataclass(frozen=True)
class TrainConfig:
    width: int = 16  # of the ResNet18; h has 8 * width dimensions, the paper's width is 64
    epochs: int = 20
    batch: int = 32  # clips, so 2 * batch views
    optimizer: str = "sgd"  # "sgd": momentum 0.9, multistep; "adamw": one-cycle
    lr: float = 0.03
    weight_decay: float = 1e-4
    precision: str = "auto"  # "auto": bfloat16 where the processor has it; "float32"; "bfloat16"


@dataclass(frozen=True)
class ProbeConfig:
    """The frozen linear probe: logistic regression on standardised patches."""

    hop: int = 50  # frames between a clip's patches
    penalties: tuple[float, ...] = (1e-3, 1e-2, 1e-1)  # L2, chosen on the training clips
    inner_folds: int = 3


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run's numbers, and nothing else."""

    name: str = "contrastive"
    corpus: str = "synthetic"
    profile: str = "quick"
    seed: int = 0
    pretrain_on: str = "train"  # "train": the test fold is unseen; "all": every clip, no labels
    probe_on: str = "clean"  # labels of the probe, in corpora that have such subsets
    mel: MelConfig = field(default_factory=MelConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    def digest(self) -> str:
        """Sixteen hexadecimal letters that change with any setting."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


PROFILES = {
    # about 25 CPU-seconds of training on 400 clips: to see that the loop learns
    "quick": TrainConfig(),
    # about 170 CPU-seconds: the smallest run whose accuracy means something
    "laptop": TrainConfig(width=32, epochs=50, optimizer="adamw", lr=1e-3, weight_decay=0.05),
}

LOSSES = {"contrastive": LossConfig(alpha=1.0), "acl": LossConfig(alpha=0.3)}


def profile(name: str) -> TrainConfig:
    """Training settings of a profile: "quick" or "laptop"."""
    return _lookup(PROFILES, name, "profile")


def recipe(name: str, *, profile: str = "quick", **settings) -> Recipe:
    """A named recipe: `recipe("acl", corpus="esc10", profile="laptop", alpha=0.5)`.

    Args:
        name: "contrastive" (NT-Xent) or "acl" (alpha = 0.3, the paper's choice).
        profile: "quick" or "laptop".
        settings: any field of `Recipe` or, by its own name, of one of its parts.

    Raises:
        ValueError: an unknown recipe, profile or setting, or a value of another type.
    """
    base = Recipe(name=name, profile=profile, loss=_lookup(LOSSES, name, "recipe"))
    return with_settings(replace(base, train=_lookup(PROFILES, profile, "profile")), **settings)


def with_settings(base: Recipe, **settings) -> Recipe:
    """A copy of a recipe in which some settings, each known by its own name, are changed."""
    owner = {}
    for part in dataclasses.fields(Recipe):
        value = getattr(base, part.name)
        names = [f.name for f in dataclasses.fields(value)] if _is_part(value) else []
        owner |= dict.fromkeys(names, part.name) | ({} if names else {part.name: None})
    for key, value in settings.items():
        if key not in owner:
            raise ValueError(f"unknown setting {key!r}; there are {', '.join(sorted(owner))}")
        holder = getattr(base, owner[key]) if owner[key] else base
        changed = replace(holder, **{key: _checked(holder, key, value)})
        base = replace(base, **{owner[key]: changed}) if owner[key] else changed
    return base


def from_json(text: str) -> Recipe:
    """The recipe of `Recipe.to_json`; unknown keys and wrong types are refused by name."""

    def build(cls, values):
        base, known = cls(), {f.name for f in dataclasses.fields(cls)}
        if unknown := set(values) - known:
            raise ValueError(f"{cls.__name__}: unknown {sorted(unknown)}; allowed {sorted(known)}")
        read = {
            k: build(type(old), v) if _is_part(old := getattr(base, k)) else _checked(base, k, v)
            for k, v in values.items()
        }
        return cls(**read)

    return build(Recipe, json.loads(text))


def _is_part(value) -> bool:
    return dataclasses.is_dataclass(value)


def _lookup(table: dict, name: str, what: str):
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}; there are {', '.join(table)}")
    return table[name]


def _checked(holder, key: str, value):
    """The value in the field's own type: 1 is a fine float, "0.3" and nan are not."""
    kind = typing.get_type_hints(type(holder))[key]
    if typing.get_origin(kind) is tuple and isinstance(value, (list, tuple)):
        kind, value = tuple, tuple(float(v) for v in value)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or value != value:
        raise ValueError(f"{key} must be {getattr(kind, '__name__', kind)}; got {value!r}")
    return value
