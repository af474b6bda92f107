"""The train step: one result on one device and on eight, a scan that equals a loop, and a loss that falls."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from salmu_jax.models.clip import Clip
from salmu_jax.models.zoo import architecture
from salmu_jax.training.loss import contrastive_loss
from salmu_jax.training.mesh import make_mesh, param_shardings, put_batch
from salmu_jax.training.optimizer import AdamW, make_optimizer
from salmu_jax.training.step import TrainState, init_state, make_train_step, scan_steps

ROWS, STEPS = 16, 3


@pytest.fixture(scope="module")
def clip():
    config = architecture("tiny")
    vision, text = (dataclasses.replace(tower, layers=2) for tower in (config.vision, config.text))  # one is whole
    return Clip(dataclasses.replace(config, vision=vision, text=text))


@pytest.fixture(scope="module")
def optimizer():
    return make_optimizer(AdamW(learning_rate=3e-3, warmup_steps=2, clip_norm=1.0), 1_000)


@pytest.fixture(scope="module")
def fresh(clip, optimizer):
    """A state of the shapes of ``init_state``, without the time to compile it; numpy."""
    draw = np.random.default_rng(0)

    def fill(path, leaf):
        centre = {"logit_scale": 2.66, "scale": 1.0}.get(path[-1].key, 0.0)
        return (centre + 0.1 * draw.normal(size=leaf.shape) * (leaf.ndim > 0)).astype(leaf.dtype)

    shapes = jax.eval_shape(lambda rng: init_state(clip, optimizer, rng), jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return zeros._replace(params=jax.tree_util.tree_map_with_path(fill, shapes.params))


@pytest.fixture(scope="module")
def stack(clip):
    """A stack of batches, numpy; some captions occur twice in a batch."""
    draw, config = np.random.default_rng(1), clip.config
    images = draw.integers(0, 256, (STEPS, ROWS, config.image_size, config.image_size, 3)).astype(np.uint8)
    tokens = draw.integers(1, config.vocab_size - 2, (STEPS, ROWS, config.context_length)).astype(np.int32)
    tokens[..., 9] = config.vocab_size - 1
    tokens[..., 10:] = 0
    tokens[:, 3] = tokens[:, 11]
    return {"images": images, "tokens": tokens}


def run_on(mesh, clip, optimizer, fresh, stack):
    """``STEPS`` steps in a scan on ``mesh``, as the loop runs them; the state and the metrics."""
    shardings = param_shardings(fresh, mesh)
    call = jax.jit(
        scan_steps(make_train_step(clip, optimizer, mask_duplicates=True)),
        donate_argnums=0,
        out_shardings=(shardings, None),
    )
    with jax.set_mesh(mesh):
        state, metrics = call(jax.device_put(fresh, shardings), put_batch(stack, mesh, leading=1))
    return state, jax.device_get(metrics), call


@pytest.fixture(scope="module")
def single(clip, optimizer, fresh, stack):
    return run_on(make_mesh(devices=jax.devices()[:1]), clip, optimizer, fresh, stack)


def assert_equal_but_for_rounding(found, expected, start):
    """Adam makes much of small gradients: a few numbers may differ by 1 % of the learning rate, all together by far less."""
    for name, values in expected[1].items():
        np.testing.assert_allclose(found[1][name], values, rtol=1e-5, err_msg=name)
    for ours, theirs in zip(jax.tree.leaves(found[0]), jax.tree.leaves(expected[0]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=3e-5)
    ours, theirs, start = (flat(state.params) for state in (found[0], expected[0], start))
    assert np.linalg.norm(ours - theirs) < 1e-4 * np.linalg.norm(theirs - start)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(jax.device_get(tree))])


@pytest.mark.optimised
def test_two_by_four_devices_give_what_one_gives(clip, optimizer, fresh, stack, single):
    mesh = make_mesh(fsdp=4)
    found = run_on(mesh, clip, optimizer, fresh, stack)
    assert_equal_but_for_rounding(found, single, fresh)

    state = found[0]
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == param_shardings(fresh, mesh)
    kernel = state.params["visual"]["transformer"]["blocks_0"]["c_fc"]["kernel"]
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.shape == kernel.shape]
    assert len(moments) == 8  # the first and second moments of the kernels of this shape, two a tower
    for leaf in (kernel, *moments):
        assert {shard.data.shape for shard in leaf.addressable_shards} == {(16 // 4, 64)}
    assert {shard.data.shape for shard in state.params["logit_scale"].addressable_shards} == {()}


def test_eight_by_one_devices_give_what_one_gives(linear_clip, linear_params, batches, optimizer):
    stack = jax.tree.map(lambda *leaves: np.stack(leaves), *[batches.one(i, ROWS) for i in range(STEPS)])
    fresh = jax.device_get(start(linear_params, optimizer))
    one = run_on(make_mesh(devices=jax.devices()[:1]), linear_clip, optimizer, fresh, stack)
    found = run_on(make_mesh(), linear_clip, optimizer, fresh, stack)
    assert_equal_but_for_rounding(found, one, fresh)
    kernel = found[0].params["text"]["kernel"]
    assert [shard.data.shape for shard in kernel.addressable_shards] == [(10, 8)] * 8


@pytest.mark.parametrize("fsdp", [1, 4])
def test_each_device_encodes_only_its_share_of_the_batch(fsdp, clip, optimizer, fresh, stack):
    """The features come out split as the images went in: nothing was gathered on the way."""
    mesh = make_mesh(fsdp=fsdp)
    state = jax.device_put(fresh, param_shardings(fresh, mesh))

    def embed(params, batch):
        return clip.encode_image(params, batch["images"])

    with jax.set_mesh(mesh):
        batch = put_batch(jax.tree.map(lambda leaf: leaf[0], stack), mesh)
        features = jax.jit(embed)(state.params, batch)
    assert {shard.data.shape for shard in features.addressable_shards} == {(ROWS // 8, clip.config.embed_dim)}
    assert {shard.data.shape[0] for shard in batch["images"].addressable_shards} == {ROWS // 8}


def test_overfitting_a_batch_lowers_the_loss(single, fresh, stack):
    state, _, call = single
    same = jax.tree.map(lambda leaf: np.repeat(leaf[:1], STEPS, axis=0), stack)
    mesh = make_mesh(devices=jax.devices()[:1])
    state = jax.device_put(fresh, jax.tree.map(lambda leaf: leaf.sharding, state))
    losses = []
    with jax.set_mesh(mesh):
        for _ in range(20):
            state, metrics = call(state, put_batch(same, mesh, leading=1))
            losses += list(np.asarray(metrics["loss"]))
    assert int(state.step) == 20 * STEPS
    assert losses[0] == pytest.approx(math.log(ROWS), abs=1)
    assert losses[-1] < 0.3 * losses[0]


# What follows does not depend on the towers.


def start(params, optimizer, **changed):
    params = jax.tree.map(jnp.asarray, {**params, **changed})
    return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))


@pytest.mark.optimised
def test_a_scan_is_a_loop_of_steps(linear_clip, linear_params, batches):
    optimizer = make_optimizer(AdamW(1e-2, warmup_steps=2), 100)
    step = make_train_step(linear_clip, optimizer)
    several = [batches.one(i) for i in range(5)]
    looped, rows, single = start(linear_params, optimizer), [], jax.jit(step)
    for batch in several:
        looped, metrics = single(looped, batch)
        rows.append(metrics)
    stack = jax.tree.map(lambda *leaves: np.stack(leaves), *several)
    scanned, stacked = jax.jit(scan_steps(step))(start(linear_params, optimizer), stack)
    assert int(scanned.step) == 5
    for ours, theirs in zip(jax.tree.leaves(scanned), jax.tree.leaves(looped), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    for name, values in stacked.items():
        np.testing.assert_allclose(values, [row[name] for row in rows], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("mask", [False, True])
def test_a_step_is_the_gradient_of_the_loss_through_the_optimizer(mask, linear_clip, linear_params, batches):
    optimizer = optax.sgd(0.1)
    batch = batches.one(0)
    ids = jnp.asarray([0, 0, 2, 3, 4, 5, 6, 7]) if mask else None

    def loss(params):
        image, text = (
            linear_clip.encode_image(params, batch["images"]),
            linear_clip.encode_text(params, batch["tokens"]),
        )
        return contrastive_loss(image, text, params["logit_scale"], ids)

    value, gradients = jax.jit(jax.value_and_grad(loss))(linear_params)
    state, metrics = jax.jit(make_train_step(linear_clip, optimizer, mask_duplicates=mask))(
        start(linear_params, optimizer), batch
    )
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-5)
    norm = math.sqrt(sum(float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(gradients)))
    assert float(metrics["gradient_norm"]) == pytest.approx(norm, rel=1e-5)
    assert float(metrics["scale"]) == pytest.approx(math.exp(state.params["logit_scale"]), rel=1e-5)
    expected = jax.tree.map(lambda leaf, gradient: leaf - 0.1 * gradient, linear_params, gradients)
    for ours, theirs in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("before", "after"), [(9.0, math.log(100)), (-3.0, 0.0), (2.0, 2.0)])
def test_logit_scale_is_clamped_to_0_and_ln_100(before, after, linear_clip, linear_params, batches):
    optimizer = optax.sgd(0.0)
    step = jax.jit(make_train_step(linear_clip, optimizer))
    state, metrics = step(start(linear_params, optimizer, logit_scale=before), batches.one(0))
    assert float(state.params["logit_scale"]) == pytest.approx(after, abs=1e-6)
    assert float(metrics["scale"]) == pytest.approx(math.exp(after), rel=1e-5)
