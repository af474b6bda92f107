"""Counts the FLOPs of a model: those of its matmuls, as model FLOPs utilisation (MFU) counts them.

Of a tower's last block, only the position that is read is counted, as it is computed. ``every_position`` counts all of them,
as other implementations compute and published figures count.
"""

from __future__ import annotations

from salmu_jax.models.clip import ClipConfig, TowerConfig


def forward_flops_per_image(config: ClipConfig, every_position: bool = False) -> float:
    """Counts the FLOPs of encoding an image: two for each multiply-add of a matmul, nothing for the rest."""
    patches = (config.image_size // config.patch_size) ** 2
    embedding = 2 * patches * 3 * config.patch_size**2 * config.vision.width
    return (
        embedding
        + _tower_flops(config.vision, patches + 1, every_position)
        + 2 * config.vision.width * config.embed_dim
    )


def forward_flops_per_text(config: ClipConfig, every_position: bool = False, length: int | None = None) -> float:
    """Counts the FLOPs of encoding a caption of ``length`` positions; None: of the whole context.

    Attention is counted in full, as it is computed, though half of it is masked.
    """
    positions = config.context_length if length is None else length
    return _tower_flops(config.text, positions, every_position) + 2 * config.text.width * config.embed_dim


def train_flops_per_pair(config: ClipConfig, every_position: bool = False) -> float:
    """Counts the FLOPs of a training step per pair: three times the forward pass, since backward has two matmuls for each.

    It leaves out the loss (two dot products of length D for each other pair of the batch), and what rematerialisation or
    gradient caching recompute, so that MFU does not reward recomputation.
    """
    image, text = forward_flops_per_image(config, every_position), forward_flops_per_text(config, every_position)
    return 3 * (image + text)


def _tower_flops(tower: TowerConfig, length: int, every_position: bool) -> float:
    """Counts one tower. The last block has one query, and no keys and values (``attention.attention_of_one``)."""
    width, hidden = tower.width, int(tower.width * tower.mlp_ratio)
    position = 2 * (4 * width * width + 2 * width * hidden)  # projections and MLP; the same for the one query
    block = length * (position + 2 * 2 * length * width)
    last = block if every_position else position + 2 * 2 * length * width * tower.heads
    return (tower.layers - 1) * block + last
