"""Writes the pages of ``salmu forget``, for readers without machine learning, such as a data-protection officer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from salmu_jax.report.render import decimal, percent, render

Value = Mapping[str, Any]

QUESTIONS = {
    "direct": (
        "Asked directly",
        "A portrait of the person is shown with the caption that belongs to it, hidden among others. Does the model pick it?",
    ),
    "other_words": (
        "Asked in other words",
        "The same with the fact worded otherwise, in six ways; the way that gives away most counts.",
    ),
    "relearned": (
        "After relearning",
        "The model is first trained again for a short while on a tenth of all data to be forgotten. The question is asked for"
        " the person's other rows. What comes back so soon was hidden, not removed.",
    ),
}
_ASKED_HOW = {"direct": "asked directly", "other_words": "asked in other words", "relearned": "asked after relearning"}
_NEIGHBOURS = {
    "other_facts": ("The same person's other facts", "which the request did not name"),
    "faces": ("People with the most similar faces", "by the model before"),
    "names": ("People with the most similar names", "by the model before"),
}
_WORDINGS = {
    "IndirectLeak": ("The best of the six ways below", "What somebody finds out who tries them all."),
    "Indirect_paraphrase": (
        "In the words of other captions",
        "The fact in a sentence that the data have of other people.",
    ),
    "Indirect_unseen": ("In words that occur nowhere in the data", "The fact in a sentence written for this question."),
    "Indirect_bare": ("Name and fact alone", "Without any words around them."),
    "Indirect_value": ("The fact alone", "Without the name."),
    "Indirect_name": ("The name alone", "Without the fact."),
    "Indirect_partial": ("A part of the fact", "The last digits, the part before the @, or the first word."),
    "Indirect_reverse": ("The other way round", "The caption is shown, and the portrait has to be found among others."),
    "Indirect_text_to_text": ("From a harmless caption", "A harmless caption of the portrait is shown in its place."),
}
_GENERAL = {
    "GenKnow": ("General knowledge", "The share of ordinary images that the model names rightly."),
    "RetainSim": ("Captions of images to be kept", "How well the model matches images and captions that nobody objects to."),
    "InterIdRet_MRR": ("Retrieval of other people", "Portraits of people who asked for nothing find their captions."),
    "IntraIdRet_MRR": ("Retrieval of other facts", "The same for facts that may stay, of people of whom others may go."),
    "InterIdSim": ("Similarity, other people", "How well the portraits and captions of these people match, from -1 to 1."),
    "IntraIdSim": ("Similarity, other facts", "The same for facts that may stay."),
    "VisIdInt": ("Faces with harmless captions", "How well portraits match captions without any personal fact."),
}  # fmt: skip


def request_page(value: Value, json_name: str) -> str:
    """Returns the page of an answer to one request, or to several at once; ``value`` is ``answers.answer``'s.

    ``json_name`` is the file beside the page that holds ``value``.
    """
    return render("request.html", title=_title(value["requests"]), view=_view(value), json_name=json_name)


def sequence_page(value: Value, json_name: str) -> str:
    """Returns the page of several requests; ``value`` is ``answers.sequence``'s, with the seconds of each step."""
    title = f"{len(value['requests'])} deletion requests"
    steps = [_step(value, step) for step in value["steps"]]
    questions = [
        {"title": title, "meaning": meaning, "rows": [_row_of(step, key) for step in value["steps"]]}
        for key, (title, meaning) in QUESTIONS.items()
    ]
    general = [
        (name, meaning, [step["general"][key]["after"] for step in value["steps"]])
        for key, (name, meaning) in _GENERAL.items()
    ]
    view = {
        "value": value,
        "steps": steps,
        "questions": questions,
        "general": general,
        "facts": _made(value["made"]),
        "chance": _mean(value["chance"]),
    }
    return render("requests.html", title=title, view=view, json_name=json_name)


# One request --------------------------------------------------------------------------------------------------------------


