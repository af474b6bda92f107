"""Runs an unlearning method, top to bottom: method, data, step, loop, checkpoint.

Splits are a permission: :func:`unlearn` gets the ``forget`` pairs, the ``retain`` pairs and the Compromised model. It runs
in a process of its own over a directory that holds nothing else, see ``isolation.py``, which also records the splits in the
model's manifest.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipelines.input import DecodedCache, PairSource, training_batches
from salmu_jax.models.clip import Clip, Params
from salmu_jax.models.inputs import input_manifest, make_tokenizer
from salmu_jax.runtime import host
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import did_you_mean
from salmu_jax.training import loop
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.training.checkpoint import save_model
from salmu_jax.training.nonfinite import Numbered, identifier
from salmu_jax.training.states import States
from salmu_jax.training.stopping import SavePolicy
from salmu_jax.unlearning import registry
from salmu_jax.unlearning.freeze import FREEZE, TRAIN, Rules
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import GENERIC_CAPTIONS, RETAIN, Batch, Method, Pairs
from salmu_jax.unlearning.step import init_unlearning_state, make_unlearning_step, prepare_method

PUBLISHED_EPOCHS = 10.0  # passes over forget
PREPARE_BATCHES = 64  # at most, for what a method computes before its first step

# Added to the run's seed as a further word, so that forget and retain batches are drawn independently.
FORGET_PURPOSE = 2
RETAIN_PURPOSE = 3


@dataclasses.dataclass(frozen=True)
class Plan:
    """A method with its hyper-parameters: what ``config.unlearn.methods.NAME`` says, checked."""

    method: Method
    hyper: Hyper
    trainable: Rules
    where: str = ""  # the field of the config, for messages


def make_plan(name: str, fields: Mapping[str, Any], forget_pairs: int, where: str = "") -> Plan:
    """Reads the fields of a method in a config (``where``): those of ``Hyper`` (except ``total_steps``), and also

    ``epochs``: passes over ``forget`` (published: 10), from which ``total_steps`` follows;
    ``freeze``: regular expressions over parameter paths; matching parameters are not trained.

    Raises InputError for an unknown method, field or option, or a value out of range.
    """
    method = registry.get(name)
    known = [field.name for field in dataclasses.fields(Hyper) if field.name != "total_steps"] + ["epochs", "freeze"]
    options = [field.name for field in dataclasses.fields(method)]
    where = where or f"unlearn.methods.{name}"
    for field in fields:
        if field not in known:
            hint = did_you_mean(field, known) or did_you_mean(
                f"options.{field}", [f"options.{name}" for name in options]
            )
            raise InputError(f"no field {field!r}; {hint or 'known: ' + ', '.join(known)}", where)
    if not isinstance(fields.get("options", {}), Mapping):
        how = f"set one of them, such as {where}.options.{options[0]}=VALUE" if options else f"{name} has none"
        raise InputError(f"options: is a group of fields, not {fields['options']!r}; {how}", where)
    values = dict(fields)
    epochs = values.pop("epochs", PUBLISHED_EPOCHS)
    freeze = values.pop("freeze", ())
    if isinstance(epochs, bool) or not isinstance(epochs, int | float) or not 0 < epochs <= 1e6:
        raise InputError(f"must be a number above 0, and at most a million, not {epochs!r}", f"{where}.epochs")
    if not isinstance(freeze, list | tuple) or not all(isinstance(pattern, str) for pattern in freeze):
        raise InputError(f"must be a list of regular expressions, not {freeze!r}", f"{where}.freeze")
    for pattern in freeze:
        try:
            re.compile(pattern)
        except re.error as error:
            raise InputError(f"{pattern!r} is not a regular expression: {error}", f"{where}.freeze") from error
    try:
        sized = dataclasses.replace(method.defaults, **{**values, "warmup_steps": None})
        method = method.with_options(sized.options)
        steps = 1 if method.one_shot else loop.steps_of(epochs, forget_pairs, method.batch_sizes(sized)[0])
        hyper = dataclasses.replace(method.defaults, **{**values, "total_steps": steps})
    except InputError as error:
        raise InputError(str(error), where) from error
    return Plan(method, hyper, (*((pattern, FREEZE) for pattern in freeze), (".*", TRAIN)), where)


def describe_plan(plan: Plan) -> dict[str, Any]:
    """Returns what a run depends on by the method's code and the config's fields, JSON values."""
    method = plan.method
    return {
        "title": method.title,
        "reference": method.reference,
        "needs": sorted(method.needs),
        "one_shot": method.one_shot,
        "options": dataclasses.asdict(method),
        "hyper": dataclasses.asdict(plan.hyper),
        "trainable": [list(rule) for rule in plan.trainable],
    }


def extra_text(method: Method) -> tuple[str, ...]:
    """Returns the names of further captions that the forget pairs need for ``method``."""
    return ("generic_caption",) if GENERIC_CAPTIONS in method.needs else ()


def unlearn(
    config: ConfigDict,
    plan: Plan,
    clip: Clip,
    params: Params,
    forget: PairSource,
    retain: PairSource | None,
    directory: Path,
    states: States,
    *,
    name: str,
    seed: int,
    cache: DecodedCache | None = None,
) -> dict[str, Any]:
    """Runs ``plan`` from the Compromised ``params`` and writes the unlearned model; returns its manifest.

    ``forget`` carries ``generic_caption`` as extra text where the method needs it (:func:`extra_text`). ``retain`` may be
    None where it needs no retain pairs. ``name`` is that of the run and its model; all draws follow from ``seed``.

    A run that was killed goes on from its ``states``, as in :func:`salmu_jax.training.pretrain.pretrain`. All processes have
    to call it.

    Raises:
      InputError: batches larger than the data or not divisible over the devices, a loss that is not finite.
      Preempted: SIGTERM or SIGHUP came, and the state is saved.
    """
    method, hyper = plan.method, plan.hyper
    mesh = mesh_lib.make_mesh(config.mesh.fsdp, config.mesh.tensor)
    tokenizer = make_tokenizer(clip)
    steps_per_call = 1 if method.one_shot else config.unlearn.steps_per_call
    forget_size, retain_size = method.batch_sizes(hyper)
    mesh_lib.check_batch_size(forget_size, mesh, f"{plan.where}.batch_size")

    streams = 2 if RETAIN in method.needs else 1
    pixels = max(forget_size, retain_size) * clip.config.image_size**2 * 3
    workers = host.decoding_workers(config.data.workers, len(forget), pixels, cached=cache is not None, streams=streams)

    def stream(source: PairSource, size: int, purpose: int, first_step: int) -> Iterator[Any]:
        return training_batches(
            source,
            tokenizer=tokenizer,
            image_size=clip.config.image_size,
            batch_size=size,
            seed=loop.derived_seed(seed, purpose),
            start_step=first_step,
            augment=None,
            cache=cache,
            num_workers=workers,
            host_index=jax.process_index(),
            host_count=jax.process_count(),
        )

    def batches(first_step: int) -> Iterator[Numbered]:
        forget_stream = stream(forget, forget_size, FORGET_PURPOSE, first_step)
        retain_stream = stream(retain, retain_size, RETAIN_PURPOSE, first_step) if RETAIN in method.needs else None
        for pairs in forget_stream:
            positions = {"forget": pairs["index"]}
            retained = next(retain_stream) if retain_stream else None
            if retained:
                positions["retain"] = retained["index"]
            yield Numbered(Batch(_pairs(pairs), _pairs(retained) if retained else None), positions)

    other = states.begin()
    params = jax.device_put(params, mesh_lib.param_shardings(params, mesh))
    state = init_unlearning_state(params, method, hyper, plan.trainable, seed)
    state = jax.device_put(state, mesh_lib.param_shardings(state, mesh))
    first = (batch.arrays for batch in itertools.islice(batches(0), PREPARE_BATCHES))
    prepared = prepare_method(clip, method, hyper, params, first, plan.trainable, seed)

    policy = SavePolicy(config.unlearn.save_every, config.train.save_minutes, config.train.keep_last)
    history = loop.History(states.directory / "metrics.jsonl")
    with states.opened(policy, stride=steps_per_call, other=other) as store:
        state = loop.run(
            make_unlearning_step(clip, method, hyper, plan.trainable),
            state,
            batches,
            total_steps=hyper.total_steps,
            steps_per_call=steps_per_call,
            batch_size=forget_size + retain_size,
            mesh=mesh,
            store=store,
            history=history,
            label=f"unlearn {name}",
            constants=(params, prepared),
            identify=identifier({"forget": forget, **({"retain": retain} if retain else {})}),
        )

    whole = {
        **input_manifest(clip, tokenizer),
        "name": name,
        "method": {"title": method.title, "reference": method.reference, **dataclasses.asdict(method)},
        "hyper": dataclasses.asdict(hyper),
        "trainable": [list(rule) for rule in plan.trainable],
        "steps": hyper.total_steps,
        **({"resumed_from": dataclasses.asdict(other)} if other else {}),
    }
    return save_model(directory, clip, state.params, whole, history.records())


def _pairs(batch: Mapping[str, np.ndarray]) -> Pairs:
    return Pairs(batch["images"], batch["tokens"], batch.get("generic_tokens"))
