"""Reads runs from a config: what is unlearned from which model, by which method, with which seed.

    config.unlearn.methods = {"delete": {"epochs": 3}}          shorthand: one run per method, named like it
    config.unlearn.runs = {
        "delete-s1": {"method": "delete", "seed": 1, "epochs": 3},
        "relearned": {"method": "relearn", "parent": "delete-s1", "forget": {"share": 0.1, "by": "identities"}},
        "mine": {"method": "my_method.py:MyMethod"},
        "selected": {"method": "delete", "sweep": "runs/mini/sweep/sweep"},
    }

Besides ``method``, ``seed``, ``parent``, ``forget`` and ``retain``, a run has the fields of its method: those of ``Hyper``,
``epochs``, ``freeze`` and ``options``; or it names the sweep that has chosen them. A run's name is also that of its model,
checkpoints, result and logs.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from salmu_jax import config as config_lib
from salmu_jax import foundation
from salmu_jax.foundation import COMPROMISED
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import did_you_mean, listed
from salmu_jax.runtime.paths import local_path
from salmu_jax.runtime.text import safe_text
from salmu_jax.unlearning.selected import read_chosen
from salmu_jax.unlearning.selectors import Selector
from salmu_jax.unlearning.view import PERMITTED_RETAIN

METHODS, RUNS = "unlearn.methods", "unlearn.runs"

_SEEDS = 2**32
OWN = ("method", "seed", "parent", "forget", "retain", "sweep")  # the fields of the run itself, not of its method
_OF_SWEEP = ("sweep", "selected")  # attributes that only runs of a sweep's choice have


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of a method.

    Attributes:
      name: the name of the run, its model and its result.
      method: a name in the registry, or ``FILE.py:CLASS``, a class in a user's file.
      fields: the method's fields: those of ``Hyper``, ``epochs``, ``freeze`` and ``options``.
      seed: determines everything that the run draws.
      parent: the model that it starts from.
      forget: which rows of forget it unlearns.
      retain: the further splits that it may read, if they were built.
      where: the config field that it comes from, for messages.
      sweep: the directory of the sweep that chose ``fields``; empty: they are the config's.
      selected: what is recorded of that sweep (name, digest, number of trials); None: there is none, or it is not there yet.
    """

    name: str
    method: str
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 42
    parent: str = COMPROMISED
    forget: Selector = dataclasses.field(default_factory=Selector)
    retain: tuple[str, ...] = PERMITTED_RETAIN[:1]
    where: str = RUNS
    sweep: str = ""
    selected: Mapping[str, Any] | None = None

    @property
    def file(self) -> Path | None:
        """The user's file that holds the method; None for a method of the registry."""
        return Path(self.method.rpartition(":")[0]) if _is_file(self.method) else None

    @property
    def method_name(self) -> str:
        """The method without the directory of its file: ``delete``, or ``my_method.py:MyMethod``."""
        return f"{self.file.name}:{self.class_name}" if self.file else self.method

    @property
    def class_name(self) -> str:
        """The name of the class in :attr:`file`."""
        return self.method.rpartition(":")[2]

    @property
    def command(self) -> str:
        """The command that makes the run's model."""
        if self.name == self.method or self.where == "--method":
            return f"salmu unlearn --method {self.method}"
        return f"salmu unlearn --run {self.name}"

    def to_json(self) -> dict[str, Any]:
        """Returns everything that the run was asked to do, as JSON values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if not self.sweep:
            values = {name: value for name, value in values.items() if name not in _OF_SWEEP}
        return values | {"fields": dict(self.fields), "forget": self.forget.to_json(), "retain": list(self.retain)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Run:
        """Returns the run that :meth:`to_json` was called on. Raises InputError or TypeError for anything else."""
        read = {"forget": Selector.read(values["forget"], "forget"), "retain": tuple(values["retain"])}
        return cls(**{**values, **read})


def read_runs(config: Any, methods: Sequence[str] = ()) -> dict[str, Run]:
    """Returns the runs of a config by name: those of ``unlearn.methods``, then those of ``unlearn.runs``, each sorted.

    Args:
      config: the whole config.
      methods: further methods to run (``--method``), with the fields that ``unlearn.methods`` has for them. The run of
        ``FILE.py:CLASS`` is named like the file.

    Raises InputError for an invalid name, two runs with the same name, and invalid fields of a run; the
    fields of methods are checked where their code is loaded.
    """
    runs: dict[str, Run] = {}
    given = dict(map(_given, methods))
    for name, fields in config_lib.to_json(config.unlearn.methods).items():
        _add(runs, _read(config, name, {"method": given.pop(name, name), **fields}, f"{METHODS}.{name}"))
    for name, fields in config_lib.to_json(config.unlearn.runs).items():
        run = _read(config, name, fields, f"{RUNS}.{name}")
        if run.method != given.pop(name, run.method):
            raise InputError(f"is {run.method_name!r}, and not the method of --method", f"{run.where}.method")
        _add(runs, run)
    for name, method in given.items():
        _add(runs, _read(config, name, {"method": method}, "--method"))
    return runs


def names_of(methods: Sequence[str]) -> list[str]:
    """Returns the names of the runs of the methods given by ``--method``."""
    return [_given(method)[0] for method in methods]


def with_parents(runs: Mapping[str, Run], names: Iterable[str]) -> list[Run]:
    """Returns the runs ``names`` and the runs that they start from, parents first.

    Raises InputError for a cycle of parents.
    """
    ordered: dict[str, Run] = {}
    for name in names:
        line: list[str] = []
        while name in runs and name not in ordered:
            if name in line:
                circle = " -> ".join([*line[line.index(name) :], name])
                raise InputError(f"the parents of runs go round in a circle: {circle}", f"{runs[name].where}.parent")
            line.append(name)
            name = runs[name].parent
        ordered |= {one: runs[one] for one in reversed(line)}
    return list(ordered.values())


def run_named(runs: Mapping[str, Run], name: str) -> Run:
    """Returns a run of the config. Raises InputError for an unknown one, listing the known ones."""
    if name in runs:
        return runs[name]
    hint = did_you_mean(name, runs)
    there = f"there are: {listed(runs)}" if runs else f"it has none; write them in {RUNS}"
    raise InputError(f"the config has no run {safe_text(name, 80)!r}; {hint + ' ' if hint else ''}{there}", "--run")


def _given(method: str) -> tuple[str, str]:
    """Returns the name of the run of a method given as ``--method``, and the method."""
    if not _is_file(method):
        return method, method
    path = _user_file(method, "--method")
    return Path(path.rpartition(":")[0]).stem, path


def _add(runs: dict[str, Run], run: Run) -> None:
    for other in runs.values():
        if other.name.lower() == run.name.lower():
            raise InputError(f"and {other.where} would be two runs of one name; rename one", run.where)
    runs[run.name] = run


def _read(config: Any, name: str, fields: Mapping[str, Any], where: str) -> Run:
    if not re.fullmatch(r"[A-Za-z0-9][\w-]{0,63}", name, re.ASCII):
        allowed = "64 letters, digits, '_' and '-' at most can, a letter or a digit first"
        raise InputError(f"{safe_text(name, 80)!r} cannot name a run; {allowed}", where)
    if name.lower() in foundation.NAMES:
        raise InputError(f"{name!r} is the name of a foundation model; take another for a run", where)
    method = read_method(fields.get("method"), f"{where}.method")
    own, selected = _fields(name, method, fields, where)
    parent = fields.get("parent", COMPROMISED)
    if not isinstance(parent, str) or not parent:
        raise InputError(f"is {parent!r}; the name of a model is needed, such as compromised", f"{where}.parent")
    seed = fields.get("seed", config.unlearn.seed)
    if type(seed) is not int or not 0 <= seed < _SEEDS:
        raise InputError(f"is {seed!r}, but has to be a whole number from 0 to {_SEEDS - 1:,}", f"{where}.seed")
    return Run(
        name,
        method,
        own,
        seed,
        parent,
        Selector.read(fields.get("forget", {}), f"{where}.forget"),
        _retain(fields.get("retain", list(config.unlearn.retain)), f"{where}.retain"),
        where,
        fields.get("sweep", ""),
        selected,
    )


def read_method(method: Any, where: str) -> str:
    """Returns a method, a user's file with an absolute path. Raises InputError for anything but a text."""
    if not isinstance(method, str) or not method:
        wrong = "is missing" if method is None else f"is {method!r}"
        raise InputError(f"{wrong}; the name of a method is needed, or FILE.py:CLASS", where)
    return _user_file(method, where) if _is_file(method) else method


