"""Describes methods as text: the list of ``salmu methods``, and the page of ``salmu methods NAME``."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Sequence

from salmu_jax.unlearning import registry
from salmu_jax.unlearning.hyper import BUDGETS, Hyper
from salmu_jax.unlearning.method import Method
from salmu_jax.unlearning.options import describe_options
from salmu_jax.unlearning.stream_batches import step_sizes

_INDENT = "  "


def list_methods() -> str:
    """Returns one line per method: its name, and what it does."""
    return "\n".join(_columns([(name, summary(method)) for name, method in registry.METHODS.items()], indent=""))


def summary(method: type[Method] | Method) -> str:
    """Returns the first line of the class's docstring."""
    text = inspect.getdoc(method if isinstance(method, type) else type(method)) or ""
    return text.partition("\n")[0]


def describe_method(name: str) -> str:
    """Returns the page of a method, one of the registry or ``FILE.py:CLASS``. Raises InputError if there is none."""
    method = registry.get(name)
    lines = [f"{method.name}: {method.title}", *_paragraph(summary(method)), ""]
    lines += ["Formula", *_paragraph(method.formula), ""] if method.formula else []
    lines += ["Streams", *(_streams(method) or [f"{_INDENT}none"]), ""]
    lines += [
        f"Options (unlearn.methods.{method.name}.options.NAME=VALUE)",
        *(_options(method) or [f"{_INDENT}none"]),
        "",
    ]
    lines += [f"Settings (unlearn.methods.{method.name}.NAME=VALUE)", *_settings(method.defaults), ""]
    for preset, hyper in method.presets.items():
        different = "; ".join(_changes(method.defaults, hyper)) or "the defaults"
        lines += [f"Preset {preset!r} (unlearn.methods.{method.name}.preset={preset})", f"{_INDENT}{different}", ""]
    if method.takes_steps():
        lines += [
            f"Budgets (unlearn.methods.{method.name}.budget=NAME), with any preset, instead of epochs",
            *_columns([(name, f"epochs {_written(passes)}") for name, passes in BUDGETS.items()]),
            "",
        ]
    return "\n".join([*lines, "Reference", *_paragraph(method.reference)])


def _streams(method: Method) -> list[str]:
    streams = method.make_streams()
    sizes = step_sizes(streams, method.defaults.batch_size)
    return _columns(
        [
            (name, stream.describe(), "for prepare alone" if stream.prepare_only else f"{sizes[name]:,} a step")
            for name, stream in streams.items()
        ]
    )


def _options(method: Method) -> list[str]:
    rows = []
    for name, kind, default, allowed, text in describe_options(method):
        rows.append((name, f"{kind}, {allowed}" if allowed else kind, f"{default!r}", text))
    return _columns(rows)


def _settings(hyper: Hyper) -> list[str]:
    shown = [(field.name, _written(getattr(hyper, field.name))) for field in dataclasses.fields(Hyper)]
    return _columns([(name, value) for name, value in shown if name not in ("total_steps", "options")])


def _changes(old: Hyper, new: Hyper) -> list[str]:
    fields = [field.name for field in dataclasses.fields(Hyper) if field.name != "total_steps"]
    return [f"{name} {_written(getattr(new, name))}" for name in fields if getattr(new, name) != getattr(old, name)]


def _written(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _paragraph(text: str) -> list[str]:
    return [f"{_INDENT}{line}".rstrip() for line in inspect.cleandoc(text).splitlines()]


def _columns(rows: Sequence[Iterable[str]], indent: str = _INDENT) -> list[str]:
    """Returns the rows with their columns aligned, two blanks apart."""
    table = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)
    return [f"{indent}{line}".rstrip() for line in lines]
