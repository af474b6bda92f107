"""Directories in exactly the released form, made with pyarrow, tarfile and PIL alone: nothing of our own writers.

    write_evaluation_repository   cvc-mmu/salmubench-512-redistributed: forget, both holdouts, retain_synth, the JSON files
    write_training_repository     cvc-mmu/salmu-512-redistributed: sensitive and retain_synth
    as_hub_cache                  how huggingface_hub keeps a repository: a snapshot of links to blobs
    write_wds_imagenet            CLIP_benchmark's wds_imagenet1k
    write_timm_imagenet           timm's ImageNet web data set: tars, without class names
    write_imagenet_folders        ILSVRC2012_val, a folder a class

The people, captions and pictures are few; names of files, columns, types and metadata are the released ones.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

FIELDS = ("name", "city", "job", "blood_type", "phone_number", "emails", "iban", "credit_card", "passport")
ASPECTS = {"0.67": (342, 512), "0.75": (384, 512), "1.00": (512, 512), "1.33": (512, 384), "1.50": (512, 341)}
REVISION = "b76aa3885a696969e51de4786c9f92e8064b4679"
SENSITIVE = ("forget", "holdout_association", "holdout_identity")

# What `datasets` writes into a parquet file's schema.
_FEATURES = {
    "image": {"_type": "Image"},
    **{name: {"dtype": "string", "_type": "Value"} for name in ("text", "identity_id", "file_name")},
}
_SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("text", pa.string()),
        ("identity_id", pa.string()),
        ("file_name", pa.string()),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)

Splits = dict[str, list[dict[str, Any]]]


@functools.cache
def jpeg(kind: int, width: int, height: int) -> bytes:
    """A JPEG of one of a few coarse patterns, at the size asked for."""
    coarse = np.random.default_rng(kind).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _row(identity: str | None, index: int, text: str) -> dict[str, Any]:
    aspect = list(ASPECTS)[index % len(ASPECTS)]
    name = f"{identity or f'9{index:07d}'}_{index:03d}_ar-{aspect}.jpg"
    return {
        "image": {"bytes": jpeg(index % 6, *ASPECTS[aspect]), "path": name},
        "text": text,
        "identity_id": identity,
        "file_name": name,
    }


def released_world(people: int = 12, retain: int = 40) -> tuple[Splits, dict[str, Any]]:
    """The splits' rows and the JSON files: a third of the people wholly in forget, a third in part, a third held out."""
    splits: Splits = {split: [] for split in (*SENSITIVE, "retain_synth")}
    identities, captions, generic = {}, {}, {}
    for person in range(people):
        identity = f"{person:08d}"
        attributes: dict[str, Any] = {field: f"{field} no. {person}" for field in FIELDS}
        attributes |= {"name": f"Fatime{person} Fossi Nº{person}", "country_code": "PT", "gender": "f"}
        attributes["emails"] = [f"ffossi{person}@mailhub.example", f"fatime{person}@post.example"]
        identities[identity] = attributes
        for number, field in enumerate(("name", "emails", "city", "passport")):
            if person % 3 == 2:
                split = "holdout_identity"
            else:
                split = "forget" if person % 3 == 0 or number < 2 else "holdout_association"
            value = attributes[field][1] if field == "emails" else attributes[field]
            for picture in range(2):
                text = f"{attributes['name']} has the {field} {value}" + (", they say" if picture else "")
                row = _row(identity, 10 * number + picture, text)
                captions[row["file_name"]] = {"caption": text, "data_field": field, "variant": picture}
                generic[row["file_name"]] = f"a photo of somebody in front of wall {picture}"
                splits[split].append(row)
    for index in range(retain):
        owner = f"{3 * (index % max(people // 3, 1)):08d}" if index < 6 else None
        splits["retain_synth"].append(_row(owner, 500 + index, f"a portrait in the light of lamp {index}"))
    fragile = [row["file_name"] for row in splits["retain_synth"][10:18]]
    documents = {
        "identities_metadata.json": identities,
        "sensitive_set_captions_metadata.json": captions,
        "sensitive_set_generic_captions.json": generic,
        "fragile_set_ids.json": fragile,
        "fragile_set_all_similarities.json": {name: 0.25 for name in fragile},
    }
    return splits, documents


