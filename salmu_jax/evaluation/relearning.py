"""Fine-tunes a model on part of ``forget`` again, step by step: an attack that shows what unlearning has only hidden.

AdamW (Loshchilov and Hutter, 2019) with b1 = 0.9, b2 = 0.999, no weight decay and a constant learning rate minimises the
contrastive loss that the model was trained with, InfoNCE or sigmoid, over batches of 64 pairs without augmentation. All
parameters are trained, those of both towers and the temperature. Which pairs, and their order, depend on the seed alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from salmu_jax.evaluation import draws
from salmu_jax.evaluation.encode import MULTIPLE
from salmu_jax.evaluation.pixels import BLOCK, ImageStore
from salmu_jax.runtime import distributed
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.training.loss import LossConfig
from salmu_jax.training.step import TrainState, make_train_step, scan_steps

BATCH = 64  # pairs of a step, or all there are
STRIDE = 10  # steps of a device call; curves have their points at multiples of it
B1, B2, EPS = 0.9, 0.999, 1e-6

Params = Any


class Pairs:
    """The pairs that a model is fine-tuned on: ``images`` uint8 [N, S, S, 3] and ``tokens`` int32 [N, T] on the host.

    The columns of ``tokens`` that are 0 in every row are cut off, up to a multiple of 8: a text tower is causal.
    """

    def __init__(self, images: np.ndarray, tokens: np.ndarray):
        used = int(np.flatnonzero(np.any(tokens != 0, axis=0))[-1]) + 1 if np.any(tokens) else 1
        self.images, self.tokens = images, tokens[:, : -(-used // MULTIPLE) * MULTIPLE]

    @classmethod
    def read(cls, store: ImageStore, texts: Sequence[str], rows: np.ndarray, tokenizer: Any) -> Pairs:
        """Reads the pairs ``rows`` int64 [N], in increasing order, of a split with the captions ``texts``."""
        images = np.empty((len(rows), store.image_size, store.image_size, 3), np.uint8)
        for block in np.unique(rows // BLOCK):
            here = rows // BLOCK == block
            first, last = rows[here][0], rows[here][-1]
            images[here] = store.batch(int(first), int(last) + 1)[rows[here] - first]
        return cls(images, np.asarray(tokenizer([texts[row] for row in rows]), np.int32))

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, seed: int) -> Iterator[np.ndarray]:
        """Yields which pairs each step takes, int64 [B], without end: permutations of all, without the rest of each.

        So no pair is twice in a batch, where it would be its own negative.
        """
        rng, size = draws.generator(seed, draws.RELEARN_ORDER), min(BATCH, len(self))
        while True:
            order = rng.permutation(len(self))
            yield from order[: len(order) // size * size].reshape(-1, size)


def relearn(
    clip: Any, params: Params, pairs: Pairs, *, rate: float, points: Sequence[int], seed: int
) -> Iterator[tuple[int, Params | None]]:
    """Fine-tunes a model, and yields ``(step, parameters)`` at ``points``, increasing multiples of :data:`STRIDE`.

    All processes have to iterate together, and get the same parameters, whole on the host. Once the loss is not finite there
    is no model: the parameters are None.

    Args:
      clip, params: the model.
      pairs: what it is trained on.
      rate: the learning rate.
      seed: of the order of the pairs.
    """
    batches = pairs.batches(seed)
    mesh = _mesh(min(BATCH, len(pairs)))
    copies = mesh_lib.replicated(mesh)
    start = jax.tree.map(lambda leaf: np.array(leaf, np.float32), params)  # a copy, since the first call takes it
    moments = jax.tree.map(np.asarray, _optimizer(0.0).init(start))
    state = jax.device_put(TrainState(start, moments, jnp.zeros((), jnp.int32)), copies)
    call = _compiled(clip, mesh, "sigmoid" if "logit_bias" in params else "infonce")
    done, alive = 0, True
    for point in points:
        while done < point and alive:
            chosen = np.stack([next(batches) for _ in range(STRIDE)])
            batch = {"images": pairs.images[chosen], "tokens": pairs.tokens[chosen]}
            with mesh_lib.use(mesh):
                state, losses = call(state, _put(batch, mesh), np.float32(rate))
            done += STRIDE
            alive = bool(np.isfinite(distributed.to_host(losses)).all())
        yield point, jax.tree.map(distributed.to_host, state.params) if alive else None


def _optimizer(rate: Any) -> optax.GradientTransformation:
    return optax.adamw(rate, b1=B1, b2=B2, eps=EPS, weight_decay=0.0)


@functools.lru_cache(maxsize=8)
def _compiled(clip: Any, mesh: Mesh, kind: str) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Returns :data:`STRIDE` steps as one program, for all models and learning rates of an architecture."""

    def run(state: TrainState, batches: dict[str, jax.Array], rate: jax.Array) -> tuple[TrainState, jax.Array]:
        step = make_train_step(clip, _optimizer(rate), loss=LossConfig(kind))
        state, metrics = scan_steps(step)(state, batches)
        return state, metrics["loss"]

    return jax.jit(run, donate_argnums=0, out_shardings=mesh_lib.replicated(mesh))


@functools.cache
def _mesh(rows: int) -> Mesh:
    """Returns all devices of all processes, each with a part of a batch of ``rows``.

    If they do not divide it, each process trains for itself, on as many of its own devices as do.
    """
    if rows % jax.device_count() == 0:
        return mesh_lib.make_mesh()
    own = jax.local_devices()
    return mesh_lib.make_mesh(devices=own[: math.gcd(rows, len(own))])


def _put(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Shards stacked batches [steps, B, ...], which every process has whole, over the mesh."""
    sharding = mesh_lib.batch_sharding(mesh, leading=1)
    return {
        name: jax.make_array_from_callback(whole.shape, sharding, whole.__getitem__) for name, whole in batch.items()
    }
