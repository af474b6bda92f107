"""This project's side of the unlearning tasks: the step that a run compiles."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import inputs
from benchmarks.side import Spec, Task, unlearning_task
from salmu_jax.models.clip import Clip
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import Bind, Pairs, identity
from salmu_jax.unlearning.methods.cliperase import CLIPErase
from salmu_jax.unlearning.methods.pinned_surrogates import PinnedSurrogates
from salmu_jax.unlearning.reference import IMAGES, Asked, arrays_of, recording
from salmu_jax.unlearning.step import Start, init_unlearning_state, make_unlearning_step

METHODS = {"cliperase": CLIPErase(), "pinned_surrogates": PinnedSurrogates()}
HYPER = Hyper(
    learning_rate=inputs.LEARNING_RATE,
    warmup_steps=inputs.WARMUP_STEPS,
    total_steps=inputs.TOTAL_STEPS,
    b1=inputs.B1,
    b2=inputs.B2,
    eps=inputs.EPS,
    weight_decay=inputs.WEIGHT_DECAY,
)


def task(spec: Spec, clip: Clip) -> Task:
    """Returns the task of a method's step; ``spec.batch`` are the rows of each stream."""
    name, ours_cached, _ = unlearning_task(spec.name)
    method, params = METHODS[name], jax.device_put(inputs.parameters(clip.config))
    batch = jax.device_put(_batch(name, clip, spec.batch))
    start = Start(params)
    bind: Bind = identity
    if name == "pinned_surrogates":
        trainable, bind = method.parametrise(params, None, jax.random.key(0))
        start = Start(params, trainable, jnp.asarray(inputs.level(clip.config)))
    make = functools.partial(make_unlearning_step, clip, method, HYPER, bind=bind)
    state = init_unlearning_state(start, method, HYPER)
    if ours_cached:
        asked: set[Asked] = set()
        jax.eval_shape(make(reference=recording(asked)), state, batch, start)
        batch = _with_known(batch, asked, clip, params)
    compiled = jax.jit(make(), donate_argnums=0).lower(state, batch, start).compile()
    holder = [state]

    def run(_: int) -> Any:
        holder[0], metrics = compiled(holder[0], batch, start)
        jax.block_until_ready((holder[0], metrics))
        return metrics["loss/total"]

    return Task(run, lambda loss: [float(loss)])


def _batch(name: str, clip: Clip, rows: int) -> dict[str, Pairs]:
    drawn = inputs.unlearning_rows(clip.config, name, rows)
    others = {"alias": drawn.pop("alias")[1]} if "alias" in drawn else {}
    return {
        stream: Pairs(images, tokens, others if stream == "forget" else {})
        for stream, (images, tokens) in drawn.items()
    }


def _with_known(batch: dict[str, Pairs], asked: set[Asked], clip: Clip, params: Any) -> dict[str, Pairs]:
    """Returns the batch with the start model's embeddings of what the step asks for, as a run's batches carry them."""
    encode = {True: jax.jit(clip.encode_image), False: jax.jit(clip.encode_text)}
    found: dict[str, Pairs] = {}
    for stream, pairs in batch.items():
        arrays = {one.array: arrays_of(pairs)[one.array] for one in asked if one.stream == stream}
        known = {array: encode[array == IMAGES](params, values) for array, values in arrays.items()}
        found[stream] = pairs._replace(known=known)
    return found
