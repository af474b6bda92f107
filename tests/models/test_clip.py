"""The towers against PyTorch: transformers' CLIPModel with the same random weights, and the loss against its loss."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch_clip import (
    SMALL,
    Jitted,
    assert_gradients_equal,
    random_batch,
    random_params,
    to_torch,
    torch_features,
    torch_loss,
    torch_model,
)

from salmu_jax.models.clip import Clip, Execution, TowerConfig, l2_normalize
from salmu_jax.models.zoo import architecture
from salmu_jax.training.loss import contrastive_loss


@pytest.mark.optimised
@pytest.mark.parametrize("config", [SMALL, dataclasses.replace(SMALL, quick_gelu=True), architecture("mini")])
def test_features_equal_transformers(config):
    params = random_params(config, seed=1)
    images, tokens = random_batch(config, seed=2)
    model = torch_model(config)
    missing, unexpected = model.load_state_dict(to_torch(params, config), strict=False)
    assert not unexpected
    assert all("position_ids" in name for name in missing)
    with torch.no_grad():
        vision, text = torch_features(model, config, images, tokens)
    clip = Jitted(config)
    np.testing.assert_allclose(clip.encode_image(params, images), vision.numpy(), atol=1e-5, rtol=0)
    np.testing.assert_allclose(clip.encode_text(params, tokens), text.numpy(), atol=1e-5, rtol=0)


@pytest.mark.optimised
def test_gradients_equal_transformers():
    params = random_params(SMALL, seed=3)
    images, tokens = random_batch(SMALL, seed=4)
    model = torch_model(SMALL)
    model.load_state_dict(to_torch(params, SMALL), strict=False)
    loss = torch_loss(model, SMALL, images, tokens)
    loss.backward()

    clip = Clip(SMALL)

    def ours(params):
        image, text = clip.encode_image(params, images), clip.encode_text(params, tokens)
        return contrastive_loss(image, text, params["logit_scale"])

    value, gradients = jax.jit(jax.value_and_grad(ours))(params)
    assert float(value) == pytest.approx(loss.item(), rel=1e-5)
    assert_gradients_equal(gradients, model, SMALL)


SHALLOW = dataclasses.replace(SMALL, vision=dataclasses.replace(SMALL.vision, layers=2))


@functools.cache
def loss_and_gradients(execution, compute_dtype):
    clip = Clip(dataclasses.replace(SHALLOW, compute_dtype=compute_dtype), execution)
    images, tokens = random_batch(SHALLOW, seed=4)

    def loss(params):
        image, text = clip.encode_image(params, images), clip.encode_text(params, tokens)
        return contrastive_loss(image, text, params["logit_scale"]), (image, text)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(random_params(SHALLOW, seed=3))


# "none" unrolled is what the tests above have looked at.
@pytest.mark.optimised
@pytest.mark.parametrize(
    ("execution", "compute_dtype"),
    [
        (Execution(True, "full"), "float32"),
        (Execution(False, "dots"), "float32"),
        pytest.param(Execution(True, "full"), "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_scanned_and_rematerialised_towers_give_the_same_outputs_and_gradients(execution, compute_dtype):
    expected, found = (loss_and_gradients(how, compute_dtype) for how in (Execution(), execution))
    tolerance = {"float32": 1e-5, "bfloat16": 6e-2}[compute_dtype]
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * max(np.max(np.abs(theirs)), 0.1))


def test_an_unknown_remat_is_refused():
    with pytest.raises(ValueError, match="unknown remat 'some'; there are none, dots, full"):
        Execution(remat="some")


def test_the_biases_of_keys_have_a_gradient_of_zero_and_no_others():
    """As in exact arithmetic: PyTorch's are the roundings of a sum that is 0."""
    params = random_params(SMALL, seed=3)
    images, _ = random_batch(SMALL, seed=4)
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(Clip(SMALL).encode_image(params, images)[:, 0])))(params)
    queries, keys, values = np.split(gradient["visual"]["transformer"]["blocks_0"]["in_proj"]["bias"], 3)
    assert not np.any(keys)
    assert np.all(queries)
    assert np.all(values)


def test_unknown_forms_are_refused():
    with pytest.raises(ValueError, match="unknown attention 'flash'; there are auto, plain, cpu, cudnn"):
        Execution(attention="flash")
    with pytest.raises(ValueError, match="unknown kernels 'cuda'; there are auto, plain, triton"):
        Execution(kernels="cuda")


@pytest.mark.parametrize(
    ("name", "visual", "text"),
    [("ViT-B-32", 87_849_216, 63_428_096), ("ViT-L-14", 303_966_208, 123_650_304)],
)
def test_the_zoo_has_open_clips_sizes(name, visual, text):
    """Parameter counts of OpenCLIP's models of these names (151.28 M and 427.62 M with the logit scale)."""
    for suffix in ("", "-quickgelu"):
        config = architecture(name + suffix)
        shapes = jax.eval_shape(Clip(config).init, jax.random.key(0))
        count = {tower: sum(leaf.size for leaf in jax.tree.leaves(shapes[tower])) for tower in ("visual", "text")}
        assert count == {"visual": visual, "text": text}
        assert config.quick_gelu == bool(suffix)


