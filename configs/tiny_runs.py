"""Runs of every kind in one work directory, on the tiny world: three seeds of a method, a request, a relearning.

Nothing is learnt here, as in tiny.py; copy the runs into a config of your own.
"""

from ml_collections import ConfigDict

from configs import tiny
from data_pipelines.world.splits import make_splits

DELETE = {"method": "delete", "epochs": 1.0, "batch_size": 16, "learning_rate": 3e-4}
RELEARN = {"method": "relearn", "epochs": 4.0, "batch_size": 16, "learning_rate": 3e-4}


def get_config():
    config = tiny.get_config()
    config.name = "tiny runs"
    config.workdir = "runs/tiny_runs"
    person = make_splits(config.world.seed, config.world.personas).forget_identity[0]
    config.unlearn.methods = ConfigDict()
    config.unlearn.runs = ConfigDict(
        {
            **{f"delete-s{seed}": {**DELETE, "seed": seed} for seed in range(3)},
            "request": {**DELETE, "forget": {"identities": [f"{person:08d}"]}},
            "delete-s0-relearned": {
                **RELEARN,
                "parent": "delete-s0",
                "forget": {"share": 0.5, "by": "identities"},
            },
        }
    )
    return config
