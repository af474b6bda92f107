"""The step: what moves and what does not, how often it differentiates, and what a new method has to bring."""

from __future__ import annotations

import dataclasses
import types
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning import registry
from salmu_jax.unlearning.freeze import TRAIN_ALL, label_parameters, trainable_part
from salmu_jax.unlearning.hyper import Hyper, base_optimizer
from salmu_jax.unlearning.method import Bound, Method, Pairs, identity
from salmu_jax.unlearning.step import (
    Start,
    full_params,
    init_unlearning_state,
    make_unlearning_step,
    run_key,
    step_keys,
)
from salmu_jax.unlearning.streams import Forget, Retain
from salmu_jax.unlearning.transforms import (
    ascend,
    gaussian_noise,
    project_conflicting,
    pull_to_reference,
    saliency_mask,
)

HYPER = Hyper(learning_rate=1e-2, total_steps=50, warmup_steps=0)
TEXT_ONLY = (("visual/.*", "freeze"), ("logit_scale", "freeze"), (".*", "train"))


def run(clip, method, hyper, params, batches, steps, seed=42, trainable=TRAIN_ALL, prepared=None, step=None):
    """``steps`` steps over the stacked ``batches`` in turn, jitted one by one; the states and the metrics."""
    step = step or jax.jit(make_unlearning_step(clip, method, hyper, trainable))
    start = Start(params, prepared=prepared)
    state = init_unlearning_state(start, method, hyper, trainable, seed)
    stacked = jax.tree.leaves(batches)[0].shape[0]
    states, metrics = [state], []
    for index in range(steps):
        batch = jax.tree.map(lambda leaf: leaf[index % stacked], batches)  # noqa: B023 (used at once)
        state, measured = step(state, batch, start)
        states.append(state)
        metrics.append(jax.device_get(measured))
    return states, metrics


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def one(batch):
    """A batch as a stack of one."""
    return jax.tree.map(lambda leaf: leaf[None], batch)


# A step alone is tried here; methods that also prepare something run whole in test_unlearning_run.py.
GRADIENT_METHODS = [
    name
    for name, method in registry.METHODS.items()
    if method.takes_steps()
    and method.prepare is Method.prepare
    and method.parametrise is Method.parametrise
    and name != "negmerge"  # whose steps come back to the start model thirty times: test_task_vectors.py
]


@pytest.mark.parametrize("name", GRADIENT_METHODS)
def test_steps_move_the_loss_where_the_method_wants_it(name, table):
    clip, params, _, batch = table
    _, metrics = run(clip, registry.get(name), HYPER, params, one(batch), steps=12)
    if name not in ("shuffled_captions", "vlunlearn"):  # these draw another permutation, another loss, at every step
        assert (metrics[-1]["loss/total"] > metrics[0]["loss/total"]) == (name == "negative_gradient")
    terms = [value for key, value in metrics[0].items() if key.startswith("loss/") and key != "loss/total"]
    np.testing.assert_allclose(metrics[0]["loss/total"], sum(terms), rtol=1e-6)
    assert all(np.shape(value) == () and np.isfinite(value) for step in metrics for value in step.values())
    assert metrics[0]["update_norm"] > 0


def test_cliperase_erases_the_forget_similarities_of_a_real_clip_without_touching_what_is_frozen(real):
    clip, params, batches = real
    params = {**params, "visual": {**params["visual"], "class_embedding": -jnp.zeros(8)}}  # -0.0 + 0.0 loses a bit
    method, hyper = registry.get("cliperase"), dataclasses.replace(HYPER, weight_decay=0.1)
    step = make_unlearning_step(clip, method, hyper, TEXT_ONLY)

    @jax.jit
    def scanned(state, batches, start):
        return jax.lax.scan(lambda s, batch: step(s, batch, start), state, batches)

    @jax.jit
    def squared_similarity(params, pairs):
        image, text = Bound(clip, params).encode_pairs(pairs)
        return jnp.mean((image @ text.T) ** 2)

    repeated = jax.tree.map(lambda leaf: jnp.tile(leaf, (10,) + (1,) * (leaf.ndim - 1)), batches)
    start = Start(params)
    state, metrics = scanned(init_unlearning_state(start, method, hyper, TEXT_ONLY), repeated, start)
    after = full_params(state.params, start, identity, TEXT_ONLY)
    forget = jax.tree.map(lambda leaf: leaf[0], batches["forget"])
    assert squared_similarity(after, forget) < 0.5 * squared_similarity(params, forget)
    np.testing.assert_allclose(metrics["loss/forgetting"][0], 2 * squared_similarity(params, forget), rtol=1e-5)
    assert max(metrics["loss/retention"][0], metrics["loss/consistency"][0]) < 1e-12  # starts at the reference
    assert int(state.step) == 30

    for frozen in ("visual", "logit_scale"):
        assert bits(after[frozen]) == bits(params[frozen])
        assert jax.tree.leaves(state.params[frozen]) == []
    assert all(a != b for a, b in zip(bits(state.params["text"]), bits(params["text"]), strict=True))
    moments = [leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim > 0]
    assert sorted(moments) == sorted(2 * [leaf.size for leaf in jax.tree.leaves(params["text"])])


