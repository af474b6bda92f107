"""The metrics against naive float64 loops, with ties, duplicates, collapsed models and uneven blocks."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from salmu_jax.evaluation import draws, retrieval, similarity
from salmu_jax.evaluation.logistic import fit_logistic
from salmu_jax.evaluation.metrics import retfail
from salmu_jax.evaluation.metrics.acs import association_coherence
from salmu_jax.runtime.errors import InputError


def unit(rng, *shape):
    x = rng.normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def naive_ranks(images, captions, ids, gallery, gallery_ids):
    ranks = []
    for image, caption, own_id in zip(images.astype(np.float64), captions.astype(np.float64), ids, strict=True):
        own, greater, ties = float(image @ caption), 0, 0
        for text, text_id in zip(gallery.astype(np.float64), gallery_ids, strict=True):
            if text_id == own_id:
                continue
            difference = float(image @ text) - own
            greater += difference > 1e-6
            ties += abs(difference) <= 1e-6
        ranks.append(1 + greater + ties // 2)
    return np.array(ranks)


def world(rng, rows, retain, width, distinct):
    """Rows with repeated captions (same id), and some different captions with the same embedding (real ties)."""
    texts = unit(rng, distinct + retain, width)
    texts[distinct : distinct + retain // 2] = texts[rng.integers(0, distinct, retain // 2)]
    texts[5:9] = texts[4]
    ids = rng.integers(0, distinct, rows).astype(np.int32)
    retain_ids = np.arange(distinct, distinct + retain, dtype=np.int32)
    images = unit(rng, rows, width) * 0.4 + texts[ids] * 0.6
    images /= np.linalg.norm(images, axis=-1, keepdims=True)
    return images, texts, ids, retain_ids


@pytest.mark.parametrize(("rows", "block"), [(1, 256), (7, 7), (50, 8), (129, 64), (64, 1000), (33, 1)])
def test_ranks_against_float64_loops(rows, block):
    rng = np.random.default_rng([rows, block])
    images, texts, ids, retain_ids = world(rng, rows, 40, 12, distinct=20)
    gallery = retrieval.draw_gallery(texts[ids], ids, texts[retain_ids], retain_ids, seed=3)
    expected = naive_ranks(images, texts[ids], ids, gallery.embeddings, gallery.ids)
    found = retrieval.retrieve(images, texts[ids], ids, gallery, block=block)
    np.testing.assert_array_equal(found.ranks, expected)
    assert found.left_out.tolist() == [int((gallery.ids == own).sum()) for own in ids]
    scores = {"forget.rank": found.ranks, "forget.identity": np.zeros(rows, np.int32)}
    assert retfail.MRR.value(scores, {}) == pytest.approx(sum(1 / rank for rank in expected) / rows, rel=1e-12)
    assert retfail.RECALL.value(scores, {}) == sum(rank == 1 for rank in expected) / rows


def test_ranks_at_the_width_of_the_released_model_where_ties_matter():
    rng = np.random.default_rng(0)
    images, texts, ids, retain_ids = world(rng, 60, 50, 512, distinct=30)
    gallery = retrieval.draw_gallery(texts[ids], ids, texts[retain_ids], retain_ids, seed=3)
    found = retrieval.retrieve(images, texts[ids], ids, gallery, block=16)
    expected = naive_ranks(images, texts[ids], ids, gallery.embeddings, gallery.ids)
    np.testing.assert_array_equal(found.ranks, expected)
    # Different captions with one embedding (texts 4 to 8) hold each other off the first place.
    tied = np.isin(ids, range(4, 9)) & (np.isin(gallery.ids, range(4, 9)).sum() - np.isin(gallery.ids, 4).sum() > 1)
    assert tied.any()
    assert (found.ranks[tied] > 1).all()


@pytest.mark.parametrize("noise", [0.0, 1e-7])
@pytest.mark.parametrize("width", [16, 512])
def test_a_collapsed_model_gets_the_middle_rank(width, noise):
    """All embeddings in one point (up to rounding): neither perfectly leaky nor perfectly forgotten."""
    rng = np.random.default_rng(width)
    point = unit(rng, width)
    images = np.tile(point, (300, 1)) + np.float32(noise) * unit(rng, 300, width)
    texts = np.tile(point, (500, 1)) + np.float32(noise) * unit(rng, 500, width)
    ids = np.arange(300, dtype=np.int32)
    gallery = retrieval.draw_gallery(texts[:300], ids, texts[300:], np.arange(300, 500, dtype=np.int32), seed=1)
    assert len(gallery.target_rows) == 300
    assert len(gallery.retain_rows) == 200
    np.testing.assert_array_equal(retrieval.retrieve(images, texts[:300], ids, gallery).ranks, 1 + 499 // 2)
    positive = np.asarray(similarity.paired_similarity(images, texts[:300]))
    assert association_coherence(positive, positive, seed=0) == pytest.approx(0.5, abs=0.05)


def test_permuting_the_rows_permutes_the_outcomes():
    rng = np.random.default_rng(4)
    images, texts, ids, retain_ids = world(rng, 97, 40, 32, distinct=25)
    gallery = retrieval.draw_gallery(texts[ids], ids, texts[retain_ids], retain_ids, seed=3)
    order = rng.permutation(97)
    before = retrieval.retrieve(images, texts[ids], ids, gallery, block=10).ranks
    after = retrieval.retrieve(images[order], texts[ids][order], ids[order], gallery, block=10).ranks
    np.testing.assert_array_equal(after, before[order])


def test_gallery_is_drawn_without_replacement_by_the_seed_alone():
    rng = np.random.default_rng(5)
    target, retain = unit(rng, 3000, 8), unit(rng, 1500, 8)
    ids, retain_ids = np.arange(3000, dtype=np.int32), np.arange(3000, 4500, dtype=np.int32)
    first = retrieval.draw_gallery(target, ids, retain, retain_ids, seed=42)
    np.random.default_rng(42).random(10)
    again = retrieval.draw_gallery(target, ids, retain, retain_ids, seed=42)
    other = retrieval.draw_gallery(target, ids, retain, retain_ids, seed=43)
    np.testing.assert_array_equal(first.ids, again.ids)
    assert len(first.ids) == len(set(first.ids)) == 2000
    assert (first.ids < 3000).sum() == 1000
    assert set(first.ids) != set(other.ids)
    np.testing.assert_array_equal(first.embeddings, np.concatenate([target, retain])[first.ids])


def test_galleries_as_the_released_evaluator_draws_them():
    """numpy's legacy global generator, seeded once: forget's texts first, then retain_disjoint's, in released row order."""
    texts = {"forget": [f"f{i}" for i in range(3000)], "retain_disjoint": [f"r{i}" for i in range(1600)]}
    counts = {"forget": 3000, "holdout_identity": 1200, "retain_disjoint": 1600}
    found = draws.draw_pools(counts, 1000, 42, "released")
    np.random.seed(42)  # noqa: NPY002 (what the released evaluator does)
    for name in ("forget", "retain_disjoint"):
        theirs = np.random.choice(texts[name], 1000, replace=False)  # noqa: NPY002
        assert {texts[name][row] for row in found[name]} == set(theirs)
    assert [len(found[name]) for name in counts] == [1000] * 3
    ours = draws.draw_pools(counts, 1000, 42)
    np.testing.assert_array_equal(ours["forget"], draws.draw_pool(3000, 1000, 42, draws.TARGET_POOL))
    assert set(ours["forget"]) != set(found["forget"])
    assert len(draws.draw_pools({"forget": 5, "retain_disjoint": 0}, 1000, 42, "released")["retain_disjoint"]) == 0
    with pytest.raises(InputError, match=r"evaluate.draws: is 'theirs'; ours and released are possible"):
        draws.draw_pools(counts, 1000, 42, "theirs")


