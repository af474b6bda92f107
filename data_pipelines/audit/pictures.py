"""Checks the images of the splits against each other: sizes, aspect ratios, and images that are there twice."""

from __future__ import annotations

import array
import re
from collections import Counter

from data_pipelines.audit.findings import Audit
from data_pipelines.layout.names import SENSITIVE_SPLITS
from data_pipelines.layout.parquet import Row
from data_pipelines.layout.reader import World
from data_pipelines.layout.seen import hash_of
from salmu_jax.models.preprocess import ImageFacts
from salmu_jax.runtime.errors import InputError

_MOST = 0.5  # of the images have the usual longest side; otherwise none is usual


class PictureChecks:
    """Checks images as they are decoded; keeps some 200 bytes of each."""

    def __init__(self, world: World, audit: Audit):
        self._world, self._audit = world, audit
        self._sides = array.array("l")
        self._places: list[str] = []
        self._first: dict[bytes, str] = {}
        self._of_name: dict[str, bytes] = {}

    def add(self, row: Row, facts: ImageFacts) -> None:
        """Takes the image of a row of a split, and what it is."""
        where = row.where("image")
        self._sides.append(max(facts.width, facts.height))
        self._places.append(where)
        digest = hash_of(row.image)
        first = self._first.setdefault(digest, where)
        if first != where:
            message = f"the same bytes as {first}; an image of its own would be right"
            self._audit.doubt(InputError(message, where), "same-image")
        if row.split in SENSITIVE_SPLITS:
            self._of_name[row.file_name] = digest
        named = re.search(r"_ar-([0-9]{1,3}\.[0-9]{1,4})", row.file_name)
        if named and not _fits(facts, float(named[1])):
            message = f"{facts.width} x {facts.height} pixels, though its name says an aspect ratio of {named[1]}"
            self._audit.doubt(InputError(message, where), "size")

    def finish(self) -> None:
        """Reports what is known once all images are, and compares those of 'sensitive' with its parts'."""
        sides = Counter(self._sides)
        usual, count = sides.most_common(1)[0] if sides else (0, 0)
        if count > _MOST * len(self._sides):
            for side, where in zip(self._sides, self._places, strict=True):
                if side != usual:
                    message = f"a longest side of {side} pixels; {usual}, as {count:,} others have, would be right"
                    self._audit.doubt(InputError(message, where), "size")
        for row in self._union():
            if self._of_name.get(row.file_name, hash_of(row.image)) != hash_of(row.image):
                message = "it differs from the image of that file name in its split; they should be equal"
                self._audit.problem(InputError(message, row.where("image")), "union")

    def _union(self):
        if not self._world.training_only and self._world.data_files("sensitive"):
            yield from self._world.rows("sensitive", findings=self._audit)


def _fits(facts: ImageFacts, ratio: float) -> bool:
    """Returns whether an image has an aspect ratio, across or upright, within the rounding of its sides and its name."""
    short, long = sorted((facts.width, facts.height))
    longest = max(ratio, 1 / ratio) if ratio else 0.0
    return abs(long / short - longest) <= 0.02 * longest + 1.5 * longest / short
