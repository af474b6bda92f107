"""The tiny benchmark with runs of every kind: two seeds of a method, a run on top of another, a part of forget."""

import quick
from ml_collections import ConfigDict

DELETE = {"method": "delete", "epochs": 1.0, "batch_size": 16, "learning_rate": 1e-3}


def get_config():
    config = quick.get_config()
    config.unlearn.runs = ConfigDict(
        {
            "relearned": {
                **DELETE,
                "method": "relearn",
                "parent": "delete-s1",
                "forget": {"share": 0.5, "by": "identities"},
            },
            "delete-s1": {**DELETE, "seed": 1},
        }
    )
    return config
