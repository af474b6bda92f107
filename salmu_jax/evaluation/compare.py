"""Compares two results over the same rows: paired differences, their intervals, and a test of each.

Both results have scored the same rows, so what an identity has in common under both models cancels. Two kinds of mean are
compared, and never mixed:

* ``row_micro``, the mean over rows, which is a metric's value: a person with many images counts more;
* ``identity_macro``, the mean of the means of each identity: all people count the same. Metrics with rows of nobody (of
  portraits that show no identity, of general images) have no such mean.

The interval of a difference is a bootstrap over identities (``intervals.py``). The test is a one-sided sign-flip test: if the
two models were alike, the difference of each identity could as well have had the other sign. Its p-value is the share of sign
assignments with a sum at least as good as the one found: of all of them where at most :data:`EXACT` identities differ, else of
:data:`FLIPS` drawn ones, (1 + how many) / (1 + draws) (Phipson and Smyth, 2010). Holm's correction makes the p-values of the
metrics of one comparison safe to read side by side (Holm, 1979).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from salmu_jax.evaluation import draws, intervals
from salmu_jax.evaluation.board import incomparable, shared_problems
from salmu_jax.evaluation.metric import Metric, Sample
from salmu_jax.evaluation.registry import comparable
from salmu_jax.evaluation.rows import RowScores
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import listed

FLIPS = 10_000  # sign assignments that are drawn
EXACT = 13  # identities, up to which all 2^13 = 8,192 assignments are computed instead
_CHUNK = 1 << 21  # signs at a time


class Difference(NamedTuple):
    """A mean of two results and their difference, ``first - second``, with its interval of 95 % (None: no bootstrap).

    ``p`` is of the one-sided test that the first result is better, ``p_holm`` corrected for all metrics of the comparison.
    """

    first: float
    second: float
    difference: float
    interval: tuple[float, float] | None
    p: float
    p_holm: float


class Comparison(NamedTuple):
    """A metric of two results, over ``rows`` rows in ``clusters`` clusters. ``identity_macro`` may be None: see above."""

    metric: Metric
    rows: int
    clusters: int
    row_micro: Difference
    identity_macro: Difference | None


def compare(
    first: Mapping[str, Any],
    first_rows: RowScores,
    second: Mapping[str, Any],
    second_rows: RowScores,
    where: str | os.PathLike | None = None,
) -> list[Comparison]:
    """Compares every metric that both results have in the same form, with the seed and the bootstrap of their protocol.

    Args:
      first, second: results, upgraded (``result.load_result``).
      first_rows, second_rows: their row scores.
      where: the file of the second result, for errors.

    Raises InputError if the two were measured on other data, or otherwise.
    """
    if fields := incomparable(second, first):
        raise InputError(f"was not measured like the first result: {listed(fields, 3)}; evaluate both alike", where)
    if problem := next(shared_problems(second_rows, first_rows), None):
        raise InputError(problem.replace("those of 'clean'", "those of the first result"), where)
    protocol = first["protocol"]
    pairs = []
    whole = [metric for metric in comparable(protocol, second["protocol"]) if not metric.of]
    for metric in whole:
        with metric.named():
            samples = metric.sample(first_rows, protocol), metric.sample(second_rows, protocol)
        if len(samples[0].values):
            pairs.append((metric, *samples))
    micro = [_row_micro(metric, one, other, protocol) for metric, one, other in pairs]
    macro = [_identity_macro(metric, one, other, protocol) for metric, one, other in pairs]
    counts = [intervals.cluster(*one).total for _, one, _ in pairs]
    return [
        Comparison(pair[0], len(pair[1].values), count, over_rows, over_people)
        for pair, count, over_rows, over_people in zip(pairs, counts, _corrected(micro), _corrected(macro), strict=True)
        if over_rows is not None
    ]


def sign_flip_p(sums: np.ndarray, *, seed: int, flips: int = FLIPS) -> float:
    """Returns the one-sided p-value of a large ``sum(sums)``, if each of ``sums`` float64 [C] had its sign by chance."""
    sums = sums[sums != 0]  # a cluster without a difference says nothing
    if not len(sums):
        return 1.0
    least = sums.sum() - 1e-12 * np.abs(sums).sum()  # sums that are equal but for rounding are equal
    if len(sums) <= EXACT:
        signs = (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1
        return float(np.mean(sums.sum() - 2 * (signs @ sums) >= least))
    width = -(-len(sums) // 8)
    drawn = draws.generator(seed, draws.SIGN_FLIPS).bytes(flips * width)
    packed = np.frombuffer(drawn, np.uint8).reshape(flips, width)
    found, step = 0, max(1, _CHUNK // len(sums))
    for start in range(0, flips, step):
        flipped = np.unpackbits(packed[start : start + step], axis=1, count=len(sums))
        found += int(np.sum(sums.sum() - 2 * (flipped.astype(np.float64) @ sums) >= least))
    return (1 + found) / (1 + flips)


def holm(p: Sequence[float]) -> list[float]:
    """Returns Holm's step-down correction of p-values, in their order."""
    order = sorted(range(len(p)), key=p.__getitem__)
    corrected, highest = [0.0] * len(p), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = highest
    return corrected


