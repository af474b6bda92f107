"""PyTorch's side of the unlearning tasks: the losses written out as the papers' code writes them, eager on a CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import first_step, inputs
from benchmarks.side import Spec, Task, unlearning_task
from salmu_jax.interop.parity import _pixels
from salmu_jax.unlearning.methods.pinned_surrogates import PinnedSurrogates
from salmu_jax.unlearning.methods.redirect import Redirect, attack_strength
from salmu_jax.unlearning.step import run_key, step_keys

Tensors = dict[str, torch.Tensor]
Rows = dict[str, tuple[torch.Tensor | None, torch.Tensor]]

# Names of OpenCLIP's parameters, and of transformers'.
IMAGE_TOWER = ("visual", "vision_model", "logit_scale")
REDIRECT = Redirect()
# Redirection's streams that are held, with the option of their weight, and whether portraits' details count besides.
REDIRECT_HELD = {
    "captions": ("retain_weight", False),
    "portraits": ("retain_weight", False),
    "invented": ("invented_weight", True),
    "absent": ("absent_weight", True),
    "likely": ("likely_weight", True),
}


def task(
    spec: Spec,
    model: Any,
    faster_adamw: Callable[..., str],
    make_adamw: Callable[..., torch.optim.Optimizer],
    set_rate: Callable[[torch.optim.Optimizer, int], None],
    finish: Callable[[Spec], None],
) -> Task:
    """Returns the task of a method's step over the rows that ``inputs.unlearning_rows`` draws of ``spec.batch``.

    ``model`` has the weights.
    """
    name, _, theirs_cached = unlearning_task(spec.name)
    device = next(model.parameters()).device
    rows: Rows = {
        stream: (
            None if images is None else _pixels(images).to(device),
            torch.from_numpy(tokens).long().to(device),
        )
        for stream, (images, tokens) in inputs.unlearning_rows(model.config, name, spec.batch).items()
    }
    if name == "redirect":
        rows["likely"] = None, _likely(model, rows)
    start = copy.deepcopy(model).eval().requires_grad_(False)
    model.load(inputs.moved(model.config))
    if name != "cliperase":  # the text tower alone is trained
        for parameter, tensor in model.model.named_parameters():
            tensor.requires_grad_(not parameter.startswith(IMAGE_TOWER))
    embed, loss_of = {
        "cliperase": (_start_cliperase, _cliperase),
        "pinned_surrogates": (_start_pinned, _pinned),
        "redirect": (_start_redirect, _redirect),
    }[name]
    arrays = {"prepared": inputs.prepared(model.config, name), **inputs.numbers(name, spec.batch)}
    given = {key: torch.from_numpy(array).to(device) for key, array in arrays.items() if array is not None}
    rate_of = _redirect_rate if name == "redirect" else lambda parameter: 1.0
    if name == "redirect":  # the method embeds it before its first step
        with torch.no_grad():
            given["likely"] = start.text(rows["likely"][1])
    known: Tensors | None = None

    def forward() -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=spec.dtype == "bfloat16"):
            with torch.no_grad():
                before = embed(start, rows) if known is None else known
            return loss_of(model, rows, before, given)

    if theirs_cached:
        with torch.no_grad():
            known = embed(start, rows)
    rates = _attack_rates().to(device)  # before any step is timed
    given["rate"] = rates[0]
    call = torch.compile(forward) if spec.device == "gpu" else forward
    model.train()
    call().backward()
    kind = faster_adamw(model, spec, rate_of)
    optimizer = make_adamw(model, kind, rate_of)

    def take_step(index: int) -> torch.Tensor:
        set_rate(optimizer, index)
        given["rate"] = rates[index]
        optimizer.zero_grad(set_to_none=True)
        loss = call()
        loss.backward()
        optimizer.step()
        finish(spec)
        return loss

    def parameters() -> dict[str, np.ndarray]:
        return {name: tensor.detach().float().cpu().numpy().copy() for name, tensor in model.model.named_parameters()}

    before = parameters()
    first = first_step.summary(take_step(0).item(), before, parameters())
    del before
    return Task(lambda index: take_step(1 + index), lambda loss: [loss.item()], {"adamw": kind, "first_step": first})


def _start_cliperase(start: Any, rows: Rows) -> Tensors:
    pixels, tokens = rows["retain"]
    return {"image": start.image(pixels), "text": start.text(tokens)}


def _cliperase(model: Any, rows: Rows, before: Tensors, given: Tensors) -> torch.Tensor:
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


def _start_pinned(start: Any, rows: Rows) -> Tensors:
    captions = ("forget.alias", "retain", "invented", "absent")
    return {"image": start.image(rows["forget"][0]), **{name: start.text(rows[name][1]) for name in captions}}


def _pinned(model: Any, rows: Rows, before: Tensors, given: Tensors) -> torch.Tensor:
    """Pinned surrogates with their default weights; the image tower is frozen, so images are only the start model's."""
    weights = PinnedSurrogates()
    text = model.text(rows["forget"][1])
    excess = torch.relu((before["image"] * text).sum(-1) - before["image"].float() @ given["prepared"])
    loss = weights.hinge_weight * excess.square().mean() + weights.alias_weight * _distance(
        text, before["forget.alias"]
    )
    for stream in ("retain", "invented", "absent"):
        weight = getattr(weights, f"{stream}_weight")
        loss = loss + weight * _distance(model.text(rows[stream][1]), before[stream])
    return loss


