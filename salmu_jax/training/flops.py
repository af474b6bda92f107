"""How many floating-point operations a model takes: the products alone, as model FLOPs utilisation counts them."""

from __future__ import annotations

from salmu_jax.models.clip import ClipConfig, TowerConfig


def forward_flops_per_image(config: ClipConfig) -> float:
    """FLOPs of encoding an image: two for each multiplication and addition of a product, nothing for the rest."""
    patches = (config.image_size // config.patch_size) ** 2
    embedding = 2 * patches * 3 * config.patch_size**2 * config.vision.width
    return embedding + _tower_flops(config.vision, patches + 1) + 2 * config.vision.width * config.embed_dim


def forward_flops_per_text(config: ClipConfig) -> float:
    """FLOPs of encoding a caption; attention is counted in full, as it is computed, though half of it is masked."""
    return _tower_flops(config.text, config.context_length) + 2 * config.text.width * config.embed_dim


def train_flops_per_pair(config: ClipConfig) -> float:
    """FLOPs of a training step a pair: three times the forward pass (the backward pass has two products for each).

    Without the loss (two more products of D for each other pair of the batch) and without what rematerialisation or gradient
    caching computes again, so that MFU does not reward them.
    """
    return 3 * (forward_flops_per_image(config) + forward_flops_per_text(config))


def _tower_flops(tower: TowerConfig, length: int) -> float:
    """Of the last block one position is read, for which it needs the keys and values of all (see ``clip.Transformer``)."""
    width, hidden = tower.width, int(tower.width * tower.mlp_ratio)
    keys_values, rest = 2 * 2 * width * width, 2 * (2 * width * width + 2 * width * hidden)  # for each position
    attention = 2 * 2 * length * width  # for each position that asks
    return (tower.layers - 1) * length * (keys_values + rest + attention) + length * keys_values + rest + attention
