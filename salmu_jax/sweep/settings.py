"""Reads what a sweep searches, ``config.sweep.methods``, and lists the settings to try: a grid, or random draws.

    config.sweep.methods = {
        "delete": {
            "learning_rate": [1e-4, 3e-4],                                     a list: these values
            "options": {"weight": {"low": 0.1, "high": 10.0, "scale": "log"}},  a range, for a random search
            "batch_size": 64,                                                  anything else: this value
        },
        "mine": {"method": "my_method.py:MyMethod", "preset": ["published", "code"]},
    }

A draw depends on the sweep's seed, the method, the field and its number alone: a further field changes none of the others.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from salmu_jax import config as config_lib
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import did_you_mean
from salmu_jax.runtime.text import safe_text
from salmu_jax.unlearning.runs import Run, read_method

GRID, RANDOM = "grid", "random"
OWN = "own"  # the budget of a method that is told no other: the epochs of its defaults or preset
METHODS = "sweep.methods"

_PURPOSE = 0x7121A15  # keeps these draws apart from all others of the same seed
_SCALES = ("linear", "log")
_OF_RANGE = ("low", "high", "scale")
_ELSEWHERE = {
    "epochs": "sweep.budgets says how long every method runs",
    "budget": "sweep.budgets says how long every method runs",
    "seed": "sweep.seeds says how many there are",
    "parent": "every trial starts from compromised",
    "forget": "the validation world says what is to be forgotten",
    "retain": "unlearn.retain says what methods may read besides",
    "sweep": "a sweep does not start from another one",
}


class Range(NamedTuple):
    """Numbers between two bounds, whole ones if both bounds are."""

    low: float
    high: float
    log: bool

    def draw(self, rng: np.random.Generator) -> float:
        """Returns a number, uniform or log-uniform, of four significant digits, so that it can be written down."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            if not self.log:
                return int(rng.integers(self.low, self.high + 1))
            drawn = math.exp(rng.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5)))
            return min(max(round(drawn), self.low), self.high)
        if self.log:
            drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        else:
            drawn = float(rng.uniform(self.low, self.high))
        return min(max(float(f"{drawn:.4g}"), self.low), self.high)


class Search(NamedTuple):
    """What is searched of one method: fixed fields, lists of values, and ranges, by dotted field."""

    label: str
    method: str
    fixed: Mapping[str, Any]
    lists: Mapping[str, Sequence[Any]]
    ranges: Mapping[str, Range]

    @property
    def where(self) -> str:
        return f"{METHODS}.{self.label}"


@dataclasses.dataclass(frozen=True)
class Setting:
    """A method with its fields, as ``unlearn.runs`` has them; ``budget`` is empty for none of its own."""

    label: str
    method: str
    fields: Mapping[str, Any]
    budget: str

    @property
    def whole(self) -> dict[str, Any]:
        """The fields with the budget."""
        return {**self.fields, **({"budget": self.budget} if self.budget else {})}

    @property
    def key(self) -> str:
        """Eight digits of a digest of the method and its fields."""
        return files.sha256_json([self.method, self.whole])[:8]

    def run(self, seed: int, retain: Sequence[str]) -> Run:
        """Returns the trial with a seed. Its name follows from what it does, so another grid finds it again."""
        name = f"{self.label[:40]}-{self.key}-s{seed}"
        return Run(name, self.method, self.whole, seed, retain=tuple(retain), where=f"{METHODS}.{self.label}")


def read_searches(config: Any) -> list[Search]:
    """Returns what ``sweep.methods`` says, in its order.

    Raises InputError, naming the field, for nothing to search, an empty list, a range that is none, a range in a grid, and
    fields that are not a method's. Whether the method has the others is checked where its code is loaded.
    """
    methods = config_lib.to_json(config.sweep.methods)
    if not methods:
        raise InputError(
            "is empty; name methods to search, such as sweep.methods.delete.learning_rate=[1e-4,3e-4]", METHODS
        )
    searches = [_read(label, fields, config.sweep.search) for label, fields in methods.items()]
    if config.sweep.search == RANDOM and not config.sweep.trials:
        raise InputError("is 0; say how many settings of each method a random search draws", "sweep.trials")
    if config.sweep.search == GRID and config.sweep.trials:
        raise InputError("is for a random search; a grid has as many settings as its lists give", "sweep.trials")
    return searches


