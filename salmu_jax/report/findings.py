"""What a leaderboard shows, said in sentences: every one of them is computed from the results."""

from __future__ import annotations

from typing import Any

from salmu_jax.evaluation.diagnosis import EFFECTIVE, INEFFECTIVE, OVER_GENERALISED, PARTLY_OVER_GENERALISED
from salmu_jax.report.leaderboard import FAILURE_MODES, display_name

# Retrieval on a holdout below this share of Compromised's is worth a sentence although the mean similarity stands.
_HIDDEN_DAMAGE = 0.8


def findings(leaderboard: dict[str, Any]) -> list[str]:
    """Plain sentences, the most telling first; which of them appear depends on the results."""
    clean, compromised = leaderboard["rows"][:2]
    methods = leaderboard["rows"][2:]
    sentences = [_memorised(clean, compromised)]
    if not methods:
        return sentences
    good = [row for row in methods if row["verdicts"] == [EFFECTIVE]]
    if good:
        names = _join([display_name(row["model"]) for row in good])
        sentences.append(f"{names} avoid{'s' if len(good) == 1 else ''} all three failure modes.")
    elif len(methods) > 1:
        sentences.append(f"None of the {len(methods)} methods is seen to avoid all three failure modes.")
    ineffective, catastrophic, over, partly = (
        [row for row in methods if mode in row["verdicts"]] for mode in FAILURE_MODES
    )
    # The plainest case of over-generalisation is a method that fails in this way only, and erases most.
    alone = [row for row in over if row["verdicts"] == [OVER_GENERALISED]] or over or partly
    alone = [row for row in alone if row["holdouts_kept"] is not None]
    if alone:
        row = min(alone, key=lambda row: row["holdouts_kept"])
        sentences.append(
            f"{display_name(row['model'])} removes {_percent(row['forgetting'])} of the leakage, and with it "
            f"{_percent(row['overgeneralisation'])} of the similarity on a holdout: of pairs that nobody asked to "
            "be forgotten."
        )
    measured = [row for row in catastrophic if row["metrics"]["GenKnow"] is not None]
    if measured and compromised["metrics"]["GenKnow"] is not None:
        row = min(measured, key=lambda row: row["metrics"]["GenKnow"])
        before, after = compromised["metrics"]["GenKnow"], row["metrics"]["GenKnow"]
        sentences.append(
            f"{display_name(row['model'])} breaks the model: general knowledge falls from {before:.3f} to {after:.3f}, "
            f"by {100 * (before - after):.1f} points."
        )
    if ineffective:
        row = min(ineffective, key=lambda row: row["forgetting"])
        sentences.append(
            f"{display_name(row['model'])} leaves {_percent(1 - row['forgetting'])} of the leakage in place."
        )
    hidden = [
        row for row in methods if not {INEFFECTIVE, OVER_GENERALISED, PARTLY_OVER_GENERALISED} & set(row["verdicts"])
    ]
    for row in hidden:
        share = _retrieval_kept(row, compromised)
        if share is not None and row["holdouts_kept"] is not None and share < min(_HIDDEN_DAMAGE, row["holdouts_kept"]):
            sentences.append(
                f"{display_name(row['model'])} keeps {_percent(row['holdouts_kept'])} of the holdouts' mean similarity "
                f"but only {_percent(share)} of the retrieval on them: a mean similarity hides damage."
            )
    return sentences


def _memorised(clean: dict[str, Any], compromised: dict[str, Any]) -> str:
    before, after = clean["metrics"]["RetFail_MRR"], compromised["metrics"]["RetFail_MRR"]
    times = f", {after / before:.0f} times Clean's {before:.4f}" if before and after else ""
    return f"Compromised has memorised its sensitive pairs: its RetFail MRR is {after:.3f}{times}."


def _retrieval_kept(row: dict[str, Any], compromised: dict[str, Any]) -> float | None:
    """Returns the mean share of Compromised's retrieval MRR on both holdouts that is left."""
    shares = []
    for split, before in compromised["retrieval"].items():
        after = row["retrieval"].get(split)
        if not before or not after or not before.get("MRR") or after.get("MRR") is None:
            return None
        shares.append(after["MRR"] / before["MRR"])
    return sum(shares) / len(shares) if shares else None


def _percent(share: float) -> str:
    """Returns a share as a whole percentage, 100 at most; what is not quite all or nothing is not rounded to it."""
    if 0.995 <= share < 1:
        return "more than 99%"
    if 0 < share < 0.005:
        return "less than 1%"
    return f"{min(share, 1):.0%}"


def _join(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
