"""Writes Russian, Ukrainian and Greek names in Latin letters, as passports and newspapers do.

Russian by a simplified BGN/PCGN table (soft and hard signs are dropped), Ukrainian by the national table of 2010, Greek by
ELOT 743 without accents.
"""

from __future__ import annotations

import re
import unicodedata

_RUSSIAN = {
    "а": "a", "б": "b", "в": "v", "г": "g", "д": "d", "е": "e", "ё": "yo", "ж": "zh", "з": "z", "и": "i", "й": "y",
    "к": "k", "л": "l", "м": "m", "н": "n", "о": "o", "п": "p", "р": "r", "с": "s", "т": "t", "у": "u", "ф": "f",
    "х": "kh", "ц": "ts", "ч": "ch", "ш": "sh", "щ": "shch", "ъ": "", "ы": "y", "ь": "", "э": "e", "ю": "yu", "я": "ya",
}  # fmt: skip
_UKRAINIAN = {
    "а": "a", "б": "b", "в": "v", "г": "h", "ґ": "g", "д": "d", "е": "e", "є": "ie", "ж": "zh", "з": "z", "и": "y",
    "і": "i", "ї": "i", "й": "i", "к": "k", "л": "l", "м": "m", "н": "n", "о": "o", "п": "p", "р": "r", "с": "s",
    "т": "t", "у": "u", "ф": "f", "х": "kh", "ц": "ts", "ч": "ch", "ш": "sh", "щ": "shch", "ь": "", "ю": "iu",
    "я": "ia", "'": "", "ʼ": "", "’": "",
}  # fmt: skip
_UKRAINIAN_BEGINNING = {"є": "ye", "ї": "yi", "й": "y", "ю": "yu", "я": "ya"}
_GREEK = {
    "α": "a", "β": "v", "γ": "g", "δ": "d", "ε": "e", "ζ": "z", "η": "i", "θ": "th", "ι": "i", "κ": "k", "λ": "l",
    "μ": "m", "ν": "n", "ξ": "x", "ο": "o", "π": "p", "ρ": "r", "σ": "s", "ς": "s", "τ": "t", "υ": "y", "φ": "f",
    "χ": "ch", "ψ": "ps", "ω": "o",
}  # fmt: skip
_UNVOICED = "θκξπστφχψ"


def romanised(name: str, language: str) -> str:
    """Returns ``name`` in Latin letters, every word of it capitalised.

    Args:
      name: letters of the language, with spaces, hyphens and apostrophes.
      language: ``ru``, ``uk`` or ``el``. Raises KeyError for another.

    >>> [romanised("Юлия Щербакова", "ru"), romanised("Згорян", "uk"), romanised("Ευαγγελία", "el")]
    ['Yuliya Shcherbakova', 'Zghorian', 'Evangelia']
    """
    write = {"ru": _russian, "uk": _ukrainian, "el": _greek}[language]
    return re.sub(r"[^\W\d_][\w'ʼ’]*", lambda word: write(word[0].lower()).capitalize(), name)


def _russian(word: str) -> str:
    word = re.sub("(^|[аеёиоуыэюяъь])е", r"\1йе", word)
    return "".join(_RUSSIAN[letter] for letter in word)


def _ukrainian(word: str) -> str:
    first = _UKRAINIAN_BEGINNING.get(word[0], _UKRAINIAN.get(word[0], word[0]))
    return first + "".join(_UKRAINIAN[letter] for letter in word[1:]) if "зг" not in word else _with_zgh(word)


def _with_zgh(word: str) -> str:
    before, _, after = word.partition("зг")
    return (_ukrainian(before) if before else "") + "zgh" + "".join(_UKRAINIAN[letter] for letter in after)


def _greek(word: str) -> str:
    decomposed = unicodedata.normalize("NFD", word)
    # a diaeresis, or an accent on the first of two vowels, parts them: they are not a diphthong
    word = re.sub("([αεο])\u0301([ιυ])", r"\1|\2", re.sub("([ιυ])\u0308", r"|\1", decomposed))
    word = "".join(letter for letter in word if not unicodedata.combining(letter))
    word = word.replace("ου", "ou").replace("γγ", "ng").replace("γξ", "nx").replace("γχ", "nch")
    word = re.sub(f"([αεη])υ(?=[{_UNVOICED}]|$)", r"\1f", word)
    word = re.sub("([αεη])υ", r"\1v", word)
    word = re.sub("^μπ", "b", word)
    return "".join(_GREEK.get(letter, letter) for letter in word.replace("|", ""))
