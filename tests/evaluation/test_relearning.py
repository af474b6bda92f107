"""Fine-tuning on part of forget equals PyTorch's, on any number of devices, and takes what the seed draws."""

import dataclasses
import os
import socket
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import xla_flags
from patience import DEADLINE
from relearning_inputs import CONFIG, RATE, draw_pairs, drawn_params, relearn
from torch_clip import random_params, to_torch, torch_loss, torch_model

from salmu_jax.evaluation import draws, relearning
from salmu_jax.training import mesh as mesh_lib

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pairs():
    return draw_pairs(150)


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG, seed=3)


@pytest.fixture(scope="module")
def after(params, pairs):
    """The parameters after 10 and 20 steps on eight devices."""
    return relearn(params, pairs, points=(10, 20))


def test_ten_steps_equal_pytorch(params, pairs, after):
    model = torch_model(CONFIG).double()
    model.load_state_dict({name: value.double() for name, value in to_torch(params, CONFIG).items()}, strict=False)
    # The true gradient of a key bias is zero; Adam would make steps of its rounding noise.
    trained = [value for name, value in model.named_parameters() if not name.endswith("k_proj.bias")]
    optimizer = torch.optim.AdamW(trained, lr=RATE, betas=(0.9, 0.999), eps=1e-6, weight_decay=0)
    batches = pairs.batches(42)
    for _ in range(10):
        chosen = next(batches)
        optimizer.zero_grad()
        torch_loss(model, CONFIG, pairs.images[chosen], pairs.tokens[chosen]).backward()
        optimizer.step()
    expected, before = model.state_dict(), to_torch(params, CONFIG)
    for name, found in to_torch(after[10], CONFIG).items():
        assert (found - expected[name]).abs().max() < 1e-5, name
        assert name.endswith("k_proj.bias") or (found - before[name]).abs().max() > 2 * RATE, name


@pytest.fixture
def alone(monkeypatch):
    """One device."""
    mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
    monkeypatch.setattr(relearning, "_mesh", lambda rows: mesh)


def test_one_device_and_eight_give_the_same(params, pairs, after, alone):
    found = relearn(params, pairs)[20]
    differences = [
        np.abs(np.asarray(one) - eight).ravel()
        for one, eight in zip(jax.tree.leaves(found), jax.tree.leaves(after[20]), strict=True)
    ]
    every = np.concatenate(differences)
    # A sum in another order rounds gradients differently, and Adam divides by them: where one is all but zero, a parameter
    # moves by a small part of a step.
    assert np.quantile(every, 0.999) < 1e-5
    assert every.max() < RATE / 20


@pytest.mark.slow
def test_two_processes_give_the_same_as_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    program = ROOT / "tests" / "support" / "relearning_inputs.py"
    flags = f"--xla_force_host_platform_device_count=4 {xla_flags.QUICK} {xla_flags.PATIENT}"
    together = [
        subprocess.Popen(
            [sys.executable, program, tmp_path / f"{process}.npz"],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "XLA_FLAGS": flags,
                "SALMU_COORDINATOR": address,
                "SALMU_PROCESSES": "2",
                "SALMU_PROCESS": str(process),
            },
        )
        for process in range(2)
    ]
    expected = jax.tree.leaves(relearn(drawn_params(), draw_pairs(150))[20])
    assert [process.wait(DEADLINE) for process in together] == [0, 0]
    first, second = (list(np.load(tmp_path / f"{process}.npz").values()) for process in range(2))
    for one, other, alone in zip(first, second, expected, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, alone, rtol=0, atol=1e-5)


def test_devices_that_do_not_divide_a_batch_stay_idle():
    assert relearning._mesh(64).size == 8
    assert relearning._mesh(12).size == 4
    assert relearning._mesh(13).size == 1


def test_a_model_of_the_sigmoid_loss_is_fine_tuned_with_it(pairs, alone):
    config = dataclasses.replace(CONFIG, logit_bias=True)
    params = random_params(config, seed=3)
    params["logit_bias"] = np.float32(-10)
    found = relearn(params, pairs, points=(10,), config=config)[10]
    assert found["logit_bias"] != params["logit_bias"]  # which InfoNCE does not see


def test_a_rate_that_diverges_gives_no_model(params, pairs):
    broken = jax.tree.map(np.array, params)
    broken["visual"]["proj"][:] = np.nan
    found = relearn(broken, pairs, points=(10, 20))
    assert found == {10: None, 20: None}


def test_no_pair_is_twice_in_a_batch_and_all_are_taken():
    few, some = draw_pairs(13), draw_pairs(130)
    assert [len(next(few.batches(0))) for _ in range(3)] == [13] * 3
    batches = some.batches(0)
    taken = [next(batches) for _ in range(8)]
    assert all(len(set(batch)) == 64 for batch in taken)
    assert len(set(np.concatenate(taken))) == 130
    again = some.batches(0)
    np.testing.assert_array_equal(taken, [next(again) for _ in range(8)])


def test_pairs_are_read_by_row_and_their_padding_is_cut_off():
    pixels = np.arange(600 * 16 * 16 * 3, dtype=np.uint32).astype(np.uint8).reshape(600, 16, 16, 3)
    store = types.SimpleNamespace(image_size=16, batch=lambda start, stop: pixels[start:stop])
    rows = np.array([0, 3, 255, 256, 599])
    texts = [f"text {row}" for row in range(600)]

    def tokenizer(texts):
        return np.array([[9, int(text.split()[1]), *[1] * 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] for text in texts])

    pairs = relearning.Pairs.read(store, texts, rows, tokenizer)
    np.testing.assert_array_equal(pairs.images, pixels[rows])
    np.testing.assert_array_equal(pairs.tokens[:, 1], rows)
    assert pairs.tokens.shape == (5, 16)


def test_parts_are_drawn_by_rows_and_by_identities_and_nested():
    names = np.array([f"{person:03d}" for person in np.random.default_rng(0).integers(0, 48, 1296)])
    for labels, purpose in ((np.arange(1296), draws.RELEARN_ROWS), (names, draws.RELEARN_IDENTITIES)):
        one, five, ten = (draws.draw_part(labels, share, 42, purpose) for share in (0.01, 0.05, 0.1))
        assert 0 < one.sum() < five.sum() < ten.sum() < 1296
        assert not (one & ~five).any()
        assert not (five & ~ten).any()
        assert not np.array_equal(ten, draws.draw_part(labels, 0.1, 43, purpose))
    assert draws.draw_part(np.arange(1296), 0.1, 42, draws.RELEARN_ROWS).sum() == 130
    people = names[ten]
    assert len(set(people)) == 5
    assert ten.sum() == np.isin(names, people).sum()  # with all of their rows
    codes = np.unique(names, return_inverse=True)[1] * 2 + 1  # as results number identities
    np.testing.assert_array_equal(draws.draw_part(codes, 0.1, 42, draws.RELEARN_IDENTITIES), ten)
    assert draws.draw_part(np.arange(4), 0.01, 42, draws.RELEARN_ROWS).sum() == 1
