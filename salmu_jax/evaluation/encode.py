"""Encodes many images or captions with the towers of one model, on all devices of this process.

A device always gets the same number of rows at a time, whatever the number of devices, so each row runs through the same
program and gives the same bits on one device, on eight, and on the hosts of a pod. Only the last batch is padded. While the
devices compute a batch, a thread prepares the next one.

Captions are encoded in buckets of a few lengths instead of padded to the longest: a text tower is causal, so nothing after the
end of a caption matters. :func:`buckets` chooses the lengths.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from salmu_jax.runtime.errors import InputError
from salmu_jax.training import mesh as mesh_lib

Params = Any
Load = Callable[[int, int], np.ndarray]
Where = Callable[[int], str]
Range = tuple[int, int]

MULTIPLE = 8  # lengths of captions are multiples of it
MOST_BUCKETS = 4
WORTH_A_PROGRAM = 2e12  # FLOPs that a further bucket has to save, since compiling it takes seconds
UNIT_TOLERANCE = 1e-3  # of the norm of an embedding


class Bucket(NamedTuple):
    """Captions of one length; ``index`` int64 [n] are their positions among all captions, in increasing order."""

    length: int
    index: np.ndarray


def _somewhere(row: int) -> str:
    return f"row {row}"


class Encoder:
    """The towers of one model, on the devices of this process, or on those of ``mesh``.

    Args:
      clip, params: the model. It is copied to each device; with a ``mesh``, it is already on its devices.
      rows: the images or captions that a device encodes at a time, at most.
      mesh: its ``data`` and ``fsdp`` axes divide a batch. All its processes then have to encode the same rows.
      gather: whether every device gets all embeddings, as the processes of such a mesh need.
    """

    def __init__(self, clip: Any, params: Params, rows: int, mesh: Mesh | None = None, gather: bool = False):
        self.clip, self._rows, self._mesh, self._gather = clip, rows, mesh, gather
        self._params = params
        self.waited = 0.0  # seconds that the devices waited for input
        self._copies: dict[Mesh, Params] = {}

    def width(self) -> int:
        """Returns the width D of embeddings."""
        tokens = jax.ShapeDtypeStruct((1, MULTIPLE), jnp.int32)
        return jax.eval_shape(self.clip.encode_text, self._params, tokens).shape[-1]

    def rows_of(self, total: int) -> int:
        """Returns how many rows of a stream of ``total`` a device encodes at a time, for any number of devices."""
        return min(self._rows, max(MULTIPLE, 1 << (total - 1).bit_length()))

    def _place(self, total: int) -> tuple[Mesh, Params, int]:
        """Returns the mesh for a stream of ``total`` rows, the parameters on it, and the rows of a batch."""
        if self._mesh is not None:
            return self._mesh, self._params, self._rows * self._mesh.shape["data"] * self._mesh.shape["fsdp"]
        rows = self.rows_of(total)
        mesh = mesh_lib.make_mesh(devices=jax.local_devices()[: -(-total // rows)])
        if mesh not in self._copies:
            self._copies[mesh] = jax.device_put(self._params, mesh_lib.replicated(mesh))
        return mesh, self._copies[mesh], rows * mesh.size

    def run(
        self, tower: str, load: Load, ranges: Sequence[Range], where: Where = _somewhere, total: int | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Encodes rows, and yields ``(start, embeddings float32 [n, D])`` in order.

        Args:
          tower: ``image`` or ``text``.
          load: ``load(start, stop)`` is the input of these rows: uint8 [n, S, S, 3] or int32 [n, T]; called in a thread.
          ranges: of rows, in order.
          where: ``where(row)`` names a row in an error message.
          total: how many rows there are, if ``ranges`` are part of them; it decides how many a device takes at a time.

        Raises InputError for embeddings that are not finite or whose norm is not 1 (see :func:`check`).
        """
        if not ranges:
            return
        mesh, params, size = self._place(sum(stop - start for start, stop in ranges) if total is None else total)
        call = _towers(self.clip, mesh, self._gather)[tower]
        sharding = mesh_lib.batch_sharding(mesh)

        def prepare(pieces: list[Range]) -> np.ndarray:
            parts = [load(start, stop) for start, stop in pieces]
            padded = np.zeros((size, *parts[0].shape[1:]), parts[0].dtype)
            np.concatenate(parts, out=padded[: sum(map(len, parts))])
            return padded

        def finish(pieces: list[Range], result: jax.Array) -> Iterator[tuple[int, np.ndarray]]:
            values, place = np.asarray(result), 0
            for start, stop in pieces:
                part = values[place : place + stop - start]
                check(part, where(start))
                yield start, part
                place += stop - start

        batches = list(_batches(ranges, size))
        with ThreadPoolExecutor(1, thread_name_prefix="load") as loader:
            following = loader.submit(prepare, batches[0])
            waiting = None
            for number, pieces in enumerate(batches):
                began = time.monotonic()
                host = following.result()
                self.waited += time.monotonic() - began
                following = loader.submit(prepare, batches[number + 1]) if number + 1 < len(batches) else None
                # Every process of a mesh over several has all rows, so each can give its devices theirs.
                placed = jax.make_array_from_callback(host.shape, sharding, lambda index, whole=host: whole[index])
                with mesh_lib.use(mesh):
                    result = call(params, placed)
                if waiting is not None:  # one batch is in flight: more would only hold more memory
                    yield from finish(*waiting)
                waiting = (pieces, result)
            yield from finish(*waiting)

    def all(self, tower: str, values: np.ndarray) -> np.ndarray:
        """Returns the embeddings of all of ``values``, float32 [N, D]."""
        whole = [(0, len(values))] if len(values) else []
        parts = [part for _, part in self.run(tower, lambda start, stop: values[start:stop], whole)]
        return np.concatenate(parts) if parts else np.zeros((0, self.width()), np.float32)

    def all_tokens(self, tokens: np.ndarray) -> np.ndarray:
        """Returns the embeddings of token rows int32 [N, T] that end in zeros, by length: float32 [N, D], in their order."""
        out = np.zeros((len(tokens), self.width()), np.float32)
        for length, index in buckets(tokens, getattr(self.clip.config, "text", None)):
            out[index] = self.all("text", tokens[index, :length])
        return out


