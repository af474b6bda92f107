"""The same world through the real path (released layout, TFDS, real CLIP and tokenizer) and from records in memory."""

from __future__ import annotations

import io
import json

import jax
import numpy as np
import pytest
from PIL import Image

from data_pipelines.builders import build_datasets
from data_pipelines.layout import DATA_FIELDS, LabelledImage, SplitWriter, names, write_zeroshot
from salmu_jax.evaluation.data import FIELDS, EvaluationData
from salmu_jax.evaluation.loading import load_evaluation_data
from salmu_jax.evaluation.protocol import evaluate
from salmu_jax.evaluation.rows import SUBSETS
from salmu_jax.models.clip import Clip, ClipConfig, TowerConfig
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.runtime.errors import InputError

PIXELS = 8


def png(pixels: bytes, size: int) -> bytes:
    image = Image.fromarray(np.frombuffer(pixels, np.uint8).reshape(size, size, 3)).resize((14, 11))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def sources(tiny):
    """The tiny world with real images and file names of its own."""
    numbered = {
        split: [
            {**row, "image": png(row["image"], tiny.size), "file_name": f"{split}_{i}.jpg"}
            for i, row in enumerate(rows)
        ]
        for split, rows in tiny.sources().items()
    }
    for row in numbered["retain_synth"]:
        row["value"] = ""
    return numbered


@pytest.fixture(scope="module")
def zeroshot(tiny):
    task = tiny.zeroshot()
    source = [{**row, "image": png(row["image"], tiny.size)} for row in task["source"]]
    return {**task, "source": source, "dataset": "shapes"}


@pytest.fixture(scope="module")
def datasets(sources, zeroshot, tmp_path_factory):
    world = tmp_path_factory.mktemp("world")
    identities, captions, generic, fragile = {}, {}, {}, []
    for split, rows in sources.items():
        with SplitWriter(world, split, len(rows)) as writer:
            for row in rows:
                writer.add(row["image"], row["text"], row["identity_id"] or None, row["file_name"])
                if row["data_field"]:
                    person = identities.setdefault(row["identity_id"], {"name": row["name"]})
                    person[row["data_field"]] = [row["value"]] if row["data_field"] == "emails" else row["value"]
                    captions[row["file_name"]] = {"caption": row["text"], "data_field": row["data_field"]}
                if row["generic_caption"]:
                    generic[row["file_name"]] = row["generic_caption"]
                if row["fragile"]:
                    fragile.append(row["file_name"])
    for name, value in {
        "identities_metadata": identities,
        "sensitive_set_captions_metadata": captions,
        "sensitive_set_generic_captions": generic,
        "fragile_set_ids": fragile,
    }.items():
        (world / f"{name}.json").write_text(json.dumps(value))
    images = [LabelledImage(key=row["key"], image=row["image"], label=row["label"]) for row in zeroshot["source"]]
    write_zeroshot(world / "zeroshot", zeroshot["classnames"], zeroshot["templates"], images)
    out = tmp_path_factory.mktemp("built") / "datasets"
    build_datasets(world, out, check=False)
    return out


@pytest.mark.parametrize("cache_decoded", [True, False])
def test_built_datasets_give_the_result_of_the_records(datasets, sources, zeroshot, cache_decoded):
    tower = TowerConfig(width=16, layers=1, heads=2)
    tokenizer = ClipTokenizer(num_merges=300, context_length=24)
    config = ClipConfig(
        embed_dim=16, image_size=PIXELS, patch_size=4, vision=tower, text=tower, context_length=24,
        vocab_size=tokenizer.vocab_size,
    )  # fmt: skip
    clip = Clip(config)
    params = jax.jit(clip.init)(jax.random.key(0))
    loaded = load_evaluation_data(datasets, PIXELS, cache_decoded=cache_decoded, zeroshot_name="shapes")
    direct = EvaluationData.from_sources(sources, PIXELS, zeroshot=zeroshot)
    assert loaded.splits["forget"].text == direct.splits["forget"].text
    results = []
    for data in (loaded, direct):
        result = evaluate(
            clip, params, tokenizer, data, model_name="m", batch_size=32, bootstrap=20, provenance={}
        ).result
        results.append({**result, "provenance": None})
    assert results[0] == results[1]
    assert results[0]["protocol"]["genknow"]["dataset"] == "shapes"
    assert results[0]["protocol"]["rows"]["forget_identity"] == 81


def test_the_names_of_fields_and_subsets_are_those_of_the_layout():
    assert FIELDS == DATA_FIELDS
    assert SUBSETS == names.SUBSETS


def test_missing_datasets_and_undecodable_images_are_one_line(sources, tmp_path):
    with pytest.raises(InputError, match="no dataset 'salmu' here"):
        load_evaluation_data(tmp_path, PIXELS)
    rows = [*sources["forget"][:2], {**sources["forget"][2], "image": b"no image"}, *sources["forget"][3:]]
    with pytest.raises(InputError, match=r"forget row 2 \(forget_2.jpg\)"):
        _ = EvaluationData.from_sources({**sources, "forget": rows}, PIXELS).splits
    streamed = EvaluationData.from_sources({**sources, "forget": rows}, PIXELS, cache_decoded=False)
    with pytest.raises(InputError, match=r"forget row 2 \(forget_2.jpg\)"):
        streamed.images["forget"].batch(0, 4)
