"""Holds a finished curation of drawn portraits against the faults that were planted in them.

    python -m benchmarks.curation CURATION IMAGES

prints, for each kind of fault, how many anchors have it and which test dropped them; how many anchors without a fault a test
dropped; and how many near duplicates were found, missed, and mistaken for some. A twin is found if one of the two alike is
dropped. People who passed all tests and were one too many ("surplus") count as not dropped.
"""

from __future__ import annotations

import argparse
import collections
import json
from pathlib import Path
from typing import Any

from data_pipelines.curation.step import DROPPED, MEASURED, read_lines
from data_pipelines.curation.verdicts import DUPLICATE, SURPLUS
from data_pipelines.portraits.faults import KINDS, Shares, duplicates_of, fault_of
from data_pipelines.portraits.step import Images, read_images
from salmu_jax.runtime.errors import InputError


def compare(curation: Path, images: Images) -> dict[str, Any]:
    """Returns the figures. Raises InputError for portraits that are not drawn."""
    settings = images.settings
    if settings.get("kind") != "procedural":
        raise InputError("its portraits are not drawn, so nobody knows their faults", images.directory)
    seed, identities = settings["seed"], settings["identities"]
    shares = Shares(**{**settings["faults"], "duplicates": tuple(settings["faults"]["duplicates"])})
    faults = {anchor.number: fault_of(seed, anchor.number, identities, shares) for anchor in images.anchors}
    reasons, repeated = _dropped(curation)
    portraits = {int(row["identity_id"]): row["portraits"] for _, row in read_lines(curation, MEASURED)}

    by_kind: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in (*KINDS, "none")}
    found = dict.fromkeys(KINDS, 0)
    wrongly = collections.Counter[str]()
    twins = {fault.other for fault in faults.values() if fault.other is not None}
    for number, fault in faults.items():
        reason = reasons.get(number, "kept")
        by_kind[fault.kind][reason] += 1
        if fault.kind == "none":
            wrongly[reason] += reason != "kept" and not (reason == "indistinct" and number in twins)
        else:
            found[fault.kind] += reason != "kept" or (fault.other is not None and fault.other in reasons)
    dropped = sum(found.values()) + sum(wrongly.values())
    return {
        "anchors": len(faults),
        "faulty": {kind: sum(by_kind[kind].values()) for kind in KINDS},
        "found": found,
        "recall": round(sum(found.values()) / max(1, sum(fault.kind != "none" for fault in faults.values())), 4),
        "precision": round(sum(found.values()) / max(1, dropped), 4),
        "dropped_by": {kind: dict(counts.most_common()) for kind, counts in by_kind.items()},
        "without_fault_and_dropped": {reason: count for reason, count in wrongly.items() if count},
        "near_duplicates": _duplicates(portraits, repeated, reasons, seed, shares),
    }


def _dropped(curation: Path) -> tuple[dict[int, str], dict[int, set[int]]]:
    """Returns the test that dropped each identity, and the portraits of each that were taken for near duplicates."""
    reasons: dict[int, str] = {}
    repeated: dict[int, set[int]] = collections.defaultdict(set)
    for _, row in read_lines(curation, DROPPED):
        number = int(row["identity_id"])
        if row["file"] is None and row["reason"] != SURPLUS:
            reasons[number] = row["reason"]
        elif row["reason"] == DUPLICATE:
            repeated[number].add(int(row["file"].split("_")[1]))
    return reasons, repeated


def _duplicates(
    portraits: dict[int, int], repeated: dict[int, set[int]], reasons: dict[int, str], seed: int, shares: Shares
) -> dict[str, int]:
    """Counts near duplicates among the people who were not dropped, whichever of the two was."""
    counts = collections.Counter[str]()
    for number, count in portraits.items():
        if number in reasons:
            continue
        planted, got = duplicates_of(seed, number, count, shares), repeated[number]
        counts["planted"] += len(planted)
        counts["found"] += len(got & set(planted))
        counts["missed"] += len(set(planted) - got)
        counts["mistaken"] += len(got - set(planted))
    return dict(counts)


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curation", type=Path, help="a finished step curation")
    parser.add_argument("images", help="the step images that it is of")
    arguments = parser.parse_args()
    print(json.dumps(compare(arguments.curation, read_images(arguments.images)), indent=1))


if __name__ == "__main__":
    main()
