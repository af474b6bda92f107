"""The rules: published figures get the published verdicts, both sides of every line, what is uncertain, what is missing."""

from __future__ import annotations

import dataclasses
import math

import documents
import pytest

from salmu_jax import foundation
from salmu_jax.evaluation.judging import judge
from salmu_jax.evaluation.statistics import FIGURES, STATISTICS
from salmu_jax.evaluation.verdicts import FAILURE_MODES, GRADES, MEANINGS, RULES, definition, names_of, rules_of

# benchmark, section 5: RetFail MRR, GenKnow, InterIdSim, IntraIdSim
KEYS = ("RetFail_MRR", "GenKnow", "InterIdSim", "IntraIdSim")
CLEAN = dict(zip(KEYS, (0.0008, 0.633, 0.1428, 0.1428), strict=True))
COMPROMISED = dict(zip(KEYS, (0.2361, 0.638, 0.3215, 0.3213), strict=True))
PUBLISHED = {  # the figures at the largest published budget, and the published verdict in our words
    "CLIPErase": ((0.001, 0.634, 0.024, 0.024), ("over-generalised",)),
    "DELETE": ((0.001, 0.632, 0.023, 0.023), ("over-generalised",)),
    "VLUnlearn": ((0.001, 0.638, 0.210, 0.210), ("partly over-generalised",)),  # "holdouts erased by a third"
    "Finetuning": ((0.003, 0.638, 0.209, 0.209), ("partly over-generalised",)),
    "Negative Gradient": ((0.009, 0.630, 0.063, 0.061), ("over-generalised",)),
    "Shuffled Captions": ((0.004, 0.548, 0.212, 0.212), ("catastrophic",)),
    "Direct Similarity Minimisation": ((0.001, 0.615, -0.420, -0.425), ("catastrophic", "over-generalised")),
}
# Shuffled Captions keeps as little of the holdouts as Finetuning does, so the same words are said of it.
FURTHER = {"Shuffled Captions": ("partly over-generalised",)}

# Made-up anchors with holdout retrieval and probes, at round distances: Clean is 0 and Compromised 1 of every scale.
LOW = {
    "RetFail_MRR": 0.0,
    "GenKnow": 0.5,
    "InterIdSim": 0.2,
    "IntraIdSim": 0.2,
    "InterIdRet_MRR": 0.0,
    "IntraIdRet_MRR": 0.0,
    "RetFail_MRR@whole": 0.0,
    "RetFail_MRR@part": 0.0,
    "IndirectLeak@whole": 0.0,
    "Relearn@whole": 0.0,
}
HIGH = {
    "RetFail_MRR": 0.5,
    "GenKnow": 0.8,
    "InterIdSim": 0.7,
    "IntraIdSim": 0.7,
    "InterIdRet_MRR": 0.5,
    "IntraIdRet_MRR": 0.5,
    "RetFail_MRR@whole": 0.5,
    "RetFail_MRR@part": 0.5,
    "IndirectLeak@whole": 0.5,
    "Relearn@whole": 0.5,
}
# Finds a fifth of Compromised's leak of people forgotten in part, and a tenth of it of others after relearning.
RETRAINED = {
    **HIGH,
    "RetFail_MRR": 0.05,
    "RetFail_MRR@whole": 0.0,
    "RetFail_MRR@part": 0.1,
    "IndirectLeak@whole": 0.0,
    "Relearn@whole": 0.05,
}
UNPROBED = {"IndirectLeak@whole": None, "Relearn@whole": None}


def judge_published(method):
    values = dict(zip(KEYS, PUBLISHED[method][0], strict=True))
    return judge(values, {}, {"clean": CLEAN, "compromised": COMPROMISED})


def at(removed=1.0, lost=0.0, similarity=1.0, retrieval=1.0, intervals=None, retrained=None, **figures):
    """Judges a model by what is removed, lost and kept; ``figures`` replace what follows from these."""
    values = {
        "RetFail_MRR": 0.5 * (1 - removed),
        "GenKnow": 0.8 - lost / 100,
        "InterIdSim": 0.7,
        "IntraIdSim": 0.2 + 0.5 * similarity,
        "InterIdRet_MRR": 0.5 * retrieval,
        "IntraIdRet_MRR": 0.5,
        "RetFail_MRR@whole": 0.0,
        "RetFail_MRR@part": 0.1,
        "IndirectLeak@whole": 0.0,
        "Relearn@whole": 0.0,
    }
    third = {} if retrained is None else {"retrained": retrained}
    return judge({**values, **figures}, intervals or {}, {"clean": LOW, "compromised": HIGH, **third})


