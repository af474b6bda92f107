"""Draws the report as one HTML file: who was dropped and why, with pictures inside it, and how thresholds were measured."""

from __future__ import annotations

import base64
import collections
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from data_pipelines.curation.pixels import central_square
from data_pipelines.curation.verdicts import DUPLICATE, OUTLYING, SURPLUS, Judged, by_reason
from data_pipelines.portraits.step import Images

_TEMPLATES = Path(__file__).parent / "templates"
_SIDE = 68  # px, of a picture
_SHOWN = 8  # pictures of a dropped identity
_OF_SURPLUS = 3  # of one that would have passed
_PORTRAITS = 36  # examples of dropped portraits of each kind
_FACES = 120  # of kept identities

TITLES = {
    "inconsistent": "Not one person",
    "region": "Region not as annotated",
    "gender": "Gender not as annotated",
    "age": "Age not as annotated",
    "indistinct": "Too like somebody else",
    "too few": "Too few portraits left",
    "surplus": "Passed, but not among the best",
}


def report_page(judged: Sequence[Judged], report: Mapping[str, Any], images: Images) -> str:
    """Returns the page.

    Args:
      judged: the verdict on each identity.
      report: what ``report.json`` has.
      images: the step that the portraits are of; only tars of which a picture is shown are read.
    """
    wanted = _Wanted()
    numbers = {one.anchor.identity_id: one for one in judged}
    sections = [
        {"reason": reason, "title": TITLES[reason], "entries": [_entry(one, numbers, wanted) for one in dropped]}
        for reason, dropped in by_reason(judged).items()
        if dropped
    ]
    kept = [one for one in judged if one.dropped is None]
    portraits = {reason: _dropped_portraits(kept, reason, wanted) for reason in (DUPLICATE, OUTLYING)}
    faces = [wanted.picture(one, _typical(one)[0]) for one in kept[:_FACES]]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html").render(
        report=report,
        sections=sections,
        portraits=portraits,
        faces=faces,
        pictures=wanted.read(images),
        charts=_charts(report["standard"]),
        side=_SIDE,
    )


class _Wanted:
    """The pictures that the page shows, read at once in the end."""

    def __init__(self) -> None:
        self._names: dict[int, set[str]] = collections.defaultdict(set)

    def picture(self, one: Judged, row: int, note: str = "") -> dict[str, str]:
        """Asks for a portrait; returns what the template shows of it."""
        name = one.portraits.names[row]
        self._names[one.anchor.number].add(name)
        return {"name": name, "note": note}

    def read(self, images: Images) -> dict[str, str]:
        """Returns {file name: data URI}."""
        return {
            portrait.file_name: _thumbnail(portrait.image, portrait.file_name)
            for number, names in sorted(self._names.items())
            for portrait in images.portraits(number)
            if portrait.file_name in names
        }


def _entry(one: Judged, everybody: Mapping[str, Judged], wanted: _Wanted) -> dict[str, Any]:
    """Returns what the page shows of a dropped identity."""
    why = one.dropped
    assert why is not None
    other: list[dict[str, str]] = []
    if why.reason == SURPLUS:
        rows = _typical(one)[:_OF_SURPLUS]
    elif why.reason == "inconsistent":
        ordered = sorted(one.own, key=lambda row: -one.own[row])
        rows = [*ordered[: _SHOWN // 2], *ordered[-(_SHOWN // 2) :]]
    elif why.reason == "indistinct":
        assert why.other is not None
        rows = _typical(one)[: _SHOWN // 2]
        twin = everybody[why.other]
        other = [wanted.picture(twin, row) for row in _typical(twin)[: _SHOWN // 2]]
    else:
        rows = _typical(one)[:_SHOWN]
    return {
        "identity_id": one.anchor.identity_id,
        "annotated": f"{one.anchor.region.replace('_', ' ')}, {one.anchor.gender}, {one.anchor.age}",
        "why": why,
        "pictures": [wanted.picture(one, row, f"{one.own[row]:.2f}" if row in one.own else "") for row in rows],
        "other": other,
    }


def _typical(one: Judged) -> list[int]:
    """Returns the portraits that are left, the most alike to the others first."""
    return sorted(one.rows.tolist(), key=lambda row: (-one.own[row], row)) or [0]


def _dropped_portraits(kept: Iterable[Judged], reason: str, wanted: _Wanted) -> dict[str, Any]:
    """Returns dropped portraits of kept identities, each beside the one that it repeats, or a typical one."""
    found = [(one, row) for one in kept for row, why in sorted(one.files.items()) if why.reason == reason]
    step = max(1, len(found) // _PORTRAITS)
    examples = []
    for one, row in found[::step][:_PORTRAITS]:
        why = one.files[row]
        beside = _typical(one)[0] if why.other is None else one.portraits.names.index(why.other)
        examples.append((wanted.picture(one, row, f"{why.measured:.3f}"), wanted.picture(one, beside)))
    return {"count": len(found), "examples": examples}


def _thumbnail(data: bytes, name: str) -> str:
    buffer = io.BytesIO()
    central_square(data, _SIDE, name).save(buffer, "JPEG", quality=72)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _charts(standard: Mapping[str, Any]) -> list[dict[str, Any]]:
    same, other, thresholds = standard["same_person"], standard["other_person"], standard["thresholds"]
    return [
        _chart(
            "A portrait and the other portraits of its identity",
            same["portrait_to_own_centre"],
            other["portrait_to_another_centre"],
            thresholds["portrait"],
            ("its own identity", "the nearest other identity"),
        ),
        _chart(
            "Share of portraits nearer to another identity",
            same["confusion_of_two_halves"],
            other["confusion_with_the_most_alike"],
            thresholds["distinctness"],
            ("two halves of one identity", "an identity and the most like it"),
        ),
        _chart(
            "Near duplicates",
            standard["near_duplicates"]["similarity"],
            other["portrait_to_another_centre"],
            thresholds["duplicate_similarity"],
            ("a portrait and a near duplicate of it", "the nearest other identity"),
        ),
    ]


def _chart(
    title: str, same: Mapping[str, Any], other: Mapping[str, Any], threshold: float, names: tuple[str, str]
) -> dict[str, Any]:
    """Returns two histograms as SVG paths in a box of 600 x 130, each as high as its highest bin."""
    low = min(same["histogram"]["from"], other["histogram"]["from"], threshold)
    high = max(same["histogram"]["to"], other["histogram"]["to"], threshold)
    span = max(high - low, 1e-6)

    def across(value: float) -> float:
        return round(600 * (value - low) / span, 1)

    def outline(histogram: Mapping[str, Any]) -> str:
        counts, top = histogram["counts"], max(max(histogram["counts"]), 1)
        width = (histogram["to"] - histogram["from"]) / len(counts)
        points = [f"M{across(histogram['from'])} 130"]
        for index, count in enumerate(counts):
            height = round(130 - 124 * count / top, 1)
            left, right = (across(histogram["from"] + width * edge) for edge in (index, index + 1))
            points.append(f"L{left} {height}L{right} {height}")
        return f"{''.join(points)}L{across(histogram['to'])} 130Z"

    return {
        "title": title,
        "same": outline(same["histogram"]),
        "other": outline(other["histogram"]),
        "threshold": threshold,
        "x": across(threshold),
        "low": low,
        "high": high,
        "names": names,
    }
