"""Methods run apart from what they may not see: a process of their own, over a view of the data.

A *cell* is a directory outside of the work directory, with a name that leads nowhere, for as long as a method runs::

    .salmu-5f1c.../view/    what the method may read (view.py)
    .salmu-5f1c.../run/     what it writes: its states, and then its model

The states of a run that was stopped are moved into the cell before it goes on, and back to ``models/NAME.state`` when it
stops again. ``models/NAME.cell.json`` says which cell is in use, so that after a kill the next command brings the states
home (:func:`recover`), and in which work directory: a copy of that one has no part in the cell. A finished model is checked
here, gets a manifest that is written here, and is moved to its place: what it was made from and which splits were read is
said by this side, not by the method's.

What this enforces, and what a determined program of the same user can still do, is in ``docs/permissions.md``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import pkgutil
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from salmu_jax import config as config_lib
from salmu_jax import console, contents, files, processes, removal
from salmu_jax.directories import new_directory
from salmu_jax.errors import InputError
from salmu_jax.training import distributed
from salmu_jax.training.states import States
from salmu_jax.unlearning import child, view
from salmu_jax.workspace import Workspace

CELL_SCHEMA = "salmu_jax.cell/1"
PLACE = "SALMU_CELLS"  # an environment variable: the directory to make cells in

_CHILD = "salmu_jax.unlearning.child"
# What a method's process says of its model that is taken over; the rest of the manifest is said here.
_DECLARED = ("activation", "image", "tokenizer", "method", "hyper", "trainable", "steps")
_PATIENCE = 30.0  # seconds that the process of a killed run has to notice


def describe(config: Any, methods: Mapping[str, Any], forget_pairs: int) -> dict[str, Any]:
    """Returns what ``methods`` (names with their fields) are, see :func:`child.describe`, without loading their code here."""
    told = {
        "task": "describe",
        "config": _config_for_child(config),
        "methods": {name: config_lib.to_json(fields) for name, fields in methods.items()},
        "forget_pairs": forget_pairs,
    }
    with _empty_directory() as empty:
        environment = {**clean_environment([config.workdir, config.world_dir]), "JAX_PLATFORMS": "cpu"}
        return processes.run(_CHILD, told, label="unlearn", cwd=empty, environment=environment)


@contextlib.contextmanager
def _empty_directory() -> Iterator[str]:
    """Makes a directory for the block. Raises InputError if there is no place for temporary files."""
    try:
        made = tempfile.TemporaryDirectory(prefix="salmu-")
    except OSError as error:
        message = f"no directory for temporary files can be written to; name one ({error.strerror})"
        raise InputError(message, "TMPDIR") from error
    with made as path:
        yield path


def unlearn(
    workspace: Workspace,
    name: str,
    *,
    parent: Path,
    splits: Sequence[str],
    told: Mapping[str, Any],
    states: States,
    manifest: Callable[[str], Mapping[str, Any]],
) -> None:
    """Runs a method over ``splits`` (forget first) and ``parent`` in a process of its own, and writes ``models/NAME``.

    All processes of a run have to call it.

    Args:
      told: the method's fields, and the pairs that its passes are counted over, for :func:`child.unlearn`.
      states: where the run goes on from, if it was stopped.
      manifest: what is added to the model's manifest, made from the name of the devices, which the method's process says.

    Raises InputError, Preempted, KeyboardInterrupt or ChildFailed as the method's process ended.
    """
    with processes.signals_held():
        opened = distributed.from_main(lambda: _open_cell(workspace, name, parent, splits))
        cell = Path(opened["cell"])
        try:
            with removal.named({cell: opened["files"]}, functools.partial(_removed, name)):
                said = _run(
                    workspace, cell, name, parent, {**told, "splits": list(splits), **_states(workspace, states)}
                )
                device = str(said.get("device") if isinstance(said, dict) else said)[:200]
                facts = {
                    "splits_read": opened["splits"],
                    "isolation": {"process": True, "view": opened["view"], "sandbox": False},
                    **manifest(device),
                }
                distributed.from_main(lambda: _adopt(workspace, cell, name, parent, facts))
        finally:
            distributed.from_main(lambda: _close_cell(workspace, name, cell))


def _removed(name: str, cell: Path, what: str) -> InputError:
    """The end of a method under which somebody has removed its cell, or files in it."""
    return InputError(
        f"{what} while 'unlearn {name}' worked in it; leave a directory of such a name alone until its method ends, and run"
        " the same command again",
        cell,
    )


def recover(workspace: Workspace) -> None:
    """Brings home the states of methods that were killed, and removes their cells. The work directory has to be locked."""
    for record in (workspace.root / "models").glob("*.cell.json"):
        name = record.name.removesuffix(".cell.json")
        try:
            known = files.read_json(record)
        except (OSError, InputError):
            known = None
        if isinstance(known, dict) and "owner" in known and not _is_owner(workspace, known["owner"]):
            console.say(
                f"unlearn {name}: begins without the states that another work directory, of which this is a copy, uses"
            )
            record.unlink(missing_ok=True)
            continue
        cell = Path(str(known.get("cell"))) if isinstance(known, dict) else None
        if cell is not None and _is_cell(cell):
            _wait_for_end(cell)
            _close_cell(workspace, name, cell)
        else:
            record.unlink(missing_ok=True)


def _states(workspace: Workspace, states: States) -> dict[str, Any]:
    """What a method's process is told of its states, without paths that lead to the work directory.

    A ``train.state_dir`` in the work directory, or around it, is not told: the states then go as without one.
    """
    shared = states.shared
    if shared and "://" not in shared:
        place, root = Path(shared).resolve().parent, workspace.root.resolve()
        shared = "" if place.is_relative_to(root) or root.is_relative_to(place) else str(place / Path(shared).name)
    how = {"shared": shared, "owner": states.owner, "unfinished": states.unfinished, "anew": states.anew}
    return {"identity": dict(states.identity.fields), "states": how}


def method_names() -> list[str]:
    """Returns the names of the methods that there are, without loading their code: each is a module of its name."""
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / "methods")]))


def clean_environment(hidden: Sequence[str | os.PathLike]) -> dict[str, str]:
    """Returns the environment variables without those that name one of the ``hidden`` directories, or are for this side."""
    paths = {form for path in hidden if path for form in (os.path.abspath(path), os.path.realpath(path))}
    ours = ("PWD", "OLDPWD", PLACE)
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ours and not name.startswith("SALMU_") and not any(path in value for path in paths)
    }


def _config_for_child(config: Any) -> dict[str, Any]:
    """The config without its paths."""
    values = config_lib.to_json(config)
    values["workdir"] = values["world_dir"] = values["zeroshot_dir"] = values["train"]["state_dir"] = ""
    return values


def _run(workspace: Workspace, cell: Path, name: str, parent: Path, told: Mapping[str, Any]) -> Any:
    """Runs the method's process. What it says of paths in the cell is told in those of the work directory."""
    whole = {
        "task": "unlearn",
        "name": name,
        "config": _config_for_child(workspace.config),
        "distributed": distributed.for_child(),
        **told,
    }
    hidden = [workspace.root, workspace.world, workspace.datasets]
    try:
        return processes.run(_CHILD, whole, label=f"unlearn {name}", cwd=cell, environment=clean_environment(hidden))
    except distributed.ToldInputError:
        raise
    except InputError as error:
        raise InputError(_at_home(str(error), workspace, name, cell, parent)) from error
    except processes.ToldPreempted as error:
        raise processes.ToldPreempted(_at_home(str(error), workspace, name, cell, parent)) from error


