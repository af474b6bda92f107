"""Gives an unlearning run what it may read: ``forget`` with its metadata, and ``retain``. Everything else raises.

The streams of a method (``streams.py``) and its context (``context.py``) draw from one :class:`Permission`, so there is
one place that says what was read.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from data_pipelines.input import PairSource
from salmu_jax.runtime.errors import InputError

FORGET, RETAIN = "forget", "retain"


@dataclasses.dataclass(frozen=True)
class ForgetRows:
    """The metadata of the forget pairs, in columns; each column has one text per pair, in the pairs' order.

    Attributes:
      text: the caption.
      name: the name of the person.
      value: the value of the attribute; for the attribute ``name``, the name itself.
      data_field: the attribute that the caption is about.
      identity_id: the person; pairs of one person share it.
      subset: ``forget_identity`` or ``forget_association``.
      generic_caption: a caption of the same image that says nothing sensitive.
    """

    text: Sequence[str]
    name: Sequence[str]
    value: Sequence[str]
    data_field: Sequence[str]
    identity_id: Sequence[str]
    subset: Sequence[str]
    generic_caption: Sequence[str]

    def __len__(self) -> int:
        return len(self.text)


class Permission:
    """Holds the pairs that a run may read, the same on all hosts.

    Args:
      forget: the pairs to forget, those that the run selects.
      retain: the pairs to keep; None if the run may not read any.
    """

    def __init__(self, forget: PairSource, retain: PairSource | None = None):
        self._sources = {FORGET: forget, RETAIN: retain}
        self._drawn: set[str] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """The splits that may be read."""
        return tuple(split for source in self._sources.values() if source is not None for split in source.splits)

    @property
    def drawn(self) -> tuple[str, ...]:
        """The splits that were read so far, in the order of :attr:`names`."""
        return tuple(split for split in self.names if split in self._drawn)

    @property
    def sources(self) -> tuple[str, ...]:
        """``forget``, and ``retain`` if the run may read any."""
        return tuple(of for of, source in self._sources.items() if source is not None)

    @property
    def forget_pairs(self) -> int:
        """The number of forget pairs."""
        forget = self._sources[FORGET]
        assert forget is not None
        return len(forget)

    def split(self, name: str) -> PairSource:
        """Returns the pairs of ``forget``, of ``retain``, or of one split by its full name, such as ``salmu/retain_synth``.

        Raises InputError, naming what may be read, for anything else.
        """
        for of, source in self._sources.items():
            if source is not None and name in (of, *source.splits):
                # A selection is of all of forget, which is one split.
                whole = name == of or len(source.splits) == 1
                found = source if whole else PairSource([part for part in source.parts if name in part.splits])
                self._drawn.update(found.splits)
                return found
        permitted = ", ".join(self.names)
        if name == RETAIN:
            raise InputError(f"no retain pairs are permitted to this run; it may read {permitted}", name)
        raise InputError(f"this run may not read it; it may read {permitted}", str(name))

    @functools.cached_property
    def rows(self) -> ForgetRows:
        """The metadata of the forget pairs; the first use reads them."""
        names = [field.name for field in dataclasses.fields(ForgetRows)]
        return ForgetRows(**self.split(FORGET).texts(*names))
