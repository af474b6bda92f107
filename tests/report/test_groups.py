"""Groups: which results are seeds of one row, what the row says of them, and whose a result is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from salmu_jax.report.groups import describe_selector, group_keys, grouped
from salmu_jax.report.page import build_board
from salmu_jax.report.titles import display_name, row_title, title_of

RUN = {
    "method": "salun",
    "title": "SalUn",
    "options": {"share": 0.5},
    "hyper": {"learning_rate": 1e-5, "chain": [{"link": "noise"}]},
    "forget": {},
    "retain": ["salmu/retain_synth"],
    "code": None,
}


@pytest.fixture
def with_runs(build_result, build_entries):
    """Builds entries from run records by name, beside Clean and Compromised; each result's RetFail MRR is its seed / 100."""

    def build(runs: dict[str, dict]):
        results = [build_result("clean"), build_result("compromised")]
        for number, (name, run) in enumerate(runs.items()):
            mrr = (run.get("seed") or 0) / 100
            values = (mrr, 0.0, 0.38, 0.6, 0.05, 0.2, 0.63, 0.75, 0.75, 0.58, 0.52, 0.18, 0.21)
            result = {**build_result("precise", values), "model": name}
            result["provenance"]["checkpoint"] |= {"digest": f"{number:064x}", "run": {"name": name, **run}}
            results.append(result)
        return build_entries(results)

    return build


def groups_of(board):
    return [group for group in board["groups"] if group["role"] == "method"]


def test_seeds_are_one_row_with_mean_and_spread(with_runs):
    board = build_board(with_runs({f"s{seed}": {**RUN, "seed": seed} for seed in (3, 1, 2)}))
    (group,) = groups_of(board)
    assert group["title"] == "SalUn"
    assert sorted(group["members"]) == ["s1", "s2", "s3"]
    assert sorted(group["seeds"]) == [1, 2, 3]
    assert group["typical"] == "s2"
    spread = group["metrics"]["RetFail_MRR"]
    assert spread["mean"] == pytest.approx(0.02)
    assert spread["deviation"] == pytest.approx(0.01)
    assert (spread["low"], spread["high"], spread["count"]) == (0.01, 0.03, 3)
    shown = grouped(board)["rows"]
    assert [row["model"] for row in shown] == ["clean", "compromised", "s2"]
    assert shown[2]["metrics"]["RetFail_MRR"] == spread["mean"]
    assert row_title(shown[2]) == "SalUn (3 seeds)"
    assert json.loads(json.dumps(board, allow_nan=False)) == board


@pytest.mark.parametrize(
    ("change", "variant"),
    [
        ({"options": {"share": 0.25}}, "share 0.25"),
        ({"hyper": {**RUN["hyper"], "learning_rate": 1e-4}}, "learning rate 0.0001"),
        ({"forget": {"share": 0.1, "by": "identities", "seed": 4}}, "forgets 0.1 of the identities, seed 4"),
        ({"parent": {"name": "delete", "digest": "e" * 64}}, "on delete"),
        ({"code": "f" * 64}, "code fffff..."),
        ({"retain": ["salmu/retain_synth", "retain_pairs/train"]}, "retains salmu/retain_synth, retain_pairs/train"),
    ],
)
def test_another_setting_is_another_row_that_says_so(with_runs, change, variant):
    board = build_board(with_runs({"a": {**RUN, "seed": 1}, "b": {**RUN, **change, "seed": 2}}))
    by_name = {group["typical"]: group for group in groups_of(board)}
    assert by_name["b"]["variant"] == variant
    assert by_name["a"]["variant"] != variant


