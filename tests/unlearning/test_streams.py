"""Streams: what a step is given follows from the seed, the stream and the step alone, and comes from what is permitted."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from fake_pairs import Records, forget_rows, forget_source, retain_source

from data_pipelines.input import DecodedCache, PairSource, training_batches
from salmu_jax.models.build import make_tokenizer
from salmu_jax.models.clip import Clip
from salmu_jax.models.zoo import architecture
from salmu_jax.runtime.errors import InputError
from salmu_jax.training.loop import derived_seed
from salmu_jax.unlearning.captions import CleaningTokenizer, clean_caption
from salmu_jax.unlearning.made_captions import Inputs
from salmu_jax.unlearning.method import Bound
from salmu_jax.unlearning.permission import Permission
from salmu_jax.unlearning.sampled import Sampled
from salmu_jax.unlearning.stream_batches import Batches, forget_step_size, step_sizes
from salmu_jax.unlearning.streams import Forget, Retain, Surrogates, Texts

CLIP = Clip(architecture("tiny"))
TOKENIZER = make_tokenizer(CLIP)
SIZE = CLIP.config.image_size


def aliases(rows, rng):
    """Another person in each caption."""
    names = [f"stranger {number}" for number in rng.integers(0, 1_000, len(rows))]
    return [text.replace(name, alias) for text, name, alias in zip(rows.text, rows.name, names, strict=True)]


def strangers(rows, rng):
    """One caption a call, unlike all others."""
    return [f"a picture of stranger {rng.integers(0, 10**6)}, whose city is {rows.value[0]}"]


def worded(rows, rng):
    """Four wordings of each caption: what is said of somebody, and of nobody."""
    return [tuple(f"{who} {text} {number}" for number in range(4) for who in ("is", "not")) for text in rows.text]


SAMPLED = Sampled(worded, ("said", "other"))
STREAMS = {
    "forget": Forget(others={"generic": "generic_caption", "alias": aliases, "wording": SAMPLED}),
    "retain": Retain(),
    "texts": Texts(of="retain", per_step=8),
    "invented": Surrogates(strangers, count=9, per_step=6),
}


def make_inputs(seed=42, cache=None, forget=None, retain="usual"):
    permission = Permission(forget or forget_source(), retain_source() if retain == "usual" else retain)
    return Inputs(permission, TOKENIZER, SIZE, seed, cache)


def make_batches(streams=STREAMS, batch_size=8, **settings):
    return Batches(streams, step_sizes(streams, batch_size), make_inputs(**settings))


def first(iterator, count):
    return list(itertools.islice(iterator, count))


def flat(batch):
    """The arrays of a batch by name."""
    found = {}
    for name, pairs in batch.items():
        arrays = {"images": pairs.images, "tokens": pairs.tokens, **pairs.others}
        found |= {f"{name}.{key}": array for key, array in arrays.items() if array is not None}
    return found


def assert_equal(one, other):
    one, other = flat(one), flat(other)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_batch_holds_what_its_streams_promise():
    batch = first(make_batches().whole(), 1)[0]
    assert {name: array.shape for name, array in flat(batch).items()} == {
        "forget.images": (4, SIZE, SIZE, 3),
        "forget.tokens": (4, 32),
        "forget.generic": (4, 32),
        "forget.alias": (4, 32),
        "forget.wording.said": (4, 2, 32),
        "forget.wording.other": (4, 2, 32),
        "retain.images": (4, SIZE, SIZE, 3),
        "retain.tokens": (4, 32),
        "texts.tokens": (8, 32),
        "invented.tokens": (6, 32),
    }
    rows = {tuple(TOKENIZER([row["text"]])[0]): row for row in forget_rows(12)}
    for tokens, generic in zip(batch["forget"].tokens, batch["forget"].others["generic"], strict=True):
        row = rows[tuple(tokens)]
        np.testing.assert_array_equal(generic, TOKENIZER([row["generic_caption"]])[0])


@pytest.mark.parametrize(("stream", "purpose"), [("forget", 2), ("retain", 3)])
def test_pairs_are_drawn_as_they_always_were(stream, purpose):
    """The seeds are part of every published figure: those of forget and retain fold 2 and 3 into the run's seed."""
    source = forget_source() if stream == "forget" else retain_source()
    settings = dict(tokenizer=TOKENIZER, image_size=SIZE, batch_size=4, seed=derived_seed(42, purpose), start_step=2)
    expected = first(training_batches(source, **settings), 3)
    found = first(make_batches()(2), 3)
    for batch, (arrays, positions) in zip(expected, found, strict=True):
        np.testing.assert_array_equal(batch["images"], arrays[stream].images)
        np.testing.assert_array_equal(batch["tokens"], arrays[stream].tokens)
        np.testing.assert_array_equal(batch["index"], positions[stream])


