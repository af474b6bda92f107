"""The commands about data: ``salmu fetch``, ``salmu data check`` (what is wrong) and ``salmu data look`` (what is there)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from salmu_jax import __version__
from salmu_jax.commands.options import Command, option
from salmu_jax.runtime import console, interrupts
from salmu_jax.runtime.errors import InputError, disk_refusals
from salmu_jax.runtime.messages import counted
from salmu_jax.runtime.outputs import check_directory, output_file
from salmu_jax.runtime.paths import local_path


def _check(options: argparse.Namespace, overrides: list[str]) -> None:
    """Prints all problems and oddities of a world. Raises InputError if there are problems, or oddities with ``--strict``."""
    from data_pipelines.audit import audit_world
    from data_pipelines.audit.findings import CAP, SCHEMA
    from salmu_jax.runtime.files import write_json

    world, zeroshot = _inputs(options)
    mark = f'"schema": "{SCHEMA.partition("/")[0]}/'
    output = None if options.json is None else _output(options.json, "--json", mark, world, zeroshot)
    with interrupts.orderly():
        audit = audit_world(world, zeroshot=zeroshot, cap=None if options.all else CAP, progress=_progress("check"))
        if output is not None:
            with disk_refusals(output):
                write_json(output, audit.as_json())
    for line in audit.lines():
        console.say(line)
    found = f"{counted(audit.total, 'problem')} and {counted(audit.odd, 'oddity')}"
    if audit.total or (options.strict and audit.odd):
        raise InputError(found, audit.directory)
    examined = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in audit.examined.items())
    console.say(f"{audit.directory}: {found} in {examined}")


def _look(options: argparse.Namespace, overrides: list[str]) -> None:
    """Writes a page that shows what is in a world."""
    from data_pipelines.audit.survey import survey_world
    from salmu_jax.report.data_page import MARK, write_data_page

    world, zeroshot = _inputs(options)
    output = _output(options.output, "--output", MARK, world, zeroshot)
    with interrupts.orderly(), disk_refusals(output):
        survey = survey_world(world, zeroshot=zeroshot, seed=options.seed, progress=_progress("look"))
        made = {
            "directory": survey.directory,
            "seed of the pictures": options.seed,
            "made by": f"salmu_jax {__version__}",
        }
        write_data_page(output, survey, made=made)
    console.say(f"The page: {output.absolute()}")


def _fetch(options: argparse.Namespace, overrides: list[str]) -> None:
    """Downloads released repositories, and checks them."""
    from data_pipelines.layout.fetch import REPOSITORIES, fetch

    directory = local_path(options.output, "--output")
    check_directory(directory, f"--output {directory}")
    names = options.repository or list(REPOSITORIES)
    if options.revision is not None and len(names) != 1:
        raise InputError("a revision belongs to one repository; name that with --repository", "--revision")
    with interrupts.orderly(), disk_refusals(directory):
        for name in names:
            fetch(REPOSITORIES[name], directory, revision=options.revision, say=_progress("fetch"))
    console.say(f"Checked: {directory.absolute()}")


def _inputs(options: argparse.Namespace) -> tuple[Path, Path | None]:
    zeroshot = None if options.zeroshot is None else local_path(options.zeroshot, "--zeroshot")
    return local_path(options.directory, "DIR"), zeroshot


def _output(text: str, where: str, mark: str, world: Path, zeroshot: Path | None) -> Path:
    """Returns the path of a file to write, which is outside of what is read. Raises InputError before any work."""
    from data_pipelines.layout import find_root

    return output_file(local_path(text, where), where, mark, [world, find_root(world), *filter(None, [zeroshot])])


def _progress(command: str) -> Callable[[str], None]:
    return lambda line: console.say(f"{command}: {line}", sys.stderr)


_WORLD = (
    option("directory", metavar="DIR", help="a world in the released layout"),
    option("--zeroshot", metavar="DIR", help="a zero-shot set elsewhere (zeroshot/ in the world)"),
)
CHECK = Command(
    "name everything that is wrong in a world, by file, row and field",
    (
        *_WORLD,
        option("--all", action="store_true", help="list every finding, not the first ten of a kind"),
        option("--json", metavar="FILE", help="also write the findings as JSON"),
        option("--strict", action="store_true", help="also fail for oddities, which are otherwise only listed"),
    ),
    _check,
)
FETCH = Command(
    "download the released data from the Hugging Face hub at pinned revisions, and check files, digests and rows",
    (
        option("--output", required=True, metavar="DIR", help="where each repository gets a folder of its name"),
        option(
            "--repository",
            action="append",
            choices=("evaluation", "training"),
            help="only this one; may be repeated (both)",
        ),
        option("--revision", metavar="SHA", help="the commit of one repository, instead of the pinned one"),
    ),
    _fetch,
)
LOOK = Command(
    "write a page that shows a world: counts, distributions, and pictures by split and attribute",
    (
        *_WORLD,
        option("--output", required=True, metavar="PAGE.html", help="the page to write"),
        option("--seed", type=int, default=0, metavar="N", help="draws the pictures (0)"),
    ),
    _look,
)
