"""Opens the data of an evaluation once for all models: the rows of every split, their images, and the zero-shot task.

Records are read when they are needed, and only once: images are encoded first, and the columns of their records are kept in
passing (``pixels.py``).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from salmu_jax.evaluation.pixels import Counts, Decode, ImageStore, Say
from salmu_jax.evaluation.texts import Stream, TextBank, collect
from salmu_jax.runtime.errors import InputError

if TYPE_CHECKING:
    from salmu_jax.evaluation.metric import Metric, Settings

Value = TypeVar("Value")
SPLITS = ("forget", "holdout_association", "holdout_identity", "retain_synth")
ZEROSHOT = "zeroshot"
FIELDS = ("name", "city", "job", "blood_type", "phone_number", "emails", "iban", "credit_card", "passport")
PUBLISHED_ROWS = {"forget": 30_468, "holdout_association": 14_943, "holdout_identity": 14_642, "retain_synth": 16_741}
IMAGENET_SIZE = (1_000, 50_000)  # classes and images of ImageNet-1k's validation split
MEMORY_LIMIT = 1 << 29  # decoded bytes kept in memory at most, unless the caller decides


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """One split, in the released order. Text columns are numpy arrays of strings [N] ('' where there is none)."""

    images: ImageStore
    text: tuple[str, ...]
    generic_caption: tuple[str, ...]
    name: tuple[str, ...]
    value: tuple[str, ...]
    identity_id: np.ndarray
    data_field: np.ndarray
    subset: np.ndarray
    fragile: np.ndarray  # bool [N]

    def __len__(self) -> int:
        return len(self.text)


@dataclasses.dataclass(frozen=True, eq=False)
class ZeroShotTask:
    """A classification by class names (GenKnow): ``labels`` int32 [N] index ``classnames``; templates hold ``{c}``."""

    dataset: str
    images: ImageStore
    labels: np.ndarray
    classnames: tuple[str, ...]
    templates: tuple[str, ...]

    def prompts(self) -> list[str]:
        """Returns all prompts, class by class: [C * T]."""
        return [template.replace("{c}", name) for name in self.classnames for template in self.templates]


class EvaluationData:
    """All splits of a world at one image size, and what is computed from them once for all models.

    Args:
      images: the four of :data:`SPLITS`, and ``zeroshot`` where there is that task.
      image_size: side of the preprocessed images.
      task: ``{"dataset", "classnames", "templates"}`` of GenKnow, or None.
      made: whether the data are a world made by this project's generator (None: not known).
      counts: what the stores of ``images`` add to.

    Raises InputError for no forget rows, and for templates without ``{c}``.
    """

    def __init__(
        self,
        images: Mapping[str, ImageStore],
        image_size: int,
        task: Mapping[str, Any] | None = None,
        made: bool | None = None,
        counts: Counts | None = None,
    ):
        names = (*SPLITS, ZEROSHOT) if task else SPLITS
        self.images = {name: images[name] for name in names}
        self.image_size = image_size
        self.made = made
        self.counts = counts or Counts()
        self._task = task
        self._banks: dict[Hashable, TextBank] = {}
        self._tokens: dict[Hashable, np.ndarray] = {}
        self._kept: dict[Hashable, Any] = {}
        if not len(self.images["forget"]):
            raise InputError("has no rows; RetFail is measured on it, it needs at least one", "split forget")
        if task and (not task["templates"] or any("{c}" not in template for template in task["templates"])):
            raise InputError(
                "every line must hold {c}, the place of the class name, and there must be one", "templates"
            )
        if task and not len(self.images[ZEROSHOT]):
            raise InputError("has no images; remove the data set to skip GenKnow", "zeroshot")

    @classmethod
    def from_sources(
        cls,
        sources: Mapping[str, Sequence[Mapping[str, Any]]],
        image_size: int,
        *,
        zeroshot: Mapping[str, Any] | None = None,
        cache_decoded: bool | None = None,
        directories: Mapping[str, Path] | None = None,
        write_pixels: bool = True,
        decode: Decode | None = None,
        made: bool | None = None,
        say: Say = lambda line: None,
    ) -> EvaluationData:
        """Opens random-access sources of records with the features of the TFDS data sets ``salmu`` and ``zeroshot``.

        Args:
          sources: a source a split: ``len(source)``, ``source[i] -> dict``, optionally ``source.read([i, j, ...])``.
          zeroshot: ``{"source", "dataset", "classnames", "templates"}``, or None.
          cache_decoded: keep decoded images in memory; None: where all of them take at most :data:`MEMORY_LIMIT` bytes.
          directories: where decoded images and columns are kept on the disk, ``{"salmu": Path, "zeroshot": Path}``.
          write_pixels: whether they hold the images, or the columns alone.
          decode: by default :func:`salmu_jax.models.preprocess.preprocess_eval`.
          say: called with a line for each damaged cache file.

        Raises:
          InputError: as the class does; later, when it is read: an undecodable image, a label out of range.
        """
        if decode is None:
            from salmu_jax.models.preprocess import preprocess_eval as decode
        parts = {**{split: sources[split] for split in SPLITS}, **({ZEROSHOT: zeroshot["source"]} if zeroshot else {})}
        if cache_decoded is None:
            cache_decoded = sum(map(len, parts.values())) * image_size * image_size * 3 <= MEMORY_LIMIT
        counts = Counts()
        stores = {
            name: ImageStore(
                source,
                name,
                image_size,
                ("label",) if name == ZEROSHOT else _SALMU_COLUMNS,
                decode,
                keep=cache_decoded,
                directory=(directories or {}).get(ZEROSHOT if name == ZEROSHOT else "salmu"),
                write_pixels=write_pixels,
                counts=counts,
                say=say,
            )
            for name, source in parts.items()
        }
        return cls(stores, image_size, zeroshot or None, made, counts)

    @functools.cached_property
    def splits(self) -> dict[str, Rows]:
        """Returns the rows of the four splits. Reads what has not been read yet."""
        return {split: Rows(self.images[split], **_typed(self.images[split].columns())) for split in SPLITS}

    @functools.cached_property
    def zeroshot(self) -> ZeroShotTask | None:
        """Returns GenKnow's task, or None. Reads what has not been read yet; raises InputError for a label out of range."""
        if not self._task:
            return None
        task = ZeroShotTask(
            dataset=self._task["dataset"],
            images=self.images[ZEROSHOT],
            labels=np.asarray(self.images[ZEROSHOT].columns()["label"], np.int32),
            classnames=tuple(self._task["classnames"]),
            templates=tuple(self._task["templates"]),
        )
        _check_labels(task)
        return task

    def text_bank(self, metrics: Sequence[Metric], settings: Settings) -> TextBank:
        """Returns all texts that ``metrics`` ask for (kept for the next model)."""
        key = (tuple(metrics), settings)
        if key not in self._banks:
            self._banks[key] = collect(self, metrics, settings)
        return self._banks[key]

    def bank_of(
        self, texts: Callable[[EvaluationData, Settings], Mapping[str, Sequence[str]]], settings: Settings
    ) -> TextBank:
        """Returns the bank of the groups ``texts(self, settings)``, as one stream (kept for the next model)."""
        key = (texts, settings)
        if key not in self._banks:
            self._banks[key] = TextBank({"": texts(self, settings).values()})
        return self._banks[key]

    def tokens(self, tokenizer: Any, bank: TextBank, stream: Stream) -> np.ndarray:
        """Returns the token rows of a stream of ``bank``, int32 [U, L] (kept for the next model with an equal tokenizer)."""
        key = (bank, stream, tokenizer)
        if key not in self._tokens:
            self._tokens[key] = np.asarray(tokenizer(list(bank.texts[stream.start : stream.stop])), np.int32)
        return self._tokens[key]

    def once(self, name: Hashable, compute: Callable[[], Value]) -> Value:
        """Returns ``compute()``, called once for all models: what follows from these data and ``name`` alone."""
        if name not in self._kept:
            self._kept[name] = compute()
        return self._kept[name]

    def core_texts(self) -> tuple[list[str], list[str]]:
        """Returns CoreAssoc's two bare texts of each forget row: ``{name} {value}`` and ``{value} {name}``."""
        pairs = list(zip(self.splits["forget"].name, self.splits["forget"].value, strict=True))
        return [f"{name} {value}" for name, value in pairs], [f"{value} {name}" for name, value in pairs]

    def identity_prompts(self, prompt: str) -> tuple[np.ndarray, list[str], np.ndarray]:
        """Returns for IdZSC (rows of forget_identity int64 [M], a prompt per identity [K], label of each row int32 [M]).

        Identities are in the order of their ids.
        """
        forget = self.splits["forget"]
        rows = np.flatnonzero(forget.subset == "forget_identity")
        identities, first, labels = np.unique(forget.identity_id[rows], return_index=True, return_inverse=True)
        names = [forget.name[rows[index]] for index in first[: len(identities)]]
        return rows, [prompt.replace("{name}", name) for name in names], labels.astype(np.int32)


_SALMU_COLUMNS = (
    "text",
    "generic_caption",
    "name",
    "value",
    "identity_id",
    "data_field",
    "subset",
    "fragile",
)


def _typed(columns: Mapping[str, list]) -> dict[str, Any]:
    """Returns long texts as tuples, categories as numpy arrays, and the flag as bool."""
    texts = {name: tuple(columns[name]) for name in ("text", "generic_caption", "name", "value")}
    categories = {name: np.array(columns[name], dtype=np.str_) for name in ("identity_id", "data_field", "subset")}
    return {**texts, **categories, "fragile": np.array(columns["fragile"], dtype=bool)}


def _check_labels(task: ZeroShotTask) -> None:
    wrong = np.flatnonzero((task.labels < 0) | (task.labels >= len(task.classnames)))
    if len(wrong):
        raise InputError(
            f"the label is {task.labels[wrong[0]]}; there are {len(task.classnames)} class names, so 0 to"
            f" {len(task.classnames) - 1}",
            f"zeroshot row {wrong[0]}",
        )
