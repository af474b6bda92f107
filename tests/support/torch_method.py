"""A small CLIP in PyTorch, float64, for transcriptions of published algorithms: features, gradients by name, comparison."""

import numpy as np
import torch
from torch_clip import to_torch, torch_model

from salmu_jax.models.clip import ClipConfig, TowerConfig
from salmu_jax.models.preprocess import IMAGE_MEAN, IMAGE_STD

CONFIG = ClipConfig(
    embed_dim=12,
    image_size=16,
    patch_size=8,
    vision=TowerConfig(width=16, layers=2, heads=2),
    text=TowerConfig(width=8, layers=1, heads=2),
    context_length=9,
    vocab_size=40,
)


class TorchClip:
    """transformers' CLIP with our parameters."""

    def __init__(self, params, config=CONFIG):
        self.module, self.config = torch_model(config), config
        self.module.load_state_dict(to_torch(params, config), strict=False)
        self.module.double()

    @property
    def parameters(self):
        return dict(self.module.named_parameters())

    def image(self, images):
        mean, std = torch.tensor(IMAGE_MEAN, dtype=torch.double), torch.tensor(IMAGE_STD, dtype=torch.double)
        pixels = ((torch.tensor(np.asarray(images)).double() / 255 - mean) / std).permute(0, 3, 1, 2)
        features = self.module.visual_projection(self.module.vision_model(pixel_values=pixels).pooler_output)
        return torch.nn.functional.normalize(features, dim=-1)

    def text(self, tokens):
        inside = self.module.text_model(input_ids=torch.tensor(np.asarray(tokens)).long())
        return torch.nn.functional.normalize(self.module.text_projection(inside.pooler_output), dim=-1)

    def pairs(self, pairs):
        return self.image(pairs.images), self.text(pairs.tokens)

    def contrastive(self, image, text):
        """The symmetric InfoNCE of embeddings."""
        logits, labels = self.module.logit_scale.exp() * image @ text.T, torch.arange(len(image))
        cross_entropy = torch.nn.functional.cross_entropy
        return (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2

    def gradients(self, loss):
        """By name. Those of key biases, 0 but for rounding since softmax does not see a constant, are made 0."""
        self.module.zero_grad()
        loss.backward()
        found = {}
        for name, value in self.parameters.items():
            found[name] = torch.zeros_like(value) if value.grad is None else value.grad.clone()
            if name.endswith("k_proj.bias"):
                found[name].zero_()
        return found


def as_torch(params, config=CONFIG):
    """Our tree by transformers' names, float64."""
    return {name: value.double() for name, value in to_torch(params, config).items()}


def distance(ours, theirs, start):
    """The largest difference of an entry of two models by name, relative to the largest move from the start model."""
    moved = max((theirs[name] - start[name]).abs().max().item() for name in start)
    return max((ours[name] - theirs[name]).abs().max().item() for name in start) / moved
