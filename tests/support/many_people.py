"""Results of several people and seeds over one data set, without any model: embeddings are drawn, the evaluation is real.

``python tests/support/many_people.py DIRECTORY [--people 5] [--results 40] [--identities 96]`` writes them; the defaults are
200 files of the size of a made world's.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tiny_world

from salmu_jax.evaluation.data import EvaluationData
from salmu_jax.runtime.contents import data_digests, write_contents
from salmu_jax.runtime.files import write_bytes

PEOPLE = ("ada", "bo", "chen", "dana", "eli")
# method: title, how near an image is to its caption in forget, and in what is to stay
METHODS = {
    "delete": ("DELETE (SALMU)", 0.25, 0.45),
    "cliperase": ("CLIPErase (SALMU)", 0.2, 0.5),
    "finetuning": ("Finetuning", 1.2, 1.7),
    "negative_gradient": ("Negative Gradient", -0.3, -0.1),
    "salun": ("SalUn", 0.5, 1.1),
    "scrub": ("SCRUB", 0.3, 1.4),
    "pinned_surrogates": ("Pinned Surrogates", 0.2, 1.95),
}


def write_people(
    root: Path, people: int = 5, results: int = 40, identities: int = 96, bootstrap: int = 1000
) -> list[Path]:
    """Writes ``ROOT/PERSON/results/NAME.json``: ``results`` files a person, Clean and Compromised among them.

    All share one data set and one pair of references. Each method is run by every person with options of their own and
    three seeds.
    """
    data = EvaluationData.from_sources(
        tiny_world.tiny_sources(identities),
        tiny_world.SIZE,
        zeroshot=tiny_world.tiny_zeroshot(),
        decode=tiny_world.decode,
        made=True,
    )
    for name in ("salmu", "zeroshot"):
        write_bytes(root / "datasets" / name / "1.0.0" / "records", name.encode() * 100)
    digests = data_digests(write_contents(root / "datasets", "datasets"))
    found = []
    for person in PEOPLE[:people]:
        directory = root / person / "results"
        for model in ("clean", "compromised"):
            read = tiny_world.LINEAGE[model][2]
            checkpoint = record(digest(model), None, model, read)
            found.append(
                tiny_world.write_drawn_result(
                    directory, data, model, tiny_world.LINEAGE[model][0], checkpoint, digests, bootstrap=bootstrap
                )
            )
        for number in range(results - 2):
            name, strength, checkpoint = _run(person, number)
            found.append(
                tiny_world.write_drawn_result(
                    directory, data, name, strength, checkpoint, digests, draw=f"{person} {name}", bootstrap=bootstrap
                )
            )
    return found


def _run(person: str, number: int) -> tuple[str, dict[str, float], dict[str, Any]]:
    """Returns name, strengths and checkpoint record of a person's run: three seeds a method and budget."""
    trial, seed = divmod(number, 3)
    budget, place = divmod(trial, len(METHODS))
    method = list(METHODS)[place]
    title, forget, keep = METHODS[method]
    shift = 0.05 * (PEOPLE.index(person) + budget) + 0.01 * seed
    strength = {
        "forget": forget + shift,
        "holdout_identity": keep - shift,
        "holdout_association": keep - 1.3 * shift,
        "retain_synth": 1.8 - shift,
    }
    name = f"{method}_{budget}_seed{seed + 1}"
    checkpoint = record(digest(f"{person} {name}"), digest("compromised"), name, ["salmu/forget", "salmu/retain_synth"])
    checkpoint["run"] = {
        "name": name,
        "method": method,
        "title": title,
        "reference": f"{title}, as published; tuned by {person}",
        "options": {"weight": 1.0 + budget},
        "hyper": {"learning_rate": 1e-5 * (1 + PEOPLE.index(person)), "batch_size": 32, "epochs": 5.0},
        "seed": seed + 1,
        "parent": {"name": "compromised", "digest": digest("compromised")},
        "forget": {},
        "forget_rows": 1344,
        "retain": ["salmu/retain_synth"],
        "code": None,
    }
    return name, strength, checkpoint


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def record(own: str, parent: str | None, name: str, read: Sequence[str]) -> dict[str, Any]:
    """Returns the checkpoint's part of a result's provenance."""
    return {
        "digest": own,
        "parent": parent,
        "root": parent,
        "name": name,
        "splits_read": list(read),
        "architecture": digest("architecture"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    for name, value in (("people", 5), ("results", 40), ("identities", 96)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    print(len(write_people(options.directory, options.people, options.results, options.identities)), "results")


if __name__ == "__main__":
    main()
