"""Reads and checks config files. The fields are declared in ``config_fields.py``.

A config file is Python with a ``get_config()`` that calls :func:`base_config`, changes fields and returns the config
(ml_collections). The command line overrides fields, ``--config.train.epochs=3``. An unknown field or a wrong type is refused
in one line.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import math
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from salmu_jax.config_fields import Field, Names, declared
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.limits import Limits
from salmu_jax.runtime.messages import did_you_mean
from salmu_jax.runtime.nested import flatten
from salmu_jax.runtime.paths import local_path
from salmu_jax.runtime.text import safe_text

_DECLARED = declared()
_FIELDS = {name: field for name, field in _DECLARED.items() if isinstance(field, Field)}
# Groups whose members users name: unlearn.methods and unlearn.runs.
_GROUPS = {name: group for name, group in _DECLARED.items() if isinstance(group, Names)}

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", tuple: "a tuple"}


def base_config() -> ConfigDict:
    """Returns all fields with their defaults: the benchmark as published, as far as this is public."""
    config = ConfigDict()
    for name, field in _DECLARED.items():
        node = config
        *parents, leaf = name.split(".")
        for parent in parents:
            if parent not in node:
                node[parent] = ConfigDict()
            node = node[parent]
        node[leaf] = field.default if isinstance(field, Field) else ConfigDict()
    config.lock()
    for name in _GROUPS:
        node = config
        for part in name.split("."):
            node = node[part]
        node.unlock()
    return config


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> ConfigDict:
    """Reads a config file, applies overrides ``"train.epochs=3"``, and checks it.

    An override with a group of fields, ``"unlearn.methods={}"``, replaces the whole group.

    Raises InputError for a missing file, a file that fails, an unknown field, a wrong type or a value out of range, naming
    it.
    """
    path = local_path(path, "--config")
    if path.is_dir():
        raise InputError("is a directory; name a config in it, such as configs/mini.py", path)
    if path.exists() and not path.is_file():
        raise InputError("is not a regular file; a config file is needed, such as configs/mini.py", path)
    if not path.is_file():
        raise InputError("no such config file; configs/mini.py is the one to start from", path)
    try:
        with _as_a_script(path):
            namespace = runpy.run_path(str(path))
            get_config = namespace.get("get_config")
            if not callable(get_config):
                raise InputError("it has no function get_config() that returns the config", path)
            _check_takes_nothing(get_config, path)
            config = get_config()
        values = flatten(config.to_dict()) if isinstance(config, ConfigDict) else {}
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # the file is a user's program: anything can go wrong in it
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = lines[-1] if lines else getattr(error, "lineno", "?")
        raise InputError(f"{type(error).__name__}: {str(error).strip(chr(34))}", f"{path} line {line}") from error
    if not isinstance(config, ConfigDict):
        raise InputError(f"get_config() returned a {type(config).__name__}, not an ml_collections ConfigDict", path)
    schema = {field: value for field, value in flatten(base_config().to_dict()).items() if field not in _GROUPS}
    values |= _check_fields(values, schema, str(path))
    for override in overrides:
        field, separator, text = override.partition("=")
        where = safe_text(f"--config.{override}")
        if not separator:
            raise InputError("an override is --config.FIELD=VALUE", where)
        if not all(field.split(".")):
            raise InputError("names no field; an override is --config.FIELD=VALUE", where)
        value = _parse(text, schema.get(field))
        fields = flatten({field: value})
        fields |= _check_fields(fields, schema, where)
        values = {name: kept for name, kept in values.items() if not _nested(name, field)} | fields
    return _build({**schema, **values})


def section(config: ConfigDict, *names: str) -> dict[str, Any]:
    """Returns some top-level fields as plain JSON values."""
    return {name: _plain(config[name]) for name in names}


def identity_section(config: ConfigDict, *names: str) -> dict[str, Any]:
    """Returns :func:`section` without the fields that change only how something is computed: a run's identity."""
    parts = section(config, *names)
    for name, field in _FIELDS.items():
        group, _, inner = name.partition(".")
        if field.how and group in parts:
            parts[group].pop(inner) if inner else parts.pop(group)
    return {name: part for name, part in parts.items() if part != {}}


def to_json(config: ConfigDict) -> dict[str, Any]:
    """Returns the whole config as plain JSON values."""
    return _plain(config)


def from_json(values: Mapping[str, Any]) -> ConfigDict:
    """Returns the config that :func:`to_json` was called with, for another process of a run."""
    return _build(flatten(values))


