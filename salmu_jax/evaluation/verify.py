"""``salmu verify``: checks that results are what an evaluation wrote, and that they may share a leaderboard.

Of each result it checks: the fields against the schema; every figure, interval and caveat, recomputed from the row scores by
the function that made them; the row scores against their bounds, each other and the draws of the seed; the digests of the
row scores and of the file itself; what the model descends from and has read. Where the checkpoint and the data are available,
it compares their digests, and what the manifest of the checkpoint says of its descent and of the run that made it. Of several
results: that Clean's and Compromised's are among them, that all were measured alike on the same rows, that methods descend
from this Compromised, and that none is a copy.

It cannot detect row scores that were invented as a whole, consistently with everything above: figures are proved to follow
from the rows, but not the rows from a model. For that, evaluate the checkpoint again. Metrics that this version does not
know are not checked, and named. The fields that nothing can be compared with (``created``, ``seconds``, ``command``,
``device``, ``environment``, ``git``, versions) are covered by the file's own digest alone, which anybody who changes them on
purpose can recompute. So is ``config``, which may be absent, with two exceptions: it may not contradict the protocol, nor,
where the checkpoint is in a work directory, what its manifest says about the people and pairs of a made world.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from salmu_jax.evaluation import board, checks
from salmu_jax.evaluation.aggregate import aggregate
from salmu_jax.evaluation.data import SPLITS
from salmu_jax.evaluation.inputs_beside import input_problems
from salmu_jax.evaluation.registry import unknown
from salmu_jax.evaluation.result import read_result, read_scores, seal_problems, upgraded
from salmu_jax.evaluation.rows import SUFFIX, RowScores, rows_path
from salmu_jax.evaluation.schema import SCHEMAS, SHOWN, schema_errors
from salmu_jax.runtime.contents import Seen
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import listed
from salmu_jax.runtime.text import safe_text


@dataclasses.dataclass
class Verified:
    """A result file, its problems, and what was checked.

    ``result`` and ``rows`` are None if they cannot be read; ``usable`` says that all fields fit the schema. A usable result
    is upgraded: it has all of ``metrics``, recomputed from its rows where its schema lacks them.
    """

    path: Path
    result: dict[str, Any] | None
    rows: RowScores | None
    usable: bool
    problems: list[str]
    checked: list[str]

    def lines(self) -> list[str]:
        """Returns the problems, ten at most, or one line that says what was checked."""
        where = safe_text(self.path, None)
        if not self.problems:
            return [f"{where}: verified: {'; '.join(self.checked)}"]
        lines = [f"{where}: {problem}" for problem in self.problems[:SHOWN]]
        more = len(self.problems) - SHOWN
        return [*lines, f"{where}: ... and {more} more"] if more > 0 else lines


def verify_results(
    paths: Sequence[Path],
    *,
    workdir: Path | None = None,
    checkpoint: Path | None = None,
    inputs: bool = True,
    references: Sequence[str] = checks.REFERENCES,
    side_by_side: bool = True,
) -> list[Verified]:
    """Verifies result files, one by one and side by side.

    Args:
      paths: result files, ``NAME.json`` with ``NAME.rows.npz`` beside each. One alone is compared with the results of the
        references in its directory, where they are. Those in one directory are of one person, who gives each model a name of
        its own.
      workdir: the work directory whose models and data sets the digests are compared with; None: the one that a result lies
        in (``WORKDIR/results/NAME.json``), if it does.
      checkpoint: the model directory that the one result was measured on, where that is not ``WORKDIR/models/NAME``.
      inputs: whether to look for models and data sets beside the results, and to compare their files.
      references: the names of the models that were trained from scratch: Clean's, Compromised's, and further ones.
      side_by_side: whether the results are to share a leaderboard; False: each is verified by itself.
    """
    seen: dict[Path, Seen] = {}  # by data sets: they are read once for all results
    found = [_verify_one(path, workdir, checkpoint, inputs, seen, references) for path in paths]
    usable = [one for one in found if one.usable]
    if not side_by_side or not usable:
        return found
    if len(paths) == 1:
        beside = [paths[0].with_name(f"{model}.json") for model in references]
        others = [
            _verify_one(path, None, None, False, seen, references)
            for path in beside
            if path != paths[0] and path.is_file()
        ]
        others = [one for one in others if one.usable]
        if others:
            _compare([*usable, *others], references)
        else:
            usable[0].checked.append("not compared with Clean's and Compromised's results, which are not beside it")
        return found
    if missing := board.missing_references([one.result["model"] for one in usable], references[:2]):
        names = " and ".join(map(repr, missing))
        found[0].problems.append(f"among the results given, none of {names} can be read; methods are judged by both")
    _compare(usable, references)
    return found


def _verify_one(
    path: Path,
    workdir: Path | None,
    checkpoint: Path | None,
    inputs: bool,
    seen: dict[Path, Seen],
    references: Sequence[str],
) -> Verified:
    try:
        result = read_result(path)
    except InputError as error:
        return Verified(path, None, None, False, [str(error).removeprefix(f"{path}: ")], [])
    errors = schema_errors(result)
    bad = {field[0] if field else "" for field, _ in errors}
    found = [line for _, line in errors]
    found += seal_problems(result)
    checked = ["schema", "digest"]
    if not bad & {"", "model"}:
        found += _name_problems(path, result)
    rows = None
    if not bad & {"", "protocol"}:
        result, rows = _verify_rows(path, result, bad, found, checked)
    if not bad & {"", "model", "provenance"}:
        found += checks.lineage_problems(result, references)
        if "protocol" not in bad:
            found += checks.config_problems(result)
            found += checks.data_problems(result)
        if inputs and "protocol" not in bad:
            beside, compared = input_problems(path, result, workdir, checkpoint, seen, references)
            found += beside
            checked += compared
    return Verified(path, result, rows, not errors and rows is not None, list(dict.fromkeys(found)), checked)


def _verify_rows(
    path: Path, result: dict[str, Any], bad: set[str], found: list[str], checked: list[str]
) -> tuple[dict[str, Any], RowScores | None]:
    """Returns the upgraded result and its row scores, None if they cannot be read; adds problems, and what was checked.

    ``bad`` names the sections whose fields do not fit the schema; ``protocol`` is not among them.
    """
    result = upgraded(result)
    protocol = result["protocol"]
    if lacking := list(checks.metric_problems(protocol)):
        found += lacking
        return result, None
    try:
        rows, record = read_scores(path, protocol)
    except InputError as error:
        found.append(str(error).removeprefix(f"{path.parent}/"))
        return result, None
    if "rows" not in bad and any(result["rows"][key] != record[key] for key in ("bytes", "sha256")):
        found.append(f"{rows_path(path).name} is not the file of row scores that it was written with")
    found += checks.row_problems(rows, protocol)
    found += checks.protocol_problems(protocol, rows)
    if checks.computable(rows):
        try:
            figures = aggregate(rows, protocol)
        except InputError as error:
            found.append(str(error))
        else:
            found += checks.figure_problems(result, rows, figures)
            if result["schema"] == SCHEMAS[0]:
                result["metrics"] = figures["metrics"]
    count = sum(protocol["rows"][split] for split in SPLITS)
    checked.append(f"all figures from {count:,} rows")
    if strange := unknown(protocol):
        checked.append(f"not verified, as this version does not know them: {listed(map(safe_text, strange), 5)}")
    return result, rows


def _name_problems(path: Path, result: dict[str, Any]) -> Iterator[str]:
    model = result["model"]
    if path.name != f"{model}.json":
        yield f"it is the result of {model!r}, so its name is {model}.json"
    named = result.get("rows")
    file = named.get("file") if isinstance(named, dict) else None
    if isinstance(file, str) and file != f"{model}{SUFFIX}":
        yield f"its row scores are named {safe_text(file, 60)!r}, not {model}{SUFFIX}"


def _compare(usable: Sequence[Verified], references: Sequence[str]) -> None:
    """Adds the problems of results side by side to each of them."""
    for directory in dict.fromkeys(one.path.parent for one in usable):
        beside = [one for one in usable if one.path.parent == directory]
        for place, line in board.name_problems([one.result["model"] for one in beside]):
            beside[place].problems.append(line)
    clean, compromised, *_ = (_reference(usable, name) for name in references)
    known = {_checkpoint(one).get("digest") for one in usable if one.result["model"] != references[0]}
    for one in usable:
        if clean and one is not clean:
            if fields := board.incomparable(one.result, clean.result):
                one.problems.append(f"measured otherwise than 'clean': {', '.join(fields)}; evaluate both alike")
            one.problems += board.shared_problems(one.rows, clean.rows)
        if compromised and one.result["model"] not in references:
            one.problems += board.descent_problems(one.result, compromised.result, known)
        if compromised:
            one.problems += board.towards_problems(one.result, compromised.result)
    _compare_copies(usable, clean, references)
    if clean and compromised and None in [_checkpoint(one).get("splits_read") for one in (clean, compromised)]:
        for one in (clean, compromised):
            one.problems += board.exchange_problems(clean.result, compromised.result)
    for one in usable:
        if clean and compromised and (keys := board.lacking(one.result, [clean.result, compromised.result])):
            one.checked.append(f"it lacks {listed(keys, 3)}, which Clean's and Compromised's results have")
        one.checked.append(f"beside {len(usable) - 1} other{'s' if len(usable) != 2 else ''}")


def _reference(usable: Sequence[Verified], name: str) -> Verified | None:
    """Returns the first result of a reference. Each person may hand one in; those of another model get a problem."""
    found = [one for one in usable if one.result["model"] == name]
    for other in found[1:]:
        if _checkpoint(other).get("digest") != _checkpoint(found[0]).get("digest"):
            other.problems.append(
                f"it is of another {name!r} than {safe_text(found[0].path, None)}; a leaderboard has one of them"
            )
    return found[0] if found else None


def _compare_copies(usable: Sequence[Verified], clean: Verified | None, references: Sequence[str]) -> None:
    """Adds a problem to each result that is a copy of another, or has taken row scores from it."""
    places = board.suspects([(one.result, one.rows) for one in usable])
    if clean:  # a few rows of Clean's are enough for a problem
        first = usable.index(clean)
        places |= {(min(first, place), max(first, place)) for place in range(len(usable)) if place != first}
    for i, j in sorted(places):
        for one, other in ((usable[i], usable[j]), (usable[j], usable[i])):
            if one.result["model"] == other.result["model"] and one.result["model"] in references:
                continue  # one reference from two people; another model is complained of by _reference
            if one.path.parent != other.path.parent and _checkpoint(one).get("digest") == _checkpoint(other).get(
                "digest"
            ):
                continue  # two people have evaluated one model; a report compares what they found
            # Clean is never the copy, Compromised could be one of Clean; of two methods either may be.
            if _rank(one, references) == len(references) or _rank(other, references) < _rank(one, references):
                of_clean = other.result["model"] == references[0]
                one.problems += board.copy_problems(one.result, one.rows, other.result, other.rows, of_clean=of_clean)


def _checkpoint(one: Verified) -> dict[str, Any]:
    return one.result["provenance"].get("checkpoint") or {}


def _rank(one: Verified, references: Sequence[str]) -> int:
    """Returns the place of a reference in ``references``, and their number for a method."""
    return [*references, one.result["model"]].index(one.result["model"])
