"""Decoded pixels and embeddings on the disk: reused whole, recomputed where damaged, and never believed unchecked."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading

import jax
import numpy as np
import pytest
from probe_metric import probe

from salmu_jax.evaluation import cache_files, embedding_cache, embeddings, pixels, run
from salmu_jax.evaluation.embeddings import _share, embed
from salmu_jax.evaluation.encode import Encoder
from salmu_jax.evaluation.registry import METRICS
from salmu_jax.evaluation.run import check_new_name
from salmu_jax.runtime.errors import InputError


def flip(path, place):
    """Flips a bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(pixels, "BLOCK", 16)


@pytest.fixture
def opened(tiny, tmp_path, small_blocks):
    """``opened(**options)``: the tiny world with its pixels in a directory, and the lines that were said."""

    def open_data(**options):
        said = []
        directories = {"salmu": tmp_path / "salmu", "zeroshot": tmp_path / "zeroshot"}
        options = {"cache_decoded": False, "directories": directories, "say": said.append, **options}
        return tiny.data(**options), said

    return open_data


def all_pixels(data):
    return {name: store.batch(0, len(store)) for name, store in data.images.items()}


# Pixels ------------------------------------------------------------------------------------------------------------------


def test_the_next_model_and_the_next_process_decode_and_read_nothing(tiny, opened):
    first, _ = opened()
    rows = sum(map(len, first.images.values()))
    assert first.images["forget"].missing_pixels() == len(first.images["forget"])
    expected = tiny.run(first)
    assert (first.counts.read, first.counts.decoded) == (rows, rows)  # each record once, though columns are read too
    tiny.run(first, tiny.params(1))
    assert (first.counts.read, first.counts.decoded) == (rows, rows)

    again, said = opened()
    assert sum(store.missing_pixels() for store in again.images.values()) == 0
    found = tiny.run(again)
    assert (again.counts.read, again.counts.decoded, said) == (0, 0, [])
    assert {**found, "provenance": 0, "digest": 0} == {**expected, "provenance": 0, "digest": 0}


def test_a_killed_decoding_goes_on_where_it_was(opened):
    first, _ = opened()
    expected = all_pixels(first)
    for path in (path for path in (first.images["forget"]._directory / "forget").glob("*") if path.stem > "000001"):
        path.unlink()
    again, _ = opened()
    found = all_pixels(again)
    assert again.counts.decoded == len(again.images["forget"]) - 32
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("place", [3, 70, 400, -1, -700, "cut", "empty", "another block"])
def test_a_damaged_block_is_decoded_again_and_told(opened, place):
    first, _ = opened()
    expected, texts = all_pixels(first), first.splits["forget"].text
    path = first.images["forget"]._directory / "forget" / "000001.block"
    if place == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif place == "empty":
        path.write_bytes(b"")
    elif place == "another block":
        shutil.copyfile(path.parents[1] / "retain_synth" / "000001.block", path)
    else:
        flip(path, place)
    again, said = opened()
    np.testing.assert_array_equal(all_pixels(again)["forget"], expected["forget"])
    assert again.splits["forget"].text == texts
    assert again.counts.decoded == 16
    assert len(said) == 1
    assert "000001.block: " in said[0]
    assert said[0].endswith("; its rows are decoded again")
    healed, said = opened()
    all_pixels(healed)
    assert (healed.counts.decoded, said) == (0, [])


