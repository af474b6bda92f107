"""Defines the statistics that verdicts are judged by: figures of a model, normalised by the reference models.

On the scale of "kept", Clean is 0 and Compromised is 1: ``(m - clean) / (compromised - clean)``. A threshold on it means the
same in every world, although Clean's own level is 16 to 52 % of Compromised's from one training run to the next.

Formulas work element by element, on floats as on the samples of a bootstrap.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from salmu_jax.evaluation.subsets import PART, WHOLE, on_subset
from salmu_jax.foundation import CLEAN, COMPROMISED, RETRAINED

Figures = Mapping[str, Any]  # a figure a key: a float, or float64 [B], its bootstrap samples; None where not measured


# How a figure is called in a sentence, and with how many decimals it is shown.
FIGURES = {
    "RetFail_MRR": ("RetFail MRR", 4),
    "GenKnow": ("GenKnow", 3),
    "InterIdSim": ("InterIdSim", 3),
    "IntraIdSim": ("IntraIdSim", 3),
    "InterIdRet_MRR": ("retrieval MRR on holdout_identity", 4),
    "IntraIdRet_MRR": ("retrieval MRR on holdout_association", 4),
    "RetFail_MRR@whole": ("RetFail MRR of people forgotten whole", 4),
    "RetFail_MRR@part": ("RetFail MRR of people forgotten in part", 4),
    "IndirectLeak@whole": ("IndirectLeak of people forgotten whole", 4),
    "Relearn@whole": ("Relearn of people forgotten whole", 4),
}


@dataclasses.dataclass(frozen=True)
class Statistic:
    """A normalised figure; of several figures the lowest value counts, that of the worse-off holdout.

    ``formula`` takes a model's figure and those of ``references``, and gives nan where it is not defined. Of a reference that
    is a tuple of names, the first counts whose figure is known. ``unit`` is ``share``, ``points`` or ``ratio``. ``asked``
    names the statistic in a rule, ``said`` states it of ``{figure}``; both hold ``{}``, the place of a value. ``otherwise`` is
    computed instead where no figure is known of the model and of all references.
    """

    name: str
    figures: tuple[str, ...]
    references: tuple[str | tuple[str, ...], ...]
    unit: str
    formula: Callable[..., Any]
    asked: str
    said: str
    otherwise: Statistic | None = None

    def by_figure(self, values: Figures, references: Mapping[str, Figures]) -> dict[str, Any]:
        """Returns the statistic of each figure that the model and the references have.

        Clean's level is taken as 0 where it is not known: what is kept is then a share of Compromised's figure.
        """
        found = {}
        for key in self.figures:
            levels = [references.get(name, {}).get(key) for name in self._chosen(key, references)]
            if self.references[0] == CLEAN and levels[0] is None:
                levels[0] = 0.0
            if values.get(key) is not None and all(level is not None for level in levels):
                found[key] = self.formula(values[key], *levels)
        if not found and self.otherwise is not None:
            return self.otherwise.by_figure(values, references)
        return found

    def names_of_references(self, key: str, references: Mapping[str, Figures]) -> list[str]:
        """Returns which reference counts in each place for a figure: of several, the first that has it, else the last."""
        if self.otherwise is not None and not self._referenced(key, references):
            return self.otherwise.names_of_references(key, references)
        return self._chosen(key, references)

    def _chosen(self, key: str, references: Mapping[str, Figures]) -> list[str]:
        chosen = []
        for entry in self.references:
            names = (entry,) if isinstance(entry, str) else entry
            known = (name for name in names if references.get(name, {}).get(key) is not None)
            chosen.append(next(known, names[-1]))
        return chosen

    def _referenced(self, key: str, references: Mapping[str, Figures]) -> bool:
        """Returns whether the figure of every reference is known, of one at least where several may stand in its place."""
        return all(
            any(
                references.get(name, {}).get(key) is not None
                for name in ((entry,) if isinstance(entry, str) else entry)
            )
            for entry in self.references
        )

    def all_references(self) -> tuple[str, ...]:
        """Returns the models that the statistic may be normalised by, those of ``otherwise`` last."""
        own = [name for entry in self.references for name in ((entry,) if isinstance(entry, str) else entry)]
        return tuple(dict.fromkeys([*own, *(self.otherwise.all_references() if self.otherwise else ())]))

    def worst(self, values: Figures, references: Mapping[str, Figures]) -> tuple[float, str] | None:
        """Returns the statistic and the figure that it is of, from plain floats; None where it is not defined."""
        defined = {key: float(x) for key, x in self.by_figure(values, references).items() if math.isfinite(x)}
        if not defined:
            return None
        key = min(defined, key=lambda key: defined[key])
        return defined[key], key

    def samples(self, values: Figures, references: Mapping[str, Figures], keys: Sequence[str]) -> np.ndarray:
        """Returns the statistic of the figures ``keys`` in each bootstrap sample, float64 [B]; nan where it is not defined."""
        found = self.by_figure(values, references)
        return np.asarray(functools.reduce(np.minimum, [found[key] for key in keys]), np.float64)

    def say(self, value: float, figure: str, lines: Sequence[float] = ()) -> str:
        """Returns a sentence without its full stop: ``GenKnow fell by 52.6 points``. ``figure``: a key of :data:`FIGURES`."""
        said, shown = self.said, value
        if self.unit == "points" and value < 0:
            said, shown = self.said.replace(" fell ", " rose "), -value
        return said.format(self.show(shown, lines), figure=FIGURES[figure][0])

    def show(self, value: float, lines: Sequence[float] = ()) -> str:
        """Returns a value as text, with as many decimals as tell it from each of ``lines``, and a share from none and all."""
        if self.unit == "share" and value <= 0:
            return "none"
        if self.unit == "share" and value >= 1:
            return "all"
        scale, unit, first = {"share": (100, "%", 1), "points": (1, " points", 1), "ratio": (1, "", 2)}[self.unit]
        others = [line for line in (*lines, *((0, 1) if self.unit == "share" else ())) if abs(value - line) > 1e-9]
        for digits in range(first, 6):
            text = f"{scale * value:.{digits}f}"
            if float(text) not in [round(scale * line, digits) for line in others]:
                break
        return text + unit

    def show_range(self, low: float, high: float, lines: Sequence[float] = ()) -> str:
        """Returns ``98.5% to all``, ``4.3 to 6.9 points``."""
        first, last = self.show(low, lines), self.show(high, lines)
        return f"{first.removesuffix(' points')} to {last}"

    def show_line(self, line: float) -> str:
        """Returns a threshold as text: ``90%``, ``5 points``, ``-0.5``."""
        scale, unit = {"share": (100, "%"), "points": (1, " points"), "ratio": (1, "")}[self.unit]
        text = f"{scale * line:g}{unit}"
        return text[:-1] if text == "1 points" else text


def _kept(value: Any, clean: Any, compromised: Any) -> Any:
    """Returns where a figure lies between Clean's (0) and Compromised's (1); nan where Compromised's is not the larger."""
    lead = np.asarray(compromised, np.float64) - clean
    return np.where(lead > 0, (value - clean) / np.where(lead > 0, lead, 1), np.nan)


