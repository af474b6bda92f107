"""Surveys a world: counts everything from its columns, and draws a few images of each kind by the seed.

An image is drawn by a hash of the seed and its file name, so that a draw depends on neither order nor the other rows. Only the
row groups that hold a drawn image are read; the sizes of all images in them are counted, from their headers.
"""

from __future__ import annotations

import bisect
import contextlib
import io
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from data_pipelines.layout.names import DATA_FIELDS, SENSITIVE_SPLITS
from data_pipelines.layout.parquet import Row, open_parquet
from data_pipelines.layout.reader import World
from data_pipelines.layout.seen import hash_of
from salmu_jax.models.preprocess import FORMATS, inspect_image
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.runtime.errors import InputError

PICTURES = 6  # of a split and an attribute
OTHERS = 8  # of each other kind
_SEEN = 500  # retain pairs and zero-shot images from which those shown are drawn
RETAIN, ZEROSHOT = "retain pairs", "zero-shot images"


@dataclass(frozen=True)
class Sample:
    """An image that can be decoded, with its caption; ``about`` is an attribute, or empty."""

    split: str
    about: str
    caption: str
    image: bytes


@dataclass
class Survey:
    """What is in a world.

    Attributes:
      directory: the world's.
      pairs: {split: {attribute: pairs}}; the attribute is empty where there is none.
      people, associations: {split: how many}.
      portraits: the portraits of each person, over all splits.
      pairs_an_association: the pairs of each association.
      countries: {country code: people}, of the sensitive splits.
      tokens: {kind of caption: {tokens: captions}}.
      sides, shapes: {longest side in pixels: images} and {aspect ratio: images}, of ``measured`` images.
      undecodable: how many of the drawn images could not be decoded.
      tars: the number of tars of retain pairs.
      classes, templates: of the zero-shot set.
      samples: the drawn images.
    """

    directory: Path
    pairs: dict[str, Counter[str]] = field(default_factory=dict)
    people: dict[str, int] = field(default_factory=dict)
    associations: dict[str, int] = field(default_factory=dict)
    portraits: list[int] = field(default_factory=list)
    pairs_an_association: list[int] = field(default_factory=list)
    countries: Counter[str] = field(default_factory=Counter)
    tokens: dict[str, Counter[int]] = field(default_factory=dict)
    sides: Counter[int] = field(default_factory=Counter)
    shapes: Counter[float] = field(default_factory=Counter)
    undecodable: int = 0
    tars: int = 0
    classes: int = 0
    templates: int = 0
    samples: list[Sample] = field(default_factory=list)

    @property
    def measured(self) -> int:
        """The number of images whose size was read."""
        return self.sides.total()


class _Draw:
    """Keeps the ``count`` items of each cell whose hash is lowest."""

    def __init__(self, seed: int, count: int):
        self._seed, self._count = seed, count
        self.kept: dict[tuple[str, str], list[tuple[bytes, Row]]] = {}

    def add(self, split: str, about: str, row: Row) -> None:
        rank = hash_of(b"%d" % self._seed, row.file_name.encode())
        kept = self.kept.setdefault((split, about), [])
        bisect.insort(kept, (rank, row), key=lambda one: one[0])
        del kept[self._count :]


