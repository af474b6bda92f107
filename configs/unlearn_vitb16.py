"""All published baselines at full size, with the published hyper-parameters (which are the methods' defaults), and the evaluation."""

from configs import clean_vitb16
from ml_collections import ConfigDict

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
