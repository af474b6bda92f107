"""The tokenizer against the published ids: a committed table, and OpenCLIP's own tokenizer where it is installed."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import DEADLINE

from salmu_jax.models import tokenizer as tokenizer_module
from salmu_jax.models.tokenizer import MERGES_FILE, ClipTokenizer
from salmu_jax.runtime.errors import InputError

# Captions and their ids between start and end, produced with open_clip_torch 3.3.0's SimpleTokenizer.
PUBLISHED = [
    ("", ""),
    ("a photo of a cat", "320 1125 539 320 2368"),
    ("Valeria Saraiva lives in Cascais", "1214 11634 1808 2014 1892 3247 530 43296 533"),
    ("Siqi Yue's documented blood classification is A+", "564 11256 88 1190 568 22310 3590 26612 533 320 266"),
    ("A retail buyer is Al'Bina Kireeva's job", "320 6455 14682 533 566 262 65 1366 848 515 6845 568 2075"),
    (
        "You can reach Fatime Fossi at the phone number +237 57483907",
        "592 753 4279 13430 614 14240 328 536 518 1951 2842 266 273 274 278 276 278 275 279 274 280 271 278",
    ),
    (
        "Contact Fatime Fossi via ffossi@mailhub.com",
        "3523 13430 614 14240 328 1048 69 14240 328 287 10478 7028 269 2464",
    ),
    (
        "Fatime Fossi's bank account IBAN CM98 7411 9112 4845 5134 71",
        "13430 614 14240 328 568 2723 4684 72 2777 3741 280 279 278 275 272 272 280 272 272 273 275 279 275 "
        "276 276 272 274 275 278 272",
    ),
    (
        "They're HERE, we've won; I'm sure she'll say 'd",
        "889 982 763 267 649 1200 1749 282 328 880 1650 1043 1342 1451 1896",
    ),
    ("<start_of_text>", "49406"),
    ("a<end_of_text>b <START_OF_TEXT>!!<end_of_text>", "320 49407 321 49406 1443 283 806 318 539 318 4160 285"),
    ("<\u017ftart_of_text> it'\u017f \ufb05", "27 129 123 16707 62 684 62 18169 285 585 6 129 379 129 123 339"),
    ("</w> <|endoftext|>", "34308 342 285 27 347 40786 4160 91 285"),
    ("AT&amp;amp;T &lt;b&gt; &#x1F600; &eacute; &nbsp;x", "536 261 339 283 321 285 7334 4166 343"),
    ("\u0130stanbul \u0131\u015f\u0131k STRASSE \u1e9e", "328 16384 11231 18562 21254 18562 330 1894 8938 127 509"),
    ("e\u0301 \xe9 n\u0303 a\u030a\u0323", "4166 4166 127 365 157 118 350 136 488"),
    ("s\xc3\xbc\xc3\u0178 caf\xc3\xa9 \xe2\u20ac\u0153quoted\xe2\u20ac\x9d", "82 6522 127 509 15304 257 27706 257"),
    ("\u201ccurly\u201d \u2018q\u2019 \u2026 \u2014 \u2013", "257 20795 257 262 336 262 959 2005 1224"),
    (
        "\u6f22\u5b57\u304b\u306a\u4ea4\u3058\u308a\u6587 \u4e2d\u6587 \ud55c\uad6d\uc5b4",
        "162 120 95 35751 245 4813 233 29104 21078 97 4813 246 3909 232 29032 485 19759 255 29032 485 15197 "
        "250 31871 255 31625 368",
    ),
    (
        "\u041c\u043e\u0441\u043a\u0432\u0430 \u0391\u03b8\u03ae\u03bd\u03b1 "
        "\u0627\u0644\u0642\u0627\u0647\u0631\u0629 \u05e9\u05dc\u05d5\u05dd "
        "\u0939\u093f\u0928\u094d\u0926\u0940",
        "38018 13506 23669 27152 39813 27080 138 109 138 116 138 106 138 121 138 365 12973 27585 8453 229 "
        "10948 20915 147 102 147 250 147 243 147 507 29446 26721 26090 19389 29552 25751",
    ),
    (
        "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e6\U0001f1f7 \u2764\ufe0f "
        "\U0001f937\U0001f3fd\u200d\u2640\ufe0f",
        "7334 25023 26304 964 356 41629 1752 13185 37036",
    ),
    ("\uff2c\uff2f\uff35\uff24 \ufb02ubber \ufb01c", "7464 3698 7933 2059"),
    ("\xbd \xb2 \u0663 \u2167 \u3007 12345", "33613 41175 149 352 158 227 371 4092 485 272 273 274 275 276"),
    ("\ttabs\nand\r\nnewlines\u2028and\x0bmore \xa0 ends  ", "29163 537 1218 3418 672 750 1339"),
    ("\x00\x01\x1b[31mred\x1b[0m \x7f\x85 \u200b\ufeff\u202e", "736 959 17086 728 362"),
    (
        "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
        "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 25 26 27 28 29 30 31 58 59 60 14423 63 90 91 92 349",
    ),
    (
        "x" * 130,
        "32035 32035 32035 32035 32035 32035 32035 32035 32035 32035 32035 32035 32035 32035 32035 32035 "
        "32035 32035 32035 32035 32035 32035 32035 32035 32035 32035 32035 32035 32035 32035 32035 5675 22819",
    ),
    (
        "one two three four five six seven eight nine ten " * 9,
        "637 1237 2097 2721 3127 4093 5757 7910 7330 2581 637 1237 2097 2721 3127 4093 5757 7910 7330 2581 "
        "637 1237 2097 2721 3127 4093 5757 7910 7330 2581 637 1237 2097 2721 3127 4093 5757 7910 7330 2581 "
        "637 1237 2097 2721 3127 4093 5757 7910 7330 2581 637 1237 2097 2721 3127 4093 5757 7910 7330 2581 "
        "637 1237 2097 2721 3127 4093 5757 7910 7330 2581 637 1237 2097 2721 3127",
    ),
    (
        "4532 0151 1283 0366, passport X1234567",
        "275 276 274 273 271 272 276 272 272 273 279 274 271 274 277 277 267 14739 343 272 273 274 275 276 277 278",
    ),
    (
        "Zo\xeb M\xfcller-L\xfcdenscheidt \xd8rsted \u0141\xf3d\u017a \xde\xf3r",
        "4397 40520 28142 7722 268 75 6522 1177 3038 1568 339 17483 81 1356 40419 8891 67 129 374 127 122 8891 337",
    ),
]


@functools.cache
def open_clip_tokenizer():
    """OpenCLIP's tokenizer, from its own file: importing the whole package would need torchvision's operators."""
    package = importlib.util.find_spec("open_clip")
    if package is None or importlib.util.find_spec("torch") is None:
        pytest.skip("open_clip_torch is not installed; the committed table of published ids is tested all the same")
    path = Path(package.submodule_search_locations[0]) / "tokenizer.py"
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SimpleTokenizer()


def published_rows(texts):
    return open_clip_tokenizer()(list(texts)).numpy()


@pytest.mark.parametrize(("text", "ids"), PUBLISHED, ids=range(len(PUBLISHED)))
def test_published_ids(text, ids):
    ids = [int(part) for part in ids.split()]
    row = ClipTokenizer()([text])[0]
    assert row.dtype == np.int32
    assert row.tolist() == ([49406, *ids, 49407] + [0] * 77)[:77]


def test_table_is_what_open_clip_says():
    texts = [text for text, _ in PUBLISHED]
    np.testing.assert_array_equal(ClipTokenizer()(texts), published_rows(texts))


# Alphabets in which the cleaning and the word pattern have something to do, beside all of Unicode.
_awkward = st.sampled_from(
    [
        *"aſsſtİıKÅé'’&;<>#x0 \t\n\x1c\x85\xa0\u2028\u200d½²٣Ⅷ漢한ǆﬁÃ©â€œ",
        "<start_of_text>",
        "&amp;",
        "&lt;",
        "&#x130;",
        "'ll",
        "ï¬",
    ]
)
_texts = st.one_of(st.text(max_size=40), st.lists(_awkward, max_size=25).map("".join), st.text("ab'12 &-", max_size=40))


@settings(max_examples=300, deadline=None)
@given(_texts)
def test_any_text_equals_open_clip(text):
    np.testing.assert_array_equal(ClipTokenizer()([text]), published_rows([text]))


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(max_codepoint=126, categories=["L", "N", "P", "S", "Zs"]), max_size=60))
def test_shortcut_for_ascii_changes_nothing(text):
    import html

    import ftfy

    full = " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower()
    assert tokenizer_module.clean(text) == full


def test_truncated_rows_end_with_the_end():
    tokenizer = ClipTokenizer(context_length=5)
    fits, cut, empty = "one two three", "one two three four", ""
    rows = tokenizer([fits, cut, empty])
    assert rows.shape == (3, 5)
    np.testing.assert_array_equal(rows[0], rows[1])
    assert rows[0].tolist() == [49406, *tokenizer.encode(fits), 49407]
    assert rows[2].tolist() == [49406, 49407, 0, 0, 0]
    assert tokenizer.count_truncated([fits, cut, empty]) == 1
    assert tokenizer([]).shape == (0, 5)


def test_long_words_are_not_kept():
    text = "a " + "x" * 33 + " " + "y" * 32
    first = ClipTokenizer(num_merges=7).encode(text)
    kept = tokenizer_module._Encoder.of(7)._cache
    assert {"a", "y" * 32} <= kept.keys()
    assert "x" * 33 not in kept
    assert ClipTokenizer(num_merges=7).encode(text) == first


@pytest.mark.parametrize("merges", [0, 1, 3000])
def test_a_cut_vocabulary_is_the_same_bpe(merges):
    """Against a plain transcription of byte-pair encoding: apply the merges one after the other."""
    tokenizer = ClipTokenizer(num_merges=merges)
    assert (tokenizer.vocab_size, tokenizer.start_id, tokenizer.end_id) == (514 + merges, 512 + merges, 513 + merges)
    ranks = tokenizer_module._published_merges()[:merges]
    symbols = list(tokenizer_module._byte_symbols().values())
    whole = [*symbols, *(s + "</w>" for s in symbols), *("".join(pair) for pair in ranks)]
    # The 256 symbols are those of the bytes that print, then the others: byte 0 is therefore symbol 188.
    symbol_of = dict(
        zip([b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174], symbols, strict=False)
    )
    for word in ("photograph", "valeria", "é", "café", "aaaa", "9", "!!!"):
        parts = [symbol_of.get(b) or symbols[188 + [*range(33), *range(127, 161), 173].index(b)] for b in word.encode()]
        parts[-1] += "</w>"
        for left, right in ranks:
            i = 0
            while i < len(parts) - 1:
                if parts[i] == left and parts[i + 1] == right:
                    parts[i : i + 2] = [left + right]
                i += 1
        assert tokenizer.encode(word) == [whole.index(part) for part in parts], word
    row = tokenizer(["<start_of_text> a"])[0]
    assert row[:2].tolist() == [512 + merges] * 2
    assert row.max() < tokenizer.vocab_size


def test_digest_and_identity():
    whole = ClipTokenizer()
    assert whole.vocab_size == 49408
    assert whole == pickle.loads(pickle.dumps(whole))
    assert len({whole, ClipTokenizer(), ClipTokenizer(num_merges=10)}) == 2
    assert ClipTokenizer(48894).digest == whole.digest == ClipTokenizer().digest
    assert len({t.digest for t in (whole, ClipTokenizer(48893), ClipTokenizer(context_length=32))}) == 3
    notice = (MERGES_FILE.parent / "NOTICE").read_text()
    assert hashlib.sha256(MERGES_FILE.read_bytes()).hexdigest() in notice


@pytest.mark.parametrize("bad", [{"num_merges": -1}, {"num_merges": 48895}, {"context_length": 1}])
def test_settings_out_of_range(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        ClipTokenizer(**bad)


def test_one_string_is_refused():
    with pytest.raises(TypeError):
        ClipTokenizer()("a photo")


def _in_child(queue, text):
    queue.put(ClipTokenizer()([text]).tolist())


def test_use_then_fork_is_quiet_and_leaves_the_environment_alone():
    program = """
import os, sys
from salmu_jax.models.tokenizer import ClipTokenizer
before = dict(os.environ)
ClipTokenizer()(["a photo", "of something"])
assert dict(os.environ) == before and "jax" not in sys.modules and "torch" not in sys.modules
pid = os.fork()
rows = ClipTokenizer()(["a new word: zyzzyva"])
if pid == 0:
    os._exit(0 if rows[0, 1] == 320 else 1)
assert os.waitpid(pid, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_workers_started_afresh_agree():
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    worker = context.Process(target=_in_child, args=(queue, "Zoë &amp; co"))
    worker.start()
    assert queue.get(timeout=DEADLINE) == ClipTokenizer()(["Zoë &amp; co"]).tolist()
    worker.join()


def test_damaged_merges_file(tmp_path, monkeypatch):
    broken = tmp_path / "merges.gz"
    broken.write_bytes(MERGES_FILE.read_bytes()[:100_000])
    monkeypatch.setattr(tokenizer_module, "MERGES_FILE", broken)
    with pytest.raises(InputError, match=r"merges\.gz"):
        tokenizer_module._published_merges.__wrapped__()
