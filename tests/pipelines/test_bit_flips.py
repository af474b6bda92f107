"""Single flipped bits in every kind of data: refused or harmless, never read unnoticed. (The script flips more of them.)"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "acceptance" / "bit_flips.py"


@pytest.fixture(scope="module")
def bit_flips():
    spec = importlib.util.spec_from_file_location("bit_flips", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("flips")


@pytest.mark.parametrize("maker", ["world_kinds", "tar_kinds", "dataset_kinds"])
def test_no_flip_changes_what_is_read(bit_flips, root, maker):
    for kind in getattr(bit_flips, maker)(root):
        before = kind.path.read_bytes()
        ends = bit_flips.ends_of_flips(kind, 4, seed=3)
        assert ends["changed"] == 0, kind.name
        assert ends.total() == 4
        assert kind.path.read_bytes() == before


def test_the_script_sees_what_nobody_notices(bit_flips, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_bytes(b"nobody looks after this")
    assert bit_flips.ends_of_flips(bit_flips.Kind("notes", path, path.read_bytes), 5)["changed"] == 5
