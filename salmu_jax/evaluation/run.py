"""Evaluates the models of one work directory: the data is opened once, and caches outlive the process.

    WORKDIR/cache/pixels/DIGEST-224-VERSION/       decoded images and columns of a data set (pixels.py)
    WORKDIR/cache/embeddings/CHECKPOINT-DATA-.../  of one model (embedding_cache.py)

Everything in ``cache/`` may be deleted at any time, and is then made again. Its size is bounded: pixels of other data or
another image size are removed when a run does not use them, and the latest 4 GiB of embeddings are kept, for runs that were
killed or that repeat an evaluation with other draws.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import PIL

import salmu_jax
from salmu_jax.evaluation import cache_files, pixels
from salmu_jax.evaluation.data import ZEROSHOT, EvaluationData
from salmu_jax.evaluation.embedding_cache import KEEP_BYTES, directory_of
from salmu_jax.evaluation.embeddings import Embeddings, embed
from salmu_jax.evaluation.encode import default_rows
from salmu_jax.evaluation.loading import load_evaluation_data
from salmu_jax.evaluation.metric import settings_of
from salmu_jax.evaluation.registry import chosen
from salmu_jax.evaluation.variant_scores import measure_variants
from salmu_jax.evaluation.variants import Evaluated, Other, VariantScores, asked
from salmu_jax.runtime import contents, distributed, files, host
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.text import safe_text

Say = Callable[[str], None]


class Measured(NamedTuple):
    """What a model's scores are computed from, in process 0; others get None and nothing."""

    embeddings: Embeddings | None
    variants: VariantScores


class Evaluator:
    """Embeds models on the data sets of a work directory. All processes of a run have one, and call it alike.

    Args:
      datasets: the built data sets.
      cache: the directory of the caches.
      options: the config's section ``evaluate``.
      made: whether the data are a made world.
      keep_decoded: keep all decoded images in memory; None: where they are few.
      say: prints a line.
    """

    def __init__(
        self,
        datasets: Path,
        cache: Path,
        options: Any,
        *,
        made: bool,
        keep_decoded: bool | None,
        say: Say = lambda line: None,
    ):
        self.digests = data_digests(datasets)
        self._datasets, self._cache, self._options, self._made = datasets, cache, options, made
        self._keep, self._say = keep_decoded, say
        self._data: dict[int, EvaluationData] = {}

    def data(self, image_size: int) -> EvaluationData:
        """Returns the data at an image size."""
        if image_size not in self._data:
            write = distributed.from_main(lambda: self._decide(image_size))
            self._data[image_size] = load_evaluation_data(
                self._datasets,
                image_size,
                cache_decoded=self._keep,
                directories=self._pixel_directories(image_size),
                write_pixels=write,
                made=self._made,
                say=self._say,
            )
        return self._data[image_size]

    def measure(
        self,
        label: str,
        clip: Any,
        params: Any,
        tokenizer: Any,
        checkpoint: str,
        *,
        compromised: Other | None = None,
        rerun: bool = False,
    ) -> Measured:
        """Returns what a model's scores are computed from.

        ``checkpoint`` is the digest of its parameters. ``compromised`` is what variants may be moved towards. ``rerun``
        computes everything even if it is in the cache.
        """
        size = clip.config.image_size
        key = {
            "checkpoint": checkpoint,
            "data": self.digests,
            "dtype": clip.config.compute_dtype,
            "architecture": clip.config.to_dict(),
            "tokenizer": tokenizer.digest,
            "pixels": pixel_version(),
            "code": code_digest(),
            "environment": host.numeric_environment(),
            "platform": f"{jax.default_backend()} jax {jax.__version__}",  # kernels differ by more than the last bits
        }
        directory = directory_of(self._cache / "embeddings", key)
        with contextlib.ExitStack() as held:

            def claim() -> None:
                if rerun:
                    cache_files.remove(directory)
                held.enter_context(cache_files.claim(directory, {"of": key}))
                for name, pixel_directory in self._pixel_directories(size).items():
                    about = {"data": self.digests[name], "image_size": size, "version": pixel_version()}
                    held.enter_context(cache_files.claim(pixel_directory, about))

            distributed.from_main(claim)
            data = self.data(size)
            before = data.counts.decoded
            metrics, settings = chosen(self._options), settings_of(self._options)
            where: dict[str, Any] = {
                "batch_size": self._options.batch_size or default_rows(clip),
                "directory": directory,
                "label": label,
                "say": lambda line: self._say(f"{label}: {line}"),
            }
            embeddings = embed(clip, params, tokenizer, data, metrics=metrics, settings=settings, **where)
            total = sum(map(len, data.images.values()))
            self._say(f"{label}: {data.counts.decoded - before:,} of {total:,} images decoded for it")
            model = Evaluated(clip, params, tokenizer, data, settings, compromised)
            variants = measure_variants(model, asked(metrics, settings), **where)
            distributed.from_main(self._prune)
        return Measured(embeddings, variants)

    def _decide(self, image_size: int) -> bool:
        """Returns whether decoded pixels are kept on the disk."""
        directories = self._pixel_directories(image_size)
        stores = load_evaluation_data(self._datasets, image_size, directories=directories).images.values()
        missing = sum(store.missing_pixels() for store in stores)
        return pixels.decide(
            self._options.cache_pixels,
            missing,
            image_size,
            self._cache / "pixels",
            lambda line: self._say(f"evaluate: {line}"),
        )

    def _pixel_directories(self, image_size: int) -> dict[str, Path]:
        return {
            name: self._cache / "pixels" / f"{digest[:16]}-{image_size}-{pixel_version()[:8]}"
            for name, digest in self.digests.items()
            if digest
        }

    def _prune(self) -> None:
        """Removes caches that are no longer useful; those that this run or another one holds stay."""
        for directory in [
            *cache_files.prune(self._cache / "embeddings", KEEP_BYTES),
            *cache_files.prune(self._cache / "pixels", 0),
        ]:
            self._say(f"evaluate: {directory} removed, it was no longer used")


