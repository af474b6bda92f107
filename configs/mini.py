"""The whole benchmark in minutes on two CPU cores: a small made world, small towers, everything else as at full size."""

from ml_collections import ConfigDict

from salmu_jax.config import base_config
from salmu_jax.config_fields import PROBES

# Learning rates suit this size of model: 1e-7, as published, would change nothing in so few steps. Each published method
# has one setting, of 50 to 110 steps, chosen to show how it fails, not for its best figures. VLUnlearn loses more general
# knowledge here than published.
METHODS = {
    "finetuning": {"learning_rate": 3e-4, "epochs": 5.4, "batch_size": 128},
    "generic_captions": {"learning_rate": 1e-4, "epochs": 2.45, "batch_size": 64},
    "shuffled_captions": {"learning_rate": 3e-4, "epochs": 3.45, "batch_size": 64},
    "negative_gradient": {"learning_rate": 2e-4, "epochs": 2.45, "batch_size": 64},
    "direct_similarity_minimisation": {"learning_rate": 1e-4, "epochs": 3.45, "batch_size": 64},
    "vlunlearn": {"learning_rate": 1e-4, "epochs": 4.4, "batch_size": 128},
    "cliperase": {"learning_rate": 3e-4, "epochs": 5.4, "batch_size": 128},
    "delete": {"learning_rate": 3e-4, "epochs": 5.4, "batch_size": 128},
    "redirect": {},  # whose defaults suit these towers: 2,700 steps
    # The controls, which take no steps: nothing unlearned, and everything destroyed.
    "no_op": {},
    "random_weights": {},
}


def get_config():
    config = base_config()
    config.name = "mini"
    config.workdir = "runs/mini"
    config.models = ("clean", "compromised", "retrained")

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

    config.train.epochs = 16.08  # 1,220 steps of Clean, 1,480 of Compromised, 1,350 of Retrained
    config.train.batch_size = 160
    config.train.learning_rate = 4e-3
    config.train.warmup_steps = 50
    config.train.weight_decay = 0.02
    config.train.clip_norm = 1.0
    config.train.mask_duplicates = True
    config.train.steps_per_call = 10
    config.train.save_every = 100

    config.evaluate.probes = PROBES  # all: on small towers even those that train cost seconds
    config.evaluate.relearn_rates = (1e-4, 3e-4, 1e-3)

    config.unlearn.retain = ("salmu/retain_synth", "retain_pairs/train")
    config.unlearn.steps_per_call = 10
    config.unlearn.save_every = 50
    config.unlearn.methods = ConfigDict(METHODS)
    return config
