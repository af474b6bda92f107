"""``salmu export`` and ``salmu import``: a model directory of ours to a directory of theirs, and a file of theirs to ours."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from safetensors.numpy import save_file

from salmu_jax import files
from salmu_jax.errors import InputError
from salmu_jax.interop import huggingface, open_clip, parity, reading, released
from salmu_jax.interop.card import model_card
from salmu_jax.interop.mapping import from_state, to_state
from salmu_jax.models import zoo
from salmu_jax.models.clip import Clip, ClipConfig
from salmu_jax.models.positions import resample_positions
from salmu_jax.training.checkpoint import load_model, save_model
from salmu_jax.training.pretrain import input_manifest, make_tokenizer
from salmu_jax.workspace import provenance, say

FORMATS = {"open_clip": open_clip, "huggingface": huggingface}
# Other usual names of weights, after the one that we write.
_WEIGHTS = {
    "open_clip": (open_clip.WEIGHTS, "open_clip_pytorch_model.bin", "model.safetensors"),
    "huggingface": (
        huggingface.WEIGHTS,
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ),
}


def export_model(checkpoint: Path, to: str, output: Path) -> dict[str, Any]:
    """Writes the model in ``checkpoint`` as a directory that the library loads as it stands; returns its parity report.

    Raises InputError: no such checkpoint, a damaged one, or embeddings of the library that differ.
    """
    clip, params, manifest = load_model(checkpoint)
    clip = Clip(dataclasses.replace(clip.config, compute_dtype="float32"))
    library = FORMATS[to]
    _refuse_occupied(output)
    with files.new_directory(output) as partial:
        # transformers insists on being told that these are PyTorch's.
        save_file(to_state(params, library.table(clip.config)), partial / library.WEIGHTS, metadata={"format": "pt"})
        files.write_json(partial / library.CONFIG, library.model_config(clip.config))
        if to == "huggingface":
            huggingface.write_processor(partial, clip.config, make_tokenizer(clip))
        with _quiet_libraries():
            report = parity.check(partial, to, clip, params, output)
        files.write_json(partial / "parity.json", report)
        files.write_text(partial / "README.md", model_card(manifest, to, clip.config))
    if report["compared"]:
        found = ", ".join(f"{name} {value:.1e}" for name, value in report["max_abs_difference"].items())
        say(f"export: {output}, loaded by the library itself: embeddings differ by at most {found}")
    else:
        say(f"export: {output}, not compared with the library: {report['reason']}")
    return report


def import_model(
    source: str,
    source_format: str,
    output: Path,
    *,
    architecture: str | None = None,
    image_size: int | None = None,
    revision: str | None = None,
    allow_half: bool = False,
) -> dict[str, Any]:
    """Writes the weights of ``source`` as a model directory; returns its manifest.

    Args:
      source: a file, a directory, or the name of a published model.
      source_format: ``open_clip`` or ``huggingface``.
      output: where the model goes.
      architecture: a name of the zoo, for weights without a config beside them.
      image_size: resamples the positional embedding for images of so many pixels.
      revision: the commit of a published model on the hub.
      allow_half: takes half precision, widened to float32.

    Raises:
      InputError: everything that is wrong with the source, in one line.
    """
    library = FORMATS[source_format]
    _refuse_occupied(output)
    given = Path(source)
    name = given.name
    if not given.exists() and released.is_released(source):
        if source_format != "open_clip":
            raise InputError("the published models are OpenCLIP's files: --from open_clip", source)
        given, name, architecture = released.fetch(source, revision), source, architecture or released.ARCHITECTURE
    elif revision is not None:
        raise InputError("only a published model, by its name, has a revision", "--revision")
    if not given.exists():
        known = ", ".join([*released.SHORT, *released.REPOSITORIES])
        raise InputError(f"no such file or directory, and no published model; those are {known}", source)
    weights = reading.find_weights(given, _WEIGHTS[source_format]) if given.is_dir() else given
    config = _architecture(weights, library, architecture)
    shards, state = reading.weight_files(weights), reading.read_state(weights)
    if source_format == "open_clip" and "logit_bias" in state:
        config = dataclasses.replace(config, logit_bias=True)
    half = sorted(name for name, tensor in state.items() if str(tensor.dtype) in ("float16", "bfloat16"))
    params = from_state(
        state, library.table(config), config, ignored=library.IGNORED, allow_half=allow_half, where=str(weights)
    )
    stored_size = config.image_size
    if image_size is not None and image_size != stored_size:
        params = resample_positions(params, config, image_size)
        config = dataclasses.replace(config, image_size=image_size)
    clip = Clip(config)
    manifest = {
        **input_manifest(clip, make_tokenizer(clip)),
        "name": name.rpartition("/")[2],
        "parent": None,
        "source": {
            "format": source_format,
            "file": weights.name,
            "sha256": files.sha256_file(weights),
            "shards": {shard.name: files.sha256_file(shard) for shard in shards if shard != weights},
            "revision": revision,
            "widened_from_half_precision": len(half),
            "positions_resampled_from": stored_size if stored_size != config.image_size else None,
        },
        **provenance({}),
    }
    saved = save_model(output, clip, jax.tree.map(jax.numpy.asarray, params), manifest)
    say(
        f"import: {output}, {zoo.name_of(config) or 'an architecture of its own'}, {len(state)} tensors of {weights.name}"
    )
    return saved


def _refuse_occupied(output: Path) -> None:
    """Writing a directory replaces it, and what is named may be the source itself, or somebody's home."""
    if output.is_dir() and any(output.iterdir()):
        raise InputError("is there already and not empty; name a new directory", output)


def _architecture(weights: Path, library: Any, name: str | None) -> ClipConfig:
    """The architecture as the file beside the weights says, as ``name`` says, or both if they agree."""
    beside = weights.with_name(library.CONFIG)
    described = library.clip_config(_object(beside), str(beside)) if beside.is_file() else None
    if described is not None:
        _check_sizes(described, beside)
    preparation = weights.with_name(library.PREPARATION)
    if preparation.is_file():
        library.check_preparation(_object(preparation), str(preparation))
    if name is None:
        if described is None:
            message = f"no {library.CONFIG} beside it: give --architecture, such as ViT-B-16 or ViT-B-16-quickgelu"
            raise InputError(f"{message} (weights do not say which activation they were trained with)", weights)
        return described
    named = zoo.architecture(name)
    if described is None:
        return named
    ours, theirs = named.to_dict(), described.to_dict()
    different = [
        field for field in ours if ours[field] != theirs[field] and field not in ("compute_dtype", "logit_bias")
    ]
    if different:
        listed = ", ".join(f"{field} is {theirs[field]}, not {ours[field]}" for field in different)
        right = zoo.name_of(described)
        hint = f"; --architecture {right} is the right one" if right else "; leave --architecture out"
        raise InputError(f"not {name}: {listed}{hint}", beside)
    return described


def _check_sizes(config: ClipConfig, where: Path) -> None:
    for part in (config, config.vision, config.text):
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if field.type == "int" and (type(value) is not int or value < 1):
                raise InputError(f"{field.name} is {value!r}, not a positive integer", where)


def _object(path: Path) -> dict[str, Any]:
    value = files.read_json(path)
    if not isinstance(value, dict):
        raise InputError("not a JSON object", path)
    return value


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Without the libraries' progress bars: what they print is not about what was asked for."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