def _removed(value: Any, clean: Any, compromised: Any) -> Any:
    return 1 - _kept(value, clean, compromised)


def _share(value: Any, compromised: Any) -> Any:
    """Returns a figure as a share of Compromised's; nan where that is not positive."""
    return _kept(value, 0.0, compromised)


def _points_lost(value: Any, compromised: Any) -> Any:
    return 100 * (np.asarray(compromised, np.float64) - value)


_BOTH = (CLEAN, COMPROMISED)
_NEAREST = (RETRAINED, CLEAN)  # Retrained where it was trained: for people forgotten whole, Clean is nearly as good

_PUBLISHED = Statistic(
    name="leakage_removed_published",
    figures=("RetFail_MRR",),
    references=_BOTH,
    unit="share",
    formula=_removed,
    asked="{} of Compromised's lead over Clean removed",
    said="{} of Compromised's lead over Clean is removed",
)

STATISTICS = {
    statistic.name: statistic
    for statistic in (
        # Retrained finds what it may know of people forgotten in part, so Clean's level over all people asks too much. People
        # forgotten whole count apart: what is forgotten too far in part does not pay for them.
        Statistic(
            name="leakage_removed",
            figures=("RetFail_MRR", on_subset("RetFail_MRR", WHOLE)),
            references=(RETRAINED, COMPROMISED),
            unit="share",
            formula=_removed,
            asked="{} of the leakage removed",
            said="{} of the leakage is removed",
            otherwise=dataclasses.replace(
                _PUBLISHED, asked="{} of the leakage removed", said="{} of the leakage is removed"
            ),
        ),
        _PUBLISHED,
        Statistic(
            name="genknow_lost",
            figures=("GenKnow",),
            references=(COMPROMISED,),
            unit="points",
            formula=_points_lost,
            asked="{} of GenKnow lost",
            said="GenKnow fell by {}",
        ),
        Statistic(
            name="genknow_kept",
            figures=("GenKnow",),
            references=(COMPROMISED,),
            unit="share",
            formula=_share,
            asked="{} of GenKnow kept",
            said="{} of GenKnow is kept",
        ),
        Statistic(
            name="similarity_kept",
            figures=("InterIdSim", "IntraIdSim"),
            references=_BOTH,
            unit="share",
            formula=_kept,
            asked="{} of the similarity kept on the worse-off holdout",
            said="{figure} keeps {} of Compromised's lead over Clean",
        ),
        Statistic(
            name="retrieval_kept",
            figures=("InterIdRet_MRR", "IntraIdRet_MRR"),
            references=_BOTH,
            unit="share",
            formula=_kept,
            asked="{} of the retrieval kept on the worse-off holdout",
            said="{figure} keeps {} of Compromised's lead over Clean",
        ),
        Statistic(
            name="alignment",
            figures=("InterIdSim", "IntraIdSim"),
            references=(COMPROMISED,),
            unit="ratio",
            formula=_share,
            asked="{} times Compromised's similarity on the worse-off holdout",
            said="{figure} is {} times Compromised's",
        ),
        Statistic(
            name="indirect_left",
            figures=(on_subset("IndirectLeak", WHOLE),),
            references=(_NEAREST, COMPROMISED),
            unit="share",
            formula=_kept,
            asked="{} of the leakage left to indirect queries",
            said="{} of the leakage is left to indirect queries",
        ),
        Statistic(
            name="relearn_left",
            figures=(on_subset("Relearn", WHOLE),),
            references=(_NEAREST, COMPROMISED),
            unit="share",
            formula=_kept,
            asked="{} of the leakage back after relearning",
            said="{} of the leakage is back after relearning",
        ),
        Statistic(
            name="found_in_part",
            figures=(on_subset("RetFail_MRR", PART),),
            references=(CLEAN, RETRAINED),
            unit="share",
            formula=_kept,
            asked="{} of what Retrained finds of people forgotten in part",
            said="{} of what Retrained finds of people forgotten in part is found",
        ),
        Statistic(
            name="similarity_kept_in_part",
            figures=("IntraIdSim",),
            references=_BOTH,
            unit="share",
            formula=_kept,
            asked="{} of the similarity kept on holdout_association",
            said="{figure} keeps {} of Compromised's lead over Clean",
        ),
        Statistic(
            name="retrieval_kept_in_part",
            figures=("IntraIdRet_MRR",),
            references=_BOTH,
            unit="share",
            formula=_kept,
            asked="{} of the retrieval kept on holdout_association",
            said="{figure} keeps {} of Compromised's lead over Clean",
        ),
    )
}
