"""A view holds what a method may read, and nothing that leads to the rest."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from salmu_jax import foundation
from salmu_jax.runtime import contents, files
from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning import view

ROWS = {"forget": [3, 2], "holdout_association": [4], "holdout_identity": [2], "retain_synth": [5]}


def shard(name: str, split: str, index: int, count: int) -> str:
    return f"{name}-{split}.array_record-{index:05d}-of-{count:05d}"


def write_dataset(datasets, name, splits):
    directory = datasets / name / "1.0.0"
    directory.mkdir(parents=True)
    info = {"name": name, "splits": [{"name": s, "shardLengths": [str(n) for n in ns]} for s, ns in splits.items()]}
    (directory / "dataset_info.json").write_text(json.dumps(info))
    (directory / "features.json").write_text("{}")
    for split, lengths in splits.items():
        for index in range(len(lengths)):
            (directory / shard(name, split, index, len(lengths))).write_text(f"{name} {split} {index}")


@pytest.fixture
def workdir(tmp_path):
    """A work directory with built data and the foundation models, as far as a view looks at them."""
    root = tmp_path / "work"
    write_dataset(root / "datasets", "salmu", ROWS)
    write_dataset(root / "datasets", "retain_pairs", {"train": [7]})
    write_dataset(root / "datasets", "zeroshot", {"test": [7]})
    contents.write_contents(root / "datasets", "datasets")
    for name in foundation.NAMES:
        model = root / "models" / name
        (model / "params" / "d").mkdir(parents=True)
        (model / "params" / "d" / "array").write_text(name)
        manifest = {"schema": "salmu_jax.model/1", "digest": "abc", "architecture": {"width": 1}, "leaves": {}}
        told = {"name": name, "config": {"workdir": str(root)}, "command": f"salmu pretrain --workdir {root}"}
        files.write_json(model / "manifest.json", {**manifest, **told})
    return root


def build(workdir, tmp_path, *splits):
    directory = tmp_path / "view"
    directory.mkdir()
    made = view.build_view(directory, workdir / "datasets", splits, workdir / "models" / "compromised")
    return directory, made


def everything(directory):
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def test_it_holds_the_permitted_splits_and_the_parent_and_nothing_else(workdir, tmp_path):
    directory, made = build(workdir, tmp_path, "salmu/forget", "salmu/retain_synth", "retain_pairs/train")
    salmu, pairs = "datasets/salmu/1.0.0", "datasets/retain_pairs/1.0.0"
    assert everything(directory) == sorted(
        [
            "contents.json",
            "parent/manifest.json",
            "parent/params/d/array",
            *(f"{place}/{name}" for place in (salmu, pairs) for name in ("dataset_info.json", "features.json")),
            f"{salmu}/{shard('salmu', 'forget', 0, 2)}",
            f"{salmu}/{shard('salmu', 'forget', 1, 2)}",
            f"{salmu}/{shard('salmu', 'retain_synth', 0, 1)}",
            f"{pairs}/{shard('retain_pairs', 'train', 0, 1)}",
        ]
    )
    info = json.loads((directory / salmu / "dataset_info.json").read_text())
    assert [split["name"] for split in info["splits"]] == ["forget", "retain_synth"]
    assert view.read_splits(directory) == ["salmu/forget", "salmu/retain_synth", "retain_pairs/train"]
    assert contents.problems(directory, made) == []
    assert contents.read_contents(directory)["files"] == made["files"]


def test_nothing_in_it_leads_back(workdir, tmp_path):
    directory, _ = build(workdir, tmp_path, "salmu/forget")
    assert not [path for path in directory.rglob("*") if path.is_symlink()]
    assert not [name for name in everything(directory) if str(workdir) in (directory / name).read_text()]
    assert view.read_splits(directory) == ["salmu/forget"]


def test_equal_data_and_permissions_give_equal_digests(workdir, tmp_path):
    digests = []
    for name, splits in (
        ("a", ["salmu/forget"]),
        ("b", ["salmu/forget"]),
        ("c", ["salmu/forget", "salmu/retain_synth"]),
    ):
        (tmp_path / name).mkdir()
        digests.append(contents.contents_digest(build(workdir, tmp_path / name, *splits)[1]))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    "split", ["salmu/holdout_identity", "salmu/holdout_association", "salmu/sensitive", "zeroshot/test", "salmu/../x"]
)
def test_nothing_else_is_permitted_whoever_asks(workdir, tmp_path, split):
    with pytest.raises(InputError, match=f"no method may read {split}"):
        build(workdir, tmp_path, "salmu/forget", split)
    assert everything(tmp_path / "view") == []


@pytest.mark.parametrize("change", ["edited", "cut", "missing", "swapped"])
def test_data_that_are_not_as_they_were_written_are_named(workdir, tmp_path, change):
    directory = workdir / "datasets" / "salmu" / "1.0.0"
    path = directory / shard("salmu", "forget", 1, 2)
    if change == "edited":
        path.write_text(path.read_text().upper())
    elif change == "cut":
        path.write_text("")
    elif change == "missing":
        path.unlink()
    else:  # a holdout under forget's name
        shutil.copy(directory / shard("salmu", "holdout_identity", 0, 1), path)
    with pytest.raises(InputError, match="forget"):
        build(workdir, tmp_path, "salmu/forget")


def test_links_in_the_work_directory_are_followed_and_large_files_share_their_space(workdir, tmp_path, monkeypatch):
    monkeypatch.setattr(view, "_LINKED_FROM", 14)  # bytes: shards of forget, but no parameters
    (workdir / "datasets").rename(tmp_path / "disk")
    (workdir / "datasets").symlink_to(tmp_path / "disk")
    directory, _ = build(workdir, tmp_path, "salmu/forget")
    name = f"salmu/1.0.0/{shard('salmu', 'forget', 0, 2)}"
    placed = directory / "datasets" / name
    assert placed.samefile(tmp_path / "disk" / name)
    assert not placed.is_symlink()
    assert not (directory / "parent/params/d/array").samefile(workdir / "models/compromised/params/d/array")


def test_where_nothing_can_be_linked_files_are_copied(workdir, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, os.strerror(18))

    monkeypatch.setattr(view, "_LINKED_FROM", 0)
    monkeypatch.setattr(os, "link", refuse)
    directory, made = build(workdir, tmp_path, "salmu/forget")
    assert contents.problems(directory, made) == []
    name = f"salmu/1.0.0/{shard('salmu', 'forget', 0, 2)}"
    assert not (directory / "datasets" / name).samefile(workdir / "datasets" / name)


def test_rows_are_counted_without_opening_them(workdir):
    assert view.count_rows(workdir / "datasets", "salmu/forget") == 5
    with pytest.raises(InputError, match="no split 'nothing'; it has forget, holdout"):
        view.count_rows(workdir / "datasets", "salmu/nothing")