def test_without_room_for_pixels_the_columns_alone_are_kept(tiny, opened):
    first, _ = opened(write_pixels=False)
    rows = sum(map(len, first.images.values()))
    expected = tiny.run(first)
    again, _ = opened(write_pixels=False)
    found = tiny.run(again)
    assert again.counts.decoded == rows
    assert found["efficacy"] == expected["efficacy"]
    columns_only, _ = opened(write_pixels=False)
    assert columns_only.splits["forget"].text == first.splits["forget"].text
    assert columns_only.counts.read == 0
    kept, _ = opened()  # there is room now
    tiny.run(kept)
    assert kept.counts.decoded == rows
    assert opened()[0].images["forget"].missing_pixels() == 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_fills_is_told_once_and_nothing_is_lost(opened, monkeypatch, code):
    expected = all_pixels(opened()[0])
    shutil.rmtree(opened()[0].images["forget"]._directory)
    data, said = opened()
    write, calls = cache_files.write, []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) > 1:
            raise OSError(code, os.strerror(code))
        write(*arguments)

    monkeypatch.setattr(cache_files, "write", full)
    np.testing.assert_array_equal(all_pixels(data)["forget"], expected["forget"])
    assert len([line for line in said if "without being kept" in line]) <= len(data.images)
    assert os.strerror(code) in said[0]


def test_auto_leaves_room_on_the_disk_and_on_does_not_begin_what_does_not_fit(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)

    def free(size):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=size))

    said = []
    needed = 126_794 * 224 * 224 * 3
    free(needed + pixels.FREE_MARGIN)
    assert pixels.decide("auto", 126_794, 224, tmp_path, said.append)
    assert "126,794 images to decode; their pixels take 19.1 GB" in said.pop()
    assert not pixels.decide("off", 126_794, 224, tmp_path, said.append)
    free(needed + pixels.FREE_MARGIN - 1)
    assert not pixels.decide("auto", 126_794, 224, tmp_path, said.append)
    assert "would take 19.1 GB" in said.pop()
    assert pixels.decide("on", 126_794, 224, tmp_path, said.append)
    free(needed - 1)
    with pytest.raises(InputError, match=r"take 19\.1 GB, and 19\.1 GB are free; set evaluate\.cache_pixels=off"):
        pixels.decide("on", 126_794, 224, tmp_path, said.append)
    with pytest.raises(InputError, match=r"evaluate\.cache_pixels: is 'yes'; auto, on, off are possible"):
        pixels.check_policy("yes")


def test_as_many_threads_decode_as_there_are_cores(monkeypatch):
    monkeypatch.setattr(pixels.host, "cpu_count", lambda: 96)
    pixels._threads.cache_clear()
    try:
        assert pixels._threads()._max_workers == 96
    finally:
        pixels._threads.cache_clear()


# Embeddings --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tiny):
    return tiny.data()


def embedded(tiny, data, directory, batch_size=8, said=None):
    options = {**tiny.asked(), "batch_size": batch_size, "directory": directory}
    return embed(
        tiny.clip(), tiny.params(), tiny.tokenizer(), data, **options, say=(said if said is not None else []).append
    )


@pytest.fixture(scope="module")
def whole(tiny, data):
    return embedded(tiny, data, None)


def assert_same(found, whole):
    np.testing.assert_array_equal(found.texts, whole.texts)
    for name, values in whole.images.items():
        np.testing.assert_array_equal(found.images[name], values)


class Killed(BaseException):
    """Nothing catches it."""


@pytest.fixture
def count_rows(monkeypatch):
    """The rows that were encoded, by the number of the batch; ``kill_after`` batches it ends."""
    rows, kill_after = [], [None]
    run, devices = Encoder.run, jax.local_devices()
    monkeypatch.setattr(jax, "local_devices", lambda: devices[:1])

    def counted(*arguments, **options):
        for number, (start, part) in enumerate(run(*arguments, **options)):
            if kill_after[0] is not None and number >= kill_after[0]:
                raise Killed
            rows.append(len(part))
            yield start, part

    monkeypatch.setattr(Encoder, "run", counted)
    return rows, kill_after


