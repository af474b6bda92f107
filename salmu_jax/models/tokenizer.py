"""CLIP's byte-pair encoding: captions to int32 token rows, with exactly the ids of OpenAI's and OpenCLIP's tokenizers.

A caption is cleaned (ftfy, HTML entities unescaped twice, white space collapsed, lower case) and split into words (special
tokens, English contractions, runs of letters, *single* digits, runs of anything else). Each word becomes UTF-8 bytes, the
last of which is marked ``</w>``, and the published merges join them, the lowest rank first.

The ``regex`` package finds the words; its Unicode tables and case folding define the published ids. The ``tokenizers`` library
applies the merges. No word contains white space, so the ids of each piece between two spaces are cached.

Reference: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021), section 2.4;
the merges are the published ``bpe_simple_vocab_16e6.txt`` (see ``data/NOTICE``).
"""

from __future__ import annotations

import functools
import gzip
import html
import itertools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ftfy
import numpy as np
import regex
from tokenizers import models

from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.files import sha256_json

MERGES_FILE = Path(__file__).parent / "data" / "bpe_simple_vocab_16e6.txt.gz"
MAX_MERGES = 49_152 - 256 - 2  # the published vocabulary is cut here: 48,894 merges, 49,408 ids
START, END = "<start_of_text>", "<end_of_text>"

_WORD = regex.compile(
    rf"{START}|{END}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+", regex.IGNORECASE
)
_REPAIR = ftfy.TextFixerConfig(explain=False)  # ftfy's defaults, built once rather than for each caption
# Web captions have unlimited distinct words, addresses, and sentences without spaces. The cache takes some 50 MB at most.
_MAX_CACHED, _LONGEST_CACHED = 1 << 18, 32


def clean(text: str) -> str:
    """Cleans a caption: repairs mojibake, unescapes HTML entities, collapses white space, lowers the case."""
    # ftfy and unescape are most of the cost, and leave printable ASCII without an ampersand unchanged.
    if not (text.isascii() and text.isprintable() and "&" not in text):
        text = html.unescape(html.unescape(ftfy.fix_text(text, _REPAIR)))
    return " ".join(text.split()).lower()


