"""Every loss, and its gradient, against a float64 transcription of the benchmark's definitions."""

from __future__ import annotations

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from salmu_jax.unlearning import registry
from salmu_jax.unlearning.method import Bound, StepInfo

SIZE = 4
PERMUTATIONS = [list(p) for p in itertools.permutations(range(SIZE))]


# f: the model being unlearned, f0: the reference. Rows 0..3 are the forget batch, 4..7 the retain batch, 8..11 the
# generic captions. All in numpy float64.


def unpack(params):
    image, text = np.asarray(params["visual"]["rows"], float), np.asarray(params["text"]["rows"], float)
    return image[:4], text[:4], image[4:8], text[4:8], text[8:12], float(params["logit_scale"])


def contrastive(image, text, log_scale):
    logits = np.exp(log_scale) * image @ text.T

    def cross_entropy(rows):
        return np.mean([np.log(np.sum(np.exp(row))) - row[i] for i, row in enumerate(rows)])

    return (cross_entropy(logits) + cross_entropy(logits.T)) / 2


def mse(a, b):
    return np.sum((a - b) ** 2) / a.size


def fused(image, text):
    middle = (image + text) / 2
    return middle / np.sqrt(np.sum(middle**2, axis=1, keepdims=True))


def finetuning(f, f0, pi):
    _, _, image_r, text_r, _, scale = f
    return contrastive(image_r, text_r, scale)


def negative_gradient(f, f0, pi):
    image_f, text_f, _, _, _, scale = f
    return -contrastive(image_f, text_f, scale)


def shuffled_captions(f, f0, pi):
    image_f, text_f, _, _, _, scale = f
    return contrastive(image_f, text_f[pi], scale)


def generic_captions(f, f0, pi):
    image_f, _, _, _, generic, scale = f
    return contrastive(image_f, generic, scale)


def direct_similarity_minimisation(f, f0, pi):
    return np.mean(np.diag(f[0] @ f[1].T))


def vlunlearn(f, f0, pi):
    (image_f, text_f, image_r, text_r, _, _), (image0_f, text0_f, image0_r, text0_r, _, _) = f, f0
    s_f, s0_permuted = image_f @ text_f.T, image0_f @ text0_f[pi].T
    decoupling = mse(s_f, s0_permuted) + mse(s_f.T, s0_permuted.T)
    multimodal = mse(fused(image_r, text_r), fused(image0_r, text0_r))
    return decoupling + multimodal + mse(image_r, image0_r) + mse(text_r, text0_r)


def cliperase(f, f0, pi):
    consistency = mse(f[2], f0[2]) + mse(f[3], f0[3])
    return delete(f, f0, pi) + consistency


def delete(f, f0, pi):
    (image_f, text_f, image_r, text_r, _, _), (_, _, image0_r, text0_r, _, _) = f, f0
    s_f, s_r, s0_r = image_f @ text_f.T, image_r @ text_r.T, image0_r @ text0_r.T
    forgetting = mse(s_f, 0) + mse(s_f.T, 0)
    return forgetting + mse(s_r, s0_r) + mse(s_r.T, s0_r.T)


TRANSCRIBED = {
    function.__name__: function
    for function in (
        finetuning,
        negative_gradient,
        shuffled_captions,
        generic_captions,
        direct_similarity_minimisation,
        vlunlearn,
        cliperase,
        delete,
    )
}
PERMUTING = ("shuffled_captions", "vlunlearn")


def minimised(method, table):
    """A function of the key: (the sum of the terms as the benchmark signs it, its gradient)."""
    clip, params, reference_params, batch = table
    sign = -1 if method.name == "negative_gradient" else 1  # its transform ascends: see the tests of the step

    def loss(p, rng):
        info = StepInfo(jnp.int32(0), jnp.float32(0), 50, rng, None)
        terms = method.objectives(batch, Bound(clip, p), Bound(clip, reference_params), info)
        return sign * sum(terms.values())

    differentiated = jax.jit(jax.value_and_grad(loss))
    return lambda rng: differentiated(params, rng)


def matching_permutations(name, value, params, reference_params):
    f, f0 = unpack(params), unpack(reference_params)
    return [pi for pi in PERMUTATIONS if abs(TRANSCRIBED[name](f, f0, pi) - value) < 2e-6]


