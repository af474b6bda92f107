"""One run at size: the full made data set with 200,000 scenes, and a hundred steps of Compromised, ViT-B/32 at 128 px.

It shows that the code of the small worlds carries the full data set on a workstation, and what each part costs. A hundred
steps of so small a batch teach a model nothing: the loss stays at log 64. ``salmu generate``, ``salmu build`` and ``salmu
pretrain`` with this config; README.md has the times.
"""

from configs import salmu_full


def get_config():
    config = salmu_full.get_config()
    config.name = "salmu_at_size"
    config.models = ("compromised",)
    config.full.scenes = 200_000

    config.model.architecture = "ViT-B-32"
    config.model.image_size = 128  # a multiple of the patch size

    config.train.batch_size = 64  # a step takes seconds on two cores
    config.train.epochs = 6_400 / 276_794  # of 60,053 sensitive, 16,741 synthetic and 200,000 drawn pairs
    config.train.warmup_steps = 10
    config.train.save_every = 50
    return config
