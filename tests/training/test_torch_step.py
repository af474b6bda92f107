"""One train step against PyTorch's from the same weights and batch, for every way of computing the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from torch_clip import SMALL, assert_gradients_equal, random_batch, random_params, to_torch, torch_loss, torch_model

from salmu_jax.models.clip import Clip, Execution
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.training.loss import LossConfig
from salmu_jax.training.step import TrainState, make_train_step

ROWS = 16
WAYS = {
    "plain": {},
    "chunked": {"loss": LossConfig(form="chunked", chunk=3)},
    "ring": {"loss": LossConfig(form="ring", chunk=3)},
    "cached": {"microbatch": 8},
    "cached ring": {"loss": LossConfig(form="ring", chunk=3), "microbatch": 8},
}


def recording() -> optax.GradientTransformation:
    """Keeps the gradients as its state and changes nothing."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda gradients, state, params: (jax.tree.map(jnp.zeros_like, gradients), gradients),
    )


@pytest.fixture(scope="module")
def reference():
    """Parameters, a batch, PyTorch's loss on it, and the model that holds PyTorch's gradients."""
    params = random_params(SMALL, seed=3)
    images, tokens = random_batch(SMALL, seed=4, rows=ROWS)
    model = torch_model(SMALL)
    model.load_state_dict(to_torch(params, SMALL), strict=False)
    loss = torch_loss(model, SMALL, images, tokens)
    loss.backward()
    return params, {"images": images, "tokens": tokens}, loss.item(), model


@pytest.mark.optimised
@pytest.mark.parametrize(
    ("way", "devices"),
    [
        ("plain", 1),
        ("cached ring", 8),
        *(pytest.param(way, 1, marks=pytest.mark.slow) for way in WAYS if way not in ("plain", "cached ring")),
        pytest.param("chunked", 8, marks=pytest.mark.slow),
    ],
)
def test_loss_and_gradients_of_a_step_equal_pytorch(way, devices, reference):
    params, batch, loss, model = reference
    fsdp_and_tensor = {"fsdp": 2, "tensor": 2} if devices > 1 else {}
    mesh = mesh_lib.make_mesh(**fsdp_and_tensor, devices=jax.devices()[:devices])
    state = TrainState(params, recording().init(params), np.zeros((), np.int32))
    state = jax.device_put(state, mesh_lib.param_shardings(state, mesh))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    step = make_train_step(Clip(SMALL, Execution(scan_layers=True)), recording(), **WAYS[way])
    with mesh_lib.use(mesh):
        call = jax.jit(step, out_shardings=(shardings, None))
        after, metrics = call(state, mesh_lib.put_batch(batch, mesh))
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-5)
    gradients = jax.device_get(after.opt_state)
    assert_gradients_equal(gradients, model, SMALL)
    assert float(metrics["gradient_norm"]) == pytest.approx(float(optax.tree.norm(gradients)), rel=1e-5)
