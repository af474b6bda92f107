"""Draws what differs between two pictures of one person: pose, framing, expression, clothes, light, place, camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from data_pipelines.world.canvas import RGB
from data_pipelines.world.faces import pick

EXPRESSIONS = ("smiling", "laughing", "calm", "serious", "surprised", "winking", "dreamy", "smirking")
GARMENTS = (
    "T-shirt", "V-neck jumper", "shirt", "blazer", "hoodie", "turtleneck", "tank top", "dungarees", "scarf", "cardigan",
)  # fmt: skip
PATTERNS = ("plain", "striped", "pinstriped", "dotted", "checked", "zigzag")
BACKDROPS = (
    "plain", "gradient", "halo", "window", "foliage", "bokeh", "books", "skyline", "sea", "mountains", "bricks",
    "sunset", "wallpaper", "meadow",
)  # fmt: skip
PROPS = ("mug", "book", "leaves")  # props that hide part of the person

CLOTHES: dict[str, RGB] = {
    "red": (214, 58, 62), "orange": (240, 142, 56), "yellow": (246, 204, 78), "green": (72, 158, 98),
    "teal": (34, 138, 146), "blue": (58, 110, 200), "navy": (42, 56, 104), "purple": (128, 86, 176),
    "pink": (242, 146, 174), "brown": (132, 92, 68), "grey": (138, 144, 156), "white": (244, 240, 232),
    "black": (46, 44, 54),
}  # fmt: skip
WALLS: dict[str, RGB] = {
    "cream": (246, 232, 206), "peach": (252, 204, 170), "rose": (240, 172, 178), "lavender": (196, 182, 226),
    "sky-blue": (164, 208, 238), "mint": (174, 222, 198), "sage": (158, 178, 146), "sand": (224, 200, 160),
    "mustard": (232, 184, 86), "terracotta": (206, 118, 88), "slate": (98, 112, 136), "teal": (52, 128, 136),
    "grey": (196, 200, 206), "indigo": (70, 78, 140),
}  # fmt: skip


@dataclass(frozen=True)
class Shot:
    """The circumstances of one picture. Angles are in radians, lengths in halves of the picture's shorter side."""

    difficulty: float  # in [0, 1]: how much camera and place hamper recognition
    yaw: float  # positive: the face turns to the right of the picture
    pitch: float  # positive: the face looks down
    tilt: float
    scale: float  # half the height of the head
    offset: tuple[float, float]  # of the head from the middle
    expression: str
    gaze: float  # in [-1, 1]
    garment: str
    garment_name: str  # colours: keys of CLOTHES
    second_name: str
    pattern: str
    backdrop: str
    wall_name: str  # keys of WALLS
    accent_name: str
    light_side: int  # the side the light comes from, -1 or 1
    light_fall: float  # share of light lost on the far side
    warmth: float  # in [-1, 1]: cool to warm
    brightness: float
    noise: float  # standard deviation, in grey levels
    blur: float  # radius, in thousandths of the shorter side
    prop: str  # 'none' or one of PROPS
    jpeg_quality: int
    seed: int  # of the backdrop's details


def make_shot(rng: np.random.Generator, difficulty: float = 0.0) -> Shot:
    """Draws the circumstances of one picture.

    ``difficulty`` in [0, 1] (clipped) scales everything that makes the person harder to make out: noise, low light,
    blur, a small or off-centre head, a turned face, something in front. Weakly held pairs come from high values.
    """
    hard = min(max(float(difficulty), 0.0), 1.0)
    scale = float(rng.uniform(0.49, 0.6)) * (1.0 - 0.42 * hard * float(rng.uniform(0.5, 1.0)))
    reach = 0.05 + 0.24 * hard
    angle, distance = float(rng.uniform(0, 2 * math.pi)), reach * math.sqrt(float(rng.random()))
    wall, accent, garment, second = (
        pick(rng, tuple(WALLS)),
        pick(rng, tuple(WALLS)),
        pick(rng, tuple(CLOTHES)),
        pick(rng, tuple(CLOTHES)),
    )
    if accent == wall:
        accent = "cream" if wall != "cream" else "slate"
    if second == garment:
        second = "white" if garment != "white" else "navy"
    return Shot(
        difficulty=hard,
        yaw=float(np.clip(rng.normal(0.0, 0.24 + 0.12 * hard), -0.55, 0.55)),
        pitch=float(np.clip(rng.normal(0.0, 0.1), -0.22, 0.22)),
        tilt=float(np.clip(rng.normal(0.0, 0.07 + 0.05 * hard), -0.22, 0.22)),
        scale=scale,
        offset=(distance * math.cos(angle), distance * math.sin(angle) * 0.6),
        expression=pick(rng, dict(zip(EXPRESSIONS, (5, 3, 4, 2, 1.2, 1, 1.2, 1.5), strict=True))),
        gaze=float(np.clip(rng.normal(0.0, 0.4), -1.0, 1.0)),
        garment=pick(rng, GARMENTS),
        garment_name=garment,
        second_name=second,
        pattern=pick(rng, dict(zip(PATTERNS, (6, 1.5, 1, 1.2, 1.2, 1), strict=True))),
        backdrop=pick(rng, BACKDROPS),
        wall_name=wall,
        accent_name=accent,
        light_side=int(rng.integers(2)) * 2 - 1,
        light_fall=float(rng.uniform(0.04, 0.3)),
        warmth=float(rng.uniform(-1.0, 1.0)),
        brightness=float(rng.uniform(0.9, 1.1)) * (1.0 - 0.6 * hard * float(rng.uniform(0.4, 1.0))),
        noise=float(rng.uniform(1.0, 4.0)) + 34.0 * hard * float(rng.uniform(0.3, 1.0)),
        blur=float(rng.uniform(0.0, 2.0)) + 16.0 * hard * float(rng.uniform(0.0, 1.0)),
        prop=pick(rng, PROPS) if rng.random() < 0.55 * hard else "none",
        jpeg_quality=round(float(rng.uniform(84, 95)) - 45 * hard * float(rng.uniform(0.3, 1.0))),
        seed=int(rng.integers(2**31)),
    )
