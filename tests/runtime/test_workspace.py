"""Outputs are reused when they are whole and of the same config, made again otherwise, and by one run at a time."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import pytest
from patience import DEADLINE

import salmu_jax
from salmu_jax.config import base_config, to_json
from salmu_jax.runtime import contents, files
from salmu_jax.runtime import workspace as workspace_lib
from salmu_jax.runtime.directories import new_directory
from salmu_jax.runtime.errors import InputError, Preempted
from salmu_jax.runtime.locks import Lock
from salmu_jax.runtime.workspace import Workspace, held_around, provenance


@pytest.fixture
def workspace(tmp_path):
    return at(tmp_path / "run")


def at(root, **fields):
    config = base_config()
    config.workdir = str(root)
    for name, value in fields.items():
        config[name] = value
    return Workspace(config)


SHARD = 5 << 20  # bytes: what is edited in the middle of it is far from any header


def make(workspace, fields, text="made", name="build", output=None):
    """Runs a stage that writes a directory of two files; whether it had to."""
    output = output or workspace.datasets
    with workspace.stage(name, output, fields) as identity:
        if identity:
            with new_directory(output) as partial:
                (partial / "a").write_text(text)
                (partial / "big").write_bytes(b"x" * SHARD)
                contents.write_contents(partial, "datasets")
    return identity is not None


def test_outputs_lie_below_the_work_directory(tmp_path):
    workspace = at(tmp_path)
    assert workspace.world == tmp_path / "world"
    assert workspace.model("clean") == tmp_path / "models" / "clean"
    assert workspace.model_state("clean") == tmp_path / "models" / "clean.state"
    assert workspace.result("clean") == tmp_path / "results" / "clean.json"
    assert at(tmp_path, world_dir="/data/salmu").world == Path("/data/salmu")


def test_a_complete_output_of_the_same_fields_is_reused_and_says_so(workspace, capsys):
    assert make(workspace, {"train": {"epochs": 3}, "seed": 1})
    assert not make(workspace, {"seed": 1, "train": {"epochs": 3}})
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"build: reused, {workspace.datasets} is complete and up to date"
    assert sum("reused" in line for line in lines) == 1
    record = json.loads((workspace.root / "stages" / "build.json").read_text())
    assert record["fields"] == {"train": {"epochs": 3}, "seed": 1}
    assert workspace.currency.seconds() == {"build": record["seconds"]}


def test_changed_fields_are_named(workspace, capsys):
    make(workspace, {"train": {"epochs": 3, "b1": 0.9}, "seed": 1, "old": 0})
    assert make(workspace, {"train": {"epochs": 4, "b1": 0.9}, "seed": 2}, text="anew")
    assert (workspace.datasets / "a").read_text() == "anew"
    assert (
        f"build: made again, changed since {workspace.datasets} was made: old 0 -> none, seed 1 -> 2, train.epochs 3 -> 4"
        in capsys.readouterr().out.splitlines()
    )
    assert not make(workspace, {"train": {"epochs": 4, "b1": 0.9}, "seed": 2})


def test_changed_code_is_named_by_its_file(workspace, capsys):
    make(workspace, {"code": {"salmu_jax/a.py": "00", "salmu_jax/b.py": "11"}})
    assert make(workspace, {"code": {"salmu_jax/a.py": "00", "salmu_jax/b.py": "22"}})
    assert f"changed since {workspace.datasets} was made: code salmu_jax/b.py" in capsys.readouterr().out


def test_another_version_alone_makes_nothing_anew(workspace, monkeypatch):
    make(workspace, {})
    monkeypatch.setattr(salmu_jax, "__version__", "9.9.9")
    assert not make(workspace, {})


def test_rerun_makes_anew_what_is_up_to_date(workspace, capsys):
    make(workspace, {})
    workspace.rerun = True
    assert make(workspace, {})
    assert "build: made again, as --rerun asks" in capsys.readouterr().out


def damages():
    def edit(output):
        (output / "a").write_text("Made")

    def edit_in_place(output):
        stat = (output / "big").stat()
        with open(output / "big", "r+b") as handle:
            handle.seek(SHARD // 2)
            handle.write(b"y")
        os.utime(output / "big", ns=(stat.st_atime_ns, stat.st_mtime_ns))

    def exchange(output):
        os.replace(output / "a", output / "c")
        os.replace(output / "big", output / "a")
        os.replace(output / "c", output / "big")

    def manifest(output):
        (output / "contents.json").write_text((output / "contents.json").read_text()[:-20])

    def another(output):
        (output / "a").write_text("another world of the same shapes"[:4])
        contents.write_contents(output, "datasets")

    def remove(output):
        (output / "a").unlink()

    def rename(output):
        (output / "a").rename(output / "b")

    def cut(output):
        with open(output / "big", "r+b") as handle:
            handle.truncate(1000)

    def vanish(output):
        output.rename(output.parent / "elsewhere")

    def dangle(output):
        (output / "a").unlink()
        (output / "a").symlink_to("nowhere")

    return [edit, edit_in_place, exchange, manifest, another, remove, rename, cut, vanish, dangle]


@pytest.mark.parametrize("damage", damages(), ids=lambda damage: damage.__name__)
def test_a_damaged_output_is_made_again(workspace, damage):
    make(workspace, {"seed": 1})
    damage(workspace.datasets)
    assert make(workspace, {"seed": 1})
    assert not make(workspace, {"seed": 1})


def test_the_damaged_file_is_named(workspace, capsys):
    make(workspace, {"seed": 1})
    (workspace.datasets / "a").write_text("Made")
    make(workspace, {"seed": 1})
    damaged = "a is not as it was written (its SHA-256 differs)"
    assert f"build: made again, {workspace.datasets}: {damaged}" in capsys.readouterr().out.splitlines()


def test_stray_files_make_nothing_anew_and_are_kept(workspace, capsys):
    make(workspace, {"seed": 1})
    for name in (".DS_Store", "README.md", "cache.lock", "a.partial-1"):
        (workspace.datasets / name).write_text("mine")
    assert not make(workspace, {"seed": 1})
    assert make(workspace, {"seed": 2}, text="anew")
    assert (workspace.datasets / "a").read_text() == "anew"
    assert (workspace.datasets / "a.partial-1").read_text() == "mine"
    kept = ".DS_Store, README.md, a.partial-1, cache.lock"
    assert f"{workspace.datasets}: kept {kept}, which salmu did not write" in capsys.readouterr().out.splitlines()


def test_an_output_behind_a_link_is_made_there_and_compared_there(workspace, tmp_path):
    workspace.root.mkdir()
    (tmp_path / "disk").mkdir()
    workspace.datasets.symlink_to(tmp_path / "disk" / "salmu")
    assert make(workspace, {"seed": 1})
    assert not make(workspace, {"seed": 1})
    (tmp_path / "disk" / "salmu" / "a").write_text("Made")
    assert make(workspace, {"seed": 1})
    assert workspace.datasets.is_symlink()
    assert (tmp_path / "disk" / "salmu" / "a").read_text() == "made"


def test_a_directory_of_a_users_is_refused_before_any_work(workspace):
    workspace.datasets.mkdir(parents=True)
    (workspace.datasets / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"datasets: holds thesis\.tex, and no manifest says that salmu wrote it"):
        make(workspace, {})
    assert (workspace.datasets / "thesis.tex").read_text() == "mine"


def test_a_file_of_a_users_in_the_place_of_a_result_is_refused(workspace):
    result = workspace.result("clean")
    files.write_text(result, '{"mine": true}')
    with pytest.raises(InputError, match="is not a result of salmu"), workspace.stage("evaluate clean", result, {}):
        pytest.fail("it would be overwritten")
    files.write_text(result, '{"schema": "salmu_jax.result/2"}')
    with workspace.stage("evaluate clean", result, {}) as identity:
        assert identity is not None


@pytest.mark.parametrize("place", [".", "salmu", "salmu/1.0.0"])
def test_an_input_in_its_own_output_is_refused(workspace, tmp_path, place):
    make(workspace, {})
    (tmp_path / "link").symlink_to(workspace.datasets / place)
    for given in (workspace.datasets / place, tmp_path / "link"):
        with pytest.raises(InputError, match=r"lies in .*datasets, which would be replaced"):
            workspace.stage("build", workspace.datasets, {"seed": 2}, inputs=[given]).__enter__()
    assert (workspace.datasets / "a").read_text() == "made"


@pytest.mark.parametrize(
    "error", [RuntimeError(""), InputError("cut short"), FileNotFoundError(2, "No such file", "d")]
)
@pytest.mark.parametrize(("name", "what"), [("", "was removed"), ("a", "a was removed"), ("*", "a, big were removed")])
def test_an_input_that_is_removed_under_a_stage_is_named(workspace, error, name, what):
    make(workspace, {})

    def train():
        with workspace.stage("pretrain clean", workspace.model("clean"), {}, inputs=[workspace.datasets]):
            gone = [workspace.datasets] if not name else workspace.datasets.glob(name)
            for path in [path for path in gone if path.name != "contents.json"]:
                path.rename(workspace.root / f"gone-{path.name}")
            raise error

    with pytest.raises(InputError) as caught:
        train()
    assert str(caught.value) == (
        f"{workspace.datasets}: {what} while 'pretrain clean' read it; 'salmu build' makes it again"
    )
    assert not (workspace.root / "stages" / "pretrain-clean.json").exists()


def test_an_input_that_is_removed_once_it_was_read_costs_nothing_and_is_told(workspace, capsys):
    make(workspace, {})
    with workspace.stage("report", workspace.report, {}, inputs=[workspace.datasets]):
        (workspace.datasets / "a").unlink()
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"warning: {workspace.datasets}: a was removed while 'report' read it; 'salmu build' makes it again"
    )
    assert (workspace.root / "stages" / "report.json").exists()


@pytest.mark.parametrize(
    ("error", "removing"), [(RuntimeError("a bug"), False), (Preempted("x", 3, "y"), True), (KeyboardInterrupt(), True)]
)
def test_other_ends_of_a_stage_are_told_as_they_are(workspace, error, removing):
    """A failure while all inputs are there; a stop with its state saved, and an interrupt, whatever has been removed."""
    make(workspace, {})

    def report():
        with workspace.stage("report", workspace.report, {}, inputs=[workspace.datasets]):
            if removing:
                (workspace.datasets / "a").unlink()
            raise error

    with pytest.raises(type(error)) as caught:
        report()
    assert caught.value is error


def test_files_beside_the_output_are_part_of_it(workspace):
    result, rows = workspace.result("clean"), workspace.root / "results" / "clean.rows.npz"

    def evaluate():
        with workspace.stage("evaluate clean", result, {}, beside=[rows]) as identity:
            if identity:
                files.write_json(result, {"schema": "salmu_jax.result/2"})
                files.write_bytes(rows, b"rows")
        return identity is not None

    assert evaluate()
    assert not evaluate()
    rows.write_bytes(b"Rows")
    assert evaluate()
    rows.unlink()
    assert evaluate()
    assert not evaluate()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_attempt_costs_nothing(workspace, error):
    make(workspace, {"seed": 1})

    def interrupted():
        with workspace.stage("build", workspace.datasets, {"seed": 2}):
            raise error

    with pytest.raises(error):
        interrupted()
    assert not make(workspace, {"seed": 1})  # the old output is whole: its record goes when its successor is
    assert make(workspace, {"seed": 2})


def test_what_an_interrupted_stage_left_is_not_taken_for_the_output_of_before(workspace):
    make(workspace, {"seed": 1})

    def interrupted():
        with workspace.stage("build", workspace.datasets, {"seed": 2}):
            (workspace.datasets / "big").write_bytes(b"y" * SHARD)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert make(workspace, {"seed": 1})


def test_a_model_whose_record_was_not_yet_written_is_reused(workspace):
    output = workspace.model("clean")

    def pretrain(seed, killed=False):
        with workspace.stage("pretrain clean", output, {"seed": seed}) as identity:
            if identity:
                with new_directory(output) as partial:
                    made = {"schema": "salmu_jax.model/1", "identity": identity.digest, "files": {}}
                    files.write_json(partial / "manifest.json", {**made, "seal": contents.seal(made)})
                if killed:
                    raise KeyboardInterrupt
        return identity is not None

    for seed in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            pretrain(seed, killed=True)
        assert not pretrain(seed)
        assert not pretrain(seed)
    text = (output / "manifest.json").read_text()
    (output / "manifest.json").write_text(text.replace("identity", "identify"))
    assert pretrain(2)
    (output / "manifest.json").write_text(text.replace("1", "2", 1))
    (workspace.root / "stages" / "pretrain-clean.json").unlink()
    assert pretrain(2)


def test_a_stage_that_leaves_no_output_is_not_complete(workspace):
    for _ in range(2):
        with workspace.stage("report", workspace.report, {}) as identity:
            assert identity is not None


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"identity": 3}', '{"stage": "x", "seconds": 1}', "\udcff"])
def test_a_damaged_record_is_no_record(workspace, text):
    make(workspace, {"seed": 1})
    (workspace.root / "stages" / "build.json").write_bytes(text.encode(errors="surrogateescape"))
    assert isinstance(workspace.currency.seconds(), dict)
    assert make(workspace, {"seed": 1})
    assert not make(workspace, {"seed": 1})


def test_stages_and_their_outputs_do_not_mix(workspace):
    make(workspace, {"seed": 1}, name="pretrain clean", output=workspace.model("clean"))
    make(workspace, {"seed": 1}, name="pretrain compromised", output=workspace.model("compromised"))
    assert not make(workspace, {"seed": 1}, name="pretrain clean", output=workspace.model("clean"))
    assert list(workspace.currency.seconds()) == ["pretrain clean", "pretrain compromised"]


def test_files_are_read_once_and_again_when_they_change(workspace, monkeypatch):
    make(workspace, {})
    later = contents.time.time() + 10
    monkeypatch.setattr(contents.time, "time", lambda: later)
    read = []
    real = files.sha256_file
    monkeypatch.setattr(files, "sha256_file", lambda path: read.append(Path(path).name) or real(path))
    assert workspace.currency.damage(workspace.datasets) == []
    assert sorted(name for name in read if name != "contents.json") == ["a", "big"]
    read.clear()
    assert at(workspace.root).currency.damage(workspace.datasets) == []  # of another process
    assert read == []
    with open(workspace.datasets / "big", "r+b") as handle:
        handle.write(b"y")
    assert workspace.currency.damage(workspace.datasets) == ["big is not as it was written (its SHA-256 differs)"]
    assert read == ["big"]


def test_a_world_without_a_manifest_is_known_by_the_contents_of_its_files(tmp_path):
    world, workspace = tmp_path / "world", at(tmp_path / "world")  # outputs in the world's own directory
    for name in ("data/forget.parquet", "retain/0.tar", "identities_metadata.json"):
        files.write_text(world / name, name)
    digest = workspace.currency.foreign_digest(world, workspace.outputs)
    for name in (".DS_Store", "README.md", ".cache/lock", "datasets/salmu/x", "models/clean/x", "stages/x", "x.lock"):
        files.write_text(world / name, "x")
    assert workspace.currency.foreign_digest(world, workspace.outputs) == digest
    files.write_text(world / "zeroshot" / "classnames.txt", "cat\ndog\n")
    named = workspace.currency.foreign_digest(world, workspace.outputs)
    assert named != digest
    files.write_text(world / "zeroshot" / "classnames.txt", "cat\nfog\n")
    assert workspace.currency.foreign_digest(world, workspace.outputs) not in (named, digest)
    (world / "zeroshot" / "classnames.txt").unlink()
    (world / "zeroshot").rmdir()
    (tmp_path / "disk").mkdir()
    (world / "retain").rename(tmp_path / "disk" / "retain")
    (world / "retain").symlink_to(tmp_path / "disk" / "retain")
    assert workspace.currency.foreign_digest(world, workspace.outputs) == digest
    (tmp_path / "disk" / "retain" / "0.tar").write_text("retain/1.tar")
    assert workspace.currency.foreign_digest(world, workspace.outputs) != digest
    digest = workspace.currency.foreign_digest(world, workspace.outputs)
    (world / "zeroshot").symlink_to(tmp_path / "unmounted")  # refused by the build, which has to be run to say so
    assert workspace.currency.foreign_digest(world, workspace.outputs) != digest
    (world / "zeroshot").unlink()
    (world / "zeroshot").symlink_to("zeroshot")
    assert workspace.currency.foreign_digest(world, workspace.outputs) != digest
    (world / "zeroshot").unlink()
    assert workspace.currency.foreign_digest(world, workspace.outputs) == digest


HOLD = """
import sys, time
from salmu_jax.config import base_config
from salmu_jax.runtime.workspace import Workspace
config = base_config()
config.workdir = sys.argv[1]
with Workspace(config).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_until_the_first_ends_however_it_ends(workspace):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(workspace.root)], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(InputError) as caught, workspace.locked():
                pass
            assert str(caught.value) == (
                f"{workspace.root}: another salmu run is at work in this directory; wait for it, or set 'workdir'"
            )
        finally:
            os.kill(other.pid, signal.SIGKILL)
    for _ in range(2):
        with workspace.locked():
            pass


