"""The command line: ``salmu STAGE --config FILE [--config.FIELD=VALUE ...]``, and a few commands that are no stages.

Exit status: 0, done; 1, a failure of ours (with a traceback); 2, bad input (one line); 75, stopped by SIGTERM with the state
saved (the same command goes on); 130, interrupted.

A run over several processes is the same command in each, see ``training/distributed.py``; process 0 alone prints.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from salmu_jax import __version__, host
from salmu_jax.errors import InputError, Preempted, describe_os_error, disk_refusal
from salmu_jax.training import distributed

_OVERRIDES = "--config.FIELD=VALUE overrides a field of the config, such as --config.train.epochs=3"
_STAGES = {
    "bench": "run the whole benchmark: every stage below, in order",
    "generate": "make a world of fictitious people",
    "build": "check a world and turn it into TFDS data sets",
    "pretrain": "train the foundation models, clean and compromised",
    "unlearn": "run unlearning methods on the compromised model",
    "evaluate": "compute all ten metrics of models",
    "report": "write the leaderboard, the figures and the page",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a sub-command and returns the exit status. Without ``arguments`` it is the program: they are the process's."""
    if arguments is None:
        host.prepare()
    try:
        return _run(*_parse(list(sys.argv[1:] if arguments is None else arguments)))
    except distributed.ToldInputError:
        line, status = "", 2
    except InputError as error:
        line, status = f"salmu: {error}", 2
    except Preempted as error:
        line, status = f"salmu: {error}" if distributed.is_main() else "", 75
    except KeyboardInterrupt:
        line, status = "\nsalmu: interrupted; the same command goes on from here", 130
    except BrokenPipeError:  # the reader of our output has gone (salmu ... | head): there is nobody to tell
        line, status = "", 141
    except OSError as error:
        if error.errno is None:
            raise
        line, status = f"salmu: {describe_os_error(error)}", 2
    except Exception:
        if distributed.process_count() == 1:
            raise
        line, status = traceback.format_exc(), 1  # the others are told by our end; an orderly one would wait for them
    if line:
        print(line, file=sys.stderr, flush=True)
    if arguments is None:
        # Libraries' threads may still be at work, on a full disk for instance. An orderly end would wait for them, and
        # print what each of them meets.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        if "jax" in sys.modules:
            distributed.leave()
        os._exit(status)
    return status


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The parsed options, and the overrides ``FIELD=VALUE`` of the config."""
    # argparse would take --config.a=b for an abbreviation; overrides are not its business.
    overrides = [argument.removeprefix("--config.") for argument in arguments if argument.startswith("--config.")]
    rest = [argument for argument in arguments if not argument.startswith("--config.")]
    return _parser().parse_args(rest), overrides


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="salmu", description="SALMUBench in JAX: association-level unlearning for CLIP."
    )
    parser.add_argument("--version", action="version", version=f"salmu_jax {__version__}")
    commands = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for stage, text in _STAGES.items():
        command = commands.add_parser(stage, help=text, description=text, allow_abbrev=False)
        command.add_argument("--config", required=True, metavar="FILE", help="a config, such as configs/mini.py")
        command.add_argument("--workdir", metavar="DIR", help="where all outputs go (the config's workdir)")
        command.add_argument(
            "--world-dir", metavar="DIR", help="a world in the released layout (the config's world_dir)"
        )
        if stage in ("pretrain", "evaluate", "report"):
            command.add_argument("--model", action="append", metavar="NAME", help="only this model; may be repeated")
        if stage == "pretrain":
            command.add_argument(
                "--profile", action="store_true", help="trace a few device calls, into logs/MODEL/profile"
            )
        if stage == "unlearn":
            command.add_argument("--method", action="append", metavar="NAME", help="only this method; may be repeated")
        if stage == "evaluate":
            command.add_argument(
                "--checkpoint", metavar="DIR", help="a model directory from elsewhere; give its --model NAME"
            )
        _add_distributed(command)
        command.epilog = _OVERRIDES
    _add_plan(commands)
    _add_interchange(commands)
    return parser


def _add_distributed(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("several processes, each given the same command")
    group.add_argument(
        "--distributed",
        choices=("auto", "on", "off"),
        default="auto",
        help="join the others: if a launcher is seen, always (on the hosts of a TPU pod), or never",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0 (or SALMU_COORDINATOR)")
    group.add_argument("--processes", type=int, metavar="N", help="how many there are (or SALMU_PROCESSES)")
    group.add_argument("--process", type=int, metavar="I", help="which one this is, from 0 (or SALMU_PROCESS)")


def _add_plan(commands: argparse._SubParsersAction) -> None:
    text = "what a pretraining would take on a TPU pod, or on what is here, without running it"
    command = commands.add_parser("plan", help=text, description=text, allow_abbrev=False, epilog=_OVERRIDES)
    command.add_argument("--config", required=True, metavar="FILE", help="a config, such as configs/clean_vitb16.py")
    command.add_argument(
        "--topology",
        required=True,
        metavar="NAME",
        help="such as v5e:16x16 or v4:4x4x8, or local: the devices that are here",
    )
    command.add_argument("--pairs", type=int, metavar="N", help="pairs of an epoch (400,000,000, as published)")
    command.add_argument("--bytes-per-pair", type=float, metavar="N", help="an image and its caption on disk (40,000)")
    command.add_argument("--fast", action="store_true", help="let the compiler try less hard: sooner, and less exact")
    command.add_argument("--output", metavar="FILE", help="also write the plan as JSON")


def _add_interchange(commands: argparse._SubParsersAction) -> None:
    formats = ("open_clip", "huggingface")
    text = "write a model as a directory that OpenCLIP or transformers loads as it stands"
    command = commands.add_parser("export", help=text, description=text, allow_abbrev=False)
    command.add_argument("--to", required=True, choices=formats)
    command.add_argument("--checkpoint", required=True, metavar="DIR", help="a model, such as runs/mini/models/clean")
    command.add_argument("--output", required=True, metavar="DIR", help="the directory to make")
    text = "make a model directory of PyTorch weights, or of a published model"
    command = commands.add_parser("import", help=text, description=text, allow_abbrev=False)
    command.add_argument(
        "source", metavar="FILE-OR-DIR", help="weights, their directory, salmu-clean or salmu-compromised"
    )
    command.add_argument("--from", required=True, choices=formats, dest="source_format")
    command.add_argument("--output", required=True, metavar="DIR", help="the model directory to make")
    command.add_argument(
        "--architecture", metavar="NAME", help="for weights without a config, such as ViT-B-16-quickgelu"
    )
    command.add_argument("--image-size", type=int, metavar="N", help="resample the positions for images of N pixels")
    command.add_argument("--revision", metavar="SHA", help="the commit of a published model on the hub")
    command.add_argument("--allow-half", action="store_true", help="take half precision, widened to float32")


def _interchange(options: argparse.Namespace) -> None:
    from salmu_jax.interop.commands import export_model, import_model

    output = Path(options.output)
    if options.stage == "export":
        export_model(Path(options.checkpoint), options.to, output)
        return
    import_model(
        options.source,
        options.source_format,
        output,
        architecture=options.architecture,
        image_size=options.image_size,
        revision=options.revision,
        allow_half=options.allow_half,
    )


def _plan(options: argparse.Namespace, overrides: list[str]) -> None:
    from salmu_jax.config import load_config
    from salmu_jax.training.plan import prepare_environment

    config = load_config(options.config, overrides)
    prepare_environment(options.topology)
    from salmu_jax.training import plan_report

    output = Path(options.output) if options.output else None
    sizes = {"pairs": options.pairs, "bytes_per_pair": options.bytes_per_pair}
    plan_report.run(config, options.topology, **sizes, fast=options.fast, output=output)


def _run(options: argparse.Namespace, overrides: list[str]) -> int:
    _quiet()
    if options.stage == "plan":
        _plan(options, overrides)
        return 0
    if options.stage in ("export", "import"):
        with _disk_refusals(Path(options.output)):
            _interchange(options)
        return 0
    from salmu_jax.config import load_config
    from salmu_jax.stages import FOUNDATION, Stages
    from salmu_jax.workspace import Workspace

    overrides = [
        *overrides,
        *([f"workdir={options.workdir}"] if options.workdir else []),
        *([f"world_dir={options.world_dir}"] if options.world_dir else []),
    ]
    config = load_config(options.config, overrides)
    distributed.initialize(options.distributed, options.coordinator, options.processes, options.process)
    workspace = Workspace(config)
    stages = Stages(workspace)
    methods = list(config.unlearn.methods)
    everything = [*FOUNDATION, *methods]
    if options.stage in ("bench", "pretrain", "unlearn", "evaluate"):
        stages.check_config()
    with workspace.locked(), _disk_refusals(workspace.root):
        stages.remove_leftovers()
        if options.stage == "bench":
            stages.bench()
        elif options.stage == "generate":
            stages.generate()
        elif options.stage == "build":
            stages.build()
        elif options.stage == "pretrain":
            for name in options.model or config.models:
                stages.pretrain(name, profile=options.profile)
        elif options.stage == "unlearn":
            stages.check_methods(options.method or methods)
            for name in options.method or methods:
                stages.unlearn(name)
        elif options.stage == "evaluate":
            if options.checkpoint and len(options.model or ()) != 1:
                raise InputError(
                    "a checkpoint from elsewhere needs one --model NAME, which names its result", "--checkpoint"
                )
            for name in options.model or everything:
                stages.evaluate(name, Path(options.checkpoint) if options.checkpoint else None)
        elif options.stage == "report":
            stages.report(options.model or everything)
    return 0


@contextlib.contextmanager
def _disk_refusals(directory: Path) -> Iterator[None]:
    """Turns whatever a library makes of a full disk into one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        refusal = disk_refusal(error, directory)
        if refusal is None:
            raise
        raise refusal from error


def _quiet() -> None:
    """Keeps what libraries say of themselves out of a run's story; errors still come through."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # libtpu may be here for 'salmu plan' alone: its search for a TPU that is not there takes seconds and fills the screen.
    if importlib.util.find_spec("libtpu") and not host.has_tpu():
        os.environ.setdefault("JAX_PLATFORMS", ",".join(filter(None, (host.gpu_platform(), "cpu"))))
    # When a save fails (a full disk), Orbax raises what one of its threads met; the others log theirs, with tracebacks.
    logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
    sys.unraisablehook = _unraisable


def _unraisable(met: sys.UnraisableHookArgs) -> None:
    """Leaves out what TensorStore's threads meet when a save has failed and nobody waits for the rest of it any more."""
    if not (isinstance(met.exc_value, RuntimeError) and str(met.exc_value) == "Event loop is closed"):
        sys.__unraisablehook__(met)


if __name__ == "__main__":
    sys.exit(main())