def _title(requests: Sequence[Value]) -> str:
    if len(requests) > 1:
        return f"{len(requests)} deletion requests"
    attribute = requests[0]["attribute"]
    return f"Deletion request: {requests[0]['name']}" + (f", {attribute.replace('_', ' ')}" if attribute else "")


def _view(value: Value) -> dict[str, Any]:
    return {
        "value": value,
        "findings": _findings(value),
        "questions": [
            {"title": title, "meaning": meaning, **value["summary"][key]} for key, (title, meaning) in QUESTIONS.items()
        ],
        "attributes": value["by_attribute"],
        "wordings": [
            {"title": title, "meaning": meaning, **value["other_words"][key]}
            for key, (title, meaning) in _WORDINGS.items()
        ],
        "curve": [
            (step, before, value["relearning"]["after"]["curve"][step])
            for step, before in value["relearning"]["before"]["curve"].items()
        ],
        "neighbours": [
            {"title": title, "note": note, **value["not_asked"][key]} for key, (title, note) in _NEIGHBOURS.items()
        ],
        "general": [
            {"title": title, "meaning": meaning, **value["general"][key]} for key, (title, meaning) in _GENERAL.items()
        ],
        "facts": _facts(value),
        "settings": {"options": value["models"]["run"]["options"], "settings": value["models"]["run"]["hyper"]},
    }


def _findings(value: Value) -> list[str]:
    before, after = value["asked"]["before"], value["asked"]["after"]
    found = [
        f"Asked directly, {before['found']:,} of {before['rows']:,} portraits found their own caption first among"
        f" {value['gallery']:,} before, and {after['found']:,} of {after['rows']:,} after."
    ]
    for key, words in (("other_words", "Asked in other words"), ("relearned", "After relearning")):
        one = value["summary"][key]
        if one["before"] is None or one["after"] is None:
            found.append(f"{words}: not measured, since no row of the request could be asked.")
        else:
            found.append(f"{words}, the score went from {decimal(one['before'], 4)} to {decimal(one['after'], 4)}.")
    shares = {key: one["left"] for key, one in value["summary"].items() if one["left"] is not None}
    if shares:
        most = max(shares, key=lambda key: shares[key])
        as_before = ", as much as before or more" if shares[most] >= 1 else ""
        found.append(
            f"Most is left when the question is {_ASKED_HOW[most]}: {percent(shares[most])} of the leak{as_before}."
        )
    else:
        found.append("The model knew so little of it before that nothing can be said of how much was removed.")
    return found


def _facts(value: Value) -> list[tuple[str, Any]]:
    models, run = value["models"], value["models"]["run"]
    return [
        ("method", f"{run['title']} ({run['method']})"),
        ("reference", run["reference"]),
        ("rows unlearned", run["forget_rows"]),
        ("seconds to unlearn", models["seconds"].get("unlearn")),
        ("seconds to evaluate", models["seconds"].get("evaluate")),
        ("seed of the method", run["seed"]),
        ("seed of the evaluation", models["evaluate_seed"]),
        *((f"model {side}", f"{models[side]['name']}, {models[side]['digest']}") for side in ("before", "after")),
        ("data", models["data"]["salmu"]),
        *_made(value["made"]),
    ]


def _made(made: Value) -> list[tuple[str, Any]]:
    return [(key, made.get(key)) for key in ("command", "created", "device", "versions")]


# Several ------------------------------------------------------------------------------------------------------------------


def _step(value: Value, step: Value) -> dict[str, Any]:
    rises = [one["relapse"] for one in step["requests"] if one["relapse"]]
    worst = [max((rise[key] for rise in rises if rise[key] is not None), default=None) for key in QUESTIONS]
    return {
        "model": step["model"],
        "answered": step["answered"],
        "seconds": step["seconds"],
        "worst": worst,
        "page": None if step["model"] == value["steps"][0]["model"] else f"{step['model']}.html",
    }


def _row_of(step: Value, key: str) -> dict[str, Any]:
    cells = [{"value": one[key], "gone": one["relapse"] is not None} for one in step["requests"]]
    return {"model": step["model"], "cells": cells}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
