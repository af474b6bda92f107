"""``salmu generate`` with a config of the kind 'full': its options, what it reuses, and what it refuses."""

from __future__ import annotations

import json

import pytest
from noise_portraits import NoiseSource
from random_models import write_model

from configs import salmu_full
from data_pipelines.full.sizes import PAIRS, sizes_of
from salmu_jax import cli, full_world
from salmu_jax.runtime.errors import InputError

CONFIG = "configs/salmu_full.py"


@pytest.fixture
def generate(patched_curation, monkeypatch, tmp_path, capsys):
    """A function that runs the command with portraits of noise, and returns (status, what it printed)."""
    monkeypatch.setattr(full_world, "_source", lambda config, full, anchors: NoiseSource(anchors))

    def run(*options):
        status = cli.main(["generate", "--config", CONFIG, "--workdir", str(tmp_path / "run"), *options])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


def test_it_makes_a_world_in_proportion_and_reuses_it(generate, tmp_path):
    options = ("--people", "8", "--workers", "1", "--config.full.anchors=12", "--config.full.variants=5")
    status, printed = generate(*options)
    assert status == 0, printed
    counts = json.loads((tmp_path / "run" / "world" / "world.json").read_text())["counts"]
    sizes = sizes_of(8)
    assert counts["subsets"] == {**sizes.pairs, "fragile": sizes.fragile}
    assert f"{sizes.pairs['forget_identity']:,} forget_identity" in printed
    status, printed = generate(*options, "--workers", "2")  # which changes nothing
    assert status == 0
    assert printed.startswith("generate: reused")

    write_model(tmp_path / "model", "tiny")
    status, printed = generate(*options, "--fragile-model", str(tmp_path / "model"))
    assert status == 0, printed
    assert "full.fragile_model none -> " in printed or "full.fragile_model" in printed
    world = json.loads((tmp_path / "run" / "world" / "world.json").read_text())
    assert world["fragile_rule"].startswith(
        "those whose picture and caption have the lowest cosine similarity to the model "
    )
    similarities = json.loads((tmp_path / "run" / "world" / "fragile_set_all_similarities.json").read_text())
    assert len(set(similarities.values())) > 100
    assert all(-1 <= value <= 1 for value in similarities.values())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--people", "3"), "field 'full.people' is 3, but has to be"),
        (("--images", "nowhere"), "nowhere: no such directory"),
        (("--images", "tests"), "full.images and full.reference: go together"),
        (("--fragile-model", "nowhere"), "nowhere: no such model"),
        (("--config.world.personas=96",), "world.personas: is 96, but world.kind is 'full', whose fields are those"),
        (("--config.world.kind=small",), "full.people: is 12, but world.kind is 'small'"),
        (("--config.full.zeroshot_images=3",), "zeroshot_images: is 3; 0, or 48 or more would be right"),
        (
            ("--config.full.scenes=4", "--config.world.scene_size=3"),
            "field 'world.scene_size' is 3, but has to be 16 to",
        ),
        (("--config.world.portrait_size=1024",), "world.portrait_size: is 1024; 512 or less would be right"),
        (("--workers", "-1"), "field 'world.workers' is -1, but has to be 0 to 1,024"),
        (("--workers", "100000"), "field 'world.workers' is 100000, but has to be 0 to 1,024"),
        (("--config.full.encoder=/nope.npz",), "/nope.npz: is not a file of a face encoder's weights"),
        (("--config.full.encoder=os:system",), "encoder 'os:system': is no function without arguments"),
        (("--paraphrases", "README.md"), "README.md line 1: not JSON"),
        (
            ("--paraphrases", "{empty}"),
            "0 identities with 12 or more captions of each of the 9 attributes; 12 are needed",
        ),
        (("--config.full.anchors=12",), "anchors: is 12, for 12 people; more are needed"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_before_anything_is_made(generate, tmp_path, options, line):
    (tmp_path / "empty").touch()
    status, printed = generate("--people", "12", *(option.format(empty=tmp_path / "empty") for option in options))
    assert status == 2
    assert line in printed
    assert not (tmp_path / "run" / "images").exists()


def test_the_config_is_of_the_published_size():
    config = salmu_full.get_config()
    assert sizes_of(config.full.people, config.full.anchors).pairs == PAIRS
    assert config.world.portrait_size == 512
    assert not config.world_dir


def test_fields_of_the_other_kind_are_refused_even_by_name():
    config = salmu_full.get_config()
    config.world.fragile = 3
    with pytest.raises(InputError, match=r"world\.fragile: is 3"):
        full_world._check_unused(config, "world", full_world.declared(full_world.World), full_world._OF_BOTH, "")
