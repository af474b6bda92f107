"""Evaluation during training: the same on one device and on eight, and what numpy makes of the embeddings."""

import dataclasses

import jax
import numpy as np
import pytest
from random_models import random_params

from salmu_jax.evaluation.during_training import OnlineData, evaluator
from salmu_jax.models.clip import Clip
from salmu_jax.models.zoo import architecture
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.training.watch import Watch

CLASSES, TEMPLATES = 5, 2


@pytest.fixture(scope="module")
def clip():
    return Clip(architecture("tiny"))


@pytest.fixture(scope="module")
def data(clip):
    """Random images and captions, more than a batch and no multiple of it; two pairs share a caption."""
    draw, config = np.random.default_rng(0), clip.config

    def images(rows):
        return draw.integers(0, 256, (rows, config.image_size, config.image_size, 3), dtype=np.uint8)

    def tokens(rows):
        ids = draw.integers(1, config.vocab_size - 2, (rows, config.context_length)).astype(np.int32)
        ids[:, 9], ids[:, 10:] = config.vocab_size - 1, 0
        return ids

    captions = tokens(21)
    captions[4] = captions[17]
    labels = draw.integers(0, CLASSES, 37).astype(np.int32)
    return OnlineData(images(21), captions, images(37), labels, tokens(CLASSES * TEMPLATES), CLASSES)


@pytest.mark.parametrize("axes", [{"devices": 1}, {"fsdp": 2}, {"fsdp": 2, "tensor": 2}])
def test_all_devices_together_find_what_numpy_finds(clip, data, axes):
    params = random_params(clip, seed=1)
    devices = jax.devices()[:1] if "devices" in axes else jax.devices()
    mesh = mesh_lib.make_mesh(**{k: v for k, v in axes.items() if k != "devices"}, devices=devices)
    placed = jax.device_put(params, mesh_lib.param_shardings(params, mesh))
    found = evaluator(clip, mesh, data, batch_size=12)(placed)

    def encode(tower, values):
        return np.asarray(jax.jit(tower)(params, values), np.float64)

    image, text = encode(clip.encode_image, data.pair_images), encode(clip.encode_text, data.pair_tokens)
    similarity = image @ text.T
    same = (data.pair_tokens[:, None] == data.pair_tokens[None]).all(-1)
    own = np.arange(len(image))
    assert found["retrieval_image_to_text"] == np.mean(same[own, similarity.argmax(1)])
    assert found["retrieval_text_to_image"] == np.mean(same[own, similarity.argmax(0)])
    prompts = encode(clip.encode_text, data.prompts).reshape(CLASSES, TEMPLATES, -1).mean(1)
    weights = prompts / np.linalg.norm(prompts, axis=1, keepdims=True)
    best = (encode(clip.encode_image, data.images) @ weights.T).argmax(1)
    assert found["zeroshot_top1"] == np.mean(best == data.labels)


def test_without_a_zero_shot_task_retrieval_is_left(clip, data):
    without = dataclasses.replace(data, classes=0, images=data.images[:0])
    mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
    found = evaluator(clip, mesh, without, batch_size=12)(random_params(clip))
    assert set(found) == {"retrieval_image_to_text", "retrieval_text_to_image"}


def test_an_evaluation_is_due_at_the_first_call_end_after_each_multiple():
    watch = Watch(evaluate=lambda params: {}, evaluate_every=10)
    assert [step for step in range(4, 41, 4) if watch.evaluation_due(step - 4, step)] == [12, 20, 32, 40]
    assert not any(Watch(evaluate_every=10).evaluation_due(step - 4, step) for step in range(4, 41, 4))