def survey_world(
    directory: str | os.PathLike,
    *,
    zeroshot: str | os.PathLike | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Survey:
    """Counts and draws. Raises InputError for what cannot be read; ``audit_world`` would name all of it."""
    report = progress or (lambda line: None)
    world = World(directory, zeroshot)
    survey = Survey(world.directory)
    report("counting rows")
    drawn = _count(world, survey, seed)
    report("reading pictures")
    images = _read_images(survey, [row for _, rows in drawn for row in rows])
    for (split, about), rows in drawn:
        for row in rows:
            _add_sample(survey, split, about, row.text, images[row.path, row.row], row.where("image"))
    _survey_sets(world, survey, seed)
    return survey


def _count(world: World, survey: Survey, seed: int) -> list[tuple[tuple[str, str], list[Row]]]:
    """Counts from the columns; returns the rows drawn, by split and attribute in the order of the layout."""
    tokenizer = ClipTokenizer()
    draw, others = _Draw(seed, PICTURES), _Draw(seed, OTHERS)
    portraits: Counter[str] = Counter()
    associations: Counter[tuple[str, str, str]] = Counter()
    for split in world.own_splits:
        pairs, people = survey.pairs.setdefault(split, Counter()), set()
        for row in world.rows(split, images=False):
            sensitive = split in (*SENSITIVE_SPLITS, "sensitive")
            about = world.metadata.value_of(row).data_field if sensitive else ""
            person = row.identity_id or ""
            pairs[about] += 1
            if person:
                people.add(person)
                portraits[person] += 1
            if about:
                associations[split, person, about] += 1
            kind = "sensitive captions" if sensitive else "captions of retain_synth"
            survey.tokens.setdefault(kind, Counter())[len(tokenizer.encode(row.text))] += 1
            subset = about or ("" if sensitive else "of people to forget" if person else "of nobody in particular")
            (draw if about else others).add(split, subset, row)
        survey.people[split] = len(people)
        survey.associations[split] = sum(key[0] == split for key in associations)
    for text in world.metadata.generic_captions.values():
        survey.tokens.setdefault("generic captions", Counter())[len(tokenizer.encode(text))] += 1
    survey.portraits, survey.pairs_an_association = list(portraits.values()), list(associations.values())
    survey.countries = Counter(
        str(world.metadata.identities.get(person, {}).get("country_code") or "not said") for person in portraits
    )
    order = {name: place for place, name in enumerate((*world.own_splits, *DATA_FIELDS))}
    cells = [(cell, [row for _, row in kept]) for cell, kept in (draw.kept | others.kept).items()]
    return sorted(cells, key=lambda one: (order[one[0][0]], order.get(one[0][1], len(order)), one[0][1]))


def _read_images(survey: Survey, rows: list[Row]) -> dict[tuple[str, int], bytes]:
    """Returns the images of rows by file and row; counts the sizes of all images in their row groups."""
    found: dict[tuple[str, int], bytes] = {}
    for path in sorted({row.path for row in rows}):
        wanted = {row.row for row in rows if row.path == path}
        file, footer = open_parquet(Path(path))
        starts = list(itertools.accumulate((group.rows for group in footer.groups), initial=0))
        with file:
            for group in sorted({bisect.bisect_right(starts, row) - 1 for row in wanted}):
                for row, data in enumerate(_images(file, group, path), starts[group]):
                    _measure(survey, data)
                    if row in wanted:
                        found[path, row] = data
    return found


def _measure(survey: Survey, data: bytes) -> None:
    """Counts the size of an image, from its header."""
    with contextlib.suppress(Exception), Image.open(io.BytesIO(data), formats=FORMATS) as image:  # PIL raises anything
        survey.sides[max(image.size)] += 1
        survey.shapes[round(image.width / image.height, 2)] += 1


def _images(file, group: int, path: str) -> Iterator[bytes]:
    try:
        for batch in file.iter_batches(64, row_groups=[group], columns=["image.bytes"]):
            yield from ((value or {}).get("bytes") or b"" for value in batch.column(0).to_pylist())
    except Exception as error:  # pyarrow raises its own exceptions, and Python's
        raise InputError("damaged; copy or make it again", f"{path} field 'image'") from error


def _add_sample(survey: Survey, split: str, about: str, caption: str, image: bytes, where: str) -> None:
    try:
        inspect_image(image, where)
    except InputError:
        survey.undecodable += 1
    else:
        survey.samples.append(Sample(split, about, caption, image))


def _survey_sets(world: World, survey: Survey, seed: int) -> None:
    """Draws retain pairs and zero-shot images from the first of a tar each."""
    survey.tars = len(world.retain_tars)
    pairs = itertools.islice(world.retain_pairs(), _SEEN)
    for pair in sorted(pairs, key=lambda pair: hash_of(b"%d" % seed, pair.key.encode()))[:OTHERS]:
        _add_sample(survey, RETAIN, "", pair.text, pair.image, pair.key)
    if world.zeroshot is not None:
        survey.classes, survey.templates = len(world.zeroshot.class_names), len(world.zeroshot.templates)
        images = itertools.islice(world.zeroshot.images(), _SEEN)
        for item in sorted(images, key=lambda item: hash_of(b"%d" % seed, item.key.encode()))[:OTHERS]:
            _add_sample(survey, ZEROSHOT, "", world.zeroshot.class_names[item.label], item.image, item.key)