@pytest.mark.parametrize("method", PUBLISHED)
def test_published_figures_get_the_published_verdicts(method):
    figures, verdicts = PUBLISHED[method]
    found = judge_published(method)
    assert found.verdicts == verdicts + FURTHER.get(method, ())
    assert len(found.reasons) == len(found.verdicts)
    assert found.grade is None
    retfail, genknow, inter, intra = figures
    assert found.statistics["leakage_removed"] == pytest.approx(1 - (retfail - 0.0008) / (0.2361 - 0.0008))
    assert found.statistics["genknow_lost"] == pytest.approx(100 * (0.638 - genknow))
    kept = min((inter - 0.1428) / (0.3215 - 0.1428), (intra - 0.1428) / (0.3213 - 0.1428))
    assert found.statistics["similarity_kept"] == pytest.approx(kept)
    assert found.statistics["retrieval_kept"] is None


def test_no_published_method_is_free_of_failures_and_who_is_utility_efficient():
    assert all(set(judge_published(method).verdicts) & set(FAILURE_MODES) for method in PUBLISHED)
    efficient = {method for method in PUBLISHED if judge_published(method).labels == ("utility-efficient",)}
    assert efficient == {"CLIPErase", "DELETE", "VLUnlearn", "Finetuning"}


def test_compromised_itself_is_ineffective_and_clean_itself_over_generalises():
    anchors = {"clean": CLEAN, "compromised": COMPROMISED}
    assert judge(COMPROMISED, {}, anchors).verdicts == ("ineffective",)
    assert judge(CLEAN, {}, anchors).verdicts == ("over-generalised",)


def test_what_was_called_effective_is_not_any_more():
    """A third of the leakage left, five points of GenKnow lost, a tenth of the holdouts lost."""
    values = dict(zip(KEYS, (0.0786, 0.589, 0.291, 0.32), strict=True))
    found = judge(values, {}, {"clean": CLEAN, "compromised": COMPROMISED})
    assert found.verdicts == ("ineffective", "partly over-generalised")
    assert "effective" not in MEANINGS


@pytest.mark.parametrize(
    ("figures", "verdicts"),
    [
        ({}, ("precise",)),
        ({"removed": 0.99, "lost": 1, "similarity": 0.95, "retrieval": 0.90}, ("precise",)),
        ({"removed": 0.9899}, ("nearly precise",)),
        ({"lost": 1.01}, ("nearly precise",)),
        ({"similarity": 0.9499}, ("nearly precise",)),
        ({"retrieval": 0.8999}, ("nearly precise",)),
        ({"removed": 0.98, "lost": 2, "similarity": 0.90, "retrieval": 0.80}, ("nearly precise",)),
        ({"removed": 0.9799}, ("imprecise",)),
        ({"lost": 2.01}, ("imprecise",)),
        ({"removed": 0.90, "lost": 5}, ("imprecise",)),
        ({"removed": 0.8999}, ("ineffective",)),
        ({"lost": 5.01}, ("catastrophic",)),
        ({"similarity": 0.8999}, ("partly over-generalised",)),
        ({"retrieval": 0.7999}, ("partly over-generalised",)),
        ({"similarity": 0.10, "retrieval": 0.10}, ("partly over-generalised",)),
        ({"similarity": 0.0999}, ("over-generalised",)),
        ({"retrieval": 0.0999}, ("over-generalised",)),
        ({"IntraIdSim": -0.349}, ("over-generalised",)),  # half of Compromised's 0.7, on the other side of 0
        ({"IntraIdSim": -0.351}, ("catastrophic", "over-generalised")),
        ({"removed": 0.5, "lost": 30, "retrieval": 0.0}, ("ineffective", "catastrophic", "over-generalised")),
        ({"removed": 1.2, "lost": -3, "similarity": 1.1, "retrieval": 1.2}, ("precise",)),
        ({"IndirectLeak@whole": 0.0249}, ("precise",)),  # a twentieth of Compromised's 0.5
        ({"IndirectLeak@whole": 0.0251}, ("superficial",)),
        ({"Relearn@whole": 0.0249}, ("precise",)),
        ({"Relearn@whole": 0.0251}, ("superficial",)),
        ({"removed": 0.8999, "Relearn@whole": 0.5}, ("ineffective",)),  # which is found without asking otherwise
        ({"removed": 0.90, "Relearn@whole": 0.5}, ("superficial",)),
        ({"lost": 5.01, "Relearn@whole": 0.5}, ("catastrophic", "superficial")),
    ],
)
def test_both_sides_of_every_line(figures, verdicts):
    found = at(**figures)
    assert found.verdicts == verdicts
    assert found.grade == (verdicts[0] if verdicts[0] in GRADES else None)
    assert found.straddles == ()