def test_frozen_leaves_are_not_differentiated(table):
    _, params, _, batch = table
    start = Start(params)
    passes = CountingClip(RowsClip())
    step = make_unlearning_step(passes, registry.get("delete"), HYPER, TEXT_ONLY)
    jax.make_jaxpr(step)(init_unlearning_state(start, registry.get("delete"), HYPER, TEXT_ONLY), batch, start)
    assert passes.backward == {"visual": 0, "text": 2}  # the captions of F and of R


def test_weight_decay_acts_on_matrices_only():
    @dataclasses.dataclass(frozen=True)
    class Still(Method):
        """No term, so that weight decay alone moves anything."""

        name: ClassVar[str] = "still"

        def objectives(self, batch, model, reference, info):
            return {"zero": jnp.float32(0)}

    params = {"matrix": jnp.ones((2, 2)), "bias": jnp.ones(2), "logit_scale": jnp.float32(1.0)}
    hyper = dataclasses.replace(HYPER, weight_decay=0.5)
    states, metrics = run(None, Still(), hyper, params, {"nothing": Pairs(None, jnp.zeros((1, 1, 1)))}, steps=1)
    np.testing.assert_allclose(states[-1].params["matrix"], 1 - 0.5 * 1e-2, rtol=1e-6)
    assert bits(states[-1].params["bias"]) == bits(params["bias"])
    assert bits(states[-1].params["logit_scale"]) == bits(params["logit_scale"])
    assert metrics[0]["gradient_norm"] == 0


def test_the_temperature_stays_within_the_bounds_of_training(table):
    clip, params, _, batch = table
    states, _ = run(
        clip, registry.get("finetuning"), Hyper(learning_rate=50.0, total_steps=2), params, one(batch), steps=1
    )
    assert float(states[-1].params["logit_scale"]) in (0.0, pytest.approx(np.log(100)))


