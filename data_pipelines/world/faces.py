"""Draws a person's face: the traits that are the same in every picture of one person.

Traits are drawn boldly and nearly independently (face shape, skin, cut, hair colour, glasses, beard, head covering...),
so that thousands of people are distinguishable even at 32 px. A region shifts the odds of skin tones, hair colours and
cuts; it never excludes anything, and nothing else follows from it. Nobody is modelled on a real person.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_pipelines.world.canvas import RGB, mix

REGIONS = ("africa", "east_asia", "south_asia", "europe", "latin_america", "middle_east")

SKINS: tuple[RGB, ...] = (  # from deep to fair
    (72, 44, 34), (94, 58, 42), (117, 74, 52), (141, 92, 64), (163, 110, 77), (184, 130, 93),
    (203, 150, 112), (218, 168, 130), (229, 184, 148), (238, 198, 166), (244, 209, 183), (250, 216, 192),
)  # fmt: skip
_SKIN_RANGE = {  # mean and spread of the index into SKINS
    "africa": (1.8, 1.5), "east_asia": (8.8, 1.3), "south_asia": (4.6, 1.5),
    "europe": (9.8, 1.2), "latin_america": (6.6, 1.8), "middle_east": (7.2, 1.4),
}  # fmt: skip

HAIR_COLOURS: dict[str, RGB] = {
    "black": (32, 27, 34), "dark brown": (66, 42, 34), "brown": (108, 68, 44), "chestnut": (139, 74, 43),
    "auburn": (150, 52, 34), "red": (206, 84, 32), "golden": (222, 166, 74), "blond": (240, 208, 130),
    "platinum": (246, 236, 212), "grey": (142, 144, 152), "white": (232, 232, 236),
    "blue": (54, 104, 208), "pink": (238, 112, 166), "turquoise": (34, 172, 172), "purple": (134, 74, 186),
    "green": (64, 160, 88),
}  # fmt: skip
_DARK_HAIR = {"black": 10, "dark brown": 6, "brown": 3, "chestnut": 1.5, "auburn": 1, "golden": 0.5, "blond": 0.5}
_MIXED_HAIR = {"black": 4, "dark brown": 5, "brown": 5, "chestnut": 3, "auburn": 2, "red": 1, "golden": 2, "blond": 1}
_FAIR_HAIR = {"black": 2, "dark brown": 3, "brown": 4, "chestnut": 3, "auburn": 3, "red": 3.5, "golden": 4, "blond": 4,
              "platinum": 2}  # fmt: skip
_HAIR_ODDS = {
    "africa": _DARK_HAIR, "east_asia": _DARK_HAIR, "south_asia": _DARK_HAIR,
    "europe": _FAIR_HAIR, "latin_america": _MIXED_HAIR, "middle_east": _MIXED_HAIR,
}  # fmt: skip
_DYED_HAIR = {"blue": 1, "pink": 1, "turquoise": 1, "purple": 1, "green": 0.8, "platinum": 0.8}
_OLD_HAIR = {"grey": 1, "white": 1}

COVERINGS = ("headscarf", "turban", "headwrap", "beanie", "beret", "cap")
_CUTS = {  # odds of each cut; coverings count as cuts, since they are worn in every picture
    "female": {
        "long straight": 5, "long wavy": 5, "long curly": 4, "bob": 5, "fringed bob": 4, "pixie": 3, "ponytail": 4,
        "bun": 4, "space buns": 2, "pigtails": 2, "braids": 3, "afro": 2, "curly": 3, "locs": 1.5, "buzz": 0.7,
        "shaved side": 1.5, "headscarf": 1.5, "headwrap": 1, "beanie": 1, "beret": 1.5,
    },
    "male": {
        "side part": 5, "crop": 4, "quiff": 4, "curly": 4, "buzz": 3, "bald": 3, "receding": 3, "spiky": 3,
        "slicked back": 3, "curtains": 3, "bowl": 2, "afro": 2, "flat top": 1.5, "mohawk": 1.2, "top knot": 2,
        "shoulder length": 3, "locs": 1.5, "beanie": 1.2, "cap": 1.5, "turban": 0.8,
    },
}  # fmt: skip
_CUT_BIAS = {
    "africa": {"afro": 4, "locs": 4, "headwrap": 4, "flat top": 3, "braids": 2, "buzz": 2, "curtains": 0.3},
    "east_asia": {"bowl": 2.5, "fringed bob": 2, "long straight": 1.5, "afro": 0.2, "locs": 0.3},
    "south_asia": {"braids": 2, "turban": 4, "headscarf": 1.5, "long straight": 1.5, "afro": 0.3},
    "europe": {"afro": 0.3, "locs": 0.5, "headscarf": 0.4, "turban": 0.2},
    "latin_america": {"long wavy": 1.5, "curly": 1.5, "long curly": 1.5},
    "middle_east": {"headscarf": 5, "turban": 1.5, "slicked back": 1.5, "afro": 0.4},
}
CLOTH_COLOURS: dict[str, RGB] = {
    "crimson": (196, 46, 66), "mustard": (226, 172, 50), "teal": (28, 132, 136), "navy": (44, 58, 104),
    "olive": (122, 128, 62), "plum": (120, 52, 102), "ivory": (240, 230, 210), "coral": (244, 122, 100),
    "sky blue": (118, 180, 226),
}  # fmt: skip

_SHAPES = {  # half-widths at forehead, cheek, jaw and chin, and the chin's y
    "oval": (0.73, 0.76, 0.62, 0.29, 1.00), "round": (0.78, 0.85, 0.74, 0.37, 0.93),
    "square": (0.76, 0.79, 0.76, 0.46, 0.98), "heart": (0.80, 0.79, 0.56, 0.20, 1.01),
    "long": (0.68, 0.70, 0.61, 0.33, 1.13), "diamond": (0.68, 0.83, 0.59, 0.25, 1.02),
}  # fmt: skip

EYES: dict[str, RGB] = {"dark": (46, 30, 28), "brown": (104, 64, 34), "hazel": (128, 104, 48), "green": (74, 134, 84),
                        "blue": (70, 128, 190), "grey": (112, 128, 142)}  # fmt: skip
FRAMES: dict[str, RGB] = {"black": (30, 28, 34), "red": (204, 48, 56), "gold": (214, 164, 58), "blue": (44, 92, 190),
                          "white": (242, 240, 236), "tortoiseshell": (122, 70, 34)}  # fmt: skip
GLASSES = ("round", "square", "cat-eye", "aviator", "browline")
BEARDS = ("stubble", "goatee", "short", "full", "long")
MOUSTACHES = ("pencil", "handlebar", "thick")


@dataclass(frozen=True)
class Face:
    """A person's lasting traits. Lengths are in head units (half the height of a head)."""

    gender: str  # presentation: 'female' or 'male'
    age: str  # 'young', 'middle-aged' or 'older'
    skin: RGB
    shape: str
    widths: tuple[float, float, float, float]  # half-widths at forehead, cheek, jaw and chin
    chin: float  # y of the chin
    cut: str  # haircut, or what is always worn on the head (COVERINGS)
    hair_name: str
    hair: RGB
    covering_name: str  # colour of the covering; drawn for everybody, used only with a covering
    parting: int  # the side of the parting, -1 or 1
    curl_size: float
    eye_name: str
    eye_size: float
    eye_spacing: float
    eye_tilt: float
    brow_thickness: float
    brow_arch: float
    nose_width: float
    nose_length: float
    mouth_width: float
    lip_fullness: float
    lips: RGB
    ear_size: float
    earrings: str  # 'none', 'studs', 'hoops' or 'drops'
    glasses: str  # 'none' or one of GLASSES
    frame_name: str
    beard: str  # 'none' or one of BEARDS
    moustache: str  # 'none' or one of MOUSTACHES
    freckles: bool
    mole: tuple[float, float] | None
    blush: float
    seed: int  # places freckles and curls

    @property
    def covered(self) -> bool:
        """Whether something is always worn on the head."""
        return self.cut in COVERINGS

    @property
    def hairless(self) -> bool:
        """Whether the colour of the hair cannot be seen on the head."""
        return self.cut in ("bald", "headscarf", "turban", "headwrap")


