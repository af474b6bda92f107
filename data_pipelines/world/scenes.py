"""Makes the scenes of the retain pairs: coloured shapes and small places, each with a caption from a grammar.

48 classes, eight colours by six shapes, are the zero-shot classification task: a picture of a class shows one main
object, clearly the largest and the only one of its colour; position, size, rotation, shading, outline, background,
smaller companions, light and noise vary. Other pictures show a little world (a house on a hill, a boat under a star...)
whose parts are named with the same words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from data_pipelines.world.canvas import RGB, Canvas, darker, lighter, mix
from data_pipelines.world.things import THINGS, Frame
from salmu_jax.runtime.limits import Limits

PALETTE: dict[str, RGB] = {  # far apart in hue or lightness, so that tinted light confuses no two
    "red": (214, 34, 44), "orange": (250, 142, 30), "yellow": (250, 224, 54), "green": (38, 148, 62),
    "cyan": (58, 206, 220), "blue": (36, 70, 206), "purple": (134, 50, 168), "pink": (250, 140, 190),
}  # fmt: skip
COLOURS: tuple[str, ...] = tuple(PALETTE)
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "heart", "cross")
CLASS_NAMES: tuple[str, ...] = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
TEMPLATES: tuple[str, ...] = (
    "a picture of a {c}", "a {c}", "a drawing of a {c}", "there is a {c} here", "a view of a {c}",
    "one large {c}", "an image of a big {c}", "a sketch of a {c}",
)  # fmt: skip

GROUNDS: dict[str, RGB] = {  # of low saturation, so that the main object stands out
    "white": (244, 242, 236), "grey": (158, 160, 166), "black": (38, 37, 42), "beige": (222, 208, 182),
    "brown": (112, 88, 70), "silver": (204, 208, 214), "dark": (72, 76, 88),
}  # fmt: skip
TEXTURES = ("plain", "gradient", "striped", "checked", "speckled", "dotted")
SKIES: dict[str, RGB] = {
    "pale": (206, 226, 240),
    "grey": (176, 184, 194),
    "dark": (58, 62, 84),
    "hazy": (238, 228, 208),
}
RELATIONS = ("next to", "above", "below")
SIDES = Limits(16, 1_024)  # px
PLACE_SHARE = 1 / 6
BRIEF_SHARE = 0.65  # of the captions of objects, which name only the main one


@dataclass(frozen=True)
class Item:
    """An object. Lengths are in halves of the picture's side, from its middle, with y downwards."""

    colour: str
    shape: str  # of SHAPES, or, in a place, of THINGS or "hill"
    x: float
    y: float
    size: float
    turn: float = 0.0  # radians


@dataclass(frozen=True)
class Scene:
    """The contents of a scene; ``items[0]`` is the main object."""

    kind: str  # 'objects' or 'place'
    items: tuple[Item, ...]
    relations: tuple[str, ...]  # of each further item to the main object, read "<item> <relation> <main>"
    ground: str  # a key of GROUNDS, or of SKIES in a place
    second_ground: str
    texture: str
    shading: str  # 'flat', 'shaded', 'outlined' or 'glossy'
    brightness: float
    warmth: float
    noise: float  # standard deviation, in grey levels
    seed: int

    @property
    def class_index(self) -> int:
        """Returns the class of the main object.

        Raises:
          ValueError: the scene is a place, which has no class.
        """
        return CLASS_NAMES.index(f"{self.items[0].colour} {self.items[0].shape}")


def _choice(rng: np.random.Generator, names: tuple[str, ...] | list[str]) -> str:
    return names[int(rng.integers(len(names)))]


