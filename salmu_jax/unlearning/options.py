"""Declares and checks the options of a method: its dataclass fields, with their type, range, choices and meaning.

    weight: float = option(1.0, help="weight of the retention term", low=0)

A plain field, ``weight: float = 1.0``, is an option too; it has a type and a default, and neither range nor help.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.limits import Limits
from salmu_jax.runtime.messages import did_you_mean

_KEY = "salmu_option"
M = TypeVar("M")


class Option(NamedTuple):
    """An option as users see it."""

    name: str
    kind: str  # float, int, bool, str, tuple, or of these with "or None"
    default: Any
    range: str  # such as "at least 0" or "a, b or c"; empty: any value of its type
    help: str


class _About(NamedTuple):
    help: str
    limits: Limits | None
    choices: tuple[Any, ...]


def option(
    default: Any,
    *,
    help: str,
    low: float | None = None,
    high: float | None = None,
    low_open: bool = False,
    high_open: bool = False,
    choices: Sequence[Any] = (),
) -> Any:
    """Makes a dataclass field that is an option of a method.

    Args:
      default: the published value.
      help: what the option means, in a few words.
      low, high: the range of a number; None for no bound.
      low_open, high_open: the bound itself is not in the range.
      choices: the possible values, if they are few.
    """
    limits = None
    if low is not None or high is not None:
        limits = Limits(-math.inf if low is None else low, math.inf if high is None else high, low_open, high_open)
    about = _About(help, limits, tuple(choices))
    return dataclasses.field(default=default, metadata={_KEY: about})


def describe_options(method: Any) -> list[Option]:
    """Returns the options of a method (a dataclass, or an instance of one), in the order of its fields."""
    kinds = _kinds(method)
    found = []
    for field in dataclasses.fields(method):
        about = field.metadata.get(_KEY, _About("", None, ()))
        found.append(Option(field.name, _written(kinds[field.name]), field.default, _range(about), about.help))
    return found


def with_options(method: M, options: Mapping[str, Any]) -> M:
    """Returns ``method`` with some of its options replaced; a list becomes a tuple where one is wanted.

    Raises InputError for an unknown option, a value of another type or out of range, and a number that is not finite.
    """
    fields = {field.name: field for field in dataclasses.fields(method)}  # type: ignore[arg-type]
    kinds, values = _kinds(method), {}
    for name, value in options.items():
        where = f"options.{name}"
        if name not in fields:
            known = f"its options are: {', '.join(fields)}" if fields else "it has none"
            owner = getattr(method, "name", type(method).__name__)
            raise InputError(f"{owner} has no option {name!r}; {did_you_mean(name, fields) or known}", where)
        if not _fits(value, kinds[name]):
            example = getattr(method, name)
            raise InputError(f"must be of type {_written(kinds[name])}, like {example!r}, not {value!r}", where)
        values[name] = tuple(value) if isinstance(value, list) else value
        _check_range(values[name], fields[name].metadata.get(_KEY, _About("", None, ())), where)
    return dataclasses.replace(method, **values)  # type: ignore[type-var]


def _check_range(value: Any, about: _About, where: str) -> None:
    items = value if isinstance(value, tuple) else (value,)
    for number in filter(_is_number, items):
        if not abs(number) <= sys.float_info.max:
            raise InputError(f"must be finite, not {value!r}", where)
        if about.limits is not None and not about.limits.allow(number):
            raise InputError(f"must be {about.limits}, not {value!r}", where)
    if about.choices and not set(items) <= {*about.choices, None}:
        raise InputError(f"must be {_range(about)}, not {value!r}", where)


def _kinds(method: Any) -> dict[str, Any]:
    """Returns the type of every option, by its annotation, or by its default where that names something unknown."""
    owner = method if isinstance(method, type) else type(method)
    return {field.name: _kind(owner, field) for field in dataclasses.fields(method)}


def _kind(owner: type, field: dataclasses.Field) -> Any:
    kind: Any = field.type
    if isinstance(
        kind, str
    ):  # of a module with postponed annotations; class variables may name what is not imported there
        base = next(base for base in owner.__mro__ if field.name in vars(base).get("__annotations__", {}))
        try:
            kind = eval(kind, vars(sys.modules[base.__module__]))
        except (NameError, TypeError, AttributeError, SyntaxError):
            kind = Any
    return type(field.default) if kind is Any else kind


def _fits(value: Any, kind: Any) -> bool:
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inside)
    if kind in (float, int):
        return _is_number(value) and (kind is float or isinstance(value, int))
    if tuple in (kind, origin):
        items = isinstance(value, list | tuple)
        return items and (not inside or all(_fits(item, inside[0]) for item in value))
    return type(value) is (origin or kind)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _written(kind: Any) -> str:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join("None" if one is types.NoneType else _written(one) for one in typing.get_args(kind))
    return getattr(typing.get_origin(kind) or kind, "__name__", str(kind))


def _range(about: _About) -> str:
    if about.choices:
        *first, last = map(repr, about.choices)
        return f"{', '.join(first)} or {last}" if first else last
    return str(about.limits) if about.limits is not None else ""
