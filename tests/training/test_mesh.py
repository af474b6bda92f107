"""Where arrays live: batches are split over data and fsdp, matrices over fsdp, and all else is copied."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from salmu_jax.models.clip import PARAMETER_AXES, Clip
from salmu_jax.models.zoo import architecture
from salmu_jax.runtime.errors import InputError
from salmu_jax.training.mesh import (
    batch_sharding,
    check_batch_size,
    make_mesh,
    param_shardings,
    put_batch,
    replicated,
    use,
)


def test_the_mesh_takes_all_devices_and_data_what_the_others_leave():
    assert dict(make_mesh().shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert dict(make_mesh(fsdp=4).shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    assert dict(make_mesh(fsdp=2, tensor=2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert dict(make_mesh(devices=jax.devices()[:1]).shape) == {"data": 1, "fsdp": 1, "tensor": 1}
    assert all(kind == jax.sharding.AxisType.Auto for kind in make_mesh().axis_types)


@pytest.mark.parametrize("axes", [{"fsdp": 3}, {"fsdp": 16}, {"fsdp": 4, "tensor": 4}])
def test_devices_that_do_not_split_are_answered_with_one_line(axes):
    with pytest.raises(InputError, match=r"^mesh: 8 devices cannot be split into fsdp \d+ x tensor \d+$"):
        make_mesh(**axes)


def test_an_uneven_batch_is_answered_with_one_line():
    check_batch_size(32, make_mesh(fsdp=2), "train.batch_size")
    check_batch_size(4, make_mesh(tensor=2), "train.batch_size")  # the batch is not split over tensor
    check_batch_size(7, make_mesh(devices=jax.devices()[:1]), "train.batch_size")
    with pytest.raises(InputError) as caught:
        check_batch_size(12, make_mesh(fsdp=2), "train.batch_size")
    assert str(caught.value) == ("train.batch_size: a batch of 12 does not split over 8 devices; a multiple of 8 would")


@pytest.mark.parametrize("fsdp", [1, 4])
@pytest.mark.parametrize("leading", [0, 1])
def test_a_batch_is_really_split(fsdp, leading):
    mesh = make_mesh(fsdp=fsdp)
    images = np.arange(3**leading * 16 * 5).reshape((3,) * leading + (16, 5))
    placed = put_batch({"images": images, "ids": images[..., 0]}, mesh, leading)
    np.testing.assert_array_equal(placed["images"], images)
    assert placed["images"].sharding == batch_sharding(mesh, leading)
    assert len({shard.device for shard in placed["images"].addressable_shards}) == 8
    for shard in placed["images"].addressable_shards:
        assert shard.data.shape == (3,) * leading + (2, 5)
    starts = {shard.index[leading].start or 0 for shard in placed["ids"].addressable_shards}
    assert starts == set(range(0, 16, 2))


def test_matrices_are_split_along_their_longest_divisible_axis():
    mesh = make_mesh(fsdp=4)
    tree = {
        "tall": np.zeros((16, 8)),
        "wide": np.zeros((8, 16)),
        "conv": np.zeros((3, 5, 3, 4)),
        "longest_does_not_divide": np.zeros((8, 17)),
        "nothing_divides": np.zeros((7, 9)),
        "bias": np.zeros(16),
        "scale": jax.ShapeDtypeStruct((), np.float32),
    }
    specs = {name: sharding.spec for name, sharding in param_shardings(tree, mesh).items()}
    assert specs == {
        "tall": P("fsdp", None),
        "wide": P(None, "fsdp"),
        "conv": P(None, None, None, "fsdp"),
        "longest_does_not_divide": P("fsdp", None),
        "nothing_divides": P(),
        "bias": P(),
        "scale": P(),
    }
    shard = jax.device_put(tree["wide"], param_shardings(tree, mesh)["wide"]).addressable_shards[0]
    assert shard.data.shape == (8, 4)


def test_without_fsdp_every_parameter_is_copied():
    mesh = make_mesh()
    assert param_shardings({"a": np.zeros((16, 8))}, mesh) == {"a": replicated(mesh)}
    array = jax.device_put(np.ones(3), replicated(mesh))
    assert [shard.data.shape for shard in array.addressable_shards] == [(3,)] * 8


def test_each_parameter_of_a_tower_is_split_by_what_its_axes_stand_for():
    mesh = make_mesh(fsdp=2, tensor=2)
    shapes = jax.eval_shape(Clip(architecture("ViT-B-16")).init, jax.random.key(0))
    shardings = param_shardings({"params": shapes, "opt_state": ({"mu": shapes},)}, mesh)
    block = shardings["params"]["text"]["transformer"]["blocks_11"]
    assert block["in_proj"]["kernel"].spec == P("fsdp", "tensor")
    assert block["in_proj"]["bias"].spec == P("tensor")
    assert block["out_proj"]["kernel"].spec == P("tensor", "fsdp")
    assert block["c_proj"]["kernel"].spec == P("tensor", "fsdp")
    assert block["c_proj"]["bias"].spec == block["ln_1"]["scale"].spec == P()
    assert shardings["params"]["text"]["token_embedding"].spec == P("tensor", "fsdp")
    assert shardings["params"]["visual"]["conv1"].spec == P(None, None, None, "fsdp")
    assert shardings["opt_state"][0]["mu"] == shardings["params"]  # moments lie where their parameters do
    whole = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    split = jax.tree.map(lambda leaf, sharding: np.prod(sharding.shard_shape(leaf.shape)), shapes, shardings["params"])
    assert sum(jax.tree.leaves(split)) < 0.27 * whole  # nearly all of it in four parts


def test_every_named_parameter_exists():
    shapes = jax.eval_shape(Clip(architecture("tiny")).init, jax.random.key(0))
    paths = [tuple(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    for names in PARAMETER_AXES:
        assert any(path[-len(names) :] == names for path in paths), names


def test_the_constraints_on_activations_are_in_the_lowered_program():
    """``with mesh:`` instead of ``use`` would drop them in silence."""
    config, mesh = architecture("tiny"), make_mesh(fsdp=2, tensor=2)
    clip = Clip(dataclasses.replace(config, vision=dataclasses.replace(config.vision, layers=2)))
    params = jax.eval_shape(clip.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((8, 16, 16, 3), np.uint8)

    def constraints():
        text = jax.jit(lambda params, images: clip.encode_image(params, images)).lower(params, images).as_text()
        return re.findall(r"sdy.sharding_constraint .* <@mesh, (\[.*?\])>", text)

    assert constraints() == []
    with use(mesh):
        found = constraints()
    assert found.count('[{"data", "fsdp"}, {}, {}]') == 2  # before the first block, and after it
    assert '[{"data", "fsdp"}, {}]' in found  # after the last, of which one position is read
    # Heads: queries, keys and values of the first block; of the last its one query, what that asks for, and what it gathers.
    assert found.count('[{"data", "fsdp"}, {}, {"tensor"}, {}]') == 3
    assert found.count('[{"data", "fsdp"}, {"tensor"}, {}]') == 3
    assert found.count('[{"data", "fsdp"}, {"tensor"}]') == 2  # the hidden layers
