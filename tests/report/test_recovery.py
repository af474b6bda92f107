"""A result's page shows relearning curves by subset of people, and RetFail with other weights, beside the references'."""

from __future__ import annotations

import re
import types

import numpy as np
import pytest
import tiny_world

from salmu_jax.evaluation.metric import Settings
from salmu_jax.evaluation.protocol import IDZSC_PROMPT, describe_protocol, make_result, score_rows
from salmu_jax.evaluation.registry import chosen
from salmu_jax.evaluation.result import seal
from salmu_jax.report import charts
from salmu_jax.report.gather import Entry
from salmu_jax.report.page import build_board, render_pages
from salmu_jax.report.recovery import recovery
from salmu_jax.report.site import make_site

# The rank of every row after 20, 40 and 60 steps; with int8, int4 and on the way to Compromised.
ATTACKED = {"clean": (160, 160, 150, 160), "compromised": (1, 2, 4, 1), "hiding": (100, 4, 10, 5)}


@pytest.fixture(scope="module")
def site():
    data, settings = tiny_world.tiny_data(), Settings(42, IDZSC_PROMPT)
    metrics = chosen(types.SimpleNamespace(probes=("relearn", "weights"), probe_form="short"))
    entries = []
    for model, (*steps, other) in ATTACKED.items():

        def ranks(rank: int) -> dict[str, np.ndarray]:
            return {"rank": np.full(len(data.splits["forget"]), rank, np.int16)}

        variants = {
            "relearn-rows_10": {f"1e-05-{step}": ranks(rank) for step, rank in zip((20, 40, 60), steps, strict=True)},
            "rounded": {"int8": ranks(other), "int4": ranks(1)},
            "towards": {"25": {} if model == "clean" else ranks(other)},
        }
        strength = 2.0 if model == "compromised" else 0.2
        embeddings = tiny_world.drawn_embeddings(data, model, IDZSC_PROMPT, strength)
        rows = score_rows(data, embeddings, settings, metrics, variants)
        protocol = describe_protocol(data, rows, settings, metrics, bootstrap=50)
        entries.append(Entry(model, "", seal(make_result(model, rows, protocol, {"data": {}}, metrics)), rows))
    return make_site(build_board(entries), entries)


def view(site, model):
    return recovery(site, next(row for row in site.board["rows"] if row["model"] == model))


def heights(path):
    return [float(pair.split()[1]) for pair in path.removeprefix("M").split("L")]


def test_curves_of_both_subsets_stand_beside_those_of_the_references(site):
    found = view(site, "hiding")
    assert (found["rate"], found["share"]) == ("1e-05", 10)
    assert [panel["title"] for panel in found["panels"]] == ["forgotten whole", "forgotten in part"]
    for panel in found["panels"]:
        assert panel["highest"] == pytest.approx(1 / 4)
        _, after_20, after_40, after_60 = heights(panel["own"])
        assert after_40 < after_60 < after_20  # y grows downwards: the highest is at 40 steps
        assert len(panel["points"]) == 4
        lines = dict(panel["references"])
        assert list(lines) == ["clean", "compromised"]
        assert max(heights(lines["compromised"])) < min(heights(lines["clean"]))
        assert panel["band"].endswith("z")
        assert [text for _, text in panel["x_ticks"]] == ["0", "20", "40", "60"]
    assert [style for style, _ in view(site, "clean")["panels"][0]["references"]] == ["compromised"]


def test_a_table_has_retfail_with_each_change_of_weights(site):
    table = view(site, "hiding")["weights"]
    assert [model["role"] for model in table["models"]] == ["method", "clean", "compromised"]
    rows = {row["title"]: [value for value, _ in row["values"]] for row in table["rows"]}
    assert list(rows) == ["as they are", "int8 per channel", "int4 per channel", "25 % to Compromised"]
    assert rows["int8 per channel"] == pytest.approx([1 / 5, 1 / 160, 1])
    assert rows["25 % to Compromised"] == [pytest.approx(1 / 5), None, pytest.approx(1)]


def test_the_page_shows_both_and_nothing_where_nothing_was_measured(site, results, build_entries, samples, run):
    pages = render_pages(site, [], title="Recovery", run=run)
    page = pages["models/hiding.html"]
    assert page.count('<svg class="curves"') == 2
    assert re.search(r"highest 0\.2500", page)
    assert "RetFail MRR with other weights" in page
    entries = build_entries(results)
    without = render_pages(make_site(build_board(entries), entries), samples, title="t", run=run)
    assert not any("What comes back" in text for name, text in without.items() if name.endswith(".html"))


def test_a_curve_of_many_steps_has_few_marks_on_its_axis():
    steps = (0, 10, 20, 30, 40, 50, 60, 100, 150, 200)
    panel = charts.curves({step: 0.1 for step in steps}, {}, {"clean": {0: 0.0, 60: 0.4}})
    assert [text for _, text in panel["x_ticks"]] == ["0", "50", "100", "150", "200"]
    assert panel["band"] == ""
    assert all(panel["frame"]["left"] <= x <= panel["frame"]["right"] for x, _ in panel["points"])
    assert charts.curves({0: 0.0, 20: 0.0}, {}, {})["own"]  # of a model that finds nothing at all
