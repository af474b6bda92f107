"""Text projection: remove the leading directions of forget's captions from the text tower's output, in closed form."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import numpy as np

from salmu_jax.models.clip import Params
from salmu_jax.unlearning.context import Context
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import Method, option
from salmu_jax.unlearning.subspaces import leading_directions


@dataclasses.dataclass(frozen=True)
class TextProjection(Method):
    """Projects the leading directions of forget's captions out of the text tower's last matrix; no steps.

    The published method takes a basis of all embeddings of a few classes. Captions are many and span the whole space, so
    ``rank`` says how many of their leading directions (eigenvectors of the uncentred second moment) go.
    """

    name: ClassVar[str] = "text_projection"
    title: ClassVar[str] = "Text projection (closed form)"
    reference: ClassVar[str] = "After closed-form projection for CLIP, arXiv 2512.14137, 2025"
    formula: ClassVar[str] = """
        W' = W (I - strength U U^T)
        W: the text projection; U: the rank leading eigenvectors of T^T T, T: the start embeddings of all forget captions
    """
    defaults: ClassVar[Hyper] = Hyper(epochs=0, total_steps=0)
    presets: ClassVar[Mapping[str, Hyper]] = {
        # For the towers of configs/mini.py.
        "mini": dataclasses.replace(defaults, options={"rank": 3}),
    }

    rank: int = option(8, help="directions to remove; at most the width of the embeddings", low=1)
    strength: float = option(1.0, help="share of each direction to remove; above 1 it turns round", low=0)

    def prepare(self, ctx: Context) -> np.ndarray:
        """Returns ``U``, float32 [D, rank]. Raises InputError if ``rank`` exceeds the width of the embeddings."""
        text = ctx.encode_texts(ctx.rows.text).astype(np.float64)
        return leading_directions(text.T @ text / len(text), self.rank, "options.rank")

    def finish(self, params: Params, reference_params: Params, prepared: jax.Array) -> Params:
        """Returns ``params`` with ``W (I - strength U U^T)`` as the text projection."""
        projection = params["text"]["text_projection"]
        removed = self.strength * (projection @ prepared) @ prepared.T
        return {**params, "text": {**params["text"], "text_projection": projection - removed}}
