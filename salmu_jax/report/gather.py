"""Chooses and verifies the results of a report."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from salmu_jax.evaluation.checks import REFERENCES
from salmu_jax.evaluation.data import SPLITS
from salmu_jax.evaluation.result import result_files
from salmu_jax.evaluation.rows import RowScores
from salmu_jax.evaluation.verify import verify_results
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import listed


class Gathered(NamedTuple):
    """Verified results, and their row scores."""

    results: list[dict[str, Any]]
    similarity: dict[str, dict[str, Any]]  # model -> split -> float32 [N]
    rows: dict[str, RowScores]  # of each model


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
        if absent := [name for name in REFERENCES if name not in requested]:
            more = " ".join(f"--model {name}" for name in absent)
            raise InputError(f"every model is judged by {' and '.join(REFERENCES)}; add {more}", "--model")
        missing = [name for name in requested if not (directory / f"{name}.json").is_file()]
        names = list(dict.fromkeys(requested))
    else:
        there = {path.stem for path in result_files(directory, say)}
        elsewhere = sorted(there - set(known) - set(configured) - set(REFERENCES))
        names = [name for name in [*dict.fromkeys([*REFERENCES, *configured]), *elsewhere] if name in there]
        missing = [name for name in REFERENCES if name not in there]
        if absent := [name for name in configured if name not in there and name not in REFERENCES]:
            say(f"report: no result of {', '.join(absent)}; 'salmu evaluate' makes them")
        if others := sorted(there - set(names)):
            say(f"report: left out {', '.join(others)}, which the config does not run; --model takes them in")
    if missing:
        raise InputError(
            f"not there yet; run 'salmu evaluate --model {missing[0]}' first", directory / f"{missing[0]}.json"
        )
    return names


def gather(directory: Path, names: Sequence[str], say: Callable[[str], None]) -> Gathered:
    """Reads and verifies the results of ``names``; the caller has compared the models and data beside them.

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
    similarity = {one.result["model"]: {split: one.rows[f"{split}.similarity"] for split in SPLITS} for one in found}
    rows = {one.result["model"]: one.rows for one in found}
    return Gathered([one.result for one in found], similarity, rows)
