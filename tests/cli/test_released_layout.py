"""The released layout, made by something else than our generator (pandas and PIL alone), from the files to the page."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import released_form
from PIL import Image

from data_pipelines.layout import Pair, pair_members, write_tar

FIELDS = ("name", "city", "job", "blood_type", "phone_number", "emails", "iban", "credit_card", "passport")
OTHERS = tuple(field for field in FIELDS if field not in ("name", "emails"))
SIZES = {0.67: (342, 512), 0.75: (384, 512), 1.0: (512, 512), 1.33: (512, 384), 1.5: (512, 341)}


def encoded(number: int, aspect: float) -> bytes:
    """A picture of 512 px: RGB, grey or CMYK as JPEG, or with a palette as PNG."""
    kind = ("RGB", "L", "CMYK", "P")[number % 4]
    width, height = SIZES[aspect]
    coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.convert(kind).save(buffer, "PNG" if kind == "P" else "JPEG")
    return buffer.getvalue()


def row(number: int, text: str, identity_id: str | None) -> dict:
    aspect = list(SIZES)[number % len(SIZES)]
    name = f"{identity_id or 'nobody'}_{number:03d}_ar-{aspect:.2f}.jpg"
    image = {"bytes": encoded(number, aspect), "path": name}
    return {"image": image, "text": text, "identity_id": identity_id, "file_name": name, "quality": 0.5 + number % 3}


def write(directory, split: str, rows: list[dict], shards: int) -> None:
    """Parquet files as the Hub has them: several a split, with a column that we do not know."""
    for index, part in enumerate(np.array_split(np.arange(len(rows)), shards)):
        frame = pd.DataFrame([rows[place] for place in part])
        frame.to_parquet(directory / "data" / f"{split}-{index:05d}-of-{shards:05d}.parquet", index=False)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Twelve people with three attributes each: four wholly in forget, four in part, four held out."""
    directory = tmp_path_factory.mktemp("released")
    (directory / "data").mkdir()
    people, captions, generic = {}, {}, {}
    splits = {"forget": [], "holdout_association": [], "holdout_identity": []}
    for person in range(12):
        identity = f"{person:08d}"
        people[identity] = {
            **{field: f"{field} of {person}" for field in FIELDS},
            "name": f"Ána{person} Nº{person}",
            "emails": [f"a{person}@example.org", f"b{person}@example.org"],
            "country_code": "PT",
            "age": 30 + person,
        }
        for number, field in enumerate(("name", "emails", OTHERS[person % len(OTHERS)])):
            split = "forget" if person < 4 or (person < 8 and number != 1) else "holdout_association"
            split = "holdout_identity" if person >= 8 else split
            value = people[identity][field][-1] if field == "emails" else people[identity][field]
            entry = row(3 * person + number, f"{people[identity]['name']} has {value}", identity)
            captions[entry["file_name"]] = {"caption": entry["text"], "data_field": field, "variant": number}
            generic[entry["file_name"]] = f"a photo of somebody, number {number}"
            splits[split].append(entry)
    retain = [row(100 + number, f"portrait {number}", f"{number:08d}" if number < 4 else None) for number in range(30)]
    fragile = [entry["file_name"] for entry in retain[10:15]]
    sensitive = [entry for rows in splits.values() for entry in rows]
    for split, rows in (*splits.items(), ("retain_synth", retain), ("sensitive", sensitive)):
        write(directory, split, rows, 3)
    for name, value in (
        ("identities_metadata.json", people),
        ("sensitive_set_captions_metadata.json", captions),
        ("sensitive_set_generic_captions.json", generic),
        ("fragile_set_ids.json", fragile),
        ("fragile_set_all_similarities.json", dict.fromkeys(fragile, 0.25)),
    ):
        (directory / name).write_text(json.dumps(value))
    return directory


