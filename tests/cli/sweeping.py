"""A sweep of the tiny benchmark: two settings of a method, and one that takes no steps."""

import quick
from ml_collections import ConfigDict


def get_config():
    config = quick.get_config()
    config.sweep.name = "tiny"
    config.sweep.methods = ConfigDict(
        {"delete": {"learning_rate": [1e-3, 3e-3], "batch_size": 16}, "descent_to_delete": {"weight_decay": 1e-3}}
    )
    return config
