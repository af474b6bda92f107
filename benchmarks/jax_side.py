"""This project's side: the functions that the trainer and the evaluation call, compiled as they compile them."""

from __future__ import annotations

import dataclasses

from benchmarks import inputs
from benchmarks.side import UNLEARNING_TASKS, Spec, Task, serve, versions
from salmu_jax.runtime import host


def prepare(spec: Spec) -> Task:
    """The task of ``spec``. JAX is imported after the process has its cores: XLA makes a thread for each."""
    task = {
        "train": _train,
        "image": _encode,
        "text": _encode,
        "text_long": _encode,
        "loss": _loss,
        "loss_chunked": _loss,
        "matmul": _matmul,
        "tokenizer": _tokenizer,
        "tokenizer_repeated": _tokenizer,
        "preprocess": _preprocess,
        "evaluate": _evaluate,
        "evaluate_cached": _evaluate,
        **dict.fromkeys(UNLEARNING_TASKS, _unlearn),
    }[spec.name](spec)
    import jax

    from salmu_jax.training.chips import chip_of

    device = jax.devices()[0]
    chip = chip_of(device)
    facts = {
        "versions": versions("jax", "jaxlib", "flax", "optax", "numpy"),
        "device": device.device_kind,
        "published_peak": chip.peak_flops if chip else None,
    }
    return dataclasses.replace(task, facts={**facts, **task.facts})


def _clip(spec: Spec):
    from salmu_jax.models.clip import Clip
    from salmu_jax.models.zoo import architecture

    return Clip(dataclasses.replace(architecture(spec.model), compute_dtype=spec.dtype))


def _temporary_bytes(compiled) -> int | None:
    analysis = compiled.memory_analysis()
    return getattr(analysis, "temp_size_in_bytes", None)


def _train(spec: Spec) -> Task:
    import jax
    import jax.numpy as jnp

    from salmu_jax.training.flops import train_flops_per_pair
    from salmu_jax.training.optimizer import AdamW, make_optimizer
    from salmu_jax.training.step import TrainState, make_train_step

    clip = _clip(spec)
    hyper = AdamW(inputs.LEARNING_RATE, inputs.WARMUP_STEPS, inputs.B1, inputs.B2, inputs.EPS, inputs.WEIGHT_DECAY)
    optimizer = make_optimizer(hyper, inputs.TOTAL_STEPS)
    params = jax.device_put(inputs.parameters(clip.config))
    state = TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))
    images, tokens = inputs.pairs(clip.config, spec.batch)
    batch = jax.device_put({"images": images, "tokens": tokens})
    compiled = jax.jit(make_train_step(clip, optimizer), donate_argnums=0).lower(state, batch).compile()
    holder = [state]

    def run(_: int):
        holder[0], metrics = compiled(holder[0], batch)
        jax.block_until_ready((holder[0], metrics))
        return metrics["loss"]

    facts = {
        "flops": train_flops_per_pair(clip.config) * spec.batch,
        "flops_every_position": train_flops_per_pair(clip.config, every_position=True) * spec.batch,
        "temporary_bytes": _temporary_bytes(compiled),
    }
    return Task(run, lambda loss: [float(loss)], facts)


def _encode(spec: Spec) -> Task:
    import jax
    import numpy as np

    from salmu_jax.evaluation.encode import buckets
    from salmu_jax.training.flops import forward_flops_per_image, forward_flops_per_text

    clip = _clip(spec)
    params = jax.device_put(inputs.parameters(clip.config))
    images, tokens = inputs.pairs(clip.config, spec.batch, long=spec.name == "text_long")
    image = spec.name == "image"
    # Captions up to the longest of them, as the evaluator does where they are few.
    argument = jax.device_put(images if image else tokens[:, : buckets(tokens)[0].length])
    compiled = jax.jit(clip.encode_image if image else clip.encode_text).lower(params, argument).compile()
    if image:
        needed, every = (forward_flops_per_image(clip.config, every_position) for every_position in (False, True))
    else:
        needed = forward_flops_per_text(clip.config, length=argument.shape[1])
        every = forward_flops_per_text(clip.config, every_position=True)
    facts = {"flops": needed * spec.batch, "flops_every_position": every * spec.batch}

    def run(_: int):
        return jax.block_until_ready(compiled(params, argument))

    return Task(run, lambda result: inputs.probe(np.asarray(result)), facts)


