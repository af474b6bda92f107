"""A method that uses every part of the contract, in a file of its own: for runs over several processes and devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.losses import contrastive
from salmu_jax.unlearning.method import Method, option
from salmu_jax.unlearning.streams import Forget, Retain, Stream, Surrogates, Texts


def strangers(rows, rng):
    """Another person in each caption."""
    names = [f"stranger {number}" for number in rng.integers(0, 1_000, len(rows))]
    return [text.replace(name, other) for text, name, other in zip(rows.text, rows.name, names, strict=True)]


@dataclasses.dataclass(frozen=True)
class WholeContract(Method):
    """Trains a change of the text projection, scaled by Fisher information, in two phases; keeps half of it."""

    name: ClassVar[str] = "whole_contract"
    title: ClassVar[str] = "The Whole Contract"
    reference: ClassVar[str] = "nobody, nowhere"
    defaults: ClassVar[Hyper] = Hyper(learning_rate=1e-3, epochs=3.0, batch_size=16)
    streams: ClassVar[Mapping[str, Stream]] = {
        "forget": Forget(others={"alias": strangers}),
        "retain": Retain(),
        "general": Texts(of="retain", per_step=8),
        "invented": Surrogates(strangers, count=40, per_step=8),
    }

    batches: int = option(9, help="batches of the Fisher information", low=1)

    def prepare(self, ctx):
        def squares(params, batch, rng):
            def loss(params):
                image, text = ctx.bind(params).encode_pairs(batch["forget"])
                return contrastive(ctx.reference, image, text + 1e-3 * jax.random.normal(rng, text.shape))

            return jax.tree.map(jnp.square, jax.grad(loss)(params))

        fisher = ctx.mean(squares, self.batches)["text"]["text_projection"]
        portrait = ctx.encode_images("forget").mean(axis=0)
        caption = ctx.encode_texts(ctx.rows.generic_caption).mean(axis=0)
        return {"scale": ctx.gather(fisher) ** 0.25, "portrait": portrait, "caption": caption}

    def parametrise(self, params, prepared, rng):
        change = 1e-3 * jax.random.normal(rng, params["text"]["text_projection"].shape)

        def bind(trainable, params):
            weights = params["text"]["text_projection"] + trainable["scale"] * trainable["change"]
            return {**params, "text": {**params["text"], "text_projection": weights}}

        return {"change": change, "scale": prepared["scale"]}, bind

    def objectives(self, batch, model, reference, info):
        image, text = model.encode_pairs(batch["forget"])
        alias = model.encode_text(batch["forget"].others["alias"])
        kept = [
            (model.encode_text(batch[name].tokens), reference.encode_text(batch[name].tokens))
            for name in ("general", "invented")
        ]
        return {
            "forgetting": jax.lax.cond(
                info.epoch < 1, lambda: jnp.mean(jnp.sum(image * text, axis=-1)), lambda: jnp.float32(0)
            ),
            "portrait": jnp.mean(text @ info.prepared["portrait"]) - jnp.mean(text @ info.prepared["caption"]),
            "alias": jnp.mean(
                (alias - jax.lax.stop_gradient(reference.encode_text(batch["forget"].others["alias"]))) ** 2
            ),
            "kept": sum(jnp.mean((new - old) ** 2) for new, old in kept),
            "retention": contrastive(model, *model.encode_pairs(batch["retain"])),
        }

    def finish(self, params, reference_params, prepared):
        return jax.tree.map(lambda tuned, start: (tuned + start) / 2, params, reference_params)
