"""Pretrains a foundation model, top to bottom: mesh, model, data, step, loop, checkpoint.

*Clean* and *Compromised* are trained by the same code with the same seed, initial parameters and config; they differ only in
their pairs. Both make ``train.epochs`` passes over their own pairs, as the published models do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines.input import AUGMENT, DecodedCache, PairSource, training_batches
from salmu_jax.config import to_json
from salmu_jax.models.build import input_manifest, make_clip, make_tokenizer
from salmu_jax.models.clip import Clip
from salmu_jax.runtime import host
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.feed import BatchCosts, DataFeed
from salmu_jax.training import loop
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.training.checkpoint import save_model
from salmu_jax.training.flops import train_flops_per_pair
from salmu_jax.training.history import History
from salmu_jax.training.loss import LossConfig
from salmu_jax.training.nonfinite import Numbered, identifier
from salmu_jax.training.optimizer import ADAMW_FIELDS, AdamW, make_optimizer
from salmu_jax.training.profile import Profile
from salmu_jax.training.states import States
from salmu_jax.training.step import Step, TrainState, init_state, make_train_step
from salmu_jax.training.stopping import SavePolicy
from salmu_jax.training.watch import Evaluate, Watch
from salmu_jax.training.writers import import_wandb, make_writers

INIT_PURPOSE = 1  # folded into the config's seed, one constant a purpose

MakeEvaluation = Callable[[Clip, Mesh], Evaluate]


def pretrain(
    config: ConfigDict,
    source: PairSource,
    directory: Path,
    states: States,
    *,
    name: str,
    manifest: Mapping[str, Any],
    cache: DecodedCache | None = None,
    logs: Path | None = None,
    evaluation: MakeEvaluation | None = None,
    profile: bool = False,
) -> dict[str, Any]:
    """Trains a model on the pairs of ``source`` and writes it to ``directory``; returns its manifest.

    A run that was killed resumes from its ``states``; the caller removes them once the model is recorded. All processes have
    to call this.

    Args:
      config: the whole config.
      source: the pairs to train on.
      directory: of the model, which must not exist yet.
      states: where the run saves its state, and what it resumes from.
      name: of the model.
      manifest: further fields of the model's manifest.
      cache: decoded images, shared with other runs of this process.
      logs: for event files and the profile; by default the directory of ``states``.
      evaluation: makes the evaluation to run every ``train.evaluate_every`` steps.
      profile: traces a few device calls.

    Raises:
      InputError: a batch that does not split over the devices, a loss that is not finite, too few pairs, an unfinished run
        with another identity.
      Preempted: SIGTERM or SIGHUP came, and the state is saved.
    """
    train = config.train
    mesh = mesh_lib.make_mesh(config.mesh.fsdp, config.mesh.tensor)
    clip = make_clip(config)
    total_steps = _total_steps(config, len(source))
    if config.log.wandb:
        import_wandb()  # fails now rather than after hours of training
    other = states.begin()

    optimizer = make_pretrain_optimizer(config, total_steps)
    step = make_pretrain_step(config, clip, optimizer, mesh)
    state = _initial_state(config, clip, optimizer, mesh)
    feed, batches = _feed(config, clip, source, cache)
    watch = Watch(
        flops_per_item=train_flops_per_pair(clip.config),
        feed=feed,
        writers=lambda first: make_writers(config.log, logs or states.directory, name, to_json(config), first),
        evaluate=evaluation(clip, mesh) if evaluation and train.evaluate_every else None,
        evaluate_every=train.evaluate_every,
        profile=Profile((logs or states.directory) / "profile") if profile else None,
    )

    policy = SavePolicy(train.save_every, train.save_minutes, train.keep_last, train.keep_every)
    history = History(states.directory / "metrics.jsonl")
    with states.opened(policy, stride=train.steps_per_call, other=other) as store:
        state = loop.run(
            step,
            state,
            batches,
            total_steps=total_steps,
            steps_per_call=train.steps_per_call,
            batch_size=train.batch_size,
            mesh=mesh,
            store=store,
            history=history,
            label=f"pretrain {name}",
            identify=identifier({"pairs": source}),
            watch=watch,
        )

    whole = {
        **input_manifest(clip, make_tokenizer(clip)),
        "name": name,
        "parent": None,
        "splits_read": list(source.splits),
        "pairs": len(source),
        "steps": total_steps,
        **({"resumed_from": dataclasses.asdict(other)} if other else {}),
        **manifest,
    }
    return save_model(directory, clip, state.params, whole, history.records())


def make_pretrain_optimizer(config: ConfigDict, total_steps: int) -> optax.GradientTransformation:
    """Builds the optimizer of ``config.train``, its schedule ending at ``total_steps``."""
    return make_optimizer(AdamW(**{field: config.train[field] for field in ADAMW_FIELDS}), total_steps)


def make_pretrain_step(config: ConfigDict, clip: Clip, optimizer: optax.GradientTransformation, mesh: Mesh) -> Step:
    """Builds the train step of ``config.train``. Raises InputError for an unknown loss, or sizes that do not divide."""
    train = config.train
    mesh_lib.check_batch_size(train.batch_size, mesh, "train.batch_size")
    if train.microbatch:
        mesh_lib.check_batch_size(train.microbatch, mesh, "train.microbatch")
        if train.batch_size % train.microbatch:
            message = f"{train.microbatch} pairs at a time do not divide a batch of {train.batch_size}"
            raise InputError(message, "train.microbatch")
    return make_train_step(
        clip,
        optimizer,
        loss=LossConfig(train.loss, train.loss_form, train.loss_chunk),
        microbatch=train.microbatch,
        mask_duplicates=train.mask_duplicates,
    )


def _total_steps(config: ConfigDict, pairs: int) -> int:
    """Returns the steps of the run. Raises InputError for fewer pairs than a batch, or a warm-up longer than the run."""
    train = config.train
    if pairs < train.batch_size:
        raise InputError(
            f"{train.batch_size} pairs per step are more than the {pairs} that there are", "train.batch_size"
        )
    total_steps = loop.steps_of(train.epochs, pairs, train.batch_size)
    if train.warmup_steps > total_steps:
        raise InputError(
            f"{train.warmup_steps:,} steps of warm-up do not fit into the run: train.epochs={train.epochs:g} passes over"
            f" {pairs:,} pairs, {train.batch_size:,} a step, are {total_steps:,} steps",
            "train.warmup_steps",
        )
    return total_steps


def _initial_state(config: ConfigDict, clip: Clip, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Draws the initial state, sharded from the start: no device holds more of it than its shard."""
    rng = jax.random.fold_in(jax.random.key(config.seed), INIT_PURPOSE)

    def init(rng: jax.Array) -> TrainState:
        return init_state(clip, optimizer, rng)

    shardings = mesh_lib.param_shardings(jax.eval_shape(init, rng), mesh)
    return jax.jit(init, out_shardings=shardings)(rng)


def _feed(
    config: ConfigDict, clip: Clip, source: PairSource, cache: DecodedCache | None
) -> tuple[DataFeed, loop.Batches]:
    """Returns how this process's part of the batches is made, and a function from the first step to an iterator over them."""
    tokenizer, size, rows = make_tokenizer(clip), clip.config.image_size, config.train.batch_size
    pixels = rows // jax.process_count() * size**2 * 3
    workers = host.decoding_workers(config.data.workers, len(source), pixels, cached=cache is not None)
    costs = BatchCosts()

    def batches(first_step: int) -> Iterator[Numbered]:
        for batch in training_batches(
            source,
            tokenizer=tokenizer,
            image_size=size,
            batch_size=rows,
            seed=config.seed,
            start_step=first_step,
            augment=AUGMENT if config.data.augment else None,
            cache=cache,
            num_workers=workers,
            host_index=jax.process_index(),
            host_count=jax.process_count(),
            costs=costs,
        ):
            positions = batch.pop("index")
            yield Numbered(batch, {"pairs": positions})

    feed = DataFeed(workers, cached=config.data.cache_decoded, hosts=jax.process_count(), costs=costs)
    return feed, batches
