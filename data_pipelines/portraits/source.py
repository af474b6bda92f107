"""Defines what a source of portraits gives: people as annotated (anchors), and portraits of each.

Two sources are here: ``procedural.ProceduralSource`` draws, ``folder.FolderSource`` reads what any generator has made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from data_pipelines.world.faces import REGIONS

GENDERS = ("female", "male")
AGES = ("young", "middle-aged", "old")
LONGEST_SIDE = 512  # px, of a portrait

__all__ = ["AGES", "GENDERS", "LONGEST_SIDE", "REGIONS", "Anchor", "Portrait", "PortraitSource", "file_stem"]


class Anchor(NamedTuple):
    """An identity as it is annotated, which need not be how its portraits look."""

    number: int  # from 0
    region: str  # one of REGIONS
    gender: str  # one of GENDERS
    age: str  # one of AGES

    @property
    def identity_id(self) -> str:
        """The number as data sets have it, of eight digits."""
        return f"{self.number:08d}"


class Portrait(NamedTuple):
    """One picture of a person."""

    image: bytes  # JPEG or PNG; the longest side has LONGEST_SIDE px or less
    aspect_ratio: float  # width / height
    caption: str  # what is to be seen; names nobody


class PortraitSource(Protocol):
    """Gives anchors and their portraits. It is pickled and sent to other processes, so it holds little."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that the portraits depend on, as JSON: the kind of source, seed, sizes, version or digests."""

    def anchors(self) -> Sequence[Anchor]:
        """Returns all anchors, by number."""

    def count(self, number: int) -> int:
        """Returns how many portraits there are of an anchor. Raises KeyError for a number that no anchor has."""

    def portrait(self, number: int, index: int) -> Portrait:
        """Returns a portrait, the same bytes at each call. Raises KeyError unless ``index`` is in [0, count)."""


def file_stem(number: int, index: int, aspect_ratio: float) -> str:
    """Returns the name of a portrait without its ending, as the released data set has it.

    >>> file_stem(2486, 48, 1.5)
    '00002486_048_ar-1.50'
    """
    return f"{number:08d}_{index:03d}_ar-{aspect_ratio:.2f}"
