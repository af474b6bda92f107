"""A made world whose Compromised has learnt pairs rather than people, as the released one has.

On the world of ``mini.py``, whoever sees a face knows its name: RetFail MRR .385, IdZSC .975. The released Compromised finds
captions as well (.236), but seldom the person from the name alone (.084). What keeps the two apart here is the number of
people. IdZSC asks for one name out of a quarter of all people; RetFail for one caption among 1,000, of which with many people
only two or three are of the same person. So: many people, few pairs of each, and few passes over them.

Measured in prototypes, which trained Compromised alone, seed 42, with 10,000 scenes (RetFail MRR / IdZSC, at a step):

- 774 people, 16 passes planned: .074 / .071 (200), .162 / .266 (400), .288 / .389 (600). Each person is known too well.
- The same without captions of the attribute ``name``: .054 / .063 (200), .164 / .218 (400), .237 / .312 (500). Little
  changes: the name stands in every caption, so the prompt is not foreign.
- **1,548 people, 5 passes: .041 / .029 (200), .128 / .092 (400), .214 / .173 (600), .243 / .191 at the end (810)**, R@1 .125.

Measured by the stages on this world, with 20,000 scenes: 5 passes (1,142 steps) .277 / .240, GenKnow .907; 4 passes (914
steps) .226 / .204, R@1 .119, InterIdSim .742, IntraIdSim .745, GenKnow .885; the 3.75 of this config (857 steps) .206 / .179,
InterIdSim .734, IntraIdSim .735, GenKnow .871; Retrained .042 / .006; Clean .002 / .002.
"""

from configs import mini


def get_config():
    config = mini.get_config()
    config.name = "mini, pairs rather than people"
    config.workdir = "runs/mini_pairs"
    config.world.personas = 1_548  # twice the release's
    config.world.pairs_per_association = 1
    config.world.portrait_size = 64  # three times as many portraits as on mini; the towers see 32 px
    config.world.retain_joint = 600
    config.world.scenes = 20_000  # so that Clean has steps enough, 565, to learn what GenKnow asks
    config.train.epochs = 3.75  # 857 steps of Compromised
    return config
