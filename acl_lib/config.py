"""What a run is: frozen dataclasses, three profiles, JSON in and out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import typing
from dataclasses import asdict, dataclass, field, replace

RESAMPLERS = ("soxr_vhq", "soxr_hq", "soxr_mq", "soxr_lq", "soxr_qq")
REDUCTIONS = ("paper_scaled", "paper_code", "mean")  # as in losses
OPTIMIZERS = ("sgd", "adamw")
PRECISIONS = ("auto", "float32", "bfloat16")
PRETRAIN_ON = ("train", "all")


def _require(ok, rule: str, got) -> None:
    if not ok:
        raise ValueError(f"need {rule}; got {got!r}")


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

    def __post_init__(self) -> None:
        _require(self.hop_length >= 1, "hop_length >= 1", self.hop_length)
        _require(1 <= self.win_length <= self.n_fft, "win_length in 1 to n_fft", self.win_length)
        _require(self.n_mels >= 1, "n_mels >= 1", self.n_mels)
        bounds, half = (self.fmin, self.fmax), self.sample_rate / 2
        _require(0 <= self.fmin < self.fmax <= half, f"0 <= fmin < fmax <= {half:g} Hz", bounds)
        _require(self.resampler in RESAMPLERS, f"resampler in {RESAMPLERS}", self.resampler)


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

    def __post_init__(self) -> None:
        _require(self.patch_frames >= 1, "patch_frames >= 1", self.patch_frames)
        _require(0 <= self.mix_back < 1, "mix_back in [0, 1)", self.mix_back)
        _require(0 < self.crop_scale <= 1, "crop_scale in (0, 1]", self.crop_scale)
        _require(0 < self.compander <= 1, "compander in (0, 1]", self.compander)
        _require(self.noise >= 0, "noise >= 0", self.noise)
        _require(self.time_masks >= 0, "time_masks >= 0", self.time_masks)
        _require(self.frequency_masks >= 0, "frequency_masks >= 0", self.frequency_masks)
        _require(0 <= self.blur <= 1, "blur in [0, 1]", self.blur)


@dataclass(frozen=True)
class LossConfig:
    """`alpha * NT-Xent(z) + (1 - alpha) * angular margin(h)`; alpha = 1 is plain NT-Xent."""

    alpha: float = 1.0
    temperature: float = 0.2
    margin: float = 0.5  # radians
    reduction: str = "paper_scaled"  # of the angular term; see losses.angular_margin

    def __post_init__(self) -> None:
        _require(0 <= self.alpha <= 1, "alpha in [0, 1]; 1 is NT-Xent alone", self.alpha)
        _require(self.temperature > 0, "temperature > 0; the paper's is 0.2", self.temperature)
        _require(0 < self.margin < math.pi, "margin in (0, pi) radians", self.margin)
        _require(self.reduction in REDUCTIONS, f"reduction in {REDUCTIONS}", self.reduction)


@dataclass(frozen=True)
class TrainConfig:
    width: int = 16  # of the ResNet18; h has 8 * width dimensions, the paper's width is 64
    epochs: int = 20
    batch: int = 32  # clips, so 2 * batch views
    optimizer: str = "sgd"  # "sgd": momentum 0.9, multistep; "adamw": one-cycle
    lr: float = 0.03
    weight_decay: float = 1e-4
    precision: str = "auto"  # "auto": bfloat16 where the processor has it; "float32"; "bfloat16"

    def __post_init__(self) -> None:
        # below, the gradients of torch 2.11's channels-last convolutions run over their memory
        _require(self.width >= 8, "width >= 8", self.width)
        _require(self.epochs >= 1, "epochs >= 1", self.epochs)
        _require(self.batch >= 2, "batch >= 2: one clip has no negatives", self.batch)
        _require(self.optimizer in OPTIMIZERS, f"optimizer in {OPTIMIZERS}", self.optimizer)
        _require(self.lr > 0, "lr > 0", self.lr)
        _require(self.weight_decay >= 0, "weight_decay >= 0", self.weight_decay)
        _require(self.precision in PRECISIONS, f"precision in {PRECISIONS}", self.precision)


@dataclass(frozen=True)
class ProbeConfig:
    """The frozen linear probe: logistic regression on standardised patches."""

    hop: int = 50  # frames between a clip's patches
    penalties: tuple[float, ...] = (1e-3, 1e-2, 1e-1)  # L2, chosen on the training clips
    inner_folds: int = 3

    def __post_init__(self) -> None:
        _require(self.hop >= 1, "hop >= 1 frame", self.hop)
        positive = self.penalties and min(self.penalties) > 0
        _require(positive, "one or more penalties, all > 0", self.penalties)
        _require(self.inner_folds >= 2, "inner_folds >= 2", self.inner_folds)


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

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**63, "seed in 0 to 2**63 - 1", self.seed)
        _require(self.pretrain_on in PRETRAIN_ON, f"pretrain_on in {PRETRAIN_ON}", self.pretrain_on)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    def digest(self) -> str:
        """Sixteen hexadecimal letters that change with any setting."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


PROFILES = {
    # under a minute of training on 400 clips: to see that the loop learns
    "quick": TrainConfig(),
    # minutes: the smallest run whose accuracy means something
    "laptop": TrainConfig(width=32, epochs=40, optimizer="adamw", lr=1e-3, weight_decay=0.05),
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
        ValueError: an unknown recipe, profile or setting; a value of another type or out of range.
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
    changes: dict = {}  # of each part all at once: the range of one may depend on another
    for key, value in settings.items():
        part = _lookup(owner, key, "setting")
        holder = getattr(base, part) if part else base
        changes.setdefault(part, {})[key] = _checked(holder, key, value)
    own = changes.pop(None, {})
    return replace(base, **own, **{k: replace(getattr(base, k), **v) for k, v in changes.items()})


def from_json(text: str) -> Recipe:
    """The recipe of `Recipe.to_json`; unknown keys and wrong types are refused by name."""

    def build(cls, values):
        if not isinstance(values, dict):
            raise ValueError(f"{cls.__name__} must be an object with named values; got {values!r}")
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
    """The value in the field's own type: 1 is a fine float; "0.3", nan and inf are not."""
    kind = typing.get_type_hints(type(holder))[key]
    if typing.get_origin(kind) is tuple:
        good = isinstance(value, (list, tuple)) and all(map(_is_number, value))
        value, kind = (tuple(map(float, value)) if good else value), "a list of numbers"
    elif kind is float:
        good = _is_number(value)
        value, kind = (float(value) if good else value), "a finite number"
    else:
        good, kind = type(value) is kind, {int: "a whole number", str: "a word"}[kind]
    if not good:
        raise ValueError(f"{key} must be {kind}; got {value!r}")
    return value


def _is_number(value) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
