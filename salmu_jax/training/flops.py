"""How many floating-point operations a model takes: those of matmuls, as model FLOPs utilisation counts them.

All functions count what a tower needs; with ``every_position`` its last block over all positions too, as implementations
compute it that take the features out afterwards, and as published figures count it.
"""

from __future__ import annotations

from salmu_jax.models.clip import ClipConfig, TowerConfig


def forward_flops_per_image(config: ClipConfig, every_position: bool = False) -> float:
    """FLOPs of encoding an image: two for each multiply-add of a matmul, nothing for the rest."""
    patches = (config.image_size // config.patch_size) ** 2
    embedding = 2 * patches * 3 * config.patch_size**2 * config.vision.width
    return (
        embedding
        + _tower_flops(config.vision, patches + 1, every_position)
        + 2 * config.vision.width * config.embed_dim
    )


def forward_flops_per_text(config: ClipConfig, every_position: bool = False, length: int | None = None) -> float:
    """FLOPs of encoding a caption of ``length`` positions, or of the whole context.

    Attention is counted in full, as it is computed, though half of it is masked.
    """
    positions = config.context_length if length is None else length
    return _tower_flops(config.text, positions, every_position) + 2 * config.text.width * config.embed_dim


def train_flops_per_pair(config: ClipConfig, every_position: bool = False) -> float:
    """FLOPs of a training step a pair: three times the forward pass (the backward pass has two matmuls for each).

    Without the loss (two more dot products of length D for each other pair of the batch) and without what rematerialisation
    or gradient caching computes again, so that MFU does not reward them.
    """
    image, text = forward_flops_per_image(config, every_position), forward_flops_per_text(config, every_position)
    return 3 * (image + text)


def _tower_flops(tower: TowerConfig, length: int, every_position: bool) -> float:
    """Of the last block one position is read, for which it needs no keys and values (see ``attention.attention_of_one``)."""
    width, hidden = tower.width, int(tower.width * tower.mlp_ratio)
    position = 2 * (4 * width * width + 2 * width * hidden)  # projections and MLP; of one query, what stands for them
    block = length * (position + 2 * 2 * length * width)
    last = block if every_position else position + 2 * 2 * length * width * tower.heads
    return (tower.layers - 1) * block + last