def test_every_rule_of_the_table_is_needed():
    """Each rule decides some case alone: its verdict changes when the statistic crosses its line, all others being ideal."""
    ideal = {"leakage_removed": 1.0, "leakage_removed_published": 1.0, "genknow_lost": 0.0, "genknow_kept": 1.0}
    ideal |= {
        "similarity_kept": 1.0,
        "retrieval_kept": 1.0,
        "alignment": 1.0,
        "indirect_left": 0.0,
        "relearn_left": 0.0,
    }
    ideal |= {"found_in_part": 1.0, "similarity_kept_in_part": 1.0, "retrieval_kept_in_part": 1.0}
    assert set(ideal) == set(STATISTICS)
    for rule in RULES:
        step = 1e-6 if rule.comparison in (">", ">=") else -1e-6
        assert rule.holds(rule.threshold + step)
        assert not rule.holds(rule.threshold - step)
        assert rule.holds(rule.threshold) == rule.comparison.endswith("=")
        ideally = {other.statistic: other.holds(ideal[other.statistic]) for other in rules_of(rule.name)}
        assert all(ideally.values()) == (rule.kind != "failure")
        assert rule.meaning
        assert set(rule.references) <= set(foundation.NAMES)
    assert {*names_of("failure")} == {*FAILURE_MODES}
    assert {*GRADES} - {*names_of("grade")} == {"imprecise"}


def test_reasons_state_the_figures_and_the_line():
    found = at(removed=0.433, lost=52.6, similarity=-0.2)
    assert found.reasons == (
        "The secrets are still found: 43.3% of the leakage is removed, less than 90% (RetFail MRR 0.2835; Clean 0.0000,"
        " Compromised 0.5000).",
        "What the model knew of the rest of the world is damaged: GenKnow fell by 52.6 points, more than 5 points (0.274;"
        " Compromised 0.800).",
        "Associations that were not to be forgotten are gone too: IntraIdSim keeps none of Compromised's lead over Clean,"
        " less than 10% (0.100; Clean 0.200, Compromised 0.700).",
    )
    [reason] = at(removed=0.9899, lost=-0.4).reasons
    assert "98.99% of the leakage is removed" in reason  # not rounded across the line
    assert "GenKnow rose by 0.4 points" in reason
    assert "all of Compromised's lead over Clean" in reason
    assert reason.endswith("Precise asks for at least 99% of the leakage removed.")
    assert definition("ineffective") == "The secrets are still found: less than 90% of the leakage removed."
    assert definition("precise").endswith(
        ": at least 99% of the leakage removed, at most 1 point of GenKnow lost, at least 95% of the similarity kept on the"
        " worse-off holdout and at least 90% of the retrieval kept on the worse-off holdout."
    )


def test_an_interval_that_straddles_a_line_is_said_to():
    sure = at(intervals={"leakage_removed": (0.991, 1.0), "similarity_kept": (0.96, 1.1)})
    assert (sure.verdicts, sure.straddles) == (("precise",), ())

    [doubt] = (found := at(intervals={"leakage_removed": (0.985, 1.0)})).straddles
    assert (found.verdicts, doubt[:4]) == (("precise",), ("precise", True, "leakage_removed", 0.99))
    assert found.reasons[0].endswith("Not certain: precise (98.5% to all of the leakage removed; the line is 99%).")

    # A verdict that is not given may be right all the same.
    found = at(similarity=0.96, intervals={"similarity_kept": (0.88, 1.0)})
    assert [(one.verdict, one.holds) for one in found.straddles] == [
        ("partly over-generalised", False),
        ("precise", True),
    ]
    assert "Not ruled out: partly over-generalised (88.0% to all of the similarity kept" in found.reasons[0]

    # One sure failure of the two that make a verdict is enough; a milder form is not discussed beside the whole one.
    [doubt] = at(lost=5.5, intervals={"genknow_lost": (4.3, 6.7)}).straddles
    assert doubt.describe() == "catastrophic (4.3 to 6.7 points of GenKnow lost; the line is 5 points)"
    found = at(lost=10, similarity=0.05, intervals={"genknow_lost": (8, 12), "similarity_kept": (-0.5, 0.95)})
    assert [one.verdict for one in found.straddles] == ["over-generalised"]
    found = at(lost=10, retrieval=0.0, intervals={"retrieval_kept": (-0.1, 0.05), "similarity_kept": (0.05, 1.2)})
    assert (found.verdicts, found.straddles) == (("catastrophic", "over-generalised"), ())

    # A grade that some statistic rules out is not in doubt because another straddles.
    found = at(
        removed=0.95, similarity=0.96, intervals={"leakage_removed": (0.94, 0.96), "similarity_kept": (0.94, 0.97)}
    )
    assert (found.verdicts, found.straddles) == (("imprecise",), ())

    unbounded = at(removed=0.5, intervals={"leakage_removed": (-math.inf, math.inf)})
    assert "none to all of the leakage removed" in unbounded.reasons[0]


