"""Reads a method's settings from a config, checks them, and describes them for the run's record."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import did_you_mean, listed
from salmu_jax.training.loop import steps_of
from salmu_jax.unlearning import registry
from salmu_jax.unlearning.freeze import FREEZE, TRAIN, Rules
from salmu_jax.unlearning.hyper import BUDGETS, EPOCHS, FIELDS, Hyper
from salmu_jax.unlearning.method import Method
from salmu_jax.unlearning.options import describe_options
from salmu_jax.unlearning.permission import RETAIN
from salmu_jax.unlearning.stream_batches import forget_step_size, step_sizes
from salmu_jax.unlearning.streams import Stream


@dataclasses.dataclass(frozen=True)
class Plan:
    """A method with its options and hyper-parameters, checked.

    Attributes:
      method, hyper: as the config sets them.
      trainable: which leaves of the trainable tree are trained.
      sizes: the rows per step of each stream.
      epoch_steps: the steps of a pass over forget, a fraction if they do not divide evenly.
      where: the field of the config that they come from, for messages.
    """

    method: Method
    hyper: Hyper
    trainable: Rules
    sizes: Mapping[str, int]
    epoch_steps: float
    where: str = ""

    @property
    def streams(self) -> Mapping[str, Stream]:
        """The streams of the method, by name."""
        return self.method.make_streams()

    @property
    def trains_without_retain(self) -> bool:
        """Whether it takes steps, and neither they nor ``prepare`` get anything of retain."""
        return bool(self.hyper.total_steps) and RETAIN not in needs(self.method)


def make_plan(name: str, fields: Mapping[str, Any], forget_pairs: int, where: str = "") -> Plan:
    """Reads the fields of a method in a config: those of ``Hyper`` (except ``total_steps``), and also

    ``preset``: the method's settings to start from, instead of its defaults;
    ``budget``: one of :data:`~salmu_jax.unlearning.hyper.BUDGETS`, instead of ``epochs``;
    ``freeze``: regular expressions over the paths of the trainable tree; matching leaves are not trained.

    ``name`` is one of the registry, or ``FILE.py:CLASS``; ``where`` names the fields in errors (``unlearn.methods.NAME``).

    Raises InputError for an unknown method, field or option, or a value out of range.
    """
    method = registry.get(name)
    where = where or f"unlearn.methods.{name}"
    _check_names(method, fields, where)
    values = {key: value for key, value in fields.items() if key not in ("preset", "budget", "freeze")}
    try:
        if "budget" in fields:
            values["epochs"] = _budget(method, fields)
        base = _preset(method, fields["preset"]) if "preset" in fields else method.defaults
        # A method without steps by default takes some only if asked to.
        values.setdefault("epochs", base.epochs if base.total_steps else 0.0)
        values["options"] = {**base.options, **fields.get("options", {})}
        hyper = dataclasses.replace(base, **{**values, "warmup_steps": None})  # its limit, the steps, is not known yet
        method = method.with_options(hyper.options)
        sizes = step_sizes(method.make_streams(), hyper.batch_size)
        forget_size = forget_step_size(method.make_streams(), sizes, hyper.batch_size)
        steps = steps_of(hyper.epochs, forget_pairs, forget_size) if hyper.epochs else 0
        if steps and not (method.takes_steps() and sizes):
            raise InputError(f"{method.name} takes no steps; must be 0, not {hyper.epochs:g}", "epochs")
        hyper = dataclasses.replace(base, **{**values, "total_steps": steps})
    except InputError as error:
        raise InputError(str(error), where) from error
    return Plan(method, hyper, _rules(fields.get("freeze", ()), where), sizes, forget_pairs / forget_size, where)


def describe_plan(plan: Plan) -> dict[str, Any]:
    """Returns what a run depends on by the method's code and the config's fields, JSON values."""
    method = plan.method
    return {
        "name": method.name,
        "title": method.title,
        "reference": method.reference,
        "needs": needs(method),
        "options": dataclasses.asdict(method),
        "hyper": plan.hyper.to_json(),
        "trainable": [list(rule) for rule in plan.trainable],
        "trains_without_retain": plan.trains_without_retain,
        "takes_steps": method.takes_steps(),
    }


def needs(method: Method) -> list[str]:
    """Returns which of ``forget`` and ``retain`` the streams of a method read."""
    return sorted({stream.reads for stream in method.make_streams().values()})


def _check_names(method: Method, fields: Mapping[str, Any], where: str) -> None:
    options = [option.name for option in describe_options(method)]
    for field in fields:
        if field not in FIELDS:
            hint = did_you_mean(field, FIELDS) or did_you_mean(f"options.{field}", [f"options.{o}" for o in options])
            raise InputError(f"no field {field!r}; {hint or 'known: ' + ', '.join(FIELDS)}", where)
    if not isinstance(fields.get("options", {}), Mapping):
        has = f"set one of them, such as {where}.options.{options[0]}=VALUE" if options else f"{method.name} has none"
        raise InputError(f"options: is a group of fields, not {fields['options']!r}; {has}", where)
    epochs = fields.get("epochs", 0)
    if isinstance(epochs, bool) or not isinstance(epochs, int | float) or not EPOCHS.allow(epochs):
        raise InputError(f"must be a number from 0 to a million, not {epochs!r}", f"{where}.epochs")


def _preset(method: Method, name: Any) -> Hyper:
    """Returns one of the method's presets. Raises InputError for any other, saying whose it is, and which there are."""
    if isinstance(name, str) and name in method.presets:
        return method.presets[name]
    own = f"{method.name} has {', '.join(method.presets) or 'none'}"
    others = [
        other for other, kind in registry.METHODS.items() if name in (*kind.presets,) and kind is not type(method)
    ]
    if name in (*BUDGETS,):
        answer = f"it is a budget, which goes with any preset: budget={name}"
    elif others:
        answer = f"it is one of {listed(others, 3)}; {own}"
    else:
        answer = did_you_mean(str(name), method.presets) or own
    raise InputError(f"no preset {name!r}; {answer}", "preset")


def _budget(method: Method, fields: Mapping[str, Any]) -> float:
    """Returns the passes over forget of a budget. Raises InputError for an unknown one, and where it means nothing."""
    budget = fields["budget"]
    if budget not in (*BUDGETS,):
        raise InputError(f"no budget {budget!r}; there are {', '.join(BUDGETS)}, in passes over forget", "budget")
    if "epochs" in fields:
        raise InputError(f"is {budget}, and epochs is {fields['epochs']!r}: both say how long; leave one out", "budget")
    if not method.takes_steps():
        raise InputError(f"{method.name} takes no steps, so that no budget applies; leave it out", "budget")
    return BUDGETS[budget]


def _rules(freeze: Any, where: str) -> Rules:
    if not isinstance(freeze, list | tuple) or not all(isinstance(pattern, str) for pattern in freeze):
        raise InputError(f"must be a list of regular expressions, not {freeze!r}", f"{where}.freeze")
    for pattern in freeze:
        try:
            re.compile(pattern)
        except re.error as error:
            raise InputError(f"{pattern!r} is not a regular expression: {error}", f"{where}.freeze") from error
    return (*((pattern, FREEZE) for pattern in freeze), (".*", TRAIN))
