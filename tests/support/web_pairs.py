"""A source of web pairs as img2dataset writes it, good or with planted bad samples, and ways to compare what is built."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.layout import write_tar
from salmu_jax.runtime import files

PARTS = ("a/00000.tar", "a/00001.tar", "b/00000.tar", "c/deep/00000.tar")
PAIRS = 6  # in each


def picture(seed: int, size: tuple[int, int] = (24, 16)) -> bytes:
    """A JPEG of random pixels; ``size`` is (height, width)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of a few bytes whose header claims 400 Mpx."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def good(number: int, index: int) -> list[tuple[str, bytes]]:
    """The three members of pair ``index`` of part ``number``; every part numbers its keys from 0."""
    key, text = f"{index:09d}", f"caption {index} of part {number}"
    facts = json.dumps({"caption": text, "key": key}).encode()
    return [(f"{key}.jpg", picture(100 * number + index)), (f"{key}.txt", text.encode()), (f"{key}.json", facts)]


def write_source(directory: Path, planted: dict[str, list[tuple[str, bytes]]] | None = None) -> Path:
    """Writes :data:`PARTS`; ``planted`` are further members, by part, behind its good pairs."""
    for number, name in enumerate(PARTS):
        members = [member for index in range(PAIRS) for member in good(number, index)]
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tar(path, members + (planted or {}).get(name, []))
    return directory


PLANTED = {
    "a/00000.tar": [
        *[("broken.jpg", picture(1)[:200]), ("broken.txt", b"cut")],
        *[("noise.jpg", b"no image"), ("noise.txt", b"noise")],
        *[("bomb.png", bomb()), ("bomb.txt", b"bomb")],
    ],
    "a/00001.tar": [
        *[("empty.jpg", picture(2)), ("empty.txt", b"")],
        *[("blank.jpg", picture(3)), ("blank.txt", " \u200b\n".encode())],
        *[("silent.jpg", picture(4)), ("silent.json", b'{"caption": null}')],
        ("alone.jpg", picture(5)),
        ("nothing.txt", b"no picture"),
    ],
    "b/00000.tar": [
        *[("latin.jpg", picture(6)), ("latin.txt", b"caf\xe9")],
        *[("nul.jpg", picture(6)), ("nul.txt", b"a\0b")],
        *[("../up.jpg", picture(6)), ("../up.txt", b"up")],
        *[("two.jpg", picture(7)), ("two.png", picture(7)), ("two.txt", b"two")],
        *[("twice.txt", b"one"), ("twice.txt", b"other"), ("twice.jpg", picture(8))],
        *good(2, 0),
    ],
}
QUARANTINED = [
    ("a/00000.tar", "a/broken", "undecodable image"),
    ("a/00000.tar", "a/noise", "undecodable image"),
    ("a/00000.tar", "a/bomb", "image too large"),
    ("a/00001.tar", "a/empty", "empty caption"),
    ("a/00001.tar", "a/blank", "empty caption"),
    ("a/00001.tar", "a/silent", "no caption"),
    ("a/00001.tar", "a/alone", "no caption"),
    ("a/00001.tar", "a/nothing", "no image"),
    ("b/00000.tar", "b/latin", "unreadable caption"),
    ("b/00000.tar", "b/nul", "unreadable caption"),
    ("b/00000.tar", "b/../up", "unusable key"),
    ("b/00000.tar", "b/two", "ambiguous"),
    ("b/00000.tar", "b/twice", "ambiguous"),
    ("b/00000.tar", "b/000000000", "recurring key"),
]


def expected_pairs() -> list[tuple[str, str, bytes]]:
    """(key, text, image) of the good pairs, in order."""
    return [
        (f"{name.rpartition('/')[0]}/{index:09d}", f"caption {index} of part {number}", picture(100 * number + index))
        for number, name in enumerate(PARTS)
        for index in range(PAIRS)
    ]


def quarantine_of(out: Path) -> list[tuple[str, str, str]]:
    """(part, key, kind) of the lines of a quarantine file."""
    lines = (out / "retain_pairs/1.0.0/quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    return [(line["part"], line["key"], line["kind"]) for line in map(json.loads, lines)]


def tree(directory: Path) -> dict[str, str]:
    """The SHA-256 of every file below a directory, by its path; without hidden ones, which say when parts were listed."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(directory).as_posix(): files.sha256_file(path) for path in paths}
