"""Portraits are read as they look, and the face encoder learns, is deterministic, and refuses what are not its weights."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from planted_portraits import CellSource

from data_pipelines.curation.encoder import encoder_settings, load_encoder
from data_pipelines.curation.pixels import SIDE, hash_distances, perceptual_hash, read_portrait
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng([width, height])
    small = Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(512, 341), (341, 512), (512, 512), (512, 287), (90, 60), (112, 112)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_the_central_square_is_read_whatever_the_size_and_mode(size, mode):
    image = picture(*size, mode)
    pixels = read_portrait(encoded(image, quality=95), "here")
    assert (pixels.shape, pixels.dtype) == ((SIDE, SIDE, 3), np.uint8)
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    square = (
        image.convert("RGB").crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    )
    assert np.abs(pixels.astype(int) - np.asarray(square)).mean() < 4


def test_png_is_read_too():
    image = picture(200, 150)
    jpeg, png = (read_portrait(encoded(image, kind), "here").astype(int) for kind in ("JPEG", "PNG"))
    assert np.abs(jpeg - png).mean() < 4


@pytest.mark.parametrize("data", [b"", b"no image", encoded(picture(300, 300))[:500], b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_one_line(data):
    with pytest.raises(InputError, match=r"^a\.tar b\.jpg: cannot be decoded \("):
        read_portrait(data, "a.tar b.jpg")


def test_hashes_of_alike_pictures_are_near():
    image = picture(256, 256)
    same = perceptual_hash(read_portrait(encoded(image, quality=50), ""))
    brighter = perceptual_hash(read_portrait(encoded(image.point(lambda value: min(255, value * 1.05))), ""))
    other = perceptual_hash(read_portrait(encoded(picture(257, 256)), ""))
    distances = hash_distances(np.array([same]), np.array([same, brighter, other]))[0]
    assert distances[0] == 0
    assert distances[1] <= 12
    assert distances[2] >= 40
    assert hash_distances(np.array([[5, 0]], np.uint8), np.array([[6, 128]], np.uint8)) == 3


def test_a_hash_is_the_cosine_transform_of_scipy():
    from scipy.fft import dctn

    pixels = read_portrait(encoded(picture(256, 256)), "")
    grey = np.asarray(Image.fromarray(pixels).convert("L").resize((32, 32), Image.Resampling.BOX), float)
    low = dctn(grey)[:12, :12].ravel()[1:]
    assert (np.unpackbits(perceptual_hash(pixels))[:143] == (low > np.median(low))).all()


def test_a_file_that_is_not_of_the_encoder_is_refused(tmp_path):
    path = tmp_path / "encoder.npz"
    with pytest.raises(InputError, match="is not a file of a face encoder's weights"):
        load_encoder(path)
    path.write_bytes(b"PK\x03\x04 but no zip")
    with pytest.raises(InputError, match="is not a file of a face encoder's weights"):
        load_encoder(path)
    np.savez(path, about=np.array('{"schema": "salmu_jax.face_encoder/1"}'), other=np.zeros(3))
    with pytest.raises(InputError, match="holds the weights of another network"):
        load_encoder(path)


@pytest.mark.slow
def test_training_learns_people_and_gives_the_same_weights_again(tmp_path):
    from data_pipelines.curation.face_encoder import weights_file
    from data_pipelines.curation.training import Training, train_encoder

    source = CellSource(seed=9, people=18, portraits=6)
    drawn = [source.portrait(number, index).image for number in range(18) for index in range(6)]
    pixels = np.stack([read_portrait(image, "") for image in drawn])
    people = np.repeat(np.arange(18), 6)
    genders = np.array([source.anchors()[number].gender == "male" for number in people], int)
    rows = people < 12

    def train(epochs: int) -> tuple[bytes, list[float]]:
        training = Training(epochs=epochs, batch=24)
        variables, report = train_encoder(pixels[rows], people[rows], {"gender": genders[rows]}, 3, training, say=str)
        return weights_file(variables), report["loss"]

    assert train(1) == train(1)
    weights, losses = train(10)  # thirty steps
    assert losses[-1] < 0.8 * losses[0]
    path = tmp_path / "encoder.npz"
    path.write_bytes(weights)
    encoder = load_encoder(path)
    assert encoder_settings(path) == dict(encoder.settings) == {"weights": files.sha256_file(path)}
    vectors = encoder.embed(drawn, pixels)
    assert (vectors.shape, vectors.dtype) == ((108, 128), np.float32)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    assert (encoder.embed(drawn[:5], pixels[:5]) == vectors[:5]).all()  # a portrait's embedding is its own

    others = vectors[~rows] @ vectors[~rows].T - 2 * np.eye(36)  # people it has not seen
    assert np.mean(people[~rows][others.argmax(axis=1)] == people[~rows]) > 0.7  # by chance 0.17
