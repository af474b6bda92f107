"""Loads methods from users' own files, named ``FILE.py:CLASS``, and says which of their lines failed."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.machinery
import importlib.util
import re
import sys
import traceback
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import did_you_mean, first_line
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import Method

_PREFIX = "salmu_user_method_"  # of the modules that the files become
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles a file at each load. Cached bytecode would hide an edit of the same second that keeps the file's size."""

    def get_code(self, fullname: str) -> types.CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def is_file_name(name: Any) -> bool:
    """Returns whether ``name`` is of the form ``FILE.py:CLASS``."""
    return isinstance(name, str) and re.search(r"\.py(:|$)", name) is not None


def split_name(name: str) -> tuple[Path, str]:
    """Returns the file and the class of ``FILE.py:CLASS``. Raises InputError if one is missing."""
    path, _, attribute = name.rpartition(":")
    if not path.endswith(".py") or not attribute.isidentifier():
        raise InputError("names no class; a method of a file is FILE.py:CLASS, such as my_method.py:MyMethod", name)
    return Path(path), attribute


def load(name: str) -> type[Method]:
    """Returns the class that ``FILE.py:CLASS`` names. The file is executed, and may import anything that is installed.

    Raises InputError for a file that is missing or fails (naming its line), and for a class that is not a method.
    """
    path, attribute = split_name(name)
    if not path.is_file():
        raise InputError("no such file, and the method is to be in it", path)
    # dataclasses and type hints look modules up by name, so the module needs one while the file runs.
    module_name = _PREFIX + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    spec = importlib.util.spec_from_file_location(module_name, path, loader=_Loader(module_name, str(path.absolute())))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    with failures_named(path):
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[module_name]
            if isinstance(error, InputError):
                raise InputError(str(error), f"{path} line {_line_of(error, path)}") from error
            raise
    found = getattr(module, attribute, None)
    if not isinstance(found, type) or not issubclass(found, Method):
        there = [key for key, value in vars(module).items() if _is_method(value)]
        hint = did_you_mean(attribute, there) or f"it has {', '.join(there) or 'none'}"
        raise InputError(f"no method {attribute!r}, a subclass of Method, in it; {hint}", path)
    check_class(found, str(path))
    return found


def check_class(method: type[Method], where: str) -> None:
    """Raises InputError, naming the attribute, unless the class declares everything that a method must declare."""

    def wrong(what: str) -> InputError:
        return InputError(f"{method.__name__}{what}", where)

    parameters = vars(method).get("__dataclass_params__")  # its own: the base class is one too
    if parameters is None or not parameters.frozen:
        raise wrong(" has to be a frozen dataclass; write @dataclasses.dataclass(frozen=True) above it")
    for attribute in ("name", "title", "reference", "formula"):
        if not isinstance(getattr(method, attribute, None), str) or not (
            getattr(method, attribute) or attribute == "formula"
        ):
            raise wrong(f".{attribute} has to be a text: {attribute}: ClassVar[str] = ...")
    if not _NAME.fullmatch(method.name):
        raise wrong(f".name is {method.name!r}; letters, digits, '_', '-' and '.' are possible, 64 at most")
    if not isinstance(method.defaults, Hyper):
        raise wrong(f".defaults has to be a Hyper, not {method.defaults!r}")
    if not isinstance(method.streams, Mapping):
        raise wrong(f".streams has to be a dictionary of streams, not {method.streams!r}")
    for field in dataclasses.fields(method):
        if field.default is dataclasses.MISSING:
            raise wrong(f".{field.name} is an option without a default; options need one (or is it a ClassVar?)")


@contextlib.contextmanager
def failures_named(path: Path | str) -> Iterator[None]:
    """Turns any failure that passed through the file ``path`` into an InputError that names its line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        line = _line_of(error, Path(path))
        if line is None:
            raise
        raise InputError(f"{type(error).__name__}: {first_line(error)}", f"{path} line {line}") from error


def failures_of(method: Method) -> contextlib.AbstractContextManager[None]:
    """Returns :func:`failures_named` for a user's method; does nothing for a method of the package."""
    module = type(method).__module__
    if not module.startswith(_PREFIX):
        return contextlib.nullcontext()
    return failures_named(str(sys.modules[module].__file__))


def _line_of(error: Exception, path: Path) -> int | None:
    """Returns the last line of the file that an error passed through, or at which it cannot be parsed."""
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).resolve() == path.resolve():
        return error.lineno
    names = {str(path), str(path.absolute()), str(path.resolve())}
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename in names]
    return lines[-1] if lines else None


def _is_method(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Method) and value is not Method
