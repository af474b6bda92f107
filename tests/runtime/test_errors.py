"""Every answer to bad input is one line that says where and what."""

import errno
import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salmu_jax.runtime.errors import InputError, describe_os_error, disk_refusal
from salmu_jax.runtime.text import safe_text


@given(st.text(), st.none() | st.text(min_size=1))
def test_an_input_error_is_one_line(message, where):
    line = str(InputError(message, where))
    assert len(line.splitlines()) <= 1
    assert line == safe_text(" ".join((message if where is None else f"{where}: {message}").split()), limit=None)


def test_an_input_error_names_the_place_first_and_survives_another_process(tmp_path):
    error = InputError("no column 'text';\n  add it", tmp_path / "a.parquet")
    assert str(error) == f"{tmp_path}/a.parquet: no column 'text'; add it"
    assert isinstance(error, ValueError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "no space left"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EACCES, "not writable"),
        (errno.EPERM, "not writable"),
        (errno.EROFS, "cannot be written (Read-only file system)"),
        (errno.ENOTDIR, "a directory is needed"),
        (errno.EISDIR, "is a directory, where a file is needed"),
        (errno.EEXIST, "choose another path"),
        (errno.ENOENT, "no such file"),
        (errno.EMFILE, "Too many open files at a time; raise the limit (ulimit -n)"),
        (errno.ELOOP, os.strerror(errno.ELOOP)),
    ],
)
def test_an_os_error_is_described_with_its_place(code, hint):
    error = OSError(code, os.strerror(code), "/data/world")
    assert describe_os_error(error).startswith("/data/world: ")
    assert hint in describe_os_error(error)
    assert describe_os_error(error, "/other").startswith("/other: ")
    assert "\n" not in describe_os_error(error)


def test_an_os_error_without_a_file_still_says_something():
    assert describe_os_error(OSError(errno.ENOSPC, "full")).startswith("the output directory: no space left")
    assert describe_os_error(OSError("odd")) == "the output directory: odd"


def test_a_full_shared_memory_is_not_blamed_on_the_disk(tmp_path):
    """Grain's and multiprocessing's ENOSPC has no file name, or one of shared memory."""

    def raise_in(file):
        scope = {}
        code = "import errno, os\ndef fail(): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))"
        exec(compile(code, f"/usr/lib/python3/{file}", "exec"), scope)
        with pytest.raises(OSError, match="No space") as caught:
            scope["fail"]()
        return caught.value

    errors = [raise_in(f"multiprocessing/{name}.py") for name in ("shared_memory", "synchronize", "heap")]
    errors += [raise_in("site-packages/grain/_src/python/shared_memory_array.py")]
    errors += [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name) for name in ("/psm_1a2b", "/dev/shm/x")]
    errors += [RuntimeError(f'File "multiprocessing/shared_memory.py", line 1: {os.strerror(errno.ENOSPC)}')]
    for error in errors:
        line = str(disk_refusal(error, tmp_path))
        assert line.startswith("/dev/shm: no space left in the memory that processes share; set data.workers=0")
        if isinstance(error, OSError):
            assert describe_os_error(error, tmp_path) == line
    assert "/dev/shm" not in str(disk_refusal(raise_in("tarfile.py"), tmp_path))


@pytest.mark.parametrize(
    "error",
    [
        OSError(
            "Not enough disk space. Needed: Unknown size (download: Unknown size, generated: Unknown size)"
        ),  # TFDS
        OSError("262144 requested and 4096 written"),  # numpy's tofile
        RuntimeError("database or disk is full"),  # SQLite
    ],
)
def test_a_full_disk_is_recognised_by_what_libraries_say_of_it(error, tmp_path):
    assert str(disk_refusal(error, tmp_path)).startswith(f"{tmp_path}: no space left on the disk")