@pytest.mark.optimised
def test_scan_equals_a_loop(table):
    clip, params, _, batch = table
    method = registry.get("vlunlearn")
    pairs = batch["forget"]._replace(others={})
    both = {"forget": pairs, "retain": batch["retain"]}, {"forget": batch["retain"], "retain": pairs}
    batches = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(both * 3))
    states, metrics = run(clip, method, HYPER, params, batches, steps=6)
    step = make_unlearning_step(clip, method, HYPER)
    state, stacked = jax.jit(
        lambda state, batches: jax.lax.scan(lambda s, batch: step(s, batch, Start(params)), state, batches)
    )(init_unlearning_state(Start(params), method, HYPER), batches)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(states[-1]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for name, values in stacked.items():
        np.testing.assert_allclose(values, [measured[name] for measured in metrics], rtol=1e-4, atol=1e-6)


def test_a_donated_state_leaves_the_reference_alone(table):
    clip, params, _, batch = table
    method = registry.get("delete")
    step = jax.jit(make_unlearning_step(clip, method, HYPER), donate_argnums=0)
    start = Start(params)
    state, before = init_unlearning_state(start, method, HYPER), bits(params)
    for _ in range(2):
        state, _ = step(state, batch, start)
    assert bits(params) == before


@pytest.mark.optimised
def test_one_seed_one_result(table):
    clip, params, _, batch = table
    method, still = registry.get("shuffled_captions"), Hyper(learning_rate=0.0, total_steps=50)

    compiled = jax.jit(make_unlearning_step(clip, method, HYPER))

    def final(seed, hyper, step=None):
        states, metrics = run(clip, method, hyper, params, one(batch), steps=4, seed=seed, step=step)
        return bits(states[-1].params), [float(step["loss/total"]) for step in metrics]

    first, again, other = final(42, HYPER, compiled), final(42, HYPER), final(43, HYPER, compiled)
    assert first == again
    assert first[0] != other[0]
    assert len(set(final(42, still)[1])) > 2  # the draws differ from step to step: nothing else moves here


def test_draws_follow_the_step_and_not_the_history(table):
    clip, params, _, batch = table
    method = registry.get("shuffled_captions")
    step = jax.jit(make_unlearning_step(clip, method, HYPER))
    states, metrics = run(clip, method, HYPER, params, one(batch), steps=5, step=step)
    resumed, measured = step(jax.tree.map(jnp.asarray, jax.device_get(states[3])), batch, Start(params))
    assert bits(resumed) == bits(states[4])
    assert measured["loss/total"] == metrics[3]["loss/total"]


def test_descent_to_delete_adds_noise_once():
    params = {"visual": jnp.ones(10), "text": {"a": jnp.ones((60, 60)), "b": jnp.ones(60)}, "logit_scale": jnp.ones(())}
    method = registry.get("descent_to_delete")
    prepared = method.prepare(types.SimpleNamespace(hyper=method.defaults, seed=42))
    finished = method.finish(params, params, prepared)
    noise = np.concatenate([np.ravel(leaf) - 1 for leaf in jax.tree.leaves(finished)])
    np.testing.assert_allclose([noise.mean(), noise.std()], [0.0, 0.07342], atol=0.005)
    # As a first step's transform drew it, which the method was before.
    zeros = jax.tree.map(jnp.zeros_like, params)
    drawn, _ = gaussian_noise(prepared["sigma"]).update(zeros, None, rng=step_keys(run_key(42), 0)[1])
    assert bits(finished) == bits(optax.apply_updates(params, drawn))
    other = method.finish(params, params, method.prepare(types.SimpleNamespace(hyper=method.defaults, seed=43)))
    assert bits(other) != bits(finished)


class CountingClip:
    """A model that counts how often its encoders are differentiated (when traced)."""

    def __init__(self, clip):
        self.backward = {"visual": 0, "text": 0}
        self.encode_image = self._counted("visual", clip.encode_image)
        self.encode_text = self._counted("text", clip.encode_text)

    def _counted(self, tower, encode):
        @jax.custom_vjp
        def encoded(params, inputs):
            return encode(params, inputs)

        def forward(params, inputs):
            return jax.vjp(lambda p: encode(p, inputs), params)

        def backward(pullback, cotangent):
            self.backward[tower] += 1
            return *pullback(cotangent), None

        encoded.defvjp(forward, backward)
        return lambda params, inputs: encoded(params[tower], inputs)


class RowsClip:
    """The encoders of a stand-in, given their own tower's parameters only."""

    def encode_image(self, tower, images):
        return tower["rows"][images[:, 0, 0, 0]]

    def encode_text(self, tower, tokens):
        return tower["rows"][tokens[:, 0]]


@dataclasses.dataclass(frozen=True)
class Surgery(Method):
    """A method that exists only here: a forget gradient projected against the retain gradient, and a pull back."""

    name: ClassVar[str] = "surgery"
    title: ClassVar[str] = "Surgery"
    reference: ClassVar[str] = "nobody"
    streams: ClassVar[dict] = {"forget": Forget(), "retain": Retain()}
    separate_gradients: ClassVar[tuple[str, ...]] = ("forget", "retain")

    forget_weight: float = 1.0

    def objectives(self, batch, model, reference, info):
        forget = jnp.mean(jnp.square(jnp.matmul(*_crossed(model, batch["forget"]))))
        kept = jnp.mean(jnp.square(jnp.matmul(*_crossed(model, batch["retain"])) - 1))
        return {
            "forget": self.forget_weight * forget,
            "retain": kept,
            "more": 0.1 * jnp.mean(model.encode_image(batch["retain"].images)),
            "yet_more": 0.1 * jnp.mean(model.encode_text(batch["retain"].tokens)),
        }

    def transform(self, hyper):
        surgery = optax.chain(project_conflicting("forget", "retain"), pull_to_reference(0.1))
        return optax.chain(surgery, optax.sgd(hyper.learning_rate))


def _crossed(model, pairs):
    image, text = model.encode_pairs(pairs)
    return image, text.T


def test_no_more_backward_passes_than_the_transform_needs(table):
    _, params, _, batch = table

    def passes(method):
        counting = CountingClip(RowsClip())
        start = Start(params)
        state = init_unlearning_state(start, method, HYPER)
        jax.make_jaxpr(make_unlearning_step(counting, method, HYPER))(state, batch, start)
        return counting.backward

    assert passes(registry.get("negative_gradient")) == {"visual": 1, "text": 1}
    assert passes(registry.get("cliperase")) == {"visual": 2, "text": 2}  # F and R, for three terms together

    class Together(Surgery):
        separate_gradients = ()
        transform = Method.transform

    # All together: images of F, of R, and of R in "more". Separately the same, each only where its own term needs it.
    assert passes(Together()) == passes(Surgery()) == {"visual": 3, "text": 3}


class DeepClip:
    """Six square products a tower: enough work in the forward pass to see it."""

    def encode_image(self, params, images):
        return self._encode(params["visual"], images[:, 0, :, 0] / 255)

    def encode_text(self, params, tokens):
        return self._encode(params["text"], tokens / 100)

    def _encode(self, layers, x):
        for layer in range(6):
            x = jnp.tanh(x @ layers[layer])
        return x


def test_separate_gradients_share_the_forward_pass():
    clip, size, width = DeepClip(), 64, 32
    layers = jax.random.normal(jax.random.key(0), (2, 6, width, width)) / width**0.5
    params = {"visual": layers[0], "text": layers[1], "logit_scale": jnp.float32(1)}
    draws = np.random.default_rng(0).integers(0, 100, (2, size, width))
    forget, retain = (
        Pairs(jnp.asarray(d[:, None, :, None].repeat(3, -1), jnp.uint8), jnp.asarray(d, jnp.int32)) for d in draws
    )

    def flops(function, *arguments):
        return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]

    def of_step(method):
        start = Start(params)
        state = init_unlearning_state(start, method, HYPER)
        return flops(make_unlearning_step(clip, method, HYPER), state, {"forget": forget, "retain": retain}, start)

    class Apart(type(registry.get("delete"))):
        separate_gradients = ("forgetting", "retention")

    forward = flops(lambda p: Bound(clip, p).encode_pairs(forget), params)
    assert of_step(Apart()) < of_step(registry.get("delete")) + 0.5 * forward


