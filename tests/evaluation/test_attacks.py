"""The attacks as functions of arrays and texts, against scikit-learn, PyTorch and definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve

from salmu_jax.evaluation import weak_supervision
from salmu_jax.evaluation.auc import auc_scores, true_positives
from salmu_jax.evaluation.folds import draw_folds
from salmu_jax.evaluation.intervals import clustered_interval
from salmu_jax.evaluation.logistic import fit_logistic
from salmu_jax.evaluation.matched import exchange
from salmu_jax.evaluation.sparse_logistic import fit_sparse_logistic
from salmu_jax.evaluation.tfidf import count_terms, weigh
from salmu_jax.evaluation.weak_supervision import fit_adamw, weak_scores


def labels(*sizes):
    return np.repeat([1, 0], sizes)


@pytest.mark.parametrize("decimals", [1, 8])  # with and without ties
def test_area_and_rate_are_those_of_scikit_learn(decimals):
    rng = np.random.default_rng(decimals)
    positive, negative = rng.normal(0.6, 1, 210).round(decimals), rng.normal(0, 1, 330).round(decimals)
    strata = rng.integers(0, 3, 210), rng.integers(0, 3, 330)
    areas, rates = [], []
    for stratum in range(3):
        own, other = positive[strata[0] == stratum], negative[strata[1] == stratum]
        areas.append(len(own) / 210 * roc_auc_score(labels(len(own), len(other)), np.append(own, other)))
        false, true, _ = roc_curve(labels(len(own), len(other)), np.append(own, other), drop_intermediate=False)
        rates.append(len(own) / 210 * true[false <= 0.01].max())
    found = np.concatenate(auc_scores(positive, negative, *strata))
    assert found.mean() == pytest.approx(sum(areas), rel=1e-12)
    assert true_positives(positive, negative, *strata).mean() == pytest.approx(sum(rates), rel=1e-12)


def test_the_interval_of_an_area_covers_the_truth_as_often_as_it_says():
    """The pairs of a person are alike, and so are the two classes of a pair: none of it may make the interval too narrow."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(40), 6)
    stratum = np.zeros(240)
    covered = 0
    for sample in range(200):
        of_person = rng.normal(size=(2, 40))[:, people]
        of_pair = rng.normal(size=240)
        member, other = of_person + of_pair + rng.normal(size=(2, 240))
        scores = np.mean(auc_scores(member, other, stratum, stratum), axis=0)
        low, high = clustered_interval(scores, people, seed=sample, samples=200)
        covered += low <= 0.5 <= high
    assert 0.89 <= covered / 200 <= 0.98


def test_an_area_needs_both_classes_everywhere():
    with pytest.raises(ValueError, match="both classes in each stratum"):
        auc_scores(np.ones(2), np.ones(1), np.array([0, 1]), np.array([0]))


def test_tfidf_and_its_regression_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    words = [*(f"wörd{number}" for number in range(60)), "A+", "o'neil", "x"]
    texts = [" ".join(rng.choice(words, size)) for size in rng.integers(1, 12, 300)]
    train, label = np.arange(300) < 220, rng.random(300) < 0.4
    for most in (100_000, 40):
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), max_features=most)
        if most == 40:  # which of equally frequent terms scikit-learn keeps is undefined: the terms that ours keeps
            kept = np.unique(weigh(count_terms(texts), train, most).column)
            every = TfidfVectorizer(ngram_range=(1, 2)).fit(texts).get_feature_names_out()
            vectorizer = TfidfVectorizer(ngram_range=(1, 2), vocabulary=every[kept])
        seen = vectorizer.fit_transform([texts[row] for row in np.flatnonzero(train)])
        rest = vectorizer.transform([texts[row] for row in np.flatnonzero(~train)])
        expected = LogisticRegression(tol=1e-12, max_iter=10_000).fit(seen, label[train])
        design = weigh(count_terms(texts), train, most)
        weights, intercept = fit_sparse_logistic(design.take(train), label[train])
        logits = design.times(weights) + intercept
        np.testing.assert_allclose(logits[train], expected.decision_function(seen), atol=1e-6)
        np.testing.assert_allclose(logits[~train], expected.decision_function(rest), atol=1e-6)


def test_logistic_regression_on_several_features_is_scikit_learns():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(150, 5)) * [1, 3, 0.1, 1, 0]
    label = features[:, 0] + rng.normal(size=150) > 0
    expected = LogisticRegression(tol=1e-12, max_iter=10_000).fit(features, label)
    found = fit_logistic(features, label)
    np.testing.assert_allclose(found.score(features), expected.decision_function(features), atol=1e-6)


