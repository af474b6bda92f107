"""The contract: a method is a few named loss terms, and the transform that turns their gradients into an update.

A method is a frozen dataclass in a file of its own in :mod:`salmu_jax.unlearning.methods`, listed in
:mod:`salmu_jax.unlearning.registry`. Its *fields* are its options (weights of the terms, say), with the published
values as defaults; what it *is* (name, citation, needs) are class attributes. It sees a forget batch, a retain batch
if it needs one, the current model and the frozen reference. It runs in a process that was given nothing else
(:mod:`salmu_jax.unlearning.isolation`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import jax
import optax

from salmu_jax.models.clip import Clip
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.messages import did_you_mean
from salmu_jax.unlearning.hyper import Hyper, base_optimizer

RETAIN = "retain"
GENERIC_CAPTIONS = "generic_captions"


class Pairs(NamedTuple):
    """Image-caption pairs; under ``lax.scan`` every array has the steps as its leading axis."""

    images: jax.Array  # uint8 [B, H, W, 3]
    tokens: jax.Array  # int32 [B, T]
    generic_tokens: jax.Array | None = None  # int32 [B, T]: a caption of the same image without anything personal


class Batch(NamedTuple):
    """What a method sees in a step."""

    forget: Pairs
    retain: Pairs | None = None


@dataclasses.dataclass(frozen=True)
class Bound:
    """A model together with its parameters."""

    clip: Clip
    params: Any

    def encode_image(self, images: jax.Array) -> jax.Array:
        """uint8 [B, H, W, 3] to L2-normalised float32 [B, D]."""
        return self.clip.encode_image(self.params, images)

    def encode_text(self, tokens: jax.Array) -> jax.Array:
        """int32 [B, T] to L2-normalised float32 [B, D]."""
        return self.clip.encode_text(self.params, tokens)

    def encode_pairs(self, pairs: Pairs) -> tuple[jax.Array, jax.Array]:
        """The embeddings of the images and of the captions of ``pairs``."""
        return self.encode_image(pairs.images), self.encode_text(pairs.tokens)

    @property
    def logit_scale(self) -> jax.Array:
        """The *logarithm* of the inverse temperature, a float32 scalar."""
        return self.params["logit_scale"]


@dataclasses.dataclass(frozen=True)
class Method:
    """Base of all methods.

    Class attributes:
      name: the name in the registry, in configs and of the result file.
      title: the name in tables.
      reference: the publication.
      needs: of ``{RETAIN, GENERIC_CAPTIONS}``, what a batch must hold besides the forget pairs.
      separate_gradients: names of the terms whose own gradients :meth:`transform` asks for; each costs one backward
        pass more.
      one_shot: a single update is the whole method; the caller runs one step.
      defaults: hyper-parameters as published.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    reference: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    separate_gradients: ClassVar[tuple[str, ...]] = ()
    one_shot: ClassVar[bool] = False
    defaults: ClassVar[Hyper] = Hyper()

    def objectives(self, batch: Batch, model: Bound, reference: Bound, rng: jax.Array) -> dict[str, jax.Array]:
        """The named loss terms, scalars with their weights applied.

        Their sum is minimised, unless :meth:`transform` says otherwise. ``reference`` holds the parameters of before,
        under ``stop_gradient``; ``rng`` is a key of this step alone.
        """
        raise NotImplementedError

    def transform(self, hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        """How the gradients of the terms become one update; the base optimizer comes last.

        ``updates`` is the gradient of the sum of the terms. Keyword-only extras: ``gradients`` (by name, those of
        ``separate_gradients``), ``reference_params``, ``step`` (int32), ``rng``, and ``prepared`` (of
        :meth:`prepare`). All trees hold the trainable leaves only, frozen ones being ``optax.MaskedNode()``.
        """
        return base_optimizer(hyper)

    def prepare(self, batches: Iterable[Batch], trainable: Any, bind: Callable[[Any], Bound], rng: jax.Array) -> Any:
        """What is computed once, before the first step (saliency, Fisher information); None: nothing.

        The transform gets it as ``prepared``. ``bind(trainable)`` is the model with these trainable leaves, so that
        it can be differentiated.
        """
        return None

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """This method with some of its fields replaced.

        Raises InputError for an unknown option, a value of another type, and a number that is not finite.
        """
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name, value in options.items():
            where = f"options.{name}"
            if name not in fields:
                known = f"its options are: {', '.join(fields)}" if fields else "it has none"
                raise InputError(f"{self.name} has no option {name!r}; {did_you_mean(name, fields) or known}", where)
            wanted = type(fields[name])
            number = wanted is float and isinstance(value, int | float) and not isinstance(value, bool)
            if not number and type(value) is not wanted:
                raise InputError(f"must be of type {wanted.__name__}, like {fields[name]!r}, not {value!r}", where)
            if number and not math.isfinite(value):
                raise InputError(f"must be finite, not {value!r}", where)
        return dataclasses.replace(self, **options)

    def batch_sizes(self, hyper: Hyper) -> tuple[int, int]:
        """Forget and retain pairs of a step: half and half where a retain batch is used, else all of them forget pairs.

        Raises InputError if the batch cannot be halved.
        """
        if RETAIN not in self.needs:
            return hyper.batch_size, 0
        if hyper.batch_size % 2:
            raise InputError(
                f"{self.name} halves the batch into forget and retain; {hyper.batch_size} is odd", "batch_size"
            )
        return hyper.batch_size // 2, hyper.batch_size // 2

    def check_batch(self, batch: Batch) -> None:
        """Raises InputError if ``batch`` lacks what the method ``needs``."""
        if RETAIN in self.needs and batch.retain is None:
            raise InputError(f"{self.name} needs a retain batch beside the forget batch", "batch")
        if GENERIC_CAPTIONS in self.needs and batch.forget.generic_tokens is None:
            raise InputError(f"{self.name} needs generic captions of the forget images", "batch")
