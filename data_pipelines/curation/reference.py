"""Provides people who are not in the data set: to train the encoder and to measure thresholds on.

    others/images        a finished step *images* of the reference, with annotations that are right
    others/encoder       the step *face encoder*: encoder.npz
    others/embeddings    the step *embeddings* of those portraits
    others/altered       the step *near duplicates*: altered.npz, near duplicates of some of the held-out portraits

Of the reference's identities, by number, the first part trains the encoder and the discriminants, and the rest is held out.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines import steps
from data_pipelines.curation.demographics import ATTRIBUTES
from data_pipelines.curation.duplicates import altered
from data_pipelines.curation.embedding import Embedded, embed_portraits, make_embeddings
from data_pipelines.curation.encoder import encoder_settings
from data_pipelines.curation.pixels import SIDE, read_portrait
from data_pipelines.curation.thresholds import FEWEST_HELD_OUT, People
from data_pipelines.curation.training import Training
from data_pipelines.portraits.faults import NO_FAULTS
from data_pipelines.portraits.procedural import ProceduralSource
from data_pipelines.portraits.source import Anchor, Portrait
from data_pipelines.portraits.step import STEP as IMAGES
from data_pipelines.portraits.step import Images, make_images, read_images
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError

ENCODER, ALTERED = "face encoder", "near duplicates"
FIGURES = "training.json"
TRAINED_SIDE = 256  # px, at most, of portraits that are drawn to train with
VERSION = 1
"""Incremented whenever the same reference and settings would give another encoder."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """How much is drawn of other people, and how the encoder is trained on it.

    Attributes:
      trained, portraits: people to train with, and portraits of each. Many people with few portraits each teach more.
      held_out, held_out_portraits: people to measure thresholds on, and portraits of each.
      altered: held-out portraits of each held-out person of which a near duplicate is made.
      held_out_share: of the people of a given reference, those with the highest numbers, who are held out.
      training: of the encoder.
    """

    trained: int = 1_600
    portraits: int = 8
    held_out: int = 120
    held_out_portraits: int = 40
    altered: int = 8
    held_out_share: float = 0.2
    training: Training = dataclasses.field(default_factory=Training)


def reference_for(anchors: int) -> Reference:
    """Returns the default for a data set of so many anchors: the more people, the better the encoder must tell them apart.

    Of 774 people out of 1,000 anchors, nearest neighbours named the right person of some 92 % of held-out portraits after
    eight epochs on 700 people (10 portraits each), and of 99.7 % after these twelve on 1,600.
    """
    return Reference(trained=min(max(700, round(1.6 * anchors)), Reference.trained))


@dataclasses.dataclass(frozen=True)
class OtherPeople:
    """Draws people who are not in a drawn data set, as a source of portraits: ``trained`` of them, then ``held_out``.

    The former are drawn with fewer pixels, which is several times as quick: an encoder sees 112 of them.
    """

    seed: int
    reference: Reference
    longest_side: int

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that the portraits depend on."""
        sizes = {"trained": self.reference.trained, "held_out": self.reference.held_out}
        return {**self._drawn(self.longest_side).settings, **sizes, "longest_side_trained": self._side_trained}

    def anchors(self) -> Sequence[Anchor]:
        """Returns the people, by number."""
        return self._drawn(self.longest_side).anchors()

    def count(self, number: int) -> int:
        """Returns how many portraits a person has."""
        self._drawn(self.longest_side).count(number)  # refuses a number that nobody has
        return self.reference.portraits if number < self.reference.trained else self.reference.held_out_portraits

    def portrait(self, number: int, index: int) -> Portrait:
        """Draws a portrait."""
        if index >= self.count(number):
            raise KeyError(index)
        side = self._side_trained if number < self.reference.trained else self.longest_side
        return self._drawn(side).portrait(number, index)

    @property
    def _side_trained(self) -> int:
        return min(self.longest_side, TRAINED_SIDE)

    def _drawn(self, longest_side: int) -> ProceduralSource:
        most = max(self.reference.portraits, self.reference.held_out_portraits)
        return ProceduralSource(
            seed=self.seed,
            identities=self.reference.trained + self.reference.held_out,
            fewest=most,
            most=most,
            longest_side=longest_side,
            shares=NO_FAULTS,
        )


def other_seed(seed: int, images: Images) -> int:
    """Returns the seed of other people, which is not the data set's."""
    drawn = seed + 1_000_000
    return drawn + 1 if images.settings.get("seed") == drawn else drawn


def check_reference(images: Images, given: str | os.PathLike | None) -> None:
    """Raises InputError if no reference is given and none can be drawn, for drawn people say nothing of others."""
    if given is None and images.settings.get("kind") != "procedural":
        raise InputError(
            f"the portraits of {images.directory} are not drawn; give a finished step {IMAGES!r} of other people from the"
            " same generator, with annotations that are right",
            "reference",
        )


def make_reference(
    directory: Path,
    images: Images,
    given: str | os.PathLike | None,
    reference: Reference,
    seed: int,
    *,
    workers: int,
    say: Callable[[str], None],
) -> Images:
    """Returns portraits of other people: a ``given`` finished step *images*, or drawn ones.

    Raises InputError if ``given`` holds the portraits of ``images``, or too few people.
    """
    if given is not None:
        found = read_images(given)
        if steps.step_digest(given, IMAGES) == steps.step_digest(images.directory, IMAGES):
            raise InputError("holds the portraits of the data set itself; other people's would be right", given)
    else:
        drawn = OtherPeople(other_seed(seed, images), reference, images.settings["longest_side"])
        make_images(directory, drawn, workers=workers, say=say)
        found = read_images(directory)
    trained, held_out = divided(found, reference)
    if len(held_out) < FEWEST_HELD_OUT or len(trained) < 2:
        raise InputError(
            f"has {len(trained)} people to train with and {len(held_out)} held out; 2 and {FEWEST_HELD_OUT} or more would"
            " be right",
            found.directory,
        )
    return found


