"""The step: what moves and what does not, how often it differentiates, and what a new method has to bring."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning import registry
from salmu_jax.unlearning.freeze import TRAIN_ALL
from salmu_jax.unlearning.hyper import Hyper, base_optimizer
from salmu_jax.unlearning.method import Batch, Bound, Method, Pairs
from salmu_jax.unlearning.step import init_unlearning_state, make_unlearning_step, prepare_method
from salmu_jax.unlearning.transforms import ascend, project_conflicting, pull_to_reference

HYPER = Hyper(learning_rate=1e-2, total_steps=50, warmup_steps=0)
TEXT_ONLY = (("visual/.*", "freeze"), ("logit_scale", "freeze"), (".*", "train"))


def run(clip, method, hyper, params, batches, steps, seed=42, trainable=TRAIN_ALL, prepared=None, step=None):
    """``steps`` steps over the stacked ``batches`` in turn, jitted one by one; the states and the metrics."""
    step = step or jax.jit(make_unlearning_step(clip, method, hyper, trainable))
    state = init_unlearning_state(params, method, hyper, trainable, seed)
    stacked = jax.tree.leaves(batches)[0].shape[0]
    states, metrics = [state], []
    for index in range(steps):
        batch = jax.tree.map(lambda leaf: leaf[index % stacked], batches)  # noqa: B023 (used at once)
        state, measured = step(state, batch, params, prepared)
        states.append(state)
        metrics.append(jax.device_get(measured))
    return states, metrics


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def one(batch):
    """A batch as a stack of one."""
    return jax.tree.map(lambda leaf: leaf[None], batch)


GRADIENT_METHODS = [name for name in registry.METHODS if not registry.get(name).one_shot]


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
    def scanned(state, batches, reference_params):
        return jax.lax.scan(lambda s, batch: step(s, batch, reference_params), state, batches)

    @jax.jit
    def squared_similarity(params, pairs):
        image, text = Bound(clip, params).encode_pairs(pairs)
        return jnp.mean((image @ text.T) ** 2)

    repeated = jax.tree.map(lambda leaf: jnp.tile(leaf, (10,) + (1,) * (leaf.ndim - 1)), batches)
    state, metrics = scanned(init_unlearning_state(params, method, hyper, TEXT_ONLY), repeated, params)
    forget = jax.tree.map(lambda leaf: leaf[0], batches.forget)
    assert squared_similarity(state.params, forget) < 0.5 * squared_similarity(params, forget)
    np.testing.assert_allclose(metrics["loss/forgetting"][0], 2 * squared_similarity(params, forget), rtol=1e-5)
    assert max(metrics["loss/retention"][0], metrics["loss/consistency"][0]) < 1e-12  # starts at the reference
    assert int(state.step) == 30

    for frozen in ("visual", "logit_scale"):
        assert bits(state.params[frozen]) == bits(params[frozen])
    assert all(a != b for a, b in zip(bits(state.params["text"]), bits(params["text"]), strict=True))
    moments = [leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim > 0]
    assert sorted(moments) == sorted(2 * [leaf.size for leaf in jax.tree.leaves(params["text"])])


def test_frozen_leaves_are_not_differentiated(table):
    _, params, reference_params, batch = table
    passes = CountingClip(RowsClip())
    step = make_unlearning_step(passes, registry.get("delete"), HYPER, TEXT_ONLY)
    jax.make_jaxpr(step)(
        init_unlearning_state(params, registry.get("delete"), HYPER, TEXT_ONLY), batch, reference_params
    )
    assert passes.backward == {"visual": 0, "text": 2}  # the captions of F and of R


def test_weight_decay_acts_on_matrices_only():
    @dataclasses.dataclass(frozen=True)
    class Still(Method):
        """No term, so that weight decay alone moves anything."""

        name: ClassVar[str] = "still"

        def objectives(self, batch, model, reference, rng):
            return {"zero": jnp.float32(0)}

    params = {"matrix": jnp.ones((2, 2)), "bias": jnp.ones(2), "logit_scale": jnp.float32(1.0)}
    hyper = dataclasses.replace(HYPER, weight_decay=0.5)
    states, metrics = run(None, Still(), hyper, params, {"nothing": jnp.zeros((1, 1))}, steps=1)
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
    other = batch._replace(forget=batch.retain, retain=batch.forget._replace(generic_tokens=None))
    batches = jax.tree.map(
        lambda *leaves: jnp.stack(leaves),
        *([batch._replace(forget=batch.forget._replace(generic_tokens=None)), other] * 3),
    )
    states, metrics = run(clip, method, HYPER, params, batches, steps=6)
    step = make_unlearning_step(clip, method, HYPER)
    state, stacked = jax.jit(
        lambda state, batches: jax.lax.scan(lambda s, batch: step(s, batch, params), state, batches)
    )(init_unlearning_state(params, method, HYPER), batches)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(states[-1]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for name, values in stacked.items():
        np.testing.assert_allclose(values, [measured[name] for measured in metrics], rtol=1e-4, atol=1e-6)


def test_a_donated_state_leaves_the_reference_alone(table):
    clip, params, _, batch = table
    method = registry.get("delete")
    step = jax.jit(make_unlearning_step(clip, method, HYPER), donate_argnums=0)
    state, before = init_unlearning_state(params, method, HYPER), bits(params)
    for _ in range(2):
        state, _ = step(state, batch, params)
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
    resumed, measured = step(jax.tree.map(jnp.asarray, jax.device_get(states[3])), batch, params)
    assert bits(resumed) == bits(states[4])
    assert measured["loss/total"] == metrics[3]["loss/total"]


def test_a_batch_without_what_the_method_needs(table):
    clip, params, _, batch = table
    poor = Batch(batch.forget._replace(generic_tokens=None), None)
    for name, lacking in (("delete", "retain batch"), ("generic_captions", "generic captions")):
        method = registry.get(name)
        with pytest.raises(InputError, match=lacking):
            make_unlearning_step(clip, method, HYPER)(init_unlearning_state(params, method, HYPER), poor, params)


def test_descent_to_delete_adds_noise_once():
    params = {"visual": jnp.ones(10), "text": {"a": jnp.ones((60, 60)), "b": jnp.ones(60)}, "logit_scale": jnp.ones(())}
    method, rules = registry.get("descent_to_delete"), (("text/.*", "train"), (".*", "freeze"))
    states, metrics = run(None, method, method.defaults, params, {"nothing": jnp.zeros((1, 1))}, 1, trainable=rules)
    noise = np.concatenate([np.ravel(leaf) - 1 for leaf in jax.tree.leaves(states[-1].params["text"])])
    np.testing.assert_allclose([noise.mean(), noise.std()], [0.0, 0.07342], atol=0.005)
    for frozen in ("visual", "logit_scale"):
        assert bits(states[-1].params[frozen]) == bits(params[frozen])
    assert metrics[0]["loss/total"] == 0.0
    np.testing.assert_allclose(metrics[0]["update_norm"], np.linalg.norm(noise), rtol=1e-4)


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
    needs: ClassVar[frozenset[str]] = frozenset({"retain"})
    separate_gradients: ClassVar[tuple[str, ...]] = ("forget", "retain")

    forget_weight: float = 1.0

    def objectives(self, batch, model, reference, rng):
        forget = jnp.mean(jnp.square(jnp.matmul(*_crossed(model, batch.forget))))
        kept = jnp.mean(jnp.square(jnp.matmul(*_crossed(model, batch.retain)) - 1))
        return {
            "forget": self.forget_weight * forget,
            "retain": kept,
            "more": 0.1 * jnp.mean(model.encode_image(batch.retain.images)),
            "yet_more": 0.1 * jnp.mean(model.encode_text(batch.retain.tokens)),
        }

    def transform(self, hyper):
        surgery = optax.chain(project_conflicting("forget", "retain"), pull_to_reference(0.1))
        return optax.chain(surgery, optax.sgd(hyper.learning_rate))


def _crossed(model, pairs):
    image, text = model.encode_pairs(pairs)
    return image, text.T


def test_no_more_backward_passes_than_the_transform_needs(table):
    _, params, reference_params, batch = table

    def passes(method):
        counting = CountingClip(RowsClip())
        state = init_unlearning_state(params, method, HYPER)
        jax.make_jaxpr(make_unlearning_step(counting, method, HYPER))(state, batch, reference_params)
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
        state = init_unlearning_state(params, method, HYPER)
        return flops(make_unlearning_step(clip, method, HYPER), state, Batch(forget, retain), params)

    class Apart(type(registry.get("delete"))):
        separate_gradients = ("forgetting", "retention")

    forward = flops(lambda p: Bound(clip, p).encode_pairs(forget), params)
    assert of_step(Apart()) < of_step(registry.get("delete")) + 0.5 * forward


def test_a_new_method_needs_nothing_but_the_contract(table, monkeypatch):
    clip, params, reference_params, batch = table
    batch = batch._replace(retain=batch.forget)  # the same pairs, so that the two terms quarrel
    monkeypatch.setitem(registry.METHODS, Surgery.name, Surgery)
    method, hyper = registry.get("surgery"), dataclasses.replace(HYPER, options={"forget_weight": -2.0})
    step = jax.jit(make_unlearning_step(clip, method, hyper))
    state, metrics = step(init_unlearning_state(params, method, hyper), batch, reference_params)

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
    clip, params, reference_params, batch = table

    class Mistaken(Surgery):
        separate_gradients = ("forget", "retian")

    state = init_unlearning_state(params, Mistaken(), HYPER)
    with pytest.raises(ValueError, match="retian"):
        make_unlearning_step(clip, Mistaken(), HYPER)(state, batch, reference_params)


def test_what_is_prepared_reaches_the_transform(table):
    @dataclasses.dataclass(frozen=True)
    class Salient(Method):
        """Moves only the entries with the larger half of the forget gradient, leaf by leaf."""

        name: ClassVar[str] = "salient"

        def objectives(self, batch, model, reference, rng):
            image, text = model.encode_pairs(batch.forget)
            return {"forgetting": jnp.mean(jnp.sum(image * text, axis=-1))}

        def prepare(self, batches, trainable, bind, rng):
            def loss(part, batch):
                return self.objectives(batch, bind(part), None, rng)["forgetting"]

            gradients = [jax.grad(loss)(trainable, batch) for batch in batches]
            return jax.tree.map(lambda *g: jnp.abs(sum(g)) > jnp.median(jnp.abs(sum(g))), *gradients)

        def transform(self, hyper):
            def update(updates, state, params=None, *, prepared, **extra):
                return jax.tree.map(jnp.multiply, updates, prepared), state

            masked = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
            return optax.chain(base_optimizer(hyper), masked)

    clip, params, _, batch = table
    prepared = prepare_method(clip, Salient(), HYPER, params, [batch], TEXT_ONLY)
    assert sum(leaf.size for leaf in jax.tree.leaves(prepared)) == sum(
        leaf.size for leaf in jax.tree.leaves(params["text"])
    )
    states, _ = run(clip, Salient(), HYPER, params, one(batch), steps=2, trainable=TEXT_ONLY, prepared=prepared)
    moved = jax.tree.map(lambda new, old: new != old, states[-1].params["text"], params["text"])
    for changed, salient in zip(jax.tree.leaves(moved), jax.tree.leaves(prepared), strict=True):
        assert not np.any(changed & ~np.asarray(salient))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(moved))
    assert prepare_method(clip, registry.get("delete"), HYPER, params, []) is None


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