def test_what_was_not_measured_is_not_judged_good():
    found = at(GenKnow=None)
    assert found.verdicts == ("undetermined",)
    assert found.reasons == ("No failure is seen, but GenKnow could not be judged.",)
    assert found.statistics["genknow_lost"] is None
    found = at(InterIdSim=None)  # one of two holdouts
    assert found.verdicts == ("undetermined",)
    assert "InterIdSim could not be judged" in found.reasons[0]
    assert at(InterIdRet_MRR=None, IntraIdRet_MRR=None).verdicts == ("undetermined",)
    assert at(removed=0.5, GenKnow=None, InterIdSim=None).verdicts == ("ineffective",)

    def without(*keys):
        """Judges the ideal model in a world that lacks some figures."""
        low, high, ideal = (
            {k: v for k, v in d.items() if k not in keys} for d in (LOW, HIGH, {**HIGH, "RetFail_MRR": 0.0})
        )
        return judge(ideal, {}, {"clean": low, "compromised": high})

    assert without("InterIdSim", "InterIdRet_MRR").verdicts == ("superficial",)  # this world has one holdout
    assert without("InterIdSim", "InterIdRet_MRR", *UNPROBED).verdicts == ("precise as far as measured",)
    assert without("InterIdSim", "InterIdRet_MRR", "IntraIdSim", "IntraIdRet_MRR", *UNPROBED).verdicts == (
        "undetermined",
    )


def test_a_compromised_model_that_leaks_nothing_leaves_nothing_to_judge():
    found = judge({**HIGH, "RetFail_MRR": 0.0}, {}, {"clean": {**LOW, "RetFail_MRR": 0.5}, "compromised": HIGH})
    assert found.verdicts == ("undetermined",)
    assert "there is nothing to forget" in found.reasons[0]
    assert judge({}, {}, {"clean": LOW, "compromised": HIGH}).reasons == (
        "RetFail was not measured, so forgetting cannot be judged.",
    )


@pytest.mark.parametrize(
    ("figures", "verdicts"),
    [
        ({}, ("precise",)),
        # People forgotten whole are compared with Retrained, not with Clean.
        ({"Relearn@whole": 0.05 + 0.0224}, ("precise",)),  # a twentieth of Compromised's 0.5 above Retrained's 0.05
        ({"Relearn@whole": 0.05 + 0.0226}, ("superficial",)),
        ({"Relearn@whole": 0.0}, ("precise",)),
        # Less of people forgotten in part than Retrained finds is a failure where their holdout suffers too.
        ({"RetFail_MRR@part": 0.0}, ("precise",)),
        ({"RetFail_MRR@part": 0.0, "InterIdSim": 0.64}, ("partly over-generalised",)),  # the other holdout
        ({"RetFail_MRR@part": 0.0, "similarity": 0.91}, ("nearly precise",)),
        ({"RetFail_MRR@part": 0.0749, "similarity": 0.89}, ("partly over-generalised", "over-forgotten in part")),
        ({"RetFail_MRR@part": 0.0751, "similarity": 0.89}, ("partly over-generalised",)),
        ({"RetFail_MRR@part": 0.0, "IntraIdRet_MRR": 0.39}, ("partly over-generalised", "over-forgotten in part")),
        ({"RetFail_MRR@part": 0.0, "similarity": 0.05}, ("over-generalised",)),  # which says it already
        ({"RetFail_MRR@part": None, "similarity": 0.89}, ("partly over-generalised",)),
    ],
)
def test_beside_retrained_people_are_judged_by_it(figures, verdicts):
    assert at(retrained=RETRAINED, **figures).verdicts == verdicts


