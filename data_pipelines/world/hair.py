"""Draws haircuts in two layers: ``draw_back`` behind the body, ``draw_front`` over the face.

A cut is one small function per layer. Most fronts are one ``Brush.cap``: the outline of the skull grown by a volume, closed
along a hairline.
"""

from __future__ import annotations

import math

import numpy as np

from data_pipelines.world import headwear
from data_pipelines.world.brush import Brush, scaled
from data_pipelines.world.canvas import Points, darker, lighter, mix, oval, translucent
from data_pipelines.world.faces import Face

NATURAL = [(0.94, -0.06), (0.86, -0.42), (0.5, -0.66), (0.0, -0.7), (-0.5, -0.66), (-0.86, -0.42), (-0.94, -0.06)]
PEAK = [(0.94, -0.06), (0.84, -0.5), (0.5, -0.74), (0.0, -0.6), (-0.5, -0.74), (-0.84, -0.5), (-0.94, -0.06)]
PART = [(0.95, -0.04), (0.9, -0.3), (0.55, -0.5), (0.05, -0.64), (-0.42, -0.8), (-0.62, -0.62), (-0.88, -0.4),
        (-0.95, -0.04)]  # fmt: skip
CURTAIN = [(0.95, 0.1), (0.9, -0.16), (0.62, -0.46), (0.0, -0.9), (-0.62, -0.46), (-0.9, -0.16), (-0.95, 0.1)]
FRINGE = [(0.95, 0.05), (0.9, -0.2), (0.88, -0.26), (0.45, -0.28), (0.0, -0.3), (-0.45, -0.28), (-0.88, -0.26),
          (-0.9, -0.2), (-0.95, 0.05)]  # fmt: skip
SWEPT = [(0.95, 0.0), (0.92, -0.16), (0.6, -0.3), (0.1, -0.46), (-0.4, -0.66), (-0.86, -0.5), (-0.95, -0.02)]
CROP = [(0.94, -0.1), (0.86, -0.42), (0.6, -0.46), (0.3, -0.52), (0.0, -0.46), (-0.3, -0.52), (-0.6, -0.46),
        (-0.86, -0.42), (-0.94, -0.1)]  # fmt: skip

LONG_LEFT = [(-0.3, -1.0), (-0.8, -0.75), (-0.98, -0.2), (-1.0, 0.5), (-1.06, 1.2), (-0.9, 1.75), (-0.45, 1.8)]
LOCK = [(-0.9, -0.35), (-1.0, 0.3), (-1.03, 1.0), (-0.92, 1.62), (-0.72, 1.7), (-0.66, 1.2), (-0.74, 0.6), (-0.74, 0.0)]


# --- behind the body -------------------------------------------------------------------------------------------------


def _back_long(b: Brush) -> None:
    b.symmetric(scaled(LONG_LEFT, b.w), b.back_colour)


def _back_wavy(b: Brush) -> None:
    left = [(-0.3, -1.04), (-0.86, -0.8), (-1.06, -0.35), (-0.96, 0.05), (-1.16, 0.45), (-1.02, 0.85), (-1.2, 1.3),
            (-0.95, 1.75), (-0.5, 1.7)]  # fmt: skip
    b.symmetric(scaled(left, b.w), b.back_colour)


def _back_bob(b: Brush) -> None:
    left = [(-0.3, -1.0), (-0.84, -0.72), (-1.0, -0.1), (-1.06, 0.5), (-1.0, 0.86), (-0.6, 0.92), (-0.4, 0.8)]
    b.symmetric(scaled(left, b.w), b.back_colour)


def _back_shoulder(b: Brush) -> None:
    left = [(-0.3, -1.0), (-0.82, -0.72), (-0.98, -0.1), (-1.0, 0.5), (-1.08, 1.08), (-0.8, 1.2), (-0.5, 1.0)]
    b.symmetric(scaled(left, b.w), b.back_colour)


def _rows(w: float, lowest: float) -> list[tuple[float, float]]:
    rows = [(x * (w + 0.16), y) for y in np.arange(-0.7, lowest, 0.3) for x in (-1.0, -0.72, 0.72, 1.0)]
    return [*rows, *[(x * w, -1.0) for x in (-0.8, -0.4, 0.0, 0.4, 0.8)]]


