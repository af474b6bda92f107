"""A report shows the probes that its results have, and takes no figure in another form for Clean's."""

from __future__ import annotations

import numpy as np
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


def entry(data, name, generic=True):
    knows, form, metrics = MODELS[name]
    rows = score_rows(data, model(data, knows, settings(form)), settings(form), metrics)
    if not generic:
        rows |= {"forget.has_generic": np.zeros_like(rows["forget.has_generic"])}
    protocol = describe_protocol(data, rows, settings(form), metrics, bootstrap=20)
    provenance = {"versions": {}, "data": {}, "checkpoint": {"digest": name, "parent": None}}
    return Entry(name, "", make_result(name, rows, protocol, provenance, metrics), rows)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    data = worded_data()
    entries = [entry(data, name) for name in MODELS]
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


def test_what_no_model_could_be_measured_by_is_a_dash_with_a_reason(tmp_path):
    data = worded_data()
    entries = [entry(data, name, generic=False) for name in ("clean", "compromised")]
    page, board = write_report(tmp_path / "report", entries, title="t", run={})
    assert "Indirect_text_to_text" in [metric["key"] for metric in board["probes"]["indirect"]]
    text = page.read_text()
    assert text.count("<td>–</td></tr>") == 2  # the last column of the table of the probe
    assert "<li>Indirect_text_to_text was not measured: no row of forget has a generic caption.</li>" in text
