"""Runs the step *curation*: which identities and portraits of a step *images* are kept, and why the others are not.

    kept.jsonl       an identity a line, by number: {"identity_id", "region", "gender", "age", "files": [names, by index]}
    dropped.jsonl    an identity or a file a line: {"identity_id", "file" (null: the identity), "reason", "what", "measured",
                     "threshold", "other"}
    measured.jsonl   an identity a line: what was measured of it, whether it is kept or not
    embeddings.npz   of the portraits kept, in the order of kept.jsonl: names, vectors (float16 [N, D]), numbers (int32 [N])
    report.json      counts, thresholds and how they were measured; report.html: the same with pictures
    others/          other people, on whom the encoder was trained and the thresholds were measured (reference.py)
    embeddings/      of all portraits (embedding.py)

Everything depends on the portraits, the seed and the settings alone; a killed step goes on where it was, identity by identity.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines import steps
from data_pipelines.curation.embedding import make_embeddings
from data_pipelines.curation.encoder import encoder_settings
from data_pipelines.curation.page import report_page
from data_pipelines.curation.reference import (
    Reference,
    check_reference,
    embed_reference,
    make_encoder,
    make_reference,
    reference_for,
)
from data_pipelines.curation.thresholds import People, Rates, Standard, measure_standard
from data_pipelines.curation.verdicts import DUPLICATE, OUTLYING, REASONS, Judged, by_reason, judge
from data_pipelines.portraits.source import Anchor
from data_pipelines.portraits.step import STEP as IMAGES
from data_pipelines.portraits.step import Images, read_images
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.json_reader import parse_json

STEP = "curation"
VERSION = 2
"""Incremented whenever the same portraits and settings would give other verdicts."""

KEPT, DROPPED, MEASURED, EMBEDDINGS, PAGE = (
    "kept.jsonl",
    "dropped.jsonl",
    "measured.jsonl",
    "embeddings.npz",
    "report.html",
)


class Kept(NamedTuple):
    """An identity that is kept, and its portraits that are."""

    anchor: Anchor
    files: tuple[str, ...]  # names, by index


def curate(
    directory: str | os.PathLike,
    images: str | os.PathLike,
    *,
    keep: int = 774,
    seed: int,
    encoder: str | os.PathLike | None = None,
    reference: str | os.PathLike | None = None,
    sizes: Reference | None = None,
    rates: Rates | None = None,
    fewest: int = 60,
    workers: int = 2,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Curates portraits, unless that is done, and returns the report.

    Args:
      directory: the step's own.
      images: the directory of a finished step *images*.
      keep: identities to keep.
      seed: of the encoder, and of the other people that it is trained on.
      encoder: a file of weights, or ``module:attribute`` (``encoder.load_encoder``); None: train one.
      reference: a finished step *images* of other people with right annotations; None: draw some, as the data set is drawn.
      sizes: how much is drawn of other people, and how the encoder is trained; None: ``reference_for`` so many anchors.
      rates: the mistakes that are accepted, which set the thresholds.
      fewest: portraits that an identity must have left.
      workers: processes; the result does not depend on their number.
      say: called with a line when files of an earlier run are not used, and with the progress.

    Raises InputError if fewer than ``keep`` identities pass (``report.html`` and ``dropped.jsonl`` then say why), for
    damaged portraits, and for a reference or an encoder that is none.
    """
    for name, value, least in (("keep", keep, 1), ("fewest", fewest, 1), ("workers", workers, 1), ("seed", seed, 0)):
        if value < least:
            raise InputError(f"is {value}; {least} or more would be right", name)
    directory, rates = Path(directory), rates or Rates()
    source = read_images(images)
    sizes = sizes or reference_for(len(source.anchors))
    if len(source.anchors) < keep:
        raise InputError(
            f"has {len(source.anchors):,} anchors, of which {keep:,} are to be kept; more would be right", images
        )
    check_reference(source, reference)
    steps.begin_step(directory, STEP)
    others = directory / "others"
    found = make_reference(others / "images", source, reference, sizes, seed, workers=workers, say=say)
    if encoder is None:
        encoder = make_encoder(others / "encoder", found, sizes, seed, say=say)
    name = os.fspath(encoder)
    trained, held_out, altered = embed_reference(others, found, name, sizes, seed, workers=workers, say=say)
    portraits = make_embeddings(directory / "embeddings", source, name, workers=workers, say=say)

    settings = {
        "images": steps.step_digest(images, IMAGES),
        "reference": steps.step_digest(found.directory, IMAGES),
        "encoder": encoder_settings(name),
        "keep": keep,
        "fewest": fewest,
        "seed": seed,
        "rates": dataclasses.asdict(rates),
        "altered": sizes.altered,
        "held_out": len(held_out.anchors),
        "version": VERSION,
    }
    verdict = _Verdict(People(source.anchors, portraits), trained, held_out, altered, rates, keep, fewest, source)
    parts: dict[str, Callable[[], bytes]] = {
        MEASURED: verdict.measured_lines,
        DROPPED: verdict.dropped_lines,
        PAGE: verdict.page,
        EMBEDDINGS: verdict.embeddings,
        KEPT: functools.partial(verdict.kept_lines, directory / PAGE),
    }
    steps.run_step(directory, STEP, settings, parts, verdict.report, say=say)
    return files.read_json(directory / steps.REPORT)


