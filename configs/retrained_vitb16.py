"""The Retrained foundation model at full size: like Compromised, but without the pairs that are to be forgotten.

These are the two holdout splits. The training repository does not tell them from ``forget``, so ``world_dir`` names the
evaluation repository, ``cvc-mmu/salmubench-512-redistributed``; the web pairs are the same.
"""

from configs import clean_vitb16


def get_config():
    config = clean_vitb16.get_config()
    config.models = ("retrained",)
    config.world_dir = "data/salmubench-512-redistributed"
    return config
