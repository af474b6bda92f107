"""Lip: the loss and its gradient against float64, the layers that it trains, and when it ends."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from method_by_hand import make_context, unlearn
from references import assert_terms, central_differences

from salmu_jax.models.clip import l2_normalize
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import Bound, Pairs, StepInfo
from salmu_jax.unlearning.methods.lip import Lip, image_change, stop_at_zero

METHOD = Lip(image_noise=0.2, text_noise=0.3, threshold=0.0)
KEY = jax.random.key(5)


@dataclasses.dataclass(frozen=True)
class LinearClip:
    """Pixels times a matrix; the sum of the token embeddings up to the highest id, with their positions, times another."""

    def encode_image(self, params, images):
        return l2_normalize(images.reshape(len(images), -1) / 255 @ params["visual"]["proj"])

    def encode_text(self, params, tokens):
        text = params["text"]
        read = jnp.arange(tokens.shape[1]) <= jnp.argmax(tokens, axis=1)[:, None]
        inside = text["token_embedding"][tokens] + text["positional_embedding"][: tokens.shape[1]]
        return l2_normalize(jnp.sum(jnp.where(read[..., None], inside, 0), axis=1) @ text["text_projection"])


def draw(seed):
    rng = np.random.default_rng(seed)
    images, tokens = rng.integers(0, 256, (4, 2, 2, 3), dtype=np.uint8), rng.integers(0, 8, (4, 5)).astype(np.int32)
    tokens[range(4), [4, 3, 2, 4]] = 8  # where the texts end
    return Pairs(images, tokens)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def expected(params, pairs, key):
    """float64, from the formula."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, float), params)
    text, (for_image, for_text) = params["text"], jax.random.split(key)
    images = pairs.images.astype(float)
    noisy = np.clip(
        np.round(images + 255 * 0.2 * np.asarray(jax.random.normal(for_image, images.shape), float)), 0, 255
    )
    e = (noisy - images).reshape(4, -1) / 255
    before, after = (unit(pixels.reshape(4, -1) / 255 @ params["visual"]["proj"]) for pixels in (images, noisy))
    image = np.mean(np.linalg.norm(before - after, axis=1) / np.linalg.norm(e, axis=1))

    e, terms = 0.3 * np.asarray(jax.random.normal(for_text, (5, 3)), float), []
    for tokens in pairs.tokens:
        end = int(np.argmax(tokens)) + 1
        inside = text["token_embedding"][tokens[:end]] + text["positional_embedding"][:end]
        both = unit(np.stack([inside.sum(axis=0), (inside + e[:end]).sum(axis=0)]) @ text["text_projection"])
        terms.append(np.linalg.norm(both[0] - both[1]) / np.linalg.norm(e[:end]))
    return {"image": image, "text": np.mean(terms)}


@pytest.fixture(scope="module")
def linear():
    """(clip, params, reference_params, batch)"""
    rng = np.random.default_rng(1)
    shapes = {"token_embedding": (9, 3), "positional_embedding": (6, 3), "text_projection": (3, 4)}
    params = {
        "visual": {"proj": rng.normal(size=(12, 4)).astype(np.float32)},
        "text": {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()},
    }
    params = jax.tree.map(jnp.asarray, params)
    return LinearClip(), params, params, {"forget": draw(2)}


def test_losses_and_gradients(linear):
    info = StepInfo(jnp.int32(0), jnp.float32(0), 1, KEY, None)
    assert_terms(METHOD, linear, lambda params: expected(params, linear[3]["forget"], KEY), info=info)


def test_noise_that_rounding_takes_away_has_no_loss_and_no_gradient(linear):
    clip, params, _, batch = linear
    images = jnp.asarray(batch["forget"].images)
    value, gradient = jax.value_and_grad(lambda p: image_change(Bound(clip, p), images, KEY, 1e-6))(params)
    assert value == 0
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(gradient))


def test_a_batch_that_is_forgotten_has_no_loss(linear):
    clip, params, _, batch = linear
    cosines = np.asarray(
        clip.encode_image(params, batch["forget"].images) @ clip.encode_text(params, batch["forget"].tokens).T
    )
    found = np.mean(cosines.argmax(axis=1) == range(4))
    assert 0 < found < 1
    info = StepInfo(jnp.int32(0), jnp.float32(0), 1, KEY, None)
    for threshold, going in ((found, True), (found + 0.01, False)):
        terms = dataclasses.replace(METHOD, threshold=threshold).objectives(batch, Bound(clip, params), None, info)
        assert [float(term) > 0 for term in terms.values()] == [going, going]


def test_the_first_gradient_of_zero_ends_the_run():
    transform = stop_at_zero(optax.with_extra_args_support(optax.sgd(1.0, momentum=0.5)))
    state, moves = transform.init({"w": jnp.zeros(1)}), []
    for gradient in (1.0, 2.0, 0.0, 3.0):
        updates, state = transform.update({"w": jnp.array([gradient])}, state, {"w": jnp.zeros(1)}, step=0)
        moves.append(float(updates["w"][0]))
    assert moves == [-1, -2.5, 0, 0]


def test_the_layers_with_the_largest_gradient_are_trained(linear):
    clip, params, _, _ = linear
    batches, method = [{"forget": draw(seed)} for seed in (2, 3)], dataclasses.replace(METHOD, layers=1, batches=2)
    context = make_context(method, Hyper(), clip, params, batches)

    def loss(params):
        keys = [jax.random.fold_in(context.rng, number) for number in range(2)]
        return np.mean(
            [sum(expected(params, one["forget"], key).values()) for one, key in zip(batches, keys, strict=True)]
        )

    sizes = jax.tree.map(lambda gradient: np.mean(np.abs(gradient)), central_differences(loss, params))
    largest = max(sizes["text"], key=sizes["text"].get)
    prepared = method.prepare(context)
    assert prepared == {
        "visual/proj": pytest.approx(sizes["visual"]["proj"], rel=1e-5),
        f"text/{largest}": pytest.approx(sizes["text"][largest], rel=1e-5),
    }
    hyper = Hyper(learning_rate=0.1, total_steps=2, warmup_steps=0)
    after = unlearn(method, hyper, clip, params, batches)
    moved = jax.tree.map(lambda new, old: bool(np.any(np.asarray(new) != old)), after, params)
    assert moved == {"visual": {"proj": True}, "text": {name: name == largest for name in params["text"]}}
