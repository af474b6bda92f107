"""What both sides compute with: the same weights, batches, captions and pictures, drawn from fixed seeds by NumPy alone."""

from __future__ import annotations

import atexit
import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from salmu_jax.models.clip import Clip, ClipConfig, Params

LEARNING_RATE, WARMUP_STEPS, TOTAL_STEPS = 1e-4, 10, 1_000
B1, B2, EPS, WEIGHT_DECAY = 0.9, 0.98, 1e-6, 0.2
SAMPLED = tuple(f"forget.counterfactuals.{part}" for part in ("said", "general", "stranger"))  # of Redirection
# Redirection's rows a step, over those of ``captions``: 96 forget pairs, 32 captions of retain, and so on.
REDIRECT_ROWS = {"forget": 3, "captions": 1, "portraits": 1, "invented": 4, "absent": 4}


def parameters(config: ClipConfig, seed: int = 0) -> Params:
    """float32 weights of the usual sizes; the same in every process, whatever it computes with."""
    shapes = jax.eval_shape(Clip(config).init, jax.random.key(0))
    rng = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key == "logit_scale":
            return np.asarray(np.log(1 / 0.07), np.float32)
        noise = rng.standard_normal(shape.shape, np.float32)
        if path[-1].key == "scale":
            return 1 + 0.02 * noise
        inputs = np.prod(shape.shape[:-1]) if len(shape.shape) != 2 or shape.shape[0] < 10_000 else shape.shape[1]
        return 0.02 * noise if len(shape.shape) < 2 else noise * np.float32(inputs**-0.5)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def moved(config: ClipConfig) -> Params:
    """Weights a little off :func:`parameters`, as in the midst of unlearning: at its start, many gradients are 0."""
    return jax.tree.map(lambda one, other: 0.95 * one + 0.05 * other, parameters(config), parameters(config, 4))


