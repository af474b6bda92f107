"""The pages of deletion requests: complete in plain words, escaped, and without a serious complaint of axe."""

from __future__ import annotations

import copy
import re

import pytest

from salmu_jax.report.request_page import request_page, sequence_page

HOSTILE = "Ana </title><script>document.title='owned'</script> {{ 7*7 }}"
WORDINGS = ("IndirectLeak", *(f"Indirect_{form}" for form in (
    "paraphrase", "unseen", "bare", "value", "name", "partial", "reverse", "text_to_text",
)))  # fmt: skip
GENERAL = ("GenKnow", "RetainSim", "InterIdRet_MRR", "IntraIdRet_MRR", "InterIdSim", "IntraIdSim", "VisIdInt")
VIEWS = [("light", 1440), ("dark", 1440), ("light", 390), ("dark", 390)]
MADE = {"command": "salmu forget", "created": "2026-01-01", "device": "1 x cpu", "versions": {}, "config": {"seed": 1}}
ASKED = {"identity": "00000001", "attribute": None, "attributes": ["iban", "phone_number"], "name": "Ana Souza"}


def facts(found: int, mrr: float | None, rows: int = 8):
    return {"rows": rows, "found": found, "rank": 2.5, "mrr": mrr, "similarity": 0.6}


def sides(before, after):
    return {"before": before, "after": after}


def question(before: float | None, after: float | None, left: float | None):
    return {**sides(before, after), "left": left}


@pytest.fixture
def answer():
    """An answer: nothing is found directly any more, and two thirds after relearning."""
    run = {"title": "DELETE", "method": "delete", "reference": "a paper", "forget_rows": 8, "seed": 42}
    return {
        "requests": [copy.deepcopy(ASKED)],
        "gallery": 2001,
        "chance": 0.0041,
        "summary": {
            "direct": question(0.75, 0.0041, 0.0),
            "other_words": question(0.6, 0.12, 0.19),
            "relearned": question(0.8, 0.535, 0.667),
        },
        "asked": sides(facts(5, 0.75), facts(0, 0.0041)),
        "by_attribute": [
            {"identity": "00000001", "attribute": field, **sides(facts(3, 0.8, 4), facts(0, 0.01, 4))}
            for field in ASKED["attributes"]
        ],
        "other_words": {key: question(0.6, 0.12, 0.19) for key in WORDINGS},
        "relearning": sides(
            {"rows": 7, "curve": {"0": 0.75, "20": 0.8}, "highest": 0.8},
            {"rows": 7, "curve": {"0": 0.004, "20": 0.535}, "highest": 0.535},
        ),
        "not_asked": {
            kind: {"people": [{"identity": "00000002", "name": "Jun Mori"}], **sides(facts(4, 0.5), facts(4, 0.49))}
            for kind in ("other_facts", "faces", "names")
        },
        "general": {key: {**sides(0.6, 0.59), "change": -0.01} for key in GENERAL},
        "models": {
            **sides({"name": "start", "digest": "a" * 64}, {"name": "request", "digest": "b" * 64}),
            "data": {"salmu": "c" * 64},
            "evaluate_seed": 42,
            "seconds": {"unlearn": 31.5, "evaluate": 12.0},
            "run": {**run, "options": {"weight": 1.0}, "hyper": {"learning_rate": 1e-3}},
        },
        "made": MADE,
    }


@pytest.fixture
def table():
    """Two requests, one after another: the first comes back a little with the second."""

    def step(model, answered, relapses, seconds):
        leak = {"direct": 0.2, "other_words": 0.3, "relearned": None}
        requests = [{**leak, "relapse": one} for one in relapses]
        general = {key: {**sides(0.6, 0.59), "change": -0.01} for key in GENERAL}
        return {"model": model, "answered": answered, "general": general, "requests": requests, "seconds": seconds}

    none, some = (dict.fromkeys(("direct", "other_words", "relearned"), rise) for rise in (0.0, 0.0625))
    return {
        "requests": [copy.deepcopy(ASKED), {**ASKED, "identity": "00000003", "attribute": "iban"}],
        "chance": [0.004, None],
        "together": False,
        "steps": [
            step("start", 0, [None, None], {"evaluate": 9.0}),
            step("request-001", 1, [none, None], {"unlearn": 30.0, "evaluate": 8.0}),
            step("request-002", 2, [some, none], {"unlearn": 31.0, "evaluate": 8.0}),
        ],
        "made": MADE,
    }


def shown(page: str) -> str:
    return " ".join(re.sub(r"<(style|script)>.*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL).split())


def test_an_answer_says_what_was_asked_found_and_not_proved(answer):
    text = shown(request_page(answer, "request.json"))
    for expected in (
        "Deletion request: Ana Souza", "everything that may be forgotten: iban, phone number",
        "5 of 8 portraits found their own caption first among 2,001 before, and 0 of 8 after",
        "Most is left when the question is asked after relearning: 67% of the leak",
        "0.0041", "Jun Mori", "It does not prove that the facts have left the model", "−0.010",
        "DELETE (delete)", "31.5", "b" * 64,
    ):  # fmt: skip
        assert expected in text, expected


def test_an_answer_says_where_nothing_can_be_said(answer):
    answer["summary"] = {key: question(None if key == "relearned" else 0.005, 0.004, None) for key in answer["summary"]}
    text = shown(request_page(answer, "request.json"))
    assert "After relearning: not measured, since no row of the request could be asked." in text
    assert "nothing can be said of how much was removed" in text


def test_names_are_shown_and_do_nothing(answer, table):
    for value, page in ((answer, request_page), (table, sequence_page)):
        value["requests"][0]["name"] = HOSTILE
        text = page(value, "x.json")
        assert "<script>document" not in text
        assert "&lt;script&gt;document" in text
        assert "49" not in shown(text).partition("What was asked")[2][:200]


def test_a_sequence_says_what_each_step_cost_and_what_came_back(table):
    text = shown(sequence_page(table, "requests.json"))
    for expected in ("2 deletion requests", "one request after another", "request-002 2 31.0 8.0 +0.0625", "0.3000"):
        assert expected in text, expected
    table["together"] = True
    assert "all at once" in shown(sequence_page(table, "requests.json"))


@pytest.mark.parametrize(("scheme", "width"), VIEWS)
def test_a_browser_shows_the_pages_and_axe_has_no_serious_complaint(
    answer, table, axe, check_page, tmp_path, scheme, width
):
    for name, text in (("request", request_page(answer, "request.json")), ("requests", sequence_page(table, "r.json"))):
        path = tmp_path / f"{name}.html"
        path.write_text(text)
        assert check_page(path, scheme, width) == 0
        assert [line for line in axe(path, scheme, width) if "(serious)" in line or "(critical)" in line] == []
