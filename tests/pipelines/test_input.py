"""The input pipeline: every pair exactly once an epoch, whatever hosts, workers and resumes; what the batches hold."""

from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import DEADLINE

from data_pipelines import input as input_module
from data_pipelines.builders import build_datasets, open_source
from data_pipelines.input import DecodedCache, PairSource, evaluation_images, training_batches
from data_pipelines.order import shuffled
from salmu_jax.models.preprocess import preprocess_eval
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.feed import BatchCosts

SIZE = 16
TOKENIZER = ClipTokenizer(num_merges=500, context_length=20)
COMPROMISED = ("retain_pairs/train", "salmu/retain_synth", "salmu/sensitive")


def steps_of(pairs, batch_size):
    return -(-pairs // batch_size)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory, make_world):
    root = tmp_path_factory.mktemp("input")
    build_datasets(make_world(root / "world"), root / "datasets", check=False)
    return root / "datasets"


@pytest.fixture(scope="module")
def source(datasets):
    return PairSource.open(datasets, COMPROMISED)


@pytest.fixture(scope="module")
def cache():
    return DecodedCache(SIZE)


def batches(source, count, **options):
    options = {"tokenizer": TOKENIZER, "image_size": SIZE, "batch_size": 8, "seed": 3, **options}
    iterator = training_batches(source, **options)
    try:
        return [next(iterator) for _ in range(count)]
    finally:
        iterator.close()


def joined(parts, name="index"):
    return np.concatenate([part[name] for part in parts])


def assert_equal(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])


def test_a_pair_source_is_its_splits_in_a_row(datasets, source):
    sensitive = ("salmu/forget", "salmu/holdout_association", "salmu/holdout_identity")
    assert source.splits == ("retain_pairs/train", "salmu/retain_synth", *sensitive)
    expected = [
        {"image": e["image"], "text": e["text"], "id": e.get("file_name", e.get("key"))}
        for split in COMPROMISED
        for e in open_source(datasets, *split.split("/"))
    ]
    assert len(source) == len(expected) == 37 + 13 + 36
    assert [source[i] for i in range(len(source))] == expected
    assert source.read(np.array([80, 2, 40])) == [expected[80], expected[2], expected[40]]
    forget = PairSource.open(datasets, ["salmu/forget"], extra_text=["generic_caption"])
    assert forget.splits == ("salmu/forget",)
    assert forget[0]["generic_caption"].startswith("a picture of somebody")


def test_batches_hold_what_the_source_says(source, cache):
    for options in ({}, {"cache": cache}):
        for batch in batches(source, 3, **options):
            assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
                "images": ((8, SIZE, SIZE, 3), np.dtype("uint8")),
                "tokens": ((8, 20), np.dtype("int32")),
                "index": ((8,), np.dtype("int64")),
            }
            for row, place in enumerate(batch["index"]):
                pair = source[place]
                np.testing.assert_array_equal(batch["images"][row], preprocess_eval(pair["image"], SIZE))
                np.testing.assert_array_equal(batch["tokens"][row], TOKENIZER([pair["text"]])[0])


def test_selected_rows_are_a_source_of_their_own(source, cache):
    rows = [83, 5, 40, 6, 71]  # of three splits
    few = source.select(rows)
    assert few.splits == source.splits
    assert [few[i] for i in range(len(few))] == few.read(range(5)) == source.read(rows)
    assert few.where(0) == source.where(83)
    assert [pair["id"] for pair in few.select([4, 1]).read([0, 1])] == [source[71]["id"], source[5]["id"]]
    assert few.texts("text") == {"text": [pair["text"] for pair in source.read(rows)]}
    for options in ({}, {"cache": cache}):
        stream = list(batches(few, 5, batch_size=2, **options))
        assert sorted(joined(stream)[:5]) == sorted(joined(stream)[5:]) == list(range(5))  # two passes over the five
        for batch in stream:
            for row, place in enumerate(batch["index"]):
                pair = source[rows[place]]
                np.testing.assert_array_equal(batch["images"][row], preprocess_eval(pair["image"], SIZE))
                np.testing.assert_array_equal(batch["tokens"][row], TOKENIZER([pair["text"]])[0])