def test_vit_b_16_has_the_published_parameters():
    shapes = jax.eval_shape(Clip(architecture("ViT-B-16")).init, jax.random.key(0))
    count = {
        name: sum(leaf.size for leaf in jax.tree.leaves(shapes[name])) for name in ("visual", "text", "logit_scale")
    }
    assert count["visual"] == 86_192_640
    assert count["text"] + count["logit_scale"] == 63_428_097


def test_initial_values_have_open_clips_scales():
    config = dataclasses.replace(
        SMALL, vision=TowerConfig(256, 2, 4), text=TowerConfig(192, 3, 4), vocab_size=2_000, embed_dim=128
    )
    params = Jitted(config).init(jax.random.key(5))
    text, visual = params["text"], params["visual"]
    block, patch = text["transformer"]["blocks_1"], visual["transformer"]["blocks_1"]

    def std(leaf):
        return float(np.std(leaf))

    assert std(text["token_embedding"]) == pytest.approx(0.02, rel=0.05)
    assert std(text["positional_embedding"]) == pytest.approx(0.01, rel=0.05)
    assert std(text["text_projection"]) == pytest.approx(192**-0.5, rel=0.05)
    assert std(block["in_proj"]["kernel"]) == pytest.approx(192**-0.5, rel=0.05)
    assert std(block["out_proj"]["kernel"]) == pytest.approx(192**-0.5 * 6**-0.5, rel=0.05)
    assert std(block["c_proj"]["kernel"]) == pytest.approx(192**-0.5 * 6**-0.5, rel=0.05)
    assert std(block["c_fc"]["kernel"]) == pytest.approx(384**-0.5, rel=0.05)
    assert std(visual["proj"]) == pytest.approx(256**-0.5, rel=0.05)
    assert float(np.max(np.abs(patch["in_proj"]["kernel"]))) == pytest.approx((6 / 1024) ** 0.5, rel=0.02)
    assert float(np.max(np.abs(patch["c_fc"]["kernel"]))) == pytest.approx(256**-0.5, rel=0.02)
    assert float(np.max(np.abs(visual["conv1"]))) == pytest.approx(768**-0.5, rel=0.02)
    assert not np.any(patch["in_proj"]["bias"])
    assert not np.any(patch["out_proj"]["bias"])
    assert np.any(patch["c_fc"]["bias"])
    assert np.any(block["c_fc"]["bias"])
    assert float(params["logit_scale"]) == pytest.approx(2.65926, abs=1e-5)


def test_text_feature_ignores_what_follows_the_end():
    clip, params = Jitted(SMALL), random_params(SMALL, seed=6)
    _, tokens = random_batch(SMALL, seed=7, rows=3)
    tokens[0, :5] = [SMALL.vocab_size - 2, 7, 8, SMALL.vocab_size - 1, 0]
    tokens[0, 5:] = 0
    other = tokens.copy()
    other[0, 5:] = 9
    np.testing.assert_array_equal(clip.encode_text(params, tokens)[0], clip.encode_text(params, other)[0])
    other[0, 1] = 9
    assert np.any(np.asarray(clip.encode_text(params, tokens)[0]) != np.asarray(clip.encode_text(params, other)[0]))


@pytest.mark.parametrize("scan_layers", [False, True])
def test_captions_have_the_same_features_without_their_padding(scan_layers):
    encode, params = jax.jit(Clip(SMALL, Execution(scan_layers)).encode_text), random_params(SMALL, seed=6)
    _, tokens = random_batch(SMALL, seed=7, rows=5)
    tokens[:, 9:] = 0
    tokens[:, 8] = np.where(np.max(tokens, axis=1) < SMALL.vocab_size - 1, SMALL.vocab_size - 1, tokens[:, 8])
    np.testing.assert_allclose(encode(params, tokens[:, :16]), encode(params, tokens), rtol=0, atol=1e-6)


def test_normalisation_of_a_zero_feature_has_a_finite_gradient():
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(l2_normalize(x)))(jnp.zeros((2, 3)))
    assert value == 0
    assert np.isfinite(gradient).all()


def test_bfloat16_compute_keeps_float32_outside():
    config = dataclasses.replace(SMALL, compute_dtype="bfloat16")
    params = random_params(config, seed=8)
    images, tokens = random_batch(config, seed=9)
    half, full = Jitted(config), Jitted(SMALL)
    assert half.encode_image(params, images).dtype == jnp.float32
    np.testing.assert_allclose(half.encode_image(params, images), full.encode_image(params, images), atol=0.05)
    np.testing.assert_allclose(half.encode_text(params, tokens), full.encode_text(params, tokens), atol=0.05)


def test_inputs_of_another_shape_or_dtype_are_refused():
    config = architecture("tiny")
    clip, params = Clip(config), jax.eval_shape(Clip(config).init, jax.random.key(0))
    size, length = config.image_size, config.context_length
    for shape, dtype in (
        ((2, size, size, 3), "float32"),
        ((2, size, size + 8, 3), "uint8"),
        ((size, size, 3), "uint8"),
    ):
        with pytest.raises(AssertionError):
            jax.eval_shape(clip.encode_image, params, jax.ShapeDtypeStruct(shape, dtype))
    for shape, dtype in (((2, length), "float32"), ((2, length + 1), "int32"), ((length,), "int32")):
        with pytest.raises(AssertionError):
            jax.eval_shape(clip.encode_text, params, jax.ShapeDtypeStruct(shape, dtype))
