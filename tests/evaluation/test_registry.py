"""The list of the metrics: what it holds, and that one more is a file and two lines."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from probe_metric import probe

from salmu_jax.evaluation import registry
from salmu_jax.evaluation.registry import COLUMNS, METRICS, RELEASED, REQUIRED
from salmu_jax.evaluation.result import leaderboard_intervals, leaderboard_row, load_result, seal, write_result
from salmu_jax.evaluation.rows import Column
from salmu_jax.evaluation.verify import verify_results
from salmu_jax.runtime.errors import InputError

PROVENANCE = {
    "command": "test",
    "checkpoint": {"digest": "1" * 64, "parent": None},
    "data": {"salmu": "2" * 64, "zeroshot": "3" * 64},
}


@pytest.fixture(scope="module")
def data(tiny):
    return tiny.data()


@pytest.fixture(scope="module")
def measured(tiny, data):
    return tiny.measure(data, provenance=PROVENANCE)


@pytest.fixture(scope="module")
def more(tiny, data):
    """The same evaluation with the probe."""
    return tiny.measure(data, metrics=(*METRICS, probe()), provenance=PROVENANCE)


def test_the_list_is_well_formed():
    keys = [metric.key for metric in METRICS]
    assert len(keys) == len(set(keys))
    assert all(re.fullmatch(r"[A-Za-z0-9_@.-]{1,64}", key) for key in keys)
    assert [metric.key for metric in RELEASED] == keys[: len(RELEASED)]  # the leaderboard's columns come first
    for metric in METRICS:
        assert metric.title
        assert metric.description.endswith((".", "?"))
        assert (metric.target, metric.better) in (("clean", "lower"), ("compromised", "higher"))
        assert set(metric.columns) <= set(COLUMNS)
        assert not (metric.released and metric.extra)
    assert REQUIRED == METRICS  # those of schema 2; a later one is optional


def test_two_metrics_may_share_a_column_but_not_describe_it_differently():
    other = probe(columns={"forget.similarity": Column("<f8", "forget")})
    with pytest.raises(ValueError, match=r"metric 'Capitals': column 'forget.similarity' is .*<f8"):
        registry.columns_of((*METRICS, other))


def test_a_metric_more_changes_no_other_figure_and_no_embedding(tiny, data, measured, more):
    assert more.result["metrics"].pop("Capitals")["rows"] == 126
    assert more.result["protocol"]["metrics"].pop("Capitals") == 1
    for section in ("efficacy", "utility", "extra", "metrics", "protocol", "caveats"):
        assert more.result[section] == measured.result[section]
    for name, values in measured.rows.items():
        np.testing.assert_array_equal(more.rows[name], values)
    few, many = (data.text_bank(**{**tiny.asked(), "metrics": some}) for some in (METRICS, (*METRICS, probe())))
    assert many.texts[: len(few.texts)] == few.texts
    assert [stream.name for stream in many.streams] == ["", "capitals"]


def test_a_metric_that_a_reader_does_not_know_is_carried_and_not_believed(tiny, data, tmp_path, monkeypatch):
    evaluation = tiny.measure(data, metrics=(*METRICS, probe()), provenance=PROVENANCE)
    path = tmp_path / "m.json"
    write_result(path, *evaluation)
    result = load_result(path)
    assert result["metrics"]["Capitals"] == evaluation.result["metrics"]["Capitals"]
    assert "Capitals" not in leaderboard_row(result)
    (one,) = verify_results([path])
    assert not one.problems
    assert "not verified, as this version does not know them: Capitals" in one.lines()[0]
    assert "probe.capitals" not in one.rows

    # Whatever it claims, nobody says that it is so; with the metric's file at hand it is verified like the others.
    result = json.loads(path.read_text())
    result["metrics"]["Capitals"]["value"] = 0.123
    path.write_text(json.dumps(seal(result)))
    assert not verify_results([path])[0].problems
    monkeypatch.setattr(registry, "KNOWN", (*METRICS, probe()))
    assert any("'metrics > Capitals > value' is 0.123" in line for line in verify_results([path])[0].problems)
    newer = (*METRICS, probe(version=2))
    monkeypatch.setattr(registry, "KNOWN", newer)
    monkeypatch.setattr("salmu_jax.evaluation.result.KNOWN", newer)
    assert leaderboard_row(load_result(path))["Capitals"] is None
    assert leaderboard_intervals(load_result(path))["Capitals"] is None
    assert "not know them: Capitals" in verify_results([path])[0].lines()[0]


def test_a_metric_that_fails_is_named_in_one_line(tiny, data, tmp_path):
    def fails(*_):
        raise KeyError("no such\nthing")

    short = Column("<f4", "forget_identity", "cosine")
    nothing = {"probe.capitals": np.zeros(126, np.float32)}
    cases = {
        "metric 'Capitals': failed with KeyError: 'no such": [{"score": fails}, {"texts": fails}, {"sample": fails}],
        "metric 'Capitals': its scores are ; it declares probe.capitals": [{"score": lambda inputs: {}}],
        "metric 'Capitals': column 'probe.capitals' has the shape [126], not [81]": [
            {"score": lambda inputs: nothing, "columns": {"probe.capitals": short}}
        ],
        "metric 'Capitals': its value is nan": [{"score": lambda inputs: {"probe.capitals": np.full(126, np.nan)}}],
    }  # fmt: skip
    for message, changes in cases.items():
        for change in changes:
            with pytest.raises(InputError) as caught:
                tiny.measure(data, metrics=(*METRICS, probe(**change)))
            assert message in str(caught.value)
            assert str(caught.value).isprintable()


# Results of schema 2 ------------------------------------------------------------------------------------------------------


def as_schema_2(path) -> dict:
    """Rewrites a result as schema 2 had it."""
    result = json.loads(path.read_text())
    result = {key: value for key, value in result.items() if key != "metrics"} | {"schema": "salmu_jax.result/2"}
    del result["protocol"]["metrics"], result["protocol"]["probe_form"]
    path.write_text(json.dumps(seal(result)))
    return result


def test_a_result_of_schema_2_is_read_with_what_it_has(measured, tmp_path):
    path = tmp_path / "m.json"
    write_result(path, *measured)
    whole, values, sure = (
        load_result(path),
        leaderboard_row(load_result(path)),
        leaderboard_intervals(load_result(path)),
    )
    old = as_schema_2(path)
    result = load_result(path)
    assert {key: result[key] for key in old if key not in ("protocol", "digest")} == {
        key: old[key] for key in old if key not in ("protocol", "digest")
    }
    assert leaderboard_row(result) == values == leaderboard_row(old)
    known = {"RetFail_MRR", "AssocStr", "InterIdSim", "IntraIdSim"}
    assert leaderboard_intervals(result) == {key: sure[key] if key in known else None for key in sure}
    assert result["protocol"]["metrics"] == whole["protocol"]["metrics"]
    (one,) = verify_results([path])
    assert not one.problems
    assert one.result["metrics"] == whole["metrics"]  # recomputed from the row scores


def test_results_of_both_schemas_share_a_board_and_old_ones_are_checked_as_before(honest, tmp_path):
    results = shutil.copytree(honest / "results", tmp_path / "results")
    paths = sorted(results.glob("*.json"))
    for path in paths[::2]:
        as_schema_2(path)
    assert [one.problems for one in verify_results(paths)] == [[]] * len(paths)
    old = json.loads(paths[0].read_text())
    old["efficacy"]["1.1_RetFail"]["MRR"] = 0.5
    paths[0].write_text(json.dumps(seal(old)))
    assert "'efficacy > 1.1_RetFail > MRR' is 0.5" in verify_results(paths)[0].problems[0]
    paths[0].write_text(json.dumps(old))
    assert "its 'digest' is not that of its contents" in "".join(verify_results(paths)[0].problems)


def test_every_metric_has_an_interval_around_its_value(measured):
    for key, figure in measured.result["metrics"].items():
        low, high = figure["interval"]
        assert low <= figure["value"] <= high, key
    assert measured.result["metrics"]["GenKnow"]["clusters"] == 30  # images
    assert measured.result["metrics"]["FragSim"]["clusters"] == 5  # portraits of nobody, each for itself
    assert measured.result["metrics"]["VisIdInt"]["clusters"] == 2
    assert measured.result["metrics"]["ACS"] | {"value": 0, "interval": 0} == {
        "value": 0, "interval": 0, "rows": 126, "clusters": 6, "target": "clean",
    }  # fmt: skip
    assert measured.result["extra"]["intervals"] == {
        key: measured.result["metrics"][key]["interval"]
        for key in ("RetFail_MRR", "AssocStr", "InterIdSim", "IntraIdSim")
    }
