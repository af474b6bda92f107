"""The paper's published figures get the paper's published verdicts."""

from __future__ import annotations

import pytest

from salmu_jax.evaluation.diagnosis import diagnose
from salmu_jax.evaluation.result import METRICS, leaderboard_row
from salmu_jax.runtime.errors import InputError

KEYS = ["RetFail_MRR", "RetFail_R@1", "AssocStr", "ACS", "IdZSC", "CoreAssoc"]  # in the leaderboard's order
KEYS += ["GenKnow", "InterIdSim", "IntraIdSim", "VisIdInt", "FragSim"]
CLEAN = (0.0008, 0.0, 0.1417, 0.6019, 0.0107, 0.1514, 0.633, 0.1428, 0.1428, 0.3308, 0.3091)
COMPROMISED = (0.2361, 0.1016, 0.3215, 0.9510, 0.0836, 0.1827, 0.638, 0.3215, 0.3213, 0.3052, 0.2801)


def result(model, values):
    """A result with these leaderboard values (a dict by key, or all in order)."""
    values = dict(zip(KEYS, values, strict=True)) if isinstance(values, tuple) else values
    tree = {"model": model, "protocol": {"seed": 42, "gallery": 2001}}
    for metric in METRICS:
        node = tree
        for key in metric.path[:-1]:
            node = node.setdefault(key, {})
        node[metric.path[-1]] = values.get(metric.key)
    return tree


def judge(retfail, genknow, inter, intra, **more):
    values = {"RetFail_MRR": retfail, "GenKnow": genknow, "InterIdSim": inter, "IntraIdSim": intra, "AssocStr": inter}
    method = result("method", {**values, **more})
    return diagnose(method, result("clean", CLEAN), result("compromised", COMPROMISED))


PUBLISHED = {  # benchmark figures at the largest published budget, and the published verdict in our words
    "CLIPErase": ((0.001, 0.634, 0.024, 0.024), {"over-generalised"}),
    "DELETE": ((0.001, 0.632, 0.023, 0.023), {"over-generalised"}),
    "VLUnlearn": ((0.001, 0.638, 0.210, 0.210), {"partly over-generalised"}),
    "Finetuning": ((0.003, 0.638, 0.209, 0.209), {"partly over-generalised"}),
    "Negative Gradient": ((0.009, 0.630, 0.063, 0.061), {"over-generalised"}),
    # Published as catastrophic; its holdouts, 0.212, lost as much as Finetuning's, and we say that too.
    "Shuffled Captions": ((0.004, 0.548, 0.212, 0.212), {"catastrophic", "partly over-generalised"}),
    "Direct Similarity Minimisation": ((0.001, 0.615, -0.420, -0.425), {"catastrophic", "over-generalised"}),
}


@pytest.mark.parametrize("method", PUBLISHED)
def test_published_verdicts(method):
    figures, verdicts = PUBLISHED[method]
    diagnosis = judge(*figures)
    assert set(diagnosis.verdicts) == verdicts
    assert len(diagnosis.reasons) == len(diagnosis.verdicts)
    assert diagnosis.forgetting == pytest.approx(1 - (figures[0] - 0.0008) / (0.2361 - 0.0008))
    assert diagnosis.utility_lost == pytest.approx(100 * (0.638 - figures[1]))
    assert diagnosis.overgeneralisation == pytest.approx(1 - min(figures[2] / 0.3215, figures[3] / 0.3213))
    assert f"{figures[2]:.3f}" in " ".join(diagnosis.reasons) or f"{figures[3]:.3f}" in " ".join(diagnosis.reasons)


def test_no_published_method_avoids_all_three_and_who_is_utility_efficient():
    assert all("effective" not in judge(*figures).verdicts for figures, _ in PUBLISHED.values())
    efficient = {method for method, (figures, _) in PUBLISHED.items() if judge(*figures).utility_efficient}
    assert efficient == {"CLIPErase", "DELETE", "VLUnlearn", "Finetuning"}


def test_ineffective_effective_and_both_sides_of_each_threshold():
    assert judge(0.20, 0.636, 0.31, 0.31).verdicts == ("ineffective",)
    assert judge(0.2361 / 3 + 1e-4, 0.638, 0.32, 0.32).verdicts == ("ineffective",)
    assert judge(0.2361 / 3 - 1e-4, 0.638, 0.32, 0.32).verdicts == ("effective",)
    assert judge(0.001, 0.587, 0.32, 0.32).verdicts == ("catastrophic",)
    assert judge(0.001, 0.589, 0.32, 0.32).verdicts == ("effective",)
    assert judge(0.001, 0.638, 0.32, 0.16).verdicts == ("over-generalised",)
    assert judge(0.001, 0.638, 0.162, 0.32).verdicts == ("partly over-generalised",)
    assert judge(0.001, 0.638, 0.288, 0.32).verdicts == ("partly over-generalised",)
    assert judge(0.001, 0.638, 0.291, 0.32).verdicts == ("effective",)
    everything = judge(0.2, 0.3, 0.0, 0.0)
    assert everything.verdicts == ("ineffective", "catastrophic", "over-generalised")
    assert "below Clean's" in everything.reasons[2]


def test_what_was_not_measured_is_not_judged_good():
    skipped = judge(0.001, -1, 0.32, 0.32)
    assert skipped.verdicts == ("undetermined",)
    assert skipped.utility_lost is None
    assert "GenKnow" in skipped.reasons[0]
    assert judge(0.001, 0.638, None, None).verdicts == ("undetermined",)
    assert judge(0.2, -1, 0.32, 0.32).verdicts == ("ineffective",)
    nothing = diagnose(result("m", CLEAN), result("clean", CLEAN), result("compromised", CLEAN))
    assert nothing.verdicts == ("undetermined",)
    assert nothing.forgetting is None


def test_references_are_not_judged_and_results_must_be_comparable():
    clean, compromised = result("clean", CLEAN), result("compromised", COMPROMISED)
    assert diagnose(clean, clean, compromised).verdicts == ("reference",)
    assert diagnose(compromised, clean, compromised).verdicts == ("reference",)
    assert diagnose(clean, clean, compromised).forgetting == 1
    assert diagnose(compromised, clean, compromised).forgetting == 0
    other = {**result("m", CLEAN), "protocol": {"seed": 1, "gallery": 2001}}
    with pytest.raises(InputError, match="'seed' is 1, but 42 in 'compromised'"):
        diagnose(other, clean, compromised)


def test_leaderboard_row():
    assert [metric.key for metric in METRICS] == KEYS
    assert [metric.target for metric in METRICS] == ["clean"] * 6 + ["compromised"] * 5
    assert tuple(leaderboard_row(result("clean", CLEAN)).values()) == CLEAN
    skipped = leaderboard_row(result("clean", {**dict(zip(KEYS, CLEAN, strict=True)), "GenKnow": -1}))
    assert skipped["GenKnow"] is None
    assert list(skipped) == KEYS
