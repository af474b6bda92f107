"""``salmu export`` and ``salmu import``: converts our model directories to OpenCLIP's or transformers', and back."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from salmu_jax import foundation
from salmu_jax.interop import huggingface, parity, sealed
from salmu_jax.interop.card import model_card
from salmu_jax.interop.foreign import FORMATS, describe, differences, load_foreign, seal_of
from salmu_jax.interop.mapping import to_state
from salmu_jax.models import zoo
from salmu_jax.models.build import make_clip, make_tokenizer
from salmu_jax.models.clip import Clip
from salmu_jax.runtime import files
from salmu_jax.runtime.directories import new_directory
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.text import safe_text
from salmu_jax.runtime.workspace import Workspace, say
from salmu_jax.training.checkpoint import load_model, read_manifest, save_model


def export_model(checkpoint: Path, to: str, output: Path) -> dict[str, Any]:
    """Writes the model in ``checkpoint`` as a directory that the library loads without changes; returns its parity report.

    Raises InputError if the checkpoint is missing or damaged, or if the library's embeddings differ.
    """
    clip, params, manifest = load_model(checkpoint)
    clip = Clip(dataclasses.replace(clip.config, compute_dtype="float32"))
    library = FORMATS[to]
    _refuse_occupied(output)
    with new_directory(output) as partial:
        files.write_json(partial / library.CONFIG, library.model_config(clip.config))
        weights = partial / library.WEIGHTS
        # transformers requires this field, which says that the tensors are PyTorch's.
        metadata = {"format": "pt", sealed.METADATA_KEY: manifest["digest"]}
        save_file(to_state(params, library.table(clip.config)), weights, metadata=metadata)
        weights.chmod((partial / library.CONFIG).stat().st_mode & 0o777)  # save_file lets only the owner read it
        if to == "huggingface":
            huggingface.write_processor(partial, clip.config, make_tokenizer(clip))
        with _quiet_libraries():
            report = parity.check(partial, to, clip, params, output)
        sums = sorted(path.name for path in partial.iterdir())
        name = str(manifest.get("name") or checkpoint.name)
        lineage = {key: manifest[key] for key in sealed.LINEAGE if key in manifest}
        sealed.seal(partial, sums, {"name": name, "digest": manifest["digest"], **lineage})
        files.write_json(partial / "parity.json", report)
        files.write_text(partial / "README.md", model_card(manifest, to, clip.config))
    if report["compared"]:
        found = ", ".join(f"{name} {value:.1e}" for name, value in report["max_abs_difference"].items())
        say(f"export: {output}, loaded by the library itself: embeddings differ by at most {found}")
    else:
        say(f"export: {output}, not compared with the library: {report['reason']}")
    return report


def import_model(source: str, output: Path, **options: Any) -> dict[str, Any]:
    """Writes the weights of ``source`` as a model directory; returns its manifest.

    ``options`` are those of :func:`~salmu_jax.interop.foreign.load_foreign`. Raises InputError with everything wrong with
    the source, in one line; or for an ``output`` that is not empty.
    """
    _refuse_occupied(output)
    clip, params, manifest = load_foreign(source, **options)
    saved = save_model(output, clip, params, {**manifest, "name": manifest["name"] or output.name})
    say(f"import: {output}, {describe(manifest)}")
    return saved


def import_as(name: str, source: str, workspace: Workspace, **options: Any) -> dict[str, Any]:
    """Writes the weights of ``source`` as the model ``name`` of a workspace, which the caller has locked; returns its
    manifest.

    The stages then start from the imported model instead of training one. An existing model is kept if it is equal. Raises
    InputError if it is another model, if ``source`` says that it is not the model ``name``, or if its architecture is not the
    config's; and like :func:`~salmu_jax.interop.foreign.load_foreign`.
    """
    output = workspace.model(name)
    _refuse_another(name, source, options.get("source_format"))
    clip, params, manifest = load_foreign(source, **options)
    if manifest["parent"] is not None:
        raise InputError(f"was unlearned from another model, {manifest['parent'][:12]}...; {name} was trained", source)
    published = manifest["source"]["published"]
    if published is not None and published.rpartition("-")[2] != name:
        raise InputError(f"is the published {published}, not {name}", source)
    manifest["name"] = name
    if different := differences(make_clip(workspace.config).config, clip.config):
        right = zoo.name_of(clip.config)
        hint = f" (--config.model.architecture={right} would fit)" if right else ""
        raise InputError(f"not the architecture of the config{hint}: {', '.join(different)}", source)
    if output.exists() and any(output.iterdir()):
        if (output / "manifest.json").is_file() and read_manifest(output)["digest"] == manifest["digest"]:
            load_model(output)  # raises if it is not intact
            say(f"import {name}: reused, {output} has the same parameters")
            return read_manifest(output)
        raise InputError(f"holds another model already; remove it to import {source} in its place", output)
    saved = save_model(output, clip, params, manifest)
    say(f"import {name}: {output}, {describe(manifest)}")
    return saved


def _refuse_another(name: str, source: str, source_format: str | None) -> None:
    """Raises InputError, before weights are read, if an export says that it is not the foundation model ``name``."""
    seal = seal_of(source, source_format)
    said, read = str(seal.get("name")), seal.get("splits_read")
    if said.rpartition("-")[2] in set(foundation.NAMES) - {name}:
        raise InputError(
            f"is an export of {safe_text(said, 60)}, by the {sealed.FILE} beside it, not of {name}", source
        )
    if read is None:
        return
    model = foundation.BY_NAME[name]
    found = [f"on none of {', '.join(parts)}" for parts in model.unread(read)]
    found += [f"on {split}" for split in model.not_its_own(read)]
    if found:
        wrong = f"was trained {' and '.join(found)}"
        raise InputError(f"{wrong}, by the {sealed.FILE} beside it, so that it is not {name}", source)


def _refuse_occupied(output: Path) -> None:
    """Raises InputError for a directory that is not empty: we would replace it, and it may be the source, or a home."""
    if output.is_dir() and any(output.iterdir()):
        raise InputError("is there already and not empty; name a new directory", output)


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Silences the libraries' progress bars."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
