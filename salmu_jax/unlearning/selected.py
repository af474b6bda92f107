"""Reads and writes ``chosen.json``: the settings that a sweep has chosen, which a run may name instead of its fields.

    {"sweep": "runs/mini/sweep/mine"}        the run's fields are those chosen there, for its name or its method

The run's record then says which sweep chose them, by its digest, and among how many trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import listed
from salmu_jax.runtime.paths import local_path

SCHEMA = "salmu_jax.chosen/1"
FILE = "chosen.json"


def chosen_contents(sweep: Mapping[str, Any], methods: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the contents of ``chosen.json``.

    Args:
      sweep: ``name``, ``digest`` and ``trials`` of the sweep.
      methods: by label, the fields of a run, ``method`` among them.
    """
    held = {"schema": SCHEMA, "sweep": dict(sweep), "methods": {label: dict(one) for label, one in methods.items()}}
    return {**held, "digest": files.sha256_json(held)}


def read_chosen(path: Any, name: str, method: str, where: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Returns the fields that a sweep chose for a run, and what its record says of the sweep; None if it is not there yet.

    Args:
      path: the directory of the sweep.
      name: of the run: the label of the choice, if the sweep has it; else its method's only one counts.
      method: of the run.
      where: the config field that names the sweep, for messages.

    Raises InputError for something else than a path, a damaged file, and a method that the sweep did not search.
    """
    if not isinstance(path, str) or not path:
        raise InputError(f"is {path!r}; the directory of a sweep is needed, such as runs/mini/sweep/sweep", where)
    file = local_path(path, where) / FILE
    try:
        held = files.read_json(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", file) from error
    if not _is_whole(held):
        raise InputError("is not what 'salmu sweep' wrote; run it again", file)
    choices = held["methods"]
    labels = [name] if name in choices else [label for label, one in choices.items() if one["method"] == method]
    if len(labels) != 1:
        there = listed(f"{label} ({one['method']})" for label, one in choices.items())
        what = "no choice" if not labels else f"{len(labels)} choices"
        raise InputError(f"has {what} for the run {name!r} of {method!r}; it chose: {there or 'nothing'}", where)
    fields = dict(choices[labels[0]])
    if fields.pop("method") != method:
        raise InputError(f"chose for {choices[labels[0]]['method']!r}, and the run is of {method!r}", where)
    return fields, dict(held["sweep"])


def _is_whole(held: Any) -> bool:
    if not isinstance(held, dict) or held.get("schema") != SCHEMA:
        return False
    rest = {key: value for key, value in held.items() if key != "digest"}
    return files.sha256_json(rest) == held.get("digest")
