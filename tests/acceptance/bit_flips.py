"""Flips random bits in files that a run reads, one at a time, and counts what comes of it.

    python tests/acceptance/bit_flips.py --flips 100 [--kind tar ...]

Every flip has one of three ends: it is *refused* (one line), it is *harmless* (what is read is equal, bit for bit), or it
*changes* what is read unnoticed. The last must not happen; the exit status is 1 if it does.

A kind of file is a :class:`Kind`: where it lies, and how it is read. To add some, add a function to :data:`MAKERS`.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import logging
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import absl.logging
import jax
import numpy as np

from data_pipelines.builders import build_datasets, open_source, read_classes
from data_pipelines.layout import SPLITS, World, check_world, iter_tar_pairs
from data_pipelines.world.generate import generate_world
from data_pipelines.world.scenes import CLASS_NAMES
from data_pipelines.world.splits import MIN_PERSONAS
from salmu_jax.evaluation.verify import verify_results
from salmu_jax.interop.commands import export_model
from salmu_jax.interop.foreign import load_foreign
from salmu_jax.models.clip import Clip
from salmu_jax.models.zoo import architecture
from salmu_jax.runtime import host
from salmu_jax.runtime.errors import InputError
from salmu_jax.training.checkpoint import load_model, save_model
from salmu_jax.training.state_store import StateStore


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
      name: heads its line.
      path: the file whose bits are flipped.
      read: reads it as a run would, and returns what comes out, comparable with ``==``; raises InputError if it notices.
      places: the bytes whose bits are flipped, by default all of them.
    """

    name: str
    path: Path
    read: Callable[[], Any]
    places: tuple[int, ...] = ()


def ends_of_flips(kind: Kind, flips: int, seed: int = 0) -> collections.Counter[str]:
    """Flips one random bit after the other, and counts the ends: refused, harmless, changed. Leaves the file as it was."""
    whole, data = kind.read(), kind.path.read_bytes()
    rng, ends = np.random.default_rng(seed), collections.Counter[str]()
    places = kind.places or range(len(data))
    try:
        for _ in range(flips):
            flipped = bytearray(data)
            flipped[places[int(rng.integers(len(places)))]] ^= 1 << int(rng.integers(8))
            kind.path.write_bytes(flipped)
            try:
                ends["harmless" if kind.read() == whole else "changed"] += 1
            except InputError:
                ends["refused"] += 1
    finally:
        kind.path.write_bytes(data)
    return ends


def world_kinds(root: Path) -> Iterator[Kind]:
    """The files of a made world, which has digests of all of them."""
    world = tiny_world(root)

    def read() -> list[Any]:
        check_world(world, decode=False)
        made = World(world)
        rows = [list(made.rows(split)) for split in SPLITS]
        return [
            rows,
            list(made.retain_pairs()),
            list(made.zeroshot.images()),
            made.metadata.identities,
            made.metadata.captions,
        ]

    for name in (
        *("data/forget-00000-of-00001.parquet", "retain/00000.tar", "zeroshot/test/0.tar", "zeroshot/classnames.txt"),
        *("sensitive_set_captions_metadata.json", "identities_metadata.json", "world.json"),
    ):
        yield Kind(f"made world, {name}", world / name, read)


def tar_kinds(root: Path) -> Iterator[Kind]:
    """Headers of a tar that nobody has digests of. (The bytes of its images and captions have no checksum.)"""
    path = tiny_world(root) / "retain" / "00000.tar"
    data = path.read_bytes()
    headers = [start for start in range(0, len(data), 512) if data[start + 257 : start + 262] == b"ustar"]
    end = len(data.rstrip(b"\0"))
    places = tuple(start + byte for start in headers for byte in range(512)) + tuple(range(end, len(data)))
    yield Kind("tar of somebody else, headers and end", path, lambda: list(iter_tar_pairs(path)), places)


def dataset_kinds(root: Path) -> Iterator[Kind]:
    """Record shards and JSON files of built data sets."""
    datasets = root / "datasets"
    build_datasets(tiny_world(root), datasets, check=False)

    def records(name: str, split: str) -> Callable[[], Any]:
        return lambda: list(open_source(datasets, name, split))

    (shard,) = datasets.rglob("salmu-forget.array_record*")
    yield Kind("record shard", shard, records("salmu", "forget"))
    for name in ("dataset_info.json", "features.json"):
        (path,) = (datasets / "salmu").rglob(name)
        yield Kind(f"data set, {name}", path, records("salmu", "forget"))
    (classes,) = datasets.rglob("classes.json")
    yield Kind("data set, classes.json", classes, lambda: read_classes(datasets))
    yield Kind("data set, contents.json", datasets / "contents.json", records("salmu", "forget"))


