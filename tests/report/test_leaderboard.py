"""The order of the leaderboard, what it refuses, its table and its sentences."""

from __future__ import annotations

import copy
import io
import json
import math

import pytest

from salmu_jax.evaluation.registry import SCHEMA_2
from salmu_jax.evaluation.verdicts import FAILURE_MODES, GRADES, RULES
from salmu_jax.report import table
from salmu_jax.report.findings import findings
from salmu_jax.report.leaderboard import build_leaderboard
from salmu_jax.report.table import WIDTH, format_table, print_table
from salmu_jax.runtime.errors import InputError


def test_references_come_first_and_methods_in_the_documented_order(results):
    board = build_leaderboard(results)
    assert [row["model"] for row in board["rows"]] == [
        "clean",
        "compromised",
        "precise",  # the best grade
        "vl_unlearn",  # one failure: the nearer to the ideal the earlier
        "clip_erase",
        "delete",
        "finetuning",  # one and a partial one, which counts half
        "negative_gradient",  # two
        "direct_similarity_minimisation",
    ]
    assert [row["rank"] for row in board["rows"]] == [None, None, *range(1, 8)]
    verdicts = {row["model"]: row["verdicts"] for row in board["rows"]}
    assert verdicts["clean"] == verdicts["compromised"] == ["reference"]
    assert verdicts["precise"] == ["precise as far as measured"]
    assert verdicts["finetuning"] == ["ineffective", "partly over-generalised"]
    assert verdicts["clip_erase"] == ["over-generalised"]
    assert verdicts["negative_gradient"] == ["catastrophic", "over-generalised"]


def test_a_grade_comes_before_a_failure_however_near_the_ideal(results, build_result):
    def values(retfail, genknow, mrr):
        return (retfail, 0.0, 0.38, 0.6, 0.05, 0.2, genknow, 0.778, 0.781, 0.59, 0.53, 0.281, mrr)

    methods = {
        "imprecise": values(0.04, 0.580, 0.337),  # 9 % of the leakage left, 4.4 points lost
        "nearly": values(0.012, 0.620, 0.300),
        "partly": values(0.007, 0.624, 0.250),  # 74 % of a holdout's retrieval
    }
    references = [result for result in results if result["model"] in ("clean", "compromised")]
    made = [{**build_result("precise", figures), "model": model} for model, figures in methods.items()]
    rows = build_leaderboard([*made, *references])["rows"][2:]
    assert [(row["model"], row["verdicts"]) for row in rows] == [
        ("nearly", ["nearly precise as far as measured"]),
        ("imprecise", ["imprecise as far as measured"]),
        ("partly", ["partly over-generalised"]),
    ]
    assert rows[1]["distance_to_ideal"] > 0
    assert [row["grade"] for row in rows] == ["nearly precise", "imprecise", None]


def test_leaderboard_is_json_and_does_not_depend_on_the_order_of_the_results(results):
    board = build_leaderboard(results)
    assert board["schema"] == "salmu_jax.leaderboard/2"
    text = json.dumps(board, allow_nan=False)
    assert json.loads(text) == board
    assert json.dumps(build_leaderboard(results[::-1]), allow_nan=False) == text


def test_rows_carry_position_intervals_and_provenance(results):
    row = next(row for row in build_leaderboard(results)["rows"] if row["model"] == "finetuning")
    assert row["forgetting"] == pytest.approx((0.363 - 0.210) / (0.363 - 0.007))
    assert row["genknow_kept"] == pytest.approx(0.605 / 0.624)
    assert row["holdouts_kept"] == pytest.approx((0.726 - 0.405) / (0.781 - 0.405))
    assert row["retrieval_kept"] == pytest.approx((0.194 - 0.005) / (0.337 - 0.005))
    assert row["utility_kept"] == pytest.approx(
        (row["genknow_kept"] + row["holdouts_kept"] + row["retrieval_kept"]) / 3
    )
    distance = math.hypot(1 - row["forgetting"], 1 - row["utility_kept"])
    assert row["distance_to_ideal"] == pytest.approx(distance)
    assert row["intervals"]["RetFail_MRR"] == pytest.approx([0.189, 0.231])
    assert row["provenance"]["data"] == {"data.datasets": "d" * 64}  # what the data was, not where it lay
    assert len(row["provenance"]["config_sha256"]) == 64


