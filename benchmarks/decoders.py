"""Decoders of JPEGs, and ways of resizing: ``python -m benchmarks.decoders``; those that are installed, one core.

CPU time of each over 200 JPEGs of 512 pixels, and how far its pixels are from PIL's. Candidates beyond the requirements:
``pip install imagecodecs opencv-python-headless``. (PyTurboJPEG also needs a libturbojpeg, which its wheel does not have.)
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import io
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.loader_data import photograph
from salmu_jax.models import fast_jpeg
from salmu_jax.models.preprocess import random_crop_box

BICUBIC = Image.Resampling.BICUBIC
Decode = Callable[[bytes], Any]


def decoders(size: int) -> dict[str, Decode]:
    """Decoders by name; each returns something that numpy makes pixels of."""
    found: dict[str, Decode] = {"PIL": _pil, "PIL, draft": lambda data: _pil(data, size)}
    modules = {}
    for name in ("simplejpeg", "imagecodecs", "cv2", "turbojpeg"):
        with contextlib.suppress(ImportError):
            modules[name] = importlib.import_module(name)
    if simplejpeg := modules.get("simplejpeg"):
        found["simplejpeg"] = simplejpeg.decode_jpeg
        found["simplejpeg, scaled"] = lambda data: simplejpeg.decode_jpeg(data, min_height=size, min_width=size)
    if imagecodecs := modules.get("imagecodecs"):
        found["imagecodecs"] = imagecodecs.jpeg8_decode
    if cv2 := modules.get("cv2"):
        cv2.setNumThreads(1)
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        found["opencv"] = lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if turbojpeg := modules.get("turbojpeg"):
        with contextlib.suppress(RuntimeError):  # libturbojpeg is not installed
            jpeg = turbojpeg.TurboJPEG()
            found["PyTurboJPEG"] = lambda data: jpeg.decode(data, pixel_format=turbojpeg.TJPF_RGB)
    return found


def _pil(data: bytes, size: int = 0) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    if size:
        image.draft("RGB", (size, size))
    image.load()
    return image


def resizers(size: int) -> dict[str, Callable[[Image.Image, np.ndarray, tuple[int, int, int, int]], np.ndarray]]:
    """Ways from a decoded image (PIL's, or pixels) and a box to the crop."""
    return {
        "PIL, crop and resize": lambda image, _, box: np.asarray(image.crop(box).resize((size, size), BICUBIC)),
        "PIL, resize with box": lambda image, _, box: np.asarray(image.resize((size, size), BICUBIC, box=box)),
        "cykooz_resizer, twice": lambda _, pixels, box: fast_jpeg.resize(
            pixels[box[1] : box[3], box[0] : box[2]], size, size
        ),
    }


def milliseconds(work: Sequence[Callable[[], Any]], rounds: int) -> float:
    """The median over all calls of the CPU time of one."""
    times = []
    for _ in range(rounds):
        for call in work:
            began = time.thread_time()
            call()
            times.append(time.thread_time() - began)
    return 1000 * statistics.median(times)


def line(name: str, took: float, first: float, found: list[np.ndarray], expected: list[np.ndarray]) -> str:
    """A row of the table: CPU time, the first one's over it, and the differences of pixels, if they have the same shape."""
    same = all(one.shape == other.shape for one, other in zip(found, expected, strict=True))
    if not same:
        return f"{name:24} {took:6.2f} ms {first / took:6.2f} x   another size"
    differences = [np.abs(one.astype(int) - other) for one, other in zip(found, expected, strict=True)]
    share = np.mean([(one > 0).mean() for one in differences])
    return f"{name:24} {took:6.2f} ms {first / took:6.2f} x   {max(one.max() for one in differences)}, {share:.2%}"


def main(arguments: list[str] | None = None) -> int:
    """Prints both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoders", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=224, help="of the crop")
    options = parser.parse_args(arguments)
    files = [photograph(index) for index in range(options.images)]
    images = [_pil(data) for data in files]
    pixels = [np.asarray(image) for image in images]
    rng = np.random.default_rng(0)
    boxes = [random_crop_box(*image.size, rng, (0.9, 1.0), (3 / 4, 4 / 3)) for image in images]

    first = 0.0
    print(f"{'decode':24} {'CPU time':>9} {'PIL over it':>10}   differences of pixels: the largest, how many")
    for name, decode in decoders(options.size).items():
        took = milliseconds([functools.partial(decode, data) for data in files], options.rounds)
        first = first or took
        print(line(name, took, first, [np.asarray(decode(data)) for data in files], pixels), flush=True)

    first = 0.0
    expected: list[np.ndarray] = []
    print(f"{'crop and resize':24}")
    for name, resize in resizers(options.size).items():
        work = [functools.partial(resize, *given) for given in zip(images, pixels, boxes, strict=True)]
        took = milliseconds(work, options.rounds)
        first = first or took
        found = [call() for call in work]
        expected = expected or found
        print(line(name, took, first, found, expected), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
