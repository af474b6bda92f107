"""Turns a painted head: which place of the plane is seen at a pixel, and resampling by a mesh of quadrilaterals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines.portraits.looks import Look
from data_pipelines.portraits.plane import LEFT, TOP, U


class Pose:
    """Where a head is in the picture, and how it is turned."""

    def __init__(self, centre: tuple[float, float], unit: float, yaw: float, pitch: float, tilt: float, look: Look):
        self.unit, self.yaw, self.tilt = unit, yaw, tilt
        self._sin, self._cos, self._pitch = math.sin(yaw), math.cos(yaw), math.sin(pitch)
        cos, sin = math.cos(tilt) * unit, math.sin(tilt) * unit
        self.matrix = np.array([[cos, sin], [-sin, cos]])
        neck = np.array([0.0, 0.9])
        self.origin = np.array(centre) + neck * unit - neck @ self.matrix
        self._inverse = np.linalg.inv(self.matrix)
        self._nose = 0.02 + look.face.nose_length

    def box(self, box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Returns the part of a picture of ``size`` that a part of the plane may fill."""
        left, top, right, bottom = (box[0] / U + LEFT, box[1] / U + TOP, box[2] / U + LEFT, box[3] / U + TOP)
        corners = np.array([(left, top), (right, top), (left, bottom), (right, bottom)]) @ self.matrix + self.origin
        reach = 0.12 * self.unit  # what turning moves out of the box
        low, high = np.floor(corners.min(axis=0) - reach).astype(int), np.ceil(corners.max(axis=0) + reach).astype(int)
        return (max(0, int(low[0])), max(0, int(low[1])), min(size[0], int(high[0])), min(size[1], int(high[1])))

    def source(self, x: np.ndarray, y: np.ndarray, turn: float = 1.0) -> np.ndarray:
        """Returns the places [n, 2] of the plane, in head units, that are seen at pixels ``x``, ``y``."""
        seen = (np.stack([x, y], axis=-1) - self.origin) @ self._inverse
        at = seen.copy()
        if turn == 0.0:
            return at
        for _ in range(6):
            depth = self._depth(at)
            at[..., 0] = (seen[..., 0] - turn * depth * self._sin) / (1.0 - turn * (1.0 - self._cos) * 0.5)
            at[..., 1] = seen[..., 1] - turn * depth * self._pitch
        return at

    def _depth(self, at: np.ndarray) -> np.ndarray:
        x, y = at[..., 0], at[..., 1]
        ball = 0.5 * np.maximum(0.0, 1.0 - (x / 1.02) ** 2 - (y / 1.5) ** 2)
        nose = 0.13 * np.exp(-((x / 0.2) ** 2)) * np.exp(-(((y - self._nose) / 0.22) ** 2))
        return ball + nose


def mesh(
    corner: tuple[int, int], pose: Pose, box: tuple[int, int, int, int], nodes: int, turn: float, step: int = 1
) -> tuple[tuple[int, int], list[Any]]:
    """Returns the size of a picture of ``box``, reduced by ``step``, and the mesh that resamples a layer into it.

    Args:
      corner: of the plane; the layer's first pixel.
      pose: of the head.
      box: pixels of the portrait.
      nodes: quadrilaterals along each side.
      turn: the share of the turn that the layer takes part in.
      step: of a layer that is reduced by as much.
    """
    size = (-(-(box[2] - box[0]) // step), -(-(box[3] - box[1]) // step))
    xs, ys = (np.round(np.linspace(0, side, nodes + 1)).astype(int) for side in size)
    x, y = np.meshgrid(box[0] + step * xs.astype(float), box[1] + step * ys.astype(float))
    at = pose.source(x, y, turn)
    at = ((at - (LEFT, TOP)) * U - corner) / step
    quads = np.concatenate([at[:-1, :-1], at[1:, :-1], at[1:, 1:], at[:-1, 1:]], axis=-1).reshape(-1, 8).tolist()
    lefts, tops = xs.tolist(), ys.tolist()
    boxes = [(lefts[i], tops[j], lefts[i + 1], tops[j + 1]) for j in range(nodes) for i in range(nodes)]
    filled = (one[0] < one[2] and one[1] < one[3] for one in boxes)  # a small picture has fewer pixels than nodes
    return size, [(one, tuple(quad)) for one, quad, keep in zip(boxes, quads, filled, strict=True) if keep]


def resampled(bands: Image.Image, size: tuple[int, int], quads: list[Any]) -> Image.Image:
    """Resamples four bands by a mesh, as a CMYK image: a mode with alpha would be multiplied by it."""
    return bands.transform(size, Image.Transform.MESH, quads, Image.Resampling.BILINEAR)


def parted(bands: Image.Image) -> tuple[Image.Image, Image.Image]:
    """Returns the first three bands as RGB, and the fourth."""
    red, green, blue, fourth = bands.split()
    return Image.merge("RGB", (red, green, blue)), fourth