def _plain(value: Any) -> Any:
    if isinstance(value, ConfigDict | Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _nested(one: str, other: str) -> bool:
    """Returns whether one field is the other or contains it, either way round."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


@contextlib.contextmanager
def _as_a_script(path: Path) -> Iterator[None]:
    """Runs the block as ``python FILE`` would: a config may import modules beside it. What it prints goes to stderr.

    These modules are unloaded afterwards, so that a config elsewhere may import others of the same names.
    """
    beside = str(path.resolve().parent)
    modules, arguments = set(sys.modules), sys.argv
    sys.path.insert(0, beside)
    sys.argv = [str(path)]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.argv = arguments
        with contextlib.suppress(ValueError):
            sys.path.remove(beside)
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).parent == Path(beside) and not name.startswith("configs"):
                del sys.modules[name]


def _check_takes_nothing(get_config: Callable[..., Any], path: Path) -> None:
    try:
        inspect.signature(get_config).bind()
    except TypeError as error:
        raise InputError(f"get_config() has to take no arguments ({error})", path) from None
    except ValueError:  # a callable without a signature
        pass


def _check_fields(values: Mapping[str, Any], schema: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Checks fields, and returns new values for some (paths are expanded). Raises InputError."""
    replaced = {}
    for field, value in values.items():
        if group := next((name for name in _GROUPS if f"{field}.".startswith(f"{name}.")), None):
            if field.count(".") <= group.count(".") + 1 and not isinstance(value, Mapping):
                one = field if field != group else f"{group}.NAME"
                message = f"field {field!r} is {value!r}, but has to be a group of fields, such as {one}.epochs=3"
                raise InputError(message, where)
            continue  # runs and methods check their own fields
        if field not in schema:
            raise InputError(_unknown(field, schema), where)
        _check_type(field, value, schema[field], where)
        known = _FIELDS[field]
        if isinstance(value, tuple | list) and not known.choices:
            _check_numbers(field, value, where)
        elif known.limits is not None and not known.limits.allow(value):
            raise InputError(f"field {field!r} is {value!r}, but has to be {known.limits}", where)
        if known.choices:
            _check_choices(field, value, where)
        if known.path is not None and (value or known.default):
            try:
                replaced[field] = str(known.path(value, f"field {field!r}"))
            except InputError as error:
                raise InputError(str(error), where) from None
        elif isinstance(value, str) and value != safe_text(value, limit=None):
            raise InputError(f"field {field!r} is {value!r}; control characters and half characters are no text", where)
    return replaced


def _unknown(field: str, schema: Mapping[str, Any]) -> str:
    """Says what is wrong with the name of a field, and which one may have been meant."""
    known = (*schema, *(f"{name}.{group.example}" for name, group in _GROUPS.items()))
    inside = [name.removeprefix(f"{field}.") for name in known if name.startswith(f"{field}.")]
    if inside:
        return f"{field!r} is a group of fields; set one of them with --config.{field}.FIELD=VALUE: {', '.join(inside)}"
    around = next((name for name in schema if field.startswith(f"{name}.")), None)
    if around is not None:
        kind = _KINDS[type(schema[around])]
        return f"{around!r} is a field ({kind}), not a group of fields; set it with --config.{around}=VALUE"
    hint = did_you_mean(field, known)
    return f"no field {field!r} in the config" + (f"; {hint}" if hint else "")


def _check_type(field: str, value: Any, default: Any, where: str) -> None:
    right = type(default)
    fits = isinstance(value, right) and isinstance(value, bool) == isinstance(default, bool)
    fits = fits or (right is float and type(value) is int) or (right is tuple and isinstance(value, list))
    if not fits:
        how = f", written {_written(_FIELDS[field].choices or default)}" if right is tuple else ""
        raise InputError(
            f"field {field!r} is {value!r} ({type(value).__name__}), but has to be {_KINDS[right]}{how}", where
        )
    if right is float and not abs(value) <= sys.float_info.max:  # NaN is not, nor a whole number of 400 digits
        raise InputError(f"field {field!r} is {value!r}, but has to be a finite number", where)


def _check_numbers(field: str, value: Sequence[Any], where: str) -> None:
    """Checks a tuple of numbers: as many as in the default, within the limits, in increasing order."""
    default, limits = _FIELDS[field].default, _FIELDS[field].limits or Limits(-math.inf)
    right = len(value) == len(default) and all(type(one) in (int, float) for one in value)
    right = right and all(limits.allow(one) and math.isfinite(one) for one in value)
    if not right or sorted(set(value)) != list(value):
        wanted = f'{len(default)} increasing numbers, each {limits}, such as "{default!r}"'
        raise InputError(f"field {field!r} is {value!r}, but has to be {wanted}", where)


def _check_choices(field: str, value: Any, where: str) -> None:
    """Checks a text that is one of a few, or a tuple of such texts."""
    choices, may_be_empty = _FIELDS[field].choices, _FIELDS[field].empty
    if isinstance(value, str):
        if value not in choices:
            raise InputError(f"field {field!r} is {value!r}; {' and '.join(map(repr, choices))} are possible", where)
        return
    wrong = [item for item in value if not isinstance(item, str) or item not in choices]
    if wrong or (not value and not may_be_empty) or len(set(value)) < len(value):
        problem = f"holds {wrong[0]!r}" if wrong else "is empty" if not value else f"is {value!r}, with a name twice"
        possible = " and ".join(map(repr, choices))
        raise InputError(f"field {field!r} {problem}; {possible} are possible, written {_written(choices)}", where)


def _written(choices: Sequence[str]) -> str:
    """Returns how to write a tuple, in full and with a single element."""
    return f'"{tuple(choices)!r}", or "({choices[0]!r},)" with its comma for one alone'


def _parse(text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # all that literal_eval may raise
        return text


def _build(values: Mapping[str, Any]) -> ConfigDict:
    config = base_config()
    with config.unlocked():
        for field, value in values.items():
            node = config
            *parents, leaf = field.split(".")
            for parent in parents:
                if parent not in node:
                    node[parent] = ConfigDict()
                node = node[parent]
            if isinstance(value, Mapping):  # an empty one: a method that runs with its defaults
                node[leaf] = node[leaf] if leaf in node else ConfigDict()
            else:
                # ml_collections makes a float of an int, and a tuple of a list, where the default is one.
                node[leaf] = value
    return config
