"""Defines the contract of a metric: what a file of ``metrics/`` says, and what its functions receive.

A metric is the mean of one score per row. It says which texts to embed, how the scores follow from the embeddings
(``score``), and which scores the mean is taken over, with the rows that are resampled together (``sample``). Value, interval,
paired comparison and verification follow from these. ``docs/metrics.md`` shows how to write one.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np

from salmu_jax.evaluation.rows import Column, RowScores
from salmu_jax.evaluation.variants import Series, VariantScores
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import first_line
from salmu_jax.runtime.text import safe_text

if TYPE_CHECKING:
    from salmu_jax.evaluation.data import EvaluationData
    from salmu_jax.evaluation.embeddings import Embeddings

Value = TypeVar("Value")
SHORT, FULL = FORMS = ("short", "full")  # of probes


class Settings(NamedTuple):
    """What an evaluation depends on besides model and data.

    ``seed``: of every draw. ``idzsc_prompt``: a text with ``{name}``. ``how_drawn``: RetFail's galleries, one of
    :data:`salmu_jax.evaluation.draws.DRAWS`. ``probe_form``: how much of the probes is measured, one of :data:`FORMS`.
    ``relearn_rates``: the learning rates of relearning, in increasing order.
    """

    seed: int
    idzsc_prompt: str
    how_drawn: str = "ours"
    probe_form: str = SHORT
    relearn_rates: tuple[float, ...] = (1e-6, 1e-5, 1e-4)


def settings_of(options: Any) -> Settings:
    """Returns the settings of a config's section ``evaluate``."""
    rates = tuple(options.relearn_rates)
    return Settings(options.seed, options.idzsc_prompt, options.draws, options.probe_form, rates)


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """What scores are computed from: the data, one model's embeddings of them, the settings, and the scores of variants."""

    data: EvaluationData
    embeddings: Embeddings
    settings: Settings
    variants: VariantScores = dataclasses.field(default_factory=dict)
    _kept: dict[Hashable, Any] = dataclasses.field(default_factory=dict)

    def once(self, name: Hashable, compute: Callable[[], Value]) -> Value:
        """Returns ``compute()``, called once for all metrics that ask for ``name``."""
        if name not in self._kept:
            self._kept[name] = compute()
        return self._kept[name]


class Sample(NamedTuple):
    """The rows that a metric is the mean of.

    ``values`` [N] is one score per row, bool or float. ``clusters`` int [N] groups rows that are resampled together, those of
    one identity (``rows.by_identity``); None: each row is independent of all others.
    """

    values: np.ndarray
    clusters: np.ndarray | None


@dataclasses.dataclass(frozen=True, eq=False)
class Metric:
    """One figure of a result.

    Attributes:
      key: its name in results, at most 64 of ``A-Z a-z 0-9 _ @ . -``.
      title: its name for people.
      description: one sentence.
      better: which way is better, seen from the other reference: a metric of forgetting should fall to Clean's value, one of
        utility stay as high as Compromised's.
      columns: the arrays of row scores that ``score`` computes and ``sample`` reads, besides ``rows.DATA_COLUMNS``. Metrics
        may share one.
      texts: ``texts(data, settings)``: the texts that it needs embeddings of, in named groups (``texts.py``).
      score: computes the columns from embeddings.
      sample: ``sample(rows, protocol)``: what the value is the mean of, from row scores alone.
      target: the reference whose value a model should have, ``clean`` or ``compromised``; None: none.
      released: where the released evaluator's structure has the value, such as ``("efficacy", "1.2_AssocStr", "mean")``.
      released_rows: a field of that structure, beside the value, that lists a column: ``("scores", "forget.similarity")``.
      skipped: the released structure's value where nothing was measured.
      extra: where results have had the value since schema 2, below ``extra``.
      slack: ``slack(rows, protocol)``: by how much the value may differ on another machine; None: by rounding alone.
      by_form: whether it depends on ``settings.probe_form``. Values of two forms are not compared.
      of: the key of the metric that this one restricts to a subset of people (``subsets.py``); None: it is no such one.
      only_full: whether only the full form measures it.
      variants: ``variants(settings)``: the models made from the evaluated one that it is measured on (``variants.py``), whose
        scores are in ``inputs.variants``; None: none.
      check: ``check(rows, protocol)`` yields a line for each thing that its columns cannot be; None: nothing to check.
      none_because: why it has no value where ``sample`` has no rows, the end of a caveat ``KEY was not measured: ...``; empty:
        there is no such caveat.
      version: of the definition. Values of two versions are not compared; raise it when a value would change.
    """

    key: str
    title: str
    description: str
    better: Literal["lower", "higher"]
    columns: Mapping[str, Column]
    texts: Callable[[EvaluationData, Settings], Mapping[str, Sequence[str]]]
    score: Callable[[Inputs], RowScores]
    sample: Callable[[Mapping[str, np.ndarray], Mapping[str, Any]], Sample]
    target: Literal["clean", "compromised"] | None = None
    released: tuple[str, ...] | None = None
    released_rows: tuple[str, str] | None = None
    skipped: float | None = None
    extra: tuple[str, ...] | None = None
    slack: Callable[[Mapping[str, np.ndarray], Mapping[str, Any]], float] | None = None
    by_form: bool = False
    of: str | None = None
    only_full: bool = False
    variants: Callable[[Settings], Sequence[Series]] | None = None
    check: Callable[[Mapping[str, np.ndarray], Mapping[str, Any]], Iterator[str]] | None = None
    none_because: str = ""
    version: int = 1

    def value(self, rows: Mapping[str, np.ndarray], protocol: Mapping[str, Any]) -> float | None:
        """Returns the metric's value from row scores, or None if there are no rows."""
        return mean(self.sample(rows, protocol).values)

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Turns whatever the metric raises in the block into an InputError that names it: its file may be anybody's."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"failed with {type(error).__name__}: {safe_text(first_line(error))}", f"metric {self.key!r}"
            ) from error


def mean(values: np.ndarray) -> float | None:
    """Returns the mean in float64, or None if there are no values."""
    return float(np.mean(values, dtype=np.float64)) if len(values) else None
