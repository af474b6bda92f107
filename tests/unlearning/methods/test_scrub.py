"""SCRUB: the two losses against float64 transcriptions, and which pass has which."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import central_differences, contrastive, in_batch_kl, tables

from salmu_jax.unlearning.method import Bound, StepInfo
from salmu_jax.unlearning.methods.scrub import Scrub

METHOD = Scrub(max_passes=2, divergence_weight=0.5, task_weight=3.0)


@pytest.fixture(scope="module")
def evaluate(table):
    """``(params, epoch) -> (terms, the gradient of their sum)``, compiled once."""
    clip, _, reference_params, batch = table

    def total(params, epoch):
        info = StepInfo(jnp.int32(0), epoch, 100, jax.random.key(0), None)
        terms = METHOD.objectives(batch, Bound(clip, params), Bound(clip, reference_params), info)
        return sum(terms.values()), terms

    compiled = jax.jit(jax.grad(total, has_aux=True))
    return lambda params, epoch: compiled(params, jnp.float32(epoch))[::-1]


def expected_terms(maximise, params, reference_params):
    (image, text, scale), (image0, text0, scale0) = tables(params), tables(reference_params)
    rows = slice(4) if maximise else slice(4, 8)
    logits0 = np.exp(scale0) * image0[rows] @ text0[rows].T
    kl = in_batch_kl(logits0, np.exp(scale) * image[rows] @ text[rows].T)
    if maximise:
        return {"forgetting": -kl, "divergence": 0, "task": 0}
    return {"forgetting": 0, "divergence": 0.5 * kl, "task": 3 * contrastive(image[rows], text[rows], scale)}


@pytest.mark.parametrize("epoch", [0.5, 1.5])
def test_losses_and_gradients(epoch, evaluate, table):
    _, params, reference_params, _ = table
    maximise = epoch > 1
    terms, gradient = evaluate(params, epoch)
    for name, value in expected_terms(maximise, params, reference_params).items():
        np.testing.assert_allclose(terms[name], value, rtol=2e-5)

    expected = central_differences(lambda p: sum(expected_terms(maximise, p, reference_params).values()), params)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=5e-6), gradient, expected)


def test_passes_alternate_until_minimising_has_the_last_word(evaluate, table):
    epochs = [0, 0.99, 1, 1.99, 2, 2.5, 3, 4, 4.5, 5, 6, 9.9]
    maximised = [float(evaluate(table[1], epoch)[0]["forgetting"]) != 0 for epoch in epochs]
    assert maximised == [False, False, True, True, False, False, True] + 5 * [False]


def test_a_budget_of_one_epoch_can_be_divided_into_passes(table):
    clip, params, reference_params, batch = table

    def maximised(epoch, passes):
        info = StepInfo(jnp.int32(0), jnp.float32(epoch), 100, jax.random.key(0), None)
        bound = Bound(clip, params), Bound(clip, reference_params)
        return float(Scrub(passes_per_epoch=passes).objectives(batch, *bound, info)["forgetting"]) != 0

    epochs = [0.1, 0.2, 0.3, 0.4, 0.7, 0.8, 0.9]  # passes 0, 1, 2, 3, 5, 6 and 7 of eight
    assert [maximised(epoch, 8) for epoch in epochs] == [False, True, False, True, True, False, False]
    assert not any(maximised(epoch, 1) for epoch in epochs)


def test_the_start_model_does_not_diverge_from_itself(evaluate, table):
    reference_params = table[2]
    assert abs(float(evaluate(reference_params, 1)[0]["forgetting"])) < 1e-6
    assert abs(float(evaluate(reference_params, 0)[0]["divergence"])) < 1e-6
