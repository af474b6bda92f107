"""One loader's process: reads an epoch for each line it is sent, and sleeps in between.

    python -m benchmarks.loader_sides ours '{"directory": "DIR", "pairs": 8000, ...}'

``ours`` is ``data_pipelines.input``; ``open_clip`` is ``get_data`` of open_clip_train, with its transform and its tokenizer.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.side import versions
from salmu_jax.models.preprocess import IMAGE_MEAN, IMAGE_STD


@dataclasses.dataclass(frozen=True)
class LoaderSpec:
    """``pairs`` in ``tars`` below ``directory``, read by ``workers`` processes on ``cores``, ``batch`` at a time."""

    directory: str
    pairs: int
    tars: int
    batch: int
    workers: int
    cores: int
    image_size: int = 224

    @property
    def batches(self) -> int:
        """The batches of an epoch."""
        return self.pairs // self.batch

    @property
    def skip(self) -> int:
        """The batches at the beginning of an epoch that are not timed: workers may have made some of them before."""
        return max(self.batches // 8, 1)


Epoch = Callable[[int], Iterator[tuple[np.ndarray, np.ndarray]]]


def ours(spec: LoaderSpec) -> Epoch:
    """Batches as :func:`~data_pipelines.input.training_batches` makes them for a run; images uint8."""
    from data_pipelines.input import AUGMENT, PairSource, training_batches
    from salmu_jax.models.tokenizer import ClipTokenizer

    source = PairSource.open(Path(spec.directory) / "datasets", ["retain_pairs/train"])
    batches = training_batches(
        source,
        tokenizer=ClipTokenizer(),
        image_size=spec.image_size,
        batch_size=spec.batch,
        seed=0,
        augment=AUGMENT,
        num_workers=spec.workers,
    )

    def epoch(index: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for _ in range(spec.batches):
            batch = next(batches)
            yield batch["images"], batch["tokens"]

    return epoch


def open_clip(spec: LoaderSpec) -> Epoch:
    """Batches as OpenCLIP's training reads them from web-dataset tars; images float32, normalised."""
    from salmu_jax.interop.parity import _let_torchvision_import

    _let_torchvision_import()
    import open_clip as library
    from open_clip.transform import image_transform
    from open_clip_train.data import get_data

    arguments = argparse.Namespace(
        train_data=f"{spec.directory}/tars/{{{0:05d}..{spec.tars - 1:05d}}}.tar",
        train_num_samples=spec.pairs,
        train_data_upsampling_factors=None,
        dataset_type="webdataset",
        dataset_resampled=False,
        val_data=None,
        imagenet_val=None,
        imagenet_v2=None,
        seed=0,
        workers=spec.workers,
        batch_size=spec.batch,
        world_size=1,
        distributed=False,
    )
    transforms = tuple(image_transform(spec.image_size, is_train=train) for train in (True, False))
    data = get_data(arguments, transforms, tokenizer=library.get_tokenizer("ViT-B-16"))["train"]

    def epoch(index: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        data.set_epoch(index)
        for images, tokens in data.dataloader:
            yield images.numpy(), tokens.numpy()

    return epoch


SIDES: dict[str, Callable[[LoaderSpec], Epoch]] = {"ours": ours, "open_clip": open_clip}


def value_of(images: np.ndarray) -> float:
    """The mean of normalised pixels."""
    if images.dtype != np.uint8:
        return float(images.mean())
    return float(((images.mean((0, 1, 2)) / 255 - IMAGE_MEAN) / IMAGE_STD).mean())


def run(epoch: Epoch, spec: LoaderSpec, index: int) -> dict[str, Any]:
    """Reads an epoch."""
    begin, cpu, seen, tokens_sum, pixels = 0.0, 0.0, 0, 0, []
    for number, (images, tokens) in enumerate(epoch(index)):
        if number < spec.skip:
            pixels.append(value_of(images))
        if number == spec.skip - 1:
            begin, cpu = time.perf_counter(), cpu_seconds()
        seen += len(images)
        tokens_sum += int(tokens.sum())
    return {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": cpu_seconds() - cpu,
        "value": [seen, tokens_sum],
        "pixels": float(np.mean(pixels)),
    }


def cpu_seconds() -> float:
    """The CPU time of this process and of its workers."""
    process = psutil.Process()
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def main() -> None:
    """Answers on standard output, a JSON object a line; all else that is printed goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    side, spec = sys.argv[1], LoaderSpec(**json.loads(sys.argv[2]))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: spec.cores])
    epoch = SIDES[side](spec)
    libraries = ("pillow", "simplejpeg", "cykooz-resizer", "grain", "torch", "open_clip_torch", "webdataset", "numpy")
    print(json.dumps({"versions": versions(*libraries)}), file=answers)
    for line in sys.stdin:
        print(json.dumps(run(epoch, spec, int(line))), file=answers)


if __name__ == "__main__":
    main()