def test_nothing_depends_on_hosts_resuming_or_a_cache():
    batches = make_batches()
    whole = first(batches.whole(), 4)
    resumed = first(batches.whole(2), 2)
    cached = first(make_batches(cache=DecodedCache(SIZE)).whole(), 4)
    halves = [first(batches._draw(0, host, 2), 4) for host in (0, 1)]
    for step in range(4):
        assert_equal(whole[step], cached[step])
        parts = [flat(half[step].arrays) for half in halves]
        for name, array in flat(whole[step]).items():
            np.testing.assert_array_equal(array, np.concatenate([part[name] for part in parts]), err_msg=name)
    assert_equal(resumed[0], whole[2])
    assert_equal(resumed[1], whole[3])


def test_draws_follow_the_seed_and_the_streams_own_name():
    usual, other = (first(make_batches(seed=seed).whole(), 3) for seed in (42, 43))
    for name in flat(usual[0]):
        assert any(np.any(flat(one)[name] != flat(two)[name]) for one, two in zip(usual, other, strict=True)), name
    twice = {"forget": Forget(), "again": Forget(), "a": Texts(per_step=4), "b": Texts(per_step=4)}
    drawn = first(make_batches(twice).whole(), 3)
    for one, two in (("forget", "again"), ("a", "b")):
        assert any(np.any(batch[one].tokens != batch[two].tokens) for batch in drawn)
    # Nor on which other streams there are.
    alone = first(make_batches({"forget": STREAMS["forget"]}, batch_size=4).whole(), 3)
    for one, two in zip(usual, alone, strict=True):
        assert_equal({"forget": one["forget"]}, two)


def cleaned(**settings):
    inputs = dataclasses.replace(make_inputs(), **settings)
    return next(Batches(STREAMS, step_sizes(STREAMS, 8), inputs)()).arrays


def test_captions_of_all_streams_are_cleaned_if_asked_for():
    rows = [{**row, "text": row["text"].replace(",", "!"), "generic_caption": "(x)"} for row in forget_rows(12)]
    permission = Permission(PairSource([Records("salmu/forget", rows)]), retain_source())
    batch = cleaned(permission=permission, clean_captions=True)
    for tokens in (batch["forget"].tokens, batch["forget"].others["alias"], batch["invented"].tokens):
        assert (tokens != TOKENIZER(["!"])[0, 1]).all()
    own = {tuple(row) for row in batch["forget"].tokens}
    assert own <= {tuple(row) for row in TOKENIZER([clean_caption(row["text"]) for row in rows])}
    np.testing.assert_array_equal(batch["forget"].others["generic"], TOKENIZER(["x"] * 4))
    unchanged = cleaned()["retain"].tokens  # has nothing to clean
    np.testing.assert_array_equal(batch["retain"].tokens, unchanged)


def test_a_cleaned_caption_is_that_of_the_baselines_code():
    assert clean_caption('Mail "a.b@c.com": now!~#1;(2)*\n  x,y-z?') == "Mail a b@c com now 1 2 x,y-z?"
    assert clean_caption(" ".join(map(str, range(60)))) == " ".join(map(str, range(50)))
    like = CleaningTokenizer.like(TOKENIZER)
    np.testing.assert_array_equal(like(["a.b"]), TOKENIZER(["a b"]))
    assert like != TOKENIZER  # a cache of token rows must not take one for the other
    with pytest.raises(TypeError):
        like("a.b")


