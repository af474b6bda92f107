"""The charts' geometry: names that do not overlap, outlines that hold what they show, and what becomes of missing figures."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salmu_jax.report import charts
from salmu_jax.report.labels import Box, place_labels

REGIONS = [("ineffective", "mode0", 0.66), ("catastrophic", "mode1", 0.92)]


def points(count: int) -> list[dict]:
    rng = np.random.default_rng(3)
    found = [
        {"forgetting": float(x), "kept": float(y), "title": f"Method number {i}", "role": "method", "rank": i + 1}
        for i, (x, y) in enumerate(rng.uniform(0, 1, (count, 2)))
    ]
    found += [
        {"forgetting": x, "kept": x, "title": role, "role": role, "rank": None}
        for role, x in (("clean", 1), ("compromised", 0))
    ]
    return [{**point, "shape": "circle"} for point in found]


@pytest.mark.parametrize("count", [9, 200])
def test_names_in_the_scatter_cover_neither_each_other_nor_the_frame(count):
    panel = charts.scatter(points(count), "kept", REGIONS)
    assert len(panel["marks"]) == count + 2
    named = [mark for mark in panel["marks"] if mark["lines"]]
    assert len(named) == (11 if count == 9 else 5)  # with many, the references and the first three
    boxes = []
    for mark in named:
        for x, y, text in mark["lines"]:
            width = len(text) * 6
            boxes.append((mark["title"], Box(x - width / 2, y - 9, x + width / 2, y + 1)))
    for number, (title, box) in enumerate(boxes):
        assert box.left >= 40
        assert box.right <= charts.WIDTH
        assert not any(box.overlaps(other) for name, other in boxes[:number] if name != title)


def test_a_mark_lies_where_its_shares_say():
    one = {"forgetting": 0.5, "kept": 0.25, "title": "m", "role": "method", "rank": 1, "shape": "star"}
    panel = charts.scatter([*points(0), one], "kept", REGIONS)
    (mark,) = (mark for mark in panel["marks"] if mark["role"] == "method")
    x, y = (dict((text, place) for place, text in panel[axis]) for axis in ("x_ticks", "y_ticks"))
    assert mark["x"] == pytest.approx(x["50%"], abs=0.02)
    assert mark["y"] == pytest.approx(y["25%"], abs=0.02)
    assert y["100%"] < y["0%"]  # upwards
    left, below = panel["bands"]
    assert left["x"] + left["width"] == pytest.approx(x["50%"] + (x["75%"] - x["50%"]) * 16 / 25, abs=0.1)
    assert below["y"] > y["100%"]


def test_what_was_not_measured_is_left_out():
    unknown = [{**point, "kept": None} for point in points(3)]
    assert charts.scatter(unknown, "kept", REGIONS) == {}
    some = charts.scatter([*points(1), *unknown], "kept", [("ineffective", "mode0", None)])
    assert len(some["marks"]) == 3
    assert some["bands"] == []
    assert charts.strip(None, None, 0.1, 0.9) == {}


def test_far_off_figures_are_drawn_on_the_edge():
    wild = [{**point, "forgetting": -40.0, "kept": 9.0} for point in points(1)]
    panel = charts.scatter([*points(2), *wild], "kept", REGIONS)
    for mark in panel["marks"]:
        assert 0 <= mark["x"] <= charts.WIDTH
        assert 0 <= mark["y"] <= charts.HEIGHT


def test_a_histogram_holds_the_shares():
    edges = np.linspace(0, 1, 5)
    shares = charts.shares(np.array([0.1, 0.1, 0.3, 0.9]), edges)
    assert shares.tolist() == [0.5, 0.25, 0, 0.25]
    panel = charts.histogram(shares, shares, np.zeros(4), edges, 0.5)
    assert panel["aim"] == charts.PANEL_WIDTH / 2
    heights = [float(y) for y in re.findall(r"V([\d.]+)", panel["clean"])]
    base = panel["base"]
    assert [(base - y) / (base - min(heights)) for y in heights] == pytest.approx([1, 0.5, 0, 0.5], abs=1e-3)
    assert panel["fill"] == f"{panel['clean']}V{base:g}H0z"
    assert charts.shares(np.array([]), edges).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("low", "high"), [(-0.4, 0.95), (0.1, 0.13), (-1, 1), (0, 1e-6)])
def test_ticks_are_a_few_round_numbers_between_the_ends(low, high):
    ticks = charts._ticks(low, high)
    assert 2 <= len(ticks) <= 6
    assert low < ticks[0]
    assert ticks[-1] < high
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])


def test_bins_hold_every_similarity_of_all_models():
    columns = [
        {"forget": np.array([-0.5, 0.25]), "holdout_association": np.array([0.5]), "holdout_identity": np.array([])},
        {split: np.array([0.75]) for split in charts.SPLITS},
    ]
    edges = charts.bin_edges(columns)
    assert edges[0] < -0.5
    assert edges[-1] > 0.75
    assert sum(charts.shares(columns[0]["forget"], edges)) == 1


def test_a_strip_shows_a_figure_between_the_references():
    one = charts.strip(0.3, (0.25, 0.35), 0.1, 0.9)
    assert one["clean"] < one["interval"][0] < one["value"] < one["interval"][1] < one["compromised"]
    assert (one["value"] - one["clean"]) / (one["compromised"] - one["clean"]) == pytest.approx(0.25, abs=1e-3)
    assert charts.strip(0.3, None, None, None)["value"] == charts.STRIP_WIDTH / 2


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 800), st.floats(0, 500)), min_size=1, max_size=12))
def test_labels_never_overlap_where_there_is_room(points):
    bounds = Box(-400, -300, 1200, 800)
    boxes = place_labels(points, [(90, 16)] * len(points), bounds)
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:index])
        assert bounds.left <= box.left
        assert box.right <= bounds.right
        assert (box.right - box.left, box.top - box.bottom) == pytest.approx((90, 16))


def test_segment_through_a_rectangle():
    box = Box(0, 0, 2, 1)
    assert box.crossed_by((-1, 0.5), (3, 0.5))
    assert box.crossed_by((1, -1), (1, 3))
    assert not box.crossed_by((-1, 2), (3, 1.5))
    assert not box.crossed_by((-3, 0.5), (-1, 0.5))
