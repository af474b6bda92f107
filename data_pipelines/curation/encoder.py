"""Defines what an encoder of portraits is, and finds one by its path or name.

An encoder may be the file of weights that :mod:`data_pipelines.curation.training` writes, or anything else that has the
two members of :class:`Encoder`, named ``package.module:attribute``: for example a function in your own module that loads an
image encoder and returns an object with ``settings`` and ``embed``.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError


class Encoder(Protocol):
    """Maps portraits to points on a sphere where those of one person are near each other."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that the embeddings depend on, as JSON: the kind of encoder, its version, the digest of its weights."""

    def embed(self, images: Sequence[bytes], pixels: np.ndarray) -> np.ndarray:
        """Returns float32 [N, D] of length 1, each of which depends on its own portrait alone.

        Args:
          images: encoded JPEG or PNG, N of them.
          pixels: the same as uint8 [N, 112, 112, 3], of the central square (``pixels.read_portrait``).
        """


def load_encoder(name: str | os.PathLike) -> Encoder:
    """Returns the encoder of a file of weights (``.npz``), or of ``module:attribute``.

    The attribute is an encoder, or is called without arguments and returns one.

    Raises InputError if there is no such file, module or attribute, or it is not an encoder.
    """
    text = os.fspath(name)
    if text.endswith(".npz"):
        from data_pipelines.curation.face_encoder import FaceEncoder  # imports JAX

        return FaceEncoder.load(Path(text))
    module, separator, attribute = text.partition(":")
    if not separator:
        raise InputError("is neither a file of weights (.npz) nor module:attribute", f"encoder {text!r}")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"cannot be found ({error})", f"encoder {text!r}") from error
    if callable(found) and (isinstance(found, type) or not hasattr(found, "embed")):
        try:
            found = found()
        except TypeError as error:
            raise InputError(f"is no function without arguments ({error})", f"encoder {text!r}") from error
    if not hasattr(found, "embed") or not isinstance(getattr(found, "settings", None), Mapping):
        raise InputError("is no encoder: it needs a mapping 'settings' and a method 'embed'", f"encoder {text!r}")
    return found


@functools.lru_cache(maxsize=2)
def loaded(name: str) -> Encoder:
    """Returns an encoder, the same one for each call in a process."""
    return load_encoder(name)


def encoder_settings(name: str | os.PathLike) -> dict[str, Any]:
    """Returns what embeddings of this encoder depend on."""
    text = os.fspath(name)
    if text.endswith(".npz") and Path(text).is_file():  # without loading it
        return {"weights": files.sha256_file(text)}
    return dict(load_encoder(name).settings)


def checked_embeddings(vectors: np.ndarray, count: int, name: str) -> np.ndarray:
    """Returns embeddings as float16 [count, D]. Raises InputError for another shape, or another length than 1."""
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or len(vectors) != count or vectors.dtype != np.float32:
        raise InputError(
            f"gave {vectors.dtype} {list(vectors.shape)} for {count} portraits; float32 [{count}, D] would be right",
            f"encoder {name!r}",
        )
    lengths = np.linalg.norm(vectors, axis=1)
    if not np.all(np.abs(lengths - 1) < 1e-3):
        raise InputError("gave embeddings that are not of length 1", f"encoder {name!r}")
    return vectors.astype(np.float16)
