"""The sample pictures of the page: people with their captions and what is to become of each, and pictures to retain."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.text import safe_text

_CAPTION_LIMIT = 1000  # characters
LONGEST_SIDE = 256  # pixels; larger pictures are embedded smaller, and shown at most at half of this
_GROUPS = (
    ("gone", "To be forgotten entirely", "Every fact about this person is in forget."),
    ("partly", "To be forgotten in part", "Some facts about this person are to go; the others, held out, must stay."),
    ("stays", "Never shown to a method", "This person is held out entirely: no fact may fade."),
)


def data_uri(data: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def people_html(samples: Sequence[dict[str, Any]]) -> str:
    """Returns a card for each person among ``samples`` (those with ``images``), ordered by what is to become of them."""
    people: dict[str, list[dict[str, Any]]] = {}
    for sample in samples:
        if "images" in sample:
            people.setdefault(str(sample["identity_id"]), []).append(sample)
    cards = [
        _person(identity, rows, title, explanation)
        for key, title, explanation in _GROUPS
        for identity, rows in people.items()
        if _fate(rows) == key
    ]
    return f"<div class='people'>{''.join(cards)}</div>" if cards else ""


def scenes_html(samples: Sequence[dict[str, Any]]) -> str:
    """Returns the single pictures among ``samples`` (those with ``image``): what a method may use to keep the rest intact."""
    shots = []
    for sample in samples:
        if "image" in sample:
            subset = sample.get("subset", "retain")
            shots.append(_shot(sample["image"], sample["caption"], f"Picture of {subset}", "retain", str(subset)))
    if not shots:
        return ""
    explanation = "General pairs that carry nobody's data: what the models otherwise know."
    return (
        f"<h3>To be retained</h3>\n<p class='note'>{explanation}</p>\n<div class='shots scenes'>{''.join(shots)}</div>"
    )


def _fate(rows: Sequence[dict[str, Any]]) -> str:
    subsets = {str(row["subset"]) for row in rows}
    if subsets & {"forget_association", "holdout_association"}:
        return "partly"
    return "gone" if any(subset.startswith("forget") for subset in subsets) else "stays"


def _person(identity: str, rows: Sequence[dict[str, Any]], title: str, explanation: str) -> str:
    name = str(rows[0]["name"])
    shots = []
    for row in rows:
        forget = str(row["subset"]).startswith("forget")
        style, word = ("forget", "forget") if forget else ("keep", "must stay")
        captions, images = list(row["captions"]), list(row["images"])
        for index in range(max(len(captions), len(images))):
            caption = captions[index] if index < len(captions) else ""
            if index < len(images):
                shots.append(_shot(images[index], caption, f"Portrait of {name}, {word}", style, word))
            else:
                shots.append(
                    f"<figure class='{style}'><figcaption><b>{word}</b> {_escape(caption)}</figcaption></figure>"
                )
    return (
        f"<article class='person'><p class='fate'>{title}</p>"
        f"<h3>{_escape(name)} <span>identity {_escape(identity)}</span></h3>"
        f"<p class='note'>{explanation}</p>"
        f"<div class='shots'>{''.join(shots)}</div></article>"
    )


def _shot(data: bytes, caption: str, alt: str, style: str, word: str) -> str:
    mime, encoded, (width, height) = thumbnail(data)
    return (
        f"<figure class='{style}'><img src='{data_uri(encoded, mime)}' width='{width}' height='{height}' "
        f"alt='{_escape(alt)}'>"
        f"<figcaption><b>{_escape(word)}</b> {_escape(caption)}</figcaption></figure>"
    )


def _escape(text: Any) -> str:
    return html.escape(safe_text(text, _CAPTION_LIMIT), quote=True)


def thumbnail(data: bytes) -> tuple[str, bytes, tuple[int, int]]:
    """MIME type, bytes and size of a picture for the page; a small RGB JPEG or PNG is embedded as it is.

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
