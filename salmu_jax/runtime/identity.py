"""Computes the identity of an output: the values, the code and the contents of the inputs that it was made from.

An output is up to date if all three are unchanged since it was made:

* *values*: every field that the output depends on, with defaults resolved (all options of a method, not just overrides).
  Fields that change only how something is computed are left out (``config.identity_section``).
* *code*: the modules that the stage runs, found by following their imports, without comments, docstrings and layout.
  Modules that only orchestrate, store or print (:data:`_STEERING`) are left out: no output depends on them. A method's
  own module may read data files beside it: if its source contains ``__file__``, ``__path__``, ``importlib`` or ``pkgutil``,
  every file in its directory, and below it, that is not Python counts as code. Files elsewhere are not tracked.
* *inputs*: the digests of their contents (``contents.py``), not their paths or times.

The package's version is not part of the identity, since changed code is named file by file: a new version alone neither
invalidates an output nor interrupts a training. It is in the provenance. ``host.py`` fixes the environment variables that
figures depend on; those that it cannot fix are values.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from salmu_jax.runtime import files
from salmu_jax.runtime.nested import flatten

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("salmu_jax", "data_pipelines")


class _Sources(NamedTuple):
    """The modules whose imports are followed, and the modules at which to stop."""

    entries: tuple[str, ...]
    stop: tuple[str, ...] = ()


# Modules that orchestrate, store, print or watch. Names that end with '.' are packages.
_STEERING = (
    *("cli", "config", "config_fields", "chain", "stages", "stage_process", "data_stages", "unlearn_stage"),
    *("evaluate_stage", "sweep_workspace", "sweep_stage", "sweep_process", "forget_stage", "full_world"),
    *("commands.", "runtime.", "interop."),
    *(
        f"unlearning.{name}"
        for name in (
            "cells",
            "child",
            "isolation",
            "runs",
            "sandbox",
            "sandbox_entry",
            "selected",
            "selectors",
            "view",
            "watching",
        )
    ),
    *(f"training.{name}" for name in ("checkpoint", "chips", "flops", "history", "nonfinite", "observer", "profile")),
    *(f"training.{name}" for name in ("records", "state_store", "states", "stopping", "watch", "writers")),
)
# Data sets have a digest, so the code that built them does not count for what is made from them.
_BUILDING = ("data_pipelines.layout.", "data_pipelines.builders.base", "data_pipelines.builders.build")
_BUILDING += tuple(f"data_pipelines.builders.{name}" for name in ("salmu", "zeroshot"))
# The code of other methods does not count for a method.
_METHODS = ("salmu_jax.unlearning.methods.", "salmu_jax.unlearning.registry")
_TOKENIZER = ("salmu_jax.models.tokenizer", "salmu_jax.models.zoo")

_STAGES = {
    "generate": _Sources(("data_pipelines.world.generate",), ("data_pipelines.layout.check",)),
    "generate full": _Sources(("data_pipelines.full.generate",), ("data_pipelines.layout.check",)),
    "build": _Sources(("data_pipelines.builders.build",)),
    "pretrain": _Sources(("salmu_jax.training.pretrain", *_TOKENIZER), _BUILDING),
    "unlearn": _Sources(("salmu_jax.unlearning.loop", *_TOKENIZER), (*_BUILDING, *_METHODS)),
    "evaluate": _Sources(
        ("salmu_jax.evaluation.protocol", "salmu_jax.evaluation.loading", *_TOKENIZER), (*_BUILDING, *_METHODS)
    ),
    "validation data": _Sources(
        ("salmu_jax.sweep.division", "data_pipelines.builders.regroup"), ("data_pipelines.layout.",)
    ),
    "sweep": _Sources(("salmu_jax.sweep.record", "salmu_jax.sweep.rule"), ("salmu_jax.unlearning.",)),
    "report": _Sources(("salmu_jax.report.page", "salmu_jax.report.samples"), _BUILDING),
}
_DATA_FILES = {
    "salmu_jax.models.tokenizer": ("salmu_jax/models/data/bpe_simple_vocab_16e6.txt.gz",),
    "data_pipelines.phrasing.grammar": ("data_pipelines/phrasing/grammar.txt",),
    "data_pipelines.people.countries": ("data_pipelines/people/places.txt",),
    "salmu_jax.evaluation.rewording": ("salmu_jax/evaluation/probes/withheld/unseen_wordings.json",),
    "data_pipelines.layout.zeroshot": tuple(
        f"data_pipelines/layout/imagenet/{name}.txt" for name in ("classnames", "templates", "synsets")
    ),
    "salmu_jax.report.render": tuple(
        f"salmu_jax/report/templates/{path.name}"
        for path in sorted((ROOT / "salmu_jax/report/templates").glob("[!.]*"))
    ),
}


@dataclass(frozen=True)
class Identity:
    """The fields that identify an output, JSON values by name; ``code`` is ``{file: digest}``."""

    fields: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """One SHA-256 of all fields."""
        return files.sha256_json(self.fields)

    def changes(self, old: Mapping[str, Any]) -> list[str]:
        """Returns the differences from the fields ``old``, in words: ``train.epochs 3 -> 4``, ``code salmu_jax/x.py``."""
        return changes(old, self.fields)


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns the differences between two sets of fields, a few words each: values first, then code."""
    before, after = flatten(old), flatten(new)
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    filled = {name for name in names if {} in (before.get(name), after.get(name)) and _has_parts(name, names)}
    names = [name for name in names if name not in filled]  # its parts are listed one by one
    code = [name for name in names if name.startswith("code.")]
    values = [f"{name} {_short(before.get(name))} -> {_short(after.get(name))}" for name in names if name not in code]
    return [*values, *(f"code {name.removeprefix('code.')}" for name in code)]