def test_every_method_has_a_reference_of_its_own():
    """Here, or in another test file: one that is written independently of the method's code."""
    others = [path.read_text() for path in Path(__file__).parent.rglob("test_*.py") if path.name != Path(__file__).name]
    missing = [
        name for name in registry.METHODS if name not in TRANSCRIBED and not any(name in text for text in others)
    ]
    assert missing == []


@pytest.mark.parametrize("name", TRANSCRIBED)
def test_loss_and_gradient_equal_the_transcription(name, table):
    _, params, reference_params, _ = table
    value, gradient = minimised(registry.get(name), table)(jax.random.key(7))
    matches = matching_permutations(name, value, params, reference_params)
    # A permutation is drawn inside: exactly one of the 24 explains the value, while all do if there is none.
    assert len(matches) == (1 if name in PERMUTING else len(PERMUTATIONS))

    f0, step = unpack(reference_params), 1e-6
    leaves, structure = jax.tree.flatten(jax.tree.map(lambda leaf: np.array(leaf, float), params))
    for leaf, computed in zip(leaves, jax.tree.leaves(gradient), strict=True):
        expected = np.zeros_like(leaf)
        for index in np.ndindex(leaf.shape):
            ends = []
            for sign in (1, -1):
                moved = leaf.copy()
                moved[index] += sign * step
                changed = [moved if other is leaf else other for other in leaves]
                ends.append(TRANSCRIBED[name](unpack(jax.tree.unflatten(structure, changed)), f0, matches[0]))
            expected[index] = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(computed, expected, atol=3e-6)


@pytest.mark.parametrize("name", PERMUTING)
def test_the_permutation_depends_on_the_key_alone(name, table):
    _, params, reference_params, _ = table
    loss = minimised(registry.get(name), table)
    drawn = [loss(jax.random.key(seed))[0] for seed in (0, 1, 2, 3, 4, 5, 0)]
    assert drawn[0] == drawn[-1]
    found = [tuple(matching_permutations(name, value, params, reference_params)[0]) for value in drawn]
    assert len(set(found)) > 2


@pytest.mark.parametrize("name", ["direct_similarity_minimisation", "vlunlearn", "cliperase", "delete"])
def test_losses_of_unscaled_cosines_leave_the_temperature_alone(name, table):
    _, gradient = minimised(registry.get(name), table)(jax.random.key(0))
    assert gradient["logit_scale"] == 0.0


@pytest.mark.parametrize("name", ["vlunlearn", "cliperase", "delete"])
def test_weights_scale_their_own_term(name, table, info_of):
    clip, params, reference_params, batch = table
    method = registry.get(name)
    bound = Bound(clip, params), Bound(clip, reference_params)
    plain = method.objectives(batch, *bound, info_of())
    for option in (field for field in vars(method)):
        weighted = method.with_options({option: 3}).objectives(batch, *bound, info_of())
        term = option.removesuffix("_weight")
        for key, value in plain.items():
            np.testing.assert_allclose(weighted[key], value * (3 if key == term else 1), rtol=1e-6)
        assert term in plain


@pytest.mark.parametrize(
    ("name", "rows", "captions"),
    [
        ("finetuning", slice(4, 8), slice(4, 8)),
        ("negative_gradient", slice(0, 4), slice(0, 4)),
        ("generic_captions", slice(0, 4), slice(8, 12)),
    ],
)
def test_models_with_a_bias_of_the_logits_keep_the_sigmoid_loss_they_were_trained_with(
    name, rows, captions, table, info_of
):
    clip, params, reference_params, batch = table
    biased = {**params, "logit_bias": jnp.float32(-1.5)}
    terms = registry.get(name).objectives(batch, Bound(clip, biased), Bound(clip, reference_params), info_of())
    image, text = (np.asarray(params[tower]["rows"], float) for tower in ("visual", "text"))
    logits = np.exp(float(params["logit_scale"])) * image[rows] @ text[captions].T - 1.5
    signs = 2 * np.eye(4) - 1  # Zhai et al. 2023, algorithm 1
    np.testing.assert_allclose(sum(terms.values()), np.sum(np.log(1 + np.exp(-signs * logits))) / 4, rtol=1e-5)
