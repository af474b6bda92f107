"""How far results are from Retrained, on either side: against numpy, by subset of people, on the page and without it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny_world

from salmu_jax.evaluation.protocol import describe_protocol, make_result, score_rows
from salmu_jax.evaluation.registry import METRICS
from salmu_jax.evaluation.subsets import with_subsets
from salmu_jax.report.differences import difference_intervals
from salmu_jax.report.distances import WITHOUT, add_distances
from salmu_jax.report.gather import Entry
from salmu_jax.report.page import build_board, write_report

MEASURED = with_subsets(METRICS)
STRENGTHS = {
    "clean": 0.2,
    "compromised": 2.0,
    "retrained": {"forget": 0.3, "holdout_association": 2.0, "holdout_identity": 2.0, "retain_synth": 0.2},
    "delete": 0.3,
}
OLD = "finetuning"  # whose result was made before figures were given by subset


@pytest.fixture(scope="module")
def entries():
    data = tiny_world.tiny_data()
    settings = tiny_world.asked()["settings"]
    found = []
    for model, strength in {**STRENGTHS, OLD: 1.5}.items():
        metrics = METRICS if model == OLD else MEASURED
        embeddings = tiny_world.drawn_embeddings(data, model, settings.idzsc_prompt, strength)
        rows = score_rows(data, embeddings, settings, metrics)
        protocol = describe_protocol(data, rows, settings, metrics, bootstrap=100)
        provenance = {"versions": {}, "data": {}, "checkpoint": {"digest": tiny_world.checkpoint_digest(model)}}
        found.append(Entry(model, "", make_result(model, rows, protocol, provenance, metrics), rows))
    return found


@pytest.fixture(scope="module")
def board(entries):
    return add_distances(build_board(entries), difference_intervals(entries))


def row_of(board, model):
    return next(row for row in board["rows"] if row["model"] == model)


def test_the_differences_are_those_of_the_figures(board, entries):
    rows = {entry.id: entry.rows for entry in entries}
    found = row_of(board, "delete")["to_retrained"]["RetFail_MRR"]
    whole = rows["delete"]["forget.identity"] % 3 == 0  # of the tiny world: each third person is forgotten whole
    for people, chosen in (("all", slice(None)), ("whole", whole), ("part", ~whole)):
        own, aim = (
            np.mean(1 / rows[model]["forget.rank"][chosen], dtype=np.float64) for model in ("delete", "retrained")
        )
        assert found[people]["value"] == pytest.approx(own, abs=1e-12)
        assert found[people]["retrained"] == pytest.approx(aim, abs=1e-12)
        assert found[people]["difference"] == pytest.approx(own - aim, abs=1e-12)
        low, high = found[people]["interval"]
        assert low <= found[people]["difference"] <= high


def test_an_interval_is_of_the_paired_difference(entries):
    """With the resamples that a pair of results shares: drawn here once more, from the seed."""
    from salmu_jax.evaluation import draws

    rows = {entry.id: entry.rows for entry in entries}
    part = rows["delete"]["forget.identity"] % 3 == 1
    people, owner = np.unique(rows["delete"]["forget.identity"][part], return_inverse=True)
    change = rows["delete"]["forget.similarity"].astype(np.float64) - rows["retrained"]["forget.similarity"]
    counts = draws.generator(42, draws.BOOTSTRAP).multinomial(
        len(people), np.full(len(people), 1 / len(people)), size=100
    )
    means = [np.average(change[part], weights=count[owner]) for count in counts]
    expected = np.quantile(means, [0.025, 0.975])
    found = difference_intervals(entries)["delete"]["retrained"]["AssocStr@part"]
    assert found == pytest.approx(tuple(expected), abs=1e-12)


def test_what_is_measured_on_other_rows_has_no_subsets(board):
    found = row_of(board, "delete")["to_retrained"]
    assert set(found["GenKnow"]) == set(found["InterIdSim"]) == set(found["IdZSC"]) == {"all"}
    assert set(found["ACS"]) == {"all", "whole", "part"}


def test_the_other_references_are_compared_too_and_retrained_not_with_itself(board):
    assert row_of(board, "retrained")["to_retrained"] is None
    assert row_of(board, "clean")["to_retrained"]["InterIdSim"]["all"]["difference"] < 0
    assert row_of(board, "compromised")["to_retrained"]["RetFail_MRR"]["part"]["difference"] > 0


def test_a_result_without_subsets_is_compared_as_far_as_it_goes(board):
    found = row_of(board, OLD)["to_retrained"]
    assert set(found["RetFail_MRR"]) == {"all"}
    assert found["RetFail_MRR"]["all"]["interval"] is not None


def test_page_and_leaderboard_have_them(entries, tmp_path):
    write_report(tmp_path / "report", entries, title="t", run={"command": "c"})
    board = json.loads((tmp_path / "report" / "leaderboard.json").read_text())
    assert board["retrained"]["evaluated"] is True
    assert row_of(board, "delete")["to_retrained"]["AssocStr"]["part"]["interval"]
    page = (tmp_path / "report" / "models" / "delete.html").read_text()
    assert 'id="retrained"' in page
    assert "forgotten in part" in page
    assert 'id="retrained"' in (tmp_path / "report" / "index.html").read_text()
    assert 'id="retrained"' not in (tmp_path / "report" / "models" / "retrained.html").read_text()


def test_without_retrained_the_page_says_which_targets_are_too_strict(entries, tmp_path):
    others = [entry for entry in entries if entry.id != "retrained"]
    write_report(tmp_path / "report", others, title="t", run={"command": "c"})
    board = json.loads((tmp_path / "report" / "leaderboard.json").read_text())
    assert board["retrained"] == {"evaluated": False, "note": WITHOUT}
    assert row_of(board, "delete")["to_retrained"] is None
    for page in ("index.html", "models/delete.html"):
        text = (tmp_path / "report" / page).read_text()
        assert "the targets of RetFail, AssocStr, ACS and CoreAssoc" in " ".join(text.split())
        assert "Table of distances" not in text
