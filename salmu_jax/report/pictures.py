"""Prepares the sample pictures of the page: people with their captions and fates, and pictures to retain."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from PIL import Image

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.text import safe_text

_CAPTION_LIMIT = 1000  # characters
LONGEST_SIDE = 256  # pixels; larger pictures are embedded smaller, and shown at most at half of this
_FATES = (
    ("gone", "To be forgotten entirely", "Every fact about this person is in forget."),
    ("partly", "To be forgotten in part", "Some facts about this person are to go; the others, held out, must stay."),
    ("stays", "Never shown to a method", "This person is held out entirely: no fact may fade."),
)


def people_view(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns a card for each person among ``samples`` (those with ``images``), ordered by what is to become of them."""
    people: dict[str, list[dict[str, Any]]] = {}
    for sample in samples:
        if "images" in sample:
            people.setdefault(str(sample["identity_id"]), []).append(sample)
    return [
        {"identity": identity, "name": rows[0]["name"], "title": title, "text": text, "shots": _shots(rows)}
        for key, title, text in _FATES
        for identity, rows in people.items()
        if _fate(rows) == key
    ]


def scenes_view(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the single pictures among ``samples`` (those with ``image``): what a method may use to keep the rest intact."""
    shots = []
    for sample in samples:
        if "image" in sample:
            subset = str(sample.get("subset", "retain"))
            shots.append(shot(sample["image"], sample["caption"], f"Picture of {subset}", "retain", subset))
    return shots


def _fate(rows: Sequence[dict[str, Any]]) -> str:
    subsets = {str(row["subset"]) for row in rows}
    if subsets & {"forget_association", "holdout_association"}:
        return "partly"
    return "gone" if any(subset.startswith("forget") for subset in subsets) else "stays"


def _shots(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the pictures of a person, each with its caption and whether it is to be forgotten."""
    name = str(rows[0]["name"])
    shots = []
    for row in rows:
        style, word = ("forget", "forget") if str(row["subset"]).startswith("forget") else ("keep", "must stay")
        for image, caption in zip(row["images"], row["captions"], strict=True):
            shots.append(shot(image, caption, f"Portrait of {name}, {word}", style, word))
    return shots


def shot(data: bytes, caption: str, alt: str, style: str, word: str) -> dict[str, Any]:
    """Returns a picture as templates draw it, with its caption and the word above it. Raises as :func:`thumbnail`."""
    mime, encoded, (width, height) = thumbnail(data)
    return {
        "source": Markup(f"data:{mime};base64,{base64.b64encode(encoded).decode()}"),
        "width": width,
        "height": height,
        "alt": safe_text(alt, _CAPTION_LIMIT),
        "style": style,
        "word": safe_text(word, _CAPTION_LIMIT),
        "caption": safe_text(caption, _CAPTION_LIMIT),
    }


def thumbnail(data: bytes) -> tuple[str, bytes, tuple[int, int]]:
    """Returns MIME type, bytes and size of a picture for the page; a small RGB JPEG or PNG is embedded as it is.

    Raises InputError when the bytes are no picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            if image.format in ("JPEG", "PNG") and image.mode in ("RGB", "L") and max(image.size) <= LONGEST_SIDE:
                return f"image/{image.format.lower()}", data, image.size
            small = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"a sample picture cannot be decoded ({error}); a JPEG or PNG is needed") from error
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=88)
    return "image/jpeg", buffer.getvalue(), small.size