def _at_home(line: str, workspace: Workspace, name: str, cell: Path, parent: Path) -> str:
    """A line of the method's process, with the paths that its user knows."""
    places = {
        child.STATE: workspace.model_state(name),
        child.VIEW / "datasets": workspace.datasets,
        child.VIEW / "parent": parent,
        child.MODEL: workspace.model(name),
    }
    for form in (str(cell.resolve()), str(cell)):
        line = line.replace(f"{form}/", "")
    for inside, home in places.items():
        line = re.sub(rf"(?<![\w/.]){re.escape(str(inside))}(?![\w-])", lambda _, home=home: str(home), line)
    return line


# Cells -------------------------------------------------------------------------------------------------------------------


def _open_cell(workspace: Workspace, name: str, parent: Path, splits: Sequence[str]) -> dict[str, Any]:
    """Makes a cell with a view, and moves the states of a run that was stopped into it."""
    recover(workspace)
    cell = _make_cell(workspace, name)
    try:
        for directory in (child.VIEW, child.STATE.parent):
            (cell / directory).mkdir()
        made = view.build_view(cell / child.VIEW, workspace.datasets, splits, parent)
        state = workspace.model_state(name)
        if state.is_dir():
            _move(state, cell / child.STATE)
    except BaseException:
        _close_cell(workspace, name, cell)
        raise
    # Taken before the method runs, which can write to its view.
    splits_read = view.read_splits(cell / child.VIEW)
    held = [str(child.STATE.parent), *(f"{child.VIEW}/{path}" for path in made["files"])]
    return {"cell": str(cell), "view": contents.contents_digest(made), "splits": splits_read, "files": held}


def _make_cell(workspace: Workspace, name: str) -> Path:
    """Makes the directory of a cell, and before that the record of it. Raises InputError if there is no place for it.

    Whether a directory can be made somewhere is known once it is made: what is said of permissions is not all there is.
    """
    reasons = []
    for place in _places_for_cells(workspace):
        cell = place / f".salmu-{secrets.token_hex(8)}"
        files.write_json(
            _record(workspace, name), {"schema": CELL_SCHEMA, "cell": str(cell), "owner": _owner(workspace)}
        )
        try:
            cell.mkdir(mode=0o700)
        except OSError as error:
            reasons.append(f"{place} ({error.strerror})")
        else:
            return cell
    _record(workspace, name).unlink(missing_ok=True)
    raise InputError(
        f"a method works in a directory of its own, and none can be made in {' or '.join(reasons)}; name one here that can be"
        " written to",
        PLACE,
    )


