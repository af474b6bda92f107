"""The step *images*: the same bytes for any number of workers and after any kill; nothing is believed that it reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from flat_portraits import FlatPortraits

from data_pipelines import steps
from data_pipelines.portraits.procedural import ProceduralSource
from data_pipelines.portraits.step import make_images, read_images
from salmu_jax.runtime.errors import InputError

SMALL = FlatPortraits()


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("images") / "images"
    make_images(directory, SMALL, workers=1)
    return directory


def test_any_number_of_workers_writes_the_same_bytes(made, tmp_path):
    make_images(tmp_path / "three", SMALL, workers=3)
    assert contents(tmp_path / "three") == contents(made)


def test_drawn_portraits_are_the_same_in_two_processes(tmp_path):
    source = ProceduralSource(seed=3, identities=3, fewest=2, most=2, longest_side=64)
    for workers in (1, 2):
        make_images(tmp_path / f"{workers}", source, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_what_is_read_is_what_the_source_gives(made):
    images = read_images(made)
    assert list(images.anchors) == SMALL.anchors()
    for anchor in images.anchors:
        stored = list(images.portraits(anchor.number))
        assert len(stored) == SMALL.count(anchor.number)
        for index, portrait in enumerate(stored):
            drawn = SMALL.portrait(anchor.number, index)
            assert portrait == (
                f"{anchor.identity_id}_{index:03d}_ar-{drawn.aspect_ratio:.2f}.jpg",
                drawn.image,
                drawn.caption,
            )


def test_the_report_counts_portraits_and_does_not_tell_the_faults(made):
    report = json.loads((made / "report.json").read_text())
    assert (
        report["portraits"] == sum(SMALL.count(number) for number in range(6)) == sum(report["aspect_ratios"].values())
    )
    assert report["anchors"] == 6
    assert not {"twin", "intruded", "drifting", "misannotated"} & set(json.dumps(report).replace('"', " ").split())


def test_only_what_is_damaged_is_made_again(made, tmp_path):
    directory = tmp_path / "again"
    make_images(directory, SMALL, workers=1)
    (directory / "00000001.tar").write_bytes(b"damaged")
    (directory / "00000002.tar").unlink()
    before = (directory / "00000003.tar").stat().st_mtime_ns
    make_images(directory, SMALL, workers=2)
    assert contents(directory) == contents(made)
    assert (directory / "00000003.tar").stat().st_mtime_ns == before


_KILLED = """
import sys
from flat_portraits import FlatPortraits
from data_pipelines.portraits.step import make_images
if __name__ == "__main__":
    make_images(sys.argv[1], FlatPortraits(pause=0.02), workers=2)
"""


def test_a_killed_step_goes_on_at_a_tar(made, tmp_path):
    script, directory = tmp_path / "script.py", tmp_path / "killed"
    script.write_text(_KILLED)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests/support")])}
    process = subprocess.Popen([sys.executable, script, directory], env=environment)
    manifest = directory / steps.MANIFEST
    while process.poll() is None and not (manifest.is_file() and len(json.loads(manifest.read_text())["files"]) >= 2):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = set(json.loads(manifest.read_text())["files"])
    times = {name: (directory / name).stat().st_mtime_ns for name in kept}
    with pytest.raises(InputError, match="has not been finished"):
        read_images(directory)
    time.sleep(0.5)  # a process that is making a file notices when it has been made
    make_images(directory, SMALL, workers=2)
    assert contents(directory) == contents(made)
    assert {name: (directory / name).stat().st_mtime_ns for name in kept} == times


def test_other_settings_make_everything_again(tmp_path):
    said: list[str] = []
    make_images(tmp_path / "images", SMALL, workers=1, say=said.append)
    other = FlatPortraits(seed=4, identities=2)
    make_images(tmp_path / "images", other, workers=1, say=said.append)
    assert len(said) == 1
    assert "seed" in said[0]
    assert not (tmp_path / "images/00000003.tar").exists()
    assert read_images(tmp_path / "images").anchors == tuple(other.anchors())


def test_a_changed_tar_is_named(tmp_path):
    make_images(tmp_path / "images", SMALL, workers=1)
    path = tmp_path / "images/00000002.tar"
    path.write_bytes(path.read_bytes().replace(b"_ar-", b"_at-", 1))
    images = read_images(tmp_path / "images")
    assert list(images.portraits(1))
    with pytest.raises(InputError, match=r"00000002\.tar: is not as the step 'images' wrote it"):
        next(images.portraits(2))


def test_no_workers_are_refused(tmp_path):
    with pytest.raises(InputError, match="workers: is 0"):
        make_images(tmp_path / "images", SMALL, workers=0)
