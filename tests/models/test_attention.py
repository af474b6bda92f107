"""Attention against PyTorch's, and cuDNN's kernel against the plain form (on a GPU: ``JAX_PLATFORMS=cuda``)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch_clip import SMALL, random_batch, random_params

from salmu_jax.models import attention as module
from salmu_jax.models.attention import attention, attention_of_one, choose, padded_length
from salmu_jax.models.clip import Clip, Execution


def of(qkv, *rest, **named):
    """Attention of the parts of [B, L, 3 * width], so that a single array has all gradients."""
    return attention(*jnp.split(qkv, 3, axis=-1), *rest, **named)


def draw(length, heads, size, seed=0):
    return np.random.default_rng(seed).standard_normal((3, length, 3 * heads * size), np.float32)


@pytest.mark.optimised
@pytest.mark.parametrize("implementation", ["plain", "cpu"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("length", "heads", "size"), [(197, 3, 64), (77, 2, 8), (1, 1, 4)])
def test_it_is_pytorch_s_attention_forward_and_gradient(length, heads, size, causal, implementation):
    qkv = draw(length, heads, size)
    leaf = torch.tensor(qkv, requires_grad=True)
    q, k, v = leaf.reshape(3, length, 3, heads, size).permute(2, 0, 3, 1, 4)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    expected = expected.transpose(1, 2).reshape(3, length, heads * size)
    cotangent = np.random.default_rng(1).standard_normal(expected.shape, np.float32)
    (gradient,) = torch.autograd.grad(expected, leaf, torch.from_numpy(cotangent))
    with jax.default_matmul_precision("highest"):  # GPUs round float32 products otherwise

        @jax.jit
        def value_and_gradient(qkv):
            value, pull = jax.vjp(lambda qkv: of(qkv, heads, causal, implementation), qkv)
            return value, pull(jnp.asarray(cotangent))[0]

        value, found = value_and_gradient(qkv)
    np.testing.assert_allclose(value, expected.detach(), rtol=0, atol=2e-6)
    np.testing.assert_allclose(found, gradient, rtol=0, atol=1e-5)


@pytest.mark.optimised
@pytest.mark.parametrize("implementation", ["plain", "cpu"])
@pytest.mark.parametrize("causal", [False, True])
def test_padding_is_not_seen(causal, implementation):
    qkv = draw(7, 2, 8)
    padded = np.pad(qkv, ((0, 0), (0, 3), (0, 0)), constant_values=50.0)

    def attend(padded):
        return of(padded, 2, causal, implementation, length=7)[:, :7]

    with jax.default_matmul_precision("highest"):
        np.testing.assert_allclose(jax.jit(attend)(padded), of(qkv, 2, causal), rtol=0, atol=2e-6)
        gradient = jax.jit(jax.grad(lambda padded: jnp.sum(attend(padded) ** 2)))(padded)
    assert not np.any(gradient[:, 7:])
    assert np.all(np.any(gradient[:, :7], axis=(0, 2)))


@pytest.mark.parametrize("causal", [False, True])
def test_one_query_gets_what_it_gets_among_all(causal):
    heads, width, rows = 2, 16, np.arange(3)
    positions = np.array([0, 8, 5]) if causal else 4
    rng = np.random.default_rng(0)
    y, kernel, bias = (rng.standard_normal(s, np.float32) for s in ((3, 9, width), (width, 3 * width), 3 * width))

    def padded(y):
        return jnp.pad(y, ((0, 0), (0, 3), (0, 0)), constant_values=50.0)

    def among_all(y, kernel, bias):
        return of(padded(y) @ kernel + bias, heads, causal, length=9)[rows, positions]

    def alone(y, kernel, bias):
        q = y[rows, positions] @ kernel[:, :width] + bias[:width]
        keys_values = kernel[:, width : 2 * width], kernel[:, 2 * width :], bias[2 * width :]
        return attention_of_one(q, padded(y), *keys_values, heads, positions + 1 if causal else 9)

    cotangent = rng.standard_normal((3, width), np.float32)
    with jax.default_matmul_precision("highest"):
        (expected, pull), (found, pull_found) = jax.vjp(among_all, y, kernel, bias), jax.vjp(alone, y, kernel, bias)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        for ours, theirs in zip(pull_found(cotangent), pull(cotangent), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.max(np.abs(theirs)))


def test_one_query_is_as_precise_in_half_precision_at_the_width_of_vit_l():
    """It rounds ``K^T q`` instead of the keys. The kernels have a decaying spectrum, as trained ones do (condition 1e3)."""
    width, heads, batch, length = 1024, 16, 2, 50
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((width, width)))[0] for _ in range(2))
    spectra = (rng.permutation(np.logspace(0.5, -2.5, width)) for _ in range(3))
    drawn = [rng.standard_normal((batch, length, width)), *((left * spectrum) @ right for spectrum in spectra)]
    half = [jnp.asarray(array, jnp.bfloat16) for array in drawn]
    y, to_queries, to_keys, to_values = (np.asarray(array, np.float64) for array in half)

    def split(rows):
        return rows.reshape(batch, -1, heads, width // heads)

    scores = np.einsum("bhd,blhd->bhl", split(y @ to_queries)[:, 0], split(y @ to_keys)) / np.sqrt(width // heads)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    exact = np.einsum("bhl,blhd->bhd", weights / weights.sum(-1, keepdims=True), split(y @ to_values)).reshape(
        batch, -1
    )

    y, to_queries, to_keys, to_values = half
    among_all = attention(y @ to_queries, y @ to_keys, y @ to_values, heads, causal=False)[:, 0]
    alone = attention_of_one(y[:, 0] @ to_queries, y, to_keys, to_values, jnp.zeros(width), heads, length)
    errors = [np.linalg.norm(np.asarray(found, np.float64) - exact) for found in (alone, among_all)]
    assert errors[0] < 1.5 * errors[1]
    assert errors[1] < 0.02 * np.linalg.norm(exact)


def test_the_form_for_cpus_in_half_precision_too():
    qkv = jnp.asarray(draw(33, 2, 16), jnp.bfloat16)

    def loss(qkv, implementation):
        result = of(qkv, 2, causal=False, implementation=implementation)
        return jnp.sum(jnp.square(result.astype(jnp.float32))), result

    grad = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    exact = grad(qkv.astype(jnp.float32), "plain")
    for found, expected in zip(grad(qkv, "cpu"), exact, strict=True):
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(found.astype(jnp.float32), expected, rtol=0, atol=0.02 * np.max(np.abs(expected)))


def test_what_is_chosen_for_each_device(monkeypatch):
    device = type("Device", (), {"compute_capability": "9.0"})
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    half, single = jnp.dtype("bfloat16"), jnp.dtype("float32")
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert (choose("auto", half, 64), choose("auto", single, 64)) == ("plain", "cpu")
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert {choose("auto", half, 64), choose("auto", single, 64)} == {"plain"}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose("auto", half, 64) == "cudnn"
    assert {choose("auto", single, 64), choose("auto", half, 12), choose("plain", half, 64)} == {"plain"}
    for capability in ("7.5", "gfx942"):
        monkeypatch.setattr(device, "compute_capability", capability)
        assert choose("auto", half, 64) == "plain"
    assert choose("cudnn", single, 64) == "cudnn"  # what is asked for is not second-guessed


@pytest.mark.slow
@pytest.mark.optimised
def test_a_tower_around_a_kernel_for_even_lengths_computes_the_same(monkeypatch):
    """The kernel itself is only on GPUs; here something that computes the same is in its place, as strict about lengths."""

    def kernel(q, k, v, causal, length):
        assert q.shape[1] % 2 == 0
        kernel.lengths.add(length)
        return module._plain(q, k, v, causal, length)

    kernel.lengths = set()
    monkeypatch.setattr(module, "_cudnn", kernel)
    vision, text = (dataclasses.replace(tower, layers=2) for tower in (SMALL.vision, SMALL.text))
    config = dataclasses.replace(SMALL, image_size=2 * SMALL.patch_size, vision=vision, text=text)  # five positions
    params = random_params(config, seed=3)
    images, tokens = random_batch(config, seed=4)

    def loss_and_gradients(clip):
        def loss(params):
            image, text = clip.encode_image(params, images), clip.encode_text(params, tokens)
            return jnp.sum(image * text[::-1]), (image, text)

        with jax.default_matmul_precision("highest"):
            return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

    expected = loss_and_gradients(Clip(config, Execution(attention="plain")))
    found = loss_and_gradients(Clip(config, Execution(True, "full", "cudnn")))
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * max(np.max(np.abs(theirs)), 0.1))
    assert kernel.lengths == {5, 0}  # the causal kernel needs none


@pytest.mark.skipif(
    jax.default_backend() != "gpu", reason="no GPU here for cuDNN's kernel (or JAX_PLATFORMS is not cuda)"
)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("length", "heads"), [(197, 12), (77, 8), (50, 4)])
def test_cudnn_is_the_plain_form_forward_and_gradient(length, heads, causal):
    qkv, weights = jnp.asarray(draw(length, heads, 64), jnp.bfloat16), draw(length, heads, 64, 1)[..., : heads * 64]
    padded = padded_length(length, "cudnn")
    qkv = jnp.pad(qkv, ((0, 0), (0, padded - length), (0, 0)))

    def loss(qkv, implementation):
        result = of(qkv, heads, causal, implementation, length)[:, :length]
        return jnp.sum(result.astype(jnp.float32) * weights), result

    grad = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    with jax.default_matmul_precision("highest"):
        exact = grad(qkv.astype(jnp.float32), "plain")
    for implementation in ("plain", "cudnn"):
        for found, expected in zip(grad(qkv, implementation), exact, strict=True):
            found, expected = (np.asarray(array, np.float32) for array in (found, expected))
            np.testing.assert_allclose(found, expected, rtol=0, atol=0.02 * np.max(np.abs(expected)))
            assert np.linalg.norm(found - expected) < 0.01 * np.linalg.norm(expected)