def _back_long_curly(b: Brush) -> None:
    _back_wavy(b)
    b.curls(_rows(b.w + 0.06, 1.6), b.face.curl_size * 1.15, b.back_colour)


def _back_afro(b: Brush) -> None:
    ring = oval(0.0, -0.42, b.w + 0.34, 0.98, 14)
    b.shape(ring)
    b.curls(ring, b.face.curl_size * 1.2)


def _back_ponytail(b: Brush) -> None:
    s = b.face.parting
    tail = [(0.5, -0.9), (0.95, -0.85), (1.25, -0.3), (1.2, 0.5), (1.32, 1.1), (1.02, 0.9), (0.9, 0.2), (0.8, -0.4)]
    b.shape([(x * s, y) for x, y in tail], b.back_colour)
    b.shape(oval(0.72 * s, -0.82, 0.14, 0.12), (208, 62, 84))


def _back_bun(b: Brush) -> None:
    b.shape(oval(0.0, -1.34, 0.4, 0.34))
    b.shape(oval(0.0, -1.12, 0.26, 0.1), b.strand)


def _back_space_buns(b: Brush) -> None:
    b.both(oval(-0.64, -1.08, 0.32, 0.3))


def _back_pigtails(b: Brush) -> None:
    tail = [(-0.86, -0.2), (-1.2, -0.1), (-1.34, 0.5), (-1.2, 1.15), (-1.08, 0.8), (-0.98, 0.35), (-0.84, 0.1)]
    b.both(scaled(tail, b.w), b.back_colour)
    b.both(oval(-b.w - 0.1, -0.08, 0.11, 0.13), (240, 176, 62))


def _back_locs(b: Brush) -> None:
    left = [(-0.3, -1.0), (-0.84, -0.7), (-1.0, -0.1), (-1.0, 0.6), (-1.0, 1.1), (-0.6, 1.1)]
    b.symmetric(scaled(left, b.w), b.back_colour)
    unit = b.head.unit
    for k, (x, low) in enumerate(((-1.08, 1.2), (-0.93, 1.45), (-0.78, 1.3), (0.78, 1.4), (0.93, 1.25), (1.08, 1.4))):
        line = [(0.8 * x, -0.5), (x * b.w / 0.8, 0.3), (x * b.w / 0.8 + 0.03 * (-1) ** k, low)]
        b.canvas.stroke(b.head.outline(line), 0.15 * unit, b.face.hair)


# --- over the face ---------------------------------------------------------------------------------------------------


def _part_lines(b: Brush) -> list[Points]:
    s, w = b.face.parting, b.w
    return [
        [(-0.45 * w * s, -0.84), (0.1 * w * s, -0.84), (0.62 * w * s, -0.58)],
        [(-0.42 * w * s, -0.92), (0.2 * w * s, -0.98), (0.84 * w * s, -0.62)],
    ]


def _side_part(b: Brush) -> None:
    b.cap(PART, volume=0.1, top=0.03)
    b.strands(_part_lines(b))
    b.gloss()


def _crop(b: Brush) -> None:
    b.cap(CROP, volume=0.05, side=0.0)
    b.strands([[(x, -0.56), (x * 1.05, -0.74)] for x in (-0.42, -0.14, 0.16, 0.44)])
    b.gloss()


def _quiff(b: Brush) -> None:
    b.cap(NATURAL, volume=0.02, colour=mix(b.face.skin, b.face.hair, 0.7))
    s = b.face.parting
    puff = [(-0.6, -0.62), (-0.72, -1.0), (-0.3, -1.32), (0.3, -1.44), (0.76, -1.2), (0.74, -0.84), (0.56, -0.62),
            (0.0, -0.56)]  # fmt: skip
    b.shape([(x * s * b.w / 0.78, y) for x, y in puff])
    b.strands(
        [[(-0.4 * s, -0.72), (0.0, -1.05), (0.5 * s, -1.16)], [(-0.1 * s, -0.68), (0.25 * s, -0.9), (0.6 * s, -0.96)]]
    )
    b.gloss(-1.06)


