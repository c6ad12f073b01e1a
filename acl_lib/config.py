"""What a run is: frozen dataclasses, named recipes, four profiles, JSON in and out."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import sys
import typing
from dataclasses import asdict, dataclass, field, replace

RESAMPLERS = ("soxr_vhq", "soxr_hq", "soxr_mq", "soxr_lq", "soxr_qq", "kaiser_best")
REDUCTIONS = ("paper_scaled", "paper_code", "mean")  # as in losses
MARGIN_KINDS = ("additive", "angular")  # as in losses
METHODS = ("simclr", "moco", "supervised", "supcon")
NETWORKS = ("resnet18", "baseline_cnn")
PATCHES = ("random", "all")
STANDARDISE = ("global", "band")
OPTIMIZERS = ("sgd", "adamw", "adam")
PRECISIONS = ("auto", "float32", "bfloat16")
SELECT_BY = ("last", "knn", "loss")
SOLVERS = ("lbfgs", "sgd")
NOISE_KINDS = ("in_vocabulary", "out_of_vocabulary")  # as in datasets.with_label_noise
SUBSETS = ("clean", "noisy", "noisy_small")  # of the training clips, in corpora that have them
TRAIN_ON = ("train", "all", *SUBSETS)
PROBE_ON = ("train", *SUBSETS)
SELECT_ON = ("share", *SUBSETS)


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
    resampler: str = "soxr_hq"  # band-limited; "kaiser_best" is the authors'
    floor: float = 1.1e-8  # power added before the logarithm
    min_seconds: float = 1.0  # a shorter clip is repeated to this length

    def __post_init__(self) -> None:
        _require(self.hop_length >= 1, "hop_length >= 1", self.hop_length)
        _require(1 <= self.win_length <= self.n_fft, "win_length in 1 to n_fft", self.win_length)
        _require(self.n_mels >= 1, "n_mels >= 1", self.n_mels)
        bounds, half = (self.fmin, self.fmax), self.sample_rate / 2
        _require(0 <= self.fmin < self.fmax <= half, f"0 <= fmin < fmax <= {half:g} Hz", bounds)
        _require(self.resampler in RESAMPLERS, f"resampler in {RESAMPLERS}", self.resampler)
        _require(self.floor > 0, "floor > 0: silence has no logarithm", self.floor)
        _require(self.min_seconds > 0, "min_seconds > 0", self.min_seconds)


@dataclass(frozen=True)
class ViewConfig:
    """Two patches of a clip and what is done to each. Defaults: the authors' configuration.

    The paper's text names SpecAugment and Gaussian blur, which the authors' configuration leaves
    off; it leaves out compression and noise, which are on. Zero switches a step off.
    """

    patch_frames: int = 101  # about 1 s
    patches: str = "random"  # an epoch is one draw a clip; "all": every patch (supervised only)
    patch_hop: int = 50  # frames between the patches of "all"
    last_start: bool = True  # False: a patch never starts at the last possible frame, as theirs
    mix_back: float = 0.05  # largest energy of the background, relative to the patch
    coloured_noise: float = 0.0  # largest energy of steady noise, relative to the patch
    reverberation: float = 0.0  # longest time in which an echo falls by 60 dB, seconds
    crop_scale: float = 0.8  # smallest share of the area that a crop keeps; 1 is off
    compander: float = 0.75  # smallest factor on the log10 power; 1 is off
    noise: float = 0.01  # largest standard deviation, log10 power
    time_masks: int = 0
    frequency_masks: int = 0
    blur: float = 0.0  # probability of a Gaussian blur
    standardise: str = "global"  # one mean and deviation; "band": one for each mel band

    def __post_init__(self) -> None:
        _require(self.patch_frames >= 1, "patch_frames >= 1", self.patch_frames)
        _require(self.patches in PATCHES, f"patches in {PATCHES}", self.patches)
        _require(self.patch_hop >= 1, "patch_hop >= 1 frame", self.patch_hop)
        _require(self.standardise in STANDARDISE, f"standardise in {STANDARDISE}", self.standardise)
        _require(0 <= self.mix_back < 1, "mix_back in [0, 1)", self.mix_back)
        _require(0 <= self.coloured_noise < 1, "coloured_noise in [0, 1)", self.coloured_noise)
        _require(self.reverberation >= 0, "reverberation >= 0 seconds", self.reverberation)
        _require(0 < self.crop_scale <= 1, "crop_scale in (0, 1]", self.crop_scale)
        _require(0 < self.compander <= 1, "compander in (0, 1]", self.compander)
        _require(self.noise >= 0, "noise >= 0", self.noise)
        _require(self.time_masks >= 0, "time_masks >= 0", self.time_masks)
        _require(self.frequency_masks >= 0, "frequency_masks >= 0", self.frequency_masks)
        _require(0 <= self.blur <= 1, "blur in [0, 1]", self.blur)

    def plain(self) -> ViewConfig:
        """The same patches without background and augmentation, as an evaluation sees them."""
        off = {"mix_back": 0.0, "crop_scale": 1.0, "compander": 1.0, "noise": 0.0}
        off |= {"coloured_noise": 0.0, "reverberation": 0.0, "blur": 0.0}
        return replace(self, **off, time_masks=0, frequency_masks=0)


@dataclass(frozen=True)
class LossConfig:
    """`alpha * NT-Xent(z) + (1 - alpha) * angular margin(h)`; alpha = 1 is plain NT-Xent.

    With labels, cross-entropy takes the place of NT-Xent and temperature has no say; supervised
    contrastive training takes the temperature alone.
    """

    alpha: float = 1.0
    temperature: float = 0.2
    margin: float = 0.5  # radians
    reduction: str = "paper_scaled"  # of the angular term; see losses.angular_margin
    positive_margin: float = 0.0  # on the partner in NT-Xent, a difference of cosines, or radians
    margin_kind: str = "additive"  # off the partner's cosine (AM); "angular": on its angle (AAM)
    margin_warmup: float = 0.0  # share of the training in which positive_margin rises from 0
    symmetric: bool = True  # both views are anchors; False: the first alone

    def __post_init__(self) -> None:
        _require(0 <= self.alpha <= 1, "alpha in [0, 1]; 1 is the first term alone", self.alpha)
        _require(self.temperature > 0, "temperature > 0; the paper's is 0.2", self.temperature)
        _require(0 < self.margin < math.pi, "margin in (0, pi) radians", self.margin)
        _require(self.reduction in REDUCTIONS, f"reduction in {REDUCTIONS}", self.reduction)
        _require(
            self.margin_kind in MARGIN_KINDS, f"margin_kind in {MARGIN_KINDS}", self.margin_kind
        )
        end, unit = {"additive": (2.0, "cosine"), "angular": (math.pi, "radians")}[self.margin_kind]
        _require(
            0 <= self.positive_margin < end,
            f"positive_margin in [0, {end:.4g}), {unit}",
            self.positive_margin,
        )
        _require(0 <= self.margin_warmup <= 1, "margin_warmup in [0, 1]", self.margin_warmup)

    def at(self, passed: float) -> LossConfig:
        """The loss when a share of the training has passed: the margin rises by half a cosine.

        Source: the margin scheduler of Lepage and Dehak's code (sslsv), over the first half there.
        """
        if not passed < self.margin_warmup:
            return self
        risen = (1 - math.cos(math.pi * passed / self.margin_warmup)) / 2
        return replace(self, positive_margin=risen * self.positive_margin)


@dataclass(frozen=True)
class TrainConfig:
    """The network and how its weights are found."""

    network: str = "resnet18"  # "baseline_cnn": the paper's supervised network
    width: int = 16  # of the ResNet18; h has 8 * width dimensions, the paper's width is 64
    epochs: int = 20
    batch: int = 32  # clips, so 2 * batch views
    drop_last: bool = True  # False: the clips after the last full batch make a short one
    projection: int = 0  # dimensions of z; 0: as many as h, as in the authors' code
    two_passes: bool = False  # True: BatchNorm sees one view at a time, as in the authors' code
    optimizer: str = "sgd"  # momentum 0.9, multistep; "adamw": one-cycle; "adam": plateau
    drops: tuple[float, ...] = (0.65, 0.85)  # of "sgd": shares of the steps, then a tenth the rate
    lr: float = 0.03
    weight_decay: float = 1e-4
    precision: str = "auto"  # "auto": bfloat16 where the processor has it; "float32"; "bfloat16"

    def __post_init__(self) -> None:
        # below, the gradients of torch 2.11's channels-last convolutions run over their memory
        _require(self.width >= 8, "width >= 8", self.width)
        _require(self.network in NETWORKS, f"network in {NETWORKS}", self.network)
        _require(self.epochs >= 1, "epochs >= 1", self.epochs)
        _require(self.projection >= 0, "projection >= 0", self.projection)
        _require(self.batch >= 2, "batch >= 2: one clip has no negatives", self.batch)
        _require(self.optimizer in OPTIMIZERS, f"optimizer in {OPTIMIZERS}", self.optimizer)
        _require(all(0 < d <= 1 for d in self.drops), "drops in (0, 1]", self.drops)
        _require(self.lr > 0, "lr > 0", self.lr)
        _require(self.weight_decay >= 0, "weight_decay >= 0", self.weight_decay)
        _require(self.precision in PRECISIONS, f"precision in {PRECISIONS}", self.precision)


@dataclass(frozen=True)
class SelectConfig:
    """Which epoch's weights are kept. Default: the last, which needs no labels."""

    select_by: str = "last"  # "knn": class-balanced accuracy of z; "loss": smallest loss
    select_on: str = "share"  # a share of the training clips, or a subset; never trained on
    select_share: float = 0.15  # of the training clips, whole sources
    select_every: int = 1  # epochs
    select_neighbours: int = 200  # patches of other clips that vote

    def __post_init__(self) -> None:
        _require(self.select_by in SELECT_BY, f"select_by in {SELECT_BY}", self.select_by)
        _require(self.select_on in SELECT_ON, f"select_on in {SELECT_ON}", self.select_on)
        _require(0 < self.select_share < 1, "select_share in (0, 1)", self.select_share)
        _require(self.select_every >= 1, "select_every >= 1 epoch", self.select_every)
        _require(self.select_neighbours >= 1, "select_neighbours >= 1", self.select_neighbours)


