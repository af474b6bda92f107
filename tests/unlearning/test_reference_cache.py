"""The start model's embeddings, looked up instead of computed: the same losses and gradients, and nothing needless."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import ClassVar
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fake_pairs import forget_source, retain_source
from in_memory_run import CLIP, FIELDS, PARAMS, TINY, unlearn
from random_models import random_params

from salmu_jax.models.build import make_tokenizer
from salmu_jax.models.clip import Clip
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.training.flops import forward_flops_per_image, forward_flops_per_text
from salmu_jax.unlearning import loop, reference_cache, registry
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.made_captions import Inputs
from salmu_jax.unlearning.method import Bound, Method, Pairs
from salmu_jax.unlearning.methods.pinned_surrogates import PinnedSurrogates
from salmu_jax.unlearning.permission import Permission
from salmu_jax.unlearning.reference import knowing
from salmu_jax.unlearning.sampled import Sampled
from salmu_jax.unlearning.step import Start, init_unlearning_state, make_unlearning_step
from salmu_jax.unlearning.stream_batches import Batches
from salmu_jax.unlearning.streams import Forget, Retain, Surrogates, Texts

ON, OFF, AUTO = ({"unlearn.cache_reference": mode} for mode in ("on", "off", "auto"))
SHALLOW = Clip(
    dataclasses.replace(
        TINY, **{tower: dataclasses.replace(getattr(TINY, tower), layers=1) for tower in ("vision", "text")}
    )
)
RATE = 1e3  # so large that the moves of parameters are gradients, without the rounding of the sum


def several(rows, rng):
    return [
        (f"{name} of {field}", f"{name} and {value}")
        for name, field, value in zip(rows.name, rows.data_field, rows.value, strict=True)
    ]


def worded(rows, rng):
    """Three wordings of each caption, two captions each."""
    return [tuple(f"{who} {text} {number}" for number in range(3) for who in ("is", "not")) for text in rows.text]


SAMPLED = Sampled(worded, ("said", "other"))


def strangers(rows, rng):
    return [f"a picture of stranger {rng.integers(0, 10**6)}"]


@dataclasses.dataclass(frozen=True)
class Asking(Method):
    """Asks the start model for pairs, for several captions of a row, for sampled ones, for a pool, and in a branch.

    It does not ask for generic captions, nor for one part of the sampled ones.
    """

    name: ClassVar[str] = "asking"
    title: ClassVar[str] = "Asking"
    reference: ClassVar[str] = "nobody"
    streams: ClassVar = {
        "forget": Forget(others={"several": several, "generic": "generic_caption", "wording": SAMPLED}),
        "retain": Retain(),
        "invented": Surrogates(strangers, count=9, per_step=8),
    }

    def objectives(self, batch, model, reference, info):
        forget, retain, invented = (batch[name] for name in ("forget", "retain", "invented"))
        image, text = model.encode_pairs(forget)
        several = model.encode_text(forget.others["several"]) * reference.encode_text(forget.others["several"])
        said, other = (forget.others[f"wording.{part}"] for part in ("said", "other"))
        sampled = model.encode_text(said) - reference.encode_text(other)

        def drift():
            now, before = model.encode_pairs(retain), reference.encode_pairs(retain)
            return sum(jnp.mean(jnp.sum(one * other, axis=-1)) for one, other in zip(now, before[::-1], strict=True))

        pool = model.encode_text(invented.tokens) @ reference.encode_text(invented.tokens).T
        return {
            "forgetting": jnp.mean(jnp.sum(image * text, axis=-1) * jnp.sum(several, axis=(1, 2))),
            "drift": jax.lax.cond(info.step >= 0, drift, lambda: jnp.float32(0)),
            "pool": jnp.mean(jnp.square(pool)),
            "sampled": jnp.mean(jnp.square(sampled)),
        }

    def transform(self, hyper):
        return optax.with_extra_args_support(optax.sgd(RATE))


@pytest.fixture
def asking(monkeypatch):
    monkeypatch.setitem(registry.METHODS, Asking.name, Asking)
    return Asking.name


@pytest.fixture
def on_devices(monkeypatch):
    make_mesh = mesh_lib.make_mesh

    def choose(count):
        chosen = functools.partial(make_mesh, devices=jax.devices()[:count])
        monkeypatch.setattr(mesh_lib, "make_mesh", chosen)

    return choose


@pytest.fixture
def tables():
    """What runs have remembered."""
    found = []

    def remember(*arguments):
        found.append(reference_cache.remember(*arguments))
        return found[-1]

    with mock.patch.object(loop, "remember", remember):
        yield found


def shapes(table):
    return {(stream, name): array.shape for stream, arrays in table.items() for name, array in arrays.items()}


def assert_close(one, other, start):
    """Of all moves of parameters, within 1e-6 of the largest of their array."""
    for a, b, before in zip(*map(jax.tree.leaves, (one, other, start)), strict=True):
        largest = np.max(np.abs(a - before))
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * max(largest, 1e-6))


@pytest.mark.parametrize("devices", [1, 8])
def test_losses_and_gradients_are_those_without_a_cache(devices, asking, on_devices, tables, tmp_path):
    on_devices(devices)
    model = (SHALLOW, random_params(SHALLOW)) if devices == 1 else (CLIP, PARAMS)
    fields = {**FIELDS, "batch_size": 16, "epochs": 0.5}
    (with_it, _, found), (without, _, expected) = (
        unlearn(tmp_path / mode["unlearn.cache_reference"], asking, fields, model=model, **mode) for mode in (ON, OFF)
    )
    assert tables[1] == {}
    width = TINY.embed_dim
    assert shapes(tables[0]) == {
        ("forget", "others.several"): (12, 2, width),
        ("forget", "others.wording.other"): (12, 3, width),
        ("retain", "images"): (10, width),
        ("retain", "tokens"): (10, width),
        ("invented", "tokens"): (9, width),
    }
    for name in ("loss/forgetting", "loss/drift", "loss/pool", "loss/sampled", "loss/total", "gradient_norm"):
        assert found[0][name] == pytest.approx(expected[0][name], rel=1e-6, abs=1e-8), name
    assert_close(with_it, without, model[1])


def test_an_interrupted_run_makes_the_same_embeddings_again(on_devices, tables, tmp_path):
    on_devices(2)
    fields = {**FIELDS, "epochs": 3, "learning_rate": 1e-2}
    whole, _, lines = unlearn(tmp_path / "whole", "cliperase", fields, **ON)
    _, _, others = unlearn(tmp_path / "off", "cliperase", fields, **OFF)
    np.testing.assert_allclose(
        [line["loss/total"] for line in lines], [line["loss/total"] for line in others], rtol=1e-4
    )
    original = loop.loop.run

    def stopped(step, state, batches, **settings):
        return original(step, state, lambda first: itertools.islice(batches(first), 5), **settings)

    settings = {**ON, "unlearn.save_every": 2}
    with mock.patch.object(loop.loop, "run", stopped), pytest.raises(StopIteration):
        unlearn(tmp_path / "stopped", "cliperase", fields, **settings)
    resumed, _, _ = unlearn(tmp_path / "stopped", "cliperase", fields, **settings)
    for one, other in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(jax.tree.leaves(tables[0]), jax.tree.leaves(tables[-1]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_only_what_saves_time_is_cached(on_devices, tables, tmp_path, monkeypatch):
    on_devices(2)
    passes = {**FIELDS, "epochs": 3}
    unlearn(tmp_path / "0", "cliperase", passes, **AUTO)
    assert tables.pop() == {}  # compiling the encoder costs more than it saves
    monkeypatch.setattr(reference_cache, "WORTH_A_PROGRAM", 0)
    unlearn(tmp_path / "1", "cliperase", passes, **AUTO)
    assert shapes(tables.pop()).keys() == {("retain", "images"), ("retain", "tokens")}
    unlearn(tmp_path / "2", "cliperase", {**FIELDS, "epochs": 0.5}, **AUTO)
    assert tables.pop() == {}  # two steps draw 8 of 10 rows, each once
    monkeypatch.setattr(reference_cache, "MOST_BYTES", 10 * TINY.embed_dim * 4)
    unlearn(tmp_path / "3", "cliperase", passes, **AUTO)
    assert len(shapes(tables.pop())) == 1


def test_all_wordings_of_a_row_are_counted(asking, on_devices, tables, tmp_path, monkeypatch):
    """A step is given two of three, so that a second pass saves one, and the first costs one."""
    on_devices(2)
    monkeypatch.setattr(reference_cache, "WORTH_A_PROGRAM", 0)
    for epochs, cached in ((1, False), (2, True)):
        unlearn(tmp_path / str(epochs), asking, {**FIELDS, "batch_size": 12, "epochs": epochs}, **AUTO)
        assert (("forget", "others.wording.other") in shapes(tables.pop())) == cached


def test_random_crops_are_not_cached(on_devices, tables, tmp_path):
    on_devices(2)
    unlearn(tmp_path, "cliperase", {**FIELDS, "epochs": 1, "augment": True}, **ON)
    assert shapes(tables[0]).keys() == {("retain", "tokens")}


def test_each_host_looks_up_its_own_rows():
    streams = {
        "forget": Forget(per_step=4, others={"wording": SAMPLED}),
        "texts": Texts(per_step=4),
        "invented": Surrogates(strangers, 9, per_step=4),
    }
    inputs = Inputs(Permission(forget_source(), retain_source()), make_tokenizer(Clip(TINY)), TINY.image_size, 42)
    batches = Batches(streams, dict.fromkeys(streams, 4), inputs)
    tokens = {}
    for name in streams:
        rows, wordings = {}, {}
        for drawn in itertools.islice(batches.of_stream(name), -(-batches.rows[name] // 4)):
            rows |= dict(zip(drawn.places.tolist(), drawn.pairs.tokens, strict=True))
            if name == "forget":
                wordings |= dict(zip(drawn.places.tolist(), drawn.choices["wording.said"].tokens, strict=True))
        tokens[name] = {"tokens": np.stack([rows[place] for place in range(batches.rows[name])])}  # each is there
        if wordings:
            tokens[name]["others.wording.said"] = np.stack([wordings[place] for place in range(12)])
    for host in (0, 1):
        for batch in itertools.islice(batches._draw(3, host, 2, known=tokens), 4):
            for pairs in batch.arrays.values():
                assert len(pairs.tokens) == 2
                np.testing.assert_array_equal(pairs.known["tokens"], pairs.tokens)
            forget = batch.arrays["forget"]
            np.testing.assert_array_equal(forget.known["others.wording.said"], forget.others["wording.said"])
    assert next(batches()).arrays["forget"].known == {}
    batches.known = tokens
    assert next(batches()).arrays["forget"].known.keys() == {"tokens", "others.wording.said"}
    assert next(batches.whole())["forget"].known == {}


def test_arrays_are_known_by_identity_and_to_the_start_model_alone():
    images, tokens = np.zeros((2, 16, 16, 3), np.uint8), np.ones((2, 4), np.int32)
    known = {"tokens": np.full((2, 16), 7.0, np.float32)}
    reference = knowing(CLIP, PARAMS, {"a": Pairs(images, tokens, known=known)})
    image, text = reference.encode_pairs(Pairs(images, tokens))
    assert text is known["tokens"]
    expected = Bound(CLIP, PARAMS)
    np.testing.assert_array_equal(image, expected.encode_image(images))
    np.testing.assert_array_equal(reference.encode_text(tokens[:]), expected.encode_text(tokens))
    other = dataclasses.replace(reference, params=dict(PARAMS))
    np.testing.assert_array_equal(other.encode_text(tokens), expected.encode_text(tokens))
    with pytest.raises(ValueError, match="captions alone"):
        reference.encode_image(None)


def test_a_step_of_the_text_tower_computes_no_image_tower(real):
    """Neither the pixels nor the image tower are part of the compiled step."""
    clip, params, batches = real
    tower = jax.tree.map(lambda leaf: leaf[0], batches)
    tokens = tower["retain"].tokens
    pins = dict.fromkeys(("retain", "invented", "absent"), Pairs(None, tokens))
    forget = Pairs(tower["forget"].images, tower["forget"].tokens, {"alias": tokens})
    embeddings = jnp.ones((len(tokens), clip.config.embed_dim))
    names = {"forget": ("images", "others.alias")}
    plain = {"forget": forget, **pins}
    cached = {
        name: pairs._replace(known=dict.fromkeys(names.get(name, ("tokens",)), embeddings))
        for name, pairs in plain.items()
    }
    start = Start(params, {"text": params["text"]}, embeddings[0])
    method, hyper = PinnedSurrogates(), Hyper(total_steps=3)
    step = make_unlearning_step(clip, method, hyper, bind=lambda trainable, params: {**params, **trainable})
    state = init_unlearning_state(start, method, hyper)

    def compiled(batch):
        program = jax.jit(step).lower(state, batch, start).compile()
        return program.cost_analysis()["flops"], "u8[" in program.as_text()

    (flops, pixels), (fewer, none) = compiled(plain), compiled(cached)
    assert pixels
    assert not none
    rows, config = len(tokens), clip.config
    assert flops - fewer > 0.9 * rows * (forward_flops_per_image(config) + 4 * forward_flops_per_text(config))
