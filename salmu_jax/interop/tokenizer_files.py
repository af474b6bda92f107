"""Writes the files of transformers' tokenizer for an export, and compares them with CLIP's before an import.

transformers reads ``tokenizer.json`` if it exists, otherwise ``vocab.json`` and ``merges.txt``. Several files name special
tokens; each is compared, since any of them may be used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salmu_jax.interop.fields import Fields, raise_problems, read_object
from salmu_jax.models import zoo
from salmu_jax.models.clip import ClipConfig
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.opening import open_regular

VOCABULARY, MERGES, WHOLE = "vocab.json", "merges.txt", "tokenizer.json"
SETTINGS, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
ALL = (VOCABULARY, MERGES, WHOLE, SETTINGS, SPECIAL, ADDED)

_START, _END = "<|startoftext|>", "<|endoftext|>"
_SPECIAL = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": _END}
_OTHER_SPECIAL = ("additional_special_tokens", "extra_special_tokens", "cls_token", "sep_token", "mask_token")
_WORD = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_PATTERNS = (_WORD, rf"<\|startoftext\|>|<\|endoftext\|>|{_WORD}")  # special tokens are split off first in any case
_NORMALIZER = {
    "type": "Sequence",
    "normalizers": [
        {"type": "NFC"},
        {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
        {"type": "Lowercase"},
    ],
}


def write(directory: Path, config: ClipConfig, tokenizer: ClipTokenizer) -> None:
    """Writes what ``CLIPTokenizer.from_pretrained`` reads.

    It pads rows with the end of text, where we use zeros; neither model reads past the first end of text.
    """
    ids, merges = _vocabulary(tokenizer)
    files.write_text(directory / VOCABULARY, json.dumps(ids, ensure_ascii=False))
    files.write_text(directory / MERGES, "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    files.write_json(directory / SPECIAL, _SPECIAL)
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": config.context_length, "do_lower_case": True}
    files.write_json(directory / SETTINGS, {**settings, **_SPECIAL})


def check(directory: Path, config: ClipConfig) -> None:
    """Raises InputError if one of the files in ``directory`` would tokenise captions differently from us."""
    ids, merges = _vocabulary(ClipTokenizer(num_merges=zoo.bpe_merges(config), context_length=config.context_length))
    there = {name: directory / name for name in ALL if (directory / name).exists()}
    if VOCABULARY in there and files.read_json(there[VOCABULARY]) != ids:
        raise InputError("not CLIP's vocabulary, by which captions become ids here", there[VOCABULARY])
    if MERGES in there:
        with open_regular(there[MERGES]) as handle:
            text = handle.read(1 << 24).decode(errors="replace")
        if text.split("\n", 1)[-1].split() != [symbol for pair in merges for symbol in pair]:
            raise InputError("not CLIP's merges, by which captions become ids here", there[MERGES])
    for name in (WHOLE, SETTINGS, SPECIAL, ADDED):
        if name not in there:
            continue
        problems: list[str] = []
        values = read_object(there[name])
        if name == WHOLE:
            _check_whole(values, ids, merges, problems)
        elif name == ADDED:
            _check_added(values, ids, problems)
        else:
            _check_special(values, problems)
            _check_settings(values, ids, problems)
        raise_problems(problems, "captions are not prepared as here", str(there[name]))


def _vocabulary(tokenizer: ClipTokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Returns the ids by symbol, start and end of text last, and the merges in order of rank."""
    symbols, merges = tokenizer.vocabulary()
    return {symbol: index for index, symbol in enumerate([*symbols, _START, _END])}, merges


def _check_settings(values: Mapping[str, Any], ids: Mapping[str, int], problems: list[str]) -> None:
    fields = Fields(values, "", problems)
    fields.only({"do_lower_case": True, "add_prefix_space": False, "split_special_tokens": False})
    fields.only({"add_bos_token": True, "add_eos_token": True, "padding_side": "right", "truncation_side": "right"})
    fields.only({"tokenizer_class": ("CLIPTokenizer", "CLIPTokenizerFast")})
    added = values.get("added_tokens_decoder") or {}
    if isinstance(added, Mapping) and all(isinstance(token, Mapping) for token in added.values()):
        _check_added({str(token.get("content")): index for index, token in added.items()}, ids, problems)
    else:
        problems.append("added_tokens_decoder is not a token for each id")


