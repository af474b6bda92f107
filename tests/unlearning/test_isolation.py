"""Cells: where they lie, what becomes of a run that was killed in one, and which models come out of them."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import types
from pathlib import Path

import numpy as np
import pytest

from salmu_jax import config as config_lib
from salmu_jax.runtime import contents, files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.identity import Identity
from salmu_jax.runtime.workspace import Workspace
from salmu_jax.training.records import leaf_records, tree_digest
from salmu_jax.training.states import States
from salmu_jax.unlearning import cells, child, isolation, registry
from salmu_jax.unlearning.runs import Run


@pytest.fixture
def workspace(tmp_path):
    """The paths of a work directory, as far as cells need them."""
    root = tmp_path / "work"
    (root / "models").mkdir(parents=True)
    return types.SimpleNamespace(
        root=root,
        outermost=root,
        place_of_cells=tmp_path.resolve(),
        hidden=[],
        datasets=root / "datasets",
        world=root / "world",
        config=config_lib.base_config(),
        model=lambda name: root / "models" / name,
        model_state=lambda name: root / "models" / f"{name}.state",
        states=lambda name: "",
        logs=lambda name: root / "logs" / name,
    )


def killed(workspace, tmp_path, name="delete"):
    """A cell with a state in it, as a run leaves it that is killed."""
    cell = tmp_path / ".salmu-0123456789abcdef"
    (cell / child.STATE / "200").mkdir(parents=True)
    (cell / child.STATE / "200" / "array").write_text("hours of work")
    (cell / child.LOCK).touch()
    record = {"schema": cells.CELL_SCHEMA, "cell": str(cell)}
    files.write_json(workspace.root / "models" / f"{name}.cell.json", record)
    return cell


def test_the_states_of_a_killed_run_come_home(workspace, tmp_path):
    cell = killed(workspace, tmp_path)
    cells.recover(workspace)
    assert (workspace.model_state("delete") / "200" / "array").read_text() == "hours of work"
    assert not cell.exists()
    assert not list(workspace.root.rglob("*.cell.json"))
    cells.recover(workspace)  # which may itself be killed and begin again
    assert (workspace.model_state("delete") / "200" / "array").exists()


def test_a_copy_of_a_work_directory_leaves_the_cell_of_the_original_alone(workspace, tmp_path, monkeypatch):
    cell = killed(workspace, tmp_path)
    record = cells.record_path(workspace, "delete")
    files.write_json(record, {**files.read_json(record), "owner": cells.owner_of(workspace)})
    copy = types.SimpleNamespace(**{**vars(workspace), "root": tmp_path / "copy"})
    shutil.copytree(workspace.root, copy.root)
    monkeypatch.setattr(cells, "_PATIENCE", 0.0)
    with open(cell / child.LOCK, "w") as lock:  # the original is at work: that does not concern its copy
        fcntl.flock(lock, fcntl.LOCK_EX)
        cells.recover(copy)
    assert (cell / child.STATE / "200" / "array").exists()
    assert not cells.record_path(copy, "delete").exists()

    moved = tmp_path / "moved"  # the original still is itself under another name
    workspace.root.rename(moved)
    workspace.root, workspace.model_state = moved, lambda name: moved / "models" / f"{name}.state"
    cells.recover(workspace)
    assert (workspace.model_state("delete") / "200" / "array").exists()
    assert not cell.exists()


def test_a_cell_in_its_work_directory_is_moved_copied_and_removed_with_it(workspace, tmp_path):
    def within(root):
        inner = types.SimpleNamespace(**{**vars(workspace), "root": root, "place_of_cells": root.resolve()})
        inner.model_state = lambda name: root / "models" / f"{name}.state"
        return inner

    original = within(workspace.root)
    cell = cells.make_cell(original, "delete")
    assert cell.parent == workspace.root.resolve()
    (cell / child.STATE / "200").mkdir(parents=True)
    (workspace.root / ".salmu-mine").mkdir()

    copy = within(tmp_path / "copy")
    shutil.copytree(workspace.root, copy.root)
    cells.recover(copy)
    assert sorted(path.name for path in copy.root.iterdir()) == [".salmu-mine", "models"]
    assert (cell / child.STATE / "200").is_dir()

    moved = within(tmp_path / "moved")
    workspace.root.rename(moved.root)
    cells.recover(moved)
    assert (moved.model_state("delete") / "200").is_dir()
    assert sorted(path.name for path in moved.root.iterdir()) == [".salmu-mine", "models"]


def test_a_cell_is_opened_with_its_owner(workspace, monkeypatch):
    def stopped(*_):
        record = files.read_json(cells.record_path(workspace, "delete"))
        assert cells.is_owner(workspace, record["owner"])
        raise KeyboardInterrupt

    monkeypatch.delenv(cells.PLACE, raising=False)
    monkeypatch.setattr(cells.view, "build_view", stopped)
    with pytest.raises(KeyboardInterrupt):
        cells.open_cell(workspace, "delete", workspace.root, [])


def test_states_are_overwritten_by_no_others(workspace, tmp_path):
    cell = killed(workspace, tmp_path)
    workspace.model_state("delete").mkdir()
    with pytest.raises(InputError, match="keep one and remove the other"):
        cells.recover(workspace)
    assert (cell / child.STATE / "200" / "array").exists()


def test_a_method_that_has_not_noticed_yet_is_waited_for(workspace, tmp_path, monkeypatch):
    cell = killed(workspace, tmp_path)
    monkeypatch.setattr(cells, "_PATIENCE", 0.0)
    with open(cell / child.LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="still at work"):
            cells.recover(workspace)
    cells.recover(workspace)
    assert not cell.exists()


def test_states_come_home_from_another_disk_after_a_kill_amid_the_copy(workspace, tmp_path, monkeypatch):
    killed(workspace, tmp_path)
    replace, kills = os.replace, [KeyboardInterrupt]

    def within_a_directory(source, target):
        if os.path.dirname(source) != os.path.dirname(target):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        if kills:  # before the copy has its name
            raise kills.pop()
        replace(source, target)

    monkeypatch.setattr(os, "replace", within_a_directory)
    with pytest.raises(KeyboardInterrupt):
        cells.recover(workspace)
    cells.recover(workspace)
    assert [path.name for path in (workspace.root / "models").iterdir()] == ["delete.state"]
    assert (workspace.model_state("delete") / "200" / "array").read_text() == "hours of work"


@pytest.mark.parametrize("place", ["mine", ".salmu-mine", ".salmu-0123456789abcdef/run"])
def test_nothing_but_a_cell_is_removed(workspace, tmp_path, place):
    directory = tmp_path / place
    directory.mkdir(parents=True)
    (directory / "notes").touch()
    files.write_json(workspace.root / "models" / "delete.cell.json", {"cell": str(directory)})
    cells.recover(workspace)
    assert (directory / "notes").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cell": 3}', '{"cell": "/nowhere/.salmu-0123456789abcdef"}'])
def test_a_damaged_record_stops_nobody(workspace, text):
    record = workspace.root / "models" / "delete.cell.json"
    record.write_text(text)
    cells.recover(workspace)
    assert not record.exists()


def test_the_environment_of_a_method_names_no_work_directory(monkeypatch, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "link").symlink_to(work)
    hidden = {"A": f"--workdir={work}/x", "PWD": "/", "SALMU_PROCESS": "1", "B": str(tmp_path / "link")}
    for name, value in {**hidden, "KEPT": "1", "XLA_FLAGS": "--flag"}.items():
        monkeypatch.setenv(name, value)
    kept = isolation.clean_environment([tmp_path / "link"])
    assert not kept.keys() & hidden.keys()
    assert (kept["KEPT"], kept["XLA_FLAGS"]) == ("1", "--flag")


def test_paths_in_what_a_method_says_are_those_that_its_user_knows(workspace, tmp_path):
    cell = tmp_path / ".salmu-0123456789abcdef"
    line = (
        f"view/datasets/salmu/1.0.0/x: cut short; saved in {cell}/run/state; {cell}/view/parent: no; a/view/parent: yes"
    )
    places = {
        child.STATE: workspace.model_state("delete"),
        child.VIEW / "datasets": workspace.datasets,
        child.VIEW / "parent": workspace.model("compromised"),
    }
    assert isolation._at_home(line, places, cell) == (
        f"{workspace.datasets}/salmu/1.0.0/x: cut short; saved in {workspace.root}/models/delete.state;"
        f" {workspace.root}/models/compromised: no; a/view/parent: yes"
    )


def test_cells_lie_beside_the_work_directory_or_where_one_says(workspace, tmp_path, monkeypatch):
    monkeypatch.delenv(cells.PLACE, raising=False)
    assert cells.make_cell(workspace, "delete").parent == workspace.root.resolve().parent
    (tmp_path / "cells").mkdir()
    monkeypatch.setenv(cells.PLACE, str(tmp_path / "cells"))
    assert cells.make_cell(workspace, "delete").parent == tmp_path / "cells"
    (tmp_path / "link").symlink_to(workspace.root)
    for inside in (workspace.root, workspace.root / "models", tmp_path / "link" / "models"):
        monkeypatch.setenv(cells.PLACE, str(inside))
        with pytest.raises(InputError, match=r"SALMU_CELLS: .* is in the work directory"):
            cells.make_cell(workspace, "delete")


@pytest.mark.parametrize("place", ["nowhere", "file", "/proc", "/dev/null"])
def test_a_place_in_which_no_cell_can_be_made_is_named_with_its_variable(workspace, tmp_path, monkeypatch, place):
    """Of ``/proc``, ``access`` says that it can be written to."""
    (tmp_path / "file").touch()
    monkeypatch.setenv(cells.PLACE, str(tmp_path / place))
    with pytest.raises(InputError, match=rf"^SALMU_CELLS: .*, and none can be made in {tmp_path / place} \("):
        cells.open_cell(workspace, "delete", workspace.root, [])
    assert not list(workspace.root.rglob("*.cell.json"))


def test_no_place_for_temporary_files_is_one_line(monkeypatch):
    monkeypatch.setattr(isolation.tempfile, "tempdir", "/proc")
    with pytest.raises(InputError, match=r"^TMPDIR: no directory for temporary files can be written to; name one \("):
        isolation.describe(Workspace(config_lib.base_config()), [])


def test_a_users_file_that_is_not_there_is_named(tmp_path):
    run = Run("mine", f"{tmp_path}/mine.py:Mine")
    with pytest.raises(InputError, match=rf"^{tmp_path}/mine.py: no such file or directory"):
        isolation.describe(Workspace(config_lib.base_config()), [(run, 36)])


def test_cells_lie_elsewhere_if_none_can_be_made_beside_the_work_directory(workspace, tmp_path, monkeypatch):
    monkeypatch.delenv(cells.PLACE, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    mkdir = os.mkdir

    def refusing(path, *arguments, **options):
        if os.path.dirname(path) == str(tmp_path):
            raise PermissionError(13, "Permission denied", path)
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", refusing)
    cell = cells.make_cell(workspace, "delete")
    assert cell.parent == tmp_path / "temporary"
    assert files.read_json(cells.record_path(workspace, "delete"))["cell"] == str(cell)


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("work/models/states", ""),
        ("work", ""),
        (".", ""),
        ("link/states", ""),
        ("states", "states/delete.state"),
        ("work-states", "work-states/delete.state"),
        ("gs://bucket/states", "gs://bucket/states/delete.state"),
    ],
)
def test_a_state_directory_around_or_in_the_work_directory_is_not_told(workspace, tmp_path, monkeypatch, place, told):
    (tmp_path / "link").symlink_to(workspace.root)
    monkeypatch.chdir(tmp_path)  # a relative one is not one of the cell
    for form in [place] if "://" in place else [place, str(tmp_path / place)]:
        run = States(workspace.model_state("delete"), Identity({}), "unlearn delete", shared=f"{form}/delete.state")
        shared = isolation._states(workspace, run)["states"]["shared"]
        assert shared == (str(tmp_path / told) if told and "://" not in told else told)


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("nowhere")], ids=["file", "link"])
def test_what_is_in_the_place_of_the_states_is_named_before_a_method_runs(workspace, unlearn, make):
    make(workspace.model_state("delete"))
    with pytest.raises(InputError, match=r"models/delete\.state: is not a directory"):
        unlearn(lambda cell: pytest.fail("it ran"))


@pytest.fixture
def unlearn(workspace, monkeypatch):
    """``unlearn(work)``: a method that does ``work(cell)``, over a view of one file."""

    def build_view(directory, *_):
        (directory / "datasets").mkdir()
        (directory / "datasets" / "record").write_text("a row")
        return contents.write_contents(directory, "view")

    def unlearn(work):
        monkeypatch.setattr(isolation, "_run", lambda _, cell, *more: work(cell))
        states = States(workspace.model_state("delete"), Identity({}), "unlearn delete")
        isolation.unlearn(
            workspace,
            Run("delete", "delete"),
            parent=workspace.root,
            splits=[],
            request={},
            states=states,
            manifest=dict,
        )

    monkeypatch.delenv(cells.PLACE, raising=False)
    monkeypatch.setattr(cells.view, "build_view", build_view)
    monkeypatch.setattr(cells.view, "read_splits", lambda view: [])
    return unlearn


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "No such file", "d"), InputError("cut short", "view/datasets/x"), RuntimeError("")]
)
@pytest.mark.parametrize(
    ("place", "what"), [(".", "was removed"), ("view/datasets", "view/datasets/record was removed"), ("run", "run was")]
)
def test_a_cell_that_is_removed_under_its_method_is_named(workspace, unlearn, tmp_path, place, what, error):
    def work(cell):
        (cell / child.STATE / "200").mkdir(parents=True)
        (cell / place).rename(tmp_path / "gone")
        raise error

    with pytest.raises(InputError) as caught:
        unlearn(work)
    assert re.fullmatch(
        rf"{tmp_path}/\.salmu-[0-9a-f]{{16}}: {what}.* while 'unlearn delete' worked in it; leave a directory of such a name"
        r" alone until its method ends, and run the same command again",
        str(caught.value),
    )
    assert not list(tmp_path.glob(".salmu-*"))
    assert not list(workspace.root.rglob("*.cell.json"))
    assert workspace.model_state("delete").exists() == (place == "view/datasets")  # its states have come home


def test_a_failure_of_a_method_whose_cell_is_there_is_told_as_it_is(unlearn):
    with pytest.raises(InputError, match=r"^the loss is not finite$"):
        unlearn(lambda cell: (_ for _ in ()).throw(InputError("the loss is not finite")))


def test_states_that_have_no_home_any_more_are_kept_and_named(workspace, unlearn, tmp_path):
    def work(cell):
        (cell / child.STATE / "200").mkdir(parents=True)
        workspace.root.rename(tmp_path / "gone")
        raise RuntimeError("of the disk")

    with pytest.raises(
        InputError, match=r"work/models: was removed under its run; the states of 'unlearn delete' are in "
    ):
        unlearn(work)
    assert list(tmp_path.glob(".salmu-*/run/state/200"))


def test_a_method_in_a_module_of_another_name_is_refused(monkeypatch):
    """An edit of that module would make nothing again: what a method is made from is looked for under its name."""

    class Mine(registry.METHODS["delete"]):
        name = "mine"

    monkeypatch.setitem(registry.METHODS, "mine", Mine)
    config = config_lib.load_config("configs/tiny.py")
    run = {"method": "mine", "fields": {}, "forget_pairs": 36, "where": "unlearn.methods.mine"}
    request = {"config": isolation._config_for_child(config), "runs": {"mine": run}}
    for module, refused in (
        ("salmu_jax.unlearning.methods.delete", True),
        ("salmu_jax.unlearning.methods.mine", False),
    ):
        monkeypatch.setattr(Mine, "__module__", module)
        if refused:
            with pytest.raises(
                InputError, match=rf"^unlearn.methods.mine: is in the module {module}; move it to methods/"
            ):
                child.describe(request)
        else:
            assert child.describe(request)["mine"]["options"]


def test_methods_are_named_without_their_code():
    assert isolation.method_names() == sorted(registry.METHODS)


# Models ------------------------------------------------------------------------------------------------------------------


def model(directory, **changes):
    records = leaf_records({"w": np.ones(3, np.float32)})
    manifest = {
        "schema": "salmu_jax.model/1",
        "name": "delete",
        "digest": tree_digest(records),
        "architecture": {"width": 3},
        "leaves": records,
        "steps": 7,
        "splits_read": ["what I say"],
        "parent": "whoever I say",
        "config": {"mine": 1},
    }
    (directory / "params").mkdir(parents=True)
    (directory / "params" / "array").write_text("weights")
    files.write_json(directory / "manifest.json", {**manifest, **changes})
    return directory


def adopt(workspace, tmp_path, **changes):
    parent = model(workspace.model("compromised"), name="compromised")
    cell = tmp_path / ".salmu-0123456789abcdef"
    made = model(cell / child.MODEL, **changes)
    facts = {"splits_read": ["salmu/forget"], "parent": "abc", "isolation": {"process": True}}
    return made, lambda: isolation._adopt(workspace, cell, "delete", parent, facts)


def test_a_models_manifest_is_written_by_this_side(workspace, tmp_path):
    _, take_over = adopt(workspace, tmp_path)
    take_over()
    manifest = json.loads((workspace.model("delete") / "manifest.json").read_text())
    assert manifest["splits_read"] == ["salmu/forget"]
    assert manifest["parent"] == "abc"
    assert manifest["steps"] == 7  # declared
    assert "config" not in manifest
    assert (workspace.model("delete") / "params" / "array").read_text() == "weights"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": "clean"}, "calls itself 'clean'"),
        ({"digest": "0" * 64}, "digest is not that of its leaves"),
        ({"architecture": {"width": 4}}, "architecture is not its parent's"),
        ({"leaves": {}}, "unlearn delete: left a model that cannot be taken over"),
        ({"schema": "mine"}, "not a model manifest"),
    ],
)
def test_a_model_that_does_not_fit_is_not_taken_over(workspace, tmp_path, changes, complaint):
    _, take_over = adopt(workspace, tmp_path, **changes)
    with pytest.raises(InputError, match=complaint):
        take_over()
    assert not workspace.model("delete").exists()


def test_a_model_with_links_is_not_taken_over(workspace, tmp_path):
    made, take_over = adopt(workspace, tmp_path)
    os.symlink(workspace.model("compromised") / "params" / "array", made / "params" / "more")
    with pytest.raises(InputError, match="model/params/more is neither a file nor a directory"):
        take_over()