@settings(max_examples=15, deadline=None)
@given(
    hosts=st.sampled_from([1, 2, 4]),
    rows=st.integers(1, 11),
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(0, 20), max_size=2),
)
def test_exactly_once_an_epoch(source, cache, hosts, rows, seed, cuts):
    """Over two epochs, on every host, in runs that stop and resume at the steps ``cuts``."""
    batch_size, n = rows * hosts, len(source)
    steps = steps_of(2 * n, batch_size)
    bounds = sorted({0, steps, *(min(cut, steps) for cut in cuts)})
    options = {"batch_size": batch_size, "seed": seed, "cache": cache}
    by_host = [
        [
            batch["index"]
            for start, end in itertools.pairwise(bounds)
            for batch in batches(source, end - start, start_step=start, host_index=host, host_count=hosts, **options)
        ]
        for host in range(hosts)
    ]
    stream = np.concatenate([np.concatenate(parts) for parts in zip(*by_host, strict=True)])
    for epoch in (stream[:n], stream[n : 2 * n]):
        assert sorted(epoch) == list(range(n))
    np.testing.assert_array_equal(stream, joined(batches(source, steps, **options)))
    assert (stream[:n] != stream[n : 2 * n]).any()


def resumed(source, segments, batch_size, **options):
    """The global batches of a run that is resumed for each segment: on so many hosts, with so many workers, so many steps."""
    found, step = [], 0
    for hosts, workers, steps in segments:
        by_host = [
            batches(
                source,
                steps,
                batch_size=batch_size,
                start_step=step,
                num_workers=workers,
                host_index=host,
                host_count=hosts,
                **options,
            )
            for host in range(hosts)
        ]
        for parts in zip(*by_host, strict=True):
            found.append({name: joined(parts, name) for name in parts[0]})
        step += steps
    return found


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
    segments=st.lists(st.tuples(st.sampled_from([1, 2, 4]), st.just(0), st.integers(1, 9)), min_size=2, max_size=5),
)
def test_resuming_on_other_hosts_changes_no_bit(source, cache, rows, seed, segments):
    """After any step, on any of 1, 2 and 4 hosts; and within each epoch every retain and sensitive pair comes once."""
    options = {"batch_size": 4 * rows, "seed": seed, "cache": cache}
    found = resumed(source, segments, **options)
    assert_equal(found, batches(source, len(found), **options))
    stream, n = joined(found), len(source)
    for start in range(0, len(stream), n):
        assert len(set(stream[start : start + n])) == len(stream[start : start + n])
        assert len(stream) < start + n or sorted(stream[start : start + n]) == list(range(n))


def test_resuming_with_other_workers_changes_no_bit(source):
    """Hosts and worker processes both change, and crops are random."""
    options = {"batch_size": 8, "augment": {"scale": (0.5, 0.9)}}
    segments = [(1, 0, 3), (2, 1, 3), (4, 0, 2), (1, 2, 4)]
    assert_equal(resumed(source, segments, **options), batches(source, 12, **options))


@settings(max_examples=60, deadline=None)
@given(
    size=st.one_of(st.integers(1, 40), st.integers(1, 5000)), seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 9)
)
def test_every_epoch_is_a_permutation(size, seed, epoch):
    positions = np.arange(epoch * size, (epoch + 1) * size)
    assert sorted(shuffled(positions, size, seed)) == list(range(size))