@dataclass(frozen=True)
class ProbeConfig:
    """What is asked of a frozen h: logistic regression and nearest neighbours, on patches.

    With `solver` "sgd" a linear layer is trained besides, as in the authors' evaluation; with
    `finetune_epochs` the whole network is.
    """

    hop: int = 50  # frames between a clip's patches
    penalties: tuple[float, ...] = (1e-3, 1e-2, 1e-1)  # L2, chosen on the training clips
    inner_folds: int = 3
    neighbours: int = 5  # patches of training clips that vote
    solver: str = "lbfgs"
    probe_epochs: int = 200  # of "sgd"; rate divided by 10 after 40 % and 80 %
    probe_lr: float = 0.1
    moving_batchnorm: bool = False  # True: the statistics of the "frozen" encoder move, as theirs
    finetune_epochs: int = 0  # 0: no fine-tuning
    finetune_lr: float = 0.01

    @property
    def chooses_epoch(self) -> bool:
        """Whether a reader is trained that keeps an epoch, where there are clips to select on."""
        return self.solver == "sgd" or self.finetune_epochs > 0

    def __post_init__(self) -> None:
        _require(self.hop >= 1, "hop >= 1 frame", self.hop)
        positive = self.penalties and min(self.penalties) > 0
        _require(positive, "one or more penalties, all > 0", self.penalties)
        _require(self.inner_folds >= 2, "inner_folds >= 2", self.inner_folds)
        _require(self.neighbours >= 1, "neighbours >= 1", self.neighbours)
        _require(self.solver in SOLVERS, f"solver in {SOLVERS}", self.solver)
        _require(self.probe_epochs >= 1, "probe_epochs >= 1", self.probe_epochs)
        _require(self.probe_lr > 0, "probe_lr > 0", self.probe_lr)
        _require(self.finetune_epochs >= 0, "finetune_epochs >= 0", self.finetune_epochs)
        _require(self.finetune_lr > 0, "finetune_lr > 0", self.finetune_lr)


