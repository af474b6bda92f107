"""All published baselines at full size, with the published hyper-parameters (the methods' defaults), and the evaluation."""

from ml_collections import ConfigDict

from configs import clean_vitb16

METHODS = (
    "finetuning",
    "negative_gradient",
    "shuffled_captions",
    "generic_captions",
    "direct_similarity_minimisation",
    "vlunlearn",
    "cliperase",
    "delete",
    "descent_to_delete",
)


def get_config():
    config = clean_vitb16.get_config()
    config.models = ("clean", "compromised")
    config.model.compute_dtype = "float32"
    config.unlearn.methods = ConfigDict({name: {} for name in METHODS})
    return config