def _likely(model: Any, rows: Rows) -> torch.Tensor:
    """The one caption that is likely, int [N, T], as often as there are captions of absent attributes."""
    absent = rows["absent"][1]
    return torch.from_numpy(inputs.likely(model.config)).to(absent).expand(len(absent), -1)


def _start_redirect(start: Any, rows: Rows) -> Tensors:
    names = (*inputs.SAMPLED[1:], *(name for name in REDIRECT_HELD if name != "likely"))
    return {"image": start.image(rows["forget"][0]), **_together(start, rows, names)}


def _redirect(model: Any, rows: Rows, before: Tensors, given: Tensors) -> torch.Tensor:
    """Redirection with its default weights; the image tower is frozen, so images are only the start model's."""
    weights, (said, general, stranger) = REDIRECT, inputs.SAMPLED
    text, before = _together(model, rows, (said, *REDIRECT_HELD)), {**before, "likely": given["likely"]}
    share = torch.where(given["whole"] > 0, 1.0, weights.part_share)[:, None, None]
    target = torch.nn.functional.normalize((1 - share) * before[general] + share * before[stranger], dim=-1)
    loss = weights.hinge_weight * _excess(before["image"], text[said], target)
    loss = loss + weights.alias_weight * _distance(text[said], target)
    half, own = len(target) // 2, rows[said][1]
    found = _attacked(model, given["rate"], before["image"][:half], own[:half, 0], own[half:])
    loss = loss + weights.attack_weight * _excess(before["image"][half:], found, target[half:])
    for stream, (weight, detailed) in REDIRECT_HELD.items():
        loss = loss + getattr(weights, weight) * _distance(text[stream], before[stream])
        if detailed:
            drift = (text[stream] - before[stream]).float()
            loss = loss + weights.detail_weight * ((drift @ given["prepared"]) * drift).sum(-1).mean()
    return loss


def _excess(image: torch.Tensor, text: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return torch.relu((image[:, None] * (text - target)).sum(-1)).square().mean()


def _attack_rates() -> torch.Tensor:
    """The rate of the attacker in each step, float32 [steps]: the draws of our side."""
    keys = jax.vmap(lambda index: step_keys(run_key(42), index)[0])(jnp.arange(inputs.TOTAL_STEPS))
    return torch.from_numpy(REDIRECT.attack_rate * np.asarray(jax.vmap(attack_strength)(keys)))


def _attacked(
    model: Any, rate: torch.Tensor, image: torch.Tensor, own: torch.Tensor, said: torch.Tensor
) -> torch.Tensor:
    """Embeds ``said`` int [N, K, T] after an attacker's steps, whose change of the weights counts as constant."""
    text = _Text(model)
    weights = {name: weight for name, weight in text.named_parameters() if weight.requires_grad}
    labels, cross_entropy = torch.arange(len(image), device=image.device), torch.nn.functional.cross_entropy
    scale = model.model.logit_scale.detach().exp()
    tower = {name: weight.detach() for name, weight in weights.items()}
    for _ in range(REDIRECT.attack_steps):
        tower = {name: weight.requires_grad_() for name, weight in tower.items()}
        logits = scale * image @ torch.func.functional_call(text, tower, (own,)).T
        loss = (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2
        gradients = torch.autograd.grad(loss, list(tower.values()))
        tower = {
            name: (weight - rate * gradient / (gradient.abs() + 1e-6)).detach()
            for (name, weight), gradient in zip(tower.items(), gradients, strict=True)
        }
    attacked = {name: weight + (tower[name] - weight.detach()) for name, weight in weights.items()}
    return torch.func.functional_call(text, attacked, (said.flatten(0, 1),)).unflatten(0, said.shape[:2])


class _Text(torch.nn.Module):
    """The text tower as a module, whose weights can be replaced for a call."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = self.model.text(tokens)
        return embedded


def _redirect_rate(parameter: str) -> float:
    """AdamW's rate and its decay are products, so a rate a group is a factor of the update, as ours has it."""
    return 1.0 if "token_embedding" in parameter else REDIRECT.tower_rate


def _together(model: Any, rows: Rows, names: Iterable[str]) -> Tensors:
    """Embeds several arrays of captions, int [N, T] or [N, K, T], in one pass, as ours does: [N, D] or [N, K, D] each."""
    arrays = {name: rows[name][1] for name in names}
    flat = [tokens.flatten(0, -2) for tokens in arrays.values()]
    parts = model.text(torch.cat(flat)).split([len(part) for part in flat])
    return {
        name: part.unflatten(0, tokens.shape[:-1]) for part, (name, tokens) in zip(parts, arrays.items(), strict=True)
    }


def _distance(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one - other).square().sum(-1).mean()