@dataclass(frozen=True)
class MoCoConfig:
    """The keys of method "moco": who makes them, and how many are remembered."""

    # keys for each direction, four batches of "quick"; in a queue as long as the corpus a query
    # meets keys of its own clip
    queue: int = 128
    # of the encoder that makes them, a step; 0.999 in the papers, whose trainings have a thousand
    # times as many steps as "quick"
    key_momentum: float = 0.9
    key_groups: int = 1  # parts of a batch that BatchNorm sees alone, keys in shuffled order

    def __post_init__(self) -> None:
        _require(self.queue >= 1, "queue >= 1 key", self.queue)
        _require(0 <= self.key_momentum < 1, "key_momentum in [0, 1)", self.key_momentum)
        _require(self.key_groups >= 1, "key_groups >= 1", self.key_groups)


@dataclass(frozen=True)
class LabelConfig:
    """Wrong labels put on purpose among the training clips of each fold; test labels stay right."""

    label_noise: float = 0.0  # share of the training clips
    noise_kind: str = "in_vocabulary"  # a wrong class; "out_of_vocabulary": a foreign sound
    # classes held out of the vocabulary, whose clips are the foreign sounds: the first ones with
    # seed 0, the next with seed 1, and so on around
    outside: int = 0

    def __post_init__(self) -> None:
        _require(0 <= self.label_noise <= 1, "label_noise in [0, 1]", self.label_noise)
        _require(self.noise_kind in NOISE_KINDS, f"noise_kind in {NOISE_KINDS}", self.noise_kind)
        _require(self.outside >= 0, "outside >= 0 classes", self.outside)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run's numbers, and nothing else."""

    name: str = "contrastive"
    corpus: str = "synthetic"
    profile: str = "quick"
    seed: int = 0
    # two views of a clip, no labels; "moco": one of them is a key, among older keys; "supervised":
    # one view and its label; "supcon": two views, and all views of a class are pairs
    method: str = "simclr"
    pretrain_on: str = "train"  # the test fold is unseen; "all": every clip, no labels; or a subset
    probe_on: str = "clean"  # labels of the probe: "train", or a subset where there are subsets
    splits: int = 0  # of the corpus's: the first so many with seed 0, the next with seed 1; 0: all
    mel: MelConfig = field(default_factory=MelConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    select: SelectConfig = field(default_factory=SelectConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    moco: MoCoConfig = field(default_factory=MoCoConfig)

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**63, "seed in 0 to 2**63 - 1", self.seed)
        _require(self.method in METHODS, f"method in {METHODS}", self.method)
        _require(self.pretrain_on in TRAIN_ON, f"pretrain_on in {TRAIN_ON}", self.pretrain_on)
        _require(self.probe_on in PROBE_ON, f"probe_on in {PROBE_ON}", self.probe_on)
        _require(self.splits >= 0, "splits >= 0", self.splits)
        self._refuse_the_impossible()

    def _refuse_the_impossible(self) -> None:
        """Settings that are fine alone and mean nothing together."""
        classifies, learned = self.method == "supervised", self.pretrain_on
        labels = self.method in ("supervised", "supcon")
        plain = LossConfig()
        pairs = ("positive_margin", "margin_warmup", "symmetric")  # of NT-Xent alone
        paired = [name for name in pairs if getattr(self.loss, name) != getattr(plain, name)]
        by, on = self.select.select_by, self.select.select_on
        selects, every_patch = by != "last", self.views.patches == "all"
        foreign = self.labels.label_noise > 0 and self.labels.noise_kind == "out_of_vocabulary"
        for impossible, message in (
            (
                labels and learned == "all",
                "pretrain_on='all' needs method='simclr' or 'moco': with labels it would learn "
                "those of the test clips",
            ),
            (
                labels and paired,
                f"{', '.join(paired)} does not go with method={self.method!r}: it is for NT-Xent, "
                "of 'simclr' and 'moco'",
            ),
            (
                self.method != "moco" and self.moco != MoCoConfig(),
                "queue, key_momentum and key_groups need method='moco'",
            ),
            (
                self.method == "moco" and self.loss.alpha < 1 and not self.loss.symmetric,
                "alpha < 1 with method='moco' needs symmetric=True: the angular term compares both "
                "views by one encoder",
            ),
            (
                self.train.batch < 2 * self.moco.key_groups,
                f"key_groups={self.moco.key_groups} needs a batch of {2 * self.moco.key_groups} or "
                "more: BatchNorm needs two rows in each group",
            ),
            (
                self.method == "moco" and self.train.two_passes,
                "two_passes does not go with method='moco': key_groups says what BatchNorm sees",
            ),
            (
                every_patch and not classifies,
                "patches='all' needs method='supervised': a pair is drawn from a clip",
            ),
            (
                every_patch and self.views.mix_back > 0,
                "patches='all' needs mix_back=0: backgrounds are drawn for clips",
            ),
            (
                self.train.network == "baseline_cnn" and not classifies,
                "network='baseline_cnn' needs method='supervised': it has no projection head",
            ),
            (
                by == ("knn" if classifies else "loss"),
                f"select_by={by!r} does not go with method={self.method!r}: 'knn' looks at z, "
                "which 'simclr', 'moco' and 'supcon' have, 'loss' at the loss of 'supervised'",
            ),
            (
                self.method == "supcon" and self.loss.alpha < 1,
                f"alpha={self.loss.alpha:g} does not go with method='supcon', which has one term",
            ),
            (
                selects and learned == "all",
                f"select_by={by!r} needs pretrain_on='train' or a subset: no clip is left to "
                "select on",
            ),
            (
                selects and on == learned,
                f"select_on={on!r} needs another pretrain_on: a clip is trained on, or selects",
            ),
            (
                selects and self.probe.chooses_epoch and on == self.probe_on,
                f"select_on={on!r} needs another probe_on: a layer trained by 'sgd' or a fine-tuned"
                " network learns on the one and keeps the epoch that is best on the other",
            ),
            (
                foreign and not self.labels.outside,
                "noise_kind='out_of_vocabulary' needs outside=1 or more: classes whose clips are "
                "the foreign sounds",
            ),
            (
                self.labels.label_noise > 0 and learned == "all",
                "label_noise needs pretrain_on='train' or a subset: it differs from fold to fold",
            ),
            (
                self.train.optimizer == "adam" and not selects,
                "optimizer='adam' needs select_by='knn' or 'loss': its rate falls when the score "
                "stands still",
            ),
        ):
            if impossible:
                raise ValueError(message)

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
    # the paper's width and batch, a fifth of its epochs
    "gpu": TrainConfig(width=64, epochs=100, batch=128),
    "paper": TrainConfig(width=64, epochs=500, batch=128, precision="float32"),
}