def divided(found: Images, reference: Reference) -> tuple[list[int], list[int]]:
    """Returns which anchors of a reference are trained with and which are held out, as positions."""
    count = len(found.anchors)
    drawn = found.settings.get("held_out")
    held_out = drawn if isinstance(drawn, int) else round(reference.held_out_share * count)
    return list(range(count - held_out)), list(range(count - held_out, count))


def make_encoder(
    directory: Path, found: Images, reference: Reference, seed: int, *, say: Callable[[str], None]
) -> Path:
    """Trains the face encoder, unless that is done, and returns the file of its weights."""
    positions, _ = divided(found, reference)
    settings = {
        "seed": seed,
        "images": steps.step_digest(found.directory, IMAGES),
        "people": len(positions),
        "portraits": reference.portraits,
        "training": dataclasses.asdict(reference.training),
        "version": VERSION,
    }

    @functools.cache
    def trained() -> tuple[bytes, dict[str, Any]]:
        from data_pipelines.curation.face_encoder import weights_file  # imports JAX
        from data_pipelines.curation.training import train_encoder

        say(f"face encoder: reading the portraits of {len(positions)} other people")
        anchors = [found.anchors[position] for position in positions]
        pixels, people = _training_pixels(found, anchors, reference.portraits)
        values = {name: sorted({getattr(anchor, name) for anchor in anchors}) for name in ATTRIBUTES}
        attributes = {
            name: np.array([values[name].index(getattr(anchor, name)) for anchor in anchors])[people]
            for name in ATTRIBUTES
        }
        variables, figures = train_encoder(pixels, people, attributes, seed, reference.training, say=say)
        return weights_file(variables), {"portraits": len(pixels), "people": len(anchors), **figures}

    parts = {"encoder.npz": lambda: trained()[0], FIGURES: lambda: json.dumps(trained()[1], indent=1).encode()}
    steps.run_step(directory, ENCODER, settings, parts, lambda: files.read_json(directory / FIGURES), say=say)
    return directory / "encoder.npz"


def _training_pixels(found: Images, anchors: Sequence[Anchor], portraits: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns uint8 [N, 112, 112, 3] and the position of each one's person, int [N]."""
    pixels, people = [], []
    for position, anchor in enumerate(anchors):
        for index, portrait in enumerate(found.portraits(anchor.number)):
            if index < portraits:
                pixels.append(read_portrait(portrait.image, f"{found.directory} {portrait.file_name}"))
                people.append(position)
    return np.stack(pixels).reshape(-1, SIDE, SIDE, 3), np.array(people)


def embed_reference(
    directory: Path,
    found: Images,
    encoder: str,
    reference: Reference,
    seed: int,
    *,
    workers: int,
    say: Callable[[str], None],
) -> tuple[People, People, list[tuple[Embedded, Embedded]]]:
    """Returns the people trained with, those held out, and near duplicates made of some portraits of the latter."""
    embedded = make_embeddings(directory / "embeddings", found, encoder, workers=workers, say=say)
    trained, held_out = (
        People([found.anchors[position] for position in part], [embedded[position] for position in part])
        for part in divided(found, reference)
    )
    settings = {
        "seed": seed,
        "images": steps.step_digest(found.directory, IMAGES),
        "encoder": encoder_settings(encoder),
        "people": len(held_out.anchors),
        "altered": reference.altered,
        "version": VERSION,
    }
    make = functools.partial(_altered_file, found, held_out.anchors, encoder, reference.altered, seed)
    steps.run_step(directory / "altered", ALTERED, settings, {"altered.npz": make}, dict, say=say)
    with np.load(directory / "altered" / "altered.npz", allow_pickle=False) as file:
        names, vectors, hashes = file["names"].tolist(), file["vectors"].astype(np.float32), file["hashes"]
    rows = {name: row for row, name in enumerate(names)}
    pairs = []
    for of_one in held_out.portraits:
        chosen = [row for row, name in enumerate(of_one.names) if name in rows]
        after = np.array([rows[of_one.names[row]] for row in chosen], int)
        of_rows = vectors[after] / np.linalg.norm(vectors[after], axis=1, keepdims=True)
        pairs.append((of_one.only(chosen), Embedded(of_one.only(chosen).names, of_rows, hashes[after])))
    return trained, held_out, pairs


def _altered_file(found: Images, anchors: Sequence[Anchor], encoder: str, count: int, seed: int) -> bytes:
    names: list[str] = []
    vectors, hashes = [], []
    for anchor in anchors:
        chosen = [(index, portrait) for index, portrait in enumerate(found.portraits(anchor.number)) if index < count]
        images = [
            (portrait.file_name, altered(portrait.image, seed, anchor.number, index)) for index, portrait in chosen
        ]
        embedded = embed_portraits(images, encoder, found.directory)
        names += embedded.names
        vectors.append(embedded.vectors)
        hashes.append(embedded.hashes)
    buffer = io.BytesIO()
    everything = np.concatenate(vectors).astype(np.float16)
    np.savez(buffer, names=np.array(names), vectors=everything, hashes=np.concatenate(hashes))
    return buffer.getvalue()
