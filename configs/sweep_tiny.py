"""A sweep on the tiny world, to see that it runs: nothing is learnt, and no choice means anything."""

from ml_collections import ConfigDict

from configs import tiny


def get_config():
    config = tiny.get_config()
    config.name = "tiny sweep"
    config.sweep.name = "tiny"
    config.sweep.search = "random"
    config.sweep.trials = 2
    config.sweep.budgets = ("1x", "2x")
    config.sweep.methods = ConfigDict(
        {
            "delete": {
                "learning_rate": {"low": 1e-4, "high": 3e-3},
                "options": {"retention_weight": [1.0, 4.0]},
                "batch_size": 16,
            },
            "cliperase": {"learning_rate": {"low": 1e-4, "high": 3e-3}, "batch_size": 16},
        }
    )
    return config
