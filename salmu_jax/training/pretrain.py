"""Pretraining of a foundation model, top to bottom: mesh, data, model, shardings, step, loop, checkpoint.

*Clean* and *Compromised* go through here with the same seed, the same initial parameters and the same config; they differ
in the pairs alone. Both make ``epochs`` passes over their own pairs, as the published models do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines.input import DecodedCache, PairSource, training_batches
from salmu_jax.config import to_json
from salmu_jax.models import zoo
from salmu_jax.models.attention import ATTENTIONS
from salmu_jax.models.clip import REMAT_POLICIES, Clip, Execution
from salmu_jax.models.inputs import input_manifest, make_tokenizer
from salmu_jax.models.kernels import KERNELS
from salmu_jax.models.tokenizer import ClipTokenizer
from salmu_jax.runtime import host
from salmu_jax.runtime.errors import InputError
from salmu_jax.runtime.progress import DataFeed
from salmu_jax.training import loop, online_eval
from salmu_jax.training import mesh as mesh_lib
from salmu_jax.training.checkpoint import save_model
from salmu_jax.training.flops import train_flops_per_pair
from salmu_jax.training.loss import LossConfig
from salmu_jax.training.nonfinite import Numbered, identifier
from salmu_jax.training.optimizer import OptimizerConfig, make_optimizer
from salmu_jax.training.profile import Profile
from salmu_jax.training.states import States
from salmu_jax.training.step import Step, init_state, make_train_step
from salmu_jax.training.stopping import SavePolicy
from salmu_jax.training.watch import Watch
from salmu_jax.training.writers import import_wandb, make_writers

# What the config's seed is folded with, one constant a purpose.
INIT_PURPOSE = 1
AUGMENT = {"scale": (0.9, 1.0), "ratio": (3 / 4, 4 / 3)}  # OpenCLIP's RandomResizedCrop


def make_clip(config: ConfigDict) -> Clip:
    """Returns the model of ``config.model``. Raises InputError for an image size that does not fit, or unknown names."""
    model = config.model
    if model.compute_dtype not in ("float32", "bfloat16"):
        raise InputError(f"unknown dtype {model.compute_dtype!r}; float32 or bfloat16", "model.compute_dtype")
    if model.remat not in REMAT_POLICIES:
        raise InputError(f"unknown remat {model.remat!r}; there are {', '.join(REMAT_POLICIES)}", "model.remat")
    if model.attention not in ATTENTIONS:
        raise InputError(f"unknown attention {model.attention!r}; there are {', '.join(ATTENTIONS)}", "model.attention")
    if model.kernels not in KERNELS:
        raise InputError(f"unknown kernels {model.kernels!r}; there are {', '.join(KERNELS)}", "model.kernels")
    architecture = zoo.architecture(model.architecture)
    size, patch = model.image_size or architecture.image_size, architecture.patch_size
    if size % patch:
        raise InputError(f"{size} pixels are not a multiple of the patches' {patch}", "model.image_size")
    architecture = dataclasses.replace(
        architecture,
        image_size=size,
        logit_bias=config.train.loss == "sigmoid",
        compute_dtype=model.compute_dtype,
    )
    return Clip(architecture, Execution(model.scan_layers, model.remat, model.attention, model.kernels))


def make_pretrain_optimizer(config: ConfigDict, total_steps: int) -> optax.GradientTransformation:
    """Returns the optimizer of ``config.train``, its schedule ending at ``total_steps``."""
    train = config.train
    hyper = OptimizerConfig(
        learning_rate=train.learning_rate,
        warmup_steps=train.warmup_steps,
        b1=train.b1,
        b2=train.b2,
        eps=train.eps,
        weight_decay=train.weight_decay,
        clip_norm=train.clip_norm,
    )
    return make_optimizer(hyper, total_steps)


def make_pretrain_step(config: ConfigDict, clip: Clip, optimizer: optax.GradientTransformation, mesh: Mesh) -> Step:
    """Returns the train step of ``config.train``. Raises InputError for an unknown loss, or sizes that do not divide."""
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
    datasets: Path | None = None,
    profile: bool = False,
) -> dict[str, Any]:
    """Trains a model on the pairs of ``source`` and writes it to ``directory``; returns its manifest.

    A run that was killed goes on from its ``states``; the caller removes them when the model is recorded. Event files and a
    ``profile`` go to ``logs``; evaluations on the way read ``datasets``, of a finished build. All processes have to call it.

    Raises:
      InputError: a batch that does not split over the devices, a loss that is not finite, too few pairs, an unfinished run
        of another identity.
      Preempted: SIGTERM or SIGHUP came, and the state is saved.
    """
    train = config.train
    mesh = mesh_lib.make_mesh(config.mesh.fsdp, config.mesh.tensor)
    clip = make_clip(config)
    tokenizer = make_tokenizer(clip)

    pairs = len(source)
    if pairs < train.batch_size:
        raise InputError(f"{train.batch_size} pairs a step are more than the {pairs} there are", "train.batch_size")
    total_steps = loop.steps_of(train.epochs, pairs, train.batch_size)
    if train.warmup_steps > total_steps:
        raise InputError(
            f"{train.warmup_steps:,} steps of warm-up do not fit into the run: train.epochs={train.epochs:g} passes over"
            f" {pairs:,} pairs, {train.batch_size:,} a step, are {total_steps:,} steps",
            "train.warmup_steps",
        )
    other = states.begin()
    pixels = train.batch_size // jax.process_count() * clip.config.image_size**2 * 3
    workers = host.decoding_workers(config.data.workers, pairs, pixels, cached=cache is not None)

    def batches(first_step: int) -> Iterator[Numbered]:
        for batch in training_batches(
            source,
            tokenizer=tokenizer,
            image_size=clip.config.image_size,
            batch_size=train.batch_size,
            seed=config.seed,
            start_step=first_step,
            augment=AUGMENT if config.data.augment else None,
            cache=cache,
            num_workers=workers,
            host_index=jax.process_index(),
            host_count=jax.process_count(),
        ):
            positions = batch.pop("index")
            yield Numbered(batch, {"pairs": positions})

    optimizer = make_pretrain_optimizer(config, total_steps)
    step = make_pretrain_step(config, clip, optimizer, mesh)
    rng = jax.random.fold_in(jax.random.key(config.seed), INIT_PURPOSE)
    shapes = jax.eval_shape(lambda rng: init_state(clip, optimizer, rng), rng)
    shardings = mesh_lib.param_shardings(shapes, mesh)
    state = jax.jit(lambda rng: init_state(clip, optimizer, rng), out_shardings=shardings)(rng)

    policy = SavePolicy(train.save_every, train.save_minutes, train.keep_last, train.keep_every)
    history = loop.History(states.directory / "metrics.jsonl")
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
            watch=_watch(config, clip, tokenizer, mesh, name, logs or states.directory, datasets, profile, workers),
        )

    whole = {
        **input_manifest(clip, tokenizer),
        "name": name,
        "parent": None,
        "splits_read": list(source.splits),
        "pairs": pairs,
        "steps": total_steps,
        **({"resumed_from": dataclasses.asdict(other)} if other else {}),
        **manifest,
    }
    return save_model(directory, clip, state.params, whole, history.records())


def _watch(
    config: ConfigDict,
    clip: Clip,
    tokenizer: ClipTokenizer,
    mesh: Mesh,
    name: str,
    logs: Path,
    datasets: Path | None,
    profile: bool,
    workers: int,
) -> Watch:
    """Returns how the config wants the run to be watched; ``workers`` decode its images."""
    log, every = config.log, config.train.evaluate_every
    if log.wandb:
        import_wandb()  # before anything is trained
    evaluate = None
    if every and datasets is not None:
        data = online_eval.load(datasets, clip, tokenizer)
        evaluate = online_eval.make_online_evaluation(clip, data, mesh, config.evaluate.batch_size)
    return Watch(
        flops_per_item=train_flops_per_pair(clip.config),
        feed=DataFeed(workers, cached=config.data.cache_decoded),
        writers=lambda first_step: make_writers(log, logs, name, to_json(config), first_step),
        evaluate=evaluate,
        evaluate_every=every,
        profile=Profile(logs / "profile") if profile else None,
    )
