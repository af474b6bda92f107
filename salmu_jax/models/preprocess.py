"""Decodes images to uint8 pixels as OpenCLIP does: the evaluation transform and the training crop.

Everything up to the division by 255 happens here, on the host, with PIL (crops of JPEGs for training: ``fast_jpeg.py``).
Images stay uint8 until they are on the device, where the model subtracts ``IMAGE_MEAN`` and divides by ``IMAGE_STD``. The
order of the steps is OpenCLIP's and matters: an image is resized in its *own* mode (a palette image by nearest neighbour,
since PIL cannot blend palette indices; an RGBA image premultiplied), then cropped, and only then converted to RGB. EXIF
orientation is not applied.

Untrusted bytes cannot start programs or exhaust memory: only the formats of :data:`FORMATS` are decoded (PIL would start
Ghostscript for an EPS, whatever the file is called), at most :data:`MAX_PIXELS`, and a few large images at a time.

Reference: ``image_transform`` of open_clip 3.3.0, with torchvision's ``Resize``, ``CenterCrop``, ``RandomResizedCrop``.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import threading
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from salmu_jax.models import fast_jpeg
from salmu_jax.runtime.errors import InputError

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # as PIL names them; none of their decoders starts a program
MAX_PIXELS = 50_000_000
_LARGE_PIXELS = 8_000_000
_LARGE_AT_A_TIME = threading.BoundedSemaphore(2)  # many threads decode; 64 images of 50 Mpx would take 13 GB and more

# A sliver of 1 x 5,000 pixels would be resized to 224 x 1,120,000 before its centre is cropped. Beyond this many pixels only
# the part that the crop keeps is computed: the same picture up to rounding, in bounded memory.
_MAX_RESIZED_PIXELS = 1 << 25

# PIL warns of damaged metadata, which are not read; of palettes with transparency, which are dropped as in OpenCLIP; and of
# images above 89 Mpx, which are refused here before they are decoded.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)  # it logs on stderr what it then raises


class TooLargeError(InputError):
    """An image of more than :data:`MAX_PIXELS`, such as a decompression bomb; it has not been decoded."""


def preprocess_eval(data: bytes, image_size: int, where: str | os.PathLike | None = None) -> np.ndarray:
    """Applies OpenCLIP's evaluation transform: shortest side to ``image_size`` (bicubic, antialiased), centre crop, RGB.

    Args:
      data: an encoded image (one of :data:`FORMATS`, of any mode).
      image_size: the side S of the result, in pixels.
      where: names the image in an error message (file, row).

    Returns:
      uint8 ``[S, S, 3]``.

    Raises:
      InputError: the bytes are not an image in these formats, are truncated, or have more than :data:`MAX_PIXELS`.
    """
    with _decoding(data, where) as image:
        return _to_array(_resize_and_crop(image, image_size))


class ImageFacts(NamedTuple):
    """What an encoded image is: its size in pixels, and a note if it is usable but odd."""

    width: int
    height: int
    note: str | None


def inspect_image(data: bytes, where: str | os.PathLike | None = None) -> ImageFacts:
    """Decodes an image completely and drops it.

    Returns:
      Its size, and a note about pixels of 16 bits or floats: these are clipped at 255, so such an image becomes mostly white
      or black, here as in OpenCLIP.

    Raises:
      InputError: as :func:`preprocess_eval`.
    """
    with _decoding(data, where) as image:
        deep = image.mode.startswith("I") or image.mode == "F"
        note = "images of 16-bit or float pixels, mostly white or black as in OpenCLIP" if deep else None
        return ImageFacts(*image.size, note)


def random_resized_crop(
    data: bytes,
    image_size: int,
    rng: np.random.Generator,
    scale: tuple[float, float] = (0.9, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    where: str | os.PathLike | None = None,
    reference: bool = False,
) -> np.ndarray:
    """Applies OpenCLIP's training transform: a random crop, resized to a square (bicubic), RGB; no flip, no colour change.

    JPEGs take the way of :mod:`~salmu_jax.models.fast_jpeg`, which is nearly PIL's result in half of its time.

    Args:
      data: an encoded image.
      image_size: the side S of the result, in pixels.
      rng: the source of the crop; the same state gives the same crop.
      scale: range of the crop's share of the image's area.
      ratio: range of the crop's width over its height.
      where: names the image in an error message.
      reference: leave everything to PIL, whose pixels are OpenCLIP's exactly.

    Returns:
      uint8 ``[S, S, 3]``.

    Raises:
      InputError: as :func:`preprocess_eval`.
    """
    pixels = None if reference else fast_jpeg.decode(data)
    if pixels is not None:
        left, top, right, bottom = random_crop_box(pixels.shape[1], pixels.shape[0], rng, scale, ratio)
        return fast_jpeg.resize(pixels[top:bottom, left:right], image_size, image_size)
    with _decoding(data, where) as image:
        box = random_crop_box(*image.size, rng, scale, ratio)
        crop = image.crop(box)
        if crop.size != (image_size, image_size):
            crop = crop.resize((image_size, image_size), Image.Resampling.BICUBIC)
        return _to_array(crop)


def random_crop_box(
    width: int, height: int, rng: np.random.Generator, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Draws (left, top, right, bottom) in pixels, distributed as torchvision's ``RandomResizedCrop.get_params``.

    The area is uniform in ``scale``, the log of the aspect ratio uniform, the position uniform; after ten crops that do
    not fit, the largest centred crop whose ratio is allowed.
    """
    log_ratio = (math.log(ratio[0]), math.log(ratio[1]))
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(*log_ratio))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(rng.integers(0, height - h, endpoint=True))
            left = int(rng.integers(0, width - w, endpoint=True))
            return left, top, left + w, top + h
    w, h = width, height
    if width / height < min(ratio):
        h = round(width / min(ratio))
    elif width / height > max(ratio):
        w = round(height * max(ratio))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


