"""Chooses and verifies the results of a report: those of a work directory, or files of any number of people."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from salmu_jax.evaluation.checks import REFERENCES
from salmu_jax.evaluation.result import leaderboard_row, result_files
from salmu_jax.evaluation.rows import TARGETS, RowScores
from salmu_jax.evaluation.verify import Verified, verify_results
from salmu_jax.foundation import REQUIRED
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import listed
from salmu_jax.runtime.text import safe_text

_SAME = 0.01  # two evaluations of one checkpoint on different machines differ by rounding, far below this
_SHOWN = 10  # problems that are written out


class Entry(NamedTuple):
    """A verified result on a board, with its row scores.

    ``id`` is unique on the board: the model's name, after ``SUBMITTER/`` where there are several people. ``confirmed_by``
    names the others who evaluated the same checkpoint and found the same.
    """

    id: str
    submitter: str
    result: dict[str, Any]
    rows: RowScores
    confirmed_by: tuple[str, ...] = ()

    @property
    def similarity(self) -> dict[str, np.ndarray]:
        """Returns the cosine of every row with its caption, float32 [N] by split."""
        return {split: self.rows[f"{split}.similarity"] for split in TARGETS}


def choose(
    directory: Path,
    requested: Sequence[str] | None,
    configured: Sequence[str],
    known: Collection[str],
    say: Callable[[str], None],
) -> list[str]:
    """Returns the models of a report, the references first.

    Args:
      directory: of the results.
      requested: the models of the report; None: all that have results, except methods that the config does not run.
      configured: the models of the config, in its order.
      known: the names of all methods; a result of another name is of a foreign checkpoint.
      say: called with a line about what is missing and what is left out.

    Raises InputError for a requested model without a result, or if a reference is missing or not requested.
    """
    if requested is not None:
        if absent := [name for name in REQUIRED if name not in requested]:
            more = " ".join(f"--model {name}" for name in absent)
            raise InputError(f"every model is judged by {' and '.join(REQUIRED)}; add {more}", "--model")
        missing = [name for name in requested if not (directory / f"{name}.json").is_file()]
        names = list(dict.fromkeys(requested))
    else:
        there = {path.stem for path in result_files(directory, say)}
        elsewhere = sorted(there - set(known) - set(configured) - set(REFERENCES))
        names = [name for name in [*dict.fromkeys([*REFERENCES, *configured]), *elsewhere] if name in there]
        missing = [name for name in REQUIRED if name not in there]
        if absent := [name for name in configured if name not in there and name not in REQUIRED]:
            say(f"report: no result of {', '.join(absent)}; 'salmu evaluate' makes them")
        if others := sorted(there - set(names)):
            say(f"report: left out {', '.join(others)}, which the config does not run; --model takes them in")
    if missing:
        raise InputError(
            f"not there yet; run 'salmu evaluate --model {missing[0]}' first", directory / f"{missing[0]}.json"
        )
    return names


def gather(directory: Path, names: Sequence[str], say: Callable[[str], None]) -> list[Entry]:
    """Reads and verifies the results of ``names`` in a work directory; the caller has compared the models and data.

    Says every problem, a line each. Raises InputError if there are any.
    """
    found = verify_results([directory / f"{name}.json" for name in names], inputs=False)
    wrong = [one for one in found if one.problems]
    for one in wrong:
        for line in one.lines():
            say(line)
    if wrong:
        bad = listed(one.path.stem for one in wrong)
        raise InputError(
            f"{len(wrong)} of {len(found)} results do not verify ({bad}); evaluate them again, or leave them out with --model",
            directory,
        )
    return [Entry(one.result["model"], "", one.result, one.rows) for one in found]


def gather_files(given: Sequence[Path], say: Callable[[str], None]) -> list[Entry]:
    """Reads and verifies result files from any number of people, measured on the same data with the same protocol.

    Args:
      given: result files, and directories of them. The first Clean and the first Compromised among them are the board's.
      say: called with a line for each problem, ten at most, and for what is ignored.

    Several results of one checkpoint are shown once, as confirmed by the others, if they agree within :data:`_SAME`.

    Raises InputError if there are no results, if one does not verify, or if some cannot be compared.
    """
    named = [file for path in given for file in (result_files(path, say) if path.is_dir() else [path])]
    paths = list({os.path.realpath(path): path for path in named}.values())
    if not paths:
        raise InputError("no result files (NAME.json) in it", listed(given, 3))
    found = verify_results(paths, inputs=False)
    submitters = submitter_names(paths)
    if not any(one.problems for one in found):  # else a file may not be what it says
        _compare_checkpoints(found)
    if wrong := [one for one in found if one.problems]:
        lines = [line for one in wrong for line in one.lines()]
        for line in lines[:_SHOWN]:
            say(line)
        if len(lines) > _SHOWN:
            say(f"... and {len(lines) - _SHOWN:,} more problems")
        raise InputError(
            f"{len(wrong)} of {len(found)} results do not verify or cannot be compared; mend them or leave them out"
        )
    return sorted(
        _entries(found, submitters), key=lambda entry: _role(entry.result) == "method"
    )  # the references first


def submitter_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Returns whose each result file is: its directory below the one that all share, without a last ``results``.

    ``alice/results/delete.json`` and ``bob/delete.json`` are of ``alice`` and ``bob``. With one directory there is nobody to
    tell apart, and the names are empty.
    """
    directories = {path: Path(os.path.abspath(path)).parent for path in paths}
    shared = Path(os.path.commonpath(list(directories.values())))
    whole = {path: directory.relative_to(shared).parts for path, directory in directories.items()}
    short = {path: parts[:-1] if parts[-1:] == ("results",) else parts for path, parts in whole.items()}
    owners: dict[tuple[str, ...], set[Path]] = {}
    for path, parts in short.items():
        owners.setdefault(parts, set()).add(directories[path])
    chosen = {path: parts if len(owners[parts]) == 1 else whole[path] for path, parts in short.items()}
    return {path: safe_text("/".join(parts), 80) for path, parts in chosen.items()}


