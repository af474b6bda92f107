"""Formats parts of messages: a list that ends, a count, the name that was meant, the first line of a library's error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def listed(items: Iterable[object], most: int = 10, separator: str = ", ") -> str:
    """Joins ``items``, at most ``most`` of them: ``a, b, and 3 more``."""
    texts = list(map(str, items))
    rest = len(texts) - most
    return separator.join(texts[:most]) + (f"{separator.rstrip()} and {rest:,} more" if rest > 0 else "")


def counted(count: int, noun: str) -> str:
    """Returns ``1 oddity``, ``2 oddities``, ``1,000 problems``; of several words, the last is in the plural."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns ``did you mean 'delete'?`` with the most similar of ``known``, or an empty text if none is similar.

    Of dotted names, the last parts have to be similar too: 'world.foo' is not like 'world.workers'.
    """

    def last(dotted: str) -> str:
        return dotted.rpartition(".")[2]

    close = difflib.get_close_matches(
        name, [one for one in known if difflib.get_close_matches(last(name), [last(one)])], 1
    )
    return f"did you mean {close[0]!r}?" if close else ""


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text, at most 200 characters, or its type if it has no text.

    Libraries write pages (JAX, Orbax, pyarrow) or nothing at all (array_record).
    """
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
