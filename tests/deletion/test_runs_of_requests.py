"""Each request becomes a run of its own, and the default method sees as many pairs however few rows are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from salmu_jax.config import base_config
from salmu_jax.deletion.requests import Asked, Request
from salmu_jax.forget_stage import METHOD, PAIRS, output_config, steps_of
from salmu_jax.unlearning.runs import read_runs

ASKED = [Asked(Request("p1"), (("p1", "iban"), ("p1", "city"))), Asked(Request("p2", "job"), (("p2", "job"),))]
ROWS = {("p1", "iban"): 9, ("p1", "city"): 3, ("p2", "job"): 4}


def runs_of(config=None, method: str = METHOD, **how: bool):
    steps = steps_of(ASKED, several=True, together=how.get("together", False))
    made = output_config(config or base_config(), Path("/data"), Path("/answers"), method, steps, ROWS)
    return made, read_runs(made)


def test_requests_one_after_another_are_a_chain_of_runs():
    made, runs = runs_of()
    assert [(run.name, run.parent) for run in runs.values()] == [
        ("request-001", "start"),
        ("request-002", "request-001"),
    ]
    assert runs["request-001"].forget.associations == (("p1", "iban"), ("p1", "city"))
    assert (made.workdir, made.datasets_dir) == ("/answers", "/data")
    assert made.evaluate.probes == ("indirect", "relearn")


def test_requests_together_are_one_run():
    _, runs = runs_of(together=True)
    assert list(runs) == ["together"]
    assert runs["together"].forget.associations == (("p1", "iban"), ("p1", "city"), ("p2", "job"))
    assert runs["together"].fields == {"epochs": PAIRS / 16}


def test_the_default_method_sees_as_many_pairs_of_every_request():
    _, runs = runs_of()
    assert [run.fields["epochs"] for run in runs.values()] == pytest.approx([PAIRS / 12, PAIRS / 4])


@pytest.mark.parametrize(
    ("method", "fields"), [(METHOD, {"epochs": 3.0}), ("delete", {"learning_rate": 0.1}), ("delete", {})]
)
def test_the_fields_of_the_config_apply(method, fields):
    config = base_config()
    config.unlearn.methods[method] = fields
    made, runs = runs_of(config, method)
    assert {run.method for run in runs.values()} == {method}
    assert [dict(run.fields) for run in runs.values()] == [fields, fields]
    assert not made.unlearn.methods
