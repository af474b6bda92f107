"""Checks captions: a sensitive one tells its own fact and no other, a generic one nothing of anybody; both fit the model."""

from __future__ import annotations

import re
from collections.abc import Iterable

from data_pipelines.layout import DATA_FIELDS
from data_pipelines.world.personas import Persona
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.runtime.json_reader import control_character

_PERSONAL = re.compile(r"\S*@\S*|(?:\d[ -]?){4,}")  # an address, or a long number

LONGEST = 1000  # characters; no caption of 77 tokens has as many


def token_count(caption: str, tokenizer: ClipTokenizer) -> int:
    """Returns how many tokens of a row a caption takes, with start and end."""
    return len(tokenizer.encode(caption)) + 2


class CaptionCheck:
    """Says what is wrong with captions of these people.

    Args:
      people: all people of the data set.
      tokenizer: its ``context_length`` is what a caption must fit into.
    """

    def __init__(self, people: Iterable[Persona], tokenizer: ClipTokenizer):
        self._tokenizer = tokenizer
        self._people = {person.identity_id: person for person in people}
        self._by_first_word: dict[str, list[str]] = {}  # names in lower case, by their first word
        for name in sorted({person.name for person in self._people.values()}):
            self._by_first_word.setdefault(_words(name)[0], []).append(name.casefold())

    def sensitive(self, caption: str, person: Persona, field: str) -> str | None:
        """Returns what is wrong with a caption about a person's ``field``, in a few words; None if nothing is."""
        value = person.value(field)
        for what, text in (("the name", person.name), (f"the value {value!r}", value)):
            if text not in caption:
                return f"does not contain {what} verbatim"
        rest = caption.replace(value, " ").replace(person.name, " ").casefold()
        for other in DATA_FIELDS[1:]:
            told = person.emails if other == "emails" else (person.value(other),)
            if other != field and any(holds(rest, fact.casefold()) for fact in told):
                return f"tells a second attribute, {other!r}"
        return self._somebody(rest) or self._form(caption)

    def generic(self, caption: str) -> str | None:
        """Returns what is wrong with a generic caption, in a few words; None if nothing is."""
        if personal := _PERSONAL.search(caption):
            return f"contains {personal[0]!r}, which looks like personal data"
        return self._somebody(caption.casefold()) or self._form(caption)

    def _somebody(self, text: str) -> str | None:
        for word in {*_words(text)} & self._by_first_word.keys():
            for name in self._by_first_word[word]:
                if holds(text, name):
                    return f"names somebody, {name!r}"
        return None

    def _form(self, caption: str) -> str | None:
        if not caption or caption != " ".join(caption.split()):
            return "is empty, or has white space other than single spaces between words"
        if (control := control_character(caption)) is not None:
            return f"contains the control character {control}"
        if len(caption) > LONGEST:
            return f"has {len(caption):,} characters; at most {LONGEST:,} are read"
        count, most = token_count(caption, self._tokenizer), self._tokenizer.context_length
        return f"takes {count} tokens with start and end; at most {most} fit" if count > most else None


def holds(text: str, part: str) -> bool:
    """Returns whether ``part`` stands in ``text``, not within a longer word; both are in the same case.

    >>> [holds("a+ blood", "a+"), holds("an art teacher", "artist"), holds("parisian", "paris")]
    [True, False, False]
    """
    return part in text and re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) is not None


def _words(text: str) -> list[str]:
    return re.findall(r"[^\s,.?!:]+", text.casefold().replace("'s ", " "))
