"""Preprocessing against OpenCLIP's own transforms (where they are installed), and against what PIL documents."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import subprocess
import threading
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from salmu_jax.models import preprocess
from salmu_jax.models.preprocess import inspect_image, preprocess_eval, random_crop_box, random_resized_crop
from salmu_jax.runtime.errors import InputError


def pixels(width, height, channels=3, seed=0):
    """A picture with smooth parts, edges and noise; uint8 [height, width, channels]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * (k + 1) * 3 + y * (4 - k) for k in range(channels)], -1) % 256
    noisy = smooth + rng.integers(-20, 20, smooth.shape)
    noisy[height // 3 : height // 2, width // 3 :] = 250
    return np.clip(noisy, 0, 255).astype(np.uint8)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(mode, width, height):
    rgb = Image.fromarray(pixels(width, height))
    if mode == "P":
        return encoded(rgb.quantize(37))
    if mode == "P with transparency":
        return encoded(rgb.quantize(37), transparency=bytes([0, 128, 255, 7]))
    if mode == "CMYK":
        return encoded(rgb.convert("CMYK"), "JPEG", quality=90)
    if mode in ("RGBA", "LA"):
        image = rgb.convert(mode)
        image.putalpha(Image.fromarray(pixels(width, height, 1, seed=1)[..., 0]))
        return encoded(image)
    if mode == "I;16":
        return encoded(Image.fromarray(pixels(width, height, 1)[..., 0].astype(np.uint16) * 257))
    if mode == "EXIF":
        exif = Image.Exif()
        exif[0x0112] = 6  # "rotate by 90 degrees to view"
        return encoded(rgb, "JPEG", exif=exif, quality=90)
    return encoded(rgb.convert(mode))


MODES = ["RGB", "L", "P", "P with transparency", "CMYK", "RGBA", "LA", "1", "I;16", "EXIF"]
SIZES = [(64, 64), (32, 32), (97, 53), (53, 97), (33, 500), (500, 33), (2, 150), (7, 5), (512, 341)]


@functools.cache
def torchvision_transforms():
    for package in ("torch", "torchvision", "open_clip"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: no reference to compare the pixels with")
    import torch

    # The registry's torchvision is built for another torch; it imports once these operators are declared.
    for name in ("nms(Tensor dets, Tensor scores, float iou_threshold)", "qnms(Tensor dets, Tensor s, float t)"):
        with contextlib.suppress(RuntimeError):  # declared already by another test
            torch.library.define(f"torchvision::{name.split('(')[0]}", name[name.index("(") :] + " -> Tensor")
    from open_clip.transform import image_transform
    from torchvision import transforms

    return image_transform, transforms


def open_clip_pixels(data, size):
    image_transform, transforms = torchvision_transforms()
    steps = image_transform(size, is_train=False).transforms
    before_tensor = steps[: [type(step).__name__ for step in steps].index("MaybeToTensor")]
    return np.asarray(transforms.Compose(before_tensor)(Image.open(io.BytesIO(data))))


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")  # pytest undoes the module's own filter
@pytest.mark.parametrize("mode", MODES)
def test_equals_open_clip(mode):
    for width, height in SIZES:
        data = picture(mode, width, height)
        for size in (32, 45):
            result = preprocess_eval(data, size)
            assert result.dtype == np.uint8
            assert result.flags.writeable
            np.testing.assert_array_equal(result, open_clip_pixels(data, size), err_msg=f"{mode} {width}x{height}")


def test_mean_and_std_are_open_clips():
    torchvision_transforms()
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    assert (preprocess.IMAGE_MEAN, preprocess.IMAGE_STD) == (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)


def test_palette_is_not_blended():
    """Resized before it becomes RGB: a palette image keeps to its own colours, which RGB interpolation would mix."""
    image = Image.fromarray((np.indices((60, 60)).sum(0) % 2).astype(np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    colours = {tuple(c) for c in preprocess_eval(encoded(image), 32).reshape(-1, 3).tolist()}
    assert colours <= {(255, 0, 0), (0, 0, 255)}


def test_slivers_in_bounded_memory(monkeypatch):
    """Where the resized picture would be huge only its centre is computed: the same, up to rounding."""
    for size in ((3000, 5), (4, 3000)):
        data = encoded(Image.fromarray(pixels(*size)))
        whole = preprocess_eval(data, 32)
        with monkeypatch.context() as patch:
            patch.setattr(preprocess, "_MAX_RESIZED_PIXELS", 32 * 64)
            part = preprocess_eval(data, 32)
        difference = np.abs(whole.astype(int) - part)
        assert difference.max() <= 6  # PIL may take the two directions in the other order, and rounds between them
        assert difference.mean() < 0.5
    assert preprocess_eval(encoded(Image.fromarray(pixels(20_000, 1))), 224).shape == (224, 224, 3)


def truncated(kind):
    data = encoded(Image.fromarray(pixels(90, 70)), kind)
    return data[: len(data) // 2]


def bomb():
    """A PNG header that announces 40,000 x 40,000 pixels."""

    def chunk(name, body):
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    header = (40_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def png_of(width, height):
    """A PNG of a few kilobytes, all black."""
    return encoded(Image.new("1", (width, height)))


def jpeg_of(width, height):
    """A JPEG of a kilobyte whose frame header claims so many pixels."""
    data = bytearray(encoded(Image.fromarray(pixels(40, 30)), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


def postscript():
    """An EPS that a decoder would hand to Ghostscript, which would write a file."""
    return (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n"
        b"(/tmp/salmu-was-here) (w) file closefile\nshowpage\n%%EOF\n"
    )


def dos_postscript():
    """The binary form of the same."""
    body = postscript()
    return b"\xc5\xd0\xd3\xc6" + (32).to_bytes(4, "little") + len(body).to_bytes(4, "little") + bytes(20) + body


def unlisted(kind):
    return encoded(Image.fromarray(pixels(20, 20)), kind)


def broken_chunk():
    data = bytearray(encoded(Image.fromarray(pixels(90, 70))))
    data[60] ^= 0xFF
    return bytes(data)


@pytest.mark.filterwarnings("ignore:Image size")  # pytest undoes the module's own filter
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an image"),
        (b"<html>404</html>", "not an image"),
        (truncated("JPEG"), "undecodable"),
        (truncated("PNG"), "undecodable"),
        (truncated("GIF"), "undecodable"),
        (truncated("WEBP"), "image"),
        (broken_chunk(), "undecodable"),
        (bomb(), "at most 50,000,000 pixels"),
        (png_of(13_000, 13_000), "13,000 x 13,000 pixels; an image of at most 50,000,000"),
        (jpeg_of(13_000, 13_000), "13,000 x 13,000 pixels; an image of at most 50,000,000"),
        (png_of(7_072, 7_072), "7,072 x 7,072 pixels; an image of at most 50,000,000"),
        (postscript(), "not an image: .* of PostScript"),
        (dos_postscript(), "not an image: .* of PostScript"),
        (unlisted("PPM"), "JPEG, PNG, WEBP, GIF, BMP or TIFF is needed"),
        (unlisted("PDF"), "not an image: .* of PDF"),
        (unlisted("TGA"), "not an image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "not an image: .* a pointer of Git LFS"),
    ],
    ids=[
        *(
            "empty",
            "html",
            "jpeg",
            "png",
            "gif",
            "webp",
            "bit flip",
            "bomb",
            "13,000 px",
            "13,000 px as JPEG",
            "just above 50 Mpx",
        ),
        *("eps", "eps with a DOS header", "ppm", "pdf", "tga", "git-lfs"),
    ],
)
def test_bad_images_are_named(data, message, monkeypatch):
    def no_program(*_, **__):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", no_program)
    for decode in (
        lambda: inspect_image(data, "forget.parquet row 7"),
        lambda: preprocess_eval(data, 32, "forget.parquet row 7"),
        lambda: random_resized_crop(data, 32, np.random.default_rng(0), where="forget.parquet row 7"),
    ):
        with pytest.raises(InputError, match=message) as error:
            decode()
        assert str(error.value).startswith("forget.parquet row 7: ")
        assert "\n" not in str(error.value)


def test_images_of_all_listed_formats_are_read():
    for kind in preprocess.FORMATS:
        data = encoded(Image.fromarray(pixels(40, 30)), kind)
        assert preprocess_eval(data, 32).shape == (32, 32, 3)
        assert inspect_image(data) == (40, 30, None)


def test_deep_pixels_are_kept_as_open_clip_has_them_and_told():
    deep = pixels(40, 30, 1)[..., 0]
    for image, kind in ((deep.astype(np.uint16) * 257, "PNG"), (deep.astype(np.float32), "TIFF")):
        data = encoded(Image.fromarray(image), kind)
        assert "16-bit or float" in inspect_image(data).note
        assert preprocess_eval(data, 32).shape == (32, 32, 3)


def test_large_images_are_decoded_two_at_a_time(monkeypatch):
    """Threads times 50 Mpx would not fit in memory; a failing image gives its place back."""
    monkeypatch.setattr(preprocess, "_LARGE_PIXELS", 100)
    whole, cut = encoded(Image.fromarray(pixels(40, 30))), truncated("PNG")
    at_once, most, lock = 0, 0, threading.Lock()
    load = ImageFile.ImageFile.load

    def counted(image):
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        try:
            return load(image)
        finally:
            with lock:
                at_once -= 1

    def work(data):
        with contextlib.suppress(InputError):
            inspect_image(data)

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", counted)
    threads = [threading.Thread(target=work, args=(data,)) for data in [whole, cut] * 10]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert 1 <= most <= 2


@pytest.mark.parametrize(("width", "height"), [(64, 64), (200, 90), (30, 300)])
@pytest.mark.parametrize("scale", [(0.9, 1.0), (0.3, 0.6)])
def test_crops_are_distributed_as_torchvisions(width, height, scale):
    _, transforms = torchvision_transforms()
    import torch

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    ratio, image = (3 / 4, 4 / 3), Image.new("L", (width, height))
    ours = np.array([random_crop_box(width, height, rng, scale, ratio) for _ in range(1500)])
    theirs = [transforms.RandomResizedCrop.get_params(image, scale, ratio) for _ in range(1500)]
    theirs = np.array([(left, top, left + w, top + h) for top, left, h, w in theirs])
    assert ours.min() >= 0
    assert (ours[:, 2] <= width).all()
    assert (ours[:, 3] <= height).all()
    error = np.sqrt((ours.var(0) + theirs.var(0)) / 1500) + 1e-9
    assert (np.abs(ours.mean(0) - theirs.mean(0)) / error).max() < 4
    np.testing.assert_allclose(ours.std(0), theirs.std(0), rtol=0.12, atol=0.05)


@pytest.mark.parametrize("mode", ["RGB", "P", "CMYK", "RGBA"])
def test_crop_equals_torchvisions_at_the_same_place(mode):
    _, transforms = torchvision_transforms()
    data = picture(mode, 97, 53)
    left, top, right, bottom = random_crop_box(97, 53, np.random.default_rng(3), (0.5, 1.0), (3 / 4, 4 / 3))
    result = random_resized_crop(data, 32, np.random.default_rng(3), scale=(0.5, 1.0))
    expected = transforms.functional.resized_crop(
        Image.open(io.BytesIO(data)), top, left, bottom - top, right - left, [32, 32],
        transforms.InterpolationMode.BICUBIC,
    )  # fmt: skip
    np.testing.assert_array_equal(result, np.asarray(expected.convert("RGB")))


def test_crop_depends_on_the_generator_alone():
    data = picture("RGB", 97, 53)
    first, again, other = (
        random_resized_crop(data, 32, np.random.default_rng(seed), scale=(0.3, 0.9)) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