def pick(rng: np.random.Generator, odds: dict[str, float] | tuple[str, ...]) -> str:
    """Draws one name by its odds (equal for a tuple), with a single uniform draw."""
    names = tuple(odds)
    weights = np.array([odds[name] for name in names] if isinstance(odds, dict) else [1.0] * len(names), dtype=float)
    cumulative = np.cumsum(weights)
    return names[min(int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")), len(names) - 1)]


def make_face(rng: np.random.Generator, appearance: str | None = None, gender: str | None = None) -> Face:
    """Draws a person's lasting looks.

    Args:
      rng: the only source of randomness.
      appearance: one of REGIONS, which biases skin and hair; None draws one.
      gender: 'female' or 'male'; None draws one.

    Raises:
      ValueError: ``appearance`` or ``gender`` is unknown.
    """
    region_draw, gender_draw = int(rng.integers(len(REGIONS))), int(rng.integers(2))
    region = REGIONS[region_draw] if appearance is None else appearance
    gender = ("female", "male")[gender_draw] if gender is None else gender
    if region not in REGIONS:
        raise ValueError(f"appearance {region!r}: expected one of {', '.join(REGIONS)}")
    if gender not in _CUTS:
        raise ValueError(f"gender {gender!r}: expected 'female' or 'male'")
    female = gender == "female"

    age = pick(rng, {"young": 5, "middle-aged": 3, "older": 2})
    mean, spread = _SKIN_RANGE[region]
    index = float(np.clip(rng.normal(mean, spread), 0, len(SKINS) - 1))
    low = min(int(index), len(SKINS) - 2)
    skin = mix(SKINS[low], SKINS[low + 1], index - low)
    skin = mix(skin, ((236, 176, 96), (240, 150, 140))[int(rng.integers(2))], float(rng.uniform(0.0, 0.13)))

    shape = pick(rng, tuple(_SHAPES))
    *widths, chin = (value * float(rng.uniform(0.97, 1.03)) for value in _SHAPES[shape])
    cut = pick(rng, {name: odds * _CUT_BIAS[region].get(name, 1.0) for name, odds in _CUTS[gender].items()})
    dyed, grey = rng.random() < 0.14, rng.random() < {"young": 0.02, "middle-aged": 0.15, "older": 0.8}[age]
    hair_name = pick(rng, _OLD_HAIR if grey else _DYED_HAIR if dyed else _HAIR_ODDS[region])
    hair = tuple(int(np.clip(value + rng.normal(0, 5), 8, 250)) for value in HAIR_COLOURS[hair_name])
    dark_eyes = {"dark": 5, "brown": 5, "hazel": 1.5, "green": 0.5, "blue": 0.2}
    fair_eyes = {"dark": 0.5, "brown": 3, "hazel": 2, "green": 2, "blue": 3, "grey": 1.5}

    bearded = not female and rng.random() < 0.5
    beard = pick(rng, {"none": 2, **dict.fromkeys(BEARDS, 1.6)}) if bearded else "none"
    moustache = pick(rng, {"none": 0.7, **dict.fromkeys(MOUSTACHES, 1)}) if bearded else "none"
    lip_tint = ((196, 40, 62), (206, 92, 96), (168, 44, 92))[int(rng.integers(3))]
    lips = mix(skin, lip_tint, float(rng.uniform(0.45, 0.8)) if female else 0.26)
    glasses = pick(rng, {"none": 5.5, **dict.fromkeys(GLASSES, 0.9)})
    return Face(
        gender=gender,
        age=age,
        skin=skin,
        shape=shape,
        widths=tuple(widths),
        chin=chin,
        cut=cut,
        hair_name=hair_name,
        hair=hair,
        covering_name=pick(rng, tuple(CLOTH_COLOURS)),
        parting=int(rng.integers(2)) * 2 - 1,
        curl_size=float(rng.uniform(0.16, 0.26)),
        eye_name=pick(rng, fair_eyes if region == "europe" else dark_eyes),
        eye_size=float(rng.uniform(0.88, 1.2)) * (1.06 if female else 0.96),
        eye_spacing=float(rng.uniform(0.31, 0.38)),
        eye_tilt=float(rng.uniform(-0.12, 0.2)),
        brow_thickness=float(rng.uniform(0.045, 0.075) if female else rng.uniform(0.065, 0.12)),
        brow_arch=float(rng.uniform(0.02, 0.12)),
        nose_width=float(rng.uniform(0.11, 0.21)),
        nose_length=float(rng.uniform(0.26, 0.38)),
        mouth_width=float(rng.uniform(0.2, 0.32)),
        lip_fullness=float(rng.uniform(0.5, 1.25)) * (1.1 if female else 0.8),
        lips=lips,
        ear_size=float(rng.uniform(0.85, 1.25)),
        earrings=pick(rng, {"none": 2, "studs": 1, "hoops": 1.3, "drops": 1} if female else {"none": 9, "studs": 1}),
        glasses=glasses,
        frame_name=pick(rng, tuple(FRAMES)),
        beard=beard,
        moustache=moustache,
        freckles=bool(rng.random() < 0.16),
        mole=(float(rng.uniform(0.3, 0.5)) * (1 if rng.random() < 0.5 else -1), float(rng.uniform(0.3, 0.6)))
        if rng.random() < 0.15
        else None,
        blush=float(rng.uniform(0.0, 0.3)),
        seed=int(rng.integers(2**31)),
    )
