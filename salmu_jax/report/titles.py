"""Chooses what a model is called on a page: the title that its own result gives, or the name that its file has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from salmu_jax.evaluation.checks import REFERENCES
from salmu_jax.foundation import TITLES
from salmu_jax.runtime.text import safe_text

NAME_LIMIT = 64  # characters of a name

# Titles of models whose results have no run record: the references, and methods of results of schema 2.
_TITLES = {
    **TITLES,
    "finetuning": "Finetuning",
    "negativegradient": "Negative Gradient",
    "shuffledcaptions": "Shuffled Captions",
    "genericcaptions": "Generic Captions",
    "directsimilarityminimisation": "Direct Similarity Minimisation",
    "cliperase": "CLIPErase (SALMU)",
    "delete": "DELETE (SALMU)",
    "vlunlearn": "VLUnlearn",
    "multidelete": "MultiDelete",
    "descenttodelete": "Descent to Delete",
}

# Titles that methods of these names had before the papers' own forms were there under them.
_RENAMED = {("cliperase", "CLIPErase"): _TITLES["cliperase"], ("delete", "DELETE"): _TITLES["delete"]}


def run_record(result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns ``provenance.checkpoint.run`` of a result: how its model was unlearned; empty if nothing is recorded."""
    checkpoint = result["provenance"].get("checkpoint")
    record = checkpoint.get("run") if isinstance(checkpoint, dict) else None
    return record if isinstance(record, dict) else {}


def title_of(result: Mapping[str, Any]) -> str:
    """Returns the title of a result's method as its run record gives it, else the display name of its model.

    No method can take the title of a reference: it keeps the name of its model, and says what it is.
    """
    model, record = result["model"], run_record(result)
    title = record.get("title")
    if model in REFERENCES:
        return display_name(model)
    if isinstance(title, str) and title.strip() and _key(title) not in REFERENCES:
        return _RENAMED.get((str(record.get("method")), title.strip())) or safe_text(title.strip(), NAME_LIMIT)
    if _key(model) not in REFERENCES:
        return display_name(model)
    return f"method {safe_text(model, NAME_LIMIT)}"


def display_name(model: str) -> str:
    """Returns the name of a model as the literature writes it; an unknown one as it is, with spaces."""
    return _TITLES.get(_key(model)) or safe_text(model.replace("_", " "), NAME_LIMIT)


def row_title(row: Mapping[str, Any]) -> str:
    """Returns the title of a row of a leaderboard, with what tells it from others of its title and whose it is."""
    title = row.get("title") or display_name(row["model"])
    seeds = f"{row['seeds']} seeds" if row.get("seeds", 1) > 1 else ""
    beside = [safe_text(part, 160) for part in (row.get("variant"), seeds, row.get("submitter")) if part]
    return f"{title} ({'; '.join(beside)})" if beside else title


def _key(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
