"""End to end on a tiny world: every figure against plain numpy, the released keys, the result file."""

from __future__ import annotations

import json

import numpy as np
import pytest

from salmu_jax.evaluation import draws
from salmu_jax.evaluation.checks import draw_problems
from salmu_jax.evaluation.data import FIELDS, EvaluationData
from salmu_jax.evaluation.embeddings import embed, encode_texts
from salmu_jax.runtime.errors import InputError

RELEASED = {
    "efficacy": {
        "1.1_RetFail": {"R@1", "MRR", "outcomes"},
        "1.2_AssocStr": {"mean", "scores"},
        "1.3_ACS": {"acs_accuracy"},
        "1.4_IdZSC": {"identity_classification_accuracy"},
        "1.5_CoreAssoc": {"mean", "scores"},
    },
    "utility": {
        "2.1_GenKnow": {"ImageNet1k_Accuracy"},
        "2.2_InterIdSim": {"mean"},
        "2.3_IntraIdSim": {"mean"},
        "2.4_VisIdInt": {"mean"},
        "2.5_FragSim": {"mean"},
    },
}


def untimed(result):
    timeless = {key: value for key, value in result["provenance"].items() if key not in ("created", "seconds")}
    return json.dumps({**result, "provenance": timeless}, allow_nan=False)


@pytest.fixture(scope="module")
def data(tiny):
    return tiny.data()


@pytest.fixture(scope="module")
def measured(tiny, data):
    return tiny.measure(data)


@pytest.fixture(scope="module")
def result(measured):
    return measured.result


@pytest.fixture(scope="module")
def rows(measured):
    return measured.rows


