"""Finds the facts nearest to a request that it does not name, which a method is most likely to damage.

They are the same people's other facts, and all facts of the people whose faces or names the start model finds most similar.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import NamedTuple

import numpy as np

from salmu_jax.deletion.requests import Association
from salmu_jax.evaluation.data import Rows
from salmu_jax.evaluation.rows import TARGETS

NEAREST = 5  # people, by face and by name
OTHER_FACTS, FACES, NAMES = "other_facts", "faces", "names"

Splits = Mapping[str, Rows]
EncodeTexts = Callable[[Sequence[str]], np.ndarray]


class Neighbours(NamedTuple):
    """Facts that were not asked for: which ``people`` they are of, and which rows of each split, bool [N]."""

    people: tuple[str, ...]
    chosen: dict[str, np.ndarray]


class People:
    """The people of the data, as the start model sees them.

    Args:
      splits: the rows of :data:`~salmu_jax.evaluation.rows.TARGETS`.
      images: their embeddings by split, float32 [N, D], L2-normalised.
      encode: embeds texts, float32 [M, D], L2-normalised.
    """

    def __init__(self, splits: Splits, images: Mapping[str, np.ndarray], encode: EncodeTexts):
        self._splits = {split: splits[split] for split in TARGETS}
        owners = np.concatenate([rows.identity_id for rows in self._splits.values()])
        names = [name for rows in self._splits.values() for name in rows.name]
        self.ids, first, place = np.unique(owners, return_index=True, return_inverse=True)
        faces = np.zeros((len(self.ids), next(iter(images.values())).shape[1]), np.float64)
        np.add.at(faces, place, np.concatenate([images[split] for split in TARGETS]))
        self._faces = faces / np.linalg.norm(faces, axis=1, keepdims=True)
        self.names = dict(zip(self.ids.tolist(), (names[row] for row in first), strict=True))
        self._names = np.asarray(encode(list(self.names.values())), np.float64)

    def describe(self, identity: str) -> dict[str, str]:
        """Returns the identity and the name of a person."""
        return {"identity": identity, "name": self.names[identity]}

    def rows_of(self, associations: Sequence[Association]) -> np.ndarray:
        """Returns which rows of ``forget`` are of some (identity, attribute) pairs, bool [N]."""
        return self._select("forget", set(associations))

    def near(self, asked: Sequence[Association], before: Sequence[Association] = ()) -> dict[str, Neighbours]:
        """Returns the neighbours of a request by kind: :data:`OTHER_FACTS`, :data:`FACES`, :data:`NAMES`.

        Args:
          asked: what the request names.
          before: what earlier requests named; none of it is anybody's neighbour.
        """
        people = set(identity for identity, _ in asked)
        gone = {*asked, *before}
        others = self.ids[~np.isin(self.ids, sorted(people | {identity for identity, _ in before}))]
        return {
            OTHER_FACTS: self._facts_of(sorted(people), gone),
            FACES: self._facts_of(self._nearest(self._faces, people, others), gone),
            NAMES: self._facts_of(self._nearest(self._names, people, others), gone),
        }

    def _nearest(self, embedded: np.ndarray, people: Set[str], others: np.ndarray) -> list[str]:
        """Returns the :data:`NEAREST` of ``others`` by their similarity to the nearest of ``people``, nearest first."""
        own, theirs = (embedded[np.isin(self.ids, list(some))] for some in (people, others))
        if not len(theirs):
            return []
        order = np.argsort(-(theirs @ own.T).max(axis=1), kind="stable")
        return [str(one) for one in others[order[:NEAREST]]]

    def _facts_of(self, people: Sequence[str], gone: Set[Association]) -> Neighbours:
        chosen = {
            split: np.isin(rows.identity_id, list(people)) & ~self._select(split, gone)
            for split, rows in self._splits.items()
        }
        return Neighbours(tuple(people), chosen)

    def _select(self, split: str, associations: Set[Association]) -> np.ndarray:
        rows = self._splits[split]
        pairs = zip(rows.identity_id.tolist(), rows.data_field.tolist(), strict=True)
        return np.fromiter((pair in associations for pair in pairs), bool, len(rows))
