"""Defines the contract: a method is its streams, a few named loss terms, and a transform from gradients to an update.

A method is a frozen dataclass in a file of its own. Those of the package are in :mod:`salmu_jax.unlearning.methods` and listed
in :mod:`salmu_jax.unlearning.registry`; one in a user's own file is named ``FILE.py:CLASS``. Its *fields* are its options
(:func:`~salmu_jax.unlearning.options.option`); what it *is* (name, citation, streams) are class attributes. Every hook has a
default, so a small method is a small file. The hooks of a run, in order::

    prepare(ctx) -> prepared                                     once: saliency, Fisher information, a basis
    parametrise(params, prepared, rng) -> (trainable, bind)      what is trained, and the model that it makes
    objectives(batch, model, reference, info) -> {name: scalar}  every step: the loss terms
    transform(hyper)                                             every step: from gradients to an update
    finish(params, reference_params, prepared) -> params         once: closed forms, task vectors

A method runs in a process that holds only what it may read (:mod:`salmu_jax.unlearning.isolation`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import jax
import optax

from salmu_jax.models.clip import Clip
from salmu_jax.unlearning import options as options_lib
from salmu_jax.unlearning.hyper import Hyper, base_optimizer
from salmu_jax.unlearning.options import option

if TYPE_CHECKING:
    from salmu_jax.unlearning.context import Context
    from salmu_jax.unlearning.streams import Stream

__all__ = ["Bind", "Bound", "Method", "Pairs", "StepInfo", "identity", "option"]

Bind = Callable[[Any, Any], Any]  # bind(trainable, start params) -> full params


class Pairs(NamedTuple):
    """The rows of a stream; under ``lax.scan``, steps are the leading axis of every array."""

    images: jax.Array | None  # uint8 [B, H, W, 3]; None for captions alone
    tokens: jax.Array  # int32 [B, T]
    others: Mapping[str, jax.Array] = {}  # int32 [B, T] or [B, K, T] each: further captions of the same images, by name
    numbers: Mapping[str, jax.Array] = {}  # float32 [B] each: what the metadata say of each row, by name
    known: Mapping[str, jax.Array] = {}  # float32 [B, D] or [B, K, D] each, for the step alone: see reference.py


class StepInfo(NamedTuple):
    """What a step gets besides its batch and the two models."""

    step: jax.Array  # int32, steps done
    epoch: jax.Array  # float32, passes over forget done
    total_steps: int
    rng: jax.Array  # a key of this step alone
    prepared: Any  # what the method has prepared; None by default


@dataclasses.dataclass(frozen=True)
class Bound:
    """A model together with its parameters."""

    clip: Clip
    params: Any

    def encode_image(self, images: jax.Array | None) -> jax.Array:
        """Embeds uint8 [B, H, W, 3]: L2-normalised float32 [B, D]. Raises ValueError for a stream without images."""
        if images is None:
            raise ValueError("the stream has captions alone, and no images to encode")
        return self.clip.encode_image(self.params, images)

    def encode_text(self, tokens: jax.Array) -> jax.Array:
        """Embeds int32 [B, T]: L2-normalised float32 [B, D]; or [B, K, T], several captions of a row: [B, K, D]."""
        if tokens.ndim == 3:
            return self.encode_text(tokens.reshape(-1, tokens.shape[-1])).reshape(*tokens.shape[:2], -1)
        return self.clip.encode_text(self.params, tokens)

    def encode_pairs(self, pairs: Pairs) -> tuple[jax.Array, jax.Array]:
        """Embeds the images and the captions of ``pairs``."""
        return self.encode_image(pairs.images), self.encode_text(pairs.tokens)

    @property
    def logit_scale(self) -> jax.Array:
        """The *logarithm* of the inverse temperature, a float32 scalar."""
        return self.params["logit_scale"]


def identity(trainable: Any, params: Any) -> Any:
    """Returns ``trainable``, which is the parameters themselves: the default ``bind``."""
    del params
    return trainable


@dataclasses.dataclass(frozen=True)
class Method:
    """Base of all methods.

    Class attributes:
      name: the name in the registry, in configs and, unless a run has another, of its model.
      title: the name in tables.
      reference: the publication.
      formula: the loss terms or the closed form, plain text of a few lines.
      defaults: hyper-parameters as published. ``total_steps=0``: the method takes no steps unless ``epochs`` is given.
      presets: further settings by name, such as those of the paper; ``preset`` in a config chooses one.
      streams: what a step and ``prepare`` get, by name. A method without streams takes no steps.
      separate_gradients: names of the terms whose own gradients :meth:`transform` asks for; each costs one more
        backward pass.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    reference: ClassVar[str]
    formula: ClassVar[str] = ""
    defaults: ClassVar[Hyper] = Hyper()
    presets: ClassVar[Mapping[str, Hyper]] = {}
    streams: ClassVar[Mapping[str, Stream]] = {}
    separate_gradients: ClassVar[tuple[str, ...]] = ()

    def make_streams(self) -> Mapping[str, Stream]:
        """Returns the streams of a method with these options; override it where they depend on options."""
        return self.streams

    def prepare(self, ctx: Context) -> Any:
        """Computes, once before the first step, what the other hooks get as ``prepared``: a pytree of arrays, or None.

        It runs on all hosts and must return the same on all of them, as everything in ``ctx`` does. A run that resumes calls
        it again.
        """
        return None

    def parametrise(self, params: Any, prepared: Any, rng: jax.Array) -> tuple[Any, Bind]:
        """Returns what is trained, and ``bind(trainable, params)``, which turns it into full parameters.

        Args:
          params: the full parameters of the start model.
          prepared: the result of :meth:`prepare`.
          rng: a key that depends on the seed alone, also when a run resumes.

        ``bind`` is pure, is differentiated through, and uses only arrays in its arguments. Rules of ``freeze`` apply to the
        paths of the trainable tree. By default the parameters themselves are trained.
        """
        del prepared, rng
        return params, identity

    def objectives(
        self, batch: Mapping[str, Pairs], model: Bound, reference: Bound, info: StepInfo
    ) -> dict[str, jax.Array]:
        """Returns the named loss terms of a step, scalars with their weights applied.

        Their sum is minimised, unless :meth:`transform` says otherwise. ``reference`` is the start model, under
        ``stop_gradient``. A method without this hook takes no steps.
        """
        raise NotImplementedError

    def transform(self, hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        """Returns the transform from the gradients of the terms to one update; the base optimizer comes last.

        ``updates`` is the gradient of the sum of the terms. Keyword-only extras: ``gradients`` (by name, those of
        ``separate_gradients``), ``reference_params`` (the trainable tree at the start), ``step`` (int32), ``rng``, and
        ``prepared``. All trees of parameters hold the trainable leaves only, frozen ones being ``optax.MaskedNode()``.
        """
        return base_optimizer(hyper)

    def finish(self, params: Any, reference_params: Any, prepared: Any) -> Any:
        """Returns the unlearned parameters, given those after the last step (or of the start model, without steps).

        It is pure, and compiled. Arguments and result are full trees. Parameters that ``freeze`` names keep every bit.
        """
        del reference_params, prepared
        return params

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """Returns this method with some of its options replaced.

        Raises InputError for an unknown option, a value of another type or out of range, and a number that is not finite.
        """
        return options_lib.with_options(self, options)

    @classmethod
    def takes_steps(cls) -> bool:
        """Returns whether the method has loss terms."""
        return cls.objectives is not Method.objectives