def _check_special(values: Mapping[str, Any], problems: list[str]) -> None:
    for name, right in _SPECIAL.items():
        token = _content(values.get(name))
        if token not in (None, right):
            problems.append(f"{name} is {str(token)[:60]}, not {right}")
    for name in _OTHER_SPECIAL:
        given = values.get(name) or []
        if isinstance(given, Mapping) and "content" not in given:  # tokens by name
            given = list(given.values())
        for token in map(_content, given if isinstance(given, list) else [given]):
            if token not in (_START, _END):
                problems.append(f"{name} has {str(token)[:60]}, which captions here have not")


def _content(token: Any) -> Any:
    """Returns the text of a token that may be given with its properties."""
    return token.get("content") if isinstance(token, Mapping) else token


def _check_added(added: Mapping[str, Any], ids: Mapping[str, int], problems: list[str]) -> None:
    """Checks tokens that are split off before captions become words: only start and end of text may be."""
    for token, index in added.items():
        right = ids[token] if token in (_START, _END) else None
        if right is None:
            problems.append(f"{token[:60]!r} is an added token, which captions here have not")
        elif str(index) != str(right):
            problems.append(f"{token} has the id {str(index)[:20]}, not {right}")


def _check_whole(
    values: Mapping[str, Any], ids: Mapping[str, int], merges: list[tuple[str, str]], problems: list[str]
) -> None:
    """Compares ``tokenizer.json``; its padding, truncation and decoder have no effect on how captions become ids."""
    added = values.get("added_tokens") or []
    if isinstance(added, list) and all(isinstance(token, Mapping) for token in added):
        _check_added({str(token.get("content")): token.get("id") for token in added}, ids, problems)
        whole = [token for token in added if token.get("single_word")]
        problems += [f"{str(token.get('content'))[:60]} is only cut out as a single word" for token in whole]
    else:
        problems.append("added_tokens is not a list of tokens")
        added = []
    model = values.get("model")
    model = model if isinstance(model, Mapping) else {}
    vocabulary = model.get("vocab")
    given = vocabulary if isinstance(vocabulary, Mapping) else {}
    ends = {token["content"]: token.get("id") for token in added if token.get("content") in (_START, _END)}
    if {**given, **ends} != ids:
        problems.append("model.vocab is not CLIP's vocabulary")
    if _pairs(model.get("merges")) != merges:
        problems.append("model.merges is not CLIP's merges")
    fields = Fields(model, "model", problems)
    fields.only({"type": "BPE", "dropout": 0, "continuing_subword_prefix": "", "ignore_merges": False})
    if model.get("end_of_word_suffix") != "</w>":
        problems.append(f"model.end_of_word_suffix is {str(model.get('end_of_word_suffix'))[:60]}, not </w>")
    if values.get("normalizer") != _NORMALIZER:
        problems.append("normalizer is not CLIP's (NFC, white space to a space, lower case)")
    if not _cuts_words(values.get("pre_tokenizer")):
        problems.append("pre_tokenizer is not CLIP's (its words, then their bytes)")
    if not _adds_ends(values.get("post_processor"), ids):
        problems.append("post_processor is not CLIP's (start of text, the caption, end of text)")


def _pairs(merges: Any) -> list[tuple[Any, ...]] | None:
    """Returns the merges as pairs; newer versions write pairs, older ones texts with a space."""
    if not isinstance(merges, list):
        return None
    return [
        tuple(pair.split(" ") if isinstance(pair, str) else pair if isinstance(pair, list) else ()) for pair in merges
    ]


def _cuts_words(value: Any) -> bool:
    parts = value.get("pretokenizers") if isinstance(value, Mapping) and value.get("type") == "Sequence" else None
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, Mapping) for part in parts):
        return False
    split, to_bytes = parts
    patterns = [{"Regex": pattern} for pattern in _PATTERNS]
    return (
        {**split, "pattern": None} == {"type": "Split", "pattern": None, "behavior": "Removed", "invert": True}
        and split.get("pattern") in patterns
        and (to_bytes.get("type"), to_bytes.get("add_prefix_space")) == ("ByteLevel", False)
    )


def _adds_ends(value: Any, ids: Mapping[str, int]) -> bool:
    if not isinstance(value, Mapping):
        return False
    if value.get("type") == "TemplateProcessing":
        single, tokens = value.get("single"), value.get("special_tokens")
        ends = [{"SpecialToken": {"id": token, "type_id": 0}} for token in (_START, _END)]
        named = {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in (_START, _END)}
        return single == [ends[0], {"Sequence": {"id": "A", "type_id": 0}}, ends[1]] and tokens == named
    return (
        value.get("type") in ("RobertaProcessing", "BertProcessing")
        and value.get("cls") == [_START, ids[_START]]
        and value.get("sep") == [_END, ids[_END]]
    )
