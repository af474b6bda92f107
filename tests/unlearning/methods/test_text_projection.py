"""The text projection against a singular value decomposition in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning.methods.text_projection import TextProjection
from salmu_jax.unlearning.subspaces import leading_directions, quiet_projection


@pytest.fixture(scope="module")
def captions():
    """float64 [60, 6] with directions of well separated strength."""
    draw = np.random.default_rng(0)
    basis = np.linalg.qr(draw.normal(size=(6, 6)))[0]
    return draw.normal(size=(60, 6)) * [3, 2, 1, 0.5, 0.2, 0.1] @ basis.T


def test_the_leading_directions_are_those_of_the_svd(captions):
    moment = (captions.T @ captions / 60).astype(np.float32)
    ours = np.asarray(leading_directions(moment, 2, ""), float)
    theirs = np.linalg.svd(captions)[2][:2].T
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-5)
    assert abs(ours[:, 0] @ theirs[:, 0]) == pytest.approx(1, abs=1e-5)  # the largest first
    for rank in (0, 7):
        with pytest.raises(InputError, match=f"options.rank: is {rank}; the features have 6 directions"):
            leading_directions(moment, rank, "options.rank")


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_the_projection_loses_these_directions_and_nothing_else_changes(captions, strength):
    draw = np.random.default_rng(1)
    weights = draw.normal(size=(5, 6))
    directions = np.linalg.svd(captions)[2][:2].T
    params = {"visual": {"proj": 1.0}, "text": {"text_projection": jnp.asarray(weights, jnp.float32), "other": 2.0}}
    after = TextProjection(rank=2, strength=strength).finish(params, params, jnp.asarray(directions, jnp.float32))
    expected = weights @ (np.eye(6) - strength * directions @ directions.T)
    np.testing.assert_allclose(after["text"]["text_projection"], expected, atol=1e-5)
    assert after["visual"] == params["visual"]
    assert after["text"]["other"] == 2.0


def test_quiet_directions_hold_at_most_their_share_of_the_energy(captions):
    moment = captions.T @ captions / 60
    values, vectors = np.linalg.eigh(moment)
    for count in range(7):
        energy = (values[:count].sum() + (values[count] if count < 6 else 0) / 2) / values.sum() if count else 0.0
        ours = quiet_projection(moment.astype(np.float32), min(energy, 1.0))
        quiet = vectors[:, :count]
        np.testing.assert_allclose(ours, quiet @ quiet.T, atol=1e-4)


def test_null_directions_are_quiet_without_any_energy():
    draw = np.random.default_rng(2)
    rows = draw.normal(size=(3, 8))
    ours = quiet_projection((rows.T @ rows / 3).astype(np.float32), 0.0)
    np.testing.assert_allclose(ours @ rows.T, 0, atol=1e-4)
    assert float(np.trace(ours)) == pytest.approx(5, abs=1e-3)
