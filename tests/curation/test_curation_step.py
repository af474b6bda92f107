"""The step *curation*: planted faults are found and named; the result is the same after any kill and for any workers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from planted_portraits import CellSource

from data_pipelines import steps
from data_pipelines.curation import identify
from data_pipelines.curation.reference import Reference
from data_pipelines.curation.step import curate, read_curated
from data_pipelines.portraits import procedural
from data_pipelines.portraits.procedural import ProceduralSource
from data_pipelines.portraits.step import make_images, read_images
from salmu_jax.runtime import contents, files
from salmu_jax.runtime.errors import InputError

ENCODER = "planted_portraits:CellEncoder"
SIZES = Reference(held_out_share=0.5, altered=3)
SOURCE = CellSource(
    seed=1,
    people=16,
    portraits=12,
    mixed={2: (3, 0.4), 11: (4, 0.08)},  # the latter is one portrait in twelve
    twins={5: 6},
    looks={8: ("africa", "male", "old"), 9: ("europe", "female", "young")},
    repeats={(0, 7): 3, (10, 4): 1},
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("portraits")
    make_images(root / "images", SOURCE, workers=1)
    make_images(root / "others", CellSource(seed=2, people=64, portraits=12), workers=1)
    return root / "images", root / "others"


def curated(directory: Path, inputs: tuple[Path, Path], **options) -> dict:
    images, others = inputs
    settings = {
        "keep": 10,
        "seed": 0,
        "encoder": ENCODER,
        "reference": others,
        "sizes": SIZES,
        "fewest": 5,
        "workers": 1,
    }
    return curate(directory, images, **{**settings, "say": pytest.fail, **options})


@pytest.fixture(scope="module")
def made(inputs, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("made") / "curation"
    curated(directory, inputs)
    return directory


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def digests(directory: Path) -> dict[str, str]:
    return {name: entry["sha256"] for name, entry in contents.records(directory).items()}


def test_planted_faults_are_found_and_named(made):
    dropped = lines(made / "dropped.jsonl")
    people = {int(row["identity_id"]): (row["reason"], row["other"]) for row in dropped if row["file"] is None}
    anchors = {anchor.number: anchor for anchor in SOURCE.anchors()}
    wrong = {
        number: next(
            (name, value)
            for name, value in zip(("region", "gender", "age"), SOURCE.looks[number], strict=True)
            if getattr(anchors[number], name) != value
        )
        for number in SOURCE.looks
    }
    twins = [people.pop(number, None) for number in (5, 6)]
    assert {("indistinct", "00000005"), ("indistinct", "00000006")} & set(twins)
    assert people.pop(2) == ("inconsistent", None)
    assert {number: people.pop(number) for number in wrong} == wrong
    assert {reason for reason, _ in people.values()} == {"surplus"}
    assert len(people) == 16 - 4 - 10 - (("surplus", None) in twins)

    portraits = {row["file"]: (row["reason"], row["other"]) for row in dropped if row["file"] is not None}
    assert portraits == {
        "00000000_007_ar-1.00.jpg": ("near duplicate", "00000000_003_ar-1.00.jpg"),
        "00000010_004_ar-1.00.jpg": ("near duplicate", "00000010_001_ar-1.00.jpg"),
        "00000011_000_ar-1.00.jpg": ("outlying", None),
    }
    for row in dropped:
        above = row["reason"] in ("indistinct", "near duplicate") or "share" in row["what"]
        assert (row["measured"] > row["threshold"]) == above, row


def test_what_is_kept_is_what_is_not_dropped_and_has_its_embeddings(made):
    kept = read_curated(made)
    dropped = {row["identity_id"] for row in lines(made / "dropped.jsonl") if row["file"] is None}
    files_dropped = {row["file"] for row in lines(made / "dropped.jsonl")}
    assert [one.anchor for one in kept] == [one for one in SOURCE.anchors() if one.identity_id not in dropped]
    assert len(kept) == 10
    for one in kept:
        every = [f"{one.anchor.identity_id}_{index:03d}_ar-1.00.jpg" for index in range(12)]
        assert list(one.files) == [name for name in every if name not in files_dropped]
    with np.load(made / "embeddings.npz") as file:
        assert file["names"].tolist() == [name for one in kept for name in one.files]
        assert file["numbers"].tolist() == [one.anchor.number for one in kept for _ in one.files]
        assert np.allclose(np.linalg.norm(file["vectors"].astype(float), axis=1), 1, atol=1e-2)
    report = json.loads((made / "report.json").read_text())
    assert report["kept"]["identities"] == 10
    assert report["kept"]["portraits"] == sum(len(one.files) for one in kept)
    assert report["anchors"] == 10 + sum(report["dropped_identities"].values())


def test_the_best_are_kept(made):
    measured = [row for row in lines(made / "measured.jsonl") if row["nearest"] is not None]
    score = {row["identity_id"]: row["consistency"] - row["nearest_similarity"] for row in measured}
    kept = {row["identity_id"] for row in measured if row["kept"]}
    assert min(score[name] for name in kept) >= max(score[name] for name in score if name not in kept) - 1e-9


def test_the_page_shows_everybody_who_was_dropped_and_needs_no_other_file(made):
    page = (made / "report.html").read_text()
    shown = set(re.findall(r'alt="(\d{8})_\d{3}_ar', page))
    assert {row["identity_id"] for row in lines(made / "dropped.jsonl")} <= shown
    sources = re.findall(r'src="([^"]{0,30})', page)
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "http" not in page.replace("http://www.w3.org", "")
    for name in ("00000000_007_ar-1.00.jpg", "00000011_000_ar-1.00.jpg"):
        assert f'alt="{name}"' in page


def test_a_curation_that_is_killed_again_and_again_ends_with_the_same_bytes(made, inputs, tmp_path, monkeypatch):
    """Each file and each manifest is a write; a kill comes while one is written, also while the first one is."""
    real, left = files.write_bytes, [0]

    def killed(path, data):
        if not left[0]:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.partial_path(path).write_bytes(data[: len(data) // 2])
            raise KeyboardInterrupt
        left[0] -= 1
        real(path, data)

    monkeypatch.setattr(files, "write_bytes", killed)
    for allowed in (0, 1, 2, 60, 75, 1, 3, 30, 8, 3, 2):
        left[0] = allowed
        with pytest.raises(KeyboardInterrupt):
            curated(tmp_path / "curation", inputs)
    left[0] = 1000
    curated(tmp_path / "curation", inputs)
    assert left[0] > 900  # little was left to do
    assert digests(tmp_path / "curation") == digests(made)


def test_two_workers_write_the_same_bytes(made, inputs, tmp_path):
    curated(tmp_path / "curation", inputs, workers=2)
    assert digests(tmp_path / "curation") == digests(made)


def test_a_finished_curation_is_not_made_again(made, inputs, monkeypatch):
    def refused(path, data):
        assert Path(path).name in ("step.json", "report.json"), path
        real(path, data)

    real = files.write_bytes
    before = digests(made)
    monkeypatch.setattr(files, "write_bytes", refused)
    curated(made, inputs)
    assert digests(made) == before


def test_too_few_that_pass_are_one_line_and_the_page_says_why(inputs, tmp_path):
    with pytest.raises(InputError) as caught:
        curated(tmp_path / "curation", inputs, keep=14)
    assert str(caught.value) == (
        f"{inputs[0]}: 12 of 16 anchors pass, and 14 are to be kept; about 19 anchors would be right"
        f" ({tmp_path / 'curation' / 'report.html'} shows who was dropped)"
    )
    assert "Not one person" in (tmp_path / "curation" / "report.html").read_text()
    with pytest.raises(InputError, match="has not been finished"):
        read_curated(tmp_path / "curation")
    said: list[str] = []
    curated(tmp_path / "curation", inputs, keep=12, say=said.append)
    assert len(read_curated(tmp_path / "curation")) == 12
    assert said == [f"{tmp_path / 'curation'}: made again, since this has changed: keep 14 -> 12"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"keep": 0}, "keep: is 0; 1 or more would be right"),
        ({"seed": -1}, "seed: is -1; 0 or more would be right"),
        ({"keep": 17}, "has 16 anchors, of which 17 are to be kept"),
        ({"reference": None}, "give a finished step 'images' of other people"),
        ({"encoder": "planted_portraits:bad_encoder"}, "gave embeddings that are not of length 1"),
        ({"encoder": "planted_portraits:nothing"}, "cannot be found"),
        ({"encoder": "planted_portraits:SOME"}, "cannot be found"),
        ({"encoder": "json:dumps"}, "encoder 'json:dumps'"),
        ({"encoder": "somewhere"}, "is neither a file of weights"),
    ],
)
def test_bad_input_is_one_line(inputs, tmp_path, options, says):
    with pytest.raises(InputError, match=re.escape(says)):
        curated(tmp_path / "curation", inputs, **options)


def test_the_data_set_is_no_reference_for_itself(inputs, tmp_path):
    with pytest.raises(InputError, match="holds the portraits of the data set itself"):
        curated(tmp_path / "curation", inputs, reference=inputs[0])


def test_a_reference_of_few_people_is_refused(inputs, tmp_path):
    with pytest.raises(InputError, match="has 58 people to train with and 6 held out; 2 and 20 or more"):
        curated(tmp_path / "curation", inputs, sizes=Reference(held_out_share=0.1))


def test_a_damaged_embedding_is_noticed_and_made_again(made, inputs, tmp_path):
    curated(tmp_path / "curation", inputs)
    damaged = tmp_path / "curation" / "embeddings" / "00000004.npz"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    curated(tmp_path / "curation", inputs)
    assert digests(tmp_path / "curation") == digests(made)


# --- identification --------------------------------------------------------------------------------------------------


def test_held_out_portraits_are_identified_by_their_neighbours(made, inputs, tmp_path, capsys):
    status = identify.main([str(made), str(inputs[0]), "--output", str(tmp_path)])
    assert status == 0
    result = json.loads((tmp_path / "identify.json").read_text())
    assert result["identities"] == 10
    assert result["nearest_neighbour_accuracy"] == result["nearest_centre_accuracy"] == 1.0
    assert result["held_out"] == sum(round(0.2 * len(one.files)) for one in read_curated(made))
    assert "nearest neighbour 100.00%" in capsys.readouterr().out
    first = (tmp_path / "identify.jpg").read_bytes()
    identify.main([str(made), str(inputs[0]), "--output", str(tmp_path)])
    assert (tmp_path / "identify.jpg").read_bytes() == first


def test_neighbours_are_those_of_a_plain_search():
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(60, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    numbers = np.repeat(np.arange(6), 10)
    held_out = identify.held_out_rows(numbers, 0.3)
    assert [int(held_out[numbers == number].sum()) for number in range(6)] == [3] * 6
    found = identify.find_neighbours(vectors, numbers, held_out)
    for row, query in enumerate(found.query):
        for same, which, similarity in (
            (True, found.right[row], found.right_similarity[row]),
            (False, found.wrong[row], found.wrong_similarity[row]),
        ):
            others = [k for k in range(60) if not held_out[k] and (numbers[k] == numbers[query]) == same]
            best = max(others, key=lambda k: float(vectors[query] @ vectors[k]))
            assert which == best
            assert similarity == pytest.approx(float(vectors[query] @ vectors[best]), abs=1e-6)
    assert 0 < found.correct.mean() < 1


def test_an_unfinished_curation_is_one_line(inputs, tmp_path, capsys):
    steps.begin_step(tmp_path, "curation")
    assert identify.main([str(tmp_path), str(inputs[0])]) == 2
    assert capsys.readouterr().err == f"{tmp_path}: the step 'curation' has not been finished; run it first\n"


def test_anchors_are_read_again(made, inputs):
    assert {one.anchor for one in read_curated(made)} <= set(read_images(inputs[0]).anchors)


# --- with drawn people -----------------------------------------------------------------------------------------------


def test_other_people_are_drawn_and_the_encoder_is_trained_on_them(tmp_path, monkeypatch):
    """Training is replaced by random weights, and rendering by noise."""
    from data_pipelines.curation import face_encoder, network, training

    seen: list[dict] = []

    def untrained(pixels, people, attributes, seed, settings, *, say):
        seen.append({"pixels": pixels.shape, "people": people.tolist(), "seed": seed, "settings": settings})
        assert set(attributes) == {"region", "gender", "age"}
        assert all(len(values) == len(people) for values in attributes.values())
        rng = np.random.default_rng(0)
        flat = {
            name: rng.normal(0.0, 0.1, shape.shape).astype(np.float32) ** (2 if name.endswith("var") else 1)
            for name, shape in network.flattened(face_encoder._shapes()).items()
        }
        return network.nested(flat), {"loss": [1.0], "accuracy": 0.5}

    def noise(look, view, *, longest_side, aspect_ratio):
        rng = np.random.default_rng(view.shot.seed)
        return Image.fromarray(rng.integers(0, 255, (longest_side, longest_side, 3), dtype=np.uint8))

    monkeypatch.setattr(training, "train_encoder", untrained)
    monkeypatch.setattr(face_encoder, "_BATCH", 4)  # of which most would be padding
    monkeypatch.setattr(procedural, "render", noise)
    source = ProceduralSource(seed=5, identities=6, fewest=4, most=4, longest_side=48)
    make_images(tmp_path / "images", source, workers=1, say=pytest.fail)
    sizes = Reference(trained=4, portraits=2, held_out=20, held_out_portraits=3, altered=1)

    def run(**options) -> dict:
        settings = {"keep": 1, "seed": 7, "sizes": sizes, "fewest": 1, "workers": 1, "say": lambda line: None}
        return curate(tmp_path / "curation", tmp_path / "images", **{**settings, **options})

    report = run()
    assert report["kept"]["identities"] == 1
    assert report["standard"]["held_out"] == {"identities": 20, "portraits": 60}
    assert seen == [
        {"pixels": (8, 112, 112, 3), "people": [0, 0, 1, 1, 2, 2, 3, 3], "seed": 7, "settings": sizes.training}
    ]
    others = read_images(tmp_path / "curation" / "others" / "images")
    assert others.settings["seed"] != source.seed
    assert others.settings["faults"]["twin"] == 0
    assert [sum(1 for _ in others.portraits(number)) for number in range(24)] == [2] * 4 + [3] * 20
    figures = json.loads((tmp_path / "curation" / "others" / "encoder" / "report.json").read_text())
    assert figures == {"portraits": 8, "people": 4, "loss": [1.0], "accuracy": 0.5}

    before = digests(tmp_path / "curation")
    weights = tmp_path / "curation" / "others" / "encoder" / "encoder.npz"
    weights.write_bytes(weights.read_bytes()[:-1])  # damaged: it is trained again, and nothing else changes
    run()
    assert len(seen) == 2
    assert digests(tmp_path / "curation") == before
    run(encoder=weights)
    assert len(seen) == 2