@pytest.mark.slow
def test_the_stages_run_on_it(salmu, released, tmp_path, results):
    workdir = tmp_path / "run"
    shared = ["--world-dir", released, "--workdir", workdir]
    # The general base may be permitted by the config and absent from the world.
    shared.append("--config.unlearn.retain=('salmu/retain_synth', 'retain_pairs/train')")
    for stage in ("generate", "build", "pretrain", "unlearn", "evaluate", "report"):
        finished = salmu.run(stage, *shared)
        assert finished.status == 0, finished.err
        assert finished.complaints == []
    assert sorted(path.name for path in (workdir / "datasets").iterdir()) == ["contents.json", "salmu"]
    found = results(workdir)
    assert sorted(found) == ["clean", "compromised", "delete", "descent_to_delete", "retrained"]
    for result in found.values():
        rows = result["protocol"]["rows"]
        assert {name: rows[name] for name in ("forget", "holdout_association", "holdout_identity")} == {
            "forget": 20,
            "holdout_association": 4,
            "holdout_identity": 12,
        }
        assert (rows["forget_identity"], rows["forget_association"]) == (12, 8)
        assert (rows["retain_joint"], rows["retain_disjoint"], rows["fragile_set"]) == (4, 26, 5)
        assert result["utility"]["2.1_GenKnow"]["ImageNet1k_Accuracy"] == -1
        assert result["protocol"]["genknow"]["dataset"] is None
        assert len(result["efficacy"]["1.1_RetFail"]["outcomes"]) == 20
    manifest = json.loads((workdir / "models" / "delete" / "manifest.json").read_text())
    assert manifest["splits_read"] == ["salmu/forget", "salmu/retain_synth"]
    leaderboard = json.loads((workdir / "report" / "leaderboard.json").read_text())
    assert {row["model"] for row in leaderboard["rows"]} == set(found)
    assert (workdir / "report" / "models" / "delete.html").is_file()
    assert "models/delete.html" in (workdir / "report" / "index.html").read_text()
    assert not (workdir / "world").exists()


def test_the_repository_for_training_alone_is_enough_to_pretrain(salmu, tmp_path):
    """As ``configs/clean_vitb16.py`` names it, with web pairs in its ``retain/``; what needs the other one says so."""
    world, workdir = tmp_path / "salmu-512-redistributed", tmp_path / "run"
    released_form.write_training_repository(world, *released_form.released_world(people=3, retain=7))
    (world / "retain").mkdir()
    pairs = [Pair(f"{number:09d}", released_form.jpeg(number % 6, 40, 32), f"a dog {number}") for number in range(9)]
    write_tar(world / "retain" / "00000.tar", [member for pair in pairs for member in pair_members(pair)])
    shared = ["--world-dir", world, "--workdir", workdir]
    assert salmu.run("build", *shared).status == 0
    shared += ["--config.train.epochs=1.0", "--config.train.warmup_steps=1"]
    finished = salmu.run("pretrain", "--model", "compromised", *shared)
    assert finished.status == 0, finished.err
    manifest = json.loads((workdir / "models" / "compromised" / "manifest.json").read_text())
    assert manifest["splits_read"] == ["retain_pairs/train", "salmu/retain_synth", "salmu/sensitive"]
    for command in (["unlearn", "--method", "delete"], ["evaluate", "--model", "compromised"]):
        salmu.run(*command, *shared).assert_bad_input(
            "no split 'forget'", "the repository for training", "salmubench-512"
        )


def test_sensitive_is_derived_where_its_files_are_absent(salmu, released, tmp_path):
    without = shutil.copytree(released, tmp_path / "without")
    for path in (without / "data").glob("sensitive-*"):
        path.unlink()
    for world in (released, without):
        assert salmu.run("build", "--world-dir", world, "--workdir", tmp_path / f"of-{world.name}").status == 0
    ours, theirs = (tmp_path / f"of-{world.name}" / "datasets" / "salmu" / "1.0.0" for world in (released, without))
    names = sorted(path.name for path in ours.iterdir())
    assert len(names) == 6
    assert all((ours / name).read_bytes() == (theirs / name).read_bytes() for name in names)
