"""What a method did, in words: the paper's three failure modes, judged against Clean and Compromised.

* **ineffective**: the secrets are still found.
* **catastrophic**: what the model knew of the rest of the world is damaged.
* **over-generalised**: associations that were not to be forgotten are gone too; **partly over-generalised** where
  they are weakened without being gone (published as "holdouts erased by a third").

A method that shows none of them is **effective**; it may show several. The thresholds are named below with their
reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from salmu_jax.evaluation.result import leaderboard_row
from salmu_jax.runtime.errors import InputError

INEFFECTIVE = "ineffective"
CATASTROPHIC = "catastrophic"
OVER_GENERALISED = "over-generalised"
PARTLY_OVER_GENERALISED = "partly over-generalised"
EFFECTIVE = "effective"
UNDETERMINED = "undetermined"
REFERENCE = "reference"

# More than a third of Compromised's RetFail MRR left: its images still find their captions far too often. The published
# methods that do forget leave at most a twentieth (Negative Gradient, 0.009 of 0.236), so nothing lies near the line.
INEFFECTIVE_SHARE = 1 / 3

# GenKnow points (hundredths of accuracy) lost. Published: Shuffled Captions, called catastrophic, loses 9; the others
# that keep the embedding in shape at most 0.8. Five is also beyond the sampling error of 1,600 zero-shot images (1.2
# points).
CATASTROPHIC_POINTS = 5.0

# Direct Similarity Minimisation is called catastrophic at 2.3 points lost: its pairs are not separated but turned
# away from each other (InterIdSim -0.42). So a holdout similarity below *minus* Clean's, Clean's mirror image, is
# catastrophic too.
INVERTED_BELOW_CLEAN = -1.0

# The share of Compromised's similarity that the worse-off holdout loses. Over-generalisation sets in once AssocStr is
# below Clean's, 0.142 of 0.322, and the holdouts follow it one for one: more than half is lost there. Finetuning,
# VLUnlearn and Shuffled Captions lose 0.34 to 0.35. A tenth is let pass: the two holdouts and forget differ by less
# than 0.001 in the published Compromised model, and by up to 5 % in small worlds, and a method should not be blamed
# for that.
OVER_GENERALISED_LOSS = 0.5
PARTLY_OVER_GENERALISED_LOSS = 0.1

# The paper's "utility-efficient" deletion: more than 99 % of the leakage removed for less than 1 % of GenKnow.
EFFICIENT_FORGETTING = 0.99
EFFICIENT_UTILITY_SHARE = 0.01


class Diagnosis(NamedTuple):
    """The verdicts on a method, a sentence with figures for each of ``reasons``, and the figures they rest on.

    ``forgetting``: share of the leakage removed, ``1 - (m - clean) / (compromised - clean)`` in RetFail MRR (1 is
    Clean's level). ``utility_lost``: GenKnow points lost against Compromised. ``overgeneralisation``: share of
    Compromised's similarity that the worse-off holdout lost (beyond 1 it is negative). Each is None where it cannot
    be computed.
    """

    verdicts: tuple[str, ...]
    reasons: tuple[str, ...]
    forgetting: float | None
    utility_lost: float | None
    overgeneralisation: float | None
    utility_efficient: bool = False


def diagnose(result: Mapping[str, Any], clean: Mapping[str, Any], compromised: Mapping[str, Any]) -> Diagnosis:
    """Judges a method's result against those of the two reference models (result dictionaries, same data and seed).

    Raises:
      InputError: the three were not measured alike (another seed, gallery, zero-shot task or number of rows).
    """
    _check_comparable(result, clean, compromised)
    method, low, high = (leaderboard_row(values) for values in (result, clean, compromised))
    leakage = high["RetFail_MRR"] - low["RetFail_MRR"]
    forgetting = 1 - (method["RetFail_MRR"] - low["RetFail_MRR"]) / leakage if leakage > 0 else None
    known = method["GenKnow"] is not None and high["GenKnow"] is not None
    utility_lost = 100 * (high["GenKnow"] - method["GenKnow"]) if known else None
    holdout, loss = _worse_holdout(method, high)

    if result["model"] in ("clean", "compromised"):
        reason = f"{result['model'].capitalize()} is one of the two models that methods are judged against."
        return Diagnosis((REFERENCE,), (reason,), forgetting, utility_lost, loss)
    if forgetting is None:
        reason = (
            f"Compromised (RetFail MRR {high['RetFail_MRR']:.4f}) leaks no more than Clean ({low['RetFail_MRR']:.4f}):"
            " there is nothing to forget, so no method can be judged."
        )
        return Diagnosis((UNDETERMINED,), (reason,), None, utility_lost, loss)

    verdicts, reasons = [], []
    left = method["RetFail_MRR"] / high["RetFail_MRR"]
    if left > INEFFECTIVE_SHARE:
        verdicts.append(INEFFECTIVE)
        reasons.append(
            f"RetFail MRR is {method['RetFail_MRR']:.4f}, {left:.0%} of Compromised's {high['RetFail_MRR']:.4f}"
            f" (Clean: {low['RetFail_MRR']:.4f}): the images still find their captions."
        )

    catastrophe = []
    if known and utility_lost > CATASTROPHIC_POINTS:
        catastrophe.append(
            f"GenKnow fell by {utility_lost:.1f} points, from {high['GenKnow']:.3f} to {method['GenKnow']:.3f}."
        )
    if holdout and low[holdout] is not None and method[holdout] < INVERTED_BELOW_CLEAN * abs(low[holdout]):
        catastrophe.append(
            f"{holdout} is {method[holdout]:.3f}, below minus Clean's ({-abs(low[holdout]):.3f}): images and captions"
            " are turned away from each other."
        )
    if catastrophe:
        verdicts.append(CATASTROPHIC)
        reasons.append(" ".join(catastrophe))

    if holdout and loss > PARTLY_OVER_GENERALISED_LOSS:
        whole = loss > OVER_GENERALISED_LOSS
        verdicts.append(OVER_GENERALISED if whole else PARTLY_OVER_GENERALISED)
        below = ""
        if None not in (method["AssocStr"], low["AssocStr"]) and method["AssocStr"] < low["AssocStr"]:
            below = f", and AssocStr ({method['AssocStr']:.3f}) is below Clean's ({low['AssocStr']:.3f})"
        reasons.append(
            f"{holdout} fell by {loss:.0%} of Compromised's, from {high[holdout]:.3f} to {method[holdout]:.3f}{below}:"
            f" associations that were not to be forgotten are {'gone' if whole else 'weakened'} too."
        )

    efficient = bool(
        forgetting > EFFICIENT_FORGETTING
        and known
        and method["GenKnow"] > (1 - EFFICIENT_UTILITY_SHARE) * high["GenKnow"]
    )
    if not verdicts:
        unmeasured = [name for name, seen in (("GenKnow", known), ("the holdouts", bool(holdout))) if not seen]
        verdicts.append(UNDETERMINED if unmeasured else EFFECTIVE)
        measured = [
            f"{forgetting:.1%} of the leakage is removed",
            f"{utility_lost:.1f} GenKnow points are lost" if known else None,
            f"{holdout}, the worse-off holdout, lost {loss:.0%}" if holdout else None,
        ]
        reasons.append(
            "; ".join(part for part in measured if part)
            + (f"; {' and '.join(unmeasured)} could not be judged." if unmeasured else ": none of the three failures.")
        )
    return Diagnosis(tuple(verdicts), tuple(reasons), forgetting, utility_lost, loss, efficient)


def _worse_holdout(
    method: Mapping[str, float | None], compromised: Mapping[str, float | None]
) -> tuple[str | None, float | None]:
    """Returns the holdout metric that lost the larger share of Compromised's value, and the share; (None, None) if none."""
    losses = {
        key: 1 - method[key] / compromised[key]
        for key in ("InterIdSim", "IntraIdSim")
        if method[key] is not None and compromised[key] is not None and compromised[key] > 0
    }
    if not losses:
        return None, None
    worse = max(losses, key=losses.get)
    return worse, losses[worse]


def _check_comparable(*results: Mapping[str, Any]) -> None:
    """Figures of different galleries, tasks or rows must not be compared."""
    first = results[-1]
    for other in results[:-1]:
        for key in ("seed", "draws", "gallery", "gallery_forget", "gallery_retain", "idzsc_prompt", "genknow", "rows"):
            expected, found = (result["protocol"].get(key) for result in (first, other))
            if expected != found:
                raise InputError(
                    f"protocol field {key!r} is {found!r}, but {expected!r} in {first['model']!r}: evaluate both alike",
                    f"result of {other['model']!r}",
                )
