"""Defines what a command is, and the options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from salmu_jax.runtime.paths import local_path, model_path

Run = Callable[[argparse.Namespace, list[str]], None]


class Option(NamedTuple):
    """An option: its flags, and its settings for argparse."""

    flags: tuple[str, ...]
    settings: dict[str, Any]


class Command(NamedTuple):
    """A sub-command: a line for its help, its options, and the function that runs it with the overrides of the config."""

    text: str
    options: tuple[Option, ...]
    run: Run


def option(*flags: str, **settings: Any) -> Option:
    """Makes an :class:`Option` from the arguments of ``ArgumentParser.add_argument``."""
    return Option(flags, settings)


# Options that several commands share -------------------------------------------------------------------------------------

CONFIG = option("--config", required=True, metavar="FILE", help="a config, such as configs/mini.py")
WORKSPACE = (
    CONFIG,
    option("--workdir", metavar="DIR", help="where all outputs go (default: the config's workdir)"),
    option("--world-dir", metavar="DIR", help="a world in the released layout (default: the config's world_dir)"),
)
RERUN = option("--rerun", action="store_true", help="remake outputs that are up to date")
UNFINISHED = (
    option(
        "--resume",
        action="store_const",
        dest="unfinished",
        const="resume",
        help="resume an unfinished training of another config, code or data, if there is none of this one",
    ),
    option(
        "--restart",
        action="store_const",
        dest="unfinished",
        const="restart",
        help="begin at step 0 beside an unfinished training of another config, code or data, keeping its checkpoints",
    ),
)
MODELS = option("--model", action="append", metavar="NAME", help="only this model (or run); may be repeated")
IMAGE_SIZE = option(
    "--image-size", type=int, metavar="N", help="resample the positional embedding for images of N pixels"
)
ALLOW_HALF = option("--allow-half", action="store_true", help="accept half-precision weights, widened to float32")
PROCESSES = (  # shown as a group of their own
    option(
        "--distributed",
        choices=("auto", "on", "off"),
        default="auto",
        help="join the other processes: if a launcher is found, always (as on the hosts of a TPU pod), or never",
    ),
    option("--coordinator", metavar="HOST:PORT", help="address of process 0 (default: SALMU_COORDINATOR)"),
    option("--processes", type=int, metavar="N", help="number of processes (default: SALMU_PROCESSES)"),
    option("--process", type=int, metavar="I", help="index of this process, from 0 (default: SALMU_PROCESS)"),
)
FORMATS = ("open_clip", "huggingface")


# What they mean ----------------------------------------------------------------------------------------------------------


def workspace_overrides(options: argparse.Namespace) -> list[str]:
    """Returns the config overrides of the options of :data:`WORKSPACE` that name directories."""
    given = {"workdir": (options.workdir, "--workdir"), "world_dir": (options.world_dir, "--world-dir")}
    return [f"{field}={local_path(*one)}" for field, one in given.items() if one[0] is not None]


def optional_model_path(path: str | None, where: str) -> Path | None:
    """Returns the local path that the option ``where`` names, None if it was not given; raises as ``model_path`` does."""
    return None if path is None else model_path(path, where)
