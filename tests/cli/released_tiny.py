"""``configs/unlearn_vitb16.py`` with towers and a step count that tests can afford."""

from configs import unlearn_vitb16


def get_config():
    config = unlearn_vitb16.get_config()
    config.model.architecture = "tiny"
    config.evaluate.bootstrap = 20
    for method in config.unlearn.methods.values():
        method.update(epochs=0.5, batch_size=16)
    return config
