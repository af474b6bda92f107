"""Watches an unlearning run as training is watched, with evaluations on pairs that the run may read anyway.

An evaluation takes at most 512 pairs each of forget and retain, evenly spread:

- ``forget_similarity``, ``retain_similarity``: the mean cosine of an image with its own caption;
- ``forget_mrr``: the mean reciprocal rank of an image's own caption among the captions of the other forget pairs.

They tell whether a method does anything, and when. They are not results: these come from evaluating the finished model,
which also looks at what no method may read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines.input import PairSource, evaluation_images
from salmu_jax.config import to_json
from salmu_jax.evaluation.encode import Encoder, default_rows
from salmu_jax.models.clip import Clip
from salmu_jax.runtime.feed import DataFeed
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.training.watch import Watch
from salmu_jax.training.writers import import_wandb, make_writers
from salmu_jax.unlearning.freeze import Rules
from salmu_jax.unlearning.made_captions import Inputs
from salmu_jax.unlearning.method import Bind, identity
from salmu_jax.unlearning.permission import FORGET, RETAIN
from salmu_jax.unlearning.step import Start, full_params

MOST_PAIRS = 512
TIE_TOLERANCE = 1e-6  # of cosines; captions as near as the own one share the middle rank


class _Sample(NamedTuple):
    images: np.ndarray  # uint8 [N, S, S, 3]
    tokens: np.ndarray  # int32 [N, T]


def make_watch(
    config: ConfigDict,
    clip: Clip,
    inputs: Inputs,
    mesh: Mesh,
    name: str,
    logs: Path,
    start: Start,
    bind: Bind,
    rules: Rules,
) -> Watch:
    """Returns the observers that the config asks for."""
    log, every = config.log, config.unlearn.evaluate_every
    if log.wandb:
        import_wandb()  # before anything is trained
    evaluate = None
    if every:
        samples = {of: _sample(inputs, of) for of in (FORGET, RETAIN) if of in inputs.permission.sources}
        evaluate = make_evaluation(clip, samples, mesh, lambda part: _placed(part, start, bind, rules, mesh))
    return Watch(
        feed=DataFeed(inputs.workers, cached=inputs.cache is not None),
        writers=lambda first_step: make_writers(log, logs, name, to_json(config), first_step),
        evaluate=evaluate,
        evaluate_every=every,
    )


def make_evaluation(
    clip: Clip, samples: dict[str, _Sample], mesh: Mesh, params_of: Callable[[Any], Any] = lambda params: params
) -> Callable[[Any], dict[str, float]]:
    """Returns ``evaluate(part) -> figures``; ``params_of(part)`` are the full parameters, which lie on ``mesh``.

    All processes have to call it, and get the same.
    """

    def evaluate(part: Any) -> dict[str, float]:
        encoder = Encoder(clip, params_of(part), default_rows(clip), mesh, gather=True)
        found = {}
        with mesh_lib.use(mesh):
            for of, sample in samples.items():
                images, texts = encoder.all("image", sample.images), encoder.all_tokens(sample.tokens)
                found[f"{of}_similarity"] = float(np.mean(np.sum(images * texts, axis=1)))
                if of == FORGET:
                    found["forget_mrr"] = mean_reciprocal_rank(images @ texts.T, sample.tokens)
        return found

    return evaluate


def mean_reciprocal_rank(similarity: np.ndarray, tokens: np.ndarray) -> float:
    """Returns the mean of ``1 / rank`` of the own caption, ``rank = 1 + #greater + floor(#ties / 2)``.

    Args:
      similarity: float32 [N, N], images by captions; image i has caption i.
      tokens: int32 [N, T]; captions equal to the own one are not distractors.
    """
    _, ids = np.unique(tokens, axis=0, return_inverse=True)
    other = ids[:, None] != ids[None, :]
    above = similarity - np.diagonal(similarity)[:, None]
    greater = np.sum((above > TIE_TOLERANCE) & other, axis=1)
    ties = np.sum((np.abs(above) <= TIE_TOLERANCE) & other, axis=1)
    return float(np.mean(1 / (1 + greater + ties // 2)))


def _sample(inputs: Inputs, of: str) -> _Sample:
    whole = inputs.permission.split(of)
    places = np.unique(np.linspace(0, len(whole) - 1, min(MOST_PAIRS, len(whole))).astype(int))
    source: PairSource = whole.select(places)
    batches = evaluation_images(source, inputs.image_size, 64, inputs.cache)
    images = np.concatenate([batch["images"][: batch["count"]] for batch in batches])
    return _Sample(images, inputs.tokenizer([pair["text"] for pair in source.read(range(len(source)))]))


def _placed(part: Any, start: Start, bind: Bind, rules: Rules, mesh: Mesh) -> Any:
    if bind is identity:
        return full_params(part, start, bind, rules)
    with mesh_lib.use(mesh):
        shardings = mesh_lib.param_shardings(start.params, mesh)
        return jax.jit(lambda part, start: full_params(part, start, bind, rules), out_shardings=shardings)(part, start)