@dataclass(frozen=True)
class ClipTokenizer:
    """CLIP's tokenizer, with all merges or the first ``num_merges`` only.

    The ids are: 256 bytes, 256 bytes that end a word, one id per merge, start of text, end of text. With all merges there are
    49,408 ids, start is 49,406 and end 49,407. Hashable, and it pickles as its two settings.

    Args:
      num_merges: how many of the 48,894 published merges to use; None: all.
      context_length: the length of a token row, at least 2.

    Raises:
      InputError: a setting is out of range, or the merges file is damaged.
    """

    num_merges: int | None = None
    context_length: int = 77

    def __post_init__(self):
        if self.num_merges is not None and not 0 <= self.num_merges <= MAX_MERGES:
            raise InputError(f"is {self.num_merges}; CLIP's tokenizer has 0 to {MAX_MERGES} merges", "num_merges")
        if self.context_length < 2:
            raise InputError(f"is {self.context_length}; a row holds at least the start and the end", "context_length")

    @property
    def vocab_size(self) -> int:
        return 512 + self._merges + 2

    @property
    def start_id(self) -> int:
        return self.vocab_size - 2

    @property
    def end_id(self) -> int:
        return self.vocab_size - 1

    @property
    def digest(self) -> str:
        """SHA-256 of everything that the ids depend on: the merges used, the word pattern, the row length."""
        merges = [list(pair) for pair in _published_merges()[: self._merges]]
        settings = {"pattern": _WORD.pattern, "clean": "ftfy html2 whitespace lower", "context": self.context_length}
        return sha256_json({"merges": merges, **settings})

    def vocabulary(self) -> tuple[list[str], list[tuple[str, str]]]:
        """Returns the symbols in the order of their ids, without start and end of text, and the merges in order of rank."""
        merges = _published_merges()[: self._merges]
        symbols = _byte_symbols().values()
        return [*symbols, *(symbol + "</w>" for symbol in symbols), *("".join(pair) for pair in merges)], merges

    def encode(self, text: str) -> list[int]:
        """Returns the ids of one caption, of any length, without start and end."""
        return _Encoder.of(self._merges).encode(text)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Encodes captions as token rows, int32 ``[len(texts), context_length]``: start, ids, end, then zeros.

        A caption that does not fit is truncated, and the last id of its row is still the end (:meth:`count_truncated` counts
        these); an empty caption is ``[start, end, 0, ...]``. Raises TypeError for a single string.
        """
        if isinstance(texts, str):
            raise TypeError("ClipTokenizer takes a sequence of captions, not one string")
        encode = _Encoder.of(self._merges).encode
        captions = [encode(text)[: self.context_length - 2] for text in texts]
        lengths = np.fromiter(map(len, captions), np.int64, len(captions))
        rows, columns = np.zeros((len(texts), self.context_length), np.int32), np.arange(self.context_length)
        rows[:, 0] = self.start_id
        inside = (columns >= 1) & (columns <= lengths[:, None])
        rows[inside] = np.fromiter(itertools.chain.from_iterable(captions), np.int32, int(lengths.sum()))
        rows[np.arange(len(texts)), lengths + 1] = self.end_id
        return rows

    def count_truncated(self, texts: Sequence[str]) -> int:
        """Counts the captions that ``context_length`` truncates, for a warning: the ids cut off are never seen in training."""
        return sum(len(self.encode(text)) > self.context_length - 2 for text in texts)

    @property
    def _merges(self) -> int:
        return MAX_MERGES if self.num_merges is None else self.num_merges


class _Encoder:
    """The merges of one vocabulary, and a cache of ids, shared by all tokenizers with that vocabulary."""

    @staticmethod
    @functools.lru_cache(maxsize=8)
    def of(num_merges: int) -> _Encoder:
        return _Encoder(num_merges)

    def __init__(self, num_merges: int):
        vocabulary, merges = ClipTokenizer(num_merges).vocabulary()
        ids = {symbol: index for index, symbol in enumerate(vocabulary)}
        # The bare model: the library's tokenizer around it takes twice as long per word, and its batch call would start a
        # thread pool, which does not survive the fork of data-loading workers.
        self._bpe = models.BPE(vocab=ids, merges=merges, end_of_word_suffix="</w>")
        self._special = {START: len(vocabulary), END: len(vocabulary) + 1}
        self._cache: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for piece in clean(text).split(" "):
            known = self._cache.get(piece)
            ids += self._encode_piece(piece) if known is None else known
        return ids

    def _encode_piece(self, piece: str) -> list[int]:
        ids = []
        for word in _WORD.findall(piece):
            if word in self._special:
                ids.append(self._special[word])
            else:
                symbols = word.encode().decode("latin-1").translate(_byte_symbols())  # one character per byte
                ids += [token.id for token in self._bpe.tokenize(symbols)]
        if len(piece) <= _LONGEST_CACHED and len(self._cache) < _MAX_CACHED:
            self._cache[piece] = ids
        return ids


@functools.cache
def _published_merges() -> list[tuple[str, str]]:
    """Reads the merges in order of rank: lines 1 to 48,894 of the published file (line 0 is its version)."""
    try:
        lines = gzip.decompress(MERGES_FILE.read_bytes()).decode().split("\n")[1 : MAX_MERGES + 1]
        merges = [(left, right) for left, right in (line.split() for line in lines)]
    except (EOFError, gzip.BadGzipFile, zlib.error, ValueError) as error:
        raise InputError(f"damaged ({error}); install salmu_jax again", MERGES_FILE) from error
    if len(merges) != MAX_MERGES:
        raise InputError(f"has {len(merges)} merges, not {MAX_MERGES}; install salmu_jax again", MERGES_FILE)
    return merges


@functools.cache
def _byte_symbols() -> dict[int, str]:
    """Returns the character for each byte, in the order of their ids.

    Printable Latin-1 bytes come first and stand for themselves; the others are U+0100, U+0101 and so on, since a symbol must
    not be white space or a control character.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + index) for index, byte in enumerate(others)}