def _curly(b: Brush) -> None:
    b.cap(NATURAL, volume=0.1)
    w = b.w
    crown = [(math.cos(a) * (w + 0.08), -0.5 + math.sin(a) * 0.62) for a in np.linspace(-3.3, 0.16, 10)]
    front = [(x * w, -0.68 - 0.12 * (1 - x * x)) for x in (-0.72, -0.36, 0.0, 0.36, 0.72)]
    b.curls([*crown, *front], b.face.curl_size)
    b.curls([(x * 0.9, y + 0.02) for x, y in crown[1::3]], b.face.curl_size * 0.45, lighter(b.face.hair, 0.12))


def _bald(b: Brush) -> None:
    s = b.light
    arc = [(0.5 * s * b.w, -0.72), (0.3 * s * b.w, -0.86), (0.02, -0.92)]
    b.canvas.stroke(b.head.surface(arc, 0.3), 0.1 * b.head.unit, translucent(lighter(b.face.skin, 0.6), 0.45), 0.8)


def _buzz(b: Brush) -> None:
    b.cap(NATURAL, volume=-0.005, side=-0.02)
    b.gloss()


def _receding(b: Brush) -> None:
    w = b.w
    patch = [
        (-w + 0.08, 0.08),
        (-w - 0.08, 0.04),
        (-w - 0.14, -0.3),
        (-w - 0.04, -0.6),
        (-w + 0.12, -0.66),
        (-w + 0.07, -0.3),
    ]
    b.both(patch)
    _bald(b)


def _spiky(b: Brush) -> None:
    w = b.w
    tips = []
    for k, angle in enumerate(np.linspace(-math.pi + 0.12, -0.12, 15)):
        reach = 1.0 if k % 2 else 1.34
        tips.append((math.cos(angle) * (w + 0.05) * reach, -0.42 + math.sin(angle) * 0.72 * reach))
    line = [(x * w, y) for x, y in ((0.93, -0.1), (0.7, -0.5), (0.4, -0.64), (0.2, -0.5), (0.0, -0.66), (-0.2, -0.5),
                                    (-0.4, -0.64), (-0.7, -0.5), (-0.93, -0.1))]  # fmt: skip
    b.canvas.fill(np.concatenate([b.head.outline(tips), b.head.surface(line, 0.34)]), b.colour)


def _slicked(b: Brush) -> None:
    b.cap(PEAK, volume=0.06, top=0.06)
    b.strands([[(x, -0.72), (x * 0.9, -0.9), (x * 0.7, -1.06)] for x in (-0.5, -0.25, 0.0, 0.25, 0.5)])
    b.gloss(-0.9)


def _curtains(b: Brush) -> None:
    b.cap(CURTAIN, volume=0.14, side=0.2)
    b.strands([[(0.03 * s, -0.98), (0.4 * s, -0.82), (0.72 * s, -0.4)] for s in (-1, 1)])
    b.gloss()


def _bowl(b: Brush) -> None:
    b.cap(FRINGE, volume=0.16, side=0.12)
    b.strands([[(x, -0.34), (x * 0.9, -0.62)] for x in (-0.4, -0.13, 0.15, 0.42)])
    b.gloss()


def _afro(b: Brush) -> None:
    b.cap(NATURAL, volume=0.14)
    b.curls([(x * b.w, -0.74 - 0.1 * (1 - x * x)) for x in (-0.7, -0.35, 0.0, 0.35, 0.7)], b.face.curl_size * 0.8)


def _flat_top(b: Brush) -> None:
    b.cap(NATURAL, volume=0.02)
    w = b.w
    block = [(-w, -0.5), (-w - 0.06, -1.36), (-w - 0.02, -1.42), (w + 0.02, -1.42), (w + 0.06, -1.36), (w, -0.5)]
    line = [(0.8 * w, -0.66), (0.0, -0.7), (-0.8 * w, -0.66)]
    b.canvas.fill(np.concatenate([b.head.outline(block), b.head.surface(line, 0.34)]), b.colour)
    b.gloss(-1.12)


def _mohawk(b: Brush) -> None:
    b.cap(NATURAL, volume=0.0, colour=mix(b.face.skin, b.face.hair, 0.4))
    crest = [
        (-0.24, -0.62),
        (-0.34, -1.1),
        (-0.22, -1.58),
        (0.0, -1.7),
        (0.22, -1.58),
        (0.34, -1.1),
        (0.24, -0.62),
        (0.0, -0.56),
    ]
    b.shape(crest)
    b.strands([[(x, -0.72), (1.3 * x, -1.1), (x, -1.42)] for x in (-0.1, 0.1)])