def read_curated(directory: str | os.PathLike) -> list[Kept]:
    """Returns the identities that are kept, by number. Raises InputError for a step that is not finished or was changed."""
    kept = []
    for where, entry in read_lines(directory, KEPT):
        try:
            anchor = Anchor(int(entry["identity_id"]), entry["region"], entry["gender"], entry["age"])
            kept.append(Kept(anchor, tuple(entry["files"])))
        except (TypeError, KeyError, ValueError) as error:
            raise InputError(f"not a line of the step {STEP!r} ({error})", where) from error
    return kept


def read_lines(directory: str | os.PathLike, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (where it is, object) for the lines of ``KEPT``, ``DROPPED`` or ``MEASURED``. Raises as :func:`read_curated`."""
    path = steps.checked(Path(directory) / name, STEP, steps.finished(directory, STEP)["files"][name])
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        where = f"{path} line {number}"
        yield where, parse_json(line, where)


@dataclasses.dataclass(frozen=True)
class _Verdict:
    """The verdict on all identities, worked out when a file first needs it."""

    people: People
    trained: People
    held_out: People
    altered: Sequence[Any]
    rates: Rates
    keep: int
    fewest: int
    images: Images

    @functools.cached_property
    def standard(self) -> Standard:
        return measure_standard(self.trained, self.held_out, self.altered, self.rates)

    @functools.cached_property
    def judged(self) -> list[Judged]:
        return judge(self.people, self.standard, keep=self.keep, fewest=self.fewest)

    @functools.cached_property
    def kept(self) -> list[Judged]:
        return [one for one in self.judged if one.dropped is None]

    def kept_lines(self, page: Path) -> bytes:
        if len(self.kept) < self.keep:
            anchors = len(self.judged)
            wanted = -(-self.keep * anchors // max(len(self.kept), 1))
            raise InputError(
                f"{len(self.kept):,} of {anchors:,} anchors pass, and {self.keep:,} are to be kept; about {wanted:,} anchors"
                f" would be right ({page} shows who was dropped)",
                self.images.directory,
            )
        return steps.jsonl(
            [{**_annotated(one.anchor), "files": [one.portraits.names[row] for row in one.rows]} for one in self.kept]
        )

    def dropped_lines(self) -> bytes:
        rows: list[dict[str, Any]] = []
        for one in self.judged:
            identity = {"identity_id": one.anchor.identity_id}
            if one.dropped is not None:
                rows.append({**identity, "file": None, **dataclasses.asdict(one.dropped)})
            for row, why in sorted(one.files.items()):
                rows.append({**identity, "file": one.portraits.names[row], **dataclasses.asdict(why)})
        return steps.jsonl(rows)

    def measured_lines(self) -> bytes:
        return steps.jsonl(
            [{**_annotated(one.anchor), "kept": one.dropped is None, **one.measures()} for one in self.judged]
        )

    def embeddings(self) -> bytes:
        buffer = io.BytesIO()
        np.savez(
            buffer,
            names=np.array([one.portraits.names[row] for one in self.kept for row in one.rows]),
            vectors=np.concatenate([one.portraits.vectors[one.rows] for one in self.kept] or [np.zeros((0, 0))]).astype(
                np.float16
            ),
            numbers=np.repeat([one.anchor.number for one in self.kept], [len(one.rows) for one in self.kept]).astype(
                np.int32
            ),
        )
        return buffer.getvalue()

    def page(self) -> bytes:
        return report_page(self.judged, self.report(), self.images).encode()

    def report(self) -> dict[str, Any]:
        left = [len(one.rows) for one in self.kept]
        reasons = by_reason(self.judged)
        files_dropped = collections.Counter(why.reason for one in self.kept for why in one.files.values())
        return {
            "anchors": len(self.judged),
            "portraits": sum(len(one.portraits.names) for one in self.judged),
            "kept": {
                "identities": len(self.kept),
                "portraits": sum(left),
                "portraits_of_an_identity": {
                    "least": min(left, default=0),
                    "mean": round(float(np.mean(left or [0])), 2),
                    "most": max(left, default=0),
                },
                **{
                    field: dict(sorted(collections.Counter(getattr(one.anchor, field) for one in self.kept).items()))
                    for field in ("region", "gender", "age")
                },
            },
            "dropped_identities": {reason: len(reasons[reason]) for reason in REASONS},
            "dropped_portraits_of_kept_identities": {reason: files_dropped[reason] for reason in (DUPLICATE, OUTLYING)},
            "standard": dict(self.standard.report),
        }


def _annotated(anchor: Anchor) -> dict[str, str]:
    return {
        "identity_id": anchor.identity_id,
        "region": anchor.region,
        "gender": anchor.gender,
        "age": anchor.age,
    }
