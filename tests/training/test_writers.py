"""Metrics in TensorBoard, read back by TensorBoard itself, and in a Weights & Biases of the test's own."""

import errno
import os
import sys
import types

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from salmu_jax.runtime.errors import InputError
from salmu_jax.training import writers

NOTHING = {"tensorboard": False, "wandb": ""}


def scalars(directory, tag):
    events = EventAccumulator(str(directory)).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_tensorboard_shows_what_was_written_and_a_resume_replaces_what_it_does_again(tmp_path):
    (first,) = writers.make_writers({**NOTHING, "tensorboard": True}, tmp_path, "clean", {}, 0)
    for step in (10, 20, 30):
        first.write(step, {"loss": 1 / step, "scale": 14.0})
    first.flush()
    first.close()
    assert [step for step, _ in scalars(tmp_path / "tensorboard", "loss")] == [10, 20, 30]
    (again,) = writers.make_writers({**NOTHING, "tensorboard": True}, tmp_path, "clean", {}, 20)
    again.write(30, {"loss": 0.5})
    again.close()
    found = scalars(tmp_path / "tensorboard", "loss")
    assert [step for step, _ in found] == [10, 20, 30]
    assert found[-1][1] == pytest.approx(0.5)


def test_a_full_disk_is_an_error_and_no_wait_for_ever(tmp_path, monkeypatch):
    (writer,) = writers.make_writers({**NOTHING, "tensorboard": True}, tmp_path, "clean", {}, 0)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writer._events._py_recordio_writer, "_writer", types.SimpleNamespace(write=full))
    for step in range(20):  # more than tensorboardX's queue would hold
        with pytest.raises(OSError, match="No space left"):
            writer.write(step, {"loss": 1.0})


def test_nothing_is_written_unless_asked_for_and_in_process_0_alone(tmp_path, monkeypatch):
    assert writers.make_writers(NOTHING, tmp_path, "clean", {}, 0) == []
    monkeypatch.setattr(writers.distributed, "is_main", lambda: False)
    assert writers.make_writers({"tensorboard": True, "wandb": "project"}, tmp_path, "clean", {}, 0) == []
    assert not list(tmp_path.iterdir())


@pytest.fixture
def wandb(monkeypatch):
    """A module that keeps what it is told."""
    module = types.SimpleNamespace(inits=[], logged=[], finished=0)

    class Run:
        id = "abc123"

        def log(self, metrics, step):
            module.logged.append((step, metrics))

        def finish(self):
            module.finished += 1

    def init(**options):
        module.inits.append(options)
        return Run()

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_a_resumed_run_goes_on_under_its_id(tmp_path, wandb):
    for first_step in (0, 20):
        (writer,) = writers.make_writers({**NOTHING, "wandb": "salmu"}, tmp_path, "clean", {"seed": 42}, first_step)
        writer.write(first_step + 10, {"loss": 1.0})
        writer.flush()
        writer.close()
    assert [options["id"] for options in wandb.inits] == [None, "abc123"]
    assert all(options["project"] == "salmu" and options["config"] == {"seed": 42} for options in wandb.inits)
    assert wandb.logged == [(10, {"loss": 1.0}), (30, {"loss": 1.0})]
    assert wandb.finished == 2


def test_a_wandb_that_does_not_start_is_one_line(tmp_path, wandb):
    def init(**_):
        raise RuntimeError("api_key not configured (no-tty).\nRun wandb login")

    wandb.init = init
    (tmp_path / "wandb.json").write_text("[]")
    with pytest.raises(
        InputError, match=r"log.wandb: .* did not start \(api_key not configured \(no-tty\).\); 'wandb login'"
    ):
        writers.make_writers({**NOTHING, "wandb": "salmu"}, tmp_path, "clean", {}, 0)


def test_without_wandb_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"^log.wandb: Weights & Biases is not installed: pip install wandb$"):
        writers.make_writers({**NOTHING, "wandb": "salmu"}, tmp_path, "clean", {}, 0)
