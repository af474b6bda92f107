"""Which results are reported, whose they are, which pictures are read, and that no text of others steers what shows it."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from salmu_jax import cli
from salmu_jax.evaluation.result import result_files, seal
from salmu_jax.report import samples
from salmu_jax.report.gather import choose, gather, gather_files
from salmu_jax.report.leaderboard import build_leaderboard
from salmu_jax.report.page import build_board, render_pages
from salmu_jax.report.site import make_site
from salmu_jax.report.table import format_table
from salmu_jax.report.titles import NAME_LIMIT, display_name
from salmu_jax.runtime.errors import InputError

MODELS = ["clean", "compromised", "delete", "finetuning"]
METHODS = {"delete", "finetuning", "cliperase"}  # that there are
# What a terminal, a reader's eye, an encoder or a page may trip over.
STEERING = "a\x1b[2J\x9b2J\x00\r\n\t\u202e\u2066\u200f\ud800\ufeff\u2028</pre>$x_{2}^{3}$\\frac"


@pytest.fixture
def directory(honest, tmp_path):
    return shutil.copytree(honest / "results", tmp_path / "results")


def test_a_report_is_of_what_is_there_and_says_what_is_not(directory):
    said = []
    assert choose(directory, None, ["delete", "finetuning"], METHODS, said.append) == MODELS
    assert said == []
    names = choose(directory, None, ["delete", "cliperase"], METHODS, said.append)
    assert names == ["clean", "compromised", "delete"]
    assert said == [
        "report: no result of cliperase; 'salmu evaluate' makes them",
        "report: left out finetuning, which the config does not run; --model takes them in",
    ]
    # A name that no method has is a checkpoint from elsewhere: it is taken in.
    (directory / "delete.json").rename(directory / "mine.json")
    assert choose(directory, None, [], METHODS, said.append) == ["clean", "compromised", "mine"]
    asked = ["finetuning", "compromised", "clean"]
    assert choose(directory, asked, [], METHODS, said.append) == asked
    with pytest.raises(
        InputError, match=r"cliperase.json: not there yet; run 'salmu evaluate --model cliperase' first"
    ):
        choose(directory, ["clean", "compromised", "cliperase"], [], METHODS, said.append)
    (directory / "compromised.json").unlink()
    with pytest.raises(InputError, match=r"compromised.json: not there yet"):
        choose(directory, None, ["delete"], METHODS, said.append)


def add_strays(directory):
    """Puts into a directory of results what people and desktops leave there; returns those that are worth a line."""
    (directory / "._delete.json").write_bytes(b"\0\5\x16\7")
    (directory / "dangling.json").symlink_to(directory / "nothing.json")
    (directory / "folder.json").mkdir()
    os.mkfifo(directory / "pipe.json")
    told = {
        "delete (copy).json": (directory / "delete.json").read_bytes(),
        "notes.json": b'{"schema": "mine", "text": "the second run was better"}',
        "torn.json": b'{"schema": "salmu',
        "zeros.json": bytes(100),
    }
    for name, data in told.items():
        (directory / name).write_bytes(data)
    return [directory / name for name in sorted(told)]


def test_what_is_no_result_blocks_neither_the_report_nor_the_check_of_a_directory(directory, capsys):
    strays = [f"{path}: not a result, ignored" for path in add_strays(directory)]
    said = []
    assert choose(directory, None, ["delete", "finetuning"], METHODS, said.append) == MODELS
    assert said == strays
    assert cli.main(["verify", str(directory)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[: len(strays)] == strays
    assert len(lines) == len(strays) + len(MODELS)
    # One that is named is checked, and a damaged result is none of these.
    assert cli.main(["verify", str(directory / "notes.json")]) == 2
    assert "has the schema 'mine'" in capsys.readouterr().out
    (directory / "delete.json").write_bytes(b"{")
    assert "delete" in choose(directory, None, ["delete"], METHODS, print)
    assert cli.main(["verify", str(directory)]) == 2


def test_a_pipe_in_place_of_a_result_is_named(directory):
    (directory / "delete.json").unlink()
    os.mkfifo(directory / "delete.json")
    said = []
    assert directory / "delete.json" not in result_files(directory, said.append)
    assert said == [f"{directory / 'delete.json'}: not a regular file, ignored, though its row scores are here"]


@pytest.mark.parametrize(
    ("asked", "lacking"),
    [
        (["delete"], "--model clean --model compromised"),
        (["clean", "delete"], "--model compromised"),
        (["compromised"], "--model clean"),
    ],
)
def test_a_reference_that_was_not_asked_for_is_named(directory, asked, lacking):
    with pytest.raises(InputError, match=rf"^--model: every model is judged by clean and compromised; add {lacking}$"):
        choose(directory, asked, ["delete"], METHODS, print)


def test_results_that_verify_come_with_their_rows(directory):
    entries = gather(directory, MODELS, print)
    assert [entry.id for entry in entries] == MODELS
    for entry in entries:
        scores = entry.similarity["forget"].astype(np.float64)
        assert scores.mean() == pytest.approx(entry.result["efficacy"]["1.2_AssocStr"]["mean"], abs=1e-12)
    assert build_board(entries)["rows"][0]["model"] == "clean"


def test_results_that_do_not_verify_are_refused_a_line_a_problem(directory):
    path = directory / "delete.json"
    result = json.loads(path.read_text())
    result["efficacy"]["1.1_RetFail"]["MRR"] = 0.001
    result["caveats"] = ["All is well."]
    path.write_text(json.dumps(seal(result)))
    (directory / "finetuning.rows.npz").unlink()
    said = []
    with pytest.raises(InputError, match=r"2 of 4 results do not verify \(delete, finetuning\); evaluate them again"):
        gather(directory, MODELS, said.append)
    assert len(said) == 3
    assert "delete.json: 'efficacy > 1.1_RetFail > MRR' is 0.001" in said[0]
    assert "delete.json: 'caveats' are not those of its protocol" in said[1]
    assert "finetuning.rows.npz: cannot be read" in said[2]


def test_a_model_whose_descent_nobody_recorded_is_named_on_the_board(results):
    result = next(result for result in results if result["model"] == "delete")
    assert not any("descends" in caveat for caveat in build_leaderboard(results)["caveats"])
    result["provenance"]["checkpoint"]["parent"] = None
    caveats = build_leaderboard(results)["caveats"]
    assert any(
        caveat.startswith("What the model of DELETE (SALMU) descends from is not recorded") for caveat in caveats
    )


class Source(list):
    """A split that notes which of its rows are read."""

    def __init__(self, records):
        super().__init__(records)
        self.seen = []

    def __getitem__(self, index):
        self.seen.append(index)
        return super().__getitem__(index)

    def __iter__(self):
        raise AssertionError("all of a split is read")

    def read(self, indices):
        return [self[index] for index in indices]


def test_no_image_is_read_but_those_that_are_shown(directory, monkeypatch, tmp_path):
    import tiny_world

    sources = {split: Source(records) for split, records in tiny_world.tiny_sources().items()}
    monkeypatch.setattr(samples, "open_source", lambda directory, name, split: sources[split])
    rows = gather(directory, MODELS, print)[0].rows
    found = samples.sample_pictures(tmp_path, rows, people=4)
    shown = [len(sample.get("images", [1])) for sample in found]
    assert sum(len(source.seen) for source in sources.values()) == sum(shown) == 4 * 4 + 6
    # One person of each kind in turn, in the order of their ids; of one who is forgotten in part, both sides.
    people = [(sample["subset"], sample["identity_id"]) for sample in found if "images" in sample]
    assert people == [
        ("forget_identity", "00000000"),
        ("forget_association", "00000001"),
        ("holdout_association", "00000001"),
        ("holdout_identity", "00000002"),
        ("forget_identity", "00000003"),
    ]
    for sample in found:
        for caption in sample.get("captions", ()):
            assert sample["name"] in caption
    assert next(sample["caption"] for sample in found if "image" in sample) == "a portrait, number 3"
    sources["forget"].pop()
    with pytest.raises(
        InputError, match=r"salmu/forget has 125 rows, the results were measured on 126: evaluate again"
    ):
        samples.sample_pictures(tmp_path, rows, people=4)


def test_no_text_of_others_steers_a_terminal_or_a_page(results, build_entries, samples, run):
    """Verified results hold no such text, but what shows them does not rely on it."""
    odd = next(result for result in results if result["model"] == "delete")
    odd["model"] = STEERING + "m" * 5_000
    for result in results:
        result["caveats"] = [STEERING]
        result["protocol"]["genknow"]["dataset"] = STEERING
        result["provenance"] |= {"device": STEERING, "versions": {"salmu_jax": STEERING}}
    for sample in samples:
        sample |= (
            {"name": STEERING, "caption": STEERING, "subset": STEERING} if "image" in sample else {"name": STEERING}
        )
    run |= {"command": STEERING, "config": {STEERING: [STEERING]}, "stages": {STEERING: 1.0}}
    entries = build_entries(results)
    board = build_board(entries)
    assert len(display_name(odd["model"])) <= 4 * NAME_LIMIT  # each unsafe character is spelt out
    table = format_table(board)
    pages = render_pages(make_site(board, entries), samples, title=STEERING, run=run)
    for text in (table, *pages.values()):
        text.encode()  # no half surrogates
        assert all(line.isprintable() for line in text.splitlines())
        assert "\\u202e" in text
    assert not any("</pre>$" in page for page in pages.values())


# Files of several people -------------------------------------------------------------------------------------------------


@pytest.fixture
def theirs(people, tmp_path):
    """Three people's results, to be changed."""
    return shutil.copytree(people, tmp_path / "people")


