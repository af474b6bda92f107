"""The entry for a world: from the tars in its ``retain/`` to ``retain_pairs`` among its data sets, all or nothing.

It makes the same shards as :func:`build_retain_pairs` of the same directory. A world may have several such directories,
whose tars follow one another. Nothing is kept for a restart: many tars are for :func:`build_retain_pairs`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_pipelines.layout.findings import Findings
from data_pipelines.layout.shards import PASSED_OVER
from data_pipelines.retain.finish import finish
from data_pipelines.retain.local import run_locally
from data_pipelines.retain.names import NAME, shard_names
from data_pipelines.retain.places import Place
from data_pipelines.retain.plan import VERSION, Plan
from data_pipelines.retain.rules import Rules
from data_pipelines.retain.samples import DAMAGED
from data_pipelines.retain.source import TAR, Part
from data_pipelines.retain.work import Task
from salmu_jax.runtime.errors import InputError

MAX_BAD_SHARE = 0.01  # of the pairs, and of the tars; beyond this, something else is wrong
_FEW_BYTES = 256 * 2**20  # of tars, which are read before other processes have started


def build_from_world(tars: Sequence[tuple[Path, Path]], out: Path) -> tuple[int, Findings]:
    """Writes ``retain_pairs/1.0.0`` below ``out`` from tars, in their order.

    Args:
      tars: (directory, tar below it); keys begin with the folder between the two.
      out: an existing directory.

    Returns:
      The number of pairs, and an oddity for each kind of sample that is left out, and for members that are passed over.

    Raises:
      InputError: more than :data:`MAX_BAD_SHARE` of the samples, or of the tars, cannot be used, of which the first are
        named; or there is no pair.
      OSError: ``out`` cannot be written.
    """
    scratch = out / ".retain"
    scratch.mkdir()
    parts = [Part(tar.relative_to(directory).as_posix(), TAR, tar.stat().st_size) for directory, tar in tars]
    plan, names = Plan(parts, Rules()), shard_names(len(parts))
    tasks = [
        Task(os.path.abspath(tars[number][0]), os.fspath(scratch), part, number, names[number], plan.rules, VERSION)
        for number, part in enumerate(parts)
    ]
    records: dict[str, dict[str, Any]] = {}
    workers = 1 if sum(part.size for part in parts) < _FEW_BYTES else 0
    run_locally(tasks, workers, lambda done, record: records.update({record["shard"]: record}))
    bad = [(tar, entry) for name, (_, tar) in zip(names, tars, strict=True) for entry in records[name]["quarantine"]]
    pairs = sum(record["pairs"] for record in records.values())
    left_out = _left_out(bad, pairs, tars)
    for name, (_, tar) in zip(names, tars, strict=True):
        if count := records[name]["passed_over"]:
            member = records[name]["first_passed_over"]
            left_out.oddity(PASSED_OVER, f"{tar} member '{member}'", count, kind="passed-over")
    finish(plan, tasks, Place(os.fspath(scratch)), (1.0, 1.0))
    os.replace(scratch / NAME, out / NAME)
    shutil.rmtree(scratch)
    return pairs, left_out


def _left_out(bad: list[tuple[Path, dict[str, str]]], pairs: int, tars: Sequence[tuple[Path, Path]]) -> Findings:
    """Returns what is left out as oddities; raises InputError with all of it if it is too much."""
    damaged = sum(entry["kind"] == DAMAGED for _, entry in bad)
    samples = len(bad) - damaged
    found = Findings()
    for tar, entry in bad:
        error = InputError(entry["reason"], f"{tar} key '{entry['key']}'" if entry["key"] else tar)
        if damaged > MAX_BAD_SHARE * len(tars) or samples > MAX_BAD_SHARE * (pairs + samples):
            found.problem(error)
        else:
            found.oddity(f"retain pairs left out: {entry['kind']}", error)
    if not pairs and not found.total:
        message = "its tars hold no pair, an image and a .txt or .json of one name; one or more are needed"
        found.problem(InputError(message, tars[0][0]))
    found.raise_problems(tars[0][0])
    return found
