"""The process that methods run in: ``python -m salmu_jax.unlearning.child``, started by ``isolation.py``.

Code of methods is imported here and nowhere else: not where models are trained or evaluated, nor where results are
written. The process is told what to do as JSON, and no path: it works in the directory that it is started in::

    view/        what it may read, see view.py
    run/state/   what a killed run goes on from
    run/model/   the unlearned model, when it is done

This module imports nothing heavy, so that a signal is answered from the first line on.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salmu_jax import processes, removal
from salmu_jax.errors import InputError

VIEW, STATE, MODEL = Path("view"), Path("run/state"), Path("run/model")
LOCK = "lock"


def work(told: dict[str, Any]) -> Any:
    """Does one of the two things that take a method's code."""
    return {"describe": describe, "unlearn": unlearn}[told["task"]](told)


def describe(told: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the methods ``told["methods"]`` (names with their fields) are, in JSON values, each checked.

    ``forget_pairs`` are the pairs that passes are counted over. Raises InputError for unknown methods, fields and options.
    """
    import jax

    from salmu_jax.config import from_json
    from salmu_jax.training.pretrain import make_clip
    from salmu_jax.unlearning.freeze import label_parameters
    from salmu_jax.unlearning.loop import describe_plan, make_plan

    config = from_json(told["config"])
    shapes = jax.eval_shape(make_clip(config).init, jax.random.key(0))
    described = {}
    for name, fields in told["methods"].items():
        plan = make_plan(name, fields, told["forget_pairs"])
        try:
            label_parameters(shapes, plan.trainable)
        except InputError as error:
            raise InputError(str(error), f"unlearn.methods.{name}.freeze") from error
        described[name] = describe_plan(plan)
    return described


def unlearn(told: Mapping[str, Any]) -> dict[str, Any]:
    """Runs a method on the view and writes the model; returns what can be said only here (the devices)."""
    with open(LOCK, "w") as lock:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_SH)  # by all hosts, until their processes are gone: see cells.recover
        view = {VIEW: removal.names_in(VIEW)}
        with removal.named(view, lambda path, what: InputError(what, path)):  # isolation.py says what to do
            return _unlearn(told)


def _unlearn(told: Mapping[str, Any]) -> dict[str, Any]:
    from data_pipelines.input import DecodedCache, PairSource
    from salmu_jax import host
    from salmu_jax.config import from_json
    from salmu_jax.identity import Identity
    from salmu_jax.training import distributed
    from salmu_jax.training.checkpoint import load_model
    from salmu_jax.training.pretrain import make_clip
    from salmu_jax.training.states import States
    from salmu_jax.unlearning import loop
    from salmu_jax.workspace import devices

    config, name = from_json(told["config"]), told["name"]
    distributed.initialize(**told["distributed"])
    host.start_devices()
    forget_split, *retain_splits = told["splits"]
    datasets = VIEW / "datasets"
    clip = make_clip(config)
    plan = loop.make_plan(name, told["fields"], told["forget_pairs"])
    loop.unlearn(
        config,
        plan,
        clip,
        load_model(VIEW / "parent", clip.config)[1],
        PairSource.open(datasets, [forget_split], loop.extra_text(plan.method)),
        PairSource.open(datasets, retain_splits) if retain_splits else None,
        MODEL,
        States(root=STATE, identity=Identity(told["identity"]), label=f"unlearn {name}", **told["states"]),
        cache=DecodedCache(clip.config.image_size) if config.data.cache_decoded else None,
    )
    return {"device": devices()}


if __name__ == "__main__":
    processes.serve(work)
