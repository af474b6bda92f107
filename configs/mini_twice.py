"""The world of ``mini.py`` with twice the people: does what was found there hold in a larger one?

Nothing else differs, training included: as many passes over more pairs are more steps, and the models learn as well.
Compromised, seed 42: RetFail MRR .466 (mini: .385), IdZSC .989 of 48 people (.975 of 24), InterIdSim .800, IntraIdSim .796,
GenKnow .968. RetFail is higher since a gallery of 1,000 captions holds half as many of the same person. What methods do
here is in docs/precise_forgetting.md.
"""

from configs import mini


def get_config():
    config = mini.get_config()
    config.name = "mini, twice the people"
    config.workdir = "runs/mini_twice"
    config.world.personas = 192
    config.world.retain_joint = 260  # as many a person as on mini
    return config