def test_the_board_carries_the_table_of_rules(results):
    board = build_leaderboard(results)
    assert len(board["rules"]) == len(RULES)
    rule = board["rules"][0]
    assert rule["text"] == "less than 90% of the leakage removed"
    assert (rule["name"], rule["statistic"], rule["comparison"], rule["threshold"]) == (
        "ineffective",
        "leakage_removed",
        "<",
        0.9,
    )
    assert rule["references"] == ["retrained", "compromised", "clean"]
    assert rule["meaning"]
    assert set(board["verdicts"]) == {*FAILURE_MODES, *GRADES}


def test_thresholds_are_those_of_the_rules(results):
    """A method exactly on either side of a line gets or does not get the verdict."""
    board = build_leaderboard(results)
    limits = board["thresholds"]
    for row in board["rows"][2:]:
        assert ("ineffective" in row["verdicts"]) == (row["forgetting"] < limits["forgetting"])
        if row["holdouts_kept"] < limits["holdouts_kept"]:
            assert "over-generalised" in row["verdicts"]
        elif row["holdouts_kept"] < limits["holdouts_kept_partly"]:
            assert {"over-generalised", "partly over-generalised"} & set(row["verdicts"])
        if row["genknow_kept"] < limits["genknow_kept"]:
            assert "catastrophic" in row["verdicts"]
    assert 0 < limits["forgetting"] < 1


def test_skipped_genknow_is_none_everywhere(build_result):
    results = [build_result(model) for model in ("clean", "compromised", "clip_erase")]
    for result in results:
        result["utility"]["2.1_GenKnow"]["ImageNet1k_Accuracy"] = -1
        result["protocol"]["genknow"] = {"dataset": None, "classes": 0, "images": 0, "chance": None}
    board = build_leaderboard(results)
    for row in board["rows"]:
        assert row["metrics"]["GenKnow"] is None
        assert row["genknow_kept"] is None
    assert "-1" not in format_table(board).split("CLIPErase (SALMU)")[1].splitlines()[0]


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("provenance", "data", "datasets"), "e" * 64, "provenance.data.datasets"),
        (("protocol", "seed"), 43, "protocol.seed"),
        (("protocol", "gallery_retain"), 999, "protocol.gallery_retain"),
        (("protocol", "genknow", "classes"), 1000, "protocol.genknow.classes"),
        (("protocol", "idzsc_prompt"), "{name}", "protocol.idzsc_prompt"),
        (("protocol", "rows", "forget"), 401, "protocol.rows.forget"),
    ],
)
def test_results_measured_differently_are_refused_by_model_and_field(results, path, value, field):
    changed = copy.deepcopy(results)
    target = next(result for result in changed if result["model"] == "delete")
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(InputError) as error:
        build_leaderboard(changed)
    message = str(error.value)
    assert "'delete'" in message
    assert f"({field} " in message
    assert "'finetuning'" not in message
    assert "\n" not in message


def test_what_may_differ_between_results_is_not_refused(results):
    changed = copy.deepcopy(results)
    for number, result in enumerate(changed):
        result["provenance"] |= {"created": f"2026-01-0{number + 1}", "seconds": float(number), "command": str(number)}
        result["provenance"]["data"]["path"] = f"/somewhere/{number}"
        result["provenance"]["versions"] |= {"jax": f"0.10.{number}", "salmu_jax": f"0.1.{number}"}
    build_leaderboard(changed)


def test_missing_references_and_repeated_models_are_refused(results):
    with pytest.raises(InputError, match="no result for 'clean'"):
        build_leaderboard([result for result in results if result["model"] != "clean"])
    with pytest.raises(InputError, match="more than one result for 'delete'"):
        build_leaderboard([*results, next(result for result in results if result["model"] == "delete")])


