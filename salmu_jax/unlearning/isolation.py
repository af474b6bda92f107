"""Runs each method in a process of its own, over a view of the data that holds only what the method may read.

The process works in a cell (``cells.py``). This side checks the finished model, writes its manifest and moves it into the work
directory, so that the benchmark, not the method, says what the model was made from and which splits were read.

``docs/permissions.md`` says what this enforces, and what a determined program of the same user can still do.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pkgutil
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from salmu_jax import config as config_lib
from salmu_jax.runtime import contents, distributed, files, processes, removal, withheld
from salmu_jax.runtime.directories import new_directory
from salmu_jax.runtime.errors import Diverged, InputError
from salmu_jax.runtime.messages import listed
from salmu_jax.runtime.workspace import Workspace
from salmu_jax.training.states import States
from salmu_jax.unlearning import cells, child, sandbox, view
from salmu_jax.unlearning.runs import Run
from salmu_jax.unlearning.sandbox import Sandbox

_CHILD = "salmu_jax.unlearning.child"
# Manifest fields taken over from the method's process; this side writes the others.
_DECLARED = ("activation", "image", "tokenizer", "method", "hyper", "trainable", "steps", "drawn")


def describe(workspace: Workspace, runs: Sequence[tuple[Run, int]]) -> dict[str, Any]:
    """Describes the methods of ``runs`` by the runs' names, see :func:`child.describe`, without loading their code here.

    Each run comes with the number of forget pairs in a pass. Raises InputError for what is wrong with a method or its fields,
    and if the sandbox that the config asks for does not work.
    """
    config = workspace.config
    with _empty_directory() as empty:
        asked, places = {}, {}
        for run, pairs in runs:
            asked[run.name] = {"method": run.method, "fields": run.fields, "where": run.where, "forget_pairs": pairs}
            if run.file:
                copy = view.place_method(run.file, Path(empty) / run.name).relative_to(empty)
                places[copy] = run.file
                asked[run.name]["method"] = f"{copy}:{run.class_name}"
        request = {"task": "describe", "config": _config_for_child(config), "runs": asked}
        environment = {**clean_environment(workspace.hidden), "JAX_PLATFORMS": "cpu"}
        prefix = _sandbox(workspace, Path(empty)).prefix
        try:
            return processes.run(_CHILD, request, label="unlearn", prefix=prefix, cwd=empty, environment=environment)
        except InputError as error:
            raise InputError(_at_home(str(error), places, Path(empty))) from error


@contextlib.contextmanager
def _empty_directory() -> Iterator[str]:
    """Yields a temporary directory. Raises InputError if none can be made."""
    try:
        made = tempfile.TemporaryDirectory(prefix="salmu-")
    except OSError as error:
        message = f"no directory for temporary files can be written to; name one ({error.strerror})"
        raise InputError(message, "TMPDIR") from error
    with made as path:
        yield path


def unlearn(
    workspace: Workspace,
    run: Run,
    *,
    parent: Path,
    splits: Sequence[str],
    request: Mapping[str, Any],
    states: States,
    manifest: Callable[[str], Mapping[str, Any]],
) -> None:
    """Runs a method over ``splits`` (forget first) and ``parent`` in a process of its own, and writes ``models/NAME``.

    All processes of a run must call it.

    Args:
      run: the run; ``parent`` is the directory of its parent.
      request: which rows of forget are unlearned, and how many they are, for :func:`child.unlearn`.
      states: the checkpoints that a stopped run resumes from.
      manifest: returns the fields to add to the model's manifest, given the name of the devices.

    Raises InputError, Preempted, KeyboardInterrupt or ChildFailed, depending on how the method's process ended.
    """
    name = run.name
    with processes.signals_held():
        opened = distributed.from_main(lambda: cells.open_cell(workspace, name, parent, splits, run.file))
        cell = Path(opened["cell"])
        try:
            with removal.named({cell: opened["files"]}, functools.partial(cells.removed_under, name)):
                started = _sandbox(workspace, cell)
                whole = {**request, "splits": list(splits), **_states(workspace, states)}
                said = _run(workspace, cell, started, run, parent, whole)
                device = str(said.get("device") if isinstance(said, dict) else said)[:200]
                facts = {
                    "splits_read": opened["splits"],
                    "isolation": {"process": True, "view": opened["view"], "sandbox": started.program or False},
                    **manifest(device),
                }
                distributed.from_main(lambda: _adopt(workspace, cell, name, parent, facts))
        finally:
            distributed.from_main(lambda: cells.close_cell(workspace, name, cell))


def _states(workspace: Workspace, states: States) -> dict[str, Any]:
    """Returns the part of the request about states, without any path that leads to the work directory.

    A ``train.state_dir`` in the work directory, or around it, is left out, and each is for a sandbox: the states then go
    through the cell.
    """
    shared = states.shared if workspace.config.unlearn.sandbox == "off" else ""
    if shared and "://" not in shared:
        place, root = Path(shared).resolve().parent, workspace.root.resolve()
        shared = "" if place.is_relative_to(root) or root.is_relative_to(place) else str(place / Path(shared).name)
    how = {"shared": shared, "owner": states.owner, "unfinished": states.unfinished, "rerun": states.rerun}
    return {"identity": dict(states.identity.fields), "states": how}


def method_names() -> list[str]:
    """Returns the names of all methods without loading their code: each is a module of the same name."""
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / "methods")]))


def clean_environment(hidden: Sequence[str | os.PathLike]) -> dict[str, str]:
    """Returns the environment without variables that name a ``hidden`` directory, or that are for this side only."""
    paths = {form for path in hidden if path for form in (os.path.abspath(path), os.path.realpath(path))}
    ours = ("PWD", "OLDPWD", cells.PLACE)
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ours and not name.startswith("SALMU_") and not any(path in value for path in paths)
    }


def _config_for_child(config: Any) -> dict[str, Any]:
    """Returns the config as JSON values, without its paths."""
    values = config_lib.to_json(config)
    for field in ("workdir", "world_dir", "zeroshot_dir", "retain_dir", "datasets_dir"):
        values[field] = ""
    values["train"]["state_dir"] = ""
    values["unlearn"]["runs"] = values["unlearn"]["methods"] = {}  # the run comes with the request
    values["sweep"]["methods"] = {}
    return values


def _sandbox(workspace: Workspace, cell: Path) -> Sandbox:
    """Returns the sandbox that the config asks for. Raises InputError if none works, or if the run needs the network."""
    config = workspace.config
    if config.unlearn.sandbox == "off":
        return Sandbox("", ())
    if distributed.process_count() > 1:
        raise InputError("has no network, by which the processes of this run would meet; run one", "unlearn.sandbox")
    if config.log.wandb:
        raise InputError("has no network for log.wandb; set log.tensorboard instead", "unlearn.sandbox")
    return sandbox.find(cell, [*workspace.hidden, withheld.DIRECTORY])


def _run(workspace: Workspace, cell: Path, started: Sandbox, run: Run, parent: Path, request: Mapping[str, Any]) -> Any:
    """Runs the method's process. In its messages, paths in the cell become those of the work directory."""
    places = {
        child.STATE: workspace.model_state(run.name),
        child.VIEW / "datasets": workspace.datasets,
        child.VIEW / "parent": parent,
        child.MODEL: workspace.model(run.name),
    }
    method = run.method
    if run.file:
        copy = child.VIEW / view.METHOD / run.file.name
        places[copy], method = run.file, f"{copy}:{run.class_name}"
    whole = {
        "task": "unlearn",
        "name": run.name,
        "method": method,
        "fields": run.fields,
        "where": run.where,
        "seed": run.seed,
        "config": _config_for_child(workspace.config),
        "distributed": distributed.for_child(),
        **request,
    }
    how = {"prefix": started.prefix, "cwd": cell, "environment": clean_environment(workspace.hidden)}
    try:
        return processes.run(_CHILD, whole, label=f"unlearn {run.name}", **how)
    except distributed.RemoteInputError:
        raise
    except InputError as error:
        kind = Diverged if isinstance(error, Diverged) else InputError
        raise kind(_at_home(str(error), places, cell)) from error
    except processes.RemotePreempted as error:
        raise processes.RemotePreempted(_at_home(str(error), places, cell)) from error


def _at_home(line: str, places: Mapping[Path, Path], cell: Path) -> str:
    """Returns a line of the method's process with the paths that its user knows: ``places``, by those in the cell."""
    for form in (str(cell.resolve()), str(cell)):
        line = line.replace(f"{form}/", "")
    for inside, home in places.items():
        line = re.sub(rf"(?<![\w/.]){re.escape(str(inside))}(?![\w-])", lambda _, home=home: str(home), line)
    return line


# Taking the model over ---------------------------------------------------------------------------------------------------


def _adopt(workspace: Workspace, cell: Path, name: str, parent: Path, facts: Mapping[str, Any]) -> None:
    """Checks the model that a method's process left, and moves it into the work directory with our own manifest."""
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
    """Returns the manifest that a method's process has written, after comparing it with the parent's.

    Whether the arrays are those of the manifest is checked where the model is loaded.
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
        raise InputError(
            f"left a model that cannot be taken over: {listed(problems, separator='; ')}", f"unlearn {name}"
        )
    return said
