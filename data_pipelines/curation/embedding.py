"""Runs the step *embeddings*: every portrait of a finished step *images* as an encoder sees it, resumable by identity.

00000007.npz    names: of the files, by index; vectors: float16 [N, D], of length 1; hashes: uint8 [N, 18], perceptual
"""

from __future__ import annotations

import functools
import io
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines import steps
from data_pipelines.curation.encoder import checked_embeddings, encoder_settings, loaded
from data_pipelines.curation.pixels import perceptual_hash, read_portrait
from data_pipelines.portraits.step import STEP as IMAGES
from data_pipelines.portraits.step import Images, tar_name
from salmu_jax.runtime.errors import InputError

STEP = "embeddings"
VERSION = 1
"""Incremented whenever the same portraits and encoder would give other files."""


class Embedded(NamedTuple):
    """The portraits of an identity, by index."""

    names: tuple[str, ...]  # of the files
    vectors: np.ndarray  # float32 [N, D], of length 1
    hashes: np.ndarray  # uint8 [N, 18]

    def only(self, rows: Any) -> Embedded:
        """Returns those of ``rows``, a boolean mask [N] or indices."""
        rows = np.arange(len(self.names))[rows]
        return Embedded(tuple(self.names[row] for row in rows), self.vectors[rows], self.hashes[rows])


def make_embeddings(
    directory: str | os.PathLike,
    images: Images,
    encoder: str | os.PathLike,
    *,
    workers: int = 2,
    say: Callable[[str], None] = print,
) -> list[Embedded]:
    """Embeds all portraits, unless that is done, and returns those of each anchor, by number.

    Args:
      directory: the step's own.
      images: a finished step.
      encoder: a file of weights, or ``module:attribute`` (``encoder.load_encoder``).
      workers: processes; files do not depend on their number.
      say: called with a line when files of an earlier run are not used, and with the progress.

    Raises InputError for a damaged tar or portrait, and for an encoder that is none.
    """
    name = os.fspath(encoder)
    settings = {
        "images": steps.step_digest(images.directory, IMAGES),
        "encoder": encoder_settings(name),
        "version": VERSION,
    }
    embed = functools.partial(_embedded_file, images, name)
    parts = {f"{anchor.identity_id}.npz": functools.partial(embed, anchor.number) for anchor in images.anchors}
    report = functools.partial(_counts, Path(directory), list(parts))
    steps.run_step(directory, STEP, settings, parts, report, workers=workers, say=say)
    return read_embeddings(directory)


def read_embeddings(directory: str | os.PathLike) -> list[Embedded]:
    """Returns the portraits of each anchor, by number. Raises InputError for a step that is not finished or was changed."""
    manifest = steps.finished(directory, STEP)
    return [_read(steps.checked(Path(directory) / name, STEP, digest)) for name, digest in manifest["files"].items()]


def embed_portraits(portraits: list[tuple[str, bytes]], encoder: str, where: str | os.PathLike) -> Embedded:
    """Returns (file name, encoded image) as embeddings and hashes; ``where`` they are names them in messages.

    Raises InputError for an image that cannot be decoded, and for bad output of the encoder.
    """
    if not portraits:
        raise InputError("has no portraits; leave the identity out", where)
    pixels = np.stack([read_portrait(image, f"{os.fspath(where)} {name}") for name, image in portraits])
    vectors = loaded(encoder).embed([image for _, image in portraits], pixels)
    hashes = np.stack([perceptual_hash(image) for image in pixels])
    return Embedded(
        tuple(name for name, _ in portraits), _unit(checked_embeddings(vectors, len(portraits), encoder)), hashes
    )


def embedded_bytes(embedded: Embedded) -> bytes:
    """Returns the file of an identity."""
    buffer = io.BytesIO()
    vectors = embedded.vectors.astype(np.float16)
    np.savez(buffer, names=np.array(embedded.names), vectors=vectors, hashes=embedded.hashes)
    return buffer.getvalue()


def _embedded_file(images: Images, encoder: str, number: int) -> bytes:
    if multiprocessing.parent_process() is not None:
        # Before JAX starts: this is one of several workers, each with a core.
        os.environ.setdefault("NPROC", "1")
        os.environ["JAX_PLATFORMS"] = "cpu"
    portraits = [(portrait.file_name, portrait.image) for portrait in images.portraits(number)]
    return embedded_bytes(embed_portraits(portraits, encoder, images.directory / tar_name(number)))


def _read(path: Path) -> Embedded:
    with np.load(path, allow_pickle=False) as file:
        return Embedded(tuple(file["names"].tolist()), _unit(file["vectors"]), file["hashes"])


def _unit(vectors: np.ndarray) -> np.ndarray:
    wide = vectors.astype(np.float32)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def _counts(directory: Path, names: list[str]) -> dict[str, Any]:
    shapes = [_read(directory / name).vectors.shape for name in names]
    return {
        "identities": len(shapes),
        "portraits": sum(count for count, _ in shapes),
        "width": shapes[0][1] if shapes else 0,
    }
