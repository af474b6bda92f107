"""A config of the tiny world in which every method of the registry takes a few steps, if it takes any."""

from ml_collections import ConfigDict

from configs import tiny
from salmu_jax.unlearning import registry
from salmu_jax.unlearning.options import describe_options

FEWER = {"batches": 4, "pool": 64}  # of options that say how much is prepared


def fields(name):
    """Two passes over forget, 8 rows of each stream a step: one for each of 8 devices."""
    method = registry.get(name)
    options = {option.name: FEWER[option.name] for option in describe_options(method) if option.name in FEWER}
    if not method.takes_steps():
        return {"options": options}
    shares = sum(stream.per_step is None and not stream.prepare_only for stream in method.make_streams().values())
    return {"options": options, "epochs": 2.0, "batch_size": 8 * shares, "learning_rate": 1e-4}


def get_config():
    config = tiny.get_config()
    config.unlearn.methods = ConfigDict({name: fields(name) for name in registry.METHODS})
    return config
