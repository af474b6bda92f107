"""The data set at the size of the release: 774 people, 60,053 sensitive and 16,741 retain pairs, portraits of 512 px.

``salmu generate`` makes it in four steps and the splits; ``--people N`` makes any other size in proportion.
"""

from configs import unlearn_vitb16


def get_config():
    config = unlearn_vitb16.get_config()
    config.name = "salmu_full"
    config.workdir = "runs/full"
    config.world_dir = ""
    config.zeroshot_dir = ""  # this data set has none; name ImageNet to have GenKnow

    config.world.kind = "full"
    config.full.people = 774
    return config
