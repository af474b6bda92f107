"""Allots countries to people in proportion to how many live there, so that a data set has every country and no luck in it.

The people of a region of appearance are shared out by the method of the largest remainder, after one each for every country
if there are enough. Who gets which is decided by a hash of the seed and the person's number: the allotment depends on the set
of people, not on their order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from data_pipelines.people.countries import REGIONS, Home, homes


def shares(count: int, weights: Sequence[float]) -> list[int]:
    """Divides ``count`` people in proportion to ``weights``; everybody who has a weight gets one if there are enough.

    >>> shares(10, [80, 15, 5, 0.1])
    [6, 2, 1, 1]
    """
    floor = int(count >= len(weights))
    exact = [weight / sum(weights) * count for weight in weights]
    given = [floor] * len(weights)
    for _ in range(count - sum(given)):  # each to whoever lacks most, those that lack as much in the order of the list
        given[max(range(len(weights)), key=lambda item: (round(exact[item] - given[item], 9), -item))] += 1
    return given


def allot(seed: int, regions: Mapping[int, str]) -> dict[int, Home]:
    """Returns the home of each person.

    Args:
      seed: of the data set.
      regions: the region of appearance of each person, by the person's number.

    Raises KeyError for a region that is not in ``REGIONS``.
    """
    found: dict[int, Home] = {}
    for region in dict.fromkeys((*REGIONS, *regions.values())):
        own = sorted((number for number in regions if regions[number] == region), key=lambda who: _hash(seed, who))
        options = homes(region)
        given = shares(len(own), [home.inhabitants for home in options])
        dealt = [home for home, times in zip(options, given, strict=True) for _ in range(times)]
        found |= dict(zip(own, dealt, strict=True))
    return found


def _hash(seed: int, number: int) -> bytes:
    return hashlib.sha256(f"country {seed} {number}".encode()).digest()