def test_permutations_look_random():
    """Every pair is about as often in every place, and what follows a pair says nothing, for small and middling sizes."""
    for size, epochs in ((7, 3000), (64, 1000), (100, 1000)):
        orders = shuffled(np.arange(size * epochs), size, seed=1).reshape(epochs, size)
        for counted in (orders, np.diff(orders) % size):
            counts = np.stack([np.bincount(column, minlength=size) for column in counted.T])
            if counted is not orders:
                counts = counts[:, 1:]  # a difference is never zero
            expected = counts.sum(1, keepdims=True) / counts.shape[1]
            chi = ((counts - expected) ** 2 / expected).sum()
            freedom = counts.size - len(counts)
            assert abs(chi - freedom) < 6 * np.sqrt(2 * freedom), (size, chi, freedom)
    large = shuffled(np.arange(20_000), 400_000_000, seed=1)
    assert len(set(large)) == 20_000
    assert abs(large.mean() / 4e8 - 0.5) < 0.01
    assert abs(np.corrcoef(large[:-1], large[1:])[0, 1]) < 0.03


def test_order_depends_on_the_seed(source, cache):
    first, again, other = (joined(batches(source, 5, seed=seed, cache=cache)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    far = batches(source, 1, start_step=10**12, cache=cache)[0]
    assert far["index"].shape == (8,)


@pytest.mark.parametrize("augment", [None, {"scale": (0.5, 0.9)}])
def test_hosts_and_caches_change_nothing(source, cache, augment):
    plain = batches(source, 14, augment=augment)
    if augment is None:
        assert_equal(plain, batches(source, 14, cache=cache))
    halves = [batches(source, 10, start_step=4, host_index=h, host_count=2, augment=augment) for h in range(2)]
    whole = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in zip(*halves, strict=True)]
    assert_equal(plain[4:], whole)


def test_crops_differ_by_epoch_and_seed(source):
    n = len(source)
    stream = batches(source, steps_of(2 * n, 8), augment={"scale": (0.4, 0.8)})
    index, images = joined(stream), joined(stream, "images")
    again = [int(np.flatnonzero(index[n:] == place)[0]) + n for place in index[:n]]
    assert np.mean([(images[i] != images[j]).any() for i, j in enumerate(again) if j < len(images)]) > 0.9
    plain = joined(batches(source, 3), "images")
    assert (plain != images[: len(plain)]).any()


def test_generic_captions_come_along(datasets, cache):
    source = PairSource.open(datasets, ["salmu/forget"], extra_text=["generic_caption"])
    cached, plain = batches(source, 3, cache=cache), batches(source, 3)
    assert_equal(cached, plain)
    for batch in plain:
        expected = TOKENIZER([source[place]["generic_caption"] for place in batch["index"]])
        np.testing.assert_array_equal(batch["generic_tokens"], expected)
        assert (batch["generic_tokens"] != batch["tokens"]).any()


def test_a_shared_cache_decodes_once(datasets, source):
    decoded = []

    class Watched(DecodedCache):
        def _decode_all(self, part):
            decoded.extend(part.splits)
            return super()._decode_all(part)

    cache = Watched(SIZE)
    clean = PairSource.open(datasets, ["retain_pairs/train", "salmu/retain_synth"])
    batches(clean, 2, cache=cache)
    assert sorted(decoded) == sorted(clean.splits)
    batches(source, 2, cache=cache)
    batches(source, 2, cache=cache, seed=9)
    list(evaluation_images(open_source(datasets, "salmu", "forget"), SIZE, 5, cache))
    assert sorted(decoded) == sorted(source.splits)


def test_batches_are_the_callers_own(source, cache):
    batch = batches(source, 1, cache=cache)[0]
    batch["images"][:] = 0
    batch["tokens"][:] = 0
    assert batches(source, 1, cache=cache)[0]["images"].any()
    assert batches(source, 1, cache=cache)[0]["tokens"].any()


def test_evaluation_keeps_the_order_and_pads(datasets, cache):
    for name, split in (("zeroshot", "test"), ("salmu", "sensitive")):
        source = open_source(datasets, name, split)
        expected = np.stack([preprocess_eval(example["image"], SIZE) for example in source])
        for options in ({}, {"cache": cache}):
            found = list(evaluation_images(source, SIZE, 7, **options))
            assert len(found) == steps_of(len(source), 7)
            assert all(batch["images"].shape == (7, SIZE, SIZE, 3) for batch in found)
            np.testing.assert_array_equal(np.concatenate([b["images"][: b["count"]] for b in found]), expected)
            assert not found[-1]["images"][found[-1]["count"] :].any()


@pytest.mark.parametrize("workers", [0, 1])
def test_what_batches_take_is_measured(source, workers):
    costs = BatchCosts()
    found = batches(source, 3, costs=costs, num_workers=workers)
    assert all(batch.keys() == {"images", "tokens", "index"} for batch in found)
    assert costs.pairs == 24
    assert costs.image_bytes == sum(len(pair["image"]) for pair in source.read(joined(found)))
    assert 0 < costs.decode_cpu_seconds <= costs.decode_seconds + 0.01
    assert costs.read_seconds > 0


def test_slow_storage_is_told_from_slow_decoding(source, monkeypatch):
    read, costs = PairSource.read, BatchCosts()
    monkeypatch.setattr(PairSource, "read", lambda self, rows: time.sleep(0.5) or read(self, rows))
    batches(source, 2, costs=costs)
    assert costs.storage_share > 0.5


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"batch_size": 9, "host_count": 2}, "batch_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"host_index": 2, "host_count": 2}, "host_index"),
        ({"cache": DecodedCache(SIZE), "augment": {}}, "cache"),
        ({"cache": DecodedCache(SIZE), "num_workers": 1}, "cache"),
        ({"cache": DecodedCache(SIZE + 1)}, "cache"),
        ({"seed": -1}, "seed"),
        ({"start_step": -1}, "start_step"),
        ({"augment": {"flip": (0, 1)}}, "augment"),
    ],
)
def test_settings_that_cannot_be(source, options, field):
    with pytest.raises(InputError, match=f"^{field}: "):
        batches(source, 1, **options)


