"""The steps personal data and captions: resumable, independent of shards, and nobody's files are touched."""

from __future__ import annotations

import json

import pytest

from data_pipelines import steps
from data_pipelines.layout import DATA_FIELDS
from data_pipelines.people.people import drawn_looks, make_people
from data_pipelines.people.step import make_personal_data, read_people
from data_pipelines.phrasing.captions import draw_captions
from data_pipelines.phrasing.step import make_captions, make_generic_captions, read_captions
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.runtime import contents, files
from salmu_jax.runtime.errors import InputError

LOOKS = drawn_looks(3, range(0, 36, 3))


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    directory = tmp_path_factory.mktemp("text") / "personal_data"
    people = make_personal_data(directory, 3, LOOKS)
    assert people == make_people(3, LOOKS) == read_people(directory)
    report = json.loads((directory / "report.json").read_text())
    assert report["people"] == 12
    assert sum(entry["people"] for entry in report["countries"].values()) == 12
    assert all(entry["people"] == entry["expected"] for entry in report["countries"].values())
    return people


@pytest.fixture(scope="module")
def made(people, tmp_path_factory):
    directory = tmp_path_factory.mktemp("text") / "captions"
    report = make_captions(directory, 3, people, variants=6, shards=4)
    return directory, report


def files_of(directory):
    return {name: entry["sha256"] for name, entry in contents.records(directory).items()}


def test_the_captions_are_those_of_the_grammar_and_the_report_counts_them(made, people):
    directory, report = made
    rows = list(read_captions(directory))
    assert [(row.identity_id, row.data_field, row.variant) for row in rows] == [
        (person.identity_id, field, variant) for person in people for field in DATA_FIELDS for variant in range(6)
    ]
    assert [row.caption for row in rows[:6]] == [
        caption.text for caption in draw_captions(3, people[0], "name", 6, ClipTokenizer())
    ]
    assert report["captions"] == len(rows) == 12 * 9 * 6
    assert report["associations"] == 12 * 9
    assert set(report["sources"].values()) == {12 * 9}
    assert report["attributes"]["iban"]["tokens"]["most"] == max(row.tokens for row in rows if row.data_field == "iban")


def test_the_number_of_shards_and_the_order_of_people_do_not_change_a_caption(made, people, tmp_path):
    make_captions(tmp_path / "one", 3, people, variants=6, shards=1)
    assert list(read_captions(tmp_path / "one")) == list(read_captions(made[0]))
    make_captions(tmp_path / "reversed", 3, people[::-1], variants=6, shards=3)
    assert sorted(read_captions(tmp_path / "reversed")) == sorted(read_captions(made[0]))


