"""Turns texts into TF-IDF vectors of their words and pairs of words, as scikit-learn's ``TfidfVectorizer`` does by default.

The term frequency is a count, the inverse document frequency ``log((1 + n) / (1 + df)) + 1`` over the rows that were fitted
on, and each vector has the L2 norm 1. A word is two or more letters, digits or underscores, in lower case.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

MAX_TERMS = 100_000  # the most frequent ones
_WORD = re.compile(r"\b\w\w+\b")


@dataclasses.dataclass(frozen=True, eq=False)
class Sparse:
    """A matrix [rows, columns] as the entries that are not 0: ``row`` and ``column`` int [E], ``value`` float64 [E]."""

    rows: int
    columns: int
    row: np.ndarray
    column: np.ndarray
    value: np.ndarray

    def times(self, vector: np.ndarray) -> np.ndarray:
        """Returns the product with a vector [columns], float64 [rows]."""
        return np.bincount(self.row, weights=self.value * vector[self.column], minlength=self.rows)

    def transposed_times(self, vector: np.ndarray) -> np.ndarray:
        """Returns the product of the transposed matrix with a vector [rows], float64 [columns]."""
        return np.bincount(self.column, weights=self.value * vector[self.row], minlength=self.columns)

    def take(self, chosen: np.ndarray) -> Sparse:
        """Returns the rows where ``chosen`` bool [rows] is true, in order."""
        kept = chosen[self.row]
        place = np.cumsum(chosen) - 1
        return Sparse(int(chosen.sum()), self.columns, place[self.row[kept]], self.column[kept], self.value[kept])


def count_terms(texts: Sequence[str]) -> Sparse:
    """Returns how often each term occurs in each text; a column is a term, in alphabetical order."""
    counted = [Counter(_terms(text)) for text in texts]
    number = {term: index for index, term in enumerate(sorted(set().union(*counted)))}
    lengths = np.fromiter(map(len, counted), np.int64, len(counted))
    column = np.fromiter((number[term] for terms in counted for term in terms), np.int64, lengths.sum())
    value = np.fromiter((count for terms in counted for count in terms.values()), np.float64, lengths.sum())
    return Sparse(len(texts), len(number), np.repeat(np.arange(len(texts)), lengths), column, value)


def weigh(counts: Sparse, fitted: np.ndarray, most: int = MAX_TERMS) -> Sparse:
    """Returns the TF-IDF vectors of all rows, with the terms and the frequencies of the rows ``fitted`` bool [rows].

    At most ``most`` terms are kept, those with the highest counts there, of equal ones the first. Other columns are 0.
    """
    known = counts.take(fitted)
    total = np.bincount(known.column, weights=known.value, minlength=counts.columns)
    documents = np.bincount(known.column, minlength=counts.columns)
    vocabulary = np.zeros(counts.columns, bool)
    vocabulary[np.argsort(-total, kind="stable")[:most]] = True
    vocabulary &= documents > 0
    kept = vocabulary[counts.column]
    row, column = counts.row[kept], counts.column[kept]
    rarity = np.log((1 + known.rows) / (1 + documents)) + 1
    value = counts.value[kept] * rarity[column]
    norm = np.sqrt(np.bincount(row, weights=value**2, minlength=counts.rows))
    return Sparse(counts.rows, counts.columns, row, column, value / norm[row])


def _terms(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    return words + [f"{first} {second}" for first, second in itertools.pairwise(words)]
