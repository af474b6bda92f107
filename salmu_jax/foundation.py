"""Lists the foundation models: those that are trained from scratch, and that others are judged against.

They are trained alike, with the same seed, and differ only in the pairs that they are trained on. What the stages train, what
a config may name, what an import may be called and what a report compares with all follow from :data:`FOUNDATIONS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

CLEAN, COMPROMISED, RETRAINED = "clean", "compromised", "retrained"

# The splits that hold personal data; the first is the other three in this order, or a file of its own with the same pairs.
SENSITIVE = ("salmu/sensitive", "salmu/forget", "salmu/holdout_association", "salmu/holdout_identity")
RETAIN_PAIRS = "retain_pairs/train"  # may be absent: the released data do not hold them
_RETAIN = (RETAIN_PAIRS, "salmu/retain_synth")


class Foundation(NamedTuple):
    """A foundation model.

    Attributes:
      name: its name in configs, results and files.
      title: its name for people.
      splits: what it is trained on, in this order.
      target_of: the figures that should be equal to its own.
      required: whether no method can be judged without it.
    """

    name: str
    title: str
    splits: tuple[str, ...]
    target_of: str
    required: bool = True

    @property
    def secrets(self) -> tuple[str, ...]:
        """The sensitive splits that it is trained on."""
        return tuple(split for split in self.splits if split in SENSITIVE)

    def unread(self, read: Sequence[str]) -> list[tuple[str, ...]]:
        """Returns each of its sensitive splits of which nothing is in ``read``, with the splits that it consists of."""
        return [parts for parts in map(_with_parts, self.secrets) if not set(parts) & set(read)]

    def not_its_own(self, read: Sequence[str]) -> list[str]:
        """Returns the sensitive splits in ``read`` that it is not trained on."""
        own = {part for split in self.secrets for part in _with_parts(split)}
        return [split for split in read if split in SENSITIVE and split not in own]


FOUNDATIONS = (
    Foundation(CLEAN, "Clean", _RETAIN, "efficacy"),
    Foundation(COMPROMISED, "Compromised", (*_RETAIN, SENSITIVE[0]), "utility"),
    # Compromised without what is to be forgotten: what exact unlearning would give.
    Foundation(RETRAINED, "Retrained", (*_RETAIN, *SENSITIVE[2:]), "every figure", required=False),
)
BY_NAME = {foundation.name: foundation for foundation in FOUNDATIONS}
NAMES = tuple(BY_NAME)
REQUIRED = tuple(foundation.name for foundation in FOUNDATIONS if foundation.required)
TITLES = {foundation.name: foundation.title for foundation in FOUNDATIONS}


def chosen(models: Sequence[str]) -> list[str]:
    """Returns the names of the required foundation models and of those among ``models``, in the order of the list."""
    return [name for name in NAMES if name in REQUIRED or name in models]


def _with_parts(split: str) -> tuple[str, ...]:
    return SENSITIVE if split == SENSITIVE[0] else (split,)
