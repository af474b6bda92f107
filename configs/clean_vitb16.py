"""The Clean foundation model at full size: ViT-B/16, 32 epochs over the retain pairs, global batch 32,768.

``world_dir`` names the training repository, ``cvc-mmu/salmu-512-redistributed``, and ``retain_dir`` the web pairs, which
``salmu data retain`` builds from img2dataset's output. (The evaluation repository,
``cvc-mmu/salmubench-512-redistributed``, has the same pairs as the former and would also do.) The settings are for a pod;
``salmu plan`` says what they need.
"""

from salmu_jax.config import base_config


def get_config():
    config = base_config()
    config.name = "vitb16"
    config.workdir = "runs/vitb16"
    config.models = ("clean",)
    config.world_dir = "data/salmu-512-redistributed"
    config.retain_dir = "data/retain"

    config.model.architecture = "ViT-B-16"
    config.model.compute_dtype = "bfloat16"
    config.model.scan_layers = True
    config.model.remat = "full"

    config.train.epochs = 32.0
    config.train.batch_size = 32_768
    config.train.loss_form = "ring"
    config.train.learning_rate = 5e-4
    config.train.warmup_steps = 10_000
    return config