@pytest.mark.parametrize("fit", [fit_logistic, lambda x, y: fit_sparse_logistic(weigh(count_terms(["a b"] * 3), y), y)])
def test_a_regression_needs_both_classes(fit):
    with pytest.raises(ValueError, match="both classes"):
        fit(np.zeros((3, 1)), np.ones(3, bool))


def test_adamw_is_pytorchs(monkeypatch):
    monkeypatch.setattr(weak_supervision, "BATCH", 32)
    rng = np.random.default_rng(2)
    features, label = rng.normal(size=(100, 7)), rng.random(100) < 0.5
    found = fit_adamw(lambda rows: features[rows], np.arange(100), label, np.random.default_rng(3))
    weights = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    optimizer, order = torch.optim.AdamW([weights], lr=1e-3, weight_decay=0.01), np.random.default_rng(3)
    design, target = torch.tensor(np.append(features, np.ones((100, 1)), 1)), torch.tensor(label, dtype=torch.float64)
    for _ in range(5):
        for rows in torch.tensor(order.permutation(100)).split(32):
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(design[rows] @ weights, target[rows]).backward()
            optimizer.step()
    np.testing.assert_allclose(found, weights.detach().numpy(), rtol=1e-9)


def test_the_weak_attack_judges_nobody_whom_it_was_trained_on(monkeypatch):
    """Each fold's score depends on the other folds' rows and its own alone, and its labels follow the published rule."""
    rng = np.random.default_rng(4)
    images, members, matched = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(3, 90, 6)))
    folds = np.arange(90) % 5
    seen = []
    real = weak_supervision.fit_adamw

    def spy(features, pairs, label, rng):
        seen.append((features(pairs), label))
        return real(features, pairs, label, rng)

    monkeypatch.setattr(weak_supervision, "fit_adamw", spy)
    weak_scores(images, members, matched, folds, seed=0)
    cosine = (images * members).sum(1), (images * matched).sum(1)
    for held_out, (features, label) in enumerate(seen):
        known = np.isin(folds, [(held_out + 1) % 5, (held_out + 2) % 5])
        guessed = np.isin(folds, [(held_out + 3) % 5, (held_out + 4) % 5])
        threshold = cosine[1][known].mean() + 0.5 * cosine[1][known].std()
        expected = [some[guessed][some[guessed] >= threshold] for some in cosine]
        np.testing.assert_allclose(np.sort(features[label, -1]), np.sort(np.concatenate(expected)))
        np.testing.assert_allclose(np.sort(features[~label, -1]), np.sort(cosine[1][known]))


def test_folds_hold_people_of_each_kind_in_equal_shares():
    identity = np.repeat(np.append(np.arange(24), -1), 3)
    kind = np.repeat(np.append(np.arange(24) % 4 == 0, 1), 3).astype(int)
    folds = draw_folds(identity, kind, seed=1, purpose=2)
    assert set(folds[identity < 0]) == {-1}
    for person in range(24):
        assert len(set(folds[identity == person])) == 1
    for of in (0, 1):
        people = np.unique(identity[(kind == of) & (identity >= 0)])
        sizes = np.bincount(folds[people * 3], minlength=5)
        assert sizes.max() - sizes.min() <= 1
    np.testing.assert_array_equal(folds, draw_folds(np.where(identity < 0, -1, identity * 7), kind, seed=1, purpose=2))
    assert (folds != draw_folds(identity, kind, seed=2, purpose=2)).any()
    assert set(draw_folds(np.arange(5), np.zeros(5, int), seed=0, purpose=0)) == {0, 1}  # two people a fold, at least


def test_an_exchange_gives_each_place_another_value_where_it_can():
    rng = np.random.default_rng(5)
    for values in (list("abcdef"), list("aaabbc"), list("ab"), list("aabb")):
        for _ in range(20):
            order = exchange(values, rng)
            assert sorted(order) == list(range(len(values)))
            assert all(values[other] != own for own, other in zip(values, order, strict=True))
    order = exchange(list("aaaab"), rng)  # a cannot leave all of its places
    assert sorted(order) == list(range(5))
    assert sum("aaaab"[other] != own for own, other in zip("aaaab", order, strict=True)) == 2
    assert len(exchange([], rng)) == 0
