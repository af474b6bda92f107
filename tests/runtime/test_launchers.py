"""A launcher's variables that were left behind make nobody wait; one that says which task this is, is believed."""

import re
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from salmu_jax.runtime import distributed
from salmu_jax.runtime.errors import InputError
from salmu_jax.training import mesh

SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}
OMPI = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}


@pytest.fixture
def joined(monkeypatch):
    """The arguments of every call of ``jax.distributed.initialize``, which does nothing here."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: calls.append(arguments))
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: False)
    return calls


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_JOB_NODELIST": "node1"},  # the shell of salloc
        {**SLURM, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},  # an interactive step: SLURM_NTASKS is the job's
        {**OMPI, "OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},  # mpirun -n 1
        {"OMPI_MCA_btl": "tcp,self"},  # a setting
        {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"},
        {"MEGASCALE_COORDINATOR_ADDRESS": "a", "MEGASCALE_NUM_SLICES": "1", "MEGASCALE_SLICE_ID": "0"},
    ],
)
def test_one_task_is_alone_and_says_nothing(joined, capsys, environment):
    distributed.initialize(environment=environment)
    assert (joined, capsys.readouterr().err) == ([], "")


@pytest.mark.parametrize(
    ("environment", "variable"),
    [
        ({"SLURM_STEP_NODELIST": "node1"}, "SLURM_STEP_NODELIST"),
        ({**SLURM, "SLURM_PROCID": "0"}, "SLURM_STEP_NODELIST"),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "2"}, "SLURM_STEP_NODELIST"),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "two", "SLURM_PROCID": "0"}, "SLURM_STEP_NODELIST"),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "5"}, "SLURM_PROCID=5 is none of the 2 tasks"),
        (OMPI, "OMPI_MCA_orte_hnp_uri"),
        ({**OMPI, "OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_MCA_orte_hnp_uri"),
        ({"JAX_COORDINATOR_ADDRESS": "localhost:1"}, "JAX_COORDINATOR_ADDRESS"),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "x"}, "MEGASCALE_COORDINATOR_ADDRESS"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "TPU_WORKER_ID"),
    ],
)
def test_a_variable_that_was_left_behind_is_named_and_not_believed(joined, capsys, environment, variable):
    distributed.initialize(environment=environment)
    assert joined == []
    said = capsys.readouterr().err.splitlines()
    assert any(variable in line and "--distributed off" in line for line in said), said
    distributed.initialize("off", environment=environment)
    assert (joined, capsys.readouterr().err) == ([], "")


@pytest.mark.parametrize(
    ("environment", "arguments"),
    [
        (
            {**SLURM, "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"},
            {"num_processes": 2, "process_id": 1, "cluster_detection_method": "slurm"},
        ),
        (
            {**OMPI, "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"},
            {"num_processes": 4, "process_id": 0, "cluster_detection_method": "ompi"},
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"},
            {"num_processes": 2, "process_id": 0, "coordinator_address": "h:1"},
        ),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}, {}),
        (
            {"SALMU_COORDINATOR": "h:1", "SALMU_PROCESSES": "2", "SALMU_PROCESS": "1"},
            {"coordinator_address": "h:1", "num_processes": 2, "process_id": 1},
        ),
    ],
)
def test_a_launcher_that_says_which_task_this_is_is_believed(joined, environment, arguments):
    distributed.initialize(environment=environment)
    ((found),) = joined
    found.pop("shutdown_timeout_seconds")
    assert found == arguments


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        (
            {"SALMU_COORDINATOR": "h:1"},
            r"SALMU_COORDINATOR\): --processes .*--process .* missing.*--distributed off none",
        ),
        ({"SALMU_PROCESSES": "two"}, "SALMU_PROCESSES: 'two' is not a number"),
        ({"SALMU_COORDINATOR": "h", "SALMU_PROCESSES": "2", "SALMU_PROCESS": "0"}, "'h' is not HOST:PORT"),
        ({"SALMU_COORDINATOR": "h:99999", "SALMU_PROCESSES": "2", "SALMU_PROCESS": "0"}, "is not HOST:PORT"),
        ({"SALMU_COORDINATOR": "h:1", "SALMU_PROCESSES": "0", "SALMU_PROCESS": "0"}, "is 0; at least 1"),
        ({"SALMU_COORDINATOR": "h:1", "SALMU_PROCESSES": "2", "SALMU_PROCESS": "2"}, "is 2; 0 to 1 is needed"),
    ],
)
def test_an_address_by_hand_is_whole(joined, environment, complaint):
    with pytest.raises(InputError, match=complaint):
        distributed.initialize(environment=environment)
    assert joined == []


def test_an_empty_address_is_not_taken_for_none(joined):
    """``--coordinator "$ADDRESS"``, of a variable that is not set: each process would run by itself."""
    with pytest.raises(InputError, match=r"^--coordinator .*: --processes .* missing"):
        distributed.initialize(coordinator="", environment={})
    with pytest.raises(InputError, match="'' is not HOST:PORT"):
        distributed.initialize(coordinator="", processes=2, process=0, environment={"SALMU_COORDINATOR": "h:1"})
    assert joined == []


@pytest.mark.parametrize("error", [KeyError("SLURM_NTASKS"), OSError("no such host"), RuntimeError("DEADLINE\nmore")])
def test_others_who_do_not_come_are_one_line(joined, monkeypatch, capsys, error):
    def initialize(**_):
        time.sleep(0.1)
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(distributed, "_NOTICE_SECONDS", 0.01)
    environment = {**SLURM, "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
    with pytest.raises(
        InputError, match=r"did not find each other .*1 other processes of SLURM_STEP_NUM_TASKS"
    ) as caught:
        distributed.initialize(environment=environment)
    assert "--distributed off" in str(caught.value)
    assert re.fullmatch(r"salmu: waiting for the 1 other .*SLURM_STEP_NUM_TASKS.*\n", capsys.readouterr().err)


def test_a_tensor_axis_does_not_leave_its_process():
    def made(tensor, *processes):
        devices = np.array([SimpleNamespace(process_index=index) for index in processes]).reshape(-1, 1, tensor)
        return SimpleNamespace(devices=devices, shape={"tensor": tensor})

    mesh._check_tensor_within_hosts(made(1, 0, 1))
    mesh._check_tensor_within_hosts(made(2, 0, 0, 1, 1))
    with pytest.raises(InputError, match=r"mesh.tensor: a group of 2 devices would span processes 0, 1"):
        mesh._check_tensor_within_hosts(made(2, 0, 1))
    with pytest.raises(InputError, match="of 4 devices"):
        mesh._check_tensor_within_hosts(made(4, 0, 0, 1, 1))
