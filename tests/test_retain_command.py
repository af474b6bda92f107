"""``salmu data retain`` as a command, and ``retain_dir`` of a config, which makes ``salmu build`` link what it has built."""

from __future__ import annotations

import json

import pytest
from good_world import GoodWorld
from web_pairs import PLANTED, QUARANTINED, picture, quarantine_of, tree, write_source

from data_pipelines.builders import open_source
from data_pipelines.layout import write_tar
from data_pipelines.retain import Rules, build_retain_pairs
from data_pipelines.retain.link import retain_digest
from salmu_jax.cli import main

ONE = ("--workers", "1")


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "web", PLANTED)


def test_it_builds_and_says_what_became_of_the_samples(source, tmp_path, capsys):
    out = tmp_path / "new" / "retain"
    assert main(["data", "retain", str(source), "--output", str(out), "--max-bad-share", "0.5", *ONE]) == 0
    said, progress = capsys.readouterr()
    assert said.splitlines() == [
        f"{out}: 24 pairs of 4 parts, 0 filtered, 14 quarantined, 0 damaged parts, 0 files of no sample passed over",
        f"The quarantine: {out}/retain_pairs/1.0.0/quarantine.jsonl; the data's digest: {retain_digest(out)}",
    ]
    assert "retain: step 4/4  quarantined 14" in progress
    assert quarantine_of(out) == QUARANTINED
    before = tree(out)
    assert main(["data", "retain", str(source), "--output", str(out), "--max-bad-share", "0.5", *ONE]) == 0
    assert tree(out) == before


def test_the_filters_are_those_of_the_pipeline(tmp_path):
    source = write_source(tmp_path / "web")
    options = ["--min-tokens", "3", "--max-tokens", "9", "--min-side", "17"]
    assert main(["data", "retain", str(source), "--output", str(tmp_path / "one"), *options, *ONE]) == 2  # none is left
    options[-1] = "16"
    assert main(["data", "retain", str(source), "--output", str(tmp_path / "out"), *options, *ONE]) == 0
    build_retain_pairs(source, tmp_path / "other", rules=Rules(3, 9, 16), workers=1)
    assert tree(tmp_path / "out") == tree(tmp_path / "other")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--runner", "os.system"], "salmu: the runner os.system needs Apache Beam ("),
        (["--min-side", "99999", "--max-bad-share", "1"], "out: no pair is left of 38 samples (image too small: 24; "),
        (["--min-side", "99999", "--max-bad-share", "1"], "; filter less (min_side=99999) and run again"),
        ([], "14 of 38 samples cannot be used (36.84%), more than max_bad_share=0.01 allows"),
        (["--min-tokens", "9", "--max-tokens", "3"], "max_tokens: is 3, below min_tokens=9"),
        (["--beam-options=--region=x"], "beam_options: are of no use to the runner 'local'"),
        (["--workers", "0.5"], "salmu: --workers: is '0.5'; a whole number of 0 or more is needed"),
        (["--workers", "2000"], "salmu: --workers: is '2000'; a whole number of at most 1,024 is needed"),
        (["--min-side", "-1"], "salmu: --min-side: is '-1'; a whole number of 0 or more is needed"),
        (["--max-bad-share", "nan"], "salmu: --max-bad-share: is 'nan'; a number from 0 to 1 is needed"),
        (["--none"], "salmu: unrecognized arguments: --none; 'salmu --help' lists what there is"),
        (["--runner", "DirectRunner", "--beam-options='"], '--beam-options: is "\'": No closing quotation'),
    ],
)
def test_what_is_wrong_is_one_line(source, tmp_path, capsys, options, said):
    assert main(["data", "retain", str(source), "--output", str(tmp_path / "out"), *ONE, *options]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("retain: ")]
    assert len(lines) == 1
    assert said in lines[0]


def test_what_belongs_to_no_sample_is_counted_with_an_example(tmp_path, capsys):
    names = ["22.05.jpg", "22.05.txt", "7.input.jpg", "7.output.txt", "._8.jpg"]
    image = picture(1)
    web, out = tmp_path / "web", tmp_path / "out"
    web.mkdir()
    write_tar(web / "00000.tar", [("1.jpg", image), ("1.txt", b"a"), *((name, image) for name in names)])
    assert main(["data", "retain", str(web), "--output", str(out), *ONE]) == 0
    assert capsys.readouterr().out.splitlines()[0] == (
        f"{out}: 1 pair of 1 part, 0 filtered, 0 quarantined, 0 damaged parts, 5 files of no sample passed over"
        " (such as 00000.tar: 22.05.jpg)"
    )


def test_a_refused_directory_is_left_as_it_was(source, tmp_path, capsys):
    own, new = tmp_path / "own", tmp_path / "above" / "new"
    own.mkdir()
    (own / "notes.txt").write_text("mine")
    assert main(["data", "retain", str(source), "--output", str(own), *ONE]) == 2
    assert main(["data", "retain", str(tmp_path / "nowhere"), "--output", str(new), *ONE]) == 2
    assert main(["data", "retain", str(source), "--output", str(new), "--runner", "os.system"]) == 2
    assert [path.name for path in own.iterdir()] == ["notes.txt"]
    assert not new.parent.exists()


@pytest.mark.parametrize(("url", "package"), [("gs://bucket/web", "gcsfs"), ("s3://bucket/web", "s3fs")])
def test_a_bucket_whose_driver_is_missing_says_which_package_to_install(
    source, tmp_path, capsys, monkeypatch, url, package
):
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    for place in ([url, "--output", str(tmp_path / "out")], [str(source), "--output", url]):
        assert main(["data", "retain", *place, *ONE]) == 2
        line = f"salmu: {url}: {url[:2]}:// needs the package {package}: pip install {package}"
        assert capsys.readouterr().err.splitlines() == [line]


def test_two_at_a_time_are_refused(source, tmp_path, capsys):
    from salmu_jax.runtime.locks import Lock

    out = tmp_path / "out"
    with Lock(out / ".lock", directory=True) as held:
        held.take()
        assert main(["data", "retain", str(source), "--output", str(out), *ONE]) == 2
    assert f"salmu: {out}: another salmu run builds retain pairs here; wait for it" in capsys.readouterr().err


def test_a_config_names_a_build_and_its_pairs_are_those_of_the_work_directory(tmp_path, capsys):
    world, web = GoodWorld().write(tmp_path / "world"), write_source(tmp_path / "web")
    retain, workdir = tmp_path / "retain", tmp_path / "run"
    build = ["build", "--config", "configs/tiny.py", "--world-dir", str(world), "--workdir", str(workdir)]
    build.append(f"--config.retain_dir={retain}")
    assert main(build) == 2
    assert "not a finished build of retain_pairs" in capsys.readouterr().err
    assert main(["data", "retain", str(web), "--output", str(retain), *ONE]) == 0
    assert main(build) == 0
    assert f"retain is not read: {retain} takes its place" in capsys.readouterr().out
    source = open_source(workdir / "datasets", "retain_pairs", "train")
    assert [pair["key"] for pair in source][-1] == "c/deep/000000005"
    assert main(build) == 0
    assert "build: reused" in capsys.readouterr().out
    (web / "a/00001.tar").unlink()
    assert main(["data", "retain", str(web), "--output", str(retain), *ONE]) == 0
    assert main(build) == 0
    assert "build: made again, changed since" in capsys.readouterr().out
    info = json.loads((workdir / "datasets/retain_pairs/1.0.0/dataset_info.json").read_text())
    assert info["splits"][0]["shardLengths"] == ["6", "6", "6"]
