"""Imports point one way: a package imports only what is below it; and whatever is imported from our packages exists."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What each package or module of salmu_jax, and data_pipelines, may import besides itself. No entry may import cli.
ALLOWED = {
    "foundation": (),
    "runtime": (),
    "config_fields": ("runtime", "foundation"),
    "config": ("runtime", "config_fields"),
    "models": ("runtime",),
    "data_pipelines": ("runtime", "models.preprocess", "models.tokenizer"),
    "training": ("runtime", "config", "models", "data_pipelines"),
    "evaluation": ("runtime", "foundation", "config", "models", "data_pipelines", "training"),
    "unlearning": ("runtime", "foundation", "config", "models", "data_pipelines", "training", "evaluation"),
    "interop": ("runtime", "foundation", "config", "models", "training", "evaluation"),
    "deletion": ("runtime", "config", "models", "training", "evaluation"),
    "report": ("runtime", "foundation", "config", "data_pipelines", "evaluation"),
    "sweep": ("runtime", "config", "data_pipelines", "evaluation", "unlearning"),
}
# Modules of which each may import those before it.
STEERING = (
    "chain",
    "full_world",
    "data_stages",
    "unlearn_stage",
    "evaluate_stage",
    "stages",
    "stage_process",
    "sweep_workspace",
    "sweep_stage",
    "sweep_process",
    "forget_stage",
    "commands",
    "cli",
    "__main__",
)
_PACKAGES = tuple(ALLOWED)
ALLOWED |= {name: (*_PACKAGES, *STEERING[:number]) for number, name in enumerate(STEERING)}

# (importing module, imported module): imports that break the rule. To be removed; the list must not grow.
EXCEPTIONS: set[tuple[str, str]] = set()


def modules(*directories: str) -> dict[str, Path]:
    """Returns the file of every module below ``directories``."""
    paths = [path for directory in directories for path in sorted((ROOT / directory).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


OURS = modules("salmu_jax", "data_pipelines")
VERSION = "salmu_jax"  # the package itself, which may be imported everywhere for its version


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[tuple[str, str, int]]:
    """Yields (module, name or "", line) for every import of our packages in a file, those inside functions too."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} line {node.lineno}: a relative import"
            found = [(node.module or "", alias.name) for alias in node.names]
        else:
            continue
        for module, name in found:
            if module.split(".")[0] in ("salmu_jax", "data_pipelines"):
                yield module, name, node.lineno


def layer(module: str) -> str:
    """``training.mesh`` for ``salmu_jax.training.mesh``, ``data_pipelines.input`` as it is."""
    return module.removeprefix("salmu_jax.")


def test_packages_import_only_what_is_below_them():
    found, wrong = set(), []
    for module, path in OURS.items():
        if module == VERSION:
            continue
        own = layer(module).split(".")[0]
        assert own in ALLOWED, f"say in ALLOWED what {own} may import"
        for target, name, line in imports(path):
            target = f"{target}.{name}" if f"{target}.{name}" in OURS else target
            permitted = target == VERSION or any(
                f"{layer(target)}.".startswith(f"{prefix}.") for prefix in (own, *ALLOWED[own])
            )
            if not permitted:
                found.add((module, target))
                if (module, target) not in EXCEPTIONS:
                    wrong.append(f"{path.relative_to(ROOT)}:{line}: {own} may not import {target}")
    assert not wrong, "\n".join(wrong)
    assert found >= EXCEPTIONS, f"these exceptions are no longer needed: {EXCEPTIONS - found}"


def defined(path: Path) -> set[str]:
    """Returns all names that a module defines, assigns or imports, anywhere in it."""
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return names


@pytest.mark.parametrize("directory", ["salmu_jax", "data_pipelines", "configs", "benchmarks", "tests"])
def test_everything_imported_from_our_packages_exists(directory):
    """Imports inside functions too, which only fail when the function runs."""
    missing = []
    for path in modules(directory).values():
        for module, name, line in imports(path):
            where = f"{path.relative_to(ROOT)}:{line}"
            if module not in OURS:
                missing.append(f"{where}: no module {module}")
            elif name and f"{module}.{name}" not in OURS and name not in defined(OURS[module]):
                missing.append(f"{where}: no {name} in {module}")
    assert not missing, "\n".join(missing)
