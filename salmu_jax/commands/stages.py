"""The commands that run stages of the benchmark on the work directory of a config."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from salmu_jax.commands.options import (
    ALLOW_HALF,
    IMAGE_SIZE,
    MODELS,
    PROCESSES,
    RERUN,
    UNFINISHED,
    WORKSPACE,
    Command,
    Option,
    option,
    optional_model_path,
    workspace_overrides,
)
from salmu_jax.runtime import host, interrupts
from salmu_jax.runtime.errors import InputError, disk_refusals

if TYPE_CHECKING:
    from salmu_jax.stages import Stages


def stage_command(
    text: str,
    work: Callable[[Stages, argparse.Namespace], Any],
    *options: Option,
    needs_model: bool = True,
    shared: bool = False,
    computes: bool = True,
    overrides_of: Callable[[argparse.Namespace], list[str]] = lambda options: [],
) -> Command:
    """Makes a command that works on the work directory of a config and holds its lock.

    Args:
      needs_model: whether to check the model's fields and start the devices.
      shared: whether several such commands may run at a time.
      computes: False leaves the devices to child processes, since only one process at a time can use them.
      overrides_of: returns the config overrides of the command's own options.
    """

    def run(options: argparse.Namespace, overrides: list[str]) -> None:
        from salmu_jax.config import load_config
        from salmu_jax.runtime import distributed
        from salmu_jax.runtime.workspace import Workspace
        from salmu_jax.stages import Stages

        if "checkpoint" in options:
            options.checkpoint = optional_model_path(options.checkpoint, "--checkpoint")
        config = load_config(options.config, [*overrides, *workspace_overrides(options), *overrides_of(options)])
        distributed.initialize(options.distributed, options.coordinator, options.processes, options.process)
        workspace = Workspace(config)
        workspace.rerun, workspace.unfinished = options.rerun, getattr(options, "unfinished", "") or ""
        stages = Stages(workspace)
        if needs_model and computes:
            host.start_devices()
        if needs_model:
            stages.check_config()
        with interrupts.orderly(), workspace.locked(shared) as alone, disk_refusals(workspace.root):
            if alone:
                stages.remove_leftovers()
            if shared:
                workspace.share()
            work(stages, options)

    return Command(text, (*WORKSPACE, RERUN, *options, *PROCESSES), run)


def _pretrain(stages: Stages, options: argparse.Namespace) -> None:
    for name in options.model or stages.config.models:
        stages.pretrain(name, profile=options.profile)


def _unlearn(stages: Stages, options: argparse.Namespace) -> None:
    runs = stages.unlearning.choose(options.run or (), options.method or ())
    if not runs:
        message = "hold nothing to run; name a method with --method NAME, or take the override out"
        raise InputError(message, "unlearn.methods and unlearn.runs")
    for run in runs:
        stages.unlearning.make(run)


def _evaluate(stages: Stages, options: argparse.Namespace) -> None:
    if options.checkpoint is not None and len(options.model or ()) != 1:
        raise InputError("a checkpoint from elsewhere needs one --model NAME, which names its result", "--checkpoint")
    for name in options.model or stages.all_models():
        form = {field: getattr(options, field) for field in ("architecture", "image_size", "allow_half")}
        stages.evaluate(name, options.checkpoint, **form)


def _sweep(stages: Stages, options: argparse.Namespace) -> None:
    from salmu_jax.sweep_stage import Sweep

    Sweep(stages.workspace).run()


def _full_overrides(options: argparse.Namespace) -> list[str]:
    fields = {name: f"full.{name}" for name in ("people", "images", "reference", "paraphrases")}
    fields |= {"fragile_model": "full.fragile_model", "workers": "world.workers"}
    given = {field: getattr(options, name) for name, field in fields.items()}
    return [f"{field}={value}" for field, value in given.items() if value is not None]


BENCH = stage_command(
    "run the whole benchmark: every stage below, in order",
    lambda stages, options: stages.bench(),
    *UNFINISHED,
    computes=False,
)
GENERATE = stage_command(
    "make a world of fictitious people",
    lambda stages, options: stages.generate(),
    option(
        "--people",
        metavar="N",
        help="for a world of the kind 'full': number of people; pairs in proportion (default: 774)",
    ),
    option(
        "--images",
        metavar="DIR",
        help="for a world of the kind 'full': portraits of another generator, one folder per identity",
    ),
    option("--reference", metavar="DIR", help="with --images: other people from that generator, for curation"),
    option(
        "--paraphrases",
        metavar="FILE",
        help="for a world of the kind 'full': captions of a language model, a JSONL file",
    ),
    option(
        "--fragile-model", metavar="DIR", help="for a world of the kind 'full': a model that chooses the fragile set"
    ),
    option("--workers", metavar="N", help="processes that draw (default: the config's world.workers)"),
    needs_model=False,
    overrides_of=_full_overrides,
)
BUILD = stage_command(
    "check a world and turn it into TFDS data sets",
    lambda stages, options: stages.build(strict=options.strict),
    option("--strict", action="store_true", help="also refuse harmless deviations, which are otherwise counted"),
    needs_model=False,
)
PRETRAIN = stage_command(
    "train the foundation models: clean, compromised and, where the config names it, retrained",
    _pretrain,
    MODELS,
    *UNFINISHED,
    option("--profile", action="store_true", help="trace a few device calls, into logs/MODEL/profile"),
)
UNLEARN = stage_command(
    "make unlearned models: run methods on the compromised model, or on others",
    _unlearn,
    option("--run", action="append", metavar="NAME", help="only this run of the config; may be repeated"),
    option(
        "--method",
        action="append",
        metavar="NAME|FILE.py:CLASS",
        help="only this method, or a class in a file of your own; may be repeated",
    ),
    *UNFINISHED,
    computes=False,
)
SWEEP = stage_command(
    "select options of methods in a validation world made of forget alone: trials, a table, and what was chosen",
    _sweep,
    *UNFINISHED,
    computes=False,
)
EVALUATE = stage_command(
    "compute all metrics of models",
    _evaluate,
    MODELS,
    option(
        "--checkpoint",
        metavar="PATH",
        help="a model directory or PyTorch weights from elsewhere; give the result's --model NAME",
    ),
    option("--architecture", metavar="NAME", help="for weights without a config, such as ViT-B-16"),
    IMAGE_SIZE,
    ALLOW_HALF,
    shared=True,
)
