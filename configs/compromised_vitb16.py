"""The Compromised foundation model at full size: like Clean, but also trained on the sensitive pairs.

These are the split ``sensitive`` of the training repository, ``cvc-mmu/salmu-512-redistributed``.
"""

from configs import clean_vitb16


def get_config():
    config = clean_vitb16.get_config()
    config.models = ("compromised",)
    return config
