"""Identifies held-out portraits of the kept identities by their nearest neighbours among the rest, and shows how.

    python -m data_pipelines.curation.identify CURATION IMAGES [--output DIR] [--held-out 0.2]

writes ``identify.json``, the shares of held-out portraits whose nearest neighbour, and whose nearest centre, is of the right
identity, and ``identify.jpg``, a contact sheet: a held-out portrait, its nearest neighbour of the right identity, and the
nearest of another, with their similarities; first all that are identified wrongly, as far as there is room, then others.
Embeddings are those of the curation, for which a portrait has 112 px along its shorter side.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from data_pipelines import steps
from data_pipelines.curation.measures import centre
from data_pipelines.curation.pixels import central_square
from data_pipelines.curation.step import EMBEDDINGS, STEP
from data_pipelines.portraits.step import Images, read_images
from salmu_jax.runtime import files
from salmu_jax.runtime.errors import InputError

_PURPOSE = 162
_CHUNK = 256  # portraits whose similarities to all others are in memory at once: 256 x 60,000 float32 are 61 MB
_ROWS, _COLUMNS, _SIDE, _TEXT = 8, 4, 150, 18


class Neighbours(NamedTuple):
    """The held-out portraits, and the nearest of the others to each; int [H], similarities float32 [H]."""

    query: np.ndarray
    right: np.ndarray  # nearest of the same identity
    right_similarity: np.ndarray
    wrong: np.ndarray  # nearest of another identity
    wrong_similarity: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """Whether each is identified, bool [H]."""
        return self.right_similarity > self.wrong_similarity


def held_out_rows(numbers: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """Returns which of the portraits of identities ``numbers`` int [N] are held out, bool [N]: a share of each identity."""
    held_out = np.zeros(len(numbers), bool)
    for number in np.unique(numbers):
        rows = np.flatnonzero(numbers == number)
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        rng = np.random.default_rng([seed, _PURPOSE, int(number)])
        held_out[rng.permutation(rows)[:count]] = True
    return held_out


def find_neighbours(vectors: np.ndarray, numbers: np.ndarray, held_out: np.ndarray) -> Neighbours:
    """Finds the nearest neighbours of held-out portraits among the rest.

    Args:
      vectors: float32 [N, D] of length 1.
      numbers: int [N], the identity of each.
      held_out: bool [N]; each identity has some that are and some that are not.
    """
    queries, gallery = np.flatnonzero(held_out), np.flatnonzero(~held_out)
    found: list[tuple[np.ndarray, ...]] = []
    for start in range(0, len(queries), _CHUNK):
        rows = queries[start : start + _CHUNK]
        similarities = vectors[rows] @ vectors[gallery].T
        same = numbers[rows][:, None] == numbers[gallery][None, :]
        right, wrong = np.where(same, similarities, -2), np.where(same, -2, similarities)
        nearest = [(side.argmax(axis=1), side.max(axis=1)) for side in (right, wrong)]
        found.append((rows, gallery[nearest[0][0]], nearest[0][1], gallery[nearest[1][0]], nearest[1][1]))
    return Neighbours(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


def centre_accuracy(vectors: np.ndarray, numbers: np.ndarray, held_out: np.ndarray) -> float:
    """Returns the share of held-out portraits that are nearest to the centre of the rest of their own identity."""
    people = np.unique(numbers)
    centres = np.stack([centre(vectors[~held_out & (numbers == number)]) for number in people])
    return float(np.mean(people[(vectors[held_out] @ centres.T).argmax(axis=1)] == numbers[held_out]))


def identify(
    curation: str | os.PathLike, images: str | os.PathLike, output: str | os.PathLike, *, share: float = 0.2
) -> dict[str, Any]:
    """Writes ``identify.json`` and ``identify.jpg`` below ``output``, and returns the former.

    Args:
      curation: a finished step *curation*.
      images: the step *images* that it is of.
      output: a directory, made if it is not there.
      share: of each identity's portraits that is held out, more than 0 and less than 1.

    Raises InputError for steps that are not finished, and for a share out of range.
    """
    if not 0 < share < 1:
        raise InputError(f"is {share:g}; more than 0 and less than 1 would be right", "the held-out share")
    digests = steps.finished(curation, STEP)["files"]
    with np.load(steps.checked(Path(curation) / EMBEDDINGS, STEP, digests[EMBEDDINGS]), allow_pickle=False) as file:
        names, numbers, vectors = file["names"].tolist(), file["numbers"], file["vectors"].astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    held_out = held_out_rows(numbers, share)
    neighbours = find_neighbours(vectors, numbers, held_out)
    result = {
        "identities": len(np.unique(numbers)),
        "portraits": len(numbers),
        "held_out": int(held_out.sum()),
        "nearest_neighbour_accuracy": round(float(neighbours.correct.mean()), 6),
        "nearest_centre_accuracy": round(centre_accuracy(vectors, numbers, held_out), 6),
        "wrong": int((~neighbours.correct).sum()),
        "embeddings": digests[EMBEDDINGS],
    }
    sheet = contact_sheet(neighbours, names, numbers, read_images(images))
    files.write_bytes(Path(output) / "identify.jpg", sheet)
    files.write_json(Path(output) / "identify.json", result)
    return result


def contact_sheet(neighbours: Neighbours, names: Sequence[str], numbers: np.ndarray, images: Images) -> bytes:
    """Returns a JPEG of up to 32 held-out portraits, each with its nearest right and nearest wrong neighbour."""
    shown = _shown(neighbours)
    trios = [[int(column[row]) for column in (neighbours.query, neighbours.right, neighbours.wrong)] for row in shown]
    pictures = _pictures({row for trio in trios for row in trio}, names, numbers, images)
    width, height = _COLUMNS * (3 * _SIDE + 14), _ROWS * (_SIDE + _TEXT + 8)
    sheet = Image.new("RGB", (width, height), (246, 247, 248))
    draw = ImageDraw.Draw(sheet)
    for place, (row, trio) in enumerate(zip(shown, trios, strict=True)):
        left, top = (place % _COLUMNS) * (3 * _SIDE + 14), (place // _COLUMNS) * (_SIDE + _TEXT + 8)
        for column, portrait in enumerate(trio):
            sheet.paste(pictures[portrait], (left + column * _SIDE, top + _TEXT))
        right, wrong = neighbours.right_similarity[row], neighbours.wrong_similarity[row]
        identified = "identified" if right > wrong else "WRONG"
        texts = (f"{numbers[trio[0]]:08d} {identified}", f"same {right:.3f}", f"{numbers[trio[2]]:08d} {wrong:.3f}")
        for column, text in enumerate(texts):
            colour = (24, 28, 33) if right > wrong else (172, 30, 20)
            draw.text((left + column * _SIDE + 3, top + 2), text, fill=colour, font_size=12)
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _shown(neighbours: Neighbours) -> list[int]:
    """Returns the wrong ones, up to half a sheet; then the closest calls, a quarter; then some at even distances."""
    room = _ROWS * _COLUMNS
    margins = neighbours.right_similarity - neighbours.wrong_similarity
    order = np.argsort(margins, kind="stable").tolist()
    wrong = [row for row in order if margins[row] <= 0][: room // 2]
    close = [row for row in order if margins[row] > 0][: room // 4]
    rest = np.linspace(0, len(order) - 1, room).astype(int).tolist()
    return list(dict.fromkeys([*wrong, *close, *rest]))[:room]


def _pictures(wanted: set[int], names: Sequence[str], numbers: np.ndarray, images: Images) -> dict[int, Image.Image]:
    rows = {names[row]: row for row in wanted}
    found = {}
    for number in sorted({int(numbers[row]) for row in wanted}):
        for portrait in images.portraits(number):
            if portrait.file_name in rows:
                found[rows[portrait.file_name]] = central_square(portrait.image, _SIDE - 2, portrait.file_name)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m data_pipelines.curation.identify", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("curation", help="a finished step curation")
    parser.add_argument("images", help="the step images that it is of")
    parser.add_argument("--output", help="where to write; CURATION by default")
    parser.add_argument("--held-out", type=float, default=0.2, help="share of each identity's portraits")
    options = parser.parse_args(arguments)
    try:
        output = options.output or options.curation
        result = identify(options.curation, options.images, output, share=options.held_out)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(
        f"{result['held_out']:,} held-out portraits of {result['identities']} identities:"
        f" nearest neighbour {result['nearest_neighbour_accuracy']:.2%}, nearest centre"
        f" {result['nearest_centre_accuracy']:.2%} ({Path(output) / 'identify.jpg'})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
