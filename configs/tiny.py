"""The whole benchmark in a minute or two, to see that it runs: nothing is learnt, and no figure means anything."""

from configs import mini
from salmu_jax.config import base_config

METHODS = ("generic_captions", "cliperase", "delete")


def get_config():
    config = mini.get_config()
    config.name = "tiny"
    config.workdir = "runs/tiny"

    config.world.personas = 8
    config.world.pairs_per_association = 1
    config.world.portrait_size = 48
    config.world.retain_joint = 6
    config.world.retain_disjoint = 40
    config.world.fragile = 8
    config.world.scenes = 80
    config.world.scene_size = 32
    config.world.zeroshot_images = 48

    config.model.architecture = "tiny"
    config.train.epochs = 4.0
    config.train.batch_size = 16
    config.train.warmup_steps = 5
    config.train.steps_per_call = 5
    config.train.save_every = 10
    config.evaluate.probes = (
        base_config().evaluate.probes
    )  # without those that train: compiling takes longer than all else
    config.evaluate.bootstrap = 50
    config.unlearn.steps_per_call = 5
    config.unlearn.save_every = 5
    for name in METHODS:
        config.unlearn.methods[name].update(epochs=1.0, batch_size=16)
    for name in set(config.unlearn.methods) - set(METHODS):
        del config.unlearn.methods[name]
    return config
