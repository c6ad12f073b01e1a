"""The probe finds scikit-learn's minimum, and nothing of the test clips reaches it."""

import numpy as np
import pytest
import torch
from tiny import memory_store, striped_store

from acl_lib.config import ProbeConfig, TrainConfig, ViewConfig
from acl_lib.metrics import accuracy
from acl_lib.models import ResNet18
from acl_lib.probing import (
    clip_posterior,
    embed,
    fit_logistic,
    folds_by_group,
    knn,
    knn_score,
    knn_votes,
    linear_probe,
    log_mel_statistics,
    train_classifier,
)
from acl_lib.views import gather_patches

CHOICE = ProbeConfig(penalties=(1e-3, 1e-1), inner_folds=3)


def clouds(n=120, d=6, classes=3, spread=1.5, seed=0):
    """Rows around one centre a class, on very different scales, and their classes."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    centres = torch.randn(classes, d, generator=rng)
    h = centres[y] + spread * torch.randn(n, d, generator=rng)
    return h * torch.logspace(-2, 2, d) + torch.arange(d), y


# --- embedding ------------------------------------------------------------------------------------


def test_embeddings_are_those_of_every_patch_alone_in_order():
    lengths = [101, 250, 152, 300]
    rng = torch.Generator().manual_seed(0)
    store = memory_store([torch.randn(n, 32, generator=rng).half() for n in lengths])
    encoder = ResNet18(8)
    clips = torch.tensor([3, 1, 0])
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    options = {"mean": -1.5, "std": 2.0, "precision": "float32"}
    h, clip = embed(encoder, store, clips, hop=50, batch=3, **options)
    assert clip.tolist() == [3] * 4 + [1] * 3 + [0]
    row = 0
    for c in clips.tolist():
        for first in range(0, lengths[c] - 101 + 1, 50):
            at = store.starts[c] + first
            x = (store.frames[at : at + 101].float().T[None, None] + 1.5) / 2.0
            with torch.no_grad():
                assert torch.allclose(encoder(x)[0], h[row], atol=1e-5)
            row += 1
    assert row == len(h)
    assert not encoder.training and not h.requires_grad
    after = encoder.state_dict()  # the running statistics of BatchNorm among them
    assert all(torch.equal(before[name], after[name]) for name in before)
    again, _ = embed(encoder.train(), store, clips, hop=50, batch=128, **options)
    assert torch.allclose(again, h, atol=1e-5)


def test_embeddings_are_float32_in_half_precision_too_and_the_store_stays_as_it_was():
    store = striped_store(3)
    frames = store.frames.clone()
    encoder, clips = ResNet18(8), torch.arange(3)
    exact, _ = embed(encoder, store, clips, mean=-2.0, std=1.0, precision="float32")
    half, _ = embed(encoder, store, clips, mean=-2.0, std=1.0, precision="bfloat16")
    assert half.dtype == torch.float32
    assert torch.allclose(half, exact, rtol=0.1, atol=0.02)
    assert torch.equal(store.frames, frames)
    shorter, _ = embed(encoder, store, clips, mean=-2.0, std=1.0, patch_frames=65, hop=65)
    assert len(shorter) == 6  # two whole patches in 130 frames


def test_log_mel_statistics_are_numpys_of_every_clip():
    rng = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 6, (300,), generator=rng)  # more clips than are read at once
    store = memory_store([torch.randn(int(n), 4, generator=rng) for n in lengths])
    clips = torch.randperm(300, generator=rng)[:280]
    found = log_mel_statistics(store, clips).numpy()
    for row, c in zip(found, clips.tolist(), strict=True):
        mel = gather_patches(store.frames, store.starts[c, None], int(lengths[c]))[0, 0].T.numpy()
        change = np.abs(np.diff(mel, axis=0)).sum(0) / len(mel)
        expected = [mel.mean(0), mel.std(0), mel.max(0), mel.min(0), change]
        assert np.allclose(row, np.concatenate(expected), atol=1e-6)


# --- the fit --------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [1e-4, 1e-2, 1.0])
def test_posteriors_are_those_of_scikit_learn(penalty):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    h, y = clouds()
    other, _ = clouds(seed=1)
    scaler = StandardScaler().fit(h.double().numpy())
    oracle = LogisticRegression(C=1 / (len(h) * penalty), tol=1e-10, max_iter=10_000)
    oracle.fit(scaler.transform(h.double().numpy()), y.numpy())
    (probe,) = fit_logistic(h, y, num_classes=3, penalties=(penalty,))
    for rows in (h, other):
        expected = oracle.predict_proba(scaler.transform(rows.double().numpy()))
        assert np.abs(probe(rows).numpy() - expected).max() < 2e-3


def test_each_penalty_has_its_own_minimum_in_any_order():
    h, y = clouds()
    penalties = (1e-2, 1.0, 1e-4)
    together = fit_logistic(h, y, num_classes=3, penalties=penalties)
    for penalty, probe in zip(penalties, together, strict=True):
        (alone,) = fit_logistic(h, y, num_classes=3, penalties=(penalty,))
        assert torch.allclose(probe(h), alone(h), atol=2e-3)
    sizes = [probe.weight.norm().item() for probe in together]
    assert sizes[1] < sizes[0] < sizes[2]


def test_dimensions_that_never_vary_or_repeat_others_do_no_harm():
    h, y = clouds()
    (plain,) = fit_logistic(h, y, num_classes=3, penalties=(1e-2,))
    dull = torch.cat([h, torch.full((len(h), 2), 1e4), torch.zeros(len(h), 1)], 1)
    (probe,) = fit_logistic(dull, y, num_classes=3, penalties=(1e-2,))
    assert torch.allclose(probe(dull), plain(h), atol=1e-3)
    dull[:, -3:] = torch.randn(len(h), 3)  # what never varied in training has no say
    assert torch.allclose(probe(dull), plain(h), atol=1e-3)
    (twice,) = fit_logistic(torch.cat([h, h], 1), y, num_classes=3, penalties=(2e-2,))
    (once,) = fit_logistic(h, y, num_classes=3, penalties=(1e-2,))
    assert torch.allclose(twice(torch.cat([h, h], 1)), once(h), atol=2e-3)


def test_more_dimensions_than_rows_and_separable_classes_stay_finite():
    h, y = clouds(n=30, d=200, spread=0.1)
    for probe in fit_logistic(h, y, num_classes=4, penalties=(1e-3, 1e-6)):
        p = probe(h)
        assert p.isfinite().all() and torch.allclose(p.sum(1), torch.ones(30), atol=1e-5)
        assert accuracy(p, y) == 1
        assert p[:, 3].max() < 0.05  # a class that has no row


# --- clips ----------------------------------------------------------------------------------------


def test_a_clips_posterior_is_the_mean_over_its_patches():
    rng = torch.Generator().manual_seed(0)
    p = torch.rand(40, 3, generator=rng).softmax(1)
    clip = torch.randint(0, 7, (40,), generator=rng)
    clips = torch.tensor([5, 0, 3, 5, 6])  # in an order of its own, one twice, some not at all
    found = clip_posterior(p, clip, clips)
    for row, c in zip(found, clips, strict=True):
        assert torch.allclose(row, p[clip == c].mean(0))
    assert clip_posterior(p, clip, torch.tensor([0, 9]))[1].isnan().all()  # 9 has no patch


def patches_of_clips(clips=24, classes=3, seed=0):
    """1 to 3 patches a clip; h (N, d), clip (N,), y (clips,), groups of two clips."""
    rng = torch.Generator().manual_seed(seed)
    clip = torch.arange(clips).repeat_interleave(1 + torch.arange(clips) % 3)
    y = torch.arange(clips) // 2 % classes
    h = 1.5 * torch.eye(classes, 5)[y[clip]] + torch.randn(len(clip), 5, generator=rng)
    return h, clip, y, torch.arange(clips) // 2


def test_the_probe_is_fitted_and_chosen_without_the_test_clips():
    h, clip, y, groups = patches_of_clips()
    test, train = torch.tensor([2, 7, 11, 20, 23]), []
    train = torch.tensor([c for c in range(24) if c not in test])

    def probe(h=h, y=y):
        return linear_probe(
            h, clip, y, train=train, test=test, groups=groups, num_classes=3, config=CHOICE
        )

    posterior, penalty = probe()
    assert posterior.shape == (5, 3) and torch.allclose(posterior.sum(1), torch.ones(5))
    other = y.clone()
    other[test] = (other[test] + 1) % 3
    assert torch.equal(probe(y=other)[0], posterior) and probe(y=other)[1] == penalty
    loud = torch.where((clip == 7)[:, None], 1e6 * h, h)  # a test clip far away from all others
    keep = torch.tensor([0, 2, 3, 4])
    assert torch.equal(probe(h=loud)[0][keep], posterior[keep]) and probe(h=loud)[1] == penalty
    bad = torch.where(torch.isin(clip, test)[:, None], torch.nan, h)
    assert probe(h=bad)[0].isnan().all() and probe(h=bad)[1] == penalty  # never looked at before


def test_the_probes_answer_is_a_fit_on_all_training_clips_with_the_best_penalty():
    h, clip, y, groups = patches_of_clips(clips=60)
    test, train = torch.arange(45, 60), torch.arange(45)
    posterior, penalty = linear_probe(
        h, clip, y, train=train, test=test, groups=groups, num_classes=3, config=CHOICE
    )
    score = {}
    fold = folds_by_group(groups[train], 3)
    for p in CHOICE.penalties:
        right = 0
        for k in range(3):
            left, held = train[fold != k], train[fold == k]
            mine = torch.isin(clip, left)
            (fitted,) = fit_logistic(h[mine], y[clip[mine]], num_classes=3, penalties=(p,))
            for c in held.tolist():
                right += int(fitted(h[clip == c]).mean(0).argmax() == y[c])
        score[p] = right
    assert score[penalty] == max(score.values())
    mine = torch.isin(clip, train)
    (fitted,) = fit_logistic(h[mine], y[clip[mine]], num_classes=3, penalties=(penalty,))
    for row, c in zip(posterior, test.tolist(), strict=True):
        assert torch.allclose(row, fitted(h[clip == c]).mean(0), atol=1e-5)


def test_with_one_penalty_or_one_source_nothing_is_chosen():
    h, clip, y, groups = patches_of_clips()
    split = {"train": torch.arange(18), "test": torch.arange(18, 24), "num_classes": 3}
    one = ProbeConfig(penalties=(0.05,))
    assert linear_probe(h, clip, y, groups=groups, config=one, **split)[1] == 0.05
    same = torch.zeros_like(groups)
    posterior, penalty = linear_probe(h, clip, y, groups=same, config=CHOICE, **split)
    assert penalty == 0.1 and posterior.isfinite().all()


def test_folds_keep_groups_together_and_use_every_fold():
    groups = torch.tensor([4, 4, 9, 1, 1, 1, 7, 9, 3, 12, 12, 20, 3])
    for folds in (2, 3, 5, 7):
        fold = folds_by_group(groups, folds)
        assert fold.unique().tolist() == list(range(folds))
        for group in groups.unique():
            assert len(fold[groups == group].unique()) == 1
        assert torch.equal(fold, folds_by_group(groups, folds))
    sizes = folds_by_group(torch.arange(100), 4).bincount()
    assert sizes.tolist() == [25] * 4
    torch.manual_seed(5)  # no other generator has a say
    assert torch.equal(folds_by_group(groups, 3), folds_by_group(groups + 100, 3))


# --- neighbours -----------------------------------------------------------------------------------


def votes_by_loops(h, clip, gallery, gallery_clip, gallery_y, neighbours, classes):
    """One row at a time, with Python's own sort."""
    rows = []
    for row, mine in zip(h, clip.tolist(), strict=True):
        others = [
            (torch.cosine_similarity(row, other, dim=0).item(), int(k))
            for other, c, k in zip(gallery, gallery_clip.tolist(), gallery_y, strict=True)
            if c != mine
        ]
        voters = sorted(others, reverse=True)[:neighbours]
        rows.append([sum(k == c for _, k in voters) / len(voters) for c in range(classes)])
    return torch.tensor(rows)