def result_kinds(root: Path) -> Iterator[Kind]:
    """A result and its row scores, as the report reads them."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
    from tiny_world import write_honest_run

    results = write_honest_run(root / "honest") / "results"

    def read() -> list[Any]:
        (found,) = verify_results([results / "delete.json"], inputs=False)
        if found.problems:
            raise InputError(found.problems[0])
        return [found.result, {name: values.tolist() for name, values in found.rows.items()}]

    yield Kind("result", results / "delete.json", read)
    yield Kind("row scores of a result", results / "delete.rows.npz", read)


def weight_kinds(root: Path) -> Iterator[Kind]:
    """An export of a model, and its weights as PyTorch's file, whose checksums are those of the zip archive."""
    import torch
    from safetensors.numpy import load_file

    clip = Clip(architecture("tiny"))
    save_model(root / "model", clip, clip.init(jax.random.key(0)), {"name": "tiny"})
    export_model(root / "model", "open_clip", root / "export")
    weights = root / "export" / "open_clip_model.safetensors"
    state = {name: torch.tensor(array) for name, array in load_file(weights).items()}
    torch.save({"model": state}, root / "weights.bin")

    def read(path: Path) -> Callable[[], str]:
        return lambda: load_foreign(path, architecture="tiny")[2]["digest"]

    yield Kind("export, weights", weights, read(root / "export"))
    yield Kind("export, config", root / "export" / "open_clip_config.json", read(root / "export"))
    yield Kind("PyTorch's file", root / "weights.bin", read(root / "weights.bin"))


def model_kinds(root: Path) -> Iterator[Kind]:
    """The files of a model, as the stages read them."""
    clip = Clip(architecture("tiny"))
    directory = root / "a model"
    save_model(directory, clip, clip.init(jax.random.key(1)), {"name": "tiny"})

    def read() -> list[Any]:
        _, params, manifest = load_model(directory)
        return [manifest, [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(params)]]

    yield from _files("model", directory, read)


def state_kinds(root: Path) -> Iterator[Kind]:
    """The files of a saved state, as a run that goes on reads them; without another state to fall back to."""
    draw = np.random.default_rng(0)
    state = {"params": draw.normal(size=(32, 24)).astype(np.float32), "step": np.int32(7)}
    directory = root / "states"
    with contextlib.closing(StateStore(directory, "identity")) as store:
        store.save(7, state)
    template = jax.tree.map(jax.numpy.zeros_like, state)

    def read() -> list[bytes]:
        with contextlib.closing(StateStore(directory, "identity", warn=lambda line: None, read_only=True)) as store:
            found = store.restore(template)
        if found is None:
            raise InputError("no state that can be used")
        return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(found)]

    yield from _files("state", directory / "7", read)


def _files(name: str, directory: Path, read: Callable[[], Any]) -> Iterator[Kind]:
    """A kind for each file below a directory that is not empty."""
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.stat().st_size:
            yield Kind(f"{name}, {path.relative_to(directory).as_posix()}"[:60], path, read)


MAKERS: list[Callable[[Path], Iterable[Kind]]] = [
    world_kinds,
    tar_kinds,
    dataset_kinds,
    model_kinds,
    state_kinds,
    result_kinds,
    weight_kinds,
]


def tiny_world(root: Path) -> Path:
    """The smallest world that the generator makes, below ``root``."""
    directory = root / "world"
    if not directory.exists():
        counts = {
            "retain_joint": 2,
            "retain_disjoint": 6,
            "fragile": 2,
            "scenes": 20,
            "zeroshot_images": len(CLASS_NAMES),
        }
        sizes = {"portrait_size": 16, "scene_size": 16, "personas": MIN_PERSONAS, "pairs_per_association": 1}
        generate_world(directory, seed=0, workers=0, **counts, **sizes)
    return directory


def main() -> int:
    """Prints a line for each kind, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=100, metavar="N", help="of each kind (100)")
    parser.add_argument("--kind", action="append", metavar="TEXT", help="only kinds whose names hold this")
    options = parser.parse_args()
    host.quieten_libraries()
    absl.logging.set_verbosity(absl.logging.ERROR)  # Orbax narrates every restore
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # TensorStore answers a restore that has been given up
    changed = 0
    with tempfile.TemporaryDirectory() as root:
        for maker in MAKERS:
            for kind in maker(Path(root)):
                if options.kind and not any(text in kind.name for text in options.kind):
                    continue
                ends = ends_of_flips(kind, options.flips)
                changed += ends["changed"]
                print(
                    f"{kind.name:60} {ends['refused']:5} refused {ends['harmless']:5} harmless {ends['changed']:5} changed",
                    flush=True,
                )
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
