"""Reads what a model knows of some rows from the row scores of its result: the evaluator's metrics, on these rows alone.

No rank is computed here. A figure of a request is that metric's ``value`` where the columns of a split hold the request's
rows and no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from salmu_jax.evaluation.metric import mean
from salmu_jax.evaluation.probes import indirect, relearn
from salmu_jax.evaluation.registry import BY_KEY, COLUMNS
from salmu_jax.evaluation.result import leaderboard_row, load_result, load_rows
from salmu_jax.evaluation.rows import TARGETS

# The retrieval and the similarity of the rows of each split.
_RETRIEVAL = {
    "forget": "RetFail_MRR",
    "holdout_association": "IntraIdRet_MRR",
    "holdout_identity": "InterIdRet_MRR",
}
_SIMILARITY = {"forget": "AssocStr", "holdout_association": "IntraIdSim", "holdout_identity": "InterIdSim"}
WORDINGS = tuple(metric.key for metric in indirect.METRICS if metric.key != indirect.LEAK.key)
GENERAL = ("GenKnow", "RetainSim", "InterIdRet_MRR", "IntraIdRet_MRR", "InterIdSim", "IntraIdSim", "VisIdInt")

Chosen = Mapping[str, np.ndarray]
"""By split of :data:`~salmu_jax.evaluation.rows.TARGETS`: which of its rows, bool [N]. A split that is left out has none."""


class Measured(NamedTuple):
    """A model's result and its row scores."""

    result: Mapping[str, Any]
    rows: Mapping[str, np.ndarray]

    @classmethod
    def read(cls, path: Path) -> Measured:
        """Reads a result. Raises InputError if it or its row scores are damaged."""
        result = load_result(path)
        return cls(result, load_rows(path, result))

    @property
    def protocol(self) -> Mapping[str, Any]:
        """How it was measured."""
        return self.result["protocol"]

    def general(self) -> dict[str, float | None]:
        """Returns the figures :data:`GENERAL` of the whole model; None where one was not measured."""
        row = leaderboard_row(self.result)
        return {key: row.get(key) for key in GENERAL}

    def facts(self, chosen: Chosen) -> dict[str, Any]:
        """Returns how the portraits of some rows find their captions, whatever splits these are of.

        ``rows``; ``found``, how many portraits rank their caption first; ``rank``, the median; ``mrr``, the mean reciprocal
        rank; ``similarity``, the mean cosine. All but ``rows`` are None without rows.
        """
        reciprocal, similarity = [], []
        for split in TARGETS:
            if split in chosen:
                rows = self._of(split, chosen[split])
                reciprocal.append(BY_KEY[_RETRIEVAL[split]].sample(rows, self.protocol).values)
                similarity.append(BY_KEY[_SIMILARITY[split]].sample(rows, self.protocol).values)
        values = np.concatenate(reciprocal) if reciprocal else np.zeros(0)
        if not len(values):
            return {"rows": 0, "found": None, "rank": None, "mrr": None, "similarity": None}
        return {
            "rows": len(values),
            "found": int((values == 1).sum()),
            "rank": float(np.median(1 / values)),
            "mrr": mean(values),
            "similarity": mean(np.concatenate(similarity)),
        }

    def indirect(self, chosen: np.ndarray) -> dict[str, float | None]:
        """Returns the figures of the probe ``indirect`` on rows of ``forget``: IndirectLeak, then each of its forms."""
        rows = self._of("forget", chosen)
        return {key: BY_KEY[key].value(rows, self.protocol) for key in (indirect.LEAK.key, *WORDINGS)}

    def relearning(self, chosen: np.ndarray) -> dict[str, Any]:
        """Returns the relearning curve on those of some rows of ``forget`` that the model was not fine-tuned on.

        ``rows``, how many these are; ``curve``, the mean reciprocal rank by step; ``highest``, its highest point, None
        without rows.
        """
        rows = self._of("forget", chosen)
        samples = relearn.curve(relearn.HEADLINE, rows, self.protocol)
        return {
            "rows": len(samples[0].values),
            "curve": {str(step): mean(sample.values) for step, sample in samples.items()},
            "highest": BY_KEY["Relearn"].value(rows, self.protocol),
        }

    def chance(self, chosen: np.ndarray) -> float | None:
        """Returns the mean reciprocal rank of guesses for rows of ``forget``: the mean of ``(1 + 1/2 + ... + 1/G) / G``.

        ``G`` is the number of captions in a row's gallery. None without rows.
        """
        sizes = self.protocol["gallery"] - self.rows["forget.left_out"][chosen].astype(np.int64)
        harmonic = np.cumsum(1 / np.arange(1, self.protocol["gallery"] + 1))
        return mean(harmonic[sizes - 1] / sizes)

    def _of(self, split: str, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the row scores with some rows of one split alone."""
        return {name: values[chosen] if COLUMNS[name].length == split else values for name, values in self.rows.items()}


def left(before: float | None, after: float | None, chance: float | None) -> float | None:
    """Returns the share of a leak that is left, ``(after - chance) / (before - chance)``, at least 0.

    None where the model knew too little before to tell: less than twice what guesses find.
    """
    if before is None or after is None or chance is None or before < 2 * chance:
        return None
    return max(0.0, (after - chance) / (before - chance))


def largest(values: Sequence[float | None]) -> float | None:
    """Returns the largest of the values that are there; None if none is."""
    return max((value for value in values if value is not None), default=None)
