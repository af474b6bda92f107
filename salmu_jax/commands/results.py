"""The commands that read result files: ``report``, ``verify`` and ``compare``."""

from __future__ import annotations

import argparse

from salmu_jax import __version__
from salmu_jax.commands.options import CONFIG, MODELS, Command, option, optional_model_path
from salmu_jax.commands.stages import stage_command
from salmu_jax.runtime import console, interrupts
from salmu_jax.runtime.errors import InputError, disk_refusals
from salmu_jax.runtime.paths import local_path
from salmu_jax.runtime.text import safe_text


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


_REPORT_STAGE = stage_command(
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
            raise InputError(
                "goes with --config, for the report of a work directory, and not with result files", given[0]
            )
        _report_files(options)
        return
    if given := [name for name, value in files.items() if value is not None]:
        raise InputError("needs result files; the report of a work directory goes into it", given[0])
    if options.config is None:
        raise InputError(
            "needs result files and --output DIR, or --config FILE for those of a work directory", "report"
        )
    _REPORT_STAGE.run(options, overrides)


def _verify(options: argparse.Namespace, overrides: list[str]) -> None:
    from salmu_jax.evaluation.result import result_files
    from salmu_jax.evaluation.verify import verify_results

    given = [local_path(name, "RESULT") for name in options.results]
    paths = [file for path in given for file in (result_files(path, console.say) if path.is_dir() else [path])]
    if not paths:
        raise InputError("no result files (NAME.json) in it", given[0])
    if options.checkpoint is not None and len(paths) != 1:
        raise InputError("needs exactly one result, the one that was measured on this checkpoint", "--checkpoint")
    workdir, checkpoint = (
        optional_model_path(options.workdir, "--workdir"),
        optional_model_path(options.checkpoint, "--checkpoint"),
    )
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


REPORT = Command(
    "write the leaderboard and one page per model, for a work directory (--config) or for result files from anybody",
    (
        option("results", nargs="*", metavar="FILE", help="result files, or directories of them"),
        option("--output", metavar="DIR", help="the directory to make; with result files"),
        option("--title", metavar="TEXT", help="the heading of the page; with result files"),
        option("--config", metavar="FILE", help="a config, such as configs/mini.py: report its work directory"),
        *(item for item in _REPORT_STAGE.options if item is not CONFIG),
    ),
    _report,
)
VERIFY = Command(
    "check that results are what an evaluation wrote: figures from row scores, bounds, digests, descent",
    (
        option("results", nargs="+", metavar="RESULT", help="result files, or directories of them"),
        option("--workdir", metavar="DIR", help="compare with the models and data sets of this work directory"),
        option("--checkpoint", metavar="DIR", help="the model that one result was measured on, if not in the workdir"),
    ),
    _verify,
)
COMPARE = Command(
    "compare two results row by row: paired differences, their intervals, one-sided tests",
    (
        option("first", metavar="A", help="a result file"),
        option("second", metavar="B", help="a result file of the same data and protocol"),
    ),
    _compare,
)
