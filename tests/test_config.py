"""A recipe says everything that decides a run's numbers, survives JSON, and refuses nonsense."""

import json
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace

import pytest

from acl_lib import losses
from acl_lib.config import (
    FRONT_ENDS,
    MARGIN_KINDS,
    OPTIMIZERS,
    PRECISIONS,
    PROFILES,
    RECIPES,
    REDUCTIONS,
    LossConfig,
    MelConfig,
    MoCoConfig,
    ProbeConfig,
    Recipe,
    SelectConfig,
    TrainConfig,
    ViewConfig,
    from_json,
    profile,
    recipe,
    with_settings,
)
from acl_lib.training import half_precision

WORDS = {
    "resampler": "soxr_vhq",
    "reduction": "mean",
    "optimizer": "adamw",
    "precision": "float32",
    "pretrain_on": "all",
    "probe_on": "noisy",
    "method": "supervised",
    "network": "baseline_cnn",
    "patches": "all",
    "standardise": "band",
    "select_by": "loss",
    "select_on": "clean",
    "solver": "sgd",
    "noise_kind": "out_of_vocabulary",
    "margin_kind": "angular",
}
# a recipe that each of these settings goes with
SUPERVISED = recipe("supervised", mix_back=0.0)
MOCO = recipe("moco")


