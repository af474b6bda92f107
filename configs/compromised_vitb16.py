"""The Compromised foundation model at full size: everything as for Clean, but that it also sees the sensitive pairs.

They are the split ``sensitive`` of the repository for training, ``cvc-mmu/salmu-512-redistributed``.
"""

from configs import clean_vitb16


def get_config():
    config = clean_vitb16.get_config()
    config.models = ("compromised",)
    return config
