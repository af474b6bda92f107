"""Times drawn portraits on one core, JPEG included, and says what a whole data set would take.

    python -m benchmarks.portraits                     # 200 portraits at 512 px of two people
    python -m benchmarks.portraits --people 6 --sheet sheet.png

A person's layers are painted with the first portrait, and each expression when it first appears; so people are drawn to their
last portrait, and the total is of means. ``--sheet`` writes a contact sheet of the people, eight portraits each.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np

from data_pipelines.portraits.procedural import ProceduralSource
from data_pipelines.portraits.sheet import contact_sheet


def measure(source: ProceduralSource, people: int, portraits: int) -> dict[str, float]:
    """Draws ``portraits`` portraits of each of the first ``people``, and returns the figures."""
    times, sizes = [], []
    for number in range(people):
        for index in range(min(portraits, source.count(number))):
            start = time.process_time()
            image = source.portrait(number, index).image
            times.append(time.process_time() - start)
            sizes.append(len(image))
    whole = sum(source.count(number) for number in range(source.identities))
    return {
        "portraits": len(times),
        "median_ms": round(1e3 * float(np.median(times)), 1),
        "mean_ms": round(1e3 * float(np.mean(times)), 1),
        "mean_kb": round(float(np.mean(sizes)) / 1e3, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "data_set": whole,
        "data_set_minutes_of_one_core": round(whole * float(np.mean(times)) / 60, 1),
        "data_set_gb": round(whole * float(np.mean(sizes)) / 1e9, 2),
    }


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=2)
    parser.add_argument("--portraits", type=int, default=100, help="of each person")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="a PNG to write")
    arguments = parser.parse_args()
    source = ProceduralSource(seed=arguments.seed)
    print(json.dumps(measure(source, arguments.people, arguments.portraits), indent=1))
    if arguments.sheet:
        rows = [[source.portrait(number, index).image for index in range(8)] for number in range(arguments.people)]
        arguments.sheet.write_bytes(contact_sheet(rows, 8))


if __name__ == "__main__":
    main()
