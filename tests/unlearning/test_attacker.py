"""The simulated attacker: it brings back what it trains on, and its change counts as constant."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from salmu_jax.unlearning.attacker import after_attack
from salmu_jax.unlearning.losses import contrastive
from salmu_jax.unlearning.method import Bound

PAIRS, WIDTH = 6, 8


class TableClip:
    """A caption's embedding is the row of the parameters that its first token names."""

    def encode_text(self, params, tokens):
        rows = params["text"]["table"][tokens[:, 0]]
        return rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture
def model():
    table = jax.random.normal(jax.random.key(0), (2 * PAIRS, WIDTH))
    return Bound(TableClip(), {"text": {"table": table}, "visual": {}, "logit_scale": jnp.float32(2.0)})


@pytest.fixture
def image():
    rows = jax.random.normal(jax.random.key(1), (PAIRS, WIDTH))
    return rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)


TOKENS = jnp.arange(PAIRS)[:, None]


def test_an_attack_brings_its_pairs_back_and_moves_nothing_else(model, image):
    losses = [float(contrastive(model, image, model.encode_text(TOKENS)))]
    for steps in (1, 4):
        attacked = after_attack(model, image, TOKENS, rate=0.05, steps=steps)
        losses.append(float(contrastive(attacked, image, attacked.encode_text(TOKENS))))
    assert losses[0] > losses[1] > losses[2]
    table, now = model.params["text"]["table"], attacked.params["text"]["table"]
    np.testing.assert_array_equal(now[PAIRS:], table[PAIRS:])  # rows of captions that the attacker does not see
    assert 0.1 < np.abs(now[:PAIRS] - table[:PAIRS]).max() <= 0.2 + 1e-6
    assert attacked.params["visual"] is model.params["visual"]


def test_a_step_is_the_first_of_adamw(model, image):
    def loss(table):
        return contrastive(model, image, TableClip().encode_text({"text": {"table": table}}, TOKENS))

    gradient = jax.grad(loss)(model.params["text"]["table"])
    expected = model.params["text"]["table"] - 0.05 * gradient / (jnp.abs(gradient) + 1e-6)
    attacked = after_attack(model, image, TOKENS, rate=0.05, steps=1)
    np.testing.assert_allclose(attacked.params["text"]["table"], expected, rtol=1e-6)


def test_the_change_counts_as_constant(model, image):
    """The gradient at the parameters before the attack is the one at those after it."""

    def loss(table, attack):
        before = Bound(model.clip, {**model.params, "text": {"table": table}})
        now = after_attack(before, image, TOKENS, rate=0.05, steps=2) if attack else before
        return jnp.sum(jnp.square(now.encode_text(TOKENS) - image))

    attacked = after_attack(model, image, TOKENS, rate=0.05, steps=2)
    through = jax.grad(loss)(model.params["text"]["table"], True)
    there = jax.grad(loss)(attacked.params["text"]["table"], False)
    np.testing.assert_allclose(through, there, rtol=1e-5, atol=1e-7)


def test_without_pairs_nothing_changes(model, image):
    attacked = after_attack(model, image[:0], TOKENS[:0], rate=0.05, steps=2)
    np.testing.assert_array_equal(attacked.params["text"]["table"], model.params["text"]["table"])