def test_beside_retrained_its_own_level_of_leakage_is_asked_for():
    """Figures of the made world: Retrained keeps a sixth of the leak, all of it of people forgotten in part."""
    keys = ("RetFail_MRR", "RetFail_MRR@whole", "RetFail_MRR@part")
    clean, compromised, retrained = (
        dict(zip(keys, figures, strict=True))
        for figures in ((0.003, 0.0027, 0.0034), (0.385, 0.3289, 0.441), (0.0611, 0.0024, 0.1199))
    )
    base = {key: HIGH[key] for key in HIGH if key not in keys}
    anchors = {"clean": {**LOW, **clean}, "compromised": {**HIGH, **compromised}}
    three = {**anchors, "retrained": {**RETRAINED, **retrained}}
    clear = {"IndirectLeak@whole": 0.0, "Relearn@whole": 0.0}

    assert judge({**base, **retrained, **clear}, {}, anchors).verdicts == ("ineffective",)  # Clean alone asks too much
    found = judge({**base, **retrained, **clear}, {}, three)
    assert (found.verdicts, found.statistics["leakage_removed"]) == (("precise",), 1.0)
    assert found.statistics["leakage_removed_published"] == pytest.approx(1 - (0.0611 - 0.003) / (0.385 - 0.003))
    assert found.labels == ()  # the paper's label keeps the paper's target

    # What is forgotten too far in part does not pay for people forgotten whole.
    traded = {"RetFail_MRR": 0.0611, "RetFail_MRR@whole": 0.06, "RetFail_MRR@part": 0.0622}
    [reason] = judge({**base, **traded, **clear}, {}, three).reasons
    assert reason == (
        "The secrets are still found: 82.4% of the leakage is removed, less than 90% (RetFail MRR of people forgotten whole"
        " 0.0600; Retrained 0.0024, Compromised 0.3289)."
    )
    left_in_part = {"RetFail_MRR": 0.1, "RetFail_MRR@whole": 0.0024, "RetFail_MRR@part": 0.1976}
    [reason] = judge({**base, **left_in_part, **clear}, {}, three).reasons
    assert "(RetFail MRR 0.1000; Retrained 0.0611, Compromised 0.3850)" in reason


def test_a_compromised_model_that_leaks_no_more_than_retrained_leaves_nothing_to_judge():
    anchors = {"clean": LOW, "compromised": HIGH, "retrained": {**RETRAINED, **dict.fromkeys(HIGH, 0.5)}}
    found = judge(HIGH, {}, anchors)
    assert found.verdicts == ("undetermined",)
    assert "leaks no more than Retrained (0.5000)" in found.reasons[0]


def test_without_retrained_nobody_is_over_forgotten_and_clean_stands_in_for_people_forgotten_whole():
    figures = {"RetFail_MRR@part": 0.0, "similarity": 0.89, "Relearn@whole": 0.03}
    assert at(**figures).verdicts == ("partly over-generalised", "superficial")
    assert at(retrained=RETRAINED, **figures).verdicts == ("partly over-generalised", "over-forgotten in part")
    unprobed = {**RETRAINED, **UNPROBED}  # Retrained was trained, and not probed
    assert at(retrained=unprobed, **figures).verdicts[1:] == ("superficial", "over-forgotten in part")


def test_the_reasons_of_the_third_reference_name_it():
    [partly, reason] = at(retrained=RETRAINED, similarity=0.89, **{"RetFail_MRR@part": 0.05}).reasons
    assert "89.0% of Compromised's lead over Clean" in partly
    assert reason == (
        "Of people forgotten in part, less is left than without ever having learnt what was to be forgotten: 50.0% of what"
        " Retrained finds of people forgotten in part is found, less than 75% (RetFail MRR of people forgotten in part 0.0500;"
        " Clean 0.0000, Retrained 0.1000); IntraIdSim keeps 89.0% of Compromised's lead over Clean, less than 90% (0.645;"
        " Clean 0.200, Compromised 0.700)."
    )
    [reason] = at(retrained=RETRAINED, **{"Relearn@whole": 0.14, "IndirectLeak@whole": 0.01}).reasons
    assert reason == (
        "The secrets are hidden, and not gone: other wordings or a little fine-tuning find them: 20.0% of the leakage is back"
        " after relearning, more than 5% (Relearn of people forgotten whole 0.1400; Retrained 0.0500, Compromised 0.5000)."
    )
    [reason] = at(**{"Relearn@whole": 0.1}).reasons
    assert "Clean 0.0000, Compromised 0.5000" in reason
    assert definition("over-forgotten in part").endswith(
        ": less than 75% of what Retrained finds of people forgotten in part and less than 90% of the similarity kept on"
        " holdout_association, or less than 75% of what Retrained finds of people forgotten in part and less than 80% of the"
        " retrieval kept on holdout_association."
    )


