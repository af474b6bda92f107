"""Fetching the released data, from a hub that is a folder: what is compared, what is resumed, what is said."""

from __future__ import annotations

import hashlib
import shutil
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.layout import fetch as fetch_lib
from data_pipelines.layout.fetch import REPOSITORIES, RemoteFile, Repository, fetch
from data_pipelines.layout.parquet import SCHEMA
from salmu_jax import cli
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError

SMALL = Repository("small", "nobody", "c" * 40, {"forget": 5, "retain_synth": 2})


def git_id(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Folder:
    """A hub that copies files; it breaks off after ``breaks`` of them, once."""

    def __init__(self, directory, breaks=None):
        self.directory, self.breaks, self.asked, self.copied = directory, breaks, [], []

    def files(self, repository, revision):
        self.asked.append((repository, revision))
        found = [path for path in sorted(self.directory.rglob("*")) if path.is_file()]
        return [
            RemoteFile(
                path.relative_to(self.directory).as_posix(),
                path.stat().st_size,
                files.sha256_file(path) if path.suffix == ".parquet" else git_id(path.read_bytes()),
            )
            for path in found
        ]

    def download(self, repository, revision, directory):
        for name in [one.path for one in self.files(repository, revision)]:
            if (directory / name).exists():
                continue
            if self.breaks is not None and len(self.copied) == self.breaks:
                self.breaks = None
                raise ConnectionError("the line is dead\nmore about it")
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.directory / name, directory / name)
            self.copied.append(name)


def write(path, rows, split):
    names = [f"{split}_{row}.jpg" for row in range(rows)]
    entries = [
        {"image": {"bytes": b"x", "path": name}, "text": "a", "identity_id": "1", "file_name": name} for name in names
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(entries, schema=SCHEMA), path)


@pytest.fixture
def hub(tmp_path):
    there = tmp_path / "hub"
    write(there / "data" / "forget-00000-of-00002.parquet", 3, "forget")
    write(there / "data" / "forget-00001-of-00002.parquet", 2, "forget-1")
    write(there / "data" / "retain_synth-00000-of-00001.parquet", 2, "retain_synth")
    (there / "identities_metadata.json").write_text("{}")
    return Folder(there)


def test_it_fetches_all_files_at_the_pinned_revision_and_says_what_it_found(hub, tmp_path):
    said = []
    folder = fetch(SMALL, tmp_path / "out", hub=hub, say=said.append)
    assert folder == tmp_path / "out" / "small"
    assert set(hub.asked) == {("nobody/small", "c" * 40)}
    assert len(hub.copied) == 4
    assert said[0].startswith("nobody/small at cccccccc: 4 files, ")
    assert said[1].endswith("rows: 5 forget, 2 retain_synth")


def test_a_broken_download_is_one_line_and_goes_on_where_it_was(hub, tmp_path):
    hub.breaks = 2
    with pytest.raises(InputError, match=r"nobody/small: the hub does not give it \(.*the line is dead\); what"):
        fetch(SMALL, tmp_path / "out", hub=hub, say=lambda line: None)
    said = []
    fetch(SMALL, tmp_path / "out", hub=hub, say=said.append)
    assert len(hub.copied) == len(set(hub.copied)) == 4
    fetch(SMALL, tmp_path / "out", hub=hub, say=said.append)
    assert said[2].endswith(", 0 of them to fetch")
    assert len(hub.copied) == 4


def test_everything_that_differs_is_named_at_once(hub, tmp_path):
    folder = fetch(SMALL, tmp_path / "out", hub=hub, say=lambda line: None)
    shard = folder / "data" / "forget-00000-of-00002.parquet"
    data = bytearray(shard.read_bytes())
    data[6] ^= 1
    shard.write_bytes(data)
    (folder / "identities_metadata.json").write_text("{ }")
    write(hub.directory / "data" / "retain_synth-00000-of-00001.parquet", 1, "retain_synth")
    shutil.copy(hub.directory / "data" / "retain_synth-00000-of-00001.parquet", folder / "data")
    with pytest.raises(InputError) as error:
        fetch(SMALL, tmp_path / "out", hub=hub, say=lambda line: None)
    lines = str(error.value)
    assert "3 problems" in lines
    assert "forget-00000-of-00002.parquet: has another digest than on the hub" in lines
    assert "identities_metadata.json: has 3 bytes, 2 on the hub" in lines
    assert "1 row of 'retain_synth', 2 published" in lines


def test_a_small_file_is_compared_by_its_git_id(hub, tmp_path):
    folder = fetch(SMALL, tmp_path / "out", hub=hub, say=lambda line: None)
    (folder / "identities_metadata.json").write_text("[]")
    with pytest.raises(InputError, match=r"identities_metadata\.json: has another digest"):
        fetch(SMALL, tmp_path / "out", hub=hub, say=lambda line: None)


def test_a_missing_split_and_a_full_disk_are_named(hub, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no file of the split 'holdout_identity'"):
        fetch(SMALL._replace(rows={"holdout_identity": 1}), tmp_path / "out", hub=hub, say=lambda line: None)
    monkeypatch.setattr(fetch_lib.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(InputError, match=r"0 bytes are free, .* are to be fetched"):
        fetch(SMALL, tmp_path / "elsewhere", hub=hub, say=lambda line: None)
    assert not (tmp_path / "elsewhere").exists()


def test_the_pinned_repositories_have_the_published_rows():
    evaluation, training = REPOSITORIES["evaluation"], REPOSITORIES["training"]
    assert evaluation.id == "cvc-mmu/salmubench-512-redistributed"
    assert training.id == "cvc-mmu/salmu-512-redistributed"
    assert sum(count for split, count in evaluation.rows.items() if split != "retain_synth") == 60_053
    assert training.rows["sensitive"] == 60_053
    assert {len(one.revision) for one in REPOSITORIES.values()} == {40}


def test_the_command_uses_huggingface_hub_and_says_if_it_is_not_there(tmp_path, monkeypatch, capsys):
    asked = []

    class Api:
        def dataset_info(self, repository, *, revision, files_metadata):
            asked.append((repository, revision))
            raise OSError("no network here")

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert cli.main(["fetch", "--output", str(tmp_path / "data")]) == 2
    assert asked == [("cvc-mmu/salmubench-512-redistributed", REPOSITORIES["evaluation"].revision)]
    line = capsys.readouterr().err.strip()
    assert line.startswith("salmu: cvc-mmu/salmubench-512-redistributed: the hub does not give it (")
    assert "no network here" in line
    assert "\n" not in line
    assert cli.main(["fetch", "--output", str(tmp_path), "--revision", "a" * 40]) == 2
    assert "name that with --repository" in capsys.readouterr().err
    assert cli.main(["fetch", "--output", str(tmp_path), "--repository", "training", "--revision", "main"]) == 2
    assert "'main' is no commit" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert cli.main(["fetch", "--output", str(tmp_path)]) == 2
    assert "huggingface_hub: is not installed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
