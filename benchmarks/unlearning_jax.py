"""This project's side of the unlearning tasks: the step that a run compiles."""

from __future__ import annotations

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import first_step, inputs
from benchmarks.side import Spec, Task, unlearning_task
from salmu_jax.models.clip import Clip
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import Bound, Pairs
from salmu_jax.unlearning.methods.cliperase import CLIPErase
from salmu_jax.unlearning.methods.pinned_surrogates import PinnedSurrogates
from salmu_jax.unlearning.methods.redirect import Prepared, Redirect
from salmu_jax.unlearning.reference import IMAGES, Asked, arrays_of, recording
from salmu_jax.unlearning.step import Start, init_unlearning_state, make_unlearning_step

METHODS = {
    "cliperase": CLIPErase(),
    "pinned_surrogates": PinnedSurrogates(),
    "redirect": Redirect(),
}
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
    """Returns the task of a method's step over the rows that ``inputs.unlearning_rows`` draws of ``spec.batch``."""
    name, ours_cached, _ = unlearning_task(spec.name)
    method, params = METHODS[name], jax.device_put(inputs.parameters(clip.config))
    batch = jax.device_put(_batch(name, clip, spec.batch))
    prepared = jax.device_put(_prepared(name, clip, params))
    trainable, bind = method.parametrise(params, prepared, jax.random.key(0))
    start = Start(params, trainable, prepared)
    make = functools.partial(make_unlearning_step, clip, method, HYPER, bind=bind)
    trained, _ = method.parametrise(jax.device_put(inputs.moved(clip.config)), prepared, jax.random.key(0))
    state = init_unlearning_state(start, method, HYPER)._replace(params=trained)
    if ours_cached:
        asked: set[Asked] = set()
        jax.eval_shape(make(reference=recording(asked)), state, batch, start)
        batch = _with_known(batch, asked, clip, params)
    began = time.perf_counter()
    compiled = jax.jit(make(), donate_argnums=0).lower(state, batch, start).compile()
    seconds = time.perf_counter() - began
    before = first_step.tensors(clip.config, bind(trained, params))  # a copy: the step reuses the memory
    del trained
    state, metrics = compiled(state, batch, start)
    after = first_step.tensors(clip.config, bind(state.params, params))
    first = first_step.summary(float(metrics["loss/total"]), before, after)
    holder = [state]
    del state, before, after

    def run(_: int) -> Any:
        holder[0], metrics = compiled(holder[0], batch, start)
        jax.block_until_ready((holder[0], metrics))
        return metrics["loss/total"]

    return Task(run, lambda loss: [float(loss)], {"first_step": first, "compile_seconds": seconds})


def _prepared(name: str, clip: Clip, params: Any) -> Any:
    array = inputs.prepared(clip.config, name)
    if name != "redirect" or array is None:
        return array
    captions = inputs.likely(clip.config)
    return Prepared(array, captions, Bound(clip, params).encode_text(jnp.asarray(captions)))


def _batch(name: str, clip: Clip, rows: int) -> dict[str, Pairs]:
    drawn = inputs.unlearning_rows(clip.config, name, rows)
    others = {key.removeprefix("forget."): drawn.pop(key)[1] for key in list(drawn) if key.startswith("forget.")}
    batch = {stream: Pairs(images, tokens) for stream, (images, tokens) in drawn.items()}
    numbers: dict[str, Any] = {**inputs.numbers(name, rows)}
    return {**batch, "forget": batch["forget"]._replace(others=others, numbers=numbers)}


def _with_known(batch: dict[str, Pairs], asked: set[Asked], clip: Clip, params: Any) -> dict[str, Pairs]:
    """Returns the batch with the start model's embeddings of what the step asks for, as a run's batches carry them."""

    @functools.partial(jax.jit, static_argnums=0)
    def encode(array: str, params: Any, values: jax.Array) -> jax.Array:
        bound = Bound(clip, params)
        return bound.encode_image(values) if array == IMAGES else bound.encode_text(values)

    found: dict[str, Pairs] = {}
    for stream, pairs in batch.items():
        arrays = {one.array: arrays_of(pairs)[one.array] for one in asked if one.stream == stream}
        found[stream] = pairs._replace(known={name: encode(name, params, values) for name, values in arrays.items()})
    return found