def _loss(spec: Spec) -> Task:
    import jax
    import jax.numpy as jnp

    from salmu_jax.training.loss import LossConfig, make_loss

    width = _clip(spec).config.embed_dim
    form = "chunked" if spec.name == "loss_chunked" else "plain"
    loss = make_loss(LossConfig(form=form, chunk=min(1024, spec.batch)))
    arguments = jax.device_put((*inputs.embeddings(spec.batch, width), jnp.asarray(2.5, jnp.float32)))

    def value(image, text, scale):
        return loss(image, text, {"logit_scale": scale}, None)

    compiled = jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2))).lower(*arguments).compile()

    def run(_: int):
        return jax.block_until_ready(compiled(*arguments))

    facts = {"temporary_bytes": _temporary_bytes(compiled), "flops": 3 * 2 * spec.batch**2 * width}
    return Task(run, lambda result: [float(result[0]), float(result[1][2])], facts)


def _matmul(spec: Spec) -> Task:
    import jax
    import jax.numpy as jnp
    import numpy as np

    left = jnp.asarray(inputs.embeddings(spec.batch, spec.batch)[0], spec.dtype)
    compiled = jax.jit(jnp.matmul).lower(left, left).compile()

    def run(_: int):
        return jax.block_until_ready(compiled(left, left))

    return Task(run, lambda result: inputs.probe(np.asarray(result, np.float32)), {"flops": 2 * spec.batch**3})


def _tokenizer(spec: Spec) -> Task:
    from salmu_jax.models.tokenizer import ClipTokenizer

    tokenizer = ClipTokenizer()
    tokenizer(["a caption, so that the merges are read"])
    texts = inputs.Captions(spec.batch, spec.name == "tokenizer_repeated")
    return Task(lambda index: tokenizer(texts[index]), lambda rows: inputs.probe(rows.T))


def _preprocess(spec: Spec) -> Task:
    from salmu_jax.models.preprocess import preprocess_eval
    from salmu_jax.models.zoo import architecture

    size = architecture(spec.model).image_size
    files = inputs.jpegs(spec.batch)

    def run(_: int):
        return [preprocess_eval(file, size) for file in files]

    return Task(run, lambda images: inputs.probe([image / 255 for image in images]))


def _unlearn(spec: Spec) -> Task:
    from benchmarks import unlearning_jax

    return unlearning_jax.task(spec, _clip(spec))


def _evaluate(spec: Spec) -> Task:
    """Image files to embeddings, as the evaluator does it: pixels go to a new cache in each round, or come from a full one."""
    import numpy as np

    from salmu_jax.evaluation.encode import Encoder, default_rows
    from salmu_jax.evaluation.pixels import ImageStore
    from salmu_jax.models.preprocess import preprocess_eval

    clip = _clip(spec)
    encoder = Encoder(clip, inputs.parameters(clip.config), default_rows(clip))
    directory = inputs.directory()
    source = inputs.ImageFiles(inputs.write_jpegs(directory / "files", spec.batch))

    def run(index: int):
        cache = directory / ("cache" if spec.name == "evaluate_cached" else f"cache-{index}")
        images = ImageStore(source, "images", clip.config.image_size, (), preprocess_eval, directory=cache)
        return np.concatenate([part for _, part in encoder.run("image", images.batch, [(0, spec.batch)])])

    return Task(run, inputs.probe, {"rows_a_device": default_rows(clip)})


if __name__ == "__main__":
    host.prepare()  # as the command line does
    serve(prepare)
