"""Outputs are whole or absent, whatever happens while they are written; digests see every change."""

import errno
import hashlib
import json
import os
import socket
import stat
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salmu_jax.runtime import contents, directories, files
from salmu_jax.runtime.errors import InputError, describe_os_error

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def make(path, name, text="", **options):
    """Makes a directory of ours that holds one file."""
    with directories.new_directory(path, **options) as partial:
        files.write_text(partial / name, text or name)
        contents.write_contents(partial, "test")


def test_write_bytes_makes_parents_and_replaces(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    files.write_bytes(path, b"old, and longer")
    files.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    files.write_bytes(path, b"old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(OSError, match="No space"):
        files.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_failing_write_names_the_file_and_not_its_temporary_name(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        files.write_bytes(tmp_path / "file", b"new")
    assert describe_os_error(caught.value) == f"{tmp_path}/file: is a directory, where a file is needed; move it away"
    with pytest.raises(OSError, match="too long") as caught:
        files.write_bytes(tmp_path / ("x" * 250), b"new")
    assert str(caught.value).endswith("x'")


def test_a_file_is_flushed_to_the_disk_before_it_is_renamed(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(files.os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1])
    files.write_text(tmp_path / "file", "ä")
    assert calls == ["fsync", "replace", "fsync"]  # the name too, or a power cut takes the file with it
    assert (tmp_path / "file").read_bytes() == "ä".encode()


def test_a_file_over_the_size_limit_is_an_os_error_and_leaves_nothing(tmp_path):
    program = f"""
        import errno, pathlib, resource, signal
        from salmu_jax.runtime import directories, files
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        root = pathlib.Path({str(tmp_path)!r})
        files.write_bytes(root / "small", b"x" * 1000)
        for write in (lambda: files.write_bytes(root / "big", b"x" * 2000), lambda: directory(root / "tree")):
            def directory(path):
                with directories.new_directory(path) as partial:
                    (partial / "big").write_bytes(b"x" * 2000)
            try:
                write()
            except OSError as error:
                print(errno.errorcode[error.errno])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["EFBIG", "EFBIG"]
    assert names(tmp_path) == ["small"]


@settings(deadline=None)
@given(value=JSON)
def test_json_comes_back(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value.json"
    files.write_json(path, value)
    assert files.read_json(path) == value
    assert json.loads(path.read_text(encoding="utf-8")) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [object()]}])
def test_what_json_cannot_say_is_refused_and_leaves_the_old_file(tmp_path, value):
    files.write_json(tmp_path / "f.json", 1)
    with pytest.raises((ValueError, TypeError)):
        files.write_json(tmp_path / "f.json", value)
    assert files.read_json(tmp_path / "f.json") == 1
    assert names(tmp_path) == ["f.json"]


def test_bad_json_is_named_with_its_position(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1,\n "b" 2}')
    with pytest.raises(InputError) as caught:
        files.read_json(path)
    assert str(caught.value) == f"{path}: not JSON: Expecting ':' delimiter at line 2 column 6"
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(InputError, match=r"a\.json: not UTF-8 text \(invalid start byte at byte 7\)"):
        files.read_json(path)


def test_new_directory_appears_whole_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "parent" / "out"
    for word in ("first", "second"):
        with directories.new_directory(path) as partial:
            assert not any(partial.iterdir())
            (partial / word).mkdir()
            (partial / word / "file").write_text(word)
            contents.write_contents(partial, "test")
            assert not (path / word).exists()
        assert names(path) == ["contents.json", word]
    assert names(path.parent) == ["out"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("existing", [True, False])
def test_an_exception_while_filling_leaves_what_was_there(tmp_path, error, existing):
    path = tmp_path / "out"
    if existing:
        make(path, "old")

    def fill():
        with directories.new_directory(path) as partial:
            (partial / "new").write_text("new")
            raise error

    with pytest.raises(error):
        fill()
    assert names(tmp_path) == (["out"] if existing else [])
    assert not existing or names(path) == ["contents.json", "old"]


def test_a_failing_rename_puts_the_old_directory_back(tmp_path, monkeypatch):
    path = tmp_path / "out"
    make(path, "old")
    real, calls = os.replace, []

    def fail_once_at_the_second(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(files.os, "replace", fail_once_at_the_second)
    with pytest.raises(OSError, match="Input/output"), directories.new_directory(path) as partial:
        (partial / "new").write_text("new")
    assert names(tmp_path) == ["out"]
    assert names(path) == ["contents.json", "old"]


def test_a_file_in_the_place_of_a_directory_is_refused_and_kept(tmp_path):
    (tmp_path / "out").write_text("somebody's")
    with pytest.raises(NotADirectoryError), directories.new_directory(tmp_path / "out"):
        pass
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out").read_text() == "somebody's"


# What is a user's ----------------------------------------------------------------------------------------------------


def test_a_directory_of_a_users_is_refused_and_kept(tmp_path):
    path = tmp_path / "models"
    path.mkdir()
    for name in ("thesis.tex", "a.jpg", "b.jpg", "manifest.json"):
        (path / name).write_text("{}")
    with pytest.raises(InputError) as caught:
        make(path, "new")
    assert str(caught.value) == (
        f"{path}: holds a.jpg, b.jpg, manifest.json, and 1 more, and no manifest says that salmu wrote it, so it is not"
        " replaced; move it away, or choose another directory"
    )
    assert names(path) == ["a.jpg", "b.jpg", "manifest.json", "thesis.tex"]
    assert names(tmp_path) == ["models"]


def test_a_users_files_in_a_directory_of_ours_go_into_the_new_one(tmp_path):
    path, said = tmp_path / "clean", []
    make(path, "old")
    (path / "notes").mkdir()
    (path / "notes" / "monday.txt").write_text("mine")
    (path / ".DS_Store").write_text("")
    (path / "new").write_text("also mine")
    (path / "link").symlink_to(tmp_path)
    make(path, "new", say=said.append)
    assert (path / "notes" / "monday.txt").read_text() == "mine"
    assert (path / "new").read_text() == "new"
    assert (path / "new.kept").read_text() == "also mine"
    assert (path / "link").is_symlink()
    assert names(path) == [".DS_Store", "contents.json", "link", "new", "new.kept", "notes"]
    assert said == [f"{path}: kept .DS_Store, link, new, notes/monday.txt, which salmu did not write"]
    assert names(tmp_path) == ["clean"]


def test_a_directory_that_holds_a_desktops_files_alone_is_empty(tmp_path):
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / ".DS_Store").write_text("x")
    make(tmp_path / "world", "new", say=lambda line: None)
    assert names(tmp_path / "world") == [".DS_Store", "contents.json", "new"]


def test_without_a_readable_manifest_the_old_directory_is_kept_aside(tmp_path):
    path, said = tmp_path / "out", []
    for number in (1, 2):
        make(path, "old")
        text = (path / "contents.json").read_text()
        (path / "contents.json").write_text(text.replace("{", "(", 1))
        make(path, "new", say=said.append)
        assert names(tmp_path / f"out.old-{number}") == ["contents.json", "old"]
        assert names(path) == ["contents.json", "new"]
        assert str(tmp_path / f"out.old-{number}") in said.pop()


def test_a_directory_behind_a_link_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "disk").mkdir()
    path, target = tmp_path / "datasets", tmp_path / "disk" / "salmu"
    path.symlink_to(target)
    for name in ("first", "second"):
        make(path, name)
        assert path.is_symlink()
        assert names(target) == ["contents.json", name]
        assert names(tmp_path / "disk") == ["salmu"]
    (target / "contents.json").unlink()
    with pytest.raises(InputError, match="holds second, and no manifest"):
        make(path, "third")
    path.unlink()
    path.symlink_to(tmp_path / "unmounted" / "salmu")
    with pytest.raises(InputError) as caught:
        make(path, "third")
    assert str(caught.value) == (
        f"{path}: is a link to {tmp_path}/unmounted/salmu, which is not there; is its disk mounted?"
    )


def test_a_mount_point_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os.path, "ismount", lambda path: path == tmp_path / "datasets")
    (tmp_path / "datasets").mkdir()
    with pytest.raises(InputError, match=r"is a mount point, .*make it a link"):
        make(tmp_path / "datasets", "new")


# Leftovers -----------------------------------------------------------------------------------------------------------

ENDED = 2**22 + 1  # above the highest process number that Linux gives


def test_leftovers_of_killed_runs_are_removed_and_nothing_else(tmp_path):
    path = tmp_path / "out[1]"
    path.mkdir()
    (files.partial_path(path, pid=ENDED) / "deep").mkdir(parents=True)
    files.partial_path(path).write_text("")  # of an earlier process that had our number
    files.partial_path(path, old=True, pid=ENDED).mkdir()
    kept = [
        files.partial_path(tmp_path / "out1", pid=ENDED),  # of another output
        files.partial_path(path, pid=os.getppid()),  # of a process that runs
        tmp_path / "out[1].partial-77",  # a user's names
        tmp_path / "out[1].partial-old-77",
        tmp_path / "out[1].partial-77-0123abcd",
        tmp_path / "out[1].partial-old",
    ]
    for other in kept:
        other.mkdir()
    files.remove_partials(path)
    assert names(tmp_path) == sorted(["out[1]", *(other.name for other in kept)])
    files.partial_path(path, pid=ENDED).mkdir()
    with directories.new_directory(path):
        assert not files.partial_path(path, pid=ENDED).exists()


def test_leftovers_behind_a_link_are_removed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "datasets").symlink_to(tmp_path / "disk" / "salmu")
    files.partial_path(tmp_path / "disk" / "salmu", pid=ENDED).mkdir()
    files.remove_partials(tmp_path / "datasets")
    assert names(tmp_path / "disk") == []


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "out"
    make(path, "old")
    (path / "mine.txt").write_text("mine")

    class Killed(BaseException):
        pass

    real = os.replace

    def kill_after_the_first(source, target):
        real(source, target)
        if "partial-old" in str(target):
            monkeypatch.setattr(files.shutil, "rmtree", lambda *_, **__: None)
            raise Killed

    monkeypatch.setattr(files.os, "replace", kill_after_the_first)
    with pytest.raises(Killed):
        make(path, "new")
    monkeypatch.undo()
    assert not path.exists()
    files.remove_partials(path)
    assert names(tmp_path) == ["out"]
    assert names(path) == ["contents.json", "mine.txt", "old"]


def test_sha256_of_a_file_is_the_standard_one(tmp_path):
    data = os.urandom(300_000)
    files.write_bytes(tmp_path / "f", data)
    assert files.sha256_file(tmp_path / "f") == hashlib.sha256(data).hexdigest()


def test_sha256_of_json_is_of_the_canonical_form():
    assert files.sha256_json({"b": [1, 2.5], "a": "ü"}) == hashlib.sha256('{"a":"ü","b":[1,2.5]}'.encode()).hexdigest()
    assert files.sha256_json({"a": 1, "b": 2}) == files.sha256_json({"b": 2, "a": 1})
    assert files.sha256_json([1, 2]) != files.sha256_json([2, 1])
    with pytest.raises(ValueError, match="Out of range"):
        files.sha256_json(float("nan"))


def test_names_that_are_no_utf8_are_written_and_digested(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    files.write_json(tmp_path / "value.json", {name: name})
    assert json.loads((tmp_path / "value.json").read_text()) == {name: name}
    assert (tmp_path / "value.json").read_text(encoding="utf-8").isascii()
    assert files.sha256_json(name) != files.sha256_json("café")


def test_links_pipes_and_sockets_of_a_users_stay_as_they_are(tmp_path):
    directory = tmp_path / "datasets"
    make(directory, "a")
    (directory / "nowhere").symlink_to("gone")
    os.mkfifo(directory / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "s"))
    make(directory, "b")
    assert os.readlink(directory / "nowhere") == "gone"
    assert stat.S_ISFIFO(os.lstat(directory / "pipe").st_mode)
    assert stat.S_ISSOCK(os.lstat(directory / "s").st_mode)