_SPEECH = {"n_mels": 40, "fmin": 20.0, "reverberation": 0.5, "coloured_noise": 0.1}
FRONT_ENDS = {  # what a corpus's sounds ask for; a recipe's own settings go before
    "synthetic_speakers": _SPEECH | {"fmax": 7600.0},
    "fsdd": _SPEECH
    | {"sample_rate": 8000, "n_fft": 512, "win_length": 240, "hop_length": 80, "fmax": 4000.0}
    # in half precision, torch 2.11's convolutions give nan on patches as small as these
    | {"min_seconds": 0.26, "patch_frames": 25, "hop": 12, "precision": "float32"},
    "voxceleb1": _SPEECH
    | {"sample_rate": 16_000, "n_fft": 512, "win_length": 400, "hop_length": 160, "fmax": 7600.0}
    | {"min_seconds": 2.01, "patch_frames": 200, "hop": 100},
}

_PAPER_FRONT_END = {"resampler": "kaiser_best", "last_start": False}
_PAPER_EVALUATION = {
    "probe_on": "noisy",
    "select_by": "knn",
    "select_on": "clean",
    "solver": "sgd",
    "moving_batchnorm": True,
}
RECIPES = {
    "contrastive": {},
    "acl": {"alpha": 0.3},
    "supervised": {"method": "supervised"},
    "supervised_acl": {"method": "supervised", "alpha": 0.7},
    "supcon": {"method": "supcon"},
    "nt_xent_am": {"positive_margin": 0.1},
    "moco": {"method": "moco"},
    "moco_am": {"method": "moco", "positive_margin": 0.1},
    # two that neither paper tried
    "acl_am": {"alpha": 0.3, "positive_margin": 0.1},
    "moco_acl": {"method": "moco", "alpha": 0.3},
    # What the authors' self-supervised code does. Not followed: its standard deviation, which is
    # sqrt(N) times too small and cancels in BatchNorm; its order of the labels; 1e-8 added to the
    # waveform; log-mels are kept in float16; three files that are in train and test leave train.
    "paper_code": {
        "profile": "paper",
        "seed": 271_828,
        "pretrain_on": "noisy",
        "alpha": 0.3,
        "reduction": "paper_code",
        "two_passes": True,
        "drop_last": False,
    }
    | _PAPER_FRONT_END
    | _PAPER_EVALUATION,
    # What the paper's text says, where it differs; it says nothing of a selection.
    "paper_text": {
        "profile": "paper",
        "pretrain_on": "train",
        "probe_on": "train",
        "alpha": 0.3,
        "projection": 128,  # "a lower dimension"
        "time_masks": 2,
        "frequency_masks": 2,
        "blur": 0.5,
        "compander": 1.0,
        "noise": 0.0,
    },
    # What the authors' supervised code does. Not followed: the draw of the 15 % that select (whole
    # sources here), and which of them fill the last batch; a frame in two patches counts once in
    # the statistics of the bands.
    "paper_code_supervised": {
        "profile": "paper",
        "method": "supervised",
        "alpha": 0.7,
        "reduction": "paper_code",
        "network": "baseline_cnn",
        "epochs": 99,
        "batch": 64,
        "optimizer": "adam",
        "lr": 1e-3,
        "weight_decay": 1e-3,
        "select_by": "loss",
        "sample_rate": 44_100,
        "win_length": 1764,
        "hop_length": 882,
        "fmin": 0.0,
        "fmax": 22_050.0,
        "floor": 2.2e-16,
        "min_seconds": 2.0,
        "patch_frames": 100,
        "patches": "all",
        "last_start": False,
        "standardise": "band",
        "mix_back": 0.0,
        "crop_scale": 1.0,
        "compander": 1.0,
        "noise": 0.0,
        "hop": 100,
    },
}


