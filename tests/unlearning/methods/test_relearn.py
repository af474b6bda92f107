"""Relearning minimises the loss that the model was trained with on forget pairs."""

import jax
import numpy as np
from references import central_differences, contrastive, tables

from salmu_jax.unlearning.method import Bound
from salmu_jax.unlearning.methods.relearn import Relearn


def test_loss_and_gradient(table):
    clip, params, reference_params, batch = table

    def loss(p):
        terms = Relearn().objectives(batch, Bound(clip, p), Bound(clip, reference_params), None)
        assert set(terms) == {"relearning"}
        return terms["relearning"]

    def expected(p):
        image, text, scale = tables(p)
        return contrastive(image[:4], text[:4], scale)

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    np.testing.assert_allclose(value, expected(params), rtol=1e-5)
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=3e-6),
        gradient,
        central_differences(expected, params),
    )
