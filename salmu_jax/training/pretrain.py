"""Pretraining of a foundation model, top to bottom: mesh, data, model, shardings, step, loop, checkpoint.

*Clean* and *Compromised* go through here with the same seed, the same initial parameters and the same config; they differ
in the pairs alone. Both make ``epochs`` passes over their own pairs, as the published models do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from data_pipelines.input import DecodedCache, PairSource, training_batches
from salmu_jax import files
from salmu_jax.errors import InputError
from salmu_jax.models import preprocess, zoo
from salmu_jax.models.clip import Clip
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.training import loop
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.training.checkpoint import StateStore, save_model
from salmu_jax.training.optimizer import OptimizerConfig, make_optimizer
from salmu_jax.training.step import init_state, make_train_step

# What the config's seed is folded with, one constant a purpose.
INIT_PURPOSE = 1
AUGMENT = {"scale": (0.9, 1.0), "ratio": (3 / 4, 4 / 3)}  # OpenCLIP's RandomResizedCrop


def make_clip(config: ConfigDict) -> Clip:
    """The model of ``config.model``. Raises InputError for an unknown architecture or dtype."""
    if config.model.compute_dtype not in ("float32", "bfloat16"):
        raise InputError(f"unknown dtype {config.model.compute_dtype!r}; float32 or bfloat16", "model.compute_dtype")
    architecture = zoo.architecture(config.model.architecture)
    return Clip(dataclasses.replace(architecture, compute_dtype=config.model.compute_dtype))


def make_tokenizer(clip: Clip) -> ClipTokenizer:
    """The tokenizer whose vocabulary and context length are those of ``clip``."""
    return ClipTokenizer(num_merges=zoo.bpe_merges(clip.config), context_length=clip.config.context_length)


def input_manifest(clip: Clip, tokenizer: ClipTokenizer) -> dict[str, Any]:
    """What a checkpoint's user has to do to images and captions: part of its manifest."""
    return {
        "activation": "quick_gelu" if clip.config.quick_gelu else "gelu",
        "image": {
            "mean": list(preprocess.IMAGE_MEAN),
            "std": list(preprocess.IMAGE_STD),
            "interpolation": "bicubic",
            "resize": "shortest side, then centre crop",
        },
        "tokenizer": {
            "merges": zoo.bpe_merges(clip.config),
            "context_length": clip.config.context_length,
            "digest": tokenizer.digest,
        },
    }


def pretrain(
    config: ConfigDict,
    source: PairSource,
    directory: Path,
    state_directory: Path,
    identity: str,
    *,
    name: str,
    manifest: Mapping[str, Any],
    cache: DecodedCache | None = None,
) -> dict[str, Any]:
    """Trains a model on the pairs of ``source`` and writes it to ``directory``; returns its manifest.

    A run of the same ``identity`` that was killed goes on from ``state_directory``, which is removed at the end.

    Raises InputError: a batch that does not split over the devices, a loss that is not finite, too few pairs.
    """
    train = config.train
    mesh = mesh_lib.make_mesh(config.mesh.fsdp, config.mesh.tensor)
    clip = make_clip(config)
    tokenizer = make_tokenizer(clip)

    pairs = len(source)
    if pairs < train.batch_size:
        raise InputError(f"{train.batch_size} pairs a step are more than the {pairs} there are", "train.batch_size")
    mesh_lib.check_batch_size(train.batch_size, mesh, "train.batch_size")
    total_steps = loop.whole_calls(train.epochs * pairs / train.batch_size, train.steps_per_call)

    def batches(first_step: int):
        return training_batches(
            source,
            tokenizer=tokenizer,
            image_size=clip.config.image_size,
            batch_size=train.batch_size,
            seed=config.seed,
            start_step=first_step,
            augment=AUGMENT if config.data.augment else None,
            cache=cache,
            num_workers=config.data.workers,
            host_index=jax.process_index(),
            host_count=jax.process_count(),
        )

    optimizer = make_optimizer(
        OptimizerConfig(
            learning_rate=train.learning_rate,
            warmup_steps=train.warmup_steps,
            b1=train.b1,
            b2=train.b2,
            eps=train.eps,
            weight_decay=train.weight_decay,
            clip_norm=train.clip_norm,
        ),
        total_steps,
    )
    rng = jax.random.fold_in(jax.random.key(config.seed), INIT_PURPOSE)
    shapes = jax.eval_shape(lambda rng: init_state(clip, optimizer, rng), rng)
    shardings = mesh_lib.param_shardings(shapes, mesh)
    state = jax.jit(lambda rng: init_state(clip, optimizer, rng), out_shardings=shardings)(rng)

    files.remove_partials(state_directory)
    store = StateStore(state_directory, identity)
    history = loop.History(state_directory / "metrics.jsonl")
    state = loop.run(
        make_train_step(clip, optimizer, mask_duplicates=train.mask_duplicates),
        state,
        batches,
        total_steps=total_steps,
        steps_per_call=train.steps_per_call,
        batch_size=train.batch_size,
        mesh=mesh,
        store=store,
        save_every=train.save_every,
        history=history,
        label=f"pretrain {name}",
    )
    store.close()

    whole = {
        **input_manifest(clip, tokenizer),
        "name": name,
        "parent": None,
        "splits_read": list(source.splits),
        "pairs": pairs,
        "steps": total_steps,
        **manifest,
    }
    saved = save_model(directory, clip, state.params, whole, history.records())
    files.remove_directory(state_directory)
    return saved
