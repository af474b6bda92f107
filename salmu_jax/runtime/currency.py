"""Decides whether an output is current: made from the present values, code and inputs, and unchanged since.

No other place decides it. Each stage leaves a record, ``stages/STAGE.json``, of what its outputs were made from (the
fields of an :class:`~salmu_jax.runtime.identity.Identity`) and of their digests. An output is current if

* its record has the present identity; or its own manifest has, for a model that a kill left without a record;
* every file is as it was written: a directory's files by its manifest (``contents.py``), a file by the record's digest.

:meth:`Currency.reasons` answers for the stage that would make the output, :meth:`Currency.made_here` for those that read it,
and :meth:`Currency.changes` for the report, which shows results of earlier commands.

The record of shared data sets lies beside the data, and so do the digests of their files, so that each
file is read only once for all work directories.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from salmu_jax.runtime import contents, files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.identity import Identity, changes
from salmu_jax.runtime.messages import listed

BUILD = "build"  # the stage whose output may be shared


class Currency:
    """Reads and writes the records of a work directory.

    Args:
      root: the work directory.
      shared: data sets outside of it; None if it has its own.
    """

    def __init__(self, root: Path, shared: Path | None = None):
        self._root, self._shared = root, shared

    # What was made --------------------------------------------------------------------------------------------------------

    def record(self, stage: str) -> dict[str, Any] | None:
        """Returns the record of a stage: its ``fields`` and its ``output``; None if there is none that can be read."""
        return _read_record(self._path(stage))

    def keep(self, stage: str, identity: Identity, seconds: float, outputs: Sequence[Path], asked: Any) -> None:
        """Records that ``outputs`` are complete; ``asked`` is kept in the record, outside of the identity."""
        made = {"stage": stage, "identity": identity.digest, "fields": identity.fields, "seconds": seconds}
        made |= {"output": output_state(outputs)} | ({} if asked is None else {"asked": asked})
        files.write_json(self._path(stage), made)

    def seconds(self) -> dict[str, float]:
        """Returns the seconds that each recorded stage took, in the order in which they ended."""
        paths = sorted((self._root / "stages").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        records = [record for record in map(_read_record, paths) if record]
        return {record["stage"]: record["seconds"] for record in records}

    # Whether it is current ------------------------------------------------------------------------------------------------

    def reasons(self, stage: str, identity: Identity, outputs: Sequence[Path], asked: Any = None) -> list[str] | None:
        """Returns why a stage has to run: an empty list if its outputs are current, None if there are none.

        A model that a kill left without a record gets one.
        """
        output = outputs[0]
        if not output.exists():
            return None
        record = self.record(stage)
        adopted = (record is None or record["identity"] != identity.digest) and identity_in(output) == identity.digest
        if not adopted:
            if record is None:
                return [f"nothing says what {output} was made from"]
            if record["identity"] != identity.digest:
                return [f"changed since {output} was made: {listed(identity.changes(record['fields']))}"]
        if damage := self._damage(outputs, {} if adopted or record is None else record["output"]):
            self._path(stage).unlink(missing_ok=True)  # a model of the same identity may take its place
            return [f"{output}: {listed(damage)}"]
        if adopted:
            self.keep(stage, identity, 0.0, outputs, asked)
        return []

    def made_here(self, stage: str, output: Path, identity: str | None = None) -> bool:
        """Returns whether ``output`` is the one that ``stage`` recorded; True if it recorded none.

        For a model, a matching ``identity`` in its manifest also counts.
        """
        record = self.record(stage)
        return record is None or record["output"] == output_state([output]) or record["identity"] == identity

    def changes(self, stage: str, fields: Mapping[str, Any], *, with_code: bool = False) -> list[str]:
        """Returns which values (and, ``with_code``, which code) have changed since the outputs of a stage were made."""
        record = self.record(stage)
        if record is None:
            return []
        return [change for change in changes(record["fields"], fields) if with_code or not change.startswith("code ")]

    # Whether it is as it was written --------------------------------------------------------------------------------------

    def damage(self, directory: Path, *prefixes: str) -> list[str]:
        """Returns what is wrong with one of our directories, or with its parts ``prefixes``, one line per file.

        Reads only files that changed since they were last read.
        """
        held = contents.read_contents(directory)
        if held is None or not contents.seal_holds(directory):
            return ["its manifest is missing or damaged"]
        named = held["files"]
        if prefixes:
            named = {name: named[name] for name in named if name.partition("/")[0] in prefixes}
        with self._seen(directory) as seen:
            return contents.problems(directory, {**held, "files": named}, seen)

    def foreign_digest(self, directory: Path, without: Sequence[Path] = ()) -> str:
        """Returns a digest of the contents of a world that has no manifest: of all files but hidden ones and Markdown.

        Files in ``without`` (our own outputs, that may lie in it) are left out. Links are followed, and files are read only
        if they have changed.
        """
        outputs = [path.resolve() for path in without]
        others = contents.other_names(directory)
        with self._seen(directory) as seen:
            found = {
                # A dangling link counts as content: the build then runs, and refuses it.
                name: contents.digest_of(directory / name, seen, name) if name not in others else "no file"
                for name in [*contents.file_names(directory), *others]
                if not any(part.startswith(".") for part in name.split("/"))
                and not name.endswith((".md", ".lock"))
                and not any(Path(os.path.realpath(directory / name)).is_relative_to(path) for path in outputs)
            }
        return files.sha256_json(found)

    def _damage(self, outputs: Sequence[Path], recorded: Mapping[str, str | None]) -> list[str]:
        """Returns which files of a stage's outputs are not as they were written."""
        output = outputs[0]
        if output.is_dir() and (damage := self.damage(output)):
            return damage
        now = output_state(outputs)
        names = [name for name in sorted({*recorded, *now}) if recorded and recorded.get(name) != now.get(name)]
        if output.is_dir() and names:
            return ["holds other files than were written"]
        return [f"{name} is {'missing' if now.get(name) is None else 'not as it was written'}" for name in names]

    @contextlib.contextmanager
    def _seen(self, directory: Path) -> Iterator[contents.Seen]:
        """Yields the known digests of files of ``directory``; keeps those that the block adds."""
        of_shared = directory == self._shared and os.access(directory.parent, os.W_OK)
        path, key = _beside(directory, "seen") if of_shared else self._stages / "seen.json", str(directory.resolve())
        try:
            known = files.read_json(path)
        except (OSError, InputError):
            known = {}
        known = known if isinstance(known, dict) else {}
        before = known.get(key)
        seen = dict(before) if isinstance(before, dict) else {}
        yield seen
        if seen != before and (of_shared or self._root.is_dir()):
            files.write_json(path, {**known, key: seen})

    @property
    def _stages(self) -> Path:
        return self._root / "stages"

    def _path(self, stage: str) -> Path:
        if stage != BUILD or self._shared is None:
            return self._stages / f"{stage.replace(' ', '-')}.json"
        beside, of_its_own = _beside(self._shared, stage), self._shared.parent / "stages" / f"{stage}.json"
        # They may be the data sets of another work directory, which has recorded them.
        return of_its_own if of_its_own.is_file() and not beside.is_file() else beside


def output_state(outputs: Sequence[Path]) -> dict[str, str | None]:
    """Returns the digests of files, and of the manifests of directories, by name."""
    return {path.name: _digest_of(path) for path in outputs}


def identity_in(output: Path) -> str | None:
    """Returns the identity in a model's own manifest."""
    try:
        manifest = files.read_json(output / "manifest.json")
    except (OSError, InputError):
        return None
    return manifest.get("identity") if isinstance(manifest, dict) else None


def _beside(directory: Path, what: str) -> Path:
    return directory.with_name(f".{directory.name}.{what}.json")


def _digest_of(path: Path) -> str | None:
    if path.is_file():
        return files.sha256_file(path)
    held = contents.read_contents(path) if path.is_dir() else None
    return None if held is None else files.sha256_json([contents.contents_digest(held), contents.manifest_digest(path)])


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = files.read_json(path)
    except (OSError, InputError):
        return None
    whole = isinstance(record, dict) and record.keys() >= {"stage", "identity", "fields", "seconds", "output"}
    return record if whole else None
