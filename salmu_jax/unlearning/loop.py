"""Runs an unlearning method, top to bottom: mesh, data, prepare, parametrise, known embeddings, loop, finish, checkpoint.

What a run may read is a :class:`~salmu_jax.unlearning.permission.Permission`. It runs in a process of its own over a directory
that holds nothing else, see ``isolation.py``, which also records the splits in the model's manifest.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from data_pipelines.input import DecodedCache
from salmu_jax.models.build import input_manifest, make_tokenizer
from salmu_jax.models.clip import Clip, Params
from salmu_jax.runtime import host
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import first_line, listed
from salmu_jax.training import loop
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.training.checkpoint import mismatches, save_model, shape_records
from salmu_jax.training.nonfinite import identifier, is_finite
from salmu_jax.training.states import States
from salmu_jax.training.stopping import SavePolicy
from salmu_jax.unlearning import step as step_lib
from salmu_jax.unlearning.context import Context
from salmu_jax.unlearning.freeze import TRAIN_ALL, Rules, label_parameters, merge, trainable_part
from salmu_jax.unlearning.made_captions import Inputs
from salmu_jax.unlearning.method import Bind, Bound, Method, identity
from salmu_jax.unlearning.permission import Permission
from salmu_jax.unlearning.plan import Plan
from salmu_jax.unlearning.reference import MakeReference, knowing
from salmu_jax.unlearning.reference_cache import remember
from salmu_jax.unlearning.stream_batches import Batches
from salmu_jax.unlearning.user_methods import failures_of
from salmu_jax.unlearning.watching import make_watch


def unlearn(
    config: ConfigDict,
    plan: Plan,
    clip: Clip,
    params: Params,
    permission: Permission,
    directory: Path,
    states: States,
    *,
    name: str,
    seed: int,
    cache: DecodedCache | None = None,
    logs: Path | None = None,
) -> dict[str, Any]:
    """Runs ``plan`` from the start model's ``params`` and writes the unlearned model to ``directory``; returns its manifest.

    ``name`` is that of the run, ``seed`` the one that all its draws follow from; event files go to ``logs``. A run that was
    killed resumes from its ``states``, as in :func:`salmu_jax.training.pretrain.pretrain`. All processes must call it.

    Raises:
      InputError: batches not divisible over the devices, a loss that is not finite, a user's method that fails.
      Preempted: SIGTERM or SIGHUP came, and the state is saved.
    """
    method, hyper, rules = plan.method, plan.hyper, plan.trainable
    mesh = mesh_lib.make_mesh(config.mesh.fsdp, config.mesh.tensor)
    params = jax.device_put(params, mesh_lib.param_shardings(params, mesh))
    inputs = _inputs(config, plan, clip, permission, seed, mesh, cache)
    other = states.begin()
    with failures_of(method):
        batches = Batches(plan.streams, plan.sizes, inputs)
        start, bind = _start(plan, clip, params, batches, seed, mesh)
        state = step_lib.init_unlearning_state(start, method, hyper, rules, seed)
        state = jax.device_put(state, mesh_lib.param_shardings(state, mesh))

        def make_step(reference: MakeReference = knowing) -> step_lib.Step:
            return step_lib.make_unlearning_step(
                clip, method, hyper, rules, bind=bind, epoch_steps=plan.epoch_steps, reference=reference
            )

        batches.known = remember(
            config.unlearn.cache_reference,
            make_step,
            state,
            start,
            clip,
            batches,
            hyper.total_steps,
            mesh,
            f"unlearn {name}",
        )

        policy = SavePolicy(config.unlearn.save_every, config.train.save_minutes, config.train.keep_last)
        history = loop.History(states.directory / "metrics.jsonl")
        with states.opened(policy, stride=config.unlearn.steps_per_call, other=other) as store:
            state = loop.run(
                make_step(),
                state,
                batches,
                total_steps=hyper.total_steps,
                steps_per_call=config.unlearn.steps_per_call,
                batch_size=batches.rows_per_step,
                mesh=mesh,
                store=store,
                history=history,
                label=f"unlearn {name}",
                constants=(start,),
                identify=identifier(batches.sources),
                watch=make_watch(config, clip, inputs, mesh, name, logs or states.directory, start, bind, rules),
            )
        final = _finished(method, state.params, start, bind, rules, mesh, f"unlearn {name}")

    manifest = {
        **input_manifest(clip, inputs.tokenizer),
        "name": name,
        "method": {
            "name": method.name,
            "title": method.title,
            "reference": method.reference,
            **dataclasses.asdict(method),
        },
        "hyper": hyper.to_json(),
        "trainable": [list(rule) for rule in plan.trainable],
        "steps": hyper.total_steps,
        "drawn": list(permission.drawn),
        **({"resumed_from": dataclasses.asdict(other)} if other else {}),
    }
    return save_model(directory, clip, final, manifest, history.records())


def _inputs(
    config: ConfigDict,
    plan: Plan,
    clip: Clip,
    permission: Permission,
    seed: int,
    mesh: Mesh,
    cache: DecodedCache | None,
) -> Inputs:
    """Returns what the streams draw from. Raises InputError for a stream that does not split over the devices."""
    for name, stream in plan.streams.items():
        field = f"{plan.where}.batch_size" if stream.per_step is None else f"{plan.where} stream {name!r}"
        mesh_lib.check_batch_size(plan.sizes[name], mesh, field)
    size = clip.config.image_size
    cache = None if plan.hyper.augment else cache  # which holds one crop of each image
    rows = [plan.sizes[name] for name, stream in plan.streams.items() if stream.has_images]
    workers = host.decoding_workers(
        config.data.workers,
        permission.forget_pairs,
        max(rows, default=0) * size**2 * 3,
        cached=cache is not None,
        streams=max(len(rows), 1),
    )
    return Inputs(
        permission,
        make_tokenizer(clip),
        size,
        seed,
        cache,
        workers,
        augment=plan.hyper.augment,
        clean_captions=plan.hyper.clean_captions,
    )


def _start(
    plan: Plan, clip: Clip, params: Params, batches: Batches, seed: int, mesh: Mesh
) -> tuple[step_lib.Start, Bind]:
    """Prepares and parametrises the method: returns what all steps start from, and ``bind``."""
    method = plan.method
    whole = type(method).parametrise is not Method.parametrise  # what it trains is not known before it has prepared
    labels = label_parameters(params, TRAIN_ALL if whole else plan.trainable)
    context = Context(
        params=trainable_part(params, labels),
        bind=lambda part: Bound(clip, merge(part, params, labels)),
        reference=Bound(clip, params),
        hyper=plan.hyper,
        rng=step_lib.run_key(seed, step_lib.PREPARE_PURPOSE),
        seed=seed,
        permission=batches.inputs.permission,
        stream_batches=batches,
        mesh=mesh,
    )
    prepared = _place(method.prepare(context), mesh, f"prepare() of {method.name}")
    if not whole:
        return step_lib.Start(params, None, prepared), identity
    trainable, bind = _parametrised(method, params, prepared, seed, mesh)
    return step_lib.Start(params, trainable, prepared), bind


def _parametrised(method: Method, params: Params, prepared: Any, seed: int, mesh: Mesh) -> tuple[Any, Bind]:
    """Returns the trainable tree, compiled, so that arrays which are split over several processes may go into it."""
    key, binds = np.asarray(jax.random.key_data(step_lib.run_key(seed, step_lib.PARAMETRISE_PURPOSE))), []

    def make(params: Params, prepared: Any, key: jax.Array) -> Any:
        trainable, bind = method.parametrise(params, prepared, jax.random.wrap_key_data(key, impl="threefry2x32"))
        binds.append(bind)
        return trainable

    with mesh_lib.use(mesh):
        shardings = mesh_lib.param_shardings(jax.eval_shape(make, params, prepared, key), mesh)
        return jax.jit(make, out_shardings=shardings)(params, prepared, key), binds[0]


def _place(tree: Any, mesh: Mesh, what: str) -> Any:
    """Returns a tree of arrays and keys, equal on all hosts, as global arrays sharded like parameters."""

    def put(leaf: Any, sharding: NamedSharding) -> jax.Array:
        if not isinstance(leaf, jax.Array):
            leaf = np.asarray(
                leaf
            )  # not in double precision, in which JAX takes equal values of the hosts for different
            leaf = leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype))
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            # A key of this process alone cannot be put on other processes' devices; its data can.
            data = jax.device_put(np.asarray(jax.random.key_data(leaf)), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return jax.device_put(leaf, sharding)

    try:
        return jax.tree.map(put, tree, mesh_lib.param_shardings(tree, mesh))
    except (TypeError, ValueError, AssertionError) as error:
        raise InputError(f"has to give arrays, the same on all hosts ({first_line(error)})", what) from error


def _finished(
    method: Method, part: Any, start: step_lib.Start, bind: Bind, rules: Rules, mesh: Mesh, label: str
) -> Params:
    """Returns the unlearned parameters, given the trained leaves after the last step.

    Raises InputError if :meth:`Method.finish` changes the shape or dtype of a parameter, or makes one that is not finite.
    """
    labels = label_parameters(start.tree(), rules)

    def finish(part: Any, start: step_lib.Start) -> Params:
        params = step_lib.full_params(part, start, bind, rules)
        final = method.finish(params, start.params, start.prepared)
        if problems := mismatches(shape_records(start.params), shape_records(final)):
            raise InputError(f"finish() has to return parameters like those it is given: {listed(problems)}", label)
        return merge(final, start.params, labels) if start.trainable is None else final

    if type(method).finish is Method.finish and bind is identity:
        return finish(part, start)
    with mesh_lib.use(mesh):
        compiled = jax.jit(finish, out_shardings=mesh_lib.param_shardings(start.params, mesh))
        final = compiled(part, start)
    if not is_finite(final):
        raise InputError(f"finish() of {method.name} makes a parameter that is not finite", label)
    return final
