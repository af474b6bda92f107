"""Checks the configs beside weights: each field is read, must have a given value, or has no effect; others are refused.

A config with an unknown field may describe another model, so every field must be on one of these lists. All problems are
reported at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salmu_jax.models.clip import ClipConfig, TowerConfig
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import listed

MAX_IMAGE_SIZE = 1 << 12
# Far above any existing CLIP; larger values are damage or an attack.
_LIMITS = {
    "embed_dim": 1 << 14,
    "image_size": MAX_IMAGE_SIZE,
    "patch_size": 1 << 10,
    "width": 1 << 14,
    "layers": 128,
    "heads": 1 << 10,
    "context_length": 1 << 13,
    "vocab_size": 1 << 21,
    "mlp": 1 << 17,
}
_TOLERANCE = 1e-6  # for numbers that were written with fewer digits


class Fields:
    """Reads the fields of a JSON object, and collects their problems in ``problems``.

    ``name`` is the object's position in the file. A null field counts as absent, as in the libraries.
    """

    def __init__(self, values: Any, name: str, problems: list[str]):
        self.name, self.problems = name, problems
        if not isinstance(values, Mapping):
            problems.append(f"{name or 'it'} is {_typed(values)}, not an object")
            values = {}
        self._values = {key: value for key, value in values.items() if value is not None}
        self._read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        """Returns the value of a field, which the caller checks."""
        self._read.add(key)
        return self._values.get(key, default)

    def integer(self, key: str, default: int | None, limit: str) -> int:
        """Returns a positive integer of at most the named limit, 1 if it is wrong; a pair of equal numbers counts as one."""
        value = self.get(key, default)
        pair = value if isinstance(value, list) and len(value) == 2 else ()
        if pair and type(pair[0]) is int and pair[0] == pair[1]:
            value = pair[0]
        if type(value) is not int or value < 1:
            self.problems.append(f"{self._called(key)} is {_typed(value)}, not a positive integer")
            return 1
        if value > _LIMITS[limit]:
            self.problems.append(f"{self._called(key)} is {_short(value)}; at most {_LIMITS[limit]:,} is read")
            return 1
        return value

    def number(self, key: str, default: float) -> float:
        """Returns a finite positive number, or 1 if it is wrong."""
        value = self.get(key, default)
        if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
            self.problems.append(f"{self._called(key)} is {_typed(value)}, not a positive number")
            return 1.0
        return float(value)

    def flag(self, key: str) -> bool:
        """Returns true or false, the default."""
        value = self.get(key, False)
        if type(value) is not bool:
            self.problems.append(f"{self._called(key)} is {_typed(value)}, not true or false")
        return value is True

    def only(self, expected: Mapping[str, Any]) -> None:
        """Checks fields that, where present, must have one value, or one of a tuple."""
        for key, right in expected.items():
            value = self.get(key)
            choices = right if isinstance(right, tuple) else (right,)
            if value is not None and not any(_same(value, choice) for choice in choices):
                self.problems.append(f"{self._called(key)} is {_short(value)}, not {choices[0]}")

    def without_effect(self, keys: Sequence[str] | frozenset[str]) -> None:
        """Accepts fields with any value."""
        self._read.update(keys)

    def refuse_rest(self) -> None:
        """Adds a problem for each other field."""
        for key in self._values.keys() - self._read:
            value = self._values[key]
            self.problems.append(f"{self._called(key)[:80]} is {_short(value)}, a field that is unknown here")

    def _called(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key


def raise_problems(problems: Sequence[str], what: str, where: str) -> None:
    """Raises InputError with all of ``problems``, if there are any."""
    if problems:
        raise InputError(f"{what}: {listed(sorted(problems), separator='; ')}", where)


def divide(width: int, by: int, name: str, parts: str, problems: list[str]) -> None:
    """Adds a problem if a width does not divide into its heads; one that is wrong itself has been complained of."""
    if width % by and not any(problem.startswith(f"{name} is ") for problem in problems):
        problems.append(f"{name} is {width}, which cannot be cut into {parts}")


def clip_of(fields: Mapping[str, Any], towers: Mapping[str, tuple[int, int, int, float]], where: str) -> ClipConfig:
    """Builds the architecture from checked fields; a tower is (width, layers, heads, MLP ratio). Raises InputError."""
    problems = []
    for name, (width, _, _, ratio) in towers.items():
        if not 1 <= width * ratio <= _LIMITS["mlp"]:
            problems.append(f"the {name} tower's MLP has {width * ratio:.3g} features, not 1 to {_LIMITS['mlp']:,}")
    size, patch = fields["image_size"], fields["patch_size"]
    if size % patch:
        problems.append(f"image_size {size} is not a multiple of patch_size {patch}")
    raise_problems(problems, "not a model that is computed here", where)
    return ClipConfig(**fields, **{name: TowerConfig(*tower) for name, tower in towers.items()})


def read_object(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file. Raises InputError if it holds none."""
    value = files.read_json(path)
    if not isinstance(value, dict):
        raise InputError("not a JSON object", path)
    return value


def _same(value: Any, expected: Any) -> bool:
    """Returns whether two values are equal; numbers, and those in lists, up to rounding."""
    if isinstance(expected, list) and isinstance(value, list):
        return len(value) == len(expected) and all(map(_same, value, expected))
    if isinstance(expected, bool) or isinstance(value, bool):
        return value is expected
    if isinstance(expected, int | float) and isinstance(value, int | float):
        return math.isclose(value, expected, rel_tol=0, abs_tol=_TOLERANCE)
    return value == expected


def _typed(value: Any) -> str:
    """Returns a value whose type is wrong: a text in quotes, since it may look like a number."""
    return _short(repr(value[:200]) if isinstance(value, str) else value)


def _short(value: Any) -> str:
    text = str(value)[:200]
    return text if len(text) <= 60 else f"{text[:60]}..."
