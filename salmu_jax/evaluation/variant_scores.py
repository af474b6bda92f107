"""Makes, scores and drops the variants of an evaluated model, one after the other.

At the released size one variant's embeddings take 120 MB, its scores 0.1 MB, and there may be hundreds. So what is kept are
scores, also on the disk: an evaluation that was killed, or that runs again, makes no finished variant twice::

    cache/embeddings/CHECKPOINT-DATA-.../variants/SERIES-KEY/NAME          row scores of one variant
    cache/embeddings/CHECKPOINT-DATA-.../variants/SERIES-KEY/NAME.parts/   its embeddings, until it is scored
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from salmu_jax.evaluation import cache_files
from salmu_jax.evaluation.embeddings import Embeddings, encode
from salmu_jax.evaluation.metric import Inputs
from salmu_jax.evaluation.rows import RowScores, encode_rows
from salmu_jax.evaluation.variants import Evaluated, Params, Series, VariantScores
from salmu_jax.runtime import distributed, files, identity
from salmu_jax.runtime.progress import Progress

Say = Callable[[str], None]


def measure_variants(
    model: Evaluated,
    series: Sequence[Series],
    *,
    batch_size: int,
    directory: Path | None = None,
    label: str = "",
    say: Say = lambda line: None,
) -> VariantScores:
    """Makes and scores the variants of ``series``. All processes have to call it; process 0 gets the scores, others none.

    Args:
      model: the evaluated one.
      series: what is made of it (:func:`salmu_jax.evaluation.variants.asked`).
      batch_size: rows that a device encodes at a time.
      directory: of the model's embeddings; None: nothing is kept. Several processes need one that all of them see.
      label: begins the progress line, on standard error; empty for none.
      say: called with lines about variants of an earlier run, and about damage.
    """
    folders = {one.name: directory and directory / "variants" / _folder(one, model) for one in series}
    found: dict[str, dict[str, RowScores]] = {one.name: {} for one in series}

    def missing() -> dict[str, list[str]]:
        for one in series:
            found[one.name] = _kept(folders[one.name], one.variants, say)
        return {one.name: [name for name in one.variants if name not in found[one.name]] for one in series}

    wanted = distributed.from_main(missing)
    total, todo = sum(len(one.variants) for one in series), sum(map(len, wanted.values()))
    if todo < total:
        say(f"{total - todo:,} of {total:,} variants were measured before")
    progress = Progress(f"{label}: variants", todo, unit="models") if label and todo else None
    done = 0
    for one in series:
        for name, params in one.make(model, wanted[one.name]) if wanted[one.name] else ():
            found[one.name] |= _score(one, name, model, params, batch_size, folders[one.name])
            done += 1
            if progress:
                progress.update(done, 1, {})
    return found if distributed.is_main() else {}


def _folder(series: Series, model: Evaluated) -> str:
    """Returns the name of the directory of a series' scores, which differs with all that they depend on."""
    settings = model.settings
    key: dict[str, Any] = {"seed": settings.seed, "draws": settings.how_drawn, "code": identity.code("evaluate")}
    if series.of_compromised:
        key["compromised"] = model.compromised and model.compromised.digest
    return f"{series.name}-{files.sha256_json(key)[:12]}"


def _score(
    series: Series, name: str, model: Evaluated, params: Params | None, batch_size: int, folder: Path | None
) -> dict[str, RowScores]:
    """Encodes and scores one variant, and keeps its scores; returns them, by its name, in process 0."""
    data, settings = model.data, model.settings
    found: dict[str, RowScores] = {}
    parts = None if folder is None else folder / f"{name}.parts"
    embeddings: Embeddings | None = None
    if params is not None:
        embeddings = encode(
            model.clip,
            params,
            model.tokenizer,
            data,
            series.splits,
            lambda: data.bank_of(series.texts, settings),
            batch_size=batch_size,
            directory=parts,
        )

    def finish() -> None:
        found[name] = {} if embeddings is None else series.score(Inputs(data, embeddings, settings))
        if folder is not None and parts is not None:
            payload = np.frombuffer(encode_rows(found[name]), np.uint8)
            cache_files.write(folder / name, {"columns": list(found[name])}, payload)
            shutil.rmtree(parts, ignore_errors=True)

    distributed.from_main(finish)
    return found


def _kept(folder: Path | None, names: Sequence[str], say: Say) -> dict[str, RowScores]:
    """Returns the scores that were kept, by variant; says which are damaged."""
    found: dict[str, RowScores] = {}
    for path in [] if folder is None else [folder / name for name in names]:
        try:
            payload = cache_files.read(path).payload
        except FileNotFoundError:
            continue
        except cache_files.Damaged as damage:
            say(f"{path}: {damage}; the variant is made again")
            continue
        with np.load(io.BytesIO(payload.tobytes()), allow_pickle=False) as arrays:
            found[path.name] = dict(arrays)
    return found
