"""AdamW against PyTorch's, the schedule against OpenCLIP's formula, the decay mask against OpenCLIP's rule."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from salmu_jax.models.clip import Clip
from salmu_jax.models.zoo import architecture
from salmu_jax.runtime.errors import InputError
from salmu_jax.training.optimizer import AdamW, decay_mask, make_optimizer, warmup_cosine


def open_clip_rate(learning_rate, warmup, total, step):
    if step < warmup:
        return learning_rate * (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) * learning_rate


@pytest.mark.parametrize(("warmup", "total"), [(10, 100), (0, 50), (1, 2), (10_000, 400_000), (99, 100)])
def test_schedule_is_open_clips(warmup, total):
    steps = np.unique(np.concatenate([np.linspace(0, total - 1, 500).astype(int), np.arange(min(total, 20))]))
    schedule = jax.jit(jax.vmap(warmup_cosine(5e-4, warmup, total)))(steps)
    expected = [open_clip_rate(5e-4, warmup, total, int(step)) for step in steps]
    np.testing.assert_allclose(schedule, expected, rtol=2e-5, atol=1e-9)


def test_schedule_reaches_zero_and_stays_there():
    schedule = warmup_cosine(1.0, 10, 100)
    assert float(schedule(9)) == 1.0
    assert float(schedule(10)) == 1.0
    assert float(schedule(55)) == pytest.approx(0.5)
    assert float(schedule(100)) == pytest.approx(0, abs=1e-7)
    assert float(schedule(1_000)) == pytest.approx(0, abs=1e-7)
    assert float(warmup_cosine(1.0, 50, 20)(19)) == pytest.approx(0.4)  # a run shorter than its warm-up


def trees(seed):
    draw = np.random.default_rng(seed)
    shapes = {"kernel": (4, 3), "embedding": (5, 2), "conv": (2, 2, 3, 4), "bias": (3,), "logit_scale": ()}
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("clip_norm", [0.0, 0.7])
def test_updates_equal_torch_adamw(clip_norm):
    config = AdamW(learning_rate=1e-2, warmup_steps=3, weight_decay=0.3, clip_norm=clip_norm)
    steps = 12
    optimizer = make_optimizer(config, steps)
    params = trees(0)
    theirs = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in params.items()}
    groups = [
        {"params": [p for p in theirs.values() if p.ndim >= 2], "weight_decay": 0.3},
        {"params": [p for p in theirs.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.98), eps=1e-6)

    @jax.jit
    def update(params, state, gradients):
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for step in range(steps):
        gradients = {name: (0.02 if step == 4 else 1.0) * value for name, value in trees(step + 1).items()}
        gradients["bias"] *= 1e-6  # as small as eps
        params, state = update(params, state, gradients)
        for name, parameter in theirs.items():
            parameter.grad = torch.tensor(gradients[name])
        for group in adamw.param_groups:
            group["lr"] = open_clip_rate(1e-2, 3, steps, step)
        if clip_norm:
            norm = torch.nn.utils.clip_grad_norm_(theirs.values(), clip_norm)
            assert (norm > clip_norm) == (step != 4)
        adamw.step()
        for name, parameter in theirs.items():
            np.testing.assert_allclose(params[name], parameter.detach().numpy(), rtol=2e-5, atol=2e-6, err_msg=name)


def test_decay_is_for_matrices_alone():
    shapes = jax.eval_shape(Clip(architecture("ViT-B-16")).init, jax.random.key(0))
    mask = jax.tree_util.tree_leaves_with_path(decay_mask(shapes))
    names = {jax.tree_util.keystr(path, simple=True, separator="."): decayed for path, decayed in mask}
    for name, decayed in names.items():
        last = name.split(".")[-1]
        assert decayed == (last not in ("bias", "scale", "class_embedding", "logit_scale")), name
    assert names["text.token_embedding"]
    assert names["visual.conv1"]
    assert names["visual.proj"]
    assert names["text.text_projection"]


def test_undecayed_leaves_do_not_move_without_a_gradient():
    optimizer = make_optimizer(AdamW(learning_rate=0.1, warmup_steps=0, weight_decay=0.5), 10)
    params = jax.tree.map(jnp.asarray, trees(0))
    updates, _ = jax.jit(optimizer.update)(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    for name, update in updates.items():
        expected = -0.05 * params[name] if params[name].ndim >= 2 else jnp.zeros_like(params[name])
        np.testing.assert_allclose(update, expected, rtol=1e-6, err_msg=name)


def test_the_defaults_are_open_clips():
    assert AdamW() == AdamW(5e-4, 10_000, 0.9, 0.98, 1e-6, 0.2, 0.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("b1", 1.0), ("eps", 0), ("learning_rate", float("nan")), ("weight_decay", 10**400), ("clip_norm", "1"),
     ("warmup_steps", 1.5), ("b2", True)],
)  # fmt: skip
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(InputError, match=f"^{field}: must be a (finite|whole) number, "):
        AdamW(**{field: value})


def test_without_a_length_the_warm_up_is_a_twentieth_of_the_run():
    params = jax.tree.map(jnp.asarray, trees(0))
    implied, given = (make_optimizer(AdamW(0.1, warmup), 60) for warmup in (None, 3))
    updates = [optimizer.update(params, optimizer.init(params), params)[0] for optimizer in (implied, given)]
    jax.tree.map(np.testing.assert_array_equal, *updates)
