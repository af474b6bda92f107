"""Compares a result with the checkpoint and the data sets that lie beside it: by manifests, digests and files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from salmu_jax.evaluation import checks
from salmu_jax.evaluation.board import brief
from salmu_jax.runtime.contents import Seen, architecture_digest, data_digests, problems, read_contents, seal_holds
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.files import read_json, sha256_file
from salmu_jax.runtime.messages import listed
from salmu_jax.runtime.text import safe_text, safe_value

# Fields of a config that make the people and pairs of a made world. The others of these groups make the retain base and the
# zero-shot set, which may be made again without the models, or change only how a world is made.
_OF_PEOPLE = {
    "world": (
        *("kind", "seed", "personas", "pairs_per_association", "portrait_size"),
        *("retain_joint", "retain_disjoint", "fragile"),
    ),
    "full": ("people", "anchors", "portraits", "variants"),
}


def input_problems(
    path: Path,
    result: dict[str, Any],
    workdir: Path | None,
    checkpoint: Path | None,
    seen: dict[Path, Seen],
    references: Sequence[str],
) -> tuple[list[str], list[str]]:
    """Returns problems with the checkpoint and the data that lie beside the result, and what was compared."""
    root = workdir or (path.absolute().parent.parent if path.absolute().parent.name == "results" else None)
    model = checkpoint or (root / "models" / result["model"] if root else None)
    provenance = result["provenance"]
    recorded = provenance.get("checkpoint") or {}
    found: list[str] = []
    compared: list[str] = []
    if model is not None and (model / "manifest.json").is_file():
        found += _model_problems(model, recorded)
        if checkpoint is None:
            found += _world_problems(model, result)
        compared.append("checkpoint")
    elif checkpoint is not None:
        found += _weights_problems(checkpoint, recorded)
        compared.append("checkpoint")
    else:
        compared.append("checkpoint not available")
    if not recorded.get("parent") and result["model"] not in references:
        compared.append("what its model descends from is not recorded, and its maker's word")
    datasets = root / "datasets" if root else None
    contents = read_contents(datasets) if datasets is not None and datasets.is_dir() else None
    if datasets is None or contents is None:
        compared.append("data not available")
        return found, compared
    now = data_digests(contents)
    for name in checks.DATA:
        if (digest := (provenance.get("data") or {}).get(name)) != now[name]:
            there = safe_text(datasets / name, None)
            said = brief(digest or "none said")
            found.append(f"it was measured on other data ({said}) than {there} ({brief(now[name])}): evaluate again")
    if damaged := problems(datasets, contents, seen.setdefault(datasets, {})):
        found.append(f"{datasets}: {listed(damaged)}")
    compared.append("data")
    return found, compared


def _model_problems(model: Path, recorded: dict[str, Any]) -> Iterator[str]:
    where = safe_text(model, None)
    try:
        manifest = read_json(model / "manifest.json")
    except (InputError, OSError) as error:
        yield f"{where}: its manifest cannot be read ({safe_text(error)})"
        return
    manifest = manifest if isinstance(manifest, dict) else {}
    if not seal_holds(model):
        yield f"{where}: its manifest is not as it was written (its seal differs); make the model again"
    if recorded.get("digest") != manifest.get("digest"):
        yield (
            f"it was measured on the checkpoint {brief(recorded.get('digest'))}, but {where} is the checkpoint"
            f" {brief(manifest.get('digest'))}: evaluate again"
        )
        return
    for key in ("parent", "root", "name", "splits_read", "source", "run"):
        there = safe_value(manifest.get(key), limit=4000)
        yield from _field_problems(recorded.get(key), there, f"provenance > checkpoint > {key}", where)
    if recorded.get("architecture") != (now := architecture_digest(manifest)):
        yield (
            f"it was measured with the architecture {brief(recorded.get('architecture'))}, but {where} has {brief(now)}:"
            " evaluate again"
        )
    contents = read_contents(model)
    if contents and contents.get("files") and (damaged := problems(model, contents)):
        yield f"{where}: {listed(damaged)}"


def _field_problems(found: Any, there: Any, name: str, where: str) -> Iterator[str]:
    """Yields a line for each field of ``found`` that differs from the manifest's, which ``where`` names."""
    if isinstance(found, dict) and isinstance(there, dict):
        for key in sorted(found.keys() | there.keys()):
            yield from _field_problems(found.get(key), there.get(key), f"{name} > {safe_text(key, 60)}", where)
    elif found != there:
        yield f"'{name}' is {brief(found)}, but {where} says {brief(there)}"


def _world_problems(model: Path, result: dict[str, Any]) -> Iterator[str]:
    """Yields where a result contradicts the config of the model in the work directory, trained on the same data.

    Compared are ``made``, and the fields of the recorded config that make the people and pairs of a made world.
    """
    try:
        manifest = read_json(model / "manifest.json")
    except (InputError, OSError):
        return  # it has been complained of
    manifest = manifest if isinstance(manifest, dict) else {}
    config, data = (value if isinstance(value := manifest.get(key), dict) else {} for key in ("config", "data"))
    salmu = (result["provenance"].get("data") or {}).get("salmu")
    if salmu is None or data.get("salmu") != salmu:
        return
    where = f"the config of {safe_text(model, None)}"
    yield from checks.made_problems(result["protocol"], config, where)
    own = result["provenance"].get("config")
    own = own if isinstance(own, dict) else {}
    if not result["protocol"]["made"]:
        return
    for group, names in _OF_PEOPLE.items():
        said, there = (value if isinstance(value := of.get(group), dict) else {} for of in (own, config))
        for name in (name for name in names if name in said and name in there):
            known = safe_value(there[name], limit=4000)
            yield from _field_problems(said[name], known, f"provenance > config > {group} > {name}", where)


def _weights_problems(path: Path, recorded: dict[str, Any]) -> Iterator[str]:
    """Yields problems with a file of PyTorch weights, or the directory that holds it."""
    source = recorded.get("source")
    source = source if isinstance(source, dict) else {}
    file = path / str(source.get("file")) if path.is_dir() else path
    where = safe_text(file, None)
    if not file.is_file():
        yield f"no model in {safe_text(path, None)}"
    elif (digest := sha256_file(file)) != source.get("sha256"):
        yield (
            f"it was measured on weights with the SHA-256 {brief(source.get('sha256'))}, but {where} has {brief(digest)}:"
            " evaluate again"
        )
    for key, what in (("shards", "weights"), ("config", "a config")):
        recorded_files = source.get(key)
        for name, wanted in recorded_files.items() if isinstance(recorded_files, dict) else ():
            other = file.parent / Path(name).name
            if (found := sha256_file(other) if other.is_file() else None) != wanted:
                there = safe_text(other, None)
                yield (
                    f"it was measured on {what} with the SHA-256 {brief(wanted)}, but {there} has {brief(found)}:"
                    " evaluate again"
                )
