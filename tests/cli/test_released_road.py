"""The README's road from the released files to the leaderboard, every command as it stands, on directories in released form.

What differs from the README is the size: few people and pictures, and tiny towers, whose architecture a config file beside
the weights has to say.
"""

import json
import re
import shlex
from pathlib import Path

import documents
import pytest
import released_form
from safetensors.numpy import save_file

from salmu_jax.cli import main
from salmu_jax.interop import open_clip
from salmu_jax.interop.mapping import to_state
from salmu_jax.models.clip import Clip
from salmu_jax.models.zoo import architecture
from salmu_jax.runtime import contents

ROOT = Path(__file__).parents[2]
SECTION = documents.section("README.md", "### The released data")
FETCH, *COMMANDS = documents.commands(SECTION)
DOWNLOADS = {
    re.search(r"--local-dir (\S+)", line)[1]: line.split()[2] for line in SECTION.splitlines() if line.startswith("hf ")
}
DOWNLOADS["data/salmubench-512-redistributed"] = "cvc-mmu/salmubench-512-redistributed"  # where `salmu fetch` puts it


def write_checkpoint(path: Path, seed: int) -> None:
    """A tiny OpenCLIP checkpoint under the released name, in the form that the name says."""
    import jax
    import torch

    config = architecture("tiny")
    params = jax.device_get(Clip(config).init(jax.random.key(seed)))
    state = to_state(params, open_clip.table(config))
    path.parent.mkdir(parents=True)
    if path.suffix == ".bin":
        torch.save({name: torch.from_numpy(array) for name, array in state.items()}, path)
    else:
        save_file(state, path)
    (path.parent / open_clip.CONFIG).write_text(json.dumps(open_clip.model_config(config)))


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    """The working directory of somebody who has run the README's ``salmu fetch`` and ``hf download`` commands."""
    here = tmp_path_factory.mktemp("road")
    splits, documents = released_form.released_world()
    for place, repository in DOWNLOADS.items():
        match repository:
            case "cvc-mmu/salmubench-512-redistributed":
                released_form.write_evaluation_repository(here / place, splits, documents)
            case "cvc-mmu/clip-vit-b-16-salmu-clean":
                write_checkpoint(here / place / "open_clip_model.safetensors", 1)
            case "cvc-mmu/clip-vit-b-16-salmu-compromised":
                write_checkpoint(here / place / "open_clip_pytorch_model.bin", 2)
            case "clip-benchmark/wds_imagenet1k":
                released_form.write_wds_imagenet(here / place)
            case _:
                raise AssertionError(f"the README downloads {repository}, which this test does not make")
    return here


def test_the_road_is_whole():
    """Import of both, build, evaluation of both, unlearning, evaluation, report, and verification."""
    assert FETCH == "salmu fetch --repository evaluation --output data"  # tests/pipelines/test_fetch.py runs it
    stages = [shlex.split(command)[1] for command in COMMANDS]
    assert stages == ["build", "import", "import", "evaluate", "unlearn", "evaluate", "report", "verify"]
    assert len(DOWNLOADS) == 4


FORMS = {
    "both repositories in one folder, timm's ImageNet": (
        lambda here, world: (
            released_form.write_training_repository(here / "data/both", *world),
            released_form.write_evaluation_repository(here / "data/both", *world),
        )[1],
        lambda here: released_form.write_timm_imagenet(here / "data/imagenet"),
    ),
    "both repositories side by side, ILSVRC2012_val in folders": (
        lambda here, world: (
            (
                released_form.write_training_repository(here / "data/salmu-512-redistributed", *world),
                released_form.write_evaluation_repository(here / "data/salmubench-512-redistributed", *world),
            )[1].parent
        ),
        lambda here: released_form.write_imagenet_folders(here / "imagenet"),
    ),
    "the caches of the hub": (
        lambda here, world: released_form.as_hub_cache(
            released_form.write_evaluation_repository(here / "a", *world), here / "cache", "cvc-mmu/salmubench"
        ),
        lambda here: released_form.as_hub_cache(
            released_form.write_wds_imagenet(here / "b"), here / "cache", "clip-benchmark/wds_imagenet1k"
        ),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_built_is_the_same_in_every_form_of_the_download(form, downloads, tmp_path, monkeypatch, capfd):
    """So that the rest of the road is the same, too."""
    monkeypatch.chdir(downloads)
    (build,) = [command for command in COMMANDS if command.startswith("salmu build ")]
    build = build.replace("configs/unlearn_vitb16.py", str(ROOT / "tests" / "cli" / "released_tiny.py"))
    assert main([*shlex.split(build)[1:]]) == 0, capfd.readouterr().err
    world, imagenet = FORMS[form]
    monkeypatch.chdir(tmp_path)
    options = ["--world-dir", str(world(tmp_path, released_form.released_world()))]
    options.append(f"--config.zeroshot_dir={imagenet(tmp_path)}")
    assert main([*shlex.split(build)[1:], *options]) == 0, capfd.readouterr().err
    ours, theirs = (
        contents.data_digests(contents.read_contents(place / "runs/vitb16/datasets")) for place in (tmp_path, downloads)
    )
    assert ours["salmu"] == theirs["salmu"]
    assert (ours["zeroshot"] == theirs["zeroshot"]) == (form == "the caches of the hub")


def test_every_command_runs_as_it_stands(downloads, monkeypatch, capfd):
    monkeypatch.chdir(downloads)
    for command in COMMANDS:
        command = command.replace("configs/unlearn_vitb16.py", str(ROOT / "tests" / "cli" / "released_tiny.py"))
        assert main(shlex.split(command)[1:]) == 0, (command, capfd.readouterr().err)
    run = Path("runs/vitb16")
    board = json.loads((run / "report" / "leaderboard.json").read_text())
    assert [row["model"] for row in board["rows"]] == ["clean", "compromised", "delete"]
    result = json.loads((run / "results" / "delete.json").read_text())
    manifest = json.loads((run / "models" / "compromised" / "manifest.json").read_text())
    assert result["provenance"]["checkpoint"]["parent"] == manifest["digest"]
    assert result["protocol"]["rows"]["forget"] == 48
    assert result["protocol"]["genknow"]["classes"] == 12
    assert (run / "report" / "models" / "delete.html").is_file()
    assert "models/delete.html" in (run / "report" / "index.html").read_text()
    # bench has nothing to train: it starts from the imported models.
    config = str(ROOT / "tests" / "cli" / "released_tiny.py")
    methods = "--config.unlearn.methods={'delete': {'epochs': 0.5, 'batch_size': 16}}"
    capfd.readouterr()
    assert main(["bench", "--config", config, methods]) == 0, capfd.readouterr().err
    said = capfd.readouterr().out
    assert "step" not in said
    assert said.count("was imported") == 2
    assert said.count("reused") == 6  # build, three evaluations, delete, the report
