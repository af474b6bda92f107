"""A config of the tiny world in which methods take a few steps, if they take any.

They are those that use each part of the contract; with ``SALMU_ALL_METHODS=1`` in the environment, all of the registry, and
with ``SALMU_ALL_METHODS=salun,scrub`` these. The start model's embeddings are cached.
"""

import os

from ml_collections import ConfigDict

from configs import tiny
from salmu_jax.unlearning import registry
from salmu_jax.unlearning.options import describe_options

# A mask that is prepared; a parametrisation; a closed form; captions without images. Each takes up to a minute.
CHOSEN = ("salun", "lora_subtract", "text_projection", "pinned_surrogates")
ASKED = os.environ.get("SALMU_ALL_METHODS", "")
NAMES = tuple(registry.METHODS) if ASKED == "1" else tuple(ASKED.split(",")) if ASKED else CHOSEN
# Options that say how much is prepared; and Lip's threshold, at which it would stop: this model has learnt nothing.
FEWER = {"batches": 4, "pool": 64, "count": 2, "trial_batches": 2, "trials": 4, "threshold": 0.0}


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
    config.unlearn.cache_reference = "on"
    config.unlearn.methods = ConfigDict({name: fields(name) for name in NAMES})
    return config