def test_memory_is_bounded_at_the_published_size():
    """Compiled for 30,468 x 2,001 x 512: without blocks the similarities alone are 244 MB, and their mask as much."""
    f32, i32 = np.float32, np.int32
    shape = jax.ShapeDtypeStruct
    images, gallery = shape((30_468, 512), f32), shape((2_000, 512), f32)
    ids, gallery_ids = shape((30_468,), i32), shape((2_000,), i32)
    compiled = retrieval.retrieval_ranks.lower(images, images, ids, gallery, gallery_ids).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 50e6
    imagenet, classes = shape((50_000, 512), f32), shape((1_000, 512), f32)
    compiled = similarity.classify.lower(imagenet, classes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 50e6
    compiled = similarity.paired_similarity.lower(images, images).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 50e6


def test_paired_similarity_against_float64():
    rng = np.random.default_rng(6)
    images, texts = unit(rng, 41, 64), unit(rng, 41, 64)
    cosine = [float(i @ t) for i, t in zip(images.astype(float), texts.astype(float), strict=True)]
    np.testing.assert_allclose(similarity.paired_similarity(images, texts), cosine, atol=1e-6)


@pytest.mark.parametrize("block", [1000, 64, 7])
def test_zero_shot_against_float64(block):
    rng = np.random.default_rng(7)
    prompts = unit(rng, 6, 5, 24)
    labels = rng.integers(0, 6, 150)
    images = unit(rng, 150, 24) + 0.2 * prompts[labels, 0]
    weights = []
    for templates in prompts.astype(float):
        mean = sum(templates) / len(templates)
        weights.append(mean / np.sqrt(mean @ mean))
    correct = sum(
        int(np.argmax([float(i @ w) for w in weights]) == y) for i, y in zip(images.astype(float), labels, strict=True)
    )
    classes = similarity.class_weights(prompts)
    np.testing.assert_allclose(classes, weights, atol=1e-6)
    assert similarity.zero_shot_accuracy(images, labels, classes, block=block) == correct / 150
    assert 30 < correct < 150


@pytest.mark.parametrize(
    ("rows", "gap", "spread"), [(400, 0.05, 0.08), (333, 0.3, 0.05), (2000, 0.0, 0.1), (50, 0.02, 0.003)]
)
def test_acs_against_scikit_learn(rows, gap, spread):
    rng = np.random.default_rng(rows)
    positive = rng.normal(0.2 + gap, spread, rows).astype(np.float32)
    negative = rng.normal(0.2, spread, rows).astype(np.float32)
    feature = np.concatenate([positive, negative]).astype(np.float64)
    label = np.arange(2 * rows) < rows
    train, test = draws.draw_halves(rows, rows, seed=42)
    theirs = LogisticRegression(tol=1e-12, max_iter=10_000).fit(feature[train, None], label[train])
    ours = fit_logistic(feature[train], label[train])
    assert ours.weight == pytest.approx(theirs.coef_[0, 0], abs=1e-4)
    assert ours.intercept == pytest.approx(theirs.intercept_[0], abs=1e-4)
    accuracy = theirs.score(feature[test, None], label[test])
    assert association_coherence(positive, negative, seed=42) == accuracy


def test_logistic_regression_on_separable_and_constant_features():
    """Where Newton's method overshoots or the penalty alone decides, the optimum is still scikit-learn's."""
    for feature in (
        np.concatenate([np.full(500, 1e3), np.full(500, -1e3)]),
        np.full(1000, 0.3),
        np.arange(1000) * -1.0,
    ):
        label = np.arange(1000) < 500
        ours = fit_logistic(feature, label)
        theirs = LogisticRegression(tol=1e-10, max_iter=100_000, solver="newton-cholesky").fit(feature[:, None], label)
        np.testing.assert_array_equal(ours.predict(feature), theirs.predict(feature[:, None]))
        assert ours.weight == pytest.approx(theirs.coef_[0, 0], abs=1e-4)
    with pytest.raises(ValueError, match="both classes"):
        fit_logistic(np.ones(3), np.ones(3, bool))
    with pytest.raises(ValueError, match="finite"):
        fit_logistic(np.array([1, np.nan]), np.array([True, False]))


@pytest.mark.parametrize(("positives", "negatives"), [(2, 2), (3, 3), (10, 7), (30_468, 30_468)])
def test_half_split_is_stratified_and_whole(positives, negatives):
    train, test = draws.draw_halves(positives, negatives, seed=42)
    assert sorted([*train, *test]) == list(range(positives + negatives))
    assert abs(len(train) - len(test)) <= 1
    assert abs((train < positives).sum() - positives / 2) <= 0.5
    again, _ = draws.draw_halves(positives, negatives, seed=42)
    np.testing.assert_array_equal(train, again)
    assert sorted(draws.draw_negatives(positives, 42)) == list(range(positives))
