"""Loads a model from PyTorch weights: a file, or a directory in OpenCLIP's or transformers' form."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import ModuleType
from typing import Any

from salmu_jax.interop import huggingface, open_clip, released, sealed
from salmu_jax.interop.fields import MAX_IMAGE_SIZE, read_object
from salmu_jax.interop.mapping import from_state
from salmu_jax.interop.reading import Weights, find_weights, read_weights
from salmu_jax.models import zoo
from salmu_jax.models.build import input_manifest, make_tokenizer
from salmu_jax.models.clip import Clip, ClipConfig, Params
from salmu_jax.models.positions import resample_positions
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import listed
from salmu_jax.runtime.opening import check_regular
from salmu_jax.runtime.text import safe_text
from salmu_jax.runtime.workspace import provenance
from salmu_jax.training.checkpoint import MODEL_SCHEMA
from salmu_jax.training.records import leaf_records, tree_digest

FORMATS: dict[str, ModuleType] = {"open_clip": open_clip, "huggingface": huggingface}


def is_foreign(path: Path) -> bool:
    """Returns whether :func:`load_foreign` should read ``path``: a file, or a directory that is no model of ours.

    One of ours whose manifest is missing still holds parameters that Orbax has written.
    """
    ours = (path / "manifest.json", path / "params" / "_METADATA")
    return path.is_file() or (path.is_dir() and not any(file.exists() for file in ours))


def load_foreign(
    source: str | Path,
    *,
    source_format: str | None = None,
    architecture: str | None = None,
    image_size: int | None = None,
    revision: str | None = None,
    allow_half: bool = False,
    name: str | None = None,
) -> tuple[Clip, Params, dict[str, Any]]:
    """Returns the model in ``source``, its parameters as float32 numpy arrays, and a manifest as in a model directory.

    Args:
      source: a file, a directory, or the name of a published model.
      source_format: ``open_clip`` or ``huggingface``; None decides by the tensors' names.
      architecture: a name in the zoo, for weights without a config. Published weights need none.
      image_size: resample the positional embedding for images of this size, in pixels.
      revision: the commit of a published model on the hub.
      allow_half: accept half precision, and widen it to float32.
      name: the model's name; None takes the one in the source, if any.

    Raises:
      InputError: everything that is wrong with the source, in one line.
    """
    if image_size is not None and not 1 <= image_size <= MAX_IMAGE_SIZE:
        raise InputError(f"{image_size} is not 1 to {MAX_IMAGE_SIZE:,} pixels", "--image-size")
    given, asked = _locate(source, source_format, revision)
    path = _weights_file(given, source_format) if given.is_dir() else given
    weights = read_weights(path)
    kind = _format(weights, source_format, path)
    library = FORMATS[kind]
    usual = library.usual_names(weights.tensors.keys() | weights.unread.keys())
    if len({usual[name] for name in weights.tensors}) < len(weights.tensors):
        raise InputError("its text tower is there twice, with and without 'text.' before the names", path)
    weights = dataclasses.replace(
        weights,
        tensors={usual[name]: tensor for name, tensor in weights.tensors.items()},
        unread={usual[name]: what for name, what in weights.unread.items()},
    )
    sums = {file: files.sha256_file(file) for file in dict.fromkeys([path, *weights.files])}
    seal = _compare_with_seal(path, library, sums)
    published = released.by_digest(sums[path])
    if asked is not None and published != asked:
        raise InputError(
            f"not the file that was published as {asked.name}, whose SHA-256 is {asked.sha256}: damaged, or of another"
            " revision; give its path and --architecture to import it as it is",
            path,
        )
    config, beside = _architecture(path, library, architecture, published), path.with_name(library.CONFIG)
    if kind == "open_clip" and "logit_bias" in weights.tensors:
        config = dataclasses.replace(config, logit_bias=True)
    config = _with_stored_positions(config, weights, library, image_size, path)
    library.check_beside(path.parent, config)
    table, ignored = library.table(config), library.IGNORED
    params = from_state(
        weights.tensors,
        table,
        config,
        ignored=ignored,
        unread=weights.unread,
        allow_half=allow_half,
        where=str(path),
    )
    for digest in {weights.metadata.get(sealed.METADATA_KEY), seal.get("digest")} - {None}:
        sealed.check_parameters(digest, tree_digest(leaf_records(params)), path)
    if image_size is not None and image_size != config.image_size:
        params = resample_positions(params, config, image_size)
    clip = Clip(dataclasses.replace(config, image_size=image_size or config.image_size))
    records = leaf_records(params)
    source_fields = {
        "format": kind,
        "file": path.name,
        "sha256": sums[path],
        "shards": {file.name: sums[file] for file in weights.files if file != path},
        "config": {library.CONFIG: files.sha256_file(beside)} if beside.exists() else {},
        "published": published.name if published else None,
        "revision": revision,
        "tensors": len(weights.tensors),
        "within": safe_text(weights.within, 200),
        "prefix": safe_text(weights.prefix, 200),
        "passed_over": [safe_text(name, 60) for name in weights.passed_over[:10]],
        "widened_from_half_precision": sum(weights.tensors[entry.name].dtype != "float32" for entry in table),
        "positions_resampled_from": config.image_size if clip.config.image_size != config.image_size else None,
    }
    manifest = {
        "schema": MODEL_SCHEMA,
        "digest": tree_digest(records),
        "architecture": clip.config.to_dict(),
        **input_manifest(clip, make_tokenizer(clip)),
        "name": name or (published.name if published else seal.get("name")),
        "parent": None,
        **{key: seal[key] for key in sealed.LINEAGE if key in seal},
        "source": source_fields,
        **provenance({}),
        "leaves": records,
    }
    return clip, params, manifest


def seal_of(source: str | Path, source_format: str | None) -> dict[str, Any]:
    """Returns the seal of our own export, before its weights are read; empty for anything else."""
    given = Path(source)
    if not given.exists():
        return {}
    weights = _weights_file(given, source_format) if given.is_dir() else given
    seal = sealed.read_seal(weights.parent)
    return seal if weights.name in seal.get("files", {}) else {}


def _compare_with_seal(weights: Path, library: ModuleType, sums: dict[Path, str]) -> dict[str, Any]:
    """Compares the files of our own export with its seal, and returns the seal; empty for anything else."""
    seal = seal_of(weights, None)
    if not seal:
        return {}
    beside = [weights.with_name(name) for name in (library.CONFIG, *library.BESIDE)]
    described = [path for path in beside if path.exists()]
    for path in described:
        check_regular(path)
    sealed.check_files(seal, {**sums, **{path: files.sha256_file(path) for path in described}})
    return seal


def differences(expected: ClipConfig, found: ClipConfig) -> list[str]:
    """Returns the fields in which architectures differ, as ``quick_gelu is True, not False``, without the compute dtype."""
    ours, theirs = expected.to_dict(), found.to_dict()
    names = [name for name in ours if ours[name] != theirs[name] and name not in ("compute_dtype", "logit_bias")]
    return [f"{name} is {theirs[name]}, not {ours[name]}" for name in names]


def describe(manifest: dict[str, Any]) -> str:
    """Returns what was read, for a message: ``ViT-B-16, 302 tensors of FILE, ...``."""
    source = manifest["source"]
    config = ClipConfig.from_dict(manifest["architecture"])
    said = [zoo.name_of(config) or "an architecture of its own", f"{source['tensors']} tensors of {source['file']}"]
    if source["published"]:
        said.append(f"the published {source['published']}")
    if source["within"] or source["prefix"]:
        where = [f"below {source['within']!r}"] if source["within"] else []
        where += [f"without the prefix {source['prefix']!r}"] if source["prefix"] else []
        said.append(" ".join(where))
    if source["passed_over"]:
        said.append(f"not read: {', '.join(source['passed_over'])}")
    if source["widened_from_half_precision"]:
        said.append(f"{source['widened_from_half_precision']} widened from half precision")
    if source["positions_resampled_from"]:
        said.append(f"positions resampled from {source['positions_resampled_from']} to {config.image_size} pixels")
    return ", ".join(said)


def _locate(
    source: str | Path, source_format: str | None, revision: str | None
) -> tuple[Path, released.Published | None]:
    """Returns the path of the source, and the published model if ``source`` names one."""
    given = Path(source)
    asked = None if given.exists() else released.by_name(str(source))
    if asked is not None:
        if source_format not in (None, "open_clip"):
            raise InputError("the published models are OpenCLIP's files: --from open_clip", source)
        return released.fetch(asked, revision), asked
    if revision is not None:
        raise InputError("only a published model, by its name, has a revision", "--revision")
    if not given.exists():
        raise InputError(f"no such file or directory, and no published model; those are {released.names()}", source)
    return given, None


def _weights_file(directory: Path, source_format: str | None) -> Path:
    if not is_foreign(directory) and (directory / "params").is_dir():
        if not (directory / "manifest.json").exists():
            raise InputError("a model directory without its manifest.json; make the model again", directory)
        raise InputError("a model directory already; PyTorch weights are imported", directory)
    libraries = [FORMATS[source_format]] if source_format else list(FORMATS.values())
    names = [name for library in libraries for name in (library.WEIGHTS, *library.OTHER_WEIGHTS)]
    return find_weights(directory, tuple(dict.fromkeys([*names, "model.safetensors"])))


def _format(weights: Weights, asked: str | None, where: Path) -> str:
    """Returns the format of the weights, by their tensors' names."""
    found = [
        name for name, library in FORMATS.items() if library.MARK in weights.tensors or library.MARK in weights.unread
    ]
    if len(found) != 1:
        if asked is not None and not found:
            return asked  # what is missing is named later
        names = listed(list(weights.tensors), 5)
        raise InputError(f"neither OpenCLIP's nor transformers' CLIP by the names of its tensors: {names[:300]}", where)
    if asked not in (None, found[0]):
        raise InputError(f"its tensors have the names of the other form: --from {found[0]}", where)
    return found[0]


