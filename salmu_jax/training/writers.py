"""Writes metrics to TensorBoard event files and Weights & Biases, in process 0."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from salmu_jax.runtime import distributed, files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import first_line


class MetricWriter(Protocol):
    """Takes the metrics of a run while it runs."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes the metrics as of ``step``."""

    def flush(self) -> None:
        """Makes everything written so far visible to readers."""

    def close(self) -> None:
        """Flushes, and ends the run."""


class TensorBoard:
    """Writes event files to ``directory`` with tensorboardX, without TensorFlow. A resumed run replaces the steps it repeats.

    Events are written synchronously: tensorboardX's own thread dies on a full disk, and the next writer would block forever.
    """

    def __init__(self, directory: Path, first_step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

        self._event, self._scalar = Event, scalar
        directory.mkdir(parents=True, exist_ok=True)
        # File names have a resolution of one second; the suffix keeps a quick restart from overwriting a file.
        self._events = EventsWriter(str(directory / "events"), f".from-{first_step:09d}")
        if first_step:
            start = SessionLog(status=SessionLog.START)
            self._events.write_event(Event(wall_time=time.time(), step=first_step + 1, session_log=start))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._events.write_event(self._event(wall_time=time.time(), step=step, summary=self._scalar(name, value)))

    def flush(self) -> None:
        self._events.flush()

    def close(self) -> None:
        self._events.close()


class Wandb:
    """Logs to a Weights & Biases run in ``project``; a resumed run keeps its id, which is stored in ``directory``."""

    def __init__(self, project: str, directory: Path, name: str, config: Mapping[str, Any]):
        wandb = import_wandb()
        path = directory / "wandb.json"
        kept = files.read_json(path) if path.is_file() else {}
        known = kept.get("id") if isinstance(kept, dict) else None
        try:
            self._run = wandb.init(
                project=project, name=name, config=dict(config), id=known, resume="allow", dir=str(directory)
            )
        except Exception as error:  # nobody is logged in, the network is down, the project is somebody else's
            raise InputError(
                f"Weights & Biases did not start ({first_line(error)}); 'wandb login', WANDB_MODE=offline, or log.wandb=",
                "log.wandb",
            ) from error
        files.write_json(path, {"id": self._run.id})

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def flush(self) -> None:
        """Does nothing: wandb sends in the background."""

    def close(self) -> None:
        self._run.finish()


def import_wandb() -> Any:
    """Imports and returns wandb. Raises InputError with what to install."""
    try:
        import wandb
    except ImportError:
        raise InputError("Weights & Biases is not installed: pip install wandb", "log.wandb") from None
    return wandb


def make_writers(
    log: Mapping[str, Any], directory: Path, name: str, run_config: Mapping[str, Any], first_step: int
) -> list[MetricWriter]:
    """Opens the writers that ``config.log`` asks for; none in processes other than 0.

    Args:
      log: that section of the config, with ``tensorboard`` and ``wandb``.
      directory: of the run's logs; event files go to its ``tensorboard``.
      name: of the run.
      run_config: the whole config, for Weights & Biases to show.
      first_step: the step at which the run starts or resumes.

    Raises:
      InputError: a requested writer is not installed.
    """
    if not distributed.is_main():
        return []
    writers: list[MetricWriter] = []
    if log["tensorboard"]:
        writers.append(TensorBoard(directory / "tensorboard", first_step))
    if log["wandb"]:
        writers.append(Wandb(log["wandb"], directory, name, run_config))
    return writers