def _has_parts(name: str, names: Sequence[str]) -> bool:
    return any(other.startswith(f"{name}.") for other in names)


def code(stage: str, *modules: str, files_of_users: Sequence[Path] = (), root: Path = ROOT) -> dict[str, str]:
    """Returns ``{file: digest}`` of the code that ``stage`` runs.

    Args:
      stage: a key of the table ``_STAGES``.
      modules: further modules that it runs (a method's), with what they import.
      files_of_users: files outside of the packages that it runs; they count by their names, with what they import of the
        packages. What else they import or read is not tracked.
      root: the directory that holds the packages.
    """
    entries, stop = _STAGES[stage]
    found = _closure(root, entries, stop)
    modules += tuple(name for path in files_of_users for name in _imports(path, path.stat().st_mtime_ns, ""))
    if modules:
        theirs = _closure(root, modules, (*_BUILDING, "salmu_jax.unlearning.registry"))
        beside = [path for name, path in theirs.items() if name not in found and _reads_beside(path)]
        found |= theirs
    else:
        beside = []
    digests = {path.relative_to(root).as_posix(): files.sha256_file(path) for path in _data_beside(beside)}
    for name, path in found.items():
        digests[path.relative_to(root).as_posix()] = _parsed(path, path.stat().st_mtime_ns).digest
        for data in _DATA_FILES.get(name, ()):
            digests[data] = files.sha256_file(root / data)
    digests |= {path.name: _parsed(path, path.stat().st_mtime_ns).digest for path in files_of_users}
    return dict(sorted(digests.items()))


def _closure(root: Path, entries: Sequence[str], stop: Sequence[str]) -> dict[str, Path]:
    """Returns the modules that ``entries`` import, directly or not, by name, except those of ``stop``."""
    stops = (*stop, *(f"salmu_jax.{name}" for name in _STEERING))
    packages = tuple(end for end in stops if end.endswith("."))
    found: dict[str, Path] = {}
    waiting, seen = list(entries), set(stops)
    while waiting:
        name = waiting.pop()
        if name in seen or name.partition(".")[0] not in _PACKAGES or f"{name}.".startswith(packages):
            continue
        seen.add(name)
        path = _module(root, name)
        if path is not None and not (path.name == "__init__.py" and name in _PACKAGES):
            found[name] = path
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            waiting += _imports(path, path.stat().st_mtime_ns, package)
    return found


def _reads_beside(path: Path) -> bool:
    """Returns whether a module may read files beside it."""
    source = path.read_bytes()
    return any(word in source for word in (b"__file__", b"__path__", b"importlib", b"pkgutil"))


def _data_beside(paths: Sequence[Path]) -> set[Path]:
    """Returns the files in the directories of modules, and below, that are neither Python nor hidden."""
    return {
        file
        for directory in {path.parent for path in paths}
        for file in directory.rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc", ".pyi") and not file.name.startswith(".")
    }


def _module(root: Path, name: str) -> Path | None:
    path = root.joinpath(*name.split("."))
    for candidate in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


class _Parsed(NamedTuple):
    """What counts of a module: each of its imports as (level, module, names), and the SHA-256 of its syntax tree."""

    imports: tuple[tuple[int, str, tuple[str, ...]], ...]
    digest: str


@functools.cache
def _parsed(path: Path, mtime_ns: int) -> _Parsed:
    """Reads a module. The digest is of its syntax tree without docstrings and positions; the tree is not kept."""
    tree = ast.parse(path.read_bytes())
    imports: list[tuple[int, str, tuple[str, ...]]] = []
    waiting: list[ast.AST] = [tree]
    for node in waiting:  # which grows; no statement is inside an expression, of which most of a tree is made
        if isinstance(node, ast.Import):
            imports += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports.append((node.level, node.module or "", tuple(alias.name for alias in node.names)))
        elif not isinstance(node, ast.expr):
            waiting += ast.iter_child_nodes(node)
    return _Parsed(tuple(imports), hashlib.sha256(_json(tree).encode()).hexdigest())


def _imports(path: Path, mtime_ns: int, package: str) -> tuple[str, ...]:
    """Returns everything that a module of ``package`` imports, at the top or in a function."""
    found: list[str] = []
    for level, of, names in _parsed(path, mtime_ns).imports:
        above = package.split(".")[: len(package.split(".")) - level + 1] if level else []
        module = ".".join([*above, *([of] if of else [])])
        found += [module, *(f"{module}.{name}" for name in names)]
    return tuple(found)


def _json(node: Any) -> str:
    """Returns a syntax tree as JSON, ``[class, {field: value}]`` without what is empty: leaves by their repr.

    It is text from the start, since Python's garbage collector would go through millions of nested lists again and again.
    """
    if isinstance(node, list):
        return f"[{', '.join([_json(item) for item in node])}]"
    if not isinstance(node, ast.AST):
        return json.dumps(repr(node))
    held = []
    for name in node._fields:
        value = getattr(node, name, None)
        if name == "body" and _documented(node):
            held.append(f'"body": {_json(value[1:])}')
        elif value is not None and value != []:
            held.append(f'"{name}": {_json(value)}')
    return f'["{type(node).__name__}", {{{", ".join(held)}}}]'


def _documented(node: Any) -> bool:
    """Returns whether a node's body begins with a docstring."""
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    first = node.body[0] if node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


def _short(value: Any) -> str:
    """Returns a value as short text: a digest's first characters, a long text's beginning."""
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and len(value) == 64 and not value.strip("0123456789abcdef"):
        return value[:8]
    return text if len(text) <= 60 else text[:57] + "..."
