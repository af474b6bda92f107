"""Puts a world together from finished steps: their files as they are, the data card, the contact sheet, digests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from data_pipelines.full import card, croissant
from data_pipelines.full.card import Facts
from salmu_jax.runtime import files
from salmu_jax.runtime.directories import new_directory
from salmu_jax.runtime.errors import InputError

NAME = "salmu_jax_people"
PACKAGES = ("faker", "numpy", "pillow", "pyarrow")


def assemble(
    world: str | os.PathLike,
    steps: Mapping[Path, Mapping[str, str]],
    facts: Facts,
    sheet: bytes,
    settings: Mapping[str, Any],
    *,
    version: int,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Writes the world, replacing what is there only once it is complete, and returns the content of ``world.json``.

    Args:
      world: the directory to make.
      steps: {directory of a finished step: {file in it that the world has: its SHA-256}}. Files are linked where the disk can
        do so, and take no more space.
      facts: for the data card.
      sheet: the contact sheet, a PNG.
      settings: all that the data depend on, as JSON, for ``world.json``.
      version: of the generator.
      say: called with a line if files that are not ours are kept.

    Raises InputError for a file that is not as its step wrote it.
    """
    with new_directory(world, say=say) as partial:
        digests: dict[str, str] = {}
        for directory, named in steps.items():
            for name, digest in named.items():
                _place(directory / name, partial / name, digest)
                digests[name] = digest
        sizes = {name: (partial / name).stat().st_size for name in digests}
        files.write_bytes(partial / card.SHEET, sheet)
        files.write_text(partial / card.CARD, card.card(facts, sizes))
        for name in (card.SHEET, card.CARD):
            digests[name], sizes[name] = files.sha256_file(partial / name), (partial / name).stat().st_size
        described = {name: (sizes[name], digests[name]) for name in sorted(digests)}
        files.write_json(partial / croissant.NAME, card.croissant_of(facts, NAME, described))
        digests[croissant.NAME] = files.sha256_file(partial / croissant.NAME)
        counts = facts.counts
        made = {
            "schema": "salmu_jax.world/1",
            "kind": "full",
            "generator_version": version,
            "seed": facts.seed,
            "parameters": settings,
            "counts": {
                **{name: counts[name] for name in ("identities", "pairs")},
                **counts["sets"],
                "subsets": {**counts["subsets"], "fragile": facts.fragile["fragile"]},
            },
            "fragile_rule": facts.fragile["rule"],
            "versions": {name: metadata.version(name) for name in PACKAGES},
            "digests": dict(sorted(digests.items())),
        }
        files.write_json(partial / "world.json", made)
    return made


def _place(source: Path, target: Path, digest: str) -> None:
    """Links or copies a file of a step, and compares it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that cannot link
        if not source.is_file():
            raise InputError("is not there; run the same command again", source) from None
        shutil.copy2(source, target)
    if files.sha256_file(target) != digest:
        raise InputError("is not as its step wrote it; run the same command again", source)
