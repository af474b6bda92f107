"""Runs a method on given batches: its hooks in the order of a run, without data sets, checkpoints and processes."""

import dataclasses

import jax
import jax.numpy as jnp

from salmu_jax.training import mesh as mesh_lib
from salmu_jax.unlearning import step as step_lib
from salmu_jax.unlearning.context import Context
from salmu_jax.unlearning.freeze import TRAIN_ALL, label_parameters, merge, trainable_part
from salmu_jax.unlearning.method import Bound, Method, identity


@dataclasses.dataclass
class GivenBatches:
    """What ``prepare`` draws from: ``batches``, a list of batches by stream, over and over."""

    batches: list

    def to_prepare(self):
        while True:
            yield from self.batches

    whole = to_prepare


def make_context(method, hyper, clip, params, batches, rules=TRAIN_ALL):
    """The context of a run on one device."""
    whole = type(method).parametrise is not Method.parametrise
    labels = label_parameters(params, TRAIN_ALL if whole else rules)
    return Context(
        params=trainable_part(params, labels),
        bind=lambda part: Bound(clip, merge(part, params, labels)),
        reference=Bound(clip, params),
        hyper=hyper,
        rng=step_lib.run_key(42, step_lib.PREPARE_PURPOSE),
        seed=42,
        permission=None,
        stream_batches=GivenBatches(batches),
        mesh=mesh_lib.make_mesh(devices=jax.devices()[:1]),
    )


def unlearn(method, hyper, clip, params, batches, rules=TRAIN_ALL, epoch_steps=1.0):
    """Prepares, takes ``hyper.total_steps`` steps over ``batches``, in turn, and finishes: the full parameters."""
    params = jax.tree.map(jnp.asarray, params)
    method = method.with_options(hyper.options)
    prepared = method.prepare(make_context(method, hyper, clip, params, batches, rules))
    start, bind = step_lib.Start(params, None, prepared), identity
    if type(method).parametrise is not Method.parametrise:
        trainable, bind = method.parametrise(params, prepared, step_lib.run_key(42, step_lib.PARAMETRISE_PURPOSE))
        start = step_lib.Start(params, trainable, prepared)
    state = step_lib.init_unlearning_state(start, method, hyper, rules)
    step = jax.jit(step_lib.make_unlearning_step(clip, method, hyper, rules, bind=bind, epoch_steps=epoch_steps))
    for number in range(hyper.total_steps):
        state, _ = step(state, batches[number % len(batches)], start)
    full = step_lib.full_params(state.params, start, bind, rules)
    return jax.jit(method.finish)(full, params, prepared)
