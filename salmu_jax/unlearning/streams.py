"""Defines streams: what a step of a method is given, by name, and how it is drawn.

    streams = {"forget": Forget(), "retain": Retain(), "invented": Surrogates(invented_people, count=20_000, per_step=64)}

A batch is a dictionary of :class:`~salmu_jax.unlearning.method.Pairs` under the same names (``stream_batches.py``). Every
stream draws from the run's :class:`~salmu_jax.unlearning.permission.Permission` and from nothing else. What it draws depends
only on the seed, its name and the step: not on the number of hosts or workers, on other streams, or on where a run resumed.

``made_captions.py`` has the functions that make captions.
"""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from data_pipelines.input import AUGMENT, PairSource, training_batches
from data_pipelines.order import shuffled
from salmu_jax.runtime.errors import InputError
from salmu_jax.training.loop import derived_seed
from salmu_jax.unlearning.made_captions import (
    Inputs,
    MakeCaptions,
    captions_a_row,
    generator_of,
    make_captions,
    where_of,
)
from salmu_jax.unlearning.method import Pairs
from salmu_jax.unlearning.permission import FORGET, RETAIN, ForgetRows
from salmu_jax.unlearning.sampled import Choice, Sampled

GENERIC = "generic_caption"
MakeNumbers = Callable[[ForgetRows], Sequence[float] | np.ndarray]


class Drawn(NamedTuple):
    """A batch, or a host's share of it, and where it comes from."""

    pairs: Pairs
    places: np.ndarray  # int64 [B]: the positions of its rows in their source, or in their pool
    choices: Mapping[str, Choice] = {}  # by name, of those ``others`` that are sampled