def test_a_new_method_needs_nothing_but_the_contract(table, monkeypatch):
    clip, params, reference_params, batch = table
    batch = {**batch, "retain": batch["forget"]}  # the same pairs, so that the two terms quarrel
    monkeypatch.setitem(registry.METHODS, Surgery.name, Surgery)
    method, hyper = registry.get("surgery"), dataclasses.replace(HYPER, options={"forget_weight": -2.0})
    step = jax.jit(make_unlearning_step(clip, method, hyper))
    start = Start(reference_params)
    state = init_unlearning_state(start, method, hyper)._replace(params=params)
    state, metrics = step(state, batch, start)

    # The same update by hand.
    method = method.with_options(hyper.options)

    def term(name):
        return jax.grad(lambda p: method.objectives(batch, Bound(clip, p), None, None)[name])(params)

    forget, retain = term("forget"), term("retain")
    conflict = float(optax.tree.vdot(forget, retain)) / float(optax.tree.vdot(retain, retain))
    assert conflict < -0.01
    moved = jax.tree.map(
        lambda f, r, m, y, p, p0: p - 1e-2 * (f - conflict * r + r + m + y + 0.1 * (p - p0)),
        *(forget, retain, term("more"), term("yet_more"), params, reference_params),
    )
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    total = jax.tree.map(lambda *g: sum(g), forget, retain, term("more"), term("yet_more"))
    np.testing.assert_allclose(metrics["gradient_norm"], optax.tree.norm(total), rtol=1e-5)
    assert set(metrics) == {
        *("loss/forget", "loss/retain", "loss/more", "loss/yet_more", "loss/total"),
        *("gradient_norm", "update_norm"),
    }
    with pytest.raises(InputError, match="did you mean 'forget_weight'"):
        make_unlearning_step(clip, method, dataclasses.replace(HYPER, options={"forget_wait": 1.0}))


