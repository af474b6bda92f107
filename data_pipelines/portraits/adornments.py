"""Paints glasses and earrings, which a person wears in every portrait."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from data_pipelines.portraits.looks import Look
from data_pipelines.portraits.plane import easel, moved
from data_pipelines.world.canvas import darker, lighter, oval
from data_pipelines.world.faces import FRAMES
from data_pipelines.world.portraits import rims

GOLD = (226, 178, 74)


def paint_worn(look: Look) -> Image.Image | None:
    """Returns glasses and earrings, RGBA of the size of layers; None for a person without."""
    face = look.face
    if face.glasses == "none" and (face.earrings == "none" or face.cut == "headscarf"):
        return None
    image, canvas, head = easel("RGBA")
    unit = head.unit
    if face.earrings != "none" and face.cut != "headscarf":
        x, y = face.widths[1] + 0.035, 0.29 * face.ear_size + 0.03
        for s in (-1.0, 1.0):
            if face.earrings == "studs":
                canvas.dots(head.outline([(s * x, y - 0.05)]), 0.04 * unit, darker(GOLD, 0.25))
                canvas.dots(head.outline([(s * x - 0.008, y - 0.058)]), 0.026 * unit, lighter(GOLD, 0.5))
            elif face.earrings == "hoops":
                ring = head.outline(oval(s * (x + 0.01), y + 0.12, 0.1, 0.14, 14))
                canvas.stroke(ring, 0.034 * unit, darker(GOLD, 0.25), closed=True)
                canvas.stroke(ring - 1, 0.014 * unit, lighter(GOLD, 0.45), closed=True)
            else:
                canvas.stroke(head.outline([(s * x, y - 0.04), (s * x, y + 0.06)]), 0.014 * unit, GOLD)
                canvas.blob(
                    head.outline(
                        [(s * x, y + 0.04), (s * x + 0.05, y + 0.17), (s * x, y + 0.23), (s * x - 0.05, y + 0.17)]
                    ),
                    GOLD,
                )
                canvas.dots(head.outline([(s * x - 0.012, y + 0.15)]), 0.018 * unit, lighter(GOLD, 0.7))
    if face.glasses == "none":
        return image.reduce(2)
    colour, x = FRAMES[face.frame_name], max(face.eye_spacing, 0.32)
    thick = {"aviator": 0.026, "browline": 0.03, "cat-eye": 0.05, "round": 0.034}.get(face.glasses, 0.045) * unit
    rim = np.asarray(rims(x)[face.glasses])
    bridge = [(-x + 0.23, -0.05), (0.0, -0.1), (x - 0.23, -0.05)]
    browline = [(x - 0.24, -0.13), (x, -0.18), (x + 0.27, -0.16)]
    temple = [(x + 0.25, -0.07), (0.97 * face.widths[1], -0.08)]
    for shade, shift in ((darker(colour, 0.35), 1.5), (colour, 0.0), (lighter(colour, 0.45), -1.5)):
        width = thick if shift >= 0 else 0.3 * thick
        for s in (-1.0, 1.0):
            canvas.stroke(moved(head.surface(rim * (s, 1.0)), 0, shift), width, shade, closed=True)
            if face.glasses == "browline":
                bar = max(width, 0.075 * unit) if shift >= 0 else width
                canvas.stroke(moved(head.surface(np.array(browline) * (s, 1.0)), 0, shift), bar, shade)
            canvas.stroke(moved(head.surface(np.array(temple) * (s, 1.0)), 0, shift), 0.8 * width, shade)
        canvas.stroke(moved(head.surface(bridge), 0, shift), 0.9 * width, shade)
    frames = image.reduce(2)
    glass, canvas, head = easel("RGBA")
    for s in (-1.0, 1.0):
        canvas.blob(head.surface(rim * (s, 1.0)), (214, 232, 246, 20))
        gleam = [(s * x - 0.12, 0.1), (s * x + 0.03, -0.13), (s * x + 0.08, -0.13), (s * x - 0.05, 0.13)]
        canvas.fill(head.surface(gleam), (255, 255, 255, 34))
    shadow = Image.new("RGBA", frames.size, (30, 14, 12, 0))
    cast = frames.getchannel("A").filter(ImageFilter.GaussianBlur(3))
    shadow.putalpha(
        cast.transform(cast.size, Image.Transform.AFFINE, (1, 0, 0, 0, 1, -6)).point(
            [round(0.3 * v) for v in range(256)]
        )
    )
    return Image.alpha_composite(Image.alpha_composite(shadow, glass.reduce(2)), frames)
