"""Indirect queries: does a forget image still give its secret away to whoever words it otherwise?

RetFail's retrieval with the same pools, but the captions of forget are worded anew, own ones and distractors alike, so that
style tells nothing. Two more queries go the other ways: from a caption to its face, and from a generic caption to the
sensitive one of the same image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from salmu_jax.evaluation import parts, rewording
from salmu_jax.evaluation.metric import Inputs, Metric, Sample, Settings
from salmu_jax.evaluation.rows import Column, RowScores, by_identity

if TYPE_CHECKING:
    from salmu_jax.evaluation.data import EvaluationData

PROBE = "indirect"
_SPLIT = "forget"
_PARAPHRASE = f"{_SPLIT}.paraphrase"
_Wordings = Callable[["EvaluationData", Settings], Sequence[Sequence[str]]]


def _unseen(data: EvaluationData, settings: Settings) -> Sequence[Sequence[str]]:
    rows = rewording.check_metadata(data, _SPLIT, PROBE)
    return rewording.unseen(rows, settings.seed, rewording.times(settings))


def _bare(data: EvaluationData, settings: Settings) -> Sequence[Sequence[str]]:
    rewording.check_metadata(data, _SPLIT, PROBE)
    return [data.core_texts()[0]]


def _value(data: EvaluationData, settings: Settings) -> Sequence[Sequence[str]]:
    return [rewording.check_metadata(data, _SPLIT, PROBE).value]


def _name(data: EvaluationData, settings: Settings) -> Sequence[Sequence[str]]:
    return [rewording.check_metadata(data, _SPLIT, PROBE).name]


def _partial(data: EvaluationData, settings: Settings) -> Sequence[Sequence[str]]:
    return [[rewording.partial(value) for value in rewording.check_metadata(data, _SPLIT, PROBE).value]]


def _column(form: str) -> str:
    return f"{_SPLIT}.indirect_{form}"


def _by_rank(form: str, title: str, description: str, **fields: Any) -> Metric:
    """Returns the metric whose column holds the reciprocal ranks of a form."""
    return Metric(
        **{
            "key": f"Indirect_{form}",
            "title": title,
            "description": description,
            "better": "lower",
            "target": "clean",
            "columns": {_column(form): Column("<f8", _SPLIT, "share")},
            "sample": lambda rows, protocol: Sample(rows[_column(form)], by_identity(rows, _SPLIT)),
            **fields,
        }
    )


def _reworded(form: str, title: str, description: str, wordings: _Wordings, group: str = PROBE) -> Metric:
    """Returns the metric of a form whose texts are ``wordings``, encoded in ``group``."""

    def texts(data: EvaluationData, settings: Settings) -> Mapping[str, Sequence[str]]:
        worded = [text for texts in wordings(data, settings) for text in texts]
        return {**parts.captions("retain_synth")(data, settings), group: worded}

    def score(inputs: Inputs) -> RowScores:
        worded = wordings(inputs.data, inputs.settings)
        values = inputs.once((_reworded, form), lambda: parts.reworded_scores(inputs, _SPLIT, worded))
        return {_column(form): values}

    return _by_rank(form, title, description, texts=texts, score=score, by_form=form == "unseen")


PARAPHRASE = Metric(
    key="Indirect_paraphrase",
    title="Paraphrase",
    description="Mean reciprocal rank of a forget image's secret in the words of other forget captions.",
    better="lower",
    target="clean",
    columns=parts.paraphrase_columns(_SPLIT),
    texts=parts.paraphrase_texts(_SPLIT, PROBE),
    score=parts.paraphrase_scores(_SPLIT, PROBE),
    sample=parts.paraphrase_sample(_SPLIT),
    by_form=True,
    none_because=parts.no_paraphrase(_SPLIT),
)
REWORDED = (
    _reworded("unseen", "Unseen wording", "The same in hand-written words that occur nowhere in the data.", _unseen),
    _reworded(
        "bare", "Name and value", "The same with the bare name and value, without words around.", _bare, "name value"
    ),
    _reworded("value", "Value", "The same with the value alone.", _value),
    _reworded("name", "Name", "The same with the name alone.", _name),
    _reworded(
        "partial", "Part of value", "The same with a part of the value: last digits, local part, first word.", _partial
    ),
)


# The largest of them -----------------------------------------------------------------------------------------------------


def _leak_score(inputs: Inputs) -> RowScores:
    return {name: values for metric in (PARAPHRASE, *REWORDED) for name, values in metric.score(inputs).items()}


def _leak_texts(data: EvaluationData, settings: Settings) -> Mapping[str, Sequence[str]]:
    asked: dict[str, list[str]] = {}
    for metric in (PARAPHRASE, *REWORDED):
        for group, texts in metric.texts(data, settings).items():
            asked.setdefault(group, []).extend(texts)
    return asked


def _leak_sample(rows: Mapping[str, np.ndarray], protocol: Mapping[str, Any]) -> Sample:
    """Returns the reciprocal ranks of the form with the largest mean, of the rows that have a paraphrase.

    Where none has, they are of all rows, and of the other forms. An interval is thus of a form that has been chosen already.
    """
    there, columns = rows[f"{_SPLIT}.paraphrased"], [name for metric in REWORDED for name in metric.columns]
    if there.any():
        columns = [_PARAPHRASE, *columns]
    else:
        there = np.ones_like(there)
    values = max((rows[name][there] for name in columns), key=lambda one: float(one.sum()))  # as many rows in each
    return Sample(values, by_identity(rows, _SPLIT)[there])


LEAK = Metric(
    key="IndirectLeak",
    title="IndirectLeak",
    description="The largest of these mean reciprocal ranks, paraphrase to part of value: what the best question finds out.",
    better="lower",
    target="clean",
    columns={name: column for metric in (PARAPHRASE, *REWORDED) for name, column in metric.columns.items()},
    texts=_leak_texts,
    score=_leak_score,
    sample=_leak_sample,
    by_form=True,
)


# The other directions ----------------------------------------------------------------------------------------------------


def _reverse_score(inputs: Inputs) -> RowScores:
    """Ranks each forget caption's image among the images of the pools; those with the same caption are left out."""
    from salmu_jax.evaluation.retrieval import draw_gallery, retrieve

    rows, retain, chosen = (
        inputs.data.splits[_SPLIT],
        inputs.data.splits["retain_synth"],
        parts.disjoint_rows(inputs.data),
    )
    images, ids = inputs.embeddings.images, inputs.embeddings.bank.index(rows.text)
    retain_ids = inputs.embeddings.bank.index([retain.text[row] for row in chosen])
    gallery = draw_gallery(
        images[_SPLIT],
        ids,
        images["retain_synth"][chosen],
        retain_ids,
        seed=inputs.settings.seed,
        pools=parts.pools_of(inputs, _SPLIT),
    )
    ranks, _ = retrieve(inputs.embeddings.of(rows.text), images[_SPLIT], ids, gallery)
    return {_column("reverse"): 1.0 / ranks.astype(np.float64)}