def test_killed_ten_times_and_started_again_the_same_comes_out(tiny, data, whole, tmp_path, monkeypatch, count_rows):
    monkeypatch.setattr(embedding_cache, "SECONDS", 0.0)
    monkeypatch.setattr(embeddings.Parts, "flush", _only_after_add(embeddings.Parts.flush))
    rows, kill_after = count_rows
    total = sum(map(len, data.images.values())) + len(whole.texts)
    for _ in range(10):
        kill_after[0] = 1
        with pytest.raises(Killed):
            embedded(tiny, data, tmp_path)
    assert 0 < sum(rows) < total
    kill_after[0] = None
    said = []
    assert_same(embedded(tiny, data, tmp_path, said=said), whole)
    assert sum(rows) == total  # nothing was encoded twice
    assert "were encoded before" in said[0]
    rows.clear()
    assert_same(embedded(tiny, data, tmp_path), whole)
    assert rows == []
    assert not list(tmp_path.rglob("*.partial-*"))


def _only_after_add(flush):
    """A kill leaves no time to write what is pending: the flush when an exception passes does nothing here."""
    import sys

    def flushed(self):
        if sys.exc_info()[0] is not Killed:
            flush(self)

    return flushed


def test_another_batch_size_takes_what_the_first_has_left(tiny, data, whole, tmp_path, monkeypatch, count_rows):
    monkeypatch.setattr(embedding_cache, "SECONDS", 0.0)
    rows, kill_after = count_rows
    kill_after[0] = 1
    with pytest.raises(Killed):
        embedded(tiny, data, tmp_path, batch_size=8)
    kill_after[0] = None
    found = embedded(tiny, data, tmp_path, batch_size=5)
    assert sum(rows) == sum(map(len, data.images.values())) + len(whole.texts)
    np.testing.assert_allclose(found.texts, whole.texts, atol=1e-6)


@pytest.mark.parametrize("place", [5, 90, -1, "cut", "other shape"])
def test_a_damaged_part_is_computed_again_and_told(tiny, data, whole, tmp_path, place, count_rows):
    embedded(tiny, data, tmp_path)
    count_rows[0].clear()
    path = next((tmp_path / "images").iterdir())
    if place == "cut":
        path.write_bytes(path.read_bytes()[:-4])
    elif place == "other shape":
        cache_files.write(path, {"shape": [3, 2]}, np.zeros((3, 2), np.float32))
    else:
        flip(path, place)
    said = []
    assert_same(embedded(tiny, data, tmp_path, said=said), whole)
    assert sum(count_rows[0]) == sum(map(len, data.images.values()))
    assert f"{path}: " in said[0]
    assert "its rows are computed again" in said[0]


def test_other_texts_have_embeddings_of_their_own_and_images_are_shared(tiny, data, tmp_path, count_rows):
    embedded(tiny, data, tmp_path)
    count_rows[0].clear()
    embed(tiny.clip(), tiny.params(), tiny.tokenizer(), data, **tiny.asked("{name}"), batch_size=8, directory=tmp_path)
    assert sum(count_rows[0]) == len(data.text_bank(**tiny.asked("{name}")).texts)


def test_a_metric_more_encodes_nothing_that_was_encoded(tiny, data, tmp_path, count_rows):
    """Its own texts alone; nothing at all if it asks for texts that others ask for; and nothing the next time."""
    expected = embedded(tiny, data, tmp_path)
    rows, _ = count_rows
    rows.clear()
    given = {"settings": tiny.asked()["settings"], "batch_size": 8, "directory": tmp_path}
    known = probe(texts=lambda data, settings: {"again": data.splits["holdout_identity"].text})
    for metric, texts in ((known, 0), (probe(), len(set(data.splits["forget"].text))), (probe(), 0)):
        found = embed(tiny.clip(), tiny.params(), tiny.tokenizer(), data, metrics=(*METRICS, metric), **given)
        assert sum(rows) == texts
        np.testing.assert_array_equal(found.texts[: len(expected.texts)], expected.texts)
        rows.clear()
    whole = embed(
        tiny.clip(), tiny.params(), tiny.tokenizer(), data, metrics=(*METRICS, probe()), **{**given, "directory": None}
    )
    np.testing.assert_array_equal(found.texts, whole.texts)  # as if all had been encoded at once