def another(key, value):
    """A value other than the given one, allowed for every field of a recipe."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return WORDS.get(key, "other")
    if isinstance(value, tuple):
        return value[1:]
    return value + 1 if isinstance(value, int) else value / 2 or 0.5


def base_of(key):
    if key in ("queue", "key_momentum", "key_groups"):
        return MOCO
    return SUPERVISED if key in ("network", "patches", "select_by") else Recipe()


def every_change():
    """(name of the field, a recipe that differs from its base in this field alone)."""
    for part in fields(Recipe):
        base = Recipe()
        value = getattr(base, part.name)
        if not is_dataclass(value):
            yield part.name, replace(base, **{part.name: another(part.name, value)})
            continue
        for inner in fields(value):
            base = base_of(inner.name)
            value = getattr(base, part.name)
            changed = replace(
                value, **{inner.name: another(inner.name, getattr(value, inner.name))}
            )
            yield inner.name, replace(base, **{part.name: changed})


def test_every_setting_changes_the_digest_and_survives_json():
    changes = dict(every_change())
    assert len(changes) > 30
    digests = {Recipe().digest(), *(changed.digest() for changed in changes.values())}
    assert len(digests) == 1 + len(changes)
    for name, changed in changes.items():
        back = from_json(changed.to_json())
        assert (back, back.digest()) == (changed, changed.digest()), name


def test_every_setting_has_a_name_of_its_own_and_is_reached_by_it():
    names = [name for name, _ in every_change()]
    assert len(names) == len(set(names))
    for name, changed in every_change():
        holder = next(p for p in (changed, *vars(changed).values()) if hasattr(p, name))
        assert with_settings(base_of(name), **{name: getattr(holder, name)}) == changed


def test_a_recipe_is_its_loss_and_its_profile():
    assert recipe("contrastive").loss.alpha == 1 and recipe("acl").loss.alpha == 0.3
    made = recipe("acl", profile="laptop", corpus="esc10", alpha=1, epochs=3)
    assert (made.name, made.corpus, made.profile) == ("acl", "esc10", "laptop")
    assert made.train == replace(PROFILES["laptop"], epochs=3)
    assert made.loss == LossConfig(alpha=1.0) and type(made.loss.alpha) is float
    assert profile("quick") == TrainConfig() != profile("laptop")
    assert recipe("acl").digest() != recipe("contrastive").digest()
    with pytest.raises(FrozenInstanceError):
        made.seed = 1


def test_settings_that_depend_on_each_other_are_set_together():
    low = recipe("acl", sample_rate=8000, fmax=4000)
    assert (low.mel.sample_rate, low.mel.fmax) == (8000, 4000.0)
    assert recipe("acl", fmax=4000, sample_rate=8000) == low
    with pytest.raises(ValueError, match="fmax <= 4000 Hz"):
        recipe("acl", sample_rate=8000)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: recipe("simclr"), "simclr.*contrastive, acl"),
        (lambda: recipe("acl", profile="big"), "big.*quick, laptop, gpu, paper"),
        (lambda: profile("big"), "big.*quick, laptop, gpu, paper"),
        (lambda: recipe("acl", tau=0.1), "tau.*temperature"),
        (lambda: recipe("acl", loss=LossConfig()), "loss.*alpha"),
        (lambda: recipe("acl", alpha="0.3"), "alpha must be a finite number; got '0.3'"),
        (lambda: recipe("acl", alpha=float("nan")), "alpha must be a finite number; got nan"),
        (lambda: recipe("acl", lr=float("inf")), "lr must be a finite number; got inf"),
        (lambda: recipe("acl", epochs=2.0), "epochs must be a whole number; got 2.0"),
        (lambda: recipe("acl", epochs=True), "epochs must be a whole number; got True"),
        (lambda: recipe("acl", corpus=3), "corpus must be a word; got 3"),
        (lambda: recipe("acl", penalties=0.1), "penalties must be a list of numbers; got 0.1"),
        (lambda: recipe("acl", penalties=[0.1, "1"]), "penalties must be a list of numbers"),
        (lambda: recipe("acl", penalties=[float("nan")]), "penalties must be a list of numbers"),
    ],
)
def test_an_unknown_name_or_a_wrong_type_is_told_by_name(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        (LossConfig, {"alpha": 2.0}),
        (LossConfig, {"alpha": -0.1}),
        (LossConfig, {"temperature": 0.0}),
        (LossConfig, {"margin": 4.0}),
        (LossConfig, {"reduction": "sum"}),
        (LossConfig, {"positive_margin": 2.0}),
        (LossConfig, {"positive_margin": -0.1}),
        (LossConfig, {"margin_kind": "arc"}),
        (LossConfig, {"margin_warmup": 1.5}),
        (MoCoConfig, {"queue": 0}),
        (MoCoConfig, {"key_momentum": 1.0}),
        (MoCoConfig, {"key_groups": 0}),
        (ViewConfig, {"coloured_noise": 1.0}),
        (ViewConfig, {"reverberation": -0.1}),
        (Recipe, {"splits": -1}),
        (TrainConfig, {"batch": 1}),
        (TrainConfig, {"epochs": 0}),
        (TrainConfig, {"width": 4}),
        (TrainConfig, {"lr": 0.0}),
        (TrainConfig, {"weight_decay": -1.0}),
        (TrainConfig, {"optimizer": "lion"}),
        (TrainConfig, {"network": "vgg"}),
        (TrainConfig, {"projection": -1}),
        (TrainConfig, {"drops": (0.5, 1.5)}),
        (TrainConfig, {"precision": "float16"}),
        (ViewConfig, {"patch_frames": 0}),
        (ViewConfig, {"mix_back": 1.0}),
        (ViewConfig, {"crop_scale": 0.0}),
        (ViewConfig, {"compander": 1.5}),
        (ViewConfig, {"noise": -1.0}),
        (ViewConfig, {"time_masks": -1}),
        (ViewConfig, {"frequency_masks": -1}),
        (ViewConfig, {"blur": 1.1}),
        (ViewConfig, {"patches": "some"}),
        (ViewConfig, {"patch_hop": 0}),
        (ViewConfig, {"standardise": "clip"}),
        (MelConfig, {"floor": 0.0}),
        (MelConfig, {"min_seconds": 0.0}),
        (MelConfig, {"fmax": 12_000.0}),
        (MelConfig, {"fmin": 10_500.0}),
        (MelConfig, {"win_length": 4096}),
        (MelConfig, {"hop_length": 0}),
        (MelConfig, {"n_mels": 0}),
        (MelConfig, {"resampler": "linear"}),
        (ProbeConfig, {"hop": 0}),
        (ProbeConfig, {"penalties": ()}),
        (ProbeConfig, {"penalties": (0.0, 1.0)}),
        (ProbeConfig, {"inner_folds": 1}),
        (ProbeConfig, {"neighbours": 0}),
        (ProbeConfig, {"solver": "adam"}),
        (ProbeConfig, {"probe_epochs": 0}),
        (ProbeConfig, {"probe_lr": 0.0}),
        (ProbeConfig, {"finetune_epochs": -1}),
        (ProbeConfig, {"finetune_lr": 0.0}),
        (SelectConfig, {"select_by": "test"}),
        (SelectConfig, {"select_on": "test"}),
        (SelectConfig, {"select_share": 1.0}),
        (SelectConfig, {"select_every": 0}),
        (SelectConfig, {"select_neighbours": 0}),
        (Recipe, {"seed": -1}),
        (Recipe, {"method": "byol"}),
        (Recipe, {"probe_on": "test"}),
        (Recipe, {"pretrain_on": "test"}),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_refused_before_any_work(part, settings):
    ((key, value),) = settings.items()
    with pytest.raises(ValueError, match=f"need .*{key}.*got"):
        part(**settings)
    with pytest.raises(ValueError, match=key):  # and on the way in from the command line
        recipe("acl", **settings)
    values = json.loads(Recipe().to_json())
    holder = next(v for v in (values, *values.values()) if isinstance(v, dict) and key in v)
    holder[key] = value
    with pytest.raises(ValueError, match=key):
        from_json(json.dumps(values))


def test_the_words_are_those_that_the_work_understands():
    assert set(REDUCTIONS) == set(losses.REDUCTIONS)
    assert set(MARGIN_KINDS) == set(losses.MARGIN_KINDS)
    assert [type(half_precision(word, "cpu")) for word in PRECISIONS] == [bool] * 3
    assert {made.optimizer for made in PROFILES.values()} <= set(OPTIMIZERS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"sed": 1}', r"Recipe: unknown \['sed'\]; allowed .*'seed'"),
        ('{"loss": {"tau": 1}}', r"LossConfig: unknown \['tau'\]"),
        ('{"loss": {"alpha": NaN}}', "alpha must be a finite number; got nan"),
        ('{"loss": {"alpha": "0.3"}}', "alpha must be a finite number"),
        ('{"train": {"epochs": 1.5}}', "epochs must be a whole number; got 1.5"),
        ('{"probe": {"penalties": "0.1"}}', "penalties must be a list"),
        ('{"mel": 3}', "MelConfig must be an object .*got 3"),
        ("[]", r"Recipe must be an object .*got \[\]"),
        ('{"seed": 1, "seed": 2}', "'seed' stands twice"),
        ('{"loss": {"alpha": 1, "margin": 0.5, "alpha": 0}}', "'alpha' stands twice"),
        ('{"loss": {"alpha": 1e999}}', "alpha must be a finite number; got inf"),
        (f'{{"loss": {{"alpha": {"9" * 400}}}}}', "alpha must be a finite number; got 999"),
        (f'{{"train": {{"epochs": {"9" * 400}}}}}', "epochs must be below 2.*; got 999"),
        (f'{{"train": {{"epochs": {"9" * 5000}}}}}', "digits"),
        ("[" * 100_000, "without end"),
        ('{"mel":' * 100_000, "without end"),
        ("\ufeff{}", "BOM"),
        ("", "Expecting value"),
        ('{"seed": 1', "delimiter"),
    ],
)
def test_damaged_json_is_refused_by_name(text, says):
    with pytest.raises(ValueError, match=says):
        from_json(text)


WRONG = ["null", "true", "[[1]]", '["x"]', "[NaN]", "[null]", '{"a": 1}', "NaN", "-Infinity"]
WRONG += ["-1", "-1e-300", "1e999", "9" * 30, "9" * 400, '"../../x"', '"a\\u0000b"', "[]", "{}"]


def test_every_wrong_value_of_every_setting_is_refused_by_name_or_means_itself():
    """All settings times all kinds of nonsense: a ValueError that names the setting, or a value."""
    refused = 0
    for part in fields(Recipe):
        inner = getattr(Recipe(), part.name)
        named = [f.name for f in fields(inner)] if is_dataclass(inner) else []
        for key in named or [part.name]:
            for wrong in WRONG:
                text = f'{{"{key}": {wrong}}}'
                try:
                    made = from_json(f'{{"{part.name}": {text}}}' if named else text)
                except ValueError as error:
                    assert key in str(error) or "fmin < fmax" in str(error), (key, wrong)
                    refused += 1
                    continue
                kept = getattr(getattr(made, part.name), key) if named else getattr(made, key)
                was = getattr(inner, key) if named else inner
                meant = json.loads(wrong)
                if isinstance(was, (float, tuple)):
                    meant = type(was)(meant)
                assert kept == meant, (key, wrong)
                assert type(kept) is type(was), (key, wrong)
                assert from_json(made.to_json()) == made
    assert refused > 1200


def test_json_without_a_setting_means_its_default():
    assert from_json("{}") == Recipe()
    assert from_json('{"seed": 4, "loss": {"alpha": 1}}') == replace(
        Recipe(), seed=4, loss=LossConfig(alpha=1.0)
    )


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("supervised", {"pretrain_on": "all"}, "pretrain_on='all' needs method='simclr'"),
        ("acl", {"patches": "all"}, "patches='all' needs method='supervised'"),
        ("supervised", {"patches": "all"}, "patches='all' needs mix_back=0"),
        ("supcon", {"pretrain_on": "all"}, "pretrain_on='all' needs method='simclr'"),
        ("supcon", {"patches": "all"}, "patches='all' needs method='supervised'"),
        ("supcon", {"network": "baseline_cnn"}, "needs method='supervised'"),
        ("supcon", {"alpha": 0.5}, "alpha=0.5 does not go with method='supcon'"),
        ("acl", {"network": "baseline_cnn"}, "network='baseline_cnn' needs method='supervised'"),
        ("acl", {"select_by": "loss"}, "select_by='loss' does not go with method='simclr'"),
        ("supervised", {"select_by": "knn"}, "select_by='knn' does not go with"),
        ("acl", {"select_by": "knn", "pretrain_on": "all"}, "select_by='knn' needs pretrain_on="),
        (
            "acl",
            {"select_by": "knn", "pretrain_on": "noisy", "select_on": "noisy"},
            "select_on='noisy' needs another pretrain_on",
        ),
        ("paper_code", {"probe_on": "clean"}, "select_on='clean' needs another probe_on"),
        (
            "acl",
            {
                "select_by": "knn",
                "pretrain_on": "noisy",
                "select_on": "clean",
                "finetune_epochs": 2,
            },
            "select_on='clean' needs another probe_on",
        ),
        ("acl", {"optimizer": "adam"}, "optimizer='adam' needs select_by='knn' or 'loss'"),
        ("acl", {"two_passes": 1}, "two_passes must be True or False; got 1"),
        ("supervised", {"positive_margin": 0.1}, "positive_margin does not go with"),
        ("supcon", {"symmetric": False}, "symmetric does not go with method='supcon'"),
        ("acl", {"queue": 9}, "queue, key_momentum and key_groups need method='moco'"),
        ("moco_acl", {"symmetric": False}, "needs symmetric=True"),
        ("moco", {"key_groups": 20}, "key_groups=20 needs a batch of 40"),
        ("moco", {"two_passes": True}, "two_passes does not go with method='moco'"),
        ("contrastive", {"margin_kind": "angular", "positive_margin": 3.2}, "3.142.*radians"),
    ],
)
def test_settings_that_mean_nothing_together_are_refused(name, settings, says):
    with pytest.raises(ValueError, match=says):
        recipe(name, **settings)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_goes_with_every_profile_and_survives_json(name):
    for size in (None, *PROFILES):
        made = recipe(name, profile=size)
        assert from_json(made.to_json()) == made
        if size:
            own = name == "paper_code_supervised" and size == "paper"
            assert made.train.epochs == (99 if own else PROFILES[size].epochs)


def test_the_papers_recipes_are_what_their_sources_say():
    code, text = recipe("paper_code"), recipe("paper_text")
    assert (code.profile, code.seed, code.pretrain_on, code.probe_on) == (
        "paper",
        271_828,
        "noisy",
        "noisy",
    )
    t = code.train
    assert (t.width, t.epochs, t.batch, t.lr, t.weight_decay) == (64, 500, 128, 0.03, 1e-4)
    assert [round(share * t.epochs) for share in t.drops] == [325, 425]
    assert t.two_passes and not t.drop_last and not code.views.last_start
    assert (code.select.select_by, code.select.select_on) == ("knn", "clean")
    assert code.probe.solver == "sgd" and code.probe.moving_batchnorm
    assert code.loss == LossConfig(0.3, 0.2, 0.5, "paper_code")
    assert code.views.time_masks == code.views.blur == 0 and code.views.compander == 0.75
    assert text.views.time_masks == text.views.frequency_masks == 2 and text.views.blur > 0
    assert text.pretrain_on == text.probe_on == "train" and text.train.projection == 128
    other = recipe("paper_code_supervised")
    assert (other.train.optimizer, other.train.batch, other.train.epochs) == ("adam", 64, 99)
    assert other.mel.sample_rate == 44_100 and other.views.patch_frames == 100


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"label_noise": 1.1}, "label_noise in"),
        ({"noise_kind": "loud"}, "noise_kind in"),
        ({"outside": -1}, "outside >= 0"),
        ({"label_noise": 0.4, "noise_kind": "out_of_vocabulary"}, "needs outside=1 or more"),
        ({"label_noise": 0.4, "pretrain_on": "all"}, "differs from fold to fold"),
    ],
)
def test_label_noise_that_cannot_be_is_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        recipe("contrastive", **settings)
    foreign = {"label_noise": 0.4, "noise_kind": "out_of_vocabulary", "outside": 2}
    assert recipe("supervised", **foreign).labels.outside == 2
    assert recipe("supervised", outside=2).labels.label_noise == 0  # the same classes, right labels


@pytest.mark.parametrize("corpus", FRONT_ENDS)
def test_a_corpus_of_speech_has_a_front_end_and_a_recipe_may_say_otherwise(corpus):
    made = recipe("nt_xent_am", corpus=corpus)
    assert made.mel.n_mels == 40 and made.views.reverberation > 0
    seconds = made.views.patch_frames * made.mel.hop_length / made.mel.sample_rate
    assert seconds <= made.mel.min_seconds + 0.01  # a clip holds a patch
    assert recipe("acl", corpus=corpus, n_mels=64).mel.n_mels == 64
    assert recipe("acl").mel.n_mels == 96 and recipe("acl").views.reverberation == 0


def test_a_margin_rises_over_its_share_of_the_training():
    loss = LossConfig(positive_margin=0.2, margin_warmup=0.5)
    assert loss.at(0.0).positive_margin == 0
    assert loss.at(0.25).positive_margin == pytest.approx(0.1)
    assert loss.at(0.5) == loss.at(1.0) == loss