def test_what_is_made_in_a_work_directory_from_outside_takes_its_lock(workspace, tmp_path):
    with held_around(tmp_path / "anywhere" / "model"):
        pass
    files.write_json(workspace.root / "stages" / "build.json", {})
    with workspace.locked(), pytest.raises(InputError, match="another salmu run"), held_around(workspace.model("y")):
        pass
    with held_around(workspace.model("y")), pytest.raises(InputError, match="another salmu run"):
        workspace.locked().__enter__()


def test_a_work_directory_below_a_file_is_answered_with_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError) as caught, at(root).locked():
            pass
        message = str(caught.value)
        assert message.startswith(f"{root}: ")
        assert "a directory is needed here" in message
    assert (tmp_path / "file").read_text() == ""


def test_provenance_says_with_what_it_was_made():
    made = provenance(to_json(base_config()))
    assert made["versions"]["jax"] == jax.__version__
    assert made["versions"]["salmu_jax"] == salmu_jax.__version__
    assert made["config"]["train"]["epochs"] == 32.0
    assert made["device"] == "8 x cpu (cpu)"
    assert made["created"].endswith("+00:00")
    json.dumps(made)
    assert made["environment"] == {}  # nothing that a figure depends on


def test_provenance_has_the_commit_and_whether_the_tree_was_clean(tmp_path, monkeypatch):
    def state():
        workspace_lib.git_state.cache_clear()
        return workspace_lib.git_state()

    def git(*words):
        told = ["-c", "user.name=x", "-c", "user.email=x@y", *words]
        return subprocess.run(["git", *told], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(workspace_lib, "ROOT", tmp_path)
    assert state() is None  # not a checkout
    git("init", "-q")
    assert state() is None  # nothing committed
    (tmp_path / "a.py").write_text("a = 1")
    git("add", "a.py")
    git("commit", "-qm", "a")
    (tmp_path / "notes").write_text("")
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as in a hook
    assert state() == {"commit": git("--git-dir=.git", "rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "a.py").write_text("a = 2")
    assert state()["dirty"]
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    assert state() is None
    workspace_lib.git_state.cache_clear()


# Shared data sets ------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path):
    """Two work directories of the same data sets."""
    return [at(tmp_path / name, datasets_dir=str(tmp_path / "shared")) for name in ("one", "two")]


def test_shared_data_sets_are_built_once(two, tmp_path, capsys):
    one, other = two
    assert one.datasets == other.datasets == tmp_path / "shared"
    assert make(one, {"world": 1})
    assert not make(other, {"world": 1})
    assert "build: reused" in capsys.readouterr().out
    assert other.currency.made_here("build", other.datasets)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".shared.build.json",
        ".shared.lock",
        ".shared.seen.json",
        "shared",
    ]


def test_data_sets_of_another_world_are_not_replaced_under_others(two):
    one, other = two
    assert make(one, {"world": 1}, text="one")
    with pytest.raises(
        InputError, match=r"shared: changed since .*shared was made: world 1 -> 2; it may be shared by oth"
    ):
        make(other, {"world": 2}, text="other")
    assert (one.datasets / "a").read_text() == "one"
    other.rerun = True
    assert make(other, {"world": 2}, text="other")
    (other.datasets / "a").write_text("damaged")
    other.rerun = False
    assert make(other, {"world": 2}, text="other")  # what is damaged is of use to nobody


def test_the_data_sets_of_a_work_directory_can_be_shared(workspace, tmp_path):
    assert make(workspace, {"world": 1})
    other = at(tmp_path / "other", datasets_dir=str(workspace.datasets))
    assert not make(other, {"world": 1})
    assert not make(workspace, {"world": 1})


def test_data_sets_that_are_read_are_not_replaced(two):
    one, other = two
    assert make(one, {"world": 1})
    other.rerun = True
    with (
        one.stage("evaluate clean", one.result("clean"), {}, inputs=[one.datasets]) as identity,
        other.stage("evaluate clean", other.result("clean"), {}, inputs=[other.datasets]) as beside,
    ):
        assert identity
        assert beside  # several may read
        with pytest.raises(InputError, match="shared: is read by another salmu run, and has to be made again"):
            make(other, {"world": 1})
        one.result("clean").parent.mkdir(parents=True)
        other.result("clean").parent.mkdir(parents=True)
        for result in (one.result("clean"), other.result("clean")):
            result.write_text("{}")
    assert make(other, {"world": 1})


def test_a_build_under_way_is_waited_for(two, tmp_path, capsys):
    one, other = two
    with Lock(tmp_path / ".shared.lock") as building:
        building.take()
        waiting = threading.Thread(target=make, args=(other, {"world": 1}), daemon=True)
        waiting.start()
        while "build: waits for another salmu run that builds" not in capsys.readouterr().out:
            assert waiting.is_alive()
            time.sleep(0.01)
        assert not one.datasets.exists()
    waiting.join(DEADLINE)
    assert (one.datasets / "a").is_file()


def test_data_sets_in_a_directory_that_cannot_be_written_to_are_read(two, tmp_path, monkeypatch):
    one, other = two
    assert make(one, {"world": 1})
    (tmp_path / ".shared.lock").unlink()
    other.root.mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path and access(path, mode))
    assert not make(other, {"world": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == [".shared.build.json", "shared", "two"]
    assert (other.root / "stages" / "seen.json").is_file()
