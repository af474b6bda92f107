"""A report shows the probes that its results have, and takes no figure in another form for Clean's."""

from __future__ import annotations

import pytest
from worded import METRICS_AND_PROBES, model, settings, worded_data

from salmu_jax.evaluation.protocol import describe_protocol, make_result, score_rows
from salmu_jax.evaluation.registry import METRICS
from salmu_jax.report.gather import Entry
from salmu_jax.report.page import write_report

MODELS = {  # the words that each knows, its form, and what was measured
    "clean": ((), "short", METRICS_AND_PROBES),
    "compromised": (("literal", "paraphrase", "unseen", "bare"), "short", METRICS_AND_PROBES),
    "hides": (("paraphrase", "bare"), "short", METRICS_AND_PROBES),
    "asked_in_full": (("paraphrase", "bare"), "full", METRICS_AND_PROBES),
    "not_probed": (("literal",), "short", METRICS),
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    data, entries = worded_data(), []
    for name, (knows, form, metrics) in MODELS.items():
        rows = score_rows(data, model(data, knows, settings(form)), settings(form), metrics)
        protocol = describe_protocol(data, rows, settings(form), metrics, bootstrap=20)
        provenance = {"versions": {}, "data": {}, "checkpoint": {"digest": name, "parent": None}}
        entries.append(Entry(name, "", make_result(name, rows, protocol, provenance, metrics), rows))
    return write_report(tmp_path_factory.mktemp("probed") / "report", entries, title="t", run={})


def test_the_board_has_each_probe_and_no_figure_of_another_form(report):
    _, board = report
    assert list(board["probes"]) == ["indirect", "holdout_paraphrase"]
    rows = {row["model"]: row["metrics"] for row in board["rows"]}
    assert rows["hides"]["IndirectLeak"] > 0.5 > rows["hides"]["RetFail_MRR"]
    assert rows["asked_in_full"]["IndirectLeak"] is None
    assert rows["asked_in_full"]["Indirect_bare"] > 0.5  # the same question in both forms
    assert rows["not_probed"]["Indirect_bare"] is None


def test_the_pages_show_them(report):
    page, board = report
    text = page.read_text()
    assert text.count('id="probes"') == 1
    assert text.count("<caption>Indirect</caption>") == text.count("<caption>Holdout paraphrase</caption>") == 1
    leak = next(row["metrics"]["IndirectLeak"] for row in board["rows"] if row["model"] == "hides")
    assert f"<td>{leak:.4f}</td>" in text
    own = {path.stem: path.read_text() for path in (page.parent / "models").glob("*.html")}
    assert "IndirectLeak<small>" in own["hides"]
    assert "IndirectLeak<small>" not in own["not_probed"]
