"""The process that methods run in: ``python -m salmu_jax.unlearning.child``, started by ``isolation.py``.

Code of methods is imported here and nowhere else: not where models are trained or evaluated, nor where results are
written. Its request is JSON without any path: it works in the directory that it is started in::

    view/        what it may read, see view.py
    run/state/   checkpoints that a killed run resumes from
    run/model/   the unlearned model, when it is done
    run/logs/    event files, if the config wants any

This module imports nothing heavy, so that signals are handled from the first line on.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salmu_jax.runtime import processes, removal, withheld
from salmu_jax.runtime.errors import InputError

VIEW, STATE, MODEL, LOGS = Path("view"), Path("run/state"), Path("run/model"), Path("run/logs")
LOCK = "lock"
_METHODS = "salmu_jax.unlearning.methods"


def work(request: dict[str, Any]) -> Any:
    """Runs one of the two tasks that need a method's code, which may not read what is withheld."""
    withheld.withhold()
    return {"describe": describe, "unlearn": unlearn}[request["task"]](request)


def describe(request: Mapping[str, Any]) -> dict[str, Any]:
    """Checks the methods of ``request["runs"]`` and returns a description of each by the run's name, JSON values.

    Each of the runs has ``method``, ``fields``, ``where`` (the config field that it comes from), and ``forget_pairs``, the
    number of pairs in a pass. Raises InputError for unknown methods, fields and options.
    """
    import jax

    from salmu_jax.config import from_json
    from salmu_jax.models.build import make_clip
    from salmu_jax.unlearning.freeze import TRAIN_ALL, label_parameters
    from salmu_jax.unlearning.method import Method
    from salmu_jax.unlearning.plan import describe_plan, make_plan

    config = from_json(request["config"])
    clip = make_clip(config)
    shapes = functools.cache(
        lambda: jax.eval_shape(clip.init, jax.random.key(0))
    )  # half a second, if any are asked for
    described = {}
    for name, run in request["runs"].items():
        plan = make_plan(run["method"], run["fields"], run["forget_pairs"], run["where"])
        if ":" not in run["method"]:
            _check_module(run["method"], type(plan.method).__module__, run["where"])
        try:
            # Without rules of the config there is nothing to check; what other methods train is known when they run.
            if tuple(plan.trainable) != TRAIN_ALL and type(plan.method).parametrise is Method.parametrise:
                label_parameters(shapes(), plan.trainable)
        except InputError as error:
            raise InputError(str(error), f"{run['where']}.freeze") from error
        described[name] = describe_plan(plan)
    return described


def _check_module(method: str, module: str, where: str) -> None:
    """Raises InputError for a method in a module with another name, whose edits would go unnoticed."""
    if not f"{module}.".startswith(f"{_METHODS}.{method}."):
        message = f"is in the module {module}; move it to methods/{method}.py, where an edit of it is looked for"
        raise InputError(message, where)


def unlearn(request: Mapping[str, Any]) -> dict[str, Any]:
    """Runs a method on the view and writes the model; returns the devices, which only this process knows."""
    with open(LOCK, "w") as lock:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_SH)  # by all hosts, until their processes are gone: see cells.recover
        view = {VIEW: removal.names_in(VIEW)}
        with removal.named(view, lambda path, what: InputError(what, path)):  # isolation.py says what to do
            return _unlearn(request)


def _unlearn(request: Mapping[str, Any]) -> dict[str, Any]:
    from data_pipelines.input import DecodedCache, PairSource
    from salmu_jax.config import from_json
    from salmu_jax.models.build import make_clip
    from salmu_jax.runtime import distributed, host
    from salmu_jax.runtime.identity import Identity
    from salmu_jax.runtime.workspace import devices
    from salmu_jax.training.checkpoint import load_model
    from salmu_jax.training.states import States
    from salmu_jax.unlearning import loop
    from salmu_jax.unlearning.permission import Permission
    from salmu_jax.unlearning.plan import make_plan

    config, name = from_json(request["config"]), request["name"]
    distributed.initialize(**request["distributed"])
    host.start_devices()
    forget_split, *retain_splits = request["splits"]
    datasets = VIEW / "datasets"
    clip = make_clip(config)
    plan = make_plan(request["method"], request["fields"], request["forget_pairs"], request["where"])
    forget = PairSource.open(datasets, [forget_split])
    if request["rows"] is not None:
        forget = forget.select(request["rows"])
    loop.unlearn(
        config,
        plan,
        clip,
        load_model(VIEW / "parent", clip.config)[1],
        Permission(forget, PairSource.open(datasets, retain_splits) if retain_splits else None),
        MODEL,
        States(root=STATE, identity=Identity(request["identity"]), label=f"unlearn {name}", **request["states"]),
        name=name,
        seed=request["seed"],
        cache=DecodedCache(clip.config.image_size) if config.data.cache_decoded else None,
        logs=LOGS,
    )
    return {"device": devices()}


if __name__ == "__main__":
    processes.serve(work)
