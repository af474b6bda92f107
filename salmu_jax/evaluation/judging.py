"""Judges a model's figures by the rules of ``verdicts.py``, and says why in sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from salmu_jax.evaluation.statistics import FIGURES, STATISTICS, Figures
from salmu_jax.evaluation.verdicts import (
    FAILURE_MODES,
    GRADE,
    GRADES,
    IMPRECISE,
    INEFFECTIVE,
    LABEL,
    MEANINGS,
    MILDER,
    PROBED_BY,
    RULES,
    SUPERFICIAL,
    UNDETERMINED,
    Rule,
    cases_of,
    join,
    lines_of,
    names_of,
    qualified,
    rules_of,
    unqualified,
)
from salmu_jax.foundation import CLEAN, COMPROMISED, RETRAINED, TITLES

Intervals = Mapping[str, tuple[float, float]]


class Straddle(NamedTuple):
    """A rule whose line lies within the interval of its statistic: whether ``verdict`` ``holds`` is not certain."""

    verdict: str
    holds: bool
    statistic: str
    threshold: float
    low: float
    high: float

    def describe(self) -> str:
        """Returns ``precise (98.9% to 99.4% of the leakage removed; the line is 99%)``."""
        statistic = STATISTICS[self.statistic]
        found = statistic.show_range(self.low, self.high, lines_of(self.statistic))
        line = statistic.show_line(self.threshold)
        return f"{self.verdict} ({statistic.asked.format(found)}; the line is {line})"


@dataclasses.dataclass(frozen=True)
class Judgement:
    """The verdicts on a method: its failures, or else its grade, or ``undetermined``.

    ``reasons``: a sentence with figures for each verdict, which also says where an interval straddles a line. ``grade``:
    None where there is a failure or something was not measured. ``unprobed`` names what could show that the model is
    superficial, and was not measured; beside a failure, only what was measured of Compromised. A grade is then qualified
    (``precise as far as measured``), and the reasons say so. ``labels``: verdicts of the kind
    ``label``. ``statistics``: None where not defined. ``intervals``: those of statistics that were given.
    """

    verdicts: tuple[str, ...]
    reasons: tuple[str, ...]
    grade: str | None
    unprobed: tuple[str, ...]
    labels: tuple[str, ...]
    statistics: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    straddles: tuple[Straddle, ...]


def judge(values: Figures, intervals: Intervals, references: Mapping[str, Figures]) -> Judgement:
    """Judges a model by its figures.

    Args:
      values: the model's figures, by the keys of :data:`salmu_jax.evaluation.statistics.FIGURES`; None: not measured.
      intervals: of *statistics*, by name, as :func:`salmu_jax.evaluation.evidence.statistic_intervals` returns them.
      references: the figures of Clean, Compromised and, where it was trained, Retrained, by name. Where Clean's are not
        known, its level is taken as 0.
    """
    case = _Case(values, intervals, references)
    grade, unprobed = None, tuple[str, ...]()
    if case.found["leakage_removed"] is None:
        reasons = {UNDETERMINED: case.no_leakage()}
        doubts: list[str] = []
    else:
        failures = [name for name in FAILURE_MODES if case.holds(name) and not case.holds(MILDER.get(name))]
        doubts = [name for name in FAILURE_MODES if case.uncertain(name) and not case.holds(MILDER.get(name))]
        if failures:
            unprobed = () if {INEFFECTIVE, SUPERFICIAL} & {*failures} else case.withheld()
            reasons = {name: case.why_failed(name) for name in failures}
            reasons[failures[-1]] += _as_far_as(unprobed)
        elif unmeasured := case.unmeasured():
            reasons = {UNDETERMINED: f"No failure is seen, but {join(unmeasured)} could not be judged."}
        else:
            unprobed = case.unprobed()
            grade = next(name for name in GRADES if name == IMPRECISE or case.holds(name))
            doubts += [name for name in GRADES[: GRADES.index(grade) + 1] if case.uncertain(name)]
            reasons = {qualified(grade) if unprobed else grade: case.why_graded(grade)}
    straddles = case.straddles(doubts)
    return Judgement(
        verdicts=tuple(reasons),
        reasons=_with_doubts(reasons, straddles),
        grade=grade,
        unprobed=unprobed,
        labels=tuple(name for name in names_of(LABEL) if case.holds(name)),
        statistics={name: None if found is None else found[0] for name, found in case.found.items()},
        intervals=case.intervals,
        straddles=tuple(straddles),
    )


def _with_doubts(reasons: Mapping[str, str], straddles: Sequence[Straddle]) -> tuple[str, ...]:
    """Returns the reasons, each with what is uncertain of its verdict; the last one with what is not ruled out."""
    sentences = dict(reasons)
    for name in sentences:
        if own := [straddle.describe() for straddle in straddles if straddle.verdict == unqualified(name)]:
            sentences[name] += f" Not certain: {join(own)}."
    said = {unqualified(name) for name in sentences}
    if others := [straddle.describe() for straddle in straddles if straddle.verdict not in said]:
        sentences[[*sentences][-1]] += f" Not ruled out: {join(others)}."
    return tuple(sentences.values())


def _as_far_as(unprobed: Sequence[str]) -> str:
    """Returns a sentence that names what was not measured, and nothing if there is nothing to name."""
    verb = "was" if len(unprobed) == 1 else "were"
    return f" This is as far as measured: {join(unprobed)} {verb} not." if unprobed else ""


class _Case:
    """A model's statistics, each with the figure that it is of, and what the rules make of them."""

    def __init__(self, values: Figures, intervals: Intervals, references: Mapping[str, Figures]):
        self._values, self._references = values, references
        self.found = {name: statistic.worst(values, references) for name, statistic in STATISTICS.items()}
        self.intervals = {name: intervals[name] for name in STATISTICS if name in intervals and self.found[name]}

    def holds(self, name: str | None) -> bool:
        """Returns whether the rules of a verdict hold at the statistics themselves."""
        return self._decide(name, lambda rule: rule.holds(self._value(rule)))

    def uncertain(self, name: str) -> bool:
        """Returns whether the rules hold somewhere within the intervals, but not everywhere."""
        surely = self._decide(name, lambda rule: all(self._truths(rule)))
        return surely != self._decide(name, lambda rule: any(self._truths(rule)))

    def _decide(self, name: str | None, truth: Callable[[Rule], bool]) -> bool:
        cases = cases_of(name) if name else ()
        return any(all(self.found[rule.statistic] is not None and truth(rule) for rule in case) for case in cases)

    def _value(self, rule: Rule) -> float:
        found = self.found[rule.statistic]
        assert found is not None
        return found[0]

    def _truths(self, rule: Rule) -> list[bool]:
        return [rule.holds(x) for x in (self._value(rule), *self.intervals.get(rule.statistic, ()))]

    def straddles(self, names: Sequence[str]) -> list[Straddle]:
        """Returns the rules of ``names`` whose lines lie within the intervals of their statistics."""
        return [
            Straddle(name, self.holds(name), rule.statistic, rule.threshold, *self.intervals[rule.statistic])
            for name in names
            for rule in rules_of(name)
            if self.found[rule.statistic] and len(set(self._truths(rule))) == 2
        ]

    def unmeasured(self) -> list[str]:
        """Returns the figures that a grade asks for and that are missing; one that Compromised lacks too is not asked for,
        as long as the statistic is defined by another."""
        names = dict.fromkeys(rule.statistic for rule in RULES if rule.kind == GRADE)
        known = self._references[COMPROMISED]
        lacking: list[str] = []
        for name in names:
            statistic = STATISTICS[name]
            figures = (statistic.otherwise or statistic).figures
            missing = [key for key in figures if known.get(key) is not None and self._values.get(key) is None]
            lacking += missing if self.found[name] else figures
        return [FIGURES[key][0] for key in lacking]

    def no_leakage(self) -> str:
        """Says that Compromised has nothing to forget, or that RetFail was not measured."""
        low = RETRAINED if self._references.get(RETRAINED, {}).get("RetFail_MRR") is not None else CLEAN
        own, level, compromised = (
            figures.get("RetFail_MRR")
            for figures in (self._values, self._references.get(low, {}), self._references[COMPROMISED])
        )
        if own is None or compromised is None:
            return "RetFail was not measured, so forgetting cannot be judged."
        return (
            f"Compromised (RetFail MRR {compromised:.4f}) leaks no more than {TITLES[low]} ({level or 0:.4f}): there is "
            "nothing to forget, so no method can be judged."
        )

    def why_failed(self, name: str) -> str:
        """Returns the meaning of a failure, and each rule of its cases that hold, with figures."""
        held = [
            case for case in cases_of(name) if all(self.found[r.statistic] and r.holds(self._value(r)) for r in case)
        ]
        facts = dict.fromkeys(self._fact(rule.statistic, f", {rule.line()}") for case in held for rule in case)
        return f"{MEANINGS[name]}: {'; '.join(facts)}."

    def unprobed(self) -> tuple[str, ...]:
        """Returns what could show that a model is superficial, and was not measured."""
        return tuple(title for name, title in PROBED_BY.items() if self.found[name] is None)

    def withheld(self) -> tuple[str, ...]:
        """Returns those of :meth:`unprobed` that were measured of Compromised."""
        known = self._references[COMPROMISED]
        there = {name for name in PROBED_BY if any(known.get(key) is not None for key in STATISTICS[name].figures)}
        return tuple(title for name, title in PROBED_BY.items() if name in there and title in self.unprobed())

    def why_graded(self, name: str) -> str:
        """Returns the meaning of a grade, the statistics that grades ask for, and what the next better grade would ask."""
        rules = rules_of(name) or rules_of(GRADES[-2])
        sentence = f"{MEANINGS[name]}: {'; '.join(self._fact(rule.statistic) for rule in rules)}."
        for better in GRADES[: GRADES.index(name)][-1:]:
            missed = [rule.describe() for rule in rules_of(better) if not rule.holds(self._value(rule))]
            sentence += f" {better.capitalize()} asks for {join(missed)}."
        return sentence + _as_far_as(self.unprobed())

    def _fact(self, statistic: str, line: str = "") -> str:
        """Returns ``43.3% of the leakage is removed, less than 90% (RetFail MRR 0.2135; Clean 0.003, Compromised 0.386)``."""
        found = self.found[statistic]
        assert found is not None
        value, key = found
        title, digits = FIGURES[key]
        said = STATISTICS[statistic].say(value, key, lines_of(statistic))
        names = STATISTICS[statistic].names_of_references(key, self._references)
        levels = {name: self._references.get(name, {}).get(key) for name in names}
        others = ", ".join(f"{TITLES[name]} {x:.{digits}f}" for name, x in levels.items() if x is not None)
        own = f"{self._values[key]:.{digits}f}" if title in said else f"{title} {self._values[key]:.{digits}f}"
        return f"{said}{line} ({own}; {others})"
