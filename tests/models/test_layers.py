"""Layer normalisation and the GELUs, and their hand-written backward passes, against PyTorch in float64."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from salmu_jax.models import layers
from salmu_jax.models.layers import gelu, layer_norm, quick_gelu

TORCH = {
    gelu: torch.nn.functional.gelu,
    quick_gelu: lambda x: x * torch.sigmoid(1.702 * x),
    layer_norm: lambda x, scale, bias: torch.nn.functional.layer_norm(x, x.shape[-1:], scale, bias, 1e-5),
}


def arguments(function, dtype):
    draw = np.random.default_rng(0)
    rows = 3 * draw.standard_normal((4, 5, 48)) + 0.5
    rows[0, 0] = np.linspace(-12, 12, 48)  # far into the tails
    rows[0, 1] = 7.0  # a variance of 0
    rows[0, 2, 0] = 1000.0  # as far from the others as a number can be, and the first
    others = [1 + 0.3 * draw.standard_normal(48), draw.standard_normal(48)] if function is layer_norm else []
    return [jnp.asarray(rows, dtype), *(jnp.asarray(other, jnp.float32) for other in others)]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("bfloat16", 2**-8)])
@pytest.mark.parametrize("function", TORCH)
def test_value_and_gradients_are_pytorch_s(function, dtype, tolerance):
    ours = arguments(function, dtype)
    weights = jnp.asarray(np.random.default_rng(1).standard_normal(ours[0].shape), dtype)
    value, pull = jax.vjp(jax.jit(function), *ours)
    gradients = pull(weights)
    assert value.dtype == gradients[0].dtype == jnp.dtype(dtype)
    assert all(gradient.dtype == jnp.float32 for gradient in gradients[1:])

    theirs = [torch.tensor(np.asarray(argument, np.float64), requires_grad=True) for argument in ours]
    expected = TORCH[function](*theirs)
    expected.backward(torch.tensor(np.asarray(weights, np.float64)))
    for found, wanted in zip((value, *gradients), (expected, *(their.grad for their in theirs)), strict=True):
        wanted = wanted.detach().numpy()
        # Where the variance is 0 the gradient is 316, of the roundings too.
        scale = np.maximum(np.max(np.abs(wanted), axis=-1, keepdims=True), 1)
        np.testing.assert_allclose(np.asarray(found, np.float64) / scale, wanted / scale, rtol=0, atol=tolerance)


def test_what_the_gelu_takes_in_half_precision_is_far_nearer_than_half_precision():
    x = np.concatenate([np.linspace(-8, 8, 40_001), [-1e6, -30.0, 30.0, 1e6]])
    cumulative, density = (
        np.asarray(part, np.float64) for part in layers._logistic_normal(jnp.asarray(x, jnp.float32))
    )
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.gelu(leaf)
    (slope,) = torch.autograd.grad(expected.sum(), leaf)
    np.testing.assert_allclose(x * cumulative, expected.detach().numpy(), rtol=1e-6, atol=5e-6)
    np.testing.assert_allclose(cumulative + x * density, slope.numpy(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("function", TORCH)
def test_the_input_alone_is_kept_for_the_backward_pass(function):
    """And a number or two a row."""
    ours = arguments(function, "bfloat16")
    _, pull = jax.vjp(function, *ours)
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(pull))
    rows = ours[0].size // 48
    assert kept <= ours[0].nbytes + 2 * 4 * rows + 2 * 4 * 48 + 64


class HowLayersAreCalled(chex.TestCase):
    """They compute the same whether they are compiled or not, and from arrays of the host or of a device."""

    @chex.variants(with_jit=True, without_jit=True, with_device=True, without_device=True)
    def test_makes_no_difference(self):
        for function, reference in TORCH.items():
            ours = arguments(function, "float32")
            expected = reference(*(torch.tensor(np.asarray(argument, np.float64)) for argument in ours)).numpy()
            scale = np.maximum(np.max(np.abs(expected), axis=-1, keepdims=True), 1)
            found = self.variant(function)(*ours)
            np.testing.assert_allclose(np.asarray(found, np.float64) / scale, expected / scale, rtol=0, atol=2e-6)
