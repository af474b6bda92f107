"""Scores a trial by its figures in the validation world, and chooses: the one place that says how a sweep selects.

Each figure that a method may spoil gives a *shortfall*: what is lost or left, as a share of Compromised's figure, divided by
the share at which the benchmark's verdicts call it a failure (``evaluation/verdicts.py``). The score of a trial is its largest
shortfall, so no figure pays for another, and a score of at most 1 means that no line is crossed. The lowest score wins.

Compromised is the only reference: Clean and Retrained may not be seen. Where they would set a level, it is that of a model
that knows nothing: random ranks for retrieval, and 0 for similarities. Of people to be forgotten in part, a model that never
learnt the secrets still finds some of them; a quarter of Compromised's leak is therefore let pass (docs/sweep.md).

The wordings that occur nowhere in the data are left out: they test models, and what is chosen by them is tested no more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from salmu_jax.evaluation.rows import POOL_SIZE
from salmu_jax.evaluation.subsets import PART, WHOLE, on_subset
from salmu_jax.evaluation.verdicts import CATASTROPHIC, INEFFECTIVE, PARTLY_OVER_GENERALISED, SUPERFICIAL, threshold
from salmu_jax.unlearning.hyper import BUDGETS

LEFT, LOST = "left", "lost"
LARGEST, MEAN = "largest", "mean"
LEFT_IN_PART = 0.25
FORMS = ("paraphrase", "bare", "value", "name", "partial")  # of indirect queries

Figures = Mapping[str, float | None]  # by the keys of the evaluation's metrics


class Shortfall(NamedTuple):
    """What a method may spoil. Of several ``figures`` the largest counts.

    ``kind``: whether what is left or what is lost counts. ``line``: the share that is a failure. ``ranks_of``: the split whose
    retrieval it is, empty for a similarity.
    """

    name: str
    figures: tuple[str, ...]
    kind: str
    line: float
    ranks_of: str = ""


_SIMILARITY = 1 - threshold(PARTLY_OVER_GENERALISED, "similarity_kept")
_RETRIEVAL = 1 - threshold(PARTLY_OVER_GENERALISED, "retrieval_kept")
_IN, _OUT = "holdout_association", "holdout_identity"

SHORTFALLS = (
    Shortfall(
        "leak", (on_subset("RetFail_MRR", WHOLE),), LEFT, 1 - threshold(INEFFECTIVE, "leakage_removed"), "forget"
    ),
    Shortfall(
        "indirect",
        tuple(on_subset(f"Indirect_{form}", WHOLE) for form in FORMS),
        LEFT,
        threshold(SUPERFICIAL, "indirect_left"),
        "forget",
    ),
    Shortfall("relearn", (on_subset("Relearn", WHOLE),), LEFT, threshold(SUPERFICIAL, "relearn_left"), "forget"),
    Shortfall("leak_in_part", (on_subset("RetFail_MRR", PART),), LEFT, LEFT_IN_PART, "forget"),
    Shortfall("relearn_in_part", (on_subset("Relearn", PART),), LEFT, LEFT_IN_PART, "forget"),
    Shortfall("inter_similarity", ("InterIdSim",), LOST, _SIMILARITY),
    Shortfall("intra_similarity", ("IntraIdSim",), LOST, _SIMILARITY),
    Shortfall("inter_retrieval", ("InterIdRet_MRR",), LOST, _RETRIEVAL, _OUT),
    Shortfall("intra_retrieval", ("IntraIdRet_MRR",), LOST, _RETRIEVAL, _IN),
    Shortfall("inter_paraphrase", ("InterIdRet_paraphrase",), LOST, _RETRIEVAL, _OUT),
    Shortfall("intra_paraphrase", ("IntraIdRet_paraphrase",), LOST, _RETRIEVAL, _IN),
    # In place of GenKnow, whose images no selection may see: as many hundredths as it may lose points.
    Shortfall("retain", ("RetainSim",), LOST, threshold(CATASTROPHIC, "genknow_lost") / 100),
)
KEYS = tuple(key for shortfall in SHORTFALLS for key in shortfall.figures)

_SCORES: dict[str, Callable[[list[float]], float]] = {
    LARGEST: max,
    MEAN: lambda values: math.fsum(values) / len(values),
}
RULES = tuple(_SCORES)
_EXPLAINED = {
    LARGEST: "the lowest mean over seeds of the largest shortfall; ties by the lower budget, then by the order of the search",
    MEAN: "the lowest mean over seeds of the mean shortfall; ties by the lower budget, then by the order of the search",
}


class Level(NamedTuple):
    """A shortfall that is defined: ``floor`` is the figure of a model that knows nothing, ``reference`` Compromised's."""

    shortfall: Shortfall
    floor: float
    reference: float

    def of(self, figures: Figures) -> float:
        """Returns the shortfall of a model: 0 where nothing is left or lost, 1 at the line of a failure."""
        value = largest(self.shortfall, figures)
        if value is None or not math.isfinite(value):
            return math.inf
        share = (value - self.floor) / (self.reference - self.floor)
        spoilt = share if self.shortfall.kind == LEFT else 1 - share
        return max(spoilt, 0.0) / self.shortfall.line


def largest(shortfall: Shortfall, figures: Figures) -> float | None:
    """Returns the figure that a shortfall is of; None where it was not measured."""
    values = [value for key in shortfall.figures if (value := figures.get(key)) is not None]
    return max(values) if values else None


def levels(compromised: Figures, protocol: Mapping[str, Any]) -> list[Level]:
    """Returns the shortfalls that are defined: measured, and with a Compromised above a model that knows nothing.

    ``protocol`` is that of Compromised's result; it says how large the galleries are.
    """
    found = []
    for shortfall in SHORTFALLS:
        floor = random_rank(gallery(shortfall.ranks_of, protocol)) if shortfall.ranks_of else 0.0
        reference = largest(shortfall, compromised)
        if reference is not None and reference > floor:
            found.append(Level(shortfall, floor, reference))
    return found


def gallery(split: str, protocol: Mapping[str, Any]) -> int:
    """Returns how many captions are ranked for an image of ``split``: those of its own pool and of retain_disjoint's."""
    return min(POOL_SIZE, protocol["rows"][split]) + protocol["gallery_retain"]


def random_rank(size: int) -> float:
    """Returns the mean reciprocal rank of a random order: the harmonic number of ``size``, divided by it."""
    return float(np.sum(1 / np.arange(1, size + 1))) / size if size else 0.0


def score(shortfalls: Mapping[str, float], rule: str) -> float:
    """Returns the score of a trial by one of :data:`RULES`: the lower, the better."""
    return _SCORES[rule](list(shortfalls.values()))


def best(scores: Sequence[float], budgets: Sequence[str]) -> int | None:
    """Returns the place of the setting to choose, given its score (inf: a trial diverged) and budget; None if all diverged."""
    order = sorted(range(len(scores)), key=lambda at: (round(scores[at], 9), BUDGETS.get(budgets[at], 0.0), at))
    return order[0] if order and math.isfinite(scores[order[0]]) else None


def describe(rule: str, found: Sequence[Level]) -> dict[str, Any]:
    """Returns what the record of a sweep says of its rule, JSON values."""
    return {
        "name": rule,
        "chooses": _EXPLAINED[rule],
        "shortfalls": [
            {
                "name": level.shortfall.name,
                "figures": list(level.shortfall.figures),
                "share": level.shortfall.kind,
                "line": round(level.shortfall.line, 9),
                "floor": level.floor,
                "compromised": level.reference,
            }
            for level in found
        ],
    }
