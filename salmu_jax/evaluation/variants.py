"""Defines what a metric says of variants: models that are made from the evaluated one, fine-tuned or with other weights.

A metric names the series of models that it needs (``Metric.variants``). The evaluator makes them one after the other, and
``Inputs.variants`` has the row scores of each (``variant_scores.py``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from salmu_jax.evaluation.rows import RowScores

if TYPE_CHECKING:
    from salmu_jax.evaluation.data import EvaluationData
    from salmu_jax.evaluation.metric import Inputs, Metric, Settings

Params = Any
VariantScores = Mapping[str, Mapping[str, RowScores]]
"""Row scores by series and variant; a variant that could not be made has no columns."""


class Other(NamedTuple):
    """Another model of the same architecture: the digest of its checkpoint, and its parameters on the host."""

    digest: str
    params: Params


class Evaluated(NamedTuple):
    """The model that variants are made from, and what else they may depend on.

    ``compromised`` is None where there is no Compromised, or it has another architecture.
    """

    clip: Any
    params: Params
    tokenizer: Any
    data: EvaluationData
    settings: Settings
    compromised: Other | None = None


Make = Callable[[Evaluated, Sequence[str]], Iterator[tuple[str, Params | None]]]


@dataclasses.dataclass(frozen=True)
class Series:
    """Variants that are made together, one after the other, and scored alike.

    Attributes:
      name: of the series, unique among all; letters, digits, ``_`` and ``-``.
      variants: their names, in the order in which they are made. Name and series say all that a variant depends on besides
        model, data, seed and galleries.
      make: ``make(model, wanted)`` yields the name and the parameters of each wanted variant, in that order; None where it
        cannot be made, as a training that diverges. All processes iterate together, and have to get the same parameters.
      texts: ``texts(data, settings)``, what the scores need, in named groups.
      score: the row scores of one variant. Its inputs have the embeddings of ``splits`` and ``texts`` alone.
      splits: whose images the scores need.
      of_compromised: whether variants depend on Compromised, too.
    """

    name: str
    variants: tuple[str, ...]
    make: Make
    texts: Callable[[EvaluationData, Settings], Mapping[str, Sequence[str]]]
    score: Callable[[Inputs], RowScores]
    splits: tuple[str, ...] = ("forget",)
    of_compromised: bool = False


def asked(metrics: Sequence[Metric], settings: Settings) -> list[Series]:
    """Returns the series that ``metrics`` ask for, each once, in their order."""
    found: dict[str, Series] = {}
    for metric in metrics:
        if metric.variants:
            with metric.named():
                for one in metric.variants(settings):
                    found.setdefault(one.name, one)
    return list(found.values())
