"""A whole small world: complete, in the layout, consistent, and the same bytes for the same seed."""

from __future__ import annotations

import collections
import io
import json

import pytest
from PIL import Image

from data_pipelines.layout import DATA_FIELDS, SENSITIVE_SPLITS, World, check_world, iter_tar_pairs
from data_pipelines.world import drawing, generate
from data_pipelines.world.generate import generate_world
from data_pipelines.world.personas import make_personas
from data_pipelines.world.scenes import CLASS_NAMES
from salmu_jax.config_fields import World as ConfigWorld
from salmu_jax.config_fields import declared
from salmu_jax.runtime import contents, files
from salmu_jax.runtime.errors import InputError

SMALL = {
    "personas": 8,
    "pairs_per_association": 2,
    "portrait_size": 32,
    "retain_joint": 9,
    "retain_disjoint": 20,
    "fragile": 5,
    "scenes": 30,
    "scene_size": 16,
    "zeroshot_images": 50,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("made") / "world"
    seen = []
    facts = generate_world(
        directory, seed=11, workers=1, progress=lambda done, total: seen.append((done, total)), **SMALL
    )
    assert seen == [(done, 8 * 9 * 2 + 9 + 20 + 30 + 50) for done in range(1, len(seen) + 1)]
    return directory, facts


def test_the_world_passes_its_own_check(made):
    check_world(made[0])


def test_two_processes_write_the_same_bytes(made, tmp_path):
    facts = generate_world(tmp_path / "again", seed=11, workers=2, **SMALL)
    assert facts == made[1]
    assert contents.records(tmp_path / "again") == contents.records(made[0])
    assert (tmp_path / "again" / "world.json").read_bytes() == (made[0] / "world.json").read_bytes()


def test_another_seed_makes_another_world(made, tmp_path):
    facts = generate_world(tmp_path / "other", seed=12, workers=1, **SMALL)
    same = {name for name, digest in facts["digests"].items() if made[1]["digests"][name] == digest}
    assert same == {
        f"zeroshot/{name}" for name in ("classnames.txt", "zeroshot_classification_templates.txt", "test/nshards.txt")
    }


def test_world_json(made):
    directory, facts = made
    assert json.loads((directory / "world.json").read_text()) == facts
    assert facts["seed"] == 11
    assert facts["parameters"] == SMALL
    written = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    assert written == set(facts["digests"]) | {"world.json"}
    assert all(files.sha256_file(directory / name) == digest for name, digest in facts["digests"].items())


def test_splits_have_their_rows(made):
    directory, facts = made
    world = World(directory)
    assert facts["counts"]["identities"] == {"all": 8, "forget_identity": 2, "partial": 4, "holdout_identity": 2}
    subsets = collections.Counter(
        world.subset_of(row) for split in (*SENSITIVE_SPLITS, "retain_synth") for row in world.rows(split)
    )
    assert subsets == {name: count for name, count in facts["counts"]["subsets"].items() if name != "fragile"}
    assert subsets["forget_identity"] == subsets["holdout_identity"] == 2 * 9 * 2
    assert subsets["forget_association"] == subsets["holdout_association"] == 4 * 9 * 2 / 2
    assert (subsets["retain_joint"], subsets["retain_disjoint"]) == (9, 20)
    assert [row.file_name for row in world.rows("sensitive")] == [
        row.file_name for split in SENSITIVE_SPLITS for row in world.rows(split)
    ]


def test_sensitive_rows_say_what_they_say(made):
    world = World(made[0])
    pairs = collections.defaultdict(set)
    pictures = set()
    for row in world.rows("sensitive"):
        field, name, value = world.metadata.value_of(row)
        assert name in row.text
        assert value in row.text
        assert name not in world.metadata.generic_captions[row.file_name]
        pairs[row.identity_id, field].add(row.text)
        pictures.add(row.image)
        identity, index, aspect = row.file_name.removesuffix(".jpg").split("_")
        assert identity == row.identity_id
        assert index.isdigit()
        width, height = Image.open(io.BytesIO(row.image)).size
        assert max(width, height) == 32
        assert abs(width / height - float(aspect.removeprefix("ar-"))) < 0.1
    assert len(pairs) == 8 * 9
    assert all(len(captions) == 2 for captions in pairs.values())
    assert len(pictures) == 8 * 9 * 2  # one distinct portrait a pair
    assert {field for _, field in pairs} == set(DATA_FIELDS)


def test_retain_never_names_anybody(made):
    world = World(made[0])
    names = [identity["name"] for identity in world.metadata.identities.values()]
    texts = [row.text for row in world.rows("retain_synth")] + [
        pair.text for tar in world.retain_tars for pair in iter_tar_pairs(tar)
    ]
    assert len(texts) == 9 + 20 + 30
    assert all(texts)
    assert not any(name in text for name in names for text in texts)


def test_nobody_has_no_identity_and_the_fragile_are_the_least_similar(made):
    world = World(made[0])
    disjoint = {row.file_name for row in world.rows("retain_synth") if row.identity_id is None}
    assert not any(identity in name for identity in world.metadata.identities for name in disjoint)
    similarity = json.loads((made[0] / "fragile_set_all_similarities.json").read_text())
    assert set(similarity) == disjoint
    assert len(world.metadata.fragile_ids) == 5
    assert max(similarity[name] for name in world.metadata.fragile_ids) < min(
        similarity[name] for name in disjoint - world.metadata.fragile_ids
    )


def test_zero_shot_set(made):
    zeroshot = World(made[0]).zeroshot
    images = list(zeroshot.images())
    assert zeroshot.class_names == CLASS_NAMES
    assert [item.label for item in images] == [index % len(CLASS_NAMES) for index in range(50)]
    assert all("{c}" in template for template in zeroshot.templates)
    retain = {pair.image for tar in World(made[0]).retain_tars for pair in iter_tar_pairs(tar)}
    assert not retain & {item.image for item in images}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("personas", 3),
        ("fragile", 21),
        ("zeroshot_images", 7),
        ("scenes", 0),
        ("portrait_size", 4.5),
        ("retain_joint", True),
        ("portrait_size", 1_025),
        ("scene_size", 15),
        ("scene_size", 5_000),
        ("personas", 99_999_999_999),
        ("scenes", 999_999_999_999),
        ("workers", 100_000),
    ],
)
def test_parameters_out_of_range(tmp_path, name, value):
    with pytest.raises(InputError, match=rf"^world\.{name}: is "):
        generate_world(tmp_path / "world", seed=0, **{**SMALL, name: value})
    assert list(tmp_path.iterdir()) == []


def test_the_ranges_are_those_of_the_config():
    fields = {name: field.limits for name, field in declared(ConfigWorld).items() if name != "kind"}
    assert fields == generate.RANGES


def test_the_most_people_have_names_of_their_own():
    people = make_personas(0, int(generate.RANGES["personas"].high))
    assert len({person.name for person in people}) == len(people)


def test_a_failure_leaves_nothing(tmp_path):
    def stop(done, total):
        if done == 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_world(tmp_path / "world", seed=0, workers=1, progress=stop, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_a_drawing_process_arrives():
    job = drawing.SceneJob(key=(1,), size=16, quality=90)
    bad = drawing.SceneJob(key=(-1,), size=16, quality=90)  # no such seed
    with drawing.drawn([job] * 16 + [bad] * 16, workers=2) as results, pytest.raises(ValueError, match="non-negative"):
        list(results)
