"""The contrastive loss against float64 numpy, a naive loop and PyTorch, with and without masked duplicates."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from salmu_jax.training.loss import LossConfig, caption_ids, contrastive_loss, make_loss

loss_and_gradients = jax.jit(jax.value_and_grad(contrastive_loss, argnums=(0, 1, 2)))


def features(seed, rows=6, width=5):
    draw = np.random.default_rng(seed)

    def unit():
        x = draw.normal(size=(rows, width))
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    return unit(), unit(), np.float32(draw.uniform(0, 4.6))


def naive(image, text, logit_scale, ids):
    """Row by row in float64: pairs whose captions are equal are left out of the negatives."""
    image, text, scale = image.astype(np.float64), text.astype(np.float64), np.exp(np.float64(logit_scale))
    total = 0.0
    for i in range(len(image)):
        others = [j for j in range(len(image)) if j == i or ids[j] != ids[i]]
        own = scale * image[i] @ text[i]
        total += np.log(sum(np.exp(scale * image[i] @ text[j]) for j in others)) - own
        total += np.log(sum(np.exp(scale * image[j] @ text[i]) for j in others)) - own
    return total / (2 * len(image))


def torch_loss(image, text, logit_scale, ids):
    image, text = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (image, text))
    logit_scale = torch.tensor(float(logit_scale), dtype=torch.float64, requires_grad=True)
    logits = logit_scale.exp() * image @ text.T
    same = torch.tensor(ids[:, None] == ids[None, :]) & ~torch.eye(len(ids), dtype=bool)
    logits = logits.masked_fill(same, -torch.inf)
    labels = torch.arange(len(logits))
    cross_entropy = torch.nn.functional.cross_entropy
    loss = (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2
    loss.backward()
    return loss.item(), (image.grad, text.grad, logit_scale.grad)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ids", [None, [0, 1, 2, 3, 4, 5], [7, 1, 7, 2, 1, 7], [3, 3, 3, 3, 3, 3]])
def test_loss_and_gradients_equal_a_naive_loop_and_torch(seed, ids):
    inputs = features(seed)
    known = np.arange(6) if ids is None else np.array(ids)
    value, gradients = loss_and_gradients(*inputs, None if ids is None else jnp.asarray(ids))
    expected, expected_gradients = torch_loss(*inputs, known)
    assert expected == pytest.approx(naive(*inputs, known), rel=1e-12, abs=1e-12)
    assert value.dtype == jnp.float32
    assert value.shape == ()
    assert float(value) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=2e-6)


def test_equal_captions_are_negatives_unless_they_are_masked():
    image, text, scale = features(0)
    text[1] = text[0]
    ids = np.array([0, 0, 1, 2, 3, 4])
    assert contrastive_loss(image, text, scale, ids) < contrastive_loss(image, text, scale)
    everywhere = contrastive_loss(image, text, scale, np.zeros(6, int))
    assert float(everywhere) == pytest.approx(0, abs=1e-6)


def test_a_perfect_batch_at_the_highest_scale_is_finite_and_near_zero():
    value, gradients = loss_and_gradients(np.eye(6, dtype=np.float32), np.eye(6, dtype=np.float32), np.log(100.0))
    assert 0 <= float(value) < 1e-6
    assert all(np.isfinite(leaf).all() for leaf in gradients)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 49_407), min_size=3, max_size=3) | st.just([5, 6, 7]), min_size=1, max_size=8))
def test_captions_have_equal_ids_if_and_only_if_they_are_equal(rows):
    tokens = np.zeros((8, 3), np.int32)
    tokens[: len(rows)] = rows
    ids = np.asarray(caption_ids(tokens))
    assert ids.dtype == np.uint32
    equal = (tokens[:, None] == tokens[None, :]).all(axis=-1)
    np.testing.assert_array_equal(ids[:, None] == ids[None, :], equal)


def test_caption_ids_see_the_order_of_tokens_and_every_position():
    tokens = np.random.default_rng(0).permuted(np.tile(np.arange(77, dtype=np.int32), (4000, 1)), axis=1)
    assert len(np.unique(np.asarray(caption_ids(tokens)))) == 4000
    base = np.zeros((78, 77), np.int32)
    base[np.arange(77), np.arange(77)] = 1
    assert len(np.unique(np.asarray(caption_ids(base)))) == 78


def sigmoid_in_float64(image, text, logit_scale, logit_bias, ids):
    image, text = image.astype(np.float64), text.astype(np.float64)
    logits = np.exp(np.float64(logit_scale)) * image @ text.T + logit_bias
    own = np.eye(len(image), dtype=bool)
    terms = np.logaddexp(0, np.where(own, -logits, logits))
    return np.sum(terms[own | (ids[:, None] != ids[None, :])]) / len(image)


class HowLossesAreCalled(chex.TestCase):
    """They compute the same whether they are compiled or not, and from arrays of the host or of a device."""

    @chex.variants(with_jit=True, without_jit=True, with_device=True, without_device=True)
    def test_makes_no_difference(self):
        image, text, scale = features(4)
        ids, bias = np.array([7, 1, 7, 2, 1, 7], np.uint32), np.float32(-3)
        scalars = {"logit_scale": scale, "logit_bias": bias}
        wanted = {
            "infonce": naive(image, text, scale, ids),
            "sigmoid": sigmoid_in_float64(image, text, scale, bias, ids),
        }
        for kind, expected in wanted.items():
            for form in ("plain", "chunked"):
                loss = self.variant(make_loss(LossConfig(kind, form, chunk=4)))
                value = loss(image, text, scalars, ids)
                assert value.dtype == jnp.float32
                assert float(value) == pytest.approx(expected, rel=1e-5), (kind, form)


@pytest.mark.parametrize("form", ["plain", "chunked"])
@pytest.mark.parametrize("kind", ["infonce", "sigmoid"])
def test_embeddings_of_different_batches_are_refused(kind, form):
    image, text, scale = features(0)
    loss = make_loss(LossConfig(kind, form))
    scalars = {"logit_scale": scale, "logit_bias": np.float32(0)}
    for wrong in ((image, text[:5]), (image[0], text[0])):
        with pytest.raises(AssertionError):
            loss(*wrong, scalars, None)
    with pytest.raises(AssertionError):
        caption_ids(jnp.zeros((3, 4)))