def _close_cell(workspace: Workspace, name: str, cell: Path) -> None:
    """Moves the states home and removes the cell."""
    state, home = cell / child.STATE, workspace.model_state(name)
    if state.is_dir() and not state.is_symlink():
        if not home.parent.is_dir():
            raise InputError(f"was removed under its run; the states of 'unlearn {name}' are in {state}", home.parent)
        if os.path.lexists(home):
            raise InputError(
                f"is there, and so are states of this method in {state}; keep one and remove the other", home
            )
        _move(state, home)
    shutil.rmtree(cell, ignore_errors=True)
    _record(workspace, name).unlink(missing_ok=True)


def _record(workspace: Workspace, name: str) -> Path:
    return workspace.root / "models" / f"{name}.cell.json"


def _owner(workspace: Workspace) -> dict[str, Any]:
    """What tells a work directory from its copies."""
    root = workspace.root.resolve()
    about = root.stat()
    return {"path": str(root), "device": about.st_dev, "inode": about.st_ino}


def _is_owner(workspace: Workspace, owner: Any) -> bool:
    """Whether ``owner`` is this work directory: at its path, or moved since. Device numbers may change at a restart."""
    me = _owner(workspace)
    if not isinstance(owner, dict):
        return False
    return owner.get("path") == me["path"] or all(owner.get(key) == me[key] for key in ("device", "inode"))


def _places_for_cells(workspace: Workspace) -> list[Path]:
    """Where cells are made: beside the work directory, on its file system, or else in the system's place for temporary
    directories; or where ``SALMU_CELLS`` says.
    """
    if chosen := os.environ.get(PLACE):
        place = Path(chosen).expanduser().absolute()
        if place.resolve().is_relative_to(workspace.root.resolve()):
            raise InputError(f"{chosen!r} is in the work directory, which methods are kept apart from", PLACE)
        return [place]
    temporary = [Path(path) for path in (os.environ.get("TMPDIR"), "/tmp") if path]
    return [workspace.root.resolve().parent, *temporary]


def _is_cell(cell: Path) -> bool:
    return bool(re.fullmatch(r"\.salmu-[0-9a-f]{16}", cell.name)) and cell.is_dir() and not cell.is_symlink()


def _wait_for_end(cell: Path) -> None:
    """Waits for the process of a killed run, which ends when it notices that nobody is there to take its model."""
    end = time.monotonic() + _PATIENCE
    with contextlib.suppress(FileNotFoundError), open(cell / child.LOCK, "r+b") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > end:
                    raise InputError("a method of a killed run is still at work here; end it first", cell) from None
                time.sleep(0.1)
            except OSError:  # a file system without locks
                return


def _move(source: Path, target: Path) -> None:
    """Moves a directory, which appears whole."""
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copytree(source, f"{target}.moving", symlinks=True)
        os.replace(f"{target}.moving", target)
        shutil.rmtree(source)
    files.sync_directory(target.parent)
    files.sync_directory(source.parent)


# Taking the model over ---------------------------------------------------------------------------------------------------


def _adopt(workspace: Workspace, cell: Path, name: str, parent: Path, facts: Mapping[str, Any]) -> None:
    """Checks the model that a method's process has left, and moves it to its place with a manifest of ours."""
    made = cell / child.MODEL
    said = _checked(made, name, parent)
    whole = {
        **{key: said[key] for key in ("schema", "digest", "architecture")},
        **{key: said[key] for key in _DECLARED if key in said},
        "name": name,
        **facts,
        "leaves": said["leaves"],
    }
    with new_directory(workspace.model(name)) as partial:
        for path in made.iterdir():
            if path.name != "manifest.json":
                shutil.move(path, partial / path.name)
        whole["files"] = contents.records(partial)
        whole["seal"] = contents.seal(whole)
        files.write_json(partial / "manifest.json", whole)


def _checked(made: Path, name: str, parent: Path) -> dict[str, Any]:
    """The manifest that a method's process has written, once it fits the model that it began with.

    That the arrays are those of the manifest is compared where the model is loaded.
    """
    from salmu_jax.training.checkpoint import read_manifest
    from salmu_jax.training.records import mismatches, tree_digest, without_digests

    for path in (made, *made.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise InputError(f"{path.relative_to(made.parent)} is neither a file nor a directory", f"unlearn {name}")
    said, before = read_manifest(made), read_manifest(parent)
    problems = mismatches(without_digests(before["leaves"]), without_digests(said["leaves"]))
    if said.get("name") != name:
        problems.append(f"it calls itself {said.get('name')!r}")
    if said["digest"] != tree_digest(said["leaves"]):
        problems.append("its digest is not that of its leaves")
    if said.get("architecture") != before.get("architecture"):
        problems.append("its architecture is not its parent's")
    if problems:
        raise InputError(f"left a model that cannot be taken over: {'; '.join(problems[:10])}", f"unlearn {name}")
    return said
