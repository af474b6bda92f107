"""What the mini benchmark has to show, on the result files of a finished run.

The run is the one of ``make bench``, in ``runs/mini`` or where ``SALMU_RUN`` says. Continuous integration makes it first, and
says where it is, so that there it cannot be missing. A run of other code says nothing of this code: it is refused.
"""

import json
import os
from pathlib import Path

import pytest

from salmu_jax.evaluation.protocol import load_result
from salmu_jax.evaluation.result import leaderboard_row
from salmu_jax.runtime import identity

ROOT = Path(__file__).parents[2]
RUN = Path(os.environ.get("SALMU_RUN", ROOT / "runs" / "mini"))
METHODS = (
    "finetuning",
    "negative_gradient",
    "direct_similarity_minimisation",
    "vlunlearn",
    "cliperase",
    "delete",
)
VERDICTS = {  # what each method shows at least
    "finetuning": "ineffective",
    "generic_captions": "ineffective",
    "shuffled_captions": "catastrophic",
    "negative_gradient": "over-generalised",
    "direct_similarity_minimisation": "over-generalised",
    "vlunlearn": "over-generalised",
    "cliperase": "over-generalised",
    "delete": "over-generalised",
}


def made_by_other_code(run: Path) -> set[str]:
    """The files whose code is no longer what a stage of a run was made by."""
    different = set()
    for path in sorted((run / "stages").glob("*.json")):
        record = json.loads(path.read_text())
        if "stage" not in record:  # seen.json, which files have been read
            continue
        stage, _, name = record["stage"].partition(" ")
        method = [f"salmu_jax.unlearning.methods.{name}"] if stage == "unlearn" else []
        before = record["fields"].get("code", {})
        now = identity.code(stage, *method)
        different |= {file for file in before.keys() | now.keys() if before.get(file) != now.get(file)}
    return different


def test_a_run_of_other_code_is_seen(tmp_path):
    (tmp_path / "stages").mkdir()
    method = "salmu_jax.unlearning.methods.delete"
    code = {"report": identity.code("report"), "unlearn delete": identity.code("unlearn", method)}
    for stage, digests in code.items():
        record = {"stage": stage, "fields": {"code": digests}}
        (tmp_path / "stages" / f"{stage}.json").write_text(json.dumps(record))
    (tmp_path / "stages" / "seen.json").write_text('{"some/file": [1, 2, 3]}')
    assert made_by_other_code(tmp_path) == set()
    record["fields"]["code"] = {**digests, "salmu_jax/unlearning/methods/delete.py": "0", "salmu_jax/gone.py": "0"}
    (tmp_path / "stages" / f"{stage}.json").write_text(json.dumps(record))
    assert made_by_other_code(tmp_path) == {"salmu_jax/unlearning/methods/delete.py", "salmu_jax/gone.py"}


@pytest.fixture(scope="module")
def run() -> Path:
    """The directory of a finished run of the code as it is."""
    if not (RUN / "report" / "leaderboard.json").exists():
        reason = f"no finished run in {RUN}: 'make bench' makes it (or name another with SALMU_RUN)"
        (pytest.fail if "SALMU_RUN" in os.environ else pytest.skip)(reason)
    if different := sorted(made_by_other_code(RUN)):
        pytest.fail(f"{RUN} was made by other code ({', '.join(different[:3])}): 'make bench' renews it", pytrace=False)
    return RUN


@pytest.fixture(scope="module")
def rows(run):
    return {path.stem: leaderboard_row(load_result(path)) for path in (run / "results").glob("*.json")}


@pytest.fixture(scope="module")
def board(run):
    return json.loads((run / "report" / "leaderboard.json").read_text())


def test_all_models_are_there(rows):
    assert {"clean", "compromised", "retrained", *METHODS} <= rows.keys()


def test_the_compromised_model_has_memorised_and_the_clean_one_has_not(rows):
    clean, compromised = rows["clean"], rows["compromised"]
    assert compromised["RetFail_MRR"] >= 0.3
    assert compromised["RetFail_MRR"] >= 20 * clean["RetFail_MRR"]
    assert compromised["AssocStr"] >= 1.7 * clean["AssocStr"]