def test_a_relearning_on_each_of_several_seeds_is_one_row(with_runs):
    runs = {f"s{seed}": {**RUN, "seed": seed} for seed in (1, 2)}
    for number, seed in enumerate((1, 2)):
        parent = {"name": f"s{seed}", "digest": f"{number:064x}"}
        runs[f"again{seed}"] = {**RUN, "method": "relearn", "title": "Relearn", "parent": parent, "seed": 7}
    entries = with_runs(runs)
    assert sorted(len(group["members"]) for group in groups_of(build_board(entries))) == [2, 2]
    # Parents that claim to be each other's end in no recursion.
    for entry, other in zip(entries[2:4], (1, 0), strict=True):
        entry.result["provenance"]["checkpoint"]["run"]["parent"] = {"name": "x", "digest": f"{other:064x}"}
    assert len(group_keys(entries)) == 6


def test_a_result_without_a_record_is_a_row_of_its_own(results, build_entries):
    board = build_board(build_entries(results))
    assert [len(group["members"]) for group in board["groups"]] == [1] * 9
    assert [group["rank"] for group in board["groups"]] == [None, None, *range(1, 8)]
    assert {group["variant"] for group in board["groups"]} == {""}


def test_records_that_are_none_break_nothing(with_runs):
    odd = [{"options": [1], "hyper": "x", "parent": {"digest": {"a": 1}}, "forget": "all", "title": 3, "seed": None}]
    odd += [{**odd[0], "options": None, "parent": "compromised", "forget": {"identities": "x", "share": "y"}}]
    board = build_board(with_runs({f"m{number}": run for number, run in enumerate(odd)}))
    assert len(groups_of(board)) == 2


def test_no_method_takes_the_title_of_a_reference(build_result):
    result = build_result("delete")
    for title in ("Clean", " com-promised "):
        result["provenance"]["checkpoint"]["run"] = {"title": title}
        assert title_of(result) == "DELETE (SALMU)"
    result["model"] = "c-lean"
    assert title_of(result) == "method c-lean"
    result["provenance"]["checkpoint"]["run"] = {"title": "My \u202emethod"}
    assert title_of(result) == "My \\u202emethod"
    assert title_of(build_result("clean")) == "Clean"


@pytest.mark.parametrize(("name", "title"), [("cliperase", "CLIPErase"), ("delete", "DELETE")])
def test_results_of_before_the_papers_forms_keep_apart_from_them(name, title, build_result):
    result = build_result("delete")
    for method, expected in ((name, f"{title} (SALMU)"), (f"{name}_paper", title), ("mine.py:Mine", title)):
        result["provenance"]["checkpoint"]["run"] = {"title": title, "method": method}
        assert title_of(result) == expected


def test_display_names():
    assert display_name("clip_erase") == display_name("cliperase") == "CLIPErase (SALMU)"
    assert display_name("my_new_method") == "my new method"


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        (None, "all of forget"),
        ({}, "all of forget"),
        ({"identities": None, "share": None, "by": "rows", "seed": 42}, "all of forget"),
        ({"identities": ["00000003"]}, "1 identity (00000003)"),
        ({"identities": ["1", "2", "3", "4"]}, "4 identities (1, 2, 3, ...)"),
        ({"associations": [["1", "city"], ["2", "job"]]}, "2 associations"),
        ({"fields": ["city", "job"]}, "city, job"),
        ({"share": 0.1, "by": "rows", "seed": 42}, "0.1 of the rows, seed 42"),
        ({"something": "else"}, "something else"),
    ],
)
def test_selectors_in_words(selector, words):
    assert describe_selector(selector) == words


def test_whose_a_result_is():
    from salmu_jax.report.gather import submitter_names

    def names(*paths):
        return list(submitter_names([Path(path) for path in paths]).values())

    assert names("ada/results/a.json", "bo/a.json", "bo/b.json") == ["ada", "bo", "bo"]
    assert names("x/ada/1/results/a.json", "x/ada/2/results/a.json") == ["1", "2"]
    assert names("results/a.json", "results/b.json") == ["", ""]
    assert names("all/a.json", "all/ada/results/a.json") == ["", "ada"]
    assert names("ada/a.json", "ada/results/a.json", "bo/a.json") == ["ada", "ada/results", "bo"]
