"""Writes a page that shows what is in a world: counts, distributions, and pictures by split and attribute."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.audit.survey import RETAIN, ZEROSHOT, Survey
from data_pipelines.layout import DATA_FIELDS
from salmu_jax.report.charts import distribution
from salmu_jax.report.pictures import shot
from salmu_jax.report.render import render
from salmu_jax.runtime.files import write_text

MARK = '<meta name="generator" content="salmu data look">'
"""By which a page of ours is known; in ``templates/data.html``."""

_SPLITS = {
    "forget": ("forget", "To be forgotten; a method may read these pairs."),
    "holdout_association": ("keep", "Other facts about people who are forgotten in part; they must stay."),
    "holdout_identity": ("keep", "People whom a method never sees; they must stay."),
    "sensitive": ("forget", "What the Compromised model is trained on besides the retain base."),
    "retain_synth": ("retain", "Portraits with generic captions, which a method may train on."),
    RETAIN: ("retain", "General pairs of the retain base."),
    ZEROSHOT: ("retain", "Labelled images for zero-shot classification."),
}


def write_data_page(path: str | os.PathLike, survey: Survey, *, made: Mapping[str, Any]) -> None:
    """Writes the page atomically; ``made`` says how it was made, shown as it is. Raises OSError."""
    write_text(path, data_page(survey, made=made))


def data_page(survey: Survey, *, made: Mapping[str, Any]) -> str:
    """Returns the text of the page; the same arguments give the same text."""
    name = Path(survey.directory).resolve().name
    return render("data.html", title=f"The data in {name}", view=_view(survey), facts=list(made.items()))


def _view(survey: Survey) -> dict[str, Any]:
    found = dict.fromkeys(field for counts in survey.pairs.values() for field in counts if field)
    fields = [
        *(field for field in DATA_FIELDS if field in found),
        *(field for field in found if field not in DATA_FIELDS),
    ]
    top = max(survey.countries.values(), default=1)
    return {
        "rows": sum(counts.total() for counts in survey.pairs.values()),
        "people": len(survey.portraits),
        "associations": sum(survey.associations.values()),
        "fields": fields,
        "splits": [
            {
                "name": split,
                "people": survey.people[split],
                "associations": survey.associations[split],
                "total": counts.total(),
                "pairs": [counts[field] for field in fields],
            }
            for split, counts in survey.pairs.items()
        ],
        "countries": [(code, count, count / top) for code, count in sorted(survey.countries.items(), key=_by_count)],
        "panels": [panel for panel in _panels(survey) if panel["chart"]],
        "sections": [
            {"split": split, "style": _SPLITS[split][0], "text": _SPLITS[split][1], "parts": _parts(samples, split)}
            for split, samples in itertools.groupby(survey.samples, key=lambda sample: sample.split)
        ],
        "measured": survey.measured,
        "undecodable": survey.undecodable,
        "tars": survey.tars,
        "classes": survey.classes,
        "templates": survey.templates,
    }


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _panels(survey: Survey) -> list[dict[str, Any]]:
    """Returns the distributions, each with its title and the words for one value."""
    panels: list[tuple[str, str, str, Mapping[int, int] | Mapping[float, int]]] = [
        (f"CLIP tokens of {kind}", "captions", "A caption of more than 75 is cut off.", counts)
        for kind, counts in survey.tokens.items()
    ]
    panels += [
        ("Portraits of a person", "people", "Over all splits.", Counter(survey.portraits)),
        ("Pairs of an association", "associations", "A person and an attribute.", Counter(survey.pairs_an_association)),
        ("Longest side in pixels", "images", "Of the images measured.", survey.sides),
        ("Aspect ratio, width to height", "images", "Of the images measured.", survey.shapes),
    ]
    return [
        {"title": title, "unit": unit, "text": text, "chart": distribution(counts)}
        for title, unit, text, counts in panels
    ]


def _parts(samples, split: str) -> list[dict[str, Any]]:
    """Returns the samples of a split by attribute, as the page shows them."""
    style = _SPLITS[split][0]
    return [
        {
            "about": about,
            "shots": [
                shot(one.image, one.caption, f"Picture of {split}: {one.caption}", style, about or split)
                for one in group
            ],
        }
        for about, group in itertools.groupby(samples, key=lambda sample: sample.about)
    ]
