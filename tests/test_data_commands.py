"""``salmu data check`` and ``salmu data look`` as commands: what they print, write and return."""

from __future__ import annotations

import json

import pytest
from good_world import GoodWorld

from salmu_jax.cli import main


@pytest.fixture
def spoilt(tmp_path):
    """A world of twelve problems and an oddity."""
    world = GoodWorld()
    for row in world.rows["forget"][:12]:
        row["image"]["bytes"] = b"no image"
    world.rows["retain_synth"][4]["text"] = " "
    return world.write(tmp_path / "spoilt")


def test_a_world_without_a_fault_passes(tmp_path, capsys):
    world = GoodWorld().write(tmp_path / "good")
    assert main(["data", "check", str(world), "--strict"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{world}: 0 problems and 0 oddities in 78 rows, 4 retain pairs, 6 zeroshot images\n"
    assert "check: decoding 88 images" in err


def test_findings_are_listed_by_kind_and_counted(spoilt, capsys):
    assert main(["data", "check", str(spoilt)]) == 2
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "12 problems: images that cannot be decoded"
    assert lines[1].startswith("  data/forget-00000-of-00001.parquet, row 0, image: undecodable image (not an image")
    assert lines[11] == "  ... and 2 more, which --all lists"
    assert lines[12:] == [
        "1 oddity: captions that are empty or blank",
        "  data/retain_synth-00000-of-00001.parquet, row 4, text: captions that are empty or blank",
    ]
    assert err.splitlines()[-1] == f"salmu: {spoilt}: 12 problems and 1 oddity"


def test_all_lists_every_finding_and_json_holds_them(spoilt, tmp_path, capsys):
    report = tmp_path / "new" / "check.json"
    assert main(["data", "check", str(spoilt), "--all", "--json", str(report)]) == 2
    assert "more" not in capsys.readouterr().out
    found = json.loads(report.read_text())
    assert (found["schema"], found["problems"], found["oddities"]) == ("salmu_jax.data_check/1", 12, 1)
    assert [one["row"] for one in found["findings"]] == [*range(12), 4]
    assert {one["field"] for one in found["findings"]} == {"image", "text"}
    assert [path.name for path in report.parent.iterdir()] == ["check.json"]
    assert main(["data", "check", str(spoilt), "--json", str(report)]) == 2  # which replaces its own
    assert len(json.loads(report.read_text())["findings"]) == 11


def test_oddities_pass_unless_they_are_refused(tmp_path, capsys):
    world = GoodWorld()
    world.rows["retain_synth"][4]["text"] = " "
    world.write(tmp_path / "odd")
    assert main(["data", "check", str(tmp_path / "odd")]) == 0
    assert "0 problems and 1 oddity in 78 rows" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path / "odd"), "--strict"]) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "{nowhere}"], "no such directory; a world has its parquet files in data/"),
        (["check", ""], "DIR: is empty"),
        (["check", "{world}", "--json", "{world}"], "is a directory; the name of a file is needed"),
        (["look", "{nowhere}", "--output", "{page}"], "no such directory; a world has its parquet files in data/"),
        (["look", "{world}", "--output", "{world}"], "is a directory; the name of a file is needed"),
        (["look", "{broken}", "--output", "{page}"], "identities_metadata.json: no such file or directory"),
        (
            ["check", "{world}", "--json", "{world}/identities_metadata.json"],
            "which is read; a file elsewhere is needed",
        ),
        (["check", "{world}", "--json", "{world}/check.json"], "which is read; a file elsewhere is needed"),
        (["check", "{world}", "--json", "{own}"], "this command did not write it, so it is not replaced"),
        (["look", "{world}/data", "--output", "{world}/look.html"], "which is read; a file elsewhere is needed"),
        (["look", "{world}", "--output", "{own}"], "this command did not write it, so it is not replaced"),
        (
            ["look", "{world}", "--output", "{own}/page.html"],
            "own.html is no directory, and one is needed",
        ),
        (["look", "{world}", "--output", "{page}", "--seed", "x"], "salmu: --seed: is 'x'; a whole number is needed"),
        (["look", "{world}"], "required: --output; 'salmu data look --help' lists what there is"),
        (["check", "{world}", "--config.seed=1"], "'salmu data check' reads no config here"),
    ],
)
def test_bad_input_gets_one_line(arguments, words, tmp_path, capsys):
    world, broken = (GoodWorld(pairs=1).write(tmp_path / name) for name in ("world", "broken"))
    (broken / "identities_metadata.json").unlink()
    places = {"world": world, "broken": broken, "nowhere": tmp_path / "nowhere", "page": tmp_path / "page.html"}
    places["own"] = tmp_path / "own.html"
    places["own"].write_text("<!doctype html><p>mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["data", *(argument.format(**places) for argument in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    complaints = [line for line in err.splitlines() if not line.startswith(("check: ", "look: "))]
    assert len(complaints) == 1
    assert complaints[0].startswith("salmu: ")
    assert words in complaints[0]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_look_writes_one_page(tmp_path, capsys):
    world = GoodWorld(pairs=1).write(tmp_path / "good")
    page = tmp_path / "pages" / "look.html"
    assert main(["data", "look", str(world), "--output", str(page), "--seed", "3"]) == 0
    assert capsys.readouterr().out == f"The page: {page}\n"
    assert [path.name for path in page.parent.iterdir()] == ["look.html"]
    first = page.read_bytes()
    assert main(["data", "look", str(world), "--output", str(page), "--seed", "3"]) == 0
    assert page.read_bytes() == first
    link = tmp_path / "link.html"
    link.symlink_to(page)
    assert main(["data", "look", str(world), "--output", str(link), "--seed", "4"]) == 0
    assert link.is_symlink()
    assert page.read_bytes() != first


def test_fetch_looks_at_its_output_before_the_network(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("data_pipelines.layout.fetch.fetch", lambda *_, **__: pytest.fail("the network was asked"))
    (tmp_path / "own").write_text("mine")
    for place in (tmp_path / "own", tmp_path / "own" / "data"):
        assert main(["fetch", "--output", str(place)]) == 2
        line = capsys.readouterr().err
        assert line.startswith(f"salmu: --output {place}: ")
        assert line.count("\n") == 1


def test_a_refused_build_leaves_no_lock_beside_the_data_sets(spoilt, tmp_path, capsys):
    datasets = tmp_path / "shared" / "datasets"
    arguments = ["--config", "configs/tiny.py", "--world-dir", str(spoilt), "--workdir", str(tmp_path / "run")]
    assert main(["build", *arguments, f"--config.datasets_dir={datasets}"]) == 2
    assert "12 problems" in capsys.readouterr().err
    assert not datasets.parent.exists()