def result_at(path, change):
    """Changes a result, and its digest with it."""
    result = json.loads(path.read_text())
    change(result)
    path.write_text(json.dumps(seal(result)))


def refused(root, *words):
    said = []
    with pytest.raises(InputError, match=r"do not verify or cannot be compared") as error:
        gather_files(sorted(root.glob("*/results")), said.append)
    assert "\n" not in str(error.value)
    assert len(said) <= 11
    for word in words:
        assert any(word in line for line in said), said
    return said


def test_results_of_several_people_share_a_board(people):
    entries = gather_files(sorted(people.glob("*/results")), print)
    assert len(entries) == 2 + 3 * 7
    assert [entry.id for entry in entries[:2]] == ["clean", "compromised"]
    assert entries[0].confirmed_by == ("bo", "chen")
    assert {entry.submitter for entry in entries[2:]} == {"ada", "bo", "chen"}
    assert all(entry.id == f"{entry.submitter}/{entry.result['model']}" for entry in entries[2:])
    board = build_board(entries)
    groups = [group for group in board["groups"] if group["role"] == "method"]
    # Three seeds of two methods each, and one of a third; options of their own, so nobody's are mixed.
    assert sorted(len(group["members"]) for group in groups) == [1] * 3 + [3] * 6
    assert all(len(group["submitters"]) == 1 for group in groups)
    for alike in ("DELETE (SALMU)", "CLIPErase (SALMU)"):
        variants = [group["variant"] for group in groups if group["title"] == alike]
        assert sorted(variants) == ["learning rate 1e-05", "learning rate 2e-05", "learning rate 3e-05"]