def settings_of(search: Search, budgets: Sequence[str], *, draws: int = 0, seed: int = 0) -> list[Setting]:
    """Returns the settings to try of one method, budget by budget; equal ones once.

    Args:
      budgets: for each of which all settings are tried; none for a method that takes no steps.
      draws: how many settings a random search draws; 0: the grid of all lists.
      seed: of the draws.
    """
    names = sorted({*search.lists, *search.ranges})
    if draws:
        points = [{name: _drawn(search, name, number, seed) for name in names} for number in range(draws)]
    else:
        points = [dict(zip(names, one, strict=True)) for one in itertools.product(*(search.lists[n] for n in names))]
    found: dict[str, Setting] = {}
    for budget in budgets or ("",):
        for point in points:
            fields = _nested({**search.fixed, **point})
            setting = Setting(search.label, search.method, fields, "" if budget == OWN else budget)
            found.setdefault(setting.key, setting)
    return list(found.values())


def describe_fields(fields: Mapping[str, Any]) -> str:
    """Returns ``learning_rate=0.0003 options.weight=2``."""
    options = {f"options.{name}": value for name, value in fields.get("options", {}).items()}
    flat = {**{name: value for name, value in fields.items() if name != "options"}, **options}
    return " ".join(f"{name}={value}" for name, value in flat.items()) or "defaults"


def _drawn(search: Search, name: str, number: int, seed: int) -> Any:
    words = [*search.label.encode(), 0, *name.encode(), 0, number]
    rng = np.random.default_rng([seed, _PURPOSE, *words])
    if name in search.ranges:
        return search.ranges[name].draw(rng)
    values = search.lists[name]
    return values[int(rng.integers(len(values)))]


def _read(label: str, fields: Any, kind: str) -> Search:
    where = f"{METHODS}.{label}"
    if not re.fullmatch(r"[A-Za-z0-9][\w-]{0,63}", label, re.ASCII):
        allowed = "64 letters, digits, '_' and '-' at most can, a letter or a digit first"
        raise InputError(f"{safe_text(label, 80)!r} cannot name a search; {allowed}", METHODS)
    rest = {name: value for name, value in fields.items() if name != "method"}
    for name in rest:
        if name in _ELSEWHERE:
            raise InputError(f"is not searched here; {_ELSEWHERE[name]}", f"{where}.{name}")
    options = rest.pop("options", {})
    if not isinstance(options, Mapping) or _OF_RANGE[0] in options:
        raise InputError(f"is {options!r}, but has to be a group of the method's options", f"{where}.options")
    flat = {**rest, **{f"options.{name}": value for name, value in options.items()}}
    ranges = {
        name: _range(value, name, f"{where}.{name}") for name, value in flat.items() if isinstance(value, Mapping)
    }
    lists = {name: value for name, value in flat.items() if isinstance(value, list)}
    if kind == GRID and ranges:
        message = "is a range, which a random search draws from; list values here, or set sweep.search=random"
        raise InputError(message, f"{where}.{next(iter(ranges))}")
    for name, values in lists.items():
        if not values:
            raise InputError("is an empty list, so there is nothing to try; list values", f"{where}.{name}")
    fixed = {name: value for name, value in flat.items() if name not in {*ranges, *lists}}
    return Search(label, read_method(fields.get("method", label), f"{where}.method"), fixed, lists, ranges)


def _range(value: Mapping[str, Any], field: str, where: str) -> Range:
    for name in value:
        if name not in _OF_RANGE:
            hint = did_you_mean(str(name), _OF_RANGE) or f"a range has {', '.join(_OF_RANGE)}"
            raise InputError(f"no {name!r} in a range; {hint}", where)
    low, high = (_bound(value.get(name), f"{where}.{name}") for name in ("low", "high"))
    scale = value.get("scale", "log" if field == "learning_rate" else "linear")
    if scale not in _SCALES:
        raise InputError(f"is {scale!r}; {' and '.join(map(repr, _SCALES))} are possible", f"{where}.scale")
    if low > high:
        raise InputError(f"is {low!r}, above {where}.high, {high!r}", f"{where}.low")
    if scale == "log" and low <= 0:
        raise InputError(f"is {low!r}; a logarithmic scale begins above 0", f"{where}.low")
    return Range(low, high, scale == "log")


def _bound(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"is {value!r}, but has to be a finite number", where)
    return value


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns fields with the group ``options``, in a fixed order."""
    options = {name.partition(".")[2]: flat[name] for name in sorted(flat) if name.startswith("options.")}
    fields = {name: flat[name] for name in sorted(flat) if not name.startswith("options.")}
    return {**fields, **({"options": options} if options else {})}