def test_it_says_how_far_it_is_with_images_and_with_texts(tiny, data, capsys):
    embed(tiny.clip(), tiny.params(), tiny.tokenizer(), data, **tiny.asked(), batch_size=8, label="evaluate m")
    images, texts = sum(map(len, data.images.values())), len(data.text_bank(**tiny.asked()).texts)
    ends = [line.partition("  ")[0] for line in capsys.readouterr().err.splitlines() if "in all" in line]
    assert ends == [f"evaluate m: images: step {images:,}/{images:,}", f"evaluate m: texts: step {texts:,}/{texts:,}"]


def test_nothing_broken_is_kept(tiny, data, tmp_path):
    broken = {name: values * np.nan for name, values in tiny.params().items()}
    with pytest.raises(InputError, match="not finite"):
        embed(tiny.clip(), broken, tiny.tokenizer(), data, **tiny.asked(), batch_size=8, directory=tmp_path)
    assert not list((tmp_path / "images").glob("*"))


def test_the_key_holds_what_embeddings_depend_on(tmp_path):
    key = {"checkpoint": "a" * 64, "data": {"salmu": "b", "zeroshot": None}, "dtype": "float32", "code": "c"}
    directory = embedding_cache.directory_of(tmp_path, key)
    assert directory.name.startswith("a" * 12)
    assert "-float32-" in directory.name
    for change in (
        {"code": "d"},
        {"data": {"salmu": "b", "zeroshot": "z"}},
        {"dtype": "bfloat16"},
        {"checkpoint": "e" * 64},
    ):
        assert embedding_cache.directory_of(tmp_path, {**key, **change}) != directory


