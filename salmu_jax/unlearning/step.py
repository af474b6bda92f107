"""The unlearning step: any method, one update, pure. The caller jits, donates and shards it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from salmu_jax.models.clip import Clip
from salmu_jax.runtime.errors import InputError
from salmu_jax.training.step import MAX_LOGIT_SCALE
from salmu_jax.unlearning.freeze import TRAIN, TRAIN_ALL, Rules, label_parameters, merge, trainable_part
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import Bind, Bound, Method, Pairs, StepInfo, identity
from salmu_jax.unlearning.reference import MakeReference, knowing

# Folded into the seed: one constant per purpose, so that no two share their draws.
STEP_PURPOSE = 0x57E9
PREPARE_PURPOSE = 0x93E9
PARAMETRISE_PURPOSE = 0x9A4A

Batch = Mapping[str, Pairs]
Terms = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


class UnlearningState(NamedTuple):
    """Everything that a run must remember besides its config and its start."""

    params: Any  # the trainable leaves; optax.MaskedNode() for frozen ones
    opt_state: Any  # of the trainable leaves
    step: jax.Array  # int32, steps done
    rng: jax.Array  # uint32 [2], the data of the run's key; step s draws from it folded with s


class Start(NamedTuple):
    """What a run starts from, constant over its steps."""

    params: Any  # of the start model, all of them
    trainable: Any = None  # the tree that is trained, as it was at the start; None: it is ``params``
    prepared: Any = None  # what the method has prepared

    def tree(self) -> Any:
        """Returns the tree that is trained, as it was at the start, frozen leaves included."""
        return self.params if self.trainable is None else self.trainable


class Step(Protocol):
    """A step of a method: from the state and a batch to the next state and the metrics."""

    def __call__(self, state: UnlearningState, batch: Batch, start: Start) -> tuple[UnlearningState, Metrics]: ...


def init_unlearning_state(
    start: Start, method: Method, hyper: Hyper, rules: Rules = TRAIN_ALL, seed: int = 42
) -> UnlearningState:
    """Returns the state before the first step. Its leaves are copies: it may be donated.

    Raises InputError for options that ``method`` does not have, and for ``rules`` that do not fit the trainable tree.
    """
    part = trainable_part(start.tree(), label_parameters(start.tree(), rules))
    opt_state = method.with_options(hyper.options).transform(hyper).init(part)
    step = jnp.zeros((), jnp.int32)
    return UnlearningState(jax.tree.map(jnp.copy, part), opt_state, step, jax.random.key_data(run_key(seed)))


def make_unlearning_step(
    clip: Clip,
    method: Method,
    hyper: Hyper,
    rules: Rules = TRAIN_ALL,
    *,
    bind: Bind = identity,
    epoch_steps: float = 1.0,
    reference: MakeReference = knowing,
) -> Step:
    """Returns the step of ``method``: its terms, their gradients, its transform, one update of the trainable leaves.

    It takes one backward pass through the sum of the terms; for a method with ``separate_gradients``, one through each of
    those, and one through the sum of the rest. The encoders' forward passes are shared between them (by the compiler,
    within one ``jit``).

    The metrics are float32 scalars: ``loss/{term}`` and ``loss/total``, ``gradient_norm`` (of the sum of the terms,
    before the transform) and ``update_norm`` (of what was added to the parameters), the norms over the trainable
    leaves.

    Args:
      rules: which leaves of the trainable tree are trained.
      bind: ``bind(trainable, start params)`` makes full parameters, see :meth:`Method.parametrise`.
      epoch_steps: the steps of a pass over forget, a fraction if they do not divide evenly.
      reference: makes the start model that ``objectives`` gets; by default it knows what the batch carries.

    Raises InputError for options that ``method`` does not have.
    """
    method = method.with_options(hyper.options)
    transform = method.transform(hyper)

    def step(state: UnlearningState, batch: Batch, start: Start) -> tuple[UnlearningState, Metrics]:
        labels = label_parameters(start.tree(), rules)
        term_rng, transform_rng = step_keys(jax.random.wrap_key_data(state.rng, impl="threefry2x32"), state.step)
        epoch = state.step.astype(jnp.float32) / epoch_steps
        info = StepInfo(state.step, epoch, hyper.total_steps, term_rng, start.prepared)
        start_model = reference(clip, jax.lax.stop_gradient(start.params), batch)
        rows = {name: pairs._replace(known={}) for name, pairs in batch.items()}  # the same arrays: it knows them

        def terms_of(part: Any) -> Terms:
            model = Bound(clip, full_params(part, start, bind, rules))
            return _checked(method.objectives(rows, model, start_model, info), method)

        terms, total, separate = _gradients(terms_of, state.params, method.separate_gradients)
        updates, opt_state = transform.update(
            total,
            state.opt_state,
            state.params,
            gradients=separate,
            reference_params=trainable_part(start.tree(), labels),
            step=state.step,
            rng=transform_rng,
            prepared=start.prepared,
        )
        params = optax.apply_updates(state.params, updates)
        if isinstance(labels, Mapping) and labels.get("logit_scale") == TRAIN:
            # As in training; the bounds hold already unless a method trains the scale.
            params["logit_scale"] = jnp.clip(params["logit_scale"], 0, MAX_LOGIT_SCALE)
        metrics = {f"loss/{name}": term for name, term in terms.items()}
        metrics["loss/total"] = jnp.asarray(sum(terms.values()), jnp.float32)
        metrics["gradient_norm"] = optax.tree.norm(total)
        metrics["update_norm"] = optax.tree.norm(updates)
        return UnlearningState(params, opt_state, state.step + 1, state.rng), metrics

    return step


def full_params(part: Any, start: Start, bind: Bind, rules: Rules) -> Any:
    """Returns the full parameters that the trained leaves ``part`` make."""
    tree = merge(part, start.tree(), label_parameters(start.tree(), rules))
    return bind(tree, start.params)


def run_key(seed: int, purpose: int = STEP_PURPOSE) -> jax.Array:
    """Returns the key of a run for one purpose, a function of its seed alone."""
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), purpose)


def step_keys(key: jax.Array, step: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """Returns the keys of a step's objectives and of its transform, from the run's key."""
    objectives, transform = jax.random.split(jax.random.fold_in(key, step))
    return objectives, transform


def _gradients(
    terms_of: Callable[[Any], Terms], part: Any, separate: tuple[str, ...]
) -> tuple[Terms, Any, dict[str, Any]]:
    """Returns the terms, the gradient of their sum, and the gradients of the ``separate`` ones by name."""

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


def _checked(terms: Any, method: Method) -> Terms:
    """Returns the loss terms. Raises InputError unless they are scalars by name."""
    if not isinstance(terms, Mapping) or not all(isinstance(name, str) for name in terms):
        raise InputError(f"objectives() has to return loss terms by name, not {type(terms).__name__}", method.name)
    for name, term in terms.items():
        if jnp.shape(term) != ():
            raise InputError(
                f"the loss term {name!r} has to be a scalar, and has the shape {jnp.shape(term)}", method.name
            )
    return dict(terms)