@pytest.mark.parametrize("neighbours", [1, 5, 1000])
def test_neighbours_vote_as_in_a_loop_and_never_for_their_own_clip(neighbours):
    h, clip, y, _ = patches_of_clips()
    found = knn_votes(h, clip, h, clip, y[clip], neighbours=neighbours, num_classes=3)
    expected = votes_by_loops(h, clip, h, clip, y[clip], neighbours, 3)
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(found.sum(1), torch.ones(len(h)))
    many = h.repeat(100, 1), clip.repeat(100)  # more rows than a block holds
    blocks = knn_votes(*many, h, clip, y[clip], neighbours=neighbours, num_classes=3)
    assert torch.allclose(blocks.view(100, len(h), 3), found.expand(100, -1, -1))


def test_neighbours_are_scikit_learns_on_standardised_patches():
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import StandardScaler

    h, clip, y, _ = patches_of_clips(clips=60)
    h = h * torch.logspace(-3, 3, 5)  # without standardisation the last dimension would decide
    train, test = torch.arange(45), torch.arange(45, 60)
    mine = torch.isin(clip, train)
    scaler = StandardScaler().fit(h[mine].numpy())
    oracle = KNeighborsClassifier(5, metric="cosine").fit(scaler.transform(h[mine]), y[clip[mine]])
    expected = clip_posterior(
        torch.tensor(oracle.predict_proba(scaler.transform(h[~mine]))), clip[~mine], test
    )
    found = knn(h, clip, y, train=train, test=test, num_classes=3, neighbours=5)
    assert torch.allclose(found.double(), expected, atol=1e-6)
    other = y.clone()
    other[test] = (other[test] + 1) % 3
    assert torch.equal(
        knn(h, clip, other, train=train, test=test, num_classes=3, neighbours=5), found
    )


