"""Distil then subtract, on a real CLIP: recorded features, loss and gradient against PyTorch; what is subtracted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from random_models import random_params
from torch_clip import random_batch, to_torch, torch_features, torch_model

from salmu_jax.models.clip import Clip, ClipConfig, Execution, TowerConfig
from salmu_jax.models.features import image_inputs, text_inputs
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import Bound, Pairs, StepInfo
from salmu_jax.unlearning.methods.lora_subtract import LoraSubtract

CONFIG = ClipConfig(
    embed_dim=12,
    image_size=16,
    patch_size=8,
    vision=TowerConfig(width=16, layers=2, heads=2),
    text=TowerConfig(width=8, layers=2, heads=2),
    context_length=9,
    vocab_size=40,
)
METHOD = LoraSubtract(rank=3, distillation=0.7, strength=1.5)
TORCH = {"visual": "vision_model", "text": "text_model", "c_fc": "fc1", "c_proj": "fc2"}


def torch_name(path):
    """``visual/transformer/blocks_0/c_fc/kernel`` as transformers has it."""
    tower, _, block, layer, _ = path.split("/")
    return f"{TORCH[tower]}.encoder.layers.{block.removeprefix('blocks_')}.mlp.{TORCH[layer]}"


@pytest.fixture(scope="module")
def start():
    """The start model, a batch, PyTorch's copy in float64, and the projection of each feed-forward matrix."""
    params, draw = random_params(Clip(CONFIG), seed=3), np.random.default_rng(5)
    images, tokens = random_batch(CONFIG, seed=4, rows=5)
    model = torch_model(CONFIG)
    model.load_state_dict(to_torch(params, CONFIG), strict=False)
    projections = {}
    for tower, config in (("visual", CONFIG.vision), ("text", CONFIG.text)):
        for block in range(2):
            for layer, width in (("c_fc", config.width), ("c_proj", 4 * config.width)):
                quiet = np.linalg.qr(draw.normal(size=(width, width)))[0][:, : width // 2]
                projections[f"{tower}/transformer/blocks_{block}/{layer}/kernel"] = quiet @ quiet.T
    return params, images, tokens, model.double(), projections


def torch_inputs(model, images, tokens):
    """The inputs of all feed-forward matrices by their names, [B, L, in], and how many positions of a text are read."""
    recorded, hooks = {}, []
    for name, module in model.named_modules():
        if name.endswith((".fc1", ".fc2")):
            hooks.append(
                module.register_forward_hook(lambda _, inputs, __, name=name: recorded.update({name: inputs[0]}))
            )
    features = torch_features(_Double(model), CONFIG, images, tokens)
    for hook in hooks:
        hook.remove()
    return recorded, features


class _Double:
    """Hands float64 pixels on to a model of float64 weights."""

    def __init__(self, model):
        self.visual_projection, self.text_projection, self.text_model = (
            model.visual_projection,
            model.text_projection,
            model.text_model,
        )
        self.vision_model = lambda pixel_values: model.vision_model(pixel_values=pixel_values.double())


def read_rows(name, inputs, tokens):
    """The rows of ``inputs`` [B, L, in] that the embeddings depend on, in our order."""
    last = name.split(".")[3] == str(CONFIG.text.layers - 1)
    if name.startswith("vision"):
        return inputs[:, 0] if last else inputs.reshape(-1, inputs.shape[-1])
    ends = tokens.argmax(axis=1)
    if last:
        return torch.stack([row[end] for row, end in zip(inputs, ends, strict=True)])
    return torch.cat([row[: end + 1] for row, end in zip(inputs, ends, strict=True)])


@pytest.mark.parametrize("execution", [Execution(), Execution(scan_layers=True, remat="full")])
def test_recorded_features_are_those_of_pytorch(execution, start):
    params, images, tokens, model, _ = start
    clip = Clip(CONFIG, execution)
    ours = jax.jit(lambda p: image_inputs(clip, p, images) | text_inputs(clip, p, tokens))(params)
    with torch.no_grad():
        theirs, _ = torch_inputs(model, images, tokens)
    assert {torch_name(path) for path in ours} == set(theirs)
    for path, (rows, weight) in ours.items():
        name = torch_name(path)
        expected = read_rows(name, theirs[name], tokens).numpy()
        np.testing.assert_allclose(np.asarray(rows)[np.asarray(weight) > 0], expected, atol=2e-5)
        assert set(np.unique(weight)) <= {0.0, 1.0}


def factors(projections, params):
    """Trainable factors as after some steps: none is 0, and those next to the inputs are in the range of the projection."""
    draw = np.random.default_rng(6)
    trainable, _ = METHOD.parametrise(params, _float32(projections), jax.random.key(0))

    def move(path, leaf):
        kernel, _, part = jax.tree_util.keystr(path, simple=True, separator="/").rpartition("/")
        moved = leaf + 0.1 * draw.normal(size=leaf.shape)
        return jnp.asarray(projections[kernel] @ moved if part == "down" else moved, jnp.float32)

    return jax.tree_util.tree_map_with_path(move, trainable)


def _float32(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


@pytest.fixture(scope="module")
def ours(start):
    """Our loss terms and the gradient of their sum, at :func:`factors`."""
    params, images, tokens, _, projections = start
    trainable, clip = factors(projections, params), Clip(CONFIG)
    _, bind = METHOD.parametrise(params, _float32(projections), jax.random.key(0))
    info = StepInfo(jnp.int32(0), jnp.float32(0), 1, jax.random.key(0), _float32(projections))

    @jax.jit
    def terms_and_gradient(trainable):
        def loss(trainable):
            batch = {"forget": Pairs(images, tokens)}
            terms = METHOD.objectives(batch, Bound(clip, bind(trainable, params)), Bound(clip, params), info)
            return sum(terms.values()), terms

        return jax.value_and_grad(loss, has_aux=True)(trainable)

    (_, terms), gradient = terms_and_gradient(trainable)
    return trainable, terms, gradient


def leaves(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in jax.tree.leaves_with_path(tree)
    }


def test_loss_and_gradient_equal_pytorchs(start, ours):
    _, images, tokens, model, projections = start
    trainable, terms, gradient = ours
    parts = {
        path: torch.tensor(np.array(leaf), dtype=torch.double, requires_grad=True)
        for path, leaf in leaves(trainable).items()
    }
    weights = {name: value.detach() for name, value in model.named_parameters()}
    with torch.no_grad():
        inputs, _ = torch_inputs(model, images, tokens)
    distances, changed = [], dict(weights)
    for path in projections:
        name = torch_name(path)
        branch = parts[f"{path}/down"] @ parts[f"{path}/up"]
        rows, original = read_rows(name, inputs[name], tokens), weights[f"{name}.weight"].T
        distances.append(1 - torch.nn.functional.cosine_similarity(rows @ original, rows @ branch).mean())
        changed[f"{name}.weight"] = (original + branch).T
    distillation = 0.7 * torch.stack(distances).mean()

    class Changed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self):
            return torch_features(_Double(self.model), CONFIG, images, tokens)

    image, text = torch.func.functional_call(Changed(), {f"model.{name}": value for name, value in changed.items()}, ())
    logits = weights["logit_scale"].exp() * image @ text.T
    labels = torch.arange(len(images))
    cross_entropy = torch.nn.functional.cross_entropy
    contrastive = 0.3 * (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2
    (distillation + contrastive).backward()

    np.testing.assert_allclose(terms["distillation"], distillation.item(), rtol=1e-4)
    np.testing.assert_allclose(terms["contrastive"], contrastive.item(), rtol=1e-4)
    for path, leaf in leaves(gradient).items():
        theirs = parts[path].grad.numpy()
        assert np.linalg.norm(leaf - theirs) < 2e-3 * np.linalg.norm(theirs), path


def test_the_branches_are_subtracted_within_the_quiet_directions(start, ours):
    params, _, _, _, projections = start
    trainable = ours[0]
    _, bind = METHOD.parametrise(params, _float32(projections), jax.random.key(0))
    after = leaves(METHOD.finish(bind(trainable, params), params, None))
    parts, before = leaves(trainable), leaves(params)
    for path, leaf in before.items():
        if path not in projections:
            assert np.asarray(after[path]).tobytes() == np.asarray(leaf).tobytes(), path
            continue
        branch = np.asarray(parts[f"{path}/down"], float) @ np.asarray(parts[f"{path}/up"], float)
        np.testing.assert_allclose(after[path], np.asarray(leaf, float) - 1.5 * branch, atol=1e-5)
        loud = np.eye(len(branch)) - projections[path]
        np.testing.assert_allclose(loud @ (np.asarray(after[path]) - np.asarray(leaf)), 0, atol=1e-5)


def test_branches_begin_at_zero(start):
    params, _, _, _, projections = start
    trainable, bind = METHOD.parametrise(params, _float32(projections), jax.random.key(0))
    for path, leaf in leaves(bind(trainable, params)).items():
        np.testing.assert_array_equal(leaf, leaves(params)[path])
    for path, leaf in leaves(trainable).items():
        kernel, _, part = path.rpartition("/")
        assert np.any(leaf) == (part == "down")
        if part == "down":
            np.testing.assert_allclose(projections[kernel] @ np.asarray(leaf), leaf, atol=1e-5)


def test_the_update_is_adamws_of_the_projected_gradient_projected(start, ours):
    *_, projections = start
    trainable, _, gradient = ours
    hyper = Hyper(learning_rate=0.1, weight_decay=0.5, warmup_steps=0, total_steps=10)
    transform = METHOD.transform(hyper)
    updates, _ = jax.jit(lambda g, p: transform.update(g, transform.init(p), p, prepared=_float32(projections)))(
        gradient, trainable
    )
    parts, gradients = leaves(trainable), leaves(gradient)
    for path, update in leaves(updates).items():
        kernel, _, part = path.rpartition("/")
        projection = projections[kernel] if part == "down" else np.eye(len(update))
        g, w = projection @ np.asarray(gradients[path], float), np.asarray(parts[path], float)
        adam = np.where(abs(g) > 1e-6, np.sign(g), 0)  # the first step; next to 0 it depends on epsilon
        expected = projection @ (-0.1 * (adam + 0.5 * w))
        unclear = np.abs(projection) @ (0.2 * ((abs(g) > 0) & (abs(g) < 1e-5)))
        assert (np.abs(update - expected) < 1e-3 + unclear).all(), path
        np.testing.assert_allclose(projection @ np.asarray(update), update, atol=1e-5)
