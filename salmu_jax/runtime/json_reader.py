"""Reads JSON from untrusted sources; whatever the bytes are, one line says what is wrong with them.

Beyond what JSON's grammar forbids, it refuses files and values that would take gigabytes, deep nesting, NaN and infinities,
integers of hundreds of digits, duplicate keys in an object (one of the values would be lost), and lone surrogates,
which UTF-8 cannot encode.
"""

from __future__ import annotations

import json
import math
import os
import re
from typing import Any

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.opening import open_regular, read_at_most

MAX_BYTES = 1 << 28
MAX_VALUES = 20_000_000  # a value takes about 60 bytes of memory, however short it is in the file
MAX_DEPTH = 100
MAX_DIGITS = 300

_SURROGATES = re.compile("[\ud800-\udfff]")
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_ASCII_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def read_json(path: str | os.PathLike, *, max_bytes: int = MAX_BYTES) -> Any:
    """Reads a JSON file.

    Args:
      path: a regular file (links are followed).
      max_bytes: a larger file is refused before it is read.

    Raises:
      InputError: the file is not plain JSON of a reasonable size; names the file and the position in it.
      OSError: the file cannot be read.
    """
    with open_regular(path) as handle:
        size = os.fstat(handle.fileno()).st_size
        if size > max_bytes:
            raise InputError(f"{size:,} bytes of JSON; at most {max_bytes:,} are read", path)
        return parse_json(read_at_most(handle, max_bytes + 1), path)


def parse_json(data: bytes, where: str | os.PathLike) -> Any:
    """Parses UTF-8 JSON, with or without a byte order mark, as :func:`read_json`; ``where`` names it in messages."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text ({error.reason} at byte {error.start})", where) from error
    if sum(map(text.count, ",[{")) > MAX_VALUES:
        raise InputError(f"more than {MAX_VALUES:,} values", where)
    try:
        value = json.loads(
            text, parse_int=_integer, parse_float=_number, parse_constant=_number, object_pairs_hook=_object
        )
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error.msg} at line {error.lineno} column {error.colno}", where) from error
    except RecursionError as error:
        raise InputError(f"nested too deep; at most {MAX_DEPTH} levels are read", where) from error
    except _RefusedError as error:
        raise InputError(str(error), where) from error
    _check_depth(value, where)
    if _SURROGATES.search(text) or re.search(r"\\u[dD][89a-fA-F]", text):  # whole pairs are escaped like this, too
        _check_surrogates(value, where)
    return value


def control_character(text: str, *, ascii_only: bool = False) -> str | None:
    """Returns the first control character of a text other than tab and line ends, as ``U+001B``; None if there is none.

    Such characters can end a text (NUL) or control a terminal (ESC). With ``ascii_only``, those from U+0080 to U+009F pass:
    captions of the web have them where another encoding was taken for Latin-1.
    """
    match = (_ASCII_CONTROLS if ascii_only else _CONTROLS).search(text)
    return f"U+{ord(match[0]):04X}" if match else None


class _RefusedError(Exception):
    """A value that is valid JSON but refused here."""


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _RefusedError(f"an integer of {len(digits):,} digits; at most {MAX_DIGITS} are read")
    return int(digits)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _RefusedError(f"not JSON: {text[:40]} is not a finite number")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise _RefusedError(f"the key {twice[:80]!r} comes twice in an object; one of its values would be lost")
    return result


def _check_depth(value: Any, where: str | os.PathLike) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for parent in level
            if isinstance(parent, dict | list)
            for item in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    raise InputError(f"nested too deep; at most {MAX_DEPTH} levels are read", where)


def _check_surrogates(value: Any, where: str | os.PathLike) -> None:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str) and _SURROGATES.search(item):
            raise InputError(f"half a surrogate pair in {item[:60]!a}, which is not a character", where)
        if isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            waiting += item