def test_the_selection_score_takes_majorities_twice_and_balances_classes():
    # on a circle, in degrees: clip 0 has patches at 0, 1 and 90, and so on
    angle = torch.deg2rad(torch.tensor([0.0, 1, 90, 2, 3, 91, 92, 4]))
    clip = torch.tensor([0, 0, 0, 1, 1, 2, 3, 4])
    y = torch.tensor([0, 0, 1, 1, 1])
    z = torch.stack([angle.cos(), angle.sin()], 1)
    # nearest of another clip: 0 -> clip 1, 1 -> clip 1, 90 -> clip 2: clip 0 reads 0, 0, 1 = 0
    # clip 1: 2 -> 1 (class 0), 3 -> 4 degrees (class 1): a tie, the lowest class
    # clip 2: 91 -> 90 or 92; clip 3: 92 -> 91 (class 1); clip 4: 4 -> 3 (class 0)
    z[5] = torch.tensor([torch.cos(torch.deg2rad(torch.tensor(91.4))), 0.0])
    z[5, 1] = torch.sin(torch.deg2rad(torch.tensor(91.4)))  # nearer to 92 than to 90
    found = knn_score(z, clip, y, neighbours=1, num_classes=2)
    assert found == pytest.approx(((1 + 1) / 2 + (1 + 1 + 0) / 3) / 2)


