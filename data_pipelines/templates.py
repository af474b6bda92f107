"""Cuts names and values out of captions, so that the rest can say the same of somebody else.

The metadata of a row tell its caption's name and value. What is left, a :class:`Template`, is a wording of one attribute.
"""

from __future__ import annotations

import re
from typing import NamedTuple

NAME, VALUE = "\ue000", "\ue001"  # private-use characters that stand for the name and the value


class Template(NamedTuple):
    """A caption with marks for the name and, unless the attribute is the name itself, for the value."""

    field: str
    text: str

    @property
    def has_value(self) -> bool:
        """Whether the caption states a value besides the name."""
        return VALUE in self.text

    def fill(self, name: str, value: str) -> str:
        """Returns the caption with ``name`` and ``value``, and with the value's article."""
        article = "n" if value[:1].lower() in tuple("aeiou") else ""
        text = re.sub(rf"\b([Aa])n? {VALUE}", rf"\1{article} {VALUE}", self.text)
        return text.replace(NAME, name).replace(VALUE, value)


def template_of(caption: str, name: str, value: str, field: str) -> Template | None:
    """Returns ``caption`` with its name and value cut out; None if either does not stand in it as a word, in any case.

    >>> template = template_of("A retail buyer is Al'Bina Kireeva's job", "Al'Bina Kireeva", "Retail buyer", "job")
    >>> template.fill("Ida Ek", "artist")
    "An artist is Ida Ek's job"
    """
    text, has_name = _cut(caption, name, NAME)
    is_name = name.casefold() == value.casefold()
    text, has_value = (text, True) if is_name else _cut(text, value, VALUE)
    return Template(field, text) if has_name and has_value else None


def _cut(text: str, word: str, mark: str) -> tuple[str, bool]:
    """Returns ``text`` with ``mark`` for ``word``, in any case and not within a longer word; and whether it was there."""
    if not word:
        return text, False
    cut, times = re.subn(rf"(?<!\w){re.escape(word)}(?!\w)", mark, text, flags=re.IGNORECASE)
    return cut, times > 0