def _fields(
    name: str, method: str, fields: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
    """Returns the fields of a run's method, and what is recorded of the sweep that chose them, if one did."""
    own = {key: value for key, value in fields.items() if key not in OWN}
    if "sweep" not in fields:
        return own, None
    if own:
        message = f"is for the sweep to choose; take out {where}.{next(iter(own))}, or {where}.sweep"
        raise InputError(message, f"{where}.{next(iter(own))}")
    return read_chosen(fields["sweep"], name, method, f"{where}.sweep") or ({}, None)


def _retain(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise InputError(f"is {value!r}, but has to be a list of {' and '.join(PERMITTED_RETAIN)}, or of one", where)
    for split in value:
        if split not in PERMITTED_RETAIN:
            possible = " and ".join(map(repr, PERMITTED_RETAIN))
            raise InputError(f"holds {split!r}; {possible} are possible, and no other split is permitted", where)
    return tuple(dict.fromkeys(value))


def _is_file(method: str) -> bool:
    """Returns whether a method is a class in a file: no name of the registry has a dot, a slash or a colon."""
    return any(mark in method for mark in "./:")


def _user_file(method: str, where: str) -> str:
    """Returns ``FILE.py:CLASS`` with an absolute path. The file is not opened here."""
    path, separator, name = method.rpartition(":")
    if not separator or not path.endswith(".py") or not name.isidentifier():
        raise InputError(f"is {method!r}; a method of your own is written FILE.py:CLASS", where)
    file = local_path(path, where)
    return f"{file.absolute()}:{name}"
