"""SLUG: its parts against numpy, and the whole of it, search included, against a PyTorch transcription."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from method_by_hand import unlearn
from random_models import random_params
from torch_clip import random_batch
from torch_method import CONFIG, TorchClip, as_torch, distance

from salmu_jax.models.clip import Clip
from salmu_jax.runtime.errors import InputError
from salmu_jax.unlearning.hyper import Hyper
from salmu_jax.unlearning.method import Pairs
from salmu_jax.unlearning.methods.slug import SLUG, best, first_steps, recall

TOP, TRIALS = 2, 6


def test_the_front_holds_what_no_other_layer_beats_in_both():
    # alignment and importance: a (.1, 1), b (.5, 2), c (.6, 1.5) beaten by b, d (0, .5); e depends on nothing, f is 0
    sizes = {"a": (1, 1, 0.1, 1), "b": (4, 1, -1, 1), "c": (2.25, 1, 0.9, 1), "d": (0.25, 0, 0, 1), "e": (0, 1, 0, 1)}
    sizes = {f"text/{name}": np.array(value, float) for name, value in {**sizes, "f": (1, 1, 0, 0)}.items()}
    found = first_steps({**sizes, "visual/c": sizes["text/c"], "logit_scale": sizes["text/b"]})
    assert {name: pytest.approx(float(step)) for name, step in found.items()} == {
        "text/a": 0.1, "text/b": 0.05, "text/d": 0.2, "visual/c": 0.1 / 1.5,
    }  # fmt: skip


def test_recall():
    cosines = jnp.array([[0.5, 0.6, 0.1], [0.2, 0.1, 0.3], [0.4, 0.3, 0.4]])  # ranks 2, 3, and 1 by a tie
    assert [round(3 * float(recall(cosines, top))) for top in (1, 2, 3)] == [1, 2, 3]


def test_the_best_trial_has_forgotten_at_the_least_loss_on_retain():
    tried = {"a": np.array([[1, 0.9, 0.0], [2, 0.2, 3.0]]), "b": np.array([[5, 0.25, 2.0], [4, 0.0, 2.5]])}
    assert best(tried, 0.25) == ("b", 5)
    assert best(tried, 0.2) == ("b", 4)
    assert best({name: rows[:1] for name, rows in tried.items()}, 0.1) == ("b", 5)


@pytest.fixture(scope="module")
def batches():
    def pairs(seed):
        images, tokens = random_batch(CONFIG, seed, rows=6)
        return Pairs(images, tokens)

    return [{"forget": pairs(seed), "retain": pairs(seed + 10)} for seed in range(2)]


def layers():
    """The layers of each tower: the names that each has in PyTorch. Attention's three inputs are one layer, as in OpenCLIP."""
    blocks = {
        "in_proj": [f"self_attn.{part}_proj" for part in "qkv"],
        **{name: [name] for name in ("self_attn.out_proj", "mlp.fc1", "mlp.fc2", "layer_norm1", "layer_norm2")},
    }
    visual = [["embeddings.patch_embedding"], ["pre_layrnorm"], ["post_layernorm"]]
    towers = {
        "vision_model": (visual, "visual_projection", 2),
        "text_model": ([["final_layer_norm"]], "text_projection", 1),
    }
    for tower, (others, projection, count) in towers.items():
        inside = [[f"encoder.layers.{i}.{name}" for name in names] for i in range(count) for names in blocks.values()]
        yield [[f"{tower}.{name}.weight" for name in names] for names in others + inside] + [[f"{projection}.weight"]]


def transcription(params, batches):
    """The published algorithm: the start model's parameters by name, with one layer changed; and what was tried."""
    model, start = TorchClip(params), as_torch(params)
    sums = {"forget": {}, "retain": {}}
    for batch in batches:
        for split, total in sums.items():
            image, text = model.pairs(batch[split])
            loss = 1 - (image * text).sum(-1).mean() if split == "forget" else model.contrastive(image, text)
            for name, gradient in model.gradients(loss).items():
                total[name] = total.get(name, 0) + gradient / len(batches)

    def evaluate(names, step):
        moved = TorchClip(params)
        with torch.no_grad():
            for name in names:
                moved.parameters[name].add_(step * sums["forget"][name])
            found, kept = [], []
            for batch in batches:
                image, text = moved.pairs(batch["forget"])
                cosines = image @ text.T
                found.append(((cosines > cosines.diagonal()[:, None]).sum(1) < TOP).double().mean().item())
                kept.append(moved.contrastive(*moved.pairs(batch["retain"])).item())
        return np.mean(found), np.mean(kept)

    tried = []
    for tower in layers():
        points = []
        for names in tower:
            whole = [torch.cat([tree[name].flatten() for name in names]) for tree in (*sums.values(), start)]
            cosine = torch.nn.functional.cosine_similarity(whole[0], whole[1], dim=0)
            points.append((cosine.abs().item(), (whole[0].norm() / whole[2].norm()).item()))
        for names, (alignment, importance) in zip(tower, points, strict=True):
            if any(x < alignment and y > importance for x, y in points):
                continue
            step, low, high = 1 / importance / 10, 0.0, np.inf
            for _ in range(TRIALS):
                found, kept = evaluate(names, step)
                tried.append((found > TOP / 6, 0 if found <= TOP / 6 else found, kept, step, names))
                low, high = (low, step) if found <= TOP / 6 else (step, high)
                step = 2 * step if high == np.inf else (low + high) / 2
    *_, step, names = min(tried, key=lambda one: one[:3])
    return {name: value + step * sums["forget"][name] * (name in names) for name, value in start.items()}, tried


def test_an_update_is_that_of_the_published_algorithm(batches):
    params = random_params(Clip(CONFIG), seed=1)
    theirs, tried = transcription(params, batches)
    assert {one[0] for one in tried} == {True, False}  # some have forgotten, and some have not
    options = {"batches": 2, "trial_batches": 2, "trials": TRIALS, "top": TOP}
    ours = as_torch(unlearn(SLUG(), Hyper(total_steps=0, options=options), Clip(CONFIG), params, batches))
    assert distance(ours, theirs, as_torch(params)) < 1e-5


def test_what_cannot_be_searched(batches):
    params, clip = random_params(Clip(CONFIG), seed=1), Clip(CONFIG)
    with pytest.raises(InputError, match=r"options\.top: is 6; a batch has 6 forget pairs, and more are needed"):
        unlearn(SLUG(top=6), Hyper(total_steps=0), clip, params, batches)
