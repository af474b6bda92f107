"""The tiny benchmark with two methods, one with gradients and one without: what these tests run."""

from ml_collections import ConfigDict

from configs import tiny


def get_config():
    config = tiny.get_config()
    config.unlearn.methods = ConfigDict(
        {
            "delete": {"epochs": 2.0, "batch_size": 16, "learning_rate": 1e-3},
            "descent_to_delete": {"weight_decay": 1e-3},
        }
    )
    config.unlearn.retain = ("salmu/retain_synth",)
    # One program for all of a run's calls: a shorter last one would be traced and compiled, too.
    config.train.steps_per_call = 2
    config.unlearn.steps_per_call = 1
    config.unlearn.save_every = 4
    return config