@pytest.mark.parametrize("name", ["clip.py", "encode.py", "embeddings.py", "bpe_simple_vocab_16e6.txt.gz"])
def test_embeddings_that_other_code_has_made_are_not_taken(name, monkeypatch):
    before, sha256 = run.code_digest(), run.files.sha256_file
    monkeypatch.setattr(run.files, "sha256_file", lambda path: "edited" if path.name == name else sha256(path))
    run.code_digest.cache_clear()
    try:
        assert run.code_digest() != before
    finally:
        run.code_digest.cache_clear()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_processes_share_what_is_missing_and_cut_it_where_a_device_ends(count):
    missing = [(0, 64), (128, 144), (160, 250)]
    shares = [_share(missing, 16, count, index) for index in range(count)]
    rows = [row for share in shares for start, stop in share for row in range(start, stop)]
    assert rows == [row for start, stop in missing for row in range(start, stop)]
    assert all(start % 16 == 0 for share in shares for start, _ in share)
    assert max(sum(b - a for a, b in share) for share in shares) <= 16 * -(-11 // count)


# Old caches --------------------------------------------------------------------------------------------------------------


def cache_of(root, name, size, used):
    directory = root / name
    with cache_files.claim(directory, {"of": name}):
        (directory / "part").write_bytes(bytes(size))
    os.utime(directory / cache_files.MARK, (used, used))
    return directory


def test_what_was_used_longest_ago_is_removed_and_nothing_else(tmp_path):
    old, middle, new = (cache_of(tmp_path, name, 10_000, used) for name, used in (("a", 1), ("b", 2), ("c", 3)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    (tmp_path / "notes.txt").write_text("words")
    assert cache_files.prune(tmp_path, 25_000) == [old]
    assert cache_files.prune(tmp_path, 25_000) == []
    with cache_files.claim(middle, {}):  # a run holds it, and it is the latest now
        assert cache_files.prune(tmp_path, 0) == [new]
        assert (middle / "part").exists()
    assert cache_files.prune(tmp_path, 0) == [middle]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "notes.txt"]
    assert cache_files.prune(tmp_path / "none", 0) == []
    assert not cache_files.remove(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_what_a_kill_left_half_written_goes_when_nobody_else_is_there(tmp_path):
    directory = tmp_path / "cache"
    with cache_files.claim(directory, {}):
        (directory / "images").mkdir()
        half, mine = (
            directory / "images" / f"{name}.partial-12-{end}" for name, end in (("0-5", "0123abcd"), ("my", "1"))
        )
        half.write_bytes(b"half")
        mine.write_bytes(b"a user's")
        with cache_files.claim(directory, {}):  # another run: it may be writing that file
            assert half.exists()
    with cache_files.claim(directory, {}):
        assert not half.exists()
        assert mine.exists()


def test_a_cache_that_another_run_removes_meanwhile_is_no_failure(tmp_path, monkeypatch):
    """Two evaluations that end together remove the same old caches."""
    is_ours = cache_files.is_ours

    def and_then_it_is_gone(directory):
        ours = is_ours(directory)
        shutil.rmtree(directory)
        return ours

    directories = [cache_of(tmp_path, name, 10, 1) for name in ("a", "b")]
    monkeypatch.setattr(cache_files, "is_ours", and_then_it_is_gone)
    assert cache_files.remove(directories[0])
    assert cache_files.prune(tmp_path, 0) == []
    assert cache_files.size_of(directories[1]) == 0


def test_a_cache_whose_removal_was_killed_is_still_ours(tmp_path, monkeypatch):
    directory = cache_of(tmp_path, "a", 10, 1)
    (directory / "forget").mkdir()

    def killed(path, **how):
        (path / cache_files.MARK).unlink(missing_ok=True)  # what lies in a directory goes in any order
        raise KeyboardInterrupt

    monkeypatch.setattr(cache_files.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        cache_files.remove(directory)
    monkeypatch.undo()
    assert (directory / "forget").exists()
    with cache_files.claim(directory, {}):
        assert cache_files.is_ours(directory)
    assert cache_files.remove(directory)
    assert not directory.exists()


def test_a_directory_that_is_not_ours_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("words")
    with (
        pytest.raises(InputError, match=r"holds 'thesis\.txt', which is no cache of ours"),
        cache_files.claim(tmp_path, {}),
    ):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.txt"]
    for mark in ("{", "[]", '{"schema": "other/1"}', "[" * 100_000):
        (tmp_path / cache_files.MARK).write_text(mark)
        assert not cache_files.is_ours(tmp_path)


def test_two_that_write_the_same_block_at_once_both_succeed(opened):
    found, errors = [], []

    def read():
        try:
            found.append(all_pixels(opened()[0]))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for name in found[0]:
        np.testing.assert_array_equal(found[0][name], found[1][name])


def test_a_header_of_anything_is_damage_and_no_traceback(tmp_path):
    path = tmp_path / "file"
    for data in (b"", b"\n", b"\n\n\n", b"x" * 1000, b"0" * 64 + b"\n{}\n", json.dumps({"a": 1}).encode()):
        path.write_bytes(data)
        with pytest.raises(cache_files.Damaged):
            cache_files.read(path)
    with pytest.raises(FileNotFoundError):
        cache_files.read(tmp_path / "none")
    path.unlink()
    path.mkdir()
    with pytest.raises(cache_files.Damaged):
        cache_files.read(path)


# Names -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clean", "Clean", "delete", "mine", "../x", "", ".hidden", "a b", "ünder"])
def test_a_checkpoint_from_elsewhere_takes_no_name_that_is_taken(name):
    with pytest.raises(InputError, match=r"--model: '"):
        check_new_name(name, {"clean": "a foundation model", "delete": "a method", "mine": "a method"})
    check_new_name("theirs-2.1", {"clean": "a foundation model"})
    check_new_name("m" * 64, {})  # as long as the schema of results allows; more would fail when the result is written
    with pytest.raises(InputError, match="cannot name a result file; 64 letters"):
        check_new_name("m" * 65, {})