def test_table_is_aligned_and_narrow_enough(results):
    board = build_leaderboard(results)
    lines = format_table(board).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert "\033" not in format_table(board)
    starts = ("Clean ", "Compromised ", "CLIPErase (SALMU) ", "DELETE (SALMU) ")
    rows = {start.strip(): next(line for line in lines if line.startswith(start)) for start in starts}
    assert len({line.index("|") for line in rows.values()}) == 1
    assert rows["CLIPErase (SALMU)"].split()[2:] == [
        "0.0030", "0.0000", "0.1080", "0.8280", "0.1060", "0.0650", "|",
        "0.6160", "0.1250", "0.1170", "0.5700", "0.5100", "over-generalised",
    ]  # fmt: skip
    head = next(line for line in lines if line.startswith("model"))
    assert head.split() == [
        "model", "MRR", "R@1", "Str", "ACS", "IdZSC", "Assoc", "|", "Know", "Sim", "Sim", "Int", "Sim", "verdict",
    ]  # fmt: skip
    # Figures stand right-aligned under the heads.
    assert head.index("MRR") + len("MRR") == rows["Clean"].index("0.0070") + len("0.0070")
    text = " ".join(lines)
    assert "efficacy -> Clean" in text
    assert "utility -> Compromised" in text
    assert "seed 42; data dddddddddddd; salmu_jax 0.1.0" in text
    assert "not the paper's" in format_table(board) or "not on the released data" in text
    for published in ("0.2361", "0.3215", "0.1417"):  # the paper's figures are never mixed in
        assert published not in text


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_only_on_a_terminal_and_without_no_color(results, monkeypatch):
    board = build_leaderboard(results)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    pipe, terminal, plain = io.StringIO(), _Terminal(), _Terminal()
    print_table(board, pipe)
    print_table(board, terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    print_table(board, plain)
    assert "\033[" in terminal.getvalue()
    assert pipe.getvalue() == plain.getvalue() == format_table(board)


def test_table_survives_a_terminal_without_unicode(results, build_result):
    results = [result for result in results if result["model"] != "delete"]
    odd = build_result("delete")
    odd["model"] = "délété"
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_table(build_leaderboard([*results, odd]), stream)
    stream.flush()
    assert b"d?l?t?" in stream.buffer.getvalue()


def test_findings_are_computed_from_the_results(results, build_result):
    text = findings(build_leaderboard(results))
    assert "52 times Clean's 0.0070" in text[0]
    assert text[1].startswith(
        "precise is precise as far as measured. What was asked for is forgotten, and the rest is kept: "
    )
    joined = " ".join(text)
    assert (
        "DELETE (SALMU) removes 100% of the leakage, and leaves nothing of what Compromised learnt of a holdout"
        in joined
    )
    assert "Direct Similarity Minimisation breaks the model: general knowledge falls from 0.624 to 0.098" in joined
    assert "Finetuning leaves 57% of the leakage in place" in joined
    assert "VLUnlearn keeps 11% of the similarity on the worse-off holdout but only 1% of the retrieval" in joined
    without = [result for result in results if result["model"] != "precise"]
    assert findings(build_leaderboard(without))[1] == "None of the 6 methods is seen to avoid all failure modes."
    assert len(findings(build_leaderboard([r for r in results if r["model"] in ("clean", "compromised")]))) == 1
    controls = [
        {**build_result("compromised"), "model": "no_op"},
        {**build_result("delete"), "model": "random_weights"},
    ]
    assert findings(build_leaderboard([*results, *controls])) == text  # what calibrates a board is no finding


def test_what_an_interval_leaves_open_is_said_in_table_and_findings(results):
    board = build_leaderboard(results)
    row = next(row for row in board["rows"] if row["model"] == "precise")
    row["straddles"] = [{"verdict": "precise", "holds": True}]
    assert "straddles" not in format_table(build_leaderboard(results))
    assert format_table(board).count("(?)") == 2  # the verdict's, and the legend's
    assert "straddles its line" in " ".join(format_table(board).split())
    assert findings(board)[1].startswith("precise is precise as far as measured, though not with certainty.")


def test_a_result_that_lacks_what_the_references_have_is_marked(results):
    whole = {**SCHEMA_2, "IndirectLeak": 1, "IndirectLeak@whole": 1}
    for result in results:
        if result["model"] != "delete":
            result["protocol"]["metrics"] = whole
    caveats = [line for line in build_leaderboard(results)["caveats"] if " lacks " in line]
    assert len(caveats) == 1
    assert "lacks IndirectLeak, IndirectLeak@whole, which Clean and Compromised have" in caveats[0]
    row = {
        "role": "method",
        "verdicts": ["over-generalised"],
        "straddles": [],
        "grade": None,
        "unprobed": ["relearning"],
    }
    assert table._verdict(row)[0] == "over-generalised as far as measured"
    assert table._verdict({**row, "unprobed": []})[0] == "over-generalised"


def test_controls_are_known_by_their_method(results, build_result):
    control = build_result("compromised")
    control |= {"model": "nothing"}
    control["provenance"]["checkpoint"]["run"] = {"method": "no_op"}
    odd = build_result("delete")
    odd |= {"model": "odd"}
    odd["provenance"]["checkpoint"]["run"] = "a text"  # whose result it is may write anything here
    rows = build_leaderboard([*results, control, odd])["rows"]
    assert [row["model"] for row in rows if row["control"]] == ["nothing"]
