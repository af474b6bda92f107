"""Makes foreign text safe to show: in a terminal, on a page, in a figure, in one line.

A control character can end a line or control a terminal; a direction character (such as a right-to-left override) can make
a text read as another; a lone surrogate cannot be encoded as UTF-8; and a text of a megabyte hides what surrounds it.
"""

from __future__ import annotations

import re
from typing import Any

LIMIT = 200  # characters shown of a text

# Controls (C0, DEL, C1), marks and overrides of direction, line and paragraph separators, half surrogates, byte order mark.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def safe_text(value: Any, limit: int | None = LIMIT) -> str:
    """Returns ``value`` as one line of harmless text, with unsafe characters spelt ``\\u202e``.

    Args:
      value: a text, or anything that ``str`` makes one of.
      limit: the largest number of characters; a longer text ends in ``...``. None for no limit.
    """
    text = str(value)
    if limit is not None and len(text) > limit:
        text = text[: max(limit - 3, 0)] + "..."
    return _UNSAFE.sub(_spelt, text)


def safe_value(value: Any, limit: int | None = None) -> Any:
    """Returns a JSON value with every text in it, keys included, made safe."""
    if isinstance(value, str):
        return safe_text(value, limit)
    if isinstance(value, dict):
        return {safe_text(key, limit): safe_value(child, limit) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [safe_value(child, limit) for child in value]
    return value


def _spelt(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
