"""Chunked and ring losses: the numbers of the plain formula, in less memory, on one device and around eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from salmu_jax.runtime.errors import InputError
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.training.loss import FORMS, KINDS, LossConfig, make_loss

ROWS, WIDTH = 48, 8
SCALARS = {"logit_scale": np.float32(2.6), "logit_bias": np.float32(-3.0)}
MESHES = {"none": None, "data": {}, "fsdp": {"fsdp": 4}, "tensor": {"fsdp": 2, "tensor": 2}}


def value_and_gradients(config):
    return jax.jit(jax.value_and_grad(make_loss(config), argnums=(0, 1, 2)))


@pytest.fixture(scope="module")
def inputs():
    """Images, texts and caption ids, some of which occur several times, far apart and side by side."""
    draw = np.random.default_rng(0)
    image, text = draw.normal(size=(2, ROWS, WIDTH)).astype(np.float32)
    ids = draw.integers(0, 30, ROWS).astype(np.uint32)
    ids[40] = ids[41] = ids[3]
    return (
        image / np.linalg.norm(image, axis=1, keepdims=True),
        text / np.linalg.norm(text, axis=1, keepdims=True),
        ids,
    )


@pytest.fixture(scope="module")
def plain(inputs):
    image, text, ids = inputs
    return {
        (kind, masked): jax.device_get(
            value_and_gradients(LossConfig(kind))(image, text, SCALARS, ids if masked else None)
        )
        for kind in KINDS
        for masked in (False, True)
    }


def shares(mesh):
    return mesh.shape["data"] * mesh.shape["fsdp"]


def assert_close(found, expected):
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


# 5 and 7 leave a tail on one device (48 captions), 4 and 5 on each of 8 or of 4 devices (6 and 12 captions).
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("mesh", "chunk"), [("none", 5), ("none", 1_000), ("data", 4), ("fsdp", 7), ("tensor", 5)])
@pytest.mark.parametrize("form", ["chunked", "ring"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_form_has_the_value_and_gradients_of_the_plain_one(kind, form, mesh, chunk, masked, inputs, plain):
    image, text, ids = inputs
    call = value_and_gradients(LossConfig(kind, form, chunk))
    if MESHES[mesh] is None:
        found = call(image, text, SCALARS, ids if masked else None)
    else:
        devices = mesh_lib.make_mesh(**MESHES[mesh])
        image, text, ids = mesh_lib.put_batch((image, text, ids), devices)
        with mesh_lib.use(devices):
            found = call(image, text, SCALARS, ids if masked else None)
        assert {shard.data.shape[0] for shard in found[1][1].addressable_shards} == {ROWS // shares(devices)}
    assert_close(found, plain[kind, masked])


def test_the_highest_scale_and_equal_captions_everywhere_stay_finite():
    rows = np.eye(8, dtype=np.float32)
    scalars = {"logit_scale": np.float32(np.log(100))}
    value, gradients = value_and_gradients(LossConfig(form="chunked", chunk=3))(rows, rows, scalars, np.zeros(8, int))
    assert float(value) == pytest.approx(0, abs=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def temporaries(config, rows, mesh):
    shape = jax.ShapeDtypeStruct((rows, 64), np.float32, sharding=mesh_lib.batch_sharding(mesh))
    scalars = {"logit_scale": jax.ShapeDtypeStruct((), np.float32, sharding=mesh_lib.replicated(mesh))}
    with mesh_lib.use(mesh):
        call = jax.jit(jax.value_and_grad(lambda *a: make_loss(config)(*a, None), argnums=(0, 1, 2)))
        return call.lower(shape, shape, scalars).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("devices", [1, 8])
def test_a_third_of_the_temporaries_or_less(devices):
    mesh = mesh_lib.make_mesh(devices=jax.devices()[:devices])
    plain, chunked, ring = (temporaries(LossConfig(form=form, chunk=256), 8_192, mesh) for form in FORMS)
    assert plain > 8_192 * 8_192 * 4 / devices
    assert chunked < plain / 3
    assert ring < plain / 3
    if devices > 1:
        assert ring < chunked  # which gathers all captions


def test_the_ring_passes_captions_on_and_gathers_nothing():
    mesh = mesh_lib.make_mesh()
    shape = jax.ShapeDtypeStruct((64, 8), np.float32, sharding=mesh_lib.batch_sharding(mesh))
    scalars = {"logit_scale": jax.ShapeDtypeStruct((), np.float32, sharding=mesh_lib.replicated(mesh))}

    def compiled(form):
        loss = make_loss(LossConfig(form=form))
        with mesh_lib.use(mesh):
            return jax.jit(jax.grad(lambda *a: loss(*a, None), argnums=(0, 1))).lower(shape, shape, scalars).compile()

    ring, chunked = compiled("ring").as_text(), compiled("chunked").as_text()
    assert "collective-permute" in ring
    assert "all-gather" not in ring
    assert "all-gather" in chunked
    assert "collective-permute" not in chunked


def test_names_that_do_not_exist_are_answered_with_one_line():
    with pytest.raises(InputError, match=r"^train.loss: unknown loss 'triplet'; there are infonce, sigmoid$"):
        LossConfig("triplet")
    with pytest.raises(InputError, match=r"^train.loss_form: unknown loss 'rings'; there are plain, chunked, ring$"):
        LossConfig(form="rings")


def test_ids_differ_by_default():
    """Without ids nothing is masked, as with ids that are all different."""
    rows = np.eye(6, dtype=np.float32)[[0, 0, 1, 2, 3, 4]]
    loss = make_loss(LossConfig(form="ring"))
    scalars = {"logit_scale": jnp.float32(1)}
    assert loss(rows, rows, scalars, None) == loss(rows, rows, scalars, jnp.arange(6))
    assert loss(rows, rows, scalars, jnp.zeros(6, int)) < loss(rows, rows, scalars, None)
