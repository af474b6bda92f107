"""FLOPs by hand against those that XLA counts, and the table of chips."""

import math
import types

import jax
import jax.extend.core
import jax.numpy as jnp
import pytest

from salmu_jax.models.clip import Clip
from salmu_jax.models.zoo import architecture
from salmu_jax.training import chips
from salmu_jax.training.flops import forward_flops_per_image, forward_flops_per_text, train_flops_per_pair


def product_flops(jaxpr):
    """Two for each multiplication and addition of the products in a traced function and in what it calls."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, result = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
            total += 2 * math.prod(result) * math.prod(left[axis] for axis in contracted)
        total += sum(
            product_flops(getattr(inner, "jaxpr", inner)) for inner in jax.extend.core.jaxprs_in_params(equation.params)
        )
    return total


@pytest.mark.parametrize("name", ["mini", "ViT-B-32"])
def test_forward_flops_are_those_of_the_products_and_nearly_what_xla_counts(name):
    config = architecture(name)
    clip = Clip(config)
    params = jax.eval_shape(clip.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((4, config.image_size, config.image_size, 3), jnp.uint8)
    tokens = jax.ShapeDtypeStruct((4, config.context_length), jnp.int32)
    short = jax.ShapeDtypeStruct((4, 8), jnp.int32)
    for encode, inputs, expected in (
        (clip.encode_image, image, forward_flops_per_image(config)),
        (clip.encode_text, tokens, forward_flops_per_text(config)),
        (clip.encode_text, short, forward_flops_per_text(config, length=8)),
    ):
        assert product_flops(jax.make_jaxpr(encode)(params, inputs).jaxpr) == 4 * expected
        counted = jax.jit(encode).lower(params, inputs).cost_analysis()["flops"] / 4
        # XLA also counts norms, softmax and activations: a few percent at full size, more in small towers.
        assert expected <= counted <= expected * {"mini": 1.35, "ViT-B-32": 1.03}[name]


def test_a_training_step_of_vit_b_16_takes_the_known_figure():
    full = 3 * 41.09e9  # as published (OpenCLIP's model profile), every block over all positions
    # Of the last block a single position is needed; its query weighs all of them with one vector of the width a head.
    image, text = (24 * d**2 * (n - 1) + 4 * n * d * (n - heads) for n, d, heads in ((197, 768, 12), (77, 512, 8)))
    assert train_flops_per_pair(architecture("ViT-B-16")) == pytest.approx(full - 3 * (image + text), rel=0.002)
    assert train_flops_per_pair(architecture("ViT-B-16"), every_position=True) == pytest.approx(full, rel=0.002)


def device(kind, *coords):
    return types.SimpleNamespace(device_kind=kind, **({"coords": coords} if coords else {}))


@pytest.mark.parametrize(
    ("kind", "name"),
    [("TPU v5 lite", "TPU v5e"), ("TPU v5", "TPU v5p"), ("TPU v4", "TPU v4"), ("NVIDIA H100 80GB HBM3", "NVIDIA H100")],
)
def test_chips_are_known_by_what_jax_calls_them(kind, name):
    assert chips.chip_of(device(kind)).name == name


def test_two_devices_of_a_chip_share_its_peak():
    cores = [device("TPU v4", x, 0, 0) for x in (0, 1) for _ in range(2)]
    assert chips.devices_per_chip(cores) == 2
    assert chips.peak_flops(cores) == 2 * 275e12
    assert chips.peak_flops([device("TPU v5 lite", 0, 0, 0), device("TPU v5 lite", 1, 0, 0)]) == 2 * 197e12
    assert chips.peak_flops(jax.devices()) == 0  # a CPU has no published peak
