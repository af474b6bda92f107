"""Embeds portraits with the face encoder that was trained here, from its file of weights."""

from __future__ import annotations

import functools
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_pipelines.curation import network
from data_pipelines.curation.pixels import SIDE
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError

SCHEMA = "salmu_jax.face_encoder/1"
_BATCH = (
    32  # always whole, so that one program is compiled and a portrait's embedding does not depend on how many there are
)
_EDGE = (SIDE - network.INPUT) // 2


class FaceEncoder:
    """The encoder; see ``encoder.Encoder``."""

    def __init__(self, variables: Any, settings: Mapping[str, Any]):
        self._variables, self._settings = variables, settings

    @property
    def settings(self) -> Mapping[str, Any]:
        """The digest of the weights' file."""
        return self._settings

    @classmethod
    def load(cls, path: Path) -> FaceEncoder:
        """Reads a file of weights. Raises InputError for one that is not there or not of this network."""
        try:
            with np.load(path, allow_pickle=False) as file:
                flat = {name: file[name] for name in file.files}
            about = json.loads(str(flat.pop("about")))
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"is not a file of a face encoder's weights ({error})", path) from error
        wanted = {name: shape.shape for name, shape in network.flattened(_shapes()).items()}
        if about.get("schema") != SCHEMA or {name: leaf.shape for name, leaf in flat.items()} != wanted:
            raise InputError("holds the weights of another network; train the encoder again", path)
        return cls(network.nested(flat), {"weights": files.sha256_file(path)})

    def embed(self, images: Sequence[bytes], pixels: np.ndarray) -> np.ndarray:
        """Returns float32 [N, 128] of length 1."""
        middle = pixels[:, _EDGE : SIDE - _EDGE, _EDGE : SIDE - _EDGE]
        parts = [np.zeros((0, network.WIDTH), np.float32)]
        with jax.default_device(
            jax.devices("cpu")[0]
        ):  # whatever else is there: bits do not depend on the machine's devices
            for start in range(0, len(middle), _BATCH):
                batch = middle[start : start + _BATCH]
                whole = np.zeros((_BATCH, *batch.shape[1:]), np.uint8)
                whole[: len(batch)] = batch
                parts.append(np.asarray(_apply(self._variables, whole))[: len(batch)])
        return np.concatenate(parts)


def weights_file(variables: Any) -> bytes:
    """Returns the bytes of a file of weights, equal for equal weights."""
    buffer = io.BytesIO()
    flat = {name: np.asarray(leaf) for name, leaf in sorted(network.flattened(variables).items())}
    np.savez(buffer, allow_pickle=False, about=np.array(json.dumps({"schema": SCHEMA})), **flat)
    return buffer.getvalue()


@functools.cache
def _shapes() -> Any:
    images = jax.ShapeDtypeStruct((1, network.INPUT, network.INPUT, 3), np.uint8)
    return jax.eval_shape(network.FaceNetwork().init, jax.random.key(0), images)


@jax.jit
def _apply(variables: Any, images: jax.Array) -> Any:
    return network.FaceNetwork().apply(variables, images)