def pairs(config: ClipConfig, rows: int, long: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images [rows, H, W, 3] and int32 token rows [rows, T] of captions of 8 to 30 ids, or ``long``, as many as fit."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (rows, config.image_size, config.image_size, 3), dtype=np.uint8)
    tokens = np.zeros((rows, config.context_length), np.int32)
    for row in tokens:
        most = config.context_length - 2
        length = most if long else int(rng.integers(8, min(30, most) + 1))
        row[0], row[length + 1] = config.vocab_size - 2, config.vocab_size - 1
        row[1 : length + 1] = rng.integers(1, config.vocab_size - 2, length)
    return images, tokens


def unlearning_rows(config: ClipConfig, method: str, rows: int) -> dict[str, tuple[Any, Any]]:
    """What a step of ``method`` gets: images (None for captions alone) and captions, ``rows`` of each stream.

    Of Redirection, they are ``rows`` times :data:`REDIRECT_ROWS`. Further captions of a stream's rows are ``STREAM.NAME``.
    Captions are int32 [N, T] for N rows, sampled ones [N, 2, T].
    """
    pairs_of, captions_of = {
        "cliperase": (("forget", "retain"), ()),
        "pinned_surrogates": (("forget",), ("forget.alias", "retain", "invented", "absent")),
        "redirect": (("forget",), (*SAMPLED, "captions", "portraits", "invented", "absent")),
    }[method]
    names = (*pairs_of, *captions_of)
    each = [rows * (REDIRECT_ROWS[name.split(".")[0]] if method == "redirect" else 1) for name in names]
    counts = [count * (2 if name in SAMPLED else 1) for name, count in zip(names, each, strict=True)]
    images, tokens = pairs(config, sum(counts))
    found = {}
    for name, stop, count in zip(names, np.cumsum(counts), counts, strict=True):
        own = slice(stop - count, stop)
        shape = (-1, 2, tokens.shape[1]) if name in SAMPLED else (-1, tokens.shape[1])
        found[name] = (images[own] if name in pairs_of else None, tokens[own].reshape(shape))
    return found


def prepared(config: ClipConfig, method: str) -> np.ndarray | None:
    """A stand-in for what ``method`` prepares, float32: a level [D], a covariance [D, D], or nothing."""
    if method == "pinned_surrogates":
        return embeddings(1, config.embed_dim)[0][0] / 2
    if method == "redirect":
        rows = embeddings(12, config.embed_dim)[0]
        return rows.T @ rows / np.float32(np.linalg.norm(rows, 2) ** 2)  # its largest eigenvalue is 1
    return None


def likely(config: ClipConfig) -> np.ndarray:
    """The one caption that Redirection finds likely, int32 [1, T]: whatever row a step draws, both sides draw the same."""
    return pairs(config, 1)[1]


def numbers(method: str, rows: int) -> dict[str, np.ndarray]:
    """What ``method`` is told of each of as many forget rows as :func:`unlearning_rows` has, float32, by name."""
    if method != "redirect":
        return {}
    return {"whole": (np.arange(rows * REDIRECT_ROWS["forget"]) % 2 == 0).astype(np.float32)}


def embeddings(rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Two float32 arrays [rows, width] of unit rows, those of the same index being alike."""
    rng = np.random.default_rng(2)
    image = rng.standard_normal((rows, width), np.float32)
    text = image + rng.standard_normal((rows, width), np.float32)
    return tuple(part / np.linalg.norm(part, axis=-1, keepdims=True) for part in (image, text))


def captions(rows: int, seed: int) -> list[str]:
    """Captions of 5 to 25 words as the web has them: most words are common, one in thirty is a name seen nowhere else.

    The words are those of CLIP's vocabulary, the r-th with a frequency of 1 / r; some captions have punctuation, digits,
    capitals, and one in forty an accent or an HTML entity.
    """
    from salmu_jax.models.tokenizer import ClipTokenizer  # needs ftfy, which the other tasks do without

    rng = np.random.default_rng(seed)
    symbols, _ = ClipTokenizer().vocabulary()
    words = [symbol[:-4] for symbol in symbols[512:] if symbol.endswith("</w>") and symbol[:-4].isalpha()]
    frequency = 1 / np.arange(1, len(words) + 1)
    lengths = rng.integers(5, 26, rows)
    drawn = iter(rng.choice(len(words), int(lengths.sum()), p=frequency / frequency.sum()))

    def word() -> str:
        index = next(drawn)
        if rng.random() < 1 / 30:
            return "".join(rng.choice(list("aeioulnrstkm"), int(rng.integers(5, 11)))).capitalize()
        return words[index]

    def caption(length: int) -> str:
        text = " ".join(word() for _ in range(length)).capitalize()
        kind = rng.random()
        if kind < 0.3:
            text += "."
        elif kind < 0.4:
            text += f", {rng.integers(1900, 2030)}"
        elif kind < 0.425:
            text = text.replace("e", "é", 1) + " &amp; more"
        return text

    return [caption(int(length)) for length in lengths]


class Captions:
    """The captions of each round: new ones, or, ``repeated``, the same again."""

    ROUNDS = 32

    def __init__(self, rows: int, repeated: bool):
        self._sets = [captions(rows, seed) for seed in range(1 if repeated else self.ROUNDS)]

    def __getitem__(self, index: int) -> list[str]:
        return self._sets[0] if len(self._sets) == 1 else self._sets[index]


def jpegs(count: int) -> list[bytes]:
    """Photograph-like JPEGs (smooth, with some grain) of 640 x 480 and other usual sizes, quality 90."""
    rng = np.random.default_rng(3)
    sizes = [(640, 480), (500, 375), (480, 640), (800, 600)]
    files = []
    for index in range(count):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(sizes[index % len(sizes)], Image.Resampling.BICUBIC)
        grain = rng.normal(0, 6, (picture.height, picture.width, 3))
        pixels = np.clip(np.asarray(picture, np.float32) + grain, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def directory() -> Path:
    """A directory of this process, removed at its end."""
    made = Path(tempfile.mkdtemp(prefix="salmu-benchmark-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def write_jpegs(directory: Path, count: int) -> list[Path]:
    """:func:`jpegs` as files."""
    directory.mkdir()
    paths = [directory / f"{index:05d}.jpg" for index in range(count)]
    for path, data in zip(paths, jpegs(min(count, 64)) * -(-count // 64), strict=False):
        path.write_bytes(data)
    return paths


class ImageFiles:
    """Image files as a source of records."""

    def __init__(self, paths: list[Path]):
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self._paths[index].read_bytes(), "key": self._paths[index].name}


def probe(array: np.ndarray) -> list[float]:
    """A few numbers that tell two results apart: the rows of ``array`` [N, ...] weighed by a fixed wave, the first eight."""
    flat = np.asarray(array, np.float64).reshape(len(array), -1)[:8]
    return [float(value) for value in flat @ np.cos(np.arange(flat.shape[1]))]
