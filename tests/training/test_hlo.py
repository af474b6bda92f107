"""What a compiled program moves: against hand-written programs, and against compiled ones whose traffic is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from salmu_jax.training import hlo
from salmu_jax.training.mesh import make_mesh

LOOP = """
HloModule jit_f, is_scheduled=true

%sliced (p0: f32[12,8,8], p1: s32[]) -> f32[8,8] {
  %p0 = f32[12,8,8]{2,1,0} parameter(0)
  %p1 = s32[]{:T(128)} parameter(1)
  %zero = s32[] constant(0)
  %slice = f32[1,8,8]{2,1,0} dynamic-slice(%p0, %p1, %zero, %zero), dynamic_slice_sizes={1,8,8}
  ROOT %bitcast.1 = f32[8,8]{1,0} bitcast(%slice)
}

%body (arg: (s32[], f32[8,8], f32[12,8,8])) -> (s32[], f32[8,8], f32[12,8,8]) {
  %arg = (s32[], f32[8,8]{1,0}, f32[12,8,8]{2,1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%arg), index=0
  %x = f32[8,8]{1,0:T(8,128)S(1)} get-tuple-element(%arg), index=1
  %w = f32[12,8,8]{2,1,0} get-tuple-element(%arg), index=2
  %one = f32[8,8]{1,0:T(8,128)S(1)} fusion(%w, %i), kind=kLoop, calls=%sliced
  %sum = f32[8,8]{1,0:T(8,128)} all-reduce(%x), replica_groups=GROUPS, to_apply=%add
  ROOT %out = (s32[], f32[8,8]{1,0}, /*index=2*/f32[12,8,8]{2,1,0}) tuple(%i, %sum, %w)
}

%condition (arg.1: (s32[], f32[8,8], f32[12,8,8])) -> pred[] {
  %arg.1 = (s32[], f32[8,8]{1,0}, f32[12,8,8]{2,1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%arg.1), index=0
  %limit = s32[] constant(12)
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}

ENTRY %main (a: f32[8,8], b: f32[12,8,8]) -> f32[8,8] {
  %a = f32[8,8]{1,0} parameter(0)
  %b = f32[12,8,8]{2,1,0} parameter(1)
  %start = s32[] constant(0)
  %t = (s32[], f32[8,8]{1,0}, f32[12,8,8]{2,1,0}) tuple(%start, %a, %b)
  %loop = (s32[], f32[8,8]{1,0}, f32[12,8,8]{2,1,0}) while(%t), condition=%condition, body=%body
  ROOT %r = f32[8,8]{1,0} get-tuple-element(%loop), index=1
}
"""


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("{{0,1,2,3},{4,5,6,7}}", 4),
        ("[4,2]<=[8]", 2),
        ("mesh['data'=4,'fsdp'=2] {'data'}", 4),
        ("mesh['data'=4,'fsdp'=2] {'data','fsdp'}", 8),
        ("{}", 8),
    ],
)
def test_a_loop_counts_as_often_as_it_runs_and_slices_as_what_they_are(groups, size):
    traffic = hlo.traffic(LOOP.replace("GROUPS", groups), 8)
    array = 8 * 8 * 4
    # A twelfth of the weights each time; the index; the result of the sum. What is in S(1) is on the chip.
    assert traffic.memory == 12 * (array + 4 + array)
    assert traffic.collectives == {"all-reduce": 12 * 2 * array * (size - 1) / size}
    assert traffic.interconnect == traffic.collectives["all-reduce"]


def test_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.traffic("nothing\n", 1)


def compiled(function, *shapes):
    return jax.jit(function).lower(*shapes).compile().as_text()


def test_compiled_loops_and_collectives_have_the_known_traffic():
    mesh = make_mesh()
    split = NamedSharding(mesh, P("data"))
    rows = jax.ShapeDtypeStruct((64, 32), np.float32, sharding=split)
    # Each step adds up over the devices: an all-reduce of 32 floats, in a loop of 5.
    text = compiled(lambda x: jax.lax.fori_loop(0, 5, lambda _, v: v * 0.5 + jnp.sum(x * v, axis=0), x[0]), rows)
    sent = hlo.traffic(text, 8).collectives
    assert sent["all-reduce"] == pytest.approx(5 * 2 * 32 * 4 * 7 / 8, rel=0.5)


def test_a_product_moves_its_operands_and_its_result():
    n = 256
    matrix = jax.ShapeDtypeStruct((n, n), np.float32)
    moved = hlo.traffic(compiled(lambda a, b: a @ b, matrix, matrix), 1)
    assert moved.memory == 3 * n * n * 4
    assert moved.interconnect == 0
