"""Each loss, and its gradient, against an independent transcription in PyTorch float64, on degenerate batches too.

The stand-in of a CLIP is a table of embeddings. What is permuted is drawn as the method draws it; the tests of
``test_unlearning_losses.py`` show that it is a permutation.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from salmu_jax.unlearning import registry
from salmu_jax.unlearning.losses import contrastive, contrastive_rows
from salmu_jax.unlearning.method import Bound, Pairs, StepInfo
from salmu_jax.unlearning.step import Start, init_unlearning_state, make_unlearning_step


@dataclasses.dataclass(frozen=True)
class TableClip:
    """Embeddings are rows of the parameters, the row being the first pixel or token."""

    def encode_image(self, params, images):
        return params["visual"]["rows"][images[:, 0, 0, 0]]

    def encode_text(self, params, tokens):
        return params["text"]["rows"][tokens[:, 0]]


# Batches -------------------------------------------------------------------------------------------------------------------

STREAMS = ("forget", "retain", "invented", "absent")


def unit_tables(seed: int, rows: int, width: int = 5) -> dict[str, Any]:
    draw = np.random.default_rng(seed)

    def unit(count):
        drawn = draw.normal(size=(count, width))
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    return {"visual": {"rows": unit(rows)}, "text": {"rows": unit(3 * rows)}, "logit_scale": draw.uniform(0.5, 1.5)}


def make_batch(size: int, *, equal: bool = False) -> dict[str, Pairs]:
    """A batch of all streams of all methods; with ``equal``, all captions of a stream are the same one."""
    found = {}
    for number, name in enumerate(STREAMS):
        rows = number * size + np.arange(size)
        images = np.broadcast_to(rows.astype(np.uint8)[:, None, None, None], (size, 1, 1, 3))
        tokens = np.full_like(rows, rows[0]) if equal else rows
        others = {other: (tokens + (4 + place) * size)[:, None] for place, other in enumerate(("generic", "alias"))}
        found[name] = Pairs(np.ascontiguousarray(images), tokens[:, None].astype(np.int32), others)
    return found


@dataclasses.dataclass
class Case:
    """Parameters, those of the start model, and a batch."""

    params: dict[str, Any]
    start: dict[str, Any]
    batch: dict[str, Pairs]
    prepared: np.ndarray


def case(name: str) -> Case:
    size = 1 if name == "one row" else 4
    start = unit_tables(1, 4 * size)
    params = start if name == "at the start" else unit_tables(0, 4 * size)
    prepared = unit_tables(2, 1)["visual"]["rows"][0]
    return Case(params, start, make_batch(size, equal=name == "equal captions"), prepared)


CASES = ("any", "one row", "equal captions", "at the start")


# The transcriptions --------------------------------------------------------------------------------------------------------


class Side:
    """A model in PyTorch: its embeddings of the rows of a stream."""

    def __init__(self, params: dict[str, Any], batch: dict[str, Pairs]):
        self.image_rows, self.text_rows, self.scale = (
            torch.tensor(np.asarray(value), dtype=torch.float64, requires_grad=True)
            for value in (params["visual"]["rows"], params["text"]["rows"], params["logit_scale"])
        )
        self.batch = batch

    def images(self, stream):
        return self.image_rows[torch.tensor(self.batch[stream].images[:, 0, 0, 0], dtype=torch.int64)]

    def texts(self, stream, other=None):
        tokens = self.batch[stream].others[other] if other else self.batch[stream].tokens
        return self.text_rows[torch.tensor(tokens[:, 0], dtype=torch.int64)]

    def similarities(self, stream):
        return self.images(stream) @ self.texts(stream).T

    def logits(self, stream):
        return self.scale.exp() * self.similarities(stream)

    def contrastive(self, images, texts):
        return clip_loss(self.scale.exp() * images @ texts.T)


def clip_loss(logits, reduction="mean"):
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own, reduction=reduction) + F.cross_entropy(logits.T, own, reduction=reduction)) / 2


def kl(start, logits):
    """KL(start || logits) of rows plus that of columns."""
    found = 0.0
    for a, b in ((start, logits), (start.T, logits.T)):
        found += F.kl_div(F.log_softmax(b, 1), F.log_softmax(a, 1), log_target=True, reduction="batchmean")
    return found


def own_cosine(f, stream="forget"):
    return (f.images(stream) * f.texts(stream)).sum(1).mean()


def drift(f, f0, stream):
    return (f.texts(stream) - f0.texts(stream)).square().sum(1).mean()


def delete_salmu(f, f0):
    forgetting = 2 * f.similarities("forget").square().mean()
    return forgetting + 2 * F.mse_loss(f.similarities("retain"), f0.similarities("retain"))


def unimodal(f, f0):
    return F.mse_loss(f.images("retain"), f0.images("retain")) + F.mse_loss(f.texts("retain"), f0.texts("retain"))


def retain_loss(f):
    return f.contrastive(f.images("retain"), f.texts("retain"))


def vlunlearn(f, f0, pi):
    def fused(side):
        return F.normalize((side.images("retain") + side.texts("retain")) / 2)

    unrelated = f0.images("forget") @ f0.texts("forget")[pi].T
    decoupling = 2 * F.mse_loss(f.similarities("forget"), unrelated)
    return decoupling + F.mse_loss(fused(f), fused(f0)) + unimodal(f, f0)


def shuffled(f, pi):
    return f.contrastive(f.images("forget"), f.texts("forget")[pi])


def delete_masked(f, f0):
    start, logits = f0.logits("forget"), f.logits("forget")
    if len(start) == 1:
        return 0 * logits.sum()
    start = start.masked_fill(torch.eye(len(start), dtype=torch.bool), -torch.inf)
    halves = [
        F.kl_div(F.log_softmax(b, 1), F.softmax(a, 1), reduction="batchmean")
        for a, b in ((start, logits), (start.T, logits.T))
    ]
    return sum(halves) / 2


def npo(f, f0, b):
    found = []
    for now, start in ((f.logits("forget"), f0.logits("forget")), (f.logits("forget").T, f0.logits("forget").T)):
        own = torch.arange(len(now))
        log_ratio = F.cross_entropy(start, own, reduction="none") - F.cross_entropy(now, own, reduction="none")
        found.append(-(2 / b) * F.logsigmoid(-b * log_ratio).mean())
    return sum(found) / 2


def alignment_calibration(f, alpha, beta):
    images, texts = (torch.cat([embed("forget"), embed("retain")]) for embed in (f.images, f.texts))
    losses, n = clip_loss(f.scale.exp() * images @ texts.T, "none"), len(f.images("forget"))
    calibrated = (losses[n:].sum() + alpha * losses[:n].sum()) / (n + alpha * n)
    return calibrated + beta * (n / (2 * n)) * own_cosine(f)


def scrub(f, f0, epoch):
    if epoch >= 1:
        return -kl(f0.logits("forget"), f.logits("forget")) / 2
    return 0.5 * kl(f0.logits("retain"), f.logits("retain")) / 2 + 3 * retain_loss(f)


def pinned_surrogates(f, f0, prepared):
    image = f0.images("forget")
    excess = F.relu((image * f.texts("forget")).sum(1) - image @ torch.tensor(prepared))
    alias = (f.texts("forget") - f0.texts("forget", "alias")).square().sum(1).mean()
    pins = 4 * drift(f, f0, "retain") + 8 * drift(f, f0, "invented") + 10 * drift(f, f0, "absent")
    return 20 * excess.square().mean() + 0.5 * alias + pins


@dataclasses.dataclass(frozen=True)
class Transcribed:
    """``loss(f, f0, pi, prepared)`` is what the terms of a method with ``options`` add up to."""

    method: str
    loss: Callable[..., Any]
    options: Any = ()
    epoch: float = 0.0
    step: int = 0  # of 50
    draws: bool = False


TRANSCRIBED = [
    Transcribed("finetuning", lambda f, f0, pi, u: retain_loss(f)),
    Transcribed("negative_gradient", lambda f, f0, pi, u: f.contrastive(f.images("forget"), f.texts("forget"))),
    *(
        Transcribed(name, lambda f, f0, pi, u: f.contrastive(f.images("forget"), f.texts("forget")))
        for name in ("relearn", "task_vector", "negmerge")
    ),
    Transcribed("munba", lambda f, f0, pi, u: shuffled(f, pi) + retain_loss(f), draws=True),
    Transcribed("weight_soup", lambda f, f0, pi, u: own_cosine(f) + retain_loss(f)),
    Transcribed("targeted_forgetting", lambda f, f0, pi, u: own_cosine(f)),
    Transcribed("targeted_forgetting", lambda f, f0, pi, u: retain_loss(f), step=40),
    Transcribed("shuffled_captions", lambda f, f0, pi, u: shuffled(f, pi), draws=True),
    Transcribed(
        "generic_captions", lambda f, f0, pi, u: f.contrastive(f.images("forget"), f.texts("forget", "generic"))
    ),
    Transcribed("direct_similarity_minimisation", lambda f, f0, pi, u: own_cosine(f)),
    Transcribed("vlunlearn", lambda f, f0, pi, u: vlunlearn(f, f0, pi), draws=True),
    Transcribed("cliperase", lambda f, f0, pi, u: delete_salmu(f, f0) + unimodal(f, f0)),
    Transcribed("delete", lambda f, f0, pi, u: delete_salmu(f, f0)),
    Transcribed(
        "cliperase_paper",
        lambda f, f0, pi, u: retain_loss(f) + 3 * own_cosine(f) + 3 * kl(f0.logits("retain"), f.logits("retain")),
    ),
    Transcribed("delete_paper", lambda f, f0, pi, u: delete_masked(f, f0)),
    Transcribed(
        "salun", lambda f, f0, pi, u: shuffled(f, pi) + 2 * retain_loss(f), (("retention_weight", 2.0),), draws=True
    ),
    *(
        Transcribed(
            "scrub",
            functools.partial(lambda f, f0, pi, u, epoch: scrub(f, f0, epoch), epoch=epoch),
            (("divergence_weight", 0.5), ("task_weight", 3.0)),
            epoch,
        )
        for epoch in (0.5, 1.5)
    ),
    Transcribed("npo", lambda f, f0, pi, u: npo(f, f0, 0.1) + retain_loss(f)),
    Transcribed(
        "npo",
        lambda f, f0, pi, u: npo(f, f0, 5) + 2 * retain_loss(f),
        (("beta", 5.0), ("retention_weight", 2.0)),
    ),
    *(
        Transcribed(
            "alignment_calibration",
            functools.partial(lambda f, f0, pi, u, a, b: alignment_calibration(f, a, b), a=alpha, b=beta),
            (("alpha", alpha), ("beta", beta)),
        )
        for alpha, beta in ((0.0, 1.0), (0.7, 2.0), (-0.5, 0.3))
    ),
    Transcribed(
        "gradient_projection",
        lambda f, f0, pi, u: retain_loss(f) - 0.5 * f.contrastive(f.images("forget"), f.texts("forget")),
        (("forgetting_weight", 0.5),),
    ),
    Transcribed("pinned_surrogates", lambda f, f0, pi, u: pinned_surrogates(f, f0, u)),
]


@jax.jit
def compute(params, start, batch, prepared):
    """The sum of the terms, and its gradient, of everything transcribed: one program a batch size."""

    def loss(params, one, method):
        info = StepInfo(jnp.int32(one.step), jnp.float64(one.epoch), 50, jax.random.key(3), prepared)
        terms = method.objectives(batch, Bound(TableClip(), params), Bound(TableClip(), start), info)
        return sum(terms.values())

    methods = [registry.get(one.method).with_options(dict(one.options)) for one in TRANSCRIBED]
    return [jax.value_and_grad(loss)(params, one, method) for one, method in zip(TRANSCRIBED, methods, strict=True)]


@pytest.fixture(scope="module")
def computed():
    """By the name of a case: what our code makes of it."""
    found = {}
    with jax.enable_x64(True):
        for name in CASES:
            given = case(name)
            arguments = (given.params, given.start, given.batch, given.prepared)
            found[name] = jax.device_get(compute(*jax.tree.map(jnp.asarray, arguments)))
    return found


def assert_near(ours: Any, theirs: Any) -> None:
    """Asserts that the difference is below 1e-6 of the largest entry, and that nothing is NaN."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert np.isfinite(ours).all()
    assert np.abs(ours - theirs).max() <= 1e-6 * np.abs(theirs).max() + 1e-13


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("number", range(len(TRANSCRIBED)), ids=lambda number: TRANSCRIBED[number].method)
def test_loss_and_gradient(number, name, computed):
    one, given = TRANSCRIBED[number], case(name)
    size = len(given.batch["forget"].tokens)
    pi = np.asarray(jax.random.permutation(jax.random.key(3), size)) if one.draws else np.arange(size)
    f, f0 = Side(given.params, given.batch), Side(given.start, given.batch)
    expected = one.loss(f, f0, torch.tensor(pi), given.prepared)
    expected.backward()
    value, gradient = computed[name][number]
    assert value.dtype == np.float64
    assert_near(value, expected.item())
    found = (gradient["visual"]["rows"], gradient["text"]["rows"], gradient["logit_scale"])
    for ours, leaf in zip(found, (f.image_rows, f.text_rows, f.scale), strict=True):
        assert_near(ours, np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy())