def test_a_file_that_is_given_twice_counts_once(people):
    one = people / "ada" / "results"
    files = [one / "clean.json", one / "compromised.json", one, one / "clean.json"]
    entries = gather_files(files, print)
    assert len(entries) == 9
    assert {entry.submitter for entry in entries} == {""}  # one person's need no names
    assert entries[0].confirmed_by == ()


def test_a_checkpoint_that_others_evaluated_too_is_shown_once(theirs):
    for suffix in (".json", ".rows.npz"):
        name = f"delete_0_seed1{suffix}"
        shutil.copy(theirs / "ada" / "results" / name, theirs / "bo" / "results" / name)
    entries = {entry.id: entry for entry in gather_files(sorted(theirs.glob("*/results")), print)}
    assert entries["ada/delete_0_seed1"].confirmed_by == ("bo",)
    assert "bo/delete_0_seed1" not in entries


def test_two_names_of_one_persons_checkpoint_are_refused(theirs):
    one = theirs / "ada" / "results"
    shutil.copy(one / "delete_0_seed1.rows.npz", one / "mine.rows.npz")

    def rename(result):
        result["model"] = "mine"
        result["rows"]["file"] = "mine.rows.npz"

    (one / "mine.json").write_text((one / "delete_0_seed1.json").read_text())
    result_at(one / "mine.json", rename)
    refused(theirs, "mine.json: it is of the same checkpoint as 'delete_0_seed1'")


