"""Which results are reported, which pictures are read, and that no text of others steers a terminal, a page or a figure."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from salmu_jax import cli
from salmu_jax.evaluation.result import seal
from salmu_jax.report import figures, samples
from salmu_jax.report.gather import choose, gather
from salmu_jax.report.leaderboard import NAME_LIMIT, build_leaderboard, display_name
from salmu_jax.report.page import render_page
from salmu_jax.report.table import format_table
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
    gathered = gather(directory, MODELS, print)
    assert [result["model"] for result in gathered.results] == MODELS
    for result in gathered.results:
        scores = gathered.similarity[result["model"]]["forget"]
        assert scores.astype(np.float64).mean() == pytest.approx(result["efficacy"]["1.2_AssocStr"]["mean"], abs=1e-12)
    assert build_leaderboard(gathered.results)["rows"][0]["model"] == "clean"


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
    assert any(caveat.startswith("What the model of DELETE descends from is not recorded") for caveat in caveats)


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
    rows = gather(directory, MODELS, print).rows["clean"]
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


def test_no_text_of_others_steers_a_terminal_a_page_or_a_figure(results, build_similarity, samples, run):
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
    board = build_leaderboard(results)
    assert len(display_name(odd["model"])) <= 4 * NAME_LIMIT  # each unsafe character is spelt out
    table = format_table(board)
    page = render_page(board, {}, samples, title=STEERING, run=run)
    for text in (table, page):
        text.encode()  # no half surrogates
        assert all(line.isprintable() for line in text.splitlines())
        assert "\\u202e" in text
    assert "</pre>$" not in page
    similarity = build_similarity([{**result, "model": result["model"][:4]} for result in results])
    similarity = {result["model"]: similarity[result["model"][:4]] for result in results}
    assert figures.similarity_histograms(results, similarity, figures.THEMES["light"])
