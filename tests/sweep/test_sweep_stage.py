"""What a sweep's work directory is, which devices trials get, and what becomes of a trial that diverges."""

from __future__ import annotations

import json

import pytest
from ml_collections import ConfigDict

from salmu_jax import sweep_stage
from salmu_jax.config import base_config
from salmu_jax.runtime import processes
from salmu_jax.runtime.errors import Diverged, InputError
from salmu_jax.runtime.workspace import Workspace
from salmu_jax.sweep import record
from salmu_jax.sweep.settings import Setting
from salmu_jax.unlearning import cells, isolation


@pytest.fixture
def sweep(tmp_path):
    config = base_config()
    config.workdir, config.datasets_dir = str(tmp_path / "run"), str(tmp_path / "shared")
    config.train.state_dir = str(tmp_path / "states")
    config.sweep.methods = ConfigDict({"delete": {"method": str(tmp_path / "mine.py:Mine")}})
    return sweep_stage.Sweep(Workspace(config))


def test_methods_of_trials_work_beside_the_whole_work_directory_and_are_told_no_path(sweep, tmp_path):
    inner = sweep.workspace
    assert inner.root == tmp_path / "run" / "sweep" / "sweep"
    assert cells._places_for_cells(inner)[0] == tmp_path
    assert {str(tmp_path / name) for name in ("run", "shared", "states")} <= set(inner.hidden)
    for config in (inner.config, sweep.around.config):
        assert str(tmp_path) not in json.dumps(isolation._config_for_child(config))


def test_compromised_is_the_only_model_from_outside(sweep, tmp_path):
    assert sweep.workspace.model("compromised") == tmp_path / "run" / "models" / "compromised"
    for name in ("clean", "retrained", "mine"):
        assert sweep.workspace.model(name) == sweep.root / "models" / name


def test_a_trial_that_diverges_is_a_result(sweep, monkeypatch):
    def diverge(run):
        raise Diverged("loss is not finite at step 3")

    sweep.stages.runs["one"] = "a run"
    monkeypatch.setattr(sweep.stages.unlearning, "make", diverge)
    assert sweep.unlearn("one") == "loss is not finite at step 3"
    setting = Setting("delete", "delete", {}, "1x")
    row = record.trial_row(setting, setting.run(1, ()), [], "largest", None, {}, "loss is not finite at step 3")
    assert (row["score"], row["diverged"]) == (None, "loss is not finite at step 3")


def test_other_bad_input_ends_the_sweep(sweep, monkeypatch):
    def refuse(run):
        raise InputError("the disk is full")

    sweep.stages.runs["one"] = "a run"
    monkeypatch.setattr(sweep.stages.unlearning, "make", refuse)
    with pytest.raises(InputError, match="the disk is full"):
        sweep.unlearn("one")


def test_a_child_says_whether_it_diverged():
    answer = {"status": 2, "line": "x"}
    with pytest.raises(Diverged, match="x"):
        processes._outcome(json.dumps({**answer, "diverged": True}), 2, "label", [])
    with pytest.raises(InputError) as caught:
        processes._outcome(json.dumps(answer), 2, "label", [])
    assert type(caught.value) is InputError


def test_each_trial_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(sweep_stage.host, "computes_on_cpu", lambda: False)
    monkeypatch.setattr(sweep_stage.host, "has_tpu", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,5")
    assert sweep_stage.devices_of(2) == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "2"}]
    assert sweep_stage.devices_of(1) == [{}]
    with pytest.raises(InputError, match=r"sweep.at_a_time: is 4, and each trial needs devices of its own"):
        sweep_stage.devices_of(4)
    monkeypatch.setattr(sweep_stage.host, "has_tpu", lambda: True)
    with pytest.raises(InputError, match="one at a time"):
        sweep_stage.devices_of(2)


def test_trials_share_the_cores_of_a_cpu(monkeypatch):
    monkeypatch.setattr(sweep_stage.host, "computes_on_cpu", lambda: True)
    assert sweep_stage.devices_of(3) == [{}, {}, {}]


def test_a_name_that_no_directory_can_have_is_refused():
    config = base_config()
    config.sweep.name = "../up"
    with pytest.raises(InputError, match=r"sweep.name: '../up' cannot name a sweep"):
        sweep_stage.Sweep(Workspace(config))