def _row_micro(metric: Metric, first: Sample, second: Sample, protocol: Mapping[str, Any]) -> Difference:
    clusters = intervals.cluster(row_differences(first, second), first.clusters)
    values = [float(np.mean(one.values, dtype=np.float64)) for one in (first, second)]
    return _tested(metric, values[0], values[1], clusters, protocol)


def _identity_macro(metric: Metric, first: Sample, second: Sample, protocol: Mapping[str, Any]) -> Difference | None:
    if first.clusters is None or (first.clusters < 0).any():
        return None
    means = [one.sums / one.rows for one in (intervals.cluster(s.values, first.clusters) for s in (first, second))]
    clusters = intervals.Clusters(means[0] - means[1], np.ones(len(means[0])))
    return _tested(metric, float(means[0].mean()), float(means[1].mean()), clusters, protocol)


def row_differences(first: Sample, second: Sample) -> np.ndarray:
    """Returns ``first - second`` of the values of two samples of the same rows, float64 [N]."""
    return first.values.astype(np.float64) - second.values.astype(np.float64)


def _tested(
    metric: Metric, first: float, second: float, clusters: intervals.Clusters, protocol: Mapping[str, Any]
) -> Difference:
    """Returns a difference with its interval and p-value; ``clusters`` are the differences."""
    interval = None
    if samples := protocol["bootstrap"]:
        interval = intervals.percentiles(intervals.bootstrap(clusters, seed=protocol["seed"], samples=samples))
    sums = clusters.sums if clusters.copies is None else np.repeat(clusters.sums, clusters.copies)
    p = sign_flip_p(sums if metric.better == "higher" else -sums, seed=protocol["seed"])
    return Difference(first, second, first - second, interval, p, p)


def _corrected(found: Sequence[Difference | None]) -> list[Difference | None]:
    """Returns differences with ``p_holm`` of all of them together."""
    corrected = iter(holm([one.p for one in found if one is not None]))
    return [None if one is None else one._replace(p_holm=next(corrected)) for one in found]


# The table ---------------------------------------------------------------------------------------------------------------

_HEAD = ("metric", "better", "A", "B", "A - B", "interval", "p", "Holm", "rows", "clusters")
_ROW = "{:<24}{:<8}{:>9}{:>9}{:>10}  {:<21}{:>8}{:>8}{:>9}{:>10}"


def format_comparison(comparisons: Sequence[Comparison], protocol: Mapping[str, Any]) -> list[str]:
    """Returns two tables, of ``row_micro`` and ``identity_macro``, as lines of text of at most 120 columns."""
    lines = [
        f"A - B with an interval of 95 %: {protocol['bootstrap']:,} samples of identities, seed {protocol['seed']}.",
        f"p: one-sided sign-flip test that A is better, {FLIPS:,} draws, or all signs of up to {EXACT} identities.",
        "Holm: p corrected for all metrics of the table.",
    ]
    for kind, meaning in (("row_micro", "means over rows"), ("identity_macro", "means of the means of identities")):
        found = [(one, getattr(one, kind)) for one in comparisons]
        lines += ["", f"{kind}: {meaning}", _ROW.format(*_HEAD)]
        lines += [_line(one, difference) for one, difference in found if difference is not None]
    return lines


def _line(one: Comparison, difference: Difference) -> str:
    interval = "-" if difference.interval is None else "[{:+.4f}, {:+.4f}]".format(*difference.interval)
    figures = [f"{value:.4f}" for value in (difference.first, difference.second)]
    return _ROW.format(
        one.metric.title[:23],
        one.metric.better,
        *figures,
        f"{difference.difference:+.4f}",
        interval,
        f"{difference.p:.4f}",
        f"{difference.p_holm:.4f}",
        f"{one.rows:,}",
        f"{one.clusters:,}",
    )