def test_separate_gradients_of_a_term_that_does_not_exist(table):
    clip, params, _, batch = table

    class Mistaken(Surgery):
        separate_gradients = ("forget", "retian")

    start = Start(params)
    state = init_unlearning_state(start, Mistaken(), HYPER)
    with pytest.raises(ValueError, match="retian"):
        make_unlearning_step(clip, Mistaken(), HYPER)(state, batch, start)


def test_what_is_prepared_reaches_the_objectives_and_the_transform(table):
    @dataclasses.dataclass(frozen=True)
    class Salient(Method):
        """Moves only the entries that a mask selects."""

        name: ClassVar[str] = "salient"

        def objectives(self, batch, model, reference, info):
            image, text = model.encode_pairs(batch["forget"])
            return {"forgetting": info.prepared["weight"] * jnp.mean(jnp.sum(image * text, axis=-1))}

        def transform(self, hyper):
            return optax.chain(base_optimizer(hyper), saliency_mask())

    clip, params, _, batch = table
    draw = np.random.default_rng(0)
    part = trainable_part(params, label_parameters(params, TEXT_ONLY))
    prepared = {"mask": jax.tree.map(lambda leaf: jnp.asarray(draw.random(leaf.shape) < 0.5), part), "weight": 2.0}
    states, metrics = run(clip, Salient(), HYPER, params, one(batch), 2, trainable=TEXT_ONLY, prepared=prepared)
    image, text = (params[tower]["rows"][:4] for tower in ("visual", "text"))
    np.testing.assert_allclose(metrics[0]["loss/forgetting"], 2 * jnp.mean(jnp.sum(image * text, axis=-1)), rtol=1e-5)
    moved = jax.tree.map(lambda new, old: new != old, states[-1].params["text"], params["text"])
    for changed, salient in zip(jax.tree.leaves(moved), jax.tree.leaves(prepared["mask"]), strict=True):
        assert not np.any(changed & ~np.asarray(salient))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(moved))
    with pytest.raises(InputError, match="prepares no 'mask'"):
        run(clip, Salient(), HYPER, params, one(batch), steps=1, prepared={"weight": 1.0})


@pytest.mark.optimised
def test_a_method_may_train_something_else_than_the_parameters(table):
    """Low-rank factors, as LoRA has them; the update is that of the chain rule, and the start model keeps its bits."""
    clip, params, _, batch = table
    draw = np.random.default_rng(3)

    def normal(*shape):
        return jnp.asarray(draw.normal(size=shape), jnp.float32)

    factors = {"text": {"a": normal(24, 2), "b": normal(2, 3)}}

    def bind(trainable, params):
        rows = params["text"]["rows"] + trainable["text"]["a"] @ trainable["text"]["b"]
        return {**params, "text": {"rows": rows}}

    @dataclasses.dataclass(frozen=True)
    class LowRank(type(registry.get("direct_similarity_minimisation"))):
        def transform(self, hyper):
            return optax.with_extra_args_support(optax.sgd(hyper.learning_rate))

    start, only_a, before = Start(params, factors), ((".*/b", "freeze"), (".*", "train")), bits(params)
    step = jax.jit(make_unlearning_step(clip, LowRank(), HYPER, only_a, bind=bind))
    state = init_unlearning_state(start, LowRank(), HYPER, only_a)
    state, metrics = step(state, batch, start)

    image = np.asarray(params["visual"]["rows"], float)[:4]
    a, b = (np.asarray(factors["text"][name], float) for name in "ab")
    texts = np.asarray(params["text"]["rows"], float)
    np.testing.assert_allclose(
        metrics["loss/forgetting"], np.mean(np.sum(image * (texts + a @ b)[:4], axis=1)), rtol=1e-5
    )
    gradient = np.zeros_like(texts)
    gradient[:4] = image / 4
    np.testing.assert_allclose(state.params["text"]["a"], a - 1e-2 * gradient @ b.T, atol=1e-6)
    assert jax.tree.leaves(state.params["text"]["b"]) == []
    assert [leaf.shape for leaf in jax.tree.leaves(state.params)] == [(24, 2)]
    full = full_params(state.params, start, bind, only_a)
    np.testing.assert_allclose(
        full["text"]["rows"], texts + np.asarray(state.params["text"]["a"], float) @ b, rtol=1e-5
    )
    assert bits(params) == before