def profile(name: str) -> TrainConfig:
    """Training settings of a profile: "quick", "laptop", "gpu" or "paper"."""
    return _lookup(PROFILES, name, "profile")


def recipe(name: str, *, profile: str | None = None, **settings) -> Recipe:
    """A named recipe: `recipe("acl", corpus="esc10", profile="laptop", alpha=0.5)`.

    Args:
        name: "contrastive" (NT-Xent), "acl" (alpha = 0.3, the paper's choice), "supervised"
            (cross-entropy), "supervised_acl" (alpha = 0.7, the paper's choice on all clips),
            "supcon" (supervised contrastive); "nt_xent_am" (additive margin of 0.1), "moco",
            "moco_am", "acl_am", "moco_acl"; "paper_code", "paper_code_supervised" and
            "paper_text" for FSDnoisy18k.
        profile: "quick", "laptop", "gpu" or "paper"; None takes "quick", and "paper" for the
            paper's recipes. It decides the network's size and the schedule; what a recipe says
            about those goes before in its own profile alone.
        settings: any field of `Recipe` or, by its own name, of one of its parts. A corpus of
            speech has a front end of its own, see `FRONT_ENDS`.

    Raises:
        ValueError: an unknown recipe, profile or setting; a value of another type or out of range;
            settings that cannot go together.
    """
    chosen = dict(_lookup(RECIPES, name, "recipe"))
    own = chosen.pop("profile", "quick")
    size = _lookup(PROFILES, profile or own, "profile")
    if profile not in (None, own):
        chosen = {k: v for k, v in chosen.items() if k not in _SIZE}
    base = Recipe(name=name, profile=profile or own, train=size)
    front = FRONT_ENDS.get(settings.get("corpus"), {})
    return with_settings(base, **front | chosen | settings)


