"""A process that withholds files cannot open them under any name, and can open everything else."""

from __future__ import annotations

import os
import subprocess
import sys

from salmu_jax.runtime.withheld import DIRECTORY

FILE = DIRECTORY / "unseen_wordings.json"
TRIES = """
import io, os, shutil, sys
from pathlib import Path
from salmu_jax.runtime import withheld
from salmu_jax.runtime.errors import InputError

withheld.withhold()
file, place = Path(sys.argv[1]), Path(sys.argv[2])
try:
    os.link(file, place / "hard")
except OSError:  # on another file system
    os.symlink(file, place / "hard")
os.symlink(file, place / "soft")
descriptor = os.open(file.parent, os.O_RDONLY)

def loader():
    from salmu_jax.evaluation.rewording import unseen_wordings
    return unseen_wordings()

for attempt in (
    loader,
    lambda: open(file),
    lambda: io.FileIO(file),
    lambda: file.read_bytes(),
    lambda: os.open(os.fsencode(file), os.O_RDONLY),
    lambda: os.open(file.name, os.O_RDONLY, dir_fd=descriptor),
    lambda: (place / "hard").read_text(),
    lambda: (place / "soft").read_text(),
    lambda: shutil.copyfile(file, place / "copy"),
):
    try:
        attempt()
    except InputError as error:
        assert "no method may read it" in str(error)
    else:
        sys.exit("it was read")
assert open(withheld.__file__).read()
assert os.open(".", os.O_RDONLY)
print("refused")
"""


def test_no_name_of_a_withheld_file_can_be_opened(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(DIRECTORY.parents[3])}
    ended = subprocess.run(
        [sys.executable, "-c", TRIES, str(FILE), str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert ended.stdout.strip() == "refused", ended.stderr


def test_here_it_can_be_read():
    assert FILE.read_text()
