"""Runs from end to end on pairs in memory: what is prepared, trained and finished, and what resumes with the same bits."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from in_memory_run import CLIP, FIELDS, PARAMS, TINY, unlearn
from out_of_bounds import DATA_OF_THE_EVALUATION, TouchedError, out_of_bounds
from random_models import random_params

from data_pipelines.input import PairSource
from salmu_jax.models.clip import Clip
from salmu_jax.runtime.errors import InputError, Preempted
from salmu_jax.training import checkpoint
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.unlearning import loop, registry
from salmu_jax.unlearning.method import Bound, Method, option
from salmu_jax.unlearning.streams import Forget, Retain


@pytest.fixture(autouse=True)
def two_devices(monkeypatch):
    """Two of the eight: sharded, and small batches divide by them."""
    monkeypatch.setattr(mesh_lib, "make_mesh", functools.partial(mesh_lib.make_mesh, devices=jax.devices()[:2]))


def bits(tree):
    return {
        jax.tree_util.keystr(path): np.asarray(leaf).tobytes()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


class Example(Method):
    """Base of the methods here."""

    title: ClassVar[str] = "Example"
    reference: ClassVar[str] = "nobody"


def register(monkeypatch, method):
    monkeypatch.setitem(registry.METHODS, method.name, method)
    return method.name


@dataclasses.dataclass(frozen=True)
class Salient(Example):
    """Lowers the similarities of forget, in the half of the entries with the largest mean gradient."""

    name: ClassVar[str] = "salient"
    streams: ClassVar[dict] = {"forget": Forget(), "retain": Retain()}

    batches: int = option(3, help="batches of the mean")

    def objectives(self, batch, model, reference, info):
        image, text = model.encode_pairs(batch["forget"])
        return {"forgetting": jnp.mean(jnp.sum(image * text, axis=-1))}

    def prepare(self, ctx):
        def gradient(params, batch, rng):
            loss = lambda p: self.objectives(batch, ctx.bind(p), ctx.reference, None)["forgetting"]  # noqa: E731
            return jax.grad(loss)(params)

        return {"mask": jax.tree.map(lambda g: jnp.abs(g) >= jnp.median(jnp.abs(g)), ctx.mean(gradient, self.batches))}

    def transform(self, hyper):
        import optax

        from salmu_jax.unlearning.hyper import base_optimizer
        from salmu_jax.unlearning.transforms import saliency_mask

        return optax.chain(base_optimizer(hyper), saliency_mask())


@dataclasses.dataclass(frozen=True)
class LowRank(Example):
    """Learns forget in two factors, and subtracts what they have learnt from the start model."""

    name: ClassVar[str] = "low_rank"
    streams: ClassVar[dict] = {"forget": Forget()}

    def parametrise(self, params, prepared, rng):
        rows, columns = params["text"]["text_projection"].shape
        trainable = {"down": 0.1 * jax.random.normal(rng, (rows, 2)), "up": jnp.zeros((2, columns))}

        def bind(trainable, params):
            added = params["text"]["text_projection"] + trainable["down"] @ trainable["up"]
            return {**params, "text": {**params["text"], "text_projection": added}}

        return trainable, bind

    def objectives(self, batch, model, reference, info):
        image, text = model.encode_pairs(batch["forget"])
        return {"learning": -jnp.mean(jnp.sum(image * text, axis=-1))}

    def finish(self, params, reference_params, prepared):
        return jax.tree.map(lambda tuned, start: 2 * start - tuned, params, reference_params)


@dataclasses.dataclass(frozen=True)
class Projection(Example):
    """Takes the mean forget direction out of the text projection, in closed form."""

    name: ClassVar[str] = "projection"
    streams: ClassVar[dict] = {"forget": Forget()}
    defaults: ClassVar = dataclasses.replace(registry.get("delete").defaults, total_steps=0)

    def prepare(self, ctx):
        mean = ctx.encode_texts(ctx.rows.text).mean(axis=0)
        return {"direction": mean / np.linalg.norm(mean)}

    def finish(self, params, reference_params, prepared):
        weights, u = params["text"]["text_projection"], prepared["direction"]
        return {**params, "text": {**params["text"], "text_projection": weights - (weights @ u)[:, None] * u}}


def test_prepare_means_over_batches_as_a_loop_by_hand_does(tmp_path, monkeypatch):
    """Ten batches, more than a device call takes; frozen leaves have no gradient, no mask, and do not move by a bit."""
    seen = {}

    @dataclasses.dataclass(frozen=True)
    class Watched(Salient):
        def prepare(self, ctx):
            prepared = super().prepare(ctx)

            def figures(params, batch, rng):
                assert not jax.tree.leaves(params["visual"])
                return {"tokens": jnp.mean(batch["forget"].tokens), "noise": jax.random.normal(rng, (3,))}

            seen.update(means=ctx.gather(ctx.mean(figures, 10)), rng=ctx.rng)
            seen.update(ctx=ctx, mask=ctx.gather(prepared["mask"]), batches=list(ctx.batches(self.batches)))
            return prepared

    register(monkeypatch, Watched)
    fields = {**FIELDS, "epochs": 1, "freeze": ["visual/.*", "logit_scale"], "options": {"batches": 10}}
    params, manifest, _ = unlearn(tmp_path, "salient", fields)
    assert manifest["steps"] == 3

    def loss(text, batch):
        model = Bound(CLIP, {**PARAMS, "text": text})
        image, texts = model.encode_pairs(batch["forget"])
        return jnp.mean(jnp.sum(image * texts, axis=-1))

    np.testing.assert_allclose(
        seen["means"]["tokens"], np.mean([batch["forget"].tokens for batch in seen["batches"]]), rtol=1e-6
    )
    noise = [jax.random.normal(jax.random.fold_in(seen["rng"], number), (3,)) for number in range(10)]
    np.testing.assert_allclose(seen["means"]["noise"], np.mean(noise, axis=0), rtol=1e-5)

    gradient = jax.jit(jax.grad(loss))
    summed = [gradient(PARAMS["text"], batch) for batch in seen["batches"]]
    mean = jax.tree.map(lambda *g: np.mean(np.stack(g, dtype=np.float64), axis=0), *summed)
    assert [leaf.shape for leaf in jax.tree.leaves(seen["mask"])] == [leaf.shape for leaf in jax.tree.leaves(mean)]
    wrong = total = 0
    for mask, g in zip(jax.tree.leaves(seen["mask"]), jax.tree.leaves(mean), strict=True):
        wrong += np.sum(mask != (np.abs(g) >= np.median(np.abs(g))))
        total += mask.size
    assert wrong < 0.01 * total  # entries at the median, by rounding
    for frozen in ("visual", "logit_scale"):
        assert bits(params[frozen]) == bits(PARAMS[frozen])
    moved = jax.tree.map(lambda new, old: np.asarray(new) != old, params["text"], PARAMS["text"])
    for changed, mask in zip(jax.tree.leaves(moved), jax.tree.leaves(seen["mask"]), strict=True):
        assert not np.any(changed & ~mask)
    assert any(map(np.any, jax.tree.leaves(moved)))
    assert manifest["drawn"] == ["salmu/forget", "salmu/retain_synth", "retain_pairs/train"]


def test_factors_are_trained_and_subtracted(tmp_path, monkeypatch):
    register(monkeypatch, LowRank)
    params, manifest, _ = unlearn(tmp_path, "low_rank", {**FIELDS, "epochs": 2})
    before = bits(PARAMS)
    changed = [path for path, leaf in bits(params).items() if leaf != before[path]]
    assert changed == ["['text']['text_projection']"]
    difference = np.asarray(params["text"]["text_projection"], float) - PARAMS["text"]["text_projection"]
    assert np.linalg.matrix_rank(difference, tol=1e-6) == 2
    assert manifest["steps"] == 3


def test_a_closed_form_takes_no_steps(tmp_path, monkeypatch):
    register(monkeypatch, Projection)
    params, manifest, history = unlearn(tmp_path, "projection", {})
    assert manifest["steps"] == 0
    assert history == []
    weights = np.asarray(params["text"]["text_projection"], float)
    before = np.asarray(PARAMS["text"]["text_projection"], float)
    _, singular, direction = np.linalg.svd(before - weights)
    assert singular[1] < 1e-6 * singular[0]
    np.testing.assert_allclose(weights, before - np.outer(before @ direction[0], direction[0]), atol=1e-6)
    assert manifest["drawn"] == ["salmu/forget"]


def test_frozen_parameters_keep_their_bits_through_finish(tmp_path):
    params, _, _ = unlearn(tmp_path, "descent_to_delete", {"freeze": ["text/.*", "logit_scale"]})
    for frozen in ("text", "logit_scale"):
        assert bits(params[frozen]) == bits(PARAMS[frozen])
    assert all(
        new != old for new, old in zip(bits(params["visual"]).values(), bits(PARAMS["visual"]).values(), strict=True)
    )


@pytest.mark.parametrize(
    ("finish", "answer"),
    [
        (lambda params: {**params, "more": jnp.zeros(3)}, "more is not part of it"),
        (lambda params: {**params, "logit_scale": jnp.zeros(2)}, r"logit_scale has shape \[2\], not \[\]"),
        (lambda params: jax.tree.map(lambda leaf: leaf / 0, params), "makes a parameter that is not finite"),
    ],
)
def test_what_finish_may_not_return(finish, answer, tmp_path, monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Wrong(Example):
        name: ClassVar[str] = "wrong"

        def finish(self, params, reference_params, prepared):
            return finish(params)

    register(monkeypatch, Wrong)
    with pytest.raises(InputError, match=answer):
        unlearn(tmp_path, "wrong", {"epochs": 0})


def test_what_is_prepared_has_to_be_arrays(tmp_path, monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Wrong(Projection):
        name: ClassVar[str] = "wrong"

        def prepare(self, ctx):
            return {"direction": "up"}

    register(monkeypatch, Wrong)
    with pytest.raises(InputError, match=r"^prepare\(\) of wrong: has to give arrays, the same on all hosts"):
        unlearn(tmp_path, "wrong", {})


def test_a_method_that_reaches_for_a_holdout_fails_at_the_touch(tmp_path, monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Curious(Projection):
        name: ClassVar[str] = "curious"

        def prepare(self, ctx):
            return ctx.encode_images("salmu/holdout_identity")

    register(monkeypatch, Curious)
    with pytest.raises(
        InputError, match=r"salmu/holdout_identity: this run may not read it; it may read salmu/forget$"
    ):
        unlearn(tmp_path, "curious", {}, retain=False)


def test_a_run_is_watched_on_pairs_that_it_may_read(tmp_path):
    fields = {**FIELDS, "epochs": 3, "learning_rate": 1e-2}
    params, _, lines = unlearn(tmp_path, "delete", fields, **{"unlearn.evaluate_every": 4, "log.tensorboard": True})
    evaluated = {line["step"]: line for line in lines if "forget_mrr" in line}
    assert sorted(evaluated) == [4, 8]
    assert evaluated[8]["forget_similarity"] != evaluated[4]["forget_similarity"]
    assert 0 < evaluated[8]["forget_mrr"] <= 1
    assert list(tmp_path.rglob("events*"))
    plain, _, _ = unlearn(tmp_path / "plain", "delete", fields)
    assert bits(params) == bits(plain)


def test_an_interrupted_run_resumes_with_the_same_bits(tmp_path, monkeypatch):
    register(monkeypatch, LowRank)
    fields = {**FIELDS, "epochs": 4}
    whole, _, _ = unlearn(tmp_path / "whole", "low_rank", fields, **{"unlearn.save_every": 2})
    original = loop.loop.run

    def stopped(step, state, batches, **settings):
        def until(first_step):
            for number, batch in enumerate(batches(first_step), first_step):
                if number == 3:
                    raise Preempted("unlearn run", 2, "here")
                yield batch

        return original(step, state, until, **settings)

    monkeypatch.setattr(loop.loop, "run", stopped)
    with pytest.raises(Preempted):
        unlearn(tmp_path / "stopped", "low_rank", fields, **{"unlearn.save_every": 2})
    monkeypatch.setattr(loop.loop, "run", original)
    resumed, _, _ = unlearn(tmp_path / "stopped", "low_rank", fields, **{"unlearn.save_every": 2})
    assert bits(resumed) == bits(whole)


@pytest.mark.parametrize(
    "touch",
    [
        lambda ctx, elsewhere: ctx.permission.split("salmu/holdout_association"),
        lambda ctx, elsewhere: ctx.encode_images("salmu/holdout_identity"),
        lambda ctx, elsewhere: PairSource.open(elsewhere / "datasets", ["salmu/holdout_identity"]),
        lambda ctx, elsewhere: checkpoint.load_model(elsewhere / "models" / "clean", CLIP.config),
        lambda ctx, elsewhere: (elsewhere / "models" / "clean" / "array").read_bytes(),
        lambda ctx, elsewhere: list(elsewhere.iterdir()),
        lambda ctx, elsewhere: next(DATA_OF_THE_EVALUATION.rglob("*.json")).read_text(),
    ],
    ids=["holdout", "its images", "its data set", "Clean", "its file", "the work directory", "the evaluation's data"],
)
def test_a_method_that_touches_what_it_may_not_read_fails_at_the_touch(touch, tmp_path, monkeypatch):
    elsewhere = tmp_path / "work"
    (elsewhere / "models" / "clean").mkdir(parents=True)
    (elsewhere / "models" / "clean" / "array").write_text("weights")

    @dataclasses.dataclass(frozen=True)
    class Reaching(Projection):
        name: ClassVar[str] = "reaching"

        def prepare(self, ctx):
            touch(ctx, elsewhere)
            return super().prepare(ctx)

    register(monkeypatch, Reaching)
    with out_of_bounds(elsewhere), pytest.raises((TouchedError, InputError), match=r"may not read|/work|/evaluation"):
        unlearn(tmp_path / "run", "reaching", {})


OF_TOWERS = {"lora_subtract", "random_weights", "munba", "lip"}  # these know the layers of a CLIP by name


@pytest.mark.parametrize("name", registry.METHODS)
def test_every_method_runs(name, tmp_path):
    """Two steps, or none, with the image tower frozen: it keeps every bit, and all parameters are finite.

    What is read is what is declared, and nothing else of ours is touched.
    """
    method = registry.get(name)
    fields = {"learning_rate": 1e-4} | ({"epochs": 0.5} if method.takes_steps() else {})
    counts = {"batches": 2, "pool": 16, "count": 1, "points": 1}  # of options that say how much is prepared
    fields["options"] = {option: counts[option] for option in counts if hasattr(method, option)}
    model = (Clip(TINY), random_params(Clip(TINY))) if name in OF_TOWERS else (CLIP, PARAMS)
    with out_of_bounds(tmp_path / "work"):
        try:
            params, manifest, _ = unlearn(tmp_path / "run", name, {**fields, "freeze": ["visual/.*"]}, model=model)
        except InputError as error:  # the method trains something that has no image tower
            if type(method).parametrise is Method.parametrise or "matches no parameter" not in str(error):
                raise
            params, manifest, _ = unlearn(tmp_path / "run", name, fields, model=model)
    assert bits(params["visual"]) == bits(model[1]["visual"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    reads = {stream.reads for stream in method.make_streams().values()}
    assert ("salmu/forget" in manifest["drawn"]) >= ("forget" in reads)  # prepare may read it besides
    assert ("retain_pairs/train" in manifest["drawn"]) == ("retain" in reads)
    assert manifest["method"]["title"] == method.title