def test_sources_that_cannot_be(datasets):
    with pytest.raises(InputError, match="no feature 'text'"):
        PairSource.open(datasets, ["zeroshot/test"])
    with pytest.raises(InputError, match="no feature 'generic_caption'"):
        PairSource.open(datasets, ["salmu/forget", "retain_pairs/train"], ["generic_caption"])
    with pytest.raises(InputError, match="no data sets"):
        PairSource([])
    with pytest.raises(InputError, match="'forget'"):
        PairSource.open(datasets, ["forget"])


@pytest.mark.parametrize("kind", ["threads", "workers", "cache", "evaluation"])
def test_bad_data_are_named(make_world, tmp_path, kind):
    build_datasets(make_world(tmp_path / "world", broken="other_005.jpg"), tmp_path / "datasets", check=False)
    source = PairSource.open(tmp_path / "datasets", COMPROMISED)
    options = {"workers": {"num_workers": 1}, "cache": {"cache": DecodedCache(SIZE)}}.get(kind, {})

    def read():
        if kind == "evaluation":
            return list(evaluation_images(source, SIZE, 4))
        return batches(source, steps_of(len(source), 8), **options)

    with pytest.raises(InputError, match=r"retain_synth\.array_record-00000-of-00001 record 5: .*image"):
        read()


def test_the_device_need_not_wait(datasets, monkeypatch):
    """With a cache, batches are made before they are asked for, and no image is decoded twice."""
    decoded = []  # the sides of the images; those of other tests, which may still be at work, are smaller

    def decode(data, size, where):
        decoded.append(size)
        return preprocess_eval(data, size, where)

    monkeypatch.setattr(input_module, "preprocess_eval", decode)
    gathered = threading.Semaphore(0)

    class Watched(DecodedCache):
        def tokens(self, *given):
            gathered.release()
            return super().tokens(*given)

    source = PairSource.open(datasets, COMPROMISED)
    iterator = training_batches(source, tokenizer=TOKENIZER, image_size=32, batch_size=160, seed=0, cache=Watched(32))
    next(iterator)
    for _ in range(3 * len(source.parts)):  # the first batch, and two that nobody has asked for
        assert gathered.acquire(timeout=DEADLINE)
    for _ in range(5):
        next(iterator)
    iterator.close()
    assert decoded.count(32) == len(source)
