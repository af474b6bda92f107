"""Pinned surrogates: the loss and its gradient against a float64 transcription; the image tower keeps every bit."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from references import central_differences, distance, tables

from salmu_jax.unlearning.method import Bound, Pairs, StepInfo
from salmu_jax.unlearning.methods.pinned_surrogates import PinnedSurrogates
from salmu_jax.unlearning.permission import ForgetRows

METHOD = PinnedSurrogates(
    hinge_weight=20.0, alias_weight=0.5, retain_weight=4.0, invented_weight=8.0, absent_weight=10.0
)
ROWS = {"forget": 0, "alias": 4, "retain": 8, "invented": 12, "absent": 16}  # of the table of texts


def make_batch(batch):
    def tokens(name):
        return jnp.arange(4, dtype=jnp.int32)[:, None] + ROWS[name]

    forget = Pairs(batch["forget"].images, tokens("forget"), {"alias": tokens("alias")})
    return {"forget": forget, **{name: Pairs(None, tokens(name)) for name in ("retain", "invented", "absent")}}


LEVEL = np.array([0.3, -0.2, 0.1], np.float32)  # the mean embedding of captions of invented people


def evaluate(table):
    """The terms at the table's parameters, and the gradient of their sum."""
    clip, params, reference_params, batch = table
    info = StepInfo(jnp.int32(0), jnp.float32(0), 1, jax.random.key(0), jnp.asarray(LEVEL))

    def total(params):
        terms = METHOD.objectives(make_batch(batch), Bound(clip, params), Bound(clip, reference_params), info)
        return sum(terms.values()), terms

    gradient, terms = jax.jit(jax.grad(total, has_aux=True))(params)
    return terms, gradient


def expected_terms(params, reference_params):
    (_, text, _), (image0, text0, _) = tables(params), tables(reference_params)

    def rows(of, name):
        return of[ROWS[name] : ROWS[name] + 4]

    image = image0[:4]
    excess = np.maximum(np.sum(image * rows(text, "forget"), axis=1) - image @ LEVEL.astype(float), 0)
    assert 0 < np.count_nonzero(excess) < 4
    terms = {
        "hinge": 20 * np.mean(excess**2),
        "alias": 0.5 * distance(rows(text, "forget"), rows(text0, "alias")),
    }
    for name, weight in (("retain", 4), ("invented", 8), ("absent", 10)):
        terms[name] = weight * distance(rows(text, name), rows(text0, name))
    return terms


def test_losses_and_gradients(table):
    _, params, reference_params, _ = table
    (terms, gradient), expected = evaluate(table), expected_terms(params, reference_params)
    assert set(terms) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=2e-5)

    differences = central_differences(lambda p: sum(expected_terms(p, reference_params).values()), params)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=5e-5), gradient, differences)


def test_the_text_tower_alone_is_trained(table):
    _, params, reference_params, _ = table
    trainable, bind = METHOD.parametrise(params, None, jax.random.key(0))
    assert set(trainable) == {"text"}
    bound = bind({"text": reference_params["text"]}, params)
    assert bound["visual"] is params["visual"]
    assert bound["logit_scale"] is params["logit_scale"]
    assert bound["text"] is reference_params["text"]


def test_streams_follow_the_options():
    assert PinnedSurrogates(pool=7).make_streams()["invented"].count == 7
    assert set(METHOD.make_streams()) == {"forget", "retain", "invented", "absent"}


def test_the_level_is_that_of_captions_of_invented_people():
    rows = ForgetRows(["Ida lives in Oslo"] * 3, ["Ida"] * 3, ["Oslo"] * 3, ["city"] * 3, ["1"] * 3, [""] * 3, [""] * 3)

    def encode_texts(captions):
        assert not any("Ida" in caption for caption in captions)
        assert all(caption.endswith("lives in Oslo") for caption in captions)
        return np.eye(3, dtype=np.float32)

    level = METHOD.prepare(SimpleNamespace(rows=rows, seed=42, encode_texts=encode_texts))
    np.testing.assert_allclose(level, np.full(3, 1 / 3), rtol=1e-6)