@pytest.mark.parametrize("bias", [None, -1.5])
def test_the_mean_of_the_rows_is_the_loss_of_training(bias):
    """InfoNCE, and the sigmoid loss of a model with a logit bias."""
    given = case("any")
    more = {} if bias is None else {"logit_bias": jnp.float32(bias)}
    model = Bound(TableClip(), {**jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), given.params), **more})
    pairs = model.encode_pairs(given.batch["forget"])
    np.testing.assert_allclose(contrastive_rows(model, *pairs).mean(), contrastive(model, *pairs), rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_an_update_along_the_projected_gradient(name):
    """AdamW of PyTorch on the gradient that is projected by hand; where the two gradients agree it is their sum."""
    given = case(name)
    if name == "any":  # the same pairs on both sides: the two losses quarrel
        given.batch["retain"] = given.batch["forget"]
    method = registry.get("gradient_projection")
    hyper = dataclasses.replace(method.defaults, learning_rate=0.1, weight_decay=0.3, warmup_steps=0, total_steps=10)
    with jax.enable_x64(True):
        start = Start(jax.tree.map(jnp.asarray, given.start))
        state = init_unlearning_state(start, method, hyper)._replace(params=jax.tree.map(jnp.asarray, given.params))
        step = jax.jit(make_unlearning_step(TableClip(), method, hyper))
        after = jax.device_get(step(state, jax.tree.map(jnp.asarray, given.batch), start)[0].params)

    f = Side(given.params, given.batch)
    leaves = [f.image_rows, f.text_rows, f.scale]
    retain = torch.autograd.grad(retain_loss(f), leaves)
    forget = torch.autograd.grad(-f.contrastive(f.images("forget"), f.texts("forget")), leaves)
    inner, squared = (sum((a * b).sum() for a, b in zip(x, retain, strict=True)) for x in (forget, retain))
    if name == "any":
        assert inner < 0
    share = min(inner.item(), 0) / squared.item() if squared > 0 else 0.0
    for leaf, g_f, g_r in zip(leaves, forget, retain, strict=True):
        leaf.grad = g_f - share * g_r + g_r
        leaf.grad[leaf.grad.abs() < 1e-15] = 0  # rounding, which Adam would blow up
    decayed = [{"params": leaves[:2], "weight_decay": 0.3}, {"params": leaves[2:], "weight_decay": 0.0}]
    torch.optim.AdamW(decayed, lr=0.1, betas=(hyper.b1, hyper.b2), eps=hyper.eps).step()
    for ours, leaf in zip((after["visual"]["rows"], after["text"]["rows"], after["logit_scale"]), leaves, strict=True):
        np.testing.assert_allclose(ours, leaf.detach().numpy(), rtol=1e-6, atol=1e-7)
