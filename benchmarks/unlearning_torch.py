"""PyTorch's side of the unlearning tasks: the losses written out as the papers' code writes them, eager on a CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import inputs
from benchmarks.side import Spec, Task, unlearning_task
from salmu_jax.interop.parity import _pixels
from salmu_jax.unlearning.methods.pinned_surrogates import PinnedSurrogates

Embeddings = dict[str, torch.Tensor]
Rows = dict[str, tuple[torch.Tensor | None, torch.Tensor]]

IMAGE_TOWER = ("visual", "vision_model", "logit_scale")  # names of OpenCLIP's parameters, and of transformers'


def task(
    spec: Spec,
    model: Any,
    faster_adamw: Callable[..., str],
    make_adamw: Callable[..., torch.optim.Optimizer],
    set_rate: Callable[[torch.optim.Optimizer, int], None],
    finish: Callable[[Spec], None],
) -> Task:
    """Returns the task of a method's step; ``spec.batch`` are the rows of each stream. ``model`` has the weights."""
    name, _, theirs_cached = unlearning_task(spec.name)
    device = next(model.parameters()).device
    rows: Rows = {
        stream: (
            None if images is None else _pixels(images).to(device),
            torch.from_numpy(tokens).long().to(device),
        )
        for stream, (images, tokens) in inputs.unlearning_rows(model.config, name, spec.batch).items()
    }
    start = copy.deepcopy(model).eval().requires_grad_(False)
    if name == "pinned_surrogates":
        for parameter, tensor in model.model.named_parameters():
            tensor.requires_grad_(not parameter.startswith(IMAGE_TOWER))
    embed, loss_of = {"cliperase": (_start_cliperase, _cliperase), "pinned_surrogates": (_start_pinned, _pinned)}[name]
    level = torch.from_numpy(inputs.level(model.config)).to(device)
    known: Embeddings | None = None

    def forward() -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=spec.dtype == "bfloat16"):
            with torch.no_grad():
                before = embed(start, rows) if known is None else known
            return loss_of(model, rows, before, level)

    if theirs_cached:
        with torch.no_grad():
            known = embed(start, rows)
    call = torch.compile(forward) if spec.device == "gpu" else forward
    model.train()
    call().backward()
    kind = faster_adamw(model, spec)
    optimizer = make_adamw(model, kind)

    def run(index: int) -> torch.Tensor:
        set_rate(optimizer, index)
        optimizer.zero_grad(set_to_none=True)
        loss = call()
        loss.backward()
        optimizer.step()
        finish(spec)
        return loss

    return Task(run, lambda loss: [loss.item()], {"adamw": kind})


def _start_cliperase(start: Any, rows: Rows) -> Embeddings:
    pixels, tokens = rows["retain"]
    return {"image": start.image(pixels), "text": start.text(tokens)}


def _cliperase(model: Any, rows: Rows, before: Embeddings, level: torch.Tensor) -> torch.Tensor:
    """SALMUBench's CLIPErase: similarities of forget to 0; those of retain, and its embeddings, as they were."""
    mse = torch.nn.functional.mse_loss
    (image_f, text_f), (image_r, text_r) = (
        (model.image(pixels), model.text(tokens)) for pixels, tokens in (rows["forget"], rows["retain"])
    )
    forget, retain, kept = image_f @ text_f.T, image_r @ text_r.T, before["image"] @ before["text"].T
    zeros = torch.zeros_like(forget)
    forgetting = mse(forget, zeros) + mse(forget.T, zeros)
    retention = mse(retain, kept) + mse(retain.T, kept.T)
    return forgetting + retention + mse(image_r, before["image"]) + mse(text_r, before["text"])


def _start_pinned(start: Any, rows: Rows) -> Embeddings:
    pins = {stream: start.text(rows[stream][1]) for stream in ("alias", "retain", "invented", "absent")}
    return {"image": start.image(rows["forget"][0]), **pins}


def _pinned(model: Any, rows: Rows, before: Embeddings, level: torch.Tensor) -> torch.Tensor:
    """Pinned surrogates with their default weights; the image tower is frozen, so images are only the start model's."""
    weights = PinnedSurrogates()

    def distance(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return (one - other).square().sum(-1).mean()

    text = model.text(rows["forget"][1])
    excess = torch.relu((before["image"] * text).sum(-1) - before["image"].float() @ level)
    loss = weights.hinge_weight * excess.square().mean() + weights.alias_weight * distance(text, before["alias"])
    for stream in ("retain", "invented", "absent"):
        weight = getattr(weights, f"{stream}_weight")
        loss = loss + weight * distance(model.text(rows[stream][1]), before[stream])
    return loss