_SIZE = ("width", "epochs", "batch", "optimizer", "lr", "weight_decay", "precision")


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

    try:
        values = json.loads(text, object_pairs_hook=_each_once)
    except RecursionError:
        raise ValueError("no recipe: one thing lies in another without end") from None
    return build(Recipe, values)


def _each_once(pairs: list[tuple[str, object]]) -> dict:
    """An object of JSON in which no name stands twice; the usual reader forgets the first."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} stands twice")
    return values


def _is_part(value) -> bool:
    return dataclasses.is_dataclass(value)


def _lookup(table: dict, name: str, what: str):
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}; there are {', '.join(table)}")
    return table[name]


def _checked(holder, key: str, value):
    """The value in the field's own type: 1 is a fine float; "0.3", nan and inf are not."""
    kind = _types(type(holder))[key]
    if typing.get_origin(kind) is tuple:
        good = isinstance(value, (list, tuple)) and all(map(_is_number, value))
        value, kind = (tuple(map(float, value)) if good else value), "a list of numbers"
    elif kind is float:
        good = _is_number(value)
        value, kind = (float(value) if good else value), "a finite number"
    else:
        words = {int: "a whole number", str: "a word", bool: "True or False"}
        good, kind = type(value) is kind, words[kind]
        if good and type(value) is int and abs(value) >= 2**63:
            good, kind = False, "below 2**63"
    if not good:
        raise ValueError(f"{key} must be {kind}; got {value!r}")
    return value


_types = functools.cache(typing.get_type_hints)  # of a part's fields; found anew it takes a while


def _is_number(value) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # nan is not
