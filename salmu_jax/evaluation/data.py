"""What is evaluated: the rows of every split, their images, and the zero-shot task. Loaded once, used for every model.

Images are decoded once for all models where they fit in memory (32 px always do), and else again for each model, batch
by batch: the released 512 px data at 224 px would take 11.6 GB decoded.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from salmu_jax.errors import InputError

SPLITS = ("forget", "holdout_association", "holdout_identity", "retain_synth")
FIELDS = ("name", "city", "job", "blood_type", "phone_number", "emails", "iban", "credit_card", "passport")
PUBLISHED_ROWS = {"forget": 30_468, "holdout_association": 14_943, "holdout_identity": 14_642, "retain_synth": 16_741}
IMAGENET = "imagenet1k"
CACHE_LIMIT = 2 << 30  # decoded bytes that are kept in memory unless the caller decides

Decode = Callable[..., np.ndarray]  # decode(data: bytes, image_size: int, where=...) -> uint8 [S, S, 3]
_READ = 256  # records read at a time


class Images(Protocol):
    """Preprocessed images by row range."""

    def __len__(self) -> int: ...

    def batch(self, start: int, stop: int) -> np.ndarray:
        """Rows ``start`` to ``stop``, uint8 [stop - start, S, S, 3]."""
        ...


@dataclasses.dataclass(frozen=True)
class DecodedImages:
    """Images in memory: ``pixels`` uint8 [N, S, S, 3]."""

    pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, start: int, stop: int) -> np.ndarray:
        return self.pixels[start:stop]


@dataclasses.dataclass(frozen=True)
class StreamedImages:
    """Images decoded whenever they are asked for, by a few threads (the decoder releases Python's lock)."""

    source: Sequence[Mapping[str, Any]]
    image_size: int
    decode: Decode
    where: str

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, start: int, stop: int) -> np.ndarray:
        return _decode_all(_read(self.source, start, stop), start, self.image_size, self.decode, self.where)


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """One split, in the released order. Text columns are numpy arrays of strings [N] ('' where there is none)."""

    images: Images
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
    images: Images
    labels: np.ndarray
    classnames: tuple[str, ...]
    templates: tuple[str, ...]

    @property
    def is_imagenet(self) -> bool:
        """Whether the released key ImageNet1k_Accuracy says what it means: by the name, or by ImageNet-1k's size."""
        return self.dataset == IMAGENET or (len(self.classnames), len(self.labels)) == (1_000, 50_000)

    def prompts(self) -> list[str]:
        """All prompts, class by class: [C * T]."""
        return [template.replace("{c}", name) for name in self.classnames for template in self.templates]


class TextBank:
    """Every distinct text of an evaluation, once, so that identical texts have identical embeddings."""

    def __init__(self, *groups: Sequence[str]):
        self._index: dict[str, int] = {}
        for group in groups:
            for text in group:
                self._index.setdefault(text, len(self._index))
        self.texts = tuple(self._index)

    def index(self, texts: Sequence[str]) -> np.ndarray:
        """The row of each text, int32 [N]; equal texts have equal rows."""
        return np.fromiter((self._index[text] for text in texts), np.int32, len(texts))