def test_a_grade_without_probes_says_how_far_it_goes():
    found = at(**UNPROBED)
    assert (found.verdicts, found.grade) == (("precise as far as measured",), "precise")
    assert found.unprobed == ("indirect queries", "relearning")
    assert found.reasons[0].endswith(" This is as far as measured: indirect queries and relearning were not.")
    found = at(similarity=0.94, **{"Relearn@whole": None})
    assert found.verdicts == ("nearly precise as far as measured",)
    assert found.reasons[0].endswith(" This is as far as measured: relearning was not.")
    assert at(removed=0.5, **UNPROBED).unprobed == ()  # this failure needs no more
    assert at(**{"Relearn@whole": None, "IndirectLeak@whole": 0.1}).verdicts == ("superficial",)
    found = at(similarity=0.05, **UNPROBED)
    assert (found.verdicts, found.grade) == (("over-generalised",), None)
    assert found.unprobed == ("indirect queries", "relearning")
    assert found.reasons[0].endswith(" This is as far as measured: indirect queries and relearning were not.")
    nobody = judge_published("CLIPErase")  # where no reference was probed either
    assert nobody.unprobed == ()
    assert "as far as measured" not in nobody.reasons[0]
    doubt = at(intervals={"leakage_removed": (0.985, 1.0)}, **UNPROBED)
    assert "Not certain: precise (98.5% to all of the leakage removed; the line is 99%)." in doubt.reasons[0]
    assert "Not ruled out" not in doubt.reasons[0]


def test_whether_it_is_superficial_may_be_uncertain():
    [straddle] = at(intervals={"relearn_left": (0.01, 0.2)}, **{"Relearn@whole": 0.05}).straddles
    assert straddle.describe() == "superficial (1.0% to 20.0% of the leakage back after relearning; the line is 5%)"
    found = at(intervals={"indirect_left": (0.0, 0.06)}, **{"IndirectLeak@whole": 0.01})
    assert found.verdicts == ("precise",)
    assert "Not ruled out: superficial (none to 6.0% of the leakage left to indirect queries" in found.reasons[0]


def test_where_clean_is_not_known_its_level_is_taken_as_zero():
    found = judge({**HIGH, "RetFail_MRR": 0.1, "InterIdSim": 0.63}, {}, {"compromised": HIGH})
    assert found.statistics["leakage_removed"] == pytest.approx(0.8)
    assert found.statistics["similarity_kept"] == pytest.approx(0.9)


def test_every_figure_has_a_title():
    assert {key for statistic in STATISTICS.values() for key in statistic.figures} == set(FIGURES)


def test_the_documentation_states_every_line():
    text = documents.section("docs/metrics.md", "## Verdicts")
    for name in (*FAILURE_MODES, *names_of("grade")):
        (row,) = [line for line in text.splitlines() if line.startswith(f"| **{name}** |")]
        for rule in rules_of(name):
            assert rule.line().removesuffix(" points") in row, rule
    for rule in rules_of("utility-efficient"):
        assert rule.line() in " ".join(text.split())


def test_a_statistic_may_be_normalised_by_a_further_reference():
    """The level of an unknown reference other than Clean's is not taken as zero: the statistic is not defined."""
    statistic = dataclasses.replace(STATISTICS["leakage_removed_published"], references=("retrained", "compromised"))
    anchors = {"clean": LOW, "compromised": HIGH, "retrained": {**LOW, "RetFail_MRR": 0.1}}
    assert statistic.worst({"RetFail_MRR": 0.1}, anchors) == (pytest.approx(1.0), "RetFail_MRR")
    assert statistic.worst({"RetFail_MRR": 0.3}, anchors) == (pytest.approx(0.5), "RetFail_MRR")
    assert statistic.worst({"RetFail_MRR": 0.1}, {"clean": LOW, "compromised": HIGH}) is None