def test_crops_follow_the_seed_and_the_step_and_leave_the_rest_alone():
    plain, first, again = cleaned(), cleaned(augment=True), cleaned(augment=True)
    for name in ("forget", "retain"):
        np.testing.assert_array_equal(first[name].images, again[name].images)
        assert (first[name].images != plain[name].images).any()
        np.testing.assert_array_equal(first[name].tokens, plain[name].tokens)
    assert first["texts"].images is None
    others = next(Batches(STREAMS, step_sizes(STREAMS, 8), dataclasses.replace(make_inputs(7), augment=True))())
    assert (others.arrays["forget"].images != first["forget"].images).any()


def test_a_row_keeps_its_several_captions_and_its_number():
    def both(rows, rng):
        return [(text, f"{text} {rng.integers(9)}") for text in rows.text]

    def length(rows):
        return [len(text) for text in rows.text]

    streams = {"forget": Forget(others={"both": both}, numbers={"length": length})}
    inputs = make_inputs()
    batch = next(Batches(streams, {"forget": 4}, inputs)()).arrays["forget"]
    assert batch.others["both"].shape == (4, 2, 32)
    np.testing.assert_array_equal(batch.others["both"][:, 0], batch.tokens)
    assert batch.numbers["length"].dtype == np.float32
    lengths = {tuple(TOKENIZER([text])[0]): len(text) for text in inputs.permission.rows.text}
    assert batch.numbers["length"].tolist() == [lengths[tuple(row)] for row in batch.tokens]


def test_a_row_gets_its_first_wording_and_others_in_turns():
    batches = make_batches({"forget": STREAMS["forget"]}, batch_size=4)
    texts = {
        tuple(row): (text, number, who)
        for text in batches.inputs.permission.rows.text
        for number in range(4)
        for who in ("is", "not")
        for row in TOKENIZER([f"{who} {text} {number}"])
    }
    own = {tuple(row): text for text in batches.inputs.permission.rows.text for row in TOKENIZER([text])}
    seen = {}
    for batch in first(batches.whole(), 60):
        pairs = batch["forget"]
        said, other = (pairs.others[f"wording.{part}"] for part in ("said", "other"))
        for tokens, mine, theirs in zip(pairs.tokens, said, other, strict=True):
            text, found = own[tuple(tokens)], [texts[tuple(row)] for row in mine]
            assert [row[0] for row in found] == [text, text]
            assert [row[2] for row in found] == ["is", "is"]
            assert [texts[tuple(row)] for row in theirs] == [(text, number, "not") for _, number, _ in found]
            assert found[0][1] == 0
            seen.setdefault(text, []).append(found[1][1])
    assert len(seen) == 12
    for numbers in seen.values():
        assert set(numbers) == {1, 2, 3}
    assert len({tuple(numbers[:5]) for numbers in seen.values()}) > 6  # each row's own


def test_a_batch_says_which_wordings_its_rows_got():
    batches = make_batches({"forget": STREAMS["forget"]}, batch_size=4)
    for drawn in first(batches.of_stream("forget"), 3):
        assert drawn.choices.keys() == {"wording.said", "wording.other"}
        for name, choice in drawn.choices.items():
            assert choice.tokens.shape == (4, 4, 32)
            expected = [row[chosen] for row, chosen in zip(choice.tokens, choice.which, strict=True)]
            np.testing.assert_array_equal(drawn.pairs.others[name], expected)


def test_an_alias_stays_with_its_row():
    seen = {}
    for batch in first(make_batches().whole(), 9):
        for own, alias in zip(batch["forget"].tokens, batch["forget"].others["alias"], strict=True):
            assert np.any(own != alias)
            assert seen.setdefault(tuple(own), tuple(alias)) == tuple(alias)
    assert len(seen) == 12


def test_a_pool_is_made_once_and_drawn_evenly():
    calls = []

    def counted(rows, rng):
        calls.append(len(rows))
        return strangers(rows, rng)

    batches = make_batches({"invented": Surrogates(counted, count=9, per_step=3)})
    drawn = np.concatenate([batch["invented"].tokens for batch in first(batches.whole(), 3)])
    assert len(np.unique(drawn, axis=0)) == 9
    assert calls == [12] * 9
    first(batches.whole(), 5)
    assert len(calls) == 9


