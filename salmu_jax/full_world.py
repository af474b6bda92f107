"""Makes a world of the kind ``full``: at the size of the release, in steps that go on after a kill."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from salmu_jax import config as config_lib
from salmu_jax.config_fields import Full, World, declared
from salmu_jax.runtime import contents, distributed, files, host
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.identity import code
from salmu_jax.runtime.workspace import Workspace, say

_OF_BOTH = ("kind", "seed", "portrait_size", "scene_size", "workers")  # fields of 'world' that count for both kinds
BATCH = 256  # pairs that are embedded at a time


def check_small(config: ConfigDict) -> None:
    """Raises InputError for a field of ``full`` that has been set for a world of the kind ``small``."""
    _check_unused(config, "full", declared(Full), (), "world.kind is 'small'; world.kind=full would use it")


def generate(workspace: Workspace) -> None:
    """Makes the world of a config of the kind ``full``, unless it is there."""
    from data_pipelines.full.generate import GENERATOR_VERSION
    from data_pipelines.portraits.source import LONGEST_SIDE

    config = workspace.config
    hint = "world.kind is 'full', whose fields are those of the group 'full'"
    _check_unused(config, "world", declared(World), _OF_BOTH, hint)
    full = config_lib.section(config, "full")["full"]
    kinds = {"images": "directory", "reference": "directory", "fragile_model": "model", "paraphrases": "file"}
    for name, kind in kinds.items():
        if full[name] and not Path(full[name]).exists():
            raise InputError(f"no such {kind}", f"full.{name} {full[name]}")

    if config.world.portrait_size > LONGEST_SIDE:
        message = f"is {config.world.portrait_size}; {LONGEST_SIDE} or less would be right where world.kind is 'full'"
        raise InputError(message, "world.portrait_size")
    if bool(full["images"]) != bool(full["reference"]):
        message = "go together: portraits of another generator, and of other people from it to measure curation on"
        raise InputError(message, "full.images and full.reference")

    def fields() -> dict[str, Any]:
        of_world = {name: config.world[name] for name in _OF_BOTH if name != "workers"}
        digests = {name: _digest(workspace, full[name]) for name in (*kinds, "encoder")}
        return {
            "generator": GENERATOR_VERSION,
            "world": of_world,
            "full": {**full, **digests},
            "code": code("generate full"),
        }

    with workspace.stage("generate", workspace.world, distributed.from_main(fields)) as identity:
        if identity:
            distributed.from_main(lambda: _generate(workspace, full))


def _generate(workspace: Workspace, full: Mapping[str, Any]) -> None:
    from data_pipelines.full.generate import Options, generate_full
    from data_pipelines.full.sizes import sizes_of

    config = workspace.config
    options = Options(
        seed=config.world.seed,
        sizes=sizes_of(full["people"], full["anchors"]),
        variants=full["variants"],
        paraphrases=_path(full["paraphrases"]),
        encoder=full["encoder"] or None,
        scenes=full["scenes"],
        zeroshot_images=full["zeroshot_images"],
        scene_size=config.world.scene_size,
        workers=max(1, min(config.world.workers, host.cpu_count())),
    )
    judge = None
    if full["fragile_model"]:
        host.start_devices()
        judge = _Model(Path(full["fragile_model"])).judge
    world = generate_full(
        workspace.root,
        workspace.world,
        _source(config, full, options.sizes.anchors),
        options,
        reference=_folder(full["reference"]) if full["reference"] else None,
        judge=judge,
        say=lambda line: say(f"generate: {line}"),
    )
    counts = ", ".join(f"{count:,} {name}" for name, count in world["counts"]["subsets"].items())
    say(f"generate: {counts}")


def _source(config: ConfigDict, full: Mapping[str, Any], anchors: int) -> Any:
    """Returns what gives the portraits."""
    if full["images"]:
        return _folder(full["images"])
    from data_pipelines.portraits.procedural import ProceduralSource

    fewest, most = full["portraits"]
    return ProceduralSource(
        seed=config.world.seed,
        identities=anchors,
        fewest=fewest,
        most=most,
        longest_side=config.world.portrait_size,
    )


def _folder(directory: str) -> Any:
    from data_pipelines.portraits.folder import FolderSource

    return FolderSource(directory)


class _Model:
    """A model that tells how well it holds pairs, by the cosine of picture and caption."""

    def __init__(self, directory: Path):
        from salmu_jax.interop.foreign import is_foreign, load_foreign
        from salmu_jax.training.checkpoint import load_model

        load = load_foreign if is_foreign(directory) else load_model
        self._clip, self._params, manifest = load(directory)
        self._digest = manifest["digest"]

    def judge(self, images: Any, generic: Mapping[str, str]) -> Any:
        """Returns the judge of the fragile set."""
        from data_pipelines.full.fragile import Judge

        rule = "those whose picture and caption have the lowest cosine similarity to the model"
        return Judge(
            f"{rule} {self._digest[:12]}.", self._digest, lambda rows: self._similarities(rows, images, generic)
        )

    def _similarities(self, rows: Sequence[Any], images: Any, generic: Mapping[str, str]) -> np.ndarray:
        """Returns the similarities of rows, float32 [N], with the pictures of a batch in memory at a time."""
        from data_pipelines.full.shards import Held
        from salmu_jax.evaluation.encode import Encoder, default_rows
        from salmu_jax.models.build import make_tokenizer
        from salmu_jax.models.preprocess import preprocess_eval
        from salmu_jax.runtime.progress import Progress

        encoder = Encoder(self._clip, self._params, default_rows(self._clip))
        size, held = self._clip.config.image_size, Held(images)
        progress = Progress("generate: fragile set", len(rows), unit="pairs")

        def load(start: int, stop: int) -> np.ndarray:
            some = rows[start:stop]
            return np.stack([preprocess_eval(held.image(row), size, f"portrait {row.source}") for row in some])

        tokens = make_tokenizer(self._clip)([generic[row.source] for row in rows])
        texts = encoder.all_tokens(tokens)
        similarities = np.zeros(len(rows), np.float32)
        for start, pictures in encoder.run("image", load, list(_ranges(len(rows), BATCH))):
            stop = start + len(pictures)
            similarities[start:stop] = np.sum(pictures * texts[start:stop], axis=1)
            progress.update(stop, len(pictures), {})
        return similarities


def _ranges(total: int, size: int) -> Iterator[tuple[int, int]]:
    yield from ((start, min(start + size, total)) for start in range(0, total, size))


def _check_unused(config: ConfigDict, group: str, fields: Mapping[str, Any], used: Sequence[str], hint: str) -> None:
    """Raises InputError for a field that would be without effect, but is not at its default."""
    for name, field in fields.items():
        value = config[group][name]
        if name not in used and (tuple(value) if isinstance(field.default, tuple) else value) != field.default:
            raise InputError(f"is {value!r}, but {hint}", f"{group}.{name}")


def _digest(workspace: Workspace, path: str) -> str:
    """Returns a digest of a directory's or a file's contents; empty for no path."""
    if not path or not Path(path).exists():  # none, or the name of an encoder
        return path
    if Path(path).is_file():
        return files.sha256_file(path)
    held = contents.read_contents(path)
    return contents.contents_digest(held) if held else workspace.currency.foreign_digest(Path(path))


def _path(text: str) -> Path | None:
    return Path(text) if text else None
