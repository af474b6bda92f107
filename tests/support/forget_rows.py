"""The metadata of forget pairs, written as facts."""

from collections.abc import Sequence

from salmu_jax.unlearning.permission import ForgetRows

Fact = tuple[str, str, str, str, str, str]
"""Person, name, attribute, value, caption, subset."""


def of_facts(facts: Sequence[Fact], generic: Sequence[str] = ()) -> ForgetRows:
    """Returns a row for each fact; ``generic`` are the generic captions, "a man" if there are none."""
    identity, name, field, value, text, subset = map(list, zip(*facts, strict=True))
    return ForgetRows(text, name, value, field, identity, subset, list(generic) or ["a man"] * len(text))