def test_captions_alone_need_no_image():
    rows = [{**row, "image": b"no image"} for row in forget_rows(6)]
    forget = PairSource([Records("salmu/forget", rows)])
    streams = {"a": Texts(of="forget"), "b": Texts(of="forget", caption="generic_caption")}
    batch = first(make_batches(streams, batch_size=6, forget=forget).whole(), 1)[0]
    captions = {tuple(row) for row in TOKENIZER([row["text"] for row in rows])}
    generic = {tuple(row) for row in TOKENIZER([row["generic_caption"] for row in rows])}
    assert {tuple(row) for row in batch["a"].tokens} <= captions
    assert {tuple(row) for row in batch["b"].tokens} <= generic


def test_a_stream_of_captions_has_no_images_to_encode():
    batch = first(make_batches({"a": Texts(of="forget")}, batch_size=6).whole(), 1)[0]
    with pytest.raises(ValueError, match="the stream has captions alone, and no images to encode"):
        Bound(CLIP, {}).encode_pairs(batch["a"])


def test_a_stream_for_prepare_alone_takes_no_share_and_is_in_no_step():
    streams = {"forget": Forget(), "retain": Retain(prepare_only=True)}
    batches = make_batches(streams)
    assert batches.sizes == {"forget": 8, "retain": 8}
    assert batches.rows_per_step == 8
    assert list(first(batches(), 1)[0].arrays) == ["forget"]
    to_prepare, whole = first(batches.to_prepare(), 1)[0], first(batches.whole(), 1)[0]
    assert list(to_prepare) == ["forget", "retain"]
    assert_equal(to_prepare, whole)
    assert forget_step_size({"f": Texts(of="forget", prepare_only=True)}, {"f": 4}, 8) == 8


def test_rows_of_a_selection_alone_are_drawn():
    selected = forget_source().select([1, 4, 5])
    for cache in (None, DecodedCache(SIZE)):
        batches = make_batches({"forget": STREAMS["forget"]}, batch_size=3, forget=selected, cache=cache)
        assert batches.inputs.permission.rows.value == ["job 1", "city 4", "job 5"]
        wanted = {tuple(row) for row in TOKENIZER([forget_rows(12)[row]["text"] for row in (1, 4, 5)])}
        drawn = first(batches(), 4)
        assert {tuple(row) for batch in drawn for row in batch.arrays["forget"].tokens} == wanted
        assert {int(place) for batch in drawn for place in batch.positions["forget"]} == {0, 1, 2}
        assert batches.sources["forget"].read([1])[0]["id"] == "00004.png"


def test_the_batch_is_shared_evenly_by_streams_without_a_size():
    assert step_sizes(STREAMS, 8) == {"forget": 4, "retain": 4, "texts": 8, "invented": 6}
    assert step_sizes({"forget": Forget()}, 7) == {"forget": 7}
    assert step_sizes({"texts": Texts(per_step=3)}, 7) == {"texts": 3}
    assert step_sizes({}, 7) == {}
    with pytest.raises(
        InputError, match="batch_size: 7 pairs per step are shared by forget and retain; a multiple of 2"
    ):
        step_sizes(STREAMS, 7)


@pytest.mark.parametrize(
    ("streams", "expected"),
    [
        ({"retain": Retain(), "forget": Forget()}, 4),
        ({"retain": Retain(), "forget": Texts(of="forget", per_step=2)}, 2),
        ({"texts": Texts(of="forget", per_step=2), "forget": Forget(per_step=6)}, 6),
        ({"retain": Retain()}, 8),
        ({}, 8),
    ],
)
def test_passes_are_counted_by_the_pairs_of_forget(streams, expected):
    assert forget_step_size(streams, step_sizes(streams, 8), 8) == expected


@pytest.mark.parametrize(
    ("name", "pairs"),
    [("forget", 12), ("retain", 10), ("salmu/forget", 12), ("salmu/retain_synth", 4), ("retain_pairs/train", 6)],
)
def test_a_permission_gives_what_it_names_and_records_it(name, pairs):
    permission = Permission(forget_source(), retain_source())
    assert permission.drawn == ()
    source = permission.split(name)
    assert len(source) == pairs
    assert permission.drawn == source.splits