@contextlib.contextmanager
def _decoding(data: bytes, where: str | os.PathLike | None) -> Iterator[Image.Image]:
    """Yields the decoded image, and turns whatever PIL raises inside the block into an InputError."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            pixels = image.width * image.height
            if pixels > MAX_PIXELS:
                raise _too_large(f"{image.width:,} x {image.height:,} pixels", where)
            with _LARGE_AT_A_TIME if pixels > _LARGE_PIXELS else contextlib.nullcontext():
                image.load()
                yield image
    except (InputError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(str(error), where) from error
    except Image.UnidentifiedImageError as error:
        raise InputError(f"undecodable image (not an image: {_described(data)}); {_WANTED} is needed", where) from error
    except Exception as error:  # PIL's decoders let OSError, SyntaxError, struct.error, IndexError and others through
        raise InputError(
            f"undecodable image ({len(data)} bytes: {error}); a whole {_WANTED} is needed", where
        ) from error


_WANTED = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"


def _too_large(found: str, where: str | os.PathLike | None) -> InputError:
    return TooLargeError(f"{found}; an image of at most {MAX_PIXELS:,} pixels is needed", where)


def _described(data: bytes) -> str:
    kind = next((name for start, name in _NO_IMAGES.items() if data.startswith(start)), None)
    return f"{len(data)} bytes" + (f" of {kind}" if kind else "")


_NO_IMAGES = {
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"version https://git-lfs": "a pointer of Git LFS",
}


def _resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    short, long = min(width, height), max(width, height)
    new_long = int(size * long / short)  # never below size, so that the crop needs no padding
    new_width, new_height = (size, new_long) if width <= height else (new_long, size)
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    if new_width * new_height > _MAX_RESIZED_PIXELS:
        scale_x, scale_y = width / new_width, height / new_height
        box = (left * scale_x, top * scale_y, (left + size) * scale_x, (top + size) * scale_y)
        return image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    if (width, height) != (new_width, new_height):
        image = image.resize((new_width, new_height), Image.Resampling.BICUBIC)
    return image.crop((left, top, left + size, top + size))


def _to_array(image: Image.Image) -> np.ndarray:
    return np.array(image.convert("RGB"), np.uint8)
