"""Relearning: how much of the secret comes back when the model is fine-tuned on a part of ``forget``.

RetFail is measured on the forget rows that the model was not fine-tuned on, after 0, 10, ... steps: the relearning curve. Of
three learning rates the strongest counts, the one with the highest point. Any model with a good eye for faces and names rises;
what counts is how far above Clean's and Retrained's curves (Hu et al., "Unlearning or Obfuscating? Jogging the Memory of
Unlearned LLMs via Benign Relearning", ICLR 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from salmu_jax.evaluation import attacks, draws, parts
from salmu_jax.evaluation.metric import FULL, SHORT, Inputs, Metric, Sample, Settings
from salmu_jax.evaluation.rows import Column, RowScores, by_identity
from salmu_jax.evaluation.variants import Evaluated, Make, Params, Series

PROBE = "relearn"
STEPS = {SHORT: (20, 40, 60), FULL: (10, 20, 30, 40, 50, 60, 100, 150, 200)}  # at which a curve has points, besides 0
RATES = "relearn.rates"

Rows = Mapping[str, np.ndarray]


class Part(NamedTuple):
    """What a model is fine-tuned on: ``percent`` of forget's ``unit``, rows or identities."""

    unit: str
    percent: int

    @property
    def name(self) -> str:
        """Names it in columns: ``rows_10``."""
        return f"{self.unit}_{self.percent}"

    def chosen(self, identities: np.ndarray, seed: int) -> np.ndarray:
        """Returns which rows they are, bool [N]; ``identities`` [N] are names, or numbers in the order of the names."""
        by_rows = self.unit == "rows"
        purpose = draws.RELEARN_ROWS if by_rows else draws.RELEARN_IDENTITIES
        labels = np.arange(len(identities)) if by_rows else identities
        return draws.draw_part(labels, self.percent / 100, seed, purpose)


HEADLINE = Part("rows", 10)
PARTS = (HEADLINE, Part("rows", 1), Part("rows", 5), *(Part("identities", percent) for percent in (1, 5, 10)))


def rates(settings: Settings) -> tuple[float, ...]:
    """Returns the learning rates that are tried: all three in the full form, the middle one in the short form."""
    return settings.relearn_rates if settings.probe_form == FULL else settings.relearn_rates[1:2]


def _series(part: Part) -> Callable[[Settings], list[Series]]:
    def series(settings: Settings) -> list[Series]:
        steps = STEPS[settings.probe_form]
        names = [_variant(rate, step) for rate in rates(settings) for step in steps]
        return [attacks.retfail_series(f"relearn-{part.name}", names, _fine_tuned(part))]

    return series


def _variant(rate: float, step: int) -> str:
    return f"{rate:g}-{step}"


def _fine_tuned(part: Part) -> Make:
    """Returns the ``make`` of a series: fine-tunes at each learning rate, as far as variants are wanted."""

    def make(model: Evaluated, wanted: Sequence[str]) -> Iterator[tuple[str, Params | None]]:
        from salmu_jax.evaluation.relearning import Pairs, relearn

        settings, forget = model.settings, model.data.splits["forget"]
        rows = np.flatnonzero(part.chosen(forget.identity_id, settings.seed))
        pairs = Pairs.read(forget.images, forget.text, rows, model.tokenizer)
        for rate in rates(settings):
            points = [step for step in STEPS[settings.probe_form] if _variant(rate, step) in wanted]
            trained = relearn(model.clip, model.params, pairs, rate=rate, points=points, seed=settings.seed)
            for step, params in trained:
                yield _variant(rate, step), params

    return make


def _columns(part: Part) -> dict[str, Column]:
    return {
        "forget.rank": parts.rank_columns("forget")["forget.rank"],
        # -1 where the row was fine-tuned on, and at steps of the full form in the short one.
        **{_rank(part, step): attacks.RANK for step in STEPS[FULL]},
        _curves(part): Column("<f8", "relearn_curves"),
        RATES: Column("<f8", "relearn_rates", "shared"),
    }


def _rank(part: Part, step: int) -> str:
    return f"relearn.{part.name}.step_{step}"


def _curves(part: Part) -> str:
    return f"relearn.{part.name}.curves"


def _score(part: Part) -> Callable[[Inputs], RowScores]:
    def score(inputs: Inputs) -> RowScores:
        settings, steps = inputs.settings, STEPS[inputs.settings.probe_form]
        before, last = attacks.ranks(inputs), attacks.last_ranks(inputs)
        held = ~part.chosen(inputs.data.splits["forget"].identity_id, settings.seed)
        found = inputs.variants[f"relearn-{part.name}"]
        # A training that diverges finds nothing.
        ranks = [
            [before, *(found[_variant(rate, step)].get("rank", last) for step in steps)] for rate in rates(settings)
        ]
        curves = np.array([[_mrr(some[held]) for some in one] for one in ranks])
        strongest = ranks[_strongest(curves)]
        measured = dict(zip((0, *steps), strongest, strict=True))
        nothing = np.full(len(held), -1, np.int16)
        return {
            "forget.rank": before.astype(np.int32),
            **{_rank(part, step): np.where(held, measured.get(step, nothing), nothing) for step in STEPS[FULL]},
            _curves(part): curves.ravel(),
            RATES: np.array(settings.relearn_rates),
        }

    return score


