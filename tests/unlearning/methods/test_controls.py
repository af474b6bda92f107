"""The two controls: one changes nothing, the other everything."""

from types import SimpleNamespace

import jax
import numpy as np

from salmu_jax.unlearning.method import Bound
from salmu_jax.unlearning.methods.no_op import NoOp
from salmu_jax.unlearning.methods.random_weights import RandomWeights


def test_they_take_no_steps():
    for method in (NoOp(), RandomWeights()):
        assert not method.takes_steps()
        assert method.defaults.total_steps == method.defaults.epochs == 0
        assert not method.make_streams()


def test_no_op_changes_nothing(real):
    _, params, _ = real
    assert NoOp().finish(params, params, None) is params


def test_random_weights_are_drawn_as_before_training(real):
    clip, params, _ = real

    def after(seed):
        ctx = SimpleNamespace(reference=Bound(clip, params), rng=jax.random.key(seed))
        return RandomWeights().finish(params, params, RandomWeights().prepare(ctx))

    one, other = after(0), after(1)
    expected = jax.jit(clip.init)(jax.random.key(0))
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-6), one, expected)
    assert np.any(one["text"]["text_projection"] != other["text"]["text_projection"])