def default_rows(clip: Any) -> int:
    """Returns the default rows of a device: few for large images on a CPU, where every batch takes seconds."""
    return 32 if jax.default_backend() == "cpu" and clip.config.image_size > 64 else 256


def buckets(tokens: np.ndarray, tower: Any = None, most: int = MOST_BUCKETS) -> list[Bucket]:
    """Sorts token rows int32 [N, T] that end in zeros into at most ``most`` lengths, shortest first; each is one program.

    The lengths are those that leave the least padding; a further one is taken only if it saves :data:`WORTH_A_PROGRAM`
    operations of ``tower`` (its ``width`` and ``layers``; None: one length, that of the longest row).
    """
    if not len(tokens):
        return []
    reached = tokens.shape[1] - np.argmax(tokens[:, ::-1] != 0, axis=1)
    reached = np.where(np.any(tokens, axis=1), reached, 1)
    lengths = np.minimum(-(-reached // MULTIPLE) * MULTIPLE, tokens.shape[1])
    present, counts = np.unique(lengths, return_counts=True)
    chosen = (int(present[-1]),)
    worth = WORTH_A_PROGRAM / (24 * tower.layers * tower.width**2) if tower is not None else np.inf

    def positions(tops: tuple[int, ...]) -> int:
        return int(
            sum(
                count * min(top for top in tops if top >= length) for length, count in zip(present, counts, strict=True)
            )
        )

    for number in range(2, min(most, len(present)) + 1):
        options = [(*some, int(present[-1])) for some in itertools.combinations(map(int, present[:-1]), number - 1)]
        best = min(options, key=positions)
        if positions(chosen) - positions(best) < worth:
            break
        chosen = best
    own = np.array([min(top for top in chosen if top >= length) for length in present])[
        np.searchsorted(present, lengths)
    ]
    return [Bucket(length, np.flatnonzero(own == length)) for length in chosen]


def check(embeddings: np.ndarray, where: str) -> None:
    """Raises InputError for embeddings [N, D] that are not finite, or that normalisation did not bring to a norm of 1.

    Cosines do not depend on the scale of a projection until it overflows or underflows float32: then they are noise, which
    looks like forgetting.
    """
    broken = int((~np.isfinite(embeddings).all(axis=1)).sum())
    if broken:
        raise InputError(
            f"{broken} of {len(embeddings)} embeddings are not finite numbers: the checkpoint has diverged; train it again"
            " with a lower learning rate",
            where,
        )
    norms = np.linalg.norm(embeddings, axis=1)
    off = np.abs(norms - 1) > UNIT_TOLERANCE
    if off.any():
        raise InputError(
            f"{int(off.sum())} of {len(embeddings)} embeddings have a norm of {norms[off].min():.3g} to {norms[off].max():.3g}"
            " after normalisation, not 1: the features before it overflow or underflow float32, which is no forgetting;"
            " rescale the model's projections (visual.proj, text.text_projection)",
            where,
        )


@functools.lru_cache(maxsize=8)
def _towers(clip: Any, mesh: Mesh, gather: bool) -> dict[str, Callable[[Params, jax.Array], jax.Array]]:
    """Returns both towers, compiled once for all models of an architecture."""
    out = mesh_lib.replicated(mesh) if gather else mesh_lib.batch_sharding(mesh)

    def image(params: Params, images: jax.Array) -> jax.Array:
        return clip.encode_image(params, images).astype(jnp.float32)

    def text(params: Params, tokens: jax.Array) -> jax.Array:
        return clip.encode_text(params, tokens).astype(jnp.float32)

    return {"image": jax.jit(image, out_shardings=out), "text": jax.jit(text, out_shardings=out)}


def _batches(ranges: Sequence[Range], size: int) -> Iterator[list[Range]]:
    """Yields the rows of all ``ranges`` in order, ``size`` at a time; a batch may hold parts of several ranges."""
    batch: list[Range] = []
    room = size
    for start, stop in ranges:
        while start < stop:
            end = min(stop, start + room)
            batch.append((start, end))
            room -= end - start
            start = end
            if not room:
                yield batch
                batch, room = [], size
    if batch:
        yield batch
