"""Gives ``prepare`` what it works with: the start model, the metadata of forget, and batches of the method's streams.

Everything here returns the same on all hosts of a run, which must all call it in the same order.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from data_pipelines.input import evaluation_images
from salmu_jax.evaluation.encode import Encoder, default_rows
from salmu_jax.runtime import distributed
from salmu_jax.runtime.errors import InputError
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import Bound, Pairs
from salmu_jax.unlearning.permission import ForgetRows, Permission
from salmu_jax.unlearning.stream_batches import Batches

_BATCHES_A_CALL = 8  # batches of a mean on the devices at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
    """The argument of :meth:`Method.prepare`.

    Attributes:
      params: the start model's parameters that are trained; frozen leaves are ``optax.MaskedNode()``. All of them for a
        method that overrides ``parametrise``.
      bind: ``bind(params)`` is the model with these trained parameters, so that it can be differentiated.
      reference: the start model.
      hyper: the hyper-parameters of the run.
      rng: a key for draws in ``prepare``.
      seed: the run's seed.
      permission: what the run may read.
      stream_batches: the method's streams, opened.
      mesh: the devices of all hosts.
    """

    params: Any
    bind: Callable[[Any], Bound]
    reference: Bound
    hyper: Hyper
    rng: jax.Array
    seed: int
    permission: Permission
    stream_batches: Batches
    mesh: Mesh

    @property
    def rows(self) -> ForgetRows:
        """The metadata of the forget pairs."""
        return self.permission.rows

    def batches(self, count: int) -> Iterator[dict[str, Pairs]]:
        """Yields the first ``count`` batches of the method's streams, whole, as numpy arrays."""
        return itertools.islice(self.stream_batches.whole(), _at_least_one(count))

    def mean(self, function: Callable[[Any, dict[str, Pairs], jax.Array], Any], count: int) -> Any:
        """Returns the mean of ``function(params, batch, rng)`` over the first ``count`` batches of the method's streams.

        It is one compiled, sharded scan. ``function`` is traced once, gets :attr:`params` and a key of the batch, and returns
        a tree of arrays. The mean has the same structure, in float32, and is sharded like the parameters that it resembles
        (:meth:`gather` makes numpy arrays of it).
        """
        steps = itertools.islice(self.stream_batches.to_prepare(), _at_least_one(count))
        total: Any = None
        call: Any = None
        with mesh_lib.use(self.mesh):
            for first in itertools.count(0, _BATCHES_A_CALL):
                group = list(itertools.islice(steps, _BATCHES_A_CALL))
                if not group:
                    return jax.tree.map(lambda leaf: leaf / count, total)
                stack = jax.tree.map(lambda *leaves: np.stack(leaves), *group)
                stack = mesh_lib.put_batch(stack, self.mesh, leading=1)
                if call is None:
                    total, call = self._sum(function, stack)
                total = call(total, stack, np.arange(first, first + len(group), dtype=np.int32))

    def _sum(self, function: Callable[..., Any], stack: Any) -> tuple[Any, Callable[..., Any]]:
        """Returns zeros, and ``call(total, stack, numbers) -> total``, which adds ``function`` of each batch."""
        key = np.asarray(jax.random.key_data(self.rng))
        one_batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), stack)
        # Arrays that the function closes over, such as those of `reference`, become arguments: as constants of the program
        # they would be held twice, and arrays that are split over several processes cannot be constants.
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(self.params, one_batch, self.rng)

        def add(consts: Any, params: Any, key: Any, total: Any, stack: Any, numbers: Any) -> Any:
            def one(total: Any, item: Any) -> tuple[Any, None]:
                batch, number = item
                rng = jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), number)
                found = jax.core.eval_jaxpr(closed.jaxpr, consts, *jax.tree.leaves((params, batch, rng)))
                found = jax.tree.unflatten(jax.tree.structure(shapes), found)
                return jax.tree.map(lambda sum_, leaf: sum_ + jnp.asarray(leaf, jnp.float32), total, found), None

            return jax.lax.scan(one, total, (stack, numbers))[0]

        shardings = mesh_lib.param_shardings(shapes, self.mesh)
        zeros = jax.device_put(jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes), shardings)
        compiled = jax.jit(add, donate_argnums=3, out_shardings=shardings)
        return zeros, lambda *rest: compiled(closed.consts, self.params, key, *rest)

    def compute(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Returns ``function(*arguments)``, trees of arrays, compiled once for the devices of all hosts.

        The function may close over arrays, such as those of :attr:`params`. The result is sharded like parameters.
        """
        with mesh_lib.use(self.mesh):
            # What it closes over becomes arguments, see _sum.
            closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)

            def run(consts: Any, leaves: Any) -> Any:
                return jax.tree.unflatten(
                    jax.tree.structure(shapes), jax.core.eval_jaxpr(closed.jaxpr, consts, *leaves)
                )

            compiled = jax.jit(run, out_shardings=mesh_lib.param_shardings(shapes, self.mesh))
            return compiled(closed.consts, jax.tree.leaves(arguments))

    def stacked(self, count: int) -> dict[str, Pairs]:
        """Returns the first ``count`` batches of the method's streams on the devices, batches being the leading axis."""
        stack = jax.tree.map(lambda *leaves: np.stack(leaves), *self.batches(count))
        return jax.device_put(stack, mesh_lib.batch_sharding(self.mesh, leading=1))

    def tokenize(self, texts: Sequence[str]) -> np.ndarray:
        """Returns captions as streams have them, int32 [N, T]."""
        return np.asarray(self.stream_batches.inputs.stream_tokenizer(list(texts)), np.int32)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeds captions, as streams have them, with the start model: float32 [N, D], L2-normalised."""
        tokens = self.tokenize(texts)
        with mesh_lib.use(self.mesh):
            return self._encoder().all_tokens(tokens)

    def encode_images(self, split: str) -> np.ndarray:
        """Embeds all images of ``forget``, of ``retain``, or of a split by its full name with the start model: float32 [N, D].

        Raises InputError for a split that the run may not read.
        """
        source, inputs, encoder = self.permission.split(split), self.stream_batches.inputs, self._encoder()
        size = default_rows(self.reference.clip) * self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        batches = evaluation_images(source, inputs.image_size, size, inputs.cache)
        with mesh_lib.use(self.mesh):
            return np.concatenate([encoder.all("image", batch["images"][: batch["count"]]) for batch in batches])

    def gather(self, tree: Any) -> Any:
        """Returns the arrays of ``tree`` as numpy arrays, whole, on every host."""
        return jax.tree.map(distributed.to_host, tree)

    def _encoder(self) -> Encoder:
        return Encoder(
            self.reference.clip, self.reference.params, default_rows(self.reference.clip), self.mesh, gather=True
        )


def _at_least_one(count: int) -> int:
    if count < 1:
        raise InputError(f"is {count}; at least 1 batch is needed", "count")
    return count
