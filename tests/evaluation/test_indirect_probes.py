"""The probes of other words: planted models get the planted leak, and every figure equals a transcription in float64."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from worded import METRICS_AND_PROBES, facts, model, settings, worded_data

from salmu_jax.config_fields import declared
from salmu_jax.evaluation import draws
from salmu_jax.evaluation.protocol import describe_protocol, make_result, score_rows
from salmu_jax.evaluation.registry import BY_KEY, METRICS, PROBES, chosen
from salmu_jax.evaluation.result import load_result, write_result
from salmu_jax.evaluation.rewording import paraphrases
from salmu_jax.evaluation.verify import verify_results
from salmu_jax.runtime.errors import InputError

WORDS = ("paraphrase", "unseen", "bare", "value", "name", "partial")
FORMS = {"short": 1, "full": 8}


@pytest.fixture(scope="module")
def data():
    return worded_data()


def values(data, embeddings, form="short"):
    """The value of every probe metric of a model."""
    rows = score_rows(data, embeddings, settings(form), METRICS_AND_PROBES)
    protocol = describe_protocol(data, rows, settings(form), METRICS_AND_PROBES, bootstrap=20)
    return {metric.key: metric.value(rows, protocol) for metric in METRICS_AND_PROBES}


@pytest.mark.parametrize("form", FORMS)
def test_planted_models_leak_in_the_words_that_they_know(data, form):
    def leak(*knows):
        found = values(data, model(data, knows, settings(form)), form)
        return [found["RetFail_MRR"], found["IndirectLeak"]]

    chance = 0.2  # of a random order: some 130 captions, and for names a few people among whom one is often first
    assert max(leak()) < chance
    literal, indirect = leak("literal")
    assert literal == pytest.approx(0.5 + 0.5 / 2, abs=0.26)  # rank 1, or 2 behind the association's other caption
    assert indirect < chance
    assert min(leak("literal", *WORDS)) > 0.5
    for known in WORDS:  # the largest counts, whichever it is
        literal, indirect = leak(known)
        assert literal < chance
        assert indirect > 0.5


def test_each_form_measures_its_own_words(data):
    for known in WORDS:
        found = values(data, model(data, [known]))
        high = {key for key in found if key.startswith("Indirect_") and found[key] > 0.5}
        assert high == {f"Indirect_{known}"}
        assert found["IndirectLeak"] == found[f"Indirect_{known}"]
        for key in ("InterIdRet_paraphrase", "IntraIdRet_paraphrase"):  # of the holdouts' own paraphrases
            assert (found[key] > 0.5) == (known == "paraphrase")


def reciprocal_rank(query, own, others, tolerance=1e-6):
    """The definition, in float64: half of the ties count as greater."""
    similarity = [float(np.dot(query.astype(np.float64), other.astype(np.float64))) for other in others]
    at = float(np.dot(query.astype(np.float64), own.astype(np.float64)))
    greater = sum(one > at + tolerance for one in similarity)
    ties = sum(abs(one - at) <= tolerance for one in similarity)
    return 1 / (1 + greater + ties // 2)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_retrieval_with_both_pools_reworded(data, form):
    embeddings = model(data, ["literal", "unseen", "value"], settings(form), noise=0.5)
    rows = score_rows(data, embeddings, settings(form), METRICS_AND_PROBES)
    retain = data.splits["retain_synth"]
    disjoint = [row for row in range(len(retain)) if retain.subset[row] == "retain_disjoint"]
    for split in ("forget", "holdout_identity", "holdout_association"):
        counts = {name: len(data.splits[name]) for name in ("forget", "holdout_association", "holdout_identity")}
        pools = draws.draw_pools({**counts, "retain_disjoint": len(disjoint)}, 1000, 42)
        others = [retain.text[disjoint[row]] for row in pools["retain_disjoint"]]
        found: dict[str, list] = {}
        there = paraphrases(data.splits[split], 42, FORMS[form]).there
        for name, said in facts(data, split, settings(form)):
            texts = list(data.splits[split].text)
            for row, text in said:
                texts[row] = text
            gallery = [texts[row] for row in pools[split]] + others
            found.setdefault(name, []).append(
                [
                    reciprocal_rank(image, embeddings.of([text])[0], embeddings.of([t for t in gallery if t != text]))
                    for image, text in zip(embeddings.images[split][::5], texts[::5], strict=True)
                ]
            )
        for name, passes in found.items():
            assert name == "literal" or len(passes) == (FORMS[form] if name in ("paraphrase", "unseen") else 1)
            column = {"literal": "rank", "paraphrase": "paraphrase"}.get(name, f"indirect_{name}")
            scores = rows[f"{split}.{column}"][::5]
            np.testing.assert_allclose(1 / scores if name == "literal" else scores, np.mean(passes, axis=0), rtol=1e-12)
        np.testing.assert_array_equal(rows[f"{split}.paraphrased"], there)


def test_the_other_directions_are_the_same_search_mirrored_and_from_the_generic_caption(data):
    embeddings = model(data, ["literal"], noise=0.5)
    rows = score_rows(data, embeddings, settings(), METRICS_AND_PROBES)
    forget, retain = data.splits["forget"], data.splits["retain_synth"]
    disjoint = np.flatnonzero(retain.subset == "retain_disjoint")
    pool, other = rows["forget.gallery"], disjoint[rows["retain_synth.gallery"]]
    images = np.concatenate([embeddings.images["forget"][pool], embeddings.images["retain_synth"][other]])
    captions = [forget.text[row] for row in pool] + [retain.text[row] for row in other]
    for row in range(0, len(forget), 4):
        keep = [place for place, text in enumerate(captions) if text != forget.text[row]]
        text = embeddings.of([forget.text[row]])[0]
        mirrored = reciprocal_rank(text, embeddings.images["forget"][row], images[keep])
        assert rows["forget.indirect_reverse"][row] == pytest.approx(mirrored, rel=1e-12)
        has = bool(forget.generic_caption[row])
        assert rows["forget.has_generic"][row] == has
        if has:
            query = embeddings.of([forget.generic_caption[row]])[0]
            expected = reciprocal_rank(query, text, embeddings.of([captions[place] for place in keep]))
            assert rows["forget.indirect_text_to_text"][row] == pytest.approx(expected, rel=1e-12)
    found = values(data, embeddings)
    assert found["Indirect_reverse"] > 0.2  # its image is one of three of the association
    assert found["Indirect_text_to_text"] < 0.1


def test_a_result_with_probes_is_written_verified_and_compared_in_its_form(data, tmp_path):
    for form in FORMS:
        rows = score_rows(data, model(data, WORDS, settings(form)), settings(form), METRICS_AND_PROBES)
        protocol = describe_protocol(data, rows, settings(form), METRICS_AND_PROBES, bootstrap=20)
        provenance = {"command": "test", "data": {"salmu": "2" * 64, "zeroshot": "3" * 64}}
        provenance["checkpoint"] = {"digest": "1" * 64, "parent": None}
        write_result(
            tmp_path / f"{form}.json", *(make_result(form, rows, protocol, provenance, METRICS_AND_PROBES), rows)
        )
        assert [one.problems for one in verify_results([tmp_path / f"{form}.json"])] == [[]]
    from salmu_jax.evaluation.compare import compare
    from salmu_jax.evaluation.result import load_rows

    pair = [(load_result(path), load_rows(path, load_result(path))) for path in sorted(tmp_path.glob("*.json"))]
    compared = {one.metric.key for one in compare(*pair[0], *pair[1])}
    assert compared == {metric.key for metric in METRICS_AND_PROBES if not metric.by_form}
    assert {"IndirectLeak", "Indirect_unseen", "InterIdRet_paraphrase"}.isdisjoint(compared)
    assert {"Indirect_bare", "RetFail_MRR"} <= compared
    assert len({one.metric.key for one in compare(*pair[0], *pair[0])}) == len(METRICS_AND_PROBES)


def test_probes_change_no_embedding_and_no_figure_of_the_others(data):
    few, many = (data.text_bank(some, settings()) for some in (METRICS, METRICS_AND_PROBES))
    assert many.texts[: len(few.texts)] == few.texts
    assert [stream.name for stream in many.streams] == ["", "indirect", "holdout_paraphrase"]


def test_a_config_chooses_probes_by_name():
    def options(*probes):
        return dataclasses.make_dataclass("Options", ["probes", "probe_form"])(probes, "short")

    assert [metric for metric in chosen(options()) if not metric.of] == list(METRICS)
    both = chosen(options("holdout_paraphrase", "indirect"))
    assert [metric for metric in both if not metric.of] == list(METRICS_AND_PROBES)  # in the registry's order
    assert {"IndirectLeak@whole", "IndirectLeak@part"} <= {metric.key for metric in both}
    assert chosen(options("indirect")) == chosen(options("indirect"))  # what depends on them is kept for the next model
    with pytest.raises(InputError, match="names no probe 'direct'; there are: indirect, holdout_paraphrase"):
        chosen(options("direct"))
    assert set(declared()["evaluate.probes"].choices) == set(PROBES)
    for metrics in PROBES.values():
        assert all(BY_KEY[metric.key] is metric for metric in metrics)


def test_data_without_metadata_are_refused_in_one_line():
    data = worded_data()
    source = data.splits["forget"]
    data.__dict__["splits"] = {
        **data.splits,
        "forget": dataclasses.replace(source, value=(*source.value[:4], "", *source.value[5:])),
    }
    with pytest.raises(InputError) as caught:
        data.text_bank((*METRICS, *PROBES["indirect"]), settings())
    assert str(caught.value).startswith("split forget row 4 field 'value': is empty; the probe 'indirect' words facts")


def test_without_a_foreign_template_there_is_no_paraphrase_and_the_leak_is_of_the_other_forms(tiny):
    data = tiny.data()  # its captions have one wording each
    metrics = (*METRICS, *PROBES["indirect"])
    evaluation = tiny.measure(data, metrics=metrics)
    figures = evaluation.result["metrics"]
    assert figures["Indirect_paraphrase"]["value"] is None
    others = [figures[f"Indirect_{name}"]["value"] for name in WORDS[1:]]
    assert figures["IndirectLeak"]["value"] == max(others)
    assert figures["IndirectLeak"]["rows"] == len(data.splits["forget"])
