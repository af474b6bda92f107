"""Encoding: the same bits on any number of devices, texts by length, no padding, and what overflows is refused."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from salmu_jax.evaluation import encode
from salmu_jax.evaluation.encode import Encoder, buckets
from salmu_jax.models.clip import Clip, ClipConfig, TowerConfig
from salmu_jax.runtime.errors import InputError

TOWER = TowerConfig(width=16, layers=1, heads=2)
CONFIG = ClipConfig(
    embed_dim=8, image_size=8, patch_size=4, vision=TOWER, text=TOWER, context_length=24, vocab_size=64
)  # fmt: skip


@pytest.fixture(scope="module")
def clip():
    return Clip(CONFIG)


@pytest.fixture(scope="module")
def params(clip):
    return jax.jit(clip.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), dtype=np.uint8)


def captions(lengths, width=24):
    rng = np.random.default_rng(1)
    tokens = np.zeros((len(lengths), width), np.int32)
    for row, length in zip(tokens, lengths, strict=True):
        row[: length - 1], row[length - 1] = rng.integers(0, 60, length - 1), 63
    return tokens


@pytest.fixture
def devices(monkeypatch):
    """``devices(n)``: this process has n of them."""
    found = jax.local_devices()
    return lambda number: monkeypatch.setattr(jax, "local_devices", lambda: found[:number])


@pytest.mark.optimised
def test_bits_do_not_depend_on_the_number_of_devices_nor_on_where_a_kill_was(clip, params, images, devices):
    tokens = captions([3, 24, 9, 5, 17] * 9)
    found = []
    for number in (1, 2, 8):
        devices(number)
        encoder = Encoder(clip, params, rows=16)
        found.append((encoder.all("image", images), encoder.all_tokens(tokens)))
    for one, other in zip(found[0], found[1], strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(found[0], found[2], strict=True):
        np.testing.assert_array_equal(one, other)
    expected = np.asarray(jax.jit(clip.encode_image)(params, images))
    np.testing.assert_allclose(found[0][0], expected, atol=1e-6)

    devices(2)
    rest = Encoder(clip, params, 16).run("image", lambda a, b: images[a:b], [(16, 48), (80, 100)], total=100)
    rows = list(rest)
    assert [(start, len(part)) for start, part in rows] == [(16, 32), (80, 20)]
    for start, part in rows:
        np.testing.assert_array_equal(part, found[0][0][start : start + len(part)])


def test_only_the_last_batch_is_padded_and_few_rows_take_few_devices(clip, params, images, devices, monkeypatch):
    shapes = []
    towers = encode._towers

    def watched(*arguments):
        image = towers(*arguments)["image"]
        return {"image": lambda params, batch: shapes.append(batch.shape[0]) or image(params, batch)}

    monkeypatch.setattr(encode, "_towers", watched)
    devices(8)
    Encoder(clip, params, rows=16).all("image", images)
    assert shapes == [7 * 16]  # 100 rows: seven devices' worth
    shapes.clear()
    Encoder(clip, params, rows=16).all("image", images[:20])
    Encoder(clip, params, rows=256).all("image", images[:20])
    assert shapes == [32, 32]
    shapes.clear()
    devices(1)
    Encoder(clip, params, rows=16).all("image", images)
    assert shapes == [16] * 7


def test_texts_are_encoded_in_the_lengths_that_leave_the_least_padding():
    lengths = [5] * 50 + [8] * 30 + [15] * 10 + [33] * 5 + [60]
    tokens = captions(lengths, 64)
    tokens[0, 1:3] = 0  # the first token has the id 0 and may stand anywhere
    large = TowerConfig(width=4096, layers=100, heads=2)
    assert [(length, len(index)) for length, index in buckets(tokens, large)] == [(8, 80), (16, 10), (40, 5), (64, 1)]
    assert [(length, len(index)) for length, index in buckets(tokens, large, most=2)] == [(8, 80), (64, 16)]
    assert [bucket.length for bucket in buckets(tokens)] == [64]
    assert [bucket.length for bucket in buckets(tokens, TOWER)] == [64]  # too little work to compile a program for
    assert buckets(tokens[:0], large) == []
    assert sorted(np.concatenate([bucket.index for bucket in buckets(tokens, large)])) == list(range(96))
    # A length that is no multiple of 8 is that of the context.
    assert [bucket.length for bucket in buckets(captions([77, 3], 77))] == [77]


def test_texts_in_lengths_have_the_embeddings_of_whole_rows(clip, params, monkeypatch):
    tokens = captions([3, 24, 9, 5, 17] * 4)
    whole = np.asarray(jax.jit(clip.encode_text)(params, tokens))
    monkeypatch.setattr(encode, "WORTH_A_PROGRAM", 0)
    assert [bucket.length for bucket in buckets(tokens, TOWER)] == [8, 16, 24]
    np.testing.assert_allclose(Encoder(clip, params, 4).all_tokens(tokens), whole, atol=1e-6)


@pytest.mark.parametrize(
    ("tower", "name", "scale"),
    [
        ("visual", "proj", 1e37), ("visual", "proj", 1e-38), ("text", "text_projection", 1e37),
        ("text", "text_projection", 1e-30), ("visual", "proj", 0.0), ("visual", "proj", 1e-13),
    ],
)  # fmt: skip
def test_features_that_overflow_or_underflow_are_refused(clip, params, images, tower, name, scale):
    scaled = {**params, tower: {**params[tower], name: params[tower][name] * np.float32(scale)}}
    encoder = Encoder(clip, scaled, rows=16)
    with pytest.raises(InputError, match=r"after normalisation, not 1|not finite") as caught:
        encoder.all("image", images) if tower == "visual" else encoder.all_tokens(captions([5] * 30))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [1e-8, 1e15])
def test_the_scale_of_a_projection_alone_changes_nothing(clip, params, images, scale):
    scaled = {**params, "visual": {**params["visual"], "proj": params["visual"]["proj"] * np.float32(scale)}}
    one, other = (Encoder(clip, tree, rows=16).all("image", images) for tree in (params, scaled))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_what_is_wrong_with_one_row_names_it(clip, params, images):
    broken = images.copy()

    class Watched(Clip):
        def encode_image(self, params, batch):
            found = super().encode_image(params, batch)
            return jax.numpy.where((batch[:, 0, 0, 0] == 255)[:, None], jax.numpy.nan, found)

    broken[:, 0, 0, 0] = 0
    broken[70, 0, 0, 0] = 255
    with pytest.raises(InputError, match="row 64: 1 of 16 embeddings are not finite"):
        list(Encoder(Watched(CONFIG), params, 16).run("image", lambda a, b: broken[a:b], [(0, 16), (64, 80)]))