Open = Callable[[int, int, int], Iterator[Drawn]]  # (first step, host, number of hosts): a host's share of every batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """Base of all streams.

    Attributes:
      per_step: rows per step; None for an even share of ``hyper.batch_size``.
      prepare_only: the stream is for ``prepare``: it takes no share of ``batch_size``, and ``objectives`` does not get it.
    """

    purpose: ClassVar[int]  # folded into the seed, so that streams are drawn independently
    usual_name: ClassVar[str] = ""  # a stream with this name does not fold its name into the seed
    has_images: ClassVar[bool] = False

    per_step: int | None = None
    prepare_only: bool = False

    def __post_init__(self) -> None:
        if self.per_step is not None and (type(self.per_step) is not int or self.per_step < 1):
            raise InputError(f"must be a whole number of at least 1, not {self.per_step!r}", "per_step")

    @property
    def reads(self) -> str:
        """The source of this stream: ``forget`` or ``retain``."""
        raise NotImplementedError

    @property
    def source(self) -> str:
        """The source or split that rows are drawn from, as :meth:`Permission.split` takes it."""
        return self.reads

    def describe(self) -> str:
        """Returns what the stream is, in a few words."""
        raise NotImplementedError

    def open(self, name: str, size: int, inputs: Inputs) -> Open:
        """Returns a function that draws batches of ``size`` rows; slow work, such as making captions, is done here, once.

        Raises InputError for what the permission does not allow, and for captions that cannot be made.
        """
        raise NotImplementedError

    def _seed(self, name: str, inputs: Inputs) -> int:
        words = () if name == self.usual_name else (zlib.crc32(name.encode()),)
        return derived_seed(inputs.seed, self.purpose, *words)


@dataclasses.dataclass(frozen=True)
class _Pairs(Stream):
    """Image-caption pairs, with further captions of the same images."""

    has_images: ClassVar[bool] = True

    # name: "generic_caption", or (for forget pairs) a function that makes one caption per row, or a tuple of several, or
    # several of which a step is given some.
    others: Mapping[str, str | MakeCaptions | Sampled] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, other in self.others.items():
            made = isinstance(other, Sampled) or callable(other)
            if other != GENERIC and not (made and self.reads == FORGET):
                more = " or a function (rows, rng) -> captions, or Sampled(function, parts)"
                wanted = f"{GENERIC!r}" + (more if self.reads == FORGET else "")
                raise InputError(f"must be {wanted}, not {other!r}", f"others[{name!r}]")

    def describe(self) -> str:
        more = f", and for each {', '.join(self.others)}" if self.others else ""
        return f"pairs of {self.reads}{more}"

    def open(self, name: str, size: int, inputs: Inputs) -> Open:
        generic = [other for other, what in self.others.items() if what == GENERIC]
        source = inputs.permission.split(self.source).with_texts(*([GENERIC] if generic else []))
        made = {
            other: captions_a_row(make, f"{name}.{other}", inputs)
            for other, make in self.others.items()
            if callable(make)
        }
        samplers = {
            other: sampled.open(f"{name}.{other}", size, inputs)
            for other, sampled in self.others.items()
            if isinstance(sampled, Sampled)
        }
        numbers, seed = self._numbers(name, inputs), self._seed(name, inputs)

        def draw(first_step: int, host: int, hosts: int) -> Iterator[Drawn]:
            drawn = _from_source(source, size, seed, inputs, first_step, host, hosts, images=True)
            for step, batch in enumerate(drawn, first_step):
                rows = batch["index"]
                choices = {
                    f"{other}.{part}": choice
                    for other, sample in samplers.items()
                    for part, choice in sample(rows, step, host, hosts).items()
                }
                others: dict[str, Any] = {other: batch["generic_tokens"] for other in generic}
                others |= {other: tokens[rows] for other, tokens in made.items()}
                others |= {other: choice.chosen() for other, choice in choices.items()}
                of_rows = {number: values[rows] for number, values in numbers.items()}
                yield Drawn(Pairs(batch["images"], batch["tokens"], others, of_rows), rows, choices)

        return draw

    def _numbers(self, name: str, inputs: Inputs) -> dict[str, np.ndarray]:
        """Returns a number for each row of the source, float32 [N] each, by name."""
        return {}


@dataclasses.dataclass(frozen=True)
class Forget(_Pairs):
    """Pairs to forget.

    Attributes:
      others: adds captions to each: ``generic_caption``, or captions made by a function, or some of these (:class:`Sampled`).
      numbers: adds numbers to each, made by pure functions of the rows: whether a person is to be forgotten whole, say.
    """

    purpose: ClassVar[int] = 2
    usual_name: ClassVar[str] = FORGET

    numbers: Mapping[str, MakeNumbers] = dataclasses.field(default_factory=dict)

    @property
    def reads(self) -> str:
        return FORGET

    def _numbers(self, name: str, inputs: Inputs) -> dict[str, np.ndarray]:
        found, rows = {}, inputs.permission.rows
        for number, make in self.numbers.items():
            values = np.asarray(make(rows), np.float32)
            if values.shape != (len(rows),) or not np.isfinite(values).all():
                shape = list(values.shape)
                message = f"made {shape} for {len(rows):,} forget rows; a finite number per row is needed"
                raise InputError(message, where_of(f"{name}.{number}"))
            found[number] = values
        return found


@dataclasses.dataclass(frozen=True)
class Retain(_Pairs):
    """Pairs to keep. ``others`` may add their ``generic_caption`` (pairs of ``retain_synth`` have one).

    ``split`` draws from one split alone, by its full name: ``salmu/retain_synth`` has portraits of nobody in forget.
    """

    purpose: ClassVar[int] = 3
    usual_name: ClassVar[str] = RETAIN

    split: str = ""

    @property
    def reads(self) -> str:
        return RETAIN

    @property
    def source(self) -> str:
        return self.split or RETAIN

    def describe(self) -> str:
        return super().describe().replace(f"pairs of {RETAIN}", f"pairs of {self.source}")


@dataclasses.dataclass(frozen=True)
class Texts(Stream):
    """Captions without their images: of ``retain`` or ``forget``, ``text`` or ``generic_caption``.

    ``split`` draws from one split of ``of`` alone, by its full name.
    """

    purpose: ClassVar[int] = 4

    of: str = RETAIN
    caption: str = "text"
    split: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, known in (("of", (RETAIN, FORGET)), ("caption", ("text", GENERIC))):
            if getattr(self, field) not in known:
                raise InputError(f"must be {' or '.join(map(repr, known))}, not {getattr(self, field)!r}", field)

    @property
    def reads(self) -> str:
        return self.of

    @property
    def source(self) -> str:
        return self.split or self.of

    def describe(self) -> str:
        return f"{'captions' if self.caption == 'text' else 'generic captions'} of {self.source}, without images"

    def open(self, name: str, size: int, inputs: Inputs) -> Open:
        generic = self.caption == GENERIC
        source = inputs.permission.split(self.source).with_texts(*([GENERIC] if generic else []))
        seed = self._seed(name, inputs)

        def draw(first_step: int, host: int, hosts: int) -> Iterator[Drawn]:
            for batch in _from_source(source, size, seed, inputs, first_step, host, hosts, images=False):
                yield Drawn(Pairs(None, batch["generic_tokens" if generic else "tokens"]), batch["index"])

        return draw


@dataclasses.dataclass(frozen=True)
class Surrogates(Stream):
    """Captions without images, from a pool that a function makes once from the forget rows.

    ``make`` is called with the same generator until there are ``count`` captions; more are dropped. So a function
    that makes one caption per forget row serves both here and in ``others``.
    """

    purpose: ClassVar[int] = 5

    make: MakeCaptions
    count: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.count) is not int or self.count < 1:
            raise InputError(f"must be a whole number of at least 1, not {self.count!r}", "count")

    @property
    def reads(self) -> str:
        return FORGET

    def describe(self) -> str:
        return f"{self.count:,} captions that {getattr(self.make, '__name__', 'a function')} makes, without images"

    def open(self, name: str, size: int, inputs: Inputs) -> Open:
        rng, texts = generator_of(name, inputs), list[str]()
        while len(texts) < self.count:
            more = make_captions(self.make, name, inputs, rng)
            if not more:
                raise InputError(f"made {len(texts):,} captions of {self.count:,}, and then none", where_of(name))
            texts += more
        pool, seed = inputs.stream_tokenizer(texts[: self.count]), self._seed(name, inputs)

        def draw(first_step: int, host: int, hosts: int) -> Iterator[Drawn]:
            rows = size // hosts
            for step in itertools.count(first_step):
                positions = (step * hosts + host) * rows + np.arange(rows)
                places = shuffled(positions, len(pool), seed)
                yield Drawn(Pairs(None, pool[places]), places)

        return draw


def _from_source(
    source: PairSource, size: int, seed: int, inputs: Inputs, first_step: int, host: int, hosts: int, *, images: bool
) -> Iterator[dict[str, Any]]:
    return training_batches(
        source,
        tokenizer=inputs.stream_tokenizer,
        image_size=inputs.image_size,
        batch_size=size,
        seed=seed,
        start_step=first_step,
        augment=AUGMENT if images and inputs.augment else None,
        cache=inputs.cache,
        num_workers=inputs.workers if images else 0,
        host_index=host,
        host_count=hosts,
        images=images,
    )