def make_scene(rng: np.random.Generator, class_index: int | None = None) -> Scene:
    """Draws a picture's contents.

    With a ``class_index`` (into CLASS_NAMES) the main object is of that class; without, one picture in six is a place
    and the others show a random class.

    Raises:
      ValueError: ``class_index`` outside [0, 48).
    """
    if class_index is not None and not 0 <= class_index < len(CLASS_NAMES):
        raise ValueError(f"class {class_index}: expected 0 to {len(CLASS_NAMES) - 1}")
    place, drawn = rng.random() < PLACE_SHARE, int(rng.integers(len(CLASS_NAMES)))
    index = drawn if class_index is None else class_index
    place = place and class_index is None
    colour, shape = COLOURS[index // len(SHAPES)], SHAPES[index % len(SHAPES)]
    if place:
        items, relations = _place_items(rng)
    else:
        items, relations = _object_items(rng, colour, shape)
    ground = _choice(rng, tuple(SKIES if place else GROUNDS))
    others = [name for name in GROUNDS if name != ground]
    return Scene(
        kind="place" if place else "objects",
        items=items,
        relations=relations,
        ground=ground,
        second_ground=_choice(rng, others),
        texture="plain" if place else _choice(rng, TEXTURES),
        shading=_choice(rng, ("flat", "shaded", "outlined", "glossy")),
        brightness=float(rng.uniform(0.72, 1.08)),
        warmth=float(rng.uniform(-1.0, 1.0)),
        noise=float(rng.uniform(2.0, 10.0)),
        seed=int(rng.integers(2**31)),
    )


def _object_items(rng: np.random.Generator, colour: str, shape: str) -> tuple[tuple[Item, ...], tuple[str, ...]]:
    """Draws the main object and up to two companions, less than half its size, of other colours, and not under it."""
    count = int(rng.choice(3, p=[0.6, 0.3, 0.1]))
    size = float(rng.uniform(0.56, 0.76) if count == 0 else rng.uniform(0.5, 0.56))
    reach = 0.13 if count == 0 else 0.07  # with more, a small model needs many more pictures to learn the shapes
    x, y = float(rng.uniform(-reach, reach)), float(rng.uniform(-reach, reach))
    items = [Item(colour, shape, x, y, size, float(rng.uniform(-0.18, 0.18)))]
    relations = []
    colours = [name for name in COLOURS if name != colour]
    for relation in rng.permutation(np.array(RELATIONS))[:count].tolist():
        other = colours.pop(int(rng.integers(len(colours))))
        small = float(rng.uniform(0.14, 0.19))
        side = 1.0 if rng.random() < 0.5 else -1.0
        jitter = float(rng.uniform(-0.2, 0.2))
        spot = {
            "next to": (side * (0.96 - small) if side * x < 0.12 else -side * (0.96 - small), y + jitter),
            "above": (x + jitter, small - 0.96), "below": (x + jitter, 0.96 - small),
        }[relation]  # fmt: skip
        items.append(Item(other, _choice(rng, SHAPES), *spot, small, float(rng.uniform(-0.35, 0.35))))
        relations.append(relation)
    return tuple(items), tuple(relations)


def _place_items(rng: np.random.Generator) -> tuple[tuple[Item, ...], tuple[str, ...]]:
    """Draws a thing on the ground, and a sun, moon or hill in the background, each of its own colour."""
    colours = [COLOURS[i] for i in rng.permutation(len(COLOURS))[:3]]
    x = float(rng.uniform(-0.35, 0.35))
    main = Item(colours[0], _choice(rng, tuple(THINGS)), x, 0.15, float(rng.uniform(0.42, 0.56)))
    sun = Item(
        colours[1],
        _choice(rng, ("circle", "star", "heart")),
        (-0.66 if x > 0 else 0.66),
        -0.66,
        float(rng.uniform(0.16, 0.24)),
    )
    hill = Item(colours[2], "hill", float(rng.uniform(-0.5, 0.5)), 0.75, 1.0)
    return (main, sun, hill), ("above", "below")


# --- drawing ---------------------------------------------------------------------------------------------------------


def _polar(count: int, radius) -> list[tuple[float, float]]:
    """Returns ``count`` points around the origin, clockwise from the top, at ``radius(k)``."""
    turns = [(radius(k), 2 * math.pi * k / count - math.pi / 2) for k in range(count)]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in turns]


@lru_cache(maxsize=16)
def outline(shape: str) -> np.ndarray:
    """Returns the polygon [n, 2] of a shape, of about unit radius; all six have similar areas."""
    if shape == "circle":
        return np.array(_polar(28, lambda k: 0.9))
    if shape == "square":
        return np.array([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)])
    if shape == "triangle":
        return np.array([(0.0, -1.0), (1.05, 0.85), (-1.05, 0.85)])
    if shape == "star":
        return np.array(_polar(10, lambda k: 0.48 if k % 2 else 1.15))
    if shape == "cross":
        a, b = 0.33, 1.0
        return np.array(
            [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]
        )
    if shape == "heart":
        t = np.linspace(0, 2 * math.pi, 30, endpoint=False)
        return np.stack(
            [np.sin(t) ** 3, -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16 - 0.05],
            axis=1,
        )
    raise ValueError(f"shape {shape!r}: expected one of {', '.join(SHAPES)}")


