"""Lists the sub-commands of ``salmu`` in a table: the purpose, the options and the function of each.

A new command is a function and a row beside it, and a line in :data:`COMMANDS`; a new option is an entry in its command's row.
Modules that take seconds to import are imported by the commands that need them.
"""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

from salmu_jax import __version__
from salmu_jax.commands import data, models, results, retain, stages
from salmu_jax.commands.options import CONFIG, PROCESSES, Command
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.text import safe_text

_OVERRIDES = "--config.FIELD=VALUE overrides a field of the config, such as --config.train.epochs=3"

# In the order of the help. A name of two words is a command of a group.
COMMANDS: dict[str, Command] = {
    "bench": stages.BENCH,
    "generate": stages.GENERATE,
    "build": stages.BUILD,
    "fetch": data.FETCH,
    "data check": data.CHECK,
    "data look": data.LOOK,
    "data retain": retain.RETAIN,
    "pretrain": stages.PRETRAIN,
    "unlearn": stages.UNLEARN,
    "sweep": stages.SWEEP,
    "methods": models.METHODS,
    "evaluate": stages.EVALUATE,
    "forget": models.FORGET,
    "report": results.REPORT,
    "verify": results.VERIFY,
    "compare": results.COMPARE,
    "plan": models.PLAN,
    "export": models.EXPORT,
    "import": models.IMPORT,
}


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Returns the parsed options, and the config overrides ``FIELD=VALUE``.

    Raises InputError for an override without a value, for a command that reads no config, and for what argparse refuses.
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


class _Parser(argparse.ArgumentParser):
    """Raises InputError, one line, where argparse would print how the command is used and exit."""

    def error(self, message: str) -> NoReturn:
        match = re.fullmatch(r"argument (.+?): (.+)", message, re.DOTALL)
        if match is None:
            raise InputError(f"{message}; '{self.prog} --help' lists what there is")
        what = re.sub(r"invalid (int|float) value: (.+)", lambda found: f"is {found[2]}; {_NEEDED[found[1]]}", match[2])
        raise InputError(what, match[1])


_NEEDED = {"int": "a whole number is needed", "float": "a number is needed"}


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="salmu", description="SALMUBench in JAX: association-level unlearning for CLIP.")
    parser.add_argument("--version", action="version", version=f"salmu_jax {__version__}")
    rows = parser.add_subparsers(dest="command", required=True, metavar="STAGE")
    groups: dict[str, Any] = {}
    for name, command in COMMANDS.items():
        group, _, last = name.rpartition(" ")
        if group and group not in groups:
            text = f"commands about {group}: {', '.join(other for other in COMMANDS if other.startswith(f'{group} '))}"
            above = rows.add_parser(group, help=text, description=text)
            groups[group] = above.add_subparsers(dest="part", required=True, metavar="COMMAND")
        row = groups.get(group, rows).add_parser(last, help=command.text, description=command.text, allow_abbrev=False)
        row.set_defaults(command=name)
        for flags, settings in (item for item in command.options if item not in PROCESSES):
            row.add_argument(*flags, **settings)
        if PROCESSES[0] in command.options:
            shared = row.add_argument_group("several processes, each given the same command")
            for flags, settings in PROCESSES:
                shared.add_argument(*flags, **settings)
        if CONFIG in command.options:
            row.epilog = _OVERRIDES
    return parser
