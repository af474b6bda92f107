"""A small world without a fault, as rows and JSON values in memory: tests plant one defect, then write it."""

from __future__ import annotations

import copy
import functools
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from data_pipelines.layout import DATA_FIELDS, Pair, pair_members, write_tar
from data_pipelines.layout.parquet import SCHEMA
from data_pipelines.world.captions import sensitive_caption
from data_pipelines.world.personas import Persona, make_personas
from salmu_jax.runtime import files

KINDS = ("forget", "partial", "partial", "holdout_identity")  # of the four people


@functools.cache
def picture(seed: int, size: tuple[int, int] = (24, 16), kind: str = "JPEG") -> bytes:
    """An encoded picture of noise, ``size`` across and down."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


@functools.cache
def people() -> tuple[Persona, ...]:
    return tuple(make_personas(5, len(KINDS)))


class GoodWorld:
    """Four people: one to forget, two in part, one held out; all attributes of each in two pairs, or ``pairs``.

    Attributes:
      rows: the rows of each split as dicts; ``sensitive`` only if a test adds it (:meth:`add_union`).
      json: the JSON files by name.
      retain: (member, bytes) of each tar of retain pairs.
      zeroshot: (member, bytes) of the tar of the zero-shot set, and its texts by file name.
      made: whether to write ``world.json`` with counts and digests.
    """

    def __init__(self, pairs: int = 2) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {
            name: [] for name in ("forget", "holdout_association", "holdout_identity", "retain_synth")
        }
        self.made = False
        captions, generic = {}, {}
        for number, (person, kind) in enumerate(zip(people(), KINDS, strict=True)):
            for place, field in enumerate(DATA_FIELDS):
                split = ("forget", "holdout_association")[place % 2] if kind == "partial" else kind
                for pair in range(pairs):
                    name = f"{person.identity_id}_{pairs * place + pair:03d}_ar-1.50.jpg"
                    text = sensitive_caption(person, field, pair)
                    self._add(split, 100 * number + pairs * place + pair, text, person.identity_id, name)
                    captions[name] = {"caption": text, "data_field": field}
                    generic[name] = f"a portrait of somebody, number {number} {place} {pair}"
        for number in range(2):
            name = f"{people()[0].identity_id}_{90 + number:03d}_ar-1.50.jpg"
            self._add("retain_synth", 900 + number, "a person in front of bricks", people()[0].identity_id, name)
        disjoint = [f"synth_{number:06d}_ar-1.50.jpg" for number in range(4)]
        for number, name in enumerate(disjoint):
            self._add("retain_synth", 910 + number, f"a face with a hat, number {number}", None, name)
        self.json: dict[str, Any] = {
            "identities_metadata.json": {person.identity_id: person.metadata() for person in people()},
            "sensitive_set_captions_metadata.json": captions,
            "sensitive_set_generic_captions.json": generic,
            "fragile_set_ids.json": disjoint[:2],
            "fragile_set_all_similarities.json": {name: 0.1 * place for place, name in enumerate(disjoint)},
        }
        web = [Pair(f"{number:09d}", picture(950 + number), f"a dog, number {number}") for number in range(4)]
        self.retain = [[one for pair in half for one in pair_members(pair)] for half in (web[:2], web[2:])]
        self.zeroshot = [
            member
            for number in range(6)
            for member in ((f"s{number}.jpg", picture(970 + number)), (f"s{number}.cls", b"%d" % (number % 3)))
        ]
        self.texts = {
            "classnames.txt": "cat\ndog\nowl\n",
            "zeroshot_classification_templates.txt": "a {c}\nthe {c}.\n",
            "test/nshards.txt": "1\n",
        }

    def _add(self, split: str, seed: int, text: str, identity: str | None, name: str) -> None:
        image = {"bytes": picture(seed), "path": name}
        self.rows[split].append({"image": image, "text": text, "identity_id": identity, "file_name": name})

    def add_union(self) -> list[dict[str, Any]]:
        """Adds ``sensitive`` as files of its own, and returns its rows."""
        parts = [row for split in ("forget", "holdout_association", "holdout_identity") for row in self.rows[split]]
        self.rows["sensitive"] = copy.deepcopy(parts)
        return self.rows["sensitive"]

    def retext(self, split: str, row: int, text: str) -> None:
        """Changes a caption, in its metadata too."""
        entry = self.rows[split][row]
        entry["text"] = text
        self.json["sensitive_set_captions_metadata.json"][entry["file_name"]]["caption"] = text

    def row_of(self, split: str, person: int, field: str) -> int:
        """Returns the first row of a split that is about an attribute of a person."""
        captions = self.json["sensitive_set_captions_metadata.json"]
        return next(
            number
            for number, row in enumerate(self.rows[split])
            if row["identity_id"] == people()[person].identity_id and captions[row["file_name"]]["data_field"] == field
        )

    def write(self, directory: Path) -> Path:
        """Writes the world."""
        (directory / "data").mkdir(parents=True)
        for split, rows in self.rows.items():
            table = pa.Table.from_pylist(rows, schema=SCHEMA)
            pq.write_table(table, directory / "data" / f"{split}-00000-of-00001.parquet", compression="none")
        for name, value in self.json.items():
            (directory / name).write_text(json.dumps(value))
        (directory / "retain").mkdir()
        for number, members in enumerate(self.retain):
            write_tar(directory / "retain" / f"{number:05d}.tar", members)
        (directory / "zeroshot" / "test").mkdir(parents=True)
        write_tar(directory / "zeroshot" / "test" / "0.tar", self.zeroshot)
        for name, text in self.texts.items():
            (directory / "zeroshot" / name).write_text(text)
        if self.made:
            self._write_manifest(directory)
        return directory

    def _write_manifest(self, directory: Path) -> None:
        paths = sorted(path for path in directory.rglob("*") if path.is_file())
        counts = {
            "identities": {"all": 4, "forget_identity": 1, "partial": 2, "holdout_identity": 1},
            "pairs": {
                "forget": 38,
                "holdout_association": 16,
                "holdout_identity": 18,
                "retain_synth": 6,
                "sensitive": 72,
            },
            "subsets": {
                "forget_identity": 18,
                "forget_association": 20,
                "retain_joint": 2,
                "retain_disjoint": 4,
                "fragile": 2,
            },
            "retain": 4,
            "zeroshot": 6,
            "zeroshot_classes": 3,
        }
        digests = {path.relative_to(directory).as_posix(): files.sha256_file(path) for path in paths}
        manifest = {"schema": "salmu_jax.world/1", "counts": counts, "digests": digests}
        (directory / "world.json").write_text(json.dumps(manifest))