def test_objectives_know_step_epoch_and_length(table):
    @dataclasses.dataclass(frozen=True)
    class Phases(Method):
        """Another term in every second pass over forget."""

        name: ClassVar[str] = "phases"

        def objectives(self, batch, model, reference, info):
            odd = jnp.floor(info.epoch).astype(jnp.int32) % 2 == 1
            return {
                "phase": jax.lax.cond(odd, lambda: jnp.float32(1), lambda: jnp.float32(0)),
                "step": info.step.astype(jnp.float32),
                "epoch": info.epoch,
                "length": jnp.float32(info.total_steps),
            }

    clip, params, _, batch = table
    step = jax.jit(make_unlearning_step(clip, Phases(), HYPER, epoch_steps=2.5))
    _, metrics = run(clip, Phases(), HYPER, params, one(batch), steps=7, step=step)
    assert [float(one["loss/step"]) for one in metrics] == list(range(7))
    np.testing.assert_allclose([one["loss/epoch"] for one in metrics], np.arange(7) / 2.5, rtol=1e-6)
    assert [float(one["loss/phase"]) for one in metrics] == [0, 0, 0, 1, 1, 0, 0]
    assert metrics[0]["loss/length"] == HYPER.total_steps


@pytest.mark.parametrize(
    ("terms", "answer"),
    [
        (lambda text: text, "has to return loss terms by name, not"),
        (lambda text: {"far": text}, r"the loss term 'far' has to be a scalar, and has the shape \(4, 3\)"),
    ],
)
def test_terms_that_are_no_losses(terms, answer, table):
    clip, params, _, batch = table

    @dataclasses.dataclass(frozen=True)
    class Wrong(Method):
        name: ClassVar[str] = "wrong"

        def objectives(self, batch, model, reference, info):
            return terms(model.encode_text(batch["forget"].tokens))

    start = Start(params)
    with pytest.raises(InputError, match=answer):
        make_unlearning_step(clip, Wrong(), HYPER)(init_unlearning_state(start, Wrong(), HYPER), batch, start)


def test_links_of_the_config_come_before_the_base_optimizer(table):
    clip, params, reference_params, batch = table
    method, sgd = (
        registry.get("negative_gradient"),
        Hyper(learning_rate=1e-2, total_steps=50, warmup_steps=0, b1=0.0, b2=0.0),
    )
    chained = dataclasses.replace(sgd, chain=({"link": "pull_to_reference", "strength": 1e6},))
    start = Start(reference_params)
    for hyper, towards in ((sgd, False), (chained, True)):
        state = init_unlearning_state(start, method, hyper)._replace(params=params)
        state, _ = jax.jit(make_unlearning_step(clip, method, hyper))(state, batch, start)
        rows = params["text"]["rows"] - reference_params["text"]["rows"]
        moved = state.params["text"]["rows"] - params["text"]["rows"]
        # With b1 = b2 = 0 Adam follows signs: those of the pull, which is far stronger than the loss.
        assert bool(np.all(np.sign(moved) == -np.sign(rows))) == towards


def test_ascent_is_the_opposite_of_descent(table):
    clip, params, _, batch = table

    @dataclasses.dataclass(frozen=True)
    class Descent(type(registry.get("negative_gradient"))):
        def transform(self, hyper):
            return optax.sgd(hyper.learning_rate)

    class Ascent(Descent):
        def transform(self, hyper):
            return optax.chain(ascend(), optax.sgd(hyper.learning_rate))

    down, up = (run(clip, m, HYPER, params, one(batch), steps=1)[0][-1].params for m in (Descent(), Ascent()))
    for d, u, p in zip(*(jax.tree.leaves(t) for t in (down, up, params)), strict=True):
        np.testing.assert_allclose(u - p, p - d, atol=1e-6)
