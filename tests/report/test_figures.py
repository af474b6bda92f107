"""The figures: bytes that repeat, names that do not overlap, and what becomes of missing figures."""

from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from salmu_jax.report import figures
from salmu_jax.report.labels import Box, place_labels
from salmu_jax.report.leaderboard import build_leaderboard


def test_figures_repeat_bit_for_bit_whatever_the_users_matplotlib_says(results, similarity):
    board = build_leaderboard(results)
    rendered = figures.render_figures(board, results, similarity)
    names = ("forgetting_utility", "similarity", "attributes")
    assert set(rendered) == {f"{name}{theme}.png" for name in names for theme in ("", "-dark")}
    with mpl.rc_context({"font.size": 31, "axes.linewidth": 6, "lines.markeredgewidth": 5}):
        again = figures.forgetting_against_utility(board, figures.THEMES["light"])
    assert again == rendered["forgetting_utility.png"]
    for data in rendered.values():
        image = Image.open(io.BytesIO(data))
        assert not {"Software", "Creation Time", "date"} & set(image.info)  # nothing of the day or the version
        assert image.width == 11 * figures.DPI
        assert np.asarray(image.convert("L")).std() > 10
    for name in names:
        assert rendered[f"{name}.png"] != rendered[f"{name}-dark.png"]


def test_names_beside_the_points_do_not_overlap(results, monkeypatch):
    seen = []

    def keep(figure):
        seen.append(figure)
        return b""

    monkeypatch.setattr(figures, "_png", keep)
    figures.forgetting_against_utility(build_leaderboard(results), figures.THEMES["light"])
    renderer = seen[0].canvas.get_renderer()
    for axes in seen[0].axes:
        labels = [text for text in axes.texts if text.get_gid() == "model-label"]
        assert len(labels) == 9
        boxes = [Box(*label.get_window_extent(renderer).extents) for label in labels]
        frame = axes.get_window_extent(renderer)
        for index, box in enumerate(boxes):
            assert frame.x0 <= box.left
            assert box.right <= frame.x1
            assert not any(box.overlaps(other) for other in boxes[:index])


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


def test_missing_figures_are_left_out_not_invented(build_result, build_similarity):
    results = [build_result(model) for model in ("clean", "compromised", "delete")]
    for result in results:
        result["extra"]["by_field"] = {}
        result["utility"]["2.1_GenKnow"]["ImageNet1k_Accuracy"] = -1
        result["utility"]["2.2_InterIdSim"]["mean"] = None
    rendered = figures.render_figures(build_leaderboard(results), results, build_similarity(results))
    assert set(rendered) == {
        "forgetting_utility.png",
        "forgetting_utility-dark.png",
        "similarity.png",
        "similarity-dark.png",
    }


def test_cell_text_contrasts_with_its_ground():
    assert figures._ink((1.0, 1.0, 1.0)) == "#000000"
    assert figures._ink((0.1, 0.1, 0.3)) == "#ffffff"
    assert figures._short(-0.0312, 2) == "−.03"
    assert figures._short(0.0004, 3) == "0"
    assert figures._short(1.0, 2) == "1.00"