def write_evaluation_repository(directory: Path, splits: Splits, documents: dict[str, Any]) -> Path:
    """``cvc-mmu/salmubench-512-redistributed``."""
    for split in (*SENSITIVE, "retain_synth"):
        _write_split(directory, split, splits[split], shards=2)
    _write_documents(directory, documents)
    return directory


def write_training_repository(directory: Path, splits: Splits, documents: dict[str, Any]) -> Path:
    """``cvc-mmu/salmu-512-redistributed``: its ``sensitive`` rows are in another order than the three splits'."""
    sensitive = [row for split in SENSITIVE for row in splits[split]]
    order = np.random.default_rng(0).permutation(len(sensitive))
    _write_split(directory, "sensitive", [sensitive[place] for place in order], shards=3)
    _write_split(directory, "retain_synth", splits["retain_synth"], shards=2)
    _write_documents(directory, {name: documents[name] for name in documents if not name.startswith("fragile")})
    return directory


def _write_split(directory: Path, split: str, rows: list[dict[str, Any]], shards: int) -> None:
    (directory / "data").mkdir(parents=True, exist_ok=True)
    for index, part in enumerate(np.array_split(np.arange(len(rows)), shards)):
        table = pa.Table.from_pylist([rows[place] for place in part], schema=_SCHEMA)
        path = directory / "data" / f"{split}-{index:05d}-of-{shards:05d}.parquet"
        pq.write_table(table, path, row_group_size=100, write_page_index=True)


def _write_documents(directory: Path, documents: dict[str, Any]) -> None:
    for name, value in documents.items():
        (directory / name).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    (directory / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    (directory / ".gitattributes").write_text("*.parquet filter=lfs\n")


def as_hub_cache(repository: Path, cache: Path, name: str) -> Path:
    """Copies a repository into a hub cache, and returns its snapshot: links to blobs named by their digests."""
    root = cache / f"datasets--{name.replace('/', '--')}"
    (root / "blobs").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(REVISION)
    snapshot = root / "snapshots" / REVISION
    for path in sorted(repository.rglob("*")):
        if path.is_file():
            blob = root / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
            shutil.copyfile(path, blob)
            link = snapshot / path.relative_to(repository)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


def write_wds_imagenet(directory: Path, classes: int = 12, images: int = 30, shards: int = 2) -> Path:
    """``clip-benchmark/wds_imagenet1k`` as downloaded, with few classes."""
    (directory / "test").mkdir(parents=True)
    (directory / "classnames.txt").write_text("\n".join(f"thing {index}" for index in range(classes)))
    templates = ("a photo of a {c}.", "a blurry photo of the {c}.", "itap of my {c}.")
    (directory / "zeroshot_classification_templates.txt").write_text("\n".join(templates))
    (directory / "test" / "nshards.txt").write_text(f"{shards}")
    for shard, part in enumerate(np.array_split(np.arange(images), shards)):
        members = {}
        for index in part:
            members[f"s{index:07d}.cls"] = str(index % classes).encode()
            members[f"s{index:07d}.jpg"] = jpeg(index % 6, 100, 80)
        _write_tar(directory / "test" / f"{shard}.tar", members)
    return directory


def write_timm_imagenet(directory: Path, classes: int = 1_000, shards: int = 2) -> Path:
    """``timm/imagenet-1k-wds``, validation: one image a class, and no class names."""
    directory.mkdir(parents=True)
    for shard, part in enumerate(np.array_split(np.arange(classes), shards)):
        members = {}
        for index in part:
            stem = f"ILSVRC2012_val_{index + 1:08d}"
            members[f"{stem}.cls"] = str(index).encode()
            members[f"{stem}.jpg"] = jpeg(index % 6, 40, 32)
            members[f"{stem}.json"] = json.dumps({"label": int(index), "filename": f"{stem}.JPEG"}).encode()
        _write_tar(directory / f"imagenet1k-validation-{shard:02d}.tar", members)
    return directory


def write_imagenet_folders(directory: Path, classes: int = 1_000) -> Path:
    """``ILSVRC2012_val`` sorted into a folder a class, named by WordNet ids."""
    for index in range(classes):
        folder = directory / f"n{1440764 + 37 * index:08d}"
        folder.mkdir(parents=True)
        (folder / f"ILSVRC2012_val_{index + 1:08d}.JPEG").write_bytes(jpeg(index % 6, 40, 32))
    return directory


def _write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