def _tied_back(b: Brush) -> None:
    b.cap(NATURAL, volume=0.03)
    b.strands([[(x, -0.72), (x * 0.6, -0.94)] for x in (-0.5, -0.2, 0.2, 0.5)])
    b.gloss()


def _loose(b: Brush) -> None:
    b.both(scaled(LOCK, b.w))


def _long(b: Brush) -> None:
    b.both(scaled(LOCK, b.w))
    b.cap(PART, volume=0.12, side=0.1)
    b.strands(_part_lines(b))
    b.gloss()


def _wavy(b: Brush) -> None:
    lock = [(-0.92, -0.4), (-1.08, -0.05), (-1.0, 0.3), (-1.14, 0.7), (-1.04, 1.1), (-1.1, 1.5), (-0.86, 1.66),
            (-0.74, 1.3), (-0.84, 0.9), (-0.72, 0.5), (-0.78, 0.1)]  # fmt: skip
    b.both(scaled(lock, b.w))
    b.cap(CURTAIN, volume=0.16, side=0.16)
    b.strands([[(0.03 * s, -1.0), (0.44 * s, -0.84), (0.8 * s, -0.36)] for s in (-1, 1)])
    b.gloss()


def _long_curly(b: Brush) -> None:
    b.cap(NATURAL, volume=0.16)
    w = b.w
    sides = [(s * (w + 0.12 + 0.08 * (k % 2)), y) for s in (-1, 1) for k, y in enumerate(np.arange(-0.3, 1.5, 0.3))]
    crown = [(math.cos(a) * (w + 0.1), -0.5 + math.sin(a) * 0.66) for a in np.linspace(-3.1, -0.04, 9)]
    b.curls([*sides, *crown, *[(x * w, -0.72) for x in (-0.62, -0.2, 0.25, 0.66)]], b.face.curl_size)
    b.curls([(x, y) for x, y in crown[1::2]], b.face.curl_size * 0.45, lighter(b.face.hair, 0.12))


def _bob(b: Brush) -> None:
    lock = [(-0.9, -0.4), (-1.02, 0.2), (-1.05, 0.7), (-0.9, 0.92), (-0.72, 0.84), (-0.72, 0.4), (-0.76, 0.0)]
    b.both(scaled(lock, b.w))
    b.cap(PART, volume=0.14, side=0.1)
    b.strands(_part_lines(b))
    b.gloss()


def _fringed_bob(b: Brush) -> None:
    lock = [(-0.9, -0.4), (-1.0, 0.2), (-1.0, 0.66), (-0.84, 0.8), (-0.7, 0.72), (-0.72, 0.3), (-0.78, 0.0)]
    b.both(scaled(lock, b.w))
    b.cap(FRINGE, volume=0.14, side=0.1)
    b.strands([[(x, -0.34), (x * 0.9, -0.62)] for x in (-0.4, -0.13, 0.15, 0.42)])
    b.gloss()


def _pixie(b: Brush) -> None:
    b.cap(SWEPT, volume=0.1, side=0.16, top=0.04)
    s = b.face.parting
    b.strands(
        [[(-0.4 * s, -0.8), (0.1 * s, -0.66), (0.6 * s, -0.4)], [(-0.2 * s, -0.95), (0.4 * s, -0.8), (0.74 * s, -0.5)]]
    )
    b.gloss()


def _braids(b: Brush) -> None:
    b.cap(CURTAIN, volume=0.06, side=0.1)
    for s in (-1, 1):
        for k in range(7):
            y = 0.42 + 0.2 * k
            x = s * (b.w + 0.06 + 0.02 * (-1) ** k)
            b.shape(oval(x, y, 0.15 - 0.008 * k, 0.13), b.colour if k % 2 else darker(b.face.hair, 0.14))
        b.shape(oval(s * (b.w + 0.06), 1.76, 0.1, 0.08), (64, 168, 170))
    b.gloss()