@pytest.mark.parametrize("holdout", ["InterIdSim", "IntraIdSim"])
def test_the_compromised_model_knows_the_holdouts_as_well(rows, holdout):
    compromised = rows["compromised"]
    assert abs(compromised[holdout] - compromised["AssocStr"]) <= 0.05 * compromised["AssocStr"]


def test_both_foundation_models_know_the_world_equally_well(run, rows):
    chance = json.loads((run / "results" / "clean.json").read_text())["protocol"]["genknow"]["chance"]
    clean, compromised = rows["clean"]["GenKnow"], rows["compromised"]["GenKnow"]
    assert min(clean, compromised) >= 15 * chance
    assert abs(clean - compromised) <= 0.04


def test_retrained_finds_people_forgotten_in_part_and_nobody_else(rows):
    clean, compromised, retrained = rows["clean"], rows["compromised"], rows["retrained"]
    assert retrained["RetFail_MRR@whole"] <= 2 * clean["RetFail_MRR@whole"]
    assert 10 * clean["RetFail_MRR@part"] <= retrained["RetFail_MRR@part"] <= compromised["RetFail_MRR@part"] / 2
    for key in ("InterIdSim", "IntraIdSim", "GenKnow"):
        assert retrained[key] == pytest.approx(compromised[key], rel=0.05)


def test_a_published_method_over_generalises(rows):
    clean, compromised = rows["clean"], rows["compromised"]
    assert any(
        rows[name]["RetFail_MRR"] <= 2 * clean["RetFail_MRR"]
        and rows[name]["InterIdSim"] < compromised["InterIdSim"] / 2
        for name in ("cliperase", "delete")
    )


def test_one_method_is_ineffective(rows):
    assert any(rows[name]["RetFail_MRR"] > rows["compromised"]["RetFail_MRR"] / 3 for name in METHODS)


def test_one_method_is_catastrophic(rows):
    assert any(rows["compromised"]["GenKnow"] - rows[name]["GenKnow"] > 0.05 for name in METHODS)


def test_redirection_forgets_people_whole_and_keeps_the_others(rows):
    retrained, compromised, found = rows["retrained"], rows["compromised"], rows["redirect"]
    assert found["RetFail_MRR@whole"] <= 1.5 * retrained["RetFail_MRR@whole"]
    assert found["IndirectLeak@whole"] <= 0.02 * compromised["IndirectLeak@whole"]
    for key, share in (("InterIdSim", 0.97), ("InterIdRet_MRR", 0.75), ("IntraIdRet_MRR", 0.65), ("VisIdInt", 0.97)):
        assert found[key] >= share * compromised[key]
    assert found["GenKnow"] >= compromised["GenKnow"] - 0.005


def test_the_leaderboard_says_so(board):
    assert [row["model"] for row in board["rows"]][:3] == ["clean", "compromised", "retrained"]
    verdicts = {row["model"]: row["verdicts"] for row in board["rows"]}
    assert verdicts.keys() >= {"clean", "compromised", "retrained", *VERDICTS}
    assert {model: verdict for model, verdict in VERDICTS.items() if verdict not in verdicts[model]} == {}
    grades = {row["model"]: row["grade"] for row in board["rows"]}
    assert all(grades[model] is None for model in VERDICTS)  # as published: no method is free of failures
    assert all(row["statistic_intervals"] for row in board["rows"] if row["role"] == "method")


def test_the_controls_calibrate_the_board(board):
    rows = {row["model"]: row for row in board["rows"]}
    nothing, destroyed = rows["no_op"], rows["random_weights"]
    assert nothing["control"]
    assert destroyed["control"]
    assert (nothing["verdicts"], nothing["straddles"]) == (["ineffective"], [])
    assert (nothing["statistics"]["leakage_removed"], nothing["statistics"]["genknow_lost"]) == (0, 0)
    assert destroyed["verdicts"] == ["catastrophic", "over-generalised"]
    assert destroyed["statistics"]["leakage_removed"] > 0.99


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_the_page_shows_every_picture(run, check_page, scheme, width):
    page = run / "report" / "index.html"
    assert check_page(page.absolute(), scheme, width) == page.read_text(encoding="utf-8").count("<img ") > 20
