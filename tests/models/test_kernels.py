"""The Triton kernels against PyTorch in float64: interpreted on CPUs, compiled on a GPU (``JAX_PLATFORMS=cuda``)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch_clip import SMALL, random_batch, random_params

from salmu_jax.models import kernels
from salmu_jax.models.clip import Clip, Execution
from salmu_jax.models.kernels import biased_gelu, choose, layer_norm_branch
from salmu_jax.models.layers import gelu, layer_norm
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.training.loss import contrastive_loss

SHAPES = [(128, 768), (128, 64)]  # rows of two programs; widths of three pieces, and of a small one


def draw(rows, width, seed=0):
    values = 3 * np.random.default_rng(seed).standard_normal((rows, width)) + 0.5
    if seed == 0:
        values[0] = np.linspace(-12, 12, width)  # far into the tails
        values[1] = 7.0  # a variance of 0
    return jnp.asarray(values, jnp.bfloat16)


def vector(width, seed):
    return jnp.asarray(1 + 0.3 * np.random.default_rng(seed).standard_normal(width), jnp.float32)


def float64(array):
    return torch.tensor(np.asarray(array, np.float64), requires_grad=True)


def check(found, expected):
    """Within bfloat16's rounding of what is largest in a row; sums over rows, in float32, far nearer."""
    for ours, theirs in zip(found, expected, strict=True):
        theirs = theirs.detach().numpy()
        scale = np.maximum(np.max(np.abs(theirs), axis=-1, keepdims=True), 1)
        tolerance = 2**-8 if ours.dtype == jnp.bfloat16 else 1e-4
        np.testing.assert_allclose(np.asarray(ours, np.float64) / scale, theirs / scale, rtol=0, atol=tolerance)


@pytest.mark.optimised
@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_the_norm_of_a_branch_is_pytorch_s(rows, width):
    x, skipped, slope = (draw(rows, width, seed) for seed in (0, 3, 4))
    scale, bias = (vector(width, seed) for seed in (1, 2))
    (handed_on, y), pull = jax.vjp(jax.jit(layer_norm_branch), x, scale, bias)
    np.testing.assert_array_equal(handed_on, x)
    theirs = [float64(argument) for argument in (x, scale, bias)]
    expected = torch.nn.functional.layer_norm(theirs[0], (width,), *theirs[1:], 1e-5)
    loss = torch.sum(expected * float64(slope)) + torch.sum(theirs[0] * float64(skipped))
    check([y, *pull((skipped, slope))], [expected, *torch.autograd.grad(loss, theirs)])


@pytest.mark.optimised
@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_the_gelu_of_a_sum_is_pytorch_s(rows, width, quick):
    x, bias, slope = draw(rows, width), vector(width, 1), draw(rows, width, 3)
    y, pull = jax.vjp(jax.jit(lambda x, bias: biased_gelu(x, bias, quick)), x, bias)
    theirs = [float64(argument) for argument in (x, bias)]
    total = theirs[0] + theirs[1]
    expected = total * torch.sigmoid(1.702 * total) if quick else torch.nn.functional.gelu(total)
    check([y, *pull(slope)], [expected, *torch.autograd.grad(torch.sum(expected * float64(slope)), theirs)])


def test_rows_that_do_not_split_into_programs_go_the_plain_way(monkeypatch):
    monkeypatch.delattr(kernels, "_call")
    x, slope, (scale, bias) = draw(100, 64), draw(100, 64, 3), (vector(64, seed) for seed in (1, 2))

    def norm(x, scale, bias):
        return x, layer_norm(x, scale, bias)

    def sum_and_gelu(x, bias):
        return gelu((x + bias).astype(x.dtype))

    (_, expected), pull = jax.vjp(norm, x, scale, bias)
    (_, found), pull_found = jax.vjp(layer_norm_branch, x, scale, bias)
    jax.tree.map(np.testing.assert_array_equal, (found, pull_found((x, slope))), (expected, pull((x, slope))))
    expected, pull = jax.vjp(sum_and_gelu, x, bias)
    found, pull_found = jax.vjp(lambda x, bias: biased_gelu(x, bias, False), x, bias)
    np.testing.assert_array_equal(found, expected)
    for ours, theirs in zip(pull_found(slope), pull(slope), strict=True):
        np.testing.assert_allclose(ours.astype(jnp.float32), theirs.astype(jnp.float32), rtol=1e-5, atol=1e-4)


# Both towers' rows, 10 and 20 positions a pair, split into programs: of 64 pairs, or of 64 on each device.
TOWER = dataclasses.replace(SMALL.vision, layers=2)
CONFIG = dataclasses.replace(SMALL, vision=TOWER, text=TOWER)


