"""Lists the sub-commands of ``salmu`` in a table: the purpose, the options and the function of each.

A new command is a function and a row in :data:`COMMANDS`; a new option is an entry in its command's row.
Modules that take seconds to import are imported by the commands that need them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from salmu_jax import __version__, foundation
from salmu_jax.runtime import console, host, interrupts
from salmu_jax.runtime.errors import InputError, disk_refusals
from salmu_jax.runtime.paths import local_path, model_path
from salmu_jax.runtime.text import safe_text

if TYPE_CHECKING:
    from salmu_jax.stages import Stages

Run = Callable[[argparse.Namespace, list[str]], None]
_OVERRIDES = "--config.FIELD=VALUE overrides a field of the config, such as --config.train.epochs=3"


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
    option("--workdir", metavar="DIR", help="where all outputs go (the config's workdir)"),
    option("--world-dir", metavar="DIR", help="a world in the released layout (the config's world_dir)"),
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
    option("--coordinator", metavar="HOST:PORT", help="of process 0 (or SALMU_COORDINATOR)"),
    option("--processes", type=int, metavar="N", help="their number (or SALMU_PROCESSES)"),
    option("--process", type=int, metavar="I", help="the index of this one, from 0 (or SALMU_PROCESS)"),
)
_FORMATS = ("open_clip", "huggingface")


# Stages ------------------------------------------------------------------------------------------------------------------


def _stage(
    text: str,
    work: Callable[[Stages, argparse.Namespace], Any],
    *options: Option,
    needs_model: bool = True,
    shared: bool = False,
    computes: bool = True,
) -> Command:
    """Makes a command that works on the work directory of a config and holds its lock.

    Args:
      needs_model: whether to check the model's fields and start the devices.
      shared: whether several such commands may run at a time.
      computes: False leaves the devices to child processes, since only one process at a time can use them.
    """

    def run(options: argparse.Namespace, overrides: list[str]) -> None:
        from salmu_jax.config import load_config
        from salmu_jax.runtime import distributed
        from salmu_jax.runtime.workspace import Workspace
        from salmu_jax.stages import Stages

        if "checkpoint" in options:
            options.checkpoint = _given(options.checkpoint, "--checkpoint")
        config = load_config(options.config, [*overrides, *_directories(options)])
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


def _directories(options: argparse.Namespace) -> list[str]:
    """Returns the config overrides of the options of :data:`WORKSPACE` that name directories."""
    given = {"workdir": (options.workdir, "--workdir"), "world_dir": (options.world_dir, "--world-dir")}
    return [f"{field}={local_path(*one)}" for field, one in given.items() if one[0] is not None]


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


def _given(path: str | None, where: str) -> Path | None:
    return None if path is None else model_path(path, where)


# Other commands ----------------------------------------------------------------------------------------------------------


def _plan(options: argparse.Namespace, overrides: list[str]) -> None:
    from salmu_jax.config import load_config
    from salmu_jax.training.plan import prepare_environment

    config = load_config(options.config, overrides)
    prepare_environment(options.topology)
    from salmu_jax.training import plan_report

    output = _given(options.output, "--output")
    sizes = {"pairs": options.pairs, "bytes_per_pair": options.bytes_per_pair}
    plan_report.run(config, options.topology, **sizes, fast=options.fast, output=output)


def _export(options: argparse.Namespace, overrides: list[str]) -> None:
    from salmu_jax.interop.commands import export_model

    output = model_path(options.output, "--output")
    with interrupts.orderly(), disk_refusals(output):
        export_model(model_path(options.checkpoint, "--checkpoint"), options.to, output)


def _import(options: argparse.Namespace, overrides: list[str]) -> None:
    from salmu_jax.interop.commands import import_as, import_model
    from salmu_jax.runtime.workspace import held_around

    names = ("source_format", "architecture", "image_size", "revision", "allow_half")
    settings = {name: getattr(options, name) for name in names}
    source, output = str(local_path(options.source, "FILE-OR-DIR")), _given(options.output, "--output")
    if (output is None) == (options.model is None):
        raise InputError("one of them says where the model goes", "--output or --as")
    if output is not None:
        with interrupts.orderly(), held_around(output), disk_refusals(output):
            import_model(source, output, **settings)
        return
    if options.config is None:
        raise InputError("needs --config FILE, whose work directory the model goes into", "--as")
    from salmu_jax.config import load_config
    from salmu_jax.runtime.workspace import Workspace

    workspace = Workspace(load_config(options.config, [*overrides, *_directories(options)]))
    with interrupts.orderly(), workspace.locked(), disk_refusals(workspace.root):
        import_as(options.model, source, workspace, **settings)


def _forget(options: argparse.Namespace, overrides: list[str]) -> None:
    if (options.identity is None) == (options.requests is None):
        raise InputError("one of them says what is to be forgotten", "--identity or --requests")
    if options.attribute is not None and options.identity is None:
        raise InputError("is of the person whom --identity names; in a file, each request has its own", "--attribute")
    if options.together and options.requests is None:
        raise InputError("goes with a file of requests, --requests FILE", "--together")
    from salmu_jax.config import load_config
    from salmu_jax.deletion.requests import Request, read_requests
    from salmu_jax.forget_stage import METHOD, Forgetting

    config = load_config(options.config, [*overrides, *_directories(options)])
    if options.requests is None:
        where = "--identity" if options.attribute is None else "--identity and --attribute"
        requests = [Request(options.identity, options.attribute, where)]
    else:
        requests = read_requests(local_path(options.requests, "--requests"))
    page = Forgetting(
        config,
        model_path(options.checkpoint, "--checkpoint"),
        requests,
        model_path(options.output, "--output"),
        method=options.method or METHOD,
        several=options.requests is not None,
        together=options.together,
    ).run()
    console.say(f"\nThe page: {page.absolute()}")


def _methods(options: argparse.Namespace, overrides: list[str]) -> None:
    from salmu_jax.unlearning.describe import describe_method, list_methods

    if not options.names:
        console.say(list_methods())
    for number, name in enumerate(options.names):
        console.say(("\n" if number else "") + describe_method(name))


def _verify(options: argparse.Namespace, overrides: list[str]) -> None:
    from salmu_jax.evaluation.result import result_files
    from salmu_jax.evaluation.verify import verify_results

    given = [local_path(name, "RESULT") for name in options.results]
    paths = [file for path in given for file in (result_files(path, console.say) if path.is_dir() else [path])]
    if not paths:
        raise InputError("no result files (NAME.json) in it", given[0])
    if options.checkpoint is not None and len(paths) != 1:
        raise InputError("is the model of one result; give that result alone", "--checkpoint")
    workdir, checkpoint = _given(options.workdir, "--workdir"), _given(options.checkpoint, "--checkpoint")
    if workdir is not None and not any((workdir / name).is_dir() for name in ("models", "datasets")):
        what = "holds neither models nor datasets to compare with" if workdir.is_dir() else "no such directory"
        raise InputError(what, f"--workdir {workdir}")
    found = verify_results(paths, workdir=workdir, checkpoint=checkpoint)
    for one in found:
        for line in one.lines():
            console.say(line)
    wrong = sum(bool(one.problems) for one in found)
    if wrong:
        raise InputError(f"{wrong} of {len(found)} results do not verify")


def _report_files(options: argparse.Namespace) -> None:
    """Reports result files from anybody into a new directory; needs no config, data or model."""
    from salmu_jax.report.gather import gather_files
    from salmu_jax.report.groups import grouped
    from salmu_jax.report.page import write_report
    from salmu_jax.report.table import print_table
    from salmu_jax.runtime.directories import check_replaceable
    from salmu_jax.runtime.workspace import held_around

    if options.output is None:
        raise InputError("needs --output DIR, the directory to make", "salmu report FILE...")
    given = [local_path(name, "FILE") for name in options.results]
    output = local_path(options.output, "--output")
    with interrupts.orderly(), held_around(output), disk_refusals(output):
        check_replaceable(output)
        entries = gather_files(given, console.say)
        run = {"results": len(entries), "made by": f"salmu_jax {__version__}"}
        page, board = write_report(output, entries, title=options.title or "SALMUBench", run=run)
    print_table(grouped(board))
    console.say(f"\nThe page: {page.absolute()}")


_REPORT_STAGE = _stage(
    "write the leaderboard, the figures and the page",
    lambda stages, options: stages.report(options.model),
    MODELS,
    needs_model=False,
)


def _report(options: argparse.Namespace, overrides: list[str]) -> None:
    files = {"--output": options.output, "--title": options.title}
    stage = {"--config": options.config, "--workdir": options.workdir, "--world-dir": options.world_dir}
    stage |= {"--model": options.model, "--rerun": options.rerun or None}
    if options.results:
        if given := [name for name, value in stage.items() if value is not None]:
            raise InputError("is for the report of a work directory, without result files", given[0])
        _report_files(options)
        return
    if given := [name for name, value in files.items() if value is not None]:
        raise InputError("needs result files; the report of a work directory goes into it", given[0])
    if options.config is None:
        raise InputError(
            "needs result files and --output DIR, or --config FILE for those of a work directory", "report"
        )
    _REPORT_STAGE.run(options, overrides)


def _compare(options: argparse.Namespace, overrides: list[str]) -> None:
    from salmu_jax.evaluation.compare import compare, format_comparison
    from salmu_jax.evaluation.verify import verify_results

    paths = [local_path(name, "RESULT") for name in (options.first, options.second)]
    found = verify_results(paths, inputs=False, side_by_side=False)
    wrong = [one for one in found if one.problems]
    for line in (line for one in wrong for line in one.lines()):
        console.say(line)
    if wrong:
        raise InputError(f"{len(wrong)} of 2 results do not verify")
    (first, first_rows), (second, second_rows) = ((one.result or {}, one.rows or {}) for one in found)
    table = format_comparison(compare(first, first_rows, second, second_rows, paths[1]), first["protocol"])
    for name, path, result in zip("AB", paths, (first, second), strict=True):
        digest = (result["provenance"].get("checkpoint") or {}).get("digest") or "not recorded"
        console.say(f"{name}: {result['model']}, checkpoint {digest[:12]}, {safe_text(path, None)}")
    for line in table:
        console.say(line)


# The table ---------------------------------------------------------------------------------------------------------------

COMMANDS: dict[str, Command] = {
    "bench": _stage(
        "run the whole benchmark: every stage below, in order",
        lambda stages, options: stages.bench(),
        *UNFINISHED,
        computes=False,
    ),
    "generate": _stage(
        "make a world of fictitious people", lambda stages, options: stages.generate(), needs_model=False
    ),
    "build": _stage(
        "check a world and turn it into TFDS data sets",
        lambda stages, options: stages.build(strict=options.strict),
        option("--strict", action="store_true", help="also refuse harmless deviations, which are otherwise counted"),
        needs_model=False,
    ),
    "pretrain": _stage(
        "train the foundation models: clean, compromised and, where the config names it, retrained",
        _pretrain,
        MODELS,
        *UNFINISHED,
        option("--profile", action="store_true", help="trace a few device calls, into logs/MODEL/profile"),
    ),
    "unlearn": _stage(
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
    ),
    "sweep": _stage(
        "select options of methods in a validation world made of forget alone: trials, a table, and what was chosen",
        _sweep,
        *UNFINISHED,
        computes=False,
    ),
    "methods": Command(
        "list the unlearning methods, or describe one: formula, streams, options, presets, reference",
        (option("names", nargs="*", metavar="NAME", help="a method, or FILE.py:CLASS of your own"),),
        _methods,
    ),
    "evaluate": _stage(
        "compute all metrics of models",
        _evaluate,
        MODELS,
        option(
            "--checkpoint",
            metavar="PATH",
            help="a model directory or PyTorch weights from elsewhere; give the result's --model NAME",
        ),
        option("--architecture", metavar="NAME", help="of weights without a config, such as ViT-B-16"),
        IMAGE_SIZE,
        ALLOW_HALF,
        shared=True,
    ),
    "forget": Command(
        "answer deletion requests: unlearn what they name from a checkpoint, and write what was known before and after",
        (
            *WORKSPACE,
            option("--checkpoint", required=True, metavar="DIR", help="a model, such as runs/mini/models/compromised"),
            option("--identity", metavar="ID", help="the person whom the request is about, by identity_id"),
            option("--attribute", metavar="NAME", help="only this attribute of the person, such as phone_number"),
            option("--requests", metavar="FILE", help="instead, many: a JSON list, or an object a line"),
            option("--together", action="store_true", help="answer all of FILE by one run, instead of a run each"),
            option("--method", metavar="NAME|FILE.py:CLASS", help="the method (pinned_surrogates)"),
            option("--output", required=True, metavar="DIR", help="the directory to make"),
        ),
        _forget,
    ),
    "report": Command(
        "write the leaderboard and one page per model, for a work directory (--config) or for result files from anybody",
        (
            option("results", nargs="*", metavar="FILE", help="result files, or directories of them"),
            option("--output", metavar="DIR", help="the directory to make; with result files"),
            option("--title", metavar="TEXT", help="the heading of the page; with result files"),
            option("--config", metavar="FILE", help="a config, such as configs/mini.py: report its work directory"),
            *(item for item in _REPORT_STAGE.options if item is not CONFIG),
        ),
        _report,
    ),
    "verify": Command(
        "check that results are what an evaluation wrote: figures from row scores, bounds, digests, descent",
        (
            option("results", nargs="+", metavar="RESULT", help="result files, or directories of them"),
            option("--workdir", metavar="DIR", help="whose models and data sets the digests are compared with"),
            option(
                "--checkpoint", metavar="DIR", help="the model that one result was measured on, if not in the workdir"
            ),
        ),
        _verify,
    ),
    "compare": Command(
        "compare two results row by row: paired differences, their intervals, one-sided tests",
        (
            option("first", metavar="A", help="a result file"),
            option("second", metavar="B", help="a result file of the same data and protocol"),
        ),
        _compare,
    ),
    "plan": Command(
        "estimate what a pretraining takes on a TPU pod, or on the local devices, without running it",
        (
            CONFIG,
            option(
                "--topology",
                required=True,
                metavar="NAME",
                help="such as v5e:16x16 or v4:4x4x8, or local: the devices that are here",
            ),
            option("--pairs", type=int, metavar="N", help="pairs of an epoch (400,000,000, as published)"),
            option("--bytes-per-pair", type=float, metavar="N", help="an image and its caption on disk (40,000)"),
            option("--fast", action="store_true", help="let the compiler try less hard: sooner, and less exact"),
            option("--output", metavar="FILE", help="also write the plan as JSON"),
        ),
        _plan,
    ),
    "export": Command(
        "write a model as a directory that OpenCLIP or transformers loads without changes",
        (
            option("--to", required=True, choices=_FORMATS),
            option("--checkpoint", required=True, metavar="DIR", help="a model, such as runs/mini/models/clean"),
            option("--output", required=True, metavar="DIR", help="the directory to make"),
        ),
        _export,
    ),
    "import": Command(
        "make a model directory from PyTorch weights, or from a published model",
        (
            option("source", metavar="FILE-OR-DIR", help="weights, their directory, salmu-clean or salmu-compromised"),
            option("--from", choices=_FORMATS, dest="source_format", help="their form, where it is not evident"),
            option("--output", metavar="DIR", help="the model directory to make"),
            option(
                "--as",
                choices=foundation.NAMES,
                dest="model",
                help="instead, the model of a work directory that the stages then start from; with --config",
            ),
            option("--config", metavar="FILE", help="a config, such as configs/unlearn_vitb16.py; with --as"),
            option("--workdir", metavar="DIR", help="the work directory (the config's workdir); with --as"),
            option("--world-dir", metavar="DIR", help="as the stages take it, and of no effect here; with --as"),
            option("--architecture", metavar="NAME", help="for weights without a config, such as ViT-B-16-quickgelu"),
            IMAGE_SIZE,
            option("--revision", metavar="SHA", help="the commit of a published model on the hub"),
            ALLOW_HALF,
        ),
        _import,
    ),
}


# Parsing -----------------------------------------------------------------------------------------------------------------


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Returns the parsed options, and the config overrides ``FIELD=VALUE``.

    Raises InputError for an override without a value, or for a command that reads no config.
    """
    # argparse would take --config.a=b for an abbreviation, so overrides are taken out first.
    overrides = [argument.removeprefix("--config.") for argument in arguments if argument.startswith("--config.")]
    rest = [argument for argument in arguments if not argument.startswith("--config.")]
    for override in overrides:
        if "=" not in override:  # its value would be taken for an argument
            raise InputError("an override is --config.FIELD=VALUE, without blanks", safe_text(f"--config.{override}"))
    options = _parser().parse_args(rest)
    if overrides and getattr(options, "config", None) is None:
        message = f"'salmu {options.command}' reads no config here, so there is nothing to override"
        raise InputError(message, safe_text(f"--config.{overrides[0]}"))
    return options, overrides


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="salmu", description="SALMUBench in JAX: association-level unlearning for CLIP."
    )
    parser.add_argument("--version", action="version", version=f"salmu_jax {__version__}")
    rows = parser.add_subparsers(dest="command", required=True, metavar="STAGE")
    for name, command in COMMANDS.items():
        row = rows.add_parser(name, help=command.text, description=command.text, allow_abbrev=False)
        for flags, settings in (item for item in command.options if item not in PROCESSES):
            row.add_argument(*flags, **settings)
        if PROCESSES[0] in command.options:
            group = row.add_argument_group("several processes, each given the same command")
            for flags, settings in PROCESSES:
                group.add_argument(*flags, **settings)
        if CONFIG in command.options:
            row.epilog = _OVERRIDES
    return parser
