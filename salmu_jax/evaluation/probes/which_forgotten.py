"""Which-was-forgotten (FUMA, EMNLP 2025): does the model show which pairs it was made to forget?

A method that pushes forget's pairs away leaves a mark that pairs lack which nobody asked it to forget. A logistic regression
tells rows of forget from rows of both holdouts, by five similarities that the model gives each row, standardised:

- with its own caption, with its matched caption (``matched.py``), and with its generic one if each row has one;
- the highest and the mean over RetFail's gallery, without captions about the row's own person.

Each fold of people is judged by a regression on the others, which the interval takes as they were fitted. Rows without a
matched caption are left out. A model that kept the holdouts and lost forget, as one retrained without forget has, cannot but
tell them apart: such a model gives the value to compare with, Clean only shows what chance is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from salmu_jax.evaluation import draws, parts
from salmu_jax.evaluation.auc import auc_scores
from salmu_jax.evaluation.folds import NOBODY, draw_folds
from salmu_jax.evaluation.logistic import fit_logistic
from salmu_jax.evaluation.matched import match, person_numbers, subset_numbers
from salmu_jax.evaluation.metric import Inputs, Metric, Sample, Settings
from salmu_jax.evaluation.rewording import check_has_metadata
from salmu_jax.evaluation.rows import TARGETS, Column, RowScores

if TYPE_CHECKING:
    from salmu_jax.evaluation.data import EvaluationData
    from salmu_jax.evaluation.data import Rows as DataRows

PROBE = "which_forgotten"
_BLOCK = 1_024  # images compared with the gallery at a time


def _texts(data: EvaluationData, settings: Settings) -> Mapping[str, Sequence[str]]:
    for split in TARGETS:
        check_has_metadata(data, split, PROBE)
    generic = {
        "generic captions": data.splits["forget"].generic_caption,
        "generic captions of holdouts": [text for split in TARGETS[1:] for text in data.splits[split].generic_caption],
    }
    return {
        **parts.captions(*TARGETS, "retain_synth")(data, settings),
        **{f"matched {split}": match(data, split, settings.seed).captions for split in TARGETS},
        **(generic if _has_generic(data) else {}),
    }


def _has_generic(data: EvaluationData) -> bool:
    return all(all(data.splits[split].generic_caption) for split in TARGETS)


def _score(inputs: Inputs) -> RowScores:
    splits = [inputs.data.splits[split] for split in TARGETS]
    used = np.concatenate([match(inputs.data, split, inputs.settings.seed).used for split in TARGETS])
    forgotten = np.repeat([True, False, False], [len(rows) for rows in splits])
    folds = np.where(used, _draw_folds(splits, inputs.settings.seed), NOBODY)
    judged = np.intersect1d(folds[used & forgotten], folds[used & ~forgotten])  # others have nobody to be compared with
    scores = np.zeros(len(used), np.float32)
    if len(judged):
        features = np.concatenate([_features(inputs, split) for split in TARGETS])
        scores[used] = _guess(features, forgotten[used], folds[used])
    columns = {"guess": scores, "guess_fold": np.where(np.isin(folds, judged), folds, NOBODY)}
    ends = np.cumsum([len(rows) for rows in splits])[:-1]
    return {
        f"{split}.{name}": part
        for name, values in columns.items()
        for split, part in zip(TARGETS, np.split(values, ends), strict=True)
    }


def _draw_folds(splits: Sequence[DataRows], seed: int) -> np.ndarray:
    """Returns the fold of each row of the splits together; a person of two splits is in one fold."""
    identity = person_numbers(np.concatenate([rows.identity_id for rows in splits]))
    subset = np.concatenate([subset_numbers(rows.subset) for rows in splits])
    return draw_folds(identity, subset, seed=seed, purpose=draws.GUESSED_FOLDS)


def _features(inputs: Inputs, split: str) -> np.ndarray:
    """Returns the similarities of the rows of ``split`` that have a matched caption, float64 [M, 4 or 5]."""
    from salmu_jax.evaluation.similarity import paired_similarity

    rows, matched = inputs.data.splits[split], match(inputs.data, split, inputs.settings.seed)
    images = inputs.embeddings.images[split][matched.used]
    chosen = np.flatnonzero(matched.used)
    texts = [[rows.text[row] for row in chosen], matched.captions]
    if _has_generic(inputs.data):
        texts.append([rows.generic_caption[row] for row in chosen])
    paired = [np.asarray(paired_similarity(images, inputs.embeddings.of(some))) for some in texts]
    return np.stack([*paired, *_among_gallery(inputs, images, rows.identity_id[chosen])], axis=1).astype(np.float64)


def _among_gallery(inputs: Inputs, images: np.ndarray, identity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the highest and the mean similarity of each image with RetFail's gallery, two float32 [M].

    Captions about the person ``identity`` [M] of the image are left out.
    """
    forget, retain = (inputs.data.splits[split] for split in ("forget", "retain_synth"))
    pool, general = parts.pools_of(inputs, "forget")
    texts = [forget.text[row] for row in pool]
    texts += [retain.text[row] for row in parts.disjoint_rows(inputs.data)[general]]
    about = np.append(forget.identity_id[pool], np.repeat("", len(general)))  # about nobody
    gallery = inputs.embeddings.of(texts)
    highest, mean = (np.zeros(len(images), np.float32) for _ in range(2))
    for start in range(0, len(images), _BLOCK):
        block = slice(start, start + _BLOCK)
        similarity = images[block] @ gallery.T
        own = identity[block, None] == about
        highest[block] = np.where(own, -1, similarity).max(1, initial=-1)
        mean[block] = np.where(own, 0, similarity).sum(1) / np.maximum((~own).sum(1), 1)
    return highest, mean