def _architecture(
    weights: Path, library: ModuleType, name: str | None, published: released.Published | None
) -> ClipConfig:
    """Returns the architecture of the published file, of the config beside the weights, or of ``name``; all must agree."""
    beside = weights.with_name(library.CONFIG)
    described = library.clip_config(read_object(beside), str(beside)) if beside.exists() else None
    if published is not None:
        if name not in (None, published.architecture):
            raise InputError(f"the published {published.name} is {published.architecture}, not {name}", weights)
        name = published.architecture
    if name is None:
        if described is None:
            message = f"no {library.CONFIG} beside it: give --architecture, such as ViT-B-16 or ViT-B-16-quickgelu"
            raise InputError(f"{message} (weights do not say which activation they were trained with)", weights)
        return described
    named = zoo.architecture(name)
    if described is None:
        return named
    if different := differences(named, described):
        right = zoo.name_of(described)
        hint = f"; --architecture {right} is the right one" if right else "; leave --architecture out"
        raise InputError(f"not {name}: {', '.join(different)}{hint}", beside)
    return described


def _with_stored_positions(
    config: ClipConfig, weights: Weights, library: ModuleType, image_size: int | None, where: Path
) -> ClipConfig:
    """Returns ``config`` with the image size of the stored positional embedding, if ``image_size`` says how to use it.

    Weights without a config do not state their image size, but it follows from the number of positions.
    """
    positions = weights.tensors.get(library.POSITIONS)
    shape = positions.shape if positions is not None else ()
    side = math.isqrt(shape[0] - 1) if len(shape) == 2 and shape[0] > 1 else 0
    stored = side * config.patch_size
    fits = side and side * side == shape[0] - 1 and shape[1] == config.vision.width
    if not fits or stored == config.image_size or where.with_name(library.CONFIG).exists():
        return config
    if image_size is None:
        raise InputError(
            f"its positions are for images of {stored} pixels, not {config.image_size}: --image-size {stored} keeps them,"
            f" --image-size {config.image_size} resamples them",
            where,
        )
    return dataclasses.replace(config, image_size=stored)
