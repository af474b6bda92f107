"""A small world in the words of the generator, and models that know its facts in some words and not in others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import tiny_world

from data_pipelines.world.captions import VARIANTS, indefinite_article
from salmu_jax.evaluation.data import FIELDS, EvaluationData
from salmu_jax.evaluation.embeddings import Embeddings
from salmu_jax.evaluation.metric import Settings
from salmu_jax.evaluation.protocol import IDZSC_PROMPT
from salmu_jax.evaluation.registry import METRICS, PROBES
from salmu_jax.evaluation.rewording import paraphrases, partial, times, unseen

WIDTH = 64
METRICS_AND_PROBES = (*METRICS, *(metric for name in ("indirect", "holdout_paraphrase") for metric in PROBES[name]))


def settings(form: str = "short") -> Settings:
    return Settings(42, IDZSC_PROMPT, "ours", form)


def caption(name: str, field: str, value: str, variant: int) -> str:
    article = indefinite_article(value)
    template = VARIANTS[field][variant % len(VARIANTS[field])]
    return template.format(name=name, value=value, a=article, A=article.capitalize())


def worded_data(people: int = 12) -> EvaluationData:
    """The people of ``tiny_world``, with three images an association in two wordings of the generator's nine."""
    sources = tiny_world.tiny_sources(people)
    for split in ("forget", "holdout_association", "holdout_identity"):
        for index, record in enumerate(sources[split]):
            person, field = int(record["identity_id"]), record["data_field"]
            record["name"] = f"Ida{person} Ek{person}"
            record["value"] = record["name"] if field == "name" else _value(field, person)
            record["text"] = caption(record["name"], field, record["value"], person + 4 * (index % 3 // 2))
            record["generic_caption"] = f"somebody by the wall {person} {index}" if index % 3 else ""
    zeroshot = {**tiny_world.tiny_zeroshot(), "source": tiny_world.tiny_zeroshot()["source"]}
    return EvaluationData.from_sources(sources, tiny_world.SIZE, zeroshot=zeroshot, decode=tiny_world.decode, made=True)


def _value(field: str, person: int) -> str:
    if field == "emails":
        return f"mail{person}@host.example"
    if field in ("city", "job", "blood_type"):
        return f"{field.replace('_', '')}{person}"
    return f"{FIELDS.index(field)}555 {1000 + person}"


def facts(data: EvaluationData, split: str, asked: Settings) -> Iterator[tuple[str, Iterable[tuple[int, str]]]]:
    """Yields each way of saying the facts of ``split``: its name, and every (row, text)."""
    rows = data.splits[split]
    yield "literal", enumerate(rows.text)
    for texts in paraphrases(rows, asked.seed, times(asked)).texts:
        yield "paraphrase", ((row, text) for row, text in enumerate(texts) if text != rows.text[row])
    if split == "forget":
        for texts in unseen(rows, asked.seed, times(asked)):
            yield "unseen", enumerate(texts)
        yield "bare", enumerate(data.core_texts()[0])
        yield "value", enumerate(rows.value)
        yield "name", enumerate(rows.name)
        yield "partial", ((row, partial(value)) for row, value in enumerate(rows.value))


def model(data: EvaluationData, knows: Iterable[str], asked: Settings | None = None, noise: float = 0.01) -> Embeddings:
    """A model whose images are near their facts, and whose texts are near theirs in the words that it ``knows``.

    All other texts are noise. ``noise``: how far a known text is from its fact.
    """
    asked, knows, rng = asked or settings(), set(knows), np.random.default_rng(3)
    bank = data.text_bank(METRICS_AND_PROBES, asked)
    texts, images = rng.normal(size=(len(bank.texts), WIDTH)), {}
    for split, rows in data.splits.items():
        people = {one: rng.normal(size=WIDTH) for one in sorted(set(rows.identity_id.tolist()))}
        keys = list(zip(rows.identity_id.tolist(), rows.data_field.tolist(), strict=True))
        each = {key: people[key[0]] + 2 * rng.normal(size=WIDTH) for key in sorted(set(keys))}
        known = split in ("forget", "holdout_association", "holdout_identity")
        images[split] = np.stack([each[key] if known else rng.normal(size=WIDTH) for key in keys])
        for form, said in facts(data, split, asked) if known else ():
            for row, text in said if form in knows else ():
                own = people[keys[row][0]] if form == "name" else each[keys[row]]
                texts[bank.index([text])] = own + noise * rng.normal(size=WIDTH)
        images[split] = _unit(images[split] + noise * rng.normal(size=images[split].shape))
    images["zeroshot"] = _unit(rng.normal(size=(len(data.zeroshot.labels), WIDTH)))
    return Embeddings(images, _unit(texts), bank)


def _unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)