def _guess(features: np.ndarray, forgotten: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Returns the regression's logit of each row, float64 [M]; 0 where the other folds hold one class alone."""
    scores = np.zeros(len(folds))
    for held_out in np.unique(folds):
        train = folds != held_out
        if len(np.unique(forgotten[train])) < 2:
            continue
        centre, spread = features[train].mean(0), features[train].std(0)
        standard = (features - centre) / np.where(spread > 0, spread, 1)
        model = fit_logistic(standard[train], forgotten[train])
        scores[~train] = model.score(standard[~train])
    return scores


def _sample(rows: Mapping[str, np.ndarray], protocol: Mapping[str, Any]) -> Sample:
    fold, score, identity = (
        np.concatenate([rows[f"{split}.{name}"] for split in TARGETS]) for name in ("guess_fold", "guess", "identity")
    )
    forgotten = np.arange(len(fold)) < len(rows["forget.guess"])
    forget, others = np.flatnonzero(forgotten & (fold >= 0)), np.flatnonzero(~forgotten & (fold >= 0))
    forget = forget[np.isin(fold[forget], fold[others])]
    others = others[np.isin(fold[others], fold[forget])]  # of a subset of forget's rows, some folds may have none
    both = auc_scores(score[forget], score[others], fold[forget], fold[others]) if len(forget) else ()
    values = np.concatenate([*both, np.zeros(0)])
    return Sample(values, identity[np.append(forget, others)].astype(np.int64))


METRIC = Metric(
    key="WhichForgotten_AUC",
    title="Which-was-forgotten AUC",
    description="Chance of telling a forgotten pair from a held-out one by the similarities that the model gives them.",
    better="lower",
    target="clean",
    columns={
        **{f"{split}.guess_fold": Column("|i1", split, "shared") for split in TARGETS},  # -1: is not judged
        **{f"{split}.guess": Column("<f4", split) for split in TARGETS},
    },
    texts=_texts,
    score=_score,
    sample=_sample,
    none_because=(
        "it takes people of forget and of a holdout, two of each at least, whose captions hold their name and value, and can"
        " be matched"
    ),
)