@pytest.mark.parametrize(
    ("name", "field", "value", "words"),
    [
        (
            "bo/results/delete_0_seed2.json",
            ("provenance", "data", "salmu"),
            "e" * 64,
            "measured otherwise than 'clean'",
        ),
        ("bo/results/delete_0_seed2.json", ("protocol", "idzsc_prompt"), "{name}", "measured otherwise than 'clean'"),
        ("bo/results/delete_0_seed2.json", ("efficacy", "1.1_RetFail", "MRR"), 0.9, "the row scores give"),
        ("chen/results/clean.json", ("provenance", "checkpoint", "digest"), "d" * 64, "a leaderboard has one of them"),
        (
            "chen/results/compromised.json",
            ("provenance", "checkpoint", "digest"),
            "d" * 64,
            "a leaderboard has one of them",
        ),
        (
            "chen/results/cliperase_0_seed1.json",
            ("provenance", "checkpoint", "root"),
            "d" * 64,
            "not from this board's Compromised",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_by_file_and_field(theirs, name, field, value, words):
    def change(result):
        for key in field[:-1]:
            result = result[key]
        result[field[-1]] = value

    result_at(theirs / name, change)
    said = refused(theirs, words)
    assert all(name in line for line in said)


def test_a_file_that_claims_anothers_checkpoint_with_other_figures_is_refused(theirs):
    stolen = json.loads((theirs / "ada" / "results" / "delete_0_seed1.json").read_text())["provenance"]["checkpoint"]
    path = theirs / "bo" / "results" / "cliperase_0_seed1.json"
    result_at(path, lambda result: result["provenance"].update(checkpoint=stolen))
    refused(theirs, "of the same checkpoint; leave out the one that is wrong")


def test_without_the_references_nothing_is_reported(theirs):
    for path in theirs.glob("*/results/clean.json"):
        path.unlink()
    refused(theirs, "none of 'clean' can be read")


def test_many_problems_end_after_ten(theirs):
    for path in theirs.glob("*/results/*seed*.json"):
        result_at(path, lambda result: result["efficacy"]["1.3_ACS"].update(acs_accuracy=0.123))
    said = refused(theirs, "... and 11 more problems")
    assert len(said) == 11


def test_the_command_reports_files_of_several_people(people, tmp_path, capsys):
    out = tmp_path / "board"
    given = [str(path) for path in sorted(people.glob("*/results"))]
    assert cli.main(["report", *given, "--output", str(out), "--title", "Three people"]) == 0
    said = capsys.readouterr().out
    assert "DELETE (SALMU)" in " ".join(said.split())
    assert said.rstrip().endswith(f"The page: {out / 'index.html'}")
    assert "<h1>Three people</h1>" in (out / "index.html").read_text()
    board = json.loads((out / "leaderboard.json").read_text())
    assert len(list((out / "models").iterdir())) == len(board["rows"]) == 23
    assert cli.main(["report", *given, "--output", str(out)]) == 0  # an older report is replaced
    assert "<h1>SALMUBench</h1>" in (out / "index.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["{results}"], "needs --output DIR"),
        (["--output", "{out}"], "--output: needs result files"),
        ([], "needs result files and --output DIR, or --config FILE"),
        (
            ["{results}", "--output", "{out}", "--workdir", "{out}"],
            "--workdir: goes with --config, for the report of a work directory",
        ),
        (
            ["{results}", "--output", "{out}", "--rerun"],
            "--rerun: goes with --config, for the report of a work directory",
        ),
        (["{root}/nobody.json", "--output", "{out}"], "do not verify or cannot be compared"),
        (["{empty}", "--output", "{out}"], "no result files"),
        (["{results}", "--output", "{empty}/file"], "a directory is needed"),
        (["{results}", "--output", "{theirs}"], "no manifest says that salmu wrote it"),
        (["{results}", "--output", "gs://bucket/board"], "of this machine"),
    ],
)
def test_bad_input_to_the_command_is_one_line_and_writes_nothing(people, tmp_path, capsys, arguments, line):
    for name in ("empty", "theirs"):
        (tmp_path / name).mkdir()
    (tmp_path / "empty" / "file").write_text("")
    (tmp_path / "theirs" / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    names = {"results": people / "ada" / "results", "root": people, "out": tmp_path / "out"}
    names |= {name: tmp_path / name for name in ("empty", "theirs")}
    assert cli.main(["report", *(argument.format(**names) for argument in arguments)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said
    assert sorted(tmp_path.rglob("*")) == before
