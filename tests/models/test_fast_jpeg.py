"""The fast way of JPEGs against PIL: the same pixels when decoding, nearly the same when resizing, and PIL for the rest."""

from __future__ import annotations

import functools
import io
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from salmu_jax.models import fast_jpeg
from salmu_jax.models.preprocess import random_resized_crop
from salmu_jax.runtime.errors import InputError

needs_wheels = pytest.mark.skipif(
    not fast_jpeg.AVAILABLE, reason="simplejpeg and cykooz_resizer are not installed: PIL does everything here"
)


@functools.cache
def photograph(width, height, seed=0):
    """Noise of all frequencies, with saturated parts, where rounding between two passes shows most."""
    noise = np.random.default_rng(seed).normal(128, 150, (height, width, 3)).clip(0, 255).astype(np.uint8)
    return Image.blend(Image.fromarray(noise), Image.fromarray(noise).filter(ImageFilter.GaussianBlur(4)), 0.7)


def jpeg(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def rotated(image):
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees to view"
    return jpeg(image, exif=exif)


def two_pictures(image):
    """A JPEG with another one in it, as some cameras write."""
    buffer = io.BytesIO()
    image.save(buffer, "MPO", save_all=True, append_images=[image.rotate(90)])
    return buffer.getvalue()


WIDE = photograph(97, 53)
DEEP = Image.fromarray(np.arange(97 * 53, dtype=np.uint16).reshape(53, 97) * 12)
# What it is, its bytes, and whether it takes the fast way.
ODD = {
    "plain": (jpeg(WIDE), True),
    "progressive": (jpeg(WIDE, progressive=True), True),
    "grey": (jpeg(WIDE.convert("L")), True),
    "rotated by EXIF": (rotated(WIDE), True),
    "4:4:4": (jpeg(WIDE, subsampling="4:4:4"), True),
    "4:2:2": (jpeg(WIDE, subsampling="4:2:2"), True),
    "restart markers": (jpeg(WIDE, restart_marker_rows=1), True),
    "a comment": (jpeg(WIDE, comment=b"x" * 5000), True),
    "worst quality": (jpeg(WIDE, quality=1), True),
    "one pixel": (jpeg(photograph(1, 1)), True),
    "a line": (jpeg(photograph(300, 1)), True),
    "two pictures": (two_pictures(WIDE), True),
    "bytes after the end": (jpeg(WIDE) + b"more", True),
    "CMYK": (jpeg(WIDE.convert("CMYK")), False),
    "RGB, not YCbCr": (jpeg(WIDE, keep_rgb=True), False),
    "PNG": (png(WIDE), False),
    "palette": (png(WIDE.quantize(37)), False),
    "16 bits": (png(DEEP), False),
    "transparent": (png(WIDE.convert("RGBA").rotate(10)), False),
}


def outcome(data, size=32, **options):
    """The pixels, or the error."""
    try:
        return random_resized_crop(data, size, np.random.default_rng(5), **options)
    except InputError as error:
        return str(error)


def differences(left, right):
    return np.abs(left.astype(int) - right)


@needs_wheels
@pytest.mark.parametrize("name", ODD)
def test_odd_images(name):
    data, fast = ODD[name]
    decoded = fast_jpeg.decode(data)
    assert (decoded is not None) == fast
    if fast:
        np.testing.assert_array_equal(decoded, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    for size in (8, 32, 64):
        found, reference = outcome(data, size), outcome(data, size, reference=True)
        assert found.shape == reference.shape == (size, size, 3)
        assert found.flags.writeable
        assert differences(found, reference).max() <= (1 if fast and size < 53 else 0)  # of 64: enlarged


@needs_wheels
@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 130), st.integers(1, 130)),
    quality=st.integers(1, 100),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    progressive=st.booleans(),
    grey=st.booleans(),
    seed=st.integers(0, 3),
)
def test_decoding_is_exact(size, quality, subsampling, progressive, grey, seed):
    image = photograph(*size, seed).convert("L" if grey else "RGB")
    options = {} if grey else {"subsampling": subsampling}
    data = jpeg(image, quality=quality, progressive=progressive, **options)
    np.testing.assert_array_equal(fast_jpeg.decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@needs_wheels
@settings(max_examples=150, deadline=None)
@given(
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)), new=st.tuples(st.integers(1, 200), st.integers(1, 200))
)
def test_resizing_is_nearly_exact(size, new):
    """In both orders of the two directions, smaller and larger."""
    image = photograph(*size)
    found = fast_jpeg.resize(np.asarray(image), new[1], new[0])
    difference = differences(found, np.asarray(image.resize(new, Image.Resampling.BICUBIC)))
    if new[0] > size[0] or new[1] > size[1]:
        assert not difference.any()
    assert difference.max() <= 2
    assert (difference > 1).sum() <= 1  # one in a million by the module's account
    assert (difference > 0).sum() <= 3 + 0.03 * difference.size


@needs_wheels
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_have_the_same_outcome(data):
    """A file with some bytes changed or its end missing is refused, or read, as PIL refuses or reads it."""
    damaged = bytearray(jpeg(photograph(40, 30), progressive=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(2, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(damaged[: data.draw(st.integers(2, len(damaged)))])
    found, reference = outcome(damaged), outcome(damaged, reference=True)
    assert type(found) is type(reference)
    if isinstance(reference, str):
        assert found == reference
    else:
        assert differences(found, reference).max() <= 2


@needs_wheels
def test_all_processors_give_the_same_pixels():
    import cykooz_resizer

    pixels, expected = np.asarray(photograph(210, 150)), None
    fast_jpeg.resize(pixels, 64, 64)  # makes this thread's resizer
    resizer, kept = fast_jpeg._OWN.resizer, fast_jpeg._OWN.resizer.cpu_extensions
    try:
        for extensions in {cykooz_resizer.CpuExtensions.none, cykooz_resizer.CpuExtensions.sse4_1, kept}:
            resizer.cpu_extensions = extensions
            found = [fast_jpeg.resize(pixels, *size) for size in ((64, 64), (100, 30), (20, 200), (400, 300))]
            expected = expected or found
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)
    finally:
        resizer.cpu_extensions = kept


@needs_wheels
def test_threads_do_not_mix_their_pictures():
    files = [jpeg(photograph(120 + 7 * k, 90, k)) for k in range(8)]
    expected, failures = [outcome(data) for data in files], []

    def work(k):
        for _ in range(50):
            if (outcome(files[k]) != expected[k]).any():
                failures.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("limit", ["no wheels", "too large"])
def test_pil_does_what_is_left(monkeypatch, limit):
    if limit == "no wheels":
        monkeypatch.setattr(fast_jpeg, "AVAILABLE", False)
    else:
        monkeypatch.setattr(fast_jpeg, "MAX_PIXELS", 100)
    for data, _ in ODD.values():
        if Image.open(io.BytesIO(data)).size != (1, 1):
            np.testing.assert_array_equal(outcome(data), outcome(data, reference=True))