def loss_and_gradients(pairs, dtype="bfloat16", **execution):
    clip = Clip(dataclasses.replace(CONFIG, compute_dtype=dtype), Execution(**execution))
    images, tokens = random_batch(CONFIG, seed=2, rows=pairs)

    def loss(params, images, tokens):
        features = clip.encode_image(params, images), clip.encode_text(params, tokens)
        return contrastive_loss(*features, params["logit_scale"])

    return jax.jit(jax.value_and_grad(loss)), random_params(CONFIG, seed=1), images, tokens


def errors(found, expected):
    """How far each parameter's gradient is off, as a share of its norm."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return np.array([np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-3) for a, b in pairs])


@pytest.fixture
def calls(monkeypatch):
    made, call = [], kernels._call
    monkeypatch.setattr(kernels, "_call", lambda *rest, **named: made.append(1) or call(*rest, **named))
    return made


def run(**execution):
    function, *arguments = loss_and_gradients(64, **execution)
    return jax.device_get(function(*arguments))


@pytest.fixture(scope="module")
def without_them():
    """The loss and gradients in float32, and in bfloat16, computed the plain way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(kernels, "_call")  # nothing may ask for a kernel
        with jax.default_matmul_precision("highest"):  # GPUs round float32 products otherwise
            exact = run(dtype="float32", kernels="plain")
        return exact, run(kernels="plain")


@pytest.mark.optimised
@pytest.mark.parametrize(
    ("scan_layers", "remat"), [(False, "none"), pytest.param(True, "full", marks=pytest.mark.slow)]
)
def test_towers_with_them_have_the_same_loss_and_gradients(scan_layers, remat, calls, without_them):
    (exact_loss, exact), (plain_loss, plain) = without_them
    loss, gradients = run(kernels="triton", scan_layers=scan_layers, remat=remat)
    assert calls
    np.testing.assert_allclose([loss, plain_loss], exact_loss, rtol=2e-3)
    off, plain_off = errors(gradients, exact), errors(plain, exact)
    assert np.mean(off) < 1.1 * np.mean(plain_off)  # both are rounded to bfloat16 many times
    assert np.all(off < 3 * plain_off + 0.005)


@pytest.mark.slow
@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
def test_each_device_runs_them_on_its_part(calls):
    pairs = 256  # on 2 x 2 devices, which share hidden layers with two others each
    function, params, images, tokens = loss_and_gradients(pairs, kernels="plain")
    expected_loss, expected = function(params, images, tokens)
    mesh = mesh_lib.make_mesh(fsdp=2, tensor=2)
    with mesh_lib.use(mesh):
        function, *_ = loss_and_gradients(pairs, kernels="triton")
        placed = jax.device_put(params, mesh_lib.param_shardings(params, mesh))
        batch = [jax.device_put(array, mesh_lib.batch_sharding(mesh)) for array in (images, tokens)]
        program = function.lower(placed, *batch).compile()
        loss, gradients = program(placed, *batch)
    assert calls
    np.testing.assert_allclose(loss, expected_loss, rtol=2e-3)
    assert np.max(errors(jax.device_get(gradients), jax.device_get(expected))) < 0.05
    assert f"bf16[{pairs * 10},64]" not in program.as_text()  # no device gathers the others' rows


def test_they_compile_to_triton_for_a_gpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    x = jax.ShapeDtypeStruct((128, 768), jnp.bfloat16)
    scale = jax.ShapeDtypeStruct((768,), jnp.float32)

    def both_ways(function, *arguments):
        value, pull = jax.vjp(function, *arguments)
        return value, pull(value)

    for function, arguments in (
        (layer_norm_branch, (x, scale, scale)),
        (lambda x, bias: biased_gelu(x, bias, False), (x, scale)),
        (lambda x, bias: biased_gelu(x, bias, True), (x, scale)),
    ):
        traced = jax.jit(lambda *arguments, function=function: both_ways(function, *arguments)).trace(*arguments)
        assert traced.lower(lowering_platforms=("cuda",)).as_text().count("xla.gpu.triton") == 2


def test_what_is_chosen_for_each_device(monkeypatch):
    half, single = jnp.dtype("bfloat16"), jnp.dtype("float32")
    for generation, expected in ((9, "triton"), (8, "triton"), (7, "plain"), (0, "plain")):
        monkeypatch.setattr(kernels, "nvidia_generation", lambda generation=generation: generation)
        assert choose("auto", half) == expected
        assert {choose("auto", single), choose("plain", half)} == {"plain"}
        assert choose("triton", single) == "triton"  # what is asked for is not second-guessed
