"""Makes cells: the directories that methods run in, which exist only while they run.

A *cell* lies beside the work directory, or in it for ``salmu forget`` (``Workspace.place_of_cells``), and has a random name::

    .salmu-5f1c.../view/    what the method may read (view.py)
    .salmu-5f1c.../run/     what it writes: its checkpoints, and then its model

The checkpoints of a stopped run move into the cell before it resumes, and back to ``models/NAME.state`` when it stops again.
``models/NAME.cell.json`` names the cell in use. After a kill, the next command moves the checkpoints back (:func:`recover`).
It also names the work directory, since a copy of the work directory must not use the cell. Cells in a work directory are
copied, moved and removed with it; those that no record names are removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from salmu_jax.runtime import console, contents, files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.workspace import Workspace
from salmu_jax.unlearning import child, view

CELL_SCHEMA = "salmu_jax.cell/1"
PLACE = "SALMU_CELLS"  # an environment variable: the directory to make cells in

_PATIENCE = 30.0  # seconds for a method's process to notice that its run was killed


def recover(workspace: Workspace, name: str = "*") -> None:
    """Moves the checkpoints of killed methods back and removes their cells, or those of the run ``name`` alone.

    The work directory must be locked.
    """
    _recover_recorded(workspace, name)
    if name == "*" and _in_work_directory(workspace):
        for cell in filter(
            _is_cell, workspace.root.glob(".salmu-*")
        ):  # of the work directory that this one is a copy of
            _wait_for_end(cell)
            shutil.rmtree(cell, ignore_errors=True)


def _in_work_directory(workspace: Workspace) -> bool:
    return workspace.place_of_cells == workspace.root.resolve()


def _recover_recorded(workspace: Workspace, name: str) -> None:
    for record in (workspace.root / "models").glob(f"{name}.cell.json"):
        name = record.name.removesuffix(".cell.json")
        try:
            known = files.read_json(record)
        except (OSError, InputError):
            known = None
        if isinstance(known, dict) and "owner" in known and not is_owner(workspace, known["owner"]):
            console.say(
                f"unlearn {name}: begins without the states that another work directory, of which this is a copy, uses"
            )
            record.unlink(missing_ok=True)
            continue
        cell = Path(str(known.get("cell"))) if isinstance(known, dict) else None
        if cell is not None and _in_work_directory(workspace) and not _is_cell(cell):
            cell = workspace.root / cell.name  # the work directory was moved
        if cell is not None and _is_cell(cell):
            _wait_for_end(cell)
            close_cell(workspace, name, cell)
        else:
            record.unlink(missing_ok=True)


def open_cell(
    workspace: Workspace, name: str, parent: Path, splits: Sequence[str], method: Path | None = None
) -> dict[str, Any]:
    """Makes a cell with a view, and moves a stopped run's checkpoints into it. ``method`` is a user's file."""
    recover(workspace, name)  # others may be at work in theirs
    state = workspace.model_state(name)
    if os.path.lexists(state) and not state.is_dir():
        raise InputError("is not a directory, and the states of this method go there; move it away", state)
    cell = make_cell(workspace, name)
    try:
        for directory in (child.VIEW, child.STATE.parent):
            (cell / directory).mkdir()
        made = view.build_view(cell / child.VIEW, workspace.datasets, splits, parent, method)
        if state.is_dir():
            _move(state, cell / child.STATE)
        _copy_logs(workspace.logs(name), cell / child.LOGS, only="wandb.json")  # a resumed run continues under its id
    except BaseException:
        close_cell(workspace, name, cell)
        raise
    # Read before the method runs, which can write to its view.
    splits_read = view.read_splits(cell / child.VIEW)
    held = [str(child.STATE.parent), *(f"{child.VIEW}/{path}" for path in made["files"])]
    return {"cell": str(cell), "view": contents.contents_digest(made), "splits": splits_read, "files": held}


def make_cell(workspace: Workspace, name: str) -> Path:
    """Makes the directory of a cell, after recording it. Raises InputError if none can be made.

    Each place is tried, since permissions alone do not say whether a directory can be made there.
    """
    reasons = []
    for place in _places_for_cells(workspace):
        cell = place / f".salmu-{secrets.token_hex(8)}"
        files.write_json(
            record_path(workspace, name), {"schema": CELL_SCHEMA, "cell": str(cell), "owner": owner_of(workspace)}
        )
        try:
            cell.mkdir(mode=0o700)
        except OSError as error:
            reasons.append(f"{place} ({error.strerror})")
        else:
            return cell
    record_path(workspace, name).unlink(missing_ok=True)
    raise InputError(
        f"a method works in a directory of its own, and none can be made in {' or '.join(reasons)}; name one here that can be"
        " written to",
        PLACE,
    )


def close_cell(workspace: Workspace, name: str, cell: Path) -> None:
    """Moves the checkpoints back to the work directory, and removes the cell."""
    state, home = cell / child.STATE, workspace.model_state(name)
    if state.is_dir() and not state.is_symlink():
        if not home.parent.is_dir():
            raise InputError(f"was removed under its run; the states of 'unlearn {name}' are in {state}", home.parent)
        if os.path.lexists(home):
            raise InputError(
                f"is there, and so are states of this method in {state}; keep one and remove the other", home
            )
        _move(state, home)
    _copy_logs(cell / child.LOGS, workspace.logs(name))
    shutil.rmtree(cell, ignore_errors=True)
    record_path(workspace, name).unlink(missing_ok=True)


def record_path(workspace: Workspace, name: str) -> Path:
    return workspace.root / "models" / f"{name}.cell.json"


def owner_of(workspace: Workspace) -> dict[str, Any]:
    """Returns what distinguishes a work directory from its copies."""
    root = workspace.root.resolve()
    about = root.stat()
    return {"path": str(root), "device": about.st_dev, "inode": about.st_ino}


def is_owner(workspace: Workspace, owner: Any) -> bool:
    """Returns whether ``owner`` is this work directory, also if it was moved. Device numbers may change at a reboot."""
    me = owner_of(workspace)
    if not isinstance(owner, dict):
        return False
    return owner.get("path") == me["path"] or all(owner.get(key) == me[key] for key in ("device", "inode"))


def _places_for_cells(workspace: Workspace) -> list[Path]:
    """Returns where to make cells: in the place of the workspace, or else, unless that is the work directory itself, among
    the system's temporary directories; or only in ``SALMU_CELLS``.
    """
    if chosen := os.environ.get(PLACE):
        place = Path(chosen).expanduser().absolute()
        if place.resolve().is_relative_to(workspace.outermost.resolve()):
            raise InputError(f"{chosen!r} is in the work directory, which methods are kept apart from", PLACE)
        return [place]
    if _in_work_directory(workspace):
        return [workspace.place_of_cells]
    temporary = [Path(path) for path in (os.environ.get("TMPDIR"), "/tmp") if path]
    return [workspace.place_of_cells, *temporary]


def _is_cell(cell: Path) -> bool:
    return bool(re.fullmatch(r"\.salmu-[0-9a-f]{16}", cell.name)) and cell.is_dir() and not cell.is_symlink()


def _wait_for_end(cell: Path) -> None:
    """Waits for the method's process of a killed run, which ends once it notices that its parent has ended."""
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
    """Moves a directory, which appears whole: to another disk as a copy under a temporary name, which a kill leaves."""
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        files.remove_partials(target)
        partial = files.partial_path(target)
        shutil.copytree(source, partial, symlinks=True)
        files.sync_tree(partial)
        os.replace(partial, target)
        shutil.rmtree(source)
    files.sync_directory(target.parent)
    files.sync_directory(source.parent)


def _copy_logs(source: Path, target: Path, only: str = "*") -> None:
    """Copies the regular files of a directory of logs to where they are not yet, or are older."""
    for path in sorted(source.rglob(only)) if source.is_dir() and not source.is_symlink() else []:
        place = target / path.relative_to(source)
        if path.is_file() and not path.is_symlink():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


def removed_under(name: str, cell: Path, what: str) -> InputError:
    """Makes the error for a cell, or files in it, that were removed while a method ran."""
    return InputError(
        f"{what} while 'unlearn {name}' worked in it; leave a directory of such a name alone until its method ends, and run"
        " the same command again",
        cell,
    )