def draw_scene(scene: Scene, size: int = 64) -> Image.Image:
    """Draws a scene, an RGB image [size, size].

    Raises:
      ValueError: the size is not of :data:`SIDES`.
    """
    if not SIDES.allow(size):
        raise ValueError(f"{size} px: expected {SIDES} px")
    side = 2 * size
    rng = np.random.default_rng(scene.seed)
    if scene.kind == "place":
        image = _draw_place(scene, side)
    else:
        image = _draw_ground(scene, side, rng)
        canvas = Canvas(image)
        for item in scene.items[1:]:
            _draw_item(canvas, item, side / 2, "flat")
        _draw_item(canvas, scene.items[0], side / 2, scene.shading)
    pixels = np.asarray(image.reduce(2), dtype=np.float32)
    tint = np.array([1 + 0.06 * scene.warmth, 1.0, 1 - 0.08 * scene.warmth], dtype=np.float32) * np.float32(
        scene.brightness
    )
    pixels = pixels * tint + np.float32(scene.noise) * rng.standard_normal((size, size, 1), dtype=np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _draw_ground(scene: Scene, side: int, rng: np.random.Generator) -> Image.Image:
    first, second = GROUNDS[scene.ground], GROUNDS[scene.second_ground]
    soft = mix(first, second, 0.32)
    if scene.texture == "gradient":
        column = np.array([first, second], dtype=np.uint8)
        image = Image.fromarray(column[:, None, :] if scene.seed % 2 else column[None, :, :])
        return image.resize((side, side), Image.Resampling.BILINEAR)
    if scene.texture == "speckled":
        cells = rng.integers(0, 2, (16, 16, 1))
        return Image.fromarray(np.where(cells, soft, first).astype(np.uint8)).resize(
            (side, side), Image.Resampling.BICUBIC
        )
    image = Image.new("RGB", (side, side), first)
    canvas = Canvas(image)
    step = side / int(rng.integers(4, 8))
    cells = range(int(side / step) + 2)
    if scene.texture == "striped":
        lean = float(rng.choice([0.0, 0.0, 0.5, -0.5])) * side
        for k in range(-4, len(cells) + 4):
            x = k * step
            canvas.fill([(x, 0), (x + step / 2, 0), (x + step / 2 + lean, side), (x + lean, side)], soft)
    elif scene.texture == "checked":
        for row in cells:
            for column in cells[row % 2 :: 2]:
                canvas.box(column * step, row * step, (column + 1) * step, (row + 1) * step, soft)
    elif scene.texture == "dotted":
        for row in cells:
            canvas.dots([((column + row % 2 / 2) * step, row * step) for column in cells], step / 5, soft)
    return image


def _draw_item(canvas: Canvas, item: Item, half: float, shading: str) -> None:
    colour, shape = PALETTE[item.colour], outline(item.shape)
    frame = Frame(item.x, item.y, item.size, item.turn, half)
    if shading == "outlined":
        canvas.fill(frame.map(shape * 1.12), (24, 22, 28))
    elif shading == "shaded":
        canvas.fill(frame.map(shape), darker(colour, 0.3))
        canvas.fill(frame.map(shape * 0.9 - (0.05, 0.06)), colour)
        return
    canvas.fill(frame.map(shape), colour)
    if shading == "glossy":
        canvas.fill(frame.map(shape * 0.3 - (0.22, 0.2)), lighter(colour, 0.4))


def _draw_place(scene: Scene, side: int) -> Image.Image:
    """Draws sky, hill, sun, then the thing on the hill."""
    sky = SKIES[scene.ground]
    column = np.array([sky, lighter(sky, 0.4)], dtype=np.uint8)[:, None, :]
    image = Image.fromarray(column).resize((side, side), Image.Resampling.BILINEAR)
    canvas, half = Canvas(image), side / 2
    main, sun, hill = scene.items
    x = hill.x * 0.3
    ridge = np.array([(-1.6, 0.75), (x - 0.4, 0.52), (x + 0.4, 0.56), (1.6, 0.78), (1.6, 1.6), (-1.6, 1.6)])
    canvas.blob((1.0 + ridge) * half, PALETTE[hill.colour])
    _draw_item(canvas, sun, half, "flat")
    THINGS[main.shape](canvas, Frame(main.x, main.y, main.size, main.turn, half), PALETTE[main.colour])
    return image


# --- captions --------------------------------------------------------------------------------------------------------

_OPENINGS = (
    "a picture of",
    "an image of",
    "a drawing of",
    "a small drawing of",
    "an illustration of",
    "a view of",
    "a sketch of",
)
_BRIEF = (
    "{opening} {main}", "{main}", "there is {main} here", "one {plain}", "{main} can be seen", "this is {main}",
    "{opening} one {plain}", "here is {main}", "look, {main}",
)  # fmt: skip
_SINGLE = (
    "{opening} {main} {on}", "{main} {on}, {light}", "{main} is {where} {on}", "there is {main} {where}, {on}",
    "{opening} {main} {where} {on}", "{on} there is {main}, {light}", "{opening} {main} {where}, {light}",
    "{where} of the picture, {main} {on}", "one {plain} lies {on}, {light}", "{main} can be seen {where} {on}",
)  # fmt: skip
_PAIR = (
    "{opening} {main} with {other} {relation} it, {on}", "{main} and {other} {relation} it {on}",
    "{other} {relation} {main}, {on}", "{other} sits {relation} {main}, {light}",
    "there is {main} {on}, and {other} {relation} it", "{opening} {main}, {other} {relation} it, {light}",
    "{main} {on} with {other} {relation} it", "{opening} {other} {relation} {main} {on}",
)  # fmt: skip
_PLACE = (
    "{opening} {main} on {hill} under {sun}", "{main} on {hill}, {sun} in the {sky} sky",
    "{sun} shines over {main} on {hill}", "under {sun} and a {sky} sky, {main} on {hill}",
    "there is {main} on {hill} below {sun}", "{opening} {main} under {sun}, {light}",
    "{opening} {hill} with {main} on it, {sun} above", "{main} and {sun} over {hill}, {light}",
)  # fmt: skip


def _a(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _named(item: Item, scene: Scene, rng: np.random.Generator) -> str:
    """Names the object, with its article; the main one sometimes with its size or finish."""
    name = f"{item.colour} {item.shape}"
    if item is not scene.items[0]:
        return _a(name if rng.random() < 0.6 or item.shape == "hill" else f"small {name}")
    words = ["big", "large"]
    if scene.kind == "objects" and scene.shading != "flat":
        words.append(scene.shading)
    return _a(name if rng.random() < 0.5 else f"{_choice(rng, words)} {name}")


def _ground_phrase(scene: Scene, rng: np.random.Generator) -> str:
    if scene.texture == "gradient":
        return f"on a backdrop from {scene.ground} to {scene.second_ground}"
    place = _choice(rng, ("background", "ground", "backdrop", "surface"))
    adjective = scene.ground if rng.random() < 0.3 else f"{scene.texture} {scene.ground}"
    return f"on {_a(adjective)} {place}"


def _where(item: Item) -> str:
    across = "left" if item.x < -0.05 else "right" if item.x > 0.05 else ""
    down = "top" if item.y < -0.05 else "bottom" if item.y > 0.05 else ""
    if not across and not down:
        return "in the middle"
    return f"at the {f'{down} {across}'.strip()}"


def _light_phrase(scene: Scene, rng: np.random.Generator) -> str:
    phrases = [
        "in warm light" if scene.warmth > 0.2 else "in cool light" if scene.warmth < -0.2 else "in neutral light"
    ]
    if scene.brightness < 0.82:
        phrases += ["in dim light", "rather dark"]
    elif scene.brightness > 0.98:
        phrases += ["in bright light", "well lit"]
    phrases.append("very grainy" if scene.noise > 9.5 else "a little grainy" if scene.noise > 5 else "clean and clear")
    return _choice(rng, phrases)


def caption_scene(scene: Scene, rng: np.random.Generator) -> str:
    """Writes a true caption of the picture: at most 16 words, with the main object's colour and shape.

    Most name the main object and nothing else; the others say where it is, on what, in which light, beside what. (With the
    long ones alone a small model tells pictures apart by colour, ground and light, and never learns the shapes.)
    """
    while True:
        caption = _sentence(scene, rng)
        if len(caption.split()) <= 16:
            return caption


def _sentence(scene: Scene, rng: np.random.Generator) -> str:
    """Fills in one sentence form, of any length."""
    main = scene.items[0]
    words = {
        "opening": _choice(rng, _OPENINGS), "main": _named(main, scene, rng), "light": _light_phrase(scene, rng),
        "plain": f"{main.colour} {main.shape}", "where": _where(main),
    }  # fmt: skip
    if scene.kind == "place":
        sun, hill = (_named(item, scene, rng) for item in scene.items[1:])
        return _choice(rng, _PLACE).format(sun=sun, hill=hill, sky=scene.ground, **words)
    if rng.random() < BRIEF_SHARE:
        return _choice(rng, _BRIEF).format(**words)
    words["on"] = _ground_phrase(scene, rng)
    if len(scene.items) == 1:
        return _choice(rng, _SINGLE).format(**words)
    which = int(rng.integers(1, len(scene.items)))
    relation = scene.relations[which - 1]
    if relation == "next to":
        relation = _choice(rng, ("next to", "beside", "near"))
    return _choice(rng, _PAIR).format(other=_named(scene.items[which], scene, rng), relation=relation, **words)
