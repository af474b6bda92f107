"""Says what the input of a planned run costs its hosts: images to decode, cores for that, bytes to read.

A TPU waits for data where its host decodes too slowly; more chips a host make it worse, and a faster chip too. The speed is
that of real runs, 40 to 55 % of the chips' peak, not the bound of the roofline, which no run reaches.
"""

from __future__ import annotations

import dataclasses
import io
import time
from typing import Any

import numpy as np
from PIL import Image

from salmu_jax.models.preprocess import random_resized_crop

MFU = (0.40, 0.55)  # of well-tuned runs of CLIP's size
# vCPUs of a TPU VM by its chip and how many of them it has, as Google lists its machine types. Two vCPUs are a core.
_VCPUS = {
    ("TPU v2", 4): 96,
    ("TPU v3", 4): 96,
    ("TPU v4", 4): 240,
    ("TPU v5e", 1): 24,
    ("TPU v5e", 4): 112,
    ("TPU v5e", 8): 224,
    ("TPU v5p", 4): 208,
    ("TPU v6e", 1): 44,
    ("TPU v6e", 4): 180,
    ("TPU v6e", 8): 180,
    ("TPU7x", 4): 224,
}
_STORED = (512, 384)  # pixels of the image that is decoded to measure the speed: img2dataset's longest side
_SHARE = 0.8  # of a host's vCPUs that can decode: the rest run the loop, transfers and checkpoints


@dataclasses.dataclass(frozen=True)
class InputCosts:
    """What a run asks of each of its hosts. Pairs of numbers are at the lower and the higher end of :data:`MFU`."""

    seconds_per_step: tuple[float, float]
    hosts: int
    images_per_second: tuple[float, float]  # a host
    images_per_vcpu: float  # a second
    vcpus_needed: tuple[float, float]
    vcpus: int | None  # that a host has; None: not in the table
    bytes_per_second: tuple[float, float]  # a host
    seconds_to_first_batch: float  # to decode a host's share of it with all that can decode; 0 if that is not known

    @property
    def enough(self) -> bool | None:
        """Whether a host can decode at the higher speed; None if its vCPUs are not known."""
        return None if self.vcpus is None else self.vcpus_needed[1] <= _SHARE * self.vcpus

    def to_json(self) -> dict[str, Any]:
        """Returns all figures, for a record."""
        return {**dataclasses.asdict(self), "mfu": MFU, "enough": self.enough}


def vcpus_of(chip: str, chips_per_host: int) -> int | None:
    """Returns the vCPUs of a TPU VM, or None if it is not in the table."""
    return _VCPUS.get((chip, chips_per_host))


def input_costs(
    *,
    batch: int,
    model_flops: float,
    peak_flops: float,
    roofline: float,
    hosts: int,
    vcpus: int | None,
    images_per_vcpu: float,
    bytes_per_pair: float,
) -> InputCosts:
    """Computes the costs of a run.

    Args:
      batch: pairs a step, over all hosts.
      model_flops: of a step, over all chips, nothing recomputed.
      peak_flops: of all chips together, FLOP/s.
      roofline: the least seconds of a step; no speed is assumed beyond it.
      hosts: how many share the batch.
      vcpus: of each of them, if known.
      images_per_vcpu: that one decodes in a second (:func:`measure_decoding`).
      bytes_per_pair: an image and its caption as they are stored.
    """
    slow, fast = (max(model_flops / (share * peak_flops), roofline) for share in MFU)
    slow_images, fast_images = batch / hosts / slow, batch / hosts / fast
    return InputCosts(
        seconds_per_step=(slow, fast),
        hosts=hosts,
        images_per_second=(slow_images, fast_images),
        images_per_vcpu=images_per_vcpu,
        vcpus_needed=(slow_images / images_per_vcpu, fast_images / images_per_vcpu),
        vcpus=vcpus,
        bytes_per_second=(slow_images * bytes_per_pair, fast_images * bytes_per_pair),
        seconds_to_first_batch=batch / hosts / (_SHARE * vcpus * images_per_vcpu) if vcpus else 0.0,
    )


def measure_decoding(image_size: int, seconds: float = 0.5) -> float:
    """Returns how many images of 512 pixels one thread decodes, crops and resizes in a second, here and now.

    The image is noise of several sizes, about as hard to decode as a photograph. The fastest of three thirds of ``seconds``
    counts: what else a machine does makes it slower, nothing makes it faster.
    """
    data, rng = _photograph(), np.random.default_rng(0)
    random_resized_crop(data, image_size, rng)  # not counted: the first loads the decoder
    best = 0.0
    for _ in range(3):
        count, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds / 3 or not count:
            random_resized_crop(data, image_size, rng)
            count += 1
        best = max(best, count / elapsed)
    return best


def _photograph() -> bytes:
    """Returns a JPEG of 49 kB: noise whose amplitude falls with its frequency, as that of photographs does."""
    rng, total = np.random.default_rng(0), np.zeros((_STORED[1], _STORED[0], 3))
    for step in (2, 4, 8, 16, 32, 64, 128):
        small = rng.normal(size=(_STORED[1] // step, _STORED[0] // step, 3))
        pixels = (small * 25 + 128).clip(0, 255).astype(np.uint8)
        enlarged = np.asarray(Image.fromarray(pixels).resize(_STORED, Image.Resampling.BICUBIC), np.float64)
        total += (enlarged - 128) * (step / 128) ** 0.5
    written = io.BytesIO()
    Image.fromarray((total * 0.9 + 128).clip(0, 255).astype(np.uint8)).save(written, "JPEG", quality=95)
    return written.getvalue()