@pytest.mark.parametrize(
    "name", ["salmu/holdout_identity", "salmu/holdout_association", "zeroshot/test", "clean", "", 3]
)
def test_a_permission_refuses_everything_else(name):
    with pytest.raises(InputError) as caught:
        Permission(forget_source(), retain_source()).split(name)
    assert "may read salmu/forget, salmu/retain_synth, retain_pairs/train" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_permission_to_retain_no_stream_reads_it():
    permission = Permission(forget_source())
    assert permission.names == ("salmu/forget",)
    for stream in (Retain(), Texts(of="retain")):
        with pytest.raises(InputError, match="no retain pairs are permitted to this run; it may read salmu/forget"):
            make_batches({"kept": stream}, retain=None)
    with pytest.raises(InputError, match=r"may read salmu/forget$"):
        permission.split("salmu/retain_synth")


@pytest.mark.parametrize(
    ("stream", "answer"),
    [
        (
            lambda: Forget(others={"alias": "name"}),
            r"others\['alias'\]: must be 'generic_caption' or a function .rows, rng. -> captions, or Sampled.function, parts.",
        ),
        (lambda: Retain(others={"wording": SAMPLED}), r"others\['wording'\]: must be 'generic_caption', not Sampled"),
        (lambda: Sampled("generic_caption", ("said",)), "make: must be a function .rows, rng. -> captions, not 'gen"),
        (lambda: Sampled(worded, "said"), "parts: must be a tuple of different names, not 'said'"),
        (lambda: Sampled(worded, ()), r"parts: must be a tuple of different names, not \(\)"),
        (
            lambda: Sampled(worded, ("said", "said")),
            r"parts: must be a tuple of different names, not \('said', 'said'\)",
        ),
        (lambda: Retain(others={"alias": aliases}), r"others\['alias'\]: must be 'generic_caption', not <function"),
        (lambda: Forget(per_step=0), "per_step: must be a whole number of at least 1, not 0"),
        (lambda: Texts(of="holdout"), "of: must be 'retain' or 'forget', not 'holdout'"),
        (lambda: Texts(caption="name"), "caption: must be 'text' or 'generic_caption', not 'name'"),
        (lambda: Surrogates(strangers, count=0), "count: must be a whole number of at least 1, not 0"),
    ],
)
def test_streams_that_cannot_be(stream, answer):
    with pytest.raises(InputError, match=answer):
        stream()


@pytest.mark.parametrize(
    ("stream", "answer"),
    [
        (
            Forget(others={"alias": lambda rows, rng: ["one"]}),
            "stream 'a.alias': made 1 captions of 12 forget rows; one per row",
        ),
        (
            Forget(others={"alias": lambda rows, rng: [("one",), *[("one", "two")] * 11]}),
            "stream 'a.alias': made more captions of some rows than of others",
        ),
        (
            Forget(numbers={"odd": lambda rows: [1.0]}),
            r"stream 'a.odd': made \[1\] for 12 forget rows; a finite number per row",
        ),
        (
            Forget(others={"wording": Sampled(aliases, ("said",))}),
            "stream 'a.wording': made 1 captions of each row; a multiple of 1 is needed, 2 or more",
        ),
        (
            Forget(others={"wording": Sampled(worded, ("said", "same", "other"))}),
            "stream 'a.wording': made 8 captions of each row; a multiple of 3 is needed, 6 or more",
        ),
        (Forget(others={"alias": lambda rows, rng: "one"}), "stream 'a.alias': has to make a list of texts"),
        (Forget(others={"alias": lambda rows, rng: [1] * 12}), "stream 'a.alias': has to make a list of texts"),
        (Surrogates(lambda rows, rng: [], count=5), "stream 'a': made 0 captions of 5, and then none"),
        (
            Retain(others={"generic": "generic_caption"}),
            "retain_pairs: no feature 'generic_caption'; it has image, text",
        ),
    ],
)
def test_captions_that_cannot_be_made(stream, answer):
    with pytest.raises(InputError, match=answer):
        make_batches({"a": stream})
