"""Where metrics go besides ``metrics.jsonl``: TensorBoard event files and Weights & Biases, in process 0."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from salmu_jax import files
from salmu_jax.errors import InputError
from salmu_jax.training import distributed


class MetricWriter(Protocol):
    """Takes the metrics of a run as it goes."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """The metrics as of ``step``."""

    def flush(self) -> None:
        """Puts what was written where others see it."""

    def close(self) -> None:
        """The run is over."""


class TensorBoard:
    """Event files in ``directory`` (tensorboardX; TensorFlow is not needed). What a resume does again replaces the old."""

    def __init__(self, directory: Path, first_step: int):
        from tensorboardX import SummaryWriter

        directory.mkdir(parents=True, exist_ok=True)
        # Names have but the second in them; the suffix keeps a quick restart from writing over what was there.
        self._writer = SummaryWriter(
            str(directory),
            purge_step=first_step + 1 if first_step else None,
            filename_suffix=f".from-{first_step:09d}",
        )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A run of Weights & Biases in ``project``; a resumed run goes on under its id, which lies in ``directory``."""

    def __init__(self, project: str, directory: Path, name: str, config: Mapping[str, Any]):
        wandb = import_wandb()
        path = directory / "wandb.json"
        known = files.read_json(path)["id"] if path.is_file() else None
        self._run = wandb.init(
            project=project, name=name, config=dict(config), id=known, resume="allow", dir=str(directory)
        )
        files.write_json(path, {"id": self._run.id})

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def flush(self) -> None:
        """It sends what it has by itself."""

    def close(self) -> None:
        self._run.finish()


def import_wandb() -> Any:
    """The module. Raises InputError with what to install."""
    try:
        import wandb
    except ImportError:
        raise InputError("Weights & Biases is not installed: pip install wandb", "log.wandb") from None
    return wandb


def make_writers(
    log: Mapping[str, Any], directory: Path, name: str, run_config: Mapping[str, Any], first_step: int
) -> list[MetricWriter]:
    """The writers that ``config.log`` asks for; none in processes other than 0.

    Args:
      log: the section of the config, with ``tensorboard`` and ``wandb``.
      directory: of the run under way; event files go to its ``tensorboard``.
      name: of the run.
      run_config: the whole config, for those who show it.
      first_step: the step that the run goes on from.

    Raises:
      InputError: what is asked for is not installed.
    """
    if not distributed.is_main():
        return []
    writers: list[MetricWriter] = []
    if log["tensorboard"]:
        writers.append(TensorBoard(directory / "tensorboard", first_step))
    if log["wandb"]:
        writers.append(Wandb(log["wandb"], directory, name, run_config))
    return writers