def test_a_killed_step_goes_on_and_ends_with_the_same_bytes(made, people, tmp_path, monkeypatch):
    real, calls = files.write_bytes, []

    def killed(path, data):
        if str(path).endswith(".jsonl"):
            calls.append(path.name)
            if len(calls) == 3:
                raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(files, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        make_captions(tmp_path / "captions", 3, people, variants=6, shards=4)
    with pytest.raises(InputError, match="has not been finished"):
        list(read_captions(tmp_path / "captions"))
    calls.append("again")
    make_captions(tmp_path / "captions", 3, people, variants=6, shards=4, say=pytest.fail)
    assert calls[4:] == ["captions-00002-of-00004.jsonl", "captions-00003-of-00004.jsonl"]  # the others were kept
    assert files_of(tmp_path / "captions") == files_of(made[0])


def test_a_damaged_shard_is_refused_and_made_again(made, people, tmp_path):
    make_captions(tmp_path / "captions", 3, people, variants=6, shards=4)
    shard = tmp_path / "captions" / "captions-00001-of-00004.jsonl"
    shard.write_bytes(shard.read_bytes().replace(b"a", b"b", 1))
    with pytest.raises(InputError, match=r"captions-00001-of-00004.jsonl: is not as the step 'captions' wrote it"):
        list(read_captions(tmp_path / "captions"))
    make_captions(tmp_path / "captions", 3, people, variants=6, shards=4, say=pytest.fail)
    assert files_of(tmp_path / "captions") == files_of(made[0])


def test_another_setting_makes_all_again_says_why_and_keeps_what_is_not_ours(people, tmp_path):
    said = []
    make_captions(tmp_path / "captions", 3, people, variants=5, shards=2)
    (tmp_path / "captions" / "mine.txt").write_text("mine")
    make_captions(tmp_path / "captions", 3, people, variants=6, shards=3, say=said.append)
    assert said == [f"{tmp_path / 'captions'}: made again, since this has changed: shards 2 -> 3; variants 5 -> 6"]
    assert {path.name for path in (tmp_path / "captions").iterdir()} == {
        "mine.txt",
        "report.json",
        "step.json",
        *(f"captions-{index:05d}-of-00003.jsonl" for index in range(3)),
    }


def test_a_step_that_is_killed_before_its_manifest_is_begun_again(tmp_path, monkeypatch):
    """Nothing of it may look like somebody else's directory, at whichever write the kill comes."""
    parts = {name: name.encode for name in ("a", "b")}
    real = files.write_bytes
    for allowed in range(5):
        directory, left = tmp_path / str(allowed), [allowed]

        def killed(path, data, left=left):
            if not left[0]:
                path.parent.mkdir(parents=True, exist_ok=True)
                files.partial_path(path).write_bytes(data[:3])  # as a power cut leaves it
                raise KeyboardInterrupt
            left[0] -= 1
            real(path, data)

        monkeypatch.setattr(files, "write_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            steps.run_step(directory, "letters", {"seed": 1}, parts, dict, say=pytest.fail)
        monkeypatch.setattr(files, "write_bytes", real)
        kept = dict.fromkeys(list(parts)[: max(0, allowed - 1) // 2], pytest.fail)
        steps.run_step(directory, "letters", {"seed": 1}, {**parts, **kept}, dict, say=pytest.fail)
        assert sorted(path.name for path in directory.iterdir()) == ["a", "b", "report.json", "step.json"]


def test_steps_run_below_a_step_that_is_begun(tmp_path):
    steps.begin_step(tmp_path, "outer")
    steps.run_step(tmp_path / "inner", "inner", {}, {"a": lambda: b"1"}, dict)
    steps.run_step(tmp_path, "outer", {"seed": 1}, {"b": lambda: b"2"}, dict, say=pytest.fail)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "inner", "report.json", "step.json"]


def test_a_directory_of_somebody_else_is_left_alone(people, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"has files, but no step.json"):
        make_captions(tmp_path, 3, people)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    make_personal_data(tmp_path / "people", 3, LOOKS)
    with pytest.raises(InputError, match="is not the manifest of the step 'captions'"):
        make_captions(tmp_path / "people", 3, people)


@pytest.mark.parametrize(("changed", "problem"), [({"variants": 4}, "variants: is 4"), ({"shards": 0}, "shards: is 0")])
def test_settings_out_of_range_are_refused(people, tmp_path, changed, problem):
    with pytest.raises(InputError, match=problem):
        make_captions(tmp_path / "captions", 3, people, **changed)
    assert not (tmp_path / "captions").exists()


def test_paraphrases_replace_the_grammar(made, people, tmp_path):
    lines = [{**row._asdict(), "caption": row.caption.replace(" is ", " remains ")} for row in read_captions(made[0])]
    path = tmp_path / "paraphrases.jsonl"
    path.write_bytes(steps.jsonl(lines))
    report = make_captions(tmp_path / "captions", 3, people, variants=6, shards=2, paraphrases=path)
    assert report["sources"] == {"paraphrase": len(lines)}
    assert [row.caption for row in read_captions(tmp_path / "captions")] == [line["caption"] for line in lines]
    path.write_bytes(steps.jsonl([{**line, "data_field": "city"} for line in lines]))
    with pytest.raises(InputError, match="problems"):
        make_captions(tmp_path / "bad", 3, people, variants=6, shards=2, paraphrases=path)
    assert not (tmp_path / "bad").exists()


def test_generic_captions_are_checked_all_at_once(people, tmp_path):
    good = [(f"{index:03d}.jpg", f"a portrait of a woman in picture {index}") for index in range(7)]
    report = make_generic_captions(tmp_path / "generic", good, people)
    assert report == {"pictures": 7, "distinct": 7, "most_tokens": 10}
    assert json.loads((tmp_path / "generic" / "generic_captions.json").read_text()) == dict(good)
    bad = [*good, ("000.jpg", "a man"), ("008.jpg", f"a photo of {people[2].name}"), ("009.jpg", "")]
    with pytest.raises(InputError) as raised:
        make_generic_captions(tmp_path / "bad", bad, people)
    text = str(raised.value)
    assert "3 problems" in text
    assert all(
        part in text for part in ("picture 000.jpg: comes twice", "names somebody", "009.jpg generic caption: is empty")
    )