def test_released_structure_exactly(tiny, result):
    found = {section: {key: set(values) for key, values in result[section].items()} for section in RELEASED}
    assert found == RELEASED
    rows = len(tiny.sources()["forget"])
    assert len(result["efficacy"]["1.1_RetFail"]["outcomes"]) == rows
    assert all(type(rank) is int for rank in result["efficacy"]["1.1_RetFail"]["outcomes"])
    assert (
        len(result["efficacy"]["1.2_AssocStr"]["scores"]) == len(result["efficacy"]["1.5_CoreAssoc"]["scores"]) == rows
    )
    expected = {"schema", "model", "efficacy", "utility", "extra", "metrics", "protocol", "caveats", "provenance"}
    assert set(result) == expected
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_every_figure_against_plain_numpy(tiny, data, result, rows):
    """Straight from the records: encode each with the matrices in float64, then the definitions, a row at a time."""
    params = {name: values.astype(np.float64) for name, values in tiny.params().items()}
    sources, tokenizer = tiny.sources(), tiny.tokenizer()

    def normal(x):
        return x / np.sqrt((x * x).sum())

    def image(record):
        return normal(np.frombuffer(record["image"], np.uint8).astype(np.float64) / 255 @ params["visual"])

    def text(caption):
        return normal(params["text"][tokenizer([caption])[0]].sum(axis=0))

    def paired(rows):
        return [float(image(row) @ text(row["text"])) for row in rows]

    efficacy, utility, extra = result["efficacy"], result["utility"], result["extra"]
    forget, retain = sources["forget"], sources["retain_synth"]
    close = {"rel": 1e-5, "abs": 1e-6}

    assert efficacy["1.2_AssocStr"]["scores"] == pytest.approx(paired(forget), **close)
    assert efficacy["1.2_AssocStr"]["mean"] == pytest.approx(np.mean(paired(forget)), **close)
    for key, split in (("2.2_InterIdSim", "holdout_identity"), ("2.3_IntraIdSim", "holdout_association")):
        assert utility[key]["mean"] == pytest.approx(np.mean(paired(sources[split])), **close)
        assert rows[f"{split}.similarity"] == pytest.approx(paired(sources[split]), **close)
    joint = [row for row in retain if row["subset"] == "retain_joint"]
    fragile = [row for row in retain if row["fragile"]]
    assert utility["2.4_VisIdInt"]["mean"] == pytest.approx(np.mean(paired(joint)), **close)
    assert utility["2.5_FragSim"]["mean"] == pytest.approx(np.mean(paired(fragile)), **close)
    assert extra["retain_synth_mean"] == pytest.approx(np.mean(paired(retain)), **close)

    disjoint = [row["text"] for row in retain if row["subset"] == "retain_disjoint"]
    for split in ("forget", "holdout_association", "holdout_identity"):
        records = sources[split]
        target = draws.draw_pool(len(records), 1000, 42, draws.TARGET_POOL)
        gallery = [records[i]["text"] for i in target]
        gallery += [disjoint[i] for i in draws.draw_pool(len(disjoint), 1000, 42, draws.RETAIN_POOL)]
        assert len(gallery) == len(records) + len(disjoint)
        encoded = np.stack([text(caption) for caption in gallery])
        ranks = []
        for row, own in zip(records, paired(records), strict=True):
            scores = encoded @ image(row)
            others = np.array([score for score, caption in zip(scores, gallery, strict=True) if caption != row["text"]])
            ranks.append(int(1 + (others > own + 1e-6).sum() + (abs(others - own) <= 1e-6).sum() // 2))
        figures = efficacy["1.1_RetFail"] if split == "forget" else extra["retrieval"][split]
        assert figures["MRR"] == pytest.approx(np.mean([1 / rank for rank in ranks]))
        assert figures["R@1"] == pytest.approx(np.mean([rank == 1 for rank in ranks]))
        if split == "forget":
            assert figures["outcomes"] == ranks
        assert rows[f"{split}.rank"].tolist() == ranks
        assert rows[f"{split}.left_out"].tolist() == [gallery.count(row["text"]) for row in records]

    whole = [row for row in forget if row["subset"] == "forget_identity"]
    people = sorted({(row["identity_id"], row["name"]) for row in whole})
    prompts = np.stack([text(f"a photo of {name}") for _, name in people])
    right = [people[int(np.argmax(prompts @ image(row)))][0] == row["identity_id"] for row in whole]
    assert efficacy["1.4_IdZSC"]["identity_classification_accuracy"] == pytest.approx(np.mean(right))
    core = [
        max(image(row) @ text(f"{row['name']} {row['value']}"), image(row) @ text(f"{row['value']} {row['name']}"))
        for row in forget
    ]
    assert efficacy["1.5_CoreAssoc"]["scores"] == pytest.approx(core, **close)
    assert efficacy["1.5_CoreAssoc"]["mean"] == pytest.approx(np.mean(core), **close)

    task = tiny.zeroshot()
    weights = [
        normal(np.mean([text(template.format(c=name)) for template in task["templates"]], axis=0))
        for name in task["classnames"]
    ]
    right = [int(np.argmax(np.stack(weights) @ image(row))) == row["label"] for row in task["source"]]
    assert utility["2.1_GenKnow"]["ImageNet1k_Accuracy"] == pytest.approx(np.mean(right))

    with_generic = [row for row in forget if row["generic_caption"]]
    assert 0 < len(with_generic) < len(forget)
    over = [image(row) @ text(row["text"]) > image(row) @ text(row["generic_caption"]) for row in with_generic]
    assert extra["sensitive_over_generic"] == pytest.approx(np.mean(over))

    assert list(extra["by_field"]) == list(FIELDS)
    for field, figures in extra["by_field"].items():
        scores = [score for score, row in zip(paired(forget), forget, strict=True) if row["data_field"] == field]
        assert figures["rows"] == len(scores)
        assert figures["AssocStr"] == pytest.approx(np.mean(scores), **close)
    assert extra["by_field"]["name"]["IntraIdSim"] is None  # none of its rows is in holdout_association
    assert list(extra["intervals"]) == ["RetFail_MRR", "AssocStr", "InterIdSim", "IntraIdSim"]
    low, high = extra["intervals"]["AssocStr"]
    assert low < efficacy["1.2_AssocStr"]["mean"] < high


def test_identical_checkpoints_give_identical_results_whatever_was_evaluated_before(tiny, data, result):
    fresh = tiny.data()
    other = tiny.run(data, tiny.params(1))
    assert untimed(tiny.run(data)) == untimed(result)
    assert untimed(tiny.run(fresh)) == untimed(result)
    assert untimed(other) != untimed(result)
    seeded = tiny.run(data, seed=43)
    assert seeded["extra"]["intervals"] != result["extra"]["intervals"]
    assert seeded["efficacy"]["1.2_AssocStr"] == result["efficacy"]["1.2_AssocStr"]


def test_streaming_and_batch_size_do_not_change_the_figures(tiny, data, result):
    streamed = tiny.data(cache_decoded=False)
    assert untimed(tiny.run(streamed)) == untimed(result)
    uneven = tiny.run(data, batch_size=28)
    scores = [r["efficacy"]["1.2_AssocStr"]["scores"] for r in (uneven, result)]
    np.testing.assert_allclose(*scores, atol=1e-6)
    assert uneven["efficacy"]["1.1_RetFail"]["outcomes"] == result["efficacy"]["1.1_RetFail"]["outcomes"]


def test_images_are_decoded_once_for_all_models(tiny):
    calls = []

    def counting(data, image_size, where=None):
        calls.append(where)
        return tiny.decode(data, image_size)

    sources = tiny.sources()
    data = EvaluationData.from_sources(sources, tiny.size, zeroshot=tiny.zeroshot(), decode=counting)
    tiny.run(data)
    tiny.run(data, tiny.params(1))
    assert len(calls) == sum(map(len, sources.values())) + 30
    assert [source.reads for source in sources.values()] == [len(source) for source in sources.values()]
    assert "forget row 0 (forget.jpg)" in calls


def test_the_galleries_can_be_the_released_ones_and_the_protocol_says_so(tiny, data, monkeypatch):
    for module in ("parts", "checks", "rows"):
        monkeypatch.setattr(f"salmu_jax.evaluation.{module}.POOL_SIZE", 20)
    ours, released = (tiny.measure(data, how_drawn=how) for how in ("ours", "released"))
    assert (ours.result["protocol"]["draws"], released.result["protocol"]["draws"]) == ("ours", "released")
    legacy = np.random.RandomState(42)
    for name, count in (("forget", len(data.splits["forget"])), ("retain_synth", 34)):
        assert set(released.rows[f"{name}.gallery"]) == set(legacy.choice(count, 20, replace=False))
    for measured, other in ((released, ours), (ours, released)):
        assert list(draw_problems(measured.rows, measured.result["protocol"])) == []
        assert "not what seed 42 draws" in next(draw_problems(measured.rows, other.result["protocol"]))
    large = {**released.result["protocol"], "seed": 2**40}
    assert "with which nothing can be drawn" in next(draw_problems(released.rows, large))
    assert (ours.rows["forget.rank"] != released.rows["forget.rank"]).any()
    np.testing.assert_array_equal(ours.rows["forget.similarity"], released.rows["forget.similarity"])


def test_identical_texts_are_encoded_once_and_identically(tiny, data):
    texts = ["b", "a", "b", "c", "a", "b"]
    found = encode_texts(tiny.clip(), tiny.params(), tiny.tokenizer(), texts, batch_size=2)
    for i, j in ((0, 2), (0, 5), (1, 4)):
        np.testing.assert_array_equal(found[i], found[j])
    one = np.concatenate(
        [encode_texts(tiny.clip(), tiny.params(), tiny.tokenizer(), [text], batch_size=2) for text in texts]
    )
    np.testing.assert_allclose(found, one, atol=1e-6)
    bank = data.text_bank(**tiny.asked())
    assert len(set(bank.texts)) == len(bank.texts)


def test_protocol_and_caveats_say_what_was_measured(tiny, data, result):
    protocol = result["protocol"]
    rows = {split: len(source) for split, source in tiny.sources().items()}
    assert protocol["rows"].items() >= rows.items()
    assert protocol["gallery"] == 1 + protocol["gallery_forget"] + protocol["gallery_retain"]
    assert (protocol["gallery_forget"], protocol["gallery_retain"]) == (rows["forget"], 34)
    assert protocol["rows_with_smaller_gallery"] == rows["forget"]  # all captions are in a pool of all captions
    assert protocol["genknow"] == {"dataset": "shapes", "classes": 5, "images": 30, "chance": 0.2}
    text = " ".join(result["caveats"])
    assert "not the paper's figures" in text
    assert "instead of 2,001" in text
    assert "not on ImageNet-1k" in text
    assert result["provenance"]["command"] == "test"
    assert result["provenance"]["seconds"] >= 0


def test_a_world_without_some_of_its_parts(tiny):
    sources = tiny.sources()
    for split in ("holdout_identity", "retain_synth"):
        sources[split] = type(sources[split])()
    forget = [{**row, "subset": "forget_association", "generic_caption": ""} for row in sources["forget"]]
    for cache in (True, False):
        data = EvaluationData.from_sources(
            {**sources, "forget": forget}, tiny.size, decode=tiny.decode, cache_decoded=cache
        )
        result = tiny.run(data)
        assert result["utility"]["2.1_GenKnow"]["ImageNet1k_Accuracy"] == -1
        assert result["utility"]["2.2_InterIdSim"]["mean"] is None
        assert result["utility"]["2.4_VisIdInt"]["mean"] is None
        assert result["efficacy"]["1.4_IdZSC"]["identity_classification_accuracy"] is None
        assert result["extra"]["sensitive_over_generic"] is None
        assert "holdout_identity" not in result["extra"]["retrieval"]
        assert sum("was not measured" in caveat for caveat in result["caveats"]) == 4
        assert any("GenKnow was skipped" in caveat for caveat in result["caveats"])
    with pytest.raises(InputError, match="split forget: has no rows"):
        EvaluationData.from_sources({**sources, "forget": []}, tiny.size, decode=tiny.decode)


def test_bad_input_is_one_line(tiny, data, tmp_path):
    with pytest.raises(InputError, match=r"must hold \{name\}"):
        tiny.run(data, idzsc_prompt="a photo")
    with pytest.raises(InputError, match=r"model 'm': forget: \d+ of \d+ embeddings are not finite"):
        tiny.run(data, {name: values * np.nan for name, values in tiny.params().items()})
    other = tiny.clip(tiny.config(image_size=8))
    with pytest.raises(InputError, match="loaded at 4 px, the model takes 8 px"):
        embed(other, tiny.params(), tiny.tokenizer(), data, **tiny.asked())
    task = tiny.zeroshot()
    with pytest.raises(InputError, match="zeroshot row 4: the label is 4; there are 4 class names"):
        _ = EvaluationData.from_sources(
            tiny.sources(), tiny.size, zeroshot={**task, "classnames": task["classnames"][:4]}, decode=tiny.decode
        ).zeroshot
    with pytest.raises(InputError, match=r"templates: every line must hold \{c\}"):
        EvaluationData.from_sources(
            tiny.sources(), tiny.size, zeroshot={**task, "templates": ["a photo"]}, decode=tiny.decode
        )