def data_digests(datasets: Path) -> dict[str, str | None]:
    """Returns the content digests of the built data sets that an evaluation reads; None for one that is absent."""
    found = contents.read_contents(datasets)
    if found is None:
        raise InputError("has no contents.json, which says what it holds; run 'salmu build' again", datasets)
    digests = contents.data_digests(found)
    return {name: digests.get(name) for name in ("salmu", ZEROSHOT)}


@functools.cache
def pixel_version() -> str:
    """Returns a digest of what decides the pixels of an encoded image: our code, and the version of the decoder."""
    source = Path(salmu_jax.__file__).parent / "models" / "preprocess.py"
    return files.sha256_json([files.sha256_file(source), PIL.__version__, cache_files.SCHEMA])


@functools.cache
def code_digest() -> str:
    """Returns a digest of the code that makes embeddings of pixels and texts."""
    package = Path(salmu_jax.__file__).parent
    sources = [*sorted((package / "models").glob("*.py")), *sorted((package / "models" / "data").glob("*.gz"))]
    sources += [package / "evaluation" / name for name in ("encode.py", "embeddings.py")]
    return files.sha256_json([[path.name, files.sha256_file(path)] for path in sources])


def check_new_name(name: str, taken: Mapping[str, str]) -> None:
    """Raises InputError for a name that cannot be that of a foreign checkpoint's result.

    ``taken`` says of each reserved name what it is.
    """
    if not re.fullmatch(r"\w[\w.-]{0,63}", name, re.ASCII):
        allowed = "64 letters, digits, '_', '-' and '.' at most can"
        raise InputError(f"{safe_text(name, 80)!r} cannot name a result file; {allowed}", "--model")
    if name.lower() in {other.lower() for other in taken}:
        what = next(what for other, what in taken.items() if other.lower() == name.lower())
        raise InputError(
            f"{name!r} is the name of {what} of this work directory, whose result it would replace; take another for a"
            " checkpoint from elsewhere",
            "--model",
        )