def _shaved_side(b: Brush) -> None:
    b.cap(NATURAL, volume=0.0, colour=mix(b.face.skin, b.face.hair, 0.45))
    s, k = b.face.parting, b.w / 0.78
    sweep = [(-0.55, -0.78), (-0.42, -1.08), (0.1, -1.24), (0.66, -1.06), (0.96, -0.6), (1.02, 0.1), (1.0, 0.8),
             (0.84, 0.95), (0.76, 0.5), (0.78, 0.0), (0.6, -0.4), (0.1, -0.66)]  # fmt: skip
    b.shape([(x * s * k, y) for x, y in sweep])
    b.strands([[(-0.3 * s, -0.86), (0.3 * s, -0.84), (0.74 * s, -0.44)]])


def _locs(b: Brush) -> None:
    b.cap(NATURAL, volume=0.12)
    unit, w = b.head.unit, b.w
    for x in (-0.75, -0.45, -0.15, 0.15, 0.45, 0.75):
        line = [(x * w * 0.4, -1.12), (x * w, -0.98), (x * w * 1.25, -0.72)]
        b.canvas.stroke(b.head.surface(line, 0.3), 0.17 * unit, b.strand)
        b.canvas.stroke(b.head.surface(line, 0.3), 0.12 * unit, b.face.hair)
    for s in (-1, 1):
        line = [(s * (w - 0.02), -0.7), (s * (w + 0.08), 0.0), (s * (w + 0.06), 0.9)]
        b.canvas.stroke(b.head.outline(line), 0.17 * unit, b.strand)
        b.canvas.stroke(b.head.outline(line), 0.12 * unit, b.face.hair)


def _shoulder(b: Brush) -> None:
    lock = [(-0.9, -0.4), (-1.0, 0.2), (-1.02, 0.8), (-0.98, 1.1), (-0.8, 1.05), (-0.76, 0.5), (-0.78, 0.0)]
    b.both(scaled(lock, b.w))
    _curtains(b)


_BACKS = {
    "long straight": _back_long, "long wavy": _back_wavy, "long curly": _back_long_curly, "bob": _back_bob,
    "fringed bob": _back_bob, "ponytail": _back_ponytail, "bun": _back_bun, "space buns": _back_space_buns,
    "pigtails": _back_pigtails, "afro": _back_afro, "locs": _back_locs, "shaved side": _back_shoulder,
    "headscarf": headwear.headscarf_back, "top knot": _back_bun, "shoulder length": _back_shoulder, "loose": _back_long,
}  # fmt: skip
_FRONTS = {
    "long straight": _long, "long wavy": _wavy, "long curly": _long_curly, "bob": _bob, "fringed bob": _fringed_bob,
    "pixie": _pixie, "ponytail": _tied_back, "bun": _tied_back, "space buns": _curtains, "pigtails": _bowl,
    "braids": _braids, "afro": _afro, "curly": _curly, "locs": _locs, "buzz": _buzz, "shaved side": _shaved_side,
    "side part": _side_part, "crop": _crop, "quiff": _quiff, "bald": _bald, "receding": _receding, "spiky": _spiky,
    "slicked back": _slicked, "curtains": _curtains, "bowl": _bowl, "flat top": _flat_top, "mohawk": _mohawk,
    "top knot": _tied_back, "shoulder length": _shoulder, "loose": _loose,
}  # fmt: skip
_WORN = {
    "headscarf": headwear.headscarf, "turban": headwear.turban, "headwrap": headwear.headwrap,
    "beanie": headwear.beanie, "beret": headwear.beret, "cap": headwear.cap,
}  # fmt: skip


def _nothing(b: Brush) -> None:
    """Draws nothing."""


def _cut(face: Face) -> str:
    """Returns the haircut, or the one that shows below a covering."""
    if face.cut == "beanie" and face.gender == "female":
        return "loose"
    return "bob" if face.cut == "beret" else face.cut


def draw_back(brush: Brush) -> None:
    """Draws the hair behind the neck and the ears."""
    _BACKS.get(_cut(brush.face), _nothing)(brush)


def draw_front(brush: Brush) -> None:
    """Draws the hair over the forehead, the temples and the shoulders, and headwear."""
    draw_front_hair(brush)
    draw_headwear(brush)


def draw_front_hair(brush: Brush) -> None:
    """Draws the hair over the forehead, the temples and the shoulders."""
    _FRONTS.get(_cut(brush.face), _nothing)(brush)


def draw_headwear(brush: Brush) -> None:
    """Draws what is worn over the hair, and hair at the temples that shows below it."""
    _WORN.get(brush.face.cut, _nothing)(brush)