class EvaluationData:
    """All splits of a world at one image size, and what is computed from them once for all models.

    Args:
      splits: the four of :data:`SPLITS`.
      image_size: side of the preprocessed images.
      zeroshot: the task of GenKnow, or None.
      made: whether the data are a world made by this project's generator (None: not known).
    """

    def __init__(
        self,
        splits: Mapping[str, Rows],
        image_size: int,
        zeroshot: ZeroShotTask | None = None,
        made: bool | None = None,
    ):
        self.splits = {name: splits[name] for name in SPLITS}
        self.image_size = image_size
        self.zeroshot = zeroshot
        self.made = made
        self._banks: dict[str, TextBank] = {}
        self._tokens: dict[tuple[str, Hashable], np.ndarray] = {}
        if not len(self.splits["forget"]):
            raise InputError("has no rows; RetFail is measured on it, it needs at least one", "split forget")

    @classmethod
    def from_sources(
        cls,
        sources: Mapping[str, Sequence[Mapping[str, Any]]],
        image_size: int,
        *,
        zeroshot: Mapping[str, Any] | None = None,
        cache_decoded: bool | None = None,
        decode: Decode | None = None,
        made: bool | None = None,
    ) -> EvaluationData:
        """From random-access sources of records with the features of the TFDS data sets ``salmu`` and ``zeroshot``.

        Args:
          sources: a source a split: ``len(source)``, ``source[i] -> dict``, optionally ``source.read([i, j, ...])``.
          zeroshot: ``{"source", "dataset", "classnames", "templates"}``, or None.
          cache_decoded: keep decoded images in memory; None: where all of them take at most :data:`CACHE_LIMIT` bytes.
          decode: by default :func:`salmu_jax.models.preprocess.preprocess_eval`.

        Raises:
          InputError: an undecodable image, a label out of range, no forget rows.
        """
        if decode is None:
            from salmu_jax.models.preprocess import preprocess_eval as decode
        count = sum(len(source) for source in sources.values()) + (len(zeroshot["source"]) if zeroshot else 0)
        if cache_decoded is None:
            cache_decoded = count * image_size * image_size * 3 <= CACHE_LIMIT
        load = functools.partial(_load, image_size=image_size, decode=decode, cache_decoded=cache_decoded)
        splits = {}
        for split in SPLITS:
            images, columns = load(sources[split], split, _SALMU_COLUMNS)
            splits[split] = Rows(images, **_typed(columns))
        task = None
        if zeroshot:
            images, columns = load(zeroshot["source"], "zeroshot", ("label",))
            task = ZeroShotTask(
                dataset=zeroshot["dataset"],
                images=images,
                labels=np.asarray(columns["label"], np.int32),
                classnames=tuple(zeroshot["classnames"]),
                templates=tuple(zeroshot["templates"]),
            )
            _check_task(task)
        return cls(splits, image_size, task, made)

    def text_bank(self, idzsc_prompt: str) -> TextBank:
        """All texts that the metrics need, with the names in ``idzsc_prompt`` (kept for the next model)."""
        if idzsc_prompt not in self._banks:
            forget = self.splits["forget"]
            self._banks[idzsc_prompt] = TextBank(
                *(rows.text for rows in self.splits.values()),
                [text for text in forget.generic_caption if text],
                *self.core_texts(),
                self.identity_prompts(idzsc_prompt)[1],
                self.zeroshot.prompts() if self.zeroshot else (),
            )
        return self._banks[idzsc_prompt]

    def tokens(self, tokenizer: Any, idzsc_prompt: str) -> np.ndarray:
        """The bank's token rows, int32 [U, L] (kept for the next model with an equal tokenizer)."""
        key = (idzsc_prompt, tokenizer)
        if key not in self._tokens:
            self._tokens[key] = np.asarray(tokenizer(list(self.text_bank(idzsc_prompt).texts)), np.int32)
        return self._tokens[key]

    def core_texts(self) -> tuple[list[str], list[str]]:
        """CoreAssoc's two bare texts a forget row: ``{name} {value}`` and ``{value} {name}``."""
        pairs = list(zip(self.splits["forget"].name, self.splits["forget"].value, strict=True))
        return [f"{name} {value}" for name, value in pairs], [f"{value} {name}" for name, value in pairs]

    def identity_prompts(self, prompt: str) -> tuple[np.ndarray, list[str], np.ndarray]:
        """IdZSC: (rows of forget_identity int64 [M], a prompt an identity [K], label of each row int32 [M]).

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
    """Long texts as tuples, categories as numpy arrays, the flag as bool."""
    texts = {name: tuple(columns[name]) for name in ("text", "generic_caption", "name", "value")}
    categories = {name: np.array(columns[name], dtype=np.str_) for name in ("identity_id", "data_field", "subset")}
    return {**texts, **categories, "fragile": np.array(columns["fragile"], dtype=bool)}


def _load(
    source: Sequence[Mapping[str, Any]],
    where: str,
    columns: Sequence[str],
    *,
    image_size: int,
    decode: Decode,
    cache_decoded: bool,
) -> tuple[Images, dict[str, list]]:
    """One pass over a source: its images (decoded now or later) and its other columns."""
    values: dict[str, list] = {name: [] for name in columns}
    pixels = np.empty((len(source), image_size, image_size, 3), np.uint8) if cache_decoded else None
    for start, records in _chunks(source):
        for record in records:
            for name in columns:
                value = record[name]
                values[name].append(value.decode() if isinstance(value, bytes) else value)
        if pixels is not None:  # decoded from the records at hand: nothing is read twice
            pixels[start : start + len(records)] = _decode_all(records, start, image_size, decode, where)
    if pixels is not None:
        return DecodedImages(pixels), values
    return StreamedImages(source, image_size, decode, where), values


def _chunks(source: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, list[Mapping[str, Any]]]]:
    for start in range(0, len(source), _READ):
        yield start, _read(source, start, min(start + _READ, len(source)))


def _read(source: Sequence[Mapping[str, Any]], start: int, stop: int) -> list[Mapping[str, Any]]:
    if hasattr(source, "read"):  # one call for many records, where the storage has it
        return source.read(range(start, stop))
    return [source[index] for index in range(start, stop)]


def _decode_all(records: Sequence[Mapping[str, Any]], start: int, size: int, decode: Decode, where: str) -> np.ndarray:
    def one(item: tuple[int, Mapping[str, Any]]) -> np.ndarray:
        index, record = item
        name = record.get("file_name", record.get("key", ""))
        name = name.decode() if isinstance(name, bytes) else name
        return decode(record["image"], size, where=f"{where} row {index} ({name})")

    if not records:
        return np.empty((0, size, size, 3), np.uint8)
    return np.stack(list(_threads().map(one, enumerate(records, start))))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="decode")


def _check_task(task: ZeroShotTask) -> None:
    if not task.templates or any("{c}" not in template for template in task.templates):
        raise InputError("every line must hold {c}, the place of the class name, and there must be one", "templates")
    if not len(task.labels):
        raise InputError("has no images; remove the data set to skip GenKnow", "zeroshot")
    wrong = np.flatnonzero((task.labels < 0) | (task.labels >= len(task.classnames)))
    if len(wrong):
        raise InputError(
            f"the label is {task.labels[wrong[0]]}; there are {len(task.classnames)} class names, so 0 to"
            f" {len(task.classnames) - 1}",
            f"zeroshot row {wrong[0]}",
        )
