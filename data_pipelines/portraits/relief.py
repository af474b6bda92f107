"""Models the relief of a face and its hair, from which light is computed: heights and normals on the plane of ``plane``."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from data_pipelines.portraits.looks import Look
from data_pipelines.portraits.plane import COARSE, U, blur, both, bump, grid


class Relief(NamedTuple):
    """Heights towards the viewer and what light depends on; float32 [height, width] of the coarse plane."""

    height: np.ndarray  # head units
    normal: np.ndarray  # [3, height, width], of length 1: to the right, down, and towards the viewer
    open: np.ndarray  # how much of the sky a place sees, in [0, 1]
    gloss: np.ndarray  # how oily the skin is, in [0, 1]


def jaw_width(look: Look, y: np.ndarray) -> np.ndarray:
    """Returns the half-width of the face at heights ``y``, 0 above and below it."""
    forehead, cheek, jaw, chin = look.face.widths
    low = look.face.chin
    heights = [-1.02, -0.98, -0.86, -0.66, -0.34, 0.02, 0.3 * low, 0.62 * low, 0.86 * low, 0.96 * low, low]
    widths = [0.0, 0.3, 0.6, forehead * 0.94, forehead * 1.02, cheek, cheek * 0.97, jaw, chin * 1.3, chin * 0.8, 0.0]
    return np.interp(y, heights, widths).astype(np.float32)


def make_relief(look: Look) -> Relief:
    """Models the relief of a face."""
    x, y = grid(COARSE)
    face = look.face
    wide = np.maximum(jaw_width(look, y), 0.08)
    inside = np.clip(1.0 - (x / wide) ** 2, 0.0, 1.0)
    across = np.sqrt(inside * 0.92 + 0.08 * (inside > 0))
    low = face.chin
    down = np.sqrt(np.clip(1.0 - np.abs((y + 0.02) / (1.06 if low < 1.0 else low + 0.05)) ** 3.2, 0.0, 1.0))
    z = 0.62 * across * down

    spacing, size = face.eye_spacing, face.eye_size
    nose_low, w = 0.06 + face.nose_length + 0.03 * look["nose_y"], face.nose_width
    seam = mouth_y(look)
    bridge = np.interp(y, [-0.3, -0.1, 0.05, nose_low - 0.06, nose_low + 0.02, nose_low + 0.1],
                       [0.0, 0.035 + 0.02 * look["bridge"], 0.07 + 0.03 * look["bridge"] + 0.02 * look["hook"],
                        0.19 + 0.03 * look["nose_tip"], 0.15, 0.0]).astype(np.float32)  # fmt: skip
    thick = np.interp(y, [-0.2, 0.0, nose_low - 0.06, nose_low + 0.05], [0.075, 0.06, 0.62 * w, 0.7 * w]).astype(
        np.float32
    )
    z = z + bridge * np.exp(-((x / thick) ** 2))
    z += 0.055 * both(x, y, 0.78 * w, nose_low - 0.03, 0.3 * w, 0.055)
    z += (0.03 + 0.025 * look["brow_ridge"]) * both(x, y, 0.3, -0.19, 0.26, 0.08)
    z -= (0.075 + 0.025 * look["socket"]) * both(x, y, spacing - 0.04, -0.03, 0.21, 0.13)
    z += 0.05 * both(x, y, spacing, 0.0, 0.11 * size, 0.09 * size)
    z += (0.045 + 0.035 * look["cheekbone"]) * both(x, y, 0.47, 0.23, 0.2, 0.13)
    z += 0.045 * look["cheek"] * both(x, y, 0.44, 0.5, 0.22, 0.2)
    z += 0.04 * bump(x, y, 0.0, seam, 0.26, 0.2)
    lip = 0.03 + 0.02 * face.lip_fullness
    z += lip * bump(x, y, 0.0, seam + 0.065 * face.lip_fullness, face.mouth_width * 0.75, 0.05)
    z += 0.8 * lip * bump(x, y, 0.0, seam - 0.045 * face.lip_fullness, face.mouth_width * 0.8, 0.04)
    z -= 0.03 * bump(x, y, 0.0, seam + 0.5 * (low - seam) - 0.04, 0.22, 0.045)
    z += (0.06 + 0.03 * look["chin"]) * bump(x, y, 0.0, low - 0.13, 0.2, 0.1)
    z -= 0.02 * max(0.0, look["cleft"]) * bump(x, y, 0.0, low - 0.12, 0.03, 0.07)
    z -= 0.014 * (1 + look["philtrum"]) * bump(x, y, 0.0, 0.5 * (nose_low + seam) + 0.02, 0.035, 0.06)
    z -= 0.04 * both(x, y, 0.68, -0.3, 0.14, 0.25)
    if face.age != "young":
        depth = 0.012 if face.age == "middle-aged" else 0.026
        z -= depth * both(x + 0.0, y, 0.3, 0.5, 0.04, 0.16) + 0.6 * depth * both(x, y, 0.46, 0.6, 0.08, 0.2)
        z += depth * (1.0 + look["bags"]) * both(x, y, spacing, 0.15, 0.13, 0.05)

    blurred = blur(z, 0.12 * U / COARSE)
    narrow = blur(z, 0.035 * U / COARSE)
    cavity = np.clip((blurred - z) * 5.5, -0.3, 1.0) + np.clip((narrow - z) * 9.0, -0.2, 0.8)
    edge = inside < 0.05
    cavity[np.broadcast_to(edge, cavity.shape)] = 0.0
    gloss = (bump(x, y, 0.0, nose_low - 0.08, 0.1, 0.12) + 0.5 * bump(x, y, 0.0, 0.05, 0.08, 0.3)
             + 0.55 * bump(x, y, 0.0, -0.5, 0.4, 0.2) + 0.45 * both(x, y, 0.45, 0.22, 0.2, 0.14)
             + 0.25 * bump(x, y, 0.0, low - 0.12, 0.16, 0.08)
             + 0.5 * bump(x, y, 0.0, seam + 0.08, 0.16, 0.04))  # fmt: skip
    return Relief(z, normals(z), np.clip(1.0 - 0.5 * cavity, 0.45, 1.12), np.clip(gloss, 0.08, 1.0))


def normals(height: np.ndarray) -> np.ndarray:
    """Returns the normals of a field of heights, [3, height, width]."""
    smooth = blur(height, 1.1)
    along_y, along_x = np.gradient(smooth, COARSE / U)
    along_x, along_y = np.clip(along_x, -2.4, 2.4), np.clip(along_y, -2.4, 2.4)
    length = np.sqrt(along_x**2 + along_y**2 + 1.0)
    return np.stack([-along_x / length, -along_y / length, 1.0 / length]).astype(np.float32)


def mouth_y(look: Look) -> float:
    """Returns the height of the seam of the lips."""
    return 0.5 * (0.06 + look.face.nose_length) + 0.5 * look.face.chin - 0.03 + 0.03 * look["mouth_height"]


def dome(look: Look) -> np.ndarray:
    """Returns the normals of the hair's volume, as of an egg that hangs down as a cylinder; [3, height, width]."""
    x, y = grid(COARSE)
    reach = look.face.widths[1] + 0.3
    across = np.clip(x / reach, -0.97, 0.97)
    down = np.clip((np.minimum(y, -0.2) + 0.2) / 1.1, -0.95, 0.0)
    front = np.sqrt(np.maximum(0.04, 1.0 - across**2 - down**2))
    length = np.sqrt(across**2 + down**2 + front**2)
    parts = np.broadcast_arrays(across, down, front)
    return np.stack([part / length for part in parts]).astype(np.float32)


def turned(direction: tuple[float, float, float], yaw: float, tilt: float) -> tuple[float, float, float]:
    """Returns the direction of a light as a head sees it that is turned."""
    x, y, z = direction
    x, z = x * math.cos(yaw) - z * math.sin(yaw), x * math.sin(yaw) + z * math.cos(yaw)
    return x * math.cos(tilt) - y * math.sin(tilt), x * math.sin(tilt) + y * math.cos(tilt), z