def _generic_score(inputs: Inputs) -> RowScores:
    """Ranks each forget caption in RetFail's gallery by its similarity to the generic caption of its image."""
    rows = inputs.data.splits[_SPLIT]
    has = np.array([bool(text) for text in rows.generic_caption], bool)
    queries = inputs.embeddings.of(
        [generic or own for generic, own in zip(rows.generic_caption, rows.text, strict=True)]
    )
    ranks, _ = parts.rank_among(inputs, _SPLIT, rows.text, queries)
    return {"forget.has_generic": has, _column("text_to_text"): np.where(has, 1.0 / ranks.astype(np.float64), 0.0)}


def _generic_sample(rows: Mapping[str, np.ndarray], protocol: Mapping[str, Any]) -> Sample:
    has = rows["forget.has_generic"]
    return Sample(rows[_column("text_to_text")][has], by_identity(rows, _SPLIT)[has])


REVERSE = _by_rank(
    "reverse",
    "Caption to face",
    "Mean reciprocal rank of a forget caption's image among 2,001 images.",
    texts=parts.captions(_SPLIT, "retain_synth"),
    score=_reverse_score,
)
TEXT_TO_TEXT = _by_rank(
    "text_to_text",
    "Generic to sensitive",
    "Mean reciprocal rank of a forget caption among 2,001 by its similarity to the image's generic caption.",
    columns={
        "forget.has_generic": Column("|b1", _SPLIT, "shared"),
        _column("text_to_text"): Column("<f8", _SPLIT, "share"),
    },
    texts=lambda data, settings: {
        **parts.captions(_SPLIT, "retain_synth")(data, settings),
        "generic captions": [text for text in data.splits[_SPLIT].generic_caption if text],
    },
    score=_generic_score,
    sample=_generic_sample,
    none_because="no row of forget has a generic caption",
)
METRICS = (LEAK, PARAPHRASE, *REWORDED, REVERSE, TEXT_TO_TEXT)
