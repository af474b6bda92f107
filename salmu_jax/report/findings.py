"""Says in sentences what a leaderboard shows; every figure in them is computed from the results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from salmu_jax.evaluation.verdicts import (
    CATASTROPHIC,
    FAILURE_MODES,
    GRADES,
    INEFFECTIVE,
    OVER_GENERALISED,
    PARTLY_OVER_GENERALISED,
    definition,
    qualified,
    threshold,
    unqualified,
)
from salmu_jax.report.titles import row_title
from salmu_jax.runtime.messages import listed

Row = dict[str, Any]


def findings(leaderboard: dict[str, Any]) -> list[str]:
    """Returns plain sentences, the most telling first. Which of them appear depends on the results."""
    references = {row["role"]: row for row in leaderboard["rows"]}
    clean, compromised = (references[role] for role in ("clean", "compromised"))
    methods = [row for row in leaderboard["rows"] if row["role"] == "method" and not row["control"]]
    sentences = [_memorised(clean, compromised)]
    if methods:
        sentences += _graded(methods)
        sentences += _over_generalised(methods)
        sentences += _catastrophic(methods, compromised)
        sentences += _ineffective(methods)
        sentences += _hidden_damage(methods)
    return sentences


def _memorised(clean: Row, compromised: Row) -> str:
    before, after = clean["metrics"]["RetFail_MRR"], compromised["metrics"]["RetFail_MRR"]
    times = f", {after / before:.0f} times Clean's {before:.4f}" if before and after else ""
    return f"Compromised has memorised its sensitive pairs: its RetFail MRR is {after:.3f}{times}."


def _graded(methods: Sequence[Row]) -> list[str]:
    """Says which methods have a grade, and what it asks for; or that none is free of failures."""
    sentences = []
    for verdict in (verdict for grade in GRADES for verdict in (grade, qualified(grade))):
        if rows := [row for row in methods if verdict in row["verdicts"]]:
            names = listed((row_title(row) for row in rows), 5)
            doubt = ", though not with certainty" if any(_doubtful(row, unqualified(verdict)) for row in rows) else ""
            verb = "is" if len(rows) == 1 else "are"
            sentences.append(f"{names} {verb} {verdict}{doubt}. {definition(unqualified(verdict))}")
    if not sentences and len(methods) > 1:
        sentences.append(f"None of the {len(methods)} methods is seen to avoid all failure modes.")
    return sentences


def _doubtful(row: Row, grade: str) -> bool:
    """Returns whether an interval reaches across a line of the row's own grade, or of a failure."""
    return any(one["verdict"] == grade or one["verdict"] in FAILURE_MODES for one in row["straddles"])


def _over_generalised(methods: Sequence[Row]) -> list[str]:
    """Says what the plainest case erased: one that fails in this way only, and erases most."""
    over, partly = (_showing(methods, mode) for mode in (OVER_GENERALISED, PARTLY_OVER_GENERALISED))
    alone = [row for row in over if row["verdicts"] == [OVER_GENERALISED]] or over or partly
    alone = [row for row in alone if row["holdouts_kept"] is not None]
    if not alone:
        return []
    row = min(alone, key=lambda row: row["holdouts_kept"])
    kept = row["holdouts_kept"]
    left = "nothing" if kept <= 0 else percent(kept)
    return [
        f"{row_title(row)} removes {percent(row['forgetting'])} of the leakage, and leaves {left} of what"
        " Compromised learnt of a holdout: of pairs that nobody asked to be forgotten."
    ]


def _catastrophic(methods: Sequence[Row], compromised: Row) -> list[str]:
    before = compromised["metrics"]["GenKnow"]
    measured = [row for row in _showing(methods, CATASTROPHIC) if row["metrics"]["GenKnow"] is not None]
    if not measured or before is None:
        return []
    row = min(measured, key=lambda row: row["metrics"]["GenKnow"])
    after = row["metrics"]["GenKnow"]
    return [
        f"{row_title(row)} breaks the model: general knowledge falls from {before:.3f} to {after:.3f}, "
        f"by {100 * (before - after):.1f} points."
    ]


def _ineffective(methods: Sequence[Row]) -> list[str]:
    rows = _showing(methods, INEFFECTIVE)
    if not rows:
        return []
    row = min(rows, key=lambda row: row["forgetting"])
    return [f"{row_title(row)} leaves {percent(1 - row['forgetting'])} of the leakage in place."]


def _hidden_damage(methods: Sequence[Row]) -> list[str]:
    """Says where the retrieval on a holdout fails while its similarity passes: the widest gap."""

    def hidden(row: Row) -> bool:
        similarity, retrieval = row["holdouts_kept"], row["retrieval_kept"]
        return None not in (similarity, retrieval) and any(
            retrieval < threshold(mode, "retrieval_kept") and similarity >= threshold(mode, "similarity_kept")
            for mode in (OVER_GENERALISED, PARTLY_OVER_GENERALISED)
        )

    rows = [row for row in methods if hidden(row)]
    if not rows:
        return []
    row = max(rows, key=lambda row: row["holdouts_kept"] - row["retrieval_kept"])
    left = "none" if row["retrieval_kept"] <= 0 else f"only {percent(row['retrieval_kept'])}"
    return [
        f"{row_title(row)} keeps {percent(row['holdouts_kept'])} of the similarity on the worse-off holdout but "
        f"{left} of the retrieval: a mean similarity hides damage."
    ]


def _showing(methods: Sequence[Row], verdict: str) -> list[Row]:
    return [row for row in methods if verdict in row["verdicts"]]


def percent(share: float) -> str:
    """Returns a share as a whole percentage, 100 at most; what is not quite all or nothing is not rounded to it."""
    if 0.995 <= share < 1:
        return "more than 99%"
    if 0 < share < 0.005:
        return "less than 1%"
    return f"{min(share, 1):.0%}"
