"""The unlearning step: any method, one update, pure. The caller jits, donates and shards it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from salmu_jax.models.clip import Clip
from salmu_jax.training.step import MAX_LOGIT_SCALE
from salmu_jax.unlearning.freeze import TRAIN, TRAIN_ALL, Rules, label_parameters, merge, trainable_part
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import Batch, Bound, Method

# What the seed is folded with: one constant a purpose, so that no two share their draws.
STEP_PURPOSE = 0x57E9
PREPARE_PURPOSE = 0x93E9

Terms = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


class UnlearningState(NamedTuple):
    """All that a run has to remember besides its config and the reference parameters."""

    params: Any
    opt_state: Any  # of the trainable leaves only
    step: jax.Array  # int32, steps done
    rng: jax.Array  # uint32 [2], the data of the run's key; step s draws from it folded with s


class Step(Protocol):
    """``reference_params`` are those of before unlearning, ``prepared`` what :func:`prepare_method` returned."""

    def __call__(
        self, state: UnlearningState, batch: Batch, reference_params: Any, prepared: Any = None
    ) -> tuple[UnlearningState, Metrics]: ...


def init_unlearning_state(
    params: Any, method: Method, hyper: Hyper, trainable: Rules = TRAIN_ALL, seed: int = 42
) -> UnlearningState:
    """The state before the first step, starting from the Compromised ``params`` (copied: the state may be donated).

    Raises InputError for options that ``method`` has not, and for ``trainable`` rules that do not fit the parameters.
    """
    transform = method.with_options(hyper.options).transform(hyper)
    opt_state = transform.init(trainable_part(params, label_parameters(params, trainable)))
    key = _key(seed, STEP_PURPOSE)
    return UnlearningState(
        jax.tree.map(jnp.copy, params), opt_state, jnp.zeros((), jnp.int32), jax.random.key_data(key)
    )


def make_unlearning_step(clip: Clip, method: Method, hyper: Hyper, trainable: Rules = TRAIN_ALL) -> Step:
    """The step of ``method``: its terms, their gradients, its transform, one update of the trainable leaves.

    One backward pass through the sum of the terms; for a method with ``separate_gradients`` one through each of
    those, and one through the sum of the rest. The encoders' forward passes are shared between them (by the compiler,
    within one ``jit``).

    The metrics are float32 scalars: ``loss/{term}`` and ``loss/total``, ``gradient_norm`` (of the sum of the terms,
    before the transform) and ``update_norm`` (of what was added to the parameters), the norms over the trainable
    leaves.

    Raises InputError for options that ``method`` has not; the step does, when traced, for a batch without what the
    method needs.
    """
    method = method.with_options(hyper.options)
    transform = method.transform(hyper)

    def step(
        state: UnlearningState, batch: Batch, reference_params: Any, prepared: Any = None
    ) -> tuple[UnlearningState, Metrics]:
        method.check_batch(batch)
        labels = label_parameters(state.params, trainable)
        rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng, impl="threefry2x32"), state.step)
        term_rng, transform_rng = jax.random.split(rng)
        reference = Bound(clip, jax.lax.stop_gradient(reference_params))

        def terms_of(part: Any) -> Terms:
            model = Bound(clip, merge(part, state.params, labels))
            return method.objectives(batch, model, reference, term_rng)

        part = trainable_part(state.params, labels)
        terms, total, separate = _gradients(terms_of, part, method.separate_gradients)
        updates, opt_state = transform.update(
            total,
            state.opt_state,
            part,
            gradients=separate,
            reference_params=trainable_part(reference_params, labels),
            step=state.step,
            rng=transform_rng,
            prepared=prepared,
        )
        params = merge(optax.apply_updates(part, updates), state.params, labels)
        if labels["logit_scale"] == TRAIN:
            # As in training; the bounds hold already unless a method trains the scale.
            params["logit_scale"] = jnp.clip(params["logit_scale"], 0, MAX_LOGIT_SCALE)
        metrics = {f"loss/{name}": term for name, term in terms.items()}
        metrics["loss/total"] = jnp.asarray(sum(terms.values()), jnp.float32)
        metrics["gradient_norm"] = optax.tree.norm(total)
        metrics["update_norm"] = optax.tree.norm(updates)
        return UnlearningState(params, opt_state, state.step + 1, state.rng), metrics

    return step


def prepare_method(
    clip: Clip,
    method: Method,
    hyper: Hyper,
    params: Any,
    batches: Iterable[Batch],
    trainable: Rules = TRAIN_ALL,
    seed: int = 42,
) -> Any:
    """What ``method`` computes from the Compromised ``params`` and some batches before the first step; often None."""
    labels = label_parameters(params, trainable)

    def bind(part: Any) -> Bound:
        return Bound(clip, merge(part, params, labels))

    method = method.with_options(hyper.options)
    return method.prepare(batches, trainable_part(params, labels), bind, _key(seed, PREPARE_PURPOSE))


def _gradients(
    terms_of: Callable[[Any], Terms], part: Any, separate: tuple[str, ...]
) -> tuple[Terms, Any, dict[str, Any]]:
    """The terms, the gradient of their sum, and the gradients of the ``separate`` ones by name."""

    def differentiate(chosen: Callable[[str], bool]) -> tuple[Terms, Any]:
        def loss(p: Any) -> tuple[jax.Array, Terms]:
            terms = terms_of(p)
            return jnp.asarray(sum(term for name, term in terms.items() if chosen(name)), jnp.float32), terms

        (_, terms), gradient = jax.value_and_grad(loss, has_aux=True)(part)
        return terms, gradient

    if not separate:
        terms, total = differentiate(lambda name: True)
        return terms, total, {}
    gradients = {}
    for wanted in separate:
        terms, gradients[wanted] = differentiate(wanted.__eq__)
    if missing := sorted(set(separate) - set(terms)):
        raise ValueError(f"separate_gradients names {missing}, but the terms are {sorted(terms)}")
    parts = list(gradients.values())
    if set(terms) - set(separate):
        parts.append(differentiate(lambda name: name not in separate)[1])
    return terms, functools.reduce(optax.tree.add, parts), gradients


def _key(seed: int, purpose: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), purpose)