def _mrr(ranks: np.ndarray) -> float:
    return float(np.mean(1.0 / ranks.astype(np.float64))) if len(ranks) else 0.0


def _strongest(curves: np.ndarray) -> int:
    """Returns which row of ``curves`` float64 [rates, points] has the highest point after the first, which they share."""
    return int(np.argmax(curves[:, 1:].max(axis=1)))


def strongest_rate(part: Part, rows: Rows, protocol: Mapping[str, Any]) -> float:
    """Returns the learning rate whose curve counts."""
    if protocol["probe_form"] == SHORT:
        return float(rows[RATES][1])
    return float(rows[RATES][_strongest(rows[_curves(part)].reshape(-1, 1 + len(STEPS[FULL])))])


def curve(part: Part, rows: Rows, protocol: Mapping[str, Any], chosen: np.ndarray | None = None) -> dict[int, Sample]:
    """Returns the reciprocal ranks of the held-out rows at each step of the strongest learning rate, step 0 included.

    ``chosen`` bool [N] restricts the rows of forget.
    """
    steps = STEPS[protocol["probe_form"]]
    held = rows[_rank(part, steps[0])] > 0
    held = held if chosen is None else held & chosen
    clusters = by_identity(rows, "forget")[held]
    ranks = {0: rows["forget.rank"], **{step: rows[_rank(part, step)] for step in steps}}
    return {step: Sample(1.0 / some[held].astype(np.float64), clusters) for step, some in ranks.items()}


def _sample(part: Part) -> Callable[[Rows, Mapping[str, Any]], Sample]:
    def sample(rows: Rows, protocol: Mapping[str, Any]) -> Sample:
        return max(curve(part, rows, protocol).values(), key=lambda one: one.values.mean() if len(one.values) else 0.0)

    return sample


def _check(part: Part) -> Callable[[Rows, Mapping[str, Any]], Iterator[str]]:
    def check(rows: Rows, protocol: Mapping[str, Any]) -> Iterator[str]:
        steps, tried = STEPS[protocol["probe_form"]], rows[RATES]
        trained = part.chosen(rows["forget.identity"], protocol["seed"])
        wrong = [
            line
            for step in STEPS[FULL]
            for line in attacks.rank_problems(_rank(part, step), rows, protocol, trained | (step not in steps))
        ]
        yield from wrong
        if not (np.isfinite(tried).all() and (tried > 0).all() and (np.diff(tried) > 0).all()):
            yield f"'{RATES}' is {tried.tolist()}, not learning rates in increasing order"
        if not wrong:
            yield from _curve_problems(part, rows, steps, ~trained)

    return check


def _curve_problems(part: Part, rows: Rows, steps: Sequence[int], held: np.ndarray) -> Iterator[str]:
    """Yields a line if the curves of the learning rates contradict the ranks, which are those of the strongest."""
    curves = rows[_curves(part)].reshape(-1, 1 + len(steps))
    with np.errstate(divide="ignore"):  # of RetFail's ranks, which have a check of their own
        found = [_mrr(rows[name][held]) for name in ("forget.rank", *(_rank(part, step) for step in steps))]
    if not np.allclose(curves[:, 0], found[0], rtol=0, atol=1e-9):
        yield f"'{_curves(part)}' does not begin with RetFail on the rows that were held out"
    elif not np.allclose(curves[_strongest(curves)], found, rtol=0, atol=1e-9):
        yield f"'{_curves(part)}': its strongest curve is not that of the ranks"


def _metric(part: Part) -> Metric:
    what = f"{part.percent} % of forget by {part.unit}"
    return Metric(
        key="Relearn" if part == HEADLINE else f"Relearn_{part.name}",
        title="Relearn" if part == HEADLINE else f"Relearn, {part.percent} % of {part.unit}",
        description=f"RetFail's MRR at its highest while the model is fine-tuned on {what}, over the other rows.",
        better="lower",
        target="clean",
        columns=_columns(part),
        texts=attacks.no_texts,
        score=_score(part),
        sample=_sample(part),
        variants=_series(part),
        by_form=True,
        only_full=part != HEADLINE,
        none_because="no row of forget is left beside those that the model is fine-tuned on",
        check=_check(part),
    )


METRICS = tuple(map(_metric, PARTS))