def _checkpoint(result: Mapping[str, Any]) -> tuple[Any, Any]:
    """Returns what tells checkpoints apart: the digest of the parameters, and of the architecture."""
    checkpoint = result["provenance"].get("checkpoint") or {}
    return checkpoint.get("digest"), checkpoint.get("architecture")


def _role(result: Mapping[str, Any]) -> str:
    return result["model"] if result["model"] in REFERENCES else "method"


def _compare_checkpoints(found: Sequence[Verified]) -> None:
    """Adds a problem to each result whose figures are not those of an earlier one of the same checkpoint."""
    first: dict[Any, Verified] = {}
    for one in found:
        other = first.setdefault((_role(one.result), _checkpoint(one.result)), one)
        mine, theirs = leaderboard_row(one.result), leaderboard_row(other.result)
        for key, value in mine.items():
            if value is not None and theirs[key] is not None and abs(value - theirs[key]) > _SAME:
                one.problems.append(
                    f"{key} is {value:.4f}, but {theirs[key]:.4f} in {safe_text(other.path, None)}, of the same checkpoint;"
                    " leave out the one that is wrong"
                )
                break


def _entries(found: Sequence[Verified], submitters: Mapping[Path, str]) -> Iterator[Entry]:
    """Yields an entry a checkpoint, in the given order."""
    several = len(set(submitters.values())) > 1
    checkpoints: dict[Any, list[Verified]] = {}
    for one in found:
        checkpoints.setdefault((_role(one.result), _checkpoint(one.result)), []).append(one)
    for (role, _), results in checkpoints.items():
        one, model = results[0], results[0].result["model"]
        owner = submitters[one.path]
        others = [submitters[other.path] or other.result["model"] for other in results[1:]]
        confirmed = tuple(dict.fromkeys(name for name in others if name != owner))
        named = f"{owner}/{model}" if several and owner and role == "method" else model
        yield Entry(named, owner if role == "method" else "", one.result, one.rows, confirmed)