# --- readers that are trained ---------------------------------------------------------------------


@pytest.mark.parametrize("frozen", ["still", "moving", ""])
def test_a_classifier_is_trained_on_what_it_may_see_and_leaves_what_is_frozen(frozen):
    y = torch.arange(30) % 3
    rng = torch.Generator().manual_seed(0)
    pattern = torch.randn(3, 1, 96, generator=rng)
    store = memory_store([pattern[k] + 0.3 * torch.randn(130, 96, generator=rng) for k in y])
    train, validate, test = torch.arange(18), torch.arange(18, 24), torch.arange(24, 30)
    lr = 0.5 if frozen else 0.05

    def trained(y, seed=0):
        torch.manual_seed(7)
        encoder = ResNet18(8)
        before = {k: v.clone() for k, v in encoder.state_dict().items()}
        posterior = train_classifier(
            encoder,
            store,
            y,
            train_on=train,
            validate=validate,
            test=test,
            mean=0.0,
            std=1.0,
            d=64,
            num_classes=3,
            views=ViewConfig(),
            config=TrainConfig(width=8, epochs=25, batch=9, lr=lr, precision="float32"),
            hop=50,
            seed=seed,
            frozen=frozen,
        )
        after = encoder.state_dict()
        moved = {k for k in before if not torch.equal(before[k], after[k])}
        return posterior, moved

    posterior, moved = trained(y)
    assert torch.allclose(posterior.sum(1), torch.ones(6)) and accuracy(posterior, y[test]) == 1
    weights = {k for k in moved if "running" not in k and "num_batches" not in k}
    assert bool(weights) == (frozen == "") and bool(moved) == (frozen != "still")
    other = y.clone()
    other[test] = 0
    assert torch.equal(trained(other)[0], posterior)
