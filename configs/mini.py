"""The whole benchmark in minutes on two CPU cores: a small made world, small towers, everything else as at full size."""

from salmu_jax.config import base_config


def get_config():
    config = base_config()
    config.name = "mini"
    config.workdir = "runs/mini"

    config.world.personas = 96
    config.world.pairs_per_association = 3
    config.world.portrait_size = 160
    config.world.retain_joint = 130
    config.world.retain_disjoint = 2_000
    config.world.fragile = 200
    config.world.scenes = 10_000
    config.world.scene_size = 64
    config.world.zeroshot_images = 1_600

    config.model.architecture = "mini"
    config.data.cache_decoded = True
    config.data.augment = False

    config.train.epochs = 14.0
    config.train.batch_size = 160
    config.train.learning_rate = 4e-3
    config.train.warmup_steps = 50
    config.train.weight_decay = 0.02
    config.train.clip_norm = 1.0
    config.train.mask_duplicates = True
    config.train.steps_per_call = 10
    config.train.save_every = 100
    return config
