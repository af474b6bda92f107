"""Task-vector negation, NegMerge and weight souping: their losses, what they average, and NegMerge against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from method_by_hand import unlearn
from random_models import random_params
from references import assert_terms, contrastive, tables
from torch_clip import random_batch
from torch_method import CONFIG, TorchClip, as_torch

from salmu_jax.models.clip import Clip
from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import Pairs
from salmu_jax.unlearning.methods.negmerge import NegMerge, merge_fine_tunes
from salmu_jax.unlearning.methods.task_vector import TaskVector
from salmu_jax.unlearning.methods.weight_soup import WeightSoup, end_at_the_mean


def learning(params):
    image, text, scale = tables(params)
    return {"learning": contrastive(image[:4], text[:4], scale)}


def souping(params):
    image, text, scale = tables(params)
    return {
        "forgetting": 3 * np.mean(np.sum(image[:4] * text[:4], axis=1)),
        "retention": 2 * contrastive(image[4:8], text[4:8], scale),
    }


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (TaskVector(), learning),
        (NegMerge(), learning),
        (WeightSoup(forgetting_weight=3.0, retention_weight=2.0), souping),
    ],
)
def test_losses_and_gradients(method, expected, table):
    assert_terms(method, table, expected)


def descend(transform, steps, start=(1.0, -2.0, 3.0), slopes=None):
    """The parameters after every step of gradients that ``slopes(step, params)`` gives."""
    params = reference = {"w": jnp.array(start)}
    state, update, seen = transform.init(params), jax.jit(transform.update), []
    for step in range(steps):
        gradient = {"w": jnp.asarray(slopes(step, np.asarray(params["w"])), jnp.float32)}
        moves, state = update(gradient, state, params, reference_params=reference, step=jnp.int32(step))
        params = optax.apply_updates(params, moves)
        seen.append(np.asarray(params["w"], float))
    return seen


def momentum(rate):
    return optax.with_extra_args_support(optax.sgd(rate, momentum=0.5))


def test_fine_tunes_start_afresh_and_end_at_what_they_agree_on():
    draw = np.random.default_rng(0)
    noise, start = draw.normal(size=(8, 3)) + np.array([3.0, 0.0, -3.0]), np.array([1.0, -2.0, 3.0])
    seen = descend(merge_fine_tunes(momentum(0.1), 3, 2, 4.0), 8, slopes=lambda step, w: noise[step] + w)
    vectors = []
    for number, factor in enumerate((0.25, 1, 4)):
        w, buffer = start.copy(), np.zeros(3)
        for step in (2 * number, 2 * number + 1):
            buffer = 0.5 * buffer + noise[step] + w
            w = w - 0.1 * factor * buffer
            if step % 2 == 0:
                np.testing.assert_allclose(seen[step], w, rtol=1e-5)
        vectors.append(w - start)
    agreed = np.abs(np.sign(vectors).sum(axis=0)) == 3
    assert agreed.any()
    assert not agreed.all()
    for step in (1, 3):
        np.testing.assert_allclose(seen[step], start, rtol=1e-6)
    np.testing.assert_allclose(seen[5], start + np.where(agreed, np.mean(vectors, axis=0), 0), rtol=1e-5)
    assert (seen[7] == seen[5]).all()  # steps that are left over


@pytest.mark.parametrize(
    ("points", "steps", "chosen"), [(1, 5, [4]), (2, 5, [2, 4]), (4, 4, [0, 1, 2, 3]), (3, 7, [2, 4, 6])]
)
def test_a_soup_ends_at_the_mean_of_its_points(points, steps, chosen):
    plain = descend(momentum(0.1), steps, slopes=lambda step, w: w)
    seen = descend(end_at_the_mean(momentum(0.1), points, steps), steps, slopes=lambda step, w: w)
    np.testing.assert_allclose(seen[:-1], plain[:-1], rtol=1e-6)
    np.testing.assert_allclose(seen[-1], np.mean([plain[step] for step in chosen], axis=0), rtol=1e-5)


def test_what_is_made_of_the_end():
    end, start = (
        {"a": jnp.array([1.0, 5.0]), "b": jnp.float32(0.1)},
        {"a": jnp.array([2.0, 3.0]), "b": jnp.float32(0.1)},
    )
    for method in (TaskVector(strength=0.5), NegMerge(strength=0.5)):
        assert method.finish(end, start, None)["a"].tolist() == [2.5, 2.0]
    soup = WeightSoup(share=0.25).finish(end, start, None)
    assert soup["a"].tolist() == [1.75, 3.5]
    assert soup["b"] == start["b"]


@pytest.mark.parametrize(("method", "option"), [(NegMerge(count=5), "count"), (WeightSoup(points=5), "points")])
def test_too_few_steps(method, option):
    with pytest.raises(InputError, match=f"options.{option}: is 5, and the run has 4 steps; each .* needs one"):
        method.transform(Hyper(total_steps=4))


def test_negmerge_is_the_published_algorithm():
    def pairs(seed):
        images, tokens = random_batch(CONFIG, seed, rows=5)
        return Pairs(images, tokens)

    params, batches = random_params(Clip(CONFIG), seed=1), [{"forget": pairs(seed)} for seed in range(6)]
    # Adam divides by |g| + eps: a large eps keeps the rounding of small gradients small.
    settings = {"learning_rate": 0.1, "weight_decay": 0.1, "eps": 0.05}
    hyper = Hyper(**settings, warmup_steps=0, total_steps=6, options={"count": 3, "spread": 2.0, "strength": 1.5})
    ours = as_torch(unlearn(NegMerge(), hyper, Clip(CONFIG), params, batches))

    start, vectors = as_torch(params), []
    for number, factor in enumerate((0.5, 1, 2)):
        model = TorchClip(params)
        groups = [
            {"params": [v for v in model.parameters.values() if v.ndim > 1], "weight_decay": 0.1},
            {"params": [v for v in model.parameters.values() if v.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=0.1 * factor, eps=0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2)
        for batch in batches[2 * number : 2 * number + 2]:
            gradients = model.gradients(model.contrastive(*model.pairs(batch["forget"])))
            for name, value in model.parameters.items():
                value.grad = gradients[name]
            optimizer.step()
            schedule.step()
        vectors.append({name: value.detach() - start[name] for name, value in model.parameters.items()})

    kept = left = 0
    largest = max(value.abs().max().item() for vector in vectors for value in vector.values())
    for name, value in start.items():
        stack = torch.stack([vector[name] for vector in vectors])
        agreed = stack.sign().sum(0).abs() == 3
        expected = value - 1.5 * torch.where(agreed, stack.mean(0), 0)
        sure = (stack.abs().amin(0) > 1e-5 * largest) | (stack == 0).all(0)  # else rounding decides on the sign
        assert sure.double().mean() > 0.9, name
        torch.testing.assert_close(ours[name][sure], expected[sure], rtol=1e-6, atol=1e-4 * largest)
        kept, left = kept + int(agreed.sum()), left + int((~agreed & (stack != 0).all(0)).sum())
    assert min(kept, left) > 200
