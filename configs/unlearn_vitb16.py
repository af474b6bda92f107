"""All published baselines at full size, with the published hyper-parameters (the methods' defaults), and the evaluation.

For one workstation, from the published Clean and Compromised checkpoints, the repository for evaluation,
``cvc-mmu/salmubench-512-redistributed``, and the validation set of ImageNet-1k for GenKnow (``--config.zeroshot_dir=`` does
without). Nothing is recomputed to save memory; if a step does not fit, use ``--config.model.remat=full``.
"""

from ml_collections import ConfigDict

from salmu_jax.config import base_config

METHODS = (
    "finetuning",
    "negative_gradient",
    "shuffled_captions",
    "generic_captions",
    "direct_similarity_minimisation",
    "vlunlearn",
    "cliperase",
    "delete",
    "descent_to_delete",
)


def get_config():
    config = base_config()
    config.name = "vitb16"
    config.workdir = "runs/vitb16"
    config.world_dir = "data/salmubench-512-redistributed"
    config.zeroshot_dir = "data/wds_imagenet1k"

    config.model.architecture = "ViT-B-16"
    config.model.compute_dtype = "float32"

    # A step takes from a tenth of a second (a GPU) to a minute (two cores): the clock says when to save.
    config.train.save_minutes = 10.0
    config.unlearn.save_every = 5_000
    config.unlearn.steps_per_call = 1
    config.unlearn.methods = ConfigDict({name: {} for name in METHODS})
    return config
